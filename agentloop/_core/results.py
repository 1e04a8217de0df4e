"""Make the result of a tool call from a returned value or an error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import msgspec

from agentloop._core.field_checks import FieldError, checked
from agentloop._core.foreign_errors import error_name, error_text
from agentloop._core.json_types import UNENCODABLE
from agentloop._core.pydantic_types import encode_json
from agentloop.errors import Retry, ToolError
from agentloop.events import ErrorInfo
from agentloop.messages import File, Image, ResultStatus, Text, ToolCall, ToolResult, UserPart, whole_part

__all__ = ["error_info", "error_result", "own_result", "result_of", "to_text", "unknown_tool", "words_for_model"]


NO_REASON = "The call failed, and no reason was given."
"""The words for the model where an error has no text."""


def result_of(call: ToolCall, value: object) -> ToolResult:
    """The result that a tool's return ``value`` stands for.

    A `ToolResult` counts as it is, under the id of the call. `Text`, `Image` and `File`, alone or in a list or
    tuple, are its parts. Anything else becomes one text.

    Raises:
      TypeError: ``value`` cannot be turned into text or JSON, or a field of it is of a wrong type.
    """
    if value.__class__ in _NEVER_PARTS:
        # As nearly always. Several providers refuse an empty text.
        return ToolResult(call.id, call.name, (Text(to_text(value) or "(no output)"),))
    try:
        if isinstance(value, ToolResult):
            return own_result(call, value)
        parts = _parts(value)
    except FieldError as error:
        raise TypeError(f"a tool returned a value that the model cannot read: {error}") from error
    return ToolResult(call.id, call.name, parts or (Text(to_text(value) or "(no output)"),))


_NEVER_PARTS = (str, int, dict)
"""The types that most tools return."""


def own_result(call: ToolCall, result: ToolResult) -> ToolResult:
    """``result`` of user code, under the id and the name of ``call``.

    Raises:
      FieldError: a field of it is of another type than the class declares.
    """
    named = msgspec.structs.replace(result, call_id=call.id, name=call.name)
    return cast("ToolResult", checked(ToolResult, named))


def _parts(value: object) -> tuple[UserPart, ...]:
    """``value``, if it is a part or consists of parts; else nothing."""
    if isinstance(value, (Text, Image, File)):
        return (whole_part(value),)
    if not isinstance(value, (list, tuple)):
        return ()
    values = cast("Sequence[object]", value)
    parts = tuple(whole_part(part) for part in values if isinstance(part, (Text, Image, File)))
    return parts if len(parts) == len(values) else ()


def error_result(call: ToolCall, text: str, status: ResultStatus = "error") -> ToolResult:
    """A result that describes an error to the model."""
    # As text that has a JSON form: an error may name a file, and a file's name may be any bytes.
    # Several providers refuse an empty text.
    return ToolResult(call.id, call.name, (Text(to_text(text) or NO_REASON),), status)


def words_for_model(error: ToolError) -> str:
    """The text of a `ToolError`, which was chosen for the model; for a `Retry`, with the request to try again."""
    text = error_text(error)
    return f"{text}\n\nCorrect this, and call the tool again.".lstrip() if isinstance(error, Retry) else text


def unknown_tool(call: ToolCall, known: list[str]) -> ToolResult:
    """The result of a call of a tool that is not there."""
    there = f"The tools are: {', '.join(sorted(known))}." if known else "There are no tools."
    return error_result(call, f"There is no tool called {call.name!r}. {there}")


def error_info(error: BaseException) -> ErrorInfo:
    """``error`` as data, in text that can be sent: an error may name a file, and a file's name may be any bytes."""
    return ErrorInfo(error_name(error), error_text(error))


def to_text(value: object, /) -> str:
    """What a tool returned, as the model gets to read it.

    Text stays as it is, ``None`` is empty, and everything else that has a JSON form is compact JSON: attrs
    classes, dataclasses, Structs, models of pydantic, dicts, lists, enums, dates.

    Raises:
      TypeError: bytes, or an object without a JSON form. The message names its type.
    """
    if value is None:
        return ""
    if isinstance(value, str):
        # Lone surrogates, as `os.listdir` makes them of odd file names, cannot be sent to anyone.
        return str.__str__(value) if value.isascii() else value.encode(errors="replace").decode()
    kind = type(value).__qualname__
    if isinstance(value, (bytes, bytearray, memoryview)):
        raise TypeError(f"a tool returned `{kind}`, which is not text: decode it first")
    try:
        return encode_json(value).decode()
    except RecursionError as error:
        raise TypeError(
            f"a tool returned `{kind}` without a JSON form: it nests too deeply, or contains itself"
        ) from error
    except UNENCODABLE as error:
        raise TypeError(f"a tool returned `{kind}` without a JSON form: {error}") from error
