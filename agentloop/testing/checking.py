"""The harness, for your own tools, hooks, toolsets, models and handlers: one line each.

::

    @swept
    async def test_refunds(lab: Lab) -> None:
        agent = Agent(lab.model(calls("refund", order=7), "Done."), tools=[refund])
        async with lab.stream(agent) as stream:
            await stream.drain()

This runs the test once for each place where it can be cancelled, stopped, or failed by the outside world, and once
for each change in the order of its tasks, on a virtual clock, and checks every guarantee after each run. A failure
names the injected fault and its place, which events were read, which tasks are stuck, and the token that ``only``
runs again. `agentloop.testing.simulation` does the same for programs without agents.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, TypeAlias, overload

from agentloop.testing import simulation
from agentloop.testing._lab import Lab, PlayScenario
from agentloop.testing.simulation import Kind, Sim, SweepReport
from agentloop.testing.simulation.program import check_async, function_name, makes_test, report_of_one

__all__ = ["Play", "replay", "sweep", "swept"]

Play: TypeAlias = Callable[[Lab], Awaitable[object]] | Callable[[], Awaitable[object]]
"""The function to sweep: an async function of a `Lab`, or of nothing.

With a lab it gets models that fail on demand, and streams that are recorded: ``lab.model``, ``lab.stream``. It may open
streams by itself as well. It runs on a virtual clock; threads and a network in memory are simulated.
"""


def sweep(
    play: Play,
    *,
    only: str | Iterable[str] | None = None,
    kinds: Iterable[Kind] | None = None,
    limit: int | None = None,
    jobs: int = 1,
    seed: int = 0,
    expect: Callable[[Lab], None] | None = None,
) -> SweepReport:
    """Run ``play`` with every fault in every place, and check every guarantee after each run.

    What the play itself raises in a run without a fault is reported as it is. After a fault, an `AgentLoopError` may
    get out: a run that was stopped has no result, and takes no answers.

    Args:
      only: one token, or several, as a violation shows them: just these runs, in the place of all others.
      kinds: ``"cancel"``, ``"seam"`` (the fakes of the lab raise), ``"io"`` (the simulated network and files fail),
        ``"clock"`` (what the runtime reads of the clock raises) and ``"schedule"`` by default.
      limit: at most so many places of each kind, spread evenly.
      jobs: how many processes to use.
      seed: of the order of tasks in which the faults are tried; 0 for first come, first served.
      expect: checks what ``play`` is about, where nothing was injected.

    Raises:
      Violation: a promise was broken. The note of the error lists the tokens of all runs that broke one.
      HarnessError: it proves nothing: ``play`` fails without a fault, is not the same twice, or gives no fault a place.
    """
    scenario = _scenario(play, expect)
    if only is not None:
        return report_of_one(scenario, only)
    report = simulation.sweep_scenario(scenario, kinds=kinds, limit=limit, jobs=jobs, seed=seed)
    report.raise_if_violated()
    return report


@overload
def swept(play: Callable[..., Awaitable[object]], /) -> Callable[..., None]: ...
@overload
def swept(**options: Any) -> Callable[[Callable[..., Awaitable[object]]], Callable[..., None]]: ...
def swept(play: Callable[..., Awaitable[object]] | None = None, /, **options: Any) -> Any:
    """Make a test of an async function, for pytest or any other runner: the test sweeps the function.

    ``@swept`` and ``@swept(limit=20)`` both work; the options are those of `sweep`. A parameter named ``lab`` gets the
    `Lab` of each run; all others are fixtures, made once for the whole sweep.
    """
    if play is None:
        return partial(makes_test, run=sweep, given="lab", options=options)
    return makes_test(play, run=sweep, given="lab", options=options)


def replay(play: Play, token: str) -> Sim:
    """Run again what a token names.

    Returns:
      The record of the run.

    Raises:
      Violation: it still breaks a promise.
    """
    return simulation.replay_token(_scenario(play, None), token)


def _scenario(play: Play, expect: Callable[[Lab], None] | None) -> Callable[[], PlayScenario]:
    check_async(play)
    name = function_name(play)
    replays_with = f"sweep({name}, only={{token!r}})"
    return partial(PlayScenario, name.replace("_", "-"), play, expect, replays_with)
