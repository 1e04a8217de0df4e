"""A whole agent over OpenAI's Responses API."""

from __future__ import annotations

import pytest
import trio
from attrs import frozen

from agentloop import Agent, Deadlines, Session, tool
from agentloop.errors import ModelConnectionError, ModelRefusalError, ModelStatusError, ModelTimeoutError
from agentloop.events import ReasoningDelta, TextDelta, ToolCallDelta
from agentloop.providers.openai_responses import OpenAIResponses
from tests.providers.responses import (
    BEGUN,
    call_begun,
    call_piece,
    ended,
    said,
    told,
    whole,
    whole_call,
    whole_message,
    whole_thought,
)
from tests.providers.server import HEAD, Handler, Peer, answering, chunk, chunked, serving

pytestmark = pytest.mark.real_clock


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def stalling(closed: trio.Event, *events: bytes) -> Handler:
    """Says ``events``, then nothing until the client has closed the connection."""

    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD, chunk(BEGUN + b"".join(events)))
        await peer.until_closed()
        closed.set()

    return handler


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


@pytest.mark.parametrize(
    ("events", "begun"),
    [
        (said("Once upon"), TextDelta),
        (told("response.reasoning_summary_text.delta", output_index=0, delta="Hm"), ReasoningDelta),
        (call_begun(0, "c1", "add") + call_piece(0, '{"a":'), ToolCallDelta),
    ],
    ids=["text", "reasoning", "call"],
)
async def test_leaving_a_stream_in_mid_delta_closes_the_connection(events: bytes, begun: type) -> None:
    closed = trio.Event()

    async with serving(stalling(closed, events)) as server:
        async with Agent(OpenAIResponses("m", base_url=server.url), tools=[add]).stream("Tell me a story.") as stream:
            async for event in stream:
                if isinstance(event, begun):
                    break
        await closed.wait()


async def test_a_server_that_falls_silent_is_given_up() -> None:
    closed = trio.Event()

    async with serving(stalling(closed, said("Once upon"))) as server:
        agent = Agent(OpenAIResponses("m", base_url=server.url), deadlines=Deadlines(idle=0.05))
        with pytest.raises(ModelTimeoutError):
            await agent.run("Tell me a story.")
        await closed.wait()


async def test_a_refusal_ends_the_run_with_what_the_model_said() -> None:
    refusal = told("response.refusal.delta", output_index=0, content_index=0, delta="I cannot.")
    async with serving(answering(whole(refusal))) as server:
        with pytest.raises(ModelRefusalError, match=r"refused to answer: I cannot\."):
            await Agent(OpenAIResponses("m", base_url=server.url)).run("Do it.")


@pytest.mark.parametrize(
    ("end", "error"),
    [
        (b"", ModelConnectionError),
        (ended("failed", error={"code": "server_error", "message": "Sorry."}), ModelStatusError),
        (told("error", code="server_error", message="Sorry."), ModelStatusError),
    ],
    ids=["cut", "failed", "error"],
)
async def test_a_run_that_fails_in_mid_stream_keeps_what_was_said_but_no_half_call(
    end: bytes, error: type[Exception]
) -> None:
    body = chunked(BEGUN, said("Once upon"), call_begun(1, "c1", "add"), call_piece(1, '{"a":'), end)
    async with (
        serving(answering(body)) as server,
        Agent(OpenAIResponses("m", base_url=server.url), tools=[add]).stream("Tell me a story.") as stream,
    ):
        outcome = await stream.wait()

    assert outcome.reason == "failed"
    assert isinstance(outcome.error, error)
    assert [str(message) for message in outcome.messages] == ["'Tell me a story.'", "'Once upon'"]


async def test_a_stream_keeps_its_connection_from_turn_to_turn_and_no_longer() -> None:
    closed = trio.Event()

    async def handler(peer: Peer) -> None:
        for answer in (whole(whole_call(0, "c1", "add", '{"a":1,"b":2}')), whole(whole_message("3."))):
            await peer.request()
            await peer.send(answer)
        await peer.until_closed()
        closed.set()

    async with serving(handler) as server:
        outcome = await Agent(OpenAIResponses("m", base_url=server.url), tools=[add]).run("What is 1 + 2?")
        await closed.wait()

        assert outcome.output == "3."
        assert server.connections == 1
