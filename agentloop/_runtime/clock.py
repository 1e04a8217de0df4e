"""Read trio's clock, which a user can replace, and which can fail like all user code.

The start of something reads the clock with `now`, which raises: without the time it does not start. The end of
something is emitted even if the clock fails, so ends use the functions that never raise.
"""

from __future__ import annotations

import math

import trio

from agentloop.errors import ClockError

__all__ = ["after", "now", "since", "sleep"]


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
