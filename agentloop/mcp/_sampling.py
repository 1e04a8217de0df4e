"""Sampling: the requests of a server to a model, and the responses, between MCP's form and agentloop's."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from textwrap import indent
from typing import Any, cast

import mcp_types as types
import msgspec

from agentloop._core.json_text import decode_json
from agentloop._core.response import is_blank
from agentloop._core.transcript import problems
from agentloop.mcp._results import parts_of, tool_name
from agentloop.messages import (
    AssistantMessage,
    AssistantPart,
    File,
    Image,
    Message,
    Text,
    ToolCall,
    ToolResult,
    UserMessage,
    UserPart,
)
from agentloop.models import ModelRequest, ModelSettings, ToolSpec

__all__ = ["SamplingRequest", "has_tools", "shown"]

_STOPS = {"length": "maxTokens", "tool_calls": "toolUse"}


def has_tools(params: types.CreateMessageRequestParams) -> bool:
    """Whether a request is one with tools, which only a client may get that has said so."""
    blocks = (block for message in params.messages for block in message.content_as_list)
    return (
        bool(params.tools)
        or params.tool_choice is not None
        or any(isinstance(block, (types.ToolUseContent, types.ToolResultContent)) for block in blocks)
    )


class SamplingRequest:
    """A request of a server to a model.

    Raises:
      ValueError: two tools have the same name for the model.
    """

    def __init__(self, params: types.CreateMessageRequestParams) -> None:
        self._params = params
        # Providers refuse letters in names that MCP allows.
        self._originals = {tool_name(tool.name, ""): tool.name for tool in params.tools or ()}
        if len(self._originals) < len(params.tools or ()):
            raise ValueError("two tools have the same name, without the letters that providers refuse")

    def for_model(self) -> ModelRequest:
        """The request, with its tools.

        Raises:
          ValueError: no model could answer it; the text says why.
          UsageError: a setting is one that no model takes.
        """
        params = self._params
        tools = tuple(
            [
                ToolSpec(tool_name(tool.name, ""), tool.description or "", tool.input_schema)
                for tool in params.tools or ()
            ]
        )
        messages: list[Message] = []
        names: dict[str, str] = {}
        for message in params.messages:
            messages += _messages(message, names)
        if broken := problems(messages):
            # Providers refuse such a conversation.
            raise ValueError("; ".join(broken))
        choice = params.tool_choice.mode if tools and params.tool_choice is not None else None
        settings = ModelSettings(
            temperature=params.temperature,
            max_tokens=params.max_tokens,
            stop=tuple(params.stop_sequences or ()),
            tool_choice=choice,
        )
        return ModelRequest(tuple(messages), params.system_prompt or "", tools, settings=settings)

    def flaw_of(self, message: AssistantMessage) -> str:
        """Why ``message`` is no answer; empty if it is one. An answer may be cut off."""
        if message.stop == "refusal":
            return "it refused"
        if message.stop == "paused":
            return "it paused"
        calls = message.calls if self._originals and message.stop != "length" else ()
        for call in calls:
            if call.name not in self._originals:
                return f"it called a tool {call.name!r}, which there is not"
            if _input(call) is None:
                return f"the arguments of its call of {call.name!r} are no JSON object"
        return "it said nothing" if is_blank(message.text) and not calls else ""

    def answer_of(
        self, message: AssistantMessage, model: str
    ) -> types.CreateMessageResult | types.CreateMessageResultWithTools:
        """The response of ``model``, which has no flaw, for the server."""
        stop = _STOPS.get(message.stop, "endTurn")
        if not self._originals:
            # A server that gave no tools gets one block of text.
            text = types.TextContent(text=message.text)
            return types.CreateMessageResult(role="assistant", content=text, model=model, stop_reason=stop)
        blocks: list[types.SamplingMessageContentBlock] = []
        for part in message.parts:
            if isinstance(part, Text) and part.text:
                blocks.append(types.TextContent(text=part.text))
            elif isinstance(part, ToolCall) and message.stop != "length":
                # Of a response that was cut off, the last call may not be whole.
                name, arguments = self._originals[part.name], _input(part) or {}
                blocks.append(types.ToolUseContent(id=part.id, name=name, input=arguments))
        return types.CreateMessageResultWithTools(role="assistant", content=blocks, model=model, stop_reason=stop)


def _input(call: ToolCall) -> dict[str, Any] | None:
    """The arguments of ``call``; ``None`` if they are no JSON object."""
    try:
        arguments: object = decode_json(call.arguments or "{}")
    except (msgspec.DecodeError, UnicodeError):
        return None
    return cast("dict[str, Any]", arguments) if isinstance(arguments, dict) else None


def _messages(message: types.SamplingMessage, names: dict[str, str]) -> Sequence[Message]:
    """A message of the server, as one of ours, or as one for each result of a tool.

    Args:
      names: the tools of the calls so far, by the calls' ids. Those of this message are added.
    """
    blocks = message.content_as_list
    if message.role == "assistant":
        return [_said(blocks, names)]
    results = [block for block in blocks if isinstance(block, types.ToolResultContent)]
    if not results:
        return [UserMessage(tuple([_part(block) for block in blocks]))]
    if len(results) < len(blocks):
        raise ValueError("a message with results of tools can have nothing else")
    order = list(names)
    results.sort(key=lambda block: order.index(block.tool_use_id) if block.tool_use_id in order else -1)
    return [_result(block, names) for block in results]


def _said(blocks: Sequence[types.SamplingMessageContentBlock], names: dict[str, str]) -> AssistantMessage:
    parts: list[AssistantPart] = []
    for block in blocks:
        match block:
            case types.TextContent(text=text):
                parts.append(Text(text))
            case types.ToolUseContent(id=id, name=name):
                names[id] = tool_name(name, "")
                parts.append(ToolCall(id, names[id], json.dumps(block.input)))
            case _:
                raise ValueError("an assistant's message can only be text and calls of tools")
    return AssistantMessage(tuple(parts), stop="tool_calls" if any(type(part) is ToolCall for part in parts) else "end")


def _result(block: types.ToolResultContent, names: dict[str, str]) -> ToolResult:
    parts = parts_of(block.content)
    if not parts and block.structured_content is not None:
        parts = [Text(json.dumps(block.structured_content))]
    id = block.tool_use_id
    return ToolResult(
        id, names.get(id, ""), tuple(parts) or (Text("(no output)"),), "error" if block.is_error else "ok"
    )


def _part(block: types.SamplingMessageContentBlock) -> UserPart:
    match block:
        case types.TextContent(text=text):
            return Text(text)
        case types.ImageContent(data=data, mime_type=media_type):
            return Image(data=base64.b64decode(data, validate=True), media_type=media_type)
        case types.AudioContent(data=data, mime_type=media_type):
            return File(data=base64.b64decode(data, validate=True), media_type=media_type, name="audio")
        case _:
            raise ValueError("a user's message can have no calls of tools")


def shown(request: ModelRequest) -> str:
    """All that would be sent to the model, for the user to approve."""
    settings = request.settings
    values: list[tuple[str, object]] = [
        ("max_tokens", settings.max_tokens),
        ("temperature", settings.temperature),
        ("stop", list(settings.stop) or None),
        ("tool_choice", settings.tool_choice),
    ]
    options = ", ".join(f"{name}={value!r}" for name, value in values if value is not None)
    tools = "\n".join(f"{tool.name}: {tool.description}" for tool in request.tools)
    said = [(_speaker(message), _shown_parts(message)) for message in request.messages]
    sections = [("instructions", request.instructions), ("tools", tools), *said, ("settings", options)]
    # Indented, so that no text can pass for a heading.
    return "\n".join(f"({heading})\n{indent(text, '    ')}" for heading, text in sections if text)


def _speaker(message: Message) -> str:
    if isinstance(message, ToolResult):
        return f"the result of {message.name}"
    return "the model" if isinstance(message, AssistantMessage) else "the user"


def _shown_parts(message: Message) -> str:
    return "\n".join(_shown_part(part) for part in message.parts)


def _shown_part(part: object) -> str:
    match part:
        case Text(text=text):
            return text
        case ToolCall(name=name, arguments=arguments):
            return f"{name}({arguments})"
        case _:
            return _shown_data(part)


def _shown_data(part: object) -> str:
    data = getattr(part, "data", None) or b""
    # The digest tells two images apart, and lets a user compare one with a file.
    digest = hashlib.sha256(data).hexdigest()
    return f"[{type(part).__name__.lower()}: {getattr(part, 'media_type', '')}, {len(data)} bytes, sha256 {digest}]"
