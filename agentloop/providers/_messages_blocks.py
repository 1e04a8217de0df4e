"""What a message holds, as the content blocks of Anthropic's Messages API. Plain functions: nothing here waits.

What the API refuses is left out or said in other words, since a transcript that is refused once is refused for good:
blank texts, a thought without its signature or at the end of a message, ids and names with other characters than those
of its own, files that it has no block for.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable
from typing import Any, TypeAlias

import msgspec

from agentloop._core.json_text import MAX_OWN_DEPTH, JsonDecoder
from agentloop.messages import AssistantMessage, AssistantPart, Image, Reasoning, Text, ToolCall, ToolResult, UserPart
from agentloop.providers._fitting import Echo, WireRules, echo_in, object_arguments

__all__ = [
    "THOUGHTS",
    "Block",
    "MessagesEcho",
    "assistant_blocks",
    "result_blocks",
    "text_block",
    "thought_in",
    "user_blocks",
]

Block: TypeAlias = dict[str, Any]

THOUGHTS = frozenset({"thinking", "redacted_thinking"})
"""The types of blocks that only the model that wrote them may get back."""


class MessagesEcho(Echo, frozen=True):
    """A thinking block."""

    model: str = msgspec.field(name="anthropic")
    """The model that had the thought. A thought is bound to it."""
    signature: str | None = None
    """Of a thinking block."""
    redacted: str | None = None
    """The data of a block of redacted thinking."""
    prefix: str | None = None
    """A digest of all that the model had read before; ``None`` of a model that does not mind."""


_echo_decoder = msgspec.json.Decoder(MessagesEcho)


def user_blocks(parts: Iterable[UserPart]) -> list[Block]:
    """The blocks for ``parts``, but for blank texts, which are refused."""
    return [block for part in parts for block in _part(part)]


def _part(part: UserPart) -> list[Block]:
    if isinstance(part, Text):
        return [text_block(part.text)] if part.text.strip() else []
    if part.url is not None:
        kind = "image" if isinstance(part, Image) or part.media_type in _IMAGES else "document"
        return [{"type": kind, "source": {"type": "url", "url": part.url}}]
    data, media_type = part.data or b"", {"image/jpg": "image/jpeg"}.get(part.media_type, part.media_type)
    name = "image" if isinstance(part, Image) else part.name
    if media_type in _IMAGES:
        return [{"type": "image", "source": _base64(media_type, data)}]
    if media_type == "application/pdf":
        return [{"type": "document", "source": _base64(media_type, data), "title": name}]
    text = _text_of_file(media_type, data)
    if text is None:
        return [text_block(f"({name}: {media_type}, {len(data)} bytes, which you cannot read)")]
    if not text.strip():
        return [text_block(f"({name}: empty)")]
    return [{"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": text}, "title": name}]


_IMAGES = frozenset({"image/gif", "image/jpeg", "image/png", "image/webp"})


def text_block(text: str) -> Block:
    """The block for ``text``, which must not be blank."""
    return {"type": "text", "text": text}


def _base64(media_type: str, data: bytes) -> dict[str, str]:
    return {"type": "base64", "media_type": media_type, "data": b64encode(data).decode("ascii")}


def _text_of_file(media_type: str, data: bytes) -> str | None:
    if not media_type.startswith("text/") and media_type not in _TEXTS:
        return None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return None


_TEXTS = frozenset({"application/json", "application/xml", "application/yaml", "image/svg+xml"})


def assistant_blocks(message: AssistantMessage, model: str) -> list[Block]:
    """The blocks for ``message``; of what it thought, those that ``model`` may get back."""
    said: list[Block] = []
    calls: list[Block] = []
    for part in message.parts:
        if isinstance(part, Text):
            said += _part(part)
        elif isinstance(part, Reasoning):
            said += _thought(part, model)
        else:
            calls.append(_call(part))
    # Calls last: after a call nothing but its result may follow. Claude writes them so, other models may not.
    said += calls
    while said and said[-1]["type"] in THOUGHTS:
        said.pop()
    return said


def _thought(part: Reasoning, model: str) -> list[Block]:
    echo = thought_in(part, model)
    if echo is None:
        return []
    if echo.redacted is not None:
        return [{"type": "redacted_thinking", "data": echo.redacted}]
    return [{"type": "thinking", "thinking": part.text, "signature": echo.signature or ""}]


def thought_in(part: AssistantPart, model: str) -> MessagesEcho | None:
    """The signed thought in ``part``, if ``model`` had it."""
    return echo_in(part, _echo_decoder, model)


def _call(call: ToolCall) -> Block:
    arguments = msgspec.Raw(object_arguments(call.arguments).encode())
    return {"type": "tool_use", "id": _RULES.call_id(call.id), "name": _RULES.tool_name(call.name), "input": arguments}


_RULES = WireRules(max_tool_name=128, foreign=re.compile(r"[^a-zA-Z0-9_-]"))


def result_blocks(result: ToolResult) -> tuple[Block, list[Block]]:
    """The block for ``result``, and what of it must follow the last result of its turn."""
    wire: Block = {"type": "tool_result", "tool_use_id": _RULES.call_id(result.call_id)}
    content, after = user_blocks(result.parts), list[Block]()
    if result.status != "ok":
        wire["is_error"] = True
        # An error must have a content, and it can be text only.
        after = [block for block in content if block["type"] != "text"]
        content = [block for block in content if block["type"] == "text"] or [text_block(f"({result.status})")]
        if after:
            after.insert(
                0, text_block(f"What the tool {result.name} returned besides its error (call {wire['tool_use_id']}):")
            )
    if content:
        wire["content"] = content
    return wire, after
