"""One frozen class per thing that can happen in a stream.

Match on the class::

    async for event in stream:
        match event:
            case TextDelta(text=text): ...
            case ToolCallFinished(result=result): ...

Every event says where it comes from (`Event.source`) and its place in order (`Event.seq`). The classes hold data
only: no exceptions, no handles, so that an event can be sent, stored and compared. `encode` and `decode` are
their JSON form.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec
from attrs import field, fields, frozen

from agentloop.messages import Message, ToolResult, Usage, UserMessage
from agentloop.questions import Answer

__all__ = [
    "ApprovalRequested",
    "ChildStreamStarted",
    "ChildStreamStopped",
    "CompactionFinished",
    "CompactionStarted",
    "ContinueRequested",
    "ElicitationRequested",
    "ErrorInfo",
    "Event",
    "MessageCommitted",
    "Question",
    "QuestionAnswered",
    "QuestionDeclined",
    "QuestionParked",
    "QuestionWithdrawn",
    "ReasoningDelta",
    "ResponseDiscarded",
    "Source",
    "StreamEvent",
    "StreamReason",
    "StreamStarted",
    "StreamStopped",
    "TextDelta",
    "ToolCallDelta",
    "ToolCallFinished",
    "ToolCallOutput",
    "ToolCallParked",
    "ToolCallProgress",
    "ToolCallStarted",
    "TurnFinished",
    "TurnReason",
    "TurnStarted",
    "UnknownEvent",
    "UsageReported",
    "WarningIssued",
]

StreamReason: TypeAlias = Literal["completed", "cancelled", "failed", "blocked", "limit", "needs_input", "interrupted"]
"""Why a stream stopped. ``needs_input``: it is parked until somebody has answered. ``interrupted``: its process, or its
store, was gone; this was found, and told, when the session was opened again. Either can be resumed."""

TurnReason: TypeAlias = Literal[
    "final",
    "tool_calls",
    "continued",
    "output_retry",
    "cancelled",
    "failed",
    "blocked",
    "limit",
    "needs_input",
    "interrupted",
]
"""Why a turn finished: with the answer, to read tool results, because a stop hook, a reminder or a person sent the
agent on, or because the stream ends."""


class Source(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where an event comes from. One value per stream, shared by all of its events."""

    session: str
    stream: str
    agents: tuple[str, ...]
    """The names of the agents from the root stream's down to the one that acts."""
    parent: str | None = None
    """The stream in which this one was opened; ``None`` at the root."""


class ErrorInfo(msgspec.Struct, frozen=True):
    """An error as data. The exception itself is on the stream's outcome."""

    type: str
    """The name of its class."""
    message: str


_ENVELOPE = ("source", "seq")


@frozen(repr=False)
class Event:
    """What all events have in common."""

    source: Source
    seq: int
    """The event's place in its reader's stream. Counts up by one, without gaps, over the life of the session."""

    # Written once, and not by attrs for each of thirty classes, which would be a twentieth of what importing takes.
    def __repr__(self) -> str:
        told = ", ".join(f"{each.name}={getattr(self, each.name)!r}" for each in fields(type(self)))
        return f"{type(self).__name__}({told})"

    def __str__(self) -> str:
        """One line for a person: the place, the agents, and what is to be told, without what is left at its default."""
        told: list[str] = []
        for each in fields(type(self)):
            value = getattr(self, each.name)
            if each.name in _ENVELOPE or not each.eq or value == each.default:
                continue
            shown = str(value) if isinstance(value, msgspec.Struct) else repr(value)
            told.append(f"{each.name}={shown}")
        return f"{self.seq:4} {' > '.join(self.source.agents)}: {type(self).__name__}({', '.join(told)})"

    @property
    def session(self) -> str:
        """The id of the session in whose transcript this happened."""
        return self.source.session

    @property
    def stream(self) -> str:
        """The id of the stream that the event belongs to."""
        return self.source.stream

    @property
    def parent(self) -> str | None:
        """The id of the stream in which that stream was opened; ``None`` at the root."""
        return self.source.parent

    @property
    def agent(self) -> str:
        """The name of the agent that acted."""
        return self.source.agents[-1]

    @property
    def path(self) -> tuple[str, ...]:
        """The names of the agents from the root down to the one that acted."""
        return self.source.agents

    @property
    def depth(self) -> int:
        """0 for the root stream, 1 for its children, and so on."""
        return len(self.source.agents) - 1


# ------------------------------------------------------------------------------ streams


@frozen(kw_only=True, repr=False)
class StreamStarted(Event):
    """The stream began. Always the first event."""

    message: UserMessage
    model: str
    resumes: str = ""
    """The stream that it goes on from, whose ``message`` this is; empty if it does not."""


@frozen(kw_only=True, repr=False)
class StreamStopped(Event):
    """The stream ended. Always the last event, exactly once."""

    reason: StreamReason
    detail: str = ""
    """What a person may want to know about the reason: which limit, which hook, what was said to ``stop()``."""
    error: ErrorInfo | None = None
    """Given where ``reason`` is ``failed``."""
    usage: Usage = Usage()
    """Of this stream and of all its children."""


@frozen(kw_only=True, repr=False)
class ChildStreamStarted(Event):
    """A stream began inside a tool call of another. Its events follow, among those of its parent."""

    call_id: str
    """The call, in the parent stream, that opened it."""
    message: UserMessage
    model: str
    resumes: str = ""
    """The stream that it goes on from; empty if it does not."""


@frozen(kw_only=True, repr=False)
class ChildStreamStopped(Event):
    """A child stream ended. One for every `ChildStreamStarted`, before its parent's last event."""

    call_id: str
    reason: StreamReason
    detail: str = ""
    error: ErrorInfo | None = None
    usage: Usage = Usage()


@frozen(kw_only=True, repr=False)
class TurnStarted(Event):
    """A turn began: one request to the model, and the tool calls it asks for."""

    turn: int
    """Counts from 1 in each stream."""


@frozen(kw_only=True, repr=False)
class TurnFinished(Event):
    """A turn ended. One for every `TurnStarted`."""

    turn: int
    reason: TurnReason


# --------------------------------------------------------------------- the model speaks


@frozen(repr=False)
class TextDelta(Event):
    """The model wrote some text."""

    text: str


@frozen(repr=False)
class ReasoningDelta(Event):
    """The model thought aloud."""

    text: str


@frozen(kw_only=True, repr=False)
class ToolCallDelta(Event):
    """The model wrote a piece of a tool call. ``name`` comes whole with the first piece, ``arguments`` in fragments."""

    call_id: str
    name: str
    arguments: str


@frozen(kw_only=True, repr=False)
class ResponseDiscarded(Event):
    """A response failed, and is asked for again. What was told of it counts for nothing.

    That is every `TextDelta`, `ReasoningDelta` and `ToolCallDelta` since `TurnStarted`, or since the event of this kind
    before. Nothing of it goes into the transcript; a response is never put together from two.
    """

    error: ErrorInfo
    model: str
    """The model that failed."""
    next_model: str
    """The model that is asked next: the same, or the next one of the agent's ``fallbacks``."""
    delay: float
    """Seconds until then."""


@frozen(kw_only=True, repr=False)
class CompactionStarted(Event):
    """The conversation gets too long for the model: room is being made."""

    reason: Literal["threshold", "overflow"]
    """Whether there will soon be none, or the model has refused a request as too long."""
    tokens: int
    """That the next request would take, about."""


@frozen(kw_only=True, repr=False)
class CompactionFinished(Event):
    """Room was made, or not. One for every `CompactionStarted`. The transcript itself stays as it is."""

    tokens: int
    """That what the model reads of the transcript takes now, about."""
    first_kept: int
    """The place in ``session.messages`` from which on the model reads them."""
    summary: str
    """What it reads in the place of those before; empty if only old results were left out."""
    problem: str = ""
    """Why no room was made; empty if it was."""


@frozen(kw_only=True, repr=False)
class MessageCommitted(Event):
    """A message became part of the transcript. It is there when this event is told."""

    message: Message
    index: int
    """Its place in ``session.messages``, from 0."""


@frozen(kw_only=True, repr=False)
class UsageReported(Event):
    """A response is complete, and this is what it used. Told before the calls that it asks for are run."""

    usage: Usage
    total: Usage
    """Of this stream and its children so far."""


# --------------------------------------------------------------------------- tool calls


@frozen(kw_only=True, repr=False)
class ToolCallStarted(Event):
    """A tool call is being dealt with: judged, approved, run."""

    call_id: str
    name: str
    arguments: str
    """JSON text, as the model wrote it."""


@frozen(kw_only=True, repr=False)
class ToolCallOutput(Event):
    """A running tool gave some output, before its result."""

    call_id: str
    text: str


@frozen(kw_only=True, repr=False)
class ToolCallProgress(Event):
    """A running tool said how far it is."""

    call_id: str
    progress: float
    """In the unit of ``total``; only ever grows."""
    total: float | None = None
    """``None`` if the tool does not know."""
    message: str = ""


@frozen(kw_only=True, repr=False)
class ToolCallFinished(Event):
    """A tool call ended. One for every `ToolCallStarted`, told when the tool has ended, not in call order."""

    call_id: str
    name: str
    result: ToolResult
    elapsed: float = field(eq=False)
    """Seconds on trio's clock, a person's thinking time included. Outside equality, so that two runs compare equal."""


@frozen(kw_only=True, repr=False)
class ToolCallParked(Event):
    """A tool call has no result yet, and the stream ends: told in the place of `ToolCallFinished`.

    It waits for an answer, or for what does, or its process has ended. Who resumes the stream goes on with it.
    """

    call_id: str
    name: str


# ---------------------------------------------------------------------------- questions


@frozen(kw_only=True, repr=False)
class ElicitationRequested(Event):
    """A tool asks the user. Answer with `Accept`, `Decline` or `Cancel`."""

    id: str
    call_id: str
    message: str
    form: dict[str, Any]
    """JSON Schema of the content to accept with: a flat object of primitive properties, as in MCP."""
    url: str | None = None
    """A page to visit, instead of a form. `Accept` says that the person agreed to; nothing is opened for them."""


@frozen(kw_only=True, repr=False)
class ApprovalRequested(Event):
    """A tool call wants approval. Answer with `Approve` or `Deny`."""

    id: str
    call_id: str
    name: str
    arguments: dict[str, Any]
    """Exactly what an approval is bound to: the tool runs with these, or with those of the answer."""
    reason: str = ""
    """Which rule or mode asks, and what hooks say; empty if it is only the tool that wants to be asked about."""


@frozen(kw_only=True, repr=False)
class ContinueRequested(Event):
    """A limit is reached: go on? Answer with `Approve` (the same amount once more) or `Deny`."""

    id: str
    limit: str
    """The name of a field of `Limits`."""
    used: float
    allowed: float


Question: TypeAlias = ElicitationRequested | ApprovalRequested | ContinueRequested


@frozen(kw_only=True, repr=False)
class QuestionAnswered(Event):
    """A question was answered; the asker goes on with the answer."""

    id: str
    answer: Answer
    by: Literal["reader", "handler", "rule"]
    """``rule``: the answer to another question allowed this call, too, for good."""


@frozen(kw_only=True, repr=False)
class QuestionDeclined(Event):
    """There was nobody to ask; the asker goes on with a refusal that says so."""

    id: str
    note: str


@frozen(kw_only=True, repr=False)
class QuestionWithdrawn(Event):
    """A question closed unanswered, since what asked it has ended."""

    id: str


@frozen(kw_only=True, repr=False)
class QuestionParked(Event):
    """The stream ends, and the question waits for an answer, to resume it with."""

    id: str


# ------------------------------------------------------------------------------- others


@frozen(kw_only=True, repr=False)
class WarningIssued(Event):
    """Something went wrong that did not end the run."""

    code: str
    """A short, stable word: ``hook_failed``, ``thread_abandoned``, ``truncated``..."""
    message: str


@frozen
class UnknownEvent:
    """An event of a newer version of agentloop. Kept as it came: `encode` gives the same bytes back."""

    type: str
    raw: bytes


StreamEvent: TypeAlias = (
    StreamStarted
    | StreamStopped
    | ChildStreamStarted
    | ChildStreamStopped
    | TurnStarted
    | TurnFinished
    | TextDelta
    | ReasoningDelta
    | ToolCallDelta
    | ResponseDiscarded
    | CompactionStarted
    | CompactionFinished
    | MessageCommitted
    | UsageReported
    | ToolCallStarted
    | ToolCallOutput
    | ToolCallProgress
    | ToolCallFinished
    | ToolCallParked
    | ElicitationRequested
    | ApprovalRequested
    | ContinueRequested
    | QuestionAnswered
    | QuestionDeclined
    | QuestionWithdrawn
    | QuestionParked
    | WarningIssued
)
"""Every event that a stream can give, for exhaustive matching."""
