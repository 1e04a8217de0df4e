"""Sessions that several providers have written in turn, as hypothesis strategies.

A model adapter must be able to send any of them: each provider writes ids, names, thoughts and arguments of its own
kind, tools return files of wrong types, responses are cut off, results are interrupted, and a compaction puts a summary
in the place of the beginning. `agentloop.testing.request_problems` says what a provider would refuse in the request::

    @given(model_requests())
    def test_my_adapter_sends_what_the_provider_accepts(request: ModelRequest) -> None:
        assert_accepted(model.body_of(request), "openai")

The strategies need hypothesis: ``pip install 'agentloop-trio[testing]'``.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec
from attrs import frozen

from agentloop.messages import (
    AssistantMessage,
    AssistantPart,
    File,
    Image,
    Message,
    Reasoning,
    ResultStatus,
    StopReason,
    Text,
    ToolCall,
    ToolResult,
    UserMessage,
    UserPart,
)
from agentloop.models import ModelRequest, ModelSettings, ToolSpec
from agentloop.testing._hypothesis import strategies as st

__all__ = ["model_requests", "texts", "tool_specs", "transcripts", "user_parts"]

_Draw: TypeAlias = st.DrawFn

HEX = "0123456789abcdef"
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


# ---------------------------------------------------------------------------------- parts


def texts() -> st.SearchStrategy[str]:
    """Texts: plain, blank, with control characters, and with half of a surrogate pair."""
    odd = st.sampled_from(
        [
            "",
            " ",
            "\n\t",
            "caf\udce9.txt",
            "\ud83d",
            "\ud83d\ude00",
            "\0",
            "\u2028",
            "</tool_call>",
            "<think>",
            '"}',
            "é",
        ]
    )
    return st.one_of(st.sampled_from(["Yes.", "Look at this.", "I add."]), odd, st.text(max_size=8))


_PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
_FILES = (
    b"",
    b" ",
    b"plain text",
    b"\xff\xfe\0",
    _PNG,
    b"\xff\xd8\xff\xe0\0\x10JFIF",
    b"GIF89a\1\0\1\0",
    b"RIFF\x10\0\0\0WEBPVP8 ",
    b"RIFF\x10\0\0\0WAVEfmt ",
    b"ID3\4\0",
    b"%PDF-1.7\n",
    b"PK\3\4",
    b"BM\x10\0",
    b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    b"<html>Not found</html>",
    b'{"a": 1}',
)
_TYPES = (
    "image/png",
    "image/jpeg",
    "image/jpg",
    "image/svg+xml",
    "image/bmp",
    "IMAGE/GIF",
    "application/pdf",
    "application/octet-stream",
    "application/json",
    "audio/wav",
    "audio/mpeg",
    "text/plain; charset=utf-8",
    "",
)
_URLS = (
    "https://example.org/a.png",
    "http://example.org/a.pdf",
    "file:///etc/passwd",
    "a.png",
    "",
    "data:image/png;base64,iVBORw0KGgo=",
    "data:image/svg+xml,<svg/>",
    "data:image/png;base64,",
    "gs://bucket/a",
    "http://localhost:8000/a.png",
    "https://192.168.0.1/a.png",
    "https://example.org/a b.png",
    "https://example.org/a.svg?x=1",
    "https://[/a.png",
)


def user_parts() -> st.SearchStrategy[UserPart]:
    """Parts of a user message or a result: texts, and files of which many are not what they are called."""
    types, names = st.sampled_from(_TYPES), st.sampled_from(["a.txt", "b.pdf", "", "caf\udce9", "x" * 300])
    data = st.sampled_from(_FILES)
    return st.one_of(
        st.builds(Text, texts()),
        st.builds(Image, data=data, media_type=types),
        st.builds(Image, url=st.sampled_from(_URLS)),
        st.builds(File, data=data, media_type=types, name=names),
        st.builds(File, url=st.sampled_from(_URLS), name=names),
    )


# -------------------------------------------------------------------------------- writers


@frozen(kw_only=True)
class _Writer:
    """A model that has written a part of the session."""

    model: str
    prefix: str
    """What its call ids begin with."""
    alphabet: str
    length: int
    """Characters of an id after the prefix."""
    signatures: tuple[str, ...] = ()
    """The signatures of its thoughts."""


def _json(**fields: Any) -> str:
    return msgspec.json.encode(fields).decode()


_WRITERS = (
    _Writer(model="gpt-5", prefix="call_", alphabet=_LETTERS, length=24),
    _Writer(
        model="gpt-5",
        prefix="call_",
        alphabet=_LETTERS,
        length=24,
        signatures=(
            _json(model="gpt-5", item={"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "e"}),
            _json(model="gpt-5", phase="commentary"),
        ),
    ),
    _Writer(model="qwen3", prefix="chatcmpl-tool-", alphabet=HEX, length=32),
    _Writer(
        model="claude-sonnet-4-5",
        prefix="toolu_",
        alphabet=_LETTERS,
        length=24,
        signatures=(
            _json(anthropic="claude-sonnet-4-5", signature="sig"),
            _json(anthropic="claude-sonnet-4-5", redacted="data"),
        ),
    ),
    _Writer(
        model="claude-opus-5-5",
        prefix="toolu_",
        alphabet=_LETTERS,
        length=24,
        signatures=(_json(anthropic="claude-opus-5-5", signature="sig", prefix="of another conversation"),),
    ),
    _Writer(model="mistral-large-latest", prefix="", alphabet=_LETTERS, length=9),
    _Writer(
        model="gemini-3-pro-preview",
        prefix="function-call-",
        alphabet="0123456789",
        length=20,
        signatures=(
            _json(model="gemini-3-pro-preview", calls={"0": {"google": {"thought_signature": "sig"}}}),
            _json(model="gemini-3-pro-preview", calls={"1": {"google": {"thought_signature": "sig"}}}),
        ),
    ),
    _Writer(model="deepseek-chat", prefix="call_00_", alphabet=_LETTERS, length=22),
    _Writer(
        model="anthropic/claude-sonnet-4.5",
        prefix="tool_0_",
        alphabet=_LETTERS,
        length=12,
        signatures=(_json(model="anthropic/claude-sonnet-4.5", details=[{"type": "reasoning.text", "text": "Hm."}]),),
    ),
    _Writer(model="rogue", prefix="é \udce9/", alphabet=_LETTERS + "$.: ", length=60, signatures=("EqQBCg", "{}", "[")),
)

_NAMES = (
    "add",
    "add",
    "now",
    "multi_tool_use.parallel",
    "functions.add",
    "3d",
    "",
    "no such tool",
    "caf\udce9",
    "x" * 130,
    "$",
    "-",
)
_ARGUMENTS = (
    "{}",
    '{"a": 1, "b": 2}',
    '{"a": "\\ud83d\\ude00"}',
    "",
    " ",
    '{"a": ',
    "[1]",
    "null",
    '"a"',
    '{"a": NaN}',
    '{"a": 1e999}',
    '{"a": [1' + "0" * 400 + "]}",
    '{"a": "\\ud83d"}',
    '{"a": "caf\udce9"}',
    '{"a": 1}{"b": 2}',
    '{"a":' * 60 + "1" + "}" * 60,
    '{"a":' * 300 + "1" + "}" * 300,
    "rm -rf",
)
_STOPS: tuple[StopReason, ...] = ("end", "tool_calls", "length", "refusal", "interrupted")
_STATUSES: tuple[ResultStatus, ...] = ("ok", "ok", "error", "denied", "timeout", "interrupted")


class _Session:
    """A session that is being drawn. Its call ids are unique."""

    def __init__(self, draw: _Draw) -> None:
        self._draw = draw
        self._ids: set[str] = set()
        self.messages: list[Message] = []

    def prompt(self) -> None:
        parts = self._draw(st.lists(user_parts(), min_size=1, max_size=3))
        self.messages.append(UserMessage(tuple(parts)))

    def turn(self) -> None:
        """A response, and the results of its calls."""
        draw = self._draw
        writer = draw(st.sampled_from(_WRITERS))
        parts: list[AssistantPart] = []
        for kind in draw(st.lists(st.sampled_from(["text", "thought", "call", "call"]), max_size=4)):
            if kind == "text":
                parts.append(Text(draw(texts())))
            elif kind == "call":
                name, arguments = draw(st.sampled_from(_NAMES)), draw(st.sampled_from(_ARGUMENTS))
                parts.append(ToolCall(self._id(writer), name, arguments))
            else:
                signature = draw(st.sampled_from((None, *writer.signatures)))
                parts.append(Reasoning(draw(texts()), signature))
        message = AssistantMessage(tuple(parts), draw(st.sampled_from(_STOPS)), writer.model)
        self.messages.append(message)
        for call in message.calls:
            content = draw(st.lists(user_parts(), max_size=2))
            self.messages.append(ToolResult(call.id, call.name, tuple(content), draw(st.sampled_from(_STATUSES))))

    def _id(self, writer: _Writer) -> str:
        id = writer.prefix + self._draw(st.text(writer.alphabet, min_size=writer.length, max_size=writer.length))
        while id in self._ids:
            id = writer.prefix + f"{len(self._ids)}".rjust(writer.length, writer.alphabet[0])
            self._ids.add(f"{id}{len(self._ids)}")
        self._ids.add(id)
        return id


@st.composite
def transcripts(draw: _Draw, *, max_steps: int = 6) -> tuple[Message, ...]:
    """Transcripts that follow agentloop's own rules: each call has one result, in order, and ids are unique.

    Everything else is as models, tools and people write it: prompts that follow one another after a failed request,
    responses that are empty or cut off, prompts in the middle of a turn, and a summary in the place of the beginning.

    Args:
      draw: given by hypothesis.
      max_steps: upper bound of the prompts and responses.
    """
    session = _Session(draw)
    for is_prompt in (True, *draw(st.lists(st.booleans(), max_size=max_steps - 1))):
        if is_prompt:
            session.prompt()
        else:
            session.turn()
    messages = session.messages
    if draw(st.booleans()):
        first = draw(st.integers(0, len(messages)))
        while first < len(messages) and isinstance(messages[first], ToolResult):
            first += 1
        messages = [UserMessage((Text(draw(texts()) or "The summary."),)), *messages[first:]]
    return tuple(messages)


# ------------------------------------------------------------------------------- requests


_WORDS: dict[str, st.SearchStrategy[Any]] = {
    "type": st.sampled_from(
        [
            "object",
            "array",
            "string",
            "integer",
            "null",
            "int",
            "any",
            None,
            ["string", "null"],
            ["object", "array"],
            [],
        ]
    ),
    "description": st.sampled_from(["What it is.", "", None, 7, "caf\udce9"]),
    "required": st.sampled_from([["a"], [], None, True, ["zzz", "a", "a"], [1]]),
    "enum": st.sampled_from([["a", "b"], [1, 2], [], None, [None], [""]]),
    "const": st.sampled_from(["a", 1, None]),
    "pattern": st.sampled_from(["^[a-z]+$", "^(?!root$)", "(?<=a)b", "\\p{L}", "(", None]),
    "format": st.sampled_from(["date", "uri", "color", None]),
    "minimum": st.sampled_from([0, 1.5, "1", None]),
    "exclusiveMinimum": st.sampled_from([0, True, False]),
    "minLength": st.sampled_from([0, 2, -1, 1.5]),
    "default": st.sampled_from([None, 1, {}, []]),
    "examples": st.sampled_from([["a"], "a"]),
    "$ref": st.sampled_from(["#/$defs/A", "#/$defs/B", "#", "#/$defs/none", "other.json", "#/properties/a", 1]),
    "additionalProperties": st.sampled_from([True, False, {}, {"type": "string"}]),
    "$schema": st.just("http://json-schema.org/draft-07/schema#"),
    "$id": st.just("a"),
    "title": st.sampled_from(["A", None]),
    "nullable": st.booleans(),
    "x-order": st.integers(0, 3),
}


def _schemas() -> st.SearchStrategy[Any]:
    def extend(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        names = st.sampled_from(["a", "b", "$filter", "x y", "3", "caf\udce9"])
        words = {
            **_WORDS,
            "properties": st.one_of(st.dictionaries(names, inner, max_size=3), st.none()),
            "items": st.one_of(inner, st.lists(inner, max_size=2)),
            **dict.fromkeys(("anyOf", "oneOf", "allOf"), st.lists(inner, max_size=3)),
            "not": inner,
            "$defs": st.fixed_dictionaries({}, optional={"A": inner, "B": inner}),
            "patternProperties": st.dictionaries(st.sampled_from(["^x", "(?!a)"]), inner, max_size=1),
        }
        return st.fixed_dictionaries({}, optional=words)

    return st.recursive(
        st.one_of(st.booleans(), st.none(), st.fixed_dictionaries({}, optional=_WORDS)), extend, max_leaves=6
    )


def _objects() -> st.SearchStrategy[dict[str, Any]]:
    objects: st.SearchStrategy[dict[str, Any]] = _schemas().filter(lambda schema: isinstance(schema, dict))
    return objects


@st.composite
def tool_specs(
    draw: _Draw, *, names: tuple[str, ...] = ("add", "now", "3d", "_x", "-", "x" * 64)
) -> tuple[ToolSpec, ...]:
    """Tools of MCP servers: their schemas are of any draft, or wrong.

    Args:
      draw: given by hypothesis.
      names: the tools to choose from.
    """
    chosen = draw(st.lists(st.sampled_from(names), unique=True, max_size=3))
    # The top is an object: agentloop's own tools and MCP's rules say so.
    return tuple(ToolSpec(name, draw(texts()), draw(_objects())) for name in chosen)


_INNER = {"type": "object", "properties": {"x": {"type": "integer", "minimum": 0}}, "required": ["x"]}
_OUTPUTS: tuple[dict[str, Any], ...] = (
    {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    {"type": "object", "properties": {"value": {"type": "array", "items": _INNER}}, "required": ["value"]},
    {"type": "object", "properties": {}, "required": []},
    {"type": "object", "additionalProperties": {"type": "integer"}},
    {
        "type": "object",
        "properties": {
            "a": {"$ref": "#/$defs/A", "description": "Which."},
            "b": {"type": "string", "pattern": "(?!x)"},
        },
        "required": ["a"],
        "$defs": {"A": _INNER},
    },
    {"$ref": "#/$defs/Tree", "$defs": {"Tree": {"type": "object", "properties": {"left": {"$ref": "#/$defs/Tree"}}}}},
    {"type": "object", "properties": {"kind": {"enum": [1, "a", None]}, "at": {"type": "string", "format": "uri"}}},
    {"type": "object", "properties": {"m": {"anyOf": [{"type": "null"}, {"type": "object"}], "default": None}}},
)


def _settings() -> st.SearchStrategy[ModelSettings]:
    return st.builds(
        ModelSettings,
        temperature=st.sampled_from([None, 0.0, 1.0, 2.0]),
        top_p=st.sampled_from([None, 0.5, 1.0]),
        max_tokens=st.sampled_from([None, 1, 1500, 100_000]),
        seed=st.sampled_from([None, 7]),
        tool_choice=st.sampled_from([None, "auto", "required", "none"]),
        parallel_tool_calls=st.sampled_from([None, True, False]),
        reasoning_effort=st.sampled_from([None, "minimal", "low", "medium", "high"]),
        stop=st.sampled_from([(), ("END",), ("\n",), ("\n", "END"), (" ",)]),
    )


def model_requests() -> st.SearchStrategy[ModelRequest]:
    """Requests that a run may make: a transcript of several writers, tools, an output, instructions, settings."""
    outputs = st.sampled_from([ToolSpec("Answer", "The final answer.", schema) for schema in _OUTPUTS])
    return st.builds(
        ModelRequest,
        transcripts(),
        instructions=texts(),
        tools=tool_specs(),
        output=st.one_of(st.none(), outputs),
        settings=_settings(),
    )
