"""A client of a model server that a competent engineer writes by hand, on nothing but a socket.

It speaks just enough HTTP/1.1 for a server that behaves: chunked responses on one connection that is kept. No TLS,
no errors but those of the socket, no other framing.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import msgspec
import trio

from tests.bench.bare import Message, Model
from tests.bench.work import Call

__all__ = ["open_model"]


class Function(msgspec.Struct):
    name: str | None = None
    arguments: str = ""


class CallDelta(msgspec.Struct):
    index: int
    function: Function
    id: str | None = None


class Delta(msgspec.Struct):
    content: str | None = None
    tool_calls: list[CallDelta] = []


class Choice(msgspec.Struct):
    delta: Delta


class Chunk(msgspec.Struct):
    choices: list[Choice]


_decoder = msgspec.json.Decoder(Chunk)
_encoder = msgspec.json.Encoder()


@asynccontextmanager
async def open_model(url: str, tools: Sequence[dict[str, Any]]) -> AsyncGenerator[Model]:
    """A model behind ``url``, on one connection that is closed when the block ends."""
    parts = urlsplit(url)
    head = (
        f"POST {parts.path}/chat/completions HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        "Authorization: Bearer key\r\nContent-Type: application/json\r\nContent-Length: "
    ).encode()
    assert parts.hostname is not None
    assert parts.port is not None
    stream = await trio.open_tcp_stream(parts.hostname, parts.port)

    async def model(messages: list[Message]) -> AsyncGenerator[str | Call]:
        request = {"model": "bench", "stream": True, "messages": messages, "tools": tools}
        body = _encoder.encode(request | {"stream_options": {"include_usage": True}})
        await stream.send_all(b"%s%d\r\n\r\n%s" % (head, len(body), body))
        calls: dict[int, list[str]] = {}
        response = _Response(stream.receive_some)
        await response.read_head()
        while (events := await response.read()) is not None:
            for event in events:
                if event == b"data: [DONE]":
                    continue
                for choice in _decoder.decode(event[6:]).choices:
                    if choice.delta.content:
                        yield choice.delta.content
                    for piece in choice.delta.tool_calls:
                        call = calls.setdefault(piece.index, [piece.id or "", piece.function.name or "", ""])
                        call[2] += piece.function.arguments
        for id, name, arguments in calls.values():
            yield Call(id, name, arguments)

    async with stream:
        yield model


class _Response:
    """Takes a response apart."""

    def __init__(self, receive: Callable[[], Any]) -> None:
        self._receive = receive
        self._data = b""
        self._event = b""
        self._ended = False

    async def read_head(self) -> None:
        while b"\r\n\r\n" not in self._data:
            self._data += await self._receive()
        head, _, self._data = self._data.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head

    async def read(self) -> list[bytes] | None:
        """The events that have come; ``None`` at the end."""
        if self._ended:
            return None
        text, at = [self._event], 0
        while (end := self._data.find(b"\r\n", at)) >= 0:
            size = int(self._data[at:end], 16)
            if len(self._data) < end + size + 4:
                break
            text.append(self._data[end + 2 : end + 2 + size])
            at = end + size + 4
            self._ended = size == 0
        self._data = self._data[at:]
        *events, self._event = b"".join(text).split(b"\n\n")
        if not self._ended and not events:
            self._data += await self._receive()
        return events
