"""From what an MCP server sends to what a model reads."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast
from urllib.parse import urlsplit

import msgspec

from agentloop._core.results import to_text
from agentloop.mcp._sdk import types
from agentloop.messages import File, Image, Text, ToolResult, UserPart

__all__ = ["parts_of", "result_of", "tool_name"]

LONGEST_NAME = 64


def tool_name(name: str, prefix: str) -> str:
    """What a server's tool is called here: providers allow fewer letters than MCP does, and fewer of them."""
    plain = re.sub(r"[^a-zA-Z0-9_-]", "_", prefix + name)
    if len(plain) <= LONGEST_NAME:
        return plain
    # Two long names may begin alike.
    return f"{plain[: LONGEST_NAME - 9]}_{hashlib.sha256(plain.encode()).hexdigest()[:8]}"


def result_of(result: types.CallToolResult) -> ToolResult:
    """The result of a call. Its ids are for the runtime to fill in."""
    parts = parts_of(result.content)
    structured = result.structured_content
    if structured is not None and not _tells(parts, structured) and not _wraps(structured, result.content):
        parts.append(Text(to_text(structured)))
    return ToolResult("", "", tuple(parts) or (Text("(no output)"),), "error" if result.is_error else "ok")


def _tells(parts: Sequence[UserPart], structured: Any) -> bool:
    """Whether ``parts`` say the same as ``structured``, as the protocol wants it for older clients."""
    if isinstance(structured, dict) and structured.keys() == {"result"} and parts:
        # What servers make of a tool that returns no object: the parts are the very value.
        return True
    for part in parts:
        if isinstance(part, Text):
            try:
                if msgspec.json.decode(part.text) == structured:
                    return True
            except (msgspec.DecodeError, RecursionError):
                continue
    return False


def _wraps(structured: Any, content: Sequence[types.ContentBlock]) -> bool:
    """Whether ``structured`` is an object around what ``content`` says: its text, or all of it, images too.

    The reference server of files answers so: what it reads would be told twice, images as base64.
    """
    values = list(cast("dict[str, Any]", structured).values()) if isinstance(structured, dict) else []
    if len(values) != 1:
        return False
    [value] = values
    if isinstance(value, str):
        return value == "".join(block.text if isinstance(block, types.TextContent) else "" for block in content)
    return bool(value == [block.model_dump(by_alias=True, mode="json", exclude_none=True) for block in content])


def parts_of(content: Sequence[types.ContentBlock]) -> list[UserPart]:
    """``content`` as parts, without empty texts, which several providers refuse."""
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
        return Text(f"[{name}: {media_type}, whose data is no base64]")
    if media_type.startswith("image/"):
        return Image(data=raw, media_type=media_type)
    return File(data=raw, media_type=media_type, name=name)


def _file_name(uri: str) -> str:
    return urlsplit(uri).path.rstrip("/").rpartition("/")[2] or "file"


def _link(link: types.ResourceLink) -> str:
    described: Mapping[str, str | None] = {"": link.description, "type: ": link.mime_type}
    details = "".join(f"; {label}{value}" for label, value in described.items() if value)
    return to_text(f"[a resource, not fetched: {link.uri} ({link.title or link.name}){details}]")
