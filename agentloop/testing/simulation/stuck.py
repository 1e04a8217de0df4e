"""The report about a run that would never have ended."""

from __future__ import annotations

import linecache
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Literal, TypeAlias

import trio
from attrs import frozen

__all__ = [
    "StuckReason",
    "StuckReport",
    "StuckTask",
    "await_chain",
    "call_chain",
    "chain_to_user",
    "position",
    "user_position",
]

StuckReason: TypeAlias = Literal["deadlock", "step budget", "virtual-time budget"]

_EXPLAINED: dict[StuckReason, str] = {
    "deadlock": "deadlock: no task can run, and no deadline will wake one",
    "step budget": "step budget used up: something goes round and round",
    "virtual-time budget": "virtual-time budget used up: something sets timers without end",
}

_PACKAGE = Path(__file__).parents[2]
_LEFT_OUT = (
    str(Path("trio", "_core", "_traps.py")),
    *(str(Path("testing", "simulation", name)) for name in ("engine.py", "program.py")),
)


@frozen
class StuckTask:
    """A task that had not ended."""

    name: str
    waiting: bool
    """False if it could have run on."""
    chain: tuple[str, ...]
    """The task's position, as ``file:line function``, from the outermost function to the innermost."""

    def __str__(self) -> str:
        state = "waiting" if self.waiting else "able to run"
        return "\n".join([f"task {self.name}, {state}:", *(f"  {position}" for position in self.chain)])


@frozen
class StuckReport:
    """Why a run was ended from outside, and where its tasks stood just before that."""

    reason: StuckReason
    steps: int
    """Task steps until then."""
    now: float
    """Seconds on the virtual clock."""
    tasks: tuple[StuckTask, ...]
    """Oldest first."""

    def __str__(self) -> str:
        first = f"{_EXPLAINED[self.reason]} (after {self.steps} steps and {self.now:g} virtual seconds)"
        return "\n".join([first, *map(str, self.tasks)])


def await_chain(task: trio.lowlevel.Task) -> tuple[str, ...]:
    """The position of a waiting task, from the outermost function to the innermost."""
    frames = [(frame.f_code, line) for frame, line in task.iter_await_frames()]
    # Every chain begins in the same few lines of ours, and ends in those of trio.
    return tuple(position(code, line) for code, line in frames if not code.co_filename.endswith(_LEFT_OUT))


def chain_to_user(task: trio.lowlevel.Task, chain: tuple[str, ...]) -> tuple[str, ...]:
    """A chain, and before it those of the task's parents up to the first that runs code of no installed package."""
    while not user_position(chain) and task.parent_nursery is not None:
        task = task.parent_nursery.parent_task
        chain = (*await_chain(task), *chain)
    return chain


def call_chain(innermost: FrameType | None = None) -> tuple[str, ...]:
    """The position of the running task, from the outermost function to ``innermost`` (the caller's caller)."""
    frame = sys._getframe(2) if innermost is None else innermost
    return tuple(position(frame.f_code, frame.f_lineno) for frame in _frames_of_task(frame))[::-1]


def _frames_of_task(innermost: FrameType) -> Iterator[FrameType]:
    frame: FrameType | None = innermost
    while frame is not None and frame.f_globals.get("__name__") != "trio._core._run":
        if not frame.f_code.co_filename.endswith(_LEFT_OUT):
            yield frame
        frame = frame.f_back


_SOURCES: dict[str, str] = {}
"""The files of no installed package, by the short names under which reports show them."""


def user_position(chain: tuple[str, ...]) -> str:
    """The innermost position of a chain that is in no installed package, with its line of code; empty if none is."""
    for position in reversed(chain):
        file, _, rest = position.partition(":")
        if file in _SOURCES:
            source = linecache.getline(_SOURCES[file], int(rest.split(" ", 1)[0])).strip()
            return f"{position} ({source})" if source else position
    return ""


def position(code: CodeType, line: int) -> str:
    """A line of code as reports show it: ``file:line function``."""
    return f"{_short(code.co_filename)}:{line} {code.co_qualname}"


@lru_cache(maxsize=1024)
def _short(filename: str) -> str:
    """Name a file the same way on each machine, as far as that goes."""
    for mark in ("/site-packages/", "/lib/python"):
        _, marked, rest = filename.replace("\\", "/").rpartition(mark)
        if marked:
            return rest
    path = Path(filename)
    # Not this package: its line is seldom the one that is wrong.
    if path.is_relative_to(_PACKAGE):
        return str(path.relative_to(_PACKAGE.parent))
    short = str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else path.name
    _SOURCES[short] = filename
    return short
