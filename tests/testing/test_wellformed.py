"""What the public check of a stream's events lets pass, and what it does not."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from agentloop import Agent, Approve
from agentloop.events import (
    ChildStreamStopped,
    MessageCommitted,
    QuestionAnswered,
    QuestionParked,
    StreamEvent,
    StreamReason,
    StreamStarted,
    StreamStopped,
    ToolCallFinished,
    ToolCallParked,
    TurnFinished,
)
from agentloop.stores import MemoryStore, stored_session
from agentloop.testing import ScriptedModel, assert_well_formed, calls, record
from agentloop.testing._lab import echo
from agentloop.tools import tool


@tool(requires_approval=True)
async def work() -> str:
    """Work."""
    return "done"


async def told() -> list[StreamEvent]:
    inner = Agent(ScriptedModel(calls("work"), "Inner."), name="inner", tools=[work])
    agent = Agent(ScriptedModel(calls("inner", prompt="go"), "Done."), tools=[inner.as_tool()])
    async with record(agent, "go") as stream:
        return await stream.drain(echo)


async def test_the_events_of_a_stream_are_well_formed() -> None:
    assert_well_formed(await told())


async def test_every_prefix_of_it_is_well_formed_as_far_as_it_goes() -> None:
    events = await told()

    for count in range(len(events)):
        assert_well_formed(events[:count], complete=False)


async def test_a_prefix_is_not_complete() -> None:
    events = await told()

    with pytest.raises(AssertionError, match="the last event is not StreamStopped"):
        assert_well_formed(events[:-1])


def test_nothing_is_not_complete() -> None:
    with pytest.raises(AssertionError, match="the last event is not StreamStopped"):
        assert_well_formed([])


def without(kind: type[StreamEvent], place: int = 0) -> Callable[[list[StreamEvent]], list[StreamEvent]]:
    def change(events: list[StreamEvent]) -> list[StreamEvent]:
        index = [index for index, event in enumerate(events) if isinstance(event, kind)][place]
        left = [*events[:index], *events[index + 1 :]]
        return [msgspec.structs.replace(event, seq=number) for number, event in enumerate(left, start=1)]

    return change


def twice(kind: type[StreamEvent]) -> Callable[[list[StreamEvent]], list[StreamEvent]]:
    def change(events: list[StreamEvent]) -> list[StreamEvent]:
        more: list[StreamEvent] = []
        for event in events:
            more.extend([event, event] if isinstance(event, kind) else [event])
        return [msgspec.structs.replace(event, seq=number) for number, event in enumerate(more, start=1)]

    return change


def misplaced(events: list[StreamEvent]) -> list[StreamEvent]:
    source = events[0].source
    return [
        msgspec.structs.replace(event, source=source) if isinstance(event, TurnFinished) else event for event in events
    ]


def renumbered(events: list[StreamEvent]) -> list[StreamEvent]:
    return [msgspec.structs.replace(event, seq=event.seq + (event.seq > 5)) for event in events]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (renumbered, "comes after number 5"),
        (without(ToolCallFinished), "leaves open: call"),
        (without(TurnFinished, -1), "leaves open: a turn"),
        (without(QuestionAnswered), "leaves open: question"),
        (without(ChildStreamStopped), "comes before the end of its child"),
        (without(MessageCommitted, 2), r"where \d is due"),
        (twice(ToolCallFinished), "is not open"),
        (twice(QuestionAnswered), "is not open"),
        (twice(StreamStopped), "comes after StreamStopped"),
        (misplaced, "was not open"),
        (lambda events: [*events[1:]], "its stream has not started"),
        (lambda events: [*reversed(events)], "comes after number"),
    ],
    ids=[
        "a number is skipped",
        "a call does not finish",
        "a turn does not finish",
        "a question does not close",
        "a child does not stop",
        "a message is missing",
        "a call finishes twice",
        "a question closes twice",
        "the end comes twice",
        "an event is told by another stream",
        "the beginning is missing",
        "the order is wrong",
    ],
)
async def test_a_broken_promise_is_named(
    change: Callable[[list[StreamEvent]], list[StreamEvent]], problem: str
) -> None:
    with pytest.raises(AssertionError, match=problem):
        assert_well_formed(change(await told()))


# ---------------------------------------------------------------------- parked, and gone on with


async def told_in_two_parts() -> tuple[list[StreamEvent], list[StreamEvent]]:
    inner = Agent(ScriptedModel(calls("work"), "Inner."), name="inner", tools=[work])
    agent = Agent(ScriptedModel(calls("inner", prompt="go") + calls("work"), "Done."), tools=[inner.as_tool(), work])
    async with MemoryStore().open() as store, stored_session(store, "ann") as session:
        async with agent.stream("go", session=session, on_question="park") as stream:
            parked = [event async for event in stream]
        answers = {question.id: Approve() for question in session.questions}
        async with agent.resume_stream(session, answers) as stream:
            resumed = [event async for event in stream]
    return parked, resumed


async def test_the_events_of_a_parked_and_a_resumed_run_are_well_formed() -> None:
    for part in await told_in_two_parts():
        assert_well_formed(part)


def stopped_for(reason: StreamReason) -> Callable[[list[StreamEvent]], list[StreamEvent]]:
    def change(events: list[StreamEvent]) -> list[StreamEvent]:
        return [
            msgspec.structs.replace(event, reason=reason) if isinstance(event, StreamStopped) else event
            for event in events
        ]

    return change


def parked_before_its_child_has_stopped(events: list[StreamEvent]) -> list[StreamEvent]:
    index, child = next((index, event) for index, event in enumerate(events) if isinstance(event, ChildStreamStopped))
    call = next(each for each in reversed(events) if isinstance(each, ToolCallParked) and each.call_id == child.call_id)
    moved = [*events[:index], call, *(event for event in events[index:] if event is not call)]
    first = events[0].seq
    return [msgspec.structs.replace(event, seq=number) for number, event in enumerate(moved, start=first)]


def resuming_itself(events: list[StreamEvent]) -> list[StreamEvent]:
    return [
        msgspec.structs.replace(event, resumes=event.stream) if isinstance(event, StreamStarted) else event
        for event in events
    ]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (without(QuestionParked), "leaves open: question"),
        (without(ToolCallParked), "leaves open: call"),
        (twice(ToolCallParked), "is not open"),
        (stopped_for("completed"), "has the reason completed, though these are parked: question"),
        (parked_before_its_child_has_stopped, "comes before the end of its child"),
        (resuming_itself, "its stream has started before"),
    ],
    ids=[
        "a question is forgotten",
        "a call is forgotten",
        "a call is parked twice",
        "it ended as if nothing were parked",
        "a call is parked before its child",
        "a stream goes on from itself",
    ],
)
async def test_a_broken_promise_of_a_parked_stream_is_named(
    change: Callable[[list[StreamEvent]], list[StreamEvent]], problem: str
) -> None:
    parked, _ = await told_in_two_parts()
    with pytest.raises(AssertionError, match=problem):
        assert_well_formed(change(parked))


async def test_a_stream_that_needs_input_has_asked_for_it() -> None:
    events = await told()

    with pytest.raises(AssertionError, match="needs input, and no question is parked"):
        assert_well_formed(stopped_for("needs_input")(events))
