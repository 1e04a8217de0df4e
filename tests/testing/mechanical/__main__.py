"""Change each line of the runtime a little, and see which changes the corpus does not notice.

::

    python -m tests.testing.mechanical --file agentloop/_runtime/loop.py
    python -m tests.testing.mechanical --file agentloop/_runtime/loop.py --lines 100-200
    python -m tests.testing.mechanical --sample 200 --seed 7

A condition is turned round, a statement is left out, `and` becomes `or`, a number is off by one, an error is not
caught. Each change is made in a forked process, in which the scenarios and mixes that run its line run again. A change
that none of them notices is printed. A few of these change nothing that can be seen; each other one says which promise
no scenario looks at. ``--planted fifth`` does the same with the bugs of a set: that is quicker than to plant each in a
copy, and says the same of those that the simulation reaches.
"""

from __future__ import annotations

import argparse
import ast
import gc
import os
import random
import select
import signal
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import CodeType, FunctionType

from attrs import frozen

import agentloop
from agentloop.testing.harness.corpus import corpus, recorded_faults
from agentloop.testing.harness.lines import ELSEWHERE, FOLDERS
from agentloop.testing.harness.mix_plays import mixes
from agentloop.testing.simulation import Fault, simulate
from tests.testing.mechanical.mutations import mutants_of
from tests.testing.mechanical.reach import Reach, reach_of
from tests.testing.planted.__main__ import SETS
from tests.testing.planted.table import Bug

TOP = Path(agentloop.__file__).parent
_FEW = 5
_LATE = "nobody so far, as the time is over"


@frozen
class _Case:
    name: str
    file: Path
    tree: ast.Module
    scenarios: Sequence[str]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it, and give the exit status: 1 if more survive than is allowed."""
    options = _options(arguments)
    files = [path.resolve() for path in options.file or _all_files()]
    if options.planted:
        files = sorted({TOP / bug.file for _, bug in _planted(options)})
    makers = mixes() if options.mixes else {**corpus(), **mixes()}
    reach = reach_of({str(file) for file in files}, makers)
    cases = _bugs(options, reach) if options.planted else _changes(options, files, reach)
    unreached = [case for case in cases if not case.scenarios]
    cases = [case for case in cases if case.scenarios]
    total = len(cases)
    if options.sample is not None and options.sample < total:
        picked = sorted(random.Random(options.seed).sample(range(total), options.sample))
        cases = [cases[index] for index in picked]
    survivors, noticed = 0, Counter[str]()
    began = time.monotonic()
    functions = _functions_of(files)
    for case in cases:
        # The scenarios that noticed most so far come first.
        names = sorted(case.scenarios[:60], key=lambda name: -noticed[name]) + list(case.scenarios[60:])
        who = _try(case, _runs(names, with_faults=options.faults), functions, options.seconds)
        if who and who != _LATE:
            noticed[who.partition(" ")[0]] += 1
        else:
            survivors += 1
        if options.planted or who in ("", _LATE):
            print(f"{case.name}: {who or 'nobody'} ({len(names)} scenarios)", flush=True)
    for case in unreached if options.planted or options.unreached else ():
        print(f"{case.name}: no scenario runs it")
    print(
        f"{survivors} of {len(cases)} changes survive, {total} could be tried, {len(unreached)} more are in lines that "
        f"no scenario runs ({time.monotonic() - began:.0f} s)"
    )
    return int(survivors > options.allowed)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", help="of the planted bugs, only these, as fifth:7")
    parser.add_argument("--file", action="append", type=Path, help="a file to change; by default each of the runtime")
    parser.add_argument("--lines", default="", help="only lines from here to there, as 10-90")
    parser.add_argument("--sample", type=int, help="only so many changes, picked at random")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--seconds", type=float, default=60, help="for the scenarios of one change")
    parser.add_argument(
        "--faults", action="store_true", help="then the same scenarios with the faults that are recorded"
    )
    parser.add_argument("--mixes", action="store_true", help="the mixes alone, without the scenarios of the corpus")
    parser.add_argument("--unreached", action="store_true", help="list the changes that no scenario runs")
    parser.add_argument("--planted", nargs="+", choices=SETS, help="the bugs of these sets, and no other changes")
    parser.add_argument("--allowed", type=int, default=sys.maxsize, help="changes that may survive")
    return parser.parse_args(arguments)


def _all_files() -> Iterator[Path]:
    for folder in FOLDERS:
        yield from (path for path in sorted((TOP / folder).glob("*.py")) if path.name not in ELSEWHERE)


def _changes(options: argparse.Namespace, files: Sequence[Path], reach: Reach) -> list[_Case]:
    first, _, last = options.lines.partition("-")
    between = range(int(first or 1), int(last or first or sys.maxsize) + 1)
    return [
        _Case(
            f"{file.relative_to(TOP.parent)}:{mutant.line} {mutant.change}",
            file,
            mutant.tree,
            reach.scenarios(str(file), mutant.lines),
        )
        for file in files
        for mutant in mutants_of(file.read_text(encoding="utf-8"))
        if mutant.line in between
    ]


def _planted(options: argparse.Namespace) -> list[tuple[str, Bug]]:
    bugs = [(f"{name} {number}", bug) for name in options.planted for number, bug in enumerate(SETS[name], 1)]
    return [(name, bug) for name, bug in bugs if not options.only or name.replace(" ", ":") in options.only]


def _bugs(options: argparse.Namespace, reach: Reach) -> list[_Case]:
    cases: list[_Case] = []
    for name, bug in _planted(options):
        path = TOP / bug.file
        text = path.read_text(encoding="utf-8")
        start = text[: text.index(bug.before)].count("\n") + 1
        lines = range(start, start + bug.before.count("\n") + 1)
        tree = ast.parse(text.replace(bug.before, bug.after))
        cases.append(_Case(f"{name} {bug.name}", path, tree, reach.scenarios(str(path), lines)))
    return cases


def _runs(names: Sequence[str], *, with_faults: bool) -> Iterator[tuple[str, Fault | None]]:
    yield from ((name, None) for name in names)
    if with_faults:
        yield from ((name, fault) for name in names if name in corpus() for fault in recorded_faults(name))


def _functions_of(files: Sequence[Path]) -> dict[str, list[FunctionType]]:
    """The functions of each file, in the order of their lines."""
    functions: dict[str, list[FunctionType]] = {str(file): [] for file in files}
    for item in gc.get_objects():
        if isinstance(item, FunctionType) and item.__code__.co_filename in functions:
            functions[item.__code__.co_filename].append(item)
    # What is there need not be looked at by the collector of each process.
    gc.freeze()
    return functions


def _try(
    case: _Case, runs: Iterable[tuple[str, Fault | None]], functions: dict[str, list[FunctionType]], seconds: float
) -> str:
    """The run that notices the change; empty if none does."""
    receive, send = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        os.close(receive)
        _in_child(send, case, runs, functions)
    os.close(send)
    try:
        said, until = "", time.monotonic() + seconds
        while not said.endswith("\n"):
            ready, _, _ = select.select([receive], [], [], max(until - time.monotonic(), 0))
            if not ready:
                # One run takes that long only where it is a loop without a checkpoint.
                return "a run that does not end" if said.count("+") < _FEW else _LATE
            said += os.read(receive, 1000).decode()
        return said.replace("+", "").strip()
    finally:
        os.close(receive)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _in_child(
    send: int, case: _Case, runs: Iterable[tuple[str, Fault | None]], functions: dict[str, list[FunctionType]]
) -> None:
    who = ""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(1, 2)
        _swap(case, functions[str(case.file)])
        makers = {**corpus(), **mixes()}
        for name, fault in runs:
            who = name if fault is None else f"{name} {fault}"
            simulate(makers[name](), fault=fault)
            os.write(send, b"+")
        who = ""
    except BaseException:  # noqa: BLE001 - whatever it is, it is noticed
        pass
    finally:
        os.write(send, f"{who}\n".encode())
        os._exit(0)


def _swap(case: _Case, functions: list[FunctionType]) -> None:
    """Give the functions of the file the code of the changed one."""
    changed = _by_name(_codes(compile(case.tree, str(case.file), "exec", dont_inherit=True)))
    live = _by_name({id(function.__code__): function.__code__ for function in functions}.values())
    new = {
        id(old): code for name, codes in live.items() for old, code in zip(codes, changed.get(name, ()), strict=False)
    }
    for function in functions:
        code = new.get(id(function.__code__))
        if code is not None and code.co_freevars == function.__code__.co_freevars:
            function.__code__ = code


def _codes(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _codes(constant)


def _by_name(codes: Iterable[CodeType]) -> dict[str, list[CodeType]]:
    """The codes of each name, in the order of their lines: a property has several."""
    named: dict[str, list[CodeType]] = {}
    for code in sorted(codes, key=lambda code: code.co_firstlineno):
        named.setdefault(code.co_qualname, []).append(code)
    return named


if __name__ == "__main__":
    sys.exit(main())
