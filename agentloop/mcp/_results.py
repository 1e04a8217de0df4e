"""Convert the results of an MCP server's tools to the parts of a message."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast
from urllib.parse import urlsplit

import mcp_types as types
import msgspec

from agentloop._core.json_text import decode_json
from agentloop._core.json_types import UNENCODABLE
from agentloop._core.results import to_text
from agentloop.messages import File, Image, Text, ToolResult, UserPart

__all__ = ["parts_of", "result_of", "tool_name"]

MAX_NAME = 64

MIN_QUOTED = 8
"""Characters of a JSON value that counts as quoted where it stands in a longer text."""


def tool_name(name: str, prefix: str) -> str:
    """The name of a server's tool for the model: at most 64 letters, digits, ``_`` and ``-``, as providers require."""
    plain = re.sub(r"[^a-zA-Z0-9_-]", "_", prefix + name)
    if len(plain) <= MAX_NAME:
        return plain
    # A hash of the whole name, since two long names may begin alike.
    return f"{plain[: MAX_NAME - 9]}_{hashlib.sha256(plain.encode()).hexdigest()[:8]}"


def result_of(result: types.CallToolResult, *, note: str = "") -> ToolResult:
    """The result of a call as a `ToolResult`, whose ``call_id`` and ``name`` the runtime fills in.

    Args:
      note: added for the model.
    """
    parts = parts_of(result.content)
    structured = result.structured_content
    if structured is not None and not _is_shown(structured, result.content):
        parts.append(Text(to_text(structured)))
    parts = parts or [Text("(no output)")]
    if note:
        parts.append(Text(to_text(note)))
    return ToolResult("", "", tuple(parts), "error" if result.is_error else "ok")


def _is_shown(structured: Any, content: Sequence[types.ContentBlock]) -> bool:
    """Whether ``content`` has all of ``structured``, as the protocol recommends for older clients."""
    if structured == {} and content:
        return True
    texts = [text for block in content if (text := _text_of(block)) is not None]
    if any(_says(text, structured) for text in texts):
        return True
    values = list(cast("dict[str, Any]", structured).values()) if isinstance(structured, dict) else []
    if len(values) != 1:
        return False
    # An object with one field. The reference server of files repeats the content like this, and files would reach the
    # model twice, as base64. The SDK wraps a value that is no object; a list has a block for each item.
    [value] = values
    if value is None or value == []:
        return value is None and not content
    if isinstance(value, str):
        return value == "".join(texts) or value in texts
    if value == [block.model_dump(by_alias=True, mode="json", exclude_none=True) for block in content]:
        return True
    if any(_says(text, value) for text in texts):
        return True
    if not isinstance(value, list):
        return False
    items = cast("Sequence[Any]", value)
    return len(items) == len(texts) == len(content) and all(
        text == item or _says(text, item) for text, item in zip(texts, items, strict=True)
    )


def _text_of(block: types.ContentBlock) -> str | None:
    match block:
        case types.TextContent(text=text):
            return text
        case types.EmbeddedResource(resource=types.TextResourceContents(text=text)):
            return text
        case _:
            return None


def _says(text: str, value: Any) -> bool:
    """Whether ``text`` is ``value`` as JSON, or has it after some words."""
    try:
        said = decode_json(text)
    except (msgspec.DecodeError, UnicodeError):
        # A single word of it, such as `true`, may stand in any text by chance.
        return isinstance(value, (dict, list)) and any(form in text for form in _forms(value))
    if isinstance(said, float) or isinstance(value, float):
        return type(said) is not bool and type(value) is not bool and bool(said == value)
    try:
        return msgspec.json.encode(said, order="sorted") == msgspec.json.encode(value, order="sorted")
    except UNENCODABLE:
        return False


def _forms(value: Any) -> Iterator[str]:
    """``value`` as programs write JSON. Small values, such as ``[]``, stand in a text by chance."""
    forms = (
        json.dumps(value, ensure_ascii=False, indent=indent, separators=separators)
        for indent, separators in ((None, (",", ":")), (None, None), (2, None))
    )
    return (form for form in forms if len(form) >= MIN_QUOTED)


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
