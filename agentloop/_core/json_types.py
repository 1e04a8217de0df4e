"""JSON Schemas of types, and error messages for values that do not fit: shared by all modules that read JSON."""

from __future__ import annotations

import inspect
import re
import sys
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, TypeVar, cast

import msgspec
import msgspec.inspect

from agentloop._core.field_checks import plain_text
from agentloop._core.json_text import JsonDecoder, NestingError, decode_json, is_array, is_object, whole_numbers
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
    "lacks_integer",
    "lifted",
    "malformed",
    "mismatch",
    "shown_default",
    "spelled_out",
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


def inspect_type(hint: Any, subject: str) -> msgspec.inspect.Type:
    """Describe a type by `msgspec.inspect`.

    Args:
      subject: the subject of the error message.

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
            raise ToolDefinitionError(f"{subject} cannot be read from JSON: {_advice(part.cls)}")
        if isinstance(part, msgspec.inspect.DictType) and not _is_key(part.key_type):
            raise ToolDefinitionError(
                f"{subject} cannot be read from JSON: keys of a JSON object are texts, and the keys of its dict are "
                f"{_kind_of(part.key_type)}. Use texts, numbers or dates as keys, or a list of pairs"
            )
    return info


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
    if hasattr(stranger, "model_json_schema"):
        return f"{name} is a pydantic model. Use an attrs class, a dataclass, a TypedDict or a msgspec.Struct"
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


def spelled_out(hint: Any) -> Any:
    """``hint``, in words that msgspec has a schema for.

    ``object`` means any JSON value where it stands on its own, as in ``dict[str, object]``, a ``datetime`` shows the
    model its format, and the words of ``Annotated[int, "the count"]`` are a description.
    """
    if hint is object:
        return Any
    if hint is datetime:
        return Annotated[hint, msgspec.Meta(extra_json_schema={"format": "date-time"})]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        words = _words_in(arguments[1:])
        described = (msgspec.Meta(description=words),) if words else ()
        return Annotated[(spelled_out(arguments[0]), *arguments[1:], *described)]
    if origin in (typing.Union, types.UnionType):
        return typing.Union[tuple(spelled_out(argument) for argument in arguments)]  # noqa: UP007
    if arguments and getattr(origin, "__module__", "") in ("builtins", "collections.abc"):
        return origin[tuple(spelled_out(argument) for argument in arguments)]
    return hint


def _words_in(metadata: Sequence[object]) -> str:
    """The description in the metadata of an `Annotated`: a text, or a ``Doc`` of PEP 727; empty if there is none."""
    if any(isinstance(item, msgspec.Meta) and item.description is not None for item in metadata):
        return ""
    for item in metadata:
        words = item if isinstance(item, str) else getattr(item, "documentation", None)
        if isinstance(words, str) and words.strip():
            return plain_text(words)
    return ""


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
        name: _words_in(typing.get_args(hint)[1:])
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
        (_, reference), _ = msgspec.json.schema_components([type_, part.cls], ref_template="{name}")
        properties: dict[str, Any] = definitions.get(reference.get("$ref", ""), {}).get("properties", {})
        for field in part.fields:
            if field.name in words and field.encode_name in properties:
                properties[field.encode_name].setdefault("description", words[field.name])


_CLASSES = (msgspec.inspect.DataclassType, msgspec.inspect.StructType, msgspec.inspect.TypedDictType)
"""The kinds of classes with fields that have names in JSON."""


def lifted(type_: Any) -> dict[str, Any]:
    """The schema of ``type_`` with its own definition on top, and below ``$defs`` those it refers to."""
    (top,), definitions = msgspec.json.schema_components([type_], ref_template="#/$defs/{name}")
    if definitions:
        _describe_fields(type_, definitions)
    for definition in definitions.values():
        definition.pop("title", None)  # the class's name, which is that of the definition
        if not definition.get("required", True):
            del definition["required"]
    if reference := top.pop("$ref", None):
        name = reference.removeprefix("#/$defs/")
        top = definitions[name] | top
        if f'"{reference}"'.encode() not in msgspec.json.encode([top, definitions]):
            del definitions[name]
    schema = top | {"$defs": definitions} if definitions else top
    _complete(schema)
    return schema


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
        return decode_json(msgspec.json.encode(default))
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


def lacks_integer(error: msgspec.ValidationError) -> bool:
    """Whether ``error`` is about a number with a point where an integer is due."""
    text = str(error)
    return "Expected `int" in text and "got `float`" in text


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


def mismatch(error: msgspec.ValidationError) -> str:
    """The place where a value does not fit its type, and why: "`to.zip`: expected `str`, got `int`"."""
    text = str(error)
    if error.__cause__ is not None and error.__cause__.args:
        # attrs' validators put the attribute, the value and more into the exception: msgspec shows it all.
        text = text.replace(str(error.__cause__), str(error.__cause__.args[0]))
    problem, _, path = text.partition(" - at `$")
    problem = re.sub(r"^Object (contains )?(missing required|unknown)", r"\2", problem)
    field_path = path[:-1].lstrip(".")
    return (f"`{field_path}`: " if field_path else "") + problem[:1].lower() + problem[1:]


def malformed(error: Exception, raw: str | bytes) -> str:
    """The problem with ``raw``, and its place."""
    if isinstance(error, NestingError):
        return str(error)
    text = str(error).removeprefix("JSON is malformed: ")
    data = raw.encode(errors="replace") if isinstance(raw, str) else raw
    position = re.search(r" \(byte (\d+)\)$", text)
    offset = int(position[1]) if position else len(data)
    return f"{text}, near `{data[max(offset - 30, 0) : offset + 10].decode(errors='replace')}`"
