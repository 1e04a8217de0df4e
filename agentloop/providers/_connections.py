"""Connections to a model's server, over trio: opened, used again while they are fresh, closed on every way out."""

from __future__ import annotations

import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterable, Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any, cast
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, getproxies_environment, proxy_bypass

import trio

from agentloop.errors import MissingExtraError, UsageError
from agentloop.providers._endpoint import without_credentials
from agentloop.providers._events import root_cause
from agentloop.providers._proxies import is_direct
from agentloop.providers._trace_headers import trace_headers

try:
    import httpcore2
except ModuleNotFoundError as error:
    raise MissingExtraError(feature="A model behind HTTP", extra="http", package="httpx2") from error

from agentloop.providers._http11 import Answer, HungUpError, exchange

__all__ = ["CONNECT_SECONDS", "KEEPALIVE_SECONDS", "Connections", "ProxiedAnswer", "httpcore2"]

CONNECT_SECONDS = 15.0
"""Seconds to look up a host and connect to it, and again for the TLS handshake: each takes a few round trips."""
KEEPALIVE_SECONDS = 4.0
"""Seconds for which an idle connection may be used again. Common servers (uvicorn, node) close an idle connection after
5 s; a request that is sent just then is lost."""
LOOPBACK = ("localhost", "127.0.0.1", "::1")
open_tcp_stream = trio.open_tcp_stream
"""Opens a connection. Tests replace this function to provide another network, such as one in memory, whose streams need
no more of a socket than ``stream.socket.is_readable()``."""


class Connections:
    """Connections to one server, each for one request at a time, or to the proxy that leads there.

    Holds no connection at first, and none after `aclose`.

    Args:
      url: the URL to which requests go.
      headers: the headers of each request, which must be valid. ``Content-Length`` is added to them.
    """

    __slots__ = ("_closed", "_head", "_headers", "_idle", "_proxy", "_url")

    def __init__(self, url: httpcore2.URL, headers: Sequence[tuple[bytes, bytes]]) -> None:
        self._url = url
        self._headers = headers
        fields = b"".join(b"%s: %s\r\n" % header for header in headers)
        self._head = b"POST %s HTTP/1.1\r\n%sContent-Length: " % (url.target, fields)
        self._proxy = _proxy_for(url)
        self._idle: list[tuple[trio.abc.Stream, float]] = []
        """The connections that wait for a request, and the time until which each may be used."""
        self._closed = False

    async def post(self, body: bytes) -> Answer | ProxiedAnswer:
        """Send ``body``, and return the answer, which the caller must `release`, once its head has arrived.

        If the server closes an idle connection without an answer, the request is sent again, over a new connection:
        servers close connections at will (llama.cpp does after every fifth answer).

        Raises:
          UsageError: the connections are closed.
          httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException, h11.RemoteProtocolError: the
            server did not answer.
        """
        if self._closed:
            raise UsageError("this model was opened for a block that has ended: open it again, or use the model itself")
        own = self._trace_headers()
        if self._proxy is not None:
            length = (b"Content-Length", b"%d" % len(body))
            proxied = httpcore2.Request("POST", self._url, headers=[*self._headers, *own, length], content=body)
            return ProxiedAnswer(await self._proxy.handle_async_request(proxied))
        end = b"".join(b"%s: %s\r\n" % header for header in own)
        request = b"%s%d\r\n%s\r\n%s" % (self._head, len(body), end, body)
        idle = await self._idle_connection()
        if idle is not None:
            with suppress(HungUpError):
                return await self._exchange(idle, request)
        return await self._exchange(await self._connect(), request)

    def _trace_headers(self) -> list[tuple[bytes, bytes]]:
        """The headers of the trace, without those that the user has set."""
        headers = trace_headers()
        if not headers:
            return []
        taken = {name.lower() for name, _ in self._headers}
        encoded = [(name.encode("ascii"), value.encode("ascii")) for name, value in headers.items()]
        return [header for header in encoded if header[0].lower() not in taken]

    async def _exchange(self, stream: trio.abc.Stream, request: bytes) -> Answer:
        try:
            return await exchange(stream, request)
        except BaseException:
            await _close(stream)  # noqa: ASYNC102 - shielded, and it never waits
            raise

    async def _idle_connection(self) -> trio.abc.Stream | None:
        """The idle connection used last, which the server is least likely to close soon; ``None`` if there is none."""
        while self._idle:
            stream, expires = self._idle.pop()
            # An idle connection is readable only if the server has closed it.
            if time.monotonic() <= expires and not _is_readable(stream):
                return stream  # noqa: ASYNC910  # sending the request is a checkpoint
            await _close(stream)
        return None  # noqa: ASYNC910

    async def _connect(self) -> trio.abc.Stream:
        origin = self._url.origin
        host = origin.host.decode("ascii")
        stream = await _connected(host, origin.port)
        return await _secured(stream, _ssl_context(), host) if origin.scheme == b"https" else stream

    async def release(self, answer: Answer | ProxiedAnswer) -> None:  # noqa: ASYNC910  # shielded anyway
        """Keep the connection of ``answer`` for the next request, or close it if it cannot be used again."""
        if isinstance(answer, ProxiedAnswer):
            # A proxy holds its connections itself.
            with trio.CancelScope(shield=True):
                await answer.aclose()
        elif answer.is_reusable and not self._closed:
            self._idle.append((answer.stream, time.monotonic() + KEEPALIVE_SECONDS))
        else:
            await _close(answer.stream)

    async def aclose(self) -> None:  # noqa: ASYNC910  # shielded anyway
        """Close the idle connections. A connection in use is closed when it is released."""
        self._closed = True
        while self._idle:
            await _close(self._idle.pop()[0])
        if self._proxy is not None:
            with trio.CancelScope(shield=True):
                await self._proxy.aclose()


async def _close(stream: trio.abc.Stream) -> None:  # noqa: ASYNC910  # shielded anyway
    """Close ``stream``, also when cancelled. Without a deadline: closing a socket never waits."""
    with trio.CancelScope(shield=True):
        await trio.aclose_forcefully(stream)


def _is_readable(stream: trio.abc.Stream) -> bool:
    # Below TLS, if there is any.
    transport = cast("trio.SocketStream", getattr(stream, "transport_stream", stream))
    return transport.socket.is_readable()


async def _connected(host: str, port: int) -> trio.SocketStream:
    with _connecting("the connection"):
        return await open_tcp_stream(host, port)


async def _secured(
    stream: trio.SocketStream, context: ssl.SSLContext, host: str | None
) -> trio.SSLStream[trio.SocketStream]:
    """``stream`` after a TLS handshake."""
    secured = trio.SSLStream(stream, context, server_hostname=host, https_compatible=True)
    try:
        with _connecting("the TLS handshake"):
            await secured.do_handshake()
    except BaseException:
        # Closed here, since nothing else holds the socket yet.
        await _close(stream)  # noqa: ASYNC102 - shielded, and it never waits
        raise
    return secured


# ------------------------------------------------------------------------------- proxies


class ProxiedAnswer:
    """An answer that comes through a proxy. Iterating over it gives the bytes of its body, as they arrive."""

    __slots__ = ("_chunks", "_response", "headers", "status")

    def __init__(self, response: httpcore2.Response) -> None:
        self.status = response.status
        """The HTTP status."""
        self.headers = {name.lower(): value for name, value in response.headers}
        """The headers, by name in lower case."""
        self._response = response
        self._chunks = cast("AsyncGenerator[bytes]", aiter(cast("AsyncIterable[bytes]", response.stream)))

    def is_ended(self) -> bool:
        """``False``: that is not known before more is asked for."""
        return False

    def __aiter__(self) -> ProxiedAnswer:
        return self

    async def __anext__(self) -> bytes:
        return await anext(self._chunks)

    async def aclose(self) -> None:
        """Stop reading, and close the connection, unless the answer was read to its end."""
        # The generator too: one that is left to the garbage collector closes its connection when it is collected.
        await self._chunks.aclose()
        await self._response.aclose()


class _Stream(httpcore2.AsyncNetworkStream):
    """A connection to a proxy. It buffers writes until the next read, so that a request goes out in one packet."""

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
        return _Stream(await _secured(self._stream, ssl_context, server_hostname))

    def get_extra_info(self, info: str) -> Any:
        return _is_readable(self._stream) if info == "is_readable" else None


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
        return _Stream(await _connected(host, port))


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
