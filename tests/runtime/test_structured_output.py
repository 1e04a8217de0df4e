"""Structured output: what the model must give, how often it is reminded, and what comes of it in the end."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

import msgspec
import pytest
from attrs import frozen

from agentloop import Agent, Limits, Session, ToolContext, hooks, tool
from agentloop.errors import LimitReachedError, ModelRefusalError, OutputError, ToolDefinitionError
from agentloop.events import TurnFinished
from agentloop.hooks import Continue, StopRequested
from agentloop.messages import UserMessage
from agentloop.testing import Response, ScriptedModel, calls, says
from tests.runtime.builders import agent_with, results, warnings_in
from tests.support import nested, of, stopped_at, watch


@frozen
class City:
    name: str
    people: int = 0


@dataclass
class Country:
    name: str
    cities: list[City]


class Place(TypedDict):
    name: str


class Struct(msgspec.Struct):
    name: str


class Colour(enum.Enum):
    RED = "red"


ONE_ATTEMPT = Limits(output_attempts=1)
PORTO = '{"name": "Porto", "people": 230000}'


def writer(output_type: Any, *script: Response | str, **options: Any) -> Agent[Any, Any]:
    return Agent(ScriptedModel(*script), output_type=output_type, **options)


def requests(agent: Agent) -> list[Any]:
    assert isinstance(agent.model, ScriptedModel)
    return agent.model.requests


@pytest.mark.parametrize(
    ("output_type", "text", "output"),
    [
        (City, PORTO, City("Porto", 230000)),
        (City, '{"name": "Porto"}', City("Porto", 0)),
        (Country, '{"name": "Portugal", "cities": [{"name": "Porto"}]}', Country("Portugal", [City("Porto")])),
        (Place, '{"name": "Porto"}', {"name": "Porto"}),
        (Struct, '{"name": "Porto"}', Struct("Porto")),
        (dict[str, int], '{"a": 1}', {"a": 1}),
        (list[int], '{"value": [1, 2]}', [1, 2]),
        (list[int], "[1, 2]", [1, 2]),
        (int, '{"value": 7}', 7),
        (int, "7", 7),
        (bool, '{"value": true}', True),
        (Literal["yes", "no"], '{"value": "yes"}', "yes"),
        (Colour, '{"value": "red"}', Colour.RED),
        (City | None, '{"value": null}', None),
        (City, f"Here it is:\n```json\n{PORTO}\n```\nGood luck!", City("Porto", 230000)),
        (City, f"Here it is: {PORTO} Good luck!", City("Porto", 230000)),
    ],
    ids=str,
)
async def test_the_output_is_a_value_of_its_type(output_type: Any, text: str, output: object) -> None:
    outcome = await writer(output_type, text).run("go")

    assert outcome.output == output
    assert type(outcome.output) is type(output)


async def test_without_an_output_type_the_output_is_the_text_and_nothing_is_asked_for() -> None:
    agent = writer(str, PORTO)

    assert (await agent.run("go")).output == PORTO
    assert requests(agent)[0].output is None


async def test_the_model_gets_the_schema_of_the_output() -> None:
    agent = writer(City, PORTO)

    await agent.run("go")

    [request] = requests(agent)
    assert request.output.name == "City"
    assert request.output.parameters["required"] == ["name"]
    assert request.output.parameters["type"] == "object"


async def test_a_type_that_is_no_object_is_asked_for_wrapped_in_one() -> None:
    """Providers take nothing else."""
    agent = writer(list[int], '{"value": [1]}')

    await agent.run("go")

    [request] = requests(agent)
    assert request.output.parameters["properties"]["value"] == {"type": "array", "items": {"type": "integer"}}


async def test_the_model_may_call_tools_before_it_answers() -> None:
    @tool
    async def count() -> int:
        return 230_000

    agent = agent_with(count, model=ScriptedModel(calls("count"), PORTO), output_type=City)

    watched = await watch(agent)

    assert results(watched)[0].text == "230000"
    assert watched.outcome.output == City("Porto", 230000)


async def test_text_beside_a_tool_call_is_no_output_yet() -> None:
    @tool
    async def count() -> int:
        return 230_000

    agent = agent_with(
        count, model=ScriptedModel(says("Let me count.") + calls("count"), PORTO), output_type=City, limits=ONE_ATTEMPT
    )

    assert (await agent.run("go")).output == City("Porto", 230000)


# ---------------------------------------------------------------------------------- reminders


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("Porto.", "the output is not JSON"),
        ('{"people": 1}', "the output does not fit: missing required field `name`"),
        ('{"name": 7}', "the output does not fit: `name`: expected `str`, got `int`"),
        (PORTO + PORTO, "the output holds 2 JSON values"),
    ],
)
async def test_a_model_whose_output_is_invalid_gets_the_problem(text: str, problem: str) -> None:
    agent = writer(City, text, PORTO)

    watched = await watch(agent)

    reminder = requests(agent)[1].messages[-1]
    assert isinstance(reminder, UserMessage)
    assert problem in reminder.text
    assert watched.outcome.output == City("Porto", 230000)


async def test_a_reminder_is_part_of_the_transcript() -> None:
    watched = await watch(writer(City, "Porto.", PORTO))

    assert [type(message).__name__ for message in watched.messages] == [
        "UserMessage",
        "AssistantMessage",
        "UserMessage",
        "AssistantMessage",
    ]
    assert [event.reason for event in of(watched.events, TurnFinished)] == ["output_retry", "final"]


async def test_an_empty_answer_is_reminded_of_too() -> None:
    watched = await watch(writer(City, Response(), PORTO))

    assert watched.outcome.output == City("Porto", 230000)
    assert warnings_in(watched.events) == ["empty"]


async def test_after_the_last_attempt_the_run_fails() -> None:
    agent = writer(City, "a", "b", "c", "never asked for")

    watched = await watch(agent)

    assert isinstance(watched.error, OutputError)
    assert (watched.error.attempts, watched.error.text) == (3, "c")
    assert "gave no valid output in 3 attempts; the last problem: the output is not JSON" in str(watched.error)
    assert len(requests(agent)) == 3


@pytest.mark.parametrize("attempts", [1, 2, 5])
async def test_how_many_attempts_there_are_is_a_limit_of_the_agent(attempts: int) -> None:
    agent = writer(City, *["no"] * attempts, limits=Limits(output_attempts=attempts))

    with pytest.raises(OutputError) as caught:
        await agent.run("go")

    assert caught.value.attempts == attempts
    assert len(requests(agent)) == attempts


async def test_the_last_attempt_stays_in_the_transcript_and_the_session_can_be_used_again() -> None:
    session = Session()
    watched = await watch(writer(City, "no", limits=ONE_ATTEMPT), session=session)

    assert [getattr(message, "text", "") for message in watched.messages] == ["go", "no"]


async def test_turns_with_tool_calls_are_no_attempts() -> None:
    @tool
    async def count(n: int) -> int:
        return n

    model = ScriptedModel(*[calls("count", n=n) for n in range(5)], "no", PORTO)
    agent = agent_with(count, model=model, output_type=City, limits=Limits(output_attempts=2))

    assert (await agent.run("go")).output == City("Porto", 230000)


async def test_reminders_are_turns_and_count_as_such() -> None:
    agent = writer(City, "a", "b", "c", limits=Limits(turns=2, output_attempts=9))

    with pytest.raises(LimitReachedError, match="turns: 2 of 2 used"):
        await agent.run("go")


async def test_an_answer_that_is_cut_off_is_no_output() -> None:
    watched = await watch(writer(City, says(PORTO[:10], stop="length"), PORTO))

    assert watched.outcome.output == City("Porto", 230000)
    assert warnings_in(watched.events) == ["truncated"]


async def test_a_refusal_is_not_reminded_of() -> None:
    agent = writer(City, says("I would rather not.", stop="refusal"), PORTO)

    with pytest.raises(ModelRefusalError, match="refused to answer: I would rather not"):
        await agent.run("go")
    assert len(requests(agent)) == 1


async def test_an_agent_that_is_sent_on_has_all_its_attempts_again() -> None:
    @hooks.stop
    def once_more(value: StopRequested) -> Continue | None:
        return None if value.continuations else Continue("Once more.")

    agent = writer(City, "no", PORTO, "no", PORTO, limits=Limits(output_attempts=2), hooks=[once_more])

    assert (await agent.run("go")).output == City("Porto", 230000)


# ------------------------------------------------------------------------------------- inside


async def test_the_output_of_a_child_is_read_by_its_parent_as_json() -> None:
    inner = writer(City, PORTO, name="inner")

    watched = await watch(agent_with(inner.as_tool(), response=calls("inner", prompt="go")))

    assert results(watched)[0].text == '{"name":"Porto","people":230000}'


async def test_the_output_of_a_child_is_a_value_for_the_tool_that_ran_it() -> None:
    inner = writer(City, PORTO, name="inner")
    outputs: list[object] = []

    @tool
    async def delegate(context: ToolContext[Any]) -> str:
        outputs.append((await context.run(inner, "go")).output)
        return "ok"

    await watch(agent_with(delegate))

    assert outputs == [City("Porto", 230000)]


async def test_a_child_without_output_fails_its_call_and_not_its_parent() -> None:
    watched = await watch(nested(writer(City, "no", name="inner", limits=ONE_ATTEMPT), 1))

    assert stopped_at(watched.events, 1).reason == "failed"
    [result] = results(watched)
    assert result.status == "error"
    assert "agent 'inner' gave no answer: " in result.text
    assert watched.outcome.reason == "completed"


def test_a_type_that_cannot_be_read_from_json_is_refused_when_the_agent_is_made() -> None:
    with pytest.raises(
        ToolDefinitionError, match="the output type cannot be read from JSON: `complex` has no JSON form"
    ):
        writer(complex)
