"""Try every fault of some kinds on a scenario: one run for each place where it can strike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import zip_longest
from typing import Literal, TypeAlias

from attrs import evolve, frozen

from agentloop.testing.simulation.errors import HarnessError, InjectedInterrupt
from agentloop.testing.simulation.faults import Cancel, ClockRaise, Fault, Interrupt, IoRaise, SeamRaise, StepRaise
from agentloop.testing.simulation.forked import run_forked
from agentloop.testing.simulation.scenario import Invariants, Scenario
from agentloop.testing.simulation.schedule import Schedule, fifo, replay, seeded
from agentloop.testing.simulation.sim import Sim
from agentloop.testing.simulation.simulate import simulate
from agentloop.testing.simulation.tokens import parse_token
from agentloop.testing.simulation.violation import Violation

__all__ = ["Kind", "OnRun", "SweepReport", "Tally", "faults_tried", "replay_token", "sweep_scenario"]

Kind: TypeAlias = Literal["cancel", "seam", "io", "clock", "interrupt", "schedule", "batch", "step"]
"""The kinds of faults that a sweep can try:

- ``cancel``: each named scope or action, cancelled after each step.
- ``seam``: each call of `Sim.seam`, raising before or after its checkpoint.
- ``io``: each use of the simulated network, and of a file by way of trio or anyio, failing with an `OSError`.
- ``clock``: each reading of the clock by the code that `Sim.watch_clock` names, raising.
- ``interrupt``: Ctrl-C after each step in which the main task waits, and in each call of `Sim.seam`.
- ``schedule``: one deviation from FIFO order at each choice of granularity ``step``, for each other task.
- ``batch``: the same for the choices of granularity ``batch``, which are those that trio has today.
- ``step``: each step, resumed with an exception. Advice only, see `StepRaise`.
"""

_RUNS_WORTH_A_PROCESS = 50
_MOST_TOKENS = 20
"""Tokens in the note of an error. The report has all of them."""
_DEFAULT: tuple[Kind, ...] = ("cancel", "seam", "io", "clock", "schedule")
_NEEDS: dict[Kind, str] = {
    "cancel": "no scope was open when a step ended: open some with sim.scope(), or name them in sim.on_cancel()",
    "seam": "nothing called sim.seam()",
    "io": "nothing used the simulated network, or a file",
    "clock": "nothing that sim.watch_clock() names read the clock",
    "interrupt": "the main task never waited, and nothing called sim.seam()",
    "schedule": "there was never more than one task to run",
    "batch": "there was never more than one task to run",
    "step": "there was no task to interrupt",
}


_Point: TypeAlias = tuple[Fault | None, Schedule | None]


@frozen
class Tally:
    """How many runs a sweep made for one kind, and in how many of them the fault took place."""

    runs: int
    fired: int


@frozen
class SweepReport:
    """The result of a sweep. A report does not raise by itself: see ``violations``, or call `raise_if_violated`."""

    runs: int
    """Without the runs that go before, and have no fault."""
    fired: int
    """Runs in which the fault took place, or the order of tasks was changed."""
    violations: list[tuple[str, Violation]]
    """The token of each run that broke a guarantee, and its error, in order of the places."""
    by_kind: dict[Kind, Tally]

    def raise_if_violated(self) -> None:
        """Raise the first violation, with the number of all the others."""
        if self.violations:
            first = self.violations[0][1]
            first.add_note(f"({len(self.violations)} of {self.runs} runs of this sweep failed; this is the first)")
            lines = ["the runs that failed:", *(f"  {token}" for token, _ in self.violations[:_MOST_TOKENS])]
            if len(self.violations) > _MOST_TOKENS:
                lines.append(f"  and {len(self.violations) - _MOST_TOKENS} more")
            first.add_note("\n".join(lines))
            raise first

    def __str__(self) -> str:
        kinds = ", ".join(f"{kind}: {tally.fired} of {tally.runs} fired" for kind, tally in self.by_kind.items())
        lines = [f"{self.runs} runs ({kinds}), {len(self.violations)} violations"]
        return "\n".join([*lines, *(f"  {token}: {violation.problem}" for token, violation in self.violations)])


OnRun: TypeAlias = Callable[[Sim, Violation | None], object]
"""Called after each run of a sweep, with the run's error."""


def sweep_scenario(
    make_scenario: Callable[[], Scenario],
    *,
    kinds: Iterable[Kind] | None = None,
    scopes: Iterable[str] | None = None,
    limit: int | None = None,
    on_run: OnRun | None = None,
    invariants: Invariants | None = None,
    max_steps: int = 20_000,
    max_virtual: float = 1e6,
    jobs: int = 1,
    seed: int = 0,
) -> SweepReport:
    """Run a scenario once for each place where a fault can strike.

    A sweep is as good as its scenario: it finds the failures of this situation, not of other situations.

    Args:
      make_scenario: makes a new scenario, the same each time.
      kinds: what to try. Each kind named here must find a place in the scenario; by default ``cancel``, ``seam``,
        ``io``, ``clock`` and ``schedule`` are tried, and one of them must.
      scopes: which names to cancel; all that the scenario registers by default.
      limit: at most so many runs of each kind, spread evenly over its places; all of them by default.
      on_run: called after each run. Not with more than one process.
      invariants, max_steps, max_virtual: as for `simulate`.
      jobs: how many processes to spread many runs over, where the system can fork.
      seed: of the order of tasks in which the faults are tried; 0 for first come, first served. In another order,
        ``schedule`` is not tried by default.

    Raises:
      HarnessError: the scenario fails without a fault, or is not the same twice; or nothing was run, or fired.
    """
    if on_run is not None and jobs > 1:
        raise HarnessError("on_run sees nothing of what other processes do: use one job")
    bench = _Bench(make_scenario, invariants, max_steps, max_virtual, seed)
    base = bench.baseline()
    # A scenario that never closes a channel does not promise to: only what a fault leaves open is a leak.
    bench = evolve(bench, tolerated=frozenset(base.channels_left))
    tallies: dict[Kind, Tally] = {}
    violations: list[tuple[str, Violation]] = []
    for kind in (_DEFAULT[: 4 if seed else 5]) if kinds is None else kinds:
        before = len(violations)
        tallies[kind] = _sweep_kind(kind, bench, base, scopes, limit, on_run, jobs, violations)
        if kinds is not None and not tallies[kind].fired and len(violations) == before:
            raise HarnessError(
                f"the {kind} sweep of {base.name} fired nothing in {_runs(tallies[kind])}: {_NEEDS[kind]}"
            )
    report = SweepReport(
        runs=sum(tally.runs for tally in tallies.values()),
        fired=sum(tally.fired for tally in tallies.values()),
        violations=violations,
        by_kind=tallies,
    )
    if not report.fired and not violations:
        needs = "; ".join(f"{kind}: {_NEEDS[kind]}" for kind in tallies) or "no kind was named"
        raise HarnessError(f"the sweep of {base.name} fired nothing. {needs}")
    return report


def replay_token(
    make_scenario: Callable[[], Scenario],
    token: str,
    *,
    invariants: Invariants | None = None,
    max_steps: int = 20_000,
    max_virtual: float = 1e6,
) -> Sim:
    """Run again what a token names. Raises what that run raised, `Violation` mostly, and returns it if it passes.

    Raises:
      HarnessError: the token cannot be read, or belongs to another scenario; and all that `simulate` raises.
    """
    parsed = parse_token(token)
    scenario = make_scenario()
    if scenario.name != parsed.name:
        raise HarnessError(f"the token {token!r} is of the scenario {parsed.name}, not of {scenario.name}")
    return simulate(
        scenario,
        fault=parsed.fault,
        schedule=parsed.schedule,
        invariants=invariants,
        max_steps=max_steps,
        max_virtual=max_virtual,
    )


def faults_tried(base: Sim, kind: Kind, limit: int) -> list[Fault]:
    """The faults that a sweep of one kind tries: ``limit`` of them, spread over the places of a run that had none."""
    return [fault for fault, _ in _thin(list(_points(kind, base, None)), limit) if fault is not None]


@frozen
class _Bench:
    make_scenario: Callable[[], Scenario]
    invariants: Invariants | None
    max_steps: int
    max_virtual: float
    seed: int
    tolerated: frozenset[str] | None = None

    def run(self, fault: Fault | None = None, schedule: Schedule | None = None) -> tuple[Sim, Violation | None]:
        try:
            sim = simulate(
                self.make_scenario(),
                fault=fault,
                schedule=seeded(self.seed) if schedule is None and self.seed else schedule,
                invariants=self.invariants,
                max_steps=self.max_steps,
                max_virtual=self.max_virtual,
                tolerated=self.tolerated,
            )
        except Violation as violation:
            return violation.sim, violation
        return sim, None

    def baseline(self) -> Sim:
        first, violation = self.run()
        if violation is not None:
            raise HarnessError(
                f"{first.name} fails without any fault, so a sweep would show nothing: {violation.problem}"
            ) from violation
        second, _ = self.run()
        for number, (event, repeated) in enumerate(zip_longest(first.trace, second.trace), start=1):
            if event != repeated:
                raise HarnessError(
                    f"{first.name} is not the same twice: event {number} was {event!r}, then {repeated!r}. Does it use "
                    f"the time, random numbers, the order of a set, or something that an earlier run left behind?"
                )
        return first


def _sweep_kind(
    kind: Kind,
    bench: _Bench,
    base: Sim,
    scopes: Iterable[str] | None,
    limit: int | None,
    on_run: OnRun | None,
    jobs: int,
    violations: list[tuple[str, Violation]],
) -> Tally:
    if kind == "schedule":
        # FIFO order again, but with the choices that this granularity has. By itself it is no fault.
        base, violation = bench.run(schedule=fifo("step"))
        if violation is not None:
            violations.append((base.token, violation))
            return Tally(runs=1, fired=0)
    points = _thin(list(_points(kind, base, scopes)), limit)

    def run(index: int) -> tuple[Sim, Violation | None]:
        return bench.run(*points[index])

    def brief(index: int) -> tuple[bool, bool]:
        sim, violation = run(index)
        if on_run is not None:
            on_run(sim, violation)
        if violation is not None and jobs == 1:
            violations.append((sim.token, violation))
        return sim.fired, violation is not None

    # To fork takes as long as a good many runs.
    jobs = min(jobs, 1 + len(points) // _RUNS_WORTH_A_PROCESS)
    results = run_forked(jobs, len(points), brief)
    if jobs > 1:
        # The error cannot be pickled: reproduce it in this process.
        for index in (index for index, (_, violated) in enumerate(results) if violated):
            sim, violation = run(index)
            if violation is None:
                raise HarnessError(f"{sim.token} failed in another process, but not in this one")
            violations.append((sim.token, violation))
    return Tally(runs=len(points), fired=sum(fired for fired, _ in results))


def _points(kind: Kind, base: Sim, scopes: Iterable[str] | None) -> Iterator[_Point]:
    match kind:
        case "cancel":
            steps = _steps_by_name(base)
            names = list(steps) if scopes is None else list(scopes)
            if unknown := [name for name in names if name not in steps]:
                raise HarnessError(f"{base.name} has no scope {unknown[0]!r}; it has {', '.join(steps) or 'none'}")
            yield from ((Cancel(step, name), None) for name in names for step in sorted(steps[name]))
        case "seam":
            for call in range(1, base.seams + 1):
                yield SeamRaise(call), None
                yield SeamRaise(call, after=True), None
                for exc in base.ways.get(call, ()):
                    yield SeamRaise(call, exc), None
        case "io":
            yield from ((IoRaise(call), None) for call in range(1, base.io_calls + 1))
        case "clock":
            yield from ((ClockRaise(read), None) for read in range(1, base.clock_reads + 1))
        case "interrupt":
            yield from ((Interrupt(step), None) for step in range(1, base.steps + 1))
            yield from ((SeamRaise(call, InjectedInterrupt), None) for call in range(1, base.seams + 1))
        case "schedule" | "batch":
            for choice, options in enumerate(base.options, start=1):
                yield from ((None, replay({choice: pick}, base.granularity)) for pick in range(1, options))
        case "step":
            yield from ((StepRaise(step), None) for step in range(1, base.steps + 1))


def _steps_by_name(base: Sim) -> dict[str, set[int]]:
    """For each name, the steps after which there was something to cancel."""
    steps: dict[str, set[int]] = {}
    for target in base.targets:
        last = base.steps if target.last is None else target.last
        steps.setdefault(target.name, set()).update(range(target.first, last + 1))
    return steps


def _thin(points: list[_Point], limit: int | None) -> list[_Point]:
    if limit is None or len(points) <= limit:
        return points
    return [points[index * len(points) // limit] for index in range(limit)]


def _runs(tally: Tally) -> str:
    return "1 run" if tally.runs == 1 else f"{tally.runs} runs"
