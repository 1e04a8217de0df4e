"""Read the lines of a server over stdio, also those that are only nearly messages. Decisions only.

A line that is not understood is no answer, and its call would wait until its deadline. So the text of such a line is
mended, or its call fails at once.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Sequence
from typing import Any, cast

import mcp_types as types

from agentloop._core.json_text import nesting_depth
from agentloop._core.whole_json import without_lone_surrogates

__all__ = ["JoinedLines", "read_line", "without_lone_surrogates"]

MAX_DEPTH = 900
"""Levels of a line that is read at all. What is nested less, but too deeply for the SDK, can be left out by itself."""

_MESSAGE = re.compile(r'\{\s*"jsonrpc"\s*:')
"""Where a message begins after a text that a program has printed without an end of line."""

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]]|-?\d+|[:,]', re.DOTALL)

_CALLS_IT_RESULT = re.compile(r"""["'](result|error)["']\s*:""")


_ID = re.compile(r"""["']id["']\s*:\s*["']?([^"',}\s]+)""")


def read_line(line: bytes, pending: Collection[str | int]) -> list[types.JSONRPCMessage]:
    """The messages in a ``line``; none if it is a banner, or a print for debugging.

    Args:
      line: without its end.
      pending: the ids of the requests that the server has not answered.
    """
    line = line.strip().removeprefix(b"\xef\xbb\xbf").strip()
    try:
        return [types.jsonrpc_message_adapter.validate_json(line, by_name=False)]
    except ValueError:
        pass
    text = line.decode(errors="replace")
    values, problem = _values(text)
    if not values and (start := _MESSAGE.search(text)) is not None:
        text = text[start.start() :]
        values, problem = _values(text)
    messages = [message for value in values for message in _messages(value, pending) if _is_flat(message)]
    if problem is not None and (id := _id_of_broken(text, pending)) is not None:
        answered = {message.id for message in messages if not isinstance(message, types.JSONRPCNotification)}
        if id not in answered:
            messages.append(_failed(id, f"the server answered with a line that is not JSON: {problem}"))
    return messages


class JoinedLines:
    """Joins the lines of a message that a server has written with indentation, against the protocol."""

    def __init__(self, max_size: int) -> None:
        self._max_size = max_size
        self._lines: list[bytes] = []
        self._size = 0

    def add(self, line: bytes) -> bytes | None:
        """Take a line. Returns it, or the message that it completes; ``None`` if more lines belong to it."""
        line = line.rstrip(b"\r")
        is_first, is_inside = line == b"{", bool(self._lines) and (not line or line[:1] in b" \t")
        self._size += len(line)
        if is_first or not (is_inside or (self._lines and line == b"}")) or self._size > self._max_size:
            # Not a message so far, or no longer.
            self._lines, self._size = [], len(line)
        if is_first or is_inside:
            self._lines.append(line)
            return None
        joined, self._lines = b"\n".join([*self._lines, line]), []
        return joined


def _values(text: str) -> tuple[list[Any], str | None]:
    """The JSON values that stand in ``text`` one after the other, and why the rest of it is none."""
    decoder, values, place = json.JSONDecoder(), list[Any](), 0
    if nesting_depth(text) > MAX_DEPTH:
        return values, "it is nested too deeply"
    try:
        while place < len(text):
            value, place = decoder.raw_decode(text, place)
            values.append(_encodable(value))
            while place < len(text) and text[place].isspace():
                place += 1
    except RecursionError:
        return values, "it is nested too deeply"
    except ValueError as error:
        return values, str(error)
    return values, None


def _encodable(value: Any) -> Any:
    """``value`` with texts that have a UTF-8 form. Halves of an emoji, as JavaScript cuts texts, have none."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode(errors="replace").decode()
    if isinstance(value, list):
        return [_encodable(item) for item in cast("Sequence[Any]", value)]
    if isinstance(value, dict):
        return {_encodable(key): _encodable(item) for key, item in cast("dict[str, Any]", value).items()}
    if isinstance(value, float) and not math.isfinite(value):
        # `NaN`, as Python writes it, is no JSON.
        return None
    return value


def _messages(value: Any, pending: Collection[str | int]) -> list[types.JSONRPCMessage]:
    if isinstance(value, list):
        # A batch, as in protocol 2025-03-26.
        return [message for item in cast("Sequence[Any]", value) for message in _messages(item, pending)]
    if not isinstance(value, dict):
        return []
    fields = cast("dict[str, Any]", value)
    message = _parsed(fields)
    if message is not None:
        return [message]
    id = _pending_id(fields.get("id"), pending)
    is_answer = not fields.keys() - {"jsonrpc", "id", "result", "error"} or "jsonrpc" in fields
    if id is None or not is_answer or "method" in fields:
        return []
    if not fields.keys() & {"result", "error"}:
        is_message = "jsonrpc" in fields
        return [_failed(id, "the server answered with a message without a result")] if is_message else []
    error = fields.get("error")
    if error is None:
        # `"error": null` beside the result, or no `jsonrpc`.
        message = _parsed({"jsonrpc": "2.0", "id": id, "result": fields.get("result")})
        return [message or _failed(id, "the server answered with a result that is no object")]
    details = cast("dict[str, Any]", error) if isinstance(error, dict) else {"message": error}
    code = details.get("code")
    error = {
        **details,
        "code": code if type(code) is int else types.INTERNAL_ERROR,
        "message": str(details.get("message", "")),
    }
    return [_parsed({"jsonrpc": "2.0", "id": id, "error": error}) or _failed(id, "the server answered with an error")]


def _is_flat(message: types.JSONRPCMessage) -> bool:
    """Whether the SDK can handle ``message``. An answer that is nested too deeply is mended elsewhere."""
    if isinstance(message, (types.JSONRPCResponse, types.JSONRPCError)):
        return True
    try:
        message.model_dump_json()
    except (ValueError, RecursionError):
        return False
    return True


def _parsed(fields: dict[str, Any]) -> types.JSONRPCMessage | None:
    try:
        return types.jsonrpc_message_adapter.validate_python(fields, by_name=False)
    except (ValueError, RecursionError):
        return None


def _failed(id: str | int, problem: str) -> types.JSONRPCError:
    return types.JSONRPCError(jsonrpc="2.0", id=id, error=types.ErrorData(code=types.PARSE_ERROR, message=problem))


def _pending_id(id: Any, pending: Collection[str | int]) -> str | int | None:
    """The request that is meant by ``id``, which may be written as another type."""
    if isinstance(id, float) and id.is_integer():
        id = int(id)
    return next((known for known in pending if str(known) == str(id)), None) if isinstance(id, (int, str)) else None


def _id_of_broken(text: str, pending: Collection[str | int]) -> str | int | None:
    """The id of the request that a broken line answers, if that is beyond doubt."""
    # Not a print for debugging, after which the answer may still come.
    if not text.startswith(("{", "[")) or "jsonrpc" not in text or not _CALLS_IT_RESULT.search(text):
        return None
    depth, before = 0, ["", ""]
    for match in _TOKEN.finditer(text):
        part = match[0]
        if part in "{[":
            depth += 1
        elif part in "}]":
            depth -= 1
        elif depth == 1 and before == ['"id"', ":"]:
            id = _pending_id(part.strip('"'), pending)
            if id is not None:
                return id
        before = [before[1], part]
    # The line breaks off before the id, or is broken in a way that hides it.
    ids = {id for written in _ID.findall(text) if (id := _pending_id(written, pending)) is not None}
    if len(ids) == 1:
        return ids.pop()
    return next(iter(pending)) if len(pending) == 1 and not ids else None
