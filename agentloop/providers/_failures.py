"""The meaning of a server's error: one set of tables from statuses, codes and wordings to typed errors.

`failure` classifies the answer to a request, `failure_in_stream` an error that a server sends in the middle of a
response. A wording or code that a provider is seen to use belongs in the tables here, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, cast

import msgspec
from attrs import frozen

from agentloop.errors import (
    ModelAuthenticationError,
    ModelContextOverflowError,
    ModelQuotaError,
    ModelRateLimitError,
    ModelStatusError,
)

__all__ = ["codes_of", "failure", "failure_in_stream", "retry_after"]

MAX_BODY_CHARACTERS = 4096
"""Characters of a server's error body that an error carries."""

_BY_STATUS: Mapping[int, type[ModelStatusError]] = {
    401: ModelAuthenticationError,
    402: ModelQuotaError,
    403: ModelAuthenticationError,
    413: ModelContextOverflowError,
    429: ModelRateLimitError,
}


@frozen
class _Code:
    """The meaning of an error code."""

    status: int
    """The HTTP status for this code when it arrives in the middle of a response, without a status of its own."""
    kind: type[ModelStatusError] | None = None
    """The class of the error; ``None`` to let the status and the wording decide."""


_CODES: Mapping[str, _Code] = {
    "authentication_error": _Code(401, ModelAuthenticationError),
    "billing_error": _Code(402, ModelQuotaError),
    "context_length_exceeded": _Code(400, ModelContextOverflowError),
    # llama.cpp
    "exceed_context_size_error": _Code(400, ModelContextOverflowError),
    "insufficient_quota": _Code(429, ModelQuotaError),
    "invalid_api_key": _Code(401, ModelAuthenticationError),
    "not_found_error": _Code(404),
    "overloaded_error": _Code(529),
    "permission_error": _Code(403, ModelAuthenticationError),
    "rate_limit_error": _Code(429, ModelRateLimitError),
    "rate_limit_exceeded": _Code(429, ModelRateLimitError),
    "request_too_large": _Code(413, ModelContextOverflowError),
    "server_is_overloaded": _Code(503),
    "slow_down": _Code(503),
    "timeout_error": _Code(504),
    "too_many_requests": _Code(429),
    "vector_store_timeout": _Code(504),
}
"""Codes are more exact than statuses: OpenAI answers 429 both to a rate limit and to an exhausted quota."""

_REQUEST_CODES = ("invalid_", "image_", "unsupported_", "empty_", "failed_to_download_")
"""Prefixes of codes that blame the request, such as ``invalid_prompt`` and ``image_too_large``: status 400."""

_OVERFLOW = (
    # OpenAI, DeepSeek, vLLM and their imitators
    "maximum context length",
    # Anthropic
    "prompt is too long",
    "exceed context limit",
    # Gemini
    "exceeds the maximum number of tokens",
    # llama.cpp, LM Studio
    "exceeds the available context size",
    "greater than the context length",
    # Mistral, Groq and others
    "reduce the length of the messages",
    "too large for model with",
)
"""Wordings for a prompt that is too long, in lower case, of servers that have no code for it."""
_OVERFLOW_STATUSES = frozenset({400, 500})
"""The statuses with which those servers were seen to answer."""


def failure(
    *, model: str, status: int, body: str, codes: tuple[object, ...] = (), headers: Mapping[str, str] | None = None
) -> ModelStatusError:
    """The typed error for a request that a server refused.

    Args:
      model: the model's name, for the error.
      status: HTTP status code.
      body: the server's error message.
      codes: the server's error codes, the most exact one first; codes that are no text are passed over.
      headers: the answer's headers, their names in lower case.
    """
    words = [code for code in codes if isinstance(code, str) and code]
    kind = next((code.kind for code in map(_CODES.get, words) if code is not None and code.kind is not None), None)
    if kind is None and status in _OVERFLOW_STATUSES and any(wording in body.lower() for wording in _OVERFLOW):
        kind = ModelContextOverflowError
    if kind is None:
        kind = _BY_STATUS.get(status, ModelStatusError)
    return kind(
        model=model,
        status=status,
        body=body[:MAX_BODY_CHARACTERS],
        code=words[0] if words else "",
        retry_after=retry_after(headers or {}),
    )


def failure_in_stream(model: str, error: object, *, show_code: bool = False) -> ModelStatusError:
    """The typed error for ``error``, which a server sent in the middle of a response, too late for an HTTP status.

    Args:
      model: the model's name, for the error.
      error: an object with ``message``, ``code`` and ``type``, or only the message.
      show_code: whether the code stands before the message, for servers whose codes say more than their messages.
    """
    fields = cast("dict[str, Any]", error) if isinstance(error, dict) else {"message": error}
    code, message = fields.get("code"), fields.get("message")
    codes = codes_of(fields)
    if isinstance(message, str) and message:
        body = f"{code}: {message}" if show_code and isinstance(code, str) else message
    else:
        body = msgspec.json.encode(fields).decode()
    return failure(model=model, status=_status_of(code, codes), body=body, codes=codes)


def _status_of(code: object, codes: tuple[object, ...]) -> int:
    if isinstance(code, (int, str)) and str(code).isdecimal() and 400 <= int(code) <= 599:
        return int(code)
    words = [word for word in codes if isinstance(word, str)]
    for word in words:
        if word in _CODES:
            return _CODES[word].status
    return 400 if any(word.startswith(_REQUEST_CODES) for word in words) else 500


def codes_of(error: object) -> tuple[object, ...]:
    """The fields ``code`` and ``type`` of ``error``, by which all providers name an error; empty if it is no object."""
    if not isinstance(error, dict):
        return ()
    fields = cast("dict[str, object]", error)
    return (fields.get("code"), fields.get("type"))


def retry_after(headers: Mapping[str, str], *, now: datetime | None = None) -> float | None:
    """Seconds that a server asks its client to wait (RFC 9110, section 10.2.3); ``None`` if it does not say.

    Args:
      headers: the answer's headers, their names in lower case. OpenAI's ``retry-after-ms`` wins, as it is more exact.
      now: the time to which a date in the header is relative; the present by default.
    """
    milliseconds, header = headers.get("retry-after-ms"), headers.get("retry-after")
    for text, unit in ((milliseconds, 0.001), (header, 1.0)):
        seconds = _number(text)
        if seconds is not None:
            return seconds * unit
    if header is None:
        return None
    try:
        date = parsedate_to_datetime(header)
    except (TypeError, ValueError):
        return None
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0.0, (date - (now or datetime.now(UTC))).total_seconds())


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if 0 <= number < float("inf") else None
