"""Connections to a model's server, over trio: opened, used again while they are fresh, closed on every way out."""

from __future__ import annotations

import ssl
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any, TypeAlias, cast
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, getproxies_environment, proxy_bypass

import trio

from agentloop.errors import MissingExtraError, UsageError
from agentloop.providers._endpoint import without_credentials
from agentloop.providers._proxies import is_direct

try:
    import httpcore2
except ModuleNotFoundError as error:
    raise MissingExtraError(feature="A model behind HTTP", extra="http", package="httpx2") from error

__all__ = ["CONNECT_SECONDS", "KEEPALIVE_SECONDS", "Connections", "httpcore2", "root_cause"]

CONNECT_SECONDS = 15.0
"""Seconds to look up a host and connect to it, and again for the TLS handshake: each takes a few round trips."""
KEEPALIVE_SECONDS = 4.0
"""Seconds for which an idle connection may be used again. Common servers (uvicorn, node) close an idle connection after
5 s; a request that is sent just then is lost."""
LOOPBACK = ("localhost", "127.0.0.1", "::1")
open_tcp_stream = trio.open_tcp_stream
"""Opens a connection. Tests replace this function to provide another network, such as one in memory, whose streams need
no more of a socket than ``stream.socket.is_readable()``."""


Connection: TypeAlias = httpcore2.AsyncHTTP11Connection | httpcore2.AsyncHTTPProxy


class Connections:
    """Connections to one server, each for one request at a time, or to the proxy that leads there.

    Holds no connection at first, and none after `aclose`.

    Args:
      url: a URL of the server.
    """

    __slots__ = ("_closed", "_idle", "_proxy", "_url")

    def __init__(self, url: httpcore2.URL) -> None:
        self._url = url
        self._proxy = _proxy_for(url)
        self._idle: list[httpcore2.AsyncHTTP11Connection] = []
        self._closed = False

    async def send(self, request: httpcore2.Request) -> tuple[Connection, httpcore2.Response]:
        """Send ``request``, and return its connection, which the caller must `release`, and the head of the answer.

        If the server closes an idle connection without an answer, the request is sent again, over a new connection:
        servers close connections at will (llama.cpp does after every fifth answer).

        Raises:
          UsageError: the connections are closed.
          httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException: the server did not answer.
        """
        if self._closed:
            raise UsageError("this model was opened for a block that has ended: open it again, or use the model itself")
        if self._proxy is not None:
            return await self._send(self._proxy, request)
        idle = await self._idle_connection()
        if idle is not None:
            try:
                return await self._send(idle, request)
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

    async def _idle_connection(self) -> httpcore2.AsyncHTTP11Connection | None:
        """The idle connection used last, which the server is least likely to close soon; ``None`` if there is none."""
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
        """Keep ``connection`` for the next request, or close it if it cannot be used again."""
        if isinstance(connection, httpcore2.AsyncHTTPProxy):
            return  # noqa: ASYNC910  # a proxy holds its connections itself
        if connection.is_idle() and not self._closed:
            self._idle.append(connection)
        else:
            await connection.aclose()

    async def aclose(self) -> None:  # noqa: ASYNC910  # shielded anyway
        """Close the idle connections. A connection in use is closed when it is released."""
        self._closed = True
        while self._idle:
            await self._idle.pop().aclose()
        if self._proxy is not None:
            await self._proxy.aclose()


class _Stream(httpcore2.AsyncNetworkStream):
    """A connection. It buffers writes until the next read, so that a request goes out in one packet."""

    __slots__ = ("_out", "_stream")

    def __init__(self, stream: trio.SocketStream | trio.SSLStream[trio.SocketStream]) -> None:
        self._stream = stream
        self._out: list[bytes] = []

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        if self._out:
            out = b"".join(self._out)
            self._out.clear()
            # A server may refuse a request before it has read all of it; then its answer counts.
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
            # Closed here, since nothing else holds the socket yet.
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
def _connecting(step: str) -> Generator[None]:
    """Raise errors of httpcore2 with the cause in their message: httpcore2 drops the causes of exceptions."""
    try:
        with trio.fail_after(CONNECT_SECONDS):
            yield
    except trio.TooSlowError as error:
        raise httpcore2.ConnectTimeout(f"{step} took more than {CONNECT_SECONDS:g} s") from error
    except (OSError, trio.BrokenResourceError) as error:
        raise httpcore2.ConnectError(root_cause(error)) from error


def _hung_up(error: Exception) -> bool:
    """Whether the server closed the connection before it answered anything."""
    return isinstance(error, httpcore2.ReadError) or "without sending a response" in str(error)


def _proxy_for(url: httpcore2.URL) -> httpcore2.AsyncHTTPProxy | None:
    """The proxy for ``url`` that the environment names; ``None`` for a direct connection."""
    proxy_url = _proxy_url_for(url)
    if proxy_url is None:
        return None
    try:
        parts = urlsplit(proxy_url)
        port = parts.port
    except ValueError:
        # Without the cause, whose message may show a password.
        shown = without_credentials(proxy_url)
        raise UsageError(f"the environment names a proxy at {shown!r}, which is no URL") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"the environment names a proxy of {parts.scheme!r}, but only http and https are known")
    return httpcore2.AsyncHTTPProxy(
        proxy_url=httpcore2.URL(scheme=parts.scheme, host=parts.hostname, port=port, target="/"),
        proxy_auth=(unquote(parts.username), unquote(parts.password or "")) if parts.username else None,
        proxy_ssl_context=_ssl_context() if parts.scheme == "https" else None,
        ssl_context=_ssl_context() if url.scheme == b"https" else None,
        # Unbounded: the caller decides how many responses run at once.
        max_connections=None,
        keepalive_expiry=KEEPALIVE_SECONDS,
        network_backend=_Backend(),
    )


def _proxy_url_for(url: httpcore2.URL) -> str | None:
    host = url.host.decode("ascii")
    if host in LOOPBACK:
        return None  # a proxy would connect to its own machine
    proxies = getproxies()
    proxy = proxies.get(url.scheme.decode("ascii")) or proxies.get("all")
    if not proxy or _is_direct(host, url.origin.port):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _is_direct(host: str, port: int) -> bool:
    environment = getproxies_environment()
    # Without variables, the settings of macOS or Windows count.
    return is_direct(host, port, environment.get("no", "")) if environment else bool(proxy_bypass(host))


@cache
def _ssl_context() -> ssl.SSLContext:
    return httpcore2.default_ssl_context()


def root_cause(error: BaseException) -> str:
    """The innermost cause of ``error`` as text, such as ``ConnectionRefusedError: ...``."""
    if isinstance(error, BaseExceptionGroup):
        return root_cause(cast("BaseExceptionGroup[BaseException]", error).exceptions[0])
    if error.__cause__ is not None:
        return root_cause(error.__cause__)
    return f"{type(error).__name__}: {error}".removesuffix(": ")
