"""YAML as a tree that knows its lines: what is refused, and where."""

from __future__ import annotations

import math

import pytest

from agentloop.declarative import TeamFileError, load_team
from agentloop.declarative._document import MAX_DEPTH, read_document

AGENT = "agents:\n  root:\n    model: openai/gpt-5\n"


def plain(text: str) -> object:
    return read_document(text, "team.yaml").plain()


def problem(text: str) -> str:
    with pytest.raises(TeamFileError) as caught:
        read_document(text, "team.yaml")
    return str(caught.value)


def test_scalars_are_those_of_yaml_1_2() -> None:
    text = "[yes, on, true, 12:30, 2026-11-29, 0o17, 0x1F, 1_000, 1.5, 1e3, ~, '', 'true', .inf, -7, null]"
    assert plain(text) == [
        "yes", "on", True, "12:30", "2026-11-29", 15, 31, "1_000", 1.5, 1000.0, None, "", "true", math.inf, -7, None,
    ]  # fmt: skip


def test_a_mapping_takes_the_entries_that_a_merge_brings_unless_it_has_them() -> None:
    assert plain("base: &base {a: 1, b: 2}\nmade: {<<: *base, b: 3}") == {
        "base": {"a": 1, "b": 2},
        "made": {"a": 1, "b": 3},
    }


def test_of_two_merged_mappings_the_first_counts() -> None:
    assert plain("a: &a {x: 1}\nb: &b {x: 2, y: 3}\nc: {<<: [*a, *b]}")["c"] == {"x": 1, "y": 3}  # type: ignore[index]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2\n", "team.yaml:2:1: the key 'a' is there twice, first in line 1"),
        ("a:\n  - b\n  c: d\n", "team.yaml:3:3: this is no YAML"),
        ("a: [1, 2", "team.yaml:1:9: this is no YAML"),
        ("a: &a [*a]", "an alias leads back to a value that it is in"),
        ("? [a]\n: b\n", "team.yaml:1:3: a key is a text"),
        ("a: !!python/object:os.system x\n", "team.yaml:1:4: the tag"),
        ("a: !secret x\n", "team.yaml:1:4: the tag '!secret' is not read"),
        ("<<: 3\n", "team.yaml:1:5: '<<' takes a mapping"),
        ("a: 1\n---\nb: 2\n", "this is no YAML: expected a single document"),
        ("a: \x01\n", "this is no YAML"),
        ('a: "\\U00110000"\n', "this is no YAML"),
        ("", "team.yaml:1:1: the file is empty"),
        ("# nothing\n", "the file is empty"),
    ],
)
def test_what_is_no_document_is_refused_with_its_place(text: str, message: str) -> None:
    assert message in problem(text)


def test_a_file_that_nests_too_deeply_is_refused() -> None:
    assert f"more than {MAX_DEPTH} levels" in problem("[" * 5000)
    assert f"more than {MAX_DEPTH} levels" in problem("\n".join("  " * depth + "a:" for depth in range(200)))


def test_aliases_count_as_often_as_they_are_used() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    assert "values, with its aliases" in problem("\n".join(lines))


def test_an_error_shows_no_part_of_the_file_that_could_be_a_secret() -> None:
    assert "hunter2" not in problem("password: hunter2: hunter2\n")


def test_a_file_that_is_not_there_or_is_no_text_is_named(tmp_path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(TeamFileError, match=r"none\.yaml: the file cannot be read: No such file"):
        load_team("none.yaml")
    tmp_path.joinpath("bytes.yaml").write_bytes(b"agents: \xff\xfe")
    with pytest.raises(TeamFileError, match="the file is not UTF-8"):
        load_team(tmp_path / "bytes.yaml")
    with pytest.raises(TeamFileError, match="cannot be read"):
        load_team(tmp_path)


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "team.yaml"
    path.write_text(AGENT, encoding="utf-8-sig")
    assert load_team(path).path == str(path)
