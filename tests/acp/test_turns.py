"""A turn of another agent is told by the run as it goes: its words, its calls, its plan, and how it ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from agentloop import Agent, Team
from agentloop.acp import ExternalAgent
from agentloop.errors import ModelError, ModelRefusalError
from agentloop.events import (
    ChildStreamStarted,
    ReasoningDelta,
    TextDelta,
    ToolCallFinished,
    ToolCallOutput,
    ToolCallStarted,
)
from agentloop.messages import UserMessage
from agentloop.testing import ScriptedModel, calls
from agentloop.toolkit import background, transfer_task
from tests.acp.support import Fake, Turn
from tests.support import of, watch


def external(fake: Fake, folder: Path | str = "/", **options: Any) -> ExternalAgent:
    return ExternalAgent("other", connect=fake.connect, folder=folder, **options)


async def hello(turn: Turn) -> str:
    await turn.think("Hm. ")
    await turn.say("Hello ")
    await turn.say("there.")
    return "end_turn"


async def test_its_words_and_thoughts_are_the_deltas_of_the_run_and_its_answer_is_the_output() -> None:
    fake = Fake(hello)
    watched = await watch(external(fake, instructions="Be kind."), "Say hello.")

    assert [event.text for event in of(watched.events, TextDelta)] == ["Hello ", "there."]
    assert [event.text for event in of(watched.events, ReasoningDelta)] == ["Hm. "]
    assert watched.stream.result.output == "Hello there."
    assert fake.prompts == {"theirs-0": ["Be kind.Say hello."]}
    assert fake.methods() == ["initialize", "session/new", "session/prompt"]


async def test_its_own_calls_and_plans_are_calls_of_the_run_that_are_marked_and_not_run() -> None:
    async def work(turn: Turn) -> str:
        await turn.say("I look. ")
        await turn.update(sessionUpdate="plan", entries=[{"content": "Look", "status": "pending", "priority": "high"}])
        await turn.begin("c1", "Read notes", kind="read", rawInput={"path": "notes"}, locations=[{"path": "/notes"}])
        await trio.sleep(1)
        await turn.tell("c1", text="line 1")
        await trio.sleep(1)
        await turn.tell("c1", text="line 1 and 2")
        await turn.tell("c1", "completed")
        await turn.begin("c2", "Break it", "pending")
        await turn.tell("c2", "failed", "it does not break")
        await turn.say("All is well.")
        return "end_turn"

    watched = await watch(external(Fake(work)), "Look.")

    assert [event.name for event in of(watched.events, ToolCallStarted)] == [
        "external_plan",
        "external_tool",
        "external_tool",
    ]
    finished = of(watched.events, ToolCallFinished)
    assert [(event.result.text, event.result.status) for event in finished[1:]] == [
        ("line 1 and 2", "ok"),
        ("it does not break", "error"),
    ]
    assert finished[1].elapsed >= 2
    assert [event.text for event in of(watched.events, ToolCallOutput)][:2] == ["line 1", " and 2"]
    assert '"title":"Read notes"' in of(watched.events, ToolCallStarted)[1].arguments
    assert watched.stream.result.output == "All is well."


async def test_it_can_be_given_a_task_by_another_agent() -> None:
    fake = Fake(hello)
    lead = Agent(
        ScriptedModel(calls("transfer_task", agent="other", task="Greet."), "done"),
        tools=[transfer_task(external(fake))],
    )
    watched = await watch(lead, "go")

    assert len(of(watched.events, ChildStreamStarted)) == 1
    assert [event.result.text for event in of(watched.events, ToolCallFinished)] == ["Hello there."]
    assert fake.prompts == {"theirs-0": ["Greet."]}


async def test_it_can_run_in_the_background_and_be_a_tool() -> None:
    fake = Fake(hello, hello)
    other = external(fake)
    lead = Agent(
        ScriptedModel(
            calls("run_background_agent", agent="other", task="Greet.") + calls("greet", prompt="Greet, too."),
            "Waiting.",
            "done",
        ),
        tools=[other.as_tool(name="greet")],
        toolsets=[background(other)],
    )
    watched = await watch(lead, "go")

    assert sorted(prompt for prompts in fake.prompts.values() for prompt in prompts) == ["Greet, too.", "Greet."]
    [report] = [message for message in watched.messages if isinstance(message, UserMessage) and message.reports]
    assert "Hello there." in report.text
    assert fake.connections == 2


async def test_it_may_be_a_member_of_a_team_and_reads_what_the_others_have_said() -> None:
    fake = Fake(hello)
    front = Agent(ScriptedModel("I pass you on.", name="front"), name="front", handoff_when_done="other")
    outcome = await Team(front, external(fake)).run("Hi.")

    assert outcome.output == "Hello there."
    assert "User: Hi." in fake.prompts["theirs-0"][0]
    assert "Assistant: I pass you on." in fake.prompts["theirs-0"][0]


@pytest.mark.parametrize(
    ("stopped", "error"),
    [
        ("refusal", ModelRefusalError),
        ("max_turn_requests", ModelError),
        ("cancelled", ModelError),
        ("tired", ModelError),
        ({}, ModelError),
    ],
)
async def test_a_turn_that_ends_otherwise_fails_the_run(stopped: Any, error: type[Exception]) -> None:
    async def stop(turn: Turn) -> Any:
        await turn.say("I would, but")
        return stopped

    with pytest.raises(error):
        await external(Fake(stop)).run("go")
