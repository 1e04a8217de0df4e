"""A `ModelRequest` as the JSON of a chat completion request. Plain functions: nothing here waits."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Iterator
from typing import Any, Literal, TypeAlias

import msgspec
from attrs import frozen

from agentloop._core.json_text import MAX_OWN_DEPTH, JsonDecoder
from agentloop.messages import (
    AssistantMessage,
    Image,
    Message,
    Reasoning,
    Text,
    ToolResult,
    UserMessage,
    UserPart,
)
from agentloop.models import ModelRequest, ModelSettings, ToolSpec
from agentloop.providers._fitting import Echo, data_url, echo_in, file_text, object_arguments
from agentloop.providers._structured_output import openai_output

__all__ = ["ChatEcho", "Dialect", "Written", "chat_request"]


@frozen(kw_only=True)
class Dialect:
    """Where servers that speak the same protocol differ."""

    model: str
    """What the server calls the model."""
    max_tokens_field: str = "max_tokens"
    """OpenAI refuses the old name for models that reason, most others do not know the new one."""
    send_reasoning: Literal["reasoning_content", "reasoning", "reasoning_details"] | None = None
    """The field in which earlier reasoning is sent back; ``None`` to leave it out, since some servers refuse it."""
    stream_usage: bool = True
    """Whether to ask for the usage. A few old servers refuse the question."""


class ChatEcho(Echo, frozen=True):
    """Reasoning in the forms in which servers of the chat completions format want it back."""

    details: list[dict[str, Any]] = msgspec.field(default_factory=list)
    """OpenRouter's ``reasoning_details``: signed or encrypted reasoning."""
    calls: dict[int, dict[str, Any]] = msgspec.field(default_factory=dict)
    """The ``extra_content`` of the response's n-th tool call: Gemini's thought signatures, without which it refuses
    the call's result."""


class Written:
    """Messages as they were written last time: each request repeats the one before, and adds a few."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        # By identity: comparing a long message by value costs more than writing it. Each entry keeps its message
        # alive, so that no other one can have its id.
        self._last: dict[int, _Entry] = {}

    def write(self, messages: Iterable[Message], dialect: Dialect) -> list[_Entry]:
        """``messages`` as they go on the wire, each with the pictures that must follow it."""
        now: dict[int, _Entry] = {}
        entries: list[_Entry] = []
        for message in messages:
            entry = self._last.get(id(message)) or _written(message, dialect)
            now[id(message)] = entry
            entries.append(entry)
        # What is not in this request is forgotten: this holds one transcript, not all there were.
        self._last = now
        return entries


_Entry: TypeAlias = tuple[Message, msgspec.Raw, tuple[UserPart, ...]]

_encoder = msgspec.json.Encoder()
_echo_decoder = msgspec.json.Decoder(ChatEcho)


def chat_request(request: ModelRequest, dialect: Dialect, written: Written) -> bytes:
    """The body that asks for ``request``, as a stream."""
    settings = request.settings
    body: dict[str, Any] = {
        "model": dialect.model,
        "messages": _messages(request, dialect, written),
        "stream": True,
    }
    if dialect.stream_usage:
        body["stream_options"] = {"include_usage": True}
    if request.tools:
        body["tools"] = [_tool(spec) for spec in request.tools]
    if request.output is not None:
        body["response_format"] = {"type": "json_schema", "json_schema": openai_output(request.output)}
    body.update(_settings(settings, dialect, with_tools=bool(request.tools)))
    body.update(settings.extra)
    return _encoder.encode(body)


def _settings(settings: ModelSettings, dialect: Dialect, *, with_tools: bool) -> Iterator[tuple[str, Any]]:
    for field, value in (
        ("temperature", settings.temperature),
        ("top_p", settings.top_p),
        (dialect.max_tokens_field, settings.max_tokens),
        ("seed", settings.seed),
        ("reasoning_effort", settings.reasoning_effort),
        ("stop", settings.stop or None),
        # Both are refused where there are no tools.
        ("tool_choice", settings.tool_choice if with_tools else None),
        ("parallel_tool_calls", settings.parallel_tool_calls if with_tools else None),
    ):
        if value is not None:
            yield field, value


def _tool(spec: ToolSpec) -> dict[str, Any]:
    return {
        "type": "function",
        "function": {"name": spec.name, "description": spec.description, "parameters": spec.parameters},
    }


# ------------------------------------------------------------------------------ messages


def _messages(request: ModelRequest, dialect: Dialect, written: Written) -> list[Any]:
    wire: list[Any] = [{"role": "system", "content": request.instructions}] if request.instructions else []
    pictures: list[UserPart] = []
    for message, raw, more in written.write(request.messages, dialect):
        # After the last result: nothing may stand between the results of one response.
        if pictures and not isinstance(message, ToolResult):
            wire.append(_user(pictures))
            pictures = []
        wire.append(raw)
        pictures += more
    if pictures:
        wire.append(_user(pictures))
    return wire


def _written(message: Message, dialect: Dialect) -> _Entry:
    pictures: tuple[UserPart, ...] = ()
    if isinstance(message, UserMessage):
        wire = _user(message.parts)
    elif isinstance(message, AssistantMessage):
        wire = _assistant(message, dialect)
    else:
        wire, pictures = _result(message)
    return message, msgspec.Raw(_encoder.encode(wire)), pictures


def _user(parts: Iterable[UserPart]) -> dict[str, Any]:
    return {"role": "user", "content": _content(parts)}


def _content(parts: Iterable[UserPart]) -> str | list[dict[str, Any]]:
    content = [_part(part) for part in parts]
    # A string where that is possible: many servers take nothing else.
    if all(part["type"] == "text" for part in content):
        return "\n\n".join(part["text"] for part in content)
    return content


def _part(part: UserPart) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    if isinstance(part, Image):
        return {"type": "image_url", "image_url": {"url": data_url(part)}}
    if part.data is not None:
        text = file_text(part)
        if text is not None:
            return {"type": "text", "text": text}
        if part.media_type in _AUDIO:
            audio = {"data": b64encode(part.data).decode("ascii"), "format": _AUDIO[part.media_type]}
            return {"type": "input_audio", "input_audio": audio}
    return {"type": "file", "file": {"filename": part.name, "file_data": data_url(part)}}


_AUDIO = {
    "audio/mp3": "mp3",
    "audio/mpeg": "mp3",
    "audio/wav": "wav",
    "audio/wave": "wav",
    "audio/x-wav": "wav",
}


def _assistant(message: AssistantMessage, dialect: Dialect) -> dict[str, Any]:
    text, calls = message.text, message.calls
    wire: dict[str, Any] = {"role": "assistant", "content": text if text or not calls else None}
    echo = ChatEcho(dialect.model)
    thoughts: list[str] = []
    for part in message.parts:
        if isinstance(part, Reasoning):
            thoughts.append(part.text)
            echo = echo_in(part, _echo_decoder, dialect.model) or echo
    if calls:
        wire["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": object_arguments(call.arguments)},
                **({"extra_content": echo.calls[index]} if index in echo.calls else {}),
            }
            for index, call in enumerate(calls)
        ]
    if dialect.send_reasoning == "reasoning_details":
        if echo.details:
            wire["reasoning_details"] = echo.details
    # With calls also where there is none: DeepSeek refuses a call without it.
    elif dialect.send_reasoning is not None and (calls or any(thoughts)):
        wire[dialect.send_reasoning] = "".join(thoughts)
    return wire


def _result(result: ToolResult) -> tuple[dict[str, Any], tuple[UserPart, ...]]:
    """The message for ``result``, which can hold text only, and what else there is, for a message after it."""
    text: list[str] = []
    pictures: list[UserPart] = []
    for part in result.parts:
        if isinstance(part, Text):
            text.append(part.text)
        else:
            kind = "image" if isinstance(part, Image) else "file"
            text.append(f"({kind} in the next message of the user)")
            pictures += [Text(f"The {kind} that the tool {result.name} returned (call {result.call_id}):"), part]
    content = "\n\n".join(text)
    # The protocol has no other way to say that a call failed.
    content = content if result.status == "ok" else f"Error: {content}"
    return {"role": "tool", "tool_call_id": result.call_id, "content": content}, tuple(pictures)
