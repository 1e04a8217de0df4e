"""Toolsets: one task owns each, from its start to its stop."""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, cast

import trio

from agentloop._core.field_checks import shown
from agentloop._core.questions import AskedQuestion
from agentloop._runtime.blocks import PausableDeadline, after
from agentloop._runtime.dynamic import call_for_run
from agentloop._runtime.exception_groups import failure_of
from agentloop._runtime.logs import TOOLSETS, log
from agentloop._runtime.questions import ask
from agentloop._runtime.run import Run
from agentloop._runtime.user_code import UserCodeError, call_user_code, describe
from agentloop.config import ToolsetFunction
from agentloop.errors import ToolsetError
from agentloop.events import ElicitationRequested
from agentloop.limits import Deadlines
from agentloop.questions import Accept, Cancel, Decline
from agentloop.tools import OpenToolset, Tool, Toolset, is_tool

__all__ = [
    "ToolList",
    "ToolsetTask",
    "Warn",
    "ask_to_visit",
    "identity_of",
    "is_shared",
    "list_all",
    "open_toolsets",
    "persons_time",
    "run_all",
    "run_in_charge",
    "time_left",
    "working_for",
]

_DEADLINE: ContextVar[PausableDeadline | None] = ContextVar("agentloop.toolset_deadline", default=None)
"""The deadline for the start, or for the listing of tools, on whose behalf the current task works."""


_RUN: ContextVar[Run | None] = ContextVar("agentloop.toolset_run", default=None)
"""The run whose toolsets start, or list their tools. ``None`` for toolsets that are shared among runs."""


_IS_SHARED: ContextVar[bool] = ContextVar("agentloop.toolset_is_shared", default=False)
"""Whether the toolset that the current task holds open is shared among runs. Not the same as no run in `_RUN`: a tool
may start toolsets to share, and then there is a run around them."""


def run_in_charge() -> Run | None:
    """The run whose toolsets start, or list their tools, in the current task; ``None`` for shared ones that start."""
    return _RUN.get()


def is_shared() -> bool:
    """Whether the toolset that the current task starts is shared among runs, and not started for one stream."""
    return _IS_SHARED.get()


async def ask_to_visit(message: str, url: str) -> Accept | Decline | Cancel:
    """Ask the user of the run that a toolset starts for to visit a page, to sign in say.

    As `ToolContext.ask_url`, which has a tool call. Declined at once if the toolset starts for no run in particular.
    """
    run = _RUN.get()
    if run is None:
        await trio.lowlevel.checkpoint()
        return Decline("The toolset is shared, and is started before there is a run with a user to ask.")
    form: dict[str, Any] = {"type": "object", "properties": {}}
    event = ElicitationRequested(run.source, 0, id="", call_id="", message=message, form=form, url=url)
    question = AskedQuestion(event)
    answer = await ask(run, question)
    return answer if isinstance(answer, (Accept, Decline, Cancel)) else Decline(question.refusal)


@contextmanager
def persons_time() -> Generator[None]:
    """Pause the deadline of the toolset that starts, or lists its tools: a person signs in, say.

    Without effect in a task that does not work for a start or a listing.
    """
    deadline = _DEADLINE.get()
    if deadline is None:
        yield
        return
    with deadline.paused():
        yield


def time_left() -> float:
    """Seconds until the runtime gives up the start, or the listing, that the current task works for."""
    deadline = _DEADLINE.get()
    return math.inf if deadline is None else deadline.scope.deadline - trio.current_time()


def identity_of(toolset: Toolset) -> str:
    """The class of ``toolset`` and its ``identity``, if it has one, or else its name: for the agent's fingerprint."""
    identity = getattr(toolset, "identity", None)
    kind = type(toolset)
    return f"{kind.__module__}.{kind.__qualname__} {identity if isinstance(identity, str) else toolset.name}"


class Warn(Protocol):
    """Reports that a toolset failed after it had started."""

    def __call__(self, code: str, message: str, /, *, logged: str = "", error: BaseException | None = None) -> None:
        """``logged`` is for the log, where ``message`` has the words of ``error``, or of a server."""
        ...


class ToolsetTask:
    """The task that starts a toolset, holds it open, and stops it.

    Args:
      warn: is called when something goes wrong after the start.
      outer: the deadline of the run that the toolset is started for. A person's time does not count in it either.
    """

    __slots__ = ("_deadlines", "_outer", "_stop", "_warn", "ended", "opened", "ready", "stops_first", "toolset")

    def __init__(
        self, toolset: Toolset, deadlines: Deadlines, warn: Warn, outer: PausableDeadline | None = None
    ) -> None:
        self._deadlines = deadlines
        self._outer = outer
        self._warn = warn
        self._stop = trio.Event()
        self.ready = trio.Event()
        self.ended = trio.Event()
        """Set when the toolset has stopped, or has failed."""
        self.stops_first = outer is None and getattr(toolset, "stops_first", False) is True
        """Whether the others of its block go on until it has stopped: the runs of a block may use them."""
        self.toolset = toolset
        self.opened: OpenToolset | None = None

    async def run(self) -> None:
        try:
            await self._hold()
        finally:
            self.opened = None
            self.ended.set()

    async def _hold(self) -> None:
        deadlines = self._deadlines
        started = False
        deadline = PausableDeadline(deadlines.toolset, self._outer)
        scope = deadline.scope
        token = _DEADLINE.set(deadline)
        _IS_SHARED.set(self._outer is None)
        try:
            with scope:
                async with self.toolset.open() as opened:
                    self.opened = opened
                    # From here on it is stopped in order, also when the stream is cancelled: by `stop`, in time.
                    scope.deadline = float("inf")
                    scope.shield = True
                    started = True
                    _DEADLINE.reset(token)
                    log(TOOLSETS, logging.DEBUG, "toolset %r started", self.toolset.name)
                    self.ready.set()
                    await self._stop.wait()
                    scope.deadline = after(deadlines.cleanup)
        except BaseException as group:  # noqa: ASYNC103, BLE001 - `failure_of` raises a cancellation again
            error = failure_of(group)
            if not started:
                problem = f"failed to start: {error if isinstance(error, UserCodeError) else describe(error)}"
                raise ToolsetError(toolset=self.toolset.name, problem=problem) from error  # noqa: ASYNC104 - as above
            short = f"toolset {self.toolset.name!r} failed"
            self._warn("toolset_failed", f"{short}: {describe(error)}", logged=short, error=error)
        else:
            if scope.cancelled_caught:
                if not started:
                    raise ToolsetError(
                        toolset=self.toolset.name, problem=f"did not start within {deadlines.toolset:g} s"
                    )
                problem = f"toolset {self.toolset.name!r} did not stop within {deadlines.cleanup:g} s"
                self._warn("toolset_failed", problem)
            else:
                log(TOOLSETS, logging.DEBUG, "toolset %r stopped", self.toolset.name)
        finally:
            self.opened = None

    def stop(self) -> None:
        self._stop.set()

    async def list_tools(self) -> Sequence[Tool]:
        if self.opened is None:
            raise ToolsetError(toolset=self.toolset.name, problem="has died, so it cannot list its tools")
        seconds = self._deadlines.toolset
        deadline = PausableDeadline(seconds, _DEADLINE.get() or self._outer)
        token = _DEADLINE.set(deadline)
        try:
            listed = await call_user_code(deadline.scope, self.opened.list_tools)
        except UserCodeError as error:
            problem = (
                f"could not list its tools within {seconds:g} s" if error.timed_out else "could not list its tools"
            )
            detail = "" if error.timed_out else f": {error}"
            raise ToolsetError(toolset=self.toolset.name, problem=problem + detail) from error.__cause__
        finally:
            _DEADLINE.reset(token)
        if not isinstance(listed, Iterable):
            raise ToolsetError(toolset=self.toolset.name, problem=f"listed {shown(listed)}, which is no list of tools")
        tools: list[Tool] = []
        for item in cast("Iterable[object]", listed):
            if not is_tool(item):
                raise ToolsetError(toolset=self.toolset.name, problem=f"listed {shown(item)}, which is no Tool")
            tools.append(item)
        log(TOOLSETS, logging.DEBUG, "toolset %r listed %d tools", self.toolset.name, len(tools))
        return tools

    @property
    def instructions(self) -> str:
        """The toolset's instructions for the model; empty if it has none, or has died."""
        text = getattr(self.opened, "instructions", "")
        return text if isinstance(text, str) else ""

    @property
    def problems(self) -> Sequence[str]:
        """The problems that the toolset works around, such as a tool that cannot be offered."""
        problems: object = getattr(self.opened, "problems", ())
        if not isinstance(problems, (list, tuple)):
            return ()
        return [problem for problem in cast("Sequence[object]", problems) if isinstance(problem, str)]


class _ToolsetOfRun:
    """The toolset that a function gives for a run. The function is called by the start, within its deadline."""

    def __init__(self, run: Run, function: ToolsetFunction) -> None:
        self.name = function.name
        self._run = run
        self._function = function.function

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[OpenToolset]:
        toolset: Any = await call_for_run(self._run, self._function, turn=self._run.state.next_turn)
        if toolset is None:
            yield _NoTools()
        elif callable(getattr(toolset, "open", None)):
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
    """

    __slots__ = ("_known", "_own", "_reported", "_tasks", "_warn")

    def __init__(self, own: Sequence[Tool], tasks: Sequence[ToolsetTask], warn: Warn | None = None) -> None:
        self._own = {tool.name: tool for tool in own}
        self._tasks = tasks
        self._warn = warn
        self._known = False
        """Whether the tools have been listed before."""
        self._reported = _NOTHING_REPORTED

    async def list(self) -> dict[str, Tool]:
        """By name.

        Raises:
          ToolsetError: a toolset has died, cannot list its tools, or begins with one whose name is taken.
        """
        if not self._tasks:
            return self._own
        # Two toolsets that clash from the start are the user's to mend; later, a server changed its tools.
        tools = await list_all(self._own, self._tasks, on_clash=self._report if self._known else None)
        self._known = True
        for task in self._tasks:
            for problem in task.problems:
                self._report(problem)
        return tools

    def _report(self, problem: str) -> None:
        if self._warn is not None and problem not in self._reported:
            self._reported |= {problem}
            self._warn("toolset_problem", problem, logged="a toolset works around a problem")

    @property
    def instructions(self) -> tuple[str, ...]:
        """The instructions of all toolsets that have some."""
        return tuple([task.instructions for task in self._tasks if task.instructions])


async def list_all(
    own: Mapping[str, Tool], tasks: Sequence[ToolsetTask], *, on_clash: Callable[[str], object] | None = None
) -> dict[str, Tool]:
    """By name, the tools ``own``, and those that there are now in the toolsets.

    Args:
      on_clash: is called for a tool whose name is taken, which is left out then.

    Raises:
      ToolsetError: a toolset has died, cannot list its tools, or, without ``on_clash``, has one whose name is taken.
    """
    tools = dict(own)
    for task in tasks:
        for tool in await task.list_tools():
            if tool.name not in tools:
                tools[tool.name] = tool
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
      ToolsetError: one did not start; the others are stopped.
    """
    deadlines, warn = run.config.deadlines, run.warn
    toolsets = [
        _ToolsetOfRun(run, toolset) if isinstance(toolset, ToolsetFunction) else toolset
        for toolset in run.config.toolsets
    ]
    tasks = [ToolsetTask(toolset, deadlines, warn, run.deadline) for toolset in toolsets]
    with working_for(run):
        async with run_all(tasks):
            yield ToolList(run.config.tools if own is None else own, tasks, warn)


@contextmanager
def working_for(run: Run) -> Generator[None]:
    """While the block runs, toolsets that this task starts, or asks for their tools, work for ``run``."""
    token = _RUN.set(run)
    try:
        yield
    finally:
        _RUN.reset(token)


@asynccontextmanager
async def run_all(tasks: Sequence[ToolsetTask]) -> AsyncGenerator[None]:
    """Start them all at once, and stop them all when the block ends.

    Raises:
      ToolsetError: one did not start; the others are stopped.
    """
    async with trio.open_nursery() as nursery:
        try:
            # Not by `nursery.start`, from which a task that is shielded cannot be moved on once it is cancelled: the
            # stream would wait for its toolset, and the toolset for the stream.
            for task in tasks:
                nursery.start_soon(task.run)
            for task in tasks:
                await task.ready.wait()
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
