"""The messages between the SDK and a transport, as they pass by."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Any, Self

import anyio
import mcp_types as types
import trio
from mcp.shared.message import SessionMessage

from agentloop.mcp._mending import mend_listing, mend_result

__all__ = ["Mender", "mended"]

_MENDED = ("tools/list", "tools/call")

MAX_UNANSWERED = 500
"""Requests of the server that wait for their answers. The SDK has a task for each, so one that asks without reading the
answers would fill the memory. With so many, no message is read until some are answered."""


class Mender:
    """Mends the answers of a server, each by the request that it answers.

    Args:
      version: the version of the protocol; ``None`` before the handshake.
      on_left_out: is called with the name of a tool that was left out of a listing, and the reason.
    """

    def __init__(self, version: Callable[[], str | None], on_left_out: Callable[[str, str], object]) -> None:
        self._version = version
        self._on_left_out = on_left_out
        self._methods: dict[str, str] = {}
        """The methods of the requests that are not answered yet, by their ids as text: a server may send ``"3"``."""
        self._asked: set[str] = set()
        """The ids of the server's requests that are not answered yet, as text."""
        self._answered = trio.Event()

    async def wait_for_answers(self) -> None:
        """Wait while too many requests of the server are not answered."""
        while len(self._asked) >= MAX_UNANSWERED:
            await self._answered.wait()

    def sent(self, message: types.JSONRPCMessage) -> None:
        """Note what the client sends."""
        if isinstance(message, types.JSONRPCRequest) and message.method in _MENDED:
            self._methods[str(message.id)] = message.method
        elif isinstance(message, types.JSONRPCNotification) and message.method == "notifications/cancelled":
            self._methods.pop(str((message.params or {}).get("requestId")), None)

    def answered(self, message: types.JSONRPCMessage) -> None:
        """Note that the transport has taken ``message``, perhaps an answer to the server."""
        if isinstance(message, (types.JSONRPCResponse, types.JSONRPCError)):
            self._is_answered(message.id)

    def _is_answered(self, id: object) -> None:
        self._asked.discard(str(id))
        self._answered.set()
        self._answered = trio.Event()

    def received(self, message: types.JSONRPCMessage) -> types.JSONRPCMessage:
        """What the SDK gets in the place of ``message`` of the server."""
        if isinstance(message, types.JSONRPCRequest):
            self._asked.add(str(message.id))
        if isinstance(message, types.JSONRPCNotification) and message.method == "notifications/cancelled":
            # The server no longer wants an answer, and gets none.
            self._is_answered((message.params or {}).get("requestId"))
        if not isinstance(message, (types.JSONRPCResponse, types.JSONRPCError)):
            return message
        method = self._methods.pop(str(message.id), None)
        version = self._version()
        if method is None or version is None or isinstance(message, types.JSONRPCError):
            return message
        if method == "tools/call":
            return message.model_copy(update={"result": mend_result(message.result, version)})
        result, left_out = mend_listing(message.result, version)
        for name, reason in left_out.items():
            self._on_left_out(name, reason)
        return message.model_copy(update={"result": result})


@asynccontextmanager
async def mended(transport: AbstractAsyncContextManager[Any], mender: Mender) -> AsyncGenerator[tuple[Any, Any]]:
    """The streams of ``transport``, with the answers mended."""
    async with transport as (received, sent):
        yield _Received(received, mender), _Sent(sent, mender)


class _Wrapped:
    def __init__(self, stream: Any, mender: Mender) -> None:
        self._stream: Any = stream
        self._mender = mender

    async def aclose(self) -> None:
        await self._stream.aclose()

    def close(self) -> None:
        self._stream.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


class _Sent(_Wrapped):
    async def send(self, message: SessionMessage) -> None:
        self._mender.sent(message.message)
        await self._stream.send(message)
        self._mender.answered(message.message)


class _Received(_Wrapped):
    @property
    def last_context(self) -> Any:
        """The context that the SDK's HTTP transport passes on with each message."""
        return getattr(self._stream, "last_context", None)

    async def receive(self) -> SessionMessage | Exception:
        await self._mender.wait_for_answers()
        item: SessionMessage | Exception = await self._stream.receive()
        if isinstance(item, SessionMessage):
            item.message = self._mender.received(item.message)
        return item

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None
