"""Toolsets: one task owns each, from its start to its stop."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Protocol, cast

import trio

from agentloop._runtime.deadlines import after
from agentloop._runtime.exception_groups import single
from agentloop._runtime.logs import TOOLSETS, log
from agentloop._runtime.run import Run
from agentloop._runtime.user_code import UserCodeError, call_user_code, describe
from agentloop.errors import ToolsetError
from agentloop.limits import Deadlines
from agentloop.tools import OpenToolset, Tool, Toolset

__all__ = ["ToolList", "ToolsetTask", "Warn", "list_all", "open_toolsets", "run_all"]


class Warn(Protocol):
    """Reports that a toolset failed after it had started."""

    def __call__(self, code: str, message: str, /, *, logged: str = "", error: BaseException | None = None) -> None:
        """``logged`` is for the log, where ``message`` has the words of ``error``."""
        ...


class ToolsetTask:
    """The task that starts a toolset, holds it open, and stops it.

    Args:
      warn: is called when something goes wrong after the start.
    """

    __slots__ = ("_deadlines", "_stop", "_warn", "opened", "ready", "toolset")

    def __init__(self, toolset: Toolset, deadlines: Deadlines, warn: Warn) -> None:
        self._deadlines = deadlines
        self._warn = warn
        self._stop = trio.Event()
        self.ready = trio.Event()
        self.toolset = toolset
        self.opened: OpenToolset | None = None

    async def run(self) -> None:
        deadlines = self._deadlines
        started = False
        try:
            with trio.move_on_after(deadlines.toolset) as scope:
                async with self.toolset.open() as opened:
                    self.opened = opened
                    # From here on it is stopped in order, also when the stream is cancelled: by `stop`, in time.
                    scope.deadline = float("inf")
                    scope.shield = True
                    started = True
                    log(TOOLSETS, logging.DEBUG, "toolset %r started", self.toolset.name)
                    self.ready.set()
                    await self._stop.wait()
                    scope.deadline = after(deadlines.cleanup)
        except Exception as group:  # noqa: BLE001 - what raises here is not ours
            error = single(group)
            if not started:
                raise ToolsetError(toolset=self.toolset.name, problem=f"failed to start: {describe(error)}") from error
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
        try:
            listed = await call_user_code(trio.move_on_after(seconds), self.opened.list_tools)
        except UserCodeError as error:
            problem = (
                f"could not list its tools within {seconds:g} s" if error.timed_out else "could not list its tools"
            )
            detail = "" if error.timed_out else f": {error}"
            raise ToolsetError(toolset=self.toolset.name, problem=problem + detail) from error.__cause__
        if not isinstance(listed, Iterable):
            raise ToolsetError(toolset=self.toolset.name, problem=f"listed {listed!r}, which is no list of tools")
        tools: list[Tool] = []
        for item in cast("Iterable[object]", listed):
            if not isinstance(item, Tool):
                raise ToolsetError(toolset=self.toolset.name, problem=f"listed {item!r}, which is no Tool")
            tools.append(item)
        log(TOOLSETS, logging.DEBUG, "toolset %r listed %d tools", self.toolset.name, len(tools))
        return tools

    @property
    def instructions(self) -> str:
        """The toolset's instructions for the model; empty if it has none, or has died."""
        text = getattr(self.opened, "instructions", "")
        return text if isinstance(text, str) else ""


class ToolList:
    """Lists the tools that a stream has now: its agent's own, and those of its toolsets."""

    __slots__ = ("_own", "_tasks")

    def __init__(self, own: Sequence[Tool], tasks: Sequence[ToolsetTask]) -> None:
        self._own = {tool.name: tool for tool in own}
        self._tasks = tasks

    async def list(self) -> dict[str, Tool]:
        """By name.

        Raises:
          ToolsetError: a toolset has died, cannot list its tools, or has one whose name is taken.
        """
        return await list_all(self._own, self._tasks) if self._tasks else self._own

    @property
    def instructions(self) -> tuple[str, ...]:
        """The instructions of all toolsets that have some."""
        return tuple([task.instructions for task in self._tasks if task.instructions])


async def list_all(own: Mapping[str, Tool], tasks: Sequence[ToolsetTask]) -> dict[str, Tool]:
    """By name, the tools ``own``, and those that there are now in the toolsets.

    Raises:
      ToolsetError: a toolset has died, cannot list its tools, or has one whose name is taken.
    """
    by_name = dict(own)
    for task in tasks:
        for tool in await task.list_tools():
            if tool.name in by_name:
                raise ToolsetError(
                    toolset=task.toolset.name,
                    problem=f"has a tool {tool.name!r}, but there is one of that name already: rename or filter it",
                )
            by_name[tool.name] = tool
    return by_name


@asynccontextmanager
async def open_toolsets(run: Run) -> AsyncGenerator[ToolList]:
    """Start the agent's toolsets, all at once, and stop them when the block ends.

    Raises:
      ToolsetError: one did not start; the others are stopped.
    """
    deadlines, warn = run.config.deadlines, run.warn
    tasks = [ToolsetTask(toolset, deadlines, warn) for toolset in run.config.toolsets]
    async with run_all(tasks):
        yield ToolList(run.config.tools, tasks)


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
            for task in tasks:
                task.stop()
