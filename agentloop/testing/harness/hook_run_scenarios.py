"""The part of the corpus in which hooks run agents inside their stream."""

from __future__ import annotations

from typing import Any

import trio

from agentloop import hooks
from agentloop.agent import Agent
from agentloop.errors import ModelConnectionError
from agentloop.events import ChildStreamStarted, ElicitationRequested, WarningIssued
from agentloop.hooks import Context, Continue, PreToolUse, StopRequested, TurnStart
from agentloop.questions import Deny
from agentloop.testing._lab import Lab
from agentloop.testing.harness.agent_scenarios import FakeToolset
from agentloop.testing.harness.registry import on_depths
from agentloop.testing.harness.session_scenarios import Story, story
from agentloop.testing.scripted import calls, fails, hangs, says

__all__: list[str] = []


def _critic(lab: Lab, *script: Any, **options: Any) -> Agent[Any, Any]:
    return Agent(lab.model(*script, name="critic"), name="critic", **options)


def _review(critic: Agent[Any, Any], **options: Any) -> Any:
    """A stop hook that has the first answer reviewed."""

    @hooks.stop(agents=[critic], **options)
    async def review(value: StopRequested) -> Continue | None:
        if value.continuations:
            await trio.lowlevel.checkpoint()
            return None
        return Continue(str((await value.run(critic, f"Right? {value.message.text}")).output))

    return review


def _lead(lab: Lab, *script: Any, **options: Any) -> Agent[Any, Any]:
    return Agent(lab.model(*script, name="lead"), name="lead", **options)


@on_depths("completed", tells=ElicitationRequested)
def a_hook_runs_an_agent_that_asks(lab: Lab) -> Agent[Any, Any]:
    tools = [lab.asker("ask"), lab.tool("one")]
    critic = _critic(lab, calls("ask") + calls("one"), "No.", tools=tools, toolsets=[FakeToolset(lab)])
    return _lead(lab, "2", "3", hooks=[_review(critic)])


@on_depths("completed", tells=WarningIssued)
def a_hook_runs_an_agent_that_fails(lab: Lab) -> Agent[Any, Any]:
    return _lead(lab, "2", hooks=[_review(_critic(lab, fails(ModelConnectionError("gone"))))])


@on_depths("completed", tells=WarningIssued)
def a_hook_runs_out_of_time_with_its_agent(lab: Lab) -> Agent[Any, Any]:
    critic = _critic(lab, says("Well, ") + hangs(), toolsets=[FakeToolset(lab)])
    return _lead(lab, "2", hooks=[_review(critic, timeout=3)])


@on_depths("completed", tells=ChildStreamStarted)
def hooks_around_calls_run_agents_at_once(lab: Lab) -> Agent[Any, Any]:
    """One for each of two calls: one call is denied. The calls of the critics are not judged."""
    critics = {
        name: Agent(
            lab.model(calls("look"), verdict, name=f"critic-{name}"), name=f"critic-{name}", tools=[lab.tool("look")]
        )
        for name, verdict in (("one", "yes"), ("two", "no"))
    }

    @hooks.pre_tool_use(agents=[*critics.values()])
    async def judge(call: PreToolUse) -> Deny | None:
        verdict = await call.run(critics[call.name], f"May it call {call.name}?")
        return None if verdict.output == "yes" else Deny("the critic says no")

    return _lead(lab, calls("one") + calls("two"), "Done.", tools=[lab.tool("one"), lab.tool("two")], hooks=[judge])


def _asks_in_a_hook(lab: Lab) -> Agent[Any, Any]:
    critic = Agent(lab.planned("look around", name="critic"), name="critic")

    @hooks.turn_start(agents=[critic])
    async def look(value: TurnStart) -> Context:
        return Context(str((await value.run(critic, "look")).output))

    model = lab.planned(calls("ask") + calls("one"), "Done.", name="lead")
    return Agent(model, name="lead", tools=[lab.asker("ask"), lab.tool("one")], hooks=[look])


@story(_asks_in_a_hook, reasons=("needs_input", "completed"), effects={"one": 1})
async def parked_and_resumed_with_a_hook_that_runs_an_agent(story: Story) -> None:
    async with story.process("P") as client, story.session(client) as session:
        await story.go_on(client, session, name="A", park=True)
    async with story.process("Q") as client, story.session(client) as session:
        await story.go_on(client, session, name="B")
