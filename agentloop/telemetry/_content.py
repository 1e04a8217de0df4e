"""What people, models and tools have said, as attributes: without secrets, and bounded.

The forms are those of the JSON schemas of the GenAI conventions: a message is a role and its parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from agentloop._core.json_text import whole_text
from agentloop._core.redaction import redacted, redacted_url
from agentloop.messages import (
    AssistantMessage,
    AssistantPart,
    Image,
    Message,
    Reasoning,
    Text,
    ToolCall,
    ToolResult,
    UserMessage,
    UserPart,
)
from agentloop.telemetry._names import FINISH_REASONS

__all__ = ["Content", "plain"]

SLACK = 4096
"""Characters after the limit that are looked through for secrets: one that begins before the limit is found whole."""


def plain(text: str, limit: int = 256) -> str:
    """``text`` as an attribute: of whole characters, and not long. An exporter drops a batch that has others."""
    text = text[:limit]
    return text if text.isascii() else whole_text(text)


class Content:
    """Makes the attributes.

    Args:
      limit: characters of text in an attribute.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit

    def text(self, text: str) -> str:
        """``text`` without secrets, shortened."""
        return self._cut(text, self._limit)

    def messages(self, messages: Sequence[Message]) -> str:
        """``messages`` as JSON. If they are too long, the oldest are left out."""
        left, encoded = self._limit, list[Any]()
        for message in reversed(messages):
            if left <= 0:
                break
            form, left = self._message(message, left)
            encoded.append(form)
        return _json(encoded[::-1])

    def instructions(self, text: str) -> str:
        """The instructions as JSON."""
        return _json([{"type": "text", "content": self.text(text)}])

    def _cut(self, text: str, limit: int) -> str:
        found = redacted(whole_text(text[: limit + SLACK]))
        return found if len(found) <= limit and len(text) <= limit + SLACK else found[:limit] + "..."

    def _message(self, message: Message, left: int) -> tuple[dict[str, Any], int]:
        match message:
            case UserMessage(parts=parts):
                encoded, left = self._parts(parts, left)
                return {"role": "user", "parts": encoded}, left
            case AssistantMessage(parts=parts, stop=stop):
                encoded, left = self._parts(parts, left)
                return {"role": "assistant", "parts": encoded, "finish_reason": FINISH_REASONS[stop]}, left
            case ToolResult(call_id=id, parts=parts):
                encoded, left = self._parts(parts, left)
                result = "\n".join(part["content"] for part in encoded if part["type"] == "text")
                return {"role": "tool", "parts": [{"type": "tool_call_response", "id": id, "response": result}]}, left

    def _parts(self, parts: Iterable[UserPart | AssistantPart], left: int) -> tuple[list[dict[str, Any]], int]:
        encoded: list[dict[str, Any]] = []
        for part in parts:
            form = self._part(part, max(left, 0))
            left -= len(str(form.get("content", form.get("arguments", form.get("uri", "")))))
            encoded.append(form)
        return encoded, left

    def _part(self, part: UserPart | AssistantPart, limit: int) -> dict[str, Any]:
        match part:
            case Text(text=text):
                return {"type": "text", "content": self._cut(text, limit)}
            case Reasoning(text=text):
                return {"type": "reasoning", "content": self._cut(text, limit)}
            case ToolCall(id=id, name=name, arguments=arguments):
                call = {"type": "tool_call", "id": plain(id), "name": plain(name)}
                return {**call, "arguments": self._cut(arguments, limit)}
            case _:
                modality = "image" if isinstance(part, Image) else "document"
                if part.url is not None:
                    return {"type": "uri", "modality": modality, "uri": self._cut(redacted_url(part.url), limit)}
                # Never the bytes: they are long, and no viewer of traces shows them.
                return {"type": "blob", "modality": modality, "mime_type": plain(part.media_type), "content": ""}


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
