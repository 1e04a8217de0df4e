"""PostgreSQL: URLs, passwords, errors, migrations, and connections that break."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from threading import Event

import pytest
import trio

from agentloop.errors import SequenceError, StoreError, UsageError
from agentloop.stores import _sql
from tests.stores.places import record, records
from tests.stores.postgres import _free_port

psycopg = pytest.importorskip("psycopg")
PostgresStore = pytest.importorskip("agentloop.stores.postgres").PostgresStore

pytestmark = pytest.mark.real_clock


@pytest.mark.parametrize(
    "url",
    [
        "",
        "nonsense",
        "secret word: not a URL",
        "host=secret dbname=db",
        "mysql://me:secret@host/db",
        "postgresql+psycopg://me:secret@host/db",
        "sqlite:///secret.db",
        "postgresql://me:secret@host/db?colour=grey",
    ],
)
def test_a_url_of_another_database_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(UsageError, match="not the URL of a PostgreSQL database: say 'postgresql://") as caught:
        PostgresStore(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("options", [{"connections": 0}, {"seconds": 0}])
def test_there_must_be_a_connection_and_some_time(options: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="must both be more than 0"):
        PostgresStore("postgresql://host/db", **options)


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("postgresql://me:secret@host:5433/db?sslmode=require", "postgresql://me:***@host:5433/db"),
        ("postgres://me:secret@one:1,two:2/db", "postgresql://me:***@one,two:1,2/db"),
        ("postgresql://m%40e:secret@[::1]/db", "postgresql://m%40e:***@::1/db"),
        ("postgresql:///db?host=/run/postgresql&user=me&password=secret", "postgresql://me:***@/run/postgresql/db"),
        ("postgresql://", "postgresql://"),
    ],
)
def test_messages_name_the_database_without_the_password(url: str, place: str) -> None:
    assert PostgresStore(url).place == place


@pytest.mark.parametrize("module", ["psycopg", "psycopg.pq"])
def test_without_psycopg_the_module_says_what_to_install(module: str) -> None:
    code = f"import sys; sys.modules[{module!r}] = None; import agentloop.stores, agentloop.stores.postgres"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "MissingExtraError: PostgresStore needs" in done.stderr
    assert "pip install 'agentloop-trio[postgres]'" in done.stderr


async def test_a_server_that_is_not_there_is_named_without_the_password() -> None:
    port = _free_port()
    with pytest.raises(StoreError, match="no connection: check that the server runs") as caught:
        async with PostgresStore(f"postgresql://me:secret@127.0.0.1:{port}/db", seconds=2).open():
            pass
    assert f"me:***@127.0.0.1:{port}/db" in str(caught.value)
    assert "secret" not in str(caught.value)


# ---------------------------------------------------------------------------- with a server


async def test_more_tasks_than_connections_take_turns(postgres: Callable[[], str]) -> None:
    url = postgres()
    async with PostgresStore(url, connections=2).open() as store:
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(store.append, f"s{number}", records(1, 1))
        assert len(await store.sessions()) == 20
        assert 1 <= sessions_on_server(url) <= 2


def sessions_on_server(url: str) -> int:
    """Connections to the server, other than the one that counts them."""
    with psycopg.connect(url) as connection:
        statement = (
            "SELECT count(*) FROM pg_stat_activity WHERE usename = 'tester' AND pid <> pg_backend_pid() "
            "AND backend_type = 'client backend'"
        )
        count: int = connection.execute(statement).fetchone()[0]
        return count


async def test_a_call_cancelled_before_a_connection_is_free_has_no_effect_and_a_later_one_completes(
    postgres: Callable[[], str],
) -> None:
    async with PostgresStore(postgres(), connections=1).open() as store:
        may_go_on, began = Event(), Event()

        def slow(tx: _sql.Transaction) -> None:
            began.set()
            assert may_go_on.wait(timeout=10)
            tx.write("INSERT INTO agentloop_answers VALUES ('first', 'q', '1')", {})

        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.write_in, slow)
            await trio.to_thread.run_sync(began.wait, 10)
            with trio.move_on_after(0.01) as scope:
                await store.append("s", records(1, 1))
            assert scope.cancelled_caught
            nursery.cancel_scope.cancel()
            may_go_on.set()
        assert not nursery.cancel_scope.cancelled_caught
        assert await store.info("s") is None
        assert await store.answers("first") == {"q": b"1"}


async def test_closing_waits_for_a_transaction_and_leaves_no_connection(postgres: Callable[[], str]) -> None:
    url = postgres()
    may_go_on, began = Event(), Event()

    def slow(tx: _sql.Transaction) -> None:
        began.set()
        assert may_go_on.wait(timeout=10)
        tx.write("INSERT INTO agentloop_answers VALUES ('first', 'q', '1')", {})

    async with trio.open_nursery() as nursery:
        async with PostgresStore(url).open() as store:
            nursery.start_soon(store.write_in, slow)  # noqa: ASYNC111
            await trio.to_thread.run_sync(began.wait, 10)
            may_go_on.set()
        with pytest.raises(StoreError, match="is closed: use it inside the block that opens it"):
            await store.read("s")
    while sessions_on_server(url):  # noqa: ASYNC110
        await trio.sleep(0.01)
    async with PostgresStore(url).open() as store:
        assert await store.answers("first") == {"q": b"1"}


async def test_a_refused_write_leaves_its_connection_usable(postgres: Callable[[], str]) -> None:
    async with PostgresStore(postgres(), connections=1).open() as store:
        await store.append("s", records(1, 1))
        with pytest.raises(SequenceError):
            await store.append("s", records(3, 3))
        await store.append("s", records(2, 2))
        assert await store.read("s") == records(1, 2)


async def test_text_that_looks_like_a_parameter_is_saved_as_it_is(postgres: Callable[[], str]) -> None:
    async with PostgresStore(postgres()).open() as store:
        saved = [record(1, "100 %s of %(session)s :session ::text '"), record(2, "\\ \u00e9 \U0001f600")]
        await store.append("s %s :id", saved)
        assert await store.read("s %s :id") == saved
        assert [info.id for info in await store.sessions(search="%(session)s :session")] == ["s %s :id"]


async def test_transactions_that_deadlock_are_tried_again(postgres: Callable[[], str]) -> None:
    """Two that lock two sessions in opposite order: the server ends one of them, which then runs after the other."""
    async with PostgresStore(postgres()).open() as store:
        await store.append("a", records(1, 1))
        await store.append("b", records(1, 1))
        runs: list[str] = []

        def lock(first: str, second: str) -> Callable[[_sql.Transaction], None]:
            has_first = Event()
            both.append(has_first)

            def transaction(tx: _sql.Transaction) -> None:
                runs.append(first)
                statement = "SELECT last FROM agentloop_sessions WHERE id = :id FOR UPDATE"
                tx.rows(statement, {"id": first})
                has_first.set()
                for other in both:
                    assert other.wait(timeout=10)
                tx.rows(statement, {"id": second})

            return transaction

        both: list[Event] = []
        one, other = lock("a", "b"), lock("b", "a")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.write_in, one)
            nursery.start_soon(store.write_in, other)
        assert len(runs) == 3


async def test_postgres_keeps_the_tables_of_an_older_version(
    postgres: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres()
    async with PostgresStore(url).open() as store:
        await store.append("s", records(1, 2))

    def add_colour(dialect: _sql.Dialect) -> list[str]:
        return [f"ALTER TABLE agentloop_sessions ADD COLUMN colour {dialect.text} NOT NULL DEFAULT 'grey'"]

    with monkeypatch.context() as patch:
        patch.setattr(_sql, "MIGRATIONS", (*_sql.MIGRATIONS, add_colour))
        async with PostgresStore(url).open() as one, PostgresStore(url).open():
            assert await one.read("s") == records(1, 2)
            await one.append("s", records(3, 3))
    version = len(_sql.MIGRATIONS) + 1
    with pytest.raises(
        StoreError, match=rf"newer agentloop: its format is version {version}.*pip install -U agentloop-trio"
    ) as caught:
        async with PostgresStore(url).open():
            pass
    assert "a-secret" not in str(caught.value)


async def test_postgres_can_be_opened_for_the_first_time_by_many_at_once(postgres: Callable[[], str]) -> None:
    url = postgres()

    async def add(number: int) -> None:
        async with PostgresStore(url).open() as store:
            await store.append(f"s{number}", records(1, 1))

    async with trio.open_nursery() as nursery:
        for number in range(6):
            nursery.start_soon(add, number)
    async with PostgresStore(url).open() as store:
        assert len(await store.sessions()) == 6


async def test_postgres_says_when_something_takes_too_long(postgres: Callable[[], str]) -> None:
    url = postgres()
    async with PostgresStore(url, seconds=0.3).open() as store:
        await store.append("s", records(1, 1))
        with psycopg.connect(url) as connection:
            connection.execute("LOCK TABLE agentloop_sessions")
            with pytest.raises(StoreError, match="it took too long"):
                await store.append("s", records(2, 2))
        await store.append("s", records(2, 2))


async def test_a_client_that_is_silent_in_a_transaction_loses_its_locks(postgres: Callable[[], str]) -> None:
    url = postgres()
    async with PostgresStore(url, seconds=1).open() as store, PostgresStore(url).open() as other:
        lease = await store.acquire("s", "me", seconds=0.1)
        is_locked, may_go_on = Event(), Event()

        def stand_still(tx: _sql.Transaction) -> None:
            _sql._lease_state(tx, "s")
            is_locked.set()
            may_go_on.wait(20)
            _sql._lease_state(tx, "s")

        async def hold() -> None:
            with pytest.raises(StoreError):
                await store.write_in(stand_still)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(hold)
            await trio.to_thread.run_sync(is_locked.wait, 10)
            with trio.fail_after(10):
                assert (await other.acquire("s", "other", seconds=5)).token > lease.token
            may_go_on.set()


async def test_postgres_is_reached_again_when_its_connections_were_cut(postgres: Callable[[], str]) -> None:
    url = postgres()
    async with PostgresStore(url).open() as store:
        await store.append("s", records(1, 1))
        with psycopg.connect(url) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE pid <> pg_backend_pid() AND usename = 'tester'"
            )
        await store.append("s", records(2, 2))
        assert await store.read("s") == records(1, 2)


async def test_an_append_gets_a_new_connection_where_the_server_has_just_closed_the_one_it_used(
    postgres: Callable[[], str],
) -> None:
    url = postgres()
    async with PostgresStore(url).open() as store:
        lease = await store.acquire("s", "holder", seconds=60)
        await store.append("s", records(1, 1), lease=lease)
        for number in (2, 3):
            # The statement of a lease's holder is not preceded by one that may be sent twice.
            await store.append("s", records(number, number), lease=lease)
            with psycopg.connect(url) as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
                    "WHERE pid <> pg_backend_pid() AND usename = 'tester'"
                )
        await store.append("s", records(4, 4), lease=lease)
        assert await store.read("s") == records(1, 4)


async def test_postgres_says_when_the_tables_are_gone_or_may_not_be_made(postgres: Callable[[], str]) -> None:
    url = postgres()
    async with PostgresStore(url).open() as store:
        with psycopg.connect(url) as connection:
            connection.execute("DROP TABLE agentloop_records")
        with pytest.raises(StoreError, match="the tables are gone"):
            await store.read("s")
    with pytest.raises(StoreError, match=r"no connection: check .* that the URL is right .*\"nowhere\" does not exist"):
        async with PostgresStore(url.replace("/postgres?", "/nowhere?")).open():
            pass
    with psycopg.connect(url) as connection:
        connection.execute("DO $$ BEGIN CREATE ROLE guest LOGIN; EXCEPTION WHEN duplicate_object THEN END $$")
    with pytest.raises(StoreError, match="grant"):
        async with PostgresStore(postgres().replace("tester:", "guest:")).open():
            pass


async def test_of_postgres_clients_in_each_others_way_one_adds_each_number(postgres: Callable[[], str]) -> None:
    url = postgres()
    wins: list[int] = []
    async with PostgresStore(url).open() as one, PostgresStore(url).open() as other:

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
