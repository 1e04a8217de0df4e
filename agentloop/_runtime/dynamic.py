"""Call the functions of a `RunInfo`: they give instructions, choose models, and say which tools are offered.

An agent without such functions comes by here never.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import msgspec
import trio

from agentloop._core.catalogue import check_effort
from agentloop._core.field_checks import plain_text, shown
from agentloop._runtime.logs import RUN, log
from agentloop._runtime.run import Run
from agentloop._runtime.user_code import UserCodeError, call_user_code, in_thread_if_plain
from agentloop.config import check_model
from agentloop.errors import UsageError
from agentloop.messages import AssistantMessage, Message, ToolResult
from agentloop.models import Model, ModelChoice, ModelSettings
from agentloop.run_info import RunInfo, takes_info
from agentloop.tools import Tool

__all__ = ["call_for_run", "choose_model", "instructions_for", "offered_tools", "settings_of"]


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
        source=run.source,
        deps=run.root.deps,
        turn=turn,
        model=run.models[0].name,
        usage=run.meter.usage,
        messages=run.transcript.messages,
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


async def choose_model(run: Run, tools: Mapping[str, Tool], *, turn: int) -> ModelChoice | None:
    """The model of a turn: the one that a tool names for its result, or that the agent's rule gives; ``None`` for none.

    Args:
      tools: the tools whose results the turn may read, by name.
      turn: the turn that the model is for.

    Raises:
      UsageError: the rule raised, took longer than ``Deadlines.hook``, or gave something else; or the model does not
        think as much.
    """
    given: object = model_of_results(run.transcript.messages, tools)
    rule = run.config.choose_model
    if given is None and rule is not None:
        try:
            given = await call_for_run(run, rule, trio.move_on_after(run.config.deadlines.hook), turn=turn)
        except UserCodeError as error:
            log(RUN, logging.ERROR, "stream %r: choose_model failed", run.source.stream, error=error.__cause__)
            raise UsageError(f"choose_model of agent {run.config.name!r} failed: {error}") from error.__cause__
    if given is None:
        return None
    if isinstance(given, ModelChoice):
        return given
    check_model(given)
    return ModelChoice(model=cast("Model | str", given))


def model_of_results(messages: Sequence[Message], tools: Mapping[str, Tool]) -> Model | str | ModelChoice | None:
    """The model that the last tool names whose result stands at the end of ``messages``; ``None`` if none does.

    From the transcript, so that a run which is resumed continues with the same model. What a person says after the
    results changes nothing.
    """
    for message in reversed(messages):
        if isinstance(message, AssistantMessage):
            break
        tool = tools.get(message.name) if isinstance(message, ToolResult) else None
        if tool is not None and tool.model is not None:
            return tool.model
    return None


def settings_of(run: Run, choice: ModelChoice) -> ModelSettings:
    """The settings of a request to the model of ``choice``.

    Raises:
      UsageError: the model does not think as much, by the catalogue.
    """
    if choice.reasoning_effort is None:
        return run.settings
    model = choice.model
    if isinstance(model, str):
        model = run.config.models.get(model, model)
    name = run.models[0].name if model is None else model if isinstance(model, str) else model.name
    check_effort(name, choice.reasoning_effort)
    return msgspec.structs.replace(run.settings, reasoning_effort=choice.reasoning_effort)


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
