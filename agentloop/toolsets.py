"""Toolsets that are started once, for any number of agents and streams."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from types import TracebackType
from typing import Self, cast

from agentloop._core.field_checks import shown
from agentloop._runtime.blocks import refuse_bare_generator, require_trio
from agentloop._runtime.exception_groups import raise_single
from agentloop._runtime.logs import TOOLSETS, log
from agentloop._runtime.toolset_start import RUN, say_what_it_waits_for
from agentloop._runtime.toolset_task import Serving, ToolsetTask
from agentloop._runtime.toolsets import emit_status, flat, identity_of, list_all, restart, run_all
from agentloop.errors import ToolsetError, UsageError
from agentloop.events import ToolsetStatus
from agentloop.limits import Deadlines
from agentloop.tools import OpenToolset, Tool, Toolset

__all__ = ["Toolsets", "optional", "say_what_it_waits_for"]


def optional(toolset: Toolset) -> Toolset:
    """``toolset``, without which a run goes on if it does not start, or has died.

    ::

        agent = Agent(model, toolsets=[files, optional(search)])

    The run emits one warning (code ``toolset_problem``), and tries the toolset once more before each later turn, and
    after the second failure at growing intervals of up to a minute. A try holds a turn up for one second at most; if
    the toolset starts, the next turn has its tools. A toolset of yours may also have an attribute ``optional = True``.
    """
    return _Optional(toolset)


class _Optional:
    """A toolset that a run can do without."""

    optional = True

    def __init__(self, toolset: Toolset) -> None:
        if not callable(getattr(toolset, "open", None)):
            raise UsageError(f"optional() takes a toolset, not {shown(toolset)}: it has no open()")
        self._toolset = toolset
        self.name = toolset.name

    @property
    def identity(self) -> str:
        """That of the toolset."""
        return identity_of(self._toolset)

    def open(self) -> AbstractAsyncContextManager[OpenToolset]:
        return self._toolset.open()


class Toolsets:
    """Toolsets that are started once, for any number of agents and streams.

    ::

        async with Toolsets(files, browser) as shared:
            writer = Agent(model, toolsets=[shared])
            editor = Agent(model, toolsets=[shared])

    Without it, each stream starts the toolsets of its agent and stops them at its end. Shared toolsets end with the
    block instead. A toolset that dies later fails the calls that use it; the others go on.

    Args:
      toolsets: the toolsets, started concurrently and stopped concurrently.
      name: their common name in errors.
      deadlines: ``toolset`` bounds each start and each listing of tools, ``cleanup`` each stop.

    Raises:
      UsageError: one of ``toolsets`` is something else, such as a list of them, or a tool.
      ToolsetError: on entering, if one of them did not start, and is not `optional`. The others are stopped. One that
        needs a sign-in (`agentloop.mcp.ask_to_sign_in`) waits instead for the first run that needs its tools, and asks
        the user of that run.
    """

    def __init__(self, *toolsets: Toolset, name: str = "shared", deadlines: Deadlines = Deadlines()) -> None:
        for toolset in cast("tuple[object, ...]", toolsets):
            if isinstance(toolset, type) or not callable(getattr(toolset, "open", None)):
                raise UsageError(f"Toolsets(...) takes toolsets, one after the other, not {shown(toolset)}")
        self.name = name
        self._toolsets = toolsets
        self._deadlines = deadlines
        self._tasks: Sequence[ToolsetTask] | None = None
        self._block: AbstractAsyncContextManager[None] | None = None
        self._problems: list[str] = []

    @property
    def identity(self) -> str:
        """The identities of the toolsets, as the same text in every process."""
        return "\n".join(identity_of(toolset) for toolset in self._toolsets)

    @property
    def problems(self) -> tuple[str, ...]:
        """The failures since they were started, and the problems that they work around, in words."""
        return (*self._problems, *self._worked_around())

    @property
    def statuses(self) -> tuple[ToolsetStatus, ...]:
        """The toolsets as they are now, in their order; none outside of the block."""
        return tuple([task.status for task in flat(self._tasks or ())])

    async def restart(self, name: str) -> None:
        """Stop the toolset ``name``, and start it again, for all who use it. See `Stream.restart_toolset`.

        Raises:
          UsageError: there is no such toolset, or there are several.
          ToolsetError: it did not start, or the block has ended.
        """
        await restart(self._open_tasks(), name)

    def _worked_around(self) -> list[str]:
        return [problem for task in self._tasks or () for problem in task.problems]

    async def __aenter__(self) -> Self:
        if self._block is not None:
            raise UsageError(f"the toolsets {self.name!r} are open already")
        require_trio("toolsets are started", in_asyncio="`async with agentloop.asyncio.block(toolsets):`")
        refuse_bare_generator("toolsets are started")
        self._block = self._opened()
        try:
            await self._block.__aenter__()
        except BaseException:
            self._block = None
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        assert self._block is not None
        try:
            return await self._block.__aexit__(kind, error, traceback)  # noqa: ASYNC102 - each task shields itself
        finally:
            self._block = None

    @asynccontextmanager
    async def _opened(self) -> AsyncGenerator[None]:
        tasks = [ToolsetTask(toolset, self._deadlines, self._note) for toolset in self._toolsets]
        try:
            async with run_all(tasks):
                self._tasks = tasks
                try:
                    yield
                finally:
                    self._tasks = None
        except BaseExceptionGroup as group:
            raise_single(group)

    def _note(self, code: str, message: str, /, *, logged: str = "", error: BaseException | None = None) -> None:
        log(TOOLSETS, logging.WARNING, "%s: %s", code, logged or message, error=error)
        self._problems.append(f"{code}: {message}")

    def open(self) -> AbstractAsyncContextManager[OpenToolset]:
        """Borrow the toolsets for a stream, until its end."""
        return self._borrowed()

    @asynccontextmanager
    async def _borrowed(self) -> AsyncGenerator[_Borrowed]:
        tasks = self._open_tasks()
        run = RUN.get()
        if run is None:
            yield _Borrowed(tasks)
            return
        # In the log of the run, the toolsets have the states that they come to in its time.
        listener = partial(emit_status, run)
        for task in tasks:
            task.listeners.append(listener)
            if task.status.state != "ready":
                listener(task.status)
        try:
            yield _Borrowed(tasks)
        finally:
            for task in tasks:
                task.listeners.remove(listener)

    def _open_tasks(self) -> Sequence[ToolsetTask]:
        if self._tasks is None:
            raise ToolsetError(toolset=self.name, problem="is not open: use it inside `async with`")
        return self._tasks


class _Borrowed:
    """Shared toolsets, as one stream uses them: see `agentloop._runtime.toolsets.Borrowed`."""

    is_borrowed = True

    def __init__(self, tasks: Sequence[ToolsetTask]) -> None:
        self.tasks = tasks
        self.servings: Mapping[str, Serving] = {}
        self._clashes: list[str] = []
        self._known = False
        """Whether the tools have been listed before."""

    async def list_tools(self) -> Sequence[Tool]:
        servings: dict[str, Serving] = {}
        tools = await list_all({}, self.tasks, servings, on_clash=self._clashes.append if self._known else None)
        self._known, self.servings = True, servings
        return list(tools.values())

    @property
    def problems(self) -> Sequence[str]:
        return [*dict.fromkeys(self._clashes), *(problem for task in self.tasks for problem in task.problems)]

    @property
    def instructions(self) -> str:
        return "\n\n".join(task.instructions for task in self.tasks if task.instructions)
