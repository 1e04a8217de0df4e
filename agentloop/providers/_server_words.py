"""The words of a server's error, read out of the forms in which servers and gateways wrap them.

Seen so far: an object with the field ``error``; the fields without it; an array of such objects (Gemini); a list of
errors (Cloudflare, FastAPI); JSON as text inside the message, or in OpenRouter's ``metadata.raw``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import msgspec

from agentloop._core.json_text import decode_json

__all__ = ["ServerWords", "decoded"]

_NO_CODES = frozenset({"error", "errors", "fail", "failed", "failure", "exception"})
"""Values of ``type`` and ``status`` that say only that there is an error."""

MAX_ERRORS = 20
"""Upper bound of the objects of one answer that are read."""

_MESSAGES = ("message", "msg", "detail", "error_message", "error_msg", "reason_message", "description", "title")
_CODES = ("code", "type", "status", "reason", "error_code", "__type")
_WRAPPERS = ("error", "errors", "detail", "details", "metadata", "raw", "message", "cause", "innererror", "response")
"""The fields in which another error may lie."""


def decoded(text: str) -> object:
    """The value that ``text`` spells as JSON; ``text`` itself if it is none."""
    if not text.lstrip().startswith(("{", "[")):
        return text
    try:
        return decode_json(text)
    except (msgspec.DecodeError, UnicodeError):
        return text


class ServerWords:
    """What an error says.

    Args:
      error: the decoded error.
      codes: codes that are known from elsewhere, such as a header.
    """

    __slots__ = ("codes", "fields", "messages", "status", "text")

    def __init__(self, error: object, codes: tuple[object, ...] = ()) -> None:
        self.fields: list[dict[str, Any]] = []
        """The objects of the error, the outermost first."""
        plain: list[str] = []
        for value in _values(error):
            if isinstance(value, dict):
                self.fields.append(value)
            else:
                plain.append(value)
        found = [code for code in codes if isinstance(code, str) and code]
        messages: list[str] = []
        self.status: int | None = None
        """The HTTP status that the error says; ``None`` if it says none."""
        for fields in self.fields:
            found += [code for name in _CODES for code in (_code(fields.get(name)),) if code]
            texts = [fields[name] for name in _MESSAGES if isinstance(fields.get(name), str)]
            messages += [text for text in texts if text.strip() and isinstance(decoded(text), str)]
            statuses = (_status(fields.get(name)) for name in ("code", "status", "status_code", "statusCode"))
            self.status = self.status or next((status for status in statuses if status is not None), None)
        messages += [text for text in plain if text.strip()]
        self.messages = tuple(dict.fromkeys(messages))
        """The messages, the outermost first, each once."""
        self.codes = tuple(dict.fromkeys(found))
        """The error codes that are words, or numbers of the server's own, the most exact one first."""
        self.text = "\n".join((*self.messages, *self.codes))
        """All words, to be searched."""


def _values(error: object) -> Iterator[dict[str, Any] | str]:
    """The objects and plain texts that ``error`` consists of, from the outside inwards."""
    waiting: list[object] = [error]
    read = 0
    while waiting and read < MAX_ERRORS:
        read += 1
        value = waiting.pop(0)
        if isinstance(value, str):
            value = decoded(value)
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            waiting = [*cast("list[object]", value)[:MAX_ERRORS], *waiting]
        elif isinstance(value, dict):
            fields = cast("dict[str, Any]", value)
            yield fields
            for name in _WRAPPERS:
                inner: object = fields.get(name)
                if isinstance(inner, str) and name in ("message", "detail") and isinstance(decoded(inner), str):
                    continue  # the message of this object, and no object of its own
                if inner:
                    waiting.append(inner)


def _code(value: object) -> str:
    """``value`` as an error code; empty if it is none, or an HTTP status."""
    if isinstance(value, bool) or _status(value) is not None:
        return ""
    if isinstance(value, int):
        return str(value)
    if not isinstance(value, str):
        return ""
    # Bedrock puts a name space before the name, and AWS a URL after it.
    code = value.rpartition("#")[2].partition(":")[0].strip()
    return "" if code.lower() in _NO_CODES else code


def _status(value: object) -> int | None:
    if isinstance(value, (int, str)) and not isinstance(value, bool) and str(value).isdecimal():
        number = int(value) if len(str(value)) < 5 else 0
        return number if 400 <= number <= 599 else None
    return None
