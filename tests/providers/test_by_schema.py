"""Tool calls with a model that knows none: what it is asked, and what its response says."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given, strategies as st

from agentloop.messages import AssistantMessage, Image, Message, Text, ToolCall, ToolResult, UserMessage
from agentloop.models import ModelRequest, ModelSettings, Stop, ToolSpec
from agentloop.providers._by_schema import JsonText, SchemaReply, held_to_schema, may_call, without_tools
from tests.providers.chat import Heard

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = ToolSpec("get_weather", "Say what the weather is like.", CITY)
PERSON = ToolSpec("Person", "", {"$ref": "#/$defs/P", "$defs": {"P": {"type": "object", "properties": {}}}})
CALL = AssistantMessage((ToolCall("1", "get_weather", '{"city": "Porto"}'),), "tool_calls")
RESULT = ToolResult("1", "get_weather", (Text("sunny"),))


def user(text: str) -> UserMessage:
    return UserMessage((Text(text),))


def assistant(text: str) -> AssistantMessage:
    return AssistantMessage((Text(text),))


def request(*messages: Message, **changes: Any) -> ModelRequest:
    return msgspec.structs.replace(ModelRequest(messages or (user("Hello?"),), "Be kind.", (WEATHER,)), **changes)


def choosing(choice: Any) -> ModelSettings:
    return ModelSettings(temperature=0.5, tool_choice=choice, parallel_tool_calls=False)


def schema(given: ModelRequest) -> dict[str, Any]:
    output = held_to_schema(given).output
    assert output is not None
    return output.parameters


# --------------------------------------------------------------------- whether it may call


def test_with_tools_it_may_call() -> None:
    assert may_call(request(), rounds=1)


def test_without_tools_it_may_not() -> None:
    assert not may_call(request(tools=()), rounds=1)


def test_it_may_not_if_no_tool_is_to_be_chosen() -> None:
    assert not may_call(request(settings=choosing("none")), rounds=1)


@pytest.mark.parametrize("choice", [None, "required"])
def test_after_its_rounds_it_may_only_answer(choice: Any) -> None:
    """A small model would call again for ever; and so does any that is required to."""
    once = request(user("Weather?"), CALL, RESULT, settings=choosing(choice))

    assert not may_call(once, rounds=1)
    assert may_call(once, rounds=2)


def test_what_the_user_says_begins_anew() -> None:
    assert may_call(request(user("Weather?"), CALL, RESULT, assistant("Sunny."), user("And in Faro?")), rounds=1)


# ------------------------------------------------------------------------- what it is asked


def test_tools_are_described_after_the_instructions() -> None:
    asked = held_to_schema(request(settings=choosing("auto")))

    assert asked.instructions.startswith("Be kind.\n\nTools:\n- get_weather(city: string): Say what the weather")
    assert asked.tools == ()
    assert asked.settings == ModelSettings(temperature=0.5)


def test_the_response_is_an_answer_or_a_call() -> None:
    assert schema(request()) == {
        "anyOf": [
            {
                "type": "object",
                "properties": {"answer": {"$ref": "#/$defs/answer"}},
                "required": ["answer"],
                "additionalProperties": False,
            },
            {
                "type": "object",
                "properties": {"tool": {"const": "get_weather"}, "arguments": {"$ref": "#/$defs/tool0"}},
                "required": ["tool", "arguments"],
                "additionalProperties": False,
            },
        ],
        "$defs": {"tool0": CITY, "answer": {"type": "string"}},
    }


def test_where_a_call_is_required_there_is_no_answer() -> None:
    shape = schema(request(settings=choosing("required")))

    assert shape["properties"]["tool"] == {"const": "get_weather"}
    assert "answer" not in shape["$defs"]


def test_a_structured_answer_has_its_schema_in_which_references_hold() -> None:
    assert schema(request(output=PERSON))["$defs"]["answer"] == {
        "$ref": "#/$defs/answer/$defs/P",
        "$defs": {"P": {"type": "object", "properties": {}}},
    }


def test_what_a_tool_is_given_may_refer_to_itself() -> None:
    tree = {"type": "object", "properties": {"$ref": {"type": "array", "items": {"$ref": "#"}}, "any": True}}
    shape = schema(request(tools=(ToolSpec("plant", "", tree),)))

    assert shape["$defs"]["tool0"]["properties"] == {
        "$ref": {"type": "array", "items": {"$ref": "#/$defs/tool0"}},
        "any": True,
    }


def test_calls_and_results_are_shown_as_what_each_side_said() -> None:
    asked = held_to_schema(request(user("Weather?"), AssistantMessage((Text("Well."), *CALL.parts)), RESULT))

    assert asked.messages == (
        user("Weather?"),
        assistant('Well.\n{"tool": "get_weather", "arguments": {"city": "Porto"}}'),
        user("The tool get_weather returned: sunny"),
    )


def test_a_failure_is_told_as_one() -> None:
    failed = ToolResult("1", "get_weather", (Text("no such city"),), "error")

    assert held_to_schema(request(user("?"), CALL, failed)).messages[-1] == user(
        "The tool get_weather returned: Error: no such city"
    )


def test_who_may_only_answer_sees_no_calls_and_takes_results_for_the_users_words() -> None:
    asked = without_tools(request(user("Weather?"), CALL, RESULT, output=PERSON, settings=choosing("required")))

    assert asked.messages == (UserMessage((Text("Weather?"), Text("The tool get_weather returned: sunny"))),)
    assert (asked.instructions, asked.tools, asked.output) == ("Be kind.", (), PERSON)
    assert asked.settings == ModelSettings(temperature=0.5)


def test_the_sides_take_turns() -> None:
    """Some templates take nothing else."""
    asked = without_tools(request(user("a"), user("b"), assistant("c"), assistant("d"), user("e")))

    assert asked.messages == (UserMessage((Text("a"), Text("b"))), assistant("c\nd"), user("e"))


def test_an_empty_answer_keeps_its_place() -> None:
    asked = without_tools(request(user("a"), AssistantMessage(()), user("b")))

    assert asked.messages == (user("a"), assistant(""), user("b"))


def test_a_picture_in_a_result_stays() -> None:
    picture = Image(url="https://example.org/a.png")
    result = ToolResult("1", "get_weather", (picture, Text("sunny")))

    assert held_to_schema(request(user("?"), CALL, result)).messages[-1] == UserMessage(
        (Text("The tool get_weather returned: sunny"), picture)
    )


# ----------------------------------------------------------------------- what it responds


async def read(*pieces: str, structured: bool = False, reason: Any = "end") -> tuple[Heard, Stop]:
    heard = Heard()
    reply = SchemaReply(heard, structured=structured)
    for piece in pieces:
        await reply.text(piece)
    return heard, await reply.finish(Stop(reason))


async def test_an_answer_is_told_as_it_comes() -> None:
    heard, stop = await read("{", ' "answer" : ', '"Once', " upon\\", 'n a time"', " }")

    assert heard.pieces == [("text", "Once"), ("text", " upon"), ("text", "\n a time")]
    assert stop == Stop("end")


async def test_a_call_is_told_as_it_comes() -> None:
    heard, stop = await read('{"tool": "get_', 'weather", "arguments": {"city": {"a', '": "}"}', "}", "\n}\n")

    assert heard.pieces[0] == ("tool_call", 0, "", "get_weather", "")
    assert [call.arguments for call in heard.message(stop).calls] == ['{"city": {"a": "}"}}\n']
    assert stop == Stop("tool_calls")


async def test_a_structured_answer_is_told_as_json() -> None:
    heard, stop = await read('{"answer": {"name": "Ines", ', '"of": {}', "}}", structured=True)

    assert json.loads(heard.message(stop).text) == {"name": "Ines", "of": {}}
    assert stop == Stop("end")


async def test_an_answer_that_is_cut_off_is_told_as_far_as_it_came() -> None:
    heard, stop = await read('{"answer": "Once upon a \\u00', reason="length")

    assert heard.message(stop).text == "Once upon a "
    assert stop == Stop("length")


async def test_a_call_that_is_cut_off_is_not_taken_for_a_whole_one() -> None:
    heard, stop = await read('{"tool": "get_weather", "arguments": {"city": {}', reason="length")

    assert [call.arguments for call in heard.message(stop).calls] == ['{"city": {}']
    assert stop == Stop("length")


async def test_of_what_is_cut_off_before_it_says_what_it_is_nothing_is_told() -> None:
    assert (await read('{"ans', reason="length"))[0].pieces == []


async def test_a_sign_of_life_passes() -> None:
    heard, _ = await read("", '{"answer": "Hi"}')

    assert heard.alive.is_set()


async def test_what_is_not_of_the_form_is_told_as_it_is() -> None:
    """Then the engine did not hold the model to it."""
    assert (await read("Hello", "!"))[0].pieces == [("text", "Hello!")]


async def test_other_pieces_pass() -> None:
    heard = Heard()
    reply = SchemaReply(heard, structured=False)

    await reply.reasoning("hm", signature="s")
    await reply.tool_call(0, name="native", arguments="{}")

    assert heard.pieces == [("reasoning", "hm"), ("tool_call", 0, "", "native", "{}")]


@given(st.text(), st.booleans(), st.lists(st.integers(0, 60)))
def test_a_string_is_read_whatever_it_holds_and_however_it_is_cut(text: str, escaped: bool, cuts: list[int]) -> None:
    written = json.dumps(text, ensure_ascii=escaped) + ' \n}"rest'
    places = sorted({0, len(written), *(cut for cut in cuts if cut < len(written))})
    pieces = [written[start:end] for start, end in pairwise(places)]

    reader = JsonText()
    assert "".join(reader.feed(piece) for piece in pieces) == text


@pytest.mark.parametrize("half", [r"\ud83d", r"\ude00", r"\ud83d\ud83d", r"\ud83d\n"])
def test_half_a_pair_is_replaced(half: str) -> None:
    reader = JsonText()

    told = "".join(reader.feed(piece) for piece in f'"a{half}b"')

    assert told == "a" + json.loads(f'"{half}"').translate({0xD83D: 0xFFFD, 0xDE00: 0xFFFD}) + "b"
