"""A store in PostgreSQL, for sessions that several machines share. Needs the extra ``postgres``."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cache
from typing import Any, TypeAlias, TypeVar
from urllib.parse import quote

import trio

from agentloop._core.first_guesses import refuse
from agentloop._runtime.blocks import CALL_IN_ASYNCIO, OPEN_IN_ASYNCIO, NamedBlock, require_trio
from agentloop.errors import MissingExtraError, StoreError, UsageError
from agentloop.journal import Lease, OpenStore, Record
from agentloop.stores._leases import Clock, Moment, wall_clock
from agentloop.stores._rows import RECORD_COLUMNS, Row
from agentloop.stores._session_index import index_entry
from agentloop.stores._sql import (
    AND_STATE,
    Dialect,
    OpenSqlStore,
    Transaction,
    newest_version,
    pending_migrations,
)

try:
    import psycopg
    from psycopg.conninfo import conninfo_to_dict
    from psycopg.pq import TransactionStatus
# Not ModuleNotFoundError: psycopg raises ImportError where it is installed without libpq.
except ImportError as error:
    raise MissingExtraError(feature="PostgresStore", extra="postgres", package="psycopg") from error

__all__ = ["PostgresStore"]

T = TypeVar("T")
_Session: TypeAlias = "psycopg.Connection[tuple[Any, ...]]"

_DIALECT = Dialect(text='TEXT COLLATE "C"', json_array="json_build_array")
_MIGRATION_LOCK = 0x61676C70
"""The key of the advisory lock under which tables are created and migrated."""
_CLASHES = ("40001", "40P01")
"""SQLSTATEs of a transaction that the server rolled back because it clashed with another one."""
_ATTEMPTS = 5
_FRESH_SECONDS = 1.0
"""How long after its last use a connection counts as one that works, unless the server has closed it."""
_BEGIN = b"BEGIN ISOLATION LEVEL READ COMMITTED"

_OPENED = "a store is opened: write `async with PostgresStore(...).open() as store:`"


class PostgresStore:
    """Saves sessions in PostgreSQL, for any number of machines.

    Calls run in threads, each over a connection of its own, since psycopg has no trio support. Python cannot stop
    a thread: a call that is cancelled while it waits for a connection has no effect; later, the call waits for its
    transaction and counts as done. The server gives up on a statement, and on a client that is silent in the middle of
    a transaction, after ``seconds``. If the connection breaks during a commit, the call raises `StoreError` although
    the commit may have succeeded: read the session to find out.

    Leases expire on the server's clock. Setting it forward may let another process acquire a session before its
    holder renews; the holder then gets `LeaseLostError` at its next write, and both never write the same number.

    Args:
      url: ``"postgresql://user:password@host:port/database"``, with parameters such as ``?sslmode=verify-full``
        (https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-URIS). libpq's environment
        variables fill in what the URL leaves out.
      connections: at most this many connections. They are opened as needed, and closed with the store.
      seconds: how long a statement may run, or wait for a lock.
      clock: returns seconds since 1970 (UTC), for tests.

    Raises:
      UsageError: ``url`` is not a URL of a PostgreSQL database, or a number is not above 0.
      MissingExtraError: psycopg is not installed. Raised by the import of this module.
    """

    def __init__(
        self, url: str, *, connections: int = 5, seconds: float = 30.0, clock: Callable[[], float] | None = None
    ) -> None:
        self._parameters = _parse(url)
        if connections < 1 or seconds <= 0:
            raise UsageError(f"connections={connections} and seconds={seconds} must both be more than 0")
        self.place = _without_password(self._parameters)
        """The database, for messages: the URL without its password and parameters."""
        self._connections = connections
        self._seconds = seconds
        self._clock: Clock | None = None if clock is None else wall_clock(clock)

    @property
    def has_clock(self) -> bool:
        """Whether leases expire on a clock other than the server's."""
        return self._clock is not None

    def open(self) -> AbstractAsyncContextManager[OpenStore]:
        """Connect, and create the tables or migrate them to the newest version.

        When the block ends, all transactions have ended and all connections are closed.

        Raises:
          StoreError: the server cannot be reached, the user may not create tables, or the tables are of a newer
            version. The message says what to do.
        """
        return NamedBlock(self._open(), "store.open()", "opened")

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[OpenStore]:
        require_trio("a store is opened", in_asyncio=OPEN_IN_ASYNCIO)
        database = _OpenPostgres(self, self._connections)
        try:
            await database.write_in(_migrate_for(self.place))
            yield database
        finally:
            with trio.CancelScope(shield=True):
                await database.close()

    def connect(self) -> _Session:
        """In a thread: open a connection."""
        timeout = max(2, round(self._seconds))
        # Without these, a server that vanishes silently blocks a thread for a quarter of an hour.
        defaults: dict[str, Any] = {
            "connect_timeout": timeout,
            "tcp_user_timeout": timeout * 1000,
            "keepalives_idle": timeout,
        }
        connection = psycopg.connect(**{**defaults, **self._parameters}, autocommit=True)
        # The second one is for a client whose machine or network is gone in the middle of a transaction: the server
        # would keep its locks for hours, and no other process could acquire the session.
        milliseconds = max(1, round(self._seconds * 1000))
        for setting in (b"statement_timeout", b"idle_in_transaction_session_timeout"):
            connection.execute(b"SET %b = %d" % (setting, milliseconds))
        return connection

    def moment(self, connection: _Session) -> Moment:
        """The current time on the clock that decides over leases."""
        if self._clock is not None:
            return self._clock()
        # Not `now()`, the beginning of the transaction: it may have waited for a lock since.
        row = connection.execute("SELECT extract(epoch FROM clock_timestamp())").fetchone()
        assert row is not None
        wall = float(row[0])
        return Moment(wall, "", wall)

    def explain(self, error: Exception) -> StoreError:
        """Make a `StoreError` of an error of psycopg: the database, the problem and the way out."""
        code = getattr(error, "sqlstate", None) or ""
        meaning = _MEANINGS.get(code) or _MEANINGS.get(code[:2]) or "PostgreSQL failed"
        if not code and isinstance(error, psycopg.OperationalError):
            meaning = "no connection: check that the server runs and that the URL is right"
        explained = StoreError(f"{self.place}: {meaning} ({type(error).__name__}: {str(error).strip()})")
        explained.__cause__ = error
        return explained


refuse(PostgresStore, aenter=_OPENED, enter=_OPENED)


def _parse(url: str) -> dict[str, Any]:
    """The parameters of a connection."""
    if url.startswith(("postgresql://", "postgres://")):
        try:
            return conninfo_to_dict(url)
        except psycopg.Error:
            pass
    # The message leaves the URL out: one that cannot be parsed may have a password anywhere.
    raise UsageError("this is not the URL of a PostgreSQL database: say 'postgresql://user:password@host/database'")


def _without_password(parameters: Mapping[str, Any]) -> str:
    def part(name: str, before: str = "", after: str = "") -> str:
        value = parameters.get(name)
        return f"{before}{quote(str(value), safe='/,:[]')}{after}" if value else ""

    password = ":***" if parameters.get("password") else ""
    user = part("user", after=f"{password}@")
    return f"postgresql://{user}{part('host')}{part('port', ':')}{part('dbname', '/')}"


_MEANINGS = {
    "08": "the connection broke: the write may have been saved or not, so load the session again",
    "22": "PostgreSQL cannot store this value",
    "25006": "the server is read-only: give the URL of one that accepts writes",
    "3F": "there is no schema for the tables, or the user may not see it: create it, or grant USAGE and CREATE on it",
    "42501": "the user may not do that: grant CREATE on the schema, or let a user who may create the tables",
    "42P01": "the tables are gone: restore them from a backup, or drop agentloop_version too, to start empty",
    "53100": "the server's disk is full: free some space. This write saved nothing",
    "53300": "the server has too many connections: raise max_connections, or give fewer connections=",
    "53": "the server is out of resources: free some. This write saved nothing",
    "55P03": "another transaction has locked it for too long: try again",
    "57014": "it took too long: check why the server is slow, or give more seconds=",
    "57P": "the server is shutting down or starting: try again",
    **dict.fromkeys(_CLASHES, "too many transactions change it at once: try again"),
}
"""Explanations by SQLSTATE, or by the first letters of it (https://www.postgresql.org/docs/current/errcodes-appendix.html)."""


def _migrate_for(place: str) -> Callable[[Transaction], None]:
    def migrate(tx: Transaction) -> None:
        # Several machines may start at once: one migrates, and the others wait for its lock.
        tx.rows("SELECT pg_advisory_xact_lock(:key)", {"key": _MIGRATION_LOCK})
        version = 0
        if tx.rows("SELECT to_regclass('agentloop_version')::text", {})[0][0] is None:
            tx.write("CREATE TABLE agentloop_version (version BIGINT NOT NULL)", {})
            tx.write("INSERT INTO agentloop_version VALUES (0)", {})
        else:
            version = tx.rows("SELECT version FROM agentloop_version", {})[0][0]
        statements = pending_migrations(version, _DIALECT, place)
        for statement in statements:
            tx.write(statement, {})
        if statements:
            tx.write("UPDATE agentloop_version SET version = :version", {"version": newest_version()})

    return migrate


class _OpenPostgres(OpenSqlStore):
    """A pool of connections, and transactions over them.

    Not psycopg_pool: its connections are opened by threads of its own, which retry in the background, so that a caller
    learns of a wrong password only by a timeout. Here the limiter bounds the connections, and the thread
    that needs one opens it and gets the error.
    """

    def __init__(self, store: PostgresStore, connections: int) -> None:
        self._store = store
        self._connections = connections
        self._limiter = trio.CapacityLimiter(connections)
        self._idle: list[tuple[_Session, float]] = []
        """Connections without a user, and the times of their last use. The last one was used last, so under a light
        load only few are in use."""
        self._closed = False

    async def read_in(self, transaction: Callable[[Transaction], T], /) -> T:
        # Outside a transaction: at READ COMMITTED each statement has a snapshot of its own anyway.
        return await self._run(b"", transaction)

    async def write_in(self, transaction: Callable[[Transaction], T], /) -> T:
        def write(tx: _Transaction) -> T:
            result = transaction(tx)
            tx.connection.execute("COMMIT")
            return result

        return await self._run(_BEGIN, write)

    async def append_at_once(
        self, session: str, records: Sequence[Record], rows: Sequence[Row], lease: Lease | None, /
    ) -> bool:
        if lease is None or lease.session != session or len(rows) != 1:
            return False
        values = dict(zip(RECORD_COLUMNS, rows[0], strict=True))
        values |= {"before": records[0].seq - 1, "last": records[-1].seq, "token": lease.token}
        entry = index_entry(records)
        state = "" if entry is None else AND_STATE
        values |= {} if entry is None else entry._asdict()

        def append(tx: _Transaction) -> bool:
            if self._store.has_clock:
                values["now"] = tx.moment().wall
                return tx.write(_APPEND.format(now="CAST(:now AS DOUBLE PRECISION)", state=state), values) == 1
            return tx.write(_APPEND.format(now="extract(epoch FROM clock_timestamp())", state=state), values) == 1

        return await self._run(b"", append)

    async def _run(self, first_statement: bytes, function: Callable[[_Transaction], T]) -> T:
        """In a thread with a connection: run ``first_statement``, then ``function``."""
        require_trio("a store is used", in_asyncio=CALL_IN_ASYNCIO)

        def run() -> T:
            if self._closed:
                raise StoreError(f"{self._store.place} is closed: use it inside the block that opens it")
            try:
                return self._attempt(first_statement, function)
            except psycopg.Error as error:
                raise self._store.explain(error) from error

        return await trio.to_thread.run_sync(run, limiter=self._limiter)

    def _attempt(self, first_statement: bytes, function: Callable[[_Transaction], T]) -> T:
        for attempt in range(1, _ATTEMPTS + 1):
            connection = self._take(first_statement)
            try:
                return function(_Transaction(self._store, connection))
            except psycopg.Error as error:
                if error.sqlstate not in _CLASHES or attempt == _ATTEMPTS:
                    raise
            finally:
                self._give_back(connection)
            time.sleep(0.005 * 2**attempt)
        raise AssertionError

    def _take(self, first_statement: bytes) -> _Session:
        """Run ``first_statement`` on an idle connection that still works, or on a new one.

        The statement is also the test whether the connection works. It is safe to send again: it is empty, or begins a
        transaction. An empty one is left out where the connection has just been used: its round trip would take as
        much of the processor as the append after it.
        """
        while self._idle:
            connection, used_at = self._idle.pop()
            try:
                if first_statement or time.monotonic() - used_at > _FRESH_SECONDS:
                    connection.execute(first_statement)
                else:
                    # Raises if the server has closed it. Twice: first comes why, if the server has said that.
                    connection.pgconn.consume_input()
                    connection.pgconn.consume_input()
            except psycopg.OperationalError:
                connection.close()
            else:
                return connection
        connection = self._store.connect()
        if first_statement:
            connection.execute(first_statement)
        return connection

    def _give_back(self, connection: _Session) -> None:
        """Make the connection idle; roll back if its transaction is still open. Closes one that is broken."""
        try:
            if connection.info.transaction_status != TransactionStatus.IDLE:
                connection.execute("ROLLBACK")
            self._idle.append((connection, time.monotonic()))
        except psycopg.Error:
            connection.close()

    async def close(self) -> None:
        """Wait for running transactions, then close all connections."""
        self._closed = True
        borrowers = [object() for _ in range(self._connections)]
        for borrower in borrowers:
            await self._limiter.acquire_on_behalf_of(borrower)
        await trio.to_thread.run_sync(self._close_idle)
        for borrower in borrowers:
            self._limiter.release_on_behalf_of(borrower)

    def _close_idle(self) -> None:
        while self._idle:
            connection, _ = self._idle.pop()
            connection.close()


class _Transaction:
    """The `agentloop.stores._sql.Transaction` over a connection."""

    lock = " FOR UPDATE"
    bytes_of = "{}"

    def __init__(self, store: PostgresStore, connection: _Session) -> None:
        self._store = store
        self.connection = connection

    def moment(self) -> Moment:
        return self._store.moment(self.connection)

    def rows(self, statement: str, values: Mapping[str, object], /) -> Sequence[Row]:
        return self.connection.execute(_in_psycopg(statement), values).fetchall()

    def each_row(self, statement: str, values: Mapping[str, object], /) -> Iterable[Row]:
        return self.connection.execute(_in_psycopg(statement), values)

    def write(self, statement: str, values: Mapping[str, object], /) -> int:
        return self.connection.execute(_in_psycopg(statement), values).rowcount

    def add_records(self, rows: Sequence[Row], /) -> None:
        with self.connection.cursor() as cursor:
            cursor.executemany(_ADD_RECORD, rows)


_ADD_RECORD = (
    f"INSERT INTO agentloop_records ({', '.join(RECORD_COLUMNS)}) VALUES ({', '.join('%s' for _ in RECORD_COLUMNS)})"
).encode()


_APPEND = f"""
    WITH lease AS MATERIALIZED (
        SELECT 1 FROM agentloop_leases
        WHERE session = :session AND holder <> '' AND token = :token FOR UPDATE
    ), advanced AS (
        UPDATE agentloop_sessions SET last = :last, updated = greatest(updated, {{now}}){{state}}
        WHERE id = :session AND last = :before AND EXISTS (SELECT 1 FROM lease)
        RETURNING id
    )
    INSERT INTO agentloop_records ({", ".join(RECORD_COLUMNS)})
    SELECT {", ".join(f":{column}" for column in RECORD_COLUMNS)} FROM advanced
"""
"""A write of a lease holder as one statement in place of seven: 8.8 ms where it took 11.6, most of it for the disk. The
lease is locked before the session, as everywhere. It inserts nothing if the lease or the number is not the last one."""


@cache
def _in_psycopg(statement: str) -> bytes:
    """``statement`` with its parameters ``:like_this`` written as psycopg has them."""
    return re.sub(r"(?<!:):(\w+)", r"%(\1)s", statement).encode()
