"""Forms: what a person is asked to fill in.

A form is JSON Schema as MCP restricts it for elicitation (2025-11-25): a flat object, whose properties are
texts, numbers, yes or no, and choices of one or of several texts.
"""

from __future__ import annotations

import math
import re
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import inspect

from agentloop._core.json_text import is_object
from agentloop._core.json_types import described_fields, inspect_type, lifted, mismatch
from agentloop._core.signature import field_types
from agentloop._core.type_hints import StandIn, read_as, spelled_out
from agentloop.errors import ToolDefinitionError

__all__ = ["check_form", "fill", "form_of", "read_form"]

T = TypeVar("T")

_FLAT = (
    "a form is flat: its fields are str, int, float, bool, date, datetime, or a Literal or Enum of texts or a "
    "list of such; numbers are bounded by ge and le"
)


# ----------------------------------------------------------------------------- reading a form


class _Option(msgspec.Struct):
    const: str


class _Items(msgspec.Struct, rename="camel"):
    enum: list[str] | None = None
    any_of: list[_Option] | None = None


class _Field(msgspec.Struct, rename="camel"):
    """A property of a form. Keywords that are not here, such as ``title``, are for the user interface."""

    # Nor is `pattern`: a form may come from a server, and a regular expression can take for ever.

    type: Literal["array", "boolean", "integer", "number", "string"] | None = None
    default: Any = None
    enum: list[str] | None = None
    one_of: list[_Option] | None = None
    items: _Items | None = None
    format: str | None = None
    min_length: int = 0
    max_length: int | None = None
    minimum: int | float = -math.inf
    maximum: int | float = math.inf
    min_items: int = 0
    max_items: int | None = None

    @property
    def choices(self) -> list[str] | None:
        """The choices; ``None`` if it is not a choice."""
        plain, titled = self.enum, self.one_of
        if self.type == "array":
            plain, titled = (self.items.enum, self.items.any_of) if self.items else (None, None)
        return plain if titled is None else [option.const for option in titled]


class _Form(msgspec.Struct):
    type: Literal["object"]
    properties: dict[str, Any] = {}
    required: list[str] = []


def check_form(schema: Mapping[str, Any]) -> None:
    """Make sure that ``schema`` is a form, with defaults that fit.

    ``T | None``, as some servers write it, counts as a ``T`` that may be left out. An empty default that does not fit,
    such as ``""`` for a date, counts as none.

    Raises:
      ToolDefinitionError: it is not. The message names the field.
    """
    fields, required = _read(schema)
    for name, field in fields.items():
        if flaw := _flaw(field):
            raise ToolDefinitionError(f"field `{name}` of the form {flaw}")
    for name in required:
        if name not in fields:
            raise ToolDefinitionError(f"the form requires `{name}`, which is not one of its fields")


def _read(schema: Mapping[str, Any]) -> tuple[dict[str, _Field], list[str]]:
    """The fields of a form, and the names of those that are required."""
    form = _converted(dict(schema), _Form, "the form")
    fields: dict[str, _Field] = {}
    for name, declared in form.properties.items():
        field = fields[name] = _converted(_without_null(declared), _Field, f"field `{name}` of the form")
        if field.default in ("", [], {}) and _flaw(field) is not None:
            field.default = None
    return fields, form.required


def _converted(value: object, type_: type[T], what: str) -> T:
    try:
        return msgspec.convert(value, type_)
    except msgspec.ValidationError as error:
        raise ToolDefinitionError(f"{what}: {error}; {_FLAT}") from error


def _without_null(declared: Any) -> Any:
    match declared:
        case {"anyOf": [{"type": "null"}, {} as plain] | [{} as plain, {"type": "null"}], **rest}:
            return {**rest, **plain}
        case {"type": ["null", plain] | [plain, "null"], **rest}:
            return {**rest, "type": plain}
        case _:
            return declared


def _flaw(field: _Field) -> str | None:
    choices = field.choices
    if choices is None and field.type is None:
        return f"has no type; {_FLAT}"
    if choices is None and field.type == "array":
        return "is a list, but not one of choices: `items` needs an `enum`"
    if choices is not None and field.type in ("boolean", "integer", "number"):
        return "is a choice, and choices are texts"
    if choices == []:
        return "leaves nothing to choose"
    if field.default is not None and not _fits(field, field.default):
        return f"has the default {_shown(field.default)}, but expects {_expected(field)}"
    return None


# ---------------------------------------------------------------------------- filling it in


def fill(schema: Mapping[str, Any], content: Mapping[str, Any]) -> dict[str, Any]:
    """What a person filled in, with the defaults of the fields left out.

    Args:
      schema: a form that has passed `check_form`.
      content: field name to JSON value; ``None`` is as good as left out, and so is ``""`` where it does not fit.

    Returns:
      The values in the order of the form. A field without value and default is not in it.

    Raises:
      ValueError: the content does not fit; the message names every field that is wrong, missing or unknown.
    """
    fields, required = _read(schema)
    filled: dict[str, Any] = {}
    problems: list[str] = []
    for name, field in fields.items():
        value = content.get(name)
        if value is None or (value == "" and not _fits(field, value)):
            value = field.default
        if value is None:
            if name in required:
                problems.append(f"`{name}`: missing")
        elif _fits(field, value):
            filled[name] = _own(field, value)
        else:
            problems.append(f"`{name}`: expected {_expected(field)}, got {_shown(value)}")
    problems += [f"`{name}`: not a field of this form" for name in content if name not in fields]
    if problems:
        raise ValueError("; ".join(problems))
    return filled


def _fits(field: _Field, value: object) -> bool:
    choices = field.choices
    if field.type == "boolean":
        return isinstance(value, bool)
    if field.type in ("integer", "number"):
        return _is_number(value, whole=field.type == "integer") and field.minimum <= value <= field.maximum
    if field.type == "array":
        return _is_list(value, choices or ()) and _is_within(len(value), field.min_items, field.max_items)
    if choices is not None:
        return value in choices
    _, has_format = _FORMATS.get(field.format or "", _ANY_TEXT)
    return isinstance(value, str) and _is_within(len(value), field.min_length, field.max_length) and has_format(value)


def _own(field: _Field, value: Any) -> Any:
    """A copy of the value: the asker must not get the very list that is the form's default."""
    convert: dict[str | None, Callable[[Any], Any]] = {"integer": int, "array": list}
    return convert.get(field.type, lambda same: same)(value)


def _is_number(value: object, *, whole: bool) -> typing.TypeGuard[int | float]:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    # JSON has one kind of number: 3.0 is an integer.
    return isinstance(value, int) or (math.isfinite(value) and (value.is_integer() or not whole))


def _is_list(value: object, choices: Sequence[str]) -> typing.TypeGuard[Sequence[str]]:
    if not isinstance(value, (list, tuple)):
        return False
    return all(item in choices for item in typing.cast("Sequence[object]", value))


def _is_within(size: int, least: int, most: int | None) -> bool:
    return least <= size and (most is None or size <= most)


def _expected(field: _Field) -> str:
    choices = ", ".join(repr(choice) for choice in field.choices or ())
    if field.type == "boolean":
        return "true or false"
    if field.type in ("integer", "number"):
        bounds = [
            f"{sign} {bound}" for sign, bound in ((">=", field.minimum), ("<=", field.maximum)) if math.isfinite(bound)
        ]
        return " ".join([f"a{'n' * (field.type == 'integer')} {field.type}", " and ".join(bounds)]).rstrip()
    if field.type == "array":
        return f"a list{_amount(field.min_items, field.max_items, 'items')}, each one of {choices}"
    if choices:
        return f"one of {choices}"
    name, _ = _FORMATS.get(field.format or "", _ANY_TEXT)
    return name + _amount(field.min_length, field.max_length, "characters")


def _amount(least: int, most: int | None, unit: str) -> str:
    if most is not None:
        return f" of {least} to {most} {unit}"
    return f" of at least {least} {unit}" if least else ""


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _reads_as(type_: Any) -> Callable[[str], bool]:
    def reads(text: str) -> bool:
        try:
            msgspec.convert(text, type_)
        except msgspec.ValidationError:
            return False
        return True

    return reads


_ANY_TEXT: tuple[str, Callable[[str], bool]] = ("a text", lambda _: True)

_FORMATS: dict[str, tuple[str, Callable[[str], bool]]] = {
    "email": ("an e-mail address", lambda text: re.fullmatch(r"[^@\s]+@[^@\s]+", text) is not None),
    "uri": ("a URI", lambda text: re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*:\S+", text) is not None),
    "date": ("a date such as 2026-01-31", _reads_as(date)),
    # RFC 3339, which JSON Schema means by it, wants an offset.
    "date-time": (
        "a time such as 2026-01-31T09:30:00Z",
        _reads_as(Annotated[datetime, msgspec.Meta(tz=True)]),
    ),
}


# -------------------------------------------------------------------------- a class as a form


def form_of(type_: Any, /) -> dict[str, Any]:
    """The form to fill in for an instance of ``type_``, which `read_form` makes of its content.

    Args:
      type_: an attrs class, a dataclass, a TypedDict, a Struct or a model of pydantic.

    Raises:
      ToolDefinitionError: it has a field that a form cannot have. The message names it.
    """
    what = f"the form `{getattr(type_, '__name__', type_)}`"
    hint = spelled_out(type_)
    info = inspect_type(hint, what)
    if isinstance(hint, StandIn):
        return _form_of_schema(lifted(hint), what)
    if not isinstance(info, (inspect.DataclassType, inspect.StructType, inspect.TypedDictType)):
        raise ToolDefinitionError(f"{what} is not an attrs class, dataclass, TypedDict, Struct or pydantic model")
    types, words = field_types(type_), described_fields(type_)
    form: dict[str, Any] = {"type": "object", "properties": {}, "required": []}
    for field in info.fields:
        declared = _property(field.type, [*_literals(types.get(field.name))])
        if declared is None:
            raise ToolDefinitionError(f"field `{field.name}` of {what} is not for a form: {_FLAT}")
        if field.required and _may_be_none(field.type):
            raise ToolDefinitionError(f"field `{field.name}` of {what} may be None: let that be its default")
        if field.default not in (msgspec.NODEFAULT, msgspec.UNSET, None):
            declared["default"] = msgspec.to_builtins(field.default)
        if field.name in words:
            declared.setdefault("description", words[field.name])
        form["properties"][field.encode_name] = declared
        if field.required:
            form["required"].append(field.encode_name)
    check_form(form)
    return form


def read_form(type_: type[T], content: Mapping[str, Any]) -> T:
    """The instance of ``type_`` that a person has filled in.

    Raises:
      ValueError: a validator of the class refuses the content. The message names the field.
    """
    try:
        return typing.cast("T", read_as(spelled_out(type_), dict(content)))
    except msgspec.ValidationError as error:
        raise ValueError(mismatch(error)) from error


def _form_of_schema(schema: dict[str, Any], what: str) -> dict[str, Any]:
    """The form of a class that is known by its JSON Schema."""
    if schema.get("type") != "object":
        raise ToolDefinitionError(f"{what} is not a class with fields")
    definitions, required = schema.get("$defs", {}), schema.get("required", [])
    form: dict[str, Any] = {"type": "object", "properties": {}, "required": [*required]}
    for name, declared in schema.get("properties", {}).items():
        plain = _without_null(_resolved(declared, definitions))
        if name in required and plain is not declared and "anyOf" in declared:
            raise ToolDefinitionError(f"field `{name}` of {what} may be None: let that be its default")
        form["properties"][name] = _as_field(_resolved(plain, definitions), definitions)
    try:
        check_form(form)
    except ToolDefinitionError as error:
        raise ToolDefinitionError(f"{what}: {error}; {_FLAT}") from error
    return form


def _resolved(declared: Any, definitions: Mapping[str, Any]) -> Any:
    """``declared`` with a definition, such as that of a choice, in the place of the reference to it."""
    if is_object(declared) and isinstance(reference := declared.get("$ref"), str):
        beside = {key: value for key, value in declared.items() if key != "$ref"}
        return {**definitions[reference.rpartition("/")[2]], **beside}
    return declared


def _as_field(declared: Any, definitions: Mapping[str, Any]) -> Any:
    """``declared`` in the keywords that forms have."""
    field = {key: value for key, value in declared.items() if key != "default" or value is not None}
    if isinstance(field.get("const"), str):
        field["enum"] = [field.pop("const")]
    if "items" in field:
        field["items"] = _resolved(field["items"], definitions)
    if field.get("type") == "integer":
        if "exclusiveMinimum" in field:
            field["minimum"] = field.pop("exclusiveMinimum") + 1
        if "exclusiveMaximum" in field:
            field["maximum"] = field.pop("exclusiveMaximum") - 1
    return field


def _property(info: inspect.Type, order: Sequence[object]) -> dict[str, Any] | None:
    """A field's schema, or ``None`` if a form has none for it. ``order`` is that of literals as declared."""
    match info:
        case inspect.Metadata():
            declared = _property(info.type, order)
            extra: dict[str, Any] = msgspec.structs.asdict(info)["extra_json_schema"] or {}
            return None if declared is None else declared | extra
        case inspect.UnionType(types=(plain, inspect.NoneType()) | (inspect.NoneType(), plain)):
            return _property(plain, order)
        case inspect.BoolType():
            return {"type": "boolean"}
        case inspect.IntType(multiple_of=None):
            least = info.ge if info.gt is None else info.gt + 1
            most = info.le if info.lt is None else info.lt - 1
            return _schema("integer", minimum=least, maximum=most)
        case inspect.FloatType(gt=None, lt=None, multiple_of=None):
            return _schema("number", minimum=info.ge, maximum=info.le)
        case inspect.StrType():
            return _schema("string", minLength=info.min_length, maxLength=info.max_length, pattern=info.pattern)
        case inspect.DateType():
            return _schema("string", format="date")
        case inspect.DateTimeType(tz=None | True):
            return _schema("string", format="date-time")
        case inspect.LiteralType(values=values):
            return _choice(order if {*order} == {*values} else values)
        case inspect.EnumType(cls=members):
            return _choice([member.value for member in members])
        case inspect.ListType() | inspect.SetType() | inspect.FrozenSetType() | inspect.VarTupleType():
            choice = _property(info.item_type, order)
            if choice is None or "enum" not in choice:
                return None
            return _schema("array", items=choice, minItems=info.min_length, maxItems=info.max_length)
        case _:
            return None


def _schema(type_: str, **rest: object) -> dict[str, Any]:
    return {"type": type_, **{key: value for key, value in rest.items() if value is not None}}


def _choice(values: Sequence[object]) -> dict[str, Any] | None:
    # MCP has no other choices than of texts.
    texts = [value for value in values if isinstance(value, str)]
    return {"type": "string", "enum": texts} if len(texts) == len(values) else None


def _literals(hint: Any) -> Iterator[object]:
    """The values of the literals in ``hint``, as declared: msgspec sorts them."""
    if typing.get_origin(hint) is Literal:
        yield from typing.get_args(hint)
    else:
        for argument in typing.get_args(hint):
            yield from _literals(argument)


def _may_be_none(info: inspect.Type) -> bool:
    if isinstance(info, inspect.Metadata):
        return _may_be_none(info.type)
    return isinstance(info, inspect.UnionType)
