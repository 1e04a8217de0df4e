"""agentloop's own protocol: the events of a session as they are, over server-sent events. ``docs/do/serve.md`` has it.

The data of a frame is the JSON form of an event, and its id is the number of the event, so that a client that comes
back says with ``Last-Event-ID`` what it has.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from agentloop.messages import UserMessage, UserPart
from agentloop.models import ModelChoice, ReasoningEffort
from agentloop.questions import Answer
from agentloop.serving._errors import Refusal
from agentloop.serving.protocols._base import decoded, prompt_of

__all__ = ["PromptRequest", "SteerRequest", "event_frame", "read_answers", "read_number", "read_prompt", "read_steer"]


class PromptRequest(msgspec.Struct):
    """The body of ``POST /sessions/{id}/prompts``."""

    text: str = ""
    """The prompt, as text."""
    parts: tuple[UserPart, ...] = ()
    """The prompt, as parts: `Text`, `Image`, `File` in their JSON form. They follow the text."""
    agent: str = ""
    """Name of the agent; that of the session's last run, or the first one, if it is empty."""
    model: str | None = None
    """The model for this run and the later ones of the session, one of ``GET /models``; empty for the agent's own.
    ``None`` leaves it as it is."""
    reasoning_effort: ReasoningEffort | None = None
    """How much ``model`` thinks; ``None`` leaves it to the settings of the agent."""
    commands: bool = False
    """Whether a person has typed the text, which may be a slash command of the agent: see `agentloop.commands`."""


class SteerRequest(msgspec.Struct):
    """The body of ``POST /sessions/{id}/messages``."""

    text: str
    """The message."""
    when: Literal["next", "end"] = "next"
    """``next``: the model reads it with its next request. ``end``: when the run would stop."""


class _Answers(msgspec.Struct):
    answers: dict[str, Answer]


def read_prompt(body: bytes) -> tuple[UserMessage, PromptRequest, ModelChoice | None]:
    """The prompt, what was sent, and the chosen model, if one is. Raises `Refusal`."""
    sent = decoded(body, PromptRequest)
    choice: ModelChoice | None = None
    if sent.model is not None:
        choice = ModelChoice(model=sent.model, reasoning_effort=sent.reasoning_effort)
    elif sent.reasoning_effort is not None:
        raise Refusal(400, "reasoning_effort= goes with model=, which is empty for the agent's own model")
    return prompt_of([*([sent.text] if sent.text else []), *sent.parts]), sent, choice


def read_answers(body: bytes) -> Mapping[str, Answer]:
    """The answers by the id of their question. Raises `Refusal`."""
    answers = decoded(body, _Answers).answers
    if not answers:
        raise Refusal(400, "there are no answers in the request")
    return answers


def read_steer(body: bytes) -> SteerRequest:
    """A message for a run. Raises `Refusal`."""
    sent = decoded(body, SteerRequest)
    prompt_of(sent.text)
    return sent


def read_number(query: Mapping[str, str], headers: Mapping[str, str]) -> int:
    """The number of the last event that a client has; 0 if it has none. Raises `Refusal`.

    The header counts before the query: a browser comes back with the address that it had at first.
    """
    given: Any = headers.get("last-event-id") or query.get("after") or "0"
    if not (given.isascii() and given.isdigit() and len(given) < 16):
        raise Refusal(400, "after=, and the header Last-Event-ID, have the number of an event")
    return int(given)


def event_frame(seq: int, data: bytes) -> bytes:
    """The server-sent event of event ``seq``, whose JSON form is ``data``."""
    return b"id: %d\ndata: %b\n\n" % (seq, data)
