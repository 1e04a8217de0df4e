"""``python -m agentloop.testing``: run the corpus and its sweeps, replay tokens, fuzz, and plant bugs.

- ``corpus``: every scenario of the corpus, swept at some places of each kind. This is the default.
- ``corpus --every``: the same at every place, 200 of each kind at most.
- ``corpus --lines``: the lines that the corpus never runs.
- ``mixes``: agents, people and readers put together at random, each compared with what was recorded of it.
- ``record``: write down anew what each scenario and each mix does, in a checkout of the repository.
- ``replay TOKEN``: one run again, by the token, or the program, that a failure printed.
- ``fuzz``: programs without end, or for ``--seconds``.
- ``mutants``: break the runtime in every way we know, and see whether the harness notices.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from agentloop.testing._recorded import RecordAnew
from agentloop.testing.harness.corpus import EVERY, PLACES, RECORDINGS, corpus, find_scenario, record, record_faults
from agentloop.testing.harness.lines import lines_run
from agentloop.testing.harness.machine import StreamMachine
from agentloop.testing.harness.mix_plays import mixes, record_mixes
from agentloop.testing.harness.mutants import MUTANTS, control
from agentloop.testing.harness.programs import Program, Reached, run_program
from agentloop.testing.harness.search import BrokenPromise, search_corpus, search_programs, search_sweeps, sweep_corpus
from agentloop.testing.simulation import (
    HarnessError,
    Sim,
    SweepReport,
    Violation,
    parse_fault,
    parse_token,
    replay_token,
    simulate,
)
from agentloop.testing.simulation.forked import run_forked

__all__ = ["main"]

SEEDS = (1, 2, 3)
"""The seeds with which each mutant is hunted by programs, one after another."""
PROGRAMS = 400
"""How many programs a mutant may live through, for each seed."""
FAULTS = 20_000
"""How many runs of the sweeps a mutant may live through."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, and give the exit status: 0, 1 for a broken promise, 2 for a wrong call."""
    options = _parser().parse_args(arguments)
    try:
        run: Callable[[argparse.Namespace], int] = options.run
        return run(options)
    except HarnessError as error:
        print(f"agentloop.testing: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m agentloop.testing", description=__doc__)
    parser.set_defaults(run=_sweep, only="", limit=PLACES, jobs=1, seed=0, lines=False)
    commands = parser.add_subparsers()
    sweep = commands.add_parser("corpus", help="run and sweep the corpus")
    sweep.add_argument("only", nargs="?", default="", help="only scenarios with this in their names")
    sweep.add_argument("--limit", type=int, default=PLACES, help=f"places of each kind in each; {PLACES} by default")
    sweep.add_argument(
        "--every", action="store_const", dest="limit", const=EVERY, help=f"every place of each kind, {EVERY} at most"
    )
    sweep.add_argument("--lines", action="store_true", help="list the lines of the runtime that no scenario runs")
    sweep.add_argument("--jobs", type=int, default=1, help="processes to use")
    sweep.add_argument("--seed", type=int, default=0, help="another order of tasks in which to try the faults")
    sweep.set_defaults(run=_sweep)
    mixed = commands.add_parser("mixes", help="run agents, people and readers that are put together at random")
    mixed.set_defaults(run=_mixes)
    recorder = commands.add_parser("record", help="write down anew what each scenario and each mix does")
    recorder.set_defaults(run=_record)
    replay = commands.add_parser("replay", help="run one token, or program, again")
    replay.add_argument("token", nargs="+")
    replay.add_argument("--trace", action="store_true", help="print what is compared with the recording, line by line")
    replay.set_defaults(run=_replay)
    fuzz = commands.add_parser("fuzz", help="run programs that nobody has written")
    fuzz.add_argument("--seconds", type=float, default=60.0, help="how long; 60 by default")
    fuzz.add_argument("--programs", type=int, help="how many, instead of how long")
    fuzz.add_argument("--seed", type=int, default=0, help="where to begin; the same seed gives the same programs")
    fuzz.add_argument("--faults", type=int, default=2, help="runs of each program with a fault; 2 by default")
    fuzz.add_argument("--jobs", type=int, default=1, help="processes to use")
    fuzz.set_defaults(run=_fuzz)
    mutants = commands.add_parser("mutants", help="see whether the harness notices planted bugs")
    mutants.add_argument("only", nargs="*", metavar="MUTANT", help=f"one of: {', '.join(MUTANTS)}")
    mutants.set_defaults(run=_mutants)
    return parser


# ------------------------------------------------------------------------------ commands


def _sweep(options: argparse.Namespace) -> int:
    names = [name for name in corpus() if options.only in name]
    if not names:
        raise HarnessError(f"no scenario has {options.only!r} in its name")
    if options.lines:
        return _lines(names)
    began, runs, fired, broken = time.perf_counter(), 0, 0, 0
    reports = sweep_corpus(limit=options.limit, jobs=options.jobs, seed=options.seed, only=lambda name: name in names)
    for name, report in _progress(reports, len(names)):
        runs, fired, broken = runs + report.runs, fired + report.fired, broken + len(report.violations)
        for token, violation in report.violations:
            print(f"\n{name}: {token}\n{violation}\nto run it again: python -m agentloop.testing replay '{token}'")
    seconds = time.perf_counter() - began
    print(f"{len(names)} scenarios, {runs} runs, {fired} faults injected, {broken} violations")
    print(f"{seconds:.1f} s, {runs / seconds:.0f} runs a second")
    return 1 if broken else 0


def _mixes(_options: argparse.Namespace) -> int:
    began, broken = time.perf_counter(), 0
    for name, make in mixes().items():
        try:
            simulate(make())
        except Violation as violation:
            broken += 1
            print(f"\n{violation}\nto run it again: python -m agentloop.testing replay {name}")
    print(f"{len(mixes())} mixes, {broken} violations, {time.perf_counter() - began:.1f} s")
    return 1 if broken else 0


def _lines(names: Sequence[str]) -> int:
    """Print the lines of the decisions, the runtime and the stores that no scenario runs, and how many it runs."""
    reports = list(lines_run(names))
    for report in reports:
        if report.missing:
            print(f"{report.file}: {report.ranges}")
    run, known = sum(len(report.run) for report in reports), sum(len(report.known) for report in reports)
    print(f"{len(names)} scenarios run {run} of {known} lines ({run / known:.1%})")
    return 0


def _record(_options: argparse.Namespace) -> int:
    if RECORDINGS.folder is None:
        raise HarnessError("the recorded runs are in the repository: run this in a checkout of it")
    try:
        changed = record()
        changed += [f"{name} with a fault" for name in record_faults()]
        mixed, broken = record_mixes()
        changed += mixed
        for violation in broken:
            print(f"{violation}\nso this mix is not recorded")
    except Violation as violation:
        print(violation)
        return 1
    print(f"{len(corpus())} scenarios and {len(mixes())} mixes, {len(changed)} recorded anew in {RECORDINGS.folder}")
    return 0


def _replay(options: argparse.Namespace) -> int:
    token = " ".join(options.token)
    try:
        if options.trace:
            return _trace(token)
        sim = _replay_program(token) if token.startswith("{") else replay_token(find_scenario(token), token)
    except KeyError:
        raise HarnessError(f"no scenario is called {token.split()[0]!r}") from None
    except Violation as violation:
        print(violation)
        return 1
    print(f"no promise was broken ({sim.steps} task steps, {sim.now:g} virtual seconds)")
    return 0


def _trace(token: str) -> int:
    """Print the trace of a run, which has one fault at most."""
    scenario, fault = find_scenario(token)(), parse_token(token).fault
    scenario.recorded, scenario.recorded_faults = RecordAnew(), {str(fault): ""}
    try:
        simulate(scenario, fault=fault)
    finally:
        if scenario.lab is not None and scenario.lab.trace is not None:
            print("\n".join(scenario.lab.trace.lines))
    return 0


def _replay_program(token: str) -> Sim:
    """Run a program again, with the fault behind it, if there is one."""
    text, _, fault = token.rpartition("}")
    return run_program(Program.parse(text + "}"), fault=parse_fault(fault.strip()) if fault.strip() else None)


def _fuzz(options: argparse.Namespace) -> int:
    began = time.perf_counter()
    results = run_forked(options.jobs, options.jobs, partial(_fuzz_alone, options))
    seconds = time.perf_counter() - began
    _show("")
    reached = sum((job_reached for job_reached, _ in results), start=Reached())
    print(f"{reached}\n{seconds:.1f} s, {reached.programs / seconds:.0f} programs a second")
    broken = [promise for _, promise in results if promise is not None]
    for promise in broken:
        print(f"{promise.problem}\nto run it again: python -m agentloop.testing replay '{promise.token}'")
    return 1 if broken else 0


def _fuzz_alone(options: argparse.Namespace, job: int) -> tuple[Reached, BrokenPromise | None]:
    """The coverage of one process, and the broken promise that it finds. The processes' seeds are a million apart."""
    began, seed = time.perf_counter(), options.seed + job * 1_000_000
    broken: BrokenPromise | None = None
    StreamMachine.reached = Reached()
    batch = min(500, -(-options.programs // options.jobs)) if options.programs else 500
    while broken is None and _goes_on(options, time.perf_counter() - began, StreamMachine.reached.programs):
        broken = search_programs(batch, seed=seed, faults=options.faults)
        seed += 1
        _show(f"{StreamMachine.reached}, seed {seed}")
    return StreamMachine.reached, broken


def _goes_on(options: argparse.Namespace, seconds: float, programs: int) -> bool:
    return bool(programs * options.jobs < options.programs if options.programs else seconds < options.seconds)


def _mutants(options: argparse.Namespace) -> int:
    unknown = [name for name in options.only if name not in MUTANTS]
    if unknown:
        raise HarnessError(f"no mutant is called {unknown[0]!r}; there are {', '.join(MUTANTS)}")
    with control():
        healthy = _search_all()
    print(f"{'control':42} {_row(healthy)}")
    survivors = ["control"] if any(healthy) else []
    for name in options.only or MUTANTS:
        with MUTANTS[name]():
            broken = _search_all()
        print(f"{name:42} {_row(broken)}", flush=True)
        if not any(broken):
            survivors.append(name)
    if survivors:
        print(f"not as it should be: {', '.join(survivors)}")
    return 1 if survivors else 0


def _search_all() -> list[BrokenPromise | None]:
    """The corpus as it is, programs with each seed, and, where all of them find nothing, the sweeps."""
    broken = [search_corpus(10_000), *(search_programs(PROGRAMS, seed=seed) for seed in SEEDS)]
    return [*broken, None if any(broken) else search_sweeps(FAULTS)]


def _row(broken: Sequence[BrokenPromise | None]) -> str:
    names = ("corpus", *(f"seed {seed}" for seed in SEEDS), "sweeps")
    cells = zip(names, broken, strict=True)
    return "  ".join(f"{name} {promise.runs if promise else '-':>4}" for name, promise in cells)


# ------------------------------------------------------------------------------ progress


def _show(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text[:110]}", end="", file=sys.stderr, flush=True)


def _progress(items: Iterable[tuple[str, SweepReport]], total: int) -> Iterable[tuple[str, SweepReport]]:
    for done, (name, item) in enumerate(items, start=1):
        _show(f"[{'#' * (30 * done // total):30}] {done}/{total} {name}")
        yield name, item
    _show("")


if __name__ == "__main__":
    sys.exit(main())
