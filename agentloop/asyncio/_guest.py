"""The guest: one trio run inside of a running asyncio loop, shared by all who use it there.

trio's guest mode runs both loops in one thread: a step of trio is a callback of asyncio, and a worker thread waits for
trio's sockets while there is nothing to do. So a call from one side to the other needs no lock, and switches no thread.

A loop has at most one guest, which lives as long as somebody uses it::

    share_guest()     starts the guest, or joins it; the one who leaves last ends it, and waits for its end
    Guest.spawn()     starts a task of trio; any code of asyncio may call it
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

from agentloop.errors import UsageError

__all__ = ["Guest", "guest_here", "running_loop", "settle", "settled", "share_guest"]


class Guest:
    """A trio run inside of an asyncio loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.users = 0
        """How many blocks of `share_guest` hold it."""
        self.ended: asyncio.Future[None] = loop.create_future()
        """Done when the trio run has ended."""
        self.error: BaseException | None = None
        """What made the run end before its last user left: an interrupt, or an error inside of trio."""
        self.calls: set[asyncio.Future[None]] = set()
        """The ends of the tasks that asyncio code awaits: an error inside of trio must not leave one of them open."""
        self._started: asyncio.Future[None] = loop.create_future()
        self._nursery: trio.Nursery | None = None
        self._is_ending = False
        self._close_loop: Callable[[], None] = loop.close

    def start(self) -> None:
        """Begin the run. Its nursery opens a few steps of the loop later: see `started`.

        Raises:
          UsageError: trio runs in this thread already.
        """
        if trio.lowlevel.in_trio_run():
            raise UsageError(
                "trio runs in this thread already, as the guest of another program: leave the asyncio loop to one host"
            )
        trio.lowlevel.start_guest_run(
            self._main,
            run_sync_soon_threadsafe=self._soon_from_a_thread,
            run_sync_soon_not_threadsafe=self.loop.call_soon,
            done_callback=self._finish,
            # asyncio has a wakeup descriptor of its own for signals.
            host_uses_signal_set_wakeup_fd=True,
        )
        # A loop that is closed before its tasks are done: what they started still ends. Some loops forbid it.
        with contextlib.suppress(AttributeError):
            self.loop.close = self._end_and_close_loop  # type: ignore[method-assign]

    async def started(self) -> None:
        """Wait until tasks can be spawned."""
        await asyncio.shield(self._started)

    def spawn(self, function: Callable[[], Awaitable[object]]) -> None:
        """Start a task of trio with the context variables of the caller."""
        if self._nursery is None or self.ended.done():
            raise UsageError("the trio run of this asyncio loop has ended") from self.error
        self._nursery.start_soon(function)

    def end(self) -> None:
        """Cancel what still runs. `ended` is done when all of it has ended."""
        self._is_ending = True
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()

    async def _main(self) -> None:
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            settle(self._started)
            if self._is_ending:
                # Its only user was cancelled before this step.
                nursery.cancel_scope.cancel()
            await trio.sleep_forever()

    def _finish(self, result: Any) -> None:
        self._nursery = None
        with contextlib.suppress(AttributeError):
            del self.loop.close
        try:
            result.unwrap()
        except BaseException as error:  # noqa: BLE001 - an interrupt too becomes the error of each caller
            self.error = error
        if _guests.get(self.loop) is self:
            del _guests[self.loop]
        for future in (self._started, *self.calls, self.ended):
            settle(future)

    def _soon_from_a_thread(self, callback: Callable[[], object]) -> None:
        # A loop that was closed has no steps any more: there is nothing that could be woken.
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(callback)

    def _end_and_close_loop(self) -> None:
        if not self.ended.done() and not self.loop.is_running() and not self.loop.is_closed():
            self.end()
            self.loop.run_until_complete(self.ended)
        self._close_loop()


_guests: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Guest] = weakref.WeakKeyDictionary()


@asynccontextmanager
async def share_guest() -> AsyncGenerator[Guest]:
    """The guest of the running loop, for the time of the block.

    Raises:
      UsageError: no asyncio loop runs here.
    """
    guest = await _join()
    try:
        await guest.started()
        yield guest
    finally:
        guest.users -= 1
        if not guest.users:
            guest.end()
            await settled(guest.ended)


def guest_here() -> Guest:
    """The guest of the running loop, which asyncio code finds that a run of an agent has called."""
    guest = _guests.get(running_loop())
    if guest is None:
        raise UsageError("no run of an agent is hosted by this asyncio loop any more")
    return guest


def running_loop() -> asyncio.AbstractEventLoop:
    """The asyncio loop that runs the caller.

    Raises:
      UsageError: trio runs the caller, or no loop does.
    """
    if trio.lowlevel.in_trio_task():
        raise UsageError(
            "this is trio code, which needs no host: write `await agent.run(prompt)`, or, in a tool, `await "
            "context.run(agent, prompt)`"
        )
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise UsageError(
            "no asyncio loop runs in this thread: use agentloop.asyncio in an `async def` function that asyncio "
            "awaits, or, without asyncio, run_sync(agent, prompt)"
        ) from None


async def _join() -> Guest:
    loop = running_loop()
    # The last user of the previous guest may have left it: a thread has one trio run at a time.
    while (guest := _guests.get(loop)) is not None and not guest.users:
        await asyncio.shield(guest.ended)
    if guest is None:
        guest = Guest(loop)
        guest.start()
        _guests[loop] = guest
    guest.users += 1
    return guest


async def settled(future: asyncio.Future[Any]) -> None:
    """Wait until ``future`` is done, also if this task is cancelled meanwhile, which it learns afterwards."""
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError as error:
            cancelled = cancelled or error
    if cancelled is not None:
        raise cancelled


def settle(future: asyncio.Future[None]) -> None:
    """Have ``future`` done, once: the one who awaited it may have been cancelled."""
    if not future.done():
        future.set_result(None)
