"""Every field of the table: a file with it is read, and the field is obeyed, or named."""

from __future__ import annotations

import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from agentloop.declarative import json_schema
from agentloop.declarative._forms import ByType, Field, Form, ListOf, MapOf, OneOf, Record, Ref
from agentloop.declarative._table import TABLE
from agentloop.declarative._team import load_and_report
from tests.declarative.examples import DOCS, every_field, is_idle, text_of

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX system")

FIELDS = [*every_field()]
WITHOUT_A_LOOK = {
    "bypass_models_gateway",
    "description",
    "mode",
    "name",
    "preempt_yolo",
    "results",
    "safer",
    "shared",
    "strict",
    "strict_output",
    "track_usage",
}
"""Fields that ask for what happens in any case, as their notes say, or that only explain."""

VALIDATOR = Draft202012Validator(json_schema())


@pytest.mark.parametrize(
    ("record", "field", "path", "document"), FIELDS, ids=[f"{row[0].name}.{row[1].name}" for row in FIELDS]
)
def test_a_field_is_obeyed_or_named(
    tmp_path: Path, record: Record, field: Field, path: str, document: dict[str, Any]
) -> None:
    tmp_path.joinpath(DOCS).write_text("Some notes.\n")
    file = tmp_path / "team.yaml"
    file.write_text(text_of(document))
    team, report = load_and_report(file, models=None, env={}, folder=tmp_path)
    named = {one.field for one in team.unsupported}
    if field.does == "named":
        assert path in named
    elif path not in report.read:
        assert field.name in WITHOUT_A_LOOK or (record.name.endswith(" group") and field.name == "type"), path
    else:
        # What the loader has not looked at cannot be obeyed.
        assert field.does in ("obeyed", "partly")
    assert [error.message for error in VALIDATOR.iter_errors(document)] == []


NOT_TOGETHER = {"instruction", "instruction_file"}


SOME = slice(0, None, 5)
"""Of the pairs, every fifth: the fuzz makes more of them."""


def test_two_fields_of_an_agent_can_stand_together(tmp_path: Path) -> None:
    tmp_path.joinpath(DOCS).write_text("Some notes.\n")
    rows = [(field.name, field.does, document) for record, field, _, document in FIELDS if record.name == "agent"]
    for (one, does, first), (other, also, second) in [*combinations(rows, 2)][SOME]:
        if {one, other} == NOT_TOGETHER:
            continue
        root = {**first["agents"]["root"], **second["agents"]["root"]}
        file = tmp_path / "team.yaml"
        file.write_text(text_of({**first, "agents": {**first["agents"], "root": root}}))
        team, _ = load_and_report(file, models=None, env={}, folder=tmp_path)
        named = {field.field for field in team.unsupported}
        assert (f"agents.root.{one}" in named) >= (does == "named"), (one, other)
        assert (f"agents.root.{other}" in named) >= (also == "named"), (one, other)


def test_every_note_is_a_sentence_and_every_field_is_explained() -> None:
    for record in TABLE.values():
        for field in record.fields:
            assert field.says[:1].isupper(), (record.name, field.name)
            assert field.says.endswith("."), (record.name, field.name)
            assert (field.does == "obeyed") == (not field.note), (record.name, field.name)
            for text in filter(None, (field.note, record.note)):
                assert text.endswith("."), (record.name, field.name)
                assert text[0].isupper() or text[0] == "`", (record.name, field.name)


def effective(record: Record) -> set[str]:
    """The records that a record leads to through fields with an effect."""
    return {name for field in record.fields if field.does != "named" for name in referred(field.form)}


def referred(form: Form) -> set[str]:
    match form:
        case Ref(record=name):
            return {name}
        case ByType(prefix=prefix, types=types):
            return {f"{prefix}.{name}" for name in types}
        case ListOf(form=inner) | MapOf(form=inner):
            return referred(inner)
        case OneOf(forms=forms):
            return {name for inner in forms for name in referred(inner)}
        case _:
            return set()


def test_the_records_without_effect_are_those_that_no_field_with_an_effect_leads_to() -> None:
    found, todo = {"file"}, ["file"]
    while todo:
        record = TABLE[todo.pop()]
        new = set() if record.note else effective(record) - found
        found |= new
        todo += new
    with_effect = {name for name in found if not TABLE[name].note}
    assert with_effect == {record.name for record in TABLE.values() if not is_idle(record)}


def test_the_schema_is_one_and_refuses_what_the_loader_refuses() -> None:
    Draft202012Validator.check_schema(json_schema())
    wrong: list[dict[str, Any]] = [
        {},
        {"agents": {}},
        {"agents": {"root": {"modle": "x"}}},
        {"agents": {"root": {"model": "x", "max_iterations": -1}}},
        {"agents": {"root": {"model": "x", "toolsets": [{"type": "shel"}]}}},
        {"agents": {"root": {"model": "x", "toolsets": [{"type": "think", "env": {}}]}}},
    ]
    for document in wrong:
        assert not VALIDATOR.is_valid(document), document
    assert VALIDATOR.is_valid({"agents": {"root": {"model": "x", "cache": None}}})
