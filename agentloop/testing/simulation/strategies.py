"""Schedules for hypothesis to draw. The only module of the simulation that imports hypothesis."""

from __future__ import annotations

from random import Random

from attrs import define

from agentloop.testing._hypothesis import strategies as st
from agentloop.testing.simulation.schedule import Granularity, Schedule

__all__ = ["schedules"]

_MOST_DRAWN = 1000


@define(eq=False)
class _Drawn:
    """Answers each choice with a draw of its own, when it comes up: how many there are depends on the answers."""

    random: Random
    granularity: Granularity

    def choose(self, choice: int, options: int, /) -> int:
        # FIFO order in the end, which is fair. Otherwise hypothesis would find that a task which is never picked waits
        # for ever, and a long run would use up all that an example may draw.
        return self.random.randint(0, options - 1) if choice <= _MOST_DRAWN else 0

    def __repr__(self) -> str:
        # hypothesis prints this before the schedule is used, when it is still empty; the violation's token has the
        # drawn choices.
        return f"<drawn schedule, granularity {self.granularity}>"


def schedules(granularity: Granularity = "step") -> st.SearchStrategy[Schedule]:
    """Draw a schedule. Schedules shrink towards FIFO order, and towards few choices.

    A schedule is for one `simulate`, in the test that drew it. When hypothesis has had enough of an example it
    says so by an exception from a draw: the run then continues in FIFO order, and `simulate` raises that at its end.
    """
    return st.randoms(use_true_random=False).map(lambda random: _Drawn(random, granularity))
