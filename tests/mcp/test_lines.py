"""Lines of a server over stdio that are only nearly messages: each is mended, or fails the call that it answers."""

from __future__ import annotations

from typing import Any

import mcp_types as types
import pytest

from agentloop.mcp._lines import JoinedLines, read_line, without_lone_surrogates

PENDING = (3, 4, "five")


def answers(line: bytes) -> dict[Any, Any]:
    """The results by the ids, or the words of the errors."""
    found: dict[Any, Any] = {}
    for message in read_line(line, PENDING):
        if isinstance(message, types.JSONRPCResponse):
            found[message.id] = message.result
        elif isinstance(message, types.JSONRPCError):
            found[message.id] = message.error.message
    return found


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (rb'{"jsonrpc":"2.0","id":3,"result":{"a":"cut \ud83d"}}', {3: {"a": "cut ?"}}),
        (b'{"jsonrpc":"2.0","id":3,"result":{"a":"\xff"}}', {3: {"a": "\ufffd"}}),
        (b'\xef\xbb\xbf{"jsonrpc":"2.0","id":3,"result":{}}\r', {3: {}}),
        (b'Loading... {"jsonrpc":"2.0","id":3,"result":{}}', {3: {}}),
        (b'[INFO] {"jsonrpc":"2.0","id":3,"result":{}}', {3: {}}),
        (b'{"jsonrpc":"2.0","id":3,"result":{}}{"jsonrpc":"2.0","id":4,"result":{}}', {3: {}, 4: {}}),
        (b'[{"jsonrpc":"2.0","id":3,"result":{}}, {"jsonrpc":"2.0","id":4,"result":{}}]', {3: {}, 4: {}}),
        (b'{"id":3,"result":{}}', {3: {}}),
        (b'{"jsonrpc":"2.0","id":3.0,"result":{}}', {3: {}}),
        (b'{"jsonrpc":"2.0","id":3,"result":{},"error":null}', {3: {}}),
        (b'{"jsonrpc":"2.0","id":3,"error":"boom"}', {3: "boom"}),
        (b'{"jsonrpc":"2.0","id":3,"error":{"code":"E1","message":"boom"}}', {3: "boom"}),
    ],
)
def test_an_answer_that_is_nearly_a_message_is_read(line: bytes, expected: dict[Any, Any]) -> None:
    assert answers(line) == expected


@pytest.mark.parametrize(
    "line",
    [
        b'{"jsonrpc":"2.0","id":3,"result":{"content":[],}}',
        b'{"jsonrpc":"2.0","result":{"id":4,"a":[1,2,]},"id":3}',
        b"{'jsonrpc': '2.0', 'id': 3, 'result': {}}",
        b'{"jsonrpc":"2.0","id":3,"result":{"text":"breaks off',
        b'{"jsonrpc":"2.0","id":3,"result":' + b'{"a":' * 3000 + b"1" + b"}" * 3001,
        b'{"jsonrpc":"2.0","id":3,"result":{"a":' + b"9" * 5000 + b"}}",
        b'{"jsonrpc":"2.0","id":3,"result":[1]}',
        b'{"jsonrpc":"2.0","id":3,"result":null}',
        b'{"jsonrpc":"2.0","id":3}',
    ],
)
def test_an_answer_that_cannot_be_read_fails_its_call(line: bytes) -> None:
    [(id, problem)] = answers(line).items()
    assert id == 3
    assert "the server answered with a" in problem


@pytest.mark.parametrize(
    "line",
    [
        *(b"Listening on 8080", b"{not json}", b"[1, 2]", b"\x00", b"{", b"null", b'"jsonrpc"', b"[[[[", b"{}"),
        *(b'{"level":"info","id":3,"msg":"x"}', b'{"level":"error","error":"x","id":3}'),
        *(b'DEBUG sent {"id": 3, "result": {', b'{"jsonrpc":"2.0","id":null,"result":{}}', b'{"id":9,"result":{}}'),
        b'{"jsonrpc":"2.0","result":{"text":"two calls may be meant',
    ],
)
def test_a_print_for_debugging_answers_no_call(line: bytes) -> None:
    assert answers(line) == {}


def test_a_broken_answer_without_an_id_is_for_the_only_call() -> None:
    [message] = read_line(b'{"jsonrpc":"2.0","result":{"text":"breaks off', [7])
    assert isinstance(message, types.JSONRPCError)
    assert message.id == 7


def test_a_question_with_half_of_an_emoji_is_read() -> None:
    [message] = read_line(rb'{"jsonrpc":"2.0","id":"q","method":"m","params":{"message":"\udc00?"}}', PENDING)
    assert isinstance(message, types.JSONRPCRequest)
    assert message.params == {"message": "??"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (rb'"cut \ud83d"', rb'"cut ?"'),
        (rb'"\udc00 \uD83D\uDE00 \\ud83d"', rb'"? \uD83D\uDE00 \\ud83d"'),
        (rb'"\ud83d\ud83d\ude00"', rb'"?\ud83d\ude00"'),
    ],
)
def test_halves_of_emoji_are_replaced_and_whole_ones_stay(text: bytes, expected: bytes) -> None:
    assert without_lone_surrogates(text) == expected


def joined(text: bytes, max_size: int = 1000) -> list[bytes]:
    lines = JoinedLines(max_size)
    return [whole for line in text.split(b"\n") if (whole := lines.add(line)) is not None]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b'{"a": 1}', [b'{"a": 1}']),
        (b'{\n  "a": 1\n}', [b'{\n  "a": 1\n}']),
        (b'{\r\n\t"a": {\r\n\t\t"b": 1\r\n\t}\r\n}\r', [b'{\n\t"a": {\n\t\t"b": 1\n\t}\n}']),
        (b'{\n  "a": 1\n}\n{\n  "b": 2\n}\n{}', [b'{\n  "a": 1\n}', b'{\n  "b": 2\n}', b"{}"]),
        (b'{\nLoading\n{"a": 1}', [b"Loading", b'{"a": 1}']),
        (b'{\n{\n  "a": 1\n}', [b'{\n  "a": 1\n}']),
        (b"}\n  x\n}", [b"}", b"  x", b"}"]),
    ],
    ids=["line", "indented", "tabs", "several", "banner", "twice", "noise"],
)
def test_a_message_that_was_written_with_indentation_is_joined(text: bytes, expected: list[bytes]) -> None:
    assert joined(text) == expected


def test_lines_that_never_become_a_message_are_forgotten() -> None:
    assert joined(b"{\n" + b"  xxxxxxxx\n" * 50 + b'{"a": 1}', max_size=100)[-1:] == [b'{"a": 1}']
