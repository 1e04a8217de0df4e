"""Decide how each provider is asked for structured output, and which schema its wire accepts.

A provider accepts a subset of JSON Schema, and refuses the whole request for a keyword outside of it. `openai_schema`
and `anthropic_schema` express a schema in a provider's subset, or return ``None`` if the subset cannot express it. Then
OpenAI's formats send the schema as it is, as a hint that the server does not enforce, and Anthropic's format asks for
the output in words.
"""

from __future__ import annotations

from typing import Any, cast

from agentloop.models import ToolSpec
from agentloop.providers._fitting import encode_body
from agentloop.providers._tool_schema import SchemaRules, fit_schema, has_look_around, references

__all__ = ["anthropic_schema", "openai_output", "openai_schema", "request_in_words"]


class _UnsupportedSchemaError(Exception):
    """The provider's subset of JSON Schema cannot express the schema."""


def openai_output(output: ToolSpec, rules: SchemaRules) -> dict[str, Any] | None:
    """The fields of ``json_schema`` in OpenAI's formats: name, description, schema, and whether it is enforced.

    ``None`` if the provider accepts no schema for ``output``.
    """
    strict = None if rules.is_gemini else openai_schema(output.parameters)
    schema = fit_schema(output.parameters, rules) if strict is None else strict
    if rules.is_gemini and not schema.get("properties"):
        return None
    return {
        "name": output.name,
        "description": output.description,
        "schema": schema,
        "strict": strict is not None,
    }


def request_in_words(output: ToolSpec) -> str:
    """The instructions that ask for ``output`` where the wire has no schema for it."""
    schema = encode_body(output.parameters).decode()
    return f"Give the final answer as JSON that fits this JSON Schema, with no other text around it:\n{schema}"


# ------------------------------------------------------------------------ OpenAI's strict mode


_OPENAI_KEYWORDS = frozenset(
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
_ANNOTATIONS = frozenset({"$comment", "default", "deprecated", "discriminator", "examples", "readOnly", "writeOnly"})
"""Keywords that constrain nothing: without them the same values are valid."""
_OPENAI_DESCRIBED = frozenset({"maxLength", "minLength", "uniqueItems"})
"""Constraints that strict mode refuses. They move into the description; the runtime checks them in the answer."""
_OPENAI_FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"})


def openai_schema(schema: dict[str, Any]) -> dict[str, Any] | None:
    """``schema`` narrowed for OpenAI's strict mode; ``None`` if strict mode cannot express it.

    In strict mode every object requires all of its properties and allows no others. Both only narrow the schema: each
    value that fits the result fits ``schema`` too, except for the constraints that the description has.
    """
    if schema.get("type") != "object" or "anyOf" in schema:
        return None
    try:
        return _narrowed(schema)
    except _UnsupportedSchemaError:
        return None


_OPENAI_MAX_DEPTH = 10
"""Levels of objects and arrays that strict mode allows."""
_OPENAI_MAX_ENUM = 1000
"""Values of one enumeration that strict mode allows."""


def _narrowed(schema: dict[str, Any] | bool, depth: int = 0) -> dict[str, Any]:
    if isinstance(schema, bool):
        raise _UnsupportedSchemaError
    if "$ref" in schema and len(schema) > 1:
        # Strict mode refuses keywords beside a reference, but not around it.
        beside = {key: value for key, value in schema.items() if key in ("title", "description")}
        if schema.keys() - beside.keys() - _ANNOTATIONS != {"$ref"}:
            raise _UnsupportedSchemaError
        return {**beside, "anyOf": [{"$ref": schema["$ref"]}]} if beside else {"$ref": schema["$ref"]}
    depth += schema.get("type") in ("object", "array")
    if depth > _OPENAI_MAX_DEPTH or len(schema.get("enum", ())) > _OPENAI_MAX_ENUM:
        raise _UnsupportedSchemaError
    narrowed: dict[str, Any] = {}
    described: list[str] = []
    for key, value in schema.items():
        if key in _ANNOTATIONS:
            continue
        if key in _OPENAI_DESCRIBED or (key == "format" and value not in _OPENAI_FORMATS):
            described.append(f"{key}: {_shown(value)}")
            continue
        if key not in _OPENAI_KEYWORDS:
            raise _UnsupportedSchemaError
        if key in ("properties", "$defs"):
            narrowed[key] = {name: _narrowed(inner, depth) for name, inner in value.items()}
        elif key == "items":
            narrowed[key] = _narrowed(value, depth)
        elif key == "anyOf":
            narrowed[key] = [_narrowed(inner, depth) for inner in value]
        elif key == "pattern" and has_look_around(value):
            continue  # The runtime checks it in the answer.
        else:
            narrowed[key] = value
    if narrowed.get("type") == "object" or "properties" in narrowed:
        # An object that allows any property is a mapping, which strict mode cannot express.
        if narrowed.get("additionalProperties") not in (None, False) or "properties" not in narrowed:
            raise _UnsupportedSchemaError
        narrowed["additionalProperties"] = False
        narrowed["required"] = list(narrowed["properties"])
    elif "$ref" not in narrowed and "anyOf" not in narrowed and not {"type", "enum", "const"} & narrowed.keys():
        raise _UnsupportedSchemaError  # a schema that allows any value
    return _with_words(narrowed, described)


def _with_words(schema: dict[str, Any], constraints: list[str]) -> dict[str, Any]:
    """``schema`` with ``constraints`` in its description."""
    if constraints:
        schema["description"] = " ".join(filter(None, (schema.get("description"), f"({', '.join(constraints)})")))
    return schema


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


# ----------------------------------------------------------------------- Anthropic's subset


_ANTHROPIC_DESCRIBED = frozenset(
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
"""Constraints that the API refuses. They move into the description; the runtime checks them in the answer."""
_ANTHROPIC_FORMATS = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"}
)  # fmt: skip
_TYPES = frozenset({"object", "array", "string", "integer", "number", "boolean", "null"})


def anthropic_schema(schema: dict[str, Any]) -> dict[str, Any] | None:
    """``schema`` in Anthropic's subset of JSON Schema; ``None`` if the subset cannot express it.

    Each value that fits ``schema`` fits the result, except for objects with more properties than ``schema`` names.
    """
    try:
        if _is_recursive(schema.get("$defs", {})):
            return None
        return _expressed(schema)
    except _UnsupportedSchemaError:
        return None


def _expressed(schema: Any) -> dict[str, Any]:
    if not isinstance(schema, dict):
        raise _UnsupportedSchemaError  # true and false are schemas as well
    remaining = {key: value for key, value in cast("dict[str, Any]", schema).items() if key not in _ANNOTATIONS}
    result: dict[str, Any] = {}
    if "$defs" in remaining:
        result["$defs"] = {name: _expressed(inner) for name, inner in remaining.pop("$defs").items()}
    if "$ref" in remaining:
        # The API refuses all other keywords beside a reference.
        return {**result, "$ref": remaining["$ref"]}
    result.update({key: remaining.pop(key) for key in ("title", "description") if key in remaining})
    result.update(_type(remaining))
    described = [f"{key}: {remaining.pop(key)}" for key in sorted(_ANTHROPIC_DESCRIBED & remaining.keys())]
    if remaining:
        raise _UnsupportedSchemaError
    return _with_words(result, described)


def _type(remaining: dict[str, Any]) -> dict[str, Any]:
    """The keywords that say which values are valid, removed from ``remaining``."""
    type_ = remaining.pop("type", None)
    if "enum" in remaining or "const" in remaining:
        values: dict[str, Any] = {key: remaining.pop(key) for key in ("enum", "const") if key in remaining}
        if any(isinstance(value, (dict, list)) for value in [*values.get("enum", ()), values.get("const")]):
            raise _UnsupportedSchemaError
        return values
    for key in ("anyOf", "oneOf"):
        if key in remaining and type_ is None:
            return {"anyOf": [_expressed(inner) for inner in remaining.pop(key)]}
    if not isinstance(type_, str) or type_ not in _TYPES:
        raise _UnsupportedSchemaError
    result: dict[str, Any] = {"type": type_}
    if type_ == "object":
        # An object that allows any property is a mapping, which the subset cannot express.
        if remaining.pop("additionalProperties", None) not in (None, False) or "properties" not in remaining:
            raise _UnsupportedSchemaError
        result["properties"] = {name: _expressed(inner) for name, inner in remaining.pop("properties").items()}
        result["required"] = remaining.pop("required", [])
        result["additionalProperties"] = False
    elif type_ == "array":
        result["items"] = _expressed(remaining.pop("items", None))
        if remaining.get("minItems") in (0, 1):
            result["minItems"] = remaining.pop("minItems")
    elif type_ == "string" and remaining.get("format") in _ANTHROPIC_FORMATS:
        result["format"] = remaining.pop("format")
    return result


def _is_recursive(defs: dict[str, Any]) -> bool:
    """Whether one of ``defs`` refers to itself, directly or through others."""
    targets_of = {f"#/$defs/{name}": set(references(inner)) for name, inner in defs.items()}
    for _ in defs:
        for targets in targets_of.values():
            targets.update(*(targets_of.get(target, ()) for target in list(targets)))
    return any(name in targets for name, targets in targets_of.items())
