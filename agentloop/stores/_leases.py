"""Leases: which process may append to a session, until when, and by which clock. Shared by all stores; pure functions.

A store saves one `LeaseState` per session. It reads the state, asks a function of this module for the next one, and
writes that; the store's transaction makes the three steps atomic.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from math import isfinite
from pathlib import Path
from typing import TypeAlias

from attrs import evolve, frozen

from agentloop.errors import LeaseLostError, SessionLeasedError, UsageError
from agentloop.journal import Lease
from agentloop.stores._checks import check_name

__all__ = [
    "MAX_LEASE_SECONDS",
    "Clock",
    "LeaseState",
    "Moment",
    "acquired",
    "check_holder",
    "check_not_leased",
    "machine_clock",
    "released",
    "renewed",
    "wall_clock",
]

Clock: TypeAlias = Callable[[], "Moment"]

MAX_LEASE_SECONDS = 366 * 24 * 3600.0

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_TIME_NAMESPACE = Path("/proc/self/ns/time")
"""Processes of one machine may count from different times: time_namespaces(7)."""


@frozen
class Moment:
    """The current time on two clocks: ``wall`` for people, ``steady`` for comparing leases."""

    wall: float
    """Seconds since 1970 (UTC). Jumps when an operator sets the machine's clock."""
    era: str = ""
    """The zero point of ``steady``: the id of the machine's boot, and of the time namespace; empty where ``steady``
    counts from 1970 too."""
    steady: float = 0.0
    """Seconds since the start of the era. Never goes backwards within an era."""


def wall_clock(now: Callable[[], float]) -> Clock:
    """Make a clock from the time of day alone.

    Args:
      now: returns seconds since 1970 (UTC).
    """

    def moment() -> Moment:
        wall = now()
        return Moment(wall, "", wall)

    return moment


def machine_clock() -> Clock:
    """Make a clock that all processes of this machine and time namespace share, and that no user can set.

    On Linux the clock counts from the machine's boot, without the time in which the machine slept (CLOCK_MONOTONIC),
    so setting the time of day neither ends a lease nor prolongs it. Other systems give no id of their boot that the
    standard library can read; there the clock is the time of day.
    """
    try:
        era = _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return wall_clock(time.time)
    # Kernels before 5.6 have no time namespaces.
    with suppress(OSError):
        era += f" {_TIME_NAMESPACE.readlink()}"
    return lambda: Moment(time.time(), era, time.monotonic())


@frozen
class LeaseState:
    """The newest lease on a session, as a store saves it, running or not."""

    token: int
    """The fencing token of the newest holder. Stays when the lease is released, so that tokens only grow."""
    holder: str
    """The name that the holder gave itself; empty if the lease was released."""
    expires: float
    """The end of the lease in seconds since 1970 (UTC). Decides only if the machine has booted since (see ``era``)."""
    era: str
    """The `Moment.era` in which the lease was acquired or renewed."""
    until: float
    """The end of the lease on the clock of ``era``. Decides as long as the era is the current one."""

    def is_running(self, moment: Moment) -> bool:
        """Whether a process holds the session at ``moment``."""
        if not self.holder:
            return False
        return self.until > moment.steady if self.era == moment.era else self.expires > moment.wall

    def lease(self, session: str) -> Lease:
        """The lease that the holder presents with each write."""
        return Lease(session=session, holder=self.holder, token=self.token, expires=self.expires)


def check_not_leased(session: str, state: LeaseState | None, moment: Moment) -> None:
    """Check that no process holds the session.

    Raises:
      SessionLeasedError: a process does. The error carries its name and the end of its lease.
    """
    if state is not None and state.is_running(moment):
        raise SessionLeasedError(session=session, holder=state.holder, expires=state.expires)


def check_holder(session: str, state: LeaseState | None, lease: Lease) -> LeaseState:
    """Check that ``lease`` is the newest one on ``session``, and return its state.

    An expired lease passes as long as no other process has acquired the session: the token decides, and not the time.

    Raises:
      LeaseLostError: the lease is for another session, was released, or a newer one exists.
    """
    if lease.session != session:
        raise LeaseLostError(f"the lease is for session {lease.session!r}, not for {session!r}")
    if state is None or state.token != lease.token or not state.holder:
        now = f"{state.holder} holds it now" if state is not None and state.holder else "no process holds it now"
        raise LeaseLostError(
            f"session {session!r} is no longer held by {lease.holder}, whose lease expired or was released; {now}: "
            "load the session again"
        )
    return state


def acquired(state: LeaseState | None, holder: str, seconds: float, moment: Moment) -> LeaseState:
    """The state after ``holder`` has acquired the session for ``seconds``, with a greater token than any before.

    The caller has checked that the session is not leased.

    Raises:
      UsageError: ``holder`` is not a valid name, or ``seconds`` is not above 0 and at most a year.
    """
    check_name("lease's holder", holder)
    _check_seconds(seconds)
    token = 1 if state is None else state.token + 1
    return LeaseState(token, holder, moment.wall + seconds, moment.era, moment.steady + seconds)


def renewed(state: LeaseState, seconds: float, moment: Moment) -> LeaseState:
    """The state after the holder has renewed its lease, to end ``seconds`` from now. May shorten it.

    Raises:
      UsageError: ``seconds`` is not above 0 and at most a year.
    """
    _check_seconds(seconds)
    return LeaseState(state.token, state.holder, moment.wall + seconds, moment.era, moment.steady + seconds)


def released(state: LeaseState) -> LeaseState:
    """The state after the lease was released. Keeps the token, so that the next holder's is greater."""
    return evolve(state, holder="")


def _check_seconds(seconds: float) -> None:
    if not (isfinite(seconds) and 0 < seconds <= MAX_LEASE_SECONDS):
        raise UsageError(f"a lease cannot last {seconds} seconds: give more than 0, and at most a year")
