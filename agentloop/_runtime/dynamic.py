"""Call the functions of a `RunInfo`: they give the instructions of a run or of a turn, and say which tools are offered.

An agent without such functions comes by here never.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import trio

from agentloop._core.field_checks import plain_text, shown
from agentloop._runtime.logs import RUN, log
from agentloop._runtime.run import Run
from agentloop._runtime.user_code import UserCodeError, call_user_code, in_thread_if_plain
from agentloop.errors import UsageError
from agentloop.run_info import RunInfo, takes_info
from agentloop.tools import Tool

__all__ = ["call_for_run", "instructions_for", "offered_tools"]


async def call_for_run(
    run: Run, function: Callable[..., Any], scope: trio.CancelScope | None = None, *, turn: int
) -> Any:
    """Call ``function`` with the `RunInfo` of ``run``; a plain function in a thread.

    Args:
      scope: a cancel scope with the deadline; ``None`` where a scope around the call has it.
      turn: the turn that the function is called for.

    Raises:
      UserCodeError: the function raised, or the deadline passed.
    """
    if not takes_info(function):
        return await call_user_code(scope, in_thread_if_plain(function))
    info: RunInfo[Any] = RunInfo(
        source=run.source, deps=run.root.deps, turn=turn, model=run.models[0].name, usage=run.meter.usage
    )
    return await call_user_code(scope, in_thread_if_plain(function), info)


async def instructions_for(run: Run, function: Callable[..., Any], *, turn: int) -> str:
    """The text that an instructions function gives.

    Raises:
      UsageError: the function raised, took longer than ``Deadlines.hook``, or gave no text.
    """
    try:
        text = await call_for_run(run, function, trio.move_on_after(run.config.deadlines.hook), turn=turn)
    except UserCodeError as error:
        problem = "stream %r: the instructions function failed"
        log(RUN, logging.ERROR, problem, run.source.stream, error=error.__cause__)
        raise UsageError(f"the instructions of agent {run.config.name!r} failed: {error}") from error.__cause__
    if not isinstance(text, str):
        raise UsageError(f"the instructions of agent {run.config.name!r} are to be text, not {shown(text)}")
    return plain_text(text)


async def offered_tools(run: Run, tools: Mapping[str, Tool], *, turn: int) -> dict[str, Tool]:
    """Those of ``tools`` that are offered to the model in this turn, by name.

    A tool whose ``offered`` function fails is not offered, since the function is there to hold the tool back.
    """
    offered: dict[str, Tool] = {}
    # Tools may share a function, which is then called once.
    verdicts: dict[int, bool] = {}
    for name, tool in tools.items():
        if tool.offered is not None:
            key = id(tool.offered)
            if key not in verdicts:
                verdicts[key] = await _is_offered(run, tool, tool.offered, turn)
            if not verdicts[key]:
                continue
        offered[name] = tool
    return offered


async def _is_offered(run: Run, tool: Tool, function: Callable[..., Any], turn: int) -> bool:
    try:
        return bool(await call_for_run(run, function, trio.move_on_after(run.config.deadlines.hook), turn=turn))
    except UserCodeError as error:
        short = f"offered of tool {tool.name!r} failed"
        run.warn("predicate_failed", f"{short}: {error}", logged=short, error=error.__cause__)
        return False
