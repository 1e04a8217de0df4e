"""A run that is paused holds at its next boundary, and goes on where it held."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.lowlevel

from agentloop import Agent, Approve, Deadlines, Limits, Stream, ToolContext, UsageError, tool
from agentloop._runtime.log import EventWriter
from agentloop.events import (
    ApprovalRequested,
    ChildStreamStarted,
    Paused,
    Resumed,
    StreamEvent,
    StreamStarted,
    StreamStopped,
    TextDelta,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    TurnStarted,
)
from agentloop.messages import ToolResult, UserMessage, user_message
from agentloop.models import ModelRequest, Reply, Stop
from agentloop.stores import MemoryStore, stored_session
from agentloop.testing import ScriptedModel, calls, fails, says
from tests.support import Watched, nested, of, opened, watch

pytestmark = pytest.mark.seconds(1000)


class Work:
    """A tool that takes a second, and notes when it began."""

    def __init__(self) -> None:
        self.began: list[float] = []

    def tool(self, **options: Any) -> Any:
        @tool(name="work", **options)
        async def work(number: int = 0) -> str:
            self.began.append(trio.current_time())
            await trio.sleep(1)
            return f"done {number}"

        return work


class Later:
    """Resumes streams that were paused, or stops them, some time later, in a task of its own."""

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[tuple[float, Callable[[], object]]](10)

    def pause(self, stream: Stream[Any], seconds: float = 100) -> None:
        stream.pause()
        assert stream.is_paused
        self.call(seconds, stream.resume)

    def call(self, seconds: float, function: Callable[[], object]) -> None:
        self._send.send_nowait((seconds, function))

    async def work(self) -> None:
        async for seconds, function in self._receive:
            await trio.sleep(seconds)
            function()


Act = Callable[[Later, Stream[Any], StreamEvent], object]


def at(kind: type[StreamEvent]) -> Act:
    """Pauses the run at its first event of ``kind``, for 100 seconds."""
    is_over = False

    def act(later: Later, stream: Stream[Any], event: StreamEvent) -> None:
        nonlocal is_over
        if isinstance(event, kind) and not is_over:
            is_over = True
            later.pause(stream)

    return act


def working(work: Work, *, number: int = 1, **options: Any) -> Agent[Any, Any]:
    response = calls("work", number=1)
    for each in range(1, number):
        response += calls("work", number=each + 1)
    return Agent(ScriptedModel(response, "Done."), tools=[work.tool()], **options)


async def took(agent: Agent[Any, Any], act: Act) -> tuple[Watched, float]:
    """What there was to see, and the seconds from the start to the end."""
    began, later = trio.current_time(), Later()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(later.work)
        watched = await watch(agent, on_event=lambda stream, event: act(later, stream, event))
        nursery.cancel_scope.cancel()
    return watched, trio.current_time() - began


@pytest.mark.parametrize("depth", [0, 1, 2])
async def test_a_run_that_is_paused_before_its_first_request_makes_none_until_it_is_resumed(depth: int) -> None:
    watched, seconds = await took(nested(working(Work()), depth), at(StreamStarted))

    assert watched.outcome.output == "Done."
    assert seconds == pytest.approx(101)
    kinds = [type(event) for event in watched.events]
    assert kinds.index(Paused) < kinds.index(Resumed) < kinds.index(TurnStarted)
    assert not watched.stream.is_paused


async def test_a_response_that_comes_already_comes_to_its_end_and_its_tools_do_not_begin() -> None:
    class Slow(ScriptedModel):
        async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
            try:
                return await super().respond(request, reply)
            finally:
                await trio.sleep(1)  # noqa: ASYNC102 - it may be cut off

    work = Work()
    agent = Agent(Slow(calls("work"), "Done."), tools=[work.tool()])
    watched, _ = await took(agent, at(ToolCallDelta))

    kinds = [type(event) for event in watched.events]
    assert kinds.index(Paused) < kinds.index(Resumed) < kinds.index(ToolCallStarted)
    assert work.began == [pytest.approx(100)]


async def test_a_tool_that_runs_already_runs_to_its_end_and_no_request_follows() -> None:
    watched, _ = await took(working(Work()), at(ToolCallStarted))

    kinds = [type(event) for event in watched.events]
    assert kinds.index(Paused) < kinds.index(ToolCallFinished) < kinds.index(Resumed)
    assert kinds.index(Resumed) < len(kinds) - 1 - kinds[::-1].index(TurnStarted)


async def test_the_time_limit_of_a_run_stands_still_while_it_holds() -> None:
    watched, seconds = await took(working(Work(), limits=Limits(seconds=3)), at(ToolCallStarted))

    assert watched.outcome.output == "Done."
    assert seconds == pytest.approx(100)


async def test_the_time_limit_still_ends_a_run_that_has_not_come_to_a_boundary() -> None:
    @tool
    async def slow() -> str:
        await trio.sleep(50)
        return "slow"

    agent = Agent(ScriptedModel(calls("slow"), "Done."), tools=[slow], limits=Limits(seconds=3))

    watched, seconds = await took(agent, at(ToolCallStarted))

    assert watched.outcome.reason == "limit"
    assert seconds == pytest.approx(3)


@pytest.mark.parametrize("number", [1, 3])
async def test_a_tool_that_is_held_has_all_of_its_own_time_afterwards(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls of plain tools share a deadline. They are paused when they have started, and their tools have not."""
    work = Work()

    agent = working(work, number=number, deadlines=Deadlines(tool=1.5))
    async with agent.stream("go") as stream:
        # Nothing is awaited between the start of the calls and their tools.
        append = EventWriter.append

        def append_and_pause(writer: EventWriter, event: StreamEvent) -> None:
            append(writer, event)
            if isinstance(event, ToolCallStarted):
                stream.pause()

        monkeypatch.setattr(EventWriter, "append", append_and_pause)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def _resume() -> None:
                await trio.sleep(100)
                stream.resume()

            await stream.wait()

    assert work.began == [pytest.approx(100)] * number
    results = [message for message in stream.outcome.messages if isinstance(message, ToolResult)]
    assert [result.status for result in results] == ["ok"] * number


async def test_a_call_whose_approval_comes_during_the_pause_begins_after_it() -> None:
    work = Work()
    agent = Agent(ScriptedModel(calls("work"), "Done."), tools=[work.tool(requires_approval=True)])

    def act(later: Later, stream: Stream[Any], event: StreamEvent) -> None:
        if isinstance(event, ApprovalRequested):
            later.pause(stream)
            assert stream.pending
            stream.answer(event, Approve())

    watched, _ = await took(agent, act)

    assert watched.outcome.output == "Done."
    assert work.began == [pytest.approx(100)]


async def test_children_hold_with_their_parent_and_the_deadline_of_the_call_around_them_stands_still() -> None:
    work = Work()
    inner = working(work, name="inner")
    as_tool = inner.as_tool()
    agent = Agent(ScriptedModel(calls("inner", prompt="x"), "Done."), tools=[as_tool], deadlines=Deadlines(tool=5))

    watched, _ = await took(agent, at(ChildStreamStarted))

    assert watched.outcome.output == "Done."
    assert work.began == [pytest.approx(100)]


async def test_a_child_that_is_paused_by_its_reader_holds_alone() -> None:
    work = Work()
    inner = working(work, name="inner")

    @tool(timeout=10)
    async def delegate(context: ToolContext[Any]) -> str:
        async with context.stream(inner, "x") as child:
            child.pause()
            assert child.is_paused
            await trio.sleep(5)
            child.resume()
            await trio.lowlevel.checkpoint()
            return str((await child.wait()).output)

    @tool
    async def other() -> float:
        return trio.current_time()

    agent = Agent(ScriptedModel(calls("delegate"), calls("other"), "Done."), tools=[delegate, other])
    watched = await watch(agent)

    assert work.began == [pytest.approx(5)]
    assert [event.depth for event in of(watched.events, Paused)] == [1]
    assert [event.depth for event in of(watched.events, Resumed)] == [1]


async def test_retries_summaries_and_requests_of_tools_hold_too() -> None:
    times: list[float] = []

    class Timed(ScriptedModel):
        async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
            times.append(trio.current_time())
            return await super().respond(request, reply)

    @tool(timeout=20)
    async def asks(context: ToolContext[Any]) -> str:
        await trio.sleep(1)
        return (await context.ask_model(ModelRequest((user_message("x"),)), model=Timed("Sure."))).text

    model = Timed(says("Well") + fails(OSError("gone")), calls("asks"), "Done.")
    agent = Agent(model, tools=[asks])

    def act(later: Later, stream: Stream[Any], event: StreamEvent) -> None:
        if isinstance(event, (TextDelta, ToolCallStarted)) and len(times) in (1, 2):
            later.pause(stream)

    watched, _ = await took(agent, act)

    assert watched.outcome.output == "Done."
    assert times == [pytest.approx(0), pytest.approx(100), pytest.approx(200), pytest.approx(200)]


async def test_a_message_that_steers_a_paused_run_is_in_its_next_request() -> None:
    model = ScriptedModel("Done.")
    async with opened(Agent(model)) as stream:
        stream.pause()
        await trio.sleep(1)
        stream.steer("And be quick.")
        stream.resume()
        await stream.wait()

    assert [message.text for message in model.requests[0].messages if isinstance(message, UserMessage)][1:] == [
        "And be quick."
    ]


async def test_pausing_twice_or_resuming_what_is_not_paused_changes_nothing() -> None:
    async with Agent(ScriptedModel("Done.")).stream("go") as stream:
        stream.resume()
        stream.pause()
        stream.pause()
        await trio.sleep(1)
        stream.resume()
        stream.resume()
        events = [event async for event in stream]
        stream.pause()
        assert not stream.is_paused
    stream.pause()
    stream.resume()

    assert len(of(events, Paused)) == len(of(events, Resumed)) == 1
    assert isinstance(events[-1], StreamStopped)


@pytest.mark.parametrize("depth", [0, 1])
async def test_a_paused_run_can_be_stopped(depth: int) -> None:
    def act(later: Later, stream: Stream[Any], event: StreamEvent) -> None:
        if isinstance(event, StreamStarted):
            stream.pause()
            later.call(1, lambda: stream.stop("enough"))

    watched, _ = await took(nested(working(Work()), depth), act)

    assert watched.outcome.reason == "cancelled"
    assert watched.outcome.detail == "enough"
    assert of(watched.events, Resumed) == []


@pytest.mark.parametrize("kind", [StreamStarted, ToolCallDelta, ToolCallStarted])
async def test_leaving_the_block_of_a_paused_run_ends_it(kind: type[StreamEvent]) -> None:
    work = Work()
    async with opened(working(work)) as stream:
        async for event in stream:
            if isinstance(event, kind):
                stream.pause()
                break
        await trio.sleep(2)

    assert stream.outcome.reason == "cancelled"
    assert not stream.is_paused


async def test_a_timeout_around_a_paused_run_ends_it() -> None:
    with trio.move_on_after(5) as scope:
        async with opened(working(Work())) as stream:
            stream.pause()
            await stream.wait()

    assert scope.cancelled_caught
    assert stream.outcome.reason == "cancelled"


# ------------------------------------------------------------------- with a journal


@pytest.mark.parametrize("kind", [StreamStarted, ToolCallDelta, ToolCallStarted])
async def test_a_paused_run_that_is_parked_ends_and_is_not_paused_when_it_is_resumed(kind: type[StreamEvent]) -> None:
    work = Work()
    agent = working(work)
    async with MemoryStore().open() as store, stored_session(store, "s") as session:
        async with agent.stream("go", session=session) as stream:
            async for event in stream:
                if isinstance(event, kind):
                    stream.pause()
                    stream.park()
        assert stream.outcome.reason == "needs_input"
        assert stream.outcome.questions == ()
        assert session.is_resumable

        async with agent.resume_stream(session) as resumed:
            assert not resumed.is_paused
            await resumed.wait()

    assert resumed.outcome.output == "Done."
    assert len(work.began) == 1


async def test_a_question_and_a_held_call_are_parked_together() -> None:
    work = Work()

    @tool(requires_approval=True)
    async def risky() -> str:
        return "risked"

    agent = Agent(
        ScriptedModel(calls("risky") + calls("work", number=1), "Done."),
        tools=[risky, work.tool(requires_approval=True)],
    )
    async with MemoryStore().open() as store, stored_session(store, "s") as session:
        async with agent.stream("go", session=session) as stream:
            asked: list[ApprovalRequested] = []
            async for event in stream:
                if isinstance(event, ApprovalRequested):
                    asked.append(event)
                    if len(asked) == 2:
                        stream.pause()
                        stream.answer(asked[1], Approve())
                        stream.park()
        assert [question.id for question in stream.outcome.questions] == [asked[0].id]
        assert work.began == []

        outcome = await agent.resume(session, {asked[0].id: Approve()})

    assert outcome.output == "Done."
    assert len(work.began) == 1


async def test_a_paused_run_without_a_journal_cannot_be_parked() -> None:
    async with opened(Agent(ScriptedModel("Done."))) as stream:
        stream.pause()
        with pytest.raises(UsageError, match="no journal"):
            stream.park()
        stream.resume()
        await stream.wait()
