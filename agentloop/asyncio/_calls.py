"""From asyncio into trio: a call of trio that asyncio code awaits.

What is awaited runs in a task of trio. The asyncio task waits for the end of that task in every case: a cancellation,
also a second one, cancels the trio task, and raises `asyncio.CancelledError` when the trio task has ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import trio

from agentloop._core.foreign_errors import wrong_loop
from agentloop._runtime.exception_groups import is_cancellation
from agentloop.asyncio._guest import Guest, settle
from agentloop.errors import UsageError

__all__ = ["Call"]

T = TypeVar("T")


class Call(Generic[T]):
    """A task of trio whose end an asyncio task awaits. It starts at once."""

    def __init__(self, guest: Guest, function: Callable[[], Awaitable[T]]) -> None:
        self._guest = guest
        self._function = function
        self._value: list[T] = []
        self._error: BaseException | None = None
        self._is_torn = False
        self.scope = trio.CancelScope()
        self.done: asyncio.Future[None] = guest.loop.create_future()
        """Done when the trio task has ended."""
        guest.calls.add(self.done)
        self.done.add_done_callback(guest.calls.discard)
        guest.spawn(self._run)

    async def _run(self) -> None:
        try:
            with self.scope:
                self._value.append(await self._function())
        except BaseException as error:  # noqa: BLE001 - `wait` raises it in the asyncio task
            # A cancellation that is not of this scope ends the guest, or the host: see `_left`.
            self._error = None if is_cancellation(error) else error
        finally:
            settle(self.done)

    def leave(self) -> None:
        """Cancel the trio task, since the host's block is left."""
        self._is_torn = True
        self.scope.cancel()

    async def wait(self) -> T:
        """The result of the trio task, when it has ended; or raise its error."""
        cancelled: asyncio.CancelledError | None = None
        while not self.done.done():
            try:
                await asyncio.shield(self.done)
            except asyncio.CancelledError as raised:
                cancelled = cancelled or raised
                self.scope.cancel()
        error: BaseException | None = self._error or cancelled
        if error is not None and (advice := wrong_loop(error)):
            raise UsageError(advice) from error
        if error is None and not self._value:
            error = asyncio.CancelledError() if self.scope.cancelled_caught and not self._is_torn else self._left()
        try:
            if error is not None:
                raise error
            return self._value.pop()
        finally:
            # The traceback of the error would keep this frame alive, and this frame the error.
            del error, cancelled
            self._error = None

    def _left(self) -> BaseException:
        if self._guest.error is not None:
            return self._guest.error
        return UsageError("the TrioHost was left, or its asyncio loop closed, while this was running")
