"""The bound on a history: no call without its result, and never without the prompt or the last turn."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from agentloop import Agent, Session, UsageError, tool
from agentloop._core.transcript import problems
from agentloop.context_sources import ContextSource
from agentloop.messages import AssistantMessage, Message, Text, ToolCall, ToolResult, UserMessage
from agentloop.testing import ScriptedModel, calls
from agentloop.toolkit import recent_messages
from agentloop.toolkit._recent import bounded


def user(text: str, *context: str) -> UserMessage:
    return UserMessage((Text(text),), context=context)


def turn(number: int, count: int) -> list[Message]:
    ids = [f"c{number}_{index}" for index in range(count)]
    asked = AssistantMessage(tuple(ToolCall(id, "look", "{}") for id in ids), "tool_calls")
    return [asked, *[ToolResult(id, "look", (Text(id),)) for id in ids]]


def answer(text: str) -> AssistantMessage:
    return AssistantMessage((Text(text),))


@st.composite
def conversations(draw: st.DrawFn) -> list[Message]:
    messages: list[Message] = []
    runs = draw(st.integers(1, 4))
    for run in range(runs):
        messages.append(user(f"prompt {run}"))
        for number in range(draw(st.integers(0, 4))):
            messages += turn(run * 10 + number, draw(st.integers(1, 5)))
            if draw(st.booleans()):
                messages.append(user("meanwhile"))
            if draw(st.booleans()):
                messages.append(user("context", draw(st.sampled_from("ab"))))
        if run < runs - 1:
            messages.append(answer("done"))
    return messages


@given(conversations(), st.integers(2, 12))
def test_what_is_shown_is_a_whole_that_providers_take_with_the_prompt_and_the_last_turn(
    messages: list[Message], most: int
) -> None:
    if len(messages) <= most:
        return
    shown = bounded(messages, most)

    assert isinstance(shown[0], UserMessage)
    assert not problems(shown)
    prompts = [message for message in messages if isinstance(message, UserMessage) and message.text[:6] == "prompt"]
    assert any(message is prompts[-1] for message in shown)
    assert shown[-1] is messages[-1]
    last = max((i for i, message in enumerate(messages) if isinstance(message, AssistantMessage)), default=0)
    said = [message for message in shown if not (isinstance(message, UserMessage) and message.context)]
    # Only a last turn that is longer than the bound goes beyond it.
    assert len(said) <= max(most, len(messages) - last + 1)
    for name in "ab":
        told = [message for message in messages if isinstance(message, UserMessage) and name in message.context]
        assert not told or any(message is told[-1] for message in shown)


async def test_an_agent_with_a_bound_reads_the_last_messages_and_the_session_keeps_all() -> None:
    session = Session()
    model = ScriptedModel("1", "2", "3")
    agent = Agent(model, hooks=[recent_messages(3)])
    for number in range(3):
        await agent.run(f"prompt {number}", session=session)

    assert [message.text for message in model.requests[-1].messages] == ["prompt 1", "2", "prompt 2"]
    assert len(session.messages) == 6


async def test_a_long_run_keeps_its_prompt_its_last_turn_and_its_context() -> None:
    @tool
    async def look() -> str:
        """Look."""
        return "blue"

    async def weather() -> str:
        return "rain"

    model = ScriptedModel(calls("look"), calls("look"), calls("look") + calls("look"), "Done.")
    agent = Agent(model, tools=[look], hooks=[recent_messages(3)], context=[ContextSource("weather", weather)])

    await agent.run("Begin.")

    kinds = [type(message).__name__ for message in model.requests[-1].messages]
    assert kinds == ["UserMessage", "UserMessage", "AssistantMessage", "ToolResult", "ToolResult"]
    assert [message.text[:6] for message in model.requests[-1].messages[:2]][1] == "Begin."


def test_a_bound_that_is_too_low_is_refused() -> None:
    with pytest.raises(UsageError, match="2 or more"):
        recent_messages(1)
