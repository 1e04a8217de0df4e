"""Sockets for `web`: opened to an address that was judged, and closed on every way out.

Given to ``httpcore2`` below its connections, and not left to it: an attempt that is cancelled during the TLS
handshake would leave its socket open.
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
    """A connection."""

    __slots__ = ("_stream",)

    def __init__(self, stream: trio.SocketStream | trio.SSLStream[trio.SocketStream]) -> None:
        self._stream = stream

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        """What has come; nothing at the end."""
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
        """Close it without a word to the other side, who could take their time to answer."""
        await trio.aclose_forcefully(self._stream)

    async def secured(self, host: str) -> Stream:
        """The same with TLS, if the certificate is one of ``host``. Closed if it is not."""
        assert isinstance(self._stream, trio.SocketStream)
        stream = trio.SSLStream(self._stream, ssl_context(), server_hostname=host, https_compatible=True)
        try:
            with _connecting():
                await stream.do_handshake()
        except BaseException:
            # Nobody else knows of the socket yet.
            await trio.aclose_forcefully(self._stream)
            raise
        return Stream(stream)

    def get_extra_info(self, info: str) -> Any:
        """Nothing that would be asked for: no connection here is used twice."""


async def open_stream(address: str, port: int) -> Stream:
    """Connect to an address, in digits: nothing is looked up any more.

    Raises:
      httpcore2.ConnectError: there is no connection.
    """
    with _connecting():
        return Stream(await trio.open_tcp_stream(address, port))


@cache
def ssl_context() -> ssl.SSLContext:
    """What is trusted. It takes 30 ms to make, and holds no socket."""
    return httpcore2.default_ssl_context()


@contextmanager
def _connecting() -> Generator[None]:
    try:
        yield
    except (OSError, trio.BrokenResourceError) as error:
        raise httpcore2.ConnectError(_cause(error)) from error


def _cause(error: BaseException) -> str:
    """What is at the bottom of ``error``, such as ``ConnectionRefusedError: ...``."""
    if isinstance(error, BaseExceptionGroup):
        return _cause(cast("BaseExceptionGroup[BaseException]", error).exceptions[0])
    if error.__cause__ is not None:
        return _cause(error.__cause__)
    return f"{type(error).__name__}: {error}".removesuffix(": ")
