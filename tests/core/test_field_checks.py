"""Values of user code, checked by the types that their fields declare."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date
from enum import IntEnum, StrEnum
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import given, strategies as st

from agentloop._core.field_checks import FieldError, checked, is_name, json_value, plain_text, shown
from agentloop.errors import UsageError
from agentloop.messages import (
    AssistantMessage,
    File,
    Image,
    Message,
    Reasoning,
    Text,
    ToolCall,
    ToolResult,
    Usage,
    UserMessage,
    UserPart,
)


class Markup(str):
    __slots__ = ()

    def __repr__(self) -> str:
        raise ValueError("no repr")


class Count(int): ...


class Share(float): ...


class Color(StrEnum):
    RED = "red"


class Size(IntEnum):
    BIG = 3


class BoldText(Text, frozen=True):
    """A part of a user's own class."""


HALF = "half \ud83d"
WHOLE = "half \N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize(
    "value",
    [
        Text("tea"),
        Image(data=b"x"),
        File(url="https://example.com/a", name="ä"),
        ToolResult("1", "look", (Text("tea"), Image(data=b"")), "denied"),
        AssistantMessage((Reasoning("a", "b"), ToolCall("1", "look", "{}")), "tool_calls", "m", Usage(1, cost=0.5)),
        UserMessage(()),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_whose_fields_are_right_stays_the_same_object(value: msgspec.Struct) -> None:
    assert checked(type(value), value) is value


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Text(Markup("tea")), Text("tea")),
        (Text(HALF), Text(WHOLE)),
        (Text("\ud83d\ude00"), Text("\N{GRINNING FACE}")),
        (Text(Color.RED), Text("red")),
        (BoldText("tea"), Text("tea")),
        (ToolResult("1", "look", [Text("tea")]), ToolResult("1", "look", (Text("tea"),))),  # type: ignore[arg-type]
        (ToolResult("1", HALF, (), Color.RED), None),  # type: ignore[arg-type]
        (Usage(Count(3), cost=Share(0.5)), Usage(3, cost=0.5)),
        (Usage(Size.BIG, cost=2), Usage(3, cost=2)),
    ],
)
def test_a_value_that_cannot_be_written_as_it_is_becomes_an_equal_plain_one(
    value: msgspec.Struct, plain: msgspec.Struct | None
) -> None:
    kind = value.__class__.__mro__[1] if isinstance(value, BoldText) else type(value)
    if plain is None:
        with pytest.raises(FieldError, match=r"`ToolResult.status` is .*, where 'ok', 'error', .* is due"):
            checked(kind, value)
        return
    new = checked(kind, value)
    assert new == plain
    assert msgspec.json.decode(msgspec.json.encode(new), type=kind) == plain


@pytest.mark.parametrize(
    ("kind", "value", "problem"),
    [
        (Text, Text(None), "`Text.text` is None, where text is due"),  # type: ignore[arg-type]
        (UserPart, "tea", "`str` is 'tea', where a Text, an Image or a File is due"),
        (UserPart, Text(b"tea"), "`Text.text` is b'tea', where text is due"),  # type: ignore[arg-type]
        (ToolResult, ToolResult("1", "a", "tea"), "`ToolResult.parts` is 'tea', where a tuple is due"),  # type: ignore[arg-type]
        (
            ToolResult,
            ToolResult("1", "a", (Text("a"), "tea")),  # type: ignore[arg-type]
            "`ToolResult.parts[1]` is 'tea', where a Text, an Image or a File is due",
        ),
        (ToolResult, ToolResult("1", "a", (Text(5),)), "`ToolResult.parts[0].text` is 5, where text is due"),  # type: ignore[arg-type]
        (Usage, Usage(True), "`Usage.input_tokens` is True, where an integer is due"),
        (Usage, Usage(cost=math.nan), "`Usage.cost` is nan, where a finite number is due"),
        (Usage, Usage(cost=10**400), "where a finite number is due"),
        (Usage, Usage(1.0), "`Usage.input_tokens` is 1.0, where an integer is due"),  # type: ignore[arg-type]
        (bool, 1, "where a bool is due"),
        (dict[str, int], {1: 2}, "is {1: 2}, where a dict with texts as keys is due"),
        (dict[str, int], {"a": "b"}, "`dict['a']` is 'b', where an integer is due"),
        (Sequence[Message], [Text("a")], "where a UserMessage, an AssistantMessage or a ToolResult is due"),
        (Literal["a", "b"], "c", "`str` is 'c', where 'a' or 'b' is due"),
        (Literal["a"], ["a"], "where 'a' is due"),
        (Any, {"a": [math.inf]}, "`dict['a'][0]` is inf, where a JSON value is due"),
        (Any, object(), "where a JSON value is due"),
        (Any, {"a": {1: 2}}, "`dict['a']` is {1: 2}, where a dict with texts as keys is due"),
    ],
)
def test_a_value_of_a_wrong_type_is_refused_with_the_name_of_its_field(kind: Any, value: object, problem: str) -> None:
    with pytest.raises(FieldError) as raised:
        checked(kind, value)
    assert problem in str(raised.value)


def test_json_is_taken_with_plain_values_only() -> None:
    value = {"a": (1, Size.BIG, Count(2)), Markup("b"): date(2026, 1, 31), "c": Text("tea"), "d": HALF, "e": None}
    assert json_value(value, "it") == {
        "a": [1, 3, 2],
        "b": "2026-01-31",
        "c": {"type": "text", "text": "tea"},
        "d": WHOLE,
        "e": None,
    }


def test_json_that_contains_itself_is_refused() -> None:
    circle: list[object] = []
    circle.append(circle)
    with pytest.raises(FieldError, match="nested too deeply"):
        json_value(circle, "it")


def test_a_value_without_a_repr_is_shown_by_its_class() -> None:
    assert shown(Markup("a")) == "<Markup>"
    assert shown("a" * 500).endswith("...")
    assert shown(HALF) == repr(HALF)


def test_a_name_is_text_that_can_be_written() -> None:
    assert is_name("ann")
    assert is_name(Color.RED)
    assert not any(map(is_name, ["", HALF, Markup("ann"), None, 5, b"ann", ["ann"]]))


@given(st.text(st.characters(), max_size=20) | st.text(st.sampled_from("a\ud83d\ude00\udcff"), max_size=8))
def test_a_plain_text_can_be_encoded_and_is_its_own_plain_text(text: str) -> None:
    assert plain_text(plain_text(text)).encode() == plain_text(text).encode()


@pytest.mark.parametrize("kind", [Image, File])
@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"data": "<svg/>"}, "`{kind}.data` is '<svg/>', where bytes or None is due"),
        ({"url": 5}, "`{kind}.url` is 5, where text or None is due"),
        ({"data": b"x", "media_type": None}, "`{kind}.media_type` is None, where text is due"),
        ({"data": 0}, "`{kind}.data` is 0, where bytes or None is due"),
    ],
)
def test_a_picture_or_file_of_wrong_values_cannot_be_made(
    kind: type[Image | File], fields: dict[str, Any], problem: str
) -> None:
    with pytest.raises(UsageError) as raised:
        kind(**fields)
    assert str(raised.value) == problem.format(kind=kind.__name__)


def test_the_bytes_of_a_file_are_a_copy_that_does_not_change() -> None:
    data = bytearray(b"abc")
    file = File(data=data, name=Markup("a.txt"))  # type: ignore[arg-type]
    data[0] = 0
    assert file == File(data=b"abc", name="a.txt")
    assert type(file.data) is bytes
    assert type(file.name) is str
