"""Warnings of rules and hooks that name a tool, or an argument, which is not there."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from agentloop import Agent, Permissions, Rule, Session, ToolContext, hooks, tool
from agentloop.command_hooks import hooks_from_settings
from agentloop.events import WarningIssued
from agentloop.permissions import Glob
from agentloop.testing import ScriptedModel
from agentloop.tools import JsonArguments, Tool
from tests.support import of, watch


@tool
async def shell(command: str, seconds: int = 5) -> str:
    """Run a command."""
    return "ran"


@tool
async def write_file(path: str, text: str) -> str:
    """Write a file."""
    return "written"


@tool
async def delegate(prompt: str, context: ToolContext[Any]) -> str:
    """Open a child stream of some agent."""
    return "done"


def untyped(name: str) -> Tool:
    async def function(**arguments: Any) -> str:
        return "done"

    return Tool(name=name, description="", function=function, arguments=JsonArguments({"type": "object"}))


async def warnings(*tools: Tool, session: Session | None = None, **options: Any) -> list[str]:
    """The warnings of a run of an agent with ``tools``."""
    options = {"tools": tools or [shell, write_file], **options}
    watched = await watch(Agent(ScriptedModel("Done."), **options), session=session or Session())
    issued = of(watched.events, WarningIssued)
    assert {warning.code for warning in issued} <= {"rule_matches_nothing"}
    return [warning.message for warning in issued]


def on(argument: str, name: str = "shell") -> Rule:
    return Rule(name, {argument: Glob("rm *")})


@pytest.mark.parametrize("effect", ["deny", "ask", "allow"])
@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        ("shel", "the rule shel of agent 'agent' is about a tool 'shel' that is not there: did you mean 'shell'?"),
        ("Shell", "the rule Shell of agent 'agent' is about a tool 'Shell' that is not there: did you mean 'shell'?"),
        ("Bash", "is about a tool 'Bash' that is not there: there are 'shell', 'write_file'"),
        (on("cmd"), "has a condition on an argument 'cmd' that is not there: there are 'command', 'seconds'"),
        (on("comand"), "has a condition on an argument 'comand' that is not there: did you mean 'command'?"),
        (on("cmd", "s*"), "has a condition on an argument 'cmd' that is not there: there are 'command', 'seconds'"),
        (on("content", "*"), "has a condition on an argument 'content' that is not there"),
    ],
)
async def test_a_rule_that_names_what_is_not_there_is_a_warning(effect: str, rule: Any, problem: str) -> None:
    rules: dict[str, Any] = {effect: [rule]}
    permissions = Permissions(**rules)

    [warning] = await warnings(permissions=permissions)

    assert problem in warning


@pytest.mark.parametrize(
    "rule",
    ["shell", "s?ell", "*", "delete_*", on("command"), on("path", "*"), on("x", "other*"), Rule("read_result")],
)
async def test_a_rule_that_may_match_is_no_warning(rule: Any) -> None:
    assert await warnings(permissions=Permissions(deny=[rule])) == []


async def test_a_tool_without_a_schema_may_have_any_argument() -> None:
    assert await warnings(untyped("remote"), permissions=Permissions(deny=[on("anything", "remote")])) == []


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("shel", "the rule shel of the session is about a tool 'shel' that is not there: did you mean 'shell'?"),
        ("browser", ""),
    ],
)
async def test_a_session_may_have_rules_for_other_agents_and_a_misspelt_one_is_a_warning(
    name: str, problem: str
) -> None:
    issued = await warnings(session=Session(permissions=Permissions(deny=[name])))

    assert issued == ([problem] if problem else [])


@pytest.mark.parametrize("point", [hooks.pre_tool_use, hooks.post_tool_use, hooks.on_tool_approval_decision], ids=repr)
async def test_a_hook_for_a_tool_that_is_not_there_is_a_warning(point: Any) -> None:
    async def check(call: object) -> None:
        pass

    problem = "hook 'check' of agent 'agent' is about a tool 'shel' that is not there: did you mean 'shell'?"
    [warning] = await warnings(hooks=[point(tools=["shel", "write_*"])(check)])
    assert warning == f"the {point.name} {problem}"
    assert await warnings(hooks=[point(tools="shell")(check), point(check)]) == []


async def test_a_matcher_of_settings_for_tools_that_are_not_there_is_a_warning() -> None:
    entry = {"matcher": "Bash|shell", "hooks": [{"type": "command", "command": "./check"}]}

    [warning] = await warnings(hooks=hooks_from_settings({"PreToolUse": [entry]}))

    assert "the pre_tool_use hook './check' of agent 'agent' is about a tool 'Bash' that is not there" in warning


async def test_a_rule_may_be_about_the_tools_of_the_agents_inside() -> None:
    inner = Agent(ScriptedModel(), name="inner", tools=[shell])
    middle = Agent(ScriptedModel(), name="middle", tools=[inner.as_tool()])
    for name in ("shell", "inner", "middle"):
        assert await warnings(middle.as_tool(), permissions=Permissions(deny=[name])) == []
    [warning] = await warnings(middle.as_tool(), permissions=Permissions(deny=["shel"]))
    assert "did you mean 'shell'?" in warning


async def test_a_rule_may_be_about_the_tools_of_agents_that_are_not_known() -> None:
    class Remote:
        name = "remote"

        @asynccontextmanager
        async def open(self) -> AsyncGenerator[Any]:
            yield None

    inner = Agent(ScriptedModel(), name="inner", toolsets=[Remote()])
    for known in (delegate, inner.as_tool()):
        assert await warnings(known, permissions=Permissions(deny=["browser"])) == []


async def test_the_tools_of_toolsets_are_there() -> None:
    class Remote:
        name = "remote"

        @asynccontextmanager
        async def open(self) -> AsyncGenerator[Any]:
            yield self

        async def list_tools(self) -> list[Tool]:
            return [untyped("browse")]

    assert await warnings(shell, toolsets=[Remote()], permissions=Permissions(deny=["browse"])) == []
    [warning] = await warnings(shell, toolsets=[Remote()], permissions=Permissions(deny=["brows"]))
    assert "did you mean 'browse'?" in warning
