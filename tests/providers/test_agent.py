"""A whole agent over a chat completions server."""

from __future__ import annotations

import pytest
from attrs import frozen

from agentloop import Agent, tool
from agentloop.events import TextDelta, ToolCallDelta
from agentloop.providers.openai_chat import OpenAIChat
from tests.providers.chat import called, counted, finished, said, whole
from tests.providers.server import DONE, answering, chunked, serving

pytestmark = pytest.mark.real_clock


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


async def test_an_agent_calls_tools_and_answers() -> None:
    usage = counted(prompt_tokens=10, completion_tokens=5)
    asks = chunked(
        said("Let me add. "),
        called(0, "c1", "add", ""),
        called(1, "c2", "add", ""),
        called(0, arguments='{"a":1,"b":2}'),
        called(1, arguments='{"a":3,"b":4}'),
        finished("tool_calls"),
        usage,
        DONE,
    )
    async with serving(answering(asks, chunked(said("3 and 7."), finished(), usage, DONE))) as server:
        agent = Agent(OpenAIChat("m", base_url=server.url), instructions="Be brief.", tools=[add])
        async with agent.stream("What are 1 + 2 and 3 + 4?") as stream:
            events = [event async for event in stream]
        outcome = stream.result

    assert outcome.output == "3 and 7."
    assert (outcome.usage.input_tokens, outcome.usage.output_tokens, outcome.usage.requests) == (20, 10, 2)
    assert [event.text for event in events if isinstance(event, TextDelta)] == ["Let me add. ", "3 and 7."]
    assert {event.call_id for event in events if isinstance(event, ToolCallDelta)} == {"c1", "c2"}
    assert server.requests[1].json["messages"][-2:] == [
        {"role": "tool", "tool_call_id": "c1", "content": "3"},
        {"role": "tool", "tool_call_id": "c2", "content": "7"},
    ]


async def test_an_agent_gets_its_output() -> None:
    @frozen
    class City:
        name: str
        people: int

    async with serving(answering(whole(said('{"name":"Porto",'), said('"people":231800}')))) as server:
        outcome = await Agent(OpenAIChat("m", base_url=server.url), output_type=City).run("Where?")

    assert outcome.output == City("Porto", 231800)
    assert server.requests[0].json["response_format"]["json_schema"]["name"] == "City"
