"""One writer for many: what waits while a transaction runs goes into the next one together."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeAlias, TypeVar

import outcome
import trio
from attrs import define

from agentloop.errors import InternalError, StoreError
from agentloop.stores._statements import Transaction

__all__ = ["Outcome", "Work", "Writer"]

T = TypeVar("T")
Work: TypeAlias = Callable[[Transaction], Any]
Outcome: TypeAlias = "outcome.Value[Any] | outcome.Error"

BATCH = 256
"""How much goes into one transaction at most: whoever waits is told when all of it is done."""


@define(eq=False)
class _Request:
    work: Work
    task: trio.lowlevel.Task
    """Who sleeps until it is done."""
    is_taken: bool = False
    """Whether its transaction has begun."""
    is_withdrawn: bool = False


class Writer:
    """Has a thread do the writing, one transaction at a time.

    There is no task that hands on what is to be written: whoever finds nothing going on begins a transaction, and when
    one ends, trio's own callback begins the next. `trio.to_thread.run_sync` would take twice as long.

    Args:
      commit: does all that it is given, in one transaction as far as it can, and gives what came of each. It is called
        in a thread.
      place: what it writes to, for errors.
    """

    def __init__(self, commit: Callable[[Sequence[Work]], Sequence[Outcome]], *, place: str) -> None:
        self._commit = commit
        self._place = place
        self._waiting: deque[_Request] = deque()
        self._is_busy = False
        """Whether a transaction runs, or is about to begin."""
        self._is_closed = False
        self._failure: BaseException | None = None
        self._is_over = trio.Event()
        """Set when all is written that ever will be."""
        self._token = trio.lowlevel.current_trio_token()

    @trio.lowlevel.enable_ki_protection
    async def write(self, work: Callable[[Transaction], T]) -> T:
        """What ``work`` gives, when it is durable.

        Cancelled while it waits for its turn, it is not done. When its transaction has begun, that is waited for, and
        what came of it is given.
        """
        if self._is_closed:
            raise StoreError(f"{self._place} is closed: use it inside the block that opens it")
        await trio.lowlevel.checkpoint_if_cancelled()
        request = _Request(work, trio.lowlevel.current_task())
        self._waiting.append(request)
        if not self._is_busy:
            self._is_busy = True
            # Whatever else is written at this moment goes with it.
            await trio.lowlevel.cancel_shielded_checkpoint()
            self._begin()

        def abort(_: object) -> trio.lowlevel.Abort:
            if request.is_taken:
                return trio.lowlevel.Abort.FAILED
            request.is_withdrawn = True
            return trio.lowlevel.Abort.SUCCEEDED

        # It cannot have been done yet: what came of it is told by a callback of trio's, and this task has not slept.
        result: T = await trio.lowlevel.wait_task_rescheduled(abort)
        return result

    def _begin(self) -> None:
        """Begin a transaction with what waits."""
        batch: list[_Request] = []
        while self._waiting and len(batch) < BATCH:
            request = self._waiting.popleft()
            if not request.is_withdrawn:
                request.is_taken = True
                batch.append(request)
        if not batch:
            self._rest()
            return
        try:
            trio.lowlevel.start_thread_soon(
                partial(self._commit, [request.work for request in batch]), partial(self._deliver, batch)
            )
        except Exception as error:  # noqa: BLE001 - it goes on to those who wait, and to `serve`
            self._deliver(batch, outcome.Error(error))

    def _deliver(self, batch: Sequence[_Request], results: outcome.Outcome[Sequence[Outcome]]) -> None:
        """In the thread: go on in trio."""
        # Where trio has ended meanwhile, by a bug of its own, nobody waits any more.
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._end, batch, results)

    def _end(self, batch: Sequence[_Request], results: outcome.Outcome[Sequence[Outcome]]) -> None:
        """Tell each what came of it."""
        outcomes: Sequence[Outcome]
        if isinstance(results, outcome.Error):
            # Those who wait for this cannot be cancelled any more: if we have a bug, they must be told of it.
            self._failure = self._failure or results.error
            self._is_closed = True
            told = f"{self._place}: the writer failed: {results.error!r}"
            outcomes = [outcome.Error(InternalError(told)) for _ in batch]
        else:
            outcomes = results.unwrap()
        for request, result in zip(batch, outcomes, strict=True):
            trio.lowlevel.reschedule(request.task, result)
        if self._waiting:
            # A little later, so that those who were just told, and write again at once, are with it.
            self._token.run_sync_soon(self._begin)
        else:
            self._rest()

    def _rest(self) -> None:
        self._is_busy = False
        if self._is_closed:
            self._is_over.set()

    async def serve(self) -> None:
        """Wait until `close`, and then until all that was given is written. Raises what shows a bug in ``commit``."""
        # Shielded: whoever is not cancelled, and waits for what it has given to write, is told what came of it.
        with trio.CancelScope(shield=True):
            await self._is_over.wait()
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Take nothing more."""
        self._is_closed = True
        if not self._is_busy:
            self._is_over.set()
