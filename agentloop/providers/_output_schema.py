"""JSON Schema as Anthropic's structured outputs want it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, cast

__all__ = ["output_schema"]

_NOTES = frozenset({"default", "discriminator", "examples"})
"""Not rules: without them the same values are valid."""
_RULES = frozenset(
    {
        "exclusiveMaximum",
        "exclusiveMinimum",
        "format",
        "maxItems",
        "maxLength",
        "maximum",
        "minItems",
        "minLength",
        "minimum",
        "multipleOf",
        "pattern",
        "uniqueItems",
    }
)
"""Rules that are refused. They become words of the description, and whoever reads the answer checks them."""
_FORMATS = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"}
)  # fmt: skip
_TYPES = frozenset({"object", "array", "string", "integer", "number", "boolean", "null"})


class _InexpressibleError(Exception):
    """The schema says something for which there is no word."""


def output_schema(schema: dict[str, Any]) -> dict[str, Any] | None:
    """``schema`` in the words that are accepted; ``None`` if it cannot be said in them.

    What fits ``schema`` fits the result, too, but for objects that have more properties than are named.
    """
    try:
        if _is_recursive(schema.get("$defs", {})):
            return None
        return _said(schema)
    except _InexpressibleError:
        return None


def _said(schema: Any) -> dict[str, Any]:
    if not isinstance(schema, dict):
        raise _InexpressibleError  # true and false are schemas as well
    left = {key: value for key, value in cast("dict[str, Any]", schema).items() if key not in _NOTES}
    said: dict[str, Any] = {}
    if "$defs" in left:
        said["$defs"] = {name: _said(inner) for name, inner in left.pop("$defs").items()}
    if "$ref" in left:
        # Nothing may stand beside it.
        return {**said, "$ref": left["$ref"]}
    said.update({key: left.pop(key) for key in ("title", "description") if key in left})
    said.update(_kind(left))
    rules = [f"{key}: {left.pop(key)}" for key in sorted(_RULES & left.keys())]
    if left:
        raise _InexpressibleError
    if rules:
        said["description"] = " ".join(filter(None, (said.get("description"), f"({', '.join(rules)})")))
    return said


def _kind(left: dict[str, Any]) -> dict[str, Any]:
    """What values there may be. Takes the words for it out of ``left``."""
    kind = left.pop("type", None)
    if "enum" in left or "const" in left:
        said: dict[str, Any] = {key: left.pop(key) for key in ("enum", "const") if key in left}
        if any(isinstance(value, (dict, list)) for value in [*said.get("enum", ()), said.get("const")]):
            raise _InexpressibleError
        return said
    for key in ("anyOf", "oneOf"):
        if key in left and kind is None:
            return {"anyOf": [_said(inner) for inner in left.pop(key)]}
    if not isinstance(kind, str) or kind not in _TYPES:
        raise _InexpressibleError
    said = {"type": kind}
    if kind == "object":
        # An object with any property at all is a mapping.
        if left.pop("additionalProperties", None) not in (None, False) or "properties" not in left:
            raise _InexpressibleError
        said["properties"] = {name: _said(inner) for name, inner in left.pop("properties").items()}
        said["required"] = left.pop("required", [])
        said["additionalProperties"] = False
    elif kind == "array":
        said["items"] = _said(left.pop("items", None))
        if left.get("minItems") in (0, 1):
            said["minItems"] = left.pop("minItems")
    elif kind == "string" and left.get("format") in _FORMATS:
        said["format"] = left.pop("format")
    return said


def _is_recursive(defs: dict[str, Any]) -> bool:
    """Whether one of ``defs`` refers to itself, by way of others or not."""
    refers = {f"#/$defs/{name}": set(_references(inner)) for name, inner in defs.items()}
    for _ in defs:
        for targets in refers.values():
            targets.update(*(refers.get(target, ()) for target in list(targets)))
    return any(name in targets for name, targets in refers.items())


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        for key, inner in cast("dict[str, Any]", schema).items():
            if key == "$ref" and isinstance(inner, str):
                yield inner
            yield from _references(inner)
    elif isinstance(schema, list):
        for inner in cast("Iterable[Any]", schema):
            yield from _references(inner)
