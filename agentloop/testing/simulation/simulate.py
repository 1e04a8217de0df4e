"""Run one scenario once, under control, and judge it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import cast

from agentloop.testing.simulation.engine import Engine
from agentloop.testing.simulation.errors import HarnessError, InjectedInterrupt
from agentloop.testing.simulation.faults import Fault
from agentloop.testing.simulation.leaks import LeakWatch
from agentloop.testing.simulation.scenario import Invariants, Outcome, Scenario
from agentloop.testing.simulation.schedule import Schedule, fifo
from agentloop.testing.simulation.sim import Sim
from agentloop.testing.simulation.violation import Violation

__all__ = ["simulate"]


def simulate(
    scenario: Scenario,
    *,
    fault: Fault | None = None,
    schedule: Schedule | None = None,
    invariants: Invariants | None = None,
    max_steps: int = 20_000,
    max_virtual: float = 1e6,
    tolerated: frozenset[str] | None = None,
) -> Sim:
    """Run a scenario in a ``trio.run`` of its own, on a virtual clock, with every scheduling choice made for it.

    Two runs with the same scenario, fault and schedule do the same, step by step. A run that hangs is ended.

    Args:
      scenario: a new one; it is used up.
      fault: the fault to inject into this run.
      schedule: which task runs when several could; `fifo` by default.
      invariants: called with the run and its outcome after the scenario's own check.
      max_steps: task steps after which the run is taken for one that loops.
      max_virtual: seconds on the virtual clock after which it is taken for one that sets timers without end.

      tolerated: the ends of memory channels, as in `Sim.channels_left`, that may be open at the end; by default all.

    Raises:
      Violation: the run got stuck, a check failed, or something was left behind: an async generator that is not
        closed, a system task, a simulated socket, a coroutine that was not awaited, an error in a finalizer, a resource
        that was not released.
      HarnessError: the run proves nothing: the scenario used a real socket or process, say.

    Anything but an `AssertionError` that a check raises is passed on as it is.
    """
    schedule = schedule or fifo()
    sim = Sim(scenario.name, fault=fault, granularity=schedule.granularity)
    engine = Engine(sim, schedule, max_steps=max_steps, max_virtual=max_virtual)
    with LeakWatch() as leaks:
        outcome = _run(scenario, engine, sim)
        _judge_run(engine, sim)
        _judge(sim, outcome, scenario.check)
        if invariants is not None:
            _judge(sim, outcome, invariants)
        # A file that only the traceback of an excused error keeps alive is a leak all the same.
        _forget_tracebacks(outcome.error, set())
    known = sim.channels_left if tolerated is None else tolerated
    channels = [f"{end} is still open" for end in sim.channels_left if end not in known]
    left = [*engine.left, *channels, *leaks.found]
    if left:
        raise Violation("\n  ".join(["left behind:", *left]), sim=sim)
    return sim


def _run(scenario: Scenario, engine: Engine, sim: Sim) -> Outcome:
    outcome = Outcome()
    try:
        engine.run(scenario.run)
    except (KeyboardInterrupt, HarnessError) as error:
        if not isinstance(error, InjectedInterrupt):
            raise
        outcome = Outcome(error)
    except BaseException as error:  # noqa: BLE001, ASYNC103
        outcome = Outcome(error)
    sim.trace.append(type(outcome.error).__name__)
    return outcome


def _judge_run(engine: Engine, sim: Sim) -> None:
    """Raise whatever went wrong with the run itself."""
    if engine.schedule_error is not None:
        # Hypothesis steers by such exceptions. They must reach it as they are.
        raise engine.schedule_error
    if sim.problem is not None:
        raise sim.problem
    if sim.stuck is not None:
        raise Violation(str(sim.stuck), sim=sim)
    if engine.crash is not None:
        raise Violation(f"trio.run itself failed: {engine.crash.__cause__!r}", sim=sim) from engine.crash
    if engine.action_error is not None:
        raise Violation(f"the cancel action raised {engine.action_error!r}", sim=sim) from engine.action_error


def _forget_tracebacks(error: BaseException | None, seen: set[int]) -> None:
    if error is None or id(error) in seen:
        return
    seen.add(id(error))
    error.__traceback__ = None
    inner: tuple[BaseException, ...] = ()
    if isinstance(error, BaseExceptionGroup):
        inner = cast("BaseExceptionGroup[BaseException]", error).exceptions
    for other in (error.__cause__, error.__context__, *inner):
        _forget_tracebacks(other, seen)


def _judge(sim: Sim, outcome: Outcome, check: Callable[[Sim, Outcome], None]) -> None:
    if (failed := _assertion_in(outcome.error)) is not None:
        raise Violation(f"the scenario itself failed: {failed}", sim=sim) from failed
    try:
        check(sim, outcome)
    except AssertionError as error:
        raise Violation(f"the check failed: {error}", sim=sim) from error
    except Exception as error:
        error.add_note(f"while checking {sim.token}")
        raise


def _assertion_in(error: BaseException | None) -> AssertionError | None:
    if isinstance(error, BaseExceptionGroup):
        inner: Iterable[BaseException] = cast("BaseExceptionGroup[BaseException]", error).exceptions
        return next(filter(None, map(_assertion_in, inner)), None)
    return error if isinstance(error, AssertionError) else None
