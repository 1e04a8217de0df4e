"""The I/O of one request: its body within limits, and a response whose frames are written as they come."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, aclosing, asynccontextmanager, nullcontext
from typing import Any

import trio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from agentloop._runtime.exception_groups import raise_single
from agentloop.serving._errors import Refusal
from agentloop.serving.protocols._base import json_of

__all__ = ["BodyLimits", "Chunk", "FrameResponse", "JsonResponse", "UnreadBody", "connected", "read_body"]

KEEP_ALIVE_SECONDS = 15.0
"""A comment is sent after so long without an event: proxies close connections on which nothing comes."""

DISCARDED_BYTES = 1_000_000
DISCARD_SECONDS = 1.0
"""Seconds that a client has to send a body that nothing reads."""

CLOSE = (b"connection", b"close")

Chunk = Callable[[bytes], Awaitable[None]]
"""Writes a piece of the response."""


class JsonResponse(Response):
    """A response with JSON."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The bytes of the body, if they are not there already."""
        return content if isinstance(content, bytes) else json_of(content)


class BodyLimits:
    """Limits of a request's body.

    Args:
      max_bytes: its length.
      seconds: the time in which the client has to send it.
    """

    def __init__(self, max_bytes: int, seconds: float) -> None:
        self.max_bytes = max_bytes
        self.seconds = seconds


async def read_body(request: Request, limits: BodyLimits) -> bytes:
    """Read the body of a request that has JSON.

    Raises:
      Refusal: it is too long, comes too slowly, or is not said to be JSON.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refusal(415, "the body of the request is JSON: send the header content-type: application/json")
    too_long = Refusal(
        413, f"the body of a request has {limits.max_bytes} bytes at most", headers={"connection": "close"}
    )
    length = request.headers.get("content-length", "0")
    if not length.isascii() or not length.isdigit() or int(length) > limits.max_bytes:
        raise too_long
    body = bytearray()
    with trio.move_on_after(limits.seconds) as scope:
        try:
            async with aclosing(request.stream()) as pieces:
                async for piece in pieces:
                    body += piece
                    if len(body) > limits.max_bytes:
                        raise too_long
        except ClientDisconnect as error:
            raise Refusal(400, "the client went away before it had sent its request") from error
    if scope.cancelled_caught:
        raise Refusal(408, f"the request was not sent within {limits.seconds:g} s", headers={"connection": "close"})
    return bytes(body)


class UnreadBody:
    """The part of a request's body that was not read yet.

    A server may use a connection for the next request only after the body of the last one. Many clients send head and
    body apart, so a response can be complete before the body comes; hypercorn then closes the connection without a
    word, and the client's next request gets no response.

    Args:
      scope: the request.
      receive: the function of the server that gives the body.
    """

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._receive = receive
        self._has_connections = scope.get("http_version", "1.1").startswith("1")  # later versions know no such header
        self._is_read = False
        self._readers = 0

    async def receive(self) -> Message:
        """Give the next message of the server."""
        self._readers += 1
        try:
            message = await self._receive()
        finally:
            self._readers -= 1
        if message["type"] != "http.request" or not message.get("more_body", False):
            self._is_read = True
        return message

    async def discard(self, headers: Sequence[tuple[bytes, bytes]]) -> Sequence[tuple[bytes, bytes]]:
        """Read the rest, before the head of the response is sent.

        Returns:
          The headers of the response: with one that ends the connection, if the body is too long or comes too slowly.
        """
        if any(name.lower() == CLOSE[0] for name, _ in headers):
            return headers  # noqa: ASYNC910 - the head is sent next
        size = 0
        with trio.move_on_after(DISCARD_SECONDS):
            # Where the endpoint waits for the client's end, it reads the rest itself.
            while not self._is_read and not self._readers and size <= DISCARDED_BYTES:
                size += len((await self.receive()).get("body", b""))
        return headers if self._is_read or self._readers or not self._has_connections else [*headers, CLOSE]


@asynccontextmanager
async def connected(receive: Receive) -> AsyncGenerator[None]:
    """Cancel the block when the client goes away. The block is left without an error then."""
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_until_gone, receive, nursery.cancel_scope)
            yield
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        raise_single(group)


async def _until_gone(receive: Receive, scope: trio.CancelScope) -> None:
    message: Message = {"type": ""}
    while message["type"] != "http.disconnect":
        message = await receive()
    scope.cancel()


class FrameResponse(Response):
    """A response whose frames are written as they come, until the function returns or the client goes away.

    Args:
      write: writes the frames, with the function that it is called with.
      headers: headers of the response.
      block: a block around all of the response, its head too: the run that it reads has a reader.
    """

    def __init__(
        self,
        write: Callable[[Chunk], Awaitable[None]],
        headers: Mapping[str, str] | None = None,
        *,
        block: AbstractContextManager[None] | None = None,
    ) -> None:
        self._write = write
        self._block = nullcontext() if block is None else block
        # Without compression and buffers: a proxy such as nginx would hold the frames back.
        given = {"content-type": "text/event-stream", "x-accel-buffering": "no", **(headers or {})}
        self._raw_headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in given.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Write the response."""

        async def chunk(data: bytes) -> None:
            if data:
                await send({"type": "http.response.body", "body": data, "more_body": True})
            else:
                await trio.lowlevel.checkpoint()

        with self._block:
            await send({"type": "http.response.start", "status": 200, "headers": self._raw_headers})
            is_whole = False
            async with connected(receive):
                await self._write(chunk)
                is_whole = True
            if is_whole:
                # Outside of the block: the server reports a disconnect while it sends the end, and must not be
                # cancelled before it has closed the connection, or made it ready for the next request.
                await send({"type": "http.response.body", "body": b"", "more_body": False})
