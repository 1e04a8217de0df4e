"""Seconds that a server asks its client to wait, read from the headers, the fields and the words of an error."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, cast

from agentloop.providers._server_words import ServerWords

__all__ = ["retry_after"]

_FIELDS = (
    "retryDelay",
    "retry_delay",
    "retry_after",
    "retryAfter",
    "retry_after_seconds",
    "retry-after",
    "Retry-After",
)
"""The fields of an error that name a delay: Google's ``RetryInfo`` has the first, gateways the others."""

_UNITS = {
    "ms": 0.001,
    "millisecond": 0.001,
    "s": 1.0,
    "sec": 1.0,
    "second": 1.0,
    "m": 60.0,
    "min": 60.0,
    "minute": 60.0,
    "h": 3600.0,
    "hr": 3600.0,
    "hour": 3600.0,
    "d": 86400.0,
    "day": 86400.0,
}
_PART = r"(\d+(?:\.\d+)?)\s*(milliseconds?|ms|seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|h|days?|d)(?![a-z])"
_PARTS = re.compile(_PART, re.IGNORECASE)
_IN_WORDS = re.compile(
    r"(?:try again|retry|retrying|retried|wait|available|resets?|reset)(?: again| \w+ request)?\s*"
    rf"(?:in|after|for|at least|about|:)?\s*(?:at least|about)?\s*((?:{_PART}[\s,]*(?:and\s+)?)+)",
    re.IGNORECASE,
)
"""``Please try again in 1m12.5s`` (OpenAI, Groq), ``Please retry after 20 seconds`` (Azure), ``retry in 1.5s``
(Google)."""
_AS_FIELD = re.compile(r"retry[-_ ]after[\"']?\s*[:=]\s*(\d+(?:\.\d+)?)\b(?!\s*[a-z])", re.IGNORECASE)
"""``Retry-After: 30``, as gateways quote the header of the server behind them."""


def retry_after(
    headers: Mapping[str, str], words: ServerWords | None = None, *, status: int = 429, now: datetime | None = None
) -> float | None:
    """Seconds that a server asks its client to wait; ``None`` if it does not say.

    The header counts first (RFC 9110, section 10.2.3), then the fields of the error, then its words.

    Args:
      headers: the answer's headers, their names in lower case. OpenAI's ``retry-after-ms`` wins, as it is more exact.
      words: the server's error, if it was read.
      status: the HTTP status. Words about time mean a delay only where the request itself was right.
      now: the time to which a date in the header is relative; the present by default.
    """
    now = now or datetime.now(UTC)
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds * 0.001
    seconds = _header(headers.get("retry-after"), now)
    if seconds is None and words is not None:
        seconds = _in_fields(words, now)
        if seconds is None and (status == 429 or status >= 500):
            seconds = _in_words(words)
    return _of_exhausted_limit(headers) if seconds is None and status == 429 else seconds


def _header(text: str | None, now: datetime) -> float | None:
    # A proxy may add the header once more, and join the two.
    seconds = _number(text.partition(",")[0] if text else None)
    if seconds is not None or not text:
        return seconds
    try:
        date = parsedate_to_datetime(text)
    except (TypeError, ValueError, OverflowError):
        return _duration(text)
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0.0, (date - now).total_seconds())


def _in_fields(words: ServerWords, now: datetime) -> float | None:
    for fields in words.fields:
        headers = fields.get("headers")
        places = (fields, cast("dict[str, Any]", headers)) if isinstance(headers, dict) else (fields,)
        for place in places:
            for name in _FIELDS:
                value = place.get(name)
                if isinstance(value, (int, float)) and not isinstance(value, bool):
                    value = str(value)
                seconds = _header(value, now) if isinstance(value, str) else None
                if seconds is not None:
                    return seconds
    return None


def _in_words(words: ServerWords) -> float | None:
    for message in words.messages:
        match = _IN_WORDS.search(message)
        if match is not None:
            return _duration(match[1])
        field = _AS_FIELD.search(message)
        if field is not None:
            return _number(field[1])
    return None


def _of_exhausted_limit(headers: Mapping[str, str]) -> float | None:
    """The time until a limit of OpenAI's kind, of which nothing remains, starts again."""
    resets = (
        _duration(headers.get(f"x-ratelimit-reset-{limit}", ""))
        for limit in ("requests", "tokens")
        if headers.get(f"x-ratelimit-remaining-{limit}", "").strip() == "0"
    )
    return max((reset for reset in resets if reset is not None), default=None)


def _duration(text: str) -> float | None:
    """The seconds of a duration such as ``1.5s``, ``20ms``, ``6m0s`` or ``1 minute and 5 seconds``."""
    parts = _PARTS.findall(text)
    if not parts:
        return None
    seconds = sum(float(number) * _unit(unit.lower()) for number, unit in parts)
    return seconds if math.isfinite(seconds) else None


def _unit(name: str) -> float:
    return _UNITS.get(name) or _UNITS[name.removesuffix("s")]


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if 0 <= number < float("inf") else None
