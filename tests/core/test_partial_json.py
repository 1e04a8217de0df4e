"""JSON text that is still being written, as the value that it stands for so far."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, strategies as st

from agentloop._core.json_text import is_array, is_object
from agentloop._core.partial_json import Change, PartialJson

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e9, 1e9) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.text(max_size=4), JSON, max_size=4) | st.lists(JSON, max_size=4)
IDEAL: dict[str, Any] = {"city": 'Por\u00f4to "x" \U0001f600', "n": [1, 2.5, True, None, -3e5], "o": {"p": [{}, []]}}


def pieces_of(text: str, size: int) -> Iterator[str]:
    return (text[start : start + size] for start in range(0, len(text), size))


def fed(*pieces: str) -> Any:
    parser = PartialJson()
    for piece in pieces:
        parser.feed(piece)
    return parser.value


def applied(changes: list[Change]) -> Any:
    """The value that a reader of the changes builds."""
    top: Any = {}
    for change in changes:
        *steps, last = ("top", *change.path)
        part: Any = top
        for step in steps:
            part = part[step]
        value = json.loads(json.dumps(change.value))
        if change.is_piece:
            part[last] += value
        elif is_array(part):
            assert last == len(part)
            part.append(value)
        else:
            part[last] = value
    return top.get("top")


def is_beginning(value: Any, whole: Any) -> bool:
    """Whether ``value`` can become ``whole`` by additions alone."""
    if isinstance(whole, str):
        return isinstance(value, str) and whole.startswith(value)
    if is_array(whole):
        return is_array(value) and all(map(is_beginning, value, whole)) and len(value) <= len(whole)
    if is_object(whole):
        return is_object(value) and all(name in whole and is_beginning(value[name], whole[name]) for name in value)
    return bool(value == whole)


@given(OBJECTS, st.integers(1, 9), st.booleans())
def test_each_value_is_a_beginning_of_the_whole_value(whole: Any, size: int, ascii_only: bool) -> None:
    text = json.dumps(whole, ensure_ascii=ascii_only)
    changes: list[Change] = []
    parser = PartialJson(changes.append)
    values: list[Any] = []
    shown: list[str] = []
    for piece in pieces_of(text, size):
        parser.feed(piece)
        values.append(parser.value)
        shown.append(json.dumps(parser.value))
        assert values[-1] is None or is_beginning(values[-1], whole)

    assert parser.value == whole
    assert applied(changes) == whole
    # No later piece has changed a value that was read before.
    assert [json.dumps(value) for value in values] == shown


@given(st.text('{}[]",:\\ue0189dtfn -\n'), st.integers(1, 4))
def test_no_text_is_too_odd_to_be_read(text: str, size: int) -> None:
    changes: list[Change] = []
    parser = PartialJson(changes.append)
    for piece in pieces_of(text, size):
        parser.feed(piece)
        json.dumps(parser.value).encode()
    assert [change for change in changes if change.is_piece and not change.value] == []


BEGINNINGS: list[tuple[str, Any]] = [
    ("", None),
    ("Let me see.", None),
    ("{", {}),
    ('{"ci', {}),
    ('{"city"', {}),
    ('{"city": ', {}),
    ('{"city": "', {"city": ""}),
    ('{"city": "Po\\', {"city": "Po"}),
    ('{"city": "Po\\u00f', {"city": "Po"}),
    ('{"city": "\\ud83d', {"city": ""}),
    ('{"city": "\\ud83d\\ude00', {"city": "\U0001f600"}),
    ('{"city": "\\ud83dx', {"city": "\ufffdx"}),
    ('{"n": 12', {}),
    ('{"n": 12,', {"n": 12}),
    ('{"n": tru', {}),
    ('{"n": true}', {"n": True}),
    ("[1, [2, {", [1, [2, {}]]),
    ("[1.5e3]", [1500.0]),
    ('Here: ```json\n{"a": 1}\n```\nBye!', {"a": 1}),
    ('See [1]. {"a": "b', {"a": "b"}),
    ('{"a": 1} no: {"a": 2', {}),
    ('{"a": 1} no: {"a": 2}', {"a": 2}),
    ('{"a" 1}', None),
    ('{bad} {"a": 1}', {"a": 1}),
    ("[" * 200, []),
]


@pytest.mark.parametrize(("text", "value"), BEGINNINGS)
def test_the_value_is_what_is_certain_so_far(text: str, value: Any) -> None:
    if text != "[" * 200:
        assert fed(text) == value
    assert fed(*text) == fed(text)


def test_the_changes_are_parts_in_the_order_of_the_text() -> None:
    changes: list[Change] = []
    parser = PartialJson(changes.append)
    for piece in ('{"a": "x', 'y", "b": [1, ', "2]}"):
        parser.feed(piece)

    assert changes == [
        Change((), {}),
        Change(("a",), ""),
        Change(("a",), "x", is_piece=True),
        Change(("a",), "y", is_piece=True),
        Change(("b",), []),
        Change(("b", 0), 1),
        Change(("b", 1), 2),
    ]


# ------------------------------------------------------------------------------------- the cost


def calls_of(work: Callable[[], object]) -> int:
    """How many functions ``work`` calls, those of C included."""
    count = 0

    def note(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


@pytest.mark.parametrize(
    "opening", ['{"text": "', '{"items": [1', '{"deep": {"a": [{"text": "', "[" + '{"a": 1}, ' * 5 + "7"]
)
def test_a_piece_costs_the_same_wherever_it_stands(opening: str) -> None:
    piece = ", 1" if opening[-1].isdigit() else "word "
    parser = PartialJson(lambda change: None)
    parser.feed(opening)
    for _ in range(3):
        parser.feed(piece)
    first = calls_of(lambda: parser.feed(piece))
    for _ in range(5000):
        parser.feed(piece)

    assert calls_of(lambda: parser.feed(piece)) == first
    # What the parser holds between pieces, besides the value, does not grow either.
    assert len(parser._scalar) + len(parser._escape) + len(parser._held) < 10


def test_reading_the_value_costs_one_copy_on_each_level() -> None:
    parser = PartialJson()
    parser.feed('{"list": [')
    for _ in range(5000):
        parser.feed('{"a": 1}, ')
    parser.feed('{"text": "')

    def grow() -> None:
        parser.feed("word ")
        _ = parser.value

    grow()
    first = calls_of(grow)
    for _ in range(2000):
        grow()

    assert calls_of(grow) == first
    assert parser._pieces is not None
    assert len(parser._pieces) == 1
    earlier, later = parser.value, parser.value
    assert earlier["list"][0] is later["list"][0]
