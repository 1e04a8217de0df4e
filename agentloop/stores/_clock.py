"""What time it is, for leases."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from attrs import frozen

__all__ = ["Clock", "Moment", "machine_clock", "wall_clock"]

Clock: TypeAlias = Callable[[], "Moment"]

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@frozen
class Moment:
    """The time, twice: for people, and for leases."""

    wall: float
    """Seconds since 1970 (UTC). Whoever sets the machine's clock makes it jump."""
    era: str = ""
    """What ``steady`` counts from: the machine's start, by its id. Empty if that is 1970 again."""
    steady: float = 0.0
    """Seconds. Within an era, it only goes forward."""


def wall_clock(now: Callable[[], float]) -> Clock:
    """A clock that has only the time of day."""

    def moment() -> Moment:
        wall = now()
        return Moment(wall, "", wall)

    return moment


def machine_clock() -> Clock:
    """The clock that all processes of this machine share, and that nobody can set.

    On Linux it counts from the machine's start, without the time that the machine slept: setting the time of day
    neither ends a lease nor prolongs it. Elsewhere a machine does not tell its starts apart, and the time of day must
    do.
    """
    try:
        boot = _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return wall_clock(time.time)
    return lambda: Moment(time.time(), boot, time.monotonic())
