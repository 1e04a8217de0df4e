"""What becomes the result of a tool call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from agentloop._core.schema import to_text
from agentloop.messages import File, Image, ResultStatus, Text, ToolCall, ToolResult, UserPart

__all__ = ["error_result", "result_of", "unknown_tool"]


def result_of(call: ToolCall, value: object) -> ToolResult:
    """The result that a tool's return ``value`` stands for.

    A `ToolResult` counts as it is, under the id of the call. `Text`, `Image` and `File`, alone or in a list or
    tuple, are its parts. Anything else becomes one text.

    Raises:
      TypeError: ``value`` cannot be turned into text or JSON.
    """
    if isinstance(value, ToolResult):
        return ToolResult(call.id, call.name, value.parts, value.status)
    # Several providers refuse an empty text.
    return ToolResult(call.id, call.name, _parts(value) or (Text(to_text(value) or "(no output)"),))


def _parts(value: object) -> tuple[UserPart, ...]:
    """``value``, if it is a part or consists of parts; else nothing."""
    if isinstance(value, (Text, Image, File)):
        return (value,)
    if not isinstance(value, (list, tuple)):
        return ()
    values = cast("Sequence[object]", value)
    parts = tuple(part for part in values if isinstance(part, (Text, Image, File)))
    return parts if len(parts) == len(values) else ()


def error_result(call: ToolCall, text: str, status: ResultStatus = "error") -> ToolResult:
    """A result that tells the model what went wrong."""
    # As text that has a JSON form: an error may name a file, and a file's name may be any bytes.
    return ToolResult(call.id, call.name, (Text(to_text(text)),), status)


def unknown_tool(call: ToolCall, known: list[str]) -> ToolResult:
    """The result of a call of a tool that is not there."""
    there = f"The tools are: {', '.join(sorted(known))}." if known else "There are no tools."
    return error_result(call, f"There is no tool called {call.name!r}. {there}")
