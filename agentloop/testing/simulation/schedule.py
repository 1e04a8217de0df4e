"""In which order runnable tasks run: schedules as values that print and parse.

Wherever more than one task can run, the simulation asks the schedule: a *choice*. Choices count from 1. The
answer 0 is the task that has waited longest, so that zeros all along are FIFO order.

The granularity says when a choice is made. ``"batch"``: once per pass of trio's loop, which runs everything
that was runnable when the pass began; any such order can happen in trio as it is today. ``"step"``: before
every single task step, so that a task just woken can overtake those that wait already; today's trio may be
unable to produce a bug found this way, but it promises no order that would rule it out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal, Protocol, TypeAlias

from attrs import field, frozen, validators

from agentloop.testing.simulation.errors import HarnessError

__all__ = ["Granularity", "Picks", "Schedule", "fifo", "parse_schedule", "replay", "seeded"]

Granularity: TypeAlias = Literal["batch", "step"]

_PREFIX: dict[Granularity, str] = {"step": "sched", "batch": "batch"}


class Schedule(Protocol):
    """Answers each choice of one run."""

    @property
    def granularity(self) -> Granularity:
        """When the schedule is asked: at every step, or once per batch of runnable tasks."""
        ...

    def choose(self, choice: int, options: int, /) -> int:
        """Pick a task: ``0 <= pick < options``, where 0 is the one that has waited longest.

        An error that this raises is stored until the run is over, which continues in FIFO order, and raised then: an
        exception inside trio's loop would leave the run half unwound.

        Args:
          choice: the number of this choice, 1 for the first of the run.
          options: how many tasks can run, at least 2.
        """
        ...


@frozen
class Picks:
    """FIFO order but for some choices. Prints as ``sched:{5:1,9:2}``, or ``batch:{...}``."""

    granularity: Granularity
    picks: Mapping[int, int] = field(hash=False)
    """``{choice: pick}``"""

    def choose(self, choice: int, options: int, /) -> int:
        """The recorded pick, or the last option if there are fewer now."""
        # A pick that is too large stems from a run that had more tasks here: take the last one instead,
        # so that an old token still does something while the code around it changes.
        return min(self.picks.get(choice, 0), options - 1)

    def __str__(self) -> str:
        inner = ",".join(f"{choice}:{pick}" for choice, pick in sorted(self.picks.items()))
        return f"{_PREFIX[self.granularity]}:{{{inner}}}"


@frozen
class _Seeded:
    seed: int = field(validator=validators.ge(0))
    granularity: Granularity

    def choose(self, choice: int, options: int, /) -> int:
        # A function of the seed and the number alone: nothing to carry from choice to choice, or from run to
        # run. The mixing is splitmix64's.
        mixed = (self.seed * 0x1_0000_0001 + choice) * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
        mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
        return (mixed ^ mixed >> 31) % options


def fifo(granularity: Granularity = "batch") -> Picks:
    """Always the task that has waited longest."""
    return Picks(granularity, {})


def seeded(seed: int, granularity: Granularity = "step") -> Schedule:
    """At each choice any task, as likely as the next; the same one for the same seed."""
    return _Seeded(seed, granularity)


def replay(picks: Mapping[int, int], granularity: Granularity = "step") -> Picks:
    """FIFO, but at the choices named in ``picks`` the task with that number: ``{choice: pick}``."""
    return Picks(granularity, picks)


def parse_schedule(text: str) -> Picks:
    """Read back what ``str(picks)`` wrote.

    Raises:
      HarnessError: the text is not a schedule.
    """
    if match := re.fullmatch(r"(sched|batch):\{((?:\d+:\d+(?:,(?!\}))?)*)\}", text):
        pairs = [pair.split(":") for pair in match[2].split(",") if pair]
        granularity: Granularity = "step" if match[1] == "sched" else "batch"
        return Picks(granularity, {int(choice): int(pick) for choice, pick in pairs})
    raise HarnessError(f"cannot read the schedule {text!r}: expected sched:{{CHOICE:PICK,...}} or batch:{{...}}")
