"""Sessions in an SQL database, for those that outgrow one machine: PostgreSQL, by way of SQLAlchemy."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

import trio

from agentloop.errors import AgentLoopError, MissingExtraError, StoreError, UsageError
from agentloop.journal import OpenStore
from agentloop.stores import _schema
from agentloop.stores._clock import Clock, Moment, machine_clock, wall_clock
from agentloop.stores._open import OpenSql
from agentloop.stores._sqlalchemy import event, exc, pool, sa, url as sa_url
from agentloop.stores._sqlite import explain as explain_sqlite, prepare
from agentloop.stores._statements import RECORD_COLUMNS, Row, Transaction

__all__ = ["SQLStore"]

T = TypeVar("T")

_POSTGRES = _schema.Dialect(text='TEXT COLLATE "C"')
_MIGRATION_LOCK = 0x61676C70
"""What PostgreSQL calls the lock under which tables are made."""
_CLASHES = ("40001", "40P01")
"""PostgreSQL's codes for two transactions in each other's way, of which it has undone this one."""
_ATTEMPTS = 5


class SQLStore:
    """Keeps sessions in PostgreSQL, for any number of machines, or in a file of SQLite, the same as `SQLiteStore`'s.

    The calls happen in threads, each over a connection of its own; Python cannot stop those. A call that is cancelled
    while it waits for a connection has done nothing; after that it is waited for, and counts as done:
    PostgreSQL gives up on it after ``seconds``, but a server that hangs holds the caller in spite of every deadline.
    Where the connection breaks while a transaction ends, the call raises and yet may have been done: read.

    Leases run out by the database server's clock. Where that is set forward, a lease may be taken over before its
    holder renews it: then the holder is told, and nothing is written twice.

    Args:
      url: as SQLAlchemy has it: ``"postgresql://user:password@host/database"``, or ``"sqlite:////folder/file.db"``.
        Of PostgreSQL, psycopg 3 is the driver.
      connections: how many there are at most.
      seconds: how long a statement may take, also while it waits for a lock, before PostgreSQL gives up on it.
      clock: gives seconds since 1970 (UTC), for tests.

    Raises:
      UsageError: the URL is none, or of another database.
      MissingExtraError: the driver is not installed.
    """

    def __init__(
        self, url: str, *, connections: int = 5, seconds: float = 30.0, clock: Callable[[], float] | None = None
    ) -> None:
        try:
            parsed = sa_url.make_url(url)
        except exc.ArgumentError:
            # Without the URL: what cannot be read may have a password anywhere.
            raise UsageError("this is no URL of a database: say 'postgresql://user:password@host/database'") from None
        if parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        self.place = parsed.render_as_string(hide_password=True)
        if parsed.drivername not in ("postgresql+psycopg", "sqlite", "sqlite+pysqlite"):
            raise UsageError(f"{self.place}: sessions can be kept in 'postgresql://...' or 'sqlite:///...'")
        if connections < 1 or seconds <= 0:
            raise UsageError(f"connections={connections} and seconds={seconds} must both be more than 0")
        self._url = parsed
        self._connections = connections
        self._seconds = seconds
        self._clock = None if clock is None else wall_clock(clock)
        try:
            # SQLAlchemy looks for the driver when it is told of it, and connects later.
            self._make_engine().dispose()
        except ModuleNotFoundError as error:
            raise MissingExtraError(feature=f"The database of {self.place}", extra="sql", package="psycopg") from error

    def open(self) -> AbstractAsyncContextManager[OpenStore]:
        """Connect, and make the tables, or bring them to the newest version, if need be.

        When the block ends, all connections are closed.

        Raises:
          StoreError: it cannot be reached or written to, or is of a newer version.
        """
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[OpenStore]:
        engine = self._make_engine()
        database = _Database(self, engine, self._connections)
        try:
            await database.run(self._migrate, engine)
            yield database
        finally:
            with trio.CancelScope(shield=True):
                await database.close()

    @property
    def _is_sqlite(self) -> bool:
        return self._url.get_backend_name() == "sqlite"

    def _make_engine(self) -> sa.Engine:
        options: dict[str, Any] = {"pool_size": self._connections, "max_overflow": 0}
        if self._is_sqlite:
            if not self._url.database or self._url.database == ":memory:":
                raise UsageError(f"{self.place} is no path of a file: give one, or use MemoryStore")
            options["connect_args"] = {"check_same_thread": False, "timeout": self._seconds}
            options["poolclass"] = pool.QueuePool
        else:
            patience = max(2, round(self._seconds))
            # Else a server that is gone without a word would hold a thread for a quarter of an hour.
            defaults = {"connect_timeout": patience, "tcp_user_timeout": patience * 1000, "keepalives_idle": patience}
            options["connect_args"] = {key: defaults[key] for key in defaults.keys() - self._url.query.keys()}
            options["isolation_level"] = "READ COMMITTED"
            # A server may have been started anew since.
            options["pool_pre_ping"] = True
        engine = sa.create_engine(self._url, **options)
        if self._is_sqlite:
            event.listen(engine, "connect", self._prepare_sqlite)
            event.listen(engine, "begin", _begin_in_sqlite)
        else:
            event.listen(engine, "connect", self._prepare_postgres)
        return engine

    def _prepare_sqlite(self, connection: sqlite3.Connection, _: object) -> None:
        connection.isolation_level = None
        prepare(connection, self._path, synchronous="normal", busy_seconds=self._seconds)

    def _prepare_postgres(self, connection: Any, _: object) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"SET statement_timeout = {max(1, round(self._seconds * 1000))}")
        connection.commit()

    @property
    def _path(self) -> Path:
        return Path(self._url.database or "")

    def _migrate(self, engine: sa.Engine) -> None:
        if self._is_sqlite:
            # Each connection sees to it itself.
            engine.connect().close()
            return
        with engine.begin() as connection:
            run = connection.exec_driver_sql
            # One after the other, where several machines begin at once.
            run(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})")
            version = 0
            if run("SELECT to_regclass('agentloop_version')").scalar() is None:
                run("CREATE TABLE agentloop_version (version BIGINT NOT NULL)")
                run("INSERT INTO agentloop_version VALUES (0)")
            else:
                version = int(run("SELECT version FROM agentloop_version").scalar() or 0)
            statements = _schema.statements_from(version, _POSTGRES, self.place)
            for statement in statements:
                run(statement)
            if statements:
                run(f"UPDATE agentloop_version SET version = {len(_schema.STEPS)}")

    def moments(self, connection: sa.Connection) -> Clock:
        """The clock by which leases run out."""
        if self._clock is not None:
            return self._clock
        return machine_clock() if self._is_sqlite else partial(_server_time, connection)

    def explain(self, error: Exception) -> StoreError:
        """``error`` for a person: where, what is wrong, and the way out."""
        cause = getattr(error, "orig", None) or error
        if self._is_sqlite:
            return explain_sqlite(cause, self._path)
        code = getattr(cause, "sqlstate", None) or ""
        meaning = _MEANINGS.get(code) or _MEANINGS.get(code[:2]) or "it cannot be done"
        if not code and isinstance(error, exc.OperationalError):
            meaning = "no connection: see whether the server runs, and whether the URL is right"
        told = StoreError(f"{self.place}: {meaning} ({type(cause).__name__}: {str(cause).strip()})")
        told.__cause__ = error
        return told


_MEANINGS = {
    "08": "the connection broke: what was going on may have been done or not, so load the session anew",
    "22": "this cannot be kept there",
    "25006": "the server only reads: give the URL of one that writes",
    "3F": "there is no schema for the tables, or the user may not see it: create it, or grant USAGE and CREATE on it",
    "42501": "the user may not do that: grant CREATE on the schema, or have the tables made by somebody who may",
    "42P01": "the tables are gone: restore them from a backup, or drop agentloop_version too, to begin anew",
    "53100": "the server's disk is full: free some space. Of this, nothing was kept",
    "53300": "the server has too many connections: raise max_connections, or give fewer connections=",
    "53": "the server lacks room: free some. Of this, nothing was kept",
    "55P03": "another transaction has it locked for too long: try again",
    "57014": "it took too long: see what keeps the server busy, or give more seconds=",
    "57P": "the server is shutting down or starting: try again",
    **dict.fromkeys(_CLASHES, "too much is changed there at once: try again"),
}


class _Database(OpenSql):
    def __init__(self, store: SQLStore, engine: sa.Engine, connections: int) -> None:
        self._store = store
        self._engine = engine
        self._connections = connections
        self._limiter = trio.CapacityLimiter(connections)
        self._closed = False

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        """Call ``function`` in a thread, and explain its errors."""

        def run() -> T:
            if self._closed:
                raise StoreError(f"{self._store.place} is closed: use it inside the block that opens it")
            try:
                return function(*args)
            except AgentLoopError:
                raise
            except Exception as error:
                raise self._store.explain(error) from error

        return await trio.to_thread.run_sync(run, limiter=self._limiter)

    async def close(self) -> None:
        self._closed = True
        # Whoever still has a connection gives it back first.
        places = [object() for _ in range(self._connections)]
        for place in places:
            await self._limiter.acquire_on_behalf_of(place)
        await trio.to_thread.run_sync(self._engine.dispose)
        for place in places:
            self._limiter.release_on_behalf_of(place)

    async def _read(self, work: Callable[[Transaction], T]) -> T:
        def read() -> T:
            with self._engine.connect().execution_options(agentloop_reads=True) as connection:
                return work(_Transaction(self._store, connection))

        return await self.run(read)

    async def _write(self, work: Callable[[Transaction], T]) -> T:
        def write() -> T:
            for attempt in range(_ATTEMPTS):
                try:
                    with self._engine.begin() as connection:
                        return work(_Transaction(self._store, connection))
                except exc.DBAPIError as error:
                    if getattr(error.orig, "sqlstate", None) not in _CLASHES or attempt == _ATTEMPTS - 1:
                        raise
                time.sleep(0.01 * 2**attempt)
            raise AssertionError

        return await self.run(write)


class _Transaction:
    def __init__(self, store: SQLStore, connection: sa.Connection) -> None:
        self._connection = connection
        self.lock = "" if connection.dialect.name == "sqlite" else " FOR UPDATE"
        self.moment: Callable[[], Moment] = store.moments(connection)

    def rows(self, statement: str, values: Mapping[str, object], /) -> Sequence[Row]:
        return self._connection.execute(_text(statement), values).all()

    def each_row(self, statement: str, values: Mapping[str, object], /) -> Iterable[Row]:
        return self._connection.execute(_text(statement), values)

    def write(self, statement: str, values: Mapping[str, object], /) -> int:
        return self._connection.execute(_text(statement), values).rowcount

    def add_records(self, rows: Sequence[Row], /) -> None:
        self._connection.execute(_ADD_RECORD, [dict(zip(RECORD_COLUMNS, row, strict=True)) for row in rows])


_ADD_RECORD = sa.text(
    f"INSERT INTO agentloop_records ({', '.join(RECORD_COLUMNS)}) "
    f"VALUES ({', '.join(f':{column}' for column in RECORD_COLUMNS)})"
)


@cache
def _text(statement: str) -> sa.TextClause:
    # There are a few dozen of them.
    return sa.text(statement)


def _server_time(connection: sa.Connection) -> Moment:
    # Not `now()`, which is when the transaction began: it may have waited for a lock since.
    now = connection.exec_driver_sql("SELECT extract(epoch FROM clock_timestamp())").scalar()
    wall = float(now or 0)
    return Moment(wall, "", wall)


def _begin_in_sqlite(connection: sa.Connection) -> None:
    # Python's driver would begin with the first change: too late, when what was read before may have changed.
    if not connection.get_execution_options().get("agentloop_reads"):
        connection.exec_driver_sql("BEGIN IMMEDIATE")
