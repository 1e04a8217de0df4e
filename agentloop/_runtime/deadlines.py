"""Deadlines that do not count the time a person takes to think, and trio's clock, which they are read from.

A user can replace the clock, and it can fail like all user code. The start of something reads it with `now`, which
raises: without the time it does not start. The end of something is emitted even if the clock fails, so ends use the
functions that never raise.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import contextmanager

import trio

from agentloop.errors import ClockError

__all__ = ["PausableDeadline", "after", "now", "since", "sleep"]


class PausableDeadline:
    """A deadline that can be paused.

    Deadlines form a chain: a tool call's lies inside its stream's, which lies inside that of the tool call which opened
    the stream. While a run down the chain waits for a person, the whole chain is paused.

    Args:
      seconds: ``None`` for no deadline of its own: then only those around it are paused.
      began: the time that the seconds count from, if it was just read; now if left out.
    """

    __slots__ = ("_deadline", "_left", "_pauses", "_scope", "_seconds", "allowed", "parent")

    def __init__(self, seconds: float | None, parent: PausableDeadline | None, began: float | None = None) -> None:
        self._scope: trio.CancelScope | None = None
        if seconds is not None:
            self._scope = trio.CancelScope(deadline=(now() if began is None else began) + seconds)
        self.parent = parent
        self._seconds = self.allowed = math.inf if seconds is None else seconds
        """Seconds from the beginning to the deadline, pauses not counted. `restart` adds to ``allowed``."""
        self._pauses = 0
        """How many blocks pause it now."""
        self._left = 0.0
        """The remaining seconds when it was paused."""
        self._deadline = math.inf
        """The time of the deadline when it was paused."""

    @property
    def scope(self) -> trio.CancelScope:
        """The cancel scope that has the deadline."""
        assert self._scope is not None
        return self._scope

    @property
    def expired(self) -> bool:
        """Whether the time limit is what ended the block under ``scope``."""
        return self._scope is not None and self._scope.cancelled_caught

    @contextmanager
    def paused(self) -> Generator[None]:
        """Pause this deadline, and all around it, while the block runs.

        Raises:
          ClockError: on entering; then nothing is paused.
        """
        began = now()
        chain: list[PausableDeadline] = []
        deadline: PausableDeadline | None = self
        while deadline is not None:
            chain.append(deadline)
            deadline = deadline.parent
        for member in chain:
            member._pause(began)
        try:
            yield
        finally:
            for member in chain:
                member._resume()

    def restart(self, at_most: float) -> None:
        """Allow all seconds anew from now on, but not more than ``at_most`` in total. Deadlines around it stay."""
        if self._scope is None or math.isinf(self._seconds):
            return
        time = now()
        left = self._left if self._pauses else self._scope.deadline - time
        # What was allowed and is not left has been used.
        more = min(self._seconds, at_most - (self.allowed - left)) - left
        if more <= 0:
            return
        self.allowed += more
        if self._pauses:
            self._left += more
        else:
            self._scope.deadline += more

    def _pause(self, began: float) -> None:
        # Counted: the tools of one stream may wait for several people at once.
        if self._pauses == 0 and self._scope is not None:
            self._deadline = self._scope.deadline
            self._left = self._deadline - began
            self._scope.deadline = math.inf
        self._pauses += 1

    def _resume(self) -> None:
        self._pauses -= 1
        if self._pauses == 0 and self._scope is not None:
            self._scope.deadline = after(self._left, otherwise=self._deadline)


# ------------------------------------------------------------------------- the clock


def now() -> float:
    """Seconds on trio's clock.

    Raises:
      ClockError: the clock failed.
    """
    try:
        return trio.current_time()
    except Exception as error:
        raise ClockError(f"trio's clock failed: {type(error).__name__}: {error}") from error


def since(began: float) -> float:
    """Seconds since ``began``; 0 if the clock fails. For ends, which are emitted in any case."""
    try:
        return now() - began
    except ClockError:
        return 0.0


def after(seconds: float, *, otherwise: float = -math.inf) -> float:
    """The time ``seconds`` from now; ``otherwise`` if the clock fails, so that nothing waits without a deadline."""
    try:
        return now() + seconds
    except ClockError:
        return otherwise


async def sleep(seconds: float) -> None:
    """Wait. Raises `ClockError` before it begins, if the clock fails."""
    await trio.sleep_until(now() + seconds)
