"""The part of the corpus about levels of safety: calls that run, that are asked about, and that are approved by level.

The tool ``run`` assesses its commands by their first letters. An account of its own says what each mode does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agentloop import hooks
from agentloop.agent import Agent
from agentloop.errors import ToolError
from agentloop.events import ApprovalRequested, Question
from agentloop.hooks import Ask, PreToolUse
from agentloop.permissions import Mode, Permissions
from agentloop.questions import Answer, Approve, Deny
from agentloop.safety import Assessment, BlastRadius
from agentloop.testing._lab import Lab
from agentloop.testing.harness.registry import ends, on_depths, scenario
from agentloop.testing.harness.session_scenarios import Story, story
from agentloop.testing.scripted import calls
from agentloop.tools import Tool

__all__: list[str] = []


def _assess(arguments: dict[str, Any]) -> Assessment:
    command = str(arguments.get("command"))
    if command.startswith("broken"):
        raise ToolError("no assessment")
    radius = BlastRadius(commands=(command,), is_complete=True)
    is_harmless = command.startswith("look")
    return Assessment(is_harmless=is_harmless, why="it looks" if is_harmless else "it does more", blast_radius=radius)


def _tools(lab: Lab) -> list[Tool]:
    return [
        lab.tool("run", requires_approval=True, destructive=True, assess=_assess, metadata={"team": "ops"}),
        lab.tool("read", read_only=True),
        lab.tool("fetch", read_only=True, requires_approval=True),
        lab.tool("write"),
    ]


def _by_command(question: Question) -> Answer:
    if isinstance(question, ApprovalRequested) and question.arguments.get("command") == "safer":
        return Approve(always="safer")
    if isinstance(question, ApprovalRequested) and question.arguments.get("command") == "no":
        return Deny("not that")
    return Approve()


_SCRIPT = (
    calls("run", command="look")
    + calls("run", command="no")
    + calls("run", command="broken")
    + calls("read")
    + calls("fetch")
    + calls("write")
)


@on_depths("completed", answer=_by_command)
def the_mode_safe(lab: Lab) -> Agent[Any, Any]:
    return Agent(lab.model(_SCRIPT, "Done."), tools=_tools(lab), permissions=Permissions(mode="safe"))


@on_depths("completed", answer=_by_command)
def the_mode_safer(lab: Lab) -> Agent[Any, Any]:
    @hooks.pre_tool_use(tools="run")
    async def late(call: PreToolUse) -> Ask | None:  # noqa: ASYNC124 - a plain one has a thread
        return Ask("it is late", {"hour": 23}) if call.arguments.get("command") == "look late" else None

    script = _SCRIPT + calls("run", command="look late")
    return Agent(lab.model(script, "Done."), tools=_tools(lab), permissions=Permissions(mode="safer"), hooks=[late])


@on_depths("completed", answer=_by_command)
def a_level_is_approved_for_good(lab: Lab) -> Agent[Any, Any]:
    """One answer covers the open questions of that level, and those to come; a rule still asks."""
    first = calls("run", command="safer") + calls("run", command="look") + calls("run", command="no") + calls("read")
    again = calls("run", command="look again") + calls("run", command="more") + calls("write") + calls("fetch")
    rules = Permissions(mode="strict", ask=["write"])
    return Agent(lab.model(first, again, "Done."), tools=_tools(lab), permissions=rules)


@scenario(ends("completed"))
async def each_mode_asks_about_the_calls_that_it_should(lab: Lab) -> None:
    """Compared with a table of what needs approval: by mode, in the order of the calls."""
    expected = {
        "safe": ["look", "no", "broken", "fetch", "write"],
        "safer": ["no", "broken", "fetch", "write"],
        "default": ["look", "no", "broken", "fetch"],
        "autonomous": [],
    }
    names: tuple[Mode, ...] = ("safe", "safer", "default", "autonomous")
    agents = [
        Agent(lab.model(_SCRIPT, "Inner.", name=mode), name=mode, tools=_tools(lab), permissions=Permissions(mode=mode))
        for mode in names
    ]
    asked: dict[str, list[str]] = {mode: [] for mode in names}

    def answer(question: Question) -> Answer:
        if isinstance(question, ApprovalRequested):
            asked[question.source.agents[-1]].append(question.arguments.get("command", question.name))
        return Approve()

    for agent in agents:
        async with lab.stream(agent, name=agent.name) as stream:
            await stream.drain(answer=answer)
    if lab.sim.injection is None:
        assert {mode: sorted(given) for mode, given in asked.items()} == {
            mode: sorted(given) for mode, given in expected.items()
        }, asked


# ------------------------------------------------------------------------------- with a journal


def _kept(mode: Mode) -> Callable[[Lab], Agent[Any, Any]]:
    def make(lab: Lab) -> Agent[Any, Any]:
        script = calls("run", command="look") + calls("run", command="more") + calls("read")
        again = calls("run", command="look again") + calls("run", command="look twice")
        return Agent(lab.planned(script, again, "Done."), tools=_tools(lab), permissions=Permissions(mode=mode))

    return make


def _approve_level(question: Question) -> Answer:
    return Approve(always="safer")


@story(_kept("safer"), reasons=("needs_input", "completed"), effects={"run": 4, "read": 1})
async def parked_in_the_mode_safer(story: Story) -> None:
    """The harmless calls run before the run is parked, and the other one when it is resumed."""
    async with story.process("P") as client, story.session(client) as session:
        await story.go_on(client, session, name="A", park=True)
    async with story.process("Q") as client, story.session(client) as session:
        await story.go_on(client, session, name="B")


@story(_kept("safe"), reasons=("needs_input", "completed"), effects={"run": 4, "read": 1})
async def parked_in_the_mode_safe_and_a_level_is_approved(story: Story) -> None:
    """The answer that resumes the run covers the harmless calls that come after it, in another process."""
    async with story.process("P") as client, story.session(client) as session:
        await story.go_on(client, session, name="A", park=True)
    async with story.process("Q") as client, story.session(client) as session:
        await story.go_on(client, session, name="B", answer=_approve_level)
