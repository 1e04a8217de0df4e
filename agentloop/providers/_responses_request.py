"""A `ModelRequest` as the JSON of a request to OpenAI's Responses API. Plain functions: nothing here waits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Literal, TypeAlias

import msgspec
from attrs import frozen

from agentloop._core.json_text import MAX_OWN_DEPTH, JsonDecoder
from agentloop.messages import (
    AssistantMessage,
    Image,
    Message,
    Text,
    ToolCall,
    ToolResult,
    UserMessage,
    UserPart,
)
from agentloop.models import ModelRequest, ModelSettings, ToolSpec
from agentloop.providers._fitting import Echo, WireRules, data_url, echo_in, file_text, object_arguments
from agentloop.providers._structured_output import openai_output

__all__ = ["Dialect", "ResponsesEcho", "Written", "reasons", "responses_request"]

_RULES = WireRules(max_call_id=64)


@frozen(kw_only=True)
class Dialect:
    """What all requests to one model have in common."""

    model: str
    """What the server calls the model."""
    encrypted_reasoning: bool
    """Whether to ask for the reasoning in a form that can be sent back. A model that does not reason refuses."""
    reasoning_summary: Literal["auto", "concise", "detailed"] | None = None
    """The summary of the reasoning to ask for."""


class ResponsesEcho(Echo, frozen=True):
    """A reasoning item, or the phase of a message."""

    item: dict[str, Any] | None = None
    """A reasoning item."""
    phase: str | None = None
    """The ``phase`` of the message before it: ``commentary`` or ``final_answer``. Without it, models that know it
    take what they said in passing for their answer, and stop early."""


class Written:
    """Messages as they were written last time: each request repeats the one before, and adds a few."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        # By identity: comparing a long message by value costs more than writing it. Each entry keeps its message
        # alive, so that no other one can have its id.
        self._last: dict[int, _Entry] = {}

    def write(self, messages: Iterable[Message], dialect: Dialect) -> list[msgspec.Raw]:
        """The items that ``messages`` are on the wire."""
        now: dict[int, _Entry] = {}
        items: list[msgspec.Raw] = []
        for message in messages:
            entry = self._last.get(id(message)) or _written(message, dialect)
            now[id(message)] = entry
            items += entry[1]
        # What is not in this request is forgotten: this holds one transcript, not all there were.
        self._last = now
        return items


_Entry: TypeAlias = tuple[Message, tuple[msgspec.Raw, ...]]

_encoder = msgspec.json.Encoder()
_echo_decoder = msgspec.json.Decoder(ResponsesEcho)


def reasons(model: str) -> bool:
    """Whether ``model`` reasons, as far as its name tells: those that do not are of the past, and known."""
    name = model.rpartition("/")[2].removeprefix("ft:")
    return not name.startswith(("gpt-3.5", "gpt-4", "chatgpt-", "gpt-5-chat"))


def responses_request(request: ModelRequest, dialect: Dialect, written: Written) -> bytes:
    """The body that asks for ``request``, as a stream that the server does not store."""
    body: dict[str, Any] = {
        "model": dialect.model,
        "input": written.write(request.messages, dialect),
        "stream": True,
        "store": False,
    }
    if dialect.encrypted_reasoning:
        body["include"] = ["reasoning.encrypted_content"]
    if request.instructions:
        body["instructions"] = request.instructions
    if request.tools:
        body["tools"] = [_tool(spec) for spec in request.tools]
    if request.output is not None:
        body["text"] = {"format": {"type": "json_schema", **openai_output(request.output)}}
    body.update(_settings(request.settings, dialect, with_tools=bool(request.tools)))
    body.update(request.settings.extra)
    return _encoder.encode(body)


def _settings(settings: ModelSettings, dialect: Dialect, *, with_tools: bool) -> Iterator[tuple[str, Any]]:
    reasoning = {"effort": settings.reasoning_effort, "summary": dialect.reasoning_summary}
    for field, value in (
        ("temperature", settings.temperature),
        ("top_p", settings.top_p),
        ("max_output_tokens", settings.max_tokens),
        ("reasoning", {key: value for key, value in reasoning.items() if value is not None} or None),
        # Both are refused where there are no tools.
        ("tool_choice", settings.tool_choice if with_tools else None),
        ("parallel_tool_calls", settings.parallel_tool_calls if with_tools else None),
    ):
        if value is not None:
            yield field, value


def _tool(spec: ToolSpec) -> dict[str, Any]:
    # Unless told otherwise, the server would rewrite the schema for its strict mode: all properties required.
    return {
        "type": "function",
        "name": spec.name,
        "description": spec.description,
        "parameters": spec.parameters,
        "strict": False,
    }


# ------------------------------------------------------------------------------ messages


def _written(message: Message, dialect: Dialect) -> _Entry:
    if isinstance(message, UserMessage):
        items = [{"type": "message", "role": "user", "content": _content(message.parts)}]
    elif isinstance(message, AssistantMessage):
        items = _assistant(message, dialect)
    else:
        items = [_result(message)]
    return message, tuple(msgspec.Raw(_encoder.encode(item)) for item in items)


def _content(parts: Iterable[UserPart]) -> str | list[dict[str, Any]]:
    content = [_part(part) for part in parts]
    if all(part["type"] == "input_text" for part in content):
        return "\n\n".join(part["text"] for part in content)
    return content


def _part(part: UserPart) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"type": "input_text", "text": part.text}
    if isinstance(part, Image):
        return {"type": "input_image", "image_url": data_url(part), "detail": "auto"}
    text = file_text(part)
    if text is not None:
        return {"type": "input_text", "text": text}
    if part.data is None:
        return {"type": "input_file", "file_url": data_url(part)}
    return {"type": "input_file", "filename": part.name, "file_data": data_url(part)}


def _assistant(message: AssistantMessage, dialect: Dialect) -> list[dict[str, Any]]:
    """The items of a response, in their order. They have no ids: the server stores none by which to find them."""
    items: list[dict[str, Any]] = []
    for part in message.parts:
        if isinstance(part, Text):
            items.append({"type": "message", "role": "assistant", "content": part.text})
        elif isinstance(part, ToolCall):
            items.append(
                {
                    "type": "function_call",
                    "call_id": _RULES.call_id(part.id),
                    "name": part.name,
                    "arguments": object_arguments(part.arguments),
                }
            )
        else:
            echo = echo_in(part, _echo_decoder, dialect.model)
            if echo is None:
                continue
            if echo.item is not None:
                items.append(echo.item)
            if echo.phase is not None:
                # Not simply the item before: a call may have begun before the message was done.
                for item in [item for item in items if item["type"] == "message"][-1:]:
                    item["phase"] = echo.phase
    # Reasoning that led to nothing, since the response was cut off, is refused.
    while items and items[-1]["type"] == "reasoning":
        items.pop()
    return items


def _result(result: ToolResult) -> dict[str, Any]:
    parts = result.parts
    if result.status != "ok":
        # The protocol has no other way to say that a call failed.
        first = parts[0] if parts else None
        parts = (Text(f"Error: {first.text}"), *parts[1:]) if isinstance(first, Text) else (Text("Error:"), *parts)
    return {"type": "function_call_output", "call_id": _RULES.call_id(result.call_id), "output": _content(parts)}
