"""A slow reader slows down what it reads. Nothing piles up, nothing is dropped, and nobody else is blamed."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from agentloop import Agent, Deadlines, Retries, ToolContext, tool
from agentloop._runtime.log import CAPACITY
from agentloop._runtime.stream import Stream
from agentloop.events import StreamEvent, StreamStarted, StreamStopped, TextDelta, ToolCallOutput, TurnStarted
from agentloop.models import ModelRequest, Reply, Stop
from agentloop.testing import ScriptedModel, calls, says
from tests.support import assert_well_formed, first, nested, of, opened


class Counting:
    """A model that says how many pieces it was rid of."""

    name = "counting"

    def __init__(self, pieces: int) -> None:
        self.pieces = pieces
        self.said = 0

    async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
        while self.said < self.pieces:
            await reply.text(f"{self.said} ")
            self.said += 1
        return Stop()


@pytest.mark.parametrize("depth", [0, 1, 2])
async def test_a_model_waits_for_the_reader(depth: int) -> None:
    model = Counting(1000)
    async with opened(nested(Agent(model, name="inner"), depth)) as stream:
        await first(stream, TextDelta)
        await trio.testing.wait_all_tasks_blocked()
        assert model.said <= CAPACITY
        for read in range(2, 200):
            await first(stream, TextDelta)
            assert model.said <= read + CAPACITY


async def test_unread_events_are_bounded_however_many_tools_emit_at_once() -> None:
    talkers = 20

    @tool
    async def talk(context: ToolContext[None]) -> None:
        """Talk."""
        for number in range(100):
            await context.output(str(number))

    script = calls("talk")
    for _ in range(talkers - 1):
        script += calls("talk")
    async with opened(Agent(ScriptedModel(script, "Done."), tools=[talk])) as stream:
        read = 0
        async for _ in stream:
            read += 1
            if read % 50 == 0:
                await trio.testing.wait_all_tasks_blocked()
            # One for each that was told there was room, and found it taken.
            assert stream._run.events is not None
            assert stream._run.events.unread <= CAPACITY + 2 * talkers


@pytest.mark.parametrize("depth", [0, 2])
async def test_a_slow_reader_gets_every_event_in_order(depth: int) -> None:
    events: list[StreamEvent] = []
    agent = nested(Agent(Counting(150), name="inner"), depth)
    async with opened(agent) as stream:
        async for event in stream:
            events.append(event)
            await trio.sleep(0.01)
    assert_well_formed(events)
    said = "".join(event.text for event in of(events, TextDelta, depth=depth))
    assert said == "".join(f"{number} " for number in range(150))


async def test_a_reader_that_stalls_is_not_the_models_fault() -> None:
    """The deadline between two pieces counts the model's silence only."""
    deadlines = Deadlines(first_token=1, idle=1)
    async with opened(Agent(Counting(200), deadlines=deadlines)) as stream:
        await first(stream, TextDelta)
        await trio.sleep(5)
        async for event in stream:
            if isinstance(event, TextDelta) and event.text == "100 ":
                await trio.sleep(3)
    assert stream.outcome.reason == "completed"


async def test_the_model_is_timed_again_once_the_reader_has_caught_up() -> None:
    class Stalling:
        name = "stalling"

        async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
            for _ in range(CAPACITY * 2):
                await reply.text("bla ")
            await trio.sleep_forever()

    async with opened(Agent(Stalling(), deadlines=Deadlines(idle=1), retries=Retries(attempts=1))) as stream:
        await first(stream, TextDelta)
        await trio.sleep(3)
        assert await _drained(stream) == "ModelTimeoutError"
    assert 4 <= trio.current_time() < 4.2


async def _drained(stream: Stream) -> str:
    try:
        async for _ in stream:
            pass
    except Exception as error:  # noqa: BLE001 - its name is asked for
        return type(error).__name__
    return ""


async def test_a_child_waits_for_the_tool_that_reads_it_and_for_the_reader_of_the_root() -> None:
    model = Counting(500)
    child = Agent(model, name="child")
    go_on = trio.Event()

    @tool
    async def read_slowly(context: ToolContext[None]) -> str:
        """Read."""
        async with context.stream(child, "go") as stream:
            await first(stream, TextDelta)
            await go_on.wait()
            async for _ in stream:
                pass
            return str(len(stream.result.output))

    agent = Agent(ScriptedModel(calls("read_slowly"), "Done."), tools=[read_slowly])
    async with opened(agent) as stream, trio.open_nursery() as nursery:
        events: list[StreamEvent] = []

        async def read() -> None:
            events.extend([event async for event in stream])

        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        assert model.said <= CAPACITY
        go_on.set()
    assert_well_formed(events)
    assert model.said == 500


async def test_a_reader_that_stalls_and_then_only_waits_lets_the_run_continue() -> None:
    model = Counting(1000)
    async with opened(Agent(model)) as stream:
        await first(stream, StreamStarted)
        await trio.testing.wait_all_tasks_blocked()
        assert model.said < 1000
        await stream.wait()
    assert model.said == 1000


@pytest.mark.parametrize("depth", [0, 1, 2])
async def test_a_reader_that_stays_but_does_not_read_does_not_keep_a_stop_from_ending_everything(depth: int) -> None:
    model = Counting(1000)
    async with opened(nested(Agent(model, name="inner"), depth)) as stream:
        events = [await anext(stream)]
        await trio.testing.wait_all_tasks_blocked()
        stream.stop()
        await trio.testing.wait_all_tasks_blocked()
        assert stream.outcome.reason == "cancelled"
        said = model.said
        # Whatever was told before it, and how everything that was open has ended, can still be read.
        events.extend([event async for event in stream])
    assert_well_formed(events)
    assert model.said == said


async def test_a_tool_that_talks_too_much_waits_for_the_reader() -> None:
    said: list[int] = []

    @tool
    async def talk(context: ToolContext[None]) -> None:
        """Talk."""
        for number in range(200):
            await context.progress(number, total=200)
            said.append(number)

    async with opened(Agent(ScriptedModel(calls("talk"), "Done."), tools=[talk])) as stream:
        await first(stream, TurnStarted)
        await trio.testing.wait_all_tasks_blocked()
        assert len(said) <= CAPACITY
        assert isinstance([event async for event in stream][-1], StreamStopped)
    assert len(said) == 200


async def test_a_stream_without_a_reader_keeps_no_events() -> None:
    async with opened(Agent(ScriptedModel(says("bla " * 1000)))) as stream:
        await first(stream, StreamStarted)
        await trio.testing.wait_all_tasks_blocked()
        await stream.wait()
        assert stream._run.events is not None
        assert stream._run.events.unread == 0


async def test_no_output_is_lost_or_reordered_in_a_burst() -> None:
    @tool
    async def burst(context: ToolContext[None]) -> None:
        """Talk."""
        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(context.output, str(number))

    async with opened(Agent(ScriptedModel(calls("burst"), "Done."), tools=[burst])) as stream:
        events = [event async for event in stream]
    assert_well_formed(events)
    assert sorted(int(event.text) for event in of(events, ToolCallOutput)) == list(range(100))
