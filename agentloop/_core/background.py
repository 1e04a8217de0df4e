"""Background runs: their ids, how many there may be, and the message that reports their ends to the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from agentloop._core.context_window import LongResults
from agentloop.events import StreamReason
from agentloop.messages import AssistantMessage, Message, Text, ToolResult, UserMessage, text_of

__all__ = [
    "CUT_OFF",
    "GIVEN_UP",
    "LOST",
    "MOST_BACKGROUND",
    "MOST_IN_REPORT",
    "Ended",
    "id_of",
    "last_text",
    "lost",
    "report",
    "work_of",
]

MOST_BACKGROUND = 20
"""Background runs of one run that may run at once, as in docker-agent."""

MOST_IN_REPORT = 4096
"""Characters of an answer that a report shows, as in docker-agent. The model reads the rest as that of any result."""


CUT_OFF = "it ended with the run that had started it"
"""The detail of a background run whose end came too late for the run that had started it to report it."""

GIVEN_UP = "the run that had started it was given up"
"""The detail of a background run whose run was not resumed: another prompt came in its place."""

LOST = "the block that it belonged to has ended, or its process has"
"""The detail of a background run of a `Toolsets` block that is not there any more."""


MOST_TOOLS = 5
"""Tools whose calls a report counts, for a run whose events no stream has shown."""


class Ended(msgspec.Struct, frozen=True):
    """A background run that has ended, as its report describes it."""

    id: str
    reason: StreamReason
    detail: str
    text: str
    """Its answer, or what it wrote last."""
    work: str = ""
    """What it did, in a few words, if no stream has shown its events; else empty."""


def id_of(agent: str, count: int) -> str:
    """The id of a background run of ``agent``, after ``count`` others of that agent."""
    return f"{agent}-{count + 1}"


def last_text(messages: Sequence[Message]) -> str:
    """What the model wrote last; empty if nothing."""
    for message in reversed(messages):
        if isinstance(message, AssistantMessage) and (text := message.text):
            return text
    return ""


def lost(unreported: Mapping[str, str]) -> list[Ended]:
    """The background runs of which no more is known than ``unreported``: a detail for each id."""
    return [Ended(id, "interrupted", detail, "") for id, detail in unreported.items()]


def work_of(messages: Sequence[Message]) -> str:
    """What a run with these messages did, in one line: its turns, and its calls by the name of their tool."""
    turns = 0
    calls: dict[str, int] = {}
    for message in messages:
        if isinstance(message, AssistantMessage):
            turns += 1
            for call in message.calls:
                calls[call.name] = calls.get(call.name, 0) + 1
    most = sorted(calls.items(), key=lambda item: -item[1])
    shown = ", ".join(f"{name} {count}" for name, count in most[:MOST_TOOLS])
    more = f" and {len(most) - MOST_TOOLS} other tools" if len(most) > MOST_TOOLS else ""
    return f"{turns} turn{'' if turns == 1 else 's'}" + (f", calls: {shown}{more}" if calls else "")


def report(ended: Sequence[Ended], long_results: LongResults) -> UserMessage:
    """The message that reports the ends of background runs, oldest first. Long answers are stored, to be read."""
    parts = tuple([Text(_words_of(run, long_results)) for run in ended])
    return UserMessage(parts, reports=tuple([run.id for run in ended]))


def _words_of(run: Ended, long_results: LongResults) -> str:
    why = f": {run.detail}" if run.detail else ""
    work = f" ({run.work})" if run.work else ""
    if run.reason == "completed":
        head = f"[Background run {run.id} has completed{work}. Its answer:]"
    elif run.text:
        head = f"[Background run {run.id} has ended without an answer ({run.reason}{why}){work}. It wrote last:]"
    else:
        return f"[Background run {run.id} has ended without an answer ({run.reason}{why}){work}.]"
    result = long_results.shorten(ToolResult(run.id, "", (Text(run.text),)), MOST_IN_REPORT)
    return f"{head}\n{text_of(result.parts)}"
