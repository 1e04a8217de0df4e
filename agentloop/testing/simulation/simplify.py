"""Make a token that fails simpler, so that its run is easier to follow."""

from __future__ import annotations

from collections.abc import Callable

from agentloop.testing.simulation.errors import HarnessError
from agentloop.testing.simulation.scenario import Invariants, Scenario
from agentloop.testing.simulation.schedule import fifo, replay
from agentloop.testing.simulation.simulate import simulate
from agentloop.testing.simulation.tokens import parse_token
from agentloop.testing.simulation.violation import Violation

__all__ = ["simplify_token"]


def simplify_token(
    make_scenario: Callable[[], Scenario],
    token: str,
    *,
    invariants: Invariants | None = None,
    max_steps: int = 20_000,
    max_virtual: float = 1e6,
) -> str:
    """Return a token that fails too, perhaps differently, with no deviation from FIFO that it can do without.

    Hypothesis shrinks a schedule towards a short run, with as many deviations as that takes: a handful of them is
    easier to follow, in a run of whatever length.

    Raises:
      HarnessError: the token does not fail.
    """
    parsed = parse_token(token)

    def fails(picks: dict[int, int]) -> Violation | None:
        try:
            simulate(
                make_scenario(),
                fault=parsed.fault,
                schedule=replay(picks, schedule.granularity),
                invariants=invariants,
                max_steps=max_steps,
                max_virtual=max_virtual,
            )
        except Violation as violation:
            return violation
        return None

    schedule = parsed.schedule or fifo()
    picks = dict(schedule.picks)
    simplest = fails(picks)
    if simplest is None:
        raise HarnessError(f"nothing to simplify: {token!r} does not fail")
    # From the last one on: later choices depend on earlier ones, not the other way round.
    for choice in sorted(picks, reverse=True):
        fewer = {other: pick for other, pick in picks.items() if other != choice}
        if (violation := fails(fewer)) is not None:
            simplest, picks = violation, fewer
    return simplest.token
