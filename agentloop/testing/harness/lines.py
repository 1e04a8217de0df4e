"""Which lines of the decisions, the runtime and the stores the corpus runs, and which it never does."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from attrs import frozen

import agentloop
from agentloop.testing.harness.corpus import corpus
from agentloop.testing.simulation import HarnessError, Violation, simulate, sweep_scenario

__all__ = ["FOLDERS", "LinesRun", "lines_run"]

FOLDERS = ("_core", "_runtime", "stores")
ELSEWHERE = ("jsonl.py", "postgres.py", "sqlite.py", "_sql.py", "_rows.py", "_checks.py", "_group_commit.py")
"""Stores on a disk or a server, which no simulation has: ``tests/stores`` runs them."""
PLACES = 3
"""Places of each kind of fault, in each scenario."""


@frozen
class LinesRun:
    """The lines of one file that can run, and those that did."""

    file: str
    known: frozenset[int]
    run: frozenset[int]

    @property
    def missing(self) -> list[int]:
        """The lines that never ran."""
        return sorted(self.known - self.run)

    @property
    def ranges(self) -> str:
        """The missing lines, as ``12-15, 40``; lines that cannot run do not break a range."""
        groups: list[list[int]] = []
        lines = sorted(self.known)
        for line in self.missing:
            if groups and lines.index(line) == lines.index(groups[-1][-1]) + 1:
                groups[-1].append(line)
            else:
                groups.append([line])
        return ", ".join(f"{group[0]}-{group[-1]}" if len(group) > 1 else f"{group[0]}" for group in groups)


def lines_run(names: Iterable[str]) -> Iterator[LinesRun]:
    """Run scenarios of the corpus, without a fault and with some, and give the lines that ran, file by file."""
    top = Path(agentloop.__file__).parent
    seen: dict[str, set[int]] = {}
    files = {str(path) for folder in FOLDERS for path in (top / folder).glob("*.py") if path.name not in ELSEWHERE}
    with _watched(files, lambda file, line: seen.setdefault(file, set()).add(line)):
        for name in names:
            make = corpus()[name]
            with suppress(HarnessError, Violation):
                simulate(make())
                sweep_scenario(make, limit=PLACES)
    for file in sorted(files):
        known = frozenset(_lines_of(Path(file)))
        yield LinesRun(Path(file).relative_to(top.parent).as_posix(), known, frozenset(seen.get(file, ())) & known)


def _lines_of(path: Path) -> Iterator[int]:
    """The lines inside of functions: those of modules and classes run when they are imported."""
    waiting: list[CodeType] = [compile(path.read_text(encoding="utf-8"), str(path), "exec")]
    while waiting:
        code = waiting.pop()
        waiting.extend(constant for constant in code.co_consts if isinstance(constant, CodeType))
        if code.co_flags & inspect.CO_NEWLOCALS and code.co_flags & inspect.CO_OPTIMIZED:
            first = code.co_firstlineno
            yield from (line for _, _, line in code.co_lines() if line is not None and line > first)


@contextmanager
def _watched(files: set[str], on_line: Callable[[str, int], object]) -> Generator[None]:
    """Have ``on_line`` called for lines of ``files``: the first time each is run, where Python can do that."""
    monitoring: Any = getattr(sys, "monitoring", None)
    if monitoring is None:
        with _traced(files, on_line):
            yield
        return

    def line(code: CodeType, number: int) -> object:
        if code.co_filename in files:
            on_line(code.co_filename, number)
        return monitoring.DISABLE

    monitoring.use_tool_id(monitoring.PROFILER_ID, "agentloop.testing")
    try:
        monitoring.register_callback(monitoring.PROFILER_ID, monitoring.events.LINE, line)
        monitoring.set_events(monitoring.PROFILER_ID, monitoring.events.LINE)
        yield
    finally:
        monitoring.set_events(monitoring.PROFILER_ID, 0)
        monitoring.register_callback(monitoring.PROFILER_ID, monitoring.events.LINE, None)
        monitoring.free_tool_id(monitoring.PROFILER_ID)


@contextmanager
def _traced(files: set[str], on_line: Callable[[str, int], object]) -> Generator[None]:
    """The same for Python 3.11, slowly."""

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        if frame.f_code.co_filename not in files:
            return None
        if event == "line":
            on_line(frame.f_code.co_filename, frame.f_lineno)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)
