"""An HTTP server on loopback that says what the test has it say, byte by byte, and remembers what it heard."""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import trio
from attrs import Factory, define, frozen

CERTIFICATE = Path(__file__).with_name("localhost.pem")
"""Of ``localhost``, signed by itself."""


@frozen
class Request:
    line: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


class Peer:
    """The server's end of a connection."""

    def __init__(self, stream: trio.abc.Stream, server: Server) -> None:
        self._stream = stream
        self._server = server
        self._buffer = b""

    async def request(self) -> Request | None:
        """The next request; ``None`` if the client has closed the connection."""
        while b"\r\n\r\n" not in self._buffer:
            if not await self._receive():
                return None
        head, self._buffer = self._buffer.split(b"\r\n\r\n", 1)
        line, *fields = head.decode("ascii").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
        length = int(headers.get("content-length", 0))
        while len(self._buffer) < length:
            if not await self._receive():
                return None
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        request = Request(line, headers, body)
        self._server.requests.append(request)
        return request

    async def _receive(self) -> bool:
        try:
            data = await self._stream.receive_some()
        except trio.BrokenResourceError:
            return False
        self._buffer += bytes(data)
        return bool(data)

    async def send(self, *pieces: bytes) -> None:
        """Send ``pieces``, one after the other."""
        for piece in pieces:
            await self._stream.send_all(piece)

    async def until_closed(self) -> None:
        """Wait until the client has closed the connection."""
        while await self._receive():
            pass

    async def close(self) -> None:
        await self._stream.aclose()

    async def reset(self) -> None:
        """Close the connection as a machine does that has crashed."""
        assert isinstance(self._stream, trio.SocketStream)
        self._stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await self._stream.aclose()


@define
class Server:
    url: str
    requests: list[Request] = Factory(list)
    connections: int = 0
    closed_by_client: trio.Event = Factory(trio.Event)


Handler = Callable[[Peer], Awaitable[None]]


@asynccontextmanager
async def serving(handler: Handler, *, tls: bool = False) -> AsyncGenerator[Server]:
    """A server that calls ``handler`` for each connection, and closes the connection when that returns."""
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        server = Server(f"http{'s' if tls else ''}://localhost:{port}/v1")

        async def handle(stream: trio.abc.Stream) -> None:
            server.connections += 1
            async with stream:
                peer = Peer(stream, server)
                try:
                    await handler(peer)
                except trio.BrokenResourceError:
                    server.closed_by_client.set()

        if tls:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(CERTIFICATE)
            secured = trio.SSLListener(listener, context, https_compatible=True)
            await nursery.start(trio.serve_listeners, handle, [secured])
        else:
            await nursery.start(trio.serve_listeners, handle, [listener])
        try:
            yield server
        except Exception as error:  # noqa: BLE001  # raised below: the nursery would put it into a group
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


def answering(*answers: Sequence[bytes] | bytes) -> Handler:
    """Answers one request after the other, on however many connections; a further one gets no answer."""
    left = list(answers)

    async def handler(peer: Peer) -> None:
        while left:
            if await peer.request() is None:
                return
            answer = left.pop(0)
            pieces = [answer] if isinstance(answer, bytes) else answer
            await peer.send(*pieces)
            if b"Connection: close" in pieces[0]:
                return
        await peer.until_closed()

    return handler


# --------------------------------------------------------------------------------- words


def chunked(*bodies: bytes, type: str = "text/event-stream") -> bytes:
    """An answer of several HTTP chunks, with its end."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {type}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    return head + b"".join(chunk(body) for body in (*bodies, b""))


def chunk(body: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(body), body)


def answer(body: bytes, *, status: str = "200 OK", type: str = "application/json", extra: str = "") -> bytes:
    """An answer in one piece."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: {type}\r\nContent-Length: {len(body)}\r\n{extra}\r\n"
    return head.encode() + body


def until_close(body: bytes, *, type: str = "text/event-stream") -> bytes:
    """An answer that ends where the connection does."""
    return f"HTTP/1.1 200 OK\r\nContent-Type: {type}\r\nConnection: close\r\n\r\n".encode() + body


def event(value: Any) -> bytes:
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
DONE = b"data: [DONE]\n\n"
