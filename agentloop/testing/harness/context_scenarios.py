"""The part of the corpus in which an agent is kept up to date by context sources.

What a source says goes by the run, so that any process that resumes the run hears the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import trio

from agentloop.agent import Agent
from agentloop.context_sources import ContextSource
from agentloop.events import WarningIssued
from agentloop.limits import Compaction, Deadlines
from agentloop.messages import Message, UserMessage
from agentloop.run_info import RunInfo
from agentloop.session import Session
from agentloop.testing._lab import Lab
from agentloop.testing.harness.registry import ends, on_depths, scenario
from agentloop.testing.harness.session_scenarios import Story, story
from agentloop.testing.scripted import calls, says

__all__: list[str] = []


def _source(lab: Lab, name: str, texts: Mapping[int, str], **options: Any) -> ContextSource:
    """A source that passes a seam, and says at each turn the text of the last turn up to it."""

    async def say(info: RunInfo[Any]) -> str:
        await lab.sim.seam(f"context:{name}")
        return next((text for turn, text in sorted(texts.items(), reverse=True) if turn <= info.turn), "")

    return ContextSource(name, say, **options)


def _told(messages: tuple[Message, ...]) -> list[tuple[str, ...]]:
    return [message.context for message in messages if isinstance(message, UserMessage) and message.context]


@on_depths("completed")
def a_context_that_changes(lab: Lab) -> Agent[Any, Any]:
    sources = [_source(lab, "weather", {1: "rain", 3: "sun"}), _source(lab, "news", {2: "war", 3: ""})]
    model = lab.model(calls("one"), calls("one"), calls("one"), "Done.")
    return Agent(model, tools=[lab.tool("one")], context=sources, instructions="Help.")


@on_depths("completed", tells=WarningIssued)
def a_context_source_that_hangs(lab: Lab) -> Agent[Any, Any]:
    async def hang() -> None:
        await lab.sim.seam("context:hang")
        await trio.sleep_forever()

    sources = [ContextSource("hang", hang, each="run"), _source(lab, "weather", {1: "rain"})]
    deadlines = Deadlines(hook=5)
    return Agent(lab.model(calls("one"), "Done."), tools=[lab.tool("one")], context=sources, deadlines=deadlines)


@scenario(ends("completed"))
async def a_context_that_a_summary_has_replaced_is_told_again(lab: Lab) -> None:
    session = Session("session-A")
    long = [says(f"{number}. " + "word " * 3000, piece=20_000) for number in ("One", "Two")]
    model = lab.model(*long, "The summary.", "Three.")
    agent = Agent(
        model,
        context=[_source(lab, "weather", {1: "rain"}, each="run")],
        compaction=Compaction(window=6_000, keep_recent=0.001),
    )
    for name in ("A", "B", "C"):
        async with lab.stream(agent, name=name, session=session) as stream:
            await stream.drain()
    told = _told(tuple(model.requests[-1].messages))
    if lab.sim.injection is None and told != [("weather",)]:
        lab.watch.note(f"the last request has the contexts {told}")


def _approved(lab: Lab) -> Agent[Any, Any]:
    sources = [_source(lab, "weather", {1: "rain", 2: "sun"}), _source(lab, "place", {1: "here"}, each="run")]
    held = lab.tool("held", requires_approval=True)
    return Agent(lab.planned(calls("held"), "Done."), tools=[held], context=sources)


@story(_approved, reasons=("needs_input", "completed"), effects={"held": 1})
async def parked_with_a_context_that_changes(story: Story) -> None:
    async with story.process("P") as client, story.session(client) as session:
        await story.go_on(client, session, name="A", park=True)
    async with story.process("Q") as client, story.session(client) as session:
        await story.go_on(client, session, name="B")
        told = _told(session.messages)
        if story.lab.sim.injection is None and told != [("weather", "place"), ("weather",)]:
            story.lab.watch.note(f"the session was told {told}")
