"""From asyncio into trio: blocks of trio (``async with``) around asyncio code, and the streams that they open."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Generator
from contextlib import AbstractAsyncContextManager
from functools import partial
from types import TracebackType
from typing import Any, NoReturn, TypeVar, cast

import trio

from agentloop._core.typevars import Output_co
from agentloop._runtime.stream import Stream, StreamedText
from agentloop.asyncio._calls import Call
from agentloop.asyncio._guest import Guest, settle
from agentloop.errors import UsageError
from agentloop.events import StreamEvent
from agentloop.outcome import Outcome

__all__ = ["AsyncWith", "Block", "HostedStream"]

T = TypeVar("T")


class AsyncWith(AbstractAsyncContextManager[T]):
    """A block that says how it is entered, if it is written in another way."""

    def __aiter__(self) -> NoReturn:
        raise UsageError(
            "this is read inside of its block: `async with agentloop.asyncio.stream(agent, prompt) as stream:`, or "
            "`async with host.stream(...)`, and in the block `async for event in stream:`"
        )

    def __await__(self) -> Generator[Any, Any, NoReturn]:
        raise UsageError("this is a block and not awaited: write `async with ... as opened:`")

    def __enter__(self) -> NoReturn:
        raise UsageError("this block is entered with `async with`, not with `with`")

    def __exit__(self, *_: object) -> None:
        raise AssertionError("the block is never entered")


class HostedStream(Stream[Output_co]):
    """A stream that asyncio code reads. All other methods are plain ones, and work in both."""

    __slots__ = ("_guest",)

    def __init__(self, stream: Stream[Output_co], guest: Guest) -> None:
        super().__init__(stream._run)
        self._guest = guest

    async def wait(self) -> Outcome[Output_co]:
        self._drop_events()
        # After its block, perhaps after its host's, there is nothing to wait for.
        if not self._run.ended.is_set():
            await Call(self._guest, self._run.ended.wait).wait()
        return self.outcome

    async def restart_toolset(self, name: str) -> None:
        await Call(self._guest, partial(Stream.restart_toolset, self, name)).wait()

    async def __anext__(self) -> StreamEvent:
        while (event := self._take()) is None:
            ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            assert self._run.events is not None
            self._begin_to_wait()
            try:
                self._run.events.call_when_ready(partial(settle, ready))
                await ready
            finally:
                self._is_waiting = False
        return event


class Block(AsyncWith[T]):
    """A block of trio (``async with manager``) around asyncio code. One task of trio enters and leaves it.

    An exception of the asyncio code is raised inside of the trio block. A cancellation of the asyncio task cancels the
    trio block. If the trio block is torn down from its inside, the asyncio task is cancelled, and the error raised when
    it leaves the block. A stream that the trio block opens is one that asyncio code can read.
    """

    def __init__(
        self,
        guest: Guest,
        manager: AbstractAsyncContextManager[T],
        track: Callable[[Call[Any]], object] | None = None,
    ) -> None:
        self._guest = guest
        self._manager = manager
        self._track = track
        self._value: list[T] = []
        self._entered: asyncio.Future[None] = guest.loop.create_future()
        self._leave = trio.Event()
        self._error: Exception | None = None
        self._is_inside = False
        self._is_left = False
        self._owner: asyncio.Task[object] | None = None
        self._has_cancelled_owner = False

    async def __aenter__(self) -> T:
        self._owner = asyncio.current_task()
        self._call = call = Call(self._guest, self._hold)
        if self._track is not None:
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
        self._is_inside = True
        if call.done.done():
            # It has ended by itself already.
            self._end(call.done)
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
            if self._has_cancelled_owner:
                # The trio block has ended by itself without an error, as one with a timeout may.
                return not self._is_cancelled_besides()
            # The trio block has handled the error, unless that is a cancellation.
            return error is not None and not is_cancelled
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

    def _is_cancelled_besides(self) -> bool:
        """Whether another than `_end` has cancelled the task too. Takes the cancellation by `_end` back."""
        assert self._owner is not None
        return self._owner.uncancel() > 0

    async def _hold(self) -> None:
        """The block itself, in its task of trio."""
        async with self._manager as value:
            self._value.append(self._for_asyncio(value))
            settle(self._entered)
            await self._leave.wait()
            if self._error is not None:
                raise self._error

    def _for_asyncio(self, value: T) -> T:
        if isinstance(value, Stream):
            return cast("T", HostedStream(cast("Stream[Any]", value), self._guest))
        if isinstance(value, StreamedText):
            text = cast("StreamedText[Any]", value)
            return cast("T", text.of(HostedStream(text.stream, self._guest)))
        return value

    def _end(self, future: asyncio.Future[None]) -> None:
        """The trio block has ended: by itself, if the asyncio code is still inside."""
        settle(self._entered)
        # An error on the way in is raised by `__aenter__`: there is nothing to cancel.
        is_inside = self._is_inside and not self._is_left and not self._has_cancelled_owner
        if is_inside and self._owner is not None and not self._owner.done():
            self._has_cancelled_owner = True
            self._owner.cancel()
