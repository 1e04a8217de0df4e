"""How deep JSON may nest is decided by agentloop, alike on every Python and in every thread."""

from __future__ import annotations

import ast
import json
import pickle
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, strategies as st

import agentloop
from agentloop._core.json_text import (
    MAX_DEPTH,
    MAX_OWN_DEPTH,
    JsonDecoder,
    NestingError,
    decode_json,
    decode_own,
    nesting_depth,
)
from agentloop.journal import Record
from agentloop.stores import MemoryStore

FOLDER = Path(agentloop.__file__).parent

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text('[]{}"\\\n,:aé😀'),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text('[]{}"\\'), inner, max_size=4),
)


def depth_of(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth_of, inner), default=0)


@given(JSON, st.booleans(), st.integers(0, 5))
def test_depth_counts_arrays_and_objects_and_nothing_inside_strings(value: Any, ascii_only: bool, enough: int) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    for form in (text, text.encode(), msgspec.Raw(text.encode())):
        assert nesting_depth(form) == depth_of(value)
        assert (nesting_depth(form, enough=enough) > enough) == (depth_of(value) > enough)


@given(st.text('[]{}"\\,:1', max_size=40))
def test_depth_of_any_text_is_at_least_as_far_as_a_decoder_goes(text: str) -> None:
    try:
        value = json.loads(text)
    except ValueError:
        nesting_depth(text)
    else:
        assert nesting_depth(text) == depth_of(value)


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}"), ('[{"[":"]","a":', "}]")])
@pytest.mark.parametrize("limit", [MAX_DEPTH, MAX_OWN_DEPTH])
def test_one_level_more_than_the_limit_is_refused(opening: str, closing: str, limit: int) -> None:
    pairs = limit // (1 + opening.startswith("[{"))
    fits = opening * pairs + "1" + closing * pairs
    too_deep = f"[{fits}]"
    decoder: JsonDecoder[Any] = JsonDecoder(max_depth=limit)
    for decode in (decoder.decode, lambda text: decode_json(text, max_depth=limit)):
        assert depth_of(decode(fits)) == limit
        for text in (too_deep, too_deep.encode(), msgspec.Raw(too_deep.encode())):
            with pytest.raises(NestingError, match=f"at most {limit} levels"):
                decode(text)


def test_many_brackets_side_by_side_are_no_depth() -> None:
    assert decode_json("[" + "[],{}," * 10_000 + "[]]") == [[], {}] * 10_000 + [[]]
    assert decode_json(msgspec.json.encode('[{"\\' * 10_000)) == '[{"\\' * 10_000


def test_text_that_is_too_deep_is_refused_whatever_it_is_decoded_as() -> None:
    text = '{"a":' * 100_000 + "1" + "}" * 100_000
    for type_ in (Any, dict[str, Any], msgspec.Raw, dict[str, msgspec.Raw], int, str):
        with pytest.raises(NestingError):
            decode_json(text, type_)


def test_the_limit_holds_in_a_thread_with_a_small_stack() -> None:
    outcomes: list[object] = []

    def decode() -> None:
        text = "[" * MAX_OWN_DEPTH + "]" * MAX_OWN_DEPTH
        outcomes.append(msgspec.json.encode(decode_own(text)) == text.encode())
        try:
            decode_json("[" * 100_000 + "]" * 100_000)
        except NestingError as error:
            outcomes.append(error.limit)

    before = threading.stack_size(128 * 1024)
    try:
        thread = threading.Thread(target=decode)
        thread.start()
        thread.join()
    finally:
        threading.stack_size(before)
    assert outcomes == [True, MAX_DEPTH]


def test_the_error_survives_pickle() -> None:
    error = pickle.loads(pickle.dumps(NestingError(7)))
    assert (type(error), error.limit, "at most 7 levels" in str(error)) == (NestingError, 7, True)


def test_every_module_decodes_json_with_the_limit() -> None:
    """Only ``json_text`` may call msgspec's decoders. Programs that run without agentloop read what agentloop wrote."""
    without_limit = {
        path.relative_to(FOLDER).as_posix()
        for path in FOLDER.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("msgspec.json.decode", "msgspec.json.Decoder")
    }
    assert without_limit == {"_core/json_text.py"}


async def test_what_agentloop_has_saved_can_nest_deeper_than_what_comes_from_outside() -> None:
    """A record holds a value from outside, and an exported line holds the record."""
    value = "[" * MAX_DEPTH + '"rain"' + "]" * MAX_DEPTH
    async with MemoryStore().open() as store:
        await store.append("s", [Record(1, "k", b'{"message":{"part":%s}}' % value.encode())])
        assert [info.id for info in await store.sessions(search="rain")] == ["s"]
