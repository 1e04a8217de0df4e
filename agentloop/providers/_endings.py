"""The end of a response: the reasons that servers give, and whether the response has ended at all.

One table serves all formats, since proxies translate between them and leave the reasons as they are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal, cast

from agentloop.errors import ModelConnectionError, ModelError, ModelProtocolError, ModelStatusError
from agentloop.messages import StopReason
from agentloop.providers._events import ErrorData, WireEvents
from agentloop.providers._failures import failure_in_stream
from agentloop.providers._writing import ResponseWriter

__all__ = ["Ending", "error_in", "stop_reason"]

_FAILED = (
    "malformed",
    "error",
    "fail",
    "abort",
    "cancel",
    "invalid",
    "unexpected",
    "insufficient",
    "overload",
    "timeout",
    "interrupt",
    "unavailable",
    "unspecified",
    "missing",
    "too_many",
    "no_image",
    "language",
    "other",
)
"""Words in the reasons of a server that could not complete the response. Gemini has most of them."""

_REASONS: Mapping[StopReason, tuple[str, ...]] = {
    "refusal": (
        "filter",
        "refus",
        "safety",
        "recitation",
        "block",
        "prohibit",
        "spii",
        "sensitive",
        "guardrail",
        "moderation",
        "policy",
        "toxic",
    ),
    "length": ("length", "max", "limit", "window", "truncat", "incomplete", "budget"),
    "paused": ("pause",),
    "tool_calls": ("tool", "function"),
    "end": ("stop", "end", "eos", "complete", "finish", "done", "normal", "success"),
}
"""Words in the reasons for each `StopReason`, most cautious first: the first that occurs decides."""


def stop_reason(words: str, writer: ResponseWriter, *, model: str) -> StopReason:
    """The stop reason that ``words`` stand for.

    Args:
      words: the server's reason; empty if it gave none.
      writer: the response. Under no reason or an unknown one it counts only if it could be complete.
      model: the model's name, for errors.

    Raises:
      ModelProtocolError: the server failed, or the response is no answer.
    """
    reason = _known_reason(words)
    if reason == "failed":
        raise ModelProtocolError(f"model {model!r} failed: it ended its response with the reason {words!r}")
    if reason is not None:
        return reason
    if not writer.is_answer:
        gave = f"the unknown reason {words!r}" if words else "no reason"
        raise ModelProtocolError(f"model {model!r} ended its response before its answer was complete, with {gave}")
    return "end"


@lru_cache
def _known_reason(words: str) -> StopReason | Literal["failed"] | None:
    """The reason that ``words`` stand for; ``None`` if they are unknown. Cached, as a server has few of them."""
    reason = words.lower().replace("-", "_").replace(" ", "_")
    if any(word in reason for word in _FAILED):
        return "failed"
    return next((stop for stop, known in _REASONS.items() if any(word in reason for word in known)), None)


class Ending:
    """Notices the end of a response that ends with a reason, and then with a marker.

    The reason counts as the end even if the marker never comes, unless the response goes on after it: some proxies give
    a reason with each event. Then only the marker is the end.

    Args:
      events: the answer.
      writer: the response.
      model: the model's name, for errors.
      linger: seconds to wait for the marker after the reason.
    """

    __slots__ = ("_events", "_is_early", "_linger", "_model", "_writer", "_written", "foreign", "is_marked", "words")

    def __init__(self, events: WireEvents, writer: ResponseWriter, *, model: str, linger: float) -> None:
        self._events = events
        self._writer = writer
        self._model = model
        self._linger = linger
        self.foreign = b""
        """The last event that was no part of a response. If the response has no end, it may say why."""
        self._written = 0
        """How much of the response came before its reason."""
        self._is_early = False
        self.words: str | None = None
        """The server's reason; ``None`` before it came."""
        self.is_marked = False
        """Whether the end marker has come."""

    def check(self) -> None:
        """Notice that the response has gone on after its reason."""
        if self.words is not None and not self._is_early and self._writer.written != self._written:
            self._is_early = True
            if not self.is_marked:
                self._events.unsettle()

    def give_reason(self, words: str | None) -> None:
        """The server has given a reason. A reason of caution (a limit, a failure) is not replaced by a later one."""
        if not words or words.lower() in ("null", "none"):
            return
        self.check()
        if self.words is None or _is_plain(self.words):
            self.words = words
        self._written = self._writer.written
        if not self._is_early and not self.is_marked:
            self._events.settle(self._linger)

    def mark(self, linger: float) -> None:
        """The end marker has come; the answer itself must end within ``linger`` seconds."""
        self.is_marked = True
        self._events.settle(linger)

    def stop_reason(self) -> StopReason:
        """The stop reason of the response, after its last event.

        Raises:
          ModelStatusError: the server sent an error in the place of the end.
          ModelConnectionError: the response has not ended.
          ModelProtocolError: the server failed, or the response is no answer.
        """
        if self.words is None and self.foreign:
            error = error_in(self.foreign, model=self._model)
            if isinstance(error, ModelStatusError) or not self._writer.written:
                raise error
        # An answer that is one JSON text has no marker.
        is_reached = self.is_marked or self._events.is_json or (self.words is not None and not self._is_early)
        if not is_reached:
            raise ModelConnectionError(f"model {self._model!r}: the stream ended before the response did")
        return stop_reason(self.words or "", self._writer, model=self._model)


def _is_plain(words: str) -> bool:
    return words.lower() in ("stop", "end_turn", "eos", "stop_sequence")


# ---------------------------------------------------------------------------------- errors


_MESSAGES = ("message", "msg", "detail", "error_message", "error_msg", "reason", "title")
_CODES = ("code", "status", "status_code", "statusCode", "error_code")


def error_in(data: bytes, *, model: str, show_code: bool = False) -> ModelError:
    """The error for an event that is no part of a response, with the server's words.

    Args:
      data: the data of the event.
      model: the model's name, for the error.
      show_code: see `failure_in_stream`.
    """
    try:
        value: object = json.loads(data)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        if isinstance(data, ErrorData):
            return failure_in_stream(model, data.decode("utf-8", "replace").strip() or "an error without a word")
        return ModelProtocolError(f"model {model!r} sent {data[:200]!r}, which is no response")
    fields = cast("dict[str, Any]", value)
    error: object = fields.get("error") or fields
    if error is fields:
        code = next((fields[name] for name in _CODES if _is_failure(fields.get(name))), None)
        message = next((fields[name] for name in _MESSAGES if isinstance(fields.get(name), str)), None)
        if code is None and not isinstance(data, ErrorData):
            return ModelProtocolError(f"model {model!r} sent JSON that is no response: {data[:500]!r}")
        if message is not None:
            error = {"code": code, "message": message}
    return failure_in_stream(model, error, show_code=show_code)


def _is_failure(code: object) -> bool:
    """Whether ``code`` is an HTTP status that is no success, or a word."""
    text = str(code)
    return isinstance(code, (int, str)) and (400 <= int(text) <= 599 if text.isdecimal() else text.isidentifier())
