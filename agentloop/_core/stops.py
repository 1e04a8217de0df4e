"""Check the end of a response: its reason and its numbers come from outside."""

from __future__ import annotations

import math
from typing import get_args

from agentloop._core.field_checks import FieldError, checked, plain_text, shown
from agentloop.errors import ModelProtocolError
from agentloop.messages import StopReason, Usage
from agentloop.models import Stop

__all__ = ["MAX_TOKENS", "checked_delta", "checked_stop", "checked_usage"]

MAX_TOKENS = 10**9
"""Tokens. A larger count is a mistake of the server, or an attack on limits and stores: no response has as many."""

_REASONS = frozenset(get_args(StopReason)) - {"interrupted"}
"""The reasons that a model may give. Only the run knows that it was interrupted."""


def checked_stop(stop: object, *, model: str) -> Stop:
    """``stop``, as the model ``model`` returned it, with a reason that exists and numbers that can be counted.

    Raises:
      ModelProtocolError: it is no `Stop`, or its reason is unknown.
    """
    if not isinstance(stop, Stop) or not _fits(stop.usage, Usage) or not _fits(stop.model, str):
        raise ModelProtocolError(f"model {model!r} returned {shown(stop)} where a Stop is due")
    if not _fits(stop.reason, str) or stop.reason not in _REASONS:
        raise ModelProtocolError(
            f"model {model!r} returned the unknown stop reason {shown(stop.reason)}; the reasons are {sorted(_REASONS)}"
        )
    # The name may have lone surrogates, with which no message can be encoded.
    return Stop(checked(str, stop.reason), checked_usage(stop.usage), plain_text(stop.model))


def checked_delta(model: str, name: str, text: object) -> str:
    """A text that the model ``model`` passed to its `Reply`, in whole characters.

    Raises:
      ModelProtocolError: it is no text.
    """
    if type(text) is str and text.isascii():
        return text
    try:
        return str(checked(str, text, f"reply.{name}"))
    except FieldError as error:
        raise ModelProtocolError(f"model {model!r} broke the protocol: {error}") from error


def checked_usage(usage: Usage) -> Usage:
    """``usage`` with 0 for each number that no response can have: a negative one, one above `MAX_TOKENS`, NaN.

    A negative count would raise the limits of the run, and a number that JSON has no form for would spoil its session.
    """
    return Usage(
        _count(usage.input_tokens),
        _count(usage.output_tokens),
        _count(usage.cached_tokens),
        _count(usage.reasoning_tokens),
        _count(usage.requests),
        _count(usage.cache_written_tokens),
        _cost(usage.cost),
    )


def _fits(value: object, kind: type) -> bool:
    # A function, since type checkers take a model's word for the types of what it returns.
    return isinstance(value, kind)


def _count(value: object) -> int:
    return int(value) if isinstance(value, int) and 0 <= value <= MAX_TOKENS else 0


def _cost(value: object) -> float:
    is_cost = isinstance(value, (int, float)) and 0 <= value <= MAX_TOKENS and math.isfinite(value)
    return float(value) if is_cost and isinstance(value, (int, float)) else 0.0
