"""What several test modules need: to nest agents, to watch a stream, and to check what holds whatever happened."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import trio
from attrs import frozen

from agentloop import Agent, Limits, Session
from agentloop._core.transcript import problems
from agentloop._runtime.stream import Stream
from agentloop.events import (
    ChildStreamStopped,
    StreamEvent,
    StreamStopped,
)
from agentloop.messages import Message
from agentloop.outcome import ChildStream, Outcome
from agentloop.testing import ScriptedModel, assert_well_formed, calls

__all__ = [
    "Watched",
    "assert_nothing_left",
    "assert_well_formed",
    "first",
    "nested",
    "of",
    "opened",
    "stopped_at",
    "tasks_alive",
    "watch",
]

E = TypeVar("E")

# ------------------------------------------------------------------------- agents in agents


def nested(agent: Agent[Any, Any], depth: int, *, limits: Limits | None = None) -> Agent[Any, Any]:
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
    agent: Agent[Any, Any],
    prompt: str = "go",
    *,
    session: Session | None = None,
    on_event: OnEvent | None = None,
    **options: Any,
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
    agent: Agent[Any, Any], prompt: str = "go", *, session: Session | None = None, **options: Any
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
    assert run.root.questions.scopes == {}, "scopes of questions are left"
    assert not run.root.questions._open, "questions are left"
    assert run.writer.is_closed, "the send channel is open"
    assert run.events is None or run.events.is_closed, "the receive channel is open"
    assert run.log.is_closed or run.parent is not None, "the log is open"
    assert not session.is_busy, "the session was not given back"
    assert problems(session.messages) == []
    assert session.messages[len(session.messages) - len(stream.outcome.messages) :] == stream.outcome.messages
    await assert_works(session)


async def assert_works(session: Session) -> None:
    """One can go on with ``session``. This adds two messages to it."""
    model = ScriptedModel("Still here.")
    outcome = await Agent(model, name="next").run("And now?", session=session)
    assert outcome.output == "Still here."
    assert problems(model.requests[0].messages) == []
