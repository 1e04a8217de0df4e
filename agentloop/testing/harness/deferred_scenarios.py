"""The part of the corpus in which an agent finds its tools before it calls them."""

from __future__ import annotations

from typing import Any

import trio

from agentloop.agent import Agent
from agentloop.context import ToolContext
from agentloop.deferred import CALL_TOOL, FIND_TOOLS, Deferred
from agentloop.events import StreamEvent, ToolCallFinished
from agentloop.limits import Limits
from agentloop.permissions import Permissions, Rule
from agentloop.team import Team
from agentloop.testing._lab import Lab, Recorded
from agentloop.testing.harness.agent_scenarios import FakeToolset
from agentloop.testing.harness.registry import on_depths
from agentloop.testing.harness.session_scenarios import Story, story
from agentloop.testing.scripted import Response, calls, says

__all__: list[str] = []

_ALL = Deferred(over=0)


def _find(query: str) -> Response:
    return calls(FIND_TOOLS, query=query)


def _call(tool: str) -> Response:
    return calls(CALL_TOOL, name=tool, arguments={})


# ------------------------------------------------------------------------ without a journal


@on_depths("completed", tells=ToolCallFinished)
def a_deferred_tool_found_and_called(lab: Lab) -> Agent[Any, Any]:
    model = lab.model(_find("one"), _call("one") + _call("listed"), says("Once more. ") + _call("one"), "Done.")
    return Agent(model, tools=[lab.tool("one"), lab.tool("two")], toolsets=[FakeToolset(lab)], deferred=_ALL)


@on_depths("completed", tells=ToolCallFinished)
def a_deferred_tool_that_the_provider_loads(lab: Lab) -> Agent[Any, Any]:
    model = lab.model(_find("one"), calls("one"), "Done.")
    model.has_tool_search = True
    return Agent(model, tools=[lab.tool("one"), lab.tool("two")], deferred=_ALL)


@on_depths("completed", tells=ToolCallFinished)
def deferred_tools_called_without_finding_them(lab: Lab) -> Agent[Any, Any]:
    """One that is there, one that is not, one by its own name, and a call that names none."""
    batch = _call("one") + _call("none") + calls("one") + calls(CALL_TOOL, raw='{"tool":"one"}')
    return Agent(lab.model(batch, "Done."), tools=[lab.tool("one"), lab.tool("two", deferred=False)], deferred=_ALL)


@on_depths("completed", tells=ToolCallFinished)
def deferred_tools_denied_and_approved(lab: Lab) -> Agent[Any, Any]:
    return Agent(
        lab.model(_find("one"), _call("one") + _call("two") + _call("ask"), "Done."),
        tools=[lab.tool("one"), lab.tool("two", requires_approval=True), lab.asker("ask")],
        permissions=Permissions(deny=[Rule("one")]),
        deferred=_ALL,
    )


@on_depths("limit")
def the_same_deferred_tool_again_and_again(lab: Lab) -> Agent[Any, Any]:
    return Agent(
        lab.model(*[_call("one")] * 5), tools=[lab.tool("one")], limits=Limits(identical_turns=3), deferred=_ALL
    )


@on_depths("completed", depths=(0, 1))
def a_deferred_agent_with_deferred_tools(lab: Lab) -> Agent[Any, Any]:
    """The child is found and called as any tool, and finds its own."""
    inner = Agent(
        lab.model(_find("one"), _call("one"), "Inner.", name="inner"),
        name="inner",
        tools=[lab.tool("one")],
        deferred=_ALL,
    )
    batch = calls(CALL_TOOL, name="inner", arguments={"prompt": "x"}) + _call("two")
    model = lab.model(_find("inner"), batch, "Done.")
    return Agent(model, tools=[inner.as_tool(), lab.tool("two")], deferred=_ALL)


@on_depths("completed")
def each_agent_of_a_team_finds_its_own_tools(lab: Lab) -> Agent[Any, Any]:
    front = Agent(
        lab.model(_find("one"), calls("handoff", agent="back"), name="front"),
        name="front",
        handoffs=["back"],
        tools=[lab.tool("one")],
        deferred=_ALL,
    )
    model = lab.model(_find("two"), _call("two"), "Done.", name="back")
    return Team(front, Agent(model, name="back", tools=[lab.tool("two")], deferred=_ALL))


# --------------------------------------------------------------------------- with a journal


def _guarded(lab: Lab) -> Agent[Any, Any]:
    model = lab.planned(_find("guarded"), _call("guarded") + _call("one"), _call("one"), "Done.")
    return Agent(model, tools=[lab.tool("guarded", requires_approval=True), lab.tool("one")], deferred=_ALL)


def _slow(lab: Lab) -> Agent[Any, Any]:
    async def slow(_context: ToolContext[Any]) -> str:
        await trio.sleep(20)
        return "done"

    model = lab.planned(_find("long"), _call("long"), "Done.")
    return Agent(model, tools=[lab.tool("long", slow, if_interrupted="retry")], deferred=_ALL)


def _inside(lab: Lab) -> Agent[Any, Any]:
    inner = Agent(
        lab.planned(_find("guarded"), _call("guarded"), "Inner.", name="inner"),
        name="inner",
        tools=[lab.tool("guarded", requires_approval=True)],
        deferred=_ALL,
    )
    model = lab.planned(calls(CALL_TOOL, name="inner", arguments={"prompt": "x"}), "Done.")
    return Agent(model, tools=[inner.as_tool()], deferred=_ALL)


@story(_guarded, reasons=("needs_input", "completed"), effects={"guarded": 1, "one": 2})
async def a_deferred_tool_parked_and_resumed(story: Story) -> None:
    async with story.process("P") as client, story.session(client) as session:
        await story.go_on(client, session, name="A", park=True)
    async with story.process("Q") as client, story.session(client) as session:
        await story.go_on(client, session, name="B")


@story(_inside, reasons=("needs_input", "completed"), effects={"guarded": 1})
async def a_deferred_tool_of_a_deferred_agent_parked_and_resumed(story: Story) -> None:
    async with story.process("P") as client, story.session(client) as session:
        await story.go_on(client, session, name="A", park=True)
    async with story.process("Q") as client, story.session(client) as session:
        await story.go_on(client, session, name="B")


@story(_slow, reasons=("cancelled", "completed"), effects={"long": 1})
async def killed_between_finding_and_calling(story: Story) -> None:
    async with story.process("P") as client, trio.open_nursery() as nursery, story.session(client) as session:

        def kill(_stream: Recorded, event: StreamEvent) -> None:
            if isinstance(event, ToolCallFinished) and event.name == FIND_TOOLS:
                client.kill()

        await story.go_on(client, session, name="A", on_event=kill)
        nursery.cancel_scope.cancel()
    async with story.process("Q") as client, story.session(client) as session:
        await story.go_on(client, session, name="B")


@story(_slow, reasons=("cancelled", "completed"), effects={"long": 2})
async def killed_while_a_deferred_tool_runs(story: Story) -> None:
    async with story.process("P") as client, trio.open_nursery() as nursery, story.session(client) as session:

        async def kill() -> None:
            await trio.sleep(10)
            client.kill()

        nursery.start_soon(kill)
        await story.go_on(client, session, name="A")
        nursery.cancel_scope.cancel()
    async with story.process("Q") as client, story.session(client) as session:
        await story.go_on(client, session, name="B")
