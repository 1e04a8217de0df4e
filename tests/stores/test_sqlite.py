"""A file of SQLite: what goes wrong with files, who waits for whom, and what is written together."""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from threading import Event
from typing import cast

import pytest
import trio
import trio.testing

from agentloop import Agent
from agentloop.errors import InternalError, SequenceError, StoreError, UsageError
from agentloop.journal import OpenStore, Record
from agentloop.stores import SQLiteStore, _replay, _sql, sqlite, stored_session
from agentloop.stores._group_commit import MAX_BATCH, Write
from agentloop.stores.sqlite import APPLICATION_ID, connect
from agentloop.testing import ScriptedModel, calls
from tests.stores.places import record, records

pytestmark = pytest.mark.real_clock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions.db"


async def open_once(path: Path) -> None:
    async with SQLiteStore(path, busy_seconds=0.05).open():
        pass


def numbers(path: Path, pragma: str) -> int:
    with closing(sqlite3.connect(path)) as db:
        return int(db.execute(f"PRAGMA {pragma}").fetchone()[0])


# ------------------------------------------------------------------------ what cannot be opened


@pytest.mark.parametrize("name", ["", ":memory:", "file:x?mode=memory"])
def test_what_is_no_path_is_no_path(name: str) -> None:
    with pytest.raises(UsageError, match="not the path of a file"):
        SQLiteStore(name)


def test_synchronous_is_a_choice_of_two(path: Path) -> None:
    with pytest.raises(UsageError, match="say 'normal' or 'full'"):
        SQLiteStore(path, synchronous="off")  # type: ignore[arg-type]


async def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"there is no folder .*/missing: create it") as caught:
        await open_once(tmp_path / "missing" / "sessions.db")
    assert str(tmp_path / "missing" / "sessions.db") in str(caught.value)


async def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="this is a folder: give the path of a file"):
        await open_once(tmp_path)


async def test_a_file_that_is_no_database_is_left_alone(path: Path) -> None:
    path.write_text("Dear diary, today I wrote far more than a hundred bytes. " * 20)
    before = path.read_bytes()
    with pytest.raises(StoreError, match="the file is not an SQLite database: give another path"):
        await open_once(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("made", ["CREATE TABLE diary (day)", "PRAGMA user_version=7", "PRAGMA application_id=7"])
async def test_another_programs_database_is_left_alone(path: Path, made: str) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute(made)
    before = path.read_bytes()
    with pytest.raises(StoreError, match="the database of another program"):
        await open_once(path)
    assert path.read_bytes() == before


async def test_a_file_from_a_newer_version_is_left_alone(path: Path) -> None:
    await open_once(path)
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version=99")
    before = path.read_bytes()
    with pytest.raises(
        StoreError, match=r"newer agentloop: its format is version 99.*pip install -U agentloop-trio"
    ) as caught:
        await open_once(path)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == before


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """Makes the test run without root's rights, and gives a folder of its own."""
    folder = Path(tempfile.mkdtemp(prefix="agentloop-unprivileged-"))
    is_root = os.geteuid() == 0
    if is_root:
        os.chown(folder, 65534, 65534)
        os.seteuid(65534)
    try:
        yield folder
    finally:
        if is_root:
            os.seteuid(0)
        folder.chmod(0o700)
        shutil.rmtree(folder)


async def test_a_file_that_may_not_be_written_to_is_named(unprivileged: Path) -> None:
    path = unprivileged / "sessions.db"
    await open_once(path)
    path.chmod(0o400)
    with pytest.raises(StoreError, match="cannot be written to: give this user the right to write") as caught:
        await open_once(path)
    assert str(path) in str(caught.value)


async def test_a_file_that_may_not_be_read_is_named(unprivileged: Path) -> None:
    path = unprivileged / "sessions.db"
    await open_once(path)
    path.chmod(0o000)
    with pytest.raises(StoreError, match="may not be opened: give this user the right to read and write"):
        await open_once(path)


async def test_a_folder_without_write_permission_is_a_store_error(unprivileged: Path) -> None:
    unprivileged.chmod(0o500)
    with pytest.raises(StoreError, match="may not be opened: give this user the right to read and write"):
        await open_once(unprivileged / "sessions.db")


async def test_a_folder_without_search_permission_is_a_store_error(unprivileged: Path) -> None:
    (unprivileged / "inner").mkdir()
    unprivileged.chmod(0o000)
    with pytest.raises(StoreError, match="may not be opened: give this user the right to read and write"):
        await open_once(unprivileged / "inner" / "sessions.db")


# -------------------------------------------------------------------------------- versions


async def test_an_empty_file_is_of_version_zero_and_becomes_ours(path: Path) -> None:
    path.touch()
    async with SQLiteStore(path).open() as store:
        await store.append("s", records(1, 1))
    assert numbers(path, "user_version") == len(_sql.MIGRATIONS)
    assert numbers(path, "application_id") == APPLICATION_ID


async def test_a_file_of_version_zero_that_was_made_by_hand_is_migrated(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA application_id={APPLICATION_ID}")
    assert numbers(path, "user_version") == 0
    async with SQLiteStore(path).open() as store:
        await store.append("s", records(1, 1))
    assert numbers(path, "user_version") == len(_sql.MIGRATIONS)


def add_colour(dialect: _sql.Dialect) -> list[str]:
    return [
        f"ALTER TABLE agentloop_sessions ADD COLUMN colour {dialect.text} NOT NULL DEFAULT 'grey'",
        "UPDATE agentloop_sessions SET colour = 'blue' WHERE id = 's'",
    ]


async def test_migrating_a_file_of_an_older_version_preserves_its_records(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with SQLiteStore(path).open() as store:
        await store.append("s", records(1, 2))
    newest = len(_sql.MIGRATIONS)
    monkeypatch.setattr(_sql, "MIGRATIONS", (*_sql.MIGRATIONS, add_colour))
    async with SQLiteStore(path).open() as one, SQLiteStore(path).open():
        assert await one.read("s") == records(1, 2)
        await one.append("s", records(3, 3))
    assert numbers(path, "user_version") == newest + 1
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT colour FROM agentloop_sessions").fetchall() == [("blue",)]


async def test_a_file_with_a_row_for_each_record_is_migrated(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = [
        Record(1, "stream_started", b'{"message":"\xc3\xa9"}', "st1", "", 1.5),
        Record(2, "tool_call_finished", b"{}", "st1", 'a "key"', 1.5),
        Record(3, "message_committed", b'{"a":1}', "st1", "k", 1.5),
    ]
    with monkeypatch.context() as patch:
        patch.setattr(_sql, "MIGRATIONS", _sql.MIGRATIONS[:1])
        await open_once(path)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("INSERT INTO agentloop_sessions VALUES ('s', '', 1, 1, 3, '')")
        db.executemany(
            "INSERT INTO agentloop_records VALUES ('s', ?, ?, ?, ?, ?, ?)",
            [(each.seq, each.kind, each.data.decode(), each.stream, each.key, each.at) for each in old],
        )
    async with SQLiteStore(path).open() as store:
        assert await store.read("s") == old
        assert await store.read("s", kinds=["message_committed"]) == old[2:]
        await store.append("s", records(4, 5))
        assert await store.read("s", after=2) == [old[2], *records(4, 5)]


async def test_records_of_one_write_share_a_row(path: Path) -> None:
    written = [Record(seq, f"kind{seq % 3}", b'{"a":%d}' % seq, "st1", "k" * (seq % 2), 1.5) for seq in range(1, 301)]
    async with SQLiteStore(path).open() as store:
        await store.append("s", written)
        with closing(sqlite3.connect(path)) as db:
            assert db.execute("SELECT seq FROM agentloop_records").fetchall() == [(128,), (256,), (300,)]
        for after, limit in ((0, 3), (126, 5), (127, 1), (128, 1), (299, 2), (300, 1), (0, 300)):
            assert await store.read("s", after=after, limit=limit) == written[after : after + limit]
        assert await store.read("s", kinds=["kind0"], after=200, limit=2) == [written[200], written[203]]
        await store.fork("s", "t", upto=200)
        assert await store.read("t") == written[:200]
        assert [info.id for info in await store.sessions(search="1")] == []


async def test_a_record_with_a_separator_of_records_is_refused(path: Path) -> None:
    async with SQLiteStore(path).open() as store:
        with pytest.raises(UsageError, match=r"record 2 .* is not JSON: it has the control character U\+001E"):
            await store.append("s", [record(1), Record(2, "said", b'"a\x1eb"')])
        assert await store.info("s") is None


async def test_a_migration_that_fails_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with SQLiteStore(path).open() as store:
        await store.append("s", records(1, 2))

    def fails(dialect: _sql.Dialect) -> list[str]:
        return [*add_colour(dialect), "INSERT INTO nowhere VALUES (1)"]

    with monkeypatch.context() as patch:
        patch.setattr(_sql, "MIGRATIONS", (*_sql.MIGRATIONS, fails))
        with pytest.raises(StoreError, match="no such table: nowhere"):
            await open_once(path)
    assert numbers(path, "user_version") == len(_sql.MIGRATIONS)
    async with SQLiteStore(path).open() as store:
        assert await store.read("s") == records(1, 2)


async def test_many_may_open_a_new_file_at_once(path: Path) -> None:
    async def add(number: int) -> None:
        async with SQLiteStore(path).open() as store:
            await store.append(f"s{number}", records(1, 1))

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(add, number)
    async with SQLiteStore(path).open() as store:
        assert len(await store.sessions()) == 8


# -------------------------------------------------------------------------------- bad days


def with_pragma(monkeypatch: pytest.MonkeyPatch, pragma: str) -> list[sqlite3.Connection]:
    """Gives the connections that are opened from now on; each has ``pragma`` set."""
    connections: list[sqlite3.Connection] = []

    def connect_with_pragma(*args: object, **kwargs: object) -> sqlite3.Connection:
        db = connect(*args, **kwargs)  # type: ignore[arg-type]
        db.execute(pragma)
        connections.append(db)
        return db

    monkeypatch.setattr(sqlite, "connect", connect_with_pragma)
    return connections


async def test_a_full_disk_keeps_what_was_kept_and_takes_more_when_there_is_room(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await open_once(path)
    connections = with_pragma(monkeypatch, "PRAGMA max_page_count=20")
    async with SQLiteStore(path).open() as store:
        await store.append("s", records(1, 3))
        with pytest.raises(StoreError, match="the disk is full: free some space") as caught:
            await store.append("s", [record(4), record(5, "x" * 1_000_000)])
        assert str(path) in str(caught.value)
        assert isinstance(caught.value.__cause__, sqlite3.OperationalError)
        assert await store.read("s") == records(1, 3)
        for db in connections:
            db.execute("PRAGMA max_page_count=100000")
        await store.append("s", records(4, 5))
        assert await store.read("s") == records(1, 5)


async def test_one_record_that_is_too_much_for_the_disk_does_not_fail_the_others(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await open_once(path)
    with_pragma(monkeypatch, "PRAGMA max_page_count=40")
    failed: list[str] = []
    async with SQLiteStore(path).open() as store:

        async def add(session: str, text: str) -> None:
            try:
                await store.append(session, [record(1, text)])
            except StoreError:
                failed.append(session)

        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(add, f"small{number}", "x")
            nursery.start_soon(add, "large", "x" * 1_000_000)
        assert failed == ["large"]
        assert len(await store.sessions()) == 8


async def test_a_locked_file_is_waited_for_and_then_a_store_error(path: Path) -> None:
    async with SQLiteStore(path, busy_seconds=0.05).open() as store:
        await store.append("s", records(1, 1))
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreError, match="another program has locked it for too long") as caught:
                await store.append("s", records(2, 2))
            assert str(path) in str(caught.value)
            # Whoever only reads is in nobody's way.
            assert await store.read("s") == records(1, 1)
            with pytest.raises(StoreError, match="another program has locked it for too long"):
                await open_once(path)
            other.execute("ROLLBACK")
        await store.append("s", records(2, 2))


async def test_a_damaged_file_is_named_and_what_can_be_done(path: Path) -> None:
    async with SQLiteStore(path).open() as store:
        await store.append("s", [record(seq, "x" * 500) for seq in range(1, 200)])
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xa5" * (len(whole) - 4096))
    with pytest.raises(StoreError, match=r"the file is damaged: restore a backup, or .*\.recover") as caught:
        async with SQLiteStore(path).open() as store:
            await store.read("s")
    assert str(path) in str(caught.value)


async def test_a_number_beyond_the_range_of_sqlite_is_a_store_error(path: Path) -> None:
    async with SQLiteStore(path).open() as store:
        with pytest.raises(StoreError, match="OverflowError"):
            await store.read("s", after=2**70)


# --------------------------------------------------------------------- together, and cancelled


class Disk:
    """Makes every transaction wait until the test lets it go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_open = Event()
        self.is_open.set()
        self.batches: list[int] = []
        self.at_once = self.most_at_once = 0
        self.began = Event()
        commit = sqlite._Connection.commit
        disk = self

        def slow(self: sqlite._Connection, writes: Sequence[Write]) -> object:
            disk.batches.append(len(writes))
            disk.began.set()
            disk.at_once += 1
            disk.most_at_once = max(disk.most_at_once, disk.at_once)
            assert disk.is_open.wait(timeout=10)
            try:
                return commit(self, writes)
            finally:
                disk.at_once -= 1

        monkeypatch.setattr(sqlite._Connection, "commit", slow)

    async def hang(self, nursery: trio.Nursery, store: OpenStore) -> None:
        """Stop in the middle of adding a session."""
        self.is_open.clear()
        self.began.clear()
        nursery.start_soon(store.append, "first", records(1, 1))
        await trio.to_thread.run_sync(self.began.wait, 10)


async def test_what_waits_goes_into_one_transaction(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch)
    async with SQLiteStore(path).open() as store, trio.open_nursery() as nursery:
        await disk.hang(nursery, store)
        for number in range(64):
            nursery.start_soon(store.append, f"s{number}", records(1, 1))
        await trio.testing.wait_all_tasks_blocked()
        disk.is_open.set()
    assert disk.batches == [1, 64]


async def test_writes_of_one_moment_share_a_transaction(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch)

    async def add(session: str) -> None:
        for seq in range(1, 4):
            await store.append(session, records(seq, seq))

    async with SQLiteStore(path).open() as store, trio.open_nursery() as nursery:
        for number in range(16):
            nursery.start_soon(add, f"s{number}")
    # And so do those who were told at one moment, and write again.
    assert disk.batches == [16, 16, 16]


async def test_a_later_write_does_not_overtake_an_earlier_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch)

    async def write_and_write_again() -> None:
        await store.append("other", records(1, 1))
        # At once, while somebody waits since before.
        await store.append("s", records(2, 2))

    async with SQLiteStore(path).open() as store, trio.open_nursery() as nursery:
        disk.is_open.clear()
        nursery.start_soon(write_and_write_again)
        await trio.to_thread.run_sync(disk.began.wait, 10)
        nursery.start_soon(store.append, "s", records(1, 1))
        await trio.testing.wait_all_tasks_blocked()
        disk.is_open.set()


async def test_there_is_one_transaction_at_a_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch)

    async def write(session: str, pause: int) -> None:
        for seq in range(1, 11):
            await store.append(session, records(seq, seq))
            for _ in range(pause):
                await trio.lowlevel.checkpoint()

    async with SQLiteStore(path).open() as store, trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(write, f"s{number}", number)
    assert sum(disk.batches) == 80
    assert disk.most_at_once == 1


async def test_no_writer_waits_for_ever_if_no_thread_can_be_started(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    told: list[InternalError] = []
    with pytest.raises(RuntimeError, match="can't start new thread"):
        async with SQLiteStore(path).open() as store:

            async def add(session: str) -> None:
                try:
                    await store.append(session, records(1, 1))
                except InternalError as error:
                    told.append(error)

            with monkeypatch.context() as patch:
                patch.setattr(trio.lowlevel, "start_thread_soon", refuse)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(add, "s")
                    nursery.start_soon(add, "t")
            await trio.sleep_forever()
    assert len(told) == 2


async def test_one_refusal_in_a_transaction_is_its_callers_only(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch)
    refused: list[int] = []
    async with SQLiteStore(path).open() as store:
        async with trio.open_nursery() as nursery:
            await disk.hang(nursery, store)

            async def add(number: int) -> None:
                try:
                    await store.append("s", [record(1, f"by {number}")])
                except SequenceError:
                    refused.append(number)

            for number in range(5):
                nursery.start_soon(add, number)
            nursery.start_soon(store.append, "other", records(1, 1))
            await trio.testing.wait_all_tasks_blocked()
            disk.is_open.set()
        assert disk.batches == [1, 6]
        assert len(refused) == 4
        assert len(await store.read("s")) == len(await store.read("other")) == 1


async def test_only_so_much_goes_into_one_transaction(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch)
    async with SQLiteStore(path).open() as store, trio.open_nursery() as nursery:
        await disk.hang(nursery, store)
        for number in range(2 * MAX_BATCH + 10):
            nursery.start_soon(store.append, f"s{number}", records(1, 1))
        await trio.testing.wait_all_tasks_blocked()
        disk.is_open.set()
    assert disk.batches == [1, MAX_BATCH, MAX_BATCH, 10]


async def test_a_write_that_is_cancelled_in_the_queue_has_no_effect(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    async with SQLiteStore(path).open() as store:
        async with trio.open_nursery() as nursery:
            await disk.hang(nursery, store)
            with trio.move_on_after(0.01) as scope:
                await store.append("s", records(1, 1))
            # At once, although the disk still hangs.
            assert scope.cancelled_caught
            disk.is_open.set()
        assert await store.info("s") is None
        assert await store.info("first") is not None


async def test_a_write_that_is_cancelled_during_the_transaction_returns_after_the_commit(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    async with SQLiteStore(path).open() as store:
        async with trio.open_nursery() as nursery:
            await disk.hang(nursery, store)
            nursery.cancel_scope.cancel()
            await trio.lowlevel.cancel_shielded_checkpoint()
            assert len(nursery.child_tasks) == 1
            disk.is_open.set()
        # What came of it went to the caller, rather than a cancellation.
        assert not nursery.cancel_scope.cancelled_caught
        assert await store.read("first") == records(1, 1)


async def test_a_lease_that_was_got_while_being_cancelled_is_given(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else nobody could give it back."""
    disk = Disk(monkeypatch)
    leases: list[object] = []
    async with SQLiteStore(path).open() as store:

        async def acquire() -> None:
            leases.append(await store.acquire("s", "me", seconds=60))

        disk.is_open.clear()
        disk.began.clear()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(acquire)
            await trio.to_thread.run_sync(disk.began.wait, 10)
            nursery.cancel_scope.cancel()
            disk.is_open.set()
    assert len(leases) == 1


async def test_leaving_the_block_writes_what_was_given(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch)
    async with trio.open_nursery() as nursery, SQLiteStore(path).open() as store:
        await disk.hang(nursery, store)
        for number in range(5):
            nursery.start_soon(store.append, f"s{number}", records(1, 1))  # noqa: ASYNC111  # it is what this is about
        await trio.testing.wait_all_tasks_blocked()
        disk.is_open.set()
    async with SQLiteStore(path).open() as store:
        assert len(await store.sessions()) == 6


async def test_a_writer_that_has_a_bug_leaves_nobody_waiting(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(sqlite._Connection, "commit", fail)
    told: list[InternalError] = []
    with pytest.raises(ZeroDivisionError):
        async with SQLiteStore(path).open() as store:
            try:
                await store.append("s", records(1, 1))
            except InternalError as error:
                told.append(error)
            await trio.sleep_forever()
    assert len(told) == 1


async def test_nothing_stays_beside_the_file(path: Path) -> None:
    async with SQLiteStore(path).open() as store:
        await store.append("s", records(1, 3))
    assert [each.name for each in path.parent.iterdir()] == [path.name]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
async def test_a_new_file_and_those_beside_it_are_private(path: Path) -> None:
    umask = os.umask(0o022)
    try:
        async with SQLiteStore(path).open() as store:
            await store.append("s", records(1, 3))
            modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    finally:
        os.umask(umask)
    assert modes == {path.name: 0o600, f"{path.name}-wal": 0o600, f"{path.name}-shm": 0o600}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
async def test_a_new_file_behind_a_link_is_private(path: Path) -> None:
    path.with_name("link").symlink_to(path)
    umask = os.umask(0o022)
    try:
        async with SQLiteStore(path.with_name("link")).open() as store:
            await store.append("s", records(1, 3))
    finally:
        os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", ["a\0b", "a\ud800b"], ids=["nul", "surrogate"])
def test_a_name_that_no_file_can_have_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="is not the path of a file"):
        SQLiteStore(name)


async def test_a_file_that_is_there_keeps_its_mode(path: Path) -> None:
    async with SQLiteStore(path).open():
        pass
    path.chmod(0o660)
    async with SQLiteStore(path).open() as store:
        await store.append("s", records(1, 3))
    assert path.stat().st_mode & 0o777 == 0o660


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps an open file in its place")
@pytest.mark.parametrize("how", ["removed", "replaced", "moved"])
async def test_a_file_that_is_removed_or_replaced_while_it_is_open_is_noticed(path: Path, how: str) -> None:
    async with SQLiteStore(path).open() as store:
        await store.append("s", records(1, 3))
        aside = path.with_name("aside")
        if how == "removed":
            path.unlink()
        elif how == "moved":
            path.rename(aside)
        else:
            path.rename(aside)
            shutil.copy(aside, path)
        with pytest.raises(StoreError, match="was removed or replaced while it was open"):
            await store.append("s", records(4, 5))
        with pytest.raises(StoreError, match="was removed or replaced while it was open"):
            await store.read("s")
        if how == "moved":
            aside.rename(path)
            await store.append("s", records(4, 5))


async def test_a_store_with_a_relative_path_stays_where_it_is(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    async with SQLiteStore(path.name).open() as store:
        await store.append("s", records(1, 3))
        monkeypatch.chdir("/")
        await store.append("s", records(4, 5))
        assert len(await store.read("s")) == 5


# ------------------------------------------------------------------------------ opening a session


class _Wrapped:
    """A store that a program has wrapped: what it has beyond `OpenStore` does not show."""

    def __init__(self, store: OpenStore) -> None:
        self.info, self.read = store.info, store.read


async def test_the_rows_of_a_file_lead_to_the_transcript_that_their_records_lead_to(tmp_path: Path) -> None:
    helper = Agent(ScriptedModel("Found [it].", repeat=True), name="helper")
    model = ScriptedModel(calls("helper", prompt="Look."), "Done.", repeat=True)
    agent = Agent(model, tools=[helper.as_tool()])
    path = tmp_path / "sessions.db"
    async with SQLiteStore(path).open() as store:
        async with stored_session(store, "s") as session:
            for _ in range(3):
                await agent.run("Go [on].", session=session)
            live = session.messages
        for wrapped in (store, cast("OpenStore", _Wrapped(store))):
            assert tuple((await _replay.load(wrapped, "s")).state.messages) == live
        # A text that is not UTF-8, which SQLite gives as bytes only, is said to be that record's fault either way.
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute(
                "UPDATE agentloop_records SET transcript = CAST(transcript || x'ff' AS TEXT) "
                "WHERE seq = (SELECT min(seq) FROM agentloop_records WHERE kinds LIKE '%\"message_committed\"%')"
            )
        errors: set[str] = set()
        for wrapped in (store, cast("OpenStore", _Wrapped(store))):
            with pytest.raises(StoreError, match=r"record \d+, 'message_committed', cannot be read") as caught:
                await _replay.load(wrapped, "s")
            errors.add(str(caught.value))
        assert len(errors) == 1
