"""Convert the results of an MCP server's tools to the parts of a message."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast
from urllib.parse import urlsplit

import mcp_types as types
import msgspec

from agentloop._core.json_text import decode_json
from agentloop._core.results import to_text
from agentloop.messages import File, Image, Text, ToolResult, UserPart

__all__ = ["parts_of", "result_of", "tool_name"]

MAX_NAME = 64


def tool_name(name: str, prefix: str) -> str:
    """The name of a server's tool for the model: at most 64 letters, digits, ``_`` and ``-``, as providers require."""
    plain = re.sub(r"[^a-zA-Z0-9_-]", "_", prefix + name)
    if len(plain) <= MAX_NAME:
        return plain
    # A hash of the whole name, since two long names may begin alike.
    return f"{plain[: MAX_NAME - 9]}_{hashlib.sha256(plain.encode()).hexdigest()[:8]}"


def result_of(result: types.CallToolResult) -> ToolResult:
    """The result of a call as a `ToolResult`, whose ``call_id`` and ``name`` the runtime fills in."""
    parts = parts_of(result.content)
    structured = result.structured_content
    if structured is not None and not _repeats(parts, structured) and not _wraps(structured, result.content):
        parts.append(Text(to_text(structured)))
    return ToolResult("", "", tuple(parts) or (Text("(no output)"),), "error" if result.is_error else "ok")


def _repeats(parts: Sequence[UserPart], structured: Any) -> bool:
    """Whether ``parts`` have the same value as ``structured``, as the protocol recommends for older clients."""
    if isinstance(structured, dict) and structured.keys() == {"result"} and parts:
        # The SDK wraps a tool's value that is not an object like this; the parts are the value itself.
        return True
    for part in parts:
        if isinstance(part, Text):
            try:
                if decode_json(part.text) == structured:
                    return True
            except (msgspec.DecodeError, UnicodeError):
                continue
    return False


def _wraps(structured: Any, content: Sequence[types.ContentBlock]) -> bool:
    """Whether ``structured`` is an object with one field that repeats ``content``: its text, or all of it.

    The reference server of files answers like this. Its files would reach the model twice, images as base64.
    """
    values = list(cast("dict[str, Any]", structured).values()) if isinstance(structured, dict) else []
    if len(values) != 1:
        return False
    [value] = values
    if isinstance(value, str):
        return value == "".join(block.text if isinstance(block, types.TextContent) else "" for block in content)
    return bool(value == [block.model_dump(by_alias=True, mode="json", exclude_none=True) for block in content])


def parts_of(content: Sequence[types.ContentBlock]) -> list[UserPart]:
    """Convert ``content`` to parts, without empty texts, which several providers refuse."""
    parts = [_part(block) for block in content]
    return [part for part in parts if not isinstance(part, Text) or part.text]


def _part(block: types.ContentBlock) -> UserPart:
    match block:
        case types.TextContent():
            return Text(to_text(block.text))
        case types.ImageContent():
            return _binary(block.data, block.mime_type, "image")
        case types.AudioContent():
            return _binary(block.data, block.mime_type, "audio")
        case types.ResourceLink():
            return Text(_link(block))
        case types.EmbeddedResource():
            return _resource(block.resource)


def _resource(resource: types.TextResourceContents | types.BlobResourceContents) -> UserPart:
    if isinstance(resource, types.TextResourceContents):
        return Text(to_text(f"[{resource.uri}]\n{resource.text}"))
    return _binary(resource.blob, resource.mime_type or "application/octet-stream", _file_name(str(resource.uri)))


def _binary(data: str, media_type: str, name: str) -> UserPart:
    try:
        raw = base64.b64decode(data, validate=True)
    except ValueError:
        return Text(f"[{name}: {media_type}, with invalid base64]")
    if media_type.startswith("image/"):
        return Image(data=raw, media_type=media_type)
    return File(data=raw, media_type=media_type, name=name)


def _file_name(uri: str) -> str:
    return urlsplit(uri).path.rstrip("/").rpartition("/")[2] or "file"


def _link(link: types.ResourceLink) -> str:
    described: Mapping[str, str | None] = {"": link.description, "type: ": link.mime_type}
    details = "".join(f"; {label}{value}" for label, value in described.items() if value)
    return to_text(f"[a resource, not fetched: {link.uri} ({link.title or link.name}){details}]")
