"""The protocol of a scenario, and the way its run ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

from attrs import frozen

from agentloop.testing.simulation.sim import Sim

__all__ = ["Invariants", "Outcome", "Scenario"]


@frozen
class Outcome:
    """How a scenario's ``run`` ended."""

    error: BaseException | None = None
    """The exception that the scenario raised; ``None`` if it returned."""

    @property
    def returned(self) -> bool:
        """Whether it raised nothing."""
        return self.error is None


class Scenario(Protocol):
    """A program to simulate. Make a new one for each run: what one run leaves in it is for its ``check`` alone."""

    @property
    def name(self) -> str:
        """The scenario's name, one word; its tokens begin with it."""
        ...

    async def run(self, sim: Sim, /) -> None:
        """Do it: under ``trio.run``, on a virtual clock, without threads, sockets, processes, or real randomness.

        An `AssertionError` that gets out of it, also within a group, is a violation whatever ``check`` says.
        """
        ...

    def check(self, sim: Sim, outcome: Outcome, /) -> None:
        """Raise `AssertionError` if something is wrong. Called outside of trio, unless the run got stuck."""
        ...


Invariants: TypeAlias = Callable[[Sim, Outcome], None]
"""A check for every scenario, run after its own."""
