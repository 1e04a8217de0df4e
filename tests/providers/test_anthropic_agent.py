"""A whole agent over a server that speaks Anthropic's Messages API."""

from __future__ import annotations

import msgspec
import pytest
from attrs import frozen

from agentloop import Agent, Session, tool
from agentloop.errors import ModelRefusalError
from agentloop.events import ReasoningDelta, TextDelta, ToolCallDelta
from agentloop.messages import Message
from agentloop.providers import find_model
from agentloop.providers.anthropic import Anthropic
from tests.providers.chat import ask
from tests.providers.messages import (
    END,
    began,
    called,
    delta,
    finished,
    said,
    started,
    thought,
    whole,
)
from tests.providers.server import HEAD, Peer, answering, chunk, chunked, serving

pytestmark = pytest.mark.real_clock

TEXT_SO_FAR = chunk(began()) + chunk(started(0, "text", text="")) + chunk(delta(0, "text_delta", text="Once upon"))


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


async def test_an_agent_thinks_calls_tools_and_answers() -> None:
    asks = whole(
        thought("I must add."),
        said("Let me add. ", index=1),
        called(2, "c1", "add", '{"a":1,', '"b":2}'),
        called(3, "c2", "add", '{"a":3,"b":4}'),
        finish="tool_use",
    )
    async with serving(answering(asks, whole(said("3 and 7.")))) as server:
        agent = Agent(Anthropic("m", base_url=server.url), instructions="Be brief.", tools=[add])
        async with agent.stream("What are 1 + 2 and 3 + 4?") as stream:
            events = [event async for event in stream]
        outcome = stream.result

    assert outcome.output == "3 and 7."
    assert (outcome.usage.input_tokens, outcome.usage.output_tokens, outcome.usage.requests) == (20, 10, 2)
    assert [event.text for event in events if isinstance(event, TextDelta)] == ["Let me add. ", "3 and 7."]
    assert [event.text for event in events if isinstance(event, ReasoningDelta)] == ["I must add."]
    assert {event.call_id for event in events if isinstance(event, ToolCallDelta)} == {"c1", "c2"}
    assert server.connections == 1
    asked, results = server.requests[1].json["messages"][-2:]
    assert [block["type"] for block in asked["content"]] == ["thinking", "text", "tool_use", "tool_use"]
    assert results == {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "3"}]},
            {
                "type": "tool_result",
                "tool_use_id": "c2",
                "content": [{"type": "text", "text": "7"}],
                "cache_control": {"type": "ephemeral"},
            },
        ],
    }


async def test_an_agent_gets_its_output() -> None:
    @frozen
    class City:
        name: str
        people: int

    async with serving(answering(whole(said('{"name":"Porto",', '"people":231800}')))) as server:
        outcome = await Agent(Anthropic("m", base_url=server.url), output_type=City).run("Where?")

    assert outcome.output == City("Porto", 231800)
    form = server.requests[0].json["output_config"]["format"]
    assert form["schema"]["additionalProperties"] is False
    assert set(form["schema"]["properties"]) == {"name", "people"}


async def test_a_session_goes_on_after_a_response_that_was_interrupted() -> None:
    async def handler(peer: Peer) -> None:
        if await peer.request() is not None and len(server.requests) == 1:
            await peer.send(HEAD, TEXT_SO_FAR)
            await peer.until_closed()
        else:
            await peer.send(whole(said("The end.")))
            await peer.until_closed()

    async with serving(handler) as server:
        session = Session()
        agent = Agent(Anthropic("m", base_url=server.url))
        async with agent.stream("Tell me a story.", session=session) as stream:
            async for told in stream:
                if isinstance(told, TextDelta):
                    break
        outcome = await agent.run("Shorter.", session=session)

    assert outcome.output == "The end."
    texts = [(m["role"], m["content"][0]["text"]) for m in server.requests[1].json["messages"]]
    assert texts == [("user", "Tell me a story."), ("assistant", "Once upon"), ("user", "Shorter.")]


async def test_a_refusal_ends_the_run_with_what_was_said_of_it() -> None:
    details = {"type": "refusal", "category": "bio", "explanation": "I cannot."}

    async with serving(answering(chunked(began(), finished("refusal", details), END))) as server:
        with pytest.raises(ModelRefusalError, match=r"refused to answer: I cannot\."):
            await Agent(Anthropic("m", base_url=server.url)).run("Do it.")


async def test_thoughts_survive_the_wire_of_a_transcript() -> None:
    """A session that is kept as JSON goes on with the thoughts that its model wants back."""
    async with serving(answering(whole(thought("Hm."), said("Yes", index=1)), whole(said("No")))) as server:
        agent = Agent(Anthropic("m", base_url=server.url))
        first = await agent.run("Is it?")
        kept = msgspec.json.decode(msgspec.json.encode(first.messages), type=tuple[Message, ...])
        await agent.run("Sure?", session=Session(messages=kept))

    assert server.requests[1].json["messages"][1]["content"][0] == {
        "type": "thinking",
        "thinking": "Hm.",
        "signature": "sig",
    }


async def test_a_model_is_found_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(answering(whole(said("Hi")))) as server:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
        model = find_model("anthropic:claude-opus-5-5")
        await ask(model)

    (request,) = server.requests
    assert model.name == "anthropic:claude-opus-5-5"
    assert request.json["model"] == "claude-opus-5-5"
    assert request.headers["x-api-key"] == "k"
