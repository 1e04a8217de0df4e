"""Numbers and JSON: what a model writes in other words is the same, and what JSON cannot say is refused beforehand."""

from __future__ import annotations

import enum
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Literal, TypedDict

import attrs
import msgspec
import pytest
from hypothesis import given, strategies as st

from agentloop._core.forms import fill, form_of
from agentloop._core.json_text import same_json, whole_numbers
from agentloop._core.json_types import with_declared_integers
from agentloop._core.signature import signature_of
from agentloop._core.structured_output import OutputFormatError, output_type
from agentloop._core.usage import Meter, RepeatDetector
from agentloop.errors import ArgumentsError, ToolDefinitionError
from agentloop.limits import Limits
from agentloop.tools import JsonArguments

# -------------------------------------------------------------------- numbers without a fraction


class Size(enum.IntEnum):
    SMALL = 1


@dataclass
class Weather:
    days: int
    share: float = 0.5
    rest: Any = None


def everything(
    count: int,
    share: float = 0.0,
    several: list[int] | None = None,
    by_name: dict[str, int] | None = None,
    by_number: dict[int, int] | None = None,
    pair: tuple[int, str] | None = None,
    size: Size = Size.SMALL,
    level: Literal[1, 2] = 1,
    text_or_number: int | str = "",
    bounded: Annotated[int, msgspec.Meta(ge=1, le=9)] = 1,
    weather: Weather | None = None,
    price: Decimal = Decimal(0),
) -> None:
    """Take everything."""


ARGUMENTS = signature_of(everything)


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ('{"count": 3.0}', "count", 3),
        ('{"count": 3e2}', "count", 300),
        ('{"count": -0.0}', "count", 0),
        ('{"count": 3.0, "share": 2.0}', "share", 2.0),
        ('{"count": 1, "several": [1.0, 2, 3.0]}', "several", [1, 2, 3]),
        ('{"count": 1, "by_name": {"a": 1.0}}', "by_name", {"a": 1}),
        ('{"count": 1, "by_number": {"7": 1.0}}', "by_number", {7: 1}),
        ('{"count": 1, "pair": [2.0, "a"]}', "pair", (2, "a")),
        ('{"count": 1, "size": 1.0}', "size", Size.SMALL),
        ('{"count": 1, "level": 2.0}', "level", 2),
        ('{"count": 1, "text_or_number": 2.0}', "text_or_number", 2),
        ('{"count": 1, "bounded": 9.0}', "bounded", 9),
        ('{"count": 1, "weather": {"days": 4.0, "share": 1.0}}', "weather", Weather(4, 1.0)),
        ('{"count": 1.0, "price": 12.50}', "price", Decimal("12.5")),
        ('{"count": 9007199254740993}', "count", 9007199254740993),
    ],
)
def test_a_number_without_a_fraction_is_an_integer(text: str, name: str, value: object) -> None:
    taken = ARGUMENTS.decode(text)[name]
    assert taken == value
    assert type(taken) is type(value)
    assert ARGUMENTS.convert(msgspec.json.decode(text))["count"] == ARGUMENTS.decode(text)["count"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"count": 3.5}', "`count`: expected `int`, got `float`"),
        ('{"count": 3.0, "several": [1.5]}', "`several[0]`: expected `int`, got `float`"),
        ('{"count": 1, "price": true}', "`price`: expected `decimal`, got `bool`"),
        ('{"count": 1, "by_name": 3.0}', "`by_name`: expected `object | null`, got `float`"),
        ('{"count": "3"}', "`count`: expected `int`, got `str`"),
        ('{"count": true}', "`count`: expected `int`, got `bool`"),
        ('{"count": 1e300}', "`count`: expected `int`, got `float`"),
        ('{"count": 1.0, "bounded": 10.0}', "`bounded`: expected `int` <= 9"),
        ('{"count": 1.0, "level": 3.0}', "`level`: invalid enum value 3"),
    ],
)
def test_another_number_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ArgumentsError, match="invalid arguments") as raised:
        ARGUMENTS.decode(text)
    assert problem in str(raised.value)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (int, "12.0", 12),
        (int, '{"value": 12.0}', 12),
        (list[int], "[1.0, 2]", [1, 2]),
        (Weather, '{"days": 2.0}', Weather(2)),
        (Weather, '```json\n{"days": 2.0}\n```', Weather(2)),
        (int | str, "3.0", 3),
    ],
)
def test_an_output_takes_a_number_without_a_fraction_for_an_integer(kind: Any, text: str, value: object) -> None:
    assert output_type(kind).decode(text) == value


@pytest.mark.parametrize("text", ["12.5", '{"value": 12.5}', "true", '"12"'])
def test_an_output_takes_no_other_number_for_an_integer(text: str) -> None:
    with pytest.raises(OutputFormatError):
        output_type(int).decode(text)


def test_a_form_takes_a_number_without_a_fraction_for_an_integer() -> None:
    filled = fill(form_of(Sizes), {"days": 3.0, "share": 2.0})
    assert filled == {"days": 3, "share": 2.0}
    assert type(filled["days"]) is int
    with pytest.raises(ValueError, match="expected an integer"):
        fill(form_of(Sizes), {"days": 3.5, "share": 1})


@dataclass
class Sizes:
    days: int
    share: float


SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "count": {"type": "integer"},
        "share": {"type": "number"},
        "any": {},
        "maybe": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        "kinds": {"type": ["integer", "null"]},
        "both": {"type": ["integer", "number"]},
        "several": {"type": "array", "items": {"type": "integer"}},
        "inside": {"type": "object", "additionalProperties": {"type": "integer"}},
        "odd": True,
        "odder": {"items": [{"type": "integer"}], "properties": 7, "anyOf": 7},
    },
}


def test_arguments_for_another_program_have_integers_where_its_schema_has() -> None:
    text = (
        '{"count": 3.0, "share": 3.0, "any": 3.0, "maybe": 3.0, "kinds": 3.0, "both": 3.0, "several": [3.0, 3.5], '
        '"inside": {"a": 3.0}, "odd": 3.0, "odder": [3.0], "unknown": 3.0}'
    )
    taken = JsonArguments(SCHEMA).decode(text)
    assert msgspec.json.encode(taken).decode() == (
        '{"count":3,"share":3.0,"any":3.0,"maybe":3,"kinds":3,"both":3.0,"several":[3,3.5],'
        '"inside":{"a":3},"odd":3.0,"odder":[3.0],"unknown":3.0}'
    )


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=3),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=3), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(json_values)
def test_whole_numbers_change_no_value(value: Any) -> None:
    assert whole_numbers(value) == value
    assert with_declared_integers(value, {"type": "integer", "items": {"type": "integer"}}) == value


# ------------------------------------------------------------------------- the same call


@given(json_values, st.randoms())
def test_the_same_json_in_another_order_and_with_other_spaces_is_the_same(value: Any, random: Any) -> None:
    def shuffled(value: Any) -> Any:
        if isinstance(value, dict):
            items = list(value.items())
            random.shuffle(items)
            return {name: shuffled(member) for name, member in items}
        return [shuffled(item) for item in value] if isinstance(value, list) else value

    text = msgspec.json.encode(value).decode()
    other = msgspec.json.format(msgspec.json.encode(shuffled(value)), indent=2).decode()
    assert same_json(text, other)


@pytest.mark.parametrize(
    ("text", "other", "is_same"),
    [
        ('{"a": 1}', '{"a": 1.0}', True),
        ("", "{}", True),
        (" ", "", True),
        ('{"a": [1, 2]}', '{"a": [2, 1]}', False),
        ('{"a": 1}', '{"a": true}', False),
        ('{"a": "1"}', '{"a": 1}', False),
        ('{"a": 1', '{"a": 1', True),
        ('{"a": 1', '{"a":1', False),
        ("[" * 1000, "[" * 999, False),
        ('{"a": 1.5}', '{"a": 1.50}', True),
    ],
)
def test_other_json_is_another_call(text: str, other: str, is_same: bool) -> None:
    assert same_json(text, other) is is_same


def test_a_turn_repeats_if_its_calls_say_the_same() -> None:
    detector = RepeatDetector(3)
    assert not detector.is_stuck((("look", '{"x": 1, "y": 2}'), ("see", "{}")))
    assert not detector.is_stuck((("look", '{"y": 2, "x": 1}'), ("see", "")))
    assert detector.is_stuck((("look", '{"y":2.0,"x":1}'), ("see", "{ }")))
    assert detector.times == 3
    assert not detector.is_stuck((("look", '{"y":2.0,"x":1}'),))
    assert not detector.is_stuck((("see", '{"y":2.0,"x":1}'),))


# ------------------------------------------------------------------------- limits in words


def test_a_limit_says_what_was_used() -> None:
    meter = Meter(Limits(tool_calls=3))
    reached = meter.before_tool_calls(5)
    assert reached is not None
    assert (reached.used, reached.allowed, reached.asked) == (0, 3, 5)
    meter.extend(reached)
    assert meter.before_tool_calls(5) is None, "one question is enough for the calls of one response"
    meter.count_tool_calls(5)
    reached = meter.before_tool_calls(3)
    assert reached is not None
    assert (reached.used, reached.allowed, reached.asked) == (5, 7, 3)


def test_exactly_as_many_calls_as_are_allowed_may_run() -> None:
    meter = Meter(Limits(tool_calls=3), Meter(Limits(tool_calls=2)))
    assert meter.before_tool_calls(2) is None
    reached = meter.before_tool_calls(3)
    assert reached is not None
    assert reached.allowed == 2


# -------------------------------------------------------------------- what JSON cannot say


@pytest.mark.parametrize(
    ("hint", "key"),
    [
        (dict[tuple[int, int], str], "tuple"),
        (dict[bool, str], "bool"),
        (dict[bytes, str], "bytes"),
        (dict[None, str], "none"),
        (dict[frozenset[int], str], "frozenset"),
        (list[dict[tuple[int, ...], str]], "tuple"),
        (Mapping[tuple[str, str], int], "tuple"),
        (dict[str, dict[bool, int]], "bool"),
    ],
    ids=repr,
)
def test_a_dict_with_keys_that_json_has_not_is_refused_where_it_is_declared(hint: Any, key: str) -> None:
    def put(value: Any) -> None: ...

    put.__annotations__["value"] = hint
    problem = f"the keys of its dict are of the type `{key}`. Use texts, numbers or dates as keys, or a list of pairs"
    with pytest.raises(ToolDefinitionError) as raised:
        signature_of(put)
    assert str(raised.value).startswith("parameter `value` of `put` cannot be read from JSON")
    assert str(raised.value).endswith(problem)
    with pytest.raises(ToolDefinitionError, match="the output type cannot be read from JSON"):
        output_type(hint)


def test_a_dict_with_odd_keys_in_a_class_is_refused_as_well() -> None:
    @attrs.frozen
    class Table:
        cells: dict[tuple[int, int], str]

    with pytest.raises(ToolDefinitionError, match="of the type `tuple`"):
        output_type(Table)


@pytest.mark.parametrize(
    "hint", [dict, dict[str, int], dict[int, str], dict[Size, int], dict[Literal["a"], int]], ids=repr
)
def test_a_dict_with_keys_that_json_has_is_taken(hint: Any) -> None:
    assert output_type(hint).schema is not None


@pytest.mark.skipif(sys.version_info < (3, 12), reason="such aliases came with Python 3.12")
def test_an_alias_that_contains_itself_is_refused_in_a_sentence() -> None:
    scope: dict[str, Any] = {}
    exec(
        "type Json = dict[str, Json] | list[Json] | str | None\ntype A = list[B]\ntype B = list[A] | int\n"
        "type City = str\ntype Cities = list[City]",
        scope,
    )
    for name in ("Json", "A"):
        alias = scope[name]
        for hint in (alias, Annotated[alias, "it"]):
            with pytest.raises(ToolDefinitionError, match=r"an alias in its type contains itself. Use `typing.Any`"):
                output_type(hint)
    assert output_type(scope["Cities"]).decode('["Porto"]') == ["Porto"]


def test_a_class_that_contains_itself_is_taken() -> None:
    assert output_type(Node).decode('{"name": "a", "inside": [{"name": "b"}]}') == Node("a", [Node("b")])


@dataclass
class Node:
    name: Annotated[str, "what it is called"]
    inside: list[Node] | None = None


# --------------------------------------------------------------------- words of annotations


class Doc:
    """As in PEP 727."""

    def __init__(self, documentation: str) -> None:
        self.documentation = documentation


@attrs.frozen
class Place:
    city: Annotated[str, "its name"]
    node: Annotated[Node, Doc("what is there")]
    size: Annotated[int, msgspec.Meta(ge=1), "in km"] = 1
    plain: int = 0


class Renamed(msgspec.Struct, rename="camel"):
    some_count: Annotated[int, "how many"]


class Keys(TypedDict):
    first: Annotated[int, "the first"]


def described(
    count: Annotated[int, "the count"],
    several: list[Annotated[str, "each of them"]],
    place: Place,
    renamed: Renamed,
    keys: Keys,
    meta: Annotated[int, "loses", msgspec.Meta(description="wins")] = 1,
    other: Annotated[int, 7, object()] = 1,
) -> None:
    """Take what is described.

    Args:
      count: what the docstring says.
      other: the other one.
    """


def test_the_words_of_an_annotation_describe_the_argument() -> None:
    schema = signature_of(described).schema
    properties, definitions = schema["properties"], schema["$defs"]
    assert properties["count"] == {"type": "integer", "description": "the count"}
    assert properties["several"]["items"] == {"type": "string", "description": "each of them"}
    assert properties["meta"]["description"] == "wins"
    assert properties["other"]["description"] == "the other one."
    place = definitions["Place"]["properties"]
    assert place["city"] == {"type": "string", "description": "its name"}
    assert place["node"] == {"$ref": "#/$defs/Node", "description": "what is there"}
    assert place["size"]["description"] == "in km"
    assert "description" not in place["plain"]
    assert definitions["Renamed"]["properties"]["someCount"]["description"] == "how many"
    assert definitions["Keys"]["properties"]["first"]["description"] == "the first"
    assert definitions["Node"]["properties"]["name"]["description"] == "what it is called"


def test_the_words_of_an_annotation_describe_outputs_and_fields_of_forms() -> None:
    assert output_type(Keys).schema == {
        "type": "object",
        "properties": {"first": {"type": "integer", "description": "the first"}},
        "required": ["first"],
    }
    assert form_of(Keys)["properties"]["first"]["description"] == "the first"
    schema = output_type(Annotated[int, "the answer"]).schema
    assert schema is not None
    assert schema["properties"]["value"]["description"] == "the answer"
