"""JSON Schemas of types, and error messages for values that do not fit: shared by all modules that read JSON."""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any

import msgspec
import msgspec.inspect

from agentloop._core.json_text import NestingError, decode_json
from agentloop.errors import ToolDefinitionError

__all__ = [
    "NOT_JSON",
    "PLAIN",
    "UNENCODABLE",
    "UNRESOLVABLE",
    "inspect_type",
    "lifted",
    "malformed",
    "mismatch",
    "shown_default",
    "spelled_out",
]

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
    except UNRESOLVABLE as error:
        advice = "; what its fields name must be at the top of a module" if isinstance(error, NameError) else ""
        raise ToolDefinitionError(f"{subject} is of a type that cannot be read from JSON: {error}{advice}") from error
    for part in _parts(info):
        if isinstance(part, msgspec.inspect.CustomType):
            raise ToolDefinitionError(f"{subject} cannot be read from JSON: {_advice(part.cls)}")
    return info


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

    ``object`` means any JSON value where it stands on its own, as in ``dict[str, object]``, and a ``datetime`` shows
    the model its format.
    """
    if hint is object:
        return Any
    if hint is datetime:
        return Annotated[hint, msgspec.Meta(extra_json_schema={"format": "date-time"})]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return Annotated[(spelled_out(arguments[0]), *arguments[1:])]
    if origin in (typing.Union, types.UnionType):
        return typing.Union[tuple(spelled_out(argument) for argument in arguments)]  # noqa: UP007
    if arguments and getattr(origin, "__module__", "") in ("builtins", "collections.abc"):
        return origin[tuple(spelled_out(argument) for argument in arguments)]
    return hint


def lifted(type_: Any) -> dict[str, Any]:
    """The schema of ``type_`` with its own definition on top, and below ``$defs`` those it refers to."""
    (top,), definitions = msgspec.json.schema_components([type_], ref_template="#/$defs/{name}")
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
