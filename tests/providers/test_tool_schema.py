"""The schemas of tools: any server's schema becomes one that providers accept, and a good one stays as it is."""

from __future__ import annotations

import re
from typing import Any

import pytest

from agentloop.models import ToolSpec
from agentloop.providers._tool_schema import GEMINI, PLAIN, SchemaRules, fit_parameters, has_look_around


def fit(schema: Any, rules: SchemaRules = PLAIN) -> Any:
    return fit_parameters(ToolSpec("t", "", schema), rules)


def of(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


GOOD = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "pattern": "^[a-z]+$", "minLength": 1, "description": "Who."},
        "tags": {"type": "array", "items": {"type": "string", "enum": ["a", "b"]}, "uniqueItems": True},
        "size": {"anyOf": [{"type": "integer", "exclusiveMinimum": 0}, {"type": "null"}], "default": None},
        "tree": {"$ref": "#/$defs/Tree"},
        "more": {"type": ["string", "null"]},
        "map": {"type": "object", "properties": {}, "additionalProperties": {"type": "number"}},
    },
    "required": ["name"],
    "additionalProperties": False,
    "$defs": {"Tree": {"type": "object", "properties": {"left": {"$ref": "#/$defs/Tree"}}}},
}


def test_a_schema_that_all_providers_accept_stays_as_it_is() -> None:
    assert fit(GOOD) == GOOD


@pytest.mark.parametrize(
    ("schema", "fitting"),
    [
        ({}, of()),
        ({"type": "object"}, of()),
        ({"type": "object", "properties": None, "required": None}, {**of(), "required": []}),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "$id": "x", "type": "object"}, of()),
        (of(a={"type": "array"}), of(a={"type": "array", "items": {}})),
        (of(a={"type": "object"}), of(a={"type": "object", "properties": {}})),
        (of(a=True), of(a={})),
        (of(a=None), of(a={})),
        (of(a={"type": "int"}), of(a={"type": "integer"})),
        (of(a={"type": "any"}), of(a={})),
        (of(a={"type": ["string"]}), of(a={"type": "string"})),
        (of(a={"type": "string", "required": True}), of(a={"type": "string", "required": []})),
        (of(a={"enum": []}), of(a={})),
        (of(a={"anyOf": []}), of(a={})),
        (
            of(a={"type": "array", "items": [{"type": "null"}]}),
            of(a={"type": "array", "items": {"anyOf": [{"type": "null"}]}}),
        ),
        (of(a={"minimum": 1, "exclusiveMinimum": True}), of(a={"exclusiveMinimum": 1})),
        (of(a={"minimum": 1, "exclusiveMinimum": False}), of(a={"minimum": 1})),
        (of(a={"minLength": -1, "maxLength": 3.0, "multipleOf": 0}), of(a={"maxLength": 3})),
        (of(a={"type": "string", "pattern": "^(?!root$)"}), of(a={"type": "string"})),
        (of(a={"pattern": "\\p{L}+"}), of(a={"description": "(pattern: \\p{L}+)"})),
        (of(a={"description": 7, "format": None, "title": []}), of(a={})),
        (of(a={"examples": "x"}), of(a={"examples": ["x"]})),
        (of(a={"$ref": "other.json#/A"}), of(a={"description": "(as other.json#/A)"})),
        (of(a={"$ref": "#/nowhere"}), of(a={"description": "(as #/nowhere)"})),
        ({**of(a={"type": "string"}), "required": ["a", "b", "a"]}, {**of(a={"type": "string"}), "required": ["a"]}),
    ],
    ids=str,
)  # fmt: skip
def test_a_keyword_that_providers_refuse_is_put_right(schema: Any, fitting: Any) -> None:
    assert fit(schema) == fitting


def test_a_reference_stands_alone() -> None:
    inner = {"type": "object", "properties": {}}
    schema = {**of(a={"$ref": "#/$defs/A", "description": "Which."}, b={"$ref": "#/$defs/A"}), "$defs": {"A": inner}}

    properties = fit(schema)["properties"]

    assert properties == {"a": {"description": "Which.", "allOf": [{"$ref": "#/$defs/A"}]}, "b": {"$ref": "#/$defs/A"}}


@pytest.mark.parametrize(
    ("top", "properties", "required"),
    [
        ({"anyOf": [{**of(a={}), "required": ["a"]}, {**of(a={}, b={}), "required": ["a", "b"]}]}, ["a", "b"], ["a"]),
        ({"oneOf": [of(a={}), of(b={})], "type": "object"}, ["a", "b"], []),
        ({"allOf": [{**of(a={}), "required": ["a"]}, {**of(b={}), "required": ["b"]}]}, ["a", "b"], ["a", "b"]),
        ({"$ref": "#/$defs/A", "$defs": {"A": {**of(a={}), "required": ["a"]}}}, ["a"], ["a"]),
        ({"type": "array", "items": {}}, [], []),
        ({"enum": [1]}, [], []),
    ],
    ids=str,
)
def test_the_top_is_one_object(top: Any, properties: list[str], required: list[str]) -> None:
    fitting = fit(top)

    assert fitting["type"] == "object"
    assert (sorted(fitting["properties"]), fitting.get("required", [])) == (properties, required)
    assert not {"anyOf", "oneOf", "allOf", "$ref", "enum", "const", "not"} & fitting.keys()


def test_a_reference_into_a_branch_that_the_top_has_lost_is_put_in_place() -> None:
    schema = {"anyOf": [of(a={"type": "string"}), of(b={"$ref": "#/anyOf/0/properties/a"})]}

    assert fit(schema)["properties"] == {"a": {"type": "string"}, "b": {"type": "string"}}


def test_a_schema_of_any_depth_and_any_number_of_references_is_fitted() -> None:
    deep: dict[str, Any] = {"type": "string"}
    for _ in range(5000):
        deep = {"type": "array", "items": deep}
    defs = {f"A{n}": of(x={"$ref": f"#/$defs/A{n + 1}"}, y={"$ref": f"#/$defs/A{n + 1}"}) for n in range(40)}

    assert str(fit(of(a=deep))).count("items") < 50
    assert len(str(fit({**of(a={"$ref": "#/$defs/A0"}), "$defs": {**defs, "A40": {}}}, GEMINI))) < 2_000_000


def test_arguments_that_anthropic_cannot_name_are_left_out_and_described() -> None:
    rules = SchemaRules(property_name=re.compile(r"\w+"))

    fitting = fit({**of(**{"a": {}, "$filter": {}}), "required": ["a", "$filter"]}, rules)

    assert fitting == {**of(a={}), "required": ["a"], "description": "(not available here: $filter)"}


@pytest.mark.parametrize(
    ("pattern", "has"),
    [
        ("^[a-z]+$", False),
        ("(?:ab)+", False),
        ("(?P<year>[0-9]{4})", False),
        (r"\(?x", False),
        (r"\\(?=x)", True),
        ("a(?=b)", True),
        ("a(?!b)", True),
        ("(?<=a)b", True),
        ("(?<!a)b", True),
        (r"(a)\1", True),
        (r"(?P<q>a)(?P=q)", True),
    ],
)
def test_look_around_is_found_in_patterns(pattern: str, has: bool) -> None:
    assert has_look_around(pattern) is has


@pytest.mark.parametrize(
    ("schema", "fitting"),
    [
        ({"type": ["string", "null"]}, {"type": "string", "nullable": True}),
        (
            {"anyOf": [{"type": "string"}, {"type": "null"}], "title": "A"},
            {"type": "string", "nullable": True, "title": "A"},
        ),
        ({"type": ["string", "integer"]}, {"anyOf": [{"type": "string"}, {"type": "integer"}]}),
        ({"oneOf": [{"type": "string"}, {"type": "integer"}]}, {"anyOf": [{"type": "string"}, {"type": "integer"}]}),
        ({"type": "array"}, {"type": "array", "items": {"type": "string"}}),
        ({"type": "object"}, {"type": "object"}),
        ({"const": "x"}, {"type": "string", "enum": ["x"]}),
        ({"enum": [1, 2], "type": "integer"}, {"type": "integer", "description": "(one of [1,2])"}),
        ({"type": "string", "format": "uri"}, {"type": "string", "description": "(format: uri)"}),
        ({"type": "integer", "exclusiveMinimum": 0}, {"type": "integer", "description": "(exclusiveMinimum: 0)"}),
        ({"type": "object", "properties": {"x": {}}, "additionalProperties": False}, of(x={"type": "string"})),
        ({"$ref": "#/$defs/A", "description": "Which."}, {"type": "string", "description": "Which."}),
        ({}, {"type": "string"}),
    ],
    ids=str,
)  # fmt: skip
def test_gemini_gets_its_own_subset(schema: Any, fitting: Any) -> None:
    assert fit({**of(a=schema), "$defs": {"A": {"type": "string"}}}, GEMINI) == of(a=fitting)


def test_gemini_gets_no_parameters_where_there_are_none() -> None:
    assert fit(of(), GEMINI) is None


def test_gemini_gets_a_recursive_schema_once() -> None:
    schema = {**of(a={"$ref": "#/$defs/A"}), "$defs": {"A": of(next={"$ref": "#/$defs/A"})}}

    inner = {"type": "object", "description": "(again as A)"}
    assert fit(schema, GEMINI) == of(a=of(next=inner))
