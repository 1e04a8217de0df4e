"""The events of a stream: one frozen class for each thing that can happen.

Match on the class::

    async for event in stream:
        match event:
            case TextDelta(text=text): ...
            case ToolCallFinished(result=result): ...

Every event carries its origin (`Event.source`) and its place in order (`Event.seq`). Events hold data only, neither
exceptions nor handles, so they can be sent, stored and compared. `agentloop.wire.encode_event` and
`agentloop.wire.decode_event` convert them to JSON and back.

Events that begin something (``...Started``) are paired with one event that ends it, on every path:

=========================  =============================================
begins                     ends
=========================  =============================================
`StreamStarted`            `StreamStopped`
`ChildStreamStarted`       `ChildStreamStopped`
`TurnStarted`              `TurnFinished`
`ToolCallStarted`          `ToolCallFinished` or `ToolCallParked`
`CompactionStarted`        `CompactionFinished`
a question                 `QuestionAnswered`, `QuestionDeclined`, `QuestionWithdrawn` or `QuestionParked`
`Paused`                   `Resumed`, or the end of its stream
=========================  =============================================
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, TypeAlias

import msgspec

from agentloop._core.attrs_fields import AttrsFields
from agentloop.messages import Message, ToolResult, Usage, UserMessage
from agentloop.questions import Answer
from agentloop.safety import BlastRadius

__all__ = [
    "ApprovalRequested",
    "ChildStreamStarted",
    "ChildStreamStopped",
    "CompactionFinished",
    "CompactionReason",
    "CompactionStarted",
    "ContinueRequested",
    "ElicitationRequested",
    "ErrorInfo",
    "Event",
    "HandedOff",
    "MessageCommitted",
    "OutputDelta",
    "Paused",
    "Question",
    "QuestionAnswered",
    "QuestionDeclined",
    "QuestionParked",
    "QuestionWithdrawn",
    "ReasoningDelta",
    "RequestPurpose",
    "ResponseDiscarded",
    "Resumed",
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
    "ToolsChanged",
    "ToolsetChanged",
    "ToolsetState",
    "ToolsetStatus",
    "TurnFinished",
    "TurnReason",
    "TurnStarted",
    "UnknownEvent",
    "UsageReported",
    "WarningCode",
    "WarningIssued",
]

StreamReason: TypeAlias = Literal["completed", "cancelled", "failed", "blocked", "limit", "needs_input", "interrupted"]
"""Why a stream stopped.

- ``completed``: the model gave its final answer.
- ``cancelled``: the caller stopped it, left its block, or was cancelled itself.
- ``failed``: an error ended it; see ``error``.
- ``blocked``: a hook refused to let it go on.
- ``limit``: it reached a limit, and nobody allowed it to go past.
- ``needs_input``: it is parked until its questions are answered, or was parked while it was paused; `Agent.resume`
  continues it.
- ``interrupted``: its process or its store died. Recorded when the session is next opened; `Agent.resume` continues it.
"""

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
"""Why a turn finished.

- ``final``: the model gave its final answer.
- ``tool_calls``: the model called tools; it reads their results in the next turn.
- ``continued``: the model had answered, and a stop hook, a steering message, a follow-up or a background run continued
  the run; or the provider had paused the response.
- ``output_retry``: the answer was empty, no valid structured output, or refused by an output validator; the model is
  asked for it again.
- ``cancelled``, ``failed``, ``blocked``, ``limit``, ``needs_input``, ``interrupted``: the stream ended in this turn.
"""

WarningCode: TypeAlias = Literal[
    "answer_refused",
    "background_run_lost",
    "cache_lost",
    "compaction_failed",
    "context_failed",
    "embed_failed",
    "empty",
    "error_while_stopping",
    "handler_failed",
    "hook_failed",
    "hook_warning",
    "judge_failed",
    "messages_left_out",
    "model_failed",
    "predicate_failed",
    "question_refused",
    "rule_matches_nothing",
    "thread_abandoned",
    "toolset_failed",
    "toolset_problem",
    "truncated",
    "unmetered",
    "unpriced",
]
"""What a `WarningIssued` event warns of.

- ``answer_refused``: a recorded answer does not fit the question that a resumed run asks; it is asked again.
- ``background_run_lost``: a resumed run could not resume one of its background runs, which it reports as interrupted.
- ``cache_lost``: the provider's cache had nothing of a request, though it had something of the request before; the
  message says why, as far as the two requests tell.
- ``compaction_failed``: the conversation could not be shortened; the run goes on with all of it.
- ``context_failed``: a context source raised an error or timed out; the model keeps the text that it has.
- ``embed_failed``: the ``embed`` function of a search raised an error, or gave no vectors; words alone are searched.
- ``empty``: the response has neither text nor tool calls; white space and reasoning do not count.
- ``error_while_stopping``: cleanup raised an error while the run was being stopped; the run still counts as stopped.
- ``handler_failed``: an ``on_question`` handler raised an error; the question goes to the next one who can answer.
- ``hook_failed``: a hook that only observes raised an error or timed out.
- ``hook_warning``: a hook raised `HookWarning`.
- ``judge_failed``: a judge came to no verdict, and counts as one that denies, or has a person asked.
- ``messages_left_out``: no summary could be had for a request that was refused as too long; the model reads the
  conversation without its oldest messages.
- ``model_failed``: a model could not be opened or closed; the stream uses the others.
- ``predicate_failed``: a tool's ``requires_approval``, ``assess`` or ``offered`` function raised an error; the call
  needs approval, or the tool is not offered in this turn.
- ``question_refused``: an MCP server asked a question that cannot be put to anyone; it was declined.
- ``rule_matches_nothing``: a permission rule or a hook names a tool, or an argument, that is not there.
- ``thread_abandoned``: a plain (not async) tool still runs in its thread after its call was cancelled or timed out.
- ``toolset_failed``: a toolset stopped serving, or failed to stop.
- ``toolset_problem``: a toolset serves, but without a tool that cannot be offered, say; or the run goes on without an
  optional one. The message names it.
- ``truncated``: the response was cut off at the token limit; none of its tool calls runs.
- ``unmetered``: ``Limits.tokens`` or ``Limits.cost`` is set, and the model that answered reports no usage; an estimate
  of it counts.
- ``unpriced``: ``Limits.cost`` is set, and the model that answered has no price.
"""


CompactionReason: TypeAlias = Literal["threshold", "overflow", "request"]
"""Why the conversation is shortened.

- ``threshold``: the next request would pass `Compaction.threshold`.
- ``overflow``: the model refused a request as too long.
- ``request``: the program called `Session.compact`.
"""

RequestPurpose: TypeAlias = Literal["turn", "summary", "tool", "judge"]
"""What a model is asked for.

- ``turn``: the response of a turn, which becomes part of the transcript.
- ``summary``: the summary of a compaction.
- ``tool``: a response for a tool (`ToolContext.ask_model`), or for the MCP server of a tool (its sampling).
- ``judge``: the verdict of a judge (`agentloop.judges`) about something at a hook point.
"""


ToolsetState: TypeAlias = Literal["starting", "waiting", "ready", "failed", "stopped"]
"""What a toolset is doing.

- ``starting``: it starts, or starts again.
- ``waiting``: it needs a person who signs in before it can start.
- ``ready``: it serves its tools.
- ``failed``: it did not start, or has died.
- ``stopped``: its stream, or the block of its `Toolsets`, has ended.
"""


class ToolsetStatus(msgspec.Struct, frozen=True, omit_defaults=True):
    """The state of a toolset of a stream at one moment."""

    name: str
    """Name of the toolset."""
    state: ToolsetState
    """What it is doing."""
    detail: str = ""
    """What it waits for, while it starts or waits for a person; empty if it does not say."""
    error: str = ""
    """Why it last failed, in words for a person; empty once it is ready again, and if it has not failed."""
    tools: int | None = None
    """How many tools it listed last; ``None`` before the first listing."""


class Source(msgspec.Struct, frozen=True, omit_defaults=True):
    """The stream that an event belongs to, and its agent. All events of a stream share one value until a handoff."""

    session: str
    """Id of the session in whose transcript the event happened. A child stream has a session of its own."""
    stream: str
    """Id of the stream; unique within its root session."""
    agents: tuple[str, ...]
    """Names of the agents, from the root stream's down to the one that acted."""
    parent: str | None = None
    """Id of the stream in which this one was opened; ``None`` at the root."""


class ErrorInfo(msgspec.Struct, frozen=True):
    """An error as data. The exception itself is in `Outcome.error`."""

    type: str
    """Name of the exception's class."""
    message: str
    """Text of the exception."""


_LEFT_OUT = ("source", "seq", "elapsed")
"""Fields that have no place in the one line for a person."""


def _type_name(name: str) -> str:
    """The ``type`` of an event's JSON form: the name of its class in snake case."""
    return "".join("_" + letter.lower() if letter.isupper() else letter for letter in name).lstrip("_")


# Structs, not attrs classes: making one takes 1,200 instructions in place of 9,500, and a turn makes eight. gc=False
# where no value can refer back to the event.
class Event(msgspec.Struct, frozen=True, gc=False, tag_field="type", tag=_type_name):
    """The fields that all events share."""

    __attrs_attrs__: ClassVar[Any] = AttrsFields()
    """For `attrs.evolve`, `attrs.fields`, `attrs.asdict` and `attrs.has`."""

    source: Source
    """The stream that the event belongs to."""
    seq: int
    """Number of the event for its reader: 1 for the first event of a session, then up by one without gaps."""

    def __str__(self) -> str:
        """One line for a person: number, agents, and every field that differs from its default."""
        names, defaults = self.__struct_fields__, self.__struct_defaults__
        default_of = dict(zip(names[len(names) - len(defaults) :], defaults, strict=True))
        values: list[str] = []
        for name in names:
            value = getattr(self, name)
            if name not in _LEFT_OUT and (name not in default_of or value != default_of[name]):
                values.append(f"{name}={value if isinstance(value, msgspec.Struct) else repr(value)}")
        return f"{self.seq:4} {' > '.join(self.source.agents)}: {type(self).__name__}({', '.join(values)})"

    @property
    def session(self) -> str:
        """Id of the session in whose transcript the event happened."""
        return self.source.session

    @property
    def stream(self) -> str:
        """Id of the stream that the event belongs to."""
        return self.source.stream

    @property
    def parent(self) -> str | None:
        """Id of the stream in which that stream was opened; ``None`` at the root."""
        return self.source.parent

    @property
    def agent(self) -> str:
        """Name of the agent that acted."""
        return self.source.agents[-1]

    @property
    def path(self) -> tuple[str, ...]:
        """Names of the agents, from the root stream's down to the one that acted."""
        return self.source.agents

    @property
    def depth(self) -> int:
        """0 for the root stream, 1 for its children, and so on."""
        return len(self.source.agents) - 1


# ------------------------------------------------------------------------------ streams


class StreamStarted(Event, frozen=True, kw_only=True):
    """The stream began. Always the first event."""

    message: UserMessage
    """The prompt; without parts if there is none: the run goes on (``continues``), or only shortens the conversation
    (`Session.compact`)."""
    model: str
    """Name of the model that answers first; `Model.name`."""
    resumes: str = ""
    """Id of the stream that this one resumes, whose prompt ``message`` is; empty for a new run."""
    continues: bool = False
    """Whether the run has no prompt, and goes on from the end of the transcript."""


class StreamStopped(Event, frozen=True, kw_only=True):
    """The stream ended. Always the last event, emitted exactly once."""

    reason: StreamReason
    """Why it ended."""
    detail: str = ""
    """More about the reason, for a person: the limit, the hook's words, the argument of ``stream.stop()``; for an
    answer that is empty or was cut off, that it is."""
    error: ErrorInfo | None = None
    """The error that ended it; ``None`` unless ``reason`` is ``failed``."""
    usage: Usage = Usage()
    """Usage of this stream and of all its children."""


class ChildStreamStarted(Event, frozen=True, kw_only=True):
    """A tool call, or a hook, opened a child stream. The child's events follow, among those of its parent."""

    call_id: str
    """Id of the call, in the parent stream, that opened it; empty if a hook did."""
    message: UserMessage
    """The child's prompt."""
    model: str
    """Name of the model that answers first."""
    resumes: str = ""
    """Id of the stream that this one resumes; empty for a new run."""
    background: str = ""
    """Id of the background run that it is, which may outlive its call; empty for any other child run."""
    hook: str = ""
    """The hook point of the parent stream whose hook opened it; empty if a call did."""


class ChildStreamStopped(Event, frozen=True, kw_only=True):
    """A child stream ended. Emitted once for every `ChildStreamStarted`, before the parent's last event."""

    call_id: str
    """Id of the call, in the parent stream, that opened it; empty if a hook did."""
    reason: StreamReason
    """Why it ended."""
    detail: str = ""
    """More about the reason, for a person."""
    error: ErrorInfo | None = None
    """The error that ended it; ``None`` unless ``reason`` is ``failed``."""
    usage: Usage = Usage()
    """Usage of the child and of its own children."""


class TurnStarted(Event, frozen=True, kw_only=True):
    """A turn began: one model response and the tool calls that it asks for."""

    turn: int
    """Number of the turn within its stream, from 1."""


class TurnFinished(Event, frozen=True, kw_only=True):
    """A turn ended. Emitted once for every `TurnStarted`."""

    turn: int
    """Number of the turn within its stream, from 1."""
    reason: TurnReason
    """Why it ended."""


class Paused(Event, frozen=True):
    """The stream was paused (`Stream.pause`): it holds at its next boundary, and so do its children.

    What runs at this moment, a response or a tool, continues to its end, and its events follow. Questions can be
    answered. The pause ends with `Resumed`, or with the stream.
    """


class Resumed(Event, frozen=True):
    """The pause of the stream ended (`Stream.resume`): it continues where it held."""


# --------------------------------------------------------------------- the model's response


class TextDelta(Event, frozen=True):
    """The model wrote a fragment of text."""

    text: str
    """The fragment; fragments join in order."""


class ReasoningDelta(Event, frozen=True):
    """The model wrote a fragment of its reasoning."""

    text: str
    """The fragment; fragments join in order."""


class ToolCallDelta(Event, frozen=True, kw_only=True):
    """The model wrote a fragment of a tool call."""

    call_id: str
    """Id of the call; unique within its session."""
    name: str
    """Name of the tool, whole from the first fragment on."""
    arguments: str
    """A fragment of the arguments' JSON text; fragments of one call join in order."""


class OutputDelta(Event, frozen=True, kw_only=True):
    """A part of the structured output became known, while the model writes it.

    Emitted after the `TextDelta` that has the part, if the agent has ``output_deltas=True``. The change at the location
    ``()`` begins the output anew, also after `ResponseDiscarded`. The journal of a session does not have these events:
    a follower reads the `TextDelta` alone.
    """

    location: tuple[str | int, ...]
    """The names of members and the indexes of items that lead from the output to the part; empty for the output."""
    value: Any
    """The part, as plain JSON data: a whole number, ``True``, ``False`` or ``None``; or an empty text, object or array
    that begins, and that later events fill. Or a piece of a text, if ``is_piece``."""
    is_piece: bool = False
    """Whether the text at ``location`` is longer by ``value``."""


class ResponseDiscarded(Event, frozen=True, kw_only=True):
    """A response failed and is requested again, from its beginning.

    If the purpose is ``turn``, a reader drops every `TextDelta`, `ReasoningDelta` and `ToolCallDelta` since
    `TurnStarted`, or since the previous event of this kind and purpose. None of them reaches the transcript: a response
    is never assembled from two requests. Responses for other purposes have no deltas.
    """

    error: ErrorInfo
    """The error that ended the response."""
    model: str
    """Name of the model that failed."""
    next_model: str
    """Name of the model that is asked next: the same one, or the next of the agent's ``fallbacks``."""
    delay: float
    """Seconds until the next request."""
    purpose: RequestPurpose = "turn"
    """What the model is asked for."""
    call_id: str = ""
    """Id of the tool call that asks, if the purpose is ``tool``."""


class CompactionStarted(Event, frozen=True, kw_only=True):
    """The conversation has outgrown the model's context window, or is about to: compaction begins."""

    reason: CompactionReason
    """Why."""
    tokens: int
    """Tokens that the next request would take, estimated."""


class CompactionFinished(Event, frozen=True, kw_only=True):
    """Compaction ended. Emitted once for every `CompactionStarted`. The transcript itself keeps all messages."""

    tokens: int
    """Tokens of the transcript as the model reads it now, estimated."""
    first_kept: int
    """Index, in ``session.messages``, of the first message that the model reads as it is."""
    summary: str
    """The summary that replaces the messages before ``first_kept``; empty if only old tool results were left out."""
    problem: str = ""
    """Why compaction failed; empty if it succeeded."""


class MessageCommitted(Event, frozen=True, kw_only=True):
    """A message became part of the transcript, and of the store if the session has one."""

    message: Message
    """The message."""
    index: int
    """Its index in ``session.messages``, from 0."""


class UsageReported(Event, frozen=True, kw_only=True):
    """A response is complete, whatever it was requested for; or it broke off, and the provider has reported its usage.

    Emitted before the tool calls that the response asks for run. All ``usage`` of a stream and its children, those of
    the streams that it resumes included, adds up to `Outcome.usage`.
    """

    usage: Usage
    """Usage of this response."""
    total: Usage
    """Usage of this stream and its children so far."""
    purpose: RequestPurpose = "turn"
    """What the model was asked for."""
    call_id: str = ""
    """Id of the tool call that asked, if the purpose is ``tool``."""
    model: str = ""
    """Name of the model that was asked; `Model.name`."""
    is_complete: bool = True
    """Whether the response is complete. One that is not was discarded or cancelled, or its model failed."""


# --------------------------------------------------------------------------- tool calls


class ToolCallStarted(Event, frozen=True, kw_only=True):
    """A tool call began: permission checks, approval and execution follow. Emitted in call order."""

    call_id: str
    """Id of the call; unique within its session."""
    name: str
    """Name of the tool, as the model wrote it; there may be no such tool."""
    arguments: str
    """JSON text, exactly as the model wrote it; it may not be valid JSON."""


class ToolCallOutput(Event, frozen=True, kw_only=True):
    """A running tool wrote a fragment of output, ahead of its result.

    The journal of a session saves no more of a call's output than its ``max_result``, and a line in place of the rest.
    """

    call_id: str
    """Id of the call."""
    text: str
    """The fragment; fragments of one call join in order."""


class ToolCallProgress(Event, frozen=True, kw_only=True):
    """A running tool reported its progress."""

    call_id: str
    """Id of the call."""
    progress: float
    """Progress so far, in the unit of ``total``; it only grows."""
    total: float | None = None
    """Progress at the end; ``None`` if the tool does not know."""
    message: str = ""
    """The tool's words for a person."""


class ToolCallFinished(Event, frozen=True, kw_only=True):
    """A tool call ended. Emitted once for every `ToolCallStarted`, in order of completion."""

    call_id: str
    """Id of the call."""
    name: str
    """Name of the tool."""
    result: ToolResult
    """The result that the model reads."""
    elapsed: float
    """Seconds on trio's clock, a person's thinking time included. Outside equality, so that two runs compare equal."""
    error: ErrorInfo | None = None
    """The exception that the tool raised, if it did: for a person, since the model reads only ``result``."""

    def __eq__(self, other: object) -> bool:
        return self._compared == other._compared if isinstance(other, ToolCallFinished) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._compared)

    @property
    def _compared(self) -> tuple[object, ...]:
        return self.source, self.seq, self.call_id, self.name, self.result, self.error


class ToolCallParked(Event, frozen=True, kw_only=True):
    """A tool call has no result yet, and its stream ends. Emitted instead of `ToolCallFinished`.

    The call waits for an answer or for another call that does, or its process died. Resuming the stream continues it.
    """

    call_id: str
    """Id of the call."""
    name: str
    """Name of the tool."""


class HandedOff(Event, frozen=True, kw_only=True):
    """The agent of this event hands the conversation to another agent, which continues it in the same stream.

    The other agent acts from the end of this turn on. If the run ends before, it has the conversation all the same: its
    session's next run begins with it.
    """

    to: str
    """Name of the agent that gets the conversation."""
    call_id: str = ""
    """Id of the tool call that asked for it; empty for ``Agent(handoff_when_done=...)``."""


# ---------------------------------------------------------------------------- questions


class ElicitationRequested(Event, frozen=True, kw_only=True, gc=True):
    """A tool asks the user. Answer with `Accept`, `Decline` or `Cancel`."""

    id: str
    """Id of the question, for ``stream.answer(id, ...)``."""
    call_id: str
    """Id of the tool call that asks; empty for a toolset that starts, or lists its tools."""
    message: str
    """The tool's words for the user. Untrusted text."""
    form: dict[str, Any]
    """JSON Schema of the content to accept with: a flat object of primitive properties, as in MCP."""
    url: str | None = None
    """A page to visit instead of filling in a form. `Accept` means that the user agreed to; agentloop opens nothing."""
    background: str = ""
    """Id of the background run that asks, if that belongs to a `Toolsets` block, and so to no stream; else empty."""


class ApprovalRequested(Event, frozen=True, kw_only=True, gc=True):
    """A tool call needs a person's approval. Answer with `Approve` or `Deny`."""

    id: str
    """Id of the question, for ``stream.answer(id, ...)``."""
    call_id: str
    """Id of the tool call."""
    name: str
    """Name of the tool."""
    arguments: dict[str, Any]
    """The arguments that an approval is bound to: the tool runs with these, or with those of the answer."""
    reason: str = ""
    """The rule or mode that requires approval, and hooks' reasons; empty if only the tool itself requires it."""
    read_only: bool = False
    """Whether the tool only reads, or says that this call does."""
    destructive: bool | None = None
    """Whether the call may destroy something, rather than only add to it; ``None`` if the tool does not say."""
    assessment: str = ""
    """Why the call is harmless, or is not known to be, in the words of the tool's ``assess=``; empty without one."""
    blast_radius: BlastRadius = BlastRadius()
    """What the call may touch, as far as it is known: from the tool's ``assess=``, or from arguments whose names say
    what they are, such as ``path``, ``url`` and ``command``."""
    metadata: dict[str, Any] = {}
    """JSON values by name: those of the tool, of its assessment, and of the hooks that asked, in that order. A later
    one replaces one of the same name."""
    background: str = ""
    """Id of the background run that asks, if that belongs to a `Toolsets` block, and so to no stream; else empty."""


class ContinueRequested(Event, frozen=True, kw_only=True):
    """The run reached a limit. Answer with `Approve` (the same amount once more) or `Deny`."""

    id: str
    """Id of the question, for ``stream.answer(id, ...)``."""
    limit: str
    """The limit: name of a field of `Limits`."""
    used: float
    """Amount used, in the unit of that limit."""
    allowed: float
    """Amount allowed so far, in the unit of that limit."""
    unpriced: str = ""
    """Name of a model whose price is not known, if the limit is ``cost``, and the question is whether it may be asked
    all the same."""
    background: str = ""
    """Id of the background run that asks, if that belongs to a `Toolsets` block, and so to no stream; else empty."""


Question: TypeAlias = ElicitationRequested | ApprovalRequested | ContinueRequested
"""Everything that waits for a person's answer."""


class QuestionAnswered(Event, frozen=True, kw_only=True, gc=True):
    """A question was answered; the run goes on with the answer."""

    id: str
    """Id of the question."""
    answer: Answer
    """The answer, as accepted: with the form's defaults filled in."""
    by: Literal["reader", "handler", "rule"]
    """Who answered: a reader (``stream.answer``), an ``on_question`` handler, or a ``rule``: the answer to another
    question allowed this call for good, too."""


class QuestionDeclined(Event, frozen=True, kw_only=True):
    """No answerer was left; the run goes on with a refusal that says so."""

    id: str
    """Id of the question."""
    note: str
    """The refusal, as the model reads it."""


class QuestionWithdrawn(Event, frozen=True, kw_only=True):
    """A question closed without an answer, because the call or stream that asked it ended."""

    id: str
    """Id of the question."""


class QuestionParked(Event, frozen=True, kw_only=True):
    """The stream ends with this question unanswered; an answer to it resumes the run."""

    id: str
    """Id of the question."""


# ------------------------------------------------------------------------------- others


class WarningIssued(Event, frozen=True, kw_only=True):
    """A failure that did not end the run."""

    code: str
    """One of `WarningCode`, each explained there, or a word that a tool passed to `ToolContext.warn`."""
    message: str
    """The failure in words, for a person."""


class ToolsetChanged(Event, frozen=True, kw_only=True):
    """The state of a toolset has changed, or it starts and needs longer than two seconds.

    A toolset that starts in less time, and fails nowhere, has no such event: it is ready when the first turn begins.
    `Stream.toolsets` has the state of all toolsets at any time.
    """

    toolset: ToolsetStatus
    """The toolset as it is now."""


class ToolsChanged(Event, frozen=True, kw_only=True):
    """The tools of the stream are other ones than in the turn before: a server has changed its list, say.

    Emitted before the request that has the new tools. A handoff, and tools that are offered in some turns only
    (``offered=``), are no such change.
    """

    added: tuple[str, ...] = ()
    """Names of the tools that are new."""
    removed: tuple[str, ...] = ()
    """Names of the tools that are gone."""
    changed: tuple[str, ...] = ()
    """Names of the tools with another description, or other parameters, than before."""


class UnknownEvent(msgspec.Struct, frozen=True, gc=False):
    """An event that a newer version of agentloop wrote. Kept as it is: encoding gives the same bytes back."""

    type: str
    """The ``type`` field of its JSON."""
    raw: bytes
    """The JSON object, in UTF-8."""


StreamEvent: TypeAlias = (
    StreamStarted
    | StreamStopped
    | ChildStreamStarted
    | ChildStreamStopped
    | TurnStarted
    | TurnFinished
    | Paused
    | Resumed
    | TextDelta
    | ReasoningDelta
    | ToolCallDelta
    | OutputDelta
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
    | HandedOff
    | ElicitationRequested
    | ApprovalRequested
    | ContinueRequested
    | QuestionAnswered
    | QuestionDeclined
    | QuestionWithdrawn
    | QuestionParked
    | ToolsetChanged
    | ToolsChanged
    | WarningIssued
)
"""Every event that a stream can emit, for exhaustive matching."""
