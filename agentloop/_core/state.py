"""The state of a run: its past, the facts that may follow, and the point from which a resumed run continues.

Everything that affects the state of a run lives in this file.

**Theory of operation.** Each run has one `StreamState`. It changes by `StreamState.apply` and by nothing else, one fact
at a time. A fact is an event, which readers see, or a `Note`, which only the journal sees. A live run applies each fact
at the instant at which it emits it; a run that was cut off is continued by applying its journal to a fresh state.
Living and replaying are therefore the same code, and a question about a run ("which calls have no result?", "is it
idle?") has one answer in both.

Three machines run in parallel. The first belongs to the stream::

    NEW --started--> BETWEEN_TURNS <--TurnStarted, TurnFinished--> TURN <--CompactionStarted, -Finished--> COMPACTING
                      |        ^
                   stopped   started (resumes)
                      v        |
                       STOPPED

The second belongs to each tool call, the third to each question. Tables say which fact may follow in which phase:
`STREAM_TABLE`, `CALL_TABLE` and `QUESTION_TABLE`. Four rules tie the machines together:

* a turn is committed after its calls, and ends after its questions and compaction; a call ends after the child streams
  that it opened; a stream ends after its children;
* a question of a call, and a child stream, begin while the call runs;
* parked calls and questions are left behind only by a stream that needs input or was interrupted;
* messages are committed in order of their index, without a gap;
* a turn hands the conversation off once at most, and the other agent acts after it;
* a child stream of a hook may begin at any time, and ends before its stream;
* a background run begins while a call runs, may outlive it, and ends before its stream; a message that reports its end
  comes after that, once.

**Resuming.** The state outlives the stream. A stream that stops parked, or whose process died, leaves behind the open
turn: its response (`StreamState.message`), the results so far, and a `CallState` for each call without a result. The
next stream begins with an event that ``resumes``, which resets only what belongs to one opening: what is open in it,
and which questions each call has asked *this time*. A call that is made again asks the same questions, so each finds
the record of the question with the same words: see `QuestionList`.

**Complaints.** `apply` never raises and never waits: a fact that the tables do not allow is noted in
`StreamState.complaints`, and then applied as far as it goes. A live run with a complaint fails with an `InternalError`;
a journal with one is logged and read all the same, since its messages are worth more than its order; and a log is
well-formed if there are none.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from typing import Any, ClassVar, TypeAlias

import msgspec

from agentloop._core.context_window import Cut, View
from agentloop._core.handoffs import HandoffRecord, Handoffs, agent_after_rewind
from agentloop._core.transcript import SessionValues, close_turn
from agentloop.events import (
    ApprovalRequested,
    ChildStreamStarted,
    ChildStreamStopped,
    CompactionFinished,
    CompactionStarted,
    ContinueRequested,
    ElicitationRequested,
    HandedOff,
    MessageCommitted,
    OutputDelta,
    Paused,
    Question,
    QuestionAnswered,
    QuestionDeclined,
    QuestionParked,
    QuestionWithdrawn,
    ReasoningDelta,
    RequestPurpose,
    ResponseDiscarded,
    Resumed,
    Source,
    StreamEvent,
    StreamReason,
    StreamStarted,
    StreamStopped,
    TextDelta,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallOutput,
    ToolCallParked,
    ToolCallProgress,
    ToolCallStarted,
    ToolsChanged,
    ToolsetChanged,
    TurnFinished,
    TurnStarted,
    UsageReported,
    WarningIssued,
)
from agentloop.messages import AssistantMessage, Message, ToolResult, Usage, UserMessage
from agentloop.models import ReasoningEffort
from agentloop.permissions import Grant, Permissions
from agentloop.questions import Answer, Approve, Decline

__all__ = [
    "CALL_TABLE",
    "INTERRUPTED",
    "MAY_HAVE_RUN",
    "NOTES",
    "QUESTION_TABLE",
    "STREAM_TABLE",
    "CallPhase",
    "CallState",
    "ChildReused",
    "Fact",
    "LimitRaised",
    "LongResultStored",
    "Note",
    "NoteTaken",
    "QuestionPhase",
    "QuestionRecord",
    "ReportTaken",
    "RequestSent",
    "RunBlocked",
    "SessionRewound",
    "SessionSettings",
    "SessionState",
    "StreamPhase",
    "StreamState",
    "ToolStarted",
    "TurnAbandoned",
    "TurnOpened",
    "ValueRemembered",
    "ViewChanged",
    "asker",
]

MAY_HAVE_RUN = "it was interrupted, and may have run already: run it again?"
"""The reason of an approval that asks whether to retry a call whose outcome is unknown."""

INTERRUPTED = "its process, or its store, was gone"
"""The detail of a stream whose end was recorded when its session was opened again."""

MOST_COMPLAINTS = 100
"""Complaints to collect: the first ones name the fault, and a faulty loop must not fill the memory."""


# ------------------------------------------------------------------------------- notes


class Note(msgspec.Struct, frozen=True):
    """A fact for the state and for the journal that no reader sees."""

    kind: ClassVar[str]
    """The kind of its record in the journal."""


class TurnOpened(Note, frozen=True):
    """The calls of a response are about to run."""

    kind: ClassVar[str] = "turn"
    message: AssistantMessage


class ToolStarted(Note, frozen=True):
    """The tool of a call is about to run: from here on the call may have had an effect."""

    kind: ClassVar[str] = "call"
    call_id: str


class ValueRemembered(Note, frozen=True):
    """A tool stored a value for the case that its call is made again."""

    kind: ClassVar[str] = "memory"
    call_id: str
    name: str
    value: bytes
    """JSON."""


class ChildReused(Note, frozen=True):
    """A call that is made again has got the outcome of a child run that had ended before."""

    kind: ClassVar[str] = "child_reused"
    call_id: str
    session: str
    """The child run's."""


class LongResultStored(Note, frozen=True):
    """The whole text of a result of which the model reads only a part at once."""

    kind: ClassVar[str] = "long_result"
    call_id: str
    text: str


class LimitRaised(Note, frozen=True):
    """A person let a run go past a limit: its own, or that of a run around it."""

    kind: ClassVar[str] = "raised"
    stream: str
    """The stream whose limit it is."""
    limit: str
    """A field of `Limits`."""
    allowed: float


class RunBlocked(Note, frozen=True):
    """A hook ends the run after the open turn, because of a call. The run stays blocked when it is resumed."""

    kind: ClassVar[str] = "blocked"
    call_id: str
    reason: str


class RequestSent(Note, frozen=True):
    """A request that is not the first of a turn, and no retry, is about to go out: for a summary, or for a tool."""

    kind: ClassVar[str] = "request"
    purpose: RequestPurpose


class ReportTaken(Note, frozen=True):
    """The next message reports the ends of background runs that this run has not started itself.

    Those belong to a `Toolsets` block, or have ended with an earlier run of the session.
    """

    kind: ClassVar[str] = "report_taken"
    ids: tuple[str, ...]


class NoteTaken(Note, frozen=True):
    """An observer took a note of the run, for the run that resumes it: a tracer, of the trace that the run is in."""

    kind: ClassVar[str] = "observer_note"
    name: str
    text: str


class TurnAbandoned(Note, frozen=True):
    """An open turn is not resumed: these messages close it, and the next run starts after them."""

    kind: ClassVar[str] = "given_up"
    messages: tuple[Message, ...]


class SessionRewound(Note, frozen=True):
    """From here on, only the first so many messages count."""

    kind: ClassVar[str] = "rewound"
    messages: int


class SessionSettings(Note, frozen=True, omit_defaults=True):
    """The session's grants, permissions and values, and how much of its transcript the model reads."""

    kind: ClassVar[str] = "state"
    grants: tuple[Grant, ...] = ()
    summary: str = ""
    first_kept: int = 0
    """The model reads the messages from this index on, after ``summary``."""
    elided: tuple[int, ...] = ()
    """Indices of the results whose text is left out, and of prompts that were refused as too long."""
    in_part: tuple[tuple[int, int], ...] = ()
    """Indices of the messages that the model reads in part, each with the tokens that it may take."""
    changed_at: int = 0
    """The messages that there were when that changed last. Counts of a provider before it are void."""
    failures: int = 0
    """Summaries that have failed in a row."""
    permissions: Permissions | None = None
    values: SessionValues = {}
    """The values that tools have saved in the session."""
    cut: Cut | None = None
    """What an agent reads in place of messages that a handoff has left out."""
    model: str = ""
    """Name of the model that was chosen for the session; empty for the agent's."""
    reasoning_effort: ReasoningEffort | None = None
    """How much it thinks, if that was chosen."""
    background_counts: Mapping[str, int] = {}
    """How many background runs its own runs have begun, by the name of the agent."""
    unreported: Mapping[str, str] = {}
    """The background runs whose end no message will report unless the next run does, by id, with the detail to give if
    nothing else is known of their end."""


class ViewChanged(Note, frozen=True, omit_defaults=True):
    """From here on, the model reads the transcript of a child run so. The fields are those of `SessionSettings`."""

    kind: ClassVar[str] = "view"
    summary: str = ""
    first_kept: int = 0
    elided: tuple[int, ...] = ()
    in_part: tuple[tuple[int, int], ...] = ()
    changed_at: int = 0
    failures: int = 0
    cut: Cut | None = None

    @classmethod
    def of(cls, view: View) -> ViewChanged:
        """The note of ``view`` as it is now."""
        elided, in_part = tuple(sorted(view.elided)), tuple(sorted(view.in_part.items()))
        return cls(view.summary, view.first_kept, elided, in_part, view.changed_at, view.failures, view.cut)


NOTES: Mapping[str, type[Note]] = {
    note.kind: note
    for note in (
        TurnOpened,
        ToolStarted,
        ValueRemembered,
        ChildReused,
        LongResultStored,
        LimitRaised,
        RunBlocked,
        RequestSent,
        ReportTaken,
        NoteTaken,
        ViewChanged,
        TurnAbandoned,
        SessionRewound,
        SessionSettings,
    )
}
"""Note classes by kind."""

Fact: TypeAlias = StreamEvent | Note

_NOTHING: Mapping[str, Any] = {}
_NO_IDS: frozenset[str] = frozenset()
"""No entries. Shared, and replaced, not changed: most mappings and sets of a state stay empty, and each takes room."""


# ------------------------------------------------------------------------------ tables


class StreamPhase(Enum):
    """The phase of a stream."""

    NEW = "new"
    BETWEEN_TURNS = "between turns"
    TURN = "in a turn"
    COMPACTING = "making room"
    STOPPED = "stopped"


class CallPhase(Enum):
    """The phase of a tool call. A call with a result is forgotten: only its id stays taken."""

    NEW = "new"
    RUNNING = "running"
    PARKED = "parked"
    FINISHED = "finished"


class QuestionPhase(Enum):
    """The phase of a question, in the stream that asked it last."""

    NEW = "new"
    OPEN = "open"
    PARKED = "parked"
    CLOSED = "closed"


_S, _C, _Q = StreamPhase, CallPhase, QuestionPhase

_AT_ANY_TIME: Mapping[type, StreamPhase | None] = {
    MessageCommitted: None,
    ElicitationRequested: None,
    ApprovalRequested: None,
    ContinueRequested: None,
    QuestionAnswered: None,
    QuestionDeclined: None,
    QuestionWithdrawn: None,
    QuestionParked: None,
    LimitRaised: None,
    NoteTaken: None,
    WarningIssued: None,
    ToolsetChanged: None,
    ToolsChanged: None,
    Paused: None,
    Resumed: None,
    # A judge may be asked before the first turn, about the prompt.
    RequestSent: None,
    ResponseDiscarded: None,
    UsageReported: None,
}

STREAM_TABLE: Mapping[StreamPhase, Mapping[type, StreamPhase | None]] = {
    _S.NEW: {StreamStarted: _S.BETWEEN_TURNS, ChildStreamStarted: _S.BETWEEN_TURNS},
    _S.BETWEEN_TURNS: {
        **_AT_ANY_TIME,
        TurnStarted: _S.TURN,
        HandedOff: None,
        ViewChanged: None,
        LongResultStored: None,
        ReportTaken: None,
        StreamStopped: _S.STOPPED,
        ChildStreamStopped: _S.STOPPED,
    },
    _S.TURN: {
        **_AT_ANY_TIME,
        TextDelta: None,
        ReasoningDelta: None,
        ToolCallDelta: None,
        OutputDelta: None,
        ViewChanged: None,
        CompactionStarted: _S.COMPACTING,
        TurnOpened: None,
        ToolCallStarted: None,
        ToolStarted: None,
        HandedOff: None,
        ValueRemembered: None,
        ChildReused: None,
        ToolCallOutput: None,
        ToolCallProgress: None,
        LongResultStored: None,
        RunBlocked: None,
        ToolCallFinished: None,
        ToolCallParked: None,
        TurnFinished: _S.BETWEEN_TURNS,
    },
    _S.COMPACTING: {
        **_AT_ANY_TIME,
        ViewChanged: None,
        CompactionFinished: _S.TURN,
    },
    _S.STOPPED: {StreamStarted: _S.BETWEEN_TURNS, ChildStreamStarted: _S.BETWEEN_TURNS},
}
"""Which fact may follow in which phase of a stream, and the phase that it leads to; ``None`` for the same phase."""

CALL_TABLE: Mapping[CallPhase, Mapping[type, CallPhase]] = {
    _C.NEW: {ToolCallStarted: _C.RUNNING},
    _C.RUNNING: {
        ApprovalRequested: _C.RUNNING,
        ElicitationRequested: _C.RUNNING,
        ToolStarted: _C.RUNNING,
        HandedOff: _C.RUNNING,
        ValueRemembered: _C.RUNNING,
        ToolCallOutput: _C.RUNNING,
        ToolCallProgress: _C.RUNNING,
        ChildStreamStarted: _C.RUNNING,
        ChildReused: _C.RUNNING,
        LongResultStored: _C.RUNNING,
        RunBlocked: _C.RUNNING,
        ToolCallFinished: _C.FINISHED,
        ToolCallParked: _C.PARKED,
    },
    _C.PARKED: {ToolCallStarted: _C.RUNNING},
    _C.FINISHED: {},
}
"""Which fact may follow in which phase of a tool call, and the phase that it leads to."""

_RUNNING = CALL_TABLE[_C.RUNNING]

QUESTION_TABLE: Mapping[QuestionPhase, Mapping[type, QuestionPhase]] = {
    _Q.NEW: {ElicitationRequested: _Q.OPEN, ApprovalRequested: _Q.OPEN, ContinueRequested: _Q.OPEN},
    _Q.OPEN: {
        QuestionAnswered: _Q.CLOSED,
        QuestionDeclined: _Q.CLOSED,
        QuestionWithdrawn: _Q.CLOSED,
        QuestionParked: _Q.PARKED,
    },
    _Q.PARKED: {},
    _Q.CLOSED: {},
}
"""Which event may follow in which phase of a question, and the phase that it leads to. A resumed stream asks anew."""


# --------------------------------------------------------------------------- questions


def asker(question: Question) -> tuple[str, bool]:
    """The call that asks, if it is not the run itself; and whether it is about running the call again."""
    call_id: str = getattr(question, "call_id", "")
    return call_id, isinstance(question, ApprovalRequested) and question.reason == MAY_HAVE_RUN


class QuestionRecord(msgspec.Struct):
    """A question that was asked, and its answer, if there is one."""

    question: Question
    answer: Answer | None = None
    is_over: bool = False
    """Whether it was withdrawn or declined: the call may have continued since."""
    is_bypassed: bool = False
    """Whether the call, when it was called again, asked something new before it came to this question, if it does."""
    after: tuple[str, ...] = ()
    """Ids of the questions of the same asker that had been closed when it was first asked, without those that these
    came after in turn, and without approvals of the call as it was, which change nothing about it."""

    @property
    def is_open(self) -> bool:
        """Whether it waits for an answer."""
        return self.lacks_answer and not self.is_bypassed

    @property
    def lacks_answer(self) -> bool:
        """Whether an answer to it would count, if the call asks it again."""
        return self.answer is None and not self.is_over

    @property
    def approves_as_it_is(self) -> bool:
        """Whether it is an approval of the call with the arguments that it had."""
        is_approval = isinstance(self.question, ApprovalRequested)
        return is_approval and isinstance(self.answer, Approve) and self.answer.arguments is None


class QuestionList:
    """The questions that one asker has asked, in order. A call asks two lists: for itself, and about retrying it.

    A tool that is called again asks again, in any order if it asks several people at once. The record of a question is
    therefore found by the question's words, not by its place. It counts if the call has come to the question the same
    way: each question that had been closed before the recorded one was asked has been asked again (else the person
    answered another one), and no question has been closed since that is not on record (the call may act on its answer).
    """

    __slots__ = ("_asked", "_has_changed", "_new", "records")

    def __init__(self) -> None:
        self.records: list[QuestionRecord] = []
        self._asked = _NO_IDS
        """Ids of the questions asked in this opening of the stream."""
        self._new = _NO_IDS
        """Ids of those that were asked for the first time."""
        self._has_changed = False
        """Whether the asker has taken another way in this opening."""

    def begin(self) -> None:
        """The asker begins anew, in another opening of the stream."""
        self._asked = self._new = _NO_IDS
        self._has_changed = False

    def previous(self, question: Question) -> QuestionRecord | None:
        """The record that counts for ``question``, the oldest first; none if it was not asked before."""
        if not self._has_changed:
            for record in self.records:
                is_free = record.question.id not in self._asked and self._asked.issuperset(record.after)
                if is_free and _is_same(record.question, question):
                    return record
        return None

    def ask(self, question: Question) -> QuestionRecord:
        """Record ``question``. If a record has its id, it is the same question, asked again."""
        id = question.id
        for record in self.records:
            if record.question.id == id:
                self._asked |= {id}
                record.is_over = record.is_bypassed = False
                return record
        closed = [record for record in self.records if record.question.id in self._asked and not record.lacks_answer]
        before = {id for record in closed for id in record.after}
        after = [record.question.id for record in closed if not record.approves_as_it_is]
        record = QuestionRecord(question, after=tuple(id for id in after if id not in before))
        for other in self.records:
            other.is_bypassed = other.question.id not in self._asked
        self.records.append(record)
        self._asked |= {id}
        self._new |= {id}
        return record

    def is_new(self, id: str) -> bool:
        """Whether question ``id`` was asked for the first time in this opening."""
        return id in self._new

    def close(self, id: str) -> None:
        """Question ``id`` is closed. If it was new, the asker has taken another way: the rest it asks anew."""
        if id in self._new:
            self._has_changed = True
            self.records[:] = [record for record in self.records if record.question.id in self._asked]

    def forget(self, record: QuestionRecord) -> None:
        """Remove ``record``: the question will be asked anew."""
        if record in self.records:
            self.records.remove(record)
        self._asked -= {record.question.id}

    def clear(self) -> None:
        """Remove all."""
        self.records.clear()
        self.begin()


def _is_same(question: Question, other: Question) -> bool:
    """Whether both ask the same, in the same words."""
    # As if the first had been asked in the place of the other.
    return msgspec.structs.replace(question, source=other.source, seq=other.seq, id=other.id) == other


# ------------------------------------------------------------------------------- calls


class CallState:
    """A tool call without a result.

    A tool that is called again opens its child runs again, in any order if it opens several at once. A child run of the
    previous opening is therefore found by its agent and its prompt, not by its place. It counts if the call has come to
    it the same way, by the rule that holds for questions: see `QuestionList`.
    """

    __slots__ = (
        "_has_changed",
        "_opened",
        "_questions",
        "_retry_questions",
        "children",
        "id",
        "name",
        "parked",
        "phase",
        "remembered",
        "started",
        "waits",
    )

    def __init__(self, id: str, name: str) -> None:
        self.id = id
        self.name = name
        """The tool's name."""
        self.phase = CallPhase.NEW
        self.started = False
        """Whether its tool began to run."""
        self.parked = False
        """Whether it ended on purpose where it waited for a person: then its tool is called again."""
        # Made when they are needed, since most calls ask nothing: together they take as long as all the rest.
        self._questions: QuestionList | None = None
        self._retry_questions: QuestionList | None = None
        self.children: list[StreamState] = []
        """The child runs that it opened, in order, ended ones included."""
        self._opened = _NO_IDS
        """Sessions of the child runs that it has opened in this opening of the stream, or whose outcome it has got."""
        self._has_changed = False
        """Whether it has taken another way in this opening."""
        self.remembered: Mapping[str, bytes] = _NOTHING
        """Values that its tool stored for the next time, as JSON."""
        self.waits = 0
        """For how many people and other calls it is waiting now."""

    def begin(self) -> None:
        """The call is made again."""
        if self._questions is not None:
            self._questions.begin()
        if self._retry_questions is not None:
            self._retry_questions.begin()
        self._opened = _NO_IDS
        self._has_changed = False

    @property
    def questions(self) -> QuestionList:
        """Asked for its approval, and then by its tool."""
        if self._questions is None:
            self._questions = QuestionList()
        return self._questions

    @property
    def retry_questions(self) -> QuestionList:
        """Asked about running it again."""
        if self._retry_questions is None:
            self._retry_questions = QuestionList()
        return self._retry_questions

    def previous_child(self, agent: str, prompt: UserMessage) -> StreamState | None:
        """The child run that counts where one of ``agent`` with ``prompt`` is opened, the oldest first; or none."""
        if not self._has_changed:
            for child in self.children:
                is_free = child.session not in self._opened and all(session in self._opened for session in child.after)
                if is_free and child.agent == agent and child.prompt == prompt:
                    return child
        return None

    def open_child(self, child: StreamState) -> bool:
        """Record that ``child`` was opened. Returns whether it is a new one."""
        is_new = child not in self.children
        child.is_bypassed = False
        if is_new:
            child.after = tuple(
                other.session for other in self.children if other.is_over and other.session in self._opened
            )
            for other in self.children:
                other.is_bypassed = other.session not in self._opened
            self.children.append(child)
        self._opened |= {child.session}
        return is_new

    def end_child(self, child: StreamState) -> None:
        """Record that ``child`` has ended. If it was new, the call has taken another way: the rest it opens anew."""
        if child.openings == 1 and child.is_over:
            self._has_changed = True
            self.children[:] = [other for other in self.children if other.session in self._opened]

    def reuse_child(self, session: str) -> None:
        """Record that the call has got the outcome of the child run of ``session``, which had ended before."""
        self._opened |= {session}

    def forget_child(self, child: StreamState) -> None:
        """Let go of ``child``, which has ended: only a run that is resumed needs it, and that reads the journal."""
        if child.is_over and child in self.children:
            self.children.remove(child)

    @property
    def outcome_unknown(self) -> bool:
        """Whether it may have run, and its result is lost."""
        return self.started and not self.parked

    @property
    def is_running(self) -> bool:
        """Whether it was started in this opening of the stream, and has not ended."""
        return self.phase is CallPhase.RUNNING

    @property
    def is_idle(self) -> bool:
        """Whether it does nothing but wait for people and other calls."""
        running = [child for child in self.children if child.is_running]
        if running:
            return all(child.is_idle for child in running)
        return self.waits > 0

    @property
    def all_questions(self) -> Iterator[QuestionRecord]:
        """Both lists."""
        for asked in (self._retry_questions, self._questions):
            if asked is not None:
                yield from asked.records


# ----------------------------------------------------------------------------- streams


class StreamState:
    """The state of one run, through all streams that it was opened and resumed as.

    Args:
      parent: the state of the run around it.
      call_id: the call of ``parent`` that opens it.
    """

    __slots__ = (
        "_before_turn",
        "_call_ids",
        "_is_partial",
        "_own_waits",
        "_parked",
        "_question_ids",
        "_questions",
        "_row",
        "after",
        "agent",
        "allowed",
        "background",
        "background_counts",
        "blocked",
        "call_id",
        "calls",
        "child_count",
        "complaints",
        "continues",
        "detail",
        "first_index",
        "handoffs",
        "hook_runs",
        "is_background",
        "is_bypassed",
        "is_paused",
        "is_prompted",
        "long_results",
        "message",
        "messages",
        "model",
        "notes",
        "open_now",
        "opened_by",
        "openings",
        "output_retries",
        "parent",
        "passed_on",
        "pending_handoff",
        "phase",
        "prompt",
        "question_count",
        "reason",
        "requests",
        "results",
        "session",
        "source",
        "stream",
        "taken_reports",
        "tool_calls",
        "turn",
        "usage",
        "view",
        "waits_for_background",
    )

    def __init__(self, parent: StreamState | None = None, call_id: str = "") -> None:
        self.parent = parent
        self.call_id = call_id
        self.complaints: list[str] = [] if parent is None else parent.complaints
        """Facts that the tables do not allow, a sentence each; shared with the runs around this one."""
        self.after: tuple[str, ...] = ()
        """Sessions of the child runs of the same call that had ended when this one was opened first."""
        self.is_bypassed = False
        """Whether the call, when it was made again, opened a new child run before it came to this one, if it does."""
        self.is_background = False
        """Whether it may outlive its call."""
        # These fields last through all openings of the run.
        self.session = ""
        self.agent = ""
        """The agent that it began with; `acting_agent` has the conversation."""
        self.opened_by = ""
        """The agent that acted in the run around it when it was opened first; empty at the root."""
        self.model = ""
        """The model that was to be asked first."""
        self.prompt: UserMessage = _NO_PROMPT
        self.openings = 0
        """How often it was opened: once, and once for each time it was resumed."""
        self.output_retries = 0
        """How often the model was asked again for an output, since the last one that was valid."""
        self.is_prompted = False
        """Whether the prompt is part of the transcript, or there is none."""
        self.continues = False
        """Whether it has no prompt, and goes on from the end of the transcript."""
        self.messages: list[Message] = []
        """The messages that it committed."""
        self.first_index = 0
        """The index of the first of them."""
        self.turn = 0
        self.message: AssistantMessage | None = None
        """The response of the open turn, whose calls run."""
        self.results: dict[str, ToolResult] = {}
        """Results of the open turn's calls that have ended, by call id."""
        self.calls: dict[str, CallState] = {}
        """The open turn's calls that have no result, by id, in call order."""
        self._questions: QuestionList | None = None
        self.long_results: Mapping[str, str] = _NOTHING
        """For a child run that is read from a journal: whole texts of long results, by call id."""
        self.view: ViewChanged | None = None
        """For a child run: how the model reads its transcript, unless it reads all of it."""
        self.handoffs: Handoffs = ()
        """Its handoffs, from one agent to another."""
        self.pending_handoff: HandoffRecord | None = None
        """The handoff of the open turn: the other agent acts when the turn has ended."""
        self.background: Mapping[str, StreamState] = _NOTHING
        """Its background runs whose end no message has reported, by id, in the order in which they began."""
        self.background_counts: Mapping[str, int] = _NOTHING
        """How many background runs it has begun, by the name of the agent."""
        self.usage = Usage()
        """Its children's included."""
        self.requests = 0
        """Requests that were about to go out, failed ones and its children's included. `Limits.requests` counts them;
        ``usage`` counts responses."""
        self.tool_calls = 0
        """Its children's included."""
        self.allowed: Mapping[str, float] = _NOTHING
        """Limits that a person has raised."""
        self.notes: Mapping[str, str] = _NOTHING
        """The last note of each name that observers took."""
        self.blocked: str | None = None
        """Why a hook ends it after its open turn, if one does."""
        self.reason: StreamReason | None = None
        """Why it stopped; ``None`` while it runs."""
        self.detail = ""
        # These fields are reset by each opening.
        self.source: Source = _NO_SOURCE
        self.stream = ""
        """The id of the stream that it was opened as last."""
        self.phase = StreamPhase.NEW
        self._row = _ROWS[StreamPhase.NEW]
        self.open_now: dict[str, QuestionRecord] = {}
        """Open questions by id, oldest first."""
        self.question_count = 0
        """Questions that were asked for the first time."""
        self.child_count = 0
        """Child streams that were opened for the first time."""
        self.passed_on: Mapping[str, Question] = _NOTHING
        """Open questions of background runs that belong to a `Toolsets` block, by id. They are no part of a turn, and
        nothing of them is left to the run that resumes this one."""
        self.taken_reports = _NO_IDS
        """Background runs of others whose ends its next message reports."""
        self.hook_runs: tuple[StreamState, ...] = ()
        """The child runs that its hooks have opened, and that may be running."""
        self.is_paused = False
        """Whether it was paused, and not resumed. A stream that resumes a paused one is not paused."""
        self._own_waits = 0
        """For how many answers the run itself waits, and no call of it."""
        self.waits_for_background = False
        """Whether it has nothing to do before one of its background runs has ended."""
        # Dicts, since an empty one takes a quarter of the room of an empty set.
        self._call_ids: dict[str, None] = {}
        self._question_ids: dict[str, None] = {}
        self._parked: tuple[str, ...] = ()
        """The calls and questions that were parked."""
        self._is_partial = False
        """Whether facts before the first one that was applied are missing."""
        self._before_turn = 0
        """The messages that it had committed when the last turn began."""

    # ------------------------------------------------------------------------- questions to the state

    @property
    def questions(self) -> QuestionList:
        """Asked by the run itself, and not by a call, since its last turn began."""
        if self._questions is None:
            self._questions = QuestionList()
        return self._questions

    @property
    def is_running(self) -> bool:
        """Whether its stream has started and has not stopped."""
        return self.phase not in (StreamPhase.NEW, StreamPhase.STOPPED)

    @property
    def is_over(self) -> bool:
        """Whether there is nothing to resume."""
        if self.openings and not self.prompt.parts and not self.continues:
            # It only shortened the conversation.
            return self.phase is StreamPhase.STOPPED
        # A stream that ended before it had taken up the open turn has left the turn as it was.
        return self.reason not in (None, "needs_input", "interrupted") and self.message is None

    @property
    def acting_agent(self) -> str:
        """Name of the agent that acts, or acts next when the run is resumed; empty before it began."""
        return self.source.agents[-1] if self.source.agents else ""

    @property
    def next_turn(self) -> int:
        """The number of the turn that starts next: the open one is resumed under its own."""
        return self.turn if self.message is not None else self.turn + 1

    @property
    def is_idle(self) -> bool:
        """Whether nothing in it, or in its children, continues by itself: it waits for people."""
        if self.background and not all(child.is_idle for child in self.background.values() if child.is_running):
            return False
        if self._own_waits or self.waits_for_background:
            return True
        running = [call for call in self.calls.values() if call.phase is CallPhase.RUNNING]
        return bool(running) and all(call.is_idle for call in running)

    @property
    def open_questions(self) -> list[Question]:
        """The questions without an answer, here and in its children, oldest first."""
        questions = [record.question for record in self.questions.records if record.is_open]
        for call in self.calls.values():
            questions += [record.question for record in call.all_questions if record.is_open]
            for child in call.children:
                if not (child.is_over or child.is_bypassed):
                    questions += child.open_questions
        for child in self.background.values():
            if not child.is_over:
                questions += child.open_questions
        return questions

    @property
    def has_pause(self) -> bool:
        """Whether it, or a run inside it, is paused, or was when it ended."""
        children = [child for call in self.calls.values() for child in call.children]
        children += self.background.values()
        return self.is_paused or any(child.has_pause for child in children if not child.is_over)

    @property
    def started_calls(self) -> list[str]:
        """Ids of the calls without a result whose tools began to run."""
        return [id for id, call in self.calls.items() if call.started]

    @property
    def closing(self) -> tuple[Message, ...]:
        """The messages that would close the open turn, if it is not resumed; none if no turn is open."""
        if self.message is None:
            return ()
        return close_turn(self.message, self.results, self.started_calls if self.calls else ())

    @property
    def open_things(self) -> list[str]:
        """Whatever was started in this opening and has not ended, in words."""
        return [
            *(["a turn"] if self.phase in (StreamPhase.TURN, StreamPhase.COMPACTING) else []),
            *(["a compaction"] if self.phase is StreamPhase.COMPACTING else []),
            *(f"call {call.id!r}" for call in self.calls.values() if call.is_running),
            *(f"question {id!r}" for id in self.open_now),
        ]

    def questions_of(self, question: Question) -> QuestionList:
        """The list that ``question`` belongs to: the run's own, or one of the call that asks."""
        if question.background:
            # What it got as an answer is known to the run that asks, which is not resumed.
            return QuestionList()
        call_id, is_retry = asker(question)
        if not call_id:
            return self.questions
        call = self.calls.get(call_id)
        if call is None:
            return QuestionList()
        return call.retry_questions if is_retry else call.questions

    def find_question(self, id: str) -> QuestionRecord | None:
        """The question of that id, here or in a child."""
        for record in self.questions.records:
            if record.question.id == id:
                return record
        for call in self.calls.values():
            for record in call.all_questions:
                if record.question.id == id:
                    return record
            for child in call.children:
                record_of_child = child.find_question(id)
                if record_of_child is not None:
                    return record_of_child
        for child in self.background.values():
            record_of_child = child.find_question(id)
            if record_of_child is not None:
                return record_of_child
        return None

    @property
    def around(self) -> Iterator[StreamState]:
        """This run, and the runs around it, inside out."""
        run: StreamState | None = self
        while run is not None:
            yield run
            run = run.parent

    @contextmanager
    def waiting(self, call_id: str) -> Generator[None]:
        """A call, or with no call the run itself, waits for a person or another call while the block runs."""
        call = self.calls[call_id] if call_id else None
        if call is None:
            self._own_waits += 1
        else:
            call.waits += 1
        try:
            yield
        finally:
            if call is None:
                self._own_waits -= 1
            else:
                call.waits -= 1

    # ------------------------------------------------------------------------------------- apply

    def apply(self, fact: Fact) -> None:
        """Take in the next fact of this run. Never raises: see `complaints`."""
        rule = self._row.get(fact.__class__)
        if rule is _STAYS:
            # As for all deltas.
            return
        if rule is None:
            rule = _RULES.get(fact.__class__)
            if rule is None:
                # An event of a newer version.
                return
            self._complain(fact, f"cannot follow while its stream is {self.phase.value}")
        phase, change, row = rule
        if change is not None:
            change(self, fact)
        if phase is not None:
            self.phase = phase
            self._row = row

    def _complain(self, fact: Fact, problem: str) -> None:
        if len(self.complaints) < MOST_COMPLAINTS:
            self.complaints.append(complaint(fact, self.stream, problem))

    # ----------------------------------------------------------------------------------- streams

    def _start(self, event: StreamStarted | ChildStreamStarted) -> None:
        if event.resumes and event.resumes == event.stream:
            self._complain(event, "its stream has started before")
        source = self.source = event.source
        if not self.openings:
            self.session, self.agent, self.prompt = source.session, source.agents[-1], event.message
            self.opened_by = source.agents[-2] if len(source.agents) > 1 else ""
            self._is_partial = bool(event.resumes)
            if isinstance(event, StreamStarted) and event.continues:
                self.continues = self.is_prompted = True
        self.stream, self.model = source.stream, event.model
        self.reason = None
        self.openings += 1
        self.question_count = self.child_count = self._own_waits = 0
        self.waits_for_background = False
        self.is_paused = False
        if self._questions is not None:
            self._questions.begin()
        self._parked = ()
        self._question_ids.clear()
        self.open_now.clear()
        self.passed_on, self.taken_reports, self.hook_runs = _NOTHING, _NO_IDS, ()
        parent = self.parent
        if parent is None or not isinstance(event, ChildStreamStarted):
            return
        if event.background:
            parent._begin_background(event, self)
            return
        if event.hook:
            parent.hook_runs = (*[run for run in parent.hook_runs if run.is_running], self)
            parent.child_count += 1
            return
        call = parent._running_call(event, event.call_id)
        if call is not None:
            parent.child_count += call.open_child(self)

    def _begin_background(self, event: ChildStreamStarted, child: StreamState) -> None:
        if event.background in self.background:
            # It is resumed with this run; its call has ended, or comes to it later.
            if self.background[event.background] is not child:
                self._complain(event, f"background run {event.background} was begun before")
            return
        if not (event.resumes and self._is_partial):
            self._running_call(event, event.call_id)
        child.is_background = True
        self.background = {**self.background, event.background: child}
        self.background_counts = {**self.background_counts, child.agent: self.background_counts.get(child.agent, 0) + 1}
        self.child_count += 1

    def _stop(self, event: StreamStopped | ChildStreamStopped) -> None:
        if self.calls or self.open_now or self.phase is not StreamPhase.BETWEEN_TURNS:
            left = self.open_things
            if left:
                self._complain(event, f"leaves open: {', '.join(left)}")
            self._check_children(event, self.calls.values())
        for child in self.background.values():
            if child.is_running:
                self._complain(event, f"comes before the end of its background run {child.stream}")
        for child in self.hook_runs:
            if child.is_running:
                self._complain(event, f"comes before the end of its child {child.stream}")
        if self.passed_on:
            self._complain(event, f"leaves open: {', '.join(f'question {id!r}' for id in self.passed_on)}")
        if self._parked and event.reason not in ("needs_input", "interrupted"):
            self._complain(event, f"has the reason {event.reason}, though these are parked: {', '.join(self._parked)}")
        if isinstance(event, ChildStreamStopped) is (self.parent is None):
            self._complain(event, "ends a stream that began with another class")
        self.reason, self.detail = event.reason, event.detail
        if event.reason == "interrupted":
            # No rule chose the place: only calls that waited for an answer are known not to have continued since.
            for call in self.calls.values():
                call.parked = any(record.is_open for record in call.questions.records)
        if self.parent is None:
            return
        if self.is_background:
            # Its end is to be reported.
            self.parent.waits_for_background = False
        elif (opener := self.parent.calls.get(self.call_id)) is not None:
            opener.end_child(self)

    def _pause(self, event: Paused | Resumed) -> None:
        pauses = isinstance(event, Paused)
        if self.is_paused is pauses:
            self._complain(event, f"its stream was {'paused' if pauses else 'not paused'} before")
        self.is_paused = pauses

    def _check_children(self, event: StreamEvent, calls: Iterable[CallState]) -> None:
        for call in calls:
            for child in call.children:
                if child.is_running:
                    self._complain(event, f"comes before the end of its child {child.stream}")

    # ------------------------------------------------------------------------------------- turns

    def _start_turn(self, event: TurnStarted) -> None:
        due = self.next_turn
        if event.turn != due and not (self._is_partial and not self.turn):
            self._complain(event, f"turn {event.turn} comes where turn {due} is due")
        if event.turn > self.turn:
            # A turn that is resumed has its response already.
            self._count_request(event)
            if self._questions is not None:
                self._questions.clear()
        self.turn = event.turn
        self._before_turn = len(self.messages)

    def _finish_turn(self, event: TurnFinished) -> None:
        if event.reason == "output_retry":
            self.output_retries += 1
        elif event.reason in ("continued", "final") and any(map(_is_answer, self.messages[self._before_turn :])):
            # The model has all its attempts again at the next answer. A response that its provider paused is none.
            self.output_retries = 0
        if event.turn != self.turn or self.phase not in (StreamPhase.TURN, StreamPhase.COMPACTING):
            self._complain(event, f"turn {event.turn} was not open")
        if self.calls or self.open_now or self.phase is StreamPhase.COMPACTING:
            left = self.open_things[1:]
            if left:
                self._complain(event, f"leaves open: {', '.join(left)}")
        if self.pending_handoff is not None and self.message is None:
            self._change_agent(self.pending_handoff)

    def _hand_off(self, event: HandedOff) -> None:
        if event.call_id:
            self._running_call(event, event.call_id)
        if self.pending_handoff is not None:
            self._complain(event, f"its turn has handed the conversation to {self.pending_handoff.to} before")
        index = self.first_index + len(self.messages)
        handoff = HandoffRecord(index, self.acting_agent, event.to, event.call_id)
        self.handoffs += (handoff,)
        if self.phase is StreamPhase.BETWEEN_TURNS:
            self._change_agent(handoff)
        else:
            self.pending_handoff = handoff

    def _change_agent(self, handoff: HandoffRecord) -> None:
        source = self.source
        self.source = Source(source.session, source.stream, (*source.agents[:-1], handoff.to), source.parent)
        self.pending_handoff = None
        # The other agent has all attempts at its own output.
        self.output_retries = 0

    def _commit(self, event: MessageCommitted) -> None:
        if not self.messages:
            self.first_index = event.index
        due = self.first_index + len(self.messages)
        if event.index != due:
            self._complain(event, f"has index {event.index}, where {due} is due")
        self.is_prompted = True
        self.messages.append(event.message)
        if isinstance(event.message, AssistantMessage):
            if self.calls:
                left = [f"call {call.id!r}" for call in self.calls.values() if call.is_running]
                if left:
                    self._complain(event, f"leaves open: {', '.join(left)}")
            self.message, self.results, self.calls = None, {}, {}
        elif isinstance(event.message, UserMessage) and event.message.reports:
            self._report(event, event.message.reports)

    def _report(self, event: MessageCommitted, ids: tuple[str, ...]) -> None:
        for id in ids:
            child = self.background.get(id)
            if child is None and not self._is_partial and id not in self.taken_reports:
                self._complain(event, f"reports the end of {id!r}, which is no background run, or was reported before")
            elif child is not None and child.is_running:
                self._complain(event, f"reports the end of {id!r}, which is running")
        self.background = {id: child for id, child in self.background.items() if id not in ids}
        self.taken_reports = self.taken_reports.difference(ids)

    def _take_report(self, note: ReportTaken) -> None:
        self.taken_reports = self.taken_reports.union(note.ids)

    def _count_usage(self, event: UsageReported) -> None:
        run: StreamState | None = self
        while run is not None:
            run.usage += event.usage
            run = run.parent

    def _count_request(self, fact: TurnStarted | ResponseDiscarded | RequestSent) -> None:
        run: StreamState | None = self
        while run is not None:
            run.requests += 1
            run = run.parent

    def _open_turn(self, note: TurnOpened) -> None:
        self.message, self.results, self.calls = note.message, {}, {}

    def _change_view(self, note: ViewChanged) -> None:
        self.view = note

    def _raise_limit(self, note: LimitRaised) -> None:
        for run in self.around:
            if run.stream == note.stream:
                run.allowed = {**run.allowed, note.limit: note.allowed}
        # The run must not ask about it once more.
        self.questions.clear()

    # ------------------------------------------------------------------------------------- calls

    def _running_call(self, fact: Fact, id: str) -> CallState | None:
        """The call of that id, if ``fact`` may follow in its phase."""
        call = self.calls.get(id)
        # The row of nearly every call is not looked up: the hash of an enum's member is slow.
        row = None if call is None else _RUNNING if call.phase is CallPhase.RUNNING else CALL_TABLE[call.phase]
        if row is None or fact.__class__ not in row:
            self._complain(fact, f"call {id!r} is not open")
        return call

    def _start_call(self, event: ToolCallStarted) -> None:
        id = event.call_id
        call = self.calls.get(id)
        if call is None:
            if id in self._call_ids:
                self._complain(event, f"call {id!r} was started before")
            self._call_ids[id] = None
            call = self.calls[id] = CallState(id, event.name)
            run: StreamState | None = self
            while run is not None:
                run.tool_calls += 1
                run = run.parent
        elif ToolCallStarted not in CALL_TABLE[call.phase]:
            self._complain(event, f"call {id!r} was started before")
        else:
            call.begin()
        call.name, call.phase, call.waits = event.name, CallPhase.RUNNING, 0

    def _block(self, note: RunBlocked) -> None:
        self._running_call(note, note.call_id)
        self.blocked = note.reason

    def _take_note(self, note: NoteTaken) -> None:
        self.notes = {**self.notes, note.name: note.text}

    def _start_tool(self, note: ToolStarted) -> None:
        call = self._running_call(note, note.call_id)
        if call is not None:
            call.started, call.parked = True, False
            if call._retry_questions is not None:
                call._retry_questions.clear()

    def _remember(self, note: ValueRemembered) -> None:
        call = self._running_call(note, note.call_id)
        if call is not None:
            call.remembered = {**call.remembered, note.name: note.value}

    def _reuse_child(self, note: ChildReused) -> None:
        call = self._running_call(note, note.call_id)
        if call is not None:
            call.reuse_child(note.session)

    def _check_call(self, event: ToolCallOutput | ToolCallProgress) -> None:
        self._running_call(event, event.call_id)

    def _finish_call(self, event: ToolCallFinished) -> None:
        id = event.call_id
        call = self._running_call(event, id)
        if event.result.call_id != id:
            self._complain(event, f"has the result of call {event.result.call_id!r}")
        if call is not None and call.children:
            self._check_children(event, (call,))
        self.calls.pop(id, None)
        self.results[id] = event.result

    def _park_call(self, event: ToolCallParked) -> None:
        call = self._running_call(event, event.call_id)
        if call is not None:
            self._check_children(event, (call,))
        self._parked += (f"call {event.call_id!r}",)
        if call is not None:
            call.phase = CallPhase.PARKED
            # A call that waited for nothing but another call was cut off in the middle of its work.
            waited = any(record.is_open for record in call.questions.records)
            unfinished = any(not child.is_over for child in (*call.children, *self._background_of(call.id)))
            call.parked = waited or unfinished or not call.started

    def _background_of(self, call_id: str) -> list[StreamState]:
        """The background runs that the call began and whose end was not reported."""
        return [child for child in self.background.values() if child.call_id == call_id]

    # --------------------------------------------------------------------------------- questions

    def _ask(self, event: Question) -> None:
        if event.id in self._question_ids:
            self._complain(event, f"question {event.id!r} was asked before")
        self._question_ids[event.id] = None
        if event.background:
            self.passed_on = {**self.passed_on, event.id: event}
            self.question_count += 1
            return
        call_id, _ = asker(event)
        if call_id:
            self._running_call(event, call_id)
        questions = self.questions_of(event)
        self.open_now[event.id] = questions.ask(event)
        self.question_count += questions.is_new(event.id)

    def _take_from_open(
        self, event: QuestionAnswered | QuestionDeclined | QuestionWithdrawn | QuestionParked
    ) -> QuestionRecord | None:
        if event.id in self.passed_on:
            self.passed_on = {id: question for id, question in self.passed_on.items() if id != event.id}
            return None
        record = self.open_now.pop(event.id, None)
        if record is None:
            self._complain(event, f"question {event.id!r} is not open")
        return record

    def _answer(self, event: QuestionAnswered) -> None:
        record = self._take_from_open(event)
        if record is not None:
            record.answer = event.answer
            self.questions_of(record.question).close(event.id)

    def _decline(self, event: QuestionDeclined) -> None:
        record = self._take_from_open(event)
        if record is not None and record.answer is None:
            record.is_over = True
            # A tool that was answered so has continued since, and gets the same answer again.
            record.answer = Decline(event.note) if isinstance(record.question, ElicitationRequested) else None
            self.questions_of(record.question).close(event.id)

    def _withdraw(self, event: QuestionWithdrawn) -> None:
        record = self._take_from_open(event)
        if record is None:
            return
        asker = self.questions_of(record.question)
        if record.answer is not None or isinstance(record.question, ApprovalRequested):
            # The answer that it had is not permitted any more: it is asked anew.
            asker.forget(record)
        else:
            record.is_over = True
        asker.close(event.id)

    def _park_question(self, event: QuestionParked) -> None:
        self._take_from_open(event)
        self._parked += (f"question {event.id!r}",)

    CHANGES: ClassVar[Mapping[type, Callable[..., None]]] = {
        StreamStarted: _start,
        ChildStreamStarted: _start,
        StreamStopped: _stop,
        ChildStreamStopped: _stop,
        TurnStarted: _start_turn,
        TurnFinished: _finish_turn,
        MessageCommitted: _commit,
        UsageReported: _count_usage,
        RequestSent: _count_request,
        ResponseDiscarded: _count_request,
        TurnOpened: _open_turn,
        ViewChanged: _change_view,
        LimitRaised: _raise_limit,
        ReportTaken: _take_report,
        RunBlocked: _block,
        NoteTaken: _take_note,
        ToolCallStarted: _start_call,
        ToolStarted: _start_tool,
        ValueRemembered: _remember,
        ChildReused: _reuse_child,
        ToolCallOutput: _check_call,
        ToolCallProgress: _check_call,
        ToolCallFinished: _finish_call,
        ToolCallParked: _park_call,
        HandedOff: _hand_off,
        Paused: _pause,
        Resumed: _pause,
        ElicitationRequested: _ask,
        ApprovalRequested: _ask,
        ContinueRequested: _ask,
        QuestionAnswered: _answer,
        QuestionDeclined: _decline,
        QuestionWithdrawn: _withdraw,
        QuestionParked: _park_question,
    }
    """The facts that change more than the phase."""


def _is_answer(message: Message) -> bool:
    """Whether ``message`` is a response that its provider did not pause."""
    return isinstance(message, AssistantMessage) and message.stop != "paused"


def complaint(fact: Fact, stream: str, problem: str) -> str:
    """A sentence about a fact that the tables do not allow."""
    which = f"note {fact.kind!r}" if isinstance(fact, Note) else f"event {fact.seq}, {type(fact).__name__}"
    return f"{which} of {stream}: {problem}"


_NO_PROMPT = UserMessage(())
_NO_SOURCE = Source("", "", ())

_Row: TypeAlias = dict[type, "_Rule"]
_Rule: TypeAlias = tuple[StreamPhase | None, Callable[..., None] | None, _Row]
"""The phase that a fact leads to, the change that it makes, and the row of that phase."""

_STAYS: _Rule = (None, None, {})
"""The rule of facts that are allowed and change nothing: deltas, most of all."""

_ROWS: Mapping[StreamPhase, _Row] = {phase: {} for phase in STREAM_TABLE}
"""The stream table with the change that each fact makes, so that `StreamState.apply` looks once into one dict."""

for _phase, _table in STREAM_TABLE.items():
    for _fact, _next in _table.items():
        _change = StreamState.CHANGES.get(_fact)
        _is_stay = _next is None and _change is None
        _ROWS[_phase][_fact] = _STAYS if _is_stay else (_next, _change, _ROWS[_phase if _next is None else _next])

_RULES: Mapping[type, _Rule] = {fact: rule for row in _ROWS.values() for fact, rule in row.items()}
"""The effect of a fact, whatever the phase: for facts that the table does not allow."""


# ---------------------------------------------------------------------------- sessions


class SessionState:
    """A session as its journal has it: the transcript, and the last run with its children."""

    __slots__ = (
        "_states",
        "agent",
        "complaints",
        "handoffs",
        "long_results",
        "messages",
        "removed",
        "run",
        "running",
        "settings",
    )

    def __init__(self) -> None:
        self.complaints: list[str] = []
        """Facts that the tables do not allow, a sentence each."""
        self.messages: list[Message] = []
        """The transcript; without the open turn of the last run."""
        self.removed: list[Message] = []
        """Messages that a rewind has removed. The ids of their calls stay taken."""
        self.agent = ""
        """Name of the agent that has the conversation; empty before the first run."""
        self.handoffs: Handoffs = ()
        """The handoffs of its own runs, from one agent to another."""
        self.settings = SessionSettings()
        self.long_results: dict[str, str] = {}
        """For the session's own runs: whole texts of long results, by call id."""
        self.run: StreamState | None = None
        """The last run, unless it was abandoned."""
        self.running: dict[str, StreamState] = {}
        """The streams that have started and have not stopped, by id, oldest first."""
        self._states: dict[str, StreamState] = {}
        """The states of the last run and its children, by session."""

    @property
    def resumable(self) -> StreamState | None:
        """The last run, if it can be resumed."""
        return None if self.run is None or self.run.is_over else self.run

    def apply(self, fact: Fact, stream: str = "") -> None:
        """Take in the next fact of the session: of the stream ``stream``, if it is a note about one. Never raises."""
        match fact:
            case StreamStarted() | ChildStreamStarted():
                self._start(fact)
            case TurnAbandoned(messages=messages):
                self.messages.extend(messages)
                self._forget_run()
            case SessionRewound(messages=count):
                self._rewind(count)
                self._forget_run()
            case SessionSettings():
                self.settings = fact
            case _:
                self._apply_to_run(fact, fact.source.stream if not isinstance(fact, Note) else stream)

    def _apply_to_run(self, fact: StreamEvent | Note, stream: str) -> None:
        run = self.running.get(stream)
        if run is None:
            self._complain(fact, stream, "its stream has not started, or has stopped")
            return
        if isinstance(fact, (StreamStopped, ChildStreamStopped)):
            if run.parent is None and fact.reason == "needs_input" and not (run.open_questions or run.has_pause):
                self._complain(fact, stream, "needs input, and no question is parked")
            del self.running[stream]
        run.apply(fact)
        if run.parent is None and isinstance(fact, MessageCommitted):
            self.messages.append(fact.message)
        if run.parent is None and isinstance(fact, HandedOff):
            self.hand_off(fact)
        if isinstance(fact, LongResultStored):
            # The living run has them in its transcript, which makes room for new ones.
            if run.parent is None:
                self.long_results[fact.call_id] = fact.text
            else:
                run.long_results = {**run.long_results, fact.call_id: fact.text}

    def _start(self, event: StreamStarted | ChildStreamStarted) -> None:
        run: StreamState | None = None
        if isinstance(event, StreamStarted):
            if self.running:
                self._complain(event, event.stream, "another stream is running")
            if event.resumes:
                # Not found by its session: before a fork, it was recorded under the original's id.
                run = self.run
            if run is None:
                self._states.clear()
                run = StreamState()
                run.complaints = self.complaints
            self.run = run
            if not event.resumes:
                # A turn that is resumed may have handed the conversation off.
                self.agent = event.agent
        else:
            parent = self.running.get(event.parent or "")
            if parent is None:
                self._complain(event, event.stream, f"its parent stream {event.parent} is not running")
            elif event.path[:-1] != parent.source.agents:
                self._complain(event, event.stream, f"its path {event.path} does not lead through its parent's")
            if event.resumes:
                run = self._states.get(event.session)
            if run is None:
                run = StreamState(parent, event.call_id)
                run.complaints = self.complaints
        if event.stream in self.running:
            self._complain(event, event.stream, "its stream has started before")
        # A resumed stream that is still running has no end of its own.
        self.running.pop(run.stream, None)
        self._states[event.session] = run
        self.running[event.stream] = run
        run.apply(event)

    def hand_off(self, event: HandedOff) -> None:
        """A run of the session itself has handed the conversation off."""
        self.handoffs += (HandoffRecord(len(self.messages), event.agent, event.to, event.call_id),)
        self.agent = event.to

    def _rewind(self, count: int) -> None:
        self.handoffs, self.agent = agent_after_rewind(self.handoffs, self.agent, count)
        self.removed += self.messages[count:]
        del self.messages[count:]
        settings, cut = self.settings, self.settings.cut
        if cut is not None and cut.at > count:
            settings = msgspec.structs.replace(settings, summary=cut.summary, first_kept=cut.first_kept, cut=None)
        is_summed_up = settings.first_kept <= count
        self.settings = SessionSettings(
            settings.grants,
            settings.summary if is_summed_up else "",
            settings.first_kept if is_summed_up else 0,
            tuple([index for index in settings.elided if index < count]),
            tuple([part for part in settings.in_part if part[0] < count]),
            min(settings.changed_at, count),
            settings.failures,
            settings.permissions,
            # What tools have saved describes the work that was done, which a rewind does not undo.
            settings.values,
            settings.cut,
            settings.model,
            settings.reasoning_effort,
            # A rewind does not undo that they were started, either: no other one gets the id.
            settings.background_counts,
            settings.unreported,
        )

    def _forget_run(self) -> None:
        self.run = None
        self._states.clear()

    def _complain(self, fact: Fact, stream: str, problem: str) -> None:
        if len(self.complaints) < MOST_COMPLAINTS:
            self.complaints.append(complaint(fact, stream, problem))

    # -------------------------------------------------------------------------------- ends

    def ends(self) -> Iterator[tuple[type[StreamEvent], Source, dict[str, Any]]]:
        """The events that end the streams whose process died, inside out, as class, source and fields."""
        running = list(self.running.values())
        for run in running:
            if run.parent not in running:
                yield from self._ends_of(run)

    def _ends_of(self, run: StreamState) -> Iterator[tuple[type[StreamEvent], Source, dict[str, Any]]]:
        source = run.source
        for child in list(self.running.values()):
            if child.parent is run:
                yield from self._ends_of(child)
        for id in list(run.open_now):
            yield QuestionParked, source, {"id": id}
        for id in list(run.passed_on):
            yield QuestionWithdrawn, source, {"id": id}
        if run.phase is StreamPhase.COMPACTING:
            yield CompactionFinished, source, {"tokens": 0, "first_kept": 0, "summary": "", "problem": INTERRUPTED}
        for call in list(run.calls.values()):
            if call.is_running:
                yield ToolCallParked, source, {"call_id": call.id, "name": call.name}
        if run.phase in (StreamPhase.TURN, StreamPhase.COMPACTING):
            yield TurnFinished, source, {"turn": run.turn, "reason": "interrupted"}
        stopped: dict[str, Any] = {"reason": "interrupted", "detail": INTERRUPTED, "usage": run.usage}
        if run.parent is None:
            yield StreamStopped, source, stopped
        else:
            yield ChildStreamStopped, source, {"call_id": run.call_id, **stopped}
