"""No file gives a traceback: whatever is in it, it becomes a team, or an error with its place."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from jsonschema import Draft202012Validator

from agentloop.declarative import LoadedTeam, TeamFileError, json_schema, load_team
from agentloop.declarative._forms import (
    ByType,
    Duration,
    Flag,
    Form,
    Json,
    ListOf,
    MapOf,
    Number,
    OneOf,
    Ref,
    Text,
)
from agentloop.declarative._table import TABLE
from tests.declarative.examples import DOCS, VALUES, every_field, text_of

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX system")

VALIDATOR = Draft202012Validator(json_schema())

FILES = [document for _, _, _, document in every_field()]

WORDS = st.sampled_from(
    ["root", "other", "m", "p", "t", "r", "s", "b", "c", "k", "openai/gpt-5", "auto", "a, b", "docker:x", DOCS, ".",
     "true", "shell", "shell:cmd=ls*", "tool[", "http://[", "https://x.example", "${env.NONE}", "${env.HOME}", "$X",
     "~", "/etc", "..", "1m", "9" * 400, "-1", "", " ", "\0", "\ud800", "\u202e", "x" * 2000, "|", "*", "(", "${",
     "$9", "sk-" + "a" * 30]
)  # fmt: skip
"""Texts that mean something somewhere."""
TEXTS = st.one_of(WORDS, st.text(max_size=20))
OBEYED = {*map(chr, [*range(9), *range(11, 32), *range(127, 160), 0x202E, 0xD800])}
"""Characters that a terminal obeys, or that it cannot write."""
SCALARS = st.one_of(
    TEXTS,
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.floats(),
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=8,
)


def values(form: Form, depth: int, record: str = "", name: str = "") -> st.SearchStrategy[Any]:
    """Values of a form; now and then, others."""
    fitting = _fitting(form, depth)
    if (record, name) in VALUES:
        fitting = st.one_of(st.just(VALUES[record, name]), fitting)
    return st.one_of(fitting, fitting, fitting, fitting, fitting, ANYTHING)


def _fitting(form: Form, depth: int) -> st.SearchStrategy[Any]:
    match form:
        case Text(choices=choices):
            return st.sampled_from(choices) if choices else TEXTS
        case Number(least=least, most=most, is_whole=is_whole):
            low, high = max(least, -1e6), min(most, 1e6)
            return st.integers(int(low), int(high)) if is_whole else st.floats(low, high)
        case Flag():
            return st.booleans()
        case Duration():
            return st.sampled_from(["1s", "1m30s", "0s", "5", 3, "1.5h"])
        case Json(is_mapping=True):
            return st.dictionaries(TEXTS, ANYTHING, max_size=3)
        case Json():
            return ANYTHING
        case _ if depth <= 0:
            return st.just([]) if isinstance(form, ListOf) else st.just({})
        case ListOf(form=inner):
            return st.lists(st.deferred(lambda: values(inner, depth - 1)), max_size=3)
        case MapOf(form=inner):
            return st.dictionaries(WORDS, st.deferred(lambda: values(inner, depth - 1)), max_size=3)
        case OneOf(forms=forms):
            return st.one_of(*[_fitting(inner, depth) for inner in forms])
        case Ref(record=other):
            return st.deferred(lambda: records(other, depth - 1))
        case ByType(prefix=prefix, types=types):
            return st.sampled_from(types).flatmap(lambda kind: records(f"{prefix}.{kind}", depth - 1))
        case _:
            raise AssertionError(form)


def records(name: str, depth: int) -> st.SearchStrategy[dict[str, Any]]:
    """Mappings with the fields of a record, few of them at a time."""
    fields = TABLE[name].fields
    required = {field.name: values(field.form, depth, name, field.name) for field in fields if field.is_required}
    optional = {field.name: values(field.form, depth, name, field.name) for field in fields if not field.is_required}
    fixed = {"type": st.just(name.partition(".")[2])} if name.startswith("toolset.") else {}
    some = st.sets(st.sampled_from(sorted(optional)), max_size=4) if optional else st.just(set[str]())
    return some.flatmap(lambda chosen: st.fixed_dictionaries(required | fixed | {key: optional[key] for key in chosen}))


def check(text: str, folder: Path) -> LoadedTeam | None:
    """Load a file: a team, or an error that names the file."""
    path = folder / "team.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    folder.joinpath(DOCS).write_text("Some notes.\n")
    team, problem = _loaded(path)
    if team is None:
        assert problem.startswith(str(path))
        assert not OBEYED & {*problem}
        return None
    for one in team.unsupported:
        assert one.place.line > 0
        assert one.reason.endswith(".")
    return team


def _loaded(path: Path) -> tuple[LoadedTeam | None, str]:
    try:
        return load_team(path, env={"HOME": "/root"}, folder=path.parent), ""
    except TeamFileError as error:
        return None, str(error)


SETTINGS = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)


@SETTINGS
@given(records("file", 5))
def test_no_file_with_the_fields_of_the_format_gives_a_traceback(tmp_path: Path, document: dict[str, Any]) -> None:
    check(text_of(document), tmp_path)


@SETTINGS
@given(st.sampled_from(FILES), st.data())
def test_no_file_with_one_value_changed_gives_a_traceback(
    tmp_path: Path, document: dict[str, Any], data: st.DataObject
) -> None:
    check(text_of(_changed(document, data)), tmp_path)


def _changed(value: Any, data: st.DataObject) -> Any:
    """A copy of a document with something else somewhere in it."""
    inside: list[Any] = [*value] if isinstance(value, dict) else [*range(len(value))] if isinstance(value, list) else []
    if not inside or data.draw(st.integers(0, 5)) == 0:
        return data.draw(ANYTHING)
    key = data.draw(st.sampled_from(inside))
    made = dict(value) if isinstance(value, dict) else [*value]
    made[key] = _changed(made[key], data)
    return made


@SETTINGS
@given(st.sampled_from(FILES), st.integers(0, 3000), st.integers(0, 5), st.text(max_size=5))
def test_no_file_with_other_characters_in_it_gives_a_traceback(
    tmp_path: Path, document: dict[str, Any], start: int, length: int, new: str
) -> None:
    text = text_of(document)
    start %= len(text)
    check(text[:start] + new + text[start + length :], tmp_path)


@SETTINGS
@given(st.one_of(st.text(), st.text(alphabet="{}[]:,-&*!|>'\"#%@`?<~ \n\tab01.$\\", max_size=60)))
def test_no_text_gives_a_traceback(tmp_path: Path, text: str) -> None:
    check(text, tmp_path)


@SETTINGS
@given(st.sampled_from(FILES), st.data())
def test_what_the_loader_takes_fits_the_schema(tmp_path: Path, document: dict[str, Any], data: st.DataObject) -> None:
    changed = _changed(document, data)
    if check(text_of(changed), tmp_path) is not None:
        problems = [error.message for error in VALIDATOR.iter_errors(changed)]
        assert problems == []
