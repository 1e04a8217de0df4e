"""Looking for a broken promise: through the corpus, its sweeps, and programs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from random import Random

import msgspec

from agentloop.testing._hypothesis import hypothesis, stateful
from agentloop.testing.harness.corpus import corpus
from agentloop.testing.harness.machine import StreamMachine
from agentloop.testing.harness.programs import Program, pick_faults, run_program
from agentloop.testing.simulation import Fault, HarnessError, SweepReport, Violation, simulate, sweep

__all__ = ["Found", "hunt_corpus", "hunt_programs", "hunt_sweeps", "sweep_corpus"]


class Found(msgspec.Struct, frozen=True):
    """A broken promise."""

    runs: int
    """How many runs it took, this one included."""
    token: str
    what: str


def hunt_corpus(limit: int) -> Found | None:
    """Run each scenario of the corpus once, without any fault."""
    for runs, make in enumerate(corpus().values(), start=1):
        if runs > limit:
            return None
        try:
            simulate(make())
        except Violation as violation:
            return Found(runs, violation.token, violation.what)
    return None


def hunt_sweeps(limit: int, *, points: int = 20) -> Found | None:
    """Sweep the scenarios of the corpus that pass without a fault, ``points`` of each kind."""
    runs = 0
    for make in corpus().values():
        if runs >= limit:
            return None
        try:
            report = sweep(make, limit=points)
        except HarnessError:
            continue  # It fails without a fault, or has no place for one: the corpus by itself is for that.
        if report.violations:
            token, violation = report.violations[0]
            return Found(runs + 1, token, violation.what)
        runs += report.runs
    return None


class _Enough(Exception):  # noqa: N818 - no error, but the end of a hunt
    pass


def hunt_programs(limit: int, *, seed: int, steps: int = 20, faults: int = 0) -> Found | None:
    """Let the state machine write programs, and run them, until one breaks a promise. Nothing is shrunk.

    Args:
      limit: how many programs to run at most.
      seed: the same seed, with the same hypothesis, gives the same programs.
      steps: how many rules write a program.
      faults: how many times to run each again, with a fault in some place.
    """
    hunt = _Hunt(limit, faults)
    machine: type[StreamMachine] = type("Hunting", (StreamMachine,), {"run": staticmethod(hunt.run)})
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
    return hunt.found


class _Hunt:
    def __init__(self, limit: int, faults: int) -> None:
        self.found: Found | None = None
        self._limit = limit
        self._faults = faults
        self._runs = 0

    def run(self, program: Program) -> None:
        if self.found is not None or self._runs >= self._limit:
            raise _Enough
        self._runs += 1
        fault: Fault | None = None
        try:
            sim = run_program(program, reached=StreamMachine.reached)
            for fault in pick_faults(sim, Random(str(program)), self._faults):
                run_program(program, fault=fault, reached=StreamMachine.reached)
        except Violation as violation:
            token = str(program) if fault is None else f"{program} {fault}"
            self.found = Found(self._runs, token, violation.what)
            raise _Enough from None


def sweep_corpus(
    *, limit: int | None = None, jobs: int = 1, seed: int = 0, only: Callable[[str], bool] = lambda _name: True
) -> Iterator[tuple[str, SweepReport]]:
    """Sweep each scenario of the corpus, and give its name and what came of it."""
    for name, make in corpus().items():
        if only(name):
            yield name, sweep(make, limit=limit, jobs=jobs, seed=seed)
