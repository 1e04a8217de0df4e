"""Every way out of a stream, at every depth: the stream ends, says why, leaves nothing behind, and its session goes on.

`watch` and `opened` check what must hold on all of them; see `assert_nothing_left` and `assert_well_formed`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from agentloop import Agent
from agentloop._runtime.stream import Stream
from agentloop.events import (
    MessageCommitted,
    StreamEvent,
    ToolCallFinished,
    TurnFinished,
    WarningIssued,
)
from agentloop.messages import AssistantMessage, text_of
from tests.runtime.ways import WAYS, Way, way_named
from tests.support import Watched, assert_well_formed, nested, of, opened, stopped_at, watch

depths = pytest.mark.parametrize("depth", [0, 1, 2])
ways = pytest.mark.parametrize("way", WAYS, ids=str)


LAST_TURN = {
    "completed": {"final"},
    "cancelled": {"cancelled", "tool_calls"},
    "failed": {"failed"},
    "blocked": {"blocked"},
    "limit": {"limit", "tool_calls", "cancelled"},
}
"""For each reason why a stream may stop, the reasons with which its last turn may have finished."""


@depths
@ways
async def test_each_way_out_ends_the_stream_for_its_true_reason(way: Way, depth: int) -> None:
    """One run of each way at each depth, with all that the stream, the streams around it and the session must say."""
    watched = await watch(nested(way.make(), depth), on_event=way.on_event, **way.options)

    stopped = stopped_at(watched.events, depth)
    assert stopped.reason == way.reason
    if depth == 0 or not way.stops_all:
        assert way.detail in stopped.detail
    if way.error is not None:
        assert stopped.error is not None
        assert stopped.error.type == way.error.__name__
    warnings = {warning.code for warning in of(watched.events, WarningIssued, depth=depth)}
    assert warnings == ({way.warns} if way.warns else set())
    assert_the_last_turn_agrees(watched, depth)
    if depth == 0:
        assert_the_reader_gets_one_error(watched, way)
        assert_the_transcript_is_what_was_committed(watched)
    else:
        assert watched.error is None
        assert_the_agents_outside_go_on(watched, way, depth)


def assert_the_reader_gets_one_error(watched: Watched, way: Way) -> None:
    """A failure reaches the reader of its own stream. Further out it is the result of a tool call, for a model."""
    assert type(watched.error) is (way.error or type(None))
    assert watched.outcome.error is watched.error


def assert_the_agents_outside_go_on(watched: Watched, way: Way, depth: int) -> None:
    """The agents outside go on however the one inside ended, unless all of them were stopped."""
    [finished] = of(watched.events, ToolCallFinished, depth=depth - 1)
    outside = [stopped_at(watched.events, above).reason for above in range(depth)]
    if way.stops_all:
        assert outside == ["cancelled"] * depth
        assert finished.result.status == "interrupted"
    else:
        assert outside == ["completed"] * depth
        assert finished.result.status == ("ok" if way.reason == "completed" else "error")
        assert watched.outcome.output == "Done."


def assert_the_last_turn_agrees(watched: Watched, depth: int) -> None:
    """The reason of the last turn agrees with that of the stream, since both are computed from how it ended."""
    turns = of(watched.events, TurnFinished, depth=depth)
    stopped = stopped_at(watched.events, depth)
    if turns:
        assert turns[-1].reason in LAST_TURN[stopped.reason]
    else:
        assert stopped.reason in {"failed", "blocked"}


def assert_the_transcript_is_what_was_committed(watched: Watched) -> None:
    assert tuple(event.message for event in of(watched.events, MessageCommitted)) == watched.messages


@pytest.mark.seconds(100)
@pytest.mark.parametrize("way", [way for way in WAYS if way.on_event is None], ids=str)
async def test_the_outcome_is_on_the_handle_with_or_without_a_reader(way: Way) -> None:
    """Of the ways on which the reader does nothing but read."""
    watched = await watch(way.make(), **way.options)
    async with opened(way.make(), **way.options) as stream:
        outcome = await stream.wait()

    assert stream.outcome is outcome
    assert (outcome.reason, outcome.detail, outcome.output) == (
        watched.outcome.reason,
        watched.outcome.detail,
        watched.outcome.output,
    )
    assert outcome.usage == watched.outcome.usage
    assert [text_of_message(one) for one in outcome.messages] == [
        text_of_message(one) for one in watched.outcome.messages
    ]


def text_of_message(message: Any) -> str:
    return message.text if isinstance(message, AssistantMessage) else text_of(message.parts)


# --------------------------------------------------------------------- the reader leaves


class LeaveError(Exception):
    """The reader's own."""


Leave = Callable[[Way, Agent, int, list[StreamEvent]], Awaitable[Stream]]


async def read(stream: Stream, way: Way, count: int, events: list[StreamEvent]) -> bool:
    """Read ``count`` events; tell whether there were as many."""
    while len(events) < count:
        try:
            event = await anext(stream)
        except StopAsyncIteration:
            return False
        events.append(event)
        if way.on_event is not None:
            way.on_event(stream, event)
    return True


async def by_break(way: Way, agent: Agent[Any, Any], count: int, events: list[StreamEvent]) -> Stream:
    async with opened(agent, **way.options) as stream:
        if count:
            async for event in stream:
                events.append(event)
                if way.on_event is not None:
                    way.on_event(stream, event)
                if len(events) == count:
                    break
    return stream


async def by_return(way: Way, agent: Agent[Any, Any], count: int, events: list[StreamEvent]) -> Stream:
    async with opened(agent, **way.options) as stream:
        await read(stream, way, count, events)
        return stream


async def by_exception(way: Way, agent: Agent[Any, Any], count: int, events: list[StreamEvent]) -> Stream:
    error = LeaveError("the reader's own")
    with pytest.raises(LeaveError) as raised:
        async with opened(agent, **way.options) as stream:
            await read(stream, way, count, events)
            raise error
    assert raised.value is error
    return stream


async def by_cancel(way: Way, agent: Agent[Any, Any], count: int, events: list[StreamEvent]) -> Stream:
    with trio.CancelScope() as scope:
        async with opened(agent, **way.options) as stream:
            await read(stream, way, count, events)
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    return stream


async def by_deadline(way: Way, agent: Agent[Any, Any], count: int, events: list[StreamEvent]) -> Stream:
    """Of a reader that has stopped reading; so the run may come to its end before."""
    with trio.CancelScope() as scope:
        async with opened(agent, **way.options) as stream:
            await read(stream, way, count, events)
            scope.deadline = trio.current_time() + 0.5
            await trio.sleep_forever()
    assert scope.cancelled_caught
    return stream


async def assert_may_leave(way: Way, depth: int, leave: Leave) -> None:
    """The reader may leave before the first event, and after any but the last."""
    whole = await watch(nested(way.make(), depth), on_event=way.on_event, **way.options)
    for count in range(len(whole.events)):
        events: list[StreamEvent] = []
        stream = await leave(way, nested(way.make(), depth), count, events)

        assert len(events) == count
        assert_well_formed(events, complete=False)
        # The run may have come to its end before: what it told then waits to be read.
        assert stream.outcome.reason in {"cancelled", whole.outcome.reason}
        if count == 0 and leave is not by_deadline:
            assert stream.outcome.reason == "cancelled"


TYPICAL = [
    way_named(name)
    for name in (
        "natural end after tools",
        "a toolset dies",
        "all observers hang",
        "turn limit with nobody to ask",
        "structured output never comes",
        "the model fails in a later turn",
        "an elicitation is answered",
        "an approval is open at the stop",
    )
]
"""So many are enough where all would take minutes."""


@pytest.mark.seconds(10_000)
@ways
async def test_the_reader_may_break_before_the_first_event_and_after_any(way: Way) -> None:
    await assert_may_leave(way, 0, by_break)


@pytest.mark.seconds(10_000)
@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("way", TYPICAL, ids=str)
async def test_the_reader_may_break_after_any_event_of_an_agent_inside(way: Way, depth: int) -> None:
    await assert_may_leave(way, depth, by_break)


@pytest.mark.seconds(10_000)
@pytest.mark.parametrize("leave", [by_return, by_exception, by_cancel, by_deadline], ids=lambda leave: leave.__name__)
@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.parametrize("way", TYPICAL[:4], ids=str)
async def test_the_reader_may_leave_in_any_way_after_any_event(way: Way, depth: int, leave: Leave) -> None:
    await assert_may_leave(way, depth, leave)
