"""Events and messages as JSON, and back."""

from __future__ import annotations

import json
import typing
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin

import msgspec
import pytest
from hypothesis import given, settings, strategies as st

from agentloop.errors import UsageError
from agentloop.events import (
    ApprovalRequested,
    ElicitationRequested,
    ErrorInfo,
    QuestionAnswered,
    Source,
    StreamEvent,
    StreamStopped,
    TextDelta,
    ToolCallFinished,
    UnknownEvent,
)
from agentloop.messages import (
    AssistantMessage,
    File,
    Image,
    Message,
    Reasoning,
    Text,
    ToolCall,
    ToolResult,
    Usage,
    UserMessage,
)
from agentloop.permissions import Exact, Glob, Rule, Under
from agentloop.questions import Accept, Answer, Approve, Cancel, Decline, Deny
from agentloop.safety import BlastRadius
from agentloop.wire import decode_event, decode_messages, encode_event, encode_messages

EVENTS: tuple[type[StreamEvent], ...] = get_args(StreamEvent)

# ------------------------------------------------------- anything that a class may hold

texts = st.text(max_size=8)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inside: st.lists(inside, max_size=2) | st.dictionaries(texts, inside, max_size=2),
    max_leaves=3,
)
names = st.text("abc*?", min_size=1, max_size=8)
# `Under` takes the path of a folder, and no pattern.
folders = st.text("abc/", min_size=1, max_size=8)
conditions = st.builds(Exact, json_values) | st.builds(Glob, names, st.booleans()) | st.builds(Under, folders)
PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    str: texts,
    int: st.integers(-(2**53), 2**53),
    float: st.floats(allow_nan=False, allow_infinity=False),
    bool: st.booleans(),
    bytes: st.binary(max_size=20),
    NoneType: st.none(),
    Any: json_values,
    dict[str, Any]: st.dictionaries(texts, json_values, max_size=2),
    # What is checked when it is made.
    Rule: st.builds(Rule, names, st.dictionaries(names, conditions, max_size=2), st.booleans()),
    # Exactly one of two fields, which their types do not say.
    Image: st.builds(Image, st.binary(max_size=8), st.none(), texts) | st.builds(Image, st.none(), texts, texts),
    File: st.builds(File, st.binary(max_size=8), st.none(), texts, texts)
    | st.builds(File, st.none(), texts, texts, texts),
}


def anything(hint: Any) -> st.SearchStrategy[Any]:
    """Values of a type, as far as the fields of events and messages have them."""
    if hint in PLAIN:
        return PLAIN[hint]
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin in (typing.Union, UnionType):
        return st.one_of([anything(argument) for argument in arguments])
    if origin is tuple:
        assert arguments[1:] == (...,)
        return st.lists(anything(arguments[0]), max_size=3).map(tuple)
    assert issubclass(hint, msgspec.Struct), hint
    hints = typing.get_type_hints(hint)
    return st.builds(hint, **{name: anything(hints[name]) for name in hint.__struct_fields__})


ANY_EVENT = {cls: anything(cls) for cls in EVENTS}
ANY_TRANSCRIPT = anything(tuple[Message, ...])


def same(one: object, other: object) -> bool:
    """Equal, also in the fields that do not count for equality."""
    return one == other and getattr(one, "elapsed", None) == getattr(other, "elapsed", None)


@pytest.mark.parametrize("cls", EVENTS)
@settings(max_examples=25, deadline=None)
@given(st.data())
def test_every_event_is_one_line_of_json_and_comes_back_as_it_was(cls: type[StreamEvent], data: st.DataObject) -> None:
    event = data.draw(ANY_EVENT[cls])
    raw = encode_event(event)
    assert len(raw.splitlines()) == 1
    back = decode_event(raw)
    assert type(back) is cls
    assert same(back, event)
    assert encode_event(back) == raw
    assert same(decode_event(raw.decode()), event)


@settings(max_examples=50, deadline=None)
@given(ANY_TRANSCRIPT)
def test_every_transcript_comes_back_as_it_was(messages: tuple[Message, ...]) -> None:
    raw = encode_messages(messages)
    assert decode_messages(raw) == messages
    assert decode_messages(raw.decode()) == messages
    assert encode_messages(list(messages)) == raw


# ------------------------------------------------------------------------ the stable form

SOURCE = Source("s", "s/1", ("outer", "inner"), "p")
ROOT = Source("s", "s/1", ("a",))
ENVELOPE = {"source": {"session": "s", "stream": "s/1", "agents": ["outer", "inner"], "parent": "p"}, "seq": 7}

# What is in the stores and logs of others: it can be added to, but what is here stays as it is.
GOLDEN: dict[str, dict[str, Any]] = {
    "stream_started": {
        "message": {"type": "user", "parts": [{"type": "text", "text": "Hi"}]},
        "model": "m",
        "continues": False,
        "resumes": "s/1",
    },
    "stream_stopped": {
        "reason": "failed",
        "detail": "gone",
        "error": {"type": "ModelError", "message": "gone"},
        "usage": {"input_tokens": 1, "requests": 1},
    },
    "child_stream_started": {
        "call_id": "c",
        "message": {"type": "user", "parts": [{"type": "image", "url": "https://example.org/cat.png"}]},
        "model": "m",
        "resumes": "",
        "background": "helper-1",
        "hook": "stop",
    },
    "child_stream_stopped": {"call_id": "c", "reason": "completed", "detail": "", "error": None, "usage": {}},
    "turn_started": {"turn": 1},
    "turn_finished": {"turn": 1, "reason": "tool_calls"},
    "text_delta": {"text": "Hi"},
    "reasoning_delta": {"text": "hm"},
    "output_delta": {"location": ["cities", 0, "name"], "value": "Por", "is_piece": True},
    "tool_call_delta": {"call_id": "c", "name": "add", "arguments": '{"a"'},
    "compaction_started": {"reason": "threshold", "tokens": 7},
    "compaction_finished": {"tokens": 3, "first_kept": 4, "summary": "They said hi.", "problem": ""},
    "response_discarded": {
        "error": {"type": "ModelConnectionError", "message": "gone"},
        "model": "one",
        "next_model": "two",
        "delay": 0.5,
        "purpose": "summary",
        "call_id": "",
    },
    "message_committed": {
        "message": {
            "type": "assistant",
            "parts": [
                {"type": "reasoning", "text": "hm", "signature": "sig"},
                {"type": "tool_call", "id": "c", "name": "add", "arguments": "{}"},
            ],
            "stop": "tool_calls",
            "model": "m",
            "usage": {"output_tokens": 2, "cached_tokens": 1, "reasoning_tokens": 1},
        },
        "index": 3,
    },
    "usage_reported": {
        "usage": {"input_tokens": 1},
        "total": {"input_tokens": 2},
        "purpose": "tool",
        "call_id": "c",
        "model": "m",
        "is_complete": True,
    },
    "tool_call_started": {"call_id": "c", "name": "add", "arguments": "{}"},
    "tool_call_output": {"call_id": "c", "text": "working"},
    "tool_call_parked": {"call_id": "c", "name": "add"},
    "handed_off": {"to": "billing", "call_id": "c"},
    "paused": {},
    "resumed": {},
    "tool_call_progress": {"call_id": "c", "progress": 0.5, "total": 1.0, "message": "half"},
    "tool_call_finished": {
        "call_id": "c",
        "name": "add",
        "result": {
            "type": "tool_result",
            "call_id": "c",
            "name": "add",
            "parts": [{"type": "file", "data": "AAEC", "media_type": "text/csv", "name": "a.csv"}],
            "status": "error",
        },
        "error": {"type": "ValueError", "message": "no such file"},
        "elapsed": 1.5,
    },
    "elicitation_requested": {
        "id": "q",
        "call_id": "c",
        "message": "Name?",
        "form": {"type": "object", "properties": {"name": {"type": "string"}}},
        "url": "https://example.org/in",
        "background": "helper-1",
    },
    "approval_requested": {
        "id": "q",
        "call_id": "c",
        "name": "add",
        "arguments": {"a": 1},
        "reason": "sums",
        "read_only": False,
        "destructive": True,
        "assessment": "it adds",
        "blast_radius": {"paths": ["x"], "is_complete": True},
        "metadata": {"team": "ops"},
        "background": "helper-1",
    },
    "continue_requested": {
        "id": "q",
        "limit": "turns",
        "used": 5.0,
        "allowed": 5.0,
        "unpriced": "",
        "background": "helper-1",
    },
    "question_answered": {"id": "q", "answer": {"type": "accept", "content": {"name": "Ada"}}, "by": "reader"},
    "question_declined": {"id": "q", "note": "Nobody is there to be asked."},
    "question_withdrawn": {"id": "q"},
    "question_parked": {"id": "q"},
    "toolset_changed": {"toolset": {"name": "files", "state": "failed", "error": "it did not start", "tools": 3}},
    "tools_changed": {"added": ["read"], "removed": ["write"], "changed": []},
    "warning_issued": {"code": "truncated", "message": "cut off"},
}


def test_an_approval_from_before_it_said_what_the_call_may_do_is_read() -> None:
    form = {"id": "q", "call_id": "c", "name": "add", "arguments": {"a": 1}, "reason": "sums"}
    event = decode_event(json.dumps({"type": "approval_requested", **ENVELOPE, **form}))
    assert isinstance(event, ApprovalRequested)
    assert (event.read_only, event.destructive, event.metadata) == (False, None, {})
    assert event.blast_radius == BlastRadius()


@pytest.mark.parametrize("tag", GOLDEN)
def test_the_form_of_an_event_is_stable(tag: str) -> None:
    form = {"type": tag, **ENVELOPE, **GOLDEN[tag]}
    event = decode_event(json.dumps(form))
    assert not isinstance(event, UnknownEvent)
    assert event.source == SOURCE
    assert json.loads(encode_event(event)) == form


def test_there_is_a_stable_form_of_every_event() -> None:
    assert {type(decode_event(json.dumps({"type": tag, **ENVELOPE, **GOLDEN[tag]}))) for tag in GOLDEN} == set(EVENTS)


@pytest.mark.parametrize(
    ("answer", "form"),
    [
        (Accept({"a": 1}), {"type": "accept", "content": {"a": 1}}),
        (Accept(), {"type": "accept"}),
        (Decline("no"), {"type": "decline", "note": "no"}),
        (Cancel(), {"type": "cancel"}),
        (Approve({"a": 1}, always=True), {"type": "approve", "arguments": {"a": 1}, "always": True}),
        (Approve(), {"type": "approve"}),
        (Approve(always=Rule("shell")), {"type": "approve", "always": {"tool": "shell"}}),
        (
            Approve(
                always=Rule("shell", {"a": Exact(1), "b": Glob("x*"), "c": Under("src")}, allow_other_arguments=False)
            ),
            {
                "type": "approve",
                "always": {
                    "tool": "shell",
                    "where": {
                        "a": {"type": "exact", "value": 1},
                        "b": {"type": "glob", "pattern": "x*"},
                        "c": {"type": "under", "folder": "src"},
                    },
                    "allow_other_arguments": False,
                },
            },
        ),
        (Deny("no"), {"type": "deny", "reason": "no"}),
    ],
)
def test_the_form_of_an_answer_is_stable(answer: Answer, form: dict[str, Any]) -> None:
    event = QuestionAnswered(ROOT, 1, id="q", answer=answer, by="handler")
    assert json.loads(encode_event(event))["answer"] == form
    assert decode_event(encode_event(event)) == event


def test_the_form_of_a_transcript_is_stable() -> None:
    messages: tuple[Message, ...] = (
        UserMessage(
            (Text("Hi"), Image(b"\x00\x01"), File(url="https://example.org/a.pdf", media_type="application/pdf"))
        ),
        AssistantMessage((Reasoning("hm"), Text("Well."), ToolCall("c", "f", "{}")), "tool_calls", "m", Usage(1, 2)),
        ToolResult("c", "f", (Text("ok"),)),
    )
    assert json.loads(encode_messages(messages)) == [
        {
            "type": "user",
            "parts": [
                {"type": "text", "text": "Hi"},
                {"type": "image", "data": "AAE="},
                {"type": "file", "url": "https://example.org/a.pdf", "media_type": "application/pdf"},
            ],
        },
        {
            "type": "assistant",
            "parts": [
                {"type": "reasoning", "text": "hm"},
                {"type": "text", "text": "Well."},
                {"type": "tool_call", "id": "c", "name": "f", "arguments": "{}"},
            ],
            "stop": "tool_calls",
            "model": "m",
            "usage": {"input_tokens": 1, "output_tokens": 2},
        },
        {"type": "tool_result", "call_id": "c", "name": "f", "parts": [{"type": "text", "text": "ok"}]},
    ]


# --------------------------------------------------------------------- from other versions


@pytest.mark.parametrize("raw", [b'{"type":"moon_landed","seq":9,"crew":["a"]}', b'{ "type": "", "x": 1.0 }'])
def test_an_event_of_a_type_that_is_not_known_is_kept_byte_for_byte(raw: bytes) -> None:
    for given_as in (raw, raw.decode(), bytearray(raw)):
        event = decode_event(given_as)  # type: ignore[arg-type]
        assert event == UnknownEvent(json.loads(raw)["type"], raw)
        assert encode_event(event) == raw


def test_a_field_that_is_not_known_is_let_pass() -> None:
    form = {"type": "text_delta", **ENVELOPE, "text": "Hi", "mood": "good"}
    assert decode_event(json.dumps(form)) == TextDelta(SOURCE, 7, "Hi")


def test_a_field_that_was_added_with_a_default_may_be_missing() -> None:
    form = {"type": "stream_stopped", **ENVELOPE, "reason": "completed"}
    assert decode_event(json.dumps(form)) == StreamStopped(SOURCE, 7, reason="completed")


# ------------------------------------------------------------------------------- bad input

DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "nonsense",
        "null",
        "[]",
        "{}",
        '{"type": 5}',
        '{"type": "text_delta"}',
        '{"type": "text_delta", "source": {"session": "s", "stream": "t", "agents": []}, "seq": "1", "text": "x"}',
        '{"type": "text_delta", "source": {"session": "s", "stream": "t", "agents": []}, "seq": 1, "text": 5}',
        '{"type": "text_delta", "source": "s", "seq": 1, "text": "x"}',
        json.dumps({"type": "stream_stopped", **ENVELOPE, "reason": "bored"}),
        json.dumps({"type": "message_committed", **ENVELOPE, "index": 0, "message": {"type": "smoke signal"}}),
        b"\xff\xfe",
        '{"type": "text_delta", "text": "\ud800"}',
        f'{{"type": "moon_landed", "crew": {DEEP}}}',
    ],
    ids=range(15),
)
def test_what_is_no_event_is_an_error_that_shows_how_it_begins(raw: bytes | str) -> None:
    with pytest.raises(UsageError, match="this is not an event") as raised:
        decode_event(raw)
    assert repr(raw[:80]) in str(raised.value)
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize(
    "raw", ["", "5", "{}", '[{"type": "user"}]', '[{"parts": []}]', b"[\xff]", "\ud800", f"[{DEEP}]"]
)
def test_what_is_no_transcript_is_an_error(raw: bytes | str) -> None:
    with pytest.raises(UsageError, match="this is not a list of messages"):
        decode_messages(raw)


@pytest.mark.parametrize("cls", [Image, File])
@pytest.mark.parametrize("fields", [{}, {"data": "AAE=", "url": "x"}])
def test_a_picture_or_file_comes_by_value_or_by_reference(cls: type, fields: dict[str, str]) -> None:
    raw = json.dumps([{"type": "user", "parts": [{"type": cls.__name__.lower(), **fields}]}])
    with pytest.raises(UsageError, match="exactly one of data= and url="):
        decode_messages(raw)


def test_an_event_holds_values_only() -> None:
    """What is sent is what was told: nothing in an event is left behind."""
    event = ToolCallFinished(ROOT, 1, call_id="c", name="f", result=ToolResult("c", "f", ()), elapsed=1.5)
    assert set(event.__struct_fields__) == set(json.loads(encode_event(event))) - {"type"}


def test_an_event_inside_of_a_value_of_the_users_is_encoded_alike() -> None:
    event = TextDelta(ROOT, 7, "Hi")
    assert msgspec.json.encode([event]) == b"[" + encode_event(event) + b"]"
    assert msgspec.json.decode(encode_event(event), type=StreamEvent) == event


def test_the_examples_of_the_documentation_hold() -> None:
    assert json.loads(encode_event(TextDelta(ROOT, 7, "Hi"))) == {
        "type": "text_delta",
        "source": {"session": "s", "stream": "s/1", "agents": ["a"]},
        "seq": 7,
        "text": "Hi",
    }


@pytest.mark.parametrize(
    "event",
    [
        ApprovalRequested(ROOT, 1, id="q", call_id="c", name="n", arguments={"a": [1, {"b": None}]}),
        ElicitationRequested(ROOT, 1, id="q", call_id="c", message="?", form={"type": "object", "properties": {}}),
        StreamStopped(ROOT, 1, reason="failed", error=ErrorInfo("ValueError", "no \u2028 \x00 \U0001f600")),
    ],
    ids=lambda event: type(event).__name__,
)
def test_odd_values_come_back_too(event: StreamEvent) -> None:
    assert decode_event(encode_event(event)) == event
