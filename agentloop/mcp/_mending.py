"""Mend messages of a server that the SDK would refuse as a whole for a flaw in a part of them. Decisions only.

The SDK validates a list of tools, or the result of a call, in one piece: one tool with a bad schema makes all tools
unusable, and one content block of an unknown type loses what the tool returned.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import mcp_types as types
from mcp.shared.inbound import find_invalid_x_mcp_header
from mcp_types import methods
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import TypeAdapter, ValidationError

__all__ = ["mend_listing", "mend_result"]

MAX_SHOWN = 1000
"""Characters of a text inside of a content block that has no other form for the model."""

_CALL_RESULT: TypeAdapter[Any] = TypeAdapter(types.CallToolResult | types.InputRequiredResult)
_LISTING: TypeAdapter[Any] = TypeAdapter(types.ListToolsResult)


def _flaw(method: str, adapter: TypeAdapter[Any], version: str, result: Mapping[str, Any]) -> str | None:
    """Why the SDK would refuse ``result``; ``None`` if it would not."""
    try:
        if (method, version) in methods.SERVER_RESULTS:
            methods.validate_server_result(method, version, result)
        adapter.validate_python(dict(result), by_name=False)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(step) for step in first["loc"] if isinstance(step, str) and step != "tools")
        return f"{place}: {first['msg']}" if place else first["msg"]
    except (ValueError, RecursionError):
        # Of pydantic itself, which goes some hundred levels deep.
        return "it is nested too deeply"
    return None


def mend_listing(result: dict[str, Any], version: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Leave out the tools of a listing that cannot be used.

    Returns:
      The listing, and why each tool that is missing in it was left out, by its name.
    """
    tools: Any = result.get("tools")
    if not isinstance(tools, list):
        return result, {}
    left_out: dict[str, str] = {}
    result = _without_odd_cursor(result)
    if _flaw("tools/list", _LISTING, version, {**result, "tools": []}) is not None:
        # The flaw is not in a tool.
        return result, {}
    usable: list[Any] = []
    is_flawed = _flaw("tools/list", _LISTING, version, result) is not None
    for index, tool in enumerate(cast("Sequence[Any]", tools)):
        flaw = _flaw("tools/list", _LISTING, version, {**result, "tools": [tool]}) if is_flawed else None
        if flaw is None and version in MODERN_PROTOCOL_VERSIONS:
            # The SDK would leave it out with no more than a line in its log.
            flaw = _flaw_of_headers(tool["inputSchema"])
        if flaw is None:
            usable.append(tool)
        else:
            left_out[_name_of(tool, index)] = flaw
    return {**result, "tools": usable}, left_out


def _flaw_of_headers(schema: dict[str, Any]) -> str | None:
    try:
        return find_invalid_x_mcp_header(schema)
    except RecursionError:
        return "it is nested too deeply"


def _without_odd_cursor(result: dict[str, Any]) -> dict[str, Any]:
    """A listing without a ``nextCursor`` that leads nowhere: ``null``, an empty text, or something else than text."""
    cursor = result.get("nextCursor", "")
    if "nextCursor" in result and not (isinstance(cursor, str) and cursor):
        return {key: value for key, value in result.items() if key != "nextCursor"}
    return result


def _name_of(tool: Any, index: int) -> str:
    name: object = cast("dict[str, Any]", tool).get("name") if isinstance(tool, dict) else None
    return name if isinstance(name, str) and name else f"(number {index + 1}, without a name)"


def mend_result(result: dict[str, Any], version: str) -> dict[str, Any]:
    """Keep of the result of a tool call what can be kept. What has no proper form is a text."""

    def is_fine(mended: Mapping[str, Any]) -> bool:
        return _flaw("tools/call", _CALL_RESULT, version, mended) is None

    if is_fine(result) or "inputRequests" in result:
        return result
    mended = dict(result)
    content: Any = mended.get("content")
    blocks = list(cast("Sequence[Any]", content)) if isinstance(content, list) else [] if content is None else [content]
    empty = {key: value for key, value in mended.items() if key not in ("structuredContent", "_meta", "isError")}
    if content is None and "structuredContent" not in mended:
        # In fields of the server's own, such as the `toolResult` of the first versions of the protocol.
        others = {key: value for key, value in mended.items() if key not in types.CallToolResult.model_fields}
        rest = {key: value for key, value in others.items() if key not in ("_meta", "isError", "resultType")}
        blocks = [_dumped(rest, whole=True)] if rest else []
    mended["content"] = [
        block if is_fine({**empty, "content": [block]}) else {"type": "text", "text": _as_text(block)}
        for block in blocks
    ]
    if not isinstance(mended.get("isError", False), bool):
        mended["isError"] = bool(mended["isError"])
    if not isinstance(mended.get("_meta", {}), dict):
        del mended["_meta"]
    if not is_fine(mended) and "structuredContent" in mended:
        # Up to protocol 2025-11-25 it is an object. Another value is worth as much to the model.
        structured = mended.pop("structuredContent")
        if structured is not None:
            mended["content"].append({"type": "text", "text": _dumped(structured, whole=True)})
    return mended if is_fine(mended) else result


def _as_text(block: Any) -> str:
    if isinstance(block, str):
        return block
    if isinstance(block, dict):
        text: object = cast("dict[str, Any]", block).get("text")
        if isinstance(text, str):
            return text
    return _dumped(block)


def _dumped(value: Any, *, whole: bool = False) -> str:
    try:
        return json.dumps(value if whole else _abridged(value), ensure_ascii=False)
    except RecursionError:
        return "(a value that is nested too deeply)"


def _abridged(value: Any) -> Any:
    """``value`` without very long texts, such as the base64 of a file."""
    abridge: Callable[[Any], Any] = _abridged
    if isinstance(value, str) and len(value) > MAX_SHOWN:
        return f"{value[:100]}... ({len(value)} characters)"
    if isinstance(value, dict):
        return {key: abridge(item) for key, item in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [abridge(item) for item in cast("Sequence[Any]", value)]
    return value
