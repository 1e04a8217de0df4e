"""The values of the picture: a timeline is a tree of spans, each with its times, its status and its cause."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

__all__ = ["Kind", "Segment", "Share", "Span", "Status", "Summary", "Timeline"]

Kind: TypeAlias = Literal[
    "run", "turn", "request", "retry", "tool", "question", "compaction", "parked", "stopped", "message", "warning"
]
"""What a span is.

- ``run``: a run, or a child run.
- ``turn``: a turn of a run.
- ``request``: a request to a model, from its sending to the end of its response.
- ``retry``: the pause before a failed request is sent again.
- ``tool``: a tool call, its permission checks and questions included.
- ``question``: a question, from its asking until it was closed.
- ``compaction``: the conversation is shortened.
- ``parked``: no process works on the run, which needs a person's answer.
- ``stopped``: no process works on the run, since its process ended or was killed.
- ``message``: a moment: a steering message or a follow-up reached the run, its agent handed the conversation off, or a
  process rewound the session.
- ``warning``: a moment: a warning was emitted.
"""

Status: TypeAlias = Literal[
    "ok", "running", "error", "denied", "timeout", "cancelled", "interrupted", "parked", "discarded", "limit", "blocked"
]
"""How a span ended.

- ``ok``: as it should.
- ``running``: the journal has no end of it.
- ``error``: by an error.
- ``denied``: a rule, a hook or a person denied the call; or nobody was left to answer the question.
- ``timeout``: it took too long.
- ``cancelled``: the program or a person stopped it, or a span around it ended.
- ``interrupted``: its process ended or was killed.
- ``parked``: its run was parked; the run that resumes it goes on with it.
- ``discarded``: the response failed, and the request was sent again.
- ``limit``: the run reached a limit.
- ``blocked``: a hook refused to let the run go on.
"""


class Span(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something that took time in a run."""

    id: int
    """Its index in `Timeline.spans`."""
    parent: int | None
    """The id of the span around it; ``None`` for a run of the session, and for the time between two of them."""
    kind: Kind
    """What it is."""
    name: str
    """The agent, the model or the tool; or a few words. Untrusted text."""
    begin: float
    """Seconds since 1970 (UTC)."""
    end: float
    """Seconds since 1970 (UTC); for a span that is ``running``, the time of the picture."""
    status: Status
    """How it ended."""
    first: float | None = None
    """When the first delta of the response came; ``None`` if there was none, or it is not known."""
    ran: float | None = None
    """When the function of the tool began to run, after permission checks and approval."""
    cause: str = ""
    """Why it did not end by itself: the words of the one who stopped it, or an error."""
    cause_span: int | None = None
    """The id of the span that cancelled it, by its own end."""
    waits_for: int | None = None
    """The id of the span inside it that it waited for last."""
    details: tuple[tuple[str, str], ...] = ()
    """Facts for a person, each with its label. Untrusted text."""

    @property
    def seconds(self) -> float:
        """Its duration."""
        return self.end - self.begin


class Share(msgspec.Struct, frozen=True):
    """A part of the time."""

    name: str
    """What took the time."""
    seconds: float
    """The time in which at least one such span was busy."""


class Segment(msgspec.Struct, frozen=True):
    """A piece of the critical path."""

    span: int
    """The id of the span that the end of the run waited for."""
    begin: float
    """Seconds since 1970 (UTC)."""
    end: float
    """Seconds since 1970 (UTC)."""


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """Where the time went."""

    total: float
    """Seconds from the first event to the last, without the time between the end of a run and the next prompt."""
    active: float
    """Seconds in which a run was running."""
    shares: tuple[Share, ...]
    """Time in models, in tools, waiting for people, before retries, and rest; they may overlap."""
    parked: float
    """Seconds in which a run was parked, or its process was gone."""
    overlap: float
    """Seconds in which two or more requests, tools and questions were busy."""
    critical: tuple[Segment, ...]
    """The critical path, in order: each moment of the runs, with the span that their end waited for."""
    slowest: tuple[tuple[int, float], ...]
    """The ids of the five slowest requests, tools and questions, the slowest first, each with the seconds in which it
    was busy itself, rather than a span inside it."""


class Timeline(msgspec.Struct, frozen=True, kw_only=True):
    """The picture of a session's runs, before it is drawn."""

    session: str
    """The session's id."""
    title: str
    """The session's title; empty if it has none."""
    fork_of: str
    """The session that it was forked from; empty if it was not."""
    spans: tuple[Span, ...]
    """The spans, each after its parent, in order of their begin."""
    begin: float
    """When the first one began."""
    end: float
    """When the last one ended."""
    last_seq: int
    """Number of the last event in the picture; 0 for none."""
    is_running: bool
    """Whether the journal has no end of the last run."""
    notes: tuple[str, ...]
    """What is not known, in sentences: records that cannot be read, times that were not saved."""
    summary: Summary
    """Where the time went."""

    @property
    def gaps(self) -> tuple[tuple[float, float], ...]:
        """Times in which no run was running: a drawing may shorten them."""
        gaps: list[tuple[float, float]] = []
        reached = self.begin
        for span in self.spans:
            if span.parent is None and span.kind == "run":
                if span.begin > reached:
                    gaps.append((reached, span.begin))
                reached = max(reached, span.end)
        if self.end > reached:
            gaps.append((reached, self.end))
        return tuple(gaps)
