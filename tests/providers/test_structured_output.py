"""The schemas for structured output: OpenAI's only narrow the schema, Anthropic's keep to its subset."""

from __future__ import annotations

from typing import Any

import pytest

from agentloop.providers._structured_output import anthropic_schema, openai_schema

INNER = {"type": "object", "properties": {"y": {"type": "string"}}}
STRICT_INNER = {**INNER, "additionalProperties": False, "required": ["y"]}


def an_object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": []}


def test_strict_mode_requires_every_property_and_allows_no_other() -> None:
    schema = an_object(x={"type": "integer", "default": 1, "description": "how many"}, y={"enum": ["a", "b"]})

    assert openai_schema(schema) == {
        "type": "object",
        "properties": {"x": {"type": "integer", "description": "how many"}, "y": {"enum": ["a", "b"]}},
        "required": ["x", "y"],
        "additionalProperties": False,
    }


@pytest.mark.parametrize(
    ("wrapped", "strict"),
    [
        (INNER, STRICT_INNER),
        ({"type": "array", "items": INNER}, {"type": "array", "items": STRICT_INNER}),
        ({"anyOf": [INNER, {"type": "null"}]}, {"anyOf": [STRICT_INNER, {"type": "null"}]}),
    ],
    ids=["object", "array", "union"],
)
def test_inner_objects_require_all_properties_too(wrapped: dict[str, Any], strict: dict[str, Any]) -> None:
    narrowed = openai_schema(an_object(x=wrapped))

    assert narrowed is not None
    assert narrowed["properties"] == {"x": strict}


@pytest.mark.parametrize(
    ("declared", "strict"),
    [
        ({"type": "string", "format": "password", "writeOnly": True}, "(format: password)"),
        ({"type": "string", "minLength": 1, "maxLength": 9, "description": "A name."}, "A name. (minLength: 1, "),
        ({"type": "array", "items": {"type": "string"}, "uniqueItems": True}, "(uniqueItems: true)"),
    ],
)
def test_a_constraint_that_strict_mode_refuses_is_described(declared: dict[str, Any], strict: str) -> None:
    """Without it, a schema with one such field would not be enforced at all."""
    narrowed = openai_schema(an_object(x=declared))

    assert narrowed is not None
    assert strict in narrowed["properties"]["x"]["description"]
    assert narrowed["properties"]["x"].keys() <= {"type", "items", "description"}


def test_the_tag_of_a_union_needs_no_discriminator() -> None:
    union = {"anyOf": [INNER], "discriminator": {"propertyName": "type"}}

    narrowed = openai_schema(an_object(x=union))

    assert narrowed is not None
    assert narrowed["properties"]["x"] == {"anyOf": [STRICT_INNER]}


def test_definitions_require_all_properties_too() -> None:
    narrowed = openai_schema({**an_object(x={"$ref": "#/$defs/Inner"}), "$defs": {"Inner": INNER}})

    assert narrowed is not None
    assert narrowed["$defs"] == {"Inner": STRICT_INNER}


def test_narrowing_leaves_the_schema_unchanged() -> None:
    schema = an_object(x=dict(INNER))
    openai_schema(schema)

    assert schema == an_object(x=INNER)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "items": {"type": "integer"}},
        {"type": "object", "properties": {}, "anyOf": [INNER]},
        {"type": "object", "additionalProperties": {"type": "integer"}},
        {"type": "object"},
        an_object(x={"type": "object", "properties": {}, "additionalProperties": True}),
        an_object(x={}),
        an_object(x=True),
        an_object(x={"description": "anything"}),
        an_object(x={"type": "array", "prefixItems": [{"type": "integer"}], "items": False}),
        an_object(x={"type": "string", "contentEncoding": "base64"}),
        an_object(x={"oneOf": [INNER]}),
    ],
    ids=str,
)
def test_a_schema_that_strict_mode_cannot_express_is_not_strict(schema: dict[str, Any]) -> None:
    assert openai_schema(schema) is None


# ------------------------------------------------------------------------ Anthropic


def of(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": sorted(properties), "additionalProperties": False}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "string"}, {"type": "string"}),
        ({"type": "string", "format": "date"}, {"type": "string", "format": "date"}),
        ({"type": "string", "format": "color"}, {"type": "string", "description": "(format: color)"}),
        ({"type": "integer", "default": 1, "examples": [2]}, {"type": "integer"}),
        ({"type": "string", "enum": ["a", "b"]}, {"enum": ["a", "b"]}),
        ({"const": 1}, {"const": 1}),
        ({"anyOf": [{"type": "null"}, {"type": "string"}]}, {"anyOf": [{"type": "null"}, {"type": "string"}]}),
        ({"oneOf": [{"type": "null"}]}, {"anyOf": [{"type": "null"}]}),
        ({"type": "array", "items": {"type": "string"}, "minItems": 1}, None),
        (
            {"type": "array", "items": {"type": "string"}, "minItems": 2, "maxItems": 3},
            {"type": "array", "items": {"type": "string"}, "description": "(maxItems: 3, minItems: 2)"},
        ),
        (
            {"type": "number", "description": "A share.", "minimum": 0, "exclusiveMaximum": 1},
            {"type": "number", "description": "A share. (exclusiveMaximum: 1, minimum: 0)"},
        ),
        (of(a={"type": "string", "title": "A"}), None),
        ({"type": "object", "properties": {}}, of()),
    ],
)
def test_anthropic_gets_a_schema_in_its_subset(schema: dict[str, Any], expected: dict[str, Any] | None) -> None:
    assert anthropic_schema(schema) == (schema if expected is None else expected)


@pytest.mark.parametrize(
    "inner",
    [
        True,
        {},
        {"type": ["string", "null"]},
        {"type": "object"},
        {"type": "object", "properties": {}, "additionalProperties": True},
        {"type": "object", "additionalProperties": {"type": "string"}},
        {"type": "array"},
        {"type": "array", "prefixItems": [{"type": "string"}], "items": False},
        {"type": "string", "contentEncoding": "base64"},
        {"enum": [[1]]},
        {"not": {"type": "string"}},
    ],
)
def test_anthropic_gets_no_schema_outside_of_its_subset(inner: Any) -> None:
    assert anthropic_schema(of(a=inner)) is None


def test_keywords_beside_a_reference_are_dropped() -> None:
    schema = {"$ref": "#/$defs/A", "$defs": {"A": of(b={"$ref": "#/$defs/B", "description": "x"}), "B": of()}}

    assert anthropic_schema(schema) == {"$ref": "#/$defs/A", "$defs": {"A": of(b={"$ref": "#/$defs/B"}), "B": of()}}


@pytest.mark.parametrize(
    "defs",
    [
        {"A": of(a={"$ref": "#/$defs/A"})},
        {"A": of(b={"$ref": "#/$defs/B"}), "B": {"type": "array", "items": {"anyOf": [{"$ref": "#/$defs/A"}]}}},
    ],
)
def test_a_recursive_schema_is_not_expressed(defs: Any) -> None:
    assert anthropic_schema({"$ref": "#/$defs/A", "$defs": defs}) is None
