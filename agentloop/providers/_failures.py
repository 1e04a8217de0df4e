"""What a server's refusal means: one table from statuses, codes and words to typed errors."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from agentloop.errors import (
    ModelAuthenticationError,
    ModelContextOverflowError,
    ModelQuotaError,
    ModelRateLimitError,
    ModelStatusError,
)

__all__ = ["failure", "retry_after"]

BODY_CHARACTERS = 4096

_BY_STATUS: Mapping[int, type[ModelStatusError]] = {
    401: ModelAuthenticationError,
    402: ModelQuotaError,
    403: ModelAuthenticationError,
    413: ModelContextOverflowError,
    429: ModelRateLimitError,
}

_BY_CODE: Mapping[str, type[ModelStatusError]] = {
    "authentication_error": ModelAuthenticationError,
    "billing_error": ModelQuotaError,
    "context_length_exceeded": ModelContextOverflowError,
    # llama.cpp
    "exceed_context_size_error": ModelContextOverflowError,
    "insufficient_quota": ModelQuotaError,
    "invalid_api_key": ModelAuthenticationError,
    "permission_error": ModelAuthenticationError,
    "rate_limit_error": ModelRateLimitError,
    "rate_limit_exceeded": ModelRateLimitError,
    "request_too_large": ModelContextOverflowError,
}
"""A code is more exact than the status: OpenAI answers 429 both to haste and to an empty purse."""

_OVERFLOW = (
    # OpenAI, DeepSeek, vLLM and what imitates them
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
"""How servers that have no code for it say that a prompt is too long. With status 400 or 500, both were seen."""


def failure(
    *, model: str, status: int, body: str, codes: tuple[object, ...] = (), headers: Mapping[str, str] | None = None
) -> ModelStatusError:
    """The typed error for a request that a server refused.

    Args:
      model: what errors call the model.
      status: HTTP status code; of an error in mid-stream the one that it would have had.
      body: what the server said.
      codes: its own words for it, the most exact one first; what is no text is passed over.
      headers: of the answer, their names in lower case.
    """
    words = [code for code in codes if isinstance(code, str) and code]
    kind = next((_BY_CODE[word] for word in words if word in _BY_CODE), None)
    if kind is None and status in (400, 500) and any(phrase in body.lower() for phrase in _OVERFLOW):
        kind = ModelContextOverflowError
    if kind is None:
        kind = _BY_STATUS.get(status, ModelStatusError)
    return kind(
        model=model,
        status=status,
        body=body[:BODY_CHARACTERS],
        code=words[0] if words else "",
        retry_after=retry_after(headers or {}),
    )


def retry_after(headers: Mapping[str, str], *, now: datetime | None = None) -> float | None:
    """Seconds that a server asks to be left alone (RFC 9110, section 10.2.3); ``None`` if it does not say.

    Args:
      headers: their names in lower case. ``retry-after-ms`` is OpenAI's, and more exact.
      now: for a date; the present by default.
    """
    milliseconds, given = headers.get("retry-after-ms"), headers.get("retry-after")
    for text, unit in ((milliseconds, 0.001), (given, 1.0)):
        seconds = _number(text)
        if seconds is not None:
            return seconds * unit
    if given is None:
        return None
    try:
        at = parsedate_to_datetime(given)
    except (TypeError, ValueError):
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max(0.0, (at - (now or datetime.now(UTC))).total_seconds())


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if 0 <= number < float("inf") else None
