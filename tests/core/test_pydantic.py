"""Types of pydantic, and unions of classes: their schemas, their values, and the words for what does not fit."""

from __future__ import annotations

import dataclasses
import enum
import subprocess
import sys
import typing
from collections.abc import Callable
from datetime import date
from typing import Annotated, Any, Generic, Literal, NamedTuple, NotRequired, TypeVar

import attrs
import msgspec
import pydantic
import pytest
from hypothesis import given, strategies as st
from pydantic import BaseModel, ConfigDict, Field, RootModel, SecretStr, computed_field, field_validator
from typing_extensions import TypedDict

from agentloop._core.forms import check_form, fill, form_of, read_form
from agentloop._core.results import to_text
from agentloop._core.signature import signature_of
from agentloop._core.structured_output import OutputFormatError, output_type
from agentloop.errors import ArgumentsError, ToolDefinitionError
from agentloop.providers._structured_output import anthropic_schema, openai_schema
from agentloop.providers._tool_schema import GEMINI, PLAIN, fit_schema, references

T = TypeVar("T")


class Street(BaseModel):
    name: str
    number: int = Field(ge=1, description="the house")


class Address(BaseModel):
    """Where somebody lives."""

    street: Street
    others: list[Street] = []
    note: str | None = None


class Person(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    given_name: str = Field(alias="givenName")
    born: date = date(2000, 1, 1)

    @field_validator("given_name")
    @classmethod
    def _is_a_name(cls, value: str) -> str:
        if not value.istitle():
            raise ValueError("a name begins with a capital letter")
        return value


class Tree(BaseModel):
    name: str
    children: list[Tree] = []


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"]
    tricks: list[str] = []


class Numbers(RootModel[list[int]]):
    pass


@pydantic.dataclasses.dataclass
class Point:
    x: int = Field(ge=0)
    y: int = 0


@attrs.frozen
class Circle:
    radius: float


@dataclasses.dataclass
class Square:
    side: float
    label: str = ""


class Line(msgspec.Struct):
    length: float


class Text(TypedDict):
    words: str


@attrs.frozen
class Visit:
    """A visit to an address."""

    address: Address
    days: int = 1
    shape: Circle | Square | None = None
    before: list[Visit] = attrs.field(factory=list["Visit"])


@dataclasses.dataclass
class Party:
    host: Person
    place: Point = dataclasses.field(default_factory=lambda: Point(1))
    guests: list[Person] = dataclasses.field(default_factory=list[Person])


class Booking(msgspec.Struct, rename="camel"):
    for_whom: Person
    at_place: Point | Address


class Trip(TypedDict):
    to: Address
    by: NotRequired[Cat | Dog]


class Pair(NamedTuple):
    home: Address
    point: Point = Point(3)


@attrs.frozen
class Box(Generic[T]):
    item: T
    boxes: list[Box[T]] = attrs.field(factory=list["Box[T]"])


class Travel(BaseModel):
    square: Square
    words: Text


A_CAT = Cat(kind="cat")
RUA = Street(name="Rua", number=5)


def decoded(type_: Any, text: str) -> Any:
    return output_type(type_).decode(text)


def problem(type_: Any, text: str) -> str:
    with pytest.raises(OutputFormatError) as caught:
        decoded(type_, text)
    return str(caught.value).removeprefix("the output does not fit: ")


def refusal(type_: Any) -> str:
    with pytest.raises(ToolDefinitionError) as caught:
        output_type(type_)
    return str(caught.value)


# ------------------------------------------------------------------------------------ values


@pytest.mark.parametrize(
    ("type_", "text", "value"),
    [
        (Address, '{"street": {"name": "Rua", "number": 5}}', Address(street=RUA)),
        (Person, '{"givenName": "Ada", "born": "1815-12-10"}', Person(givenName="Ada", born=date(1815, 12, 10))),
        (Tree, '{"name": "a", "children": [{"name": "b"}]}', Tree(name="a", children=[Tree(name="b")])),
        (list[Cat], '{"value": [{"kind": "cat"}]}', [Cat(kind="cat")]),
        (Cat | None, '{"value": null}', None),
        (dict[str, Cat], '{"tom": {"kind": "cat"}}', {"tom": Cat(kind="cat")}),
        (Numbers, "[1, 2]", Numbers([1, 2])),
        (Numbers, '{"value": [1, 2]}', Numbers([1, 2])),
        (Point, '{"x": 1}', Point(1)),
        (list[Point], "[]", []),
        (Annotated[Cat | Dog, Field(discriminator="kind")], '{"kind": "dog"}', Dog(kind="dog")),
        (Annotated[int, Field(gt=3)], '{"value": 4}', 4),
        (SecretStr, '{"value": "hush"}', SecretStr("hush")),
        (Travel, '{"square": {"side": 1}, "words": {"words": "a"}}', Travel(square=Square(1), words={"words": "a"})),
        (
            Visit,
            """{"address": {"street": {"name": "Rua", "number": 5}}, "days": 2.0, "shape": {"side": 2, "label": "a"},
            "before": [{"address": {"street": {"name": "Rua", "number": 5}}}]}""",
            Visit(Address(street=RUA), 2, Square(2, "a"), before=[Visit(Address(street=RUA))]),
        ),
        (Party, '{"host": {"givenName": "Ada"}}', Party(Person(givenName="Ada"))),
        (
            Booking,
            '{"forWhom": {"givenName": "Ada"}, "atPlace": {"x": 1}}',
            Booking(Person(givenName="Ada"), Point(1)),
        ),
        (
            Trip,
            '{"to": {"street": {"name": "Rua", "number": 5}}, "by": {"kind": "dog"}}',
            {"to": Address(street=RUA), "by": Dog(kind="dog")},
        ),
        (Pair, '[{"street": {"name": "Rua", "number": 5}}]', Pair(Address(street=RUA))),
        (Box[Cat], '{"item": {"kind": "cat"}, "boxes": [{"item": {"kind": "cat"}}]}', Box(A_CAT, [Box(A_CAT)])),
        (Box[Cat | Dog], '{"item": {"kind": "dog"}}', Box(Dog(kind="dog"))),
        (Trip, '{"to": {"street": {"name": "Rua", "number": 5}}}', {"to": Address(street=RUA)}),
    ],
    ids=str,
)
def test_a_value_is_read_as_its_type(type_: Any, text: str, value: object) -> None:
    read = decoded(type_, text)

    assert read == value
    assert type(read) is type(value)


def test_arguments_are_read_as_their_types() -> None:
    def visit(address: Address, shapes: list[Circle | Square], count: int = Field(3, ge=2), *, by: Dog | Cat) -> None:
        """Visit."""

    signature = signature_of(visit)
    text = '{"address": {"street": {"name": "Rua", "number": 5}}, "shapes": [{"side": 1}], "by": {"kind": "cat"}}'

    arguments = {
        "address": Address(street=RUA),
        "shapes": [Square(1)],
        "count": 3,
        "by": Cat(kind="cat"),
    }
    assert signature.decode(text) == arguments
    assert signature.convert(arguments) == arguments
    assert signature.schema["properties"]["count"] == {"default": 3, "minimum": 2, "type": "integer"}


def test_a_strict_model_takes_a_date_from_json() -> None:
    class Strict(BaseModel):
        model_config = ConfigDict(strict=True)
        day: date

    assert decoded(Strict, '{"day": "2026-01-31"}') == Strict(day=date(2026, 1, 31))


# -------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("type_", "text", "words"),
    [
        (Address, '{"street": {"name": 1}}', ["`street.name`: input should be a valid string", "`street.number`: "]),
        (Address, '{"street": {"name": "a", "number": 0}}', ["`street.number`: input should be greater than or equal"]),
        (Person, '{"givenName": "ada"}', ["`givenName`: a name begins with a capital letter"]),
        (list[Person], '[{"givenName": "ada"}]', ["`[0].givenName`: a name begins"]),
        (list[Person], '{"value": [{"givenName": "ada"}]}', ["`value[0].givenName`: a name begins"]),
        (Party, '{"host": {"givenName": "ada"}}', ["`host.givenName`: a name begins"]),
        (Party, '{"host": {"givenName": "Ada"}, "place": {"x": -1}}', ["`place.x`: input should be greater"]),
        (Visit, '{"address": {"street": {"name": "a"}}}', ["`address.street.number`: field required"]),
        (Booking, '{"forWhom": {"givenName": "Ada"}}', ["missing required field `atPlace`"]),
        (Point, '{"x": -1}', ["`x`: input should be greater than or equal to 0"]),
        (Cat | Dog, '{"kind": "cow"}', ["expected one of `Cat`, `Dog`: as `Cat`, `kind`: ", "; as `Dog`, `kind`: "]),
        (Circle | Line, '{"radius": "a"}', ["as `Circle`, `radius`: expected `float`", "as `Line`, missing required"]),
    ],
    ids=str,
)
def test_the_model_reads_which_field_is_wrong_and_why(type_: Any, text: str, words: list[str]) -> None:
    said = problem(type_, text)

    assert all(word in said for word in words), said


def test_the_words_about_a_wrong_value_do_not_repeat_it() -> None:
    class Login(BaseModel):
        password: SecretStr = Field(max_length=3)

    assert "hush-hush" not in problem(Login, '{"password": "hush-hush"}')


def test_a_validator_that_fails_is_said_to_have_failed() -> None:
    class Odd(BaseModel):
        name: str

        @field_validator("name")
        @classmethod
        def _fail(cls, value: str) -> str:
            raise KeyError("table")

    assert problem(list[Odd], '[{"name": "a"}]') == "`[0]`: its validator failed: KeyError: 'table'"


def test_of_many_problems_the_model_reads_ten() -> None:
    text = f'{{"name": "a", "children": [{",".join(["{}"] * 30)}]}}'

    assert problem(Tree, text).count("field required") == 10
    assert problem(Tree, text).endswith("and 20 more")


def test_arguments_that_do_not_fit_are_named() -> None:
    def visit(person: Person) -> None: ...

    with pytest.raises(ArgumentsError, match=r"invalid arguments: `person\.givenName`: a name begins"):
        signature_of(visit).decode('{"person": {"givenName": "ada"}}')


# ------------------------------------------------------------------------------------- schemas


ALL: list[Any] = [
    Address,
    Person,
    Tree,
    Cat | Dog,
    Circle | Square | Line | Text,
    Numbers,
    Point,
    Visit,
    Party,
    Booking,
    Trip,
    Travel,
    Annotated[Cat | Dog, Field(discriminator="kind")],
    list[Visit | Tree],
]


@pytest.mark.parametrize("type_", ALL, ids=str)
def test_every_reference_of_a_schema_leads_to_a_definition(type_: Any) -> None:
    schema = output_type(type_).schema
    assert schema is not None

    definitions = schema.get("$defs", {})
    assert schema["type"] == "object"
    assert {reference.removeprefix("#/$defs/") for reference in references(schema)} <= definitions.keys()
    assert not any("$defs" in definition for definition in definitions.values())


@pytest.mark.parametrize("type_", ALL, ids=str)
def test_every_provider_gets_a_schema_that_it_accepts(type_: Any) -> None:
    schema = output_type(type_).schema
    assert schema is not None

    strict = openai_schema(schema)
    assert strict is not None
    assert strict["required"] == list(strict["properties"])
    assert fit_schema(schema, PLAIN)["type"] == fit_schema(schema, GEMINI)["type"] == "object"
    # Visits and trees are recursive, which Anthropic's subset is not.
    assert (anthropic_schema(schema) is None) == (type_ in (Tree, Visit, list[Visit | Tree]))


def test_a_schema_has_the_words_of_the_user_and_none_that_pydantic_derives() -> None:
    class Town(BaseModel):
        """A town."""

        full_name: str = Field(description="with its county")
        size: int = Field(title="In people")

    assert output_type(Town).schema == {
        "type": "object",
        "description": "A town.",
        "properties": {
            "full_name": {"type": "string", "description": "with its county"},
            "size": {"type": "integer", "title": "In people"},
        },
        "required": ["full_name", "size"],
    }


def test_two_classes_of_one_name_have_two_definitions() -> None:
    def other() -> type[BaseModel]:
        class Street(BaseModel):
            lanes: int

        return Street

    def pair(a: Street, b: Any) -> None: ...

    pair.__annotations__["b"] = other()
    schema = signature_of(pair).schema

    a, b = (schema["properties"][name]["$ref"].rpartition("/")[2] for name in "ab")
    assert list(schema["$defs"][a]["properties"]) == ["name", "number"]
    assert list(schema["$defs"][b]["properties"]) == ["lanes"]


def test_a_description_beside_pydantic_reaches_the_model() -> None:
    def f(a: Annotated[str, Field(description="words")], b: Annotated[Address, "where"]) -> None: ...

    properties = signature_of(f).schema["properties"]

    assert properties["a"] == {"description": "words", "type": "string"}
    assert properties["b"]["description"] == "where"


# ---------------------------------------------------------------------------------------- unions


def test_the_first_alternative_that_fits_is_taken() -> None:
    @dataclasses.dataclass
    class Other:
        side: float

    assert decoded(Square | Other, '{"side": 1}') == Square(1)
    assert decoded(Other | Square, '{"side": 1}') == Other(1)


def test_an_alternative_that_knows_every_member_goes_before_one_that_would_drop_one() -> None:
    @attrs.frozen
    class Bare:
        side: float

    assert decoded(Bare | Square, '{"side": 1, "label": "a"}') == Square(1, "a")
    assert decoded(Bare | Circle, '{"side": 1, "label": "a"}') == Bare(1)


@pytest.mark.parametrize(
    ("type_", "text", "value"),
    [
        (Circle | Square | Line | Text | Address, '{"length": 2}', Line(2)),
        (Circle | Square | Line | Text | Address, '{"words": "a"}', {"words": "a"}),
        (Circle | Address | str, '{"value": "a"}', "a"),
        (list[Circle] | list[Line], '[{"length": 1}]', [Line(1)]),
        (list[Circle | Line], '[{"length": 1}, {"radius": 1}]', [Line(1), Circle(1)]),
        (Circle | Line | None, '{"value": null}', None),
    ],
    ids=str,
)
def test_alternatives_may_be_of_any_kind(type_: Any, text: str, value: object) -> None:
    assert decoded(type_, text) == value


@given(st.data())
def test_a_value_of_an_unambiguous_union_is_read_back_as_it_was(data: st.DataObject) -> None:
    number, words = st.floats(-100, 100), st.text(max_size=5)
    value: Any = data.draw(
        st.one_of(
            st.builds(Circle, number),
            st.builds(Square, number, words),
            st.builds(Line, number),
            st.builds(Cat, kind=st.just("cat"), lives=st.integers(0, 9)),
            st.fixed_dictionaries({"words": words}),
        )
    )

    assert UNION.decode(to_text(value)) == value


UNION = output_type(Circle | Square | Line | Cat | Text)


# ----------------------------------------------------------------------------------- properties


scalars: dict[Any, st.SearchStrategy[Any]] = {
    int: st.integers(-(2**53), 2**53),
    str: st.text(max_size=5),
    bool: st.booleans(),
    float: st.floats(-100, 100),
    date: st.dates(),
    Literal["a", "b"]: st.sampled_from(["a", "b"]),
}
WRONG: dict[Any, Any] = {int: "x", str: 1, bool: "x", float: "x", date: "x", Literal["a", "b"]: "c"}


@st.composite
def models(draw: st.DrawFn) -> tuple[type[BaseModel], dict[str, Any], list[tuple[str, Any]]]:
    """A model, the fields of a value of it, and the path of each field with a value that does not fit."""
    fields: dict[str, Any] = {}
    values: dict[str, Any] = {}
    wrong: list[tuple[str, Any]] = []
    for number in range(draw(st.integers(1, 4))):
        name = f"field_{number}"
        kind = draw(st.sampled_from(list(scalars)))
        fields[name] = (kind, ...)
        values[name] = draw(scalars[kind])
        wrong.append((name, WRONG[kind]))
    return pydantic.create_model("Drawn", **fields), values, wrong


@given(models(), st.data())
def test_any_value_of_any_model_is_read_back_and_any_wrong_field_is_named(
    drawn: tuple[type[BaseModel], dict[str, Any], list[tuple[str, Any]]], data: st.DataObject
) -> None:
    model, values, wrong = drawn
    value: Any = model(**values)
    assert decoded(model, to_text(value)) == value
    assert decoded(list[model], f'{{"value": [{to_text(value)}]}}') == [value]  # type: ignore[valid-type]

    name, misfit = data.draw(st.sampled_from(wrong))
    plain = msgspec.to_builtins(value.model_dump(mode="json")) | {name: misfit}
    assert f"`{name}`: " in problem(model, to_text(plain))
    assert f"`value[0].{name}`: " in problem(list[model], to_text({"value": [plain]}))  # type: ignore[valid-type]


# --------------------------------------------------------------------------------------- results


class Report(BaseModel):
    key: SecretStr
    side: float

    @computed_field
    def area(self) -> float:
        return self.side**2


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Report(key=SecretStr("hush"), side=2), '{"key":"**********","side":2.0,"area":4.0}'),
        ([Cat(kind="cat")], '[{"kind":"cat","lives":9}]'),
        ({"a": Point(1)}, '{"a":{"x":1,"y":0}}'),
        (Circle, None),
        (Visit(Address(street=RUA)), '{"address":{"street":{"name":"Rua","number":5},"others":[],"note"'),
        (SecretStr("hush"), "**********"),
    ],
    ids=str,
)
def test_a_result_is_written_by_pydantic(value: object, text: str | None) -> None:
    if text is None:
        with pytest.raises(TypeError, match="without a JSON form"):
            to_text(value)
    else:
        assert text in to_text(value)


# ----------------------------------------------------------------------------------------- forms


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Guest(BaseModel):
    name: str = Field(min_length=2, description="as on the passport")
    age: Annotated[int, Field(gt=0, le=120)] = 18
    colour: Colour = Colour.RED
    colours: list[Colour] = []
    day: date | None = None
    one: Literal["x"] = "x"

    @field_validator("name")
    @classmethod
    def _is_not_bob(cls, value: str) -> str:
        if value == "Bob":
            raise ValueError("Bob is not invited")
        return value


def test_a_model_is_a_form() -> None:
    form = form_of(Guest)

    check_form(form)
    assert form["required"] == ["name"]
    assert form["properties"]["name"] == {"type": "string", "minLength": 2, "description": "as on the passport"}
    assert (form["properties"]["age"]["minimum"], form["properties"]["age"]["maximum"]) == (1, 120)
    assert form["properties"]["colour"]["enum"] == ["red", "blue"]
    assert read_form(Guest, fill(form, {"name": "Ada", "colours": ["blue"]})) == Guest(
        name="Ada", colours=[Colour.BLUE]
    )


def test_a_validator_refuses_what_a_form_cannot() -> None:
    with pytest.raises(ValueError, match="`name`: Bob is not invited"):
        read_form(Guest, fill(form_of(Guest), {"name": "Bob"}))


@pytest.mark.parametrize("type_", [Address, Numbers, Visit, Cat | Dog])
def test_a_form_is_flat(type_: Any) -> None:
    with pytest.raises(ToolDefinitionError, match="form"):
        form_of(type_)


# ------------------------------------------------------------------------------------- refusals


def test_a_model_of_pydantic_1_is_refused_with_the_way_out() -> None:
    class Old:
        __fields__: typing.ClassVar[dict[str, Any]] = {}

        @classmethod
        def parse_obj(cls, value: object) -> Old:
            return cls()

    assert "`Old` is a model of pydantic 1. Derive it from the BaseModel of pydantic 2" in refusal(Old).replace(
        "test_a_model_of_pydantic_1_is_refused_with_the_way_out.<locals>.", ""
    )


def test_a_model_without_a_json_schema_is_refused_with_the_reason() -> None:
    class Called(BaseModel):
        call: Callable[[], int]

    class Holder(BaseModel):
        model_config = ConfigDict(arbitrary_types_allowed=True)
        line: Line

    assert "`Called` is a pydantic type, and pydantic can make no JSON Schema of it: Cannot generate" in refusal(Called)
    assert "`Holder` is a pydantic type, and pydantic can make no JSON Schema of it" in refusal(list[Holder])
    assert (
        "the output type cannot be read from JSON: it is annotated with objects of pydantic, and pydantic"
        in refusal(Annotated[Circle, Field(gt=1)])
    )
    assert "the output type: field `holder` of `Outer` cannot be read from JSON: `Holder`" in refusal(
        attrs.make_class("Outer", {"holder": attrs.field(type=Holder)})
    )


def test_a_type_without_a_json_form_beside_a_model_is_refused() -> None:
    assert "`complex` has no JSON form" in refusal(Circle | Line | complex)


def test_the_package_imports_no_pydantic() -> None:
    program = (
        "import sys, attrs, agentloop\n"
        "@attrs.frozen\nclass A:\n    x: int\n"
        "@attrs.frozen\nclass B:\n    y: int\n"
        "agentloop.tool(lambda: None, name='f', description='') if False else None\n"
        "agentloop.Agent(agentloop.testing.ScriptedModel('x') if False else 'openai:x', output_type=A | B)\n"
        "assert 'pydantic' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
