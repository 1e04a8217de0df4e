"""A session that is in a store: there again in the next process, valid whatever ended the one before."""

from __future__ import annotations

import gc
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import trio
from msgspec import structs

from agentloop import Agent, Approve, Compaction, Permissions, Rule, ToolContext, hooks, tool
from agentloop._core.transcript import Transcript, problems
from agentloop.errors import LeaseLostError, SessionLeasedError, StoreError, UsageError
from agentloop.events import ApprovalRequested, MessageCommitted, StreamStopped, ToolCallFinished
from agentloop.journal import Lease, OpenStore, Record
from agentloop.messages import File, Text, ToolResult, UserMessage
from agentloop.permissions import Under
from agentloop.stores import MemoryStore, SQLiteStore, fork_session, stored_session
from agentloop.testing import Response, ScriptedModel, calls
from tests.support import first, opened


@tool
async def add(a: int, b: int) -> int:
    """Add."""
    return a + b


@tool
async def wait_forever() -> None:
    """Wait."""
    await trio.sleep_forever()


@asynccontextmanager
async def memory() -> AsyncGenerator[OpenStore]:
    async with MemoryStore().open() as store:
        yield store


async def test_a_session_continues_where_it_was() -> None:
    async with memory() as store:
        async with stored_session(store, "ann") as session:
            await Agent(ScriptedModel(calls("add", a=1, b=2), "3."), tools=[add]).run("1 + 2?", session=session)
            before = session.messages
        model = ScriptedModel("As I said.")
        async with stored_session(store, "ann") as session:
            assert session.messages == before
            await Agent(model).run("Once more?", session=session)
        assert model.requests[0].messages[:-1] == before


async def test_a_permanent_approval_is_there_in_the_next_process() -> None:
    @tool(requires_approval=True)
    async def act(what: str) -> str:
        """Act."""
        return what

    asked: list[int] = []
    agent = Agent(ScriptedModel(calls("act", what="this"), "Done.", repeat=True), tools=[act])
    async with memory() as store:
        for _ in range(2):
            async with stored_session(store, "ann") as session, agent.stream("go", session=session) as stream:
                async for event in stream:
                    if isinstance(event, ApprovalRequested):
                        asked.append(1)
                        stream.answer(event.id, Approve(always=True))
                assert stream.outcome.messages[2].text == "this"
    assert len(asked) == 1


async def test_a_permanent_approval_is_saved_with_the_next_turn_if_the_store_failed_at_first() -> None:
    @tool(requires_approval=True)
    async def act() -> str:
        """Act."""
        return "ok"

    class Failing:
        def __init__(self, store: OpenStore) -> None:
            self.store = store
            self.fails = True

        def __getattr__(self, name: str) -> Any:
            return getattr(self.store, name)

        async def append(self, session: str, records: Sequence[Record], /, **options: Any) -> None:
            if self.fails and any(record.kind == "state" for record in records):
                self.fails = False
                raise StoreError("the disk is full")
            await self.store.append(session, records, **options)

    async with memory() as store:
        failing: Any = Failing(store)
        async with stored_session(failing, "ann") as session:
            agent = Agent(ScriptedModel(calls("act"), "never"), tools=[act])
            with pytest.raises(StoreError, match="the disk is full"):
                async with agent.stream("go", session=session) as stream:
                    async for event in stream:
                        if isinstance(event, ApprovalRequested):
                            stream.answer(event.id, Approve(always=True))
            await Agent(ScriptedModel("Fine.")).run("and now?", session=session)
        async with stored_session(store, "ann") as session:
            assert len(session.grants) == 1


async def test_a_lease_that_cannot_be_given_back_hides_no_error() -> None:
    class Stuck:
        def __init__(self, store: OpenStore) -> None:
            self.store = store

        def __getattr__(self, name: str) -> Any:
            return getattr(self.store, name)

        async def release(self, lease: Lease, /) -> None:
            raise StoreError("no connection")

    async with memory() as store:
        stuck: Any = Stuck(store)
        with pytest.raises(KeyError):
            async with stored_session(stuck, "ann"):
                raise KeyError


async def test_what_was_summed_up_stays_so() -> None:
    talk = "bla " * 300
    async with memory() as store:
        async with stored_session(store, "ann") as session:
            model = ScriptedModel(talk, "They said bla.", "Yes.")
            agent = Agent(model, compaction=Compaction(window=500, keep_recent=0.05))
            await agent.run(talk, session=session)
            await agent.run("Well?", session=session)
            shown = session._transcript.view
            assert "They said bla." in shown[0].text
        async with stored_session(store, "ann") as session:
            assert session._transcript.view == shown
            assert [message.text for message in session.messages] == [talk, talk, "Well?", "Yes."]


async def test_without_an_id_it_gets_one() -> None:
    async with memory() as store, stored_session(store) as one, stored_session(store) as other:
        assert one.id != other.id


async def test_one_process_at_a_time_has_it() -> None:
    async with memory() as store, stored_session(store, "ann"):
        with pytest.raises(SessionLeasedError, match=r"session 'ann' is held by process .* until .*: wait, or fork"):
            async with stored_session(store, "ann"):
                pass
    async with memory() as store:
        for _ in range(2):
            async with stored_session(store, "ann"):
                pass


@pytest.mark.seconds(1000)
async def test_the_lease_is_renewed_for_as_long_as_the_block_lasts() -> None:
    async with memory() as store, stored_session(store, "ann", lease_seconds=10) as session:
        await trio.sleep(500)
        with pytest.raises(SessionLeasedError):
            await store.acquire("ann", "somebody else", seconds=1)
        await Agent(ScriptedModel("Hi.")).run("go", session=session)


@pytest.mark.seconds(1000)
@pytest.mark.parametrize("failures", [1, 2, 5])
async def test_a_lease_is_renewed_again_after_renewals_that_failed(failures: int) -> None:
    class Hiccup:
        """A store that fails a few renewals."""

        def __init__(self, store: OpenStore) -> None:
            self.store = store
            self.left = failures

        def __getattr__(self, name: str) -> Any:
            return getattr(self.store, name)

        async def renew(self, lease: Lease, /, *, seconds: float) -> Lease:
            self.left -= 1
            if self.left >= 0:
                raise StoreError("the file is locked")
            return await self.store.renew(lease, seconds=seconds)

    async with memory() as store:
        hiccup: Any = Hiccup(store)
        async with stored_session(hiccup, "ann", lease_seconds=12) as session:
            await trio.sleep(100)
            with pytest.raises(SessionLeasedError):
                await store.acquire("ann", "another process", seconds=1)
            await Agent(ScriptedModel("Hi.")).run("go", session=session)


class Sleepy:
    """A store through which this process cannot renew its lease."""

    def __init__(self, store: OpenStore) -> None:
        self.store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    async def renew(self, lease: Lease, /, *, seconds: float) -> Lease:
        raise StoreError("no connection")


@pytest.mark.seconds(1000)
async def test_who_has_lost_the_lease_adds_nothing() -> None:
    async with memory() as store:
        asleep: Any = Sleepy(store)
        async with stored_session(asleep, "ann", lease_seconds=10) as session:
            await trio.sleep(20)
            async with stored_session(store, "ann") as theirs:
                await Agent(ScriptedModel("Hi.")).run("mine", session=theirs)
                with pytest.raises(LeaseLostError, match="ann"):
                    await Agent(ScriptedModel("never")).run("go", session=session)
        async with stored_session(store, "ann") as session:
            assert [message.text for message in session.messages] == ["mine", "Hi."]


@pytest.mark.seconds(1000)
@pytest.mark.parametrize("effects", ["any", "idempotent"])
async def test_a_tool_does_not_begin_if_its_process_has_just_lost_the_lease(effects: str) -> None:
    ran: list[str] = []

    @tool(idempotent=effects == "idempotent")
    async def pay() -> None:
        """Pay."""
        ran.append("pay")

    async with memory() as store:

        @hooks.pre_tool_use
        async def lose_the_lease(value: hooks.PreToolUse) -> None:
            await trio.sleep(20)
            await store.acquire("ann", "another process", seconds=60)

        asleep: Any = Sleepy(store)
        async with stored_session(asleep, "ann", lease_seconds=10) as session:
            agent = Agent(ScriptedModel(calls("pay"), "done"), tools=[pay], hooks=[lose_the_lease])
            with pytest.raises(LeaseLostError, match="ann"):
                await agent.run("go", session=session)

    assert ran == []


async def test_what_leaves_the_block_is_not_wrapped() -> None:
    async with memory() as store:
        with pytest.raises(KeyError):
            async with stored_session(store, "ann"):
                raise KeyError
        async with stored_session(store, "ann"):
            pass


async def test_streams_of_different_processes_have_different_ids() -> None:
    keys: list[str] = []

    @tool
    async def note(context: ToolContext[None]) -> None:
        """Note."""
        keys.append(context.idempotency_key)

    async with memory() as store:
        for _ in range(3):
            async with stored_session(store, "ann") as session:
                await Agent(ScriptedModel(calls("note"), "Done."), tools=[note]).run("go", session=session)
    assert len(set(keys)) == 3


async def test_the_error_of_an_unreadable_record_names_it() -> None:
    async with memory() as store:
        started = b'{"type": "stream_started", "resumes": ""}'
        records = [(1, "stream_started", started), (2, "message_committed", b'{"no": "message"}')]
        await store.append("ann", [Record(*record, stream="ann/1") for record in records])
        with pytest.raises(StoreError, match="session 'ann': record 1, 'stream_started', cannot be read"):
            async with stored_session(store, "ann"):
                pass


async def test_what_a_newer_version_has_added_is_passed_over() -> None:
    async with memory() as store:
        await store.append("ann", [Record(1, "hologram", b"{}")])
        async with stored_session(store, "ann") as session:
            assert session.messages == ()
            agent = Agent(ScriptedModel(calls("act"), "never"), tools=[approved])
            await agent.run("go", session=session, on_question="park")
        length = len(await store.read("ann"))
        await store.append("ann", [Record(length + 1, "hologram", b'{"of": "what"}', stream="ann/1")])
        async with stored_session(store, "ann") as session:
            assert session.is_resumable
            assert [type(event) async for event in session.follow()][-1] is StreamStopped


async def test_a_lease_of_no_time_is_refused() -> None:
    async with memory() as store:
        with pytest.raises(UsageError, match="lease_seconds=0"):
            async with stored_session(store, "ann", lease_seconds=0):
                pass


# ---------------------------------------------------------------- it ends in mid-turn


class Recorder:
    """A store that keeps a copy of what was there after each addition: what a crash just then would leave."""

    def __init__(self, store: OpenStore) -> None:
        self.store = store
        self.states: list[list[Record]] = [[]]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    async def append(self, session: str, records: Sequence[Record], /, **options: Any) -> None:
        await self.store.append(session, records, **options)
        if session == "ann":
            self.states.append([*self.states[-1], *records])


async def test_wherever_a_session_is_cut_off_it_is_valid_and_no_delivered_event_is_missing() -> None:
    inner = Agent(ScriptedModel(calls("add", a=1, b=1), "2.", repeat=True), name="inner", tools=[add])
    script: list[Response | str] = [
        calls("add", a=1, b=2) + calls("inner", prompt="x") + calls("add", a=3, b=4),
        calls("add", a=5, b=6),
        "Done.",
    ]
    agent = Agent(ScriptedModel(*script), tools=[add, inner.as_tool()])
    told: list[tuple[int, Any]] = []
    async with memory() as store:
        recorder: Any = Recorder(store)
        async with stored_session(recorder, "ann") as session, agent.stream("go", session=session) as stream:
            told.extend([(len(recorder.states) - 1, event) async for event in stream])

    for number, records in enumerate(recorder.states):
        async with memory() as store:
            if records:
                await store.append("ann", records)
            async with stored_session(store, "ann") as session:
                messages = session.messages
            assert problems(messages) == []
            # What a reader had been told by then; it may be behind, never ahead.
            for at, event in told:
                if at > number or event.session != "ann":
                    continue
                if isinstance(event, MessageCommitted):
                    assert event.message in messages
                if isinstance(event, ToolCallFinished):
                    assert event.result in messages
            # Closed once and for all.
            async with stored_session(store, "ann") as session:
                assert session.messages == messages


async def test_a_call_that_was_cut_off_says_whether_it_may_have_run() -> None:
    @tool(requires_approval=True)
    async def guarded() -> None:
        """Wait for approval."""

    response = calls("add", id="c1", a=1, b=2) + calls("wait_forever", id="c2") + calls("guarded", id="c3")
    agent = Agent(ScriptedModel(response), tools=[add, wait_forever, guarded])
    async with memory() as store:
        recorder: Any = Recorder(store)
        async with stored_session(recorder, "ann") as session, agent.stream("go", session=session) as stream:
            await first(stream, ToolCallFinished)
            crashed = recorder.states[-1]
    async with memory() as store:
        await store.append("ann", crashed)
        async with stored_session(store, "ann") as session:
            results = {one.call_id: one for one in session.messages if isinstance(one, ToolResult)}
    assert [results[id].status for id in ("c1", "c2", "c3")] == ["ok", "interrupted", "interrupted"]
    assert "It may have run" in results["c2"].text
    assert "It did not run" in results["c3"].text


@pytest.mark.parametrize("kind", ["turn", "call", "tool_call_finished", "message_committed"])
async def test_a_store_that_fails_ends_the_run_and_the_session_is_opened_anew(kind: str) -> None:
    class Failing:
        def __init__(self, store: OpenStore) -> None:
            self.store = store

        def __getattr__(self, name: str) -> Any:
            return getattr(self.store, name)

        async def append(self, session: str, records: Sequence[Record], /, **options: Any) -> None:
            begun = len(await self.store.read(session)) > 0
            if begun and any(record.kind == kind and record.stream == "ann/1" for record in records):
                raise StoreError("the disk is full")
            await self.store.append(session, records, **options)

    ran: list[int] = []

    @tool
    async def work() -> str:
        """Work."""
        ran.append(1)
        return "ok"

    agent = Agent(ScriptedModel(calls("work"), calls("work"), "never"), tools=[work])
    async with memory() as store:
        failing: Any = Failing(store)
        async with stored_session(failing, "ann") as session, opened(agent, session=session) as stream:
            with pytest.raises(StoreError, match="the disk is full"):
                [event async for event in stream]
        # The first turn's calls go into the store with its beginning; from then on nothing does.
        assert len(ran) == 1
        async with stored_session(store, "ann") as session:
            assert problems(session.messages) == []
            await Agent(ScriptedModel("Fine.")).run("and now?", session=session)


@pytest.mark.real_clock
async def test_it_is_there_after_the_file_was_closed(tmp_path: Path) -> None:
    path = tmp_path / "chats.db"
    for number in range(3):
        async with SQLiteStore(path).open() as store, stored_session(store, "ann") as session:
            assert len(session.messages) == 4 * number
            agent = Agent(ScriptedModel(calls("add", a=1, b=2), "3."), tools=[add])
            await agent.run("1 + 2?", session=session)


@pytest.mark.seconds(200)
@pytest.mark.parametrize("method", ["acquire", "read", "info", "answers"])
async def test_a_store_that_hangs_is_not_waited_for_without_end(method: str) -> None:
    class Hanging:
        def __init__(self, store: OpenStore) -> None:
            self.store = store

        def __getattr__(self, name: str) -> Any:
            return self.hang if name == method else getattr(self.store, name)

        async def hang(self, *args: Any, **options: Any) -> None:
            await trio.sleep_forever()

    async with memory() as store:
        async with stored_session(store, "ann") as session:
            agent = Agent(ScriptedModel(calls("act"), "never"), tools=[approved])
            await agent.run("go", session=session, on_question="park")
        hanging: Any = Hanging(store)
        began = trio.current_time()
        with pytest.raises(StoreError, match="the store of session 'ann' has given no answer for 30 s"):
            async with stored_session(hanging, "ann"):
                pass
        assert trio.current_time() - began == 30
        async with stored_session(store, "ann") as session:
            assert session.is_resumable


@tool(name="act", requires_approval=True)
async def approved() -> None:
    """Act."""


async def test_a_record_says_when_it_was_written() -> None:
    began = time.time()
    async with memory() as store:
        async with stored_session(store, "ann") as session:
            await Agent(ScriptedModel("Hi.")).run("go", session=session)
        assert all(began <= record.at <= time.time() for record in await store.read("ann"))


async def test_a_session_holds_nothing_of_the_child_streams_that_have_ended() -> None:
    inner = Agent(ScriptedModel("Inner.", repeat=True), name="inner")
    script: list[Response | str] = [calls("inner", prompt="x"), "Done."]
    agent = Agent(ScriptedModel(*script, repeat=True), tools=[inner.as_tool()])
    gc.collect()
    before = sum(isinstance(each, Transcript) for each in gc.get_objects())
    async with memory() as store, stored_session(store, "ann") as session:
        for _ in range(10):
            await agent.run("go", session=session)
        gc.collect()
        assert sum(isinstance(each, Transcript) for each in gc.get_objects()) == before + 1


async def test_a_journal_out_of_order_is_logged_and_its_messages_are_read(caplog: pytest.LogCaptureFixture) -> None:
    async with memory() as store:
        async with stored_session(store, "ann") as session:
            await Agent(ScriptedModel("Hello.")).run("go", session=session)
            messages = session.messages
        records = [record for record in await store.read("ann") if record.kind != "turn_started"]
        moved = [structs.replace(record, seq=seq) for seq, record in enumerate(records, start=1)]
        await store.append("ben", moved)
        async with stored_session(store, "ben") as session:
            assert session.messages == messages
    assert "the journal is out of order" in caplog.text


@tool
async def listing() -> list[Text | File]:
    """List the files."""
    return [Text("caf\udce9.txt"), File(b"x", media_type="text/plain", name="caf\udce9.txt")]


async def test_a_name_that_is_not_utf8_is_saved_in_a_prompt_and_in_a_result() -> None:
    """Python has half of a surrogate pair for each byte of a name that is not UTF-8, and JSON has no form for it."""
    async with MemoryStore().open() as store:
        async with stored_session(store, "s") as session:
            model = ScriptedModel(calls("listing"), "Done.")
            outcome = await Agent(model, tools=[listing]).run(
                ["Open caf\udce9.txt", Text("\ud83d\ude00")], session=session
            )
        async with stored_session(store, "s") as session:
            assert session.messages == outcome.messages

    assert outcome.messages[0] == UserMessage((Text("Open caf\ufffd.txt"), Text("\U0001f600")))
    result = outcome.messages[2]
    assert isinstance(result, ToolResult)
    assert result.parts == (Text("caf\ufffd.txt"), File(b"x", media_type="text/plain", name="caf\ufffd.txt"))


# -------------------------------------------------------------------------- permissions

FORBIDS = Permissions(deny=["wipe", Rule("read", {"path": Under("/etc")})], ask=["pay"], mode="plan")


async def test_what_a_session_forbids_is_forbidden_in_the_next_process() -> None:
    wiped: list[str] = []

    @tool
    async def wipe() -> str:
        """Wipe the disk."""
        wiped.append("all")
        return "wiped"

    async with memory() as store:
        async with stored_session(store, "ann", permissions=Permissions(deny=["wipe"])) as session:
            await Agent(ScriptedModel("Hello."), tools=[wipe]).run("go", session=session)
        async with stored_session(store, "ann") as session:
            outcome = await Agent(ScriptedModel(calls("wipe"), "Done."), tools=[wipe]).run("wipe", session=session)

    assert outcome.messages[2].text == "Denied by the rule wipe."
    assert wiped == []


async def test_all_of_a_sessions_permissions_are_saved_with_it_and_go_along_with_a_fork_and_a_rewind() -> None:
    async with memory() as store:
        async with stored_session(store, "ann", permissions=FORBIDS) as session:
            await Agent(ScriptedModel("Hello.")).run("go", session=session)
        async with stored_session(store, "ann") as session:
            assert session.permissions == FORBIDS
            await session.rewind(0)
        async with stored_session(store, await fork_session(store, "ann")) as session:
            assert session.permissions == FORBIDS


async def test_permissions_that_are_given_replace_those_that_were_saved() -> None:
    async with memory() as store:
        async with stored_session(store, "ann", permissions=FORBIDS) as session:
            await Agent(ScriptedModel("Hello.")).run("go", session=session)
        async with stored_session(store, "ann", permissions=Permissions()) as session:
            assert session.permissions == Permissions()
        async with stored_session(store, "ann") as session:
            assert session.permissions == Permissions()


@pytest.mark.parametrize("fails", [False, True])
async def test_permissions_that_change_after_the_last_run_are_saved_when_the_block_ends(fails: bool) -> None:
    async with memory() as store:
        async with stored_session(store, "ann") as session:
            await Agent(ScriptedModel("Hello.")).run("go", session=session)
        with pytest.raises(KeyError) if fails else nullcontext():
            async with stored_session(store, "ann") as session:
                session.permissions = FORBIDS
                if fails:
                    raise KeyError
        async with stored_session(store, "ann") as session:
            assert session.permissions == FORBIDS
            session.permissions = None
        async with stored_session(store, "ann") as session:
            assert session.permissions is None


async def test_a_session_that_was_opened_with_permissions_and_not_used_is_not_in_the_store() -> None:
    async with memory() as store:
        async with stored_session(store, "ann", permissions=FORBIDS):
            pass
        assert await store.info("ann") is None
