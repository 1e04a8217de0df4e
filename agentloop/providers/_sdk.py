"""The SDK transport: a client of a provider's own SDK signs, addresses and sends; the answer is read here.

A request goes through the client's ``post``, the documented way to a path of one's choice, on which the clients for
Azure, Bedrock, Vertex and gateways do their part. From the stream that it returns, the transport takes the bytes and
not the SDK's objects, for these reasons, each of which was seen to matter (openai 3.54, anthropic 2.12):

- The SDK's stream stops at ``[DONE]`` or at an error in mid-stream, and leaves its generators and httpx2's to the
  garbage collector, for which trio warns. The readers of the formats read on to the end.
- The SDK drops pings, the only sign of a model that thinks in silence.
- The SDK's exception for an error in mid-stream contains less than the error did.
- The readers of the formats accept an unknown event, and an answer that is no stream.

The connections are the client's. The transport cannot make up for httpx2 (2.16) in one case: a request that is
cancelled during the TLS handshake leaves its socket to the garbage collector.
"""

from __future__ import annotations

import ssl
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from inspect import iscoroutinefunction
from typing import Any, Protocol, cast

import httpx2
import trio
from attrs import frozen

from agentloop._core.json_text import decode_own
from agentloop.errors import ModelConnectionError, ModelError, ModelProtocolError, UsageError
from agentloop.providers._bedrock_frames import FRAMES_TYPE, FrameParser
from agentloop.providers._events import WireEvents, root_cause
from agentloop.providers._failures import failure
from agentloop.providers._network import check_network

__all__ = ["Sdk", "SdkClient", "SdkStream", "SdkTransport", "check_is_async"]

UNWINDING_STEPS = 10_000
"""Upper bound of the buffered pieces that are dropped when a response is left early. httpx2 reads 64 KiB at once and
rarely yields an empty piece, so only an unusual transport has more."""
CLOSING_SECONDS = 5.0


class SdkClient(Protocol):
    """The part of an SDK's client that all clients share."""

    @property
    def base_url(self) -> object:
        """The URL of its requests."""
        ...


class SdkStream(Protocol):
    """An SDK's stream."""

    response: httpx2.Response
    """The answer. Its status is a success, and nothing of it was read."""


class _Refusal(Protocol):
    """An SDK's error for an answer whose status is no success."""

    status_code: int
    response: httpx2.Response


class _Failure(Protocol):
    """An SDK's error for a server that could not be reached."""

    request: httpx2.Request


@frozen
class Sdk:
    """The exceptions of an SDK."""

    api_error: type[Exception]
    """The base class of all of them."""
    status_error: type[Exception]
    """The status of the answer is no success."""
    connection_error: type[Exception]
    """The server did not answer."""
    timeout_error: type[Exception]
    """The client's own timeout ran out."""


class SdkTransport:
    """Sends requests through the client of an SDK.

    Args:
      sdk: the exceptions of the SDK.
      client: the client, which stays the user's to close.
      send: sends a request body through the client, and returns its stream. The body is an object, since clients for
        other clouds move parts of it to the URL.
    """

    __slots__ = ("_client", "_sdk", "_send")

    def __init__(self, sdk: Sdk, client: SdkClient, send: Callable[[dict[str, Any]], Awaitable[SdkStream]]) -> None:
        self._sdk = sdk
        self._client = client
        self._send = send

    @property
    def identity(self) -> object:
        """A value that two transports share if they go to the same place with the same credentials."""
        return self._client

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[SdkTransport]:
        """The transport itself: the client holds the connections, and keeps them until the user closes it."""
        yield self

    @asynccontextmanager
    async def post(self, body: bytes, *, model: str) -> AsyncGenerator[WireEvents]:
        """Send ``body``, and yield the events of the answer as they arrive.

        When the block ends, reading stops, and no generator is left half-way. The connection goes back to the client
        if the answer was read to its end, else it is closed.

        Raises:
          NetworkForbiddenError: models behind a network are forbidden here.
          ModelStatusError: the status of the answer is no success.
          ModelConnectionError: the server did not answer.
          ModelProtocolError: the SDK cannot read the answer.
        """
        check_network(model=model, url=str(self._client.base_url))
        failures = _connection_failures()
        response = (await self._stream(body, model, failures)).response
        chunks = response.aiter_bytes()
        content_type = response.headers.get("content-type", "")
        unframed = _Unframed(model, chunks) if content_type.startswith(FRAMES_TYPE) else chunks
        try:
            yield WireEvents(model, unframed, content_type, failures)
        finally:
            with trio.move_on_after(CLOSING_SECONDS, shield=True):
                await _unwind(chunks)
                # After unwinding, only a transport of the user's own may still hold something.
                await response.aclose()

    async def _stream(self, body: bytes, model: str, failures: tuple[type[Exception], ...]) -> SdkStream:
        try:
            return await self._send(decode_own(body))
        except self._sdk.status_error as error:
            raise _refused(model, cast("_Refusal", error), str(error)) from error
        except self._sdk.connection_error as error:
            url = cast("_Failure", error).request.url
            timeout = "the client's own timeout is over" if isinstance(error, self._sdk.timeout_error) else ""
            raise ModelConnectionError(
                f"model {model!r}: no answer from {url.scheme}://{url.netloc.decode('ascii')}: "
                f"{timeout or root_cause(error)}"
            ) from error
        except self._sdk.api_error as error:
            raise ModelProtocolError(f"model {model!r}: {error}") from error
        except failures as error:
            # The answer was cut off while the SDK read the body of an error.
            raise ModelConnectionError(f"model {model!r}: the connection dropped: {root_cause(error)}") from error


class _Unframed:
    """The events of an answer in Bedrock's frames, in the form of server-sent events."""

    __slots__ = ("_chunks", "_model", "_parser")

    def __init__(self, model: str, chunks: AsyncIterator[bytes]) -> None:
        self._model = model
        self._chunks = chunks
        self._parser = FrameParser()

    def __aiter__(self) -> _Unframed:
        return self

    async def __anext__(self) -> bytes:
        chunk = await anext(self._chunks)
        try:
            return b"".join(b"data: %s\n\n" % event for event in self._parser.feed(chunk))
        except ValueError as error:
            raise ModelProtocolError(f"model {self._model!r} sent {error}") from error


async def _unwind(chunks: AsyncIterator[bytes]) -> None:
    """Stop reading, and leave no generator half-way.

    An SDK's stream is half a dozen generators, one inside the other, none of which closes the next. If they are left
    where they stand, each waits for the garbage collector, and the connection stays open until then. Only an error
    that comes from the innermost generator ends them all; so a cancelled task asks the network for more.
    """
    with trio.CancelScope() as scope:
        scope.cancel()
        # Errors of the rest of the answer do not matter any more.
        with suppress(StopAsyncIteration, Exception):
            for _ in range(UNWINDING_STEPS):
                await anext(chunks)


def check_is_async(client: object, example: str) -> None:
    """Check that ``client`` is asynchronous.

    Args:
      client: the client.
      example: an expression that makes an asynchronous client, for the error.

    Raises:
      UsageError: the client is synchronous, and would block all other tasks.
    """
    if not iscoroutinefunction(getattr(client, "post", None)):
        raise UsageError(f"{type(client).__name__} is no asynchronous client of the SDK: give one such as {example}")


def _refused(model: str, error: _Refusal, message: str) -> ModelError:
    response = error.response
    return failure(
        model=model,
        status=error.status_code,
        body=(response.text if response.is_stream_consumed else message).strip(),
        headers={name.lower(): value for name, value in response.headers.items()},
    )


def _connection_failures() -> tuple[type[Exception], ...]:
    """The exceptions of an answer whose connection drops."""
    failures = (httpx2.RequestError, httpx2.StreamError, ssl.SSLError, trio.BrokenResourceError)
    # OpenAI's SDK also accepts a client of the old httpx, which agentloop does not depend on.
    httpx = sys.modules.get("httpx")
    return failures if httpx is None else (*failures, httpx.RequestError, httpx.StreamError)
