"""What several test modules need: to nest agents, to watch a stream, and to check what holds whatever happened."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import trio
from attrs import Factory, define, frozen

from agentloop import Agent, Limits, Session
from agentloop._core.transcript import problems
from agentloop._runtime.stream import Stream
from agentloop.events import (
    ApprovalRequested,
    ChildStreamStarted,
    ChildStreamStopped,
    ContinueRequested,
    ElicitationRequested,
    MessageCommitted,
    QuestionAnswered,
    QuestionDeclined,
    QuestionWithdrawn,
    ReasoningDelta,
    StreamEvent,
    StreamStarted,
    StreamStopped,
    TextDelta,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallOutput,
    ToolCallProgress,
    ToolCallStarted,
    TurnFinished,
    TurnStarted,
    UsageReported,
)
from agentloop.messages import Message
from agentloop.outcome import ChildStream, Outcome
from agentloop.testing import ScriptedModel, calls

__all__ = [
    "Watched",
    "assert_nothing_left",
    "assert_well_formed",
    "first",
    "ill_formed",
    "nested",
    "of",
    "opened",
    "stopped_at",
    "tasks_alive",
    "watch",
]

E = TypeVar("E")

# ------------------------------------------------------------------------- agents in agents


def nested(agent: Agent, depth: int, *, limits: Limits | None = None) -> Agent:
    """An agent in which ``agent`` runs ``depth`` levels down, as a tool; ``agent`` itself at depth 0.

    Each agent around it calls it once, and then says "Done.".
    """
    for level in range(depth):
        model = ScriptedModel(calls(agent.name, prompt="go"), "Done.")
        agent = Agent(model, name=f"outer{level + 1}", tools=[agent.as_tool()], limits=limits or Limits())
    return agent


# ---------------------------------------------------------------------------- watching


def of(events: Iterable[StreamEvent], kind: type[E], *, depth: int | None = None) -> list[E]:
    """Those of ``events`` that are a ``kind``, at every depth if none is given."""
    return [event for event in events if isinstance(event, kind) and depth in (None, event.depth)]


def stopped_at(events: Iterable[StreamEvent], depth: int) -> StreamStopped | ChildStreamStopped:
    """How the only stream at ``depth`` stopped."""
    [event] = [
        event for event in events if isinstance(event, (StreamStopped, ChildStreamStopped)) and event.depth == depth
    ]
    return event


async def first(stream: ChildStream, kind: type[E]) -> E:
    """Read ``stream`` up to its first event that is a ``kind``, and give that."""
    async for event in stream:
        if isinstance(event, kind):
            return event
    raise AssertionError(f"the stream ended without a {kind.__name__}")


@frozen
class Watched:
    """What there was to see of a stream that was read to its end."""

    stream: Stream
    session: Session
    events: list[StreamEvent]
    error: BaseException | None
    """What the reader's loop ended with."""
    messages: tuple[Message, ...]
    """The session's transcript when the stream had ended."""

    @property
    def outcome(self) -> Outcome:
        return self.stream.outcome


OnEvent = Callable[[Stream, StreamEvent], object]


async def watch(
    agent: Agent, prompt: str = "go", *, session: Session | None = None, on_event: OnEvent | None = None, **options: Any
) -> Watched:
    """Read a stream of ``agent`` to its end, and check all that must hold.

    Args:
      on_event: is called with the stream and each event of it, to answer or to stop.
      options: those of `Agent.stream`.
    """
    session = Session() if session is None else session
    events: list[StreamEvent] = []
    error: BaseException | None = None
    before = tasks_alive()
    async with agent.stream(prompt, session=session, **options) as stream:
        try:
            async for event in stream:
                events.append(event)
                if on_event is not None:
                    on_event(stream, event)
        except Exception as raised:  # noqa: BLE001 - it is what the test wants to look at
            error = raised
    messages = session.messages
    assert_well_formed(events)
    assert error is stream.outcome.error
    await assert_nothing_left(stream, session, tasks=before)
    return Watched(stream, session, events, error, messages)


@asynccontextmanager
async def opened(
    agent: Agent, prompt: str = "go", *, session: Session | None = None, **options: Any
) -> AsyncGenerator[Stream]:
    """A stream of ``agent``; once it is left, in whatever way, all that must hold is checked."""
    session = Session() if session is None else session
    before = tasks_alive()
    stream: Stream | None = None
    try:
        async with agent.stream(prompt, session=session, **options) as stream:
            yield stream
    finally:
        with trio.CancelScope(shield=True):
            if stream is not None:
                await assert_nothing_left(stream, session, tasks=before)


# ------------------------------------------------------------------- what must hold after


def tasks_alive() -> int:
    """How many tasks there are in this trio run."""
    return trio.lowlevel.current_statistics().tasks_living


async def assert_nothing_left(stream: Stream, session: Session, *, tasks: int) -> None:
    """Whatever happened to ``stream``, its block has been left: there is nothing of it but the session.

    Args:
      tasks: how many tasks there were before.
    """
    run = stream._run
    assert tasks_alive() == tasks, "tasks are left"
    assert stream.outcome is run.outcome, "there is no outcome"
    assert run.ended.is_set()
    assert stream.pending == ()
    assert run.root.tree.scopes == {}, "scopes of the elicitation tree are left"
    assert not run.root.tree._questions, "questions are left"
    assert run.feed is None or not run.feed.is_open, "an end of the channel is open"
    assert not session.is_busy, "the session was not given back"
    assert problems(session.messages) == []
    assert session.messages[len(session.messages) - len(stream.outcome.messages) :] == stream.outcome.messages
    await assert_works(session)


async def assert_works(session: Session) -> None:
    """One can go on with ``session``. This adds two messages to it."""
    model = ScriptedModel("Still here.")
    store, session.store = session.store, None
    outcome = await Agent(model, name="next").run("And now?", session=session)
    session.store = store
    assert outcome.output == "Still here."
    assert problems(model.requests[0].messages) == []


# --------------------------------------------------------------------------- the events


def assert_well_formed(events: Sequence[StreamEvent], *, whole: bool = True) -> None:
    """What a reader was told obeys all rules; unless ``whole``, up to where it left."""
    found = ill_formed(events, whole=whole)
    if found:
        told = "\n".join(str(event) for event in events)
        raise AssertionError("\n".join(found) + "\n\n" + told)


@define
class _Stream:
    """What is known of a stream half-way through its events."""

    start: StreamStarted | ChildStreamStarted
    turns: int = 0
    turn_is_open: bool = False
    calls: dict[str, bool] = Factory(dict)
    """By id, whether it is open."""
    questions: dict[str, bool] = Factory(dict)
    messages: list[Message] = Factory(list)
    first_index: int = 0
    tokens: int = 0
    ended: bool = False

    @property
    def open(self) -> list[str]:
        return [
            *(["a turn"] if self.turn_is_open else []),
            *(f"call {id!r}" for id, is_open in self.calls.items() if is_open),
            *(f"question {id!r}" for id, is_open in self.questions.items() if is_open),
        ]


def ill_formed(events: Sequence[StreamEvent], *, whole: bool = True) -> list[str]:
    """What is wrong with the events that the reader of a root stream was told, a sentence each."""
    check = _Check()
    for event in events:
        check.see(event)
    if whole and (not events or not isinstance(events[-1], StreamStopped)):
        check.found.append("the last event is no StreamStopped")
    return check.found


class _Check:
    def __init__(self) -> None:
        self.found: list[str] = []
        self.streams: dict[str, _Stream] = {}
        self.seq: int | None = None

    def see(self, event: StreamEvent) -> None:
        def rule(holds: bool, what: str) -> None:
            if not holds:
                self.found.append(f"{event.seq}: {type(event).__name__}: {what}")

        rule(self.seq is None or event.seq == self.seq + 1, f"comes after number {self.seq}")
        self.seq = event.seq
        if isinstance(event, (StreamStarted, ChildStreamStarted)):
            self.start(event, rule)
            return
        stream = self.streams.get(event.stream)
        if stream is None:
            rule(False, "of a stream that has not started")
            return
        rule(not stream.ended, "of a stream that has ended")
        rule(event.source == stream.start.source, "with another source than the stream's first event")
        if isinstance(event, (StreamStopped, ChildStreamStopped)):
            self.stop(event, stream, rule)
        else:
            self.happen(event, stream, rule)

    def start(self, event: StreamStarted | ChildStreamStarted, rule: Callable[[bool, str], None]) -> None:
        rule(event.stream not in self.streams, "a second time")
        if isinstance(event, StreamStarted):
            rule(not self.streams, "is not the first event")
            rule(event.parent is None and event.depth == 0, "has a parent")
        else:
            parent = self.streams.get(event.parent or "")
            rule(parent is not None and not parent.ended, "has no running parent")
            if parent is not None:
                rule(parent.calls.get(event.call_id, False), f"call {event.call_id!r} is not open")
                rule(event.path[:-1] == parent.start.path, "its path is not its parent's and one more")
        self.streams[event.stream] = _Stream(event)

    def stop(
        self, event: StreamStopped | ChildStreamStopped, stream: _Stream, rule: Callable[[bool, str], None]
    ) -> None:
        rule(not stream.open, f"leaves open {', '.join(stream.open)}")
        inside = [each.start.stream for each in self.streams.values() if each.start.parent == event.stream]
        rule(all(self.streams[id].ended for id in inside), f"comes before the end of one of {inside}")
        rule((event.error is not None) == (event.reason == "failed"), "has an error if and only if it failed")
        rule(problems(stream.messages) == [], f"leaves a bad transcript: {problems(stream.messages)}")
        if isinstance(event, ChildStreamStopped):
            rule(isinstance(stream.start, ChildStreamStarted), "of a stream that is no child")
            if isinstance(stream.start, ChildStreamStarted):
                rule(stream.start.call_id == event.call_id, "of another call than it started in")
        else:
            rule(isinstance(stream.start, StreamStarted), "of a child stream")
        stream.ended = True

    def happen(self, event: StreamEvent, stream: _Stream, rule: Callable[[bool, str], None]) -> None:
        match event:
            case TurnStarted(turn=turn):
                rule(not stream.turn_is_open and turn == stream.turns + 1, "is not the next turn")
                stream.turns, stream.turn_is_open = turn, True
            case TurnFinished(turn=turn):
                rule(stream.turn_is_open and turn == stream.turns, "is not the turn that is open")
                stream.turn_is_open = False
                rule(not stream.open, f"leaves open {', '.join(stream.open)}")
            case TextDelta() | ReasoningDelta() | ToolCallDelta():
                rule(stream.turn_is_open, "outside of a turn")
            case UsageReported(total=total):
                rule(stream.turn_is_open, "outside of a turn")
                rule(total.total_tokens >= stream.tokens, "the total shrinks")
                stream.tokens = total.total_tokens
            case ToolCallStarted(call_id=id):
                rule(stream.turn_is_open, "outside of a turn")
                rule(id not in stream.calls, "a second time")
                stream.calls[id] = True
            case ToolCallOutput(call_id=id) | ToolCallProgress(call_id=id):
                rule(stream.calls.get(id, False), f"call {id!r} is not open")
            case ToolCallFinished(call_id=id, result=result):
                rule(stream.calls.get(id, False), f"call {id!r} is not open")
                rule(result.call_id == id, "with the result of another call")
                rule(
                    all(
                        child.ended
                        for child in self.streams.values()
                        if child.start.parent == event.stream
                        and isinstance(child.start, ChildStreamStarted)
                        and child.start.call_id == id
                    ),
                    "before the end of a stream inside it",
                )
                stream.calls[id] = False
            case ElicitationRequested(id=id, call_id=call_id) | ApprovalRequested(id=id, call_id=call_id):
                rule(stream.calls.get(call_id, False), f"call {call_id!r} is not open")
                rule(id not in stream.questions, "a second time")
                stream.questions[id] = True
            case ContinueRequested(id=id):
                rule(id not in stream.questions, "a second time")
                stream.questions[id] = True
            case QuestionAnswered(id=id) | QuestionDeclined(id=id) | QuestionWithdrawn(id=id):
                rule(stream.questions.get(id, False), f"question {id!r} is not open")
                stream.questions[id] = False
            case MessageCommitted(message=message, index=index):
                if not stream.messages:
                    stream.first_index = index
                rule(index == stream.first_index + len(stream.messages), "leaves out a place in the transcript")
                stream.messages.append(message)
            case _:
                pass
