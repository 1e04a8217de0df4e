"""Make a transcript fit for a wire: any session can be sent to any provider, whichever models wrote it.

A transcript holds names, call ids, arguments, files and signatures as the model or the tool that made them wrote them.
Each wire accepts less than that, and a provider that refuses a transcript once refuses it for ever. The rules that
several wires share are here; each format applies its own set of them. All of it happens on the way out: the transcript
keeps the original.
"""

from __future__ import annotations

import re
import sys
from base64 import b32encode, b64encode
from collections.abc import Iterable, Mapping
from hashlib import blake2s
from typing import Any, TypeVar, cast

import msgspec
from attrs import field, frozen

from agentloop._core.json_text import JsonDecoder, nesting_depth, whole_text
from agentloop.messages import (
    AssistantMessage,
    AssistantPart,
    File,
    Image,
    Message,
    Reasoning,
    Text,
    ToolCall,
    ToolResult,
    Usage,
    UserMessage,
    UserPart,
)
from agentloop.models import Reply, ToolSpec
from agentloop.providers._media import MediaRules, decoded_text, fit_part

__all__ = [
    "Echo",
    "RenamedReply",
    "WireRules",
    "data_url",
    "echo_in",
    "encode_body",
    "file_text",
    "object_arguments",
    "renamed",
]

CONTINUE = "Go on."
"""The text of the user's message where a wire demands one and the transcript has none."""
NO_OUTPUT = "(no output)"
"""The text of a result that has none: several servers refuse an empty one."""


# ---------------------------------------------------------------------- messages as a whole


@frozen(kw_only=True)
class WireRules:
    """The limits of a wire on ids, names, pictures and files, and `fit`, which puts a message within them."""

    call_id: re.Pattern[str] = re.compile(r"(?s:.+)")
    """What a whole call id must match."""
    made_call_id: int = 29
    """Characters of an id that replaces another one."""
    max_tool_name: int = 64
    """Characters that a tool's name may have."""
    has_letter_first: bool = False
    """Whether a tool's name must begin with a letter or an underscore."""
    media: MediaRules = field(factory=MediaRules)
    """The pictures and files that the wire accepts."""

    def fit(self, message: Message) -> Message:
        """A copy of ``message`` that the wire accepts. The same message always gives the same copy."""
        if isinstance(message, UserMessage):
            return UserMessage(self._parts(message.parts))
        if isinstance(message, ToolResult):
            call_id, name = self.fit_call_id(message.call_id), self.fit_tool_name(message.name)
            return ToolResult(call_id, name, self._parts(message.parts), message.status)
        parts = tuple(self._call(part) if isinstance(part, ToolCall) else part for part in message.parts)
        return AssistantMessage(parts, message.stop, message.model, message.usage)

    def _call(self, call: ToolCall) -> ToolCall:
        return ToolCall(self.fit_call_id(call.id), self.fit_tool_name(call.name), object_arguments(call.arguments))

    def _parts(self, parts: Iterable[UserPart]) -> tuple[UserPart, ...]:
        # Without blank texts, which several servers refuse.
        fitting = (fit_part(part, self.media) for part in parts)
        return tuple(part for part in fitting if not isinstance(part, Text) or part.text.strip())

    def fit_call_id(self, id: str) -> str:
        """``id``, or an id of the same call that the wire accepts. The same id always gives the same result."""
        if self.call_id.fullmatch(id):
            return id
        digest = blake2s(id.encode("utf-8", "surrogatepass"), digest_size=16)
        if self.made_call_id >= 29:
            return f"call_{digest.hexdigest()[:24]}"
        return b32encode(digest.digest()).decode("ascii")[: self.made_call_id]

    def fit_tool_name(self, name: str) -> str:
        """``name`` with ``_`` for each character that a wire refuses, cut to the length that it accepts.

        Models invent names, such as ``multi_tool_use.parallel``; no tool that is offered has such a name.
        """
        fitting = _FOREIGN.sub("_", name) or "_"
        if self.has_letter_first and not (fitting[0].isalpha() or fitting[0] == "_"):
            fitting = f"_{fitting}"
        return fitting[: self.max_tool_name]


_FOREIGN = re.compile(r"[^a-zA-Z0-9_-]")


def renamed(tools: Iterable[ToolSpec], rules: WireRules) -> dict[str, str]:
    """The tools' own names, by the names that the wire makes of them; empty if it leaves all of them as they are."""
    names = {rules.fit_tool_name(spec.name): spec.name for spec in tools}
    return {} if all(name == own for name, own in names.items()) else names


class RenamedReply:
    """A `Reply` that gives each call the tool's own name, which ``names`` has by the name on the wire."""

    __slots__ = ("_names", "_reply")

    def __init__(self, reply: Reply, names: Mapping[str, str]) -> None:
        self._reply = reply
        self._names = names

    async def text(self, text: str, /) -> None:
        """Pass it on."""
        await self._reply.text(text)

    async def reasoning(self, text: str, /, *, signature: str | None = None) -> None:
        """Pass it on."""
        await self._reply.reasoning(text, signature=signature)

    async def tool_call(self, index: int, /, *, id: str = "", name: str = "", arguments: str = "") -> None:
        """Pass it on under the tool's own name."""
        await self._reply.tool_call(index, id=id, name=self._names.get(name, name), arguments=arguments)

    def report_usage(self, usage: Usage, /) -> None:
        """Pass it on."""
        self._reply.report_usage(usage)


# --------------------------------------------------------------------------- texts and JSON


_encoder = msgspec.json.Encoder()


def encode_body(value: Any) -> bytes:
    """The JSON of a request, or of a part of one, with whole characters only: see `whole_text`."""
    try:
        return _encoder.encode(value)
    except UnicodeEncodeError:
        return _encoder.encode(_whole(value))


def _whole(value: Any) -> Any:
    """``value`` with whole characters only."""
    if isinstance(value, str):
        return whole_text(value)
    if isinstance(value, dict):
        return {_whole(key): _whole(inner) for key, inner in cast("dict[str, Any]", value).items()}
    if isinstance(value, (list, tuple)):
        return [_whole(inner) for inner in cast("Iterable[Any]", value)]
    return value


MAX_ARGUMENTS_DEPTH = 32
"""Levels of arrays and objects in the arguments of a call. Servers refuse a request that nests too deeply: some at 100
levels, of which they count three for each of ours."""

_LONG_NUMBER = re.compile(r"\d{309}")
_json_object = JsonDecoder(dict[str, Any])


def _has_small_numbers(value: Any) -> bool:
    """Whether no whole number in ``value`` is above those that a float has: servers read all numbers as floats."""
    if isinstance(value, dict):
        return all(map(_has_small_numbers, cast("dict[str, Any]", value).values()))
    if isinstance(value, list):
        return all(map(_has_small_numbers, cast("Iterable[Any]", value)))
    return not isinstance(value, int) or abs(value) <= sys.float_info.max


def object_arguments(arguments: str) -> str:
    """``arguments`` if they are a JSON object, which all wires demand, else an object that contains them as text."""
    if nesting_depth(arguments, enough=MAX_ARGUMENTS_DEPTH) <= MAX_ARGUMENTS_DEPTH:
        try:
            # To its values, and not only to its structure: a server refuses 1e999 as well.
            values = _json_object.decode(arguments)
        except (msgspec.DecodeError, UnicodeError):
            pass
        else:
            if _LONG_NUMBER.search(arguments) is None or _has_small_numbers(values):
                return arguments
    return encode_body({"invalid_json": arguments}).decode() if arguments.strip() else "{}"


# -------------------------------------------------------------------------- images and files


def data_url(part: Image | File) -> str:
    """The URL of ``part``, or a URL that contains its data (RFC 2397)."""
    if part.data is None:
        return part.url or ""
    return f"data:{part.media_type};base64,{b64encode(part.data).decode('ascii')}"


def file_text(file: File) -> str | None:
    """The text of ``file`` after its name; ``None`` if it is no text file, or only a URL."""
    text = None if file.data is None else decoded_text(file.media_type, file.data)
    return None if text is None else f"{file.name}:\n\n{text}"


# ------------------------------------------------------------------- echoes: signed reasoning


class Echo(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """State that a server wants back unchanged, such as encrypted reasoning. Each format has a class of its own.

    Its JSON is the ``signature`` of a `Reasoning` part. Field names of one format are unknown to the others, so no
    format takes the echo of another one for its own.
    """

    model: str
    """The model that wrote it. The echo goes back to this model only: no other one can read it."""


_E = TypeVar("_E", bound=Echo)


def echo_in(part: AssistantPart, decoder: JsonDecoder[_E], model: str) -> _E | None:
    """The echo in ``part`` that ``model`` gets back; ``None`` if there is none, or another model wrote it."""
    if not isinstance(part, Reasoning) or part.signature is None:
        return None
    try:
        echo = decoder.decode(part.signature)
    except (msgspec.DecodeError, UnicodeError):
        return None
    return echo if echo.model == model else None
