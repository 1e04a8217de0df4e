"""JSON Schemas of types, and error messages for values that do not fit: shared by all modules that read JSON."""

from __future__ import annotations

import inspect
import re
import sys
import typing
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, TypeVar, cast

import msgspec
import msgspec.inspect

from agentloop._core.json_text import JsonDecoder, NestingError, decode_json, is_array, is_object, whole_numbers
from agentloop._core.pydantic_types import encode_json
from agentloop._core.type_hints import (
    Mirror,
    PydanticType,
    StandIn,
    Union,
    field_problems,
    lacks_integer,
    spelled_out,
    words_in,
)
from agentloop.errors import ToolDefinitionError

if sys.version_info >= (3, 14):
    from annotationlib import Format

__all__ = [
    "NOT_JSON",
    "PLAIN",
    "UNENCODABLE",
    "UNRESOLVABLE",
    "decode_leniently",
    "described_fields",
    "inspect_type",
    "lifted",
    "malformed",
    "mismatch",
    "shown_default",
    "with_declared_integers",
]

T = TypeVar("T")

UNRESOLVABLE = (AttributeError, NameError, NotImplementedError, SyntaxError, TypeError, ValueError)
"""The errors of evaluating an invalid annotation, in Python or in msgspec."""

NOT_JSON = (msgspec.DecodeError, UnicodeError)
"""The errors of decoding a text that is not JSON, or nests too deeply."""

UNENCODABLE = (RecursionError, TypeError, ValueError)
"""The errors of msgspec for a value without a JSON form. ValueError: a lone surrogate."""

PLAIN = frozenset({bool, float, int, str})
"""Types without parts."""


def inspect_type(hint: Any, subject: str, *, seen: frozenset[StandIn] | None = None) -> msgspec.inspect.Type:
    """Describe a type by `msgspec.inspect`.

    Args:
      hint: the type, as `spelled_out` gives it.
      subject: the subject of the error message.
      seen: the stand-ins around it.

    Raises:
      ToolDefinitionError: the type, or one inside it, cannot be read from JSON.
    """
    try:
        info = msgspec.inspect.type_info(hint)
    except RecursionError as error:
        raise ToolDefinitionError(
            f"{subject} cannot be read from JSON: an alias in its type contains itself. Use `typing.Any` for any JSON "
            "value, or a class whose fields have its own type"
        ) from error
    except UNRESOLVABLE as error:
        advice = "; what its fields name must be at the top of a module" if isinstance(error, NameError) else ""
        raise ToolDefinitionError(f"{subject} is of a type that cannot be read from JSON: {error}{advice}") from error
    for part in _parts(info):
        if isinstance(part, msgspec.inspect.CustomType):
            if not isinstance(part.cls, StandIn):
                raise ToolDefinitionError(f"{subject} cannot be read from JSON: {_advice(part.cls)}")
            _inspect_stand_in(part.cls, subject, frozenset() if seen is None else seen)
        if isinstance(part, msgspec.inspect.DictType) and not _is_key(part.key_type):
            raise ToolDefinitionError(
                f"{subject} cannot be read from JSON: keys of a JSON object are texts, and the keys of its dict are "
                f"{_kind_of(part.key_type)}. Use texts, numbers or dates as keys, or a list of pairs"
            )
    return info


def _inspect_stand_in(stand_in: StandIn, subject: str, seen: frozenset[StandIn]) -> None:
    """Raise `ToolDefinitionError` if a type that `stand_in` stands for cannot be read from JSON."""
    if stand_in in seen:
        return
    kind, seen = stand_in.kind, seen | {stand_in}
    if isinstance(kind, PydanticType):
        try:
            _ = kind.schema
        except ToolDefinitionError as error:
            raise ToolDefinitionError(f"{subject} cannot be read from JSON: {error}") from error
    elif isinstance(kind, Mirror):
        for field in kind.fields:
            inspect_type(spelled_out(field.hint), f"{subject}: field `{field.key}` of `{kind.name}`", seen=seen)
    elif isinstance(kind, Union):
        for member in kind.members:
            inspect_type(member, subject, seen=seen)


_KEYS = (
    msgspec.inspect.AnyType,
    msgspec.inspect.DateTimeType,
    msgspec.inspect.DateType,
    msgspec.inspect.DecimalType,
    msgspec.inspect.EnumType,
    msgspec.inspect.FloatType,
    msgspec.inspect.IntType,
    msgspec.inspect.LiteralType,
    msgspec.inspect.StrType,
    msgspec.inspect.TimeDeltaType,
    msgspec.inspect.TimeType,
    msgspec.inspect.UUIDType,
)


def _is_key(info: msgspec.inspect.Type) -> bool:
    """Whether the key of a JSON object can be read as a value of this type."""
    if isinstance(info, msgspec.inspect.Metadata):
        return _is_key(info.type)
    if isinstance(info, msgspec.inspect.UnionType):
        return any(map(_is_key, info.types))
    return isinstance(info, _KEYS)


def _kind_of(info: msgspec.inspect.Type) -> str:
    name = type(info).__name__.removesuffix("Type")
    return f"of the type `{re.sub('^(Var)?', '', name).lower()}`"


def _advice(stranger: type) -> str:
    name = f"`{stranger.__qualname__}`"
    if hasattr(stranger, "parse_obj") and not hasattr(stranger, "model_validate"):
        return (
            f"{name} is a model of pydantic 1. Derive it from the BaseModel of pydantic 2 (`pydantic.BaseModel`, not "
            "`pydantic.v1.BaseModel`), or use an attrs class, a dataclass, a TypedDict or a msgspec.Struct"
        )
    if stranger is object:
        return f"{name} says nothing about it. Use `typing.Any` for any JSON value"
    return f"{name} has no JSON form. Use a plain type, a list or dict of them, an attrs class or a dataclass"


def _parts(info: msgspec.inspect.Type) -> Iterator[object]:
    """``info`` and all that it is made of; each once, since types may be recursive."""
    seen: set[int] = set()
    waiting: list[Any] = [info]
    while waiting:
        part = waiting.pop()
        if isinstance(part, (msgspec.inspect.Type, msgspec.inspect.Field)) and id(part) not in seen:
            seen.add(id(part))
            yield part
            waiting += [getattr(part, name) for name in part.__struct_fields__]
        elif isinstance(part, tuple):
            waiting += part


def described_fields(cls: Any) -> dict[str, str]:
    """The descriptions of the fields of ``cls`` that are annotated with one: ``count: Annotated[int, "the count"]``."""
    options: dict[str, Any] = {}
    if sys.version_info >= (3, 14):
        options["format"] = Format.FORWARDREF
    try:
        hints = typing.get_type_hints(cls, include_extras=True, **options)
    except Exception:  # noqa: BLE001 - an annotation is any expression, and may raise anything
        return {}
    words = {
        name: words_in(typing.get_args(hint)[1:])
        for name, hint in hints.items()
        if typing.get_origin(hint) is Annotated
    }
    return {name: text for name, text in words.items() if text}


def _describe_fields(type_: Any, definitions: dict[str, Any]) -> None:
    """Add the descriptions of the fields of all classes in ``type_`` to their ``definitions``."""
    for part in _parts(msgspec.inspect.type_info(type_)):
        if not isinstance(part, _CLASSES):
            continue
        words = described_fields(part.cls)
        if not words:
            continue
        # The names of the definitions are msgspec's: two classes may have one name.
        (_, reference), _ = msgspec.json.schema_components(
            [type_, part.cls], schema_hook=_nothing, ref_template="{name}"
        )
        properties: dict[str, Any] = definitions.get(reference.get("$ref", ""), {}).get("properties", {})
        for field in part.fields:
            if field.name in words and field.encode_name in properties:
                properties[field.encode_name].setdefault("description", words[field.name])


def _nothing(type_: object) -> dict[str, Any]:
    return {}


_CLASSES = (msgspec.inspect.DataclassType, msgspec.inspect.StructType, msgspec.inspect.TypedDictType)
"""The kinds of classes with fields that have names in JSON."""


def lifted(type_: Any) -> dict[str, Any]:
    """The schema of ``type_`` with its own definition on top, and below ``$defs`` those it refers to."""
    definitions = _Definitions()
    top = definitions.describe(type_)
    return definitions.lift(top)


_DEFS = "#/$defs/"
_LATER = "\0"
"""The beginning of the name of a definition that gets its name at the end. No class is called so."""


class _Definitions:
    """The definitions that one schema refers to, each under a name of its own.

    They come in groups: one from msgspec for each type that msgspec describes, one from each type of pydantic. Within a
    group, names are unique. A definition that two groups share is there once.
    """

    def __init__(self) -> None:
        self._definitions: dict[str, Any] = {}
        self._mirrors: dict[str, Any] = {}
        """The definitions of classes that may refer to themselves, by names that are replaced at the end."""
        self._names: dict[type, str] = {}
        """The names of those, by stand-in."""

    def describe(self, type_: Any) -> dict[str, Any]:
        """The schema of ``type_``, whose definitions are added to these."""
        (top,), group = msgspec.json.schema_components([type_], schema_hook=self._hook, ref_template=_DEFS + "{name}")
        if group:
            _describe_fields(type_, group)
        for definition in group.values():
            definition.pop("title", None)  # the class's name, which is that of the definition
            if not definition.get("required", True):
                del definition["required"]
        return self._add(group, top)

    def _hook(self, type_: Any) -> dict[str, Any]:
        """The schema of a stand-in: the ``schema_hook`` of msgspec."""
        if not isinstance(type_, StandIn):
            raise NotImplementedError
        kind = type_.kind
        if isinstance(kind, Mirror):
            return self._describe_mirror(type_, kind)
        if isinstance(kind, Union):
            return {"anyOf": [self.describe(member) for member in kind.members]}
        assert isinstance(kind, PydanticType)
        top = dict(kind.schema)
        group = dict(top.pop("$defs", {}))
        if kind.type is not None and "$ref" not in top and _is_definition(top):
            group[kind.name] = top
            top = {"$ref": _DEFS + kind.name}
        return self._add(group, top)

    def _describe_mirror(self, stand_in: StandIn, mirror: Mirror) -> dict[str, Any]:
        name = self._names.get(stand_in)
        if name is None:
            name = self._names[stand_in] = f"{_LATER}{len(self._names)}"
            top = self.describe(mirror.struct)
            # The Struct's own definition is the only one that refers to it.
            definition = self._definitions.pop(top["$ref"].removeprefix(_DEFS))
            # A tuple with names has none.
            properties = definition.get("properties", {})
            for field in mirror.fields:
                shown = shown_default(field.default)
                if shown is not None and field.key in properties:
                    properties[field.key].setdefault("default", shown)
            self._mirrors[name] = definition
        return {"$ref": _DEFS + name}

    def _add(self, group: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
        """Add ``group``, and return ``top`` with references to it."""
        known = self._definitions
        if any(known.get(name, definition) != definition for name, definition in group.items()):
            names = {name: self._free(name) for name in group}
            group = {names[name]: _renamed(definition, names) for name, definition in group.items()}
            top = _renamed(top, names)
        known.update(group)
        return top

    def _free(self, name: str) -> str:
        number = 2
        while name in self._definitions:
            name = f"{name.rstrip('0123456789').rstrip('_')}_{number}"
            number += 1
        return name

    def lift(self, top: dict[str, Any]) -> dict[str, Any]:
        """``top`` with its own definition in the place of a reference, and with the definitions."""
        definitions = self._definitions
        names: dict[str, str] = {}
        for stand_in, name in self._names.items():
            names[name] = self._free(stand_in.__name__)
            definitions[names[name]] = self._mirrors[name]
        if names:
            definitions = {name: _renamed(definition, names) for name, definition in definitions.items()}
            top = _renamed(top, names)
        top = dict(top)
        if reference := top.pop("$ref", None):
            name = reference.removeprefix(_DEFS)
            top = definitions[name] | top
            if f'"{reference}"'.encode() not in msgspec.json.encode([top, definitions]):
                del definitions[name]
        schema = top | {"$defs": definitions} if definitions else top
        _complete(schema)
        return schema


def _is_definition(schema: Mapping[str, Any]) -> bool:
    """Whether ``schema`` is worth a definition of its own: a class with fields, or a choice."""
    return "properties" in schema or "enum" in schema or "anyOf" in schema


def _renamed(node: Any, names: Mapping[str, str]) -> Any:
    """``node`` with references to other names."""
    if is_array(node):
        return [_renamed(item, names) for item in node]
    if not is_object(node):
        return node
    renamed = {
        keyword: value if keyword in ("default", "examples", "const", "enum") else _renamed(value, names)
        for keyword, value in node.items()
    }
    reference = renamed.get("$ref")
    if isinstance(reference, str):
        name = reference.removeprefix(_DEFS)
        renamed["$ref"] = _DEFS + names.get(name, name)
    return renamed


def _complete(node: Any) -> None:
    """Add keywords that are implied but that some providers require: the type of choices, the items of a list."""
    match node:
        case {"enum": [*choices]} if all(isinstance(choice, str) for choice in choices):
            node.setdefault("type", "string")
        case {"type": "array"} if "items" not in node and "prefixItems" not in node:
            node["items"] = {}
        case {**members}:
            for key in members.keys() - {"default", "examples"}:
                _complete(members[key])
        case [*items]:
            for item in items:
                _complete(item)
        case _:
            pass


def shown_default(default: Any) -> Any:
    """A default as the schema shows it; ``None`` if there is nothing to show."""
    if default is None or default is inspect.Parameter.empty:
        return None
    try:
        return decode_json(encode_json(default, by_alias=True))
    except (*NOT_JSON, *UNENCODABLE):
        return None


def decode_leniently(decoder: JsonDecoder[T], text: str | bytes) -> T:
    """Decode a JSON text of a model. 3.0 counts as 3 where an integer is due: the schema takes both.

    Raises what `JsonDecoder.decode` raises.
    """
    try:
        return decoder.decode(text)
    except msgspec.ValidationError as error:
        if not lacks_integer(error):
            raise
    return decoder.decode(msgspec.json.encode(whole_numbers(decode_json(text))))


def with_declared_integers(value: Any, schema: Any) -> Any:
    """A JSON ``value`` with 3 in the place of 3.0 where ``schema`` has an integer. Other programs may refuse 3.0.

    Only what stands in the schema itself counts: types, properties, items and alternatives.
    """
    if not isinstance(schema, Mapping):
        return value
    declared = cast("Mapping[str, Any]", schema)
    for keyword in ("anyOf", "oneOf", "allOf"):
        alternatives = declared.get(keyword)
        if is_array(alternatives):
            for alternative in alternatives:
                value = with_declared_integers(value, alternative)
    if isinstance(value, float):
        kinds = declared.get("type")
        is_integer = kinds == "integer" or (is_array(kinds) and "integer" in kinds and "number" not in kinds)
        return whole_numbers(value) if is_integer else value
    if is_object(value):
        properties, rest = declared.get("properties"), declared.get("additionalProperties")
        known = properties if is_object(properties) else {}
        return {name: with_declared_integers(member, known.get(name, rest)) for name, member in value.items()}
    if is_array(value):
        return [with_declared_integers(item, declared.get("items")) for item in value]
    return value


def mismatch(error: msgspec.ValidationError, schema: Mapping[str, Any] | None = None) -> str:
    """The place where a value does not fit its type, and why: "`to.zip`: expected `str`, got `int`".

    Args:
      schema: the JSON Schema of the type: for a value that is not in a list, the reason says what the list has.
    """
    problems: list[str] = []
    for path, reason in field_problems(error):
        problem = f"`{path}`: {reason}" if path else reason
        if schema is not None and reason.startswith("invalid enum value"):
            choices = ", ".join(map(repr, _choices_at(schema, path)))
            problem += f"; it is one of {choices}" if choices else ""
        problems.append(problem)
    return "; ".join(problems)


def _choices_at(schema: Mapping[str, Any], path: str) -> list[Any]:
    """The values that ``schema`` lists for a path of `mismatch`, such as ``sizes[1]``; none if it lists none."""
    nodes = _alternatives(schema, schema)
    for step in re.findall(r"\[\d*\]|[^.\[\]]+", path):
        inner = [node.get("items") if step[0] == "[" else node.get("properties", {}).get(step) for node in nodes]
        nodes = [found for node in inner if is_object(node) for found in _alternatives(node, schema)]
    return [choice for node in nodes for choice in node.get("enum", ())]


def _alternatives(node: Mapping[str, Any], schema: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    if "$ref" in node:
        node = schema.get("$defs", {}).get(str(node["$ref"]).removeprefix("#/$defs/"), {})
    return [node, *(found for other in node.get("anyOf", ()) for found in _alternatives(other, schema))]


def malformed(error: Exception, raw: str | bytes) -> str:
    """The problem with ``raw``, and its place."""
    if isinstance(error, NestingError):
        return str(error)
    text = str(error).removeprefix("JSON is malformed: ")
    data = raw.encode(errors="replace") if isinstance(raw, str) else raw
    position = re.search(r" \(byte (\d+)\)$", text)
    offset = int(position[1]) if position else len(data)
    return f"{text}, near `{data[max(offset - 30, 0) : offset + 10].decode(errors='replace')}`"
