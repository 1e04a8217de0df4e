"""What the public check of a stream's events lets pass, and what it does not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from attrs import evolve

from agentloop import Agent
from agentloop.events import (
    ChildStreamStopped,
    MessageCommitted,
    QuestionAnswered,
    StreamEvent,
    StreamStopped,
    ToolCallFinished,
    TurnFinished,
)
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


async def test_what_a_stream_tells_is_well_formed() -> None:
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
        return [evolve(event, seq=number) for number, event in enumerate(left, start=1)]

    return change


def twice(kind: type[StreamEvent]) -> Callable[[list[StreamEvent]], list[StreamEvent]]:
    def change(events: list[StreamEvent]) -> list[StreamEvent]:
        more: list[StreamEvent] = []
        for event in events:
            more.extend([event, event] if isinstance(event, kind) else [event])
        return [evolve(event, seq=number) for number, event in enumerate(more, start=1)]

    return change


def misplaced(events: list[StreamEvent]) -> list[StreamEvent]:
    source = events[0].source
    return [evolve(event, source=source) if isinstance(event, TurnFinished) else event for event in events]


def renumbered(events: list[StreamEvent]) -> list[StreamEvent]:
    return [evolve(event, seq=event.seq + (event.seq > 5)) for event in events]


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
