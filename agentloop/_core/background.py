"""Background runs: their ids, how many there may be, and the message that reports their ends to the model."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from agentloop._core.context_window import LongResults
from agentloop.events import StreamReason
from agentloop.messages import AssistantMessage, Message, Text, ToolResult, UserMessage, text_of

__all__ = ["MOST_BACKGROUND", "MOST_IN_REPORT", "Ended", "id_of", "last_text", "report"]

MOST_BACKGROUND = 20
"""Background runs of one run that may run at once, as in docker-agent."""

MOST_IN_REPORT = 4096
"""Characters of an answer that a report shows, as in docker-agent. The model reads the rest as that of any result."""


class Ended(msgspec.Struct, frozen=True):
    """A background run that has ended, as its report describes it."""

    id: str
    reason: StreamReason
    detail: str
    text: str
    """Its answer, or what it wrote last."""


def id_of(agent: str, count: int) -> str:
    """The id of a background run of ``agent``, after ``count`` others of that agent."""
    return f"{agent}-{count + 1}"


def last_text(messages: Sequence[Message]) -> str:
    """What the model wrote last; empty if nothing."""
    for message in reversed(messages):
        if isinstance(message, AssistantMessage) and (text := message.text):
            return text
    return ""


def report(ended: Sequence[Ended], long_results: LongResults) -> UserMessage:
    """The message that reports the ends of background runs, oldest first. Long answers are stored, to be read."""
    parts = tuple([Text(_words_of(run, long_results)) for run in ended])
    return UserMessage(parts, reports=tuple([run.id for run in ended]))


def _words_of(run: Ended, long_results: LongResults) -> str:
    why = f": {run.detail}" if run.detail else ""
    if run.reason == "completed":
        head = f"[Background run {run.id} has completed. Its answer:]"
    elif run.text:
        head = f"[Background run {run.id} has ended without an answer ({run.reason}{why}). It wrote last:]"
    else:
        return f"[Background run {run.id} has ended without an answer ({run.reason}{why}).]"
    result = long_results.shorten(ToolResult(run.id, "", (Text(run.text),)), MOST_IN_REPORT)
    return f"{head}\n{text_of(result.parts)}"
