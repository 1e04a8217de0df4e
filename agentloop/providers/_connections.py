"""Connections to a model's server, over trio: opened, used again while they are fresh, closed on every way out."""

from __future__ import annotations

import ssl
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any, TypeAlias, cast
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import trio

from agentloop.errors import MissingExtraError, UsageError

try:
    import httpcore2
except ModuleNotFoundError as error:
    raise MissingExtraError(feature="A model behind HTTP", extra="http", package="httpx2") from error

__all__ = ["CONNECT_SECONDS", "KEEPALIVE_SECONDS", "Connections", "httpcore2", "root_cause"]

CONNECT_SECONDS = 15.0
"""To look up a host and connect to it, and again for the TLS handshake: each is a matter of round trips."""
KEEPALIVE_SECONDS = 4.0
"""How long a connection may lie idle and be used again. Common servers (uvicorn, node) close theirs after 5 s; a
request that is sent just then is lost."""
LOOPBACK = ("localhost", "127.0.0.1", "::1")
open_tcp_stream = trio.open_tcp_stream
"""How a connection is opened. Another function here, and there is another network: one in memory, say, whose streams
need no more of a socket than ``stream.socket.is_readable()``."""


Connection: TypeAlias = httpcore2.AsyncHTTP11Connection | httpcore2.AsyncHTTPProxy


class Connections:
    """Connections to one server, each for one request at a time, or those of the proxy that leads there.

    Holds none at first, and none after `aclose`.
    """

    __slots__ = ("_closed", "_idle", "_proxy", "_url")

    def __init__(self, url: httpcore2.URL) -> None:
        self._url = url
        self._proxy = _proxy_for(url)
        self._idle: list[httpcore2.AsyncHTTP11Connection] = []
        self._closed = False

    async def send(self, request: httpcore2.Request) -> tuple[Connection, httpcore2.Response]:
        """Send ``request``, and give the head of the answer, and its connection, which is to be given back.

        A kept connection that the server closes without a word is one that it had grown tired of (llama.cpp does so
        after every fifth answer). Then the request goes out once more, over a new one.
        """
        if self._closed:
            raise UsageError("this model was opened for a block that has ended: open it again, or use the model itself")
        if self._proxy is not None:
            return await self._send(self._proxy, request)
        kept = await self._kept()
        if kept is not None:
            try:
                return await self._send(kept, request)
            except (httpcore2.ReadError, httpcore2.RemoteProtocolError) as error:
                if not _hung_up(error):
                    raise
        return await self._send(await self._connect(), request)

    async def _send(self, connection: Connection, request: httpcore2.Request) -> tuple[Connection, httpcore2.Response]:
        try:
            return connection, await connection.handle_async_request(request)
        except BaseException:
            with trio.CancelScope(shield=True):
                await self.release(connection)
            raise

    async def _kept(self) -> httpcore2.AsyncHTTP11Connection | None:
        """A connection that is free: the one used last, which is the least likely to be closed soon."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.has_expired():
                return connection  # noqa: ASYNC910  # sending the request is a checkpoint
            await connection.aclose()
        return None  # noqa: ASYNC910

    async def _connect(self) -> httpcore2.AsyncHTTP11Connection:
        origin = self._url.origin
        stream = await _Backend().connect_tcp(origin.host.decode("ascii"), origin.port)
        if origin.scheme == b"https":
            stream = await stream.start_tls(_ssl_context(), origin.host.decode("ascii"))
        return httpcore2.AsyncHTTP11Connection(origin, stream, KEEPALIVE_SECONDS)

    async def release(self, connection: Connection) -> None:  # noqa: ASYNC910  # shielded anyway
        """Keep ``connection`` for the next request, if it is fit for one, else close it."""
        if isinstance(connection, httpcore2.AsyncHTTPProxy):
            return  # noqa: ASYNC910  # it keeps its connections itself
        if connection.is_idle() and not self._closed:
            self._idle.append(connection)
        else:
            await connection.aclose()

    async def aclose(self) -> None:  # noqa: ASYNC910  # shielded anyway
        """Close what there is. What is in use is closed when it is given back."""
        self._closed = True
        while self._idle:
            await self._idle.pop().aclose()
        if self._proxy is not None:
            await self._proxy.aclose()


class _Stream(httpcore2.AsyncNetworkStream):
    """A connection. What is written goes out with the next read: a request in one packet, and not in two or three."""

    __slots__ = ("_out", "_stream")

    def __init__(self, stream: trio.SocketStream | trio.SSLStream[trio.SocketStream]) -> None:
        self._stream = stream
        self._out: list[bytes] = []

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        if self._out:
            out = b"".join(self._out)
            self._out.clear()
            # A server may refuse a request before it has read all of it: its answer is what counts.
            with suppress(trio.BrokenResourceError):
                await self._stream.send_all(out)
        try:
            return bytes(await self._stream.receive_some(max_bytes))
        except trio.BrokenResourceError as error:
            raise httpcore2.ReadError(root_cause(error)) from error

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109, ASYNC910
        self._out.append(buffer)

    async def aclose(self) -> None:
        await trio.aclose_forcefully(self._stream)

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> _Stream:
        assert isinstance(self._stream, trio.SocketStream)
        stream = trio.SSLStream(self._stream, ssl_context, server_hostname=server_hostname, https_compatible=True)
        try:
            with _connecting("the TLS handshake"):
                await stream.do_handshake()
        except BaseException:
            # Nobody else knows of the socket yet.
            await trio.aclose_forcefully(self._stream)
            raise
        return _Stream(stream)

    def get_extra_info(self, info: str) -> Any:
        if info != "is_readable":
            return None
        stream = self._stream
        return (stream.transport_stream if isinstance(stream, trio.SSLStream) else stream).socket.is_readable()


class _Backend(httpcore2.AsyncNetworkBackend):
    """Opens connections with trio."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> _Stream:
        with _connecting("the connection"):
            return _Stream(await open_tcp_stream(host, port))


@contextmanager
def _connecting(what: str) -> Generator[None]:
    """Put in words what goes wrong, since the pool takes the cause away from what it raises."""
    try:
        with trio.fail_after(CONNECT_SECONDS):
            yield
    except trio.TooSlowError as error:
        raise httpcore2.ConnectTimeout(f"{what} took more than {CONNECT_SECONDS:g} s") from error
    except (OSError, trio.BrokenResourceError) as error:
        raise httpcore2.ConnectError(root_cause(error)) from error


def _hung_up(error: Exception) -> bool:
    """Whether the server closed the connection before it answered anything."""
    return isinstance(error, httpcore2.ReadError) or "without sending a response" in str(error)


def _proxy_for(url: httpcore2.URL) -> httpcore2.AsyncHTTPProxy | None:
    """The proxy that the environment asks for."""
    found = _proxy_url_for(url)
    if found is None:
        return None
    parts = urlsplit(found)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"the environment names a proxy of {parts.scheme!r}, but only http and https are known")
    return httpcore2.AsyncHTTPProxy(
        proxy_url=httpcore2.URL(scheme=parts.scheme, host=parts.hostname, port=parts.port, target="/"),
        proxy_auth=(unquote(parts.username), unquote(parts.password or "")) if parts.username else None,
        proxy_ssl_context=_ssl_context() if parts.scheme == "https" else None,
        ssl_context=_ssl_context() if url.scheme == b"https" else None,
        # Not bounded here: how many responses there are at once is for the caller to say.
        max_connections=None,
        keepalive_expiry=KEEPALIVE_SECONDS,
        network_backend=_Backend(),
    )


def _proxy_url_for(url: httpcore2.URL) -> str | None:
    host = url.host.decode("ascii")
    if host in LOOPBACK:
        return None  # a proxy would look for it on its own machine
    proxies = getproxies()
    proxy = proxies.get(url.scheme.decode("ascii")) or proxies.get("all")
    if not proxy or proxy_bypass(host):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


@cache
def _ssl_context() -> ssl.SSLContext:
    return httpcore2.default_ssl_context()


def root_cause(error: BaseException) -> str:
    """What is at the bottom of ``error``, such as ``ConnectionRefusedError: ...``."""
    if isinstance(error, BaseExceptionGroup):
        return root_cause(cast("BaseExceptionGroup[BaseException]", error).exceptions[0])
    if error.__cause__ is not None:
        return root_cause(error.__cause__)
    return f"{type(error).__name__}: {error}".removesuffix(": ")
