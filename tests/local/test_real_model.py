"""The loop, driven by a real model over a real server."""

from __future__ import annotations

from typing import Literal

import msgspec
import pytest
import trio
from attrs import frozen

from agentloop import Agent, ModelSettings, Session
from agentloop.errors import ModelStatusError
from agentloop.events import StreamStopped, TextDelta, UsageReported
from agentloop.messages import AssistantMessage, ToolResult
from agentloop.models import Model, ModelRequest, Reply, Stop, ToolSpec
from agentloop.providers import find_model
from tests.providers.chat import Heard

pytestmark = [pytest.mark.real_clock, pytest.mark.seconds(120)]

SETTINGS = ModelSettings(temperature=0.0, seed=1, max_tokens=64)


async def test_text_streams_through_an_agent(model: Model) -> None:
    agent = Agent(model, instructions="You are a helpful assistant.", settings=SETTINGS)

    async with agent.stream("Say hello.") as stream:
        events = [event async for event in stream]

    texts = [event.text for event in events if isinstance(event, TextDelta)]
    assert len(texts) > 2
    assert "".join(texts) == stream.result.output
    usage = next(event.usage for event in events if isinstance(event, UsageReported))
    assert usage.input_tokens > 5
    assert len(texts) <= usage.output_tokens <= 64
    assert isinstance(events[-1], StreamStopped)


async def test_a_session_goes_on(model: Model) -> None:
    agent, session = Agent(model, settings=SETTINGS), Session()

    await agent.run("My name is Ines.", session=session)
    outcome = await agent.run("What is my name?", session=session)

    assert "Ines" in outcome.output


async def test_structured_output_fits_its_type(model: Model) -> None:
    @frozen
    class Person:
        name: str
        age: int
        likes: Literal["tea", "coffee"]

    agent = Agent(model, output_type=Person, settings=SETTINGS)

    outcome = await agent.run("Ines is 42 years old and likes tea. Describe her.")

    assert isinstance(outcome.output, Person)
    assert "Ines" in outcome.output.name


class ByGrammar:
    """Has a model that knows no tools call one: its whole response is held to the shape of a call.

    Narrowed to an answer once there is a result, since so small a model would call again and again.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self.name = model.name

    async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
        (tool,) = request.tools
        if isinstance(request.messages[-1], ToolResult):
            return await self._model.respond(msgspec.structs.replace(request, tools=()), reply)
        shape = {
            "type": "object",
            "properties": {"tool": {"const": tool.name}, "arguments": tool.parameters},
            "required": ["tool", "arguments"],
        }
        words = Heard()
        stop = await self._model.respond(
            msgspec.structs.replace(
                request,
                instructions=f"Call the tool {tool.name} with JSON, with the arguments taken from the question.",
                tools=(),
                output=ToolSpec("call", "A call of the tool.", shape),
            ),
            words,
        )
        call = msgspec.json.decode(words.message(stop).text)
        await reply.tool_call(0, name=call["tool"], arguments=msgspec.json.encode(call["arguments"]).decode())
        return stop


async def test_a_tool_is_called_and_its_result_is_read(model: Model) -> None:
    asked: list[str] = []

    def get_weather(city: str) -> str:
        """Say what the weather is like."""
        asked.append(city)
        return f"In {city} it is sunny, 21 degrees."

    agent = Agent(ByGrammar(model), tools=[get_weather], settings=SETTINGS)

    outcome = await agent.run("What is the weather in Paris?")

    assert asked
    assert "Paris" in asked[0]
    assert "sunny" in outcome.output


async def test_the_server_takes_our_tools_although_its_model_does_not_use_them(model: Model) -> None:
    def get_weather(city: str) -> str:
        """Say what the weather is like."""
        return "sunny"

    outcome = await Agent(model, tools=[get_weather], settings=SETTINGS).run("Hello!")

    assert outcome.output


async def test_a_response_that_is_cancelled_stops_the_model(base_url: str) -> None:
    """If the others went on, this one would wait for them: the server answers two at a time."""
    agent = Agent(
        find_model("llamacpp:smollm2", base_url=base_url),
        settings=ModelSettings(temperature=0.0, max_tokens=3000, extra={"ignore_eos": True}),
    )
    for _ in range(3):
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(_read_one_word, agent)

    with trio.fail_after(20):
        await agent.replace(settings=SETTINGS).run("Say hello.")


async def _read_one_word(agent: Agent) -> None:
    async with agent.stream("Count to one thousand.") as stream:
        async for event in stream:
            if isinstance(event, TextDelta):
                break
    assert stream.outcome.reason == "cancelled"


async def test_what_was_said_before_a_cancel_is_kept(model: Model) -> None:
    session = Session()
    agent = Agent(model, settings=ModelSettings(temperature=0.0, max_tokens=3000, extra={"ignore_eos": True}))

    said = ""
    async with agent.stream("Tell me a story.", session=session) as stream:
        async for event in stream:
            if isinstance(event, TextDelta):
                said += event.text
                if len(said) > 20:
                    stream.stop()

    assert said
    assert isinstance(session.messages[-1], AssistantMessage)
    assert session.messages[-1].text == said
    outcome = await agent.replace(settings=SETTINGS).run("Go on.", session=session)
    assert outcome.output


async def test_a_prompt_that_is_too_long_is_refused_by_the_server(model: Model) -> None:
    with pytest.raises(ModelStatusError, match="context") as caught:
        await Agent(model, settings=SETTINGS).run("word " * 10_000)

    assert caught.value.status == 400
