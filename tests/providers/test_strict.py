"""Schemas for strict mode: narrower than what was asked for, never wider."""

from __future__ import annotations

from typing import Any

import pytest

from agentloop.providers._strict import strict_schema

INNER = {"type": "object", "properties": {"y": {"type": "string"}}}
STRICT_INNER = {**INNER, "additionalProperties": False, "required": ["y"]}


def an_object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": []}


def test_every_property_is_required_and_no_other_allowed() -> None:
    schema = an_object(x={"type": "integer", "default": 1, "description": "how many"}, y={"enum": ["a", "b"]})

    assert strict_schema(schema) == {
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
def test_that_goes_for_inner_objects_too(wrapped: dict[str, Any], strict: dict[str, Any]) -> None:
    narrowed = strict_schema(an_object(x=wrapped))

    assert narrowed is not None
    assert narrowed["properties"] == {"x": strict}


def test_that_goes_for_definitions_too() -> None:
    narrowed = strict_schema({**an_object(x={"$ref": "#/$defs/Inner"}), "$defs": {"Inner": INNER}})

    assert narrowed is not None
    assert narrowed["$defs"] == {"Inner": STRICT_INNER}


def test_the_schema_itself_is_left_as_it_is() -> None:
    schema = an_object(x=dict(INNER))
    strict_schema(schema)

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
        an_object(x={"type": "string", "format": "byte"}),
        an_object(x={"oneOf": [INNER]}),
    ],
    ids=str,
)
def test_what_strict_mode_has_no_word_for_is_not_strict(schema: dict[str, Any]) -> None:
    assert strict_schema(schema) is None
