"""Signatures and types as JSON Schema, and JSON as arguments and outputs."""

from __future__ import annotations

import enum
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field as dataclass_field
from datetime import UTC, date, datetime
from types import MappingProxyType
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypedDict, TypeVar

import attrs
import msgspec
import pytest
from hypothesis import given, strategies as st
from msgspec import Meta

from agentloop._core.results import to_text
from agentloop._core.signature import Signature, context_parameter, signature_of
from agentloop._core.structured_output import OutputFormatError, output_type, schema_of
from agentloop.errors import ArgumentsError, ToolDefinitionError

T = TypeVar("T")


class Size(enum.Enum):
    """How big."""

    SMALL = "small"
    BIG = "big"


@attrs.frozen
class Address:
    street: Annotated[str, Meta(description="Street and number", min_length=1)]
    zip: str | None = None


@dataclass
class Person:
    name: str
    address: Address | None = None
    born: date | None = None
    tags: list[str] = dataclass_field(default_factory=list)


class Job(TypedDict, total=False):
    title: str
    level: int


@attrs.frozen
class Node:
    value: int
    next: Node | None = None


@attrs.frozen
class Even:
    number: int = attrs.field(validator=attrs.validators.instance_of(int))

    @number.validator
    def _is_even(self, attribute: object, value: int) -> None:
        if value % 2:
            raise ValueError(f"{value} is odd")


@attrs.frozen
class Titled:
    title: str
    enum: Literal["b", "a"] = "a"


class Empty(msgspec.Struct):
    pass


class Context(Generic[T]):
    pass


class SpecialContext(Context[int]):
    pass


def taking(*annotations: object, default: object = inspect.Parameter.empty) -> Callable[..., None]:
    """A function whose parameters ``a``, ``b``... are annotated with exactly these."""

    def sample() -> None: ...

    sample.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
            for name, annotation in zip("abcdef", annotations, strict=False)
        ]
    )
    return sample


def order(
    item: str,
    count: Annotated[int, Meta(ge=1, le=99, description="How many, at most 99")] = 1,
    to: Address | None = None,
    sizes: list[Size] = [Size.BIG],  # noqa: B006
    speed: Literal["fast", "slow"] = "slow",
    when: datetime | None = None,
    *,
    title: str = "order",
) -> str:
    """Order something.

    Args:
      item: what to buy.
      count: not said, as the annotation says it.
      to: where to.
      nothing: is not a parameter.
    """
    return ""


# ------------------------------------------------------------------- the schema of a function


def test_the_schema_says_what_a_call_needs() -> None:
    assert signature_of(order).schema == {
        "type": "object",
        "properties": {
            "item": {"type": "string", "description": "what to buy."},
            "count": {
                "type": "integer",
                "minimum": 1,
                "maximum": 99,
                "default": 1,
                "description": "How many, at most 99",
            },
            "to": {"anyOf": [{"$ref": "#/$defs/Address"}, {"type": "null"}], "description": "where to."},
            "sizes": {"type": "array", "items": {"$ref": "#/$defs/Size"}, "default": ["big"]},
            "speed": {"type": "string", "enum": ["fast", "slow"], "default": "slow"},
            "when": {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]},
            "title": {"type": "string", "default": "order"},
        },
        "required": ["item"],
        "additionalProperties": False,
        "$defs": {
            "Address": {
                "type": "object",
                "properties": {
                    "street": {"type": "string", "minLength": 1, "description": "Street and number"},
                    "zip": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
                },
                "required": ["street"],
            },
            "Size": {"type": "string", "enum": ["big", "small"], "description": "How big."},
        },
    }


def test_a_function_without_parameters_wants_an_empty_object() -> None:
    assert signature_of(taking()).schema == {"type": "object", "properties": {}, "additionalProperties": False}


def test_a_parameter_may_have_the_name_of_a_word_of_json_schema() -> None:
    def odd(title: str, enum: Literal["y", "x"], properties: Titled) -> None: ...

    schema = signature_of(odd).schema

    assert list(schema["properties"]) == ["title", "enum", "properties"]
    assert list(schema["$defs"]["Titled"]["properties"]) == ["title", "enum"]


def test_a_default_without_a_json_form_is_not_shown() -> None:
    signature = signature_of(taking(int, default=object()))

    assert signature.schema["properties"] == {"a": {"type": "integer"}}


def test_choices_that_are_not_texts_are_not_said_to_be() -> None:
    assert signature_of(taking(Literal[1, 2])).schema["properties"] == {"a": {"enum": [1, 2]}}


def test_every_list_has_items_and_every_tuple_has_its_own() -> None:
    assert signature_of(taking(list, tuple[int, str])).schema["properties"] == {
        "a": {"type": "array", "items": {}},
        "b": {
            "type": "array",
            "prefixItems": [{"type": "integer"}, {"type": "string"}],
            "items": False,
            "minItems": 2,
            "maxItems": 2,
        },
    }


def test_object_means_any_json_value() -> None:
    signature = signature_of(taking(object, dict[str, object], Sequence[object]))

    assert signature.schema["properties"] == {
        "a": {},
        "b": {"type": "object"},
        "c": {"type": "array", "items": {}},
    }


def test_skipped_parameters_are_not_the_models() -> None:
    def act(context: Context[int], x: int, *args: str, **kwargs: str) -> None: ...

    assert list(signature_of(act, skip=["context", "args", "kwargs"]).schema["properties"]) == ["x"]


def test_what_a_partial_has_bound_is_not_the_models() -> None:
    def post(url: str, text: str, secret: str = "") -> None:
        """Post.

        Args:
          text: what.
        """

    signature = signature_of(functools.partial(post, "https://a.example", secret="s"))

    assert signature.schema["properties"] == {"text": {"type": "string", "description": "what."}}


def test_a_wrapped_function_is_seen_through() -> None:
    @functools.wraps(order)
    def wrapper(*args: Any, **kwargs: Any) -> str:
        return order(*args, **kwargs)

    assert signature_of(wrapper).schema == signature_of(order).schema


class Greeter:
    def greet(self, name: Size) -> None:
        """Greet.

        Args:
          name: whom.
        """

    def __call__(self, name: Size) -> None:
        """Greet.

        Args:
          name: whom.
        """


@pytest.mark.parametrize("function", [Greeter().greet, Greeter(), functools.partial(Greeter())])
def test_methods_and_callable_objects_are_functions_too(function: Callable[..., Any]) -> None:
    assert signature_of(function).schema["properties"] == {"name": {"$ref": "#/$defs/Size", "description": "whom."}}


def test_a_class_is_called_with_what_its_init_takes() -> None:
    class Point:
        """A point.

        Args:
          x: how far.
        """

        def __init__(self, x: int) -> None: ...

    assert signature_of(Point).schema["properties"] == {"x": {"type": "integer", "description": "how far."}}


def test_names_of_an_enclosing_function_are_found_if_the_function_uses_them() -> None:
    class Local(msgspec.Struct):
        x: int

    def make(local: Local) -> Local:
        return Local(local.x)

    assert signature_of(make).decode('{"local": {"x": 1}}') == {"local": Local(1)}


def test_names_of_an_enclosing_function_may_be_given() -> None:
    class Local(msgspec.Struct):
        x: int

    def make(local: Local) -> None: ...

    assert signature_of(make, localns=locals()).decode('{"local": {"x": 1}}') == {"local": Local(1)}


def test_a_name_that_the_function_uses_may_get_its_value_later() -> None:
    def make(x: int) -> int:
        return x + later

    signature = signature_of(make)
    later = 1

    assert make(**signature.decode('{"x": 1}')) == 2


# ------------------------------------------------------------------- definitions that are wrong


def wrong(function: Callable[..., Any], **options: Any) -> str:
    with pytest.raises(ToolDefinitionError) as caught:
        signature_of(function, **options)
    return str(caught.value)


def test_a_parameter_needs_an_annotation() -> None:
    assert wrong(taking(inspect.Parameter.empty)) == (
        "parameter `a` of `sample` has no annotation: the model has to know what to send"
    )


def test_every_parameter_needs_a_name_to_be_called_by() -> None:
    def anything(**rest: int) -> None: ...
    def many(*rest: int) -> None: ...
    def places(x: int, /) -> None: ...

    assert "`rest` of `anything` may be any number" in wrong(anything)
    assert "`rest` of `many` may be any number" in wrong(many)
    assert "`x` of `places` is positional-only" in wrong(places, skip=["x"])


@pytest.mark.parametrize(
    "annotation",
    [complex, list[complex], Callable[[], int], complex | None, dict[str, type[int]]],
    ids=repr,
)
def test_a_type_without_a_json_form_is_refused(annotation: object) -> None:
    assert "parameter `a` of `sample` cannot be read from JSON: `" in wrong(taking(annotation))


@pytest.mark.parametrize("annotation", [5, str | bytes], ids=repr)
def test_a_type_that_json_cannot_tell_apart_is_refused(annotation: object) -> None:
    assert "parameter `a` of `sample` is of a type that cannot be read from JSON: " in wrong(taking(annotation))


def test_a_stranger_deep_inside_is_found() -> None:
    class Deep(msgspec.Struct):
        inner: dict[str, list[object]]

    assert "`object` says nothing about it. Use `typing.Any`" in wrong(taking(list[Deep]))


def test_a_name_that_cannot_be_found_is_named_with_the_way_out() -> None:
    def make(x: list[Missing]) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    text = wrong(make)

    assert "parameter `x` of `make`: `Missing`, in its annotation 'list[Missing]', cannot be found" in text
    assert "drop `from __future__ import annotations`" in text


def test_an_annotation_that_cannot_be_evaluated_is_quoted() -> None:
    assert "cannot evaluate its annotation 'msgspec.Missing'" in wrong(taking("msgspec.Missing"))
    assert "cannot evaluate its annotation 'not a type'" in wrong(taking("not a type"))


def test_a_bad_return_type_does_no_harm() -> None:
    def make(x: int) -> Missing: ...  # type: ignore[name-defined]  # noqa: F821

    assert signature_of(make).decode('{"x": 1}') == {"x": 1}


@attrs.frozen
class Broken:
    field: Missing  # type: ignore[name-defined]  # noqa: F821


def test_a_field_whose_type_cannot_be_found_is_said_so() -> None:
    text = wrong(taking(Broken))

    assert "name 'Missing' is not defined; what its fields name must be at the top of a module" in text


def test_a_function_without_a_signature_is_refused() -> None:
    assert "`dict` has no signature that Python can read" in wrong(dict)


# ------------------------------------------------------------------------------ the arguments


def refused(signature: Signature, raw: str | bytes) -> str:
    with pytest.raises(ArgumentsError) as caught:
        signature.decode(raw)
    return str(caught.value)


def test_arguments_are_converted_to_the_parameters_types() -> None:
    raw = """{
        "item": "tea", "count": 2, "to": {"street": "Main 1"}, "sizes": ["small"],
        "when": "2026-01-31T09:30:00Z"
    }"""

    assert signature_of(order).decode(raw) == {
        "item": "tea",
        "count": 2,
        "to": Address("Main 1"),
        "sizes": [Size.SMALL],
        "speed": "slow",
        "when": datetime(2026, 1, 31, 9, 30, tzinfo=UTC),
        "title": "order",
    }


def test_dataclasses_and_typed_dicts_are_types_too() -> None:
    signature = signature_of(taking(Person, Job, dict[str, int], int | str))

    arguments = signature.decode(
        b'{"a": {"name": "Ann", "born": "2000-01-31"}, "b": {"level": 3}, "c": {"x": 1}, "d": "y"}'
    )

    assert arguments == {"a": Person("Ann", born=date(2000, 1, 31)), "b": {"level": 3}, "c": {"x": 1}, "d": "y"}


def test_a_recursive_type_is_a_type_too() -> None:
    signature = signature_of(taking(Node))

    assert signature.schema["properties"]["a"] == {"$ref": "#/$defs/Node"}
    assert signature.decode('{"a": {"value": 1, "next": {"value": 2}}}') == {"a": Node(1, Node(2))}


def test_what_is_left_out_gets_the_functions_own_default() -> None:
    default: list[int] = []

    assert signature_of(taking(list[int], default=default)).decode("{}")["a"] is default


@pytest.mark.parametrize("raw", ["", "  \n", b"\t"])
def test_no_arguments_at_all_are_an_empty_object(raw: str | bytes) -> None:
    assert signature_of(taking()).decode(raw) == {}
    assert refused(signature_of(taking(int)), raw) == "invalid arguments: missing required field `a`"


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        ('{"a": 1,}', 'trailing comma in object (byte 8), near `{"a": 1,}`'),
        ('{"a": ', 'Input data was truncated, near `{"a": `'),
        ('{"a": 1} {"a": 2}', "trailing characters"),
        ("a is 1", "invalid character (byte 0), near `a is 1`"),
        ('{"a": 1, "b": "\ud800"}', "'utf-8' codec can't encode character"),
        ('{"a": 1, "b": ' + "[" * 100_000, "it is nested too deeply"),
    ],
)
def test_what_is_not_json_is_shown_where_it_is_not(raw: str | bytes, problem: str) -> None:
    text = refused(signature_of(taking(int, Any, default=0)), raw)

    assert text.startswith(f"the arguments are not JSON: {problem}")


def test_bytes_that_are_no_text_are_shown_as_what_they_are() -> None:
    text = refused(signature_of(taking(int, Any, default=0)), b'{"a": 1, "b": "\xff"}')

    # The words are Python's, or those of msgspec, from 0.23 on.
    assert text.startswith("the arguments are not JSON: ")
    assert "utf-8" in text.lower()


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        ("[1]", "expected `object`, got `array`"),
        ("null", "expected `object`, got `null`"),
        ('{"item": "x", "x": 1, "y": 2}', "unknown field `x`; the fields are `item`, `count`, `to`, `sizes`, "),
        ('{"count": 1}', "missing required field `item`"),
        ('{"item": 1}', "`item`: expected `str`, got `int`"),
        ('{"item": "x", "count": 0}', "`count`: expected `int` >= 1"),
        ('{"item": "x", "to": {}}', "`to`: missing required field `street`"),
        ('{"item": "x", "to": {"street": ""}}', "`to.street`: expected `str` of length >= 1"),
        (
            '{"item": "x", "sizes": ["small", "tiny"]}',
            "`sizes[1]`: invalid enum value 'tiny'; it is one of 'big', 'small'",
        ),
        ('{"item": "x", "when": "soon"}', "`when`: invalid RFC3339 encoded datetime"),
    ],
)
def test_what_does_not_fit_is_said_with_its_place(raw: str, problem: str) -> None:
    assert refused(signature_of(order), raw).startswith(f"invalid arguments: {problem}")


def test_a_function_without_parameters_has_no_fields_to_name() -> None:
    assert refused(signature_of(taking()), '{"x": 1}') == ("invalid arguments: unknown field `x`; there are no fields")


def test_a_validators_complaint_is_passed_on_and_no_more() -> None:
    signature = signature_of(taking(Even))

    assert refused(signature, '{"a": {"number": 3}}') == "invalid arguments: `a`: 3 is odd"


def test_a_validator_of_attrs_does_not_spill_its_innards() -> None:
    class Text(msgspec.Struct):
        def __post_init__(self) -> None:
            validate: Callable[..., None] = attrs.validators.instance_of(str)
            validate(self, attrs.fields(Address).zip, 1)

    assert refused(signature_of(taking(Text)), '{"a": {}}') == (
        "invalid arguments: `a`: 'zip' must be <class 'str'> (got 1 that is a <class 'int'>)."
    )


@given(
    st.fixed_dictionaries(
        {"item": st.text(st.characters(codec="utf-8"))},
        optional={
            "count": st.integers(1, 99),
            "to": st.none() | st.builds(Address, st.text(st.characters(codec="utf-8"), min_size=1)),
            "sizes": st.lists(st.sampled_from(Size)),
            "speed": st.sampled_from(["fast", "slow"]),
            "when": st.datetimes(timezones=st.just(UTC)),
        },
    )
)
def test_what_is_encoded_decodes_to_itself(arguments: dict[str, Any]) -> None:
    signature = signature_of(order)

    decoded = signature.decode(msgspec.json.encode(arguments))

    assert arguments.items() <= decoded.items()
    assert signature.convert(msgspec.to_builtins(arguments)) == decoded
    assert signature.convert(arguments) == decoded


def test_values_are_checked_like_text() -> None:
    signature = signature_of(taking(int, default=1))

    assert signature.convert(MappingProxyType({"a": 2})) == {"a": 2}
    with pytest.raises(ArgumentsError, match="invalid arguments: `a`: expected `int`, got `str`"):
        signature.convert({"a": "2"})
    with pytest.raises(ArgumentsError, match="unknown field `x`; the fields are `a`"):
        signature.convert({"x": 2})
    with pytest.raises(ArgumentsError, match="expected `str` - at `key`"):
        signature.convert({1: 2})  # type: ignore[dict-item]


# -------------------------------------------------------------------------------- the context


@pytest.mark.parametrize(
    "annotation",
    [
        Context,
        Context[int],
        SpecialContext,
        Context[int] | None,
        Annotated[Context[int], "for the tests"],
        "Context[Person]",
    ],
    ids=repr,
)
def test_the_context_is_found_by_its_type(annotation: object) -> None:
    assert context_parameter(taking(int, annotation), (Context,)) == "b"


@pytest.mark.parametrize(
    "annotation", [int, int | None, "Missing", inspect.Parameter.empty, list[Context[int]], 5], ids=repr
)
def test_other_parameters_are_no_context(annotation: object) -> None:
    assert context_parameter(taking(annotation), (Context,)) is None


def test_a_local_context_is_found_with_its_names() -> None:
    class Local(Context[int]):
        pass

    def act(it: Local) -> None: ...

    assert context_parameter(act, (Context,)) is None
    assert context_parameter(act, (Context,), localns={"Local": Local}) == "it"


def test_there_is_one_context_at_most() -> None:
    with pytest.raises(ToolDefinitionError, match="`sample` takes more than one context: `a`, `c`"):
        context_parameter(taking(Context, int, SpecialContext), (Context,))


# -------------------------------------------------------------------------- structured output


def test_an_object_is_its_own_schema() -> None:
    assert schema_of(Address) == {
        "type": "object",
        "properties": {
            "street": {"type": "string", "minLength": 1, "description": "Street and number"},
            "zip": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
        },
        "required": ["street"],
    }
    assert schema_of(Empty) == {"type": "object", "properties": {}}
    assert schema_of(dict[str, int]) == {"type": "object", "additionalProperties": {"type": "integer"}}


def test_a_type_that_refers_to_itself_stays_in_the_definitions() -> None:
    schema = schema_of(Node)

    assert schema["type"] == "object"
    assert schema["properties"]["next"]["anyOf"][0] == {"$ref": "#/$defs/Node"}
    assert list(schema["$defs"]) == ["Node"]


def test_a_description_of_the_whole_is_kept() -> None:
    assert schema_of(Annotated[Empty, Meta(description="Nothing.")])["description"] == "Nothing."


class Pair(NamedTuple):
    x: int
    y: int


@pytest.mark.parametrize(
    ("type_", "inner"),
    [
        (int, {"type": "integer"}),
        (list[str], {"type": "array", "items": {"type": "string"}}),
        (Literal["b", "a"], {"type": "string", "enum": ["a", "b"]}),
        (int | None, {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
        (Size, {"$ref": "#/$defs/Size"}),
        (Pair, {"$ref": "#/$defs/Pair"}),
        (list[Empty], {"type": "array", "items": {"$ref": "#/$defs/Empty"}}),
        (object, {}),
    ],
)
def test_what_is_no_object_is_wrapped_in_one(type_: Any, inner: dict[str, Any]) -> None:
    schema = schema_of(type_)
    schema.pop("$defs", None)

    assert schema == {
        "type": "object",
        "properties": {"value": inner},
        "required": ["value"],
        "additionalProperties": False,
    }


@pytest.mark.parametrize("make", [schema_of, output_type])
def test_an_output_without_a_json_form_is_refused(make: Callable[[Any], Any]) -> None:
    with pytest.raises(ToolDefinitionError, match="cannot be read from JSON: `complex`"):
        make(list[complex])


def test_text_is_its_own_output() -> None:
    output = output_type(str)

    assert output.schema is None
    assert output.decode(' {"value": 1} ') == ' {"value": 1} '


@pytest.mark.parametrize(
    ("type_", "name"),
    [
        (Person, "Person"),
        (int, "int"),
        (list[int], "output"),
        (int | None, "output"),
        (msgspec.defstruct("Größe", []), "Gr_e"),
    ],
)
def test_an_output_has_a_name_that_providers_accept(type_: Any, name: str) -> None:
    assert output_type(type_).name == name


def test_a_long_name_is_cut() -> None:
    assert len(output_type(msgspec.defstruct("A" * 100, [])).name) == 64


@pytest.mark.parametrize(
    "text",
    [
        '{"street": "Main 1"}',
        ' {"street": "Main 1"}\n',
        '```json\n{"street": "Main 1"}\n```',
        'Here you are:\n\n```\n{"street": "Main 1"}\n```\nIs that [what] you {want}?',
        'I [think] it is 5" wide: {"street": "Main 1"}, see [1, 2).',
        '```json\n{"street": "Main 1"}',
        '```python\naddress = 1\n```\nso: {"street": "Main 1"}',
        '{"street": "Main 1"} {not json}',
    ],
)
def test_the_one_json_value_in_a_text_is_the_output(text: str) -> None:
    assert output_type(Address).decode(text) == Address("Main 1")


DRAFT = 'A draft: {"street": "Side 2"}. No, it is another one.'


@pytest.mark.parametrize(
    "text",
    [
        f'<think>{DRAFT}</think>{{"street": "Main 1"}}',
        f'{DRAFT}\n</think>\n\n{{"street": "Main 1"}}',
        f'<THINKING>{DRAFT}</THINKING>\n```json\n{{"street": "Main 1"}}\n```',
        f'[THINK]{DRAFT}[/THINK]{{"street": "Main 1"}}',
        f'◁think▷{DRAFT}◁/think▷So: {{"street": "Main 1"}}',
        f'<think>{DRAFT}</think>Or: <think>{DRAFT}</think>{{"street": "Main 1"}}',
        f'<reasoning>\n{DRAFT}\n</reasoning>\n<answer>{{"street": "Main 1"}}</answer>',
    ],
)
def test_a_draft_among_the_thoughts_is_no_output(text: str) -> None:
    assert output_type(Address).decode(text) == Address("Main 1")


def test_thoughts_without_an_end_hold_no_output() -> None:
    assert malformed(Address, f"<think>{DRAFT}").startswith("the output is not JSON")


def test_tags_within_an_output_are_text() -> None:
    street = "<think>Main</think> 1"

    assert output_type(Address).decode(to_text(Address(street))) == Address(street)
    assert output_type(Address).decode(f"<think>{DRAFT}</think> So: {to_text(Address('<think> 1'))}") == Address(
        "<think> 1"
    )


def test_brackets_and_quotes_within_strings_are_text() -> None:
    street = 'a "}" [ \\ ``` b'

    assert output_type(Address).decode(f"So: {to_text(Address(street))}.") == Address(street)


def malformed(type_: Any, text: str) -> str:
    with pytest.raises(OutputFormatError) as caught:
        output_type(type_).decode(text)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is not JSON: Input data was truncated"),
        ("Main 1", "is not JSON: invalid character"),
        ('{"street": "Main 1"', 'is not JSON: Input data was truncated, near `{"street": "Main 1"`'),
        ('So: {"street": "Main 1",}!', "is not JSON: trailing comma in object"),
        ('So:\n```json\n{"street": oops}\n```', 'is not JSON: invalid character (byte 11), near `{"street": oops}'),
        ('[{"street": "Main 1"}, oops]', "is not JSON: invalid character"),
        ('{"street": "Main 1"}\n{"street": "Main 2"}', "holds 2 JSON values: give only the answer"),
        ("```\n1\n```\n```\n2\n```", "holds 2 JSON values"),
        ('{"town": "Porto"}', "does not fit: missing required field `street`"),
        ('{"street": "\ud800"}', "is not JSON: 'utf-8' codec can't encode"),
        ("[" * 100_000, "is not JSON: it is nested too deeply"),
    ],
)
def test_an_output_that_is_none_is_refused_with_its_problem(text: str, problem: str) -> None:
    assert malformed(Address, text).startswith(f"the output {problem}")


@pytest.mark.parametrize("text", ['{"value": [1, 2]}', "[1, 2]", 'So: {"value": [1, 2]}', "So: [1, 2]"])
def test_a_wrapped_output_may_come_bare(text: str) -> None:
    assert output_type(list[int]).decode(text) == [1, 2]


def test_a_wrapped_output_may_look_like_its_wrapper() -> None:
    class Holder(msgspec.Struct, forbid_unknown_fields=True):
        value: int

    output = output_type(Holder | None)

    assert output.decode('{"value": {"value": 1}}') == Holder(1)
    assert output.decode('{"value": 1}') == Holder(1)
    assert output.decode('{"value": null}') is None


def test_a_wrapped_output_that_does_not_fit_is_held_against_the_schema() -> None:
    assert malformed(int, '{"value": "x"}') == "the output does not fit: `value`: expected `int`, got `str`"
    assert malformed(Literal["a", "b"], '{"value": "c"}') == (
        "the output does not fit: `value`: invalid enum value 'c'; it is one of 'a', 'b'"
    )
    assert malformed(int, '{"answer": 1}') == "the output does not fit: unknown field `answer`"
    assert malformed(int, '"x"') == "the output does not fit: expected `object`, got `str`"


@given(st.text() | st.text('{}[]"\\,: 1`\n'))
def test_no_output_is_too_odd_to_be_refused(text: str) -> None:
    try:
        value = output_type(list[int]).decode(text)
    except OutputFormatError:
        return
    assert all(isinstance(item, int) for item in value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=5,
)


@given(st.lists(JSON), st.sampled_from(["{}", "So: {}!", "```json\n{}\n```", "```\n{}\n``` ok?"]))
def test_a_value_is_found_in_whatever_stands_around_it(value: list[object], around: str) -> None:
    assert output_type(list[object]).decode(around.replace("{}", to_text(value))) == value


def test_hostile_text_takes_no_long_time() -> None:
    for text in ["[" * 100_000, '{"' + '\\"' * 100_000, "```\n" * 3_000, "[}" * 50_000, '{"a\\']:
        assert malformed(Address, text)


# ------------------------------------------------------------------------ what a tool returned


class Word(enum.StrEnum):
    YES = "yes"


class Flag(enum.Enum):
    ON = 1


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("as is\n", "as is\n"),
        ("Größe", "Größe"),
        ("a\udcffb", "a?b"),
        (Word.YES, "yes"),
        (None, ""),
        (True, "true"),
        (2**70, "1180591620717411303424"),
        ([1, "x", None], '[1,"x",null]'),
        ({"a": {1: Size.BIG}}, '{"a":{"1":"big"}}'),
        (Person("Ann"), '{"name":"Ann","address":null,"born":null,"tags":[]}'),
        (Address("Main 1"), '{"street":"Main 1","zip":null}'),
        (datetime(2026, 1, 31, tzinfo=UTC), '"2026-01-31T00:00:00Z"'),
        (Flag.ON, "1"),
    ],
)
def test_what_a_tool_returned_is_text(value: object, text: str) -> None:
    assert to_text(value) == text
    assert type(to_text(value)) is str


def endless() -> Iterator[int]:
    yield 1


def circle() -> list[object]:
    items: list[object] = []
    items.append(items)
    return items


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (b"x", "a tool returned `bytes`, which is not text: decode it first"),
        (bytearray(b"x"), "a tool returned `bytearray`, which is not text"),
        (memoryview(b"x"), "a tool returned `memoryview`, which is not text"),
        (endless(), "a tool returned `generator` without a JSON form: Encoding objects of type generator"),
        ([complex(1)], "a tool returned `list` without a JSON form: Encoding objects of type complex"),
        (circle(), "a tool returned `list` without a JSON form: it nests too deeply, or contains itself"),
        (["\ud800"], "a tool returned `list` without a JSON form: 'utf-8' codec can't encode"),
    ],
)
def test_what_has_no_json_form_is_named(value: object, problem: str) -> None:
    with pytest.raises(TypeError) as caught:
        to_text(value)
    assert str(caught.value).startswith(problem)


@given(JSON.filter(lambda value: not isinstance(value, str) and value is not None))
def test_the_text_of_a_json_value_is_its_json(value: Mapping[str, object]) -> None:
    assert msgspec.json.decode(to_text(value)) == value
