"""JSON Schema as Anthropic's structured outputs want it."""

from __future__ import annotations

from typing import Any

import pytest

from agentloop.providers._output_schema import output_schema


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
def test_what_there_are_words_for_is_said(schema: dict[str, Any], expected: dict[str, Any] | None) -> None:
    assert output_schema(schema) == (schema if expected is None else expected)


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
def test_what_there_are_no_words_for_is_not(inner: Any) -> None:
    assert output_schema(of(a=inner)) is None


def test_references_stand_alone() -> None:
    schema = {"$ref": "#/$defs/A", "$defs": {"A": of(b={"$ref": "#/$defs/B", "description": "x"}), "B": of()}}

    assert output_schema(schema) == {"$ref": "#/$defs/A", "$defs": {"A": of(b={"$ref": "#/$defs/B"}), "B": of()}}


@pytest.mark.parametrize(
    "defs",
    [
        {"A": of(a={"$ref": "#/$defs/A"})},
        {"A": of(b={"$ref": "#/$defs/B"}), "B": {"type": "array", "items": {"anyOf": [{"$ref": "#/$defs/A"}]}}},
    ],
)
def test_a_schema_that_refers_to_itself_is_not_accepted(defs: Any) -> None:
    assert output_schema({"$ref": "#/$defs/A", "$defs": defs}) is None
