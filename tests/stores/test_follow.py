"""Following a session: the same events as the stream's own reader, from any point, for any number, at no cost to it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from attrs import evolve
from hypothesis import given, strategies as st

from agentloop import Accept, Agent, ToolContext, tool
from agentloop.errors import StoreError, UsageError
from agentloop.events import (
    ElicitationRequested,
    ReasoningDelta,
    Source,
    StreamEvent,
    StreamStarted,
    StreamStopped,
    TextDelta,
    ToolCallDelta,
    ToolCallOutput,
    ToolCallStarted,
    WarningIssued,
)
from agentloop.journal import OpenStore, Record
from agentloop.messages import Usage, user_message
from agentloop.models import ModelRequest, Reply, Stop
from agentloop.stores import MemoryStore, SQLiteStore, _follow, follow_session, stored_session
from agentloop.stores._follow import Follower
from agentloop.stores._journal_writer import DELTA_LAG, LAG
from agentloop.testing import ScriptedModel, assert_well_formed, calls, says
from agentloop.testing.wellformed import event_problems
from agentloop.wire import encode_event
from tests.support import of

Delta = TextDelta | ReasoningDelta | ToolCallDelta | ToolCallOutput


@asynccontextmanager
async def memory() -> AsyncGenerator[OpenStore]:
    async with MemoryStore().open() as store:
        yield store


class Proxy:
    """A store that does a little more at each addition."""

    def __init__(
        self, store: OpenStore, *, before: Callable[[], Any] | None = None, after: Callable[[], Any] | None = None
    ) -> None:
        self.store = store
        self.before = before
        self.after = after

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    async def append(self, session: str, records: Sequence[Record], /, **options: Any) -> None:
        if self.before is not None:
            await self.before()
        await self.store.append(session, records, **options)
        if self.after is not None:
            await self.after()


class SlowModel:
    """Says a word at a time, and takes its time; first it calls what it is told to."""

    name = "slow"

    def __init__(self, words: int, seconds: float) -> None:
        self.words = words
        self.seconds = seconds

    async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
        for number in range(self.words):
            await trio.sleep(self.seconds)
            await reply.text(f"{number} ")
        return Stop("end", Usage())


@tool
async def work(seconds: float) -> AsyncGenerator[str]:
    """Work, and say how far it is."""
    for number in range(3):
        yield f"{number} "
        await trio.sleep(seconds / 3)


@tool
async def ask(context: ToolContext[None]) -> str:
    """Ask."""
    return repr(await context.ask("Which?", {"type": "object", "properties": {"tag": {"type": "string"}}}))


def busy_agent() -> Agent:
    """One of whom there is much to tell: parallel tools that take some time, a nested agent, and words."""
    inner = Agent(
        ScriptedModel(says("Let me see. ") + calls("work", seconds=0.5), "Inner answer.", repeat=True), name="in"
    )
    inner = evolve(inner, tools=[work])
    script = [
        says("I shall look. ", piece=1)
        + calls("work", seconds=0.1)
        + calls("inner", prompt="x")
        + calls("work", seconds=2),
        calls("work", seconds=1.0),
        says("And that is what I have found.", piece=2),
    ]
    return Agent(ScriptedModel(*script, repeat=True), tools=[work, inner.as_tool(name="inner")])


def merged(events: Iterable[StreamEvent]) -> list[StreamEvent]:
    """The same with deltas that stand side by side as one, which has the number of the last of them."""
    found: list[StreamEvent] = []
    for event in events:
        last = found[-1] if found else None
        if isinstance(event, Delta) and type(last) is type(event) and _place(last) == _place(event):
            field = "arguments" if isinstance(event, ToolCallDelta) else "text"
            words = getattr(last, field) + getattr(event, field)
            found[-1] = msgspec.structs.replace(event, **{field: words})
        else:
            found.append(event)
    return found


def _place(event: Any) -> tuple[object, ...]:
    return event.stream, getattr(event, "call_id", ""), getattr(event, "name", "")


async def read(follower: Follower, into: list[StreamEvent] | None = None) -> list[StreamEvent]:
    found = [] if into is None else into
    async for event in follower:
        found.append(event)
    return found


def renumbered(events: Iterable[StreamEvent]) -> list[StreamEvent]:
    return [msgspec.structs.replace(event, seq=number) for number, event in enumerate(events, 1)]


# --------------------------------------------------------------------------- what is told


async def test_every_follower_gets_the_same_events_as_the_reader() -> None:
    told: list[StreamEvent] = []
    read_by: dict[tuple[int, bool], list[StreamEvent]] = {}
    async with memory() as store, stored_session(store, "ann") as session, trio.open_nursery() as nursery:

        async def follow(after: int, here: bool) -> None:
            follower = session.follow(after=after) if here else follow_session(store, "ann", after=after)
            read_by[after, here] = await read(follower)

        async with busy_agent().stream("go", session=session) as stream:
            async for event in stream:
                told.append(event)
                if len(told) % 5 == 1:
                    for here in (True, False):
                        nursery.start_soon(follow, max(event.seq - 3, 0), here)
                        nursery.start_soon(follow, event.seq, here)
    assert len(read_by) > 30
    assert_well_formed(told)
    for (after, here), events in read_by.items():
        due = merged(event for event in told if event.seq > after)
        assert merged(events) == due, (after, here)


async def test_a_finished_session_is_followed_from_each_of_its_events() -> None:
    told: list[StreamEvent] = []
    async with memory() as store:
        for _ in range(2):
            async with stored_session(store, "ann") as session, busy_agent().stream("go", session=session) as stream:
                told += [event async for event in stream]
        assert len(of(told, StreamStopped)) == 2
        for after in range(len(told) + 2):
            events = await read(follow_session(store, "ann", after=after))
            assert merged(events) == merged(event for event in told if event.seq > after), after


async def test_it_ends_with_the_last_of_several_streams_and_goes_on_with_the_next() -> None:
    agent = Agent(ScriptedModel("One.", "Two.", "Three."))
    async with memory() as store, stored_session(store, "ann") as session:
        await agent.run("go", session=session)
        await agent.run("go", session=session)
        before = await read(session.follow())
        assert [each.stream for each in of(before, StreamStopped)] == ["ann/1", "ann/2"]
        await agent.run("go", session=session)
        after = await read(session.follow(after=before[-1].seq))
        assert [each.stream for each in of(after, StreamStarted)] == ["ann/3"]
        assert [event.seq for event in before + after] == list(range(1, len(before + after) + 1))


async def test_no_event_is_delivered_before_it_is_saved() -> None:
    async def take_long() -> None:
        await trio.sleep(0.3)

    async with memory() as store:
        slow: Any = Proxy(store, before=take_long, after=take_long)

        async def check(event: StreamEvent) -> None:
            if not isinstance(event, Delta):
                assert encode_event(event) in [record.data for record in await store.read("ann")]

        async def follow(follower: Follower) -> None:
            async for event in follower:
                await check(event)

        async with (
            stored_session(slow, "ann") as session,
            trio.open_nursery() as nursery,
            busy_agent().stream("go", session=session) as stream,
        ):
            nursery.start_soon(follow, session.follow())
            async for event in stream:
                await check(event)


async def test_a_delta_is_saved_within_the_promised_lag() -> None:
    told: dict[int, float] = {}
    kept: dict[int, float] = {}
    async with memory() as store, stored_session(store, "ann") as session, trio.open_nursery() as nursery:

        async def follow() -> None:
            # Not `session.follow()`, which does not wait for the store.
            async for event in follow_session(store, session.id):
                for seq in told:
                    if seq <= event.seq:
                        kept.setdefault(seq, trio.current_time())

        async with Agent(SlowModel(60, 0.03)).stream("go", session=session) as stream:
            async for event in stream:
                if isinstance(event, StreamStarted):
                    nursery.start_soon(follow)
                if isinstance(event, TextDelta):
                    told[event.seq] = trio.current_time()
    assert len(told) == 60
    late = [kept[seq] - told[seq] for seq in told]
    assert 0 < max(late) <= DELTA_LAG + _follow.POLL_SECONDS + 0.001
    # They come together, and not one by one.
    assert len(set(kept.values())) < 15


async def test_a_follower_in_the_same_process_gets_each_delta_with_the_reader() -> None:
    async with memory() as store, stored_session(store, "ann") as session, trio.open_nursery() as nursery:
        followed: list[tuple[StreamEvent, float]] = []
        read: list[tuple[StreamEvent, float]] = []

        async def follow() -> None:
            followed.extend([(event, trio.current_time()) async for event in session.follow()])

        async with Agent(SlowModel(60, 0.03)).stream("go", session=session) as stream:
            nursery.start_soon(follow)
            read.extend([(event, trio.current_time()) async for event in stream])
        await trio.testing.wait_all_tasks_blocked()
        assert followed == read


async def test_a_follower_that_kept_up_reads_no_record_again() -> None:
    async with memory() as memory_store:
        records = 0

        class Counting(Proxy):
            async def read(self, *args: Any, **options: Any) -> Any:
                nonlocal records
                found = await self.store.read(*args, **options)
                records += len(found)
                return found

        store: Any = Counting(memory_store)
        async with stored_session(store, "ann") as session:
            for _ in range(3):
                async with trio.open_nursery() as nursery:

                    async def follow(after: int) -> None:
                        async for _ in session.follow(after=after):
                            pass

                    async with Agent(SlowModel(200, 0.01)).stream("go", session=session) as stream:
                        nursery.start_soon(follow, 0)
                        async for _ in stream:
                            pass
        total = len(await memory_store.read("ann", limit=None))
    # The second follower reads the first run's records, and the third those of two runs: as many as there are.
    # Of a run that it follows, it reads the last ones, or none.
    assert 0 < records <= total + 5


async def test_followers_that_are_given_up_hold_no_more_than_a_page() -> None:
    async with memory() as store, stored_session(store, "ann") as session:
        given_up: list[Follower] = []
        async with Agent(SlowModel(3 * _follow.PAGE, 0.01)).stream("go", session=session) as stream:
            async for event in stream:
                if event.seq == 5:
                    for _ in range(10):
                        given_up.append(session.follow())
                        await anext(given_up[-1])
        assert session._writer._tails == []
        assert all(follower._tail is not None for follower in given_up)
        assert {len(follower._tail.events) for follower in given_up if follower._tail is not None} == {_follow.PAGE}
        # They are read on as if nothing had been missed.
        rest = [event async for event in given_up[0]]
        assert rest[-1].seq == event.seq
        assert "".join(each.text for each in rest if isinstance(each, TextDelta)) == "".join(
            f"{number} " for number in range(3 * _follow.PAGE)
        )


async def test_an_event_after_deltas_is_not_held_up_as_long_as_the_deltas() -> None:
    @tool(read_only=True)
    async def long() -> None:
        """Take long."""
        began.append(trio.current_time())
        await trio.sleep(5)

    class Hesitant:
        name = "hesitant"

        async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
            # Else what is told before is not kept yet, and the words go with it.
            await trio.sleep(5 * LAG)
            await reply.text("Well... ")
            if len(request.messages) > 1:
                return Stop("end", Usage())
            await trio.sleep(5 * LAG)
            await reply.tool_call(0, id="c1", name="long", arguments="{}")
            return Stop("tool_calls", Usage())

    began: list[float] = []
    async with memory() as store, stored_session(store, "ann") as session:
        async with Agent(Hesitant(), tools=[long]).stream("go", session=session) as stream:
            told = [trio.current_time() async for event in stream if isinstance(event, ToolCallStarted)]
        assert told[0] - began[0] <= 2 * LAG


# -------------------------------------------------------------------------------- no cost


async def test_followers_who_stall_or_leave_do_not_slow_the_run() -> None:
    async def seconds(followers: int) -> float:
        async with memory() as store, stored_session(store, "ann") as session, trio.open_nursery() as nursery:

            async def follow(number: int) -> None:
                async for _ in session.follow():
                    if number % 3 == 0:
                        await trio.sleep_forever()
                    if number % 3 == 1:
                        return

            began = trio.current_time()
            async with busy_agent().stream("go", session=session) as stream:
                for number in range(followers):
                    nursery.start_soon(follow, number)
                async for _ in stream:
                    pass
            took = trio.current_time() - began
            nursery.cancel_scope.cancel()
        return took

    # What goes into the store together, and so how often `LAG` is waited for, depends on who comes first.
    assert await seconds(50) == pytest.approx(await seconds(0), abs=10 * LAG)


async def test_a_follower_who_is_cancelled_again_and_again_misses_nothing() -> None:
    class SlowToRead(Proxy):
        async def read(self, session: str, /, **options: Any) -> Sequence[Record]:
            await trio.sleep(0.01)
            found = await self.store.read(session, **options)
            await trio.sleep(0.01)
            return found

    async with memory() as store:
        slow: Any = SlowToRead(store)
        found: list[StreamEvent] = []
        async with stored_session(store, "ann") as session, trio.open_nursery() as nursery:

            async def follow() -> None:
                follower = follow_session(slow, "ann")
                number = 0
                while not (found and isinstance(found[-1], StreamStopped)):
                    number += 1
                    with trio.move_on_after(0.001 * (number % 40)):
                        await read(follower, found)

            async with busy_agent().stream("go", session=session) as stream:
                await trio.sleep(0.1)
                nursery.start_soon(follow)
                await stream.wait()
        assert found == await read(follow_session(store, "ann"))


async def test_a_follower_that_is_cancelled_still_gets_the_records_that_it_has_read() -> None:
    async with memory() as store:
        async with stored_session(store, "ann") as session:
            await busy_agent().run("go", session=session)
        found: list[StreamEvent] = []
        follower = follow_session(store, "ann")
        while not (found and isinstance(found[-1], StreamStopped)):
            with trio.CancelScope() as scope:
                scope.cancel()
                found.append(await anext(follower))
            if scope.cancelled_caught:
                found.append(await anext(follower))
        assert found == await read(follow_session(store, "ann"))


# ------------------------------------------------------------------- beginnings and ends


async def test_a_follower_that_starts_with_a_stream_gets_all_of_it() -> None:
    async with memory() as store, stored_session(store, "ann") as session, trio.open_nursery() as nursery:
        found: list[StreamEvent] = []
        async with Agent(SlowModel(3, 1)).stream("go", session=session) as stream:
            nursery.start_soon(read, session.follow(), found)
            told = [event async for event in stream]
    assert merged(found) == merged(told)


@pytest.mark.parametrize("ran", [False, True])
async def test_while_nothing_runs_it_ends_at_once(ran: bool) -> None:
    async with memory() as store, stored_session(store, "ann") as session:
        if ran:
            await Agent(ScriptedModel("Hi.")).run("go", session=session)
        began = trio.current_time()
        events = await read(session.follow())
        assert bool(events) == ran
        assert await read(session.follow(after=1000)) == []
        if ran:
            assert await read(follow_session(store, "ann", after=events[-1].seq)) == []
        assert trio.current_time() == began


async def test_a_stream_that_has_ended_is_over_though_its_block_is_still_open() -> None:
    agent = Agent(ScriptedModel("Hi."))
    async with (
        memory() as store,
        stored_session(store, "ann") as session,
        agent.stream("go", session=session) as stream,
    ):
        await stream.wait()
        events = await read(session.follow())
        assert isinstance(events[-1], StreamStopped)
        assert await read(session.follow(after=events[-1].seq)) == []


async def test_a_session_that_there_is_not_is_not_followed() -> None:
    async with memory() as store:
        with pytest.raises(StoreError, match="there is no session 'ann' to follow"):
            await read(follow_session(store, "ann"))
        async with stored_session(store, "ann"):
            with pytest.raises(StoreError, match="there is no session 'ann' to follow"):
                await read(follow_session(store, "ann"))


async def test_an_event_before_the_first_is_refused() -> None:
    async with memory() as store, stored_session(store, "ann") as session:
        with pytest.raises(UsageError, match="after=-1: give the number of an event, or 0 for all"):
            session.follow(after=-1)
        with pytest.raises(UsageError, match="after=-1: give the number of an event, or 0 for all"):
            follow_session(store, "ann", after=-1)


async def test_the_follower_of_a_parked_stream_ends_and_continues_when_it_is_resumed() -> None:
    async with memory() as store:
        async with stored_session(store, "ann") as session:
            agent = Agent(ScriptedModel(calls("ask"), "Done."), tools=[ask])
            async with agent.stream("go", session=session, on_question="park") as stream:
                told = [event async for event in stream]
        before = await read(follow_session(store, "ann"))
        assert merged(before) == merged(told)
        assert [each.reason for each in of(before, StreamStopped)] == ["needs_input"]
        [question] = of(before, ElicitationRequested)
        async with stored_session(store, "ann") as session, trio.open_nursery() as nursery:
            after: list[StreamEvent] = []
            async with agent.resume_stream(session, {question.id: Accept({"tag": "x"})}) as stream:
                nursery.start_soon(read, session.follow(after=before[-1].seq), after)
                told += [event async for event in stream]
        assert merged(before + after) == merged(told)
        assert [event.seq for event in told] == list(range(1, len(told) + 1))


# ------------------------------------------------------------------------------ the worst


async def crashed(store: OpenStore, agent: Agent, *, seconds: float) -> tuple[list[StreamEvent], list[Record]]:
    """What was told of a run, and what was kept, when its process died after so long."""
    told: list[StreamEvent] = []
    records: list[Record] = []
    async with stored_session(store, "ann") as session, agent.stream("go", session=session) as stream:

        async def die() -> None:
            await trio.sleep(seconds)
            records.extend(await store.read("ann"))
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(die)
            async for event in stream:
                told.append(event)  # noqa: PERF401 - it is cancelled in here
    return told, records


async def test_the_follower_of_a_dead_process_gets_all_events_and_then_an_error_that_says_what_to_do() -> None:
    async with memory() as store:
        told, records = await crashed(store, busy_agent(), seconds=0.4)
    async with memory() as store:
        await store.append("ann", records)
        found: list[StreamEvent] = []
        follower = follow_session(store, "ann")
        with pytest.raises(StoreError, match="session 'ann': the process that ran its last stream has ended; open the"):
            await read(follower, found)
        assert merged(found) == merged(event for event in told if event.seq <= found[-1].seq)
        # All but the last words, that is.
        assert all(isinstance(event, Delta) for event in told if event.seq > found[-1].seq)
        with pytest.raises(StoreError, match="has ended; open the session"):
            await read(follow_session(store, "ann", after=found[-1].seq))

        async with stored_session(store, "ann") as session:
            await read(follower, found)
            assert event_problems(renumbered(found)) == []
            assert isinstance(found[-1], StreamStopped)
            assert found[-1].reason == "interrupted"
            assert found == await read(session.follow())


async def test_while_the_session_is_leased_a_stream_without_an_end_is_waited_for() -> None:
    async with memory() as store:
        _, records = await crashed(store, busy_agent(), seconds=0.4)
    async with memory() as store:
        await store.append("ann", records)
        await store.acquire("ann", "its process, of which nobody knows yet that it died", seconds=5)
        found: list[StreamEvent] = []
        began = trio.current_time()
        with pytest.raises(StoreError, match="has ended; open the session"):
            await read(follow_session(store, "ann"), found)
        assert 5 <= trio.current_time() - began <= 6


async def test_no_number_is_given_twice_after_a_crash() -> None:
    async with memory() as store:
        told, records = await crashed(store, Agent(SlowModel(100, 0.03)), seconds=1)
    async with memory() as store:
        await store.append("ann", records)
        # The last words were told, and not kept.
        assert told[-1].seq > len(await read_of_a_dead(store))
        async with stored_session(store, "ann") as session:
            async with Agent(ScriptedModel("Now.")).resume_stream(session) as stream:
                later = [event async for event in stream]
            ends = await read(session.follow(after=told[-1].seq))
        assert min(event.seq for event in later) > told[-1].seq
        # With the end that the dead one got, and without a number in common.
        assert [event.stream for event in of(ends, StreamStopped)] == ["ann/1", later[0].stream]
        assert merged(ends[-len(merged(later)) :]) == merged(later)


async def read_of_a_dead(store: OpenStore) -> list[StreamEvent]:
    found: list[StreamEvent] = []
    with pytest.raises(StoreError, match="has ended"):
        await read(follow_session(store, "ann"), found)
    return found


# ------------------------------------------------------------------------------ long ones


@pytest.mark.seconds(100)
async def test_more_events_than_are_read_at_once() -> None:
    script = [
        sum((calls("work", seconds=number / 1000) for _ in range(9)), calls("work", seconds=number))
        for number in range(1, 12)
    ]
    agent = Agent(ScriptedModel(*script, "Done."), tools=[work])
    async with memory() as store, stored_session(store, "ann") as session:
        async with agent.stream("go", session=session) as stream:
            told = [event async for event in stream]
        assert len(await store.read("ann")) > 2 * _follow.PAGE
        for after in (0, 1, 255, 256, 257, 300, len(told) - 1, len(told)):
            events = await read(session.follow(after=after))
            assert merged(events) == merged(event for event in told if event.seq > after)


PROMPT = user_message("go")
SOURCE = Source("ann", "ann/1", ("agent",))


@given(
    kinds=st.lists(st.sampled_from(["event", "gap", "note", "stop"]), max_size=40),
    page=st.integers(1, 5),
    data=st.data(),
)
async def test_where_to_begin_is_found_as_if_all_were_read(kinds: list[str], page: int, data: st.DataObject) -> None:
    records: list[Record] = []
    numbers: list[int] = []
    seq = 0
    runs = False
    for number, kind in enumerate(kinds, 1):
        seq += 100 if kind == "gap" else 1
        if kind == "note":
            records.append(Record(number, "state", b"{}"))
            continue
        numbers.append(seq)
        event: StreamEvent = WarningIssued(SOURCE, seq, code="x", message="y")
        name = "warning_issued"
        if kind == "stop" and runs:
            event, name, runs = StreamStopped(SOURCE, seq, reason="completed"), "stream_stopped", False
        elif kind == "stop":
            event, name, runs = StreamStarted(SOURCE, seq, message=PROMPT, model="m"), "stream_started", True
        records.append(Record(number, name, encode_event(event), stream="ann/1"))
    after = data.draw(st.integers(0, seq + 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_follow, "PAGE", page)
        async with memory() as store:
            if records:
                await store.append("ann", records)
            found: list[StreamEvent] = []
            says_that_it_died = False
            try:
                await read(follow_session(store, "ann", after=after), found)
            except StoreError:
                says_that_it_died = True
    assert [event.seq for event in found] == [number for number in numbers if number > after]
    assert says_that_it_died == (runs or not records)


# ------------------------------------------------------------------------ other processes


@pytest.mark.real_clock
async def test_it_is_followed_through_the_file(tmp_path: Path) -> None:
    path = tmp_path / "chats.db"
    found: list[StreamEvent] = []
    async with (
        SQLiteStore(path).open() as store,
        SQLiteStore(path).open() as theirs,
        stored_session(store, "ann") as session,
        trio.open_nursery() as nursery,
        Agent(SlowModel(10, 0.03)).stream("go", session=session) as stream,
    ):
        told = [await anext(stream), await anext(stream)]
        nursery.start_soon(read, follow_session(theirs, "ann"), found)
        told += [event async for event in stream]
    assert merged(found) == merged(told)
