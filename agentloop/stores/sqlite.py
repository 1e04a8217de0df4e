"""Sessions in a file of SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from os import PathLike, fspath
from pathlib import Path
from typing import TypeVar

import outcome
import trio

from agentloop._runtime.groups import raise_single
from agentloop.errors import AgentLoopError, StoreError, UsageError
from agentloop.journal import OpenStore
from agentloop.stores._clock import Clock, Moment, machine_clock, wall_clock
from agentloop.stores._open import OpenSql
from agentloop.stores._sqlite import Synchronous, connect, explain
from agentloop.stores._statements import RECORD_COLUMNS, Row, Transaction
from agentloop.stores._writer import Outcome, Work, Writer

__all__ = ["SQLiteStore"]

T = TypeVar("T")


class SQLiteStore:
    """Keeps sessions in a file, which several processes of one machine may use at once.

    Whatever many tasks write at the same time goes to the disk together, so that a hundred runs wait little longer
    than one. SQLite's calls happen in threads; Python cannot stop those. A call that is cancelled while it waits for
    its turn has done nothing; once it has its turn, it is waited for and counts as done. So a disk that hangs, such as
    one behind a network, holds whoever uses it in spite of every deadline.

    Leases run out by the machine's own clock on Linux, which nobody can set, and by the time of day elsewhere.

    Args:
      path: the file. It is created if need be, with others of the same name and ``-wal`` and ``-shm`` beside it while
        it is in use. Its folder must be there.
      synchronous: ``"normal"`` loses nothing when the process dies; when the machine does, it may lose what was written
        last, but no order. ``"full"`` waits for the disk each time.
      busy_seconds: how long to wait for another process that writes.
      clock: gives seconds since 1970 (UTC), for tests.

    Raises:
      UsageError: this is no path of a file.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        synchronous: Synchronous = "normal",
        busy_seconds: float = 10.0,
        clock: Callable[[], float] | None = None,
    ) -> None:
        name = fspath(path)
        if not name or name.startswith((":", "file:")):
            raise UsageError(f"{name!r} is no path of a file: give one, or use MemoryStore")
        if synchronous not in ("normal", "full"):
            raise UsageError(f"synchronous={synchronous!r} is unknown: say 'normal' or 'full'")
        self.path = Path(name)
        self._synchronous: Synchronous = synchronous
        self._busy_seconds = busy_seconds
        self._clock: Clock = machine_clock() if clock is None else wall_clock(clock)

    def open(self) -> AbstractAsyncContextManager[OpenStore]:
        """Open the file, and bring it to the newest version if need be.

        When the block ends, what was being written has been written.

        Raises:
          StoreError: it cannot be opened or written to, is damaged, not ours, or of a newer version.
        """
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[OpenStore]:
        async with self._connection() as writing, self._connection(reads=True) as reading:
            writer = Writer(writing.commit, place=str(self.path))
            try:
                async with trio.open_nursery() as nursery:
                    # It writes before that, too: this is for its end.
                    nursery.start_soon(writer.serve)  # noqa: ASYNC113
                    try:
                        yield _OpenSQLite(writer, reading)
                    finally:
                        writer.close()
            except BaseExceptionGroup as group:
                raise_single(group)

    @asynccontextmanager
    async def _connection(self, *, reads: bool = False) -> AsyncGenerator[_Connection]:
        open_file = partial(
            connect, self.path, synchronous=self._synchronous, busy_seconds=self._busy_seconds, reads=reads
        )
        connection = _Connection(await trio.to_thread.run_sync(open_file), self.path, self._clock)
        try:
            yield connection
        finally:
            with trio.CancelScope(shield=True):
                await connection.close()


_ADD_RECORD = (
    f"INSERT INTO agentloop_records ({', '.join(RECORD_COLUMNS)}) VALUES ({', '.join('?' for _ in RECORD_COLUMNS)})"
)


class _Connection:
    """A connection, which one thread uses at a time."""

    # For `Transaction`: nobody else writes while our transaction runs.
    lock = ""

    def __init__(self, db: sqlite3.Connection, path: Path, clock: Clock) -> None:
        self._db = db
        self._path = path
        self._limiter = trio.CapacityLimiter(1)
        self.moment: Callable[[], Moment] = clock
        self._closed = False

    def rows(self, statement: str, values: Mapping[str, object], /) -> Sequence[Row]:
        rows: Sequence[Row] = self._db.execute(statement, values).fetchall()
        return rows

    def each_row(self, statement: str, values: Mapping[str, object], /) -> Iterable[Row]:
        return self._db.execute(statement, values)

    def write(self, statement: str, values: Mapping[str, object], /) -> int:
        return self._db.execute(statement, values).rowcount

    def add_records(self, rows: Sequence[Row], /) -> None:
        self._db.executemany(_ADD_RECORD, rows)

    async def read(self, work: Callable[[Transaction], T]) -> T:
        def run() -> T:
            if self._closed:
                raise StoreError(f"{self._path} is closed: use it inside the block that opens it")
            try:
                return work(self)
            except (sqlite3.Error, OverflowError) as error:
                raise explain(error, self._path) from error

        return await trio.to_thread.run_sync(run, limiter=self._limiter)

    def commit(self, works: Sequence[Work]) -> Sequence[Outcome]:
        """Do ``works`` in one transaction as far as it can be done, in a thread. Gives what came of each."""
        return self._commit(works)

    async def close(self) -> None:
        def run() -> None:
            self._closed = True
            self._db.close()

        await trio.to_thread.run_sync(run, limiter=self._limiter)

    def _commit(self, works: Sequence[Work]) -> Sequence[Outcome]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            return [outcome.Error(explain(error, self._path)) for _ in works]
        try:
            results = [self._result(work) for work in works]
            self._db.execute("COMMIT")
        # Whatever it is, whoever waits for it is told.
        except Exception as error:  # noqa: BLE001
            with suppress(sqlite3.Error):
                # SQLite has rolled back by itself where the disk is full.
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
            if len(works) == 1:
                return [outcome.Error(explain(error, self._path))]
            # One that is too much for the disk must not fail the others.
            return [result for work in works for result in self._commit([work])]
        return results

    def _result(self, work: Work) -> Outcome:
        try:
            return outcome.Value(work(self))
        except AgentLoopError as error:
            # It has written nothing, so the others' transaction goes on.
            return outcome.Error(error)


class _OpenSQLite(OpenSql):
    def __init__(self, writer: Writer, reading: _Connection) -> None:
        self._writer = writer
        self._reading = reading

    async def _read(self, work: Callable[[Transaction], T]) -> T:
        return await self._reading.read(work)

    async def _write(self, work: Callable[[Transaction], T]) -> T:
        return await self._writer.write(work)
