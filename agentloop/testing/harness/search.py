"""Looking for a broken promise: through the corpus, its sweeps, and programs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from random import Random

import msgspec

from agentloop.testing._hypothesis import hypothesis, stateful
from agentloop.testing.harness.corpus import corpus, recorded_faults
from agentloop.testing.harness.machine import StreamMachine
from agentloop.testing.harness.mix_plays import mixes
from agentloop.testing.harness.programs import Program, pick_faults, run_program, simpler
from agentloop.testing.simulation import (
    Fault,
    HarnessError,
    Scenario,
    SweepReport,
    Violation,
    simulate,
    sweep_scenario as sweep,
)

__all__ = [
    "BrokenPromise",
    "search_corpus",
    "search_mixes",
    "search_programs",
    "search_recorded_faults",
    "search_sweeps",
    "shrink",
    "sweep_corpus",
    "sweep_scenario",
]


class BrokenPromise(msgspec.Struct, frozen=True):
    """A broken promise."""

    runs: int
    """How many runs it took, this one included."""
    token: str
    problem: str


def search_corpus(limit: int) -> BrokenPromise | None:
    """Run each scenario of the corpus once, without any fault."""
    for runs, make in enumerate(corpus().values(), start=1):
        if runs > limit:
            return None
        try:
            simulate(make())
        except Violation as violation:
            return BrokenPromise(runs, violation.token, violation.problem)
    return None


def search_mixes() -> BrokenPromise | None:
    """Play each mix once, and compare it with its recording."""
    for runs, make in enumerate(mixes().values(), start=1):
        try:
            simulate(make())
        except Violation as violation:
            return BrokenPromise(runs, violation.token, violation.problem)
    return None


def search_recorded_faults() -> BrokenPromise | None:
    """Run each scenario of the corpus with the faults that are recorded of it."""
    runs = 0
    for name, make in corpus().items():
        for fault in recorded_faults(name):
            runs += 1
            try:
                simulate(make(), fault=fault)
            except Violation as violation:
                return BrokenPromise(runs, violation.token, violation.problem)
    return None


def search_sweeps(limit: int, *, points: int = 20) -> BrokenPromise | None:
    """Sweep the scenarios of the corpus that pass without a fault, ``points`` of each kind."""
    runs = 0
    for make in corpus().values():
        if runs >= limit:
            return None
        report = sweep_scenario(make, limit=points)
        if report.violations:
            token, violation = report.violations[0]
            return BrokenPromise(runs + 1, token, violation.problem)
        runs += report.runs
    return None


class _Enough(Exception):  # noqa: N818 - no error, but the end of a search
    pass


def search_programs(
    limit: int, *, seed: int, steps: int = 20, faults: int = 0, shrinks: bool = True
) -> BrokenPromise | None:
    """Let the state machine write programs, and run them, until one breaks a promise; then make that one smaller.

    Args:
      limit: how many programs to run at most.
      seed: the same seed, with the same hypothesis, gives the same programs.
      steps: how many rules write a program.
      faults: how many times to run each again, with a fault in some place.
      shrinks: whether to make the program smaller.
    """
    search = _Search(limit, faults, shrinks=shrinks)
    machine: type[StreamMachine] = type("Searching", (StreamMachine,), {"run": staticmethod(search.run)})
    with suppress(_Enough):
        stateful.run_state_machine_as_test(
            hypothesis.seed(seed)(machine),
            settings=hypothesis.settings(
                max_examples=limit,
                stateful_step_count=steps,
                deadline=None,
                database=None,
                phases=[hypothesis.Phase.generate],
                suppress_health_check=[
                    hypothesis.HealthCheck.too_slow,
                    hypothesis.HealthCheck.filter_too_much,
                    hypothesis.HealthCheck.data_too_large,
                ],
            ),
        )
    return search.broken


class _Search:
    def __init__(self, limit: int, faults: int, *, shrinks: bool) -> None:
        self._shrinks = shrinks
        self.broken: BrokenPromise | None = None
        self._limit = limit
        self._faults = faults
        self._runs = 0

    def run(self, program: Program) -> None:
        if self.broken is not None or self._runs >= self._limit:
            raise _Enough
        self._runs += 1
        fault: Fault | None = None
        try:
            sim = run_program(program, reached=StreamMachine.reached)
            for fault in pick_faults(sim, Random(str(program)), self._faults):
                run_program(program, fault=fault, reached=StreamMachine.reached)
        except Violation as violation:
            smaller, violation = shrink(program, fault, violation, runs=SHRINKING if self._shrinks else 0)
            token = str(smaller) if fault is None else f"{smaller} {fault}"
            self.broken = BrokenPromise(self._runs, token, violation.problem)
            raise _Enough from None


SHRINKING = 300
"""Runs in which a program that fails is made smaller."""


def shrink(
    program: Program, fault: Fault | None, violation: Violation, *, runs: int = SHRINKING
) -> tuple[Program, Violation]:
    """A smaller program that fails too, perhaps differently, and how it fails.

    Delta debugging: each part of the program is left out, or replaced by something simpler, as long as it still fails.
    """
    shrinks = True
    while shrinks:
        shrinks = False
        for smaller in simpler(program):
            if runs <= 0:
                return program, violation
            runs -= 1
            try:
                run_program(smaller, fault=fault)
            except Violation as found:
                program, violation, shrinks = smaller, found, True
                break
    return program, violation


def sweep_corpus(
    *, limit: int | None = None, jobs: int = 1, seed: int = 0, only: Callable[[str], bool] = lambda _name: True
) -> Iterator[tuple[str, SweepReport]]:
    """Sweep each scenario of the corpus, and give its name and its report.

    A scenario that fails without a fault is reported as that one run, whose token has no fault.
    """
    for name, make in corpus().items():
        if only(name):
            yield name, sweep_scenario(make, limit=limit, jobs=jobs, seed=seed)


def sweep_scenario(
    make: Callable[[], Scenario], *, limit: int | None = None, jobs: int = 1, seed: int = 0
) -> SweepReport:
    """Sweep a scenario of the corpus by the usual kinds, and by interrupts."""
    try:
        report = sweep(make, limit=limit, jobs=jobs, seed=seed)
    except HarnessError as error:
        violation = error.__cause__
        if not isinstance(violation, Violation):
            raise
        return SweepReport(runs=1, fired=0, violations=[(violation.token, violation)], by_kind={})
    try:
        interrupts = sweep(make, kinds=["interrupt"], limit=limit, jobs=jobs, seed=seed)
    except HarnessError:
        # Of a few places, perhaps none is one in which the main task waits.
        return report
    return SweepReport(
        runs=report.runs + interrupts.runs,
        fired=report.fired + interrupts.fired,
        violations=[*report.violations, *interrupts.violations],
        by_kind={**report.by_kind, **interrupts.by_kind},
    )
