"""Structured output by a schema of a file: the keywords that models break are checked."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest

from agentloop.declarative import JsonOutput, TeamFileError, load_team
from agentloop.testing import ScriptedModel


def type_of(schema: dict[str, Any]) -> type[JsonOutput]:
    agent = {"model": "openai/x", "structured_output": {"name": "an answer", "schema": schema}}
    made: Any = load_team(json.dumps({"agents": {"root": agent}}, indent=1)).agents[0].output_type
    return cast("type[JsonOutput]", made)


def of(schema: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"x": schema}}


CASES: list[tuple[Any, Any, str]] = [
    ({"type": "string"}, 3, "`x`: give a value of type string"),
    ({"type": ["string", "null"]}, 3, "`x`: give a value of type string or null"),
    ({"type": "integer"}, 1.5, "`x`: give a value of type integer"),
    ({"type": "number"}, True, "`x`: give a value of type number"),
    ({"enum": ["a", "b"]}, "c", "`x`: give one of 'a', 'b'"),
    ({"const": 1}, 2, "`x`: give 1"),
    ({"minimum": 1}, 0, "`x`: minimum is 1"),
    ({"maximum": 1}, 2, "`x`: maximum is 1"),
    ({"minLength": 2}, "a", "`x`: minLength is 2"),
    ({"maxItems": 1}, [1, 2], "`x`: maxItems is 1"),
    ({"items": {"type": "string"}}, ["a", 1], "`x[1]`: give a value of type string"),
    ({"anyOf": [{"type": "string"}, {"type": "null"}]}, 1, "`x`: give a value of type string"),
    ({"allOf": [{"type": "string"}, {"minLength": 3}]}, "ab", "`x`: minLength is 3"),
    ({"type": "object", "properties": {"y": {"type": "string"}}, "required": ["y", ["z"]]}, {}, "`x.y`: it is missing"),
    ({"type": "object", "additionalProperties": False}, {"y": 1}, "`x.y`: it must not be there"),
    ({"type": "object", "additionalProperties": {"type": "string"}}, {"y": 1}, "`x.y`: give a value of type string"),
    ({"$ref": "#/$defs/name"}, 1, "`x`: give a value of type string"),
]


@pytest.mark.parametrize(("schema", "value", "problem"), CASES)
def test_a_value_that_does_not_fit_is_refused_with_its_path(schema: Any, value: Any, problem: str) -> None:
    made = type_of({**of(schema), "$defs": {"name": {"type": "string"}}})
    with pytest.raises(ValueError, match="^" + problem.replace("[", r"\[")):
        made.model_validate({"x": value})


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "integer"}, 3.0),
        ({"type": "unknown"}, 1),
        (True, 1),
        ({"$ref": "#/nowhere"}, 1),
        ({"oneOf": [{"type": "string"}, {"type": "integer"}]}, 1),
        ({"required": "x", "properties": []}, {}),
    ],
)
def test_a_value_that_fits_is_taken_and_keywords_that_are_not_known_decide_nothing(schema: Any, value: Any) -> None:
    made = type_of(of(schema)).model_validate({"x": value})
    assert made == {"x": value}
    assert json.loads(made.model_dump_json()) == {"x": value}


def test_a_schema_that_refers_to_itself_ends() -> None:
    made = type_of({"type": "object", "properties": {"x": {"$ref": "#/properties/x"}}})
    assert made.model_validate({"x": 1}) == {"x": 1}


def test_a_schema_of_no_object_is_refused() -> None:
    for schema in ({"type": "string"}, {"type": "object", "properties": [1]}):
        with pytest.raises(TeamFileError, match="give the schema of an object"):
            type_of(schema)


async def test_an_output_in_a_journal_is_a_plain_object() -> None:
    agent = {"model": "openai/x", "structured_output": {"name": "a", "schema": of({"type": "integer"})}}
    team = load_team(json.dumps({"agents": {"root": agent}}, indent=1), models=ScriptedModel('{"x": 1}'))
    assert (await team.run("Go!")).output == {"x": 1}
