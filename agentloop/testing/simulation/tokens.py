"""A token names one run of a scenario, so that it can be run again: ``two-streams cancel:A@17 sched:{5:1}``."""

from __future__ import annotations

from attrs import frozen

from agentloop.testing.simulation.errors import HarnessError
from agentloop.testing.simulation.faults import Fault, parse_fault
from agentloop.testing.simulation.schedule import Picks, parse_schedule

__all__ = ["Token", "parse_token"]


@frozen
class Token:
    """A scenario's name, and the faults of the run: each may be missing."""

    name: str
    fault: Fault | None = None
    schedule: Picks | None = None

    def __str__(self) -> str:
        return " ".join(str(part) for part in (self.name, self.fault, self.schedule) if part is not None)


def parse_token(text: str) -> Token:
    """Read back what ``str(token)`` wrote.

    Raises:
      HarnessError: the text is empty, or one of its words is neither a fault nor a schedule.
    """
    name, *words = text.split() or [""]
    if not name:
        raise HarnessError("cannot read an empty token: expected a scenario's name, then what was done to it")
    faults = [word for word in words if not word.startswith(("sched:", "batch:"))]
    schedules = [word for word in words if word not in faults]
    if len(faults) > 1 or len(schedules) > 1:
        raise HarnessError(f"cannot read the token {text!r}: a run has one fault and one schedule at most")
    return Token(
        name,
        parse_fault(faults[0]) if faults else None,
        parse_schedule(schedules[0]) if schedules else None,
    )
