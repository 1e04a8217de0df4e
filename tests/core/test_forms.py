"""Forms: what may be asked, and what may be answered."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NewType, NotRequired, TypedDict, TypeVar

import attrs
import msgspec
import pytest
from hypothesis import given, strategies as st
from msgspec import Meta

from agentloop._core.forms import check_form, fill, form_of
from agentloop.errors import ToolDefinitionError

T = TypeVar("T")
Count = NewType("Count", int)


class Size(enum.Enum):
    SMALL = "small"
    BIG = "big"


class Number(enum.Enum):
    ONE = 1


@attrs.frozen
class Order:
    item: Annotated[str, Meta(min_length=2, max_length=20, title="Item", description="What to buy")]
    size: Size
    count: Annotated[int, Meta(ge=1, le=9)] = 1
    above: Annotated[Count, Meta(gt=0, lt=10)] | None = None
    price: Annotated[float, Meta(ge=0.5)] = 9.5
    gift: bool = False
    speed: Literal["slow", "fast", "asap"] = "fast"
    extras: Annotated[list[Literal["ribbon", "card"]], Meta(max_length=2)] = attrs.field(factory=list)
    sizes: frozenset[Size] = frozenset()
    day: date = date(2026, 1, 31)
    at: datetime | None = None
    code: Annotated[str, Meta(pattern="^[A-Z]+$")] | None = None
    mail: Annotated[str, Meta(extra_json_schema={"format": "email"})] = "shop@a.example"


ORDER = {
    "type": "object",
    "properties": {
        "item": {
            "type": "string",
            "minLength": 2,
            "maxLength": 20,
            "title": "Item",
            "description": "What to buy",
        },
        "size": {"type": "string", "enum": ["small", "big"]},
        "count": {"type": "integer", "minimum": 1, "maximum": 9, "default": 1},
        "above": {"type": "integer", "minimum": 1, "maximum": 9},
        "price": {"type": "number", "minimum": 0.5, "default": 9.5},
        "gift": {"type": "boolean", "default": False},
        "speed": {"type": "string", "enum": ["slow", "fast", "asap"], "default": "fast"},
        "extras": {"type": "array", "items": {"type": "string", "enum": ["ribbon", "card"]}, "maxItems": 2},
        "sizes": {"type": "array", "items": {"type": "string", "enum": ["small", "big"]}, "default": []},
        "day": {"type": "string", "format": "date", "default": "2026-01-31"},
        "at": {"type": "string", "format": "date-time"},
        "code": {"type": "string", "pattern": "^[A-Z]+$"},
        "mail": {"type": "string", "format": "email", "default": "shop@a.example"},
    },
    "required": ["item", "size"],
}


def form(*, required: tuple[str, ...] = (), **properties: object) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required)}


# -------------------------------------------------------------------------- a class as a form


def test_a_class_becomes_a_form() -> None:
    assert form_of(Order) == ORDER


def test_a_filled_in_form_becomes_the_class() -> None:
    content = fill(form_of(Order), {"item": "tea", "size": "big", "at": "2026-01-31T09:30:00Z"})

    assert msgspec.convert(content, Order) == Order("tea", Size.BIG, at=datetime(2026, 1, 31, 9, 30, tzinfo=UTC))


class Dict(TypedDict):
    name: str
    nick: NotRequired[str | None]


@dataclass
class Data:
    name: str
    nick: str | None = None


class Record(msgspec.Struct):
    name: str
    nick: str | msgspec.UnsetType | None = msgspec.UNSET


class Renamed(msgspec.Struct, rename="camel"):
    full_name: Literal["b", "a"]


class Holder(msgspec.Struct, Generic[T]):
    name: T


@pytest.mark.parametrize("type_", [Dict, Data, Record])
def test_typed_dicts_dataclasses_and_structs_are_classes_too(type_: type) -> None:
    assert form_of(type_) == form(required=("name",), name={"type": "string"}, nick={"type": "string"})


def test_a_field_goes_by_its_name_in_json() -> None:
    assert form_of(Renamed) == form(required=("fullName",), fullName={"type": "string", "enum": ["b", "a"]})


def test_a_generic_class_is_filled_with_its_type() -> None:
    assert form_of(Holder[bool]) == form(required=("name",), name={"type": "boolean"})


@pytest.mark.parametrize(
    "annotation",
    [
        Order,
        list[str],
        dict[str, str],
        str | int,
        Literal[1, 2],
        Number,
        list[Number],
        time,
        Decimal,
        bytes,
        Any,
        Annotated[float, Meta(gt=0)],
        Annotated[int, Meta(multiple_of=2)],
        Annotated[datetime, Meta(tz=False)],
        Annotated[list[str], Meta(min_length=1)],
        None,
    ],
    ids=repr,
)
def test_a_field_that_no_form_has_is_named(annotation: Any) -> None:
    type_ = msgspec.defstruct("Asked", [("it", annotation)])

    with pytest.raises(ToolDefinitionError, match="field `it` of the form `Asked` is not for a form: a form is flat"):
        form_of(type_)


@pytest.mark.parametrize("annotation", [str | None, Annotated[Size | None, Meta(title="Size")]], ids=repr)
def test_a_field_that_may_be_none_has_a_default(annotation: Any) -> None:
    with pytest.raises(ToolDefinitionError, match="field `it` of the form `Asked` may be None: let that be its"):
        form_of(msgspec.defstruct("Asked", [("it", annotation)]))


@pytest.mark.parametrize("type_", [int, list[Data], dict[str, str], Data | None], ids=repr)
def test_a_form_is_a_class_with_fields(type_: Any) -> None:
    with pytest.raises(
        ToolDefinitionError, match="is not an attrs class, dataclass, TypedDict, Struct or pydantic model"
    ):
        form_of(type_)


def test_a_field_without_a_json_form_is_refused() -> None:
    with pytest.raises(ToolDefinitionError, match="the form `Asked` cannot be read from JSON: `complex`"):
        form_of(msgspec.defstruct("Asked", [("it", complex)]))


def test_a_default_that_does_not_fit_is_refused() -> None:
    type_ = msgspec.defstruct("Asked", [("it", Annotated[int, Meta(ge=1)], 0)])

    with pytest.raises(
        ToolDefinitionError, match="field `it` of the form has the default 0, but expects an integer >= 1"
    ):
        form_of(type_)


TYPES = st.sampled_from(
    [str, int, float, bool, date, Size, Literal["a", "b"], list[Size], str | None, Annotated[str, Meta(min_length=1)]]
)


@given(st.dictionaries(st.from_regex("[a-z]{1,5}_", fullmatch=True), TYPES, max_size=5))
def test_the_form_of_a_class_is_a_form(fields: dict[str, Any]) -> None:
    type_ = msgspec.defstruct("Asked", [(name, type_, msgspec.UNSET) for name, type_ in fields.items()])

    form = form_of(type_)

    check_form(form)
    assert list(form["properties"]) == list(fields)
    assert fill(form, {}) == {}


@given(
    st.builds(
        Order,
        item=st.text(st.characters(codec="utf-8"), min_size=2, max_size=20),
        size=st.sampled_from(Size),
        count=st.integers(1, 9),
        above=st.none() | st.integers(1, 9),
        price=st.floats(0.5, allow_infinity=False),
        extras=st.lists(st.sampled_from(["ribbon", "card"]), max_size=2),
        sizes=st.frozensets(st.sampled_from(Size)),
        at=st.none() | st.datetimes(timezones=st.just(UTC)),
        code=st.none() | st.from_regex("^[A-Z]+$", fullmatch=True),
    )
)
def test_every_instance_of_a_class_fits_its_form(order: Order) -> None:
    content = fill(ORDER, msgspec.to_builtins(order))

    assert msgspec.convert(content, Order) == order


# ----------------------------------------------------------------------------- what is a form


SINGLE = {"type": "string", "enum": ["a", "b"]}
TITLED = {"type": "string", "oneOf": [{"const": "a", "title": "A"}, {"const": "b", "title": "B"}]}
LEGACY = {"type": "string", "enum": ["a", "b"], "enumNames": ["A", "B"]}
SEVERAL = {"type": "array", "items": SINGLE}
SEVERAL_TITLED = {"type": "array", "items": {"anyOf": TITLED["oneOf"]}}
CHOICES = [SINGLE, TITLED, LEGACY, {"enum": ["a", "b"]}, {"anyOf": [{"type": "null"}, SINGLE]}]


@pytest.mark.parametrize(
    "declared",
    [
        {"type": "string", "title": "T", "description": "D", "format": "email", "default": "a@b.example"},
        {"type": "string", "format": "unheard-of"},
        {"type": "string", "pattern": "("},
        {"type": "number", "minimum": 0, "maximum": 1.5, "default": 1},
        {"type": ["integer", "null"], "default": None},
        {"type": "boolean", "default": True},
        {**SEVERAL_TITLED, "minItems": 1, "maxItems": 2, "default": ["a"]},
        *CHOICES,
        SEVERAL,
    ],
    ids=repr,
)
def test_what_mcp_has_in_its_forms_is_accepted(declared: object) -> None:
    check_form(form(it=declared) | {"$schema": "https://json-schema.org/draft/2020-12/schema"})


def test_a_form_may_have_no_fields() -> None:
    check_form({"type": "object"})

    assert fill({"type": "object"}, {}) == {}


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "string"},
        {"type": "object", "properties": []},
        {"type": "object", "required": "it"},
        {"type": "object", "properties": {"it": True}},
    ],
    ids=repr,
)
def test_what_is_no_form_at_all_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(ToolDefinitionError, match="the form"):
        check_form(schema)


@pytest.mark.parametrize(
    ("declared", "problem"),
    [
        ({}, "has no type; a form is flat"),
        ({"type": "object", "properties": {}}, ": Invalid enum value 'object'"),
        ({"anyOf": [{"type": "string"}, {"type": "integer"}]}, "has no type"),
        ({"$ref": "#/$defs/Size"}, "has no type"),
        ({"type": "array", "items": {"type": "string"}}, "is a list, but not one of choices"),
        ({"type": "array"}, "is a list, but not one of choices"),
        ({"type": "integer", "enum": ["1"]}, "is a choice, and choices are texts"),
        ({"enum": [1, 2]}, ": Expected `str`, got `int`"),
        ({"enum": []}, "leaves nothing to choose"),
        ({"type": "string", "minLength": "1"}, ": Expected `int`, got `str`"),
        ({"type": "boolean", "default": "no"}, "has the default 'no', but expects true or false"),
        ({"type": "string", "maxLength": 3, "default": "long"}, "but expects a text of 0 to 3 characters"),
    ],
    ids=repr,
)
def test_a_field_that_is_not_flat_is_named(declared: object, problem: str) -> None:
    with pytest.raises(ToolDefinitionError) as caught:
        check_form(form(it=declared))

    assert str(caught.value).startswith("field `it` of the form")
    assert problem in str(caught.value)


def test_a_form_cannot_require_what_it_does_not_have() -> None:
    with pytest.raises(ToolDefinitionError, match="requires `b`, which is not one of its fields"):
        check_form(form(required=("b",), a={"type": "string"}))


# ---------------------------------------------------------------------------- filling it in


def test_what_is_left_out_gets_its_default() -> None:
    schema = form(a={"type": "integer", "default": 0}, b={"type": "boolean", "default": False}, c={"type": "string"})

    assert fill(schema, {}) == {"a": 0, "b": False}
    assert fill(schema, {"a": 1, "c": ""}) == {"a": 1, "b": False, "c": ""}


def test_a_default_will_do_for_a_required_field() -> None:
    assert fill(form(required=("a",), a={"type": "integer", "default": 0}), {}) == {"a": 0}


def test_a_default_is_not_handed_out_to_be_changed() -> None:
    schema = form(a={**SEVERAL, "default": ["a"]})

    fill(schema, {})["a"].append("b")

    assert fill(schema, {}) == {"a": ["a"]}


def test_null_is_as_good_as_left_out() -> None:
    schema = form(a={"type": "integer", "default": 0}, b={"anyOf": [{"type": "string"}, {"type": "null"}]})

    assert fill(schema, {"a": None, "b": None}) == {"a": 0}


def test_the_values_come_in_the_order_of_the_form() -> None:
    schema = form(a={"type": "integer"}, b={"type": "integer"})

    assert list(fill(schema, {"b": 1, "a": 2})) == ["a", "b"]


def test_a_whole_number_is_an_integer_however_it_is_written() -> None:
    filled = fill(form(a={"type": "integer"}, b={"type": "number"}), {"a": 3.0, "b": 3})

    assert filled == {"a": 3, "b": 3}
    assert type(filled["a"]) is int


def test_all_problems_are_reported_at_once() -> None:
    schema = form(required=("name", "age"), name={"type": "string"}, age={"type": "integer", "minimum": 0})

    with pytest.raises(ValueError, match=r"^") as caught:
        fill(schema, {"age": -3, "town": "Porto"})

    assert str(caught.value) == (
        "`name`: missing; `age`: expected an integer >= 0, got -3; `town`: not a field of this form"
    )


@pytest.mark.parametrize("declared", CHOICES, ids=repr)
def test_one_of_several_is_chosen(declared: object) -> None:
    assert fill(form(it=declared), {"it": "b"}) == {"it": "b"}
    with pytest.raises(ValueError, match=r"`it`: expected one of 'a', 'b', got 'c'"):
        fill(form(it=declared), {"it": "c"})


@pytest.mark.parametrize("declared", [SEVERAL, SEVERAL_TITLED], ids=repr)
def test_several_of_several_are_chosen(declared: dict[str, Any]) -> None:
    schema = form(it=declared | {"minItems": 1, "maxItems": 2})

    assert fill(schema, {"it": ["b", "a"]}) == {"it": ["b", "a"]}
    for wrong in ([], ["a", "b", "a"], ["c"], "a", [["a"]]):
        with pytest.raises(ValueError, match=r"`it`: expected a list of 1 to 2 items, each one of 'a', 'b', got"):
            fill(schema, {"it": wrong})


@pytest.mark.parametrize(
    ("declared", "right", "wrong", "expected"),
    [
        ({"type": "boolean"}, [True, False], [0, "true"], "true or false"),
        ({"type": "integer"}, [0, -(2**70), 2.0], [True, 1.5, "1", float("inf")], "an integer"),
        ({"type": "number"}, [0, 1.5], [False, "1", float("nan"), float("inf")], "a number"),
        ({"type": "number", "minimum": 0, "maximum": 1.5}, [0, 1.5], [-1, 2], "a number >= 0 and <= 1.5"),
        ({"type": "integer", "maximum": 5}, [5], [6], "an integer <= 5"),
        ({"type": "string"}, ["", "x"], [1, ["x"], b"x"], "a text"),
        ({"type": "string", "minLength": 2}, ["ab"], ["a"], "a text of at least 2 characters"),
        ({"type": "string", "minLength": 2, "maxLength": 3}, ["abc"], ["abcd"], "a text of 2 to 3 characters"),
        ({"type": "string", "format": "email"}, ["a@b", "a.b@c.example"], ["a", "a@b@c", "a @b"], "an e-mail address"),
        ({"type": "string", "format": "uri"}, ["https://a.example", "urn:x:y"], ["a.example", "a b:c"], "a URI"),
        (
            {"type": "string", "format": "date"},
            ["2026-01-31"],
            ["2026-02-30", "31.1.2026"],
            "a date such as 2026-01-31",
        ),
        (
            {"type": "string", "format": "date-time"},
            ["2026-01-31T09:30:00Z", "2026-01-31T09:30:00.5+01:00"],
            ["2026-01-31", "2026-01-31T09:30:00"],
            "a time such as 2026-01-31T09:30:00Z",
        ),
        ({"type": "string", "format": "date", "minLength": 99}, [], ["2026-01-31"], "a date such as 2026-01-31 of"),
        ({"type": "string", "pattern": "^(a+)+$"}, ["a" * 50 + "b"], [1], "a text"),
        ({"type": "string"}, ["x"], [{"x": "y" * 100}], r"a text, got \{'x': '" + "y" * 50 + r"\.\.\.$"),
    ],
    ids=repr,
)
def test_a_value_fits_its_field_or_the_error_says_how_it_would(
    declared: object, right: list[object], wrong: list[object], expected: str
) -> None:
    for value in right:
        assert fill(form(it=declared), {"it": value}) == {"it": value}
    for value in wrong:
        with pytest.raises(ValueError, match=f"^`it`: expected {expected}"):
            fill(form(it=declared), {"it": value})


@pytest.mark.parametrize(
    "field",
    [
        {"type": "string", "format": "email", "default": ""},
        {"type": "string", "enum": ["a"], "default": ""},
        {"type": "string", "minLength": 1, "default": ""},
        {"type": "integer", "default": ""},
        {"type": "array", "items": {"enum": ["a"]}, "minItems": 1, "default": []},
    ],
)
def test_an_empty_default_that_does_not_fit_counts_as_none(field: dict[str, Any]) -> None:
    form = {"type": "object", "properties": {"a": field}}
    check_form(form)
    assert fill(form, {}) == {}
    with pytest.raises(ValueError, match="`a`: missing"):
        fill({**form, "required": ["a"]}, {})


def test_an_empty_text_where_none_fits_counts_as_left_out() -> None:
    form = {"type": "object", "properties": {"day": {"type": "string", "format": "date"}}}
    assert fill(form, {"day": ""}) == {}
    with pytest.raises(ValueError, match="`day`: missing"):
        fill({**form, "required": ["day"]}, {"day": ""})
