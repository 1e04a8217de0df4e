"""Group commit: writes that arrive while a transaction runs share the next one, and so one wait for the disk."""

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
from agentloop.stores._sql import Transaction

__all__ = ["MAX_BATCH", "GroupCommit", "Outcome", "Write"]

T = TypeVar("T")
Write: TypeAlias = Callable[[Transaction], Any]
Outcome: TypeAlias = "outcome.Value[Any] | outcome.Error"

MAX_BATCH = 256
"""Writes in one transaction at most. All of a batch wait for its commit, so a larger batch delays each of them."""


@define(eq=False)
class _Request:
    write: Write
    task: trio.lowlevel.Task
    """The task that sleeps until the write has an outcome."""
    has_begun: bool = False
    """Whether the write's transaction has begun; from then on it cannot be cancelled."""
    is_withdrawn: bool = False
    """Whether the task was cancelled before."""


class GroupCommit:
    """Commits the writes of many tasks in a thread, one transaction at a time.

    No task runs the queue. A write that finds no transaction running begins one, and the callback in which trio
    reports the end of a transaction begins the next. `trio.to_thread.run_sync` would take twice as long per commit.

    Args:
      commit: runs a batch of writes in one transaction where it can, and returns the outcome of each. Called in a
        thread, never twice at once.
      place: the file, for errors.
    """

    def __init__(self, commit: Callable[[Sequence[Write]], Sequence[Outcome]], *, place: str) -> None:
        self._commit = commit
        self._place = place
        self._queue: deque[_Request] = deque()
        self._is_busy = False
        """Whether a transaction runs, or is about to begin."""
        self._is_closed = False
        self._bug: BaseException | None = None
        """The exception of ``commit`` itself, which should have returned it as an outcome."""
        self._is_drained = trio.Event()
        """Set when the last write has ended after `close`."""
        self._token = trio.lowlevel.current_trio_token()

    @trio.lowlevel.enable_ki_protection
    async def write(self, write: Callable[[Transaction], T]) -> T:
        """Run ``write`` in a transaction, and return its result after the commit is durable.

        A cancel before the transaction begins withdraws the write. After that the call waits for the transaction and
        returns its result, in spite of the cancel.

        Raises:
          StoreError: the store is closed, or the transaction failed.
        """
        if self._is_closed:
            raise StoreError(f"{self._place} is closed: use it inside the block that opens it")
        await trio.lowlevel.checkpoint_if_cancelled()
        request = _Request(write, trio.lowlevel.current_task())
        self._queue.append(request)
        if not self._is_busy:
            self._is_busy = True
            # Other tasks that are about to write run first, and share this transaction.
            await trio.lowlevel.cancel_shielded_checkpoint()
            self._begin()

        def abort(_: object) -> trio.lowlevel.Abort:
            if request.has_begun:
                return trio.lowlevel.Abort.FAILED
            request.is_withdrawn = True
            return trio.lowlevel.Abort.SUCCEEDED

        # `_end` cannot have run yet: trio calls it between tasks, and this task has not slept since `_begin`.
        result: T = await trio.lowlevel.wait_task_rescheduled(abort)
        return result

    def _begin(self) -> None:
        """Begin a transaction with the writes in the queue."""
        batch: list[_Request] = []
        while self._queue and len(batch) < MAX_BATCH:
            request = self._queue.popleft()
            if not request.is_withdrawn:
                request.has_begun = True
                batch.append(request)
        if not batch:
            self._rest()
            return
        try:
            trio.lowlevel.start_thread_soon(
                partial(self._commit, [request.write for request in batch]), partial(self._hand_over, batch)
            )
        except Exception as error:  # noqa: BLE001 - raised in the tasks of the batch, and by `serve`
            self._hand_over(batch, outcome.Error(error))

    def _hand_over(self, batch: Sequence[_Request], results: outcome.Outcome[Sequence[Outcome]]) -> None:
        """In the thread: have trio call `_end`."""
        # RunFinishedError: trio crashed by an internal error, and no task of it is left.
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._end, batch, results)

    def _end(self, batch: Sequence[_Request], results: outcome.Outcome[Sequence[Outcome]]) -> None:
        """Wake the tasks of a batch with their outcomes, and begin the next transaction."""
        outcomes: Sequence[Outcome]
        if isinstance(results, outcome.Error):
            # These tasks cannot be cancelled any more: without an outcome they would sleep for ever.
            self._bug = self._bug or results.error
            self._is_closed = True
            message = f"{self._place}: the writer failed: {results.error!r}"
            outcomes = [outcome.Error(InternalError(message)) for _ in batch]
        else:
            outcomes = results.unwrap()
        for request, result in zip(batch, outcomes, strict=True):
            trio.lowlevel.reschedule(request.task, result)
        if self._queue:
            # Soon, not now: tasks of this batch that write again at once share the next transaction.
            self._token.run_sync_soon(self._begin)
        else:
            self._rest()

    def _rest(self) -> None:
        self._is_busy = False
        if self._is_closed:
            self._is_drained.set()

    async def serve(self) -> None:
        """Wait until `close` was called and the queue is empty. Raises the exception of a ``commit`` with a bug."""
        # Shielded: a write in another task that is not cancelled is owed its outcome.
        with trio.CancelScope(shield=True):
            await self._is_drained.wait()
        if self._bug is not None:
            raise self._bug

    def close(self) -> None:
        """Refuse further writes. Queued writes are still committed."""
        self._is_closed = True
        if not self._is_busy:
            self._is_drained.set()
