"""SQL by way of SQLAlchemy: URLs, drivers, passwords, and files that are SQLiteStore's too."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import trio

from agentloop.errors import MissingExtraError, SequenceError, StoreError, UsageError
from agentloop.stores import SQLiteStore, _schema, _statements
from tests.stores.places import record, records
from tests.stores.postgres import _free_port

sa = pytest.importorskip("sqlalchemy")
SQLStore = pytest.importorskip("agentloop.stores.sql").SQLStore

pytestmark = pytest.mark.real_clock


@pytest.mark.parametrize("url", ["", "nonsense", "secret word: not a URL"])
def test_what_is_no_url_is_told_without_showing_it(url: str) -> None:
    with pytest.raises(UsageError, match="no URL of a database") as caught:
        SQLStore(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["mysql://me:secret@host/db", "postgresql+psycopg2://me:secret@host/db", "sqlite+aiosqlite:///x"]
)
def test_a_database_that_nobody_has_tried_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="sessions can be kept in 'postgresql://") as caught:
        SQLStore(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_a_database_without_a_file_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="no path of a file: give one, or use MemoryStore"):
        SQLStore(url)


@pytest.mark.parametrize("options", [{"connections": 0}, {"seconds": 0}])
def test_there_must_be_a_connection_and_some_time(options: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="must both be more than 0"):
        SQLStore("sqlite:///x", **options)


def test_the_password_is_not_told() -> None:
    pytest.importorskip("psycopg")
    assert SQLStore("postgresql://me:secret@host/db").place == "postgresql+psycopg://me:***@host/db"


def test_a_driver_that_is_missing_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingExtraError, match=r"me:\*\*\*@host/db needs .*'psycopg'.*agentloop-trio\[sql\]"):
        SQLStore("postgresql://me:secret@host/db")


def test_without_sqlalchemy_the_module_says_what_to_install() -> None:
    code = "import sys; sys.modules['sqlalchemy'] = None; import agentloop.stores, agentloop.stores.sql"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "MissingExtraError: A store in an SQL database needs" in done.stderr
    assert "pip install 'agentloop-trio[sql]'" in done.stderr


async def test_a_server_that_is_not_there_is_named_without_the_password() -> None:
    pytest.importorskip("psycopg")
    port = _free_port()
    with pytest.raises(StoreError, match="no connection: see whether the server runs") as caught:
        async with SQLStore(f"postgresql://me:secret@127.0.0.1:{port}/db", seconds=2).open():
            pass
    assert f"me:***@127.0.0.1:{port}/db" in str(caught.value)
    assert "secret" not in str(caught.value)


async def test_a_file_is_the_same_for_both_stores(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    async with SQLStore(f"sqlite:///{path}").open() as one, SQLiteStore(path).open() as other:
        await one.append("s", records(1, 1))
        await other.append("s", records(2, 2))
        lease = await one.acquire("s", "me", seconds=30)
        await other.append("s", records(3, 3), lease=lease)
        assert await one.read("s") == await other.read("s") == records(1, 3)


async def test_the_bad_days_of_a_file_are_told_as_by_the_other_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"there is no folder .*/missing: create it"):
        async with SQLStore(f"sqlite:///{tmp_path}/missing/x.db").open():
            pass
    (tmp_path / "text").write_text("no database " * 100)
    with pytest.raises(StoreError, match="this is no SQLite database"):
        async with SQLStore(f"sqlite:///{tmp_path}/text").open():
            pass
    path = tmp_path / "sessions.db"
    async with SQLStore(f"sqlite:///{path}", seconds=0.05).open() as store:
        await store.append("s", records(1, 1))
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreError, match="another program has locked it for too long"):
                await store.append("s", records(2, 2))
            assert await store.read("s") == records(1, 1)
            other.execute("ROLLBACK")
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version=99")
    with pytest.raises(StoreError, match="newer agentloop"):
        async with SQLStore(f"sqlite:///{path}").open():
            pass


async def test_more_tasks_than_connections_take_turns(tmp_path: Path) -> None:
    async with SQLStore(f"sqlite:///{tmp_path}/x.db", connections=2).open() as store:
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(store.append, f"s{number}", records(1, 1))
        assert len(await store.sessions()) == 20


async def test_whoever_is_cancelled_before_a_connection_is_free_has_done_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And whoever is cancelled after that is freed when it is done."""
    is_open, began, append = Event(), Event(), _statements.append

    def slow(*args: Any) -> None:
        began.set()
        assert is_open.wait(timeout=10)
        append(*args)

    monkeypatch.setattr(_statements, "append", slow)
    async with SQLStore(f"sqlite:///{tmp_path}/x.db", connections=1).open() as store:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.append, "first", records(1, 1))
            await trio.to_thread.run_sync(began.wait, 10)
            with trio.move_on_after(0.01) as scope:
                await store.append("s", records(1, 1))
            assert scope.cancelled_caught
            nursery.cancel_scope.cancel()
            is_open.set()
        assert not nursery.cancel_scope.cancelled_caught
        assert await store.info("s") is None
        assert await store.read("first") == records(1, 1)


# ----------------------------------------------------------------------------- PostgreSQL


async def test_postgres_keeps_the_tables_of_an_older_version(
    postgres: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres()
    async with SQLStore(url).open() as store:
        await store.append("s", records(1, 2))

    def add_colour(dialect: _schema.Dialect) -> list[str]:
        return [f"ALTER TABLE agentloop_sessions ADD COLUMN colour {dialect.text} NOT NULL DEFAULT 'grey'"]

    with monkeypatch.context() as patch:
        patch.setattr(_schema, "STEPS", (*_schema.STEPS, add_colour))
        async with SQLStore(url).open() as one, SQLStore(url).open():
            assert await one.read("s") == records(1, 2)
            await one.append("s", records(3, 3))
    with pytest.raises(
        StoreError, match=r"newer agentloop: its format is version 2.*pip install -U agentloop-trio"
    ) as caught:
        async with SQLStore(url).open():
            pass
    assert "a-secret" not in str(caught.value)


async def test_postgres_can_be_opened_for_the_first_time_by_many_at_once(postgres: Callable[[], str]) -> None:
    url = postgres()

    async def add(number: int) -> None:
        async with SQLStore(url).open() as store:
            await store.append(f"s{number}", records(1, 1))

    async with trio.open_nursery() as nursery:
        for number in range(6):
            nursery.start_soon(add, number)
    async with SQLStore(url).open() as store:
        assert len(await store.sessions()) == 6


async def test_postgres_says_when_something_takes_too_long(postgres: Callable[[], str]) -> None:
    url = postgres()
    async with SQLStore(url, seconds=0.3).open() as store:
        await store.append("s", records(1, 1))
        engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"), poolclass=sa.pool.NullPool)
        with engine.begin() as connection:
            connection.exec_driver_sql("LOCK TABLE agentloop_sessions")
            with pytest.raises(StoreError, match="it took too long"):
                await store.append("s", records(2, 2))
        await store.append("s", records(2, 2))


async def test_postgres_is_reached_again_when_its_connections_were_cut(postgres: Callable[[], str]) -> None:
    url = postgres()
    async with SQLStore(url).open() as store:
        await store.append("s", records(1, 1))
        engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"), poolclass=sa.pool.NullPool)
        with engine.begin() as connection:
            connection.exec_driver_sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE pid <> pg_backend_pid() AND usename = 'tester'"
            )
        await store.append("s", records(2, 2))
        assert await store.read("s") == records(1, 2)


async def test_postgres_says_when_the_tables_are_gone_or_may_not_be_made(postgres: Callable[[], str]) -> None:
    url = postgres()
    engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"), poolclass=sa.pool.NullPool)
    async with SQLStore(url).open() as store:
        with engine.begin() as connection:
            connection.exec_driver_sql("DROP TABLE agentloop_records")
        with pytest.raises(StoreError, match="the tables are gone"):
            await store.read("s")
    with pytest.raises(
        StoreError, match=r"no connection: see .* whether the URL is right .*\"nowhere\" does not exist"
    ):
        async with SQLStore(url.replace("/postgres?", "/nowhere?")).open():
            pass
    with engine.begin() as connection:
        connection.exec_driver_sql("DO $$ BEGIN CREATE ROLE guest LOGIN; EXCEPTION WHEN duplicate_object THEN END $$")
    with pytest.raises(StoreError, match="grant"):
        async with SQLStore(postgres().replace("tester:", "guest:")).open():
            pass


async def test_of_postgres_clients_in_each_others_way_one_adds_each_number(postgres: Callable[[], str]) -> None:
    url = postgres()
    wins: list[int] = []
    async with SQLStore(url).open() as one, SQLStore(url).open() as other:

        async def add(number: int) -> None:
            for seq in range(1, 11):
                try:
                    await (one, other)[number % 2].append("s", [record(seq, f"by {number}")])
                except SequenceError:
                    pass
                else:
                    wins.append(seq)

        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(add, number)
        assert sorted(wins) == [each.seq for each in await one.read("s")]
