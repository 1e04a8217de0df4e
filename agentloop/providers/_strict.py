"""JSON Schema as OpenAI's strict mode wants it."""

from __future__ import annotations

from typing import Any

__all__ = ["strict_schema"]

_KEPT = frozenset(
    {
        "$defs",
        "$ref",
        "additionalProperties",
        "anyOf",
        "const",
        "description",
        "enum",
        "exclusiveMaximum",
        "exclusiveMinimum",
        "format",
        "items",
        "maxItems",
        "maximum",
        "minItems",
        "minimum",
        "multipleOf",
        "pattern",
        "properties",
        "required",
        "title",
        "type",
    }
)
_DROPPED = frozenset({"default", "examples"})
"""Notes, not rules: without them the same values are valid."""
_FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"})


class _NotStrictError(Exception):
    """The schema says something that strict mode cannot."""


def strict_schema(schema: dict[str, Any]) -> dict[str, Any] | None:
    """``schema`` narrowed so that strict mode takes it; ``None`` if there is no such schema.

    In strict mode every object lists all of its properties as required and allows no others. Both only narrow:
    what fits the result fits ``schema`` too.
    """
    if schema.get("type") != "object" or "anyOf" in schema:
        return None
    try:
        return _narrowed(schema)
    except _NotStrictError:
        return None


def _narrowed(schema: dict[str, Any] | bool) -> dict[str, Any]:
    if isinstance(schema, bool):
        raise _NotStrictError
    narrowed: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _DROPPED:
            continue
        if key not in _KEPT or (key == "format" and value not in _FORMATS):
            raise _NotStrictError
        if key in ("properties", "$defs"):
            narrowed[key] = {name: _narrowed(inner) for name, inner in value.items()}
        elif key == "items":
            narrowed[key] = _narrowed(value)
        elif key == "anyOf":
            narrowed[key] = [_narrowed(inner) for inner in value]
        else:
            narrowed[key] = value
    if narrowed.get("type") == "object" or "properties" in narrowed:
        # An object with any property at all is a mapping, for which strict mode has no word.
        if narrowed.get("additionalProperties") not in (None, False) or "properties" not in narrowed:
            raise _NotStrictError
        narrowed["additionalProperties"] = False
        narrowed["required"] = list(narrowed["properties"])
    elif "$ref" not in narrowed and "anyOf" not in narrowed and not {"type", "enum", "const"} & narrowed.keys():
        raise _NotStrictError  # anything at all is allowed here
    return narrowed
