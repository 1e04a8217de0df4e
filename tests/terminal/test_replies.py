"""What typed text means."""

from __future__ import annotations

from typing import Any

import pytest

from agentloop.events import ContinueRequested
from agentloop.questions import Accept, Approve, Decline, Deny
from agentloop.terminal._replies import Field, default_answer, fields_of, verdict
from tests.demo.builders import ANN, approval, elicitation


def one(schema: dict[str, Any], *, required: bool = False) -> Field:
    [field] = fields_of({"type": "object", "properties": {"it": schema}, "required": ["it"] if required else []})
    return field


@pytest.mark.parametrize(
    ("schema", "prompt"),
    [
        ({"type": "string"}, "it: "),
        ({"type": "string", "title": "Your name", "default": "Ann"}, "Your name [Ann]: "),
        ({"type": "integer", "default": 3}, "it (a whole number) [3]: "),
        ({"type": "number"}, "it (a number): "),
        ({"type": "boolean", "default": True}, "it (yes, no) [yes]: "),
        ({"type": "string", "enum": ["red", "blue"]}, "it (red, blue): "),
        ({"type": "string", "oneOf": [{"const": "r", "title": "Red"}]}, "it (r): "),
        ({"type": "array", "items": {"enum": ["a", "b"]}, "default": ["a", "b"]}, "it (a, b) [a, b]: "),
        ({"type": "string", "title": "\x1b[2JName"}, "[2JName: "),
    ],
)
def test_a_field_says_what_to_type(schema: dict[str, Any], prompt: str) -> None:
    assert one(schema).prompt == prompt


@pytest.mark.parametrize(
    ("schema", "typed", "value"),
    [
        ({"type": "string"}, " Ann ", "Ann"),
        ({"type": "integer"}, "12", 12),
        ({"type": "number"}, "1.5", 1.5),
        ({"type": "boolean"}, "Y", True),
        ({"type": "boolean"}, "no", False),
        ({"type": "string", "enum": ["red", "blue"]}, "b", "blue"),
        ({"type": "string", "enum": ["red", "reddish"]}, "red", "red"),
        ({"type": "array", "items": {"enum": ["ham", "egg"]}}, "e, ham", ["egg", "ham"]),
        ({"type": "string", "default": "Ann"}, "", "Ann"),
        ({"type": "string"}, "", None),
    ],
)
def test_a_field_reads_what_is_typed(schema: dict[str, Any], typed: str, value: object) -> None:
    assert one(schema).parse(typed) == value


@pytest.mark.parametrize(
    ("schema", "typed", "problem"),
    [
        ({"type": "integer"}, "many", "a whole number, not 'many'"),
        ({"type": "number"}, "much", "a number, not 'much'"),
        ({"type": "boolean"}, "perhaps", "yes or no, not 'perhaps'"),
        ({"type": "string", "enum": ["red", "rose"]}, "r", "one of red, rose, not 'r'"),
        ({"type": "string"}, " ", "this one is needed"),
    ],
)
def test_a_field_says_what_is_wrong_with_what_is_typed(schema: dict[str, Any], typed: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        one(schema, required=True).parse(typed)


def test_what_was_filled_in_before_is_the_default_the_next_time() -> None:
    form = {"properties": {"it": {"type": "integer", "default": 1}}}

    assert fields_of(form, {"it": 9})[0].prompt == "it (a whole number) [9]: "


def test_where_nobody_types_a_form_is_accepted_with_its_defaults() -> None:
    form = {
        "name": {"type": "string", "default": "Ann"},
        "colour": {"type": "string", "enum": ["red", "blue"]},
        "extras": {"type": "array", "items": {"enum": ["a", "b"]}},
    }

    assert default_answer(elicitation(form)) == Accept({"name": "Ann", "colour": "red", "extras": ["a"]})


def test_where_nobody_types_a_field_without_a_default_is_declined() -> None:
    assert default_answer(elicitation({"name": {"type": "string"}})) == Decline(
        "Nobody is there to type, and 'name' has no default."
    )


def test_where_nobody_types_everything_is_approved() -> None:
    go_on = ContinueRequested(ANN, 1, id="q", limit="turns", used=1, allowed=1)

    assert [default_answer(approval()), default_answer(go_on)] == [Approve(), Approve()]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("y", Approve()),
        ("Yes", Approve()),
        ("a", Approve(always=True)),
        ("safe", Approve(always="safe")),
        ("safer", Approve(always="safer")),
        ("always", Approve(always=True)),
        ("n", Deny()),
        ("no, not today", Deny("not today")),
    ],
)
def test_a_verdict_is_yes_or_no_or_no_and_why(typed: str, meant: Approve | Deny) -> None:
    assert verdict(typed) == meant


def test_what_is_neither_yes_nor_no_is_no_verdict() -> None:
    with pytest.raises(ValueError, match="not 'perhaps'"):
        verdict("perhaps")
