"""One writer for many: what waits while a transaction runs goes into the next one together."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
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

QUEUE = 256
"""How much may wait, and how much goes into one transaction: then whoever has more to write waits to be let in."""


@define(eq=False)
class _Request:
    work: Work
    task: trio.lowlevel.Task | None = None
    """Who sleeps until it is done."""
    is_taken: bool = False
    """Whether its transaction has begun."""
    is_withdrawn: bool = False
    result: Outcome | None = None


class Writer:
    """A task that does the writing.

    Args:
      commit: does all that it is given, in one transaction as far as it can, and gives what came of each.
      place: what it writes to, for errors.
    """

    def __init__(self, commit: Callable[[Sequence[Work]], Awaitable[Sequence[Outcome]]], *, place: str) -> None:
        self._commit = commit
        self._place = place
        self._send, self._receive = trio.open_memory_channel[_Request](QUEUE)

    async def write(self, work: Callable[[Transaction], T]) -> T:
        """What ``work`` gives, when it is durable.

        Cancelled while it waits for its turn, it is not done. When its transaction has begun, that is waited for, and
        what came of it is given.
        """
        request = _Request(work)
        try:
            try:
                self._send.send_nowait(request)
            except trio.WouldBlock:
                await self._send.send(request)
        except trio.ClosedResourceError:
            raise StoreError(f"{self._place} is closed: use it inside the block that opens it") from None

        def abort(_: object) -> trio.lowlevel.Abort:
            if request.is_taken:
                return trio.lowlevel.Abort.FAILED
            request.is_withdrawn = True
            return trio.lowlevel.Abort.SUCCEEDED

        if request.result is None:
            request.task = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(abort)
        assert request.result is not None
        result: T = request.result.unwrap()
        return result

    async def serve(self) -> None:
        """Write until `close`, and then what is left."""
        # Shielded: whoever is not cancelled, and waits for what it has given to write, is told what came of it.
        with trio.CancelScope(shield=True):
            async for request in self._receive:
                batch = [request]
                while len(batch) < QUEUE and self._receive.statistics().current_buffer_used:
                    batch.append(self._receive.receive_nowait())
                wanted = [request for request in batch if not request.is_withdrawn]
                for each in wanted:
                    each.is_taken = True
                if wanted:
                    await self._do(wanted)

    async def _do(self, requests: Sequence[_Request]) -> None:
        try:
            results = await self._commit([request.work for request in requests])
        except BaseException as error:
            # Those who wait for this cannot be cancelled any more: if we have a bug, they must be told of it.
            for request in requests:
                _tell(request, outcome.Error(InternalError(f"{self._place}: the writer failed: {error!r}")))
            raise
        for request, result in zip(requests, results, strict=True):
            _tell(request, result)

    def close(self) -> None:
        """Take nothing more."""
        self._send.close()


def _tell(request: _Request, result: Outcome) -> None:
    request.result = result
    if request.task is not None:
        trio.lowlevel.reschedule(request.task)
