"""Toolsets: one task owns each, from its start to its stop."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Protocol, cast

import trio

from agentloop._core.field_checks import shown
from agentloop._runtime.blocks import after
from agentloop._runtime.dynamic import call_for_run
from agentloop._runtime.run import Run
from agentloop._runtime.toolset_start import working_for
from agentloop._runtime.toolset_task import Serving, ToolsetTask, Warn
from agentloop._runtime.user_code import UserCodeError
from agentloop.config import ToolsetFunction
from agentloop.errors import ToolsetError, UsageError
from agentloop.events import ToolsChanged, ToolsetChanged, ToolsetStatus
from agentloop.tools import OpenToolset, Tool, Toolset

__all__ = ["ToolList", "emit_status", "flat", "identity_of", "list_all", "open_toolsets", "restart", "run_all"]

SLOW = 2.0
"""Seconds after which an event says that a toolset still starts."""


def identity_of(toolset: Toolset) -> str:
    """The class of ``toolset`` and its ``identity``, if it has one, or else its name: for the agent's fingerprint."""
    identity = getattr(toolset, "identity", None)
    kind = type(toolset)
    return f"{kind.__module__}.{kind.__qualname__} {identity if isinstance(identity, str) else toolset.name}"


class _ToolsetOfRun:
    """The toolset that a function gives for a run. The function is called by the start, within its deadline."""

    def __init__(self, run: Run, function: ToolsetFunction) -> None:
        self.name = function.name
        self.optional = False
        """Whether the run goes on without the toolset that the function has given."""
        self._run = run
        self._function = function.function

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[OpenToolset]:
        toolset: Any = await call_for_run(self._run, self._function, turn=self._run.state.next_turn)
        if toolset is None:
            yield _NoTools()
        elif callable(getattr(toolset, "open", None)):
            self.optional = getattr(toolset, "optional", False) is True
            async with cast("Toolset", toolset).open() as opened:
                yield opened
        else:
            raise UserCodeError(f"{self.name}() returned {shown(toolset)}, which is no toolset: it has no open()")


class _NoTools:
    """The toolset of a run that gets none."""

    async def list_tools(self) -> Sequence[Tool]:  # noqa: ASYNC124 - as toolsets have it
        return ()


_NOTHING_REPORTED: frozenset[str] = frozenset()


class ToolList:
    """Lists the tools that a stream has now: its agent's own, and those of its toolsets.

    Args:
      warn: is called once for each problem of a toolset.
      on_change: is called with the tools of the turn before, and those of this one, if they are others.
    """

    __slots__ = ("_known", "_listed", "_on_change", "_own", "_reported", "_servings", "_tasks", "_warn")

    def __init__(
        self,
        own: Sequence[Tool],
        tasks: Sequence[ToolsetTask],
        warn: Warn | None = None,
        on_change: Callable[[Mapping[str, Tool], Mapping[str, Tool]], object] | None = None,
    ) -> None:
        self._own = {tool.name: tool for tool in own}
        self._tasks = tasks
        self._warn = warn
        self._on_change = on_change
        self._known = False
        """Whether the tools have been listed before."""
        self._listed = self._own
        self._servings: Mapping[str, Serving] = {}
        self._reported = _NOTHING_REPORTED

    async def list(self) -> dict[str, Tool]:
        """By name; the same object as before, if nothing has changed.

        Raises:
          ToolsetError: a toolset has died, cannot list its tools, or begins with one whose name is taken.
        """
        if not self._tasks:
            return self._own
        was_known, servings = self._known, dict[str, Serving]()
        # Two toolsets that clash from the start are the user's to mend; later, a server changed its tools.
        tools = await list_all(self._own, self._tasks, servings, on_clash=self._report if self._known else None)
        self._known = True
        for task in self._tasks:
            for problem in task.problems:
                self._report(problem)
        before, self._servings = self._listed, servings
        if [*tools.values()] == [*before.values()]:
            return before
        self._listed = tools
        if was_known and self._on_change is not None:
            self._on_change(before, tools)
        return tools

    def serving(self, tool: str) -> Serving | None:
        """The opening of the toolset that has listed ``tool``; ``None`` for a tool of the agent's own."""
        return self._servings.get(tool)

    @property
    def statuses(self) -> tuple[ToolsetStatus, ...]:
        """The states of the toolsets now, those inside shared ones in the place of these."""
        return tuple([task.status for task in flat(self._tasks)])

    async def restart(self, name: str) -> None:
        """Start the toolset ``name`` again. Raises as `Stream.restart_toolset` does."""
        await restart(self._tasks, name)

    def _report(self, problem: str) -> None:
        if self._warn is not None and problem not in self._reported:
            self._reported |= {problem}
            self._warn("toolset_problem", problem, logged="a toolset works around a problem")

    @property
    def instructions(self) -> tuple[str, ...]:
        """The instructions of all toolsets that have some."""
        return tuple([task.instructions for task in self._tasks if task.instructions])


class Borrowed(Protocol):
    """Shared toolsets, as one stream has them open."""

    @property
    def tasks(self) -> Sequence[ToolsetTask]:
        """The tasks that own them."""
        ...

    @property
    def servings(self) -> Mapping[str, Serving]:
        """By the name of a tool, the opening of the toolset that has listed it."""
        ...


def _borrowed(task: ToolsetTask) -> Borrowed | None:
    opened: Any = task.opened
    return cast("Borrowed", opened) if getattr(opened, "is_borrowed", False) is True else None


def flat(tasks: Sequence[ToolsetTask]) -> list[ToolsetTask]:
    """``tasks``, with those of shared toolsets in the place of the task that has borrowed them."""
    found: list[ToolsetTask] = []
    for task in tasks:
        borrowed = _borrowed(task)
        found += [task] if borrowed is None else flat(borrowed.tasks)
    return found


async def restart(tasks: Sequence[ToolsetTask], name: str) -> None:
    """Stop the toolset ``name`` of ``tasks``, and start it again. Raises as `Stream.restart_toolset` does."""
    known = flat(tasks)
    named = [task for task in known if task.toolset.name == name]
    if len(named) != 1:
        names = ", ".join(sorted({repr(task.toolset.name) for task in known})) or "none"
        many = f"{len(named)} toolsets are" if named else "no toolset is"
        raise UsageError(f"{many} called {shown(name)}, of those that are open: {names}")
    await named[0].restart()


async def list_all(
    own: Mapping[str, Tool],
    tasks: Sequence[ToolsetTask],
    servings: dict[str, Serving],
    *,
    on_clash: Callable[[str], object] | None = None,
) -> dict[str, Tool]:
    """By name, the tools ``own``, and those that there are now in the toolsets.

    Args:
      servings: gets the opening of the toolset for each of its tools.
      on_clash: is called for a tool whose name is taken, which is left out then.

    Raises:
      ToolsetError: a toolset has died, cannot list its tools, or, without ``on_clash``, has one whose name is taken.
    """
    tools = dict(own)
    for task in tasks:
        listed = await task.list_tools()
        borrowed = _borrowed(task)
        for tool in listed:
            if tool.name not in tools:
                tools[tool.name] = tool
                servings[tool.name] = task.serving if borrowed is None else borrowed.servings[tool.name]
                continue
            problem = f"has a tool {tool.name!r}, but there is one of that name already: rename or filter it"
            if on_clash is None:
                raise ToolsetError(toolset=task.toolset.name, problem=problem)
            on_clash(f"toolset {task.toolset.name!r} {problem}; it is left out")
    return tools


@asynccontextmanager
async def open_toolsets(run: Run, own: Sequence[Tool] | None = None) -> AsyncGenerator[ToolList]:
    """Start the agent's toolsets, all at once, and stop them when the block ends.

    Args:
      own: the tools that are of no toolset; ``None`` for the agent's.

    Raises:
      ToolsetError: one did not start, and is not optional; the others are stopped.
    """
    deadlines, warn = run.config.deadlines, run.warn
    toolsets = [
        _ToolsetOfRun(run, toolset) if isinstance(toolset, ToolsetFunction) else toolset
        for toolset in run.config.toolsets
    ]
    tasks = [ToolsetTask(toolset, deadlines, warn, run.deadline) for toolset in toolsets]
    for task in tasks:
        task.listeners.append(partial(emit_status, run))
    tools = ToolList(run.config.tools if own is None else own, tasks, warn, partial(_emit_changes, run))
    if tasks:
        run.toolsets = tools
    with working_for(run):
        async with run_all(tasks):
            yield tools


def emit_status(run: Run, status: ToolsetStatus) -> None:
    """Emit that a toolset of ``run`` has the ``status``."""
    run.emit(ToolsetChanged, toolset=status)


def _emit_changes(run: Run, before: Mapping[str, Tool], after: Mapping[str, Tool]) -> None:
    added = tuple([name for name in after if name not in before])
    removed = tuple([name for name in before if name not in after])
    changed = tuple([name for name, tool in after.items() if name in before and before[name].spec != tool.spec])
    if added or removed or changed:
        run.emit(ToolsChanged, added=added, removed=removed, changed=changed)


@asynccontextmanager
async def run_all(tasks: Sequence[ToolsetTask]) -> AsyncGenerator[None]:
    """Start them all at once, and stop them all when the block ends.

    Raises:
      ToolsetError: one did not start, and is not optional; the others are stopped.
    """
    async with trio.open_nursery() as nursery:
        try:
            # Not by `nursery.start`, from which a task that is shielded cannot be moved on once it is cancelled: the
            # stream would wait for its toolset, and the toolset for the stream.
            for task in tasks:
                nursery.start_soon(task.run)
            if tasks:
                await _wait_until_ready(tasks)
            yield
        finally:
            first = [task for task in tasks if task.stops_first]
            for task in first:
                task.stop()
            if first:
                # Shielded: it stops in order also where the block is cancelled.
                with trio.CancelScope(shield=True):
                    for task in first:
                        await task.ended.wait()
            for task in tasks:
                task.stop()


async def _wait_until_ready(tasks: Sequence[ToolsetTask]) -> None:
    """Wait until a run can begin. Those that need long say so meanwhile."""
    with trio.CancelScope(deadline=after(SLOW)) as quick:
        for task in tasks:
            await task.ready.wait()
    if quick.cancelled_caught:
        for task in tasks:
            if not task.ready.is_set():
                task.announce()
        for task in tasks:
            await task.ready.wait()
