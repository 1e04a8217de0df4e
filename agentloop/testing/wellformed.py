"""What every reader may rely on, whatever happened: the shape of a stream's events."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import Factory, define

from agentloop._core.transcript import problems
from agentloop.events import (
    ApprovalRequested,
    ChildStreamStarted,
    ChildStreamStopped,
    CompactionFinished,
    CompactionStarted,
    ContinueRequested,
    ElicitationRequested,
    MessageCommitted,
    QuestionAnswered,
    QuestionDeclined,
    QuestionParked,
    QuestionWithdrawn,
    ReasoningDelta,
    ResponseDiscarded,
    StreamEvent,
    StreamStarted,
    StreamStopped,
    TextDelta,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallOutput,
    ToolCallParked,
    ToolCallProgress,
    ToolCallStarted,
    TurnFinished,
    TurnStarted,
    UsageReported,
)
from agentloop.messages import AssistantMessage, Message

__all__ = ["assert_well_formed", "event_problems"]


def assert_well_formed(events: Sequence[StreamEvent], *, complete: bool = True) -> None:
    """Raise `AssertionError` with every broken promise if ``events``, as one reader read them, are not well formed.

    They are numbered without gaps. The first is `StreamStarted`, and the last, and only the last, `StreamStopped`.
    What starts is finished: turns, tool calls, questions, child streams, each once, each inside what it belongs to.
    What was committed is a transcript that providers accept.

    Args:
      complete: whether the reader read to the end; else a prefix is checked.
    """
    found = event_problems(events, complete=complete)
    if found:
        told = [f"  {event}" for event in events[-20:]]
        raise AssertionError("\n".join([*found, f"the last {len(told)} of {len(events)} events:", *told]))


def event_problems(events: Sequence[StreamEvent], *, complete: bool = True) -> list[str]:
    """What is wrong with ``events``, a sentence each."""
    reader = _Reader()
    for event in events:
        reader.read(event)
    if complete and (not events or not isinstance(events[-1], StreamStopped)):
        reader.problems.append("the last event is not StreamStopped")
    return reader.problems


@define
class _Stream:
    """What is known of a stream half-way through its events."""

    start: StreamStarted | ChildStreamStarted
    turns: int = 0
    in_turn: bool = False
    compacting: bool = False
    calls: dict[str, bool] = Factory(dict[str, bool])
    """By id, whether it is open."""
    questions: dict[str, bool] = Factory(dict[str, bool])
    messages: list[Message] = Factory(list[Message])
    first_index: int = 0
    said: str = ""
    """The text that counts so far, of the response at hand."""
    tokens: int = 0
    parked: list[str] = Factory(list[str])
    """The questions and calls that wait for whoever goes on with the stream."""
    ended: bool = False

    @property
    def is_resumed(self) -> bool:
        return bool(self.start.resumes)

    @property
    def open(self) -> list[str]:
        return [
            *(["a turn"] if self.in_turn else []),
            *(["a compaction"] if self.compacting else []),
            *(f"call {id!r}" for id, is_open in self.calls.items() if is_open),
            *(f"question {id!r}" for id, is_open in self.questions.items() if is_open),
        ]


class _Reader:
    """Follows the events of one reader, and notes what cannot be."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.streams: dict[str, _Stream] = {}
        self.seq: int | None = None
        self.stopped = False

    def note(self, event: StreamEvent, problem: str) -> None:
        self.problems.append(f"event {event.seq}, {type(event).__name__} of {event.stream}: {problem}")

    def read(self, event: StreamEvent) -> None:
        if self.seq is not None and event.seq != self.seq + 1:
            self.note(event, f"comes after number {self.seq}")
        self.seq = event.seq
        if self.stopped:
            self.note(event, "comes after StreamStopped")
        if isinstance(event, (StreamStarted, ChildStreamStarted)):
            self._start(event)
            return
        stream = self.streams.get(event.stream)
        if stream is None:
            self.note(event, "its stream has not started")
            return
        if stream.ended:
            self.note(event, "its stream has ended")
        if event.source != stream.start.source:
            self.note(event, f"comes from {event.source}, but its stream is of {stream.start.source}")
        if isinstance(event, (StreamStopped, ChildStreamStopped)):
            self._stop(event, stream)
        else:
            self._read_turns(event, stream)
            self._read_calls(event, stream)
            self._read_questions(event, stream)
            self._read_messages(event, stream)

    # -------------------------------------------------------------------------- streams

    def _start(self, event: StreamStarted | ChildStreamStarted) -> None:
        if event.stream in self.streams or event.resumes == event.stream:
            self.note(event, "its stream has started before")
        if isinstance(event, StreamStarted):
            if self.streams:
                self.note(event, "is not the first event")
        else:
            parent = self.streams.get(event.parent or "")
            if parent is None or parent.ended:
                self.note(event, f"its parent stream {event.parent} is not running")
            else:
                self._need(event, parent.calls, "call", event.call_id)
                if event.path[:-1] != parent.start.path:
                    self.note(event, f"its path {event.path} does not lead through {parent.start.path}")
        self.streams[event.stream] = _Stream(event)

    def _stop(self, event: StreamStopped | ChildStreamStopped, stream: _Stream) -> None:
        if stream.open:
            self.note(event, f"leaves open: {', '.join(stream.open)}")
        for child in self._children(event.stream):
            if not child.ended:
                self.note(event, f"comes before the end of its child {child.start.stream}")
        self._check_parked(event, stream)
        if (event.error is not None) != (event.reason == "failed"):
            self.note(event, f"has the reason {event.reason}, and the error {event.error}")
        for problem in problems(stream.messages):
            self.note(event, f"leaves a transcript that a provider would refuse: {problem}")
        if type(event).__name__.removesuffix("Stopped") != type(stream.start).__name__.removesuffix("Started"):
            self.note(event, f"ends a stream that began with {type(stream.start).__name__}")
        stream.ended = True
        self.stopped = self.stopped or isinstance(event, StreamStopped)

    def _check_parked(self, event: StreamStopped | ChildStreamStopped, stream: _Stream) -> None:
        if stream.parked and event.reason not in ("needs_input", "interrupted"):
            self.note(event, f"has the reason {event.reason}, though these are parked: {', '.join(stream.parked)}")
        # A child may wait for what another one is asked.
        asked = any(one.startswith("question") for each in self.streams.values() for one in each.parked)
        if event.reason == "needs_input" and isinstance(event, StreamStopped) and not asked:
            self.note(event, "needs input, and no question is parked")

    def _children(self, stream: str) -> list[_Stream]:
        return [each for each in self.streams.values() if each.start.parent == stream]

    # --------------------------------------------------------------- inside of a stream

    def _read_turns(self, event: StreamEvent, stream: _Stream) -> None:
        match event:
            case TurnStarted(turn=turn):
                goes_on = stream.is_resumed and not stream.turns
                if stream.in_turn or (turn != stream.turns + 1 and not goes_on):
                    self.note(event, f"turn {turn} comes after turn {stream.turns}")
                stream.turns, stream.in_turn, stream.said = turn, True, ""
            case TurnFinished(turn=turn):
                if not stream.in_turn or turn != stream.turns:
                    self.note(event, f"turn {turn} was not open")
                stream.in_turn = False
                if stream.open:
                    self.note(event, f"leaves open: {', '.join(stream.open)}")
            case CompactionStarted() | CompactionFinished():
                begins = isinstance(event, CompactionStarted)
                if not stream.in_turn or stream.compacting == begins:
                    self.note(event, "is out of place")
                stream.compacting = begins
            case TextDelta() | ReasoningDelta() | ToolCallDelta() | ToolCallStarted():
                if not stream.in_turn:
                    self.note(event, "is outside of a turn")
            case ResponseDiscarded() | UsageReported():
                if not stream.in_turn:
                    self.note(event, "is outside of a turn")
            case _:
                pass

    def _read_calls(self, event: StreamEvent, stream: _Stream) -> None:
        match event:
            case ToolCallStarted(call_id=id):
                self._begin(event, stream.calls, "call", id)
            case ToolCallOutput(call_id=id) | ToolCallProgress(call_id=id):
                self._need(event, stream.calls, "call", id)
            case ToolCallFinished(call_id=id, result=result):
                self._finish(event, stream.calls, "call", id)
                if result.call_id != id:
                    self.note(event, f"has the result of call {result.call_id!r}")
                self._check_children(event, id)
            case ToolCallParked(call_id=id):
                self._finish(event, stream.calls, "call", id)
                self._check_children(event, id)
                stream.parked.append(f"call {id!r}")
            case _:
                pass

    def _check_children(self, event: StreamEvent, call_id: str) -> None:
        for child in self._children(event.stream):
            if isinstance(child.start, ChildStreamStarted) and child.start.call_id == call_id and not child.ended:
                self.note(event, f"comes before the end of its child {child.start.stream}")

    def _read_questions(self, event: StreamEvent, stream: _Stream) -> None:
        match event:
            case ElicitationRequested(id=id, call_id=call) | ApprovalRequested(id=id, call_id=call):
                self._need(event, stream.calls, "call", call)
                self._begin(event, stream.questions, "question", id)
            case ContinueRequested(id=id):
                self._begin(event, stream.questions, "question", id)
            case QuestionAnswered(id=id) | QuestionDeclined(id=id) | QuestionWithdrawn(id=id) | QuestionParked(id=id):
                self._finish(event, stream.questions, "question", id)
                if isinstance(event, QuestionParked):
                    stream.parked.append(f"question {id!r}")
            case _:
                pass

    def _read_messages(self, event: StreamEvent, stream: _Stream) -> None:
        match event:
            case MessageCommitted(message=message, index=index):
                if not stream.messages:
                    stream.first_index = index
                due = stream.first_index + len(stream.messages)
                if index != due:
                    self.note(event, f"has index {index}, where {due} is due")
                before = tuple(stream.messages)
                stream.messages.append(message)
                if isinstance(message, AssistantMessage):
                    # That of the turn that is gone on with was told before.
                    known = stream.is_resumed and not any(isinstance(each, AssistantMessage) for each in before)
                    if message.text != stream.said and not (known and not stream.said):
                        self.note(event, f"says {message.text!r}, but {stream.said!r} was told")
                    stream.said = ""
            case TextDelta(text=text):
                stream.said += text
            case ResponseDiscarded():
                stream.said = ""
            case UsageReported(total=total):
                if total.total_tokens < stream.tokens:
                    self.note(event, f"the total shrinks from {stream.tokens} to {total.total_tokens}")
                stream.tokens = total.total_tokens
            case _:
                pass

    def _begin(self, event: StreamEvent, known: dict[str, bool], kind: str, id: str) -> None:
        if id in known:
            self.note(event, f"{kind} {id!r} was started before")
        known[id] = True

    def _need(self, event: StreamEvent, known: dict[str, bool], kind: str, id: str) -> None:
        if not known.get(id, False):
            self.note(event, f"{kind} {id!r} is not open")

    def _finish(self, event: StreamEvent, known: dict[str, bool], kind: str, id: str) -> None:
        self._need(event, known, kind, id)
        known[id] = False
