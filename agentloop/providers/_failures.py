"""The meaning of a server's error: one set of tables from statuses, codes and wordings to typed errors.

`failure` classifies the answer to a request, `failure_in_stream` an error that a server sends in the middle of a
response. A wording or code that a provider is seen to use belongs in the tables here, and nowhere else.
`agentloop.providers._server_words` reads the server's words out of the forms in which servers wrap them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, cast

import msgspec
from attrs import frozen

from agentloop._core.catalogue import known_model, models_of
from agentloop.errors import (
    ModelAuthenticationError,
    ModelContextOverflowError,
    ModelQuotaError,
    ModelRateLimitError,
    ModelResponseError,
    ModelStatusError,
)
from agentloop.providers._retry_delays import retry_after
from agentloop.providers._server_words import ServerWords, decoded
from agentloop.providers._unsupported import advice

__all__ = ["failure", "failure_in_stream"]

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


_AUTHENTICATION = _Code(401, ModelAuthenticationError)
_FORBIDDEN = _Code(403, ModelAuthenticationError)
_OVERFLOW = _Code(400, ModelContextOverflowError)
_QUOTA = _Code(429, ModelQuotaError)
_RATE = _Code(429, ModelRateLimitError)
_RESPONSE = _Code(400, ModelResponseError)
_SERVER = _Code(500)
_BUSY = _Code(503)
_REQUEST = _Code(400)

_CODES: Mapping[str, _Code] = {
    # OpenAI, Anthropic, and the servers that imitate them
    "authentication_error": _AUTHENTICATION,
    "billing_error": _Code(402, ModelQuotaError),
    "billing_hard_limit_reached": _QUOTA,
    "billing_not_active": _QUOTA,
    "context_length_exceeded": _OVERFLOW,
    "insufficient_quota": _QUOTA,
    "invalid_api_key": _AUTHENTICATION,
    "not_found_error": _Code(404),
    "overloaded_error": _Code(529),
    "permission_error": _FORBIDDEN,
    "rate_limit_error": _RATE,
    "rate_limit_exceeded": _RATE,
    "request_too_large": _Code(413, ModelContextOverflowError),
    "server_is_overloaded": _BUSY,
    "slow_down": _BUSY,
    "timeout_error": _Code(504),
    "too_many_requests": _Code(429),
    "vector_store_timeout": _Code(504),
    # llama.cpp
    "exceed_context_size_error": _OVERFLOW,
    # Copilot
    "model_max_prompt_tokens_exceeded": _OVERFLOW,
    # LiteLLM
    "contextwindowexceedederror": _OVERFLOW,
    "budget_exceeded": _QUOTA,
    # Moonshot
    "exceeded_current_quota_error": _QUOTA,
    "rate_limit_reached_error": _RATE,
    "engine_overloaded_error": _BUSY,
    # DashScope
    "arrearage": _QUOTA,
    "invalidapikey": _AUTHENTICATION,
    "throttling": _RATE,
    "throttling.ratequota": _RATE,
    "throttling.allocationquota": _RATE,
    # Zhipu
    "1113": _QUOTA,
    "1261": _OVERFLOW,
    "1302": _RATE,
    "1305": _RATE,
    # Groq, where its model wrote what its own parser refuses
    "tool_use_failed": _RESPONSE,
    "json_validate_failed": _RESPONSE,
    "output_parse_failed": _RESPONSE,
    # Google
    "unauthenticated": _AUTHENTICATION,
    "api_key_invalid": _AUTHENTICATION,
    "permission_denied": _FORBIDDEN,
    "resource_exhausted": _Code(429),
    "unavailable": _BUSY,
    "deadline_exceeded": _Code(504),
    "internal": _SERVER,
    "invalid_argument": _REQUEST,
    "failed_precondition": _REQUEST,
    "not_found": _Code(404),
    # Bedrock
    "throttlingexception": _RATE,
    "toomanyrequestsexception": _RATE,
    "servicequotaexceededexception": _RATE,
    "accessdeniedexception": _FORBIDDEN,
    "unrecognizedclientexception": _AUTHENTICATION,
    "expiredtokenexception": _AUTHENTICATION,
    "validationexception": _REQUEST,
    "resourcenotfoundexception": _Code(404),
    "modeltimeoutexception": _Code(408),
    "modelnotreadyexception": _BUSY,
    "modelerrorexception": _Code(424),
    "modelstreamerrorexception": _Code(424),
    "serviceunavailableexception": _BUSY,
    "internalserverexception": _SERVER,
}
"""Codes, in lower case, are more exact than statuses: OpenAI answers 429 both to a rate limit and to an exhausted
quota."""

_REQUEST_CODES = ("invalid_", "image_", "unsupported_", "empty_", "failed_to_download_")
"""Prefixes of codes that blame the request, such as ``invalid_prompt`` and ``image_too_large``: status 400."""


def _pattern(wordings: Sequence[str]) -> re.Pattern[str]:
    return re.compile("|".join(wordings), re.IGNORECASE)


_OVERFLOW_WORDINGS = _pattern(
    (
        # OpenAI, DeepSeek, vLLM, Mistral, Fireworks, OpenRouter
        r"maximum context length",
        (
            r"(exceeds?|exceeded|exceeding) (the|its|this model's|the model's|your)? ?"
            r"(maximum |max |available |model |model's |total )*context (length|window|size|limit)"
        ),
        r"context (length|window|size|limit) (has been |was |is |)exceed",
        # Anthropic, Fireworks, Bedrock, Ollama
        r"(prompt|input|conversation|context)( length| size|) (is |was |)too (long|large)(?! for the batch)",
        r"exceeds? context limit",
        # Gemini
        r"exceeds the maximum number of tokens",
        # LM Studio, SGLang, Together
        (
            r"(greater|longer|larger|more) than (the |this |)(model's |model |maximum |allowed |)*"
            r"(context (length|window|size)|model length|input length)"
        ),
        # llama.cpp
        r"input is too large to process",
        # Mistral, Groq, Cerebras
        r"reduce the length of the (messages|prompt|input)",
        r"too large for model with",
        # xAI
        r"maximum prompt length",
        # vLLM
        r"max_model_len",
        # Bedrock
        r"too many input tokens",
        r"number of (input |prompt |)tokens .{0,60}(exceeds?|exceeded|greater than|larger than)",
        # Copilot, and Gemini's other wording
        r"token count .{0,60}exceeds",
        # Moonshot
        r"exceeded model token limit",
        # MiniMax
        r"context window exceeds limit",
        # Poolside, Databricks, Cohere
        r"(input|prompt|request) (length|tokens?|size) .{0,40}(exceeds?|cannot exceed|is over|is above)",
        r"exceeds? (the |)max(imum|) (allowed )?(input|prompt|model|message) (length|size|tokens?)",
        r"token limit exceeded",
        r"total number of tokens in the prompt",
        # DashScope
        r"range of input length should be",
        # Text Generation Inference, and Together on it
        r"inputs?`? (tokens \+ `?max_new_tokens`? must be|must have less than)",
        # Zhipu
        r"prompt exceeds max length",
        # watsonx
        r"cannot exceed the total tokens limit",
        # OpenAI and Groq, where one request is larger than the tokens of a whole minute: no waiting helps
        r"request too large for",
    )
)
"""Wordings for a prompt that is too long, of servers that have no code for it, or not always."""

_OUTPUT_WORDINGS = _pattern((r"(output|completion|new) tokens", r"^\W*max_(completion_|output_|)tokens\b"))
_INPUT_WORDINGS = _pattern((r"context", r"prompt", r"input"))
"""A bound of the *output* that is too high has words like an overflow, and a shorter prompt would not help."""

_NO_OVERFLOW_STATUSES = frozenset({401, 402, 403, 404, 408, 529})

_QUOTA_WORDINGS = _pattern(
    (
        # OpenAI, Gemini
        r"(exceeded|reached) your (current |monthly |daily |weekly |)(quota|usage limit|spending limit|spend limit)",
        r"(check|update) your (plan and |)billing",
        r"billing (hard )?limit",
        # Anthropic, Perplexity, xAI, Together, Hugging Face, OpenRouter
        r"(credit|account) balance is (too low|insufficient|negative)",
        (
            r"(insufficient|not enough|no|out of|run out of|used up|used all) (available |your |included |monthly )*"
            r"(balance|credits?|funds)"
        ),
        r"exceeded your monthly included credits",
        r"(requires|buy|purchase|add) (more )?(credits|funds)",
        r"(monthly|credit|spending|spend) limit (has been |was |is |)(reached|exceeded)",
        r"reached (its|the|your) (monthly |)spending limit",
        # OpenRouter, Gemini, DashScope and gateways
        r"key limit exceeded",
        r"credits? (is|are|has been|have been) (depleted|exhausted|used up)",
        r"(daily|weekly|monthly|free[ -]tier) (quota|usage limit)",
        r"free[ -]tier .{0,40}exhausted",
        # Moonshot, DashScope, Zhipu
        r"balance is (insufficient|not enough)",
        r"insufficient (account )?balance",
        r"account is in good standing",
        "余额不足",
        "欠费",
    )
)
"""Wordings for an account without credit."""
_NO_QUOTA_STATUSES = frozenset({401, 404, 408, 413, 500, 502, 504, 529})
_DAILY = _pattern((r"per_?day", r"\(TPD\)", r"\(RPD\)", r"daily"))
"""Google words each rate limit as a quota. Only that of a day is one: the others are over in a minute."""

_AUTHENTICATION_WORDINGS = _pattern(
    (
        # Gemini, xAI
        r"api[ _-]?key (is |)(not valid|invalid|expired|missing|incorrect|required)",
        r"(invalid|incorrect|wrong|expired|missing|no|disabled) api[ _-]?key",
        r"api[ _-]?key not (valid|found)",
        r"no auth credentials",
    )
)
"""Wordings for a key that is wrong or missing, of servers that answer with status 400."""

_RESPONSE_WORDINGS = _pattern(
    (
        # Groq
        r"failed to (call a function|generate json|parse tool call)",
        # vLLM and Ollama, with gpt-oss and others
        r"unexpected tokens? (\d+ |)(remaining|while)",
        r"error parsing tool call",
        r"(model|it) (generated|produced|output) (an |)invalid (tool|function|json|output)",
    )
)
"""Wordings for a response that the server's own parser refuses."""


def failure(
    *, model: str, status: int, body: str, codes: tuple[object, ...] = (), headers: Mapping[str, str] | None = None
) -> ModelStatusError:
    """The typed error for a request that a server refused.

    Args:
      model: the model's name, for the error.
      status: HTTP status code.
      body: the body of the server's answer, or its error message.
      codes: the server's error codes, the most exact one first, in addition to those in ``body``; codes that are no
        text are passed over.
      headers: the answer's headers, their names in lower case.
    """
    words = ServerWords(decoded(body), codes)
    return _failure(model, status, body, words, headers or {})


def failure_in_stream(model: str, error: object, *, show_code: bool = False) -> ModelStatusError:
    """The typed error for ``error``, which a server sent in the middle of a response, too late for an HTTP status.

    Args:
      model: the model's name, for the error.
      error: an object with ``message``, ``code`` and ``type``, or only the message.
      show_code: whether the code stands before the message, for servers whose codes say more than their messages.
    """
    fields = cast("dict[str, Any]", error) if isinstance(error, dict) else {"message": error}
    words = ServerWords(decoded(error) if isinstance(error, str) else fields)
    code = fields.get("code")
    body = ": ".join(words.messages) or msgspec.json.encode(fields).decode()
    if show_code and words.messages and isinstance(code, str):
        body = f"{code}: {body}"
    return _failure(model, _status_of(words), body, words, {})


def _failure(model: str, status: int, body: str, words: ServerWords, headers: Mapping[str, str]) -> ModelStatusError:
    delay = retry_after(headers, words, status=status)
    kind = _kind(status, words, delay)
    return kind(
        model=model,
        status=status,
        body=body[:MAX_BODY_CHARACTERS],
        code=words.codes[0] if words.codes else "",
        retry_after=delay,
        advice=_advice(model, status, words) if kind is ModelStatusError and 400 <= status < 500 else "",
    )


def _advice(model: str, status: int, words: ServerWords) -> str:
    """What to do about a request that the server refused as wrong; empty if nothing is known."""
    if status != 404 or known_model(model) is not None:
        return advice(words)
    provider, _, called = model.partition(":")
    near = get_close_matches(called, models_of(provider), n=3, cutoff=0.5)
    return f"did you mean {' or '.join(repr(f'{provider}:{name}') for name in near)}?" if near else advice(words)


def _kind(status: int, words: ServerWords, delay: float | None) -> type[ModelStatusError]:
    """The class of the error: by code, then by wording, then by status."""
    known = (_CODES.get(code.lower()) for code in words.codes)
    by_code = next((code.kind for code in known if code is not None and code.kind is not None), None)
    if by_code is not None and by_code is not ModelRateLimitError:
        return by_code
    text = words.text
    if status not in _NO_OVERFLOW_STATUSES and _is_overflow(text, status):
        return ModelContextOverflowError
    if status not in _NO_QUOTA_STATUSES and _QUOTA_WORDINGS.search(text):
        # A limit of a minute has the wording of a quota at Google, and a delay.
        if delay is None or status != 429 or _DAILY.search(text):
            return ModelQuotaError
        return ModelRateLimitError
    if by_code is not None:
        return by_code
    if status == 400 and _AUTHENTICATION_WORDINGS.search(text):
        return ModelAuthenticationError
    if status in (400, 422, 500) and _RESPONSE_WORDINGS.search(text):
        return ModelResponseError
    return _BY_STATUS.get(status, ModelStatusError)


def _is_overflow(text: str, status: int) -> bool:
    if status == 429:
        return "request too large for" in text.lower()
    if _OVERFLOW_WORDINGS.search(text) is None:
        return False
    return _OUTPUT_WORDINGS.search(text) is None or _INPUT_WORDINGS.search(text) is not None


def _status_of(words: ServerWords) -> int:
    if words.status is not None:
        return words.status
    for code in words.codes:
        if code.lower() in _CODES:
            return _CODES[code.lower()].status
    return 400 if any(code.startswith(_REQUEST_CODES) for code in words.codes) else 500
