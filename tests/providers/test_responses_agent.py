"""A whole agent over OpenAI's Responses API."""

from __future__ import annotations

import pytest
from attrs import frozen

from agentloop import Agent, Session, tool
from agentloop.events import ReasoningDelta, TextDelta, ToolCallDelta
from agentloop.providers.openai_responses import OpenAIResponses
from tests.providers.responses import (
    whole,
    whole_call,
    whole_message,
    whole_thought,
)
from tests.providers.server import answering, serving

pytestmark = pytest.mark.real_clock


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


async def test_an_agent_thinks_calls_tools_and_answers() -> None:
    usage = {"input_tokens": 10, "output_tokens": 5}
    asks = whole(
        whole_thought("I must add.", encrypted="secret"),
        whole_message("Let me add. ", index=1, phase="commentary"),
        whole_call(2, "c1", "add", '{"a":1,"b":2}'),
        whole_call(3, "c2", "add", '{"a":3,"b":4}'),
        usage=usage,
    )
    answers = whole(whole_message("3 and 7.", phase="final_answer"), usage=usage)
    async with serving(answering(asks, answers)) as server:
        agent = Agent(OpenAIResponses("m", base_url=server.url), instructions="Be brief.", tools=[add])
        async with agent.stream("What are 1 + 2 and 3 + 4?") as stream:
            events = [event async for event in stream]
        outcome = stream.result

    assert outcome.output == "3 and 7."
    assert (outcome.usage.input_tokens, outcome.usage.output_tokens, outcome.usage.requests) == (20, 10, 2)
    assert "".join(event.text for event in events if isinstance(event, ReasoningDelta)) == "I must add."
    assert [event.text for event in events if isinstance(event, TextDelta)] == ["Let me add. ", "3 and 7."]
    assert {event.call_id for event in events if isinstance(event, ToolCallDelta)} == {"c1", "c2"}
    summary = [{"type": "summary_text", "text": "I must add."}]
    assert server.requests[1].json["input"][1:] == [
        {"type": "reasoning", "id": "rs_1", "summary": summary, "encrypted_content": "secret"},
        {"type": "message", "role": "assistant", "content": "Let me add. ", "phase": "commentary"},
        {"type": "function_call", "call_id": "c1", "name": "add", "arguments": '{"a":1,"b":2}'},
        {"type": "function_call", "call_id": "c2", "name": "add", "arguments": '{"a":3,"b":4}'},
        {"type": "function_call_output", "call_id": "c1", "output": "3"},
        {"type": "function_call_output", "call_id": "c2", "output": "7"},
    ]


async def test_an_agent_gets_its_output() -> None:
    @frozen
    class City:
        name: str
        people: int

    async with serving(answering(whole(whole_message('{"name":"Porto",', '"people":231800}')))) as server:
        outcome = await Agent(OpenAIResponses("m", base_url=server.url), output_type=City).run("Where?")

    assert outcome.output == City("Porto", 231800)
    assert server.requests[0].json["text"]["format"]["name"] == "City"


async def test_a_session_goes_on_with_what_was_kept() -> None:
    thinks = whole(whole_thought("Hm.", encrypted="secret"), whole_message("Yes.", index=1))
    async with serving(answering(thinks, whole(whole_message("No.")))) as server:
        agent = Agent(OpenAIResponses("m", base_url=server.url))
        session = Session()
        await agent.run("Is it?", session=session)
        await agent.run("Sure?", session=session)

    kinds = [item.get("encrypted_content") or item.get("content") for item in server.requests[1].json["input"]]
    assert kinds == ["Is it?", "secret", "Yes.", "Sure?"]
