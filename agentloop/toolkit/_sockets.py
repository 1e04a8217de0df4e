"""Sockets for `web`: connected to a checked address, and closed on every exit path.

``httpcore2`` gets these sockets and does not open its own, because it leaves a socket open when it is cancelled during
the TLS handshake.
"""

from __future__ import annotations

import ssl
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from typing import Any, cast

import trio

from agentloop.errors import MissingExtraError

try:
    import httpcore2
except ModuleNotFoundError as error:
    raise MissingExtraError(feature="fetch()", extra="http", package="httpx2") from error

__all__ = ["Stream", "httpcore2", "open_stream", "ssl_context"]


class Stream(httpcore2.AsyncNetworkStream):
    """A TCP connection, with or without TLS."""

    __slots__ = ("_stream",)

    def __init__(self, stream: trio.SocketStream | trio.SSLStream[trio.SocketStream]) -> None:
        self._stream = stream

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        """The next bytes; empty at the end of the stream."""
        try:
            return bytes(await self._stream.receive_some(max_bytes))
        except trio.BrokenResourceError as error:
            raise httpcore2.ReadError(_cause(error)) from error

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        """Send all of ``buffer``."""
        try:
            await self._stream.send_all(buffer)
        except trio.BrokenResourceError as error:
            raise httpcore2.WriteError(_cause(error)) from error

    async def aclose(self) -> None:
        """Close the socket at once, without the TLS goodbye, whose answer may take long."""
        await trio.aclose_forcefully(self._stream)

    async def secured(self, host: str) -> Stream:
        """Start TLS, and check that the certificate is valid for ``host``. Closes the socket if not."""
        assert isinstance(self._stream, trio.SocketStream)
        stream = trio.SSLStream(self._stream, ssl_context(), server_hostname=host, https_compatible=True)
        try:
            with _connecting():
                await stream.do_handshake()
        except BaseException:
            # The caller has no reference to the socket yet.
            await trio.aclose_forcefully(self._stream)
            raise
        return Stream(stream)

    def get_extra_info(self, info: str) -> Any:
        """``None``: httpcore2 asks only for connections that it uses again."""


async def open_stream(address: str, port: int) -> Stream:
    """Connect to a numeric address, without a lookup.

    Raises:
      httpcore2.ConnectError: the connection was refused, or failed otherwise.
    """
    with _connecting():
        return Stream(await trio.open_tcp_stream(address, port))


@cache
def ssl_context() -> ssl.SSLContext:
    """The trusted certificates. The context takes 30 ms to make, and holds no socket."""
    return httpcore2.default_ssl_context()


@contextmanager
def _connecting() -> Generator[None]:
    try:
        yield
    except (OSError, trio.BrokenResourceError) as error:
        raise httpcore2.ConnectError(_cause(error)) from error


def _cause(error: BaseException) -> str:
    """The innermost cause of ``error``, such as ``ConnectionRefusedError: ...``."""
    if isinstance(error, BaseExceptionGroup):
        return _cause(cast("BaseExceptionGroup[BaseException]", error).exceptions[0])
    if error.__cause__ is not None:
        return _cause(error.__cause__)
    return f"{type(error).__name__}: {error}".removesuffix(": ")
