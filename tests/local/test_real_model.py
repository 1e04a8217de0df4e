"""The loop, driven by a real model in a process of ours."""

from __future__ import annotations

from typing import Literal

import msgspec
import pytest
import trio
from attrs import frozen

from agentloop import Agent, ModelSettings, Session
from agentloop.errors import ModelContextOverflowError, ModelNotFoundError
from agentloop.events import StreamStopped, TextDelta, UsageReported
from agentloop.messages import AssistantMessage
from agentloop.providers.local import LocalModel
from tests.local.conftest import children
from tests.providers.chat import ASK, Heard, ask

pytestmark = [pytest.mark.real_clock, pytest.mark.seconds(120)]

SETTINGS = ModelSettings(temperature=0.0, seed=1, max_tokens=64)
ENDLESS = ModelSettings(temperature=0.0, max_tokens=3000, extra={"ignore_eos": True})


async def test_text_streams_through_an_agent_that_names_its_model() -> None:
    agent = Agent("local:smollm2", instructions="You are a helpful assistant.", settings=SETTINGS)

    async with agent.stream("Say hello.") as stream:
        events = [event async for event in stream]

    texts = [event.text for event in events if isinstance(event, TextDelta)]
    assert len(texts) > 2
    assert "".join(texts) == stream.result.output
    usage = next(event.usage for event in events if isinstance(event, UsageReported))
    assert usage.input_tokens > 5
    assert len(texts) <= usage.output_tokens <= 64
    assert isinstance(events[-1], StreamStopped)


async def test_a_session_goes_on() -> None:
    session = Session()

    async with LocalModel().open() as model:
        agent = Agent(model, settings=SETTINGS)
        await agent.run("My name is Ines.", session=session)
        outcome = await agent.run("What is my name?", session=session)
        assert len(children()) == 1

    assert "Ines" in outcome.output


async def test_it_says_the_same_to_the_same() -> None:
    async with LocalModel().open() as model:
        agent = Agent(model, settings=ModelSettings(temperature=0.0, max_tokens=16))
        outputs = {(await agent.run("Tell me of the sea.")).output for _ in range(2)}
        seeded = agent.replace(settings=ModelSettings(temperature=1.0, seed=7, max_tokens=16))
        others = {(await seeded.run("Tell me of the sea.")).output for _ in range(2)}

    assert len(outputs) == 1
    assert len(others) == 1


# ------------------------------------------------------------------------- tools and shapes


@frozen
class Person:
    name: str
    age: int
    likes: Literal["tea", "coffee"]


async def test_structured_output_fits_its_type() -> None:
    agent = Agent(LocalModel(), output_type=Person, settings=SETTINGS)

    outcome = await agent.run("Ines is 42 years old and likes tea. Describe her.")

    assert isinstance(outcome.output, Person)
    assert "Ines" in outcome.output.name


async def test_a_tool_is_called_and_its_result_is_read() -> None:
    asked: list[str] = []

    def get_weather(city: str) -> str:
        """Say what the weather is like in a city."""
        asked.append(city)
        return f"In {city} it is sunny, 21 degrees."

    outcome = await Agent(LocalModel(), tools=[get_weather], settings=SETTINGS).run("What is the weather in Paris?")

    assert asked == ["Paris"]
    assert "sunny" in outcome.output


class Leg(msgspec.Struct):
    to: str
    by: Literal["train", "ship"]


async def test_a_tool_whose_arguments_refer_to_definitions_is_called_with_what_fits() -> None:
    legs: list[Leg] = []

    def plan(legs_of_the_journey: list[Leg]) -> str:
        """Plan a journey."""
        legs.extend(legs_of_the_journey)
        return "done"

    settings = ModelSettings(temperature=0.0, max_tokens=200, tool_choice="required")
    outcome = await Agent(LocalModel(), tools=[plan], settings=settings).run("Go to Rome by train, then to Bari.")

    assert legs
    assert outcome.reason == "completed"


async def test_tools_and_structured_output_go_together() -> None:
    def get_age(name: str) -> int:
        """Say how old a person is."""
        return 42

    agent = Agent(LocalModel(), tools=[get_age], output_type=Person, settings=SETTINGS)

    outcome = await agent.run("How old is Ines, who likes tea?")

    assert isinstance(outcome.output, Person)


@pytest.mark.parametrize("choice", ["auto", "none"])
async def test_an_answer_is_text_where_there_are_tools(choice: Literal["auto", "none"]) -> None:
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    settings = ModelSettings(temperature=0.0, seed=1, max_tokens=64, tool_choice=choice)
    async with Agent(LocalModel(), tools=[add], settings=settings).stream("Tell me a joke.") as stream:
        texts = [event.text async for event in stream if isinstance(event, TextDelta)]

    assert "".join(texts)
    assert "{" not in "".join(texts)


# ------------------------------------------------------------------------------ ways to end


async def test_a_reader_that_leaves_in_mid_reply_leaves_no_process() -> None:
    async with Agent(LocalModel(), settings=ENDLESS).stream("Tell me a story.") as stream:
        async for event in stream:
            if isinstance(event, TextDelta):
                assert len(children()) == 1
                break
    assert stream.outcome.reason == "cancelled"
    assert children() == set()


async def test_a_start_that_is_cancelled_leaves_no_process() -> None:
    with trio.move_on_after(10) as scope:
        async with Agent(LocalModel(), settings=SETTINGS).stream("Hello?"):
            while not children():  # noqa: ASYNC110  # of another process there is no event
                await trio.sleep(0.001)
            scope.cancel()
    assert children() == set()


async def test_a_response_that_is_cancelled_stops_the_model() -> None:
    """If the others went on, the last one would wait for them: there are two at a time."""
    async with LocalModel().open() as model:
        for _ in range(3):
            async with trio.open_nursery() as nursery:
                for _ in range(2):
                    nursery.start_soon(_read_one_word, Agent(model, settings=ENDLESS))
        with trio.fail_after(20):
            await Agent(model, settings=SETTINGS).run("Say hello.")
        assert len(children()) == 1


async def _read_one_word(agent: Agent) -> None:
    async with agent.stream("Count to one thousand.") as stream:
        async for event in stream:
            if isinstance(event, TextDelta):
                break


async def test_what_was_said_before_a_cancel_is_kept() -> None:
    session = Session()
    said = ""
    async with LocalModel().open() as model:
        async with Agent(model, settings=ENDLESS).stream("Tell me a story.", session=session) as stream:
            async for event in stream:
                if isinstance(event, TextDelta):
                    said += event.text
                    if len(said) > 20:
                        stream.stop()
        assert said
        assert isinstance(session.messages[-1], AssistantMessage)
        assert session.messages[-1].text == said
        outcome = await Agent(model, settings=SETTINGS).run("Go on.", session=session)
    assert outcome.output


async def test_a_prompt_that_is_too_long_is_refused() -> None:
    with pytest.raises(ModelContextOverflowError):
        await Agent(LocalModel(context_tokens=256), settings=SETTINGS).run("word " * 500)


async def test_a_file_that_is_no_model_is_told_as_that() -> None:
    with pytest.raises(ModelNotFoundError, match="cannot be loaded"):
        await ask(LocalModel(__file__))


async def test_more_responses_at_once_than_it_gives_wait_for_their_turn() -> None:
    replies = [Heard() for _ in range(4)]
    async with LocalModel(slots=2).open() as model, trio.open_nursery() as nursery:
        for reply in replies:
            nursery.start_soon(model.respond, msgspec.structs.replace(ASK, settings=ModelSettings(max_tokens=8)), reply)
    assert all(reply.pieces for reply in replies)
