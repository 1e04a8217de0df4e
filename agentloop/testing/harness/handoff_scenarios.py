"""The part of the corpus in which an agent of a team hands the conversation to another agent.

In a story, all agents of the team share one model. Its script goes by the number of responses in the transcript, so
that any process gives the next response, whichever agent asks for it.
"""

from __future__ import annotations

from typing import Any

import trio

from agentloop.agent import Agent
from agentloop.context import ToolContext
from agentloop.errors import ModelConnectionError
from agentloop.events import HandedOff, StreamEvent
from agentloop.handoffs import Handoff
from agentloop.limits import Limits
from agentloop.messages import Message, Text, UserMessage
from agentloop.permissions import Permissions, Rule
from agentloop.questions import Deny
from agentloop.team import Team
from agentloop.testing._lab import Lab, Recorded
from agentloop.testing.harness.agent_scenarios import FakeToolset
from agentloop.testing.harness.registry import ends, on_depths, scenario
from agentloop.testing.harness.session_scenarios import Story, story
from agentloop.testing.scripted import Response, calls, fails, hangs, says

__all__: list[str] = []


def _to(agent: str) -> Response:
    return calls("handoff", agent=agent)


# ------------------------------------------------------------------------ without a journal


@on_depths("completed", tells=HandedOff)
def a_handoff(lab: Lab) -> Agent[Any, Any]:
    front = Agent(lab.model(_to("billing"), name="front"), name="front", handoffs=["billing"])
    billing = Agent(lab.model(calls("one"), "Done.", name="billing"), name="billing", tools=[lab.tool("one")])
    return Team(front, billing)


@on_depths("completed", tells=HandedOff)
def a_handoff_and_back(lab: Lab) -> Agent[Any, Any]:
    def newest(messages: tuple[Message, ...]) -> list[Message]:
        return [UserMessage((Text("Go on."),))]

    front = Agent(
        lab.model(_to("billing"), _to("billing"), "Done.", name="front"),
        name="front",
        handoffs=[Handoff("billing", history="last")],
        toolsets=[FakeToolset(lab)],
        hooks=[],
    )
    billing = Agent(
        lab.model(calls("listed"), _to("front"), _to("front"), name="billing"),
        name="billing",
        handoffs=[Handoff("front", history=newest)],
        toolsets=[FakeToolset(lab)],
    )
    return Team(front, billing)


@on_depths("completed", tells=HandedOff)
def handoffs_among_other_calls(lab: Lab) -> Agent[Any, Any]:
    """Two handoffs in one batch, beside a slow call, a question, and an agent that is a tool."""

    async def slow(_context: ToolContext[Any]) -> str:
        await trio.sleep(1)
        return "slow"

    inner = Agent(lab.model("Inner.", name="inner"), name="inner")
    batch = _to("billing") + calls("slow") + calls("ask") + _to("refunds") + calls("inner", prompt="x")
    front = Agent(
        lab.model(batch, name="front"),
        name="front",
        handoffs=["billing", "refunds"],
        tools=[lab.tool("slow", slow), lab.asker("ask"), inner.as_tool()],
    )
    others = [Agent(lab.model("Done.", name=name), name=name) for name in ("billing", "refunds")]
    return Team(front, *others)


@on_depths("completed", tells=HandedOff)
def a_handoff_that_a_person_approves(lab: Lab) -> Agent[Any, Any]:
    front = Agent(
        lab.model(_to("billing") + calls("guarded"), "Refused.", name="front"),
        name="front",
        handoffs=["billing"],
        tools=[lab.tool("guarded", requires_approval=True)],
        permissions=Permissions(ask=[Rule("handoff")]),
    )
    return Team(front, Agent(lab.model("Done.", name="billing"), name="billing"))


@on_depths("completed", tells=HandedOff)
def a_handoff_when_done(lab: Lab) -> Agent[Any, Any]:
    draft = Agent(lab.model("A draft.", name="draft"), name="draft", handoff_when_done="review")
    return Team(draft, Agent(lab.model('{"ok": true}', name="review"), name="review", output_type=dict[str, bool]))


@on_depths("failed", tells=HandedOff)
def a_handoff_to_an_agent_whose_toolset_fails_to_start(lab: Lab) -> Agent[Any, Any]:
    front = Agent(
        lab.model(_to("billing"), name="front"), name="front", handoffs=["billing"], toolsets=[FakeToolset(lab)]
    )
    toolsets = [FakeToolset(lab), FakeToolset(lab, start="fail")]
    return Team(front, Agent(lab.model("never", name="billing"), name="billing", toolsets=toolsets))


@on_depths("failed", tells=HandedOff)
def a_handoff_to_an_agent_whose_toolset_hangs_at_start(lab: Lab) -> Agent[Any, Any]:
    front = Agent(lab.model(_to("billing"), name="front"), name="front", handoffs=["billing"])
    toolsets = [FakeToolset(lab, start="hang")]
    return Team(front, Agent(lab.model("never", name="billing"), name="billing", toolsets=toolsets))


@on_depths("completed", tells=HandedOff)
def a_toolset_hangs_when_its_agent_has_handed_off(lab: Lab) -> Agent[Any, Any]:
    toolsets = [FakeToolset(lab, stop="hang")]
    front = Agent(lab.model(_to("billing"), name="front"), name="front", handoffs=["billing"], toolsets=toolsets)
    return Team(front, Agent(lab.model("Done.", name="billing"), name="billing"))


@on_depths("failed", tells=HandedOff)
def the_model_of_the_next_agent_fails(lab: Lab) -> Agent[Any, Any]:
    front = Agent(lab.model(_to("billing"), name="front"), name="front", handoffs=["billing"])
    return Team(front, Agent(lab.model(fails(ModelConnectionError("gone")), name="billing"), name="billing"))


@on_depths("limit", answer=lambda _question: Deny())
def handoffs_without_end(lab: Lab) -> Agent[Any, Any]:
    front = Agent(
        lab.model(*[_to("billing")] * 5, name="front"), name="front", handoffs=["billing"], limits=Limits(turns=4)
    )
    billing = Agent(lab.model(*[_to("front")] * 5, name="billing"), name="billing", handoffs=["front"])
    return Team(front, billing)


@scenario(ends("cancelled"))
async def stopped_right_after_a_handoff(lab: Lab) -> None:
    front = Agent(
        lab.model(_to("billing"), name="front"), name="front", handoffs=["billing"], toolsets=[FakeToolset(lab)]
    )
    toolsets = [FakeToolset(lab)]
    billing = Agent(lab.model(says("Well, ") + hangs(), name="billing"), name="billing", toolsets=toolsets)
    async with lab.stream(Team(front, billing)) as stream:
        async for event in stream:
            if isinstance(event, HandedOff):
                stream.stop()


@scenario()
async def left_right_after_a_handoff(lab: Lab) -> None:
    front = Agent(lab.model(_to("billing"), name="front"), name="front", handoffs=["billing"])
    billing = Agent(lab.model(hangs(), name="billing"), name="billing", toolsets=[FakeToolset(lab)])
    async with lab.stream(Team(front, billing)) as stream:
        async for event in stream:
            if isinstance(event, HandedOff):
                break


# --------------------------------------------------------------------------- with a journal


async def _slow(_context: ToolContext[Any]) -> str:
    await trio.sleep(20)
    return "done"


def _team(lab: Lab) -> Agent[Any, Any]:
    """A handoff beside a call, a call that needs approval, and the way back."""
    script = says("Over. ") + calls("one") + _to("billing")
    model = lab.planned(script, calls("guarded") + calls("one"), _to("front"), "Done.", name="shared")
    tools = [lab.tool("one"), lab.tool("guarded", requires_approval=True)]
    front = Agent(model, name="front", handoffs=["billing"], tools=tools)
    billing = Agent(model, name="billing", handoffs=["front"], tools=tools, toolsets=[FakeToolset(lab)])
    return Team(front, billing)


def _approved(lab: Lab) -> Agent[Any, Any]:
    """Two handoffs that a person has to approve, beside a question: they are asked about one after the other."""
    model = lab.planned(_to("billing") + calls("ask") + _to("refunds"), calls("one"), "Done.", name="shared")
    tools = [lab.tool("one"), lab.asker("ask")]
    permissions = Permissions(ask=[Rule("handoff")])
    front = Agent(model, name="front", handoffs=["billing", "refunds"], tools=tools, permissions=permissions)
    return Team(front, Agent(model, name="billing", tools=tools), Agent(model, name="refunds", tools=tools))


def _works(lab: Lab) -> Agent[Any, Any]:
    """A handoff to an agent that works for long, and hands off once more when it has answered."""
    model = lab.planned(_to("billing"), calls("long"), "A draft.", "Done.", name="shared")
    tools = [lab.tool("long", _slow, if_interrupted="retry")]
    front = Agent(model, name="front", handoffs=["billing"], tools=tools)
    billing = Agent(model, name="billing", tools=tools, handoff_when_done="review")
    return Team(front, billing, Agent(model, name="review", tools=tools))


def _inside(lab: Lab) -> Agent[Any, Any]:
    """A team as a tool, which hands off, and then asks."""
    model = lab.planned(_to("billing"), calls("ask") + calls("one"), "Inner.", name="shared")
    tools = [lab.tool("one"), lab.asker("ask")]
    front = Agent(model, name="front", handoffs=["billing"], tools=tools)
    team = Team(front, Agent(model, name="billing", tools=tools))
    return Agent(lab.planned(calls("team", prompt="x"), "Done."), tools=[team.as_tool(name="team")])


def _summed_up(lab: Lab) -> Agent[Any, Any]:
    """Handoffs after which the next agent reads only a part, and the one after it reads all again."""

    def sum_up(messages: tuple[Message, ...]) -> list[Message]:
        return [UserMessage((Text(f"A summary of {len(messages)} messages."),))]

    front_model = lab.planned(_to("billing"), "Done.", "Done.", "Done.", "Done.", "Done.", name="front")
    billing_model = lab.planned(calls("ask"), calls("one"), _to("refunds"), name="billing")
    refunds_model = lab.planned("no", "no", "no", _to("front"), name="refunds")
    tools = [lab.tool("one"), lab.asker("ask")]
    front = Agent(front_model, name="front", handoffs=[Handoff("billing", history=sum_up)], tools=tools)
    billing = Agent(billing_model, name="billing", handoffs=[Handoff("refunds", history="last")], tools=tools)
    return Team(front, billing, Agent(refunds_model, name="refunds", handoffs=["front"], tools=tools))


@story(_team, reasons=("completed",), effects={"one": 2, "guarded": 1})
async def handed_off(story: Story) -> None:
    async with story.process("P") as client, story.session(client) as session:
        await story.go_on(client, session, name="A")


@story(_team, reasons=("needs_input", "completed"), effects={"one": 2, "guarded": 1})
async def handed_off_and_parked(story: Story) -> None:
    async with story.process("P") as client, story.session(client) as session:
        await story.go_on(client, session, name="A", park=True)
    async with story.process("Q") as client, story.session(client) as session:
        await story.go_on(client, session, name="B")


@story(_approved, reasons=("needs_input", "needs_input", "completed"), effects={"one": 1})
async def parked_before_each_handoff(story: Story) -> None:
    for number in range(3):
        async with story.process(f"P{number}") as client, story.session(client) as session:
            await story.go_on(client, session, name=f"A{number}", park=True)


@story(_works, reasons=("cancelled", "completed"), effects={"long": 2})
async def killed_after_a_handoff(story: Story) -> None:
    async with story.process("P") as client, trio.open_nursery() as nursery, story.session(client) as session:

        async def kill() -> None:
            await trio.sleep(10)
            client.kill()

        nursery.start_soon(kill)
        await story.go_on(client, session, name="A")
        nursery.cancel_scope.cancel()
    async with story.process("Q") as client, story.session(client) as session:
        await story.go_on(client, session, name="B")


@story(_inside, reasons=("needs_input", "completed"), effects={"one": 1})
async def a_child_handed_off_and_parked(story: Story) -> None:
    async with story.process("P") as client, story.session(client) as session:
        await story.go_on(client, session, name="A", park=True)
    async with story.process("Q") as client, story.session(client) as session:
        await story.go_on(client, session, name="B")


@story(_summed_up, reasons=("needs_input", "completed"), effects={"one": 1})
async def parked_by_an_agent_that_reads_a_part(story: Story) -> None:
    async with story.process("P") as client, story.session(client) as session:
        await story.go_on(client, session, name="A", park=True)
    async with story.process("Q") as client, story.session(client) as session:
        await story.go_on(client, session, name="B")


@story(_team, reasons=("cancelled", "completed"), effects={"one": 2, "guarded": 1})
async def stopped_at_a_handoff_and_prompted_again(story: Story) -> None:
    def stop(stream: Recorded, event: StreamEvent) -> None:
        if isinstance(event, HandedOff) and event.to == "billing":
            stream.stop()

    async with story.process("P") as client, story.session(client) as session:
        await story.go_on(client, session, name="A", on_event=stop)
    async with story.process("Q") as client, story.session(client) as session:
        await story.go_on(client, session, name="B")
