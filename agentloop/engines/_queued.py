"""What engines with a queue of their own share: segments for their threads, and a memory of what was enqueued."""

from __future__ import annotations

from concurrent.futures import Future, InvalidStateError
from contextlib import suppress

import trio
from attrs import define, field

from agentloop._runtime.blocks import now
from agentloop._runtime.logs import ENGINES
from agentloop.engines._segment import Segment
from agentloop.engines._worker import Driver
from agentloop.stores.mailbox import WaitingWork

__all__ = ["Drained", "Enqueued", "Segments"]

REMEMBERED = 10_000
"""Sessions of which a worker remembers that it has enqueued them, before it forgets those of earlier leases."""


class Drained(Exception):  # noqa: N818 - it is no error
    """The worker ends, and another one continues the segment."""


@define(eq=False)
class Segments:
    """Drives segments in the worker's trio, for other threads."""

    driver: Driver
    nursery: trio.Nursery
    token: trio.lowlevel.TrioToken = field(factory=trio.lowlevel.current_trio_token)
    _limiter: trio.CapacityLimiter = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._limiter = trio.CapacityLimiter(self.driver.options.at_once)

    def begin(self, session: str) -> Future[Segment | None]:
        """Drive a segment as soon as a slot is free. Any thread may call this.

        Returns:
          A future with the segment; ``None`` if another process has the session; `Drained` if this worker ends.
        """
        future: Future[Segment | None] = Future()

        def start() -> None:
            if self.driver.is_draining:
                future.set_exception(Drained())
            else:
                self.nursery.start_soon(self._drive, session, future)

        try:
            self.token.run_sync_soon(start)
        except trio.RunFinishedError:
            future.set_exception(Drained())
        return future

    async def _drive(self, session: str, future: Future[Segment | None]) -> None:
        # An engine may have given up waiting: the segment goes on, since its lease admits no second one.
        with suppress(InvalidStateError):
            try:
                async with self._limiter:
                    if self.driver.is_draining:
                        raise Drained
                    segment = await self.driver.drive(session)
                future.set_result(segment)
            except Drained as drained:
                future.set_exception(drained)
            except Exception as error:  # noqa: BLE001 - the thread that waits gets it
                ENGINES.warning("session %r: the segment failed: %s", session, error)
                future.set_exception(error)
            finally:
                # A cancelled segment is continued by another worker.
                if not future.done():
                    future.set_exception(Drained())


@define
class Enqueued:
    """The sessions that a worker has enqueued, each with the token of its newest lease then."""

    lease_seconds: float
    _last: dict[str, tuple[int, float, int]] = field(factory=dict[str, tuple[int, float, int]])
    """By session: the token, when it was enqueued with it last, and how many times it was."""

    def count(self, work: WaitingWork) -> int | None:
        """How many times ``work`` was enqueued with its token before; ``None`` if that was less than a lease ago."""
        token, at, count = self._last.get(work.session, (-1, 0.0, 0))
        if token != work.token:
            count = 0
        elif now() - at < self.lease_seconds:
            return None
        if len(self._last) >= REMEMBERED:
            oldest = now() - self.lease_seconds
            self._last = {session: last for session, last in self._last.items() if last[1] > oldest}
        self._last[work.session] = (work.token, now(), count + 1)
        return count

    def forget(self, work: WaitingWork) -> None:
        """Have it enqueued again: the engine has not taken it."""
        self._last.pop(work.session, None)
