"""From asyncio into trio: a call, or a block, of trio that asyncio code awaits.

What is awaited runs in a task of trio. The asyncio task waits for the end of that task in every case: a cancellation,
also a second one, cancels the trio task, and raises `asyncio.CancelledError` when the trio task has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Generic, TypeVar, cast

import trio

from agentloop._runtime.exception_groups import is_cancellation
from agentloop.asyncio._guest import Guest, settle
from agentloop.errors import UsageError

__all__ = ["Block", "Call"]

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


class Block(AbstractAsyncContextManager[T]):
    """A block of trio (``async with manager``) around asyncio code. One task of trio enters and leaves it.

    An exception of the asyncio code is raised inside of the trio block. A cancellation of the asyncio task cancels the
    trio block. If the trio block is torn down from its inside, the asyncio task is cancelled, and the error raised when
    it leaves the block.
    """

    def __init__(
        self,
        guest: Guest,
        manager: AbstractAsyncContextManager[T],
        track: Callable[[Call[Any]], object],
    ) -> None:
        self._guest = guest
        self._manager = manager
        self._track = track
        self._value: list[T] = []
        self._entered: asyncio.Future[None] = guest.loop.create_future()
        self._leave = trio.Event()
        self._error: Exception | None = None
        self._is_left = False
        self._owner: asyncio.Task[object] | None = None
        self._has_cancelled_owner = False

    async def __aenter__(self) -> T:
        self._owner = asyncio.current_task()
        self._call = call = Call(self._guest, self._hold)
        self._track(call)
        call.done.add_done_callback(self._end)
        try:
            await asyncio.shield(self._entered)
        except asyncio.CancelledError:
            call.scope.cancel()
            self._is_left = True
            await call.wait()
            raise
        if not self._value:
            self._is_left = True
            await call.wait()
            raise AssertionError("a trio block that was not entered ends with an error")
        return self._value.pop()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        self._is_left = True
        is_cancelled = error is not None and not isinstance(error, Exception)
        if is_cancelled:
            self._call.scope.cancel()
        else:
            self._error = cast("Exception | None", error)
            self._leave.set()
        try:
            if self._has_cancelled_owner and not is_cancelled:
                # The cancellation by `_end` is still to come: it would hit what follows the block.
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(0)
            await self._call.wait()
        except asyncio.CancelledError:
            if is_cancelled:
                return False
            raise
        except BaseException as raised:
            if raised is error or (self._has_cancelled_owner and self._is_cancelled_besides()):
                return False
            raise
        finally:
            self._error = self._owner = None
            del error
        return None

    def _is_cancelled_besides(self) -> bool:
        """Whether another than `_end` has cancelled the task too. Takes the cancellation by `_end` back."""
        assert self._owner is not None
        return self._owner.uncancel() > 0

    async def _hold(self) -> None:
        """The block itself, in its task of trio."""
        async with self._manager as value:
            self._value.append(value)
            settle(self._entered)
            await self._leave.wait()
            if self._error is not None:
                raise self._error

    def _end(self, future: asyncio.Future[None]) -> None:
        """The trio block has ended: by itself, if the asyncio code is still inside."""
        settle(self._entered)
        if not self._is_left and self._owner is not None and not self._owner.done():
            self._has_cancelled_owner = True
            self._owner.cancel()
