"""The harness, for your own tools, hooks, toolsets, models and handlers: one line each.

::

    async def refunds(lab: Lab) -> None:
        agent = Agent(lab.model(calls("refund", order=7), "Done."), tools=[refund])
        async with lab.stream(agent) as stream:
            await stream.drain()

    def test_refunds() -> None:
        sweep(refunds)

This runs ``refunds`` once for each place where it can be cancelled, stopped, or failed by the outside world, and once
for each change in the order of its tasks, on a virtual clock, and checks every guarantee after each run. A failure
names the injected fault and its place, which events were read, which tasks are stuck, and the token that `replay` runs
again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import TypeAlias

from agentloop.testing import simulation
from agentloop.testing._lab import AgentScenario, Lab
from agentloop.testing.simulation import Kind, Sim, SweepReport

__all__ = ["Play", "replay", "sweep"]

Play: TypeAlias = Callable[[Lab], Awaitable[None]]
"""The function to sweep: it opens streams with ``lab.stream``, and uses no threads, no sockets and no real time."""


def sweep(
    play: Play,
    *,
    kinds: Iterable[Kind] | None = None,
    limit: int | None = None,
    jobs: int = 1,
    expect: Callable[[Lab], None] | None = None,
) -> SweepReport:
    """Run ``play`` with every fault in every place, and check every guarantee after each run.

    Args:
      kinds: ``"cancel"``, ``"seam"`` (the fakes of the lab raise), ``"clock"`` (what the runtime reads of the clock
        raises) and ``"schedule"`` by default.
      limit: at most so many places of each kind, spread evenly.
      jobs: how many processes to use.
      expect: checks what ``play`` is about, where nothing was injected.

    Raises:
      Violation: a promise was broken.
      HarnessError: it proves nothing: ``play`` fails without a fault, is not the same twice, or gives no fault a place.
    """
    report = simulation.sweep_scenario(_scenario(play, expect), kinds=kinds, limit=limit, jobs=jobs)
    report.raise_if_violated()
    return report


def replay(play: Play, token: str) -> Sim:
    """Run again what a token names.

    Raises:
      Violation: it still breaks a promise.
    """
    return simulation.replay_token(_scenario(play, None), token)


def _scenario(play: Play, expect: Callable[[Lab], None] | None) -> Callable[[], AgentScenario]:
    name = str(getattr(play, "__name__", type(play).__name__)).replace("_", "-")
    return partial(AgentScenario, name, play, expect)
