"""Deadlines that do not count the time a person takes to think."""

from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import contextmanager

import trio

from agentloop._runtime.clock import after, now

__all__ = ["Patience"]


class Patience:
    """A deadline that can be paused.

    Patiences form a chain: a tool call's lies inside its stream's, which lies inside that of the tool call which opened
    the stream. While a run down the chain waits for a person, the whole chain is paused.
    """

    __slots__ = ("_deadline", "_held", "_left", "parent", "scope")

    def __init__(self, seconds: float, parent: Patience | None) -> None:
        self.scope = trio.CancelScope(deadline=now() + seconds)
        self.parent = parent
        self._held = 0
        self._left = 0.0
        self._deadline = math.inf
        """The remaining seconds when it was paused."""

    @property
    def ran_out(self) -> bool:
        """Whether the time limit is what ended the block under ``scope``."""
        return self.scope.cancelled_caught

    @contextmanager
    def held(self) -> Generator[None]:
        """Stand still, up to the end of the chain, while the block runs.

        Raises:
          ClockError: on entering; then nothing stands still.
        """
        began = now()
        chain: list[Patience] = []
        at: Patience | None = self
        while at is not None:
            chain.append(at)
            at = at.parent
        for one in chain:
            one._hold(began)
        try:
            yield
        finally:
            for one in chain:
                one._let_go()

    def _hold(self, began: float) -> None:
        # Counted: the tools of one stream may wait for several people at once.
        if self._held == 0:
            self._deadline = self.scope.deadline
            self._left = self._deadline - began
            self.scope.deadline = math.inf
        self._held += 1

    def _let_go(self) -> None:
        self._held -= 1
        if self._held == 0:
            self.scope.deadline = after(self._left, otherwise=self._deadline)
