"""Toolsets that are started once, for any number of agents and streams."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Self

from agentloop._runtime.blocks import refuse_bare_generator, require_trio
from agentloop._runtime.exception_groups import raise_single
from agentloop._runtime.logs import TOOLSETS, log
from agentloop._runtime.toolsets import ToolsetTask, identity_of, list_all, run_all
from agentloop.errors import ToolsetError, UsageError
from agentloop.limits import Deadlines
from agentloop.tools import OpenToolset, Tool, Toolset

__all__ = ["Toolsets"]


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
      ToolsetError: on entering, if one of them did not start. The others are stopped.
    """

    def __init__(self, *toolsets: Toolset, name: str = "shared", deadlines: Deadlines = Deadlines()) -> None:
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
        yield _Borrowed(self._open_tasks())

    def _open_tasks(self) -> Sequence[ToolsetTask]:
        if self._tasks is None:
            raise ToolsetError(toolset=self.name, problem="is not open: use it inside `async with`")
        return self._tasks


class _Borrowed:
    """Shared toolsets, as one stream uses them."""

    def __init__(self, tasks: Sequence[ToolsetTask]) -> None:
        self._tasks = tasks
        self._clashes: list[str] = []
        self._known = False
        """Whether the tools have been listed before."""

    async def list_tools(self) -> Sequence[Tool]:
        tools = await list_all({}, self._tasks, on_clash=self._clashes.append if self._known else None)
        self._known = True
        return list(tools.values())

    @property
    def problems(self) -> Sequence[str]:
        return [*dict.fromkeys(self._clashes), *(problem for task in self._tasks for problem in task.problems)]

    @property
    def instructions(self) -> str:
        return "\n\n".join(task.instructions for task in self._tasks if task.instructions)
