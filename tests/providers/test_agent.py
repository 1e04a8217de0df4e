"""A whole agent over a chat completions server."""

from __future__ import annotations

import pytest
import trio
from attrs import frozen

from agentloop import Agent, Deadlines, tool
from agentloop.errors import ModelConnectionError, ModelRefusalError, ModelTimeoutError
from agentloop.events import TextDelta, ToolCallDelta
from agentloop.providers.openai_chat import OpenAIChat
from tests.providers.chat import called, counted, finished, piece, said, whole
from tests.providers.server import DONE, HEAD, Peer, answering, chunk, chunked, event, serving

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


async def test_leaving_a_stream_in_mid_delta_closes_the_connection() -> None:
    closed = trio.Event()

    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD, chunk(said("Once upon")))
        await peer.until_closed()
        closed.set()

    async with serving(handler) as server:
        async with Agent(OpenAIChat("m", base_url=server.url)).stream("Tell me a story.") as stream:
            async for told in stream:
                if isinstance(told, TextDelta):
                    break
        await closed.wait()


async def test_a_server_that_falls_silent_is_given_up() -> None:
    closed = trio.Event()

    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD, chunk(said("Once upon")))
        await peer.until_closed()
        closed.set()

    async with serving(handler) as server:
        agent = Agent(OpenAIChat("m", base_url=server.url), deadlines=Deadlines(idle=0.05))
        with pytest.raises(ModelTimeoutError):
            await agent.run("Tell me a story.")
        await closed.wait()


async def test_a_refusal_ends_the_run_with_what_the_model_said() -> None:
    async with serving(answering(whole(event(piece({"refusal": "I cannot."}))))) as server:
        with pytest.raises(ModelRefusalError, match=r"refused to answer: I cannot\."):
            await Agent(OpenAIChat("m", base_url=server.url)).run("Do it.")


async def test_a_run_that_is_cut_off_fails_and_keeps_what_was_said() -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD, chunk(said("Once upon")))

    async with (
        serving(handler) as server,
        Agent(OpenAIChat("m", base_url=server.url)).stream("Tell me a story.") as stream,
    ):
        outcome = await stream.wait()

    assert outcome.reason == "failed"
    assert isinstance(outcome.error, ModelConnectionError)
    assert [message.text for message in outcome.messages if hasattr(message, "stop")] == ["Once upon"]


async def test_a_stream_keeps_its_connection_from_turn_to_turn_and_no_longer() -> None:
    closed = trio.Event()

    async def handler(peer: Peer) -> None:
        for answer in (whole(called(0, "c1", "add", '{"a":1,"b":2}'), finish="tool_calls"), whole(said("3."))):
            await peer.request()
            await peer.send(answer)
        await peer.until_closed()
        closed.set()

    async with serving(handler) as server:
        async with Agent(OpenAIChat("m", base_url=server.url), tools=[add]).stream("What is 1 + 2?") as stream:
            async for _ in stream:
                pass
        await closed.wait()

        assert stream.result.output == "3."
        assert server.connections == 1


async def test_streams_of_an_open_model_share_its_connections() -> None:
    async with serving(answering(whole(said("1")), whole(said("2")))) as server:
        async with OpenAIChat("m", base_url=server.url).open() as model:
            await Agent(model).run("One?")
            await Agent(model).run("Two?")

        assert server.connections == 1
