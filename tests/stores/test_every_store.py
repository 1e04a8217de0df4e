"""What `agentloop.journal` says, of every store."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import trio

from agentloop.errors import LeaseLostError, SequenceError, SessionLeasedError, StoreError, UsageError
from agentloop.journal import Lease, Record
from agentloop.stores._leases import MAX_LEASE_SECONDS
from tests.stores.places import Place, record, records

pytestmark = pytest.mark.real_clock


async def test_appended_records_are_read_in_order_and_unchanged(place: Place) -> None:
    added = [record(1, 'näïve "quotes"\n😀'), record(2), Record(3, "kind", b" {} ")]
    async with place.store().open() as store:
        await store.append("s", added[:1])
        await store.append("s", added[1:])
        assert await store.read("s") == added


async def test_appended_records_are_there_when_the_store_is_opened_next(place: Place) -> None:
    async with place.store().open() as store:
        await store.append("s", records(1, 3))
    async with place.store().open() as store:
        assert await store.read("s") == records(1, 3)


async def test_appended_records_are_there_for_other_openings_of_the_store(place: Place) -> None:
    async with place.store().open() as one, place.store().open() as other:
        await one.append("s", records(1, 1))
        await other.append("s", records(2, 2))
        assert await one.read("s") == await other.read("s") == records(1, 2)


async def test_reading_begins_after_a_number_and_ends_at_a_limit(place: Place) -> None:
    async with place.store().open() as store:
        await store.append("s", records(1, 9))
        assert await store.read("s", after=4) == records(5, 9)
        assert await store.read("s", after=4, limit=2) == records(5, 6)
        assert await store.read("s", after=9) == []
        assert await store.read("s", limit=0) == []


async def test_only_records_of_some_kinds_are_read_and_counted(place: Place) -> None:
    added = [Record(seq, ("said", "done", "done", "told")[seq % 4], b"{}") for seq in range(1, 21)]
    async with place.store().open() as store:
        await store.append("s", added)

        async def read(*kinds: str, after: int = 0, limit: int | None = None) -> list[int]:
            found = await store.read("s", after=after, limit=limit, kinds=kinds)
            assert all(each == added[each.seq - 1] for each in found)
            return [each.seq for each in found]

        assert await read("told") == [3, 7, 11, 15, 19]
        assert await read("told", "said", "told", "unheard of") == [3, 4, 7, 8, 11, 12, 15, 16, 19, 20]
        assert await read("told", after=3) == [7, 11, 15, 19]
        assert await read("told", "said", after=4, limit=3) == [7, 8, 11]
        assert await read("told", limit=0) == []
        assert await read("TOLD") == await read("tol_") == await read("") == []
        assert await read() == []
        assert await store.read("s", kinds={"told", "said", "done"}) == added
        assert await store.read("s", kinds=None) == added
        assert await store.read("t", kinds=("told",)) == []


async def test_kinds_are_several_and_no_text(place: Place) -> None:
    """Its letters would all be kinds, of which there are no records."""
    async with place.store().open() as store:
        await store.append("s", records(1, 1))
        with pytest.raises(
            UsageError, match=r"kinds='said' is one string: give a collection of them, such as \('said',\)"
        ):
            await store.read("s", kinds="said")
        with pytest.raises(UsageError, match="NUL"):
            await store.read("s", kinds=["a\0b"])


async def test_a_session_that_there_is_not_has_no_records(place: Place) -> None:
    async with place.store().open() as store:
        assert await store.read("nobody") == []
        assert await store.answers("nobody") == {}
        assert await store.info("nobody") is None


@pytest.mark.parametrize("first", [1, 2, 4])
async def test_a_number_that_is_not_the_next_is_refused(place: Place, first: int) -> None:
    async with place.store().open() as store:
        await store.append("s", records(1, 2))
        with pytest.raises(SequenceError, match="its last record is number 2: another writer has changed it"):
            await store.append("s", records(first, first + 1))
        assert await store.read("s") == records(1, 2)


async def test_a_new_session_begins_with_number_one(place: Place) -> None:
    async with place.store().open() as store:
        with pytest.raises(SequenceError, match="the session does not exist"):
            await store.append("s", records(2, 2))
        assert await store.info("s") is None


async def test_records_with_gaps_are_the_callers_mistake(place: Place) -> None:
    async with place.store().open() as store:
        with pytest.raises(UsageError, match="number 3 follows 1"):
            await store.append("s", [record(1), record(3)])
        assert await store.info("s") is None


async def test_nothing_to_add_adds_nothing(place: Place) -> None:
    async with place.store().open() as store:
        await store.append("s", [])
        assert await store.info("s") is None


@pytest.mark.parametrize(
    "bad",
    [Record(1, "k", b"\xff"), Record(1, "k", b'"\0"'), Record(1, "a\0b", b"{}"), Record(1, "k", b"{}", key="\ud800")],
)
async def test_no_store_takes_records_that_some_database_cannot_save(place: Place, bad: Record) -> None:
    async with place.store().open() as store:
        with pytest.raises(UsageError, match="record 1 for session 's'"):
            await store.append("s", [bad])
        assert await store.info("s") is None


async def test_names_that_some_database_could_not_keep_no_store_takes(place: Place) -> None:
    async with place.store().open() as store:
        await store.append("s", records(1, 1))
        for bad in ("", "a\0b"):
            with pytest.raises(UsageError):
                await store.append(bad, records(1, 1))
            with pytest.raises(UsageError):
                await store.acquire(bad, "me", seconds=1)
            with pytest.raises(UsageError):
                await store.acquire("s", bad, seconds=1)
            with pytest.raises(UsageError):
                await store.answer("s", bad, b"{}")
            with pytest.raises(UsageError):
                await store.fork("s", bad)
        with pytest.raises(UsageError):
            await store.rename("s", "a\0b")
        with pytest.raises(UsageError):
            await store.append("t", records(1, 1), parent="a\0b")
        with pytest.raises(UsageError):
            await store.answer("s", "q", b"\xff")


async def test_large_records_are_kept(place: Place) -> None:
    large = record(1, "x" * 3_000_000)
    async with place.store().open() as store:
        await store.append("s", [large])
        assert await store.read("s") == [large]


# ------------------------------------------------------------------------------ answers


async def test_a_question_is_answered_once(place: Place) -> None:
    async with place.store().open() as one, place.store().open() as other:
        await one.append("s", records(1, 1))
        assert await one.answer("s", "q1", b'"yes"')
        assert not await other.answer("s", "q1", b'"no"')
        assert await other.answer("s", "q2", b'"no"')
        assert await one.answers("s") == {"q1": b'"yes"', "q2": b'"no"'}


async def test_of_many_answers_at_once_one_is_the_first(place: Place) -> None:
    wins: list[int] = []
    async with place.store().open() as one, place.store().open() as other:
        await one.append("s", records(1, 1))

        async def answer(number: int) -> None:
            if await (one, other)[number % 2].answer("s", "q", str(number).encode()):
                wins.append(number)

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(answer, number)
        [winner] = wins
        assert await one.answers("s") == {"q": str(winner).encode()}


async def test_an_answer_needs_no_lease(place: Place) -> None:
    async with place.store().open() as store:
        await store.append("s", records(1, 1))
        await store.acquire("s", "somebody", seconds=60)
        assert await store.answer("s", "q", b"1")


async def test_an_answer_needs_a_session(place: Place) -> None:
    async with place.store().open() as store:
        with pytest.raises(StoreError, match="there is no session 's'"):
            await store.answer("s", "q", b"1")
        assert await store.answers("s") == {}


# ------------------------------------------------------------------------------- leases


async def test_one_holder_at_a_time(place: Place) -> None:
    async with place.store().open() as one, place.store().open() as other:
        lease = await one.acquire("s", "the first", seconds=30)
        assert lease == Lease("s", "the first", 1, place.time.now + 30)
        with pytest.raises(SessionLeasedError, match="held by the first") as caught:
            await other.acquire("s", "the second", seconds=30)
        assert (caught.value.holder, caught.value.expires) == ("the first", lease.expires)
        await other.acquire("t", "the second", seconds=30)


async def test_a_lease_that_has_run_out_can_be_taken_over(place: Place) -> None:
    async with place.store().open() as one, place.store().open() as other:
        old = await one.acquire("s", "the first", seconds=30)
        place.time.now += 30
        new = await other.acquire("s", "the second", seconds=30)
        assert new.token > old.token
        with pytest.raises(LeaseLostError, match="the second holds it now"):
            await one.append("s", records(1, 1), lease=old)
        with pytest.raises(LeaseLostError, match="the second holds it now"):
            await one.renew(old, seconds=30)
        await one.release(old)
        await other.append("s", records(1, 1), lease=new)
        assert await one.read("s") == records(1, 1)


async def test_an_expired_lease_is_valid_until_another_holder_acquires_it(place: Place) -> None:
    async with place.store().open() as store:
        lease = await store.acquire("s", "me", seconds=30)
        place.time.now += 1000
        await store.append("s", records(1, 1), lease=lease)
        renewed = await store.renew(lease, seconds=30)
        assert renewed == Lease("s", "me", lease.token, place.time.now + 30)
        with pytest.raises(SessionLeasedError):
            await store.acquire("s", "you", seconds=30)


async def test_a_lease_that_was_renewed_runs_from_then(place: Place) -> None:
    async with place.store().open() as store:
        lease = await store.acquire("s", "me", seconds=30)
        place.time.now += 20
        await store.renew(lease, seconds=30)
        place.time.now += 20
        with pytest.raises(SessionLeasedError):
            await store.acquire("s", "you", seconds=30)
        await store.append("s", records(1, 1), lease=lease)


async def test_a_clock_that_is_set_back_takes_no_lease_from_anybody(place: Place) -> None:
    async with place.store().open() as store:
        lease = await store.acquire("s", "me", seconds=30)
        place.time.now -= 100_000
        await store.append("s", records(1, 1), lease=lease)
        renewed = await store.renew(lease, seconds=30)
        with pytest.raises(SessionLeasedError):
            await store.acquire("s", "you", seconds=30)
        place.time.now += 31
        assert (await store.acquire("s", "you", seconds=30)).token > renewed.token


async def test_a_lease_that_was_given_back_is_free_and_of_no_use(place: Place) -> None:
    async with place.store().open() as store:
        old = await store.acquire("s", "me", seconds=30)
        await store.release(old)
        with pytest.raises(LeaseLostError, match="no process holds it now"):
            await store.append("s", records(1, 1), lease=old)
        with pytest.raises(LeaseLostError, match="no process holds it now"):
            await store.renew(old, seconds=30)
        await store.release(old)
        assert (await store.acquire("s", "you", seconds=30)).token > old.token


async def test_a_leased_session_refuses_records_without_its_lease(place: Place) -> None:
    async with place.store().open() as store:
        await store.append("s", records(1, 1))
        await store.acquire("s", "me", seconds=30)
        with pytest.raises(SessionLeasedError, match="held by me"):
            await store.append("s", records(2, 2))
        place.time.now += 30
        await store.append("s", records(2, 2))


async def test_a_lease_is_on_one_session(place: Place) -> None:
    async with place.store().open() as store:
        await store.append("t", records(1, 1))
        lease = await store.acquire("s", "me", seconds=30)
        with pytest.raises(LeaseLostError, match="for session 's', not for 't'"):
            await store.append("t", records(2, 2), lease=lease)


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), MAX_LEASE_SECONDS * 2])
async def test_a_lease_lasts_for_some_time(place: Place, seconds: float) -> None:
    async with place.store().open() as store:
        with pytest.raises(UsageError, match="a lease cannot last"):
            await store.acquire("s", "me", seconds=seconds)
        lease = await store.acquire("s", "me", seconds=1)
        with pytest.raises(UsageError, match="a lease cannot last"):
            await store.renew(lease, seconds=seconds)


async def test_one_of_many_holders_acquires_a_session(place: Place) -> None:
    got: list[Lease] = []
    async with place.store().open() as one, place.store().open() as other:

        async def want(number: int) -> None:
            with suppress(SessionLeasedError):
                got.append(await (one, other)[number % 2].acquire("s", f"task {number}", seconds=60))

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(want, number)
    assert len(got) == 1


async def test_one_of_many_holders_takes_over_an_expired_lease(place: Place) -> None:
    got: list[Lease] = []
    async with place.store().open() as one, place.store().open() as other:
        await one.acquire("s", "the one before", seconds=30)
        place.time.now += 30

        async def want(number: int) -> None:
            with suppress(SessionLeasedError):
                got.append(await (one, other)[number % 2].acquire("s", f"task {number}", seconds=60))

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(want, number)
    assert len(got) == 1


async def test_when_a_lease_is_taken_over_its_old_holder_has_added_all_that_it_ever_will(place: Place) -> None:
    async with place.store().open() as one, place.store().open() as other:

        async def add(session: str, lease: Lease) -> None:
            with suppress(LeaseLostError):
                for seq in range(1, 20):
                    await one.append(session, records(seq, seq), lease=lease)

        async def take_over(session: str) -> None:
            await other.acquire(session, "new", seconds=30)
            seen[session] = len(await other.read(session))

        seen: dict[str, int] = {}
        names = [f"s{number}" for number in range(12)]
        leases = {name: await one.acquire(name, "old", seconds=30) for name in names}
        place.time.now += 30
        async with trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(add, name, leases[name])
                nursery.start_soon(take_over, name)
        assert seen == {name: len(await one.read(name)) for name in names}


async def test_one_of_many_writers_appends_each_number(place: Place) -> None:
    wins: list[int] = []
    async with place.store().open() as one, place.store().open() as other:

        async def add(number: int) -> None:
            for seq in range(1, 6):
                try:
                    await (one, other)[number % 2].append("s", [record(seq, f"by {number}")])
                except SequenceError:
                    pass
                else:
                    wins.append(seq)

        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(add, number)
        assert sorted(wins) == [each.seq for each in await one.read("s")] == list(range(1, len(wins) + 1))


async def test_leases_run_by_a_real_clock_too(place: Place) -> None:
    async with place.store_on_real_time().open() as store:
        lease = await store.acquire("s", "me", seconds=60)
        with pytest.raises(SessionLeasedError):
            await store.acquire("s", "you", seconds=60)
        await store.renew(lease, seconds=1e-6)
        assert (await store.acquire("s", "you", seconds=60)).holder == "you"


# ----------------------------------------------------------------- sessions, and their names


async def test_a_session_says_what_it_is(place: Place) -> None:
    async with place.store().open() as store:
        began = place.time.now
        await store.append("s", records(1, 3), parent="above")
        place.time.now += 5
        await store.append("s", records(4, 4), parent="another")
        info = await store.info("s")
        assert info is not None
        assert (info.id, info.title, info.records, info.parent) == ("s", "", 4, "above")
        assert (info.created, info.updated) == (began, began + 5)
        place.time.now -= 100
        await store.append("s", records(5, 5))
        later = await store.info("s")
        assert later is not None
        assert later.updated == began + 5


async def test_the_info_of_a_session_names_its_holder(place: Place) -> None:
    async with place.store().open() as one, place.store().open() as other:

        async def holders() -> list[str]:
            """Of s and of t, as one store says it, since the other says the same."""
            infos = [await store.info(id) for store in (one, other) for id in ("s", "t")]
            found = [info.holder for info in infos if info is not None]
            listed = {info.id: info.holder for info in await other.sessions()}
            searched = {info.id: info.holder for info in await one.sessions(search="record")}
            assert found == [listed["s"], listed["t"]] * 2
            assert searched == listed
            return found[:2]

        await one.append("s", records(1, 1))
        await one.append("t", records(1, 1))
        assert await holders() == ["", ""]
        lease = await one.acquire("s", "me", seconds=30)
        assert await holders() == ["me", ""]
        await other.acquire("t", "you", seconds=60)
        assert await holders() == ["me", "you"]
        place.time.now += 29
        assert await holders() == ["me", "you"]
        lease = await one.renew(lease, seconds=30)
        place.time.now += 29
        assert await holders() == ["me", "you"]
        place.time.now += 2
        # Both have run out, although one of them is still good.
        assert await holders() == ["", ""]
        lease = await one.renew(lease, seconds=30)
        assert await holders() == ["me", ""]
        await one.release(lease)
        assert await holders() == ["", ""]
        await other.acquire("s", "she", seconds=30)
        assert await holders() == ["she", ""]


async def test_to_have_a_session_does_not_make_one(place: Place) -> None:
    async with place.store().open() as store:
        lease = await store.acquire("s", "me", seconds=30)
        assert await store.info("s") is None
        assert await store.sessions() == []
        await store.append("s", records(1, 1), lease=lease)
        info = await store.info("s")
        assert info is not None
        assert info.holder == "me"


async def test_sessions_are_listed_the_last_first_and_page_by_page(place: Place) -> None:
    async with place.store().open() as store:
        for number in range(7):
            await store.append(f"s{number}", records(1, 1))
            # Three at the same time, twice.
            place.time.now += number % 3 == 2
        await store.append("s0", records(2, 2))
        found = []
        page = await store.sessions(limit=2)
        while page:
            found += [info.id for info in page]
            page = await store.sessions(limit=2, before=page[-1])
        assert found == ["s6", "s0", "s5", "s4", "s3", "s2", "s1"]
        assert [info.id for info in await store.sessions()] == found


async def test_sessions_are_found_by_what_they_say(place: Place) -> None:
    async with place.store().open() as store:
        await store.append("one", [record(1), record(2, 'He said "RAIN" in Zürich, 50% of it_')])
        await store.append("two", [record(1, "nothing", inner=[{"deep": "Drizzle"}, 7, None])])
        await store.append("three", [record(1, "sun")])
        await store.rename("three", "Rainy day")

        async def found(search: str) -> list[str]:
            return sorted(info.id for info in await store.sessions(search=search))

        assert await found("rain") == ["one", "three"]
        assert await found("ZÜRICH") == ["one"]
        assert await found('"rain"') == ["one"]
        assert await found("50%") == ["one"]
        assert await found("5_%") == []
        assert await found("it_") == ["one"]
        assert await found("drizzle") == ["two"]
        # Names of fields are not what anybody said.
        assert await found("deep") == []
        assert await found("7") == []
        assert [info.id for info in await store.sessions(search="rain", limit=1)] == ["three"]


async def test_a_search_looks_through_long_sessions_and_many(place: Place) -> None:
    async with place.store().open() as store:
        for number in range(120):
            await store.append(f"s{number}", [record(1, "chaff")])
        await store.append("s0", [record(seq, "Needle? no: chaff") for seq in range(2, 2400)])
        await store.append("s0", [record(2400, "NEEDLE!")])
        assert [info.id for info in await store.sessions(search="needle!")] == ["s0"]
        assert len(await store.sessions(search="chaff", limit=110)) == 110


async def test_sessions_are_listed_by_their_parent(place: Place) -> None:
    async with place.store().open() as store:
        await store.append("top", records(1, 1))
        await store.append("below", records(1, 1), parent="top")
        assert [info.id for info in await store.sessions(parent="top")] == ["below"]
        assert [info.id for info in await store.sessions(parent="")] == ["top"]
        assert [info.id for info in await store.sessions(parent="top", search="record")] == ["below"]


async def test_sessions_are_listed_by_the_beginning_of_their_ids(place: Place) -> None:
    async with place.store().open() as store:
        for id in ("ann/1", "Ann/2", "ann/3", "an", "a_n/4", "zoë/5"):
            await store.append(id, records(1, 1))
            place.time.now += 1

        async def ids(prefix: str, **only: Any) -> list[str]:
            return [info.id for info in await store.sessions(prefix=prefix, **only)]

        assert await ids("ann/") == ["ann/3", "ann/1"]
        assert await ids("a_n") == ["a_n/4"]
        assert await ids("zoë") == ["zoë/5"]
        assert await ids("%") == []
        assert await ids("ann/", search="record", limit=1) == ["ann/3"]
        assert await ids("ann/", before=await store.info("ann/3")) == ["ann/1"]


async def test_a_fork_has_the_records_up_to_a_number(place: Place) -> None:
    async with place.store().open() as store:
        await store.append("s", records(1, 5))
        await store.rename("s", "a title")
        await store.answer("s", "q", b"1")
        await store.fork("s", "all")
        await store.fork("s", "part", upto=2)
        await store.fork("s", "none", upto=0)
        await store.fork("s", "more", upto=99)
        assert await store.read("all") == await store.read("more") == records(1, 5)
        assert await store.read("part") == records(1, 2)
        assert await store.read("none") == []
        assert await store.answers("all") == {}
        info = await store.info("part")
        assert info is not None
        assert (info.title, info.records, info.parent) == ("a title", 2, "s")
        await store.append("part", records(3, 3))
        await store.append("none", records(1, 1))
        assert await store.read("s") == records(1, 5)


async def test_a_fork_ends_at_any_record_of_one_write(place: Place) -> None:
    """A database keeps the records of one write in one row."""
    written = [Record(seq, "said", b"%d" % seq, "s/1", "", 1.0) for seq in range(1, 6)]
    async with place.store().open() as store:
        await store.append("s", written)
        for number in range(6):
            await store.fork("s", f"part{number}", upto=number)
            assert await store.read(f"part{number}") == written[:number]


async def test_a_lease_that_was_released_writes_nothing(place: Place) -> None:
    async with place.store().open() as store:
        lease = await store.acquire("s", "me", seconds=60)
        await store.append("s", records(1, 1), lease=lease)
        await store.release(lease)
        with pytest.raises(LeaseLostError):
            await store.append("s", records(2, 2), lease=lease)
        assert await store.read("s") == records(1, 1)


async def test_a_fork_replaces_no_session(place: Place) -> None:
    async with place.store().open() as store:
        await store.append("s", records(1, 2))
        await store.append("t", records(1, 1))
        with pytest.raises(SequenceError, match="session 't' exists already"):
            await store.fork("s", "t")
        assert await store.read("t") == records(1, 1)
        with pytest.raises(StoreError, match="there is no session 'u'"):
            await store.fork("u", "v")


async def test_a_leased_session_can_be_forked(place: Place) -> None:
    async with place.store().open() as store:
        await store.append("s", records(1, 2))
        await store.acquire("s", "me", seconds=60)
        await store.fork("s", "t")
        await store.append("t", records(3, 3))


async def test_a_session_that_there_is_not_gets_no_title(place: Place) -> None:
    async with place.store().open() as store:
        with pytest.raises(StoreError, match="there is no session 's'"):
            await store.rename("s", "title")


async def test_a_deleted_session_is_gone_with_its_answers(place: Place) -> None:
    async with place.store().open() as store:
        await store.append("s", records(1, 2))
        await store.answer("s", "q", b"1")
        await store.delete("s")
        await store.delete("s")
        assert await store.info("s") is None
        assert await store.read("s") == []
        assert await store.answers("s") == {}
        assert await store.sessions() == []
        await store.append("s", records(1, 1))
        assert await store.answer("s", "q", b"2")


async def test_a_leased_session_is_not_deleted(place: Place) -> None:
    async with place.store().open() as store:
        await store.append("s", records(1, 2))
        await store.acquire("s", "me", seconds=30)
        with pytest.raises(SessionLeasedError):
            await store.delete("s")
        assert await store.read("s") == records(1, 2)


async def test_deleting_a_session_ends_its_earlier_leases(place: Place) -> None:
    async with place.store().open() as store:
        old = await store.acquire("s", "me", seconds=30)
        await store.append("s", records(1, 2), lease=old)
        place.time.now += 30
        await store.delete("s")
        with pytest.raises(LeaseLostError):
            await store.append("s", records(1, 1), lease=old)
        new = await store.acquire("s", "you", seconds=30)
        assert new.token > old.token
        with pytest.raises(LeaseLostError):
            await store.append("s", records(1, 1), lease=old)


# -------------------------------------------------------------------- cancelling, and closing


async def test_a_call_that_is_cancelled_at_once_has_no_effect(place: Place) -> None:
    async with place.store().open() as store:
        with trio.CancelScope() as scope:
            scope.cancel()
            await store.append("s", records(1, 1))
        assert scope.cancelled_caught
        assert await store.read("s") == []


async def test_a_store_that_is_closed_says_so(place: Place) -> None:
    async with place.store().open() as store:
        await store.append("s", records(1, 1))
    with pytest.raises(StoreError, match="closed: use it inside the block"):
        await store.append("s", records(2, 2))
    with pytest.raises(StoreError, match="closed: use it inside the block"):
        await store.read("s")


async def test_an_error_in_the_block_comes_out_as_it_was(place: Place) -> None:
    error = ValueError("mine")
    with pytest.raises(ValueError, match="mine") as caught:
        async with place.store().open():
            raise error
    assert caught.value is error
