"""What a session's journal says of the stream that ran last: record by record, in order. Waits for nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from agentloop.errors import StoreError, UsageError
from agentloop.events import (
    ApprovalRequested,
    ChildStreamStarted,
    ChildStreamStopped,
    CompactionFinished,
    CompactionStarted,
    ContinueRequested,
    ElicitationRequested,
    MessageCommitted,
    Question,
    QuestionAnswered,
    QuestionDeclined,
    QuestionParked,
    QuestionWithdrawn,
    Source,
    StreamEvent,
    StreamStarted,
    StreamStopped,
    ToolCallFinished,
    ToolCallParked,
    ToolCallStarted,
    TurnFinished,
    TurnStarted,
    UnknownEvent,
    UsageReported,
)
from agentloop.journal import Record
from agentloop.messages import AssistantMessage, Message
from agentloop.questions import Decline
from agentloop.wire import EVENT_TYPES, decode_event
from tests.stores.oracle.unfinished import Asked, Unfinished, UnfinishedCall, asker

__all__ = ["GIVEN_UP", "LONG_RESULT", "REWOUND", "STATE", "GivenUp", "History", "Rewound"]

GIVEN_UP, REWOUND, STATE, LONG_RESULT = "given_up", "rewound", "state", "long_result"
"""The kinds of records that are neither events nor of a stream: the messages by which an unfinished turn was closed;
messages that do not count any more; what else there is to a session; and what was too long to be a result."""

_WITHOUT_STATE = frozenset(
    {"text_delta", "reasoning_delta", "tool_call_delta", "tool_call_output", STATE, "child_reused"}
)
"""Kinds of records that nothing can be learned from here: most of what there is."""


class Memory(msgspec.Struct):
    """What a call wants to know when it is called again."""

    name: str
    value: msgspec.Raw


class Raised(msgspec.Struct):
    """A person has let a stream go past a limit, its own or that of one around it."""

    stream: str
    """Whose limit it is."""
    limit: str
    allowed: float


class GivenUp(msgspec.Struct):
    """Nobody goes on with what was unfinished."""

    messages: tuple[Message, ...]


class Rewound(msgspec.Struct):
    """From here on, only the first messages count."""

    messages: int


class _Open(msgspec.Struct):
    """What was told of a stream that is running, and has no end yet."""

    source: Source
    call_id: str | None
    """That of the parent which opened it; ``None`` at the root."""
    state: Unfinished
    in_turn: bool = False
    compacting: bool = False
    calls: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    """Id to the tool's name, in the order of beginning."""
    questions: dict[str, None] = msgspec.field(default_factory=dict[str, None])
    asked: set[str] = msgspec.field(default_factory=set[str])
    """Ids of the questions that it has asked this time."""
    new: set[str] = msgspec.field(default_factory=set[str])
    """Ids of those that it asked for the first time."""


class History:
    """The last root stream of a session, with all streams inside it, as far as its journal has been read."""

    def __init__(self) -> None:
        self.root: Unfinished | None = None
        self._states: dict[str, Unfinished] = {}
        """By session."""
        self._running: dict[str, _Open] = {}
        """By stream, oldest first."""

    def read(self, records: Sequence[Record]) -> None:
        """Take in the records after those that were taken in before.

        Raises:
          StoreError: one of them is none that agentloop has written.
        """
        for record in records:
            try:
                self._read(record)
            except (msgspec.DecodeError, UsageError, LookupError) as error:
                raise StoreError(f"record {record.seq}, {record.kind!r}, cannot be read: {error}") from error

    def _read(self, record: Record) -> None:
        match record.kind:
            case _ if record.kind in _WITHOUT_STATE:
                pass
            case "turn":
                state = self._running[record.stream].state
                state.message = msgspec.json.decode(record.data, type=AssistantMessage)
                state.results, state.calls = {}, {}
            case "call":
                call = self._running[record.stream].state.calls[record.key]
                call.started, call.parked = True, False
                call.doubts.clear()
            case "memory":
                memory = msgspec.json.decode(record.data, type=Memory)
                self._running[record.stream].state.calls[record.key].remembered[memory.name] = bytes(memory.value)
            case "long_result":
                stream = self._running[record.stream]
                if stream.call_id is not None:
                    stream.state.long_results[record.key] = msgspec.json.decode(record.data, type=str)
            case "raised":
                limit = msgspec.json.decode(record.data, type=Raised)
                self._running[limit.stream].state.allowed[limit.limit] = limit.allowed
                stream = self._running[record.stream]
                # So it is not asked about once more.
                stream.state.asked.clear()
            case "given_up" | "rewound":
                self.root = None
                self._states.clear()
            case kind if kind in EVENT_TYPES:
                event = decode_event(record.data)
                if not isinstance(event, UnknownEvent):
                    self._tell(event)
            case _:
                # Of a newer version, which knows what to do with it.
                pass

    # ------------------------------------------------------------------------------ events

    def _tell(self, event: StreamEvent) -> None:
        if isinstance(event, (StreamStarted, ChildStreamStarted)):
            self._start(event)
            return
        stream = self._running[event.stream]
        state = stream.state
        match event:
            case StreamStopped() | ChildStreamStopped():
                self._stop(event)
            case TurnStarted(turn=turn):
                if turn > state.turn:
                    state.asked.clear()
                state.turn, stream.in_turn = turn, True
            case TurnFinished():
                stream.in_turn = False
            case CompactionStarted() | CompactionFinished():
                stream.compacting = isinstance(event, CompactionStarted)
            case UsageReported(usage=usage):
                for one in self._around(stream):
                    one.state.usage += usage
            case MessageCommitted(message=message):
                state.is_prompted = True
                state.messages.append(message)
                if isinstance(message, AssistantMessage):
                    state.message, state.results, state.calls = None, {}, {}
            case ToolCallStarted(call_id=id, name=name):
                stream.calls[id] = name
                if id not in state.calls:
                    state.calls[id] = UnfinishedCall()
                    for one in self._around(stream):
                        one.state.tool_calls += 1
            case ToolCallFinished(call_id=id, result=result):
                del stream.calls[id]
                state.calls.pop(id, None)
                state.results[id] = result
            case ToolCallParked(call_id=id):
                del stream.calls[id]
                call = state.calls[id]
                # One that has waited for nobody but another call was cut off in the midst of whatever it did.
                waited = any(each.is_open for each in call.asked) or any(not each.is_over for each in call.children)
                call.parked = waited or not call.started
            case ElicitationRequested() | ApprovalRequested() | ContinueRequested():
                self._ask(stream, event)
            case QuestionAnswered(id=id, answer=answer):
                stream.questions.pop(id, None)
                asked = state.find(id)
                if asked is not None:
                    asked.answer = answer
                    self._has_closed(stream, asked)
            case QuestionDeclined(id=id, note=note):
                self._close(stream, id, Decline(note))
            case QuestionWithdrawn(id=id):
                self._close(stream, id, None)
            case QuestionParked(id=id):
                stream.questions.pop(id, None)
            case _:
                pass

    def _start(self, event: StreamStarted | ChildStreamStarted) -> None:
        state: Unfinished | None = None
        if event.resumes:
            # That of the root goes by another name before a fork.
            state = self.root if isinstance(event, StreamStarted) else self._states.get(event.session)
        if state is None:
            state = Unfinished(event.session, event.stream, event.agent, event.message)
            # A run without a prompt goes on from the messages before.
            state.is_prompted = isinstance(event, StreamStarted) and event.continues
            if isinstance(event, ChildStreamStarted):
                self._running[event.parent or ""].state.calls[event.call_id].children.append(state)
            else:
                self._states.clear()
            self._states[event.session] = state
        state.stream, state.reason = event.stream, None
        state.streams += 1
        call_id = event.call_id if isinstance(event, ChildStreamStarted) else None
        self._running[event.stream] = _Open(event.source, call_id, state)
        if call_id is None:
            self.root = state

    def _stop(self, event: StreamStopped | ChildStreamStopped) -> None:
        stream = self._running.pop(event.stream)
        state = stream.state
        state.reason, state.detail = event.reason, event.detail
        if event.reason == "interrupted":
            # Nobody has chosen where: only those that waited for an answer are known not to have gone on since.
            for call in state.calls.values():
                call.parked = any(asked.is_open for asked in call.asked)

    def _around(self, stream: _Open) -> Iterator[_Open]:
        """``stream``, and those that it runs in."""
        at: _Open | None = stream
        while at is not None:
            yield at
            at = self._running.get(at.source.parent or "")

    def _ask(self, stream: _Open, question: Question) -> None:
        stream.questions[question.id] = None
        records = stream.state.asked_by(*asker(question))
        for asked in records:
            if asked.question.id == question.id:
                stream.asked.add(question.id)
                asked.is_over = asked.is_bypassed = False
                return
        closed = [asked for asked in records if asked.question.id in stream.asked and not asked.lacks_answer]
        before = {id for asked in closed for id in asked.after}
        after = [asked.question.id for asked in closed if not asked.approves_as_it_is]
        for other in records:
            other.is_bypassed = other.question.id not in stream.asked
        records.append(Asked(question, after=tuple(id for id in after if id not in before)))
        stream.asked.add(question.id)
        stream.new.add(question.id)

    def _has_closed(self, stream: _Open, asked: Asked) -> None:
        if asked.question.id in stream.new:
            # The call has gone another way: what it has not asked again by now it asks anew.
            records = stream.state.asked_by(*asker(asked.question))
            records[:] = [each for each in records if each.question.id in stream.asked]

    def _close(self, stream: _Open, id: str, answer: Decline | None) -> None:
        """Nobody waits for an answer any more. A tool that was told so has gone on since, and is told it again."""
        stream.questions.pop(id, None)
        asked = stream.state.find(id)
        if asked is None or asked.answer is not None:
            return
        if isinstance(asked.question, ApprovalRequested) and answer is None:
            # The answer that it had is not permitted any more: it is asked anew.
            stream.state.asked_by(*asker(asked.question)).remove(asked)
        else:
            asked.is_over = True
            asked.answer = answer if isinstance(asked.question, ElicitationRequested) else None
            self._has_closed(stream, asked)

    # -------------------------------------------------------------------------------- ends

    def ends(self) -> Iterator[tuple[type[StreamEvent], Source, dict[str, Any]]]:
        """The events by which the streams that are still running are to end, as class, source and fields."""
        for stream in list(self._running.values()):
            if stream.call_id is None:
                yield from self._ends_of(stream)

    def _ends_of(self, stream: _Open) -> Iterator[tuple[type[StreamEvent], Source, dict[str, Any]]]:
        source, state = stream.source, stream.state
        for child in list(self._running.values()):
            if child.source.parent == source.stream:
                yield from self._ends_of(child)
        for id in list(stream.questions):
            yield QuestionParked, source, {"id": id}
        if stream.compacting:
            yield CompactionFinished, source, {"tokens": 0, "first_kept": 0, "summary": "", "problem": INTERRUPTED}
        for id, name in list(stream.calls.items()):
            yield ToolCallParked, source, {"call_id": id, "name": name}
        if stream.in_turn:
            yield TurnFinished, source, {"turn": state.turn, "reason": "interrupted"}
        ended: dict[str, Any] = {"reason": "interrupted", "detail": INTERRUPTED, "usage": state.usage}
        if stream.call_id is None:
            yield StreamStopped, source, ended
        else:
            yield ChildStreamStopped, source, {"call_id": stream.call_id, **ended}


INTERRUPTED = "its process, or its store, was gone"
