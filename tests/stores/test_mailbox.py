"""The mailbox of a session, and the state of its run in the index, over every store."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from agentloop import Agent, Approve, tool
from agentloop.errors import LeaseLostError, SequenceError, SessionLeasedError, UsageError
from agentloop.journal import READY, UNFINISHED, WAITING, OpenStore, Record
from agentloop.stores import SQLiteStore, _sql, answer_question, fork_session, stored_session
from agentloop.stores._fence import Fence
from agentloop.stores.mailbox import Mail, answer, enqueue, mailboxes_of, stop
from agentloop.testing import ScriptedModel, calls
from tests.stores.places import Place, record, records

pytestmark = pytest.mark.real_clock


@tool(requires_approval=True)
def pay(amount: int) -> str:
    """Pay."""
    return f"paid {amount}"


def payer(*script: object) -> Agent:
    return Agent(ScriptedModel(*script), name="payer", tools=[pay])  # type: ignore[arg-type]


def started(seq: int, agent: str = "ann") -> Record:
    source = f'{{"session":"s","stream":"s.1","agents":["{agent}"]}}'
    return Record(seq, "stream_started", f'{{"source":{source}}}'.encode(), "s.1")


def stopped(seq: int, reason: str) -> Record:
    return Record(seq, "stream_stopped", f'{{"reason":"{reason}"}}'.encode(), "s.1")


async def state_of(store: OpenStore) -> tuple[str, str]:
    info = await store.info("s")
    assert info is not None
    assert [info] == list(await store.sessions())
    return info.state, info.agent


async def sessions_to_drive(store: OpenStore) -> list[str]:
    return sorted(work.session for work in await mailboxes_of(store).waiting_work())


async def test_the_index_has_the_state_of_the_last_run_and_the_name_of_its_agent(place: Place) -> None:
    async with place.store().open() as store:
        lease = await store.acquire("s", "me", seconds=5)
        await store.append("s", [started(1)], lease=lease)
        assert await state_of(store) == (UNFINISHED, "ann")
        await store.append("s", [record(2), record(3)], lease=lease)
        assert await state_of(store) == (UNFINISHED, "ann")
        await store.append("s", [stopped(4, "needs_input")], lease=lease)
        assert await state_of(store) == (WAITING, "ann")
        await store.append("s", [started(5, "bob"), stopped(6, "completed")], lease=lease)
        assert await state_of(store) == (READY, "bob")
        await store.append("s", [Record(7, "stream_started", b"{}")], lease=lease)
        assert await state_of(store) == (UNFINISHED, "bob")
        await store.append("s", [Record(8, "given_up", b"{}")], lease=lease)
        assert await state_of(store) == (READY, "bob")
        await store.release(lease)
        await store.append("s", [started(9), stopped(10, "interrupted")])
        assert await state_of(store) == (UNFINISHED, "ann")


async def test_an_answer_makes_a_run_that_waits_unfinished(place: Place) -> None:
    async with place.store_on_real_time().open() as store:
        async with stored_session(store, "s") as session:
            outcome = await payer(calls("pay", amount=1)).run("Pay.", session=session, on_question="park")
        assert await state_of(store) == (WAITING, "payer")
        assert await sessions_to_drive(store) == []
        await store.fork("s", "copy")
        copy = await store.info("copy")
        assert copy is not None
        assert copy.state == WAITING
        await fork_session(store, "s", "empty", messages=0)
        empty = await store.info("empty")
        assert empty is not None
        assert empty.state == READY
        await store.delete("copy")
        await store.delete("empty")
        await answer_question(store, "s", outcome.questions[0].id, Approve())
        assert await state_of(store) == (UNFINISHED, "payer")
        assert await sessions_to_drive(store) == ["s"]


async def test_mail_is_read_in_order_when_it_is_due_and_is_taken_once(place: Place) -> None:
    async with place.store().open() as opened:
        store = mailboxes_of(opened)
        assert await enqueue(store, "s", "One.", agent="ann", id="b") == "b"
        place.time.now += 1
        await enqueue(store, "s", "Two.", id="a")
        await enqueue(store, "s", "Later.", after=60, id="c")
        assert not await store.post("s", Mail("b", "prompt", b"{}"))
        mail = await store.mail("s")
        assert [each.id for each in mail] == ["b", "a"]
        assert (mail[0].kind, mail[0].agent) == ("prompt", "ann")
        assert await sessions_to_drive(store) == ["s"]
        lease = await store.acquire("s", "me", seconds=100)
        assert await sessions_to_drive(store) == []
        assert await store.take(lease, "b")
        assert not await store.take(lease, "b")
        assert not await store.post("s", Mail("b", "prompt", b"{}"))
        place.time.now += 61
        assert [each.id for each in await store.mail("s")] == ["a", "c"]
        place.time.now += 60
        other = await store.acquire("s", "other", seconds=100)
        with pytest.raises(LeaseLostError):
            await store.take(lease, "a")
        assert await store.take(other, "a")


async def test_a_prompt_is_taken_with_the_first_record_of_its_run_or_not_at_all(place: Place) -> None:
    async with place.store().open() as opened:
        store = mailboxes_of(opened)
        await enqueue(store, "s", "One.", id="m")
        lease = await store.acquire("s", "me", seconds=5)
        with pytest.raises(SequenceError):
            await store.append_and_take("s", records(2, 3), lease, "m")
        assert len(await store.mail("s")) == 1
        await store.append_and_take("s", [started(1)], lease, "m")
        assert await store.mail("s") == []
        assert await state_of(store) == (UNFINISHED, "ann")
        with pytest.raises(SequenceError, match="was delivered before"):
            await store.append_and_take("s", records(2, 3), lease, "m")
        place.time.now += 6
        await store.acquire("s", "other", seconds=5)
        await enqueue(store, "s", "Two.", id="n")
        with pytest.raises(LeaseLostError):
            await store.append_and_take("s", records(2, 3), lease, "n")
        assert len(await store.read("s")) == 1


async def test_the_mailbox_says_which_record_a_prompt_was_delivered_with(place: Place) -> None:
    async with place.store().open() as opened:
        store = mailboxes_of(opened)
        lease = await store.acquire("s", "me", seconds=100)
        await store.append("s", records(1, 2), lease=lease)
        for id in ("begun", "taken", "withdrawn"):
            await enqueue(store, "s", "Hello.", id=id)
        assert await store.delivered("s", "begun") is None
        await store.append_and_take("s", [started(3)], lease, "begun")
        assert await store.take(lease, "taken")
        assert await store.withdraw("s", "withdrawn")
        assert not await store.withdraw("s", "withdrawn")
        assert not await store.withdraw("s", "begun")
        assert not await store.withdraw("s", "unknown")
        assert [await store.delivered("s", id) for id in ("begun", "taken", "withdrawn")] == [3, 0, 0]
        assert await store.delivered("s", "unknown") is None
        with pytest.raises(SequenceError, match="was delivered before"):
            await store.append_and_take("s", records(4, 4), lease, "withdrawn")
        assert len(await store.read("s")) == 3
        assert not await store.post("s", Mail("withdrawn", "prompt", b"{}"))


async def test_a_session_that_waits_for_answers_can_be_driven_to_be_stopped(place: Place) -> None:
    async with place.store().open() as opened:
        store = mailboxes_of(opened)
        await store.append("s", [started(1), stopped(2, "needs_input")])
        await enqueue(store, "s", "Hello.")
        assert await sessions_to_drive(store) == []
        place.time.now += 1
        await stop(store, "s", "Enough.")
        assert await sessions_to_drive(store) == ["s"]
        assert [(mail.kind, mail.data) for mail in await store.mail("s")][1] == ("stop", b'"Enough."')


async def test_the_run_that_was_cut_off_first_is_taken_over_first(place: Place) -> None:
    async with place.store().open() as opened:
        store = mailboxes_of(opened)
        names = [f"s{number}" for number in range(8)]
        for name in reversed(names):
            lease = await store.acquire(name, "me", seconds=5 + 2 * int(name[1:]))
            await store.append(name, [started(1)], lease=lease)
        await enqueue(store, "new", "Hello.")
        place.time.now += 60
        assert [work.session for work in await store.waiting_work()] == [*names, "new"]


async def test_a_session_can_be_driven_when_it_has_work_that_no_person_holds_up(place: Place) -> None:
    async with place.store().open() as opened:
        store = mailboxes_of(opened)
        lease = await store.acquire("s", "me", seconds=5)
        await store.append("s", [started(1)], lease=lease)
        assert await sessions_to_drive(store) == []
        place.time.now += 6
        (work,) = await store.waiting_work()
        assert (work.session, work.agent, work.token) == ("s", "ann", lease.token)
        await store.append("s", [stopped(2, "needs_input")], lease=lease)
        assert await sessions_to_drive(store) == []
        await enqueue(store, "s", "Another prompt.")
        assert await sessions_to_drive(store) == []
        await answer(store, "s", "q", Approve())
        (work,) = await store.waiting_work()
        assert (work.session, work.agent) == ("s", "ann")
        await enqueue(store, "new", "Hello.", agent="bob")
        assert {(work.session, work.agent) for work in await store.waiting_work()} == {("s", "ann"), ("new", "bob")}
        assert len(await store.waiting_work(limit=1)) == 1
        await store.append("cut", [started(1)])
        (work,) = await store.waiting_work(limit=1)
        assert (work.session, work.is_unfinished) == ("cut", True)
        await store.delete("cut")
        await store.delete("s")
        assert await sessions_to_drive(store) == ["new"]
        with pytest.raises(SessionLeasedError):
            await (await _held(store)).delete("new")


async def _held(store: OpenStore) -> OpenStore:
    await store.acquire("new", "me", seconds=5)
    return store


async def test_wrong_arguments_are_refused_before_anything_is_saved(place: Place) -> None:
    async with place.store().open() as store:
        for after in (-1, float("nan"), float("inf"), "1", True):
            with pytest.raises(UsageError, match="give seconds"):
                await enqueue(store, "s", "Hello.", after=after)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="an answer is Approve"):
            await answer(store, "s", "q", "yes")  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="session's id is empty"):
            await enqueue(store, "", "Hello.")
        with pytest.raises(UsageError, match="NUL"):
            await enqueue(store, "s", "Hello.", agent="\0")
        with pytest.raises(UsageError, match="no mailboxes"):
            mailboxes_of(Fence(store))
        assert await mailboxes_of(store).mail("s") == []


async def test_a_file_from_before_there_were_mailboxes_is_migrated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "sessions.db"
    with monkeypatch.context() as patch:
        patch.setattr(_sql, "MIGRATIONS", _sql.MIGRATIONS[:2])
        async with SQLiteStore(path).open():
            pass
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("INSERT INTO agentloop_sessions VALUES ('s', 'Old', 1, 1, 0, '')")
    async with SQLiteStore(path).open() as store:
        assert await state_of(store) == ("", "")
        assert await sessions_to_drive(store) == []
        await store.append("s", [started(1)])
        assert await state_of(store) == (UNFINISHED, "ann")
        await mailboxes_of(store).post("t", Mail("m", "prompt", b"{}"))
        assert await sessions_to_drive(store) == ["s", "t"]
