"""A store in a file of SQLite."""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from os import PathLike, fspath
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar

import outcome
import trio

from agentloop._core.first_guesses import refuse
from agentloop._runtime.blocks import CALL_IN_ASYNCIO, OPEN_IN_ASYNCIO, NamedBlock, require_trio
from agentloop._runtime.exception_groups import raise_single
from agentloop.errors import AgentLoopError, StoreError, UsageError
from agentloop.journal import OpenStore
from agentloop.stores._group_commit import GroupCommit, Outcome, Write
from agentloop.stores._leases import Clock, Moment, machine_clock, wall_clock
from agentloop.stores._rows import RECORD_COLUMNS, Row
from agentloop.stores._sql import (
    Dialect,
    OpenSqlStore,
    Transaction,
    newest_version,
    pending_migrations,
)

__all__ = ["APPLICATION_ID", "SQLiteStore", "connect"]

T = TypeVar("T")
Synchronous: TypeAlias = Literal["normal", "full"]

APPLICATION_ID = 0x61676C70
"""Marks a file as agentloop's in SQLite's header: "aglp" (https://www.sqlite.org/pragma.html#pragma_application_id)."""

_DIALECT = Dialect(without_rowid=" WITHOUT ROWID")

_RETRY_SECONDS = 0.01

_OPENED = "a store is opened: write `async with SQLiteStore(...).open() as store:`"


class SQLiteStore:
    """Saves sessions in a file, which several processes of one machine may open at once.

    Writes of many tasks share a transaction (group commit), so that a hundred runs wait little longer for the disk
    than one. SQLite's calls run in threads, which Python cannot stop: a write that is cancelled before its transaction
    begins has no effect; later, the call waits for the transaction and counts as done. A disk that hangs, such as one
    behind a network, therefore blocks the runs that write to it in spite of their deadlines.

    On Linux leases expire by the machine's own clock, which no user can set, and elsewhere by the time of day.

    Args:
      path: the file, created if it does not exist, so that only this user can read it. Its folder must exist. While the
        store is open, SQLite keeps files of the same name with ``-wal`` and ``-shm`` beside it, which have the mode of
        the file. If the file is removed or replaced meanwhile, reads and writes raise `StoreError`.
      synchronous: ``"normal"`` loses nothing when the process dies; when the machine dies, the last writes may be lost,
        but never an earlier one than a saved one. ``"full"`` waits for the disk at each commit.
      busy_seconds: how long to wait for another process that writes.
      clock: returns seconds since 1970 (UTC), for tests.

    Raises:
      UsageError: ``path`` is not the path of a file, or ``synchronous`` is unknown.
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
        if not name or name.startswith((":", "file:")) or not _is_encodable(name):
            raise UsageError(f"{name!r} is not the path of a file: give one, or use MemoryStore")
        if synchronous not in ("normal", "full"):
            raise UsageError(f"synchronous={synchronous!r} is unknown: say 'normal' or 'full'")
        self.path = Path(name)
        self._synchronous: Synchronous = synchronous
        self._busy_seconds = busy_seconds
        self._clock: Clock = machine_clock() if clock is None else wall_clock(clock)

    def open(self) -> AbstractAsyncContextManager[OpenStore]:
        """Open the file, and create its tables or migrate them to the newest version.

        When the block ends, every write that was accepted has been committed.

        Raises:
          StoreError: the file cannot be opened or written, is damaged, belongs to another program, or was written by a
            newer agentloop. The message says what to do.
        """
        return NamedBlock(self._open(), "store.open()", "opened")

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[OpenStore]:
        require_trio("a store is opened", in_asyncio=OPEN_IN_ASYNCIO)
        async with self._connection() as writing, self._connection(reads=True) as reading:
            group_commit = GroupCommit(writing.commit, place=str(self.path))
            try:
                async with trio.open_nursery() as nursery:
                    # Writes do not need this task: it waits for the last of them, and reports a bug in `commit`.
                    nursery.start_soon(group_commit.serve)  # noqa: ASYNC113
                    try:
                        yield _OpenSQLite(group_commit, reading)
                    finally:
                        group_commit.close()
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


refuse(SQLiteStore, aenter=_OPENED, enter=_OPENED)


class _OpenSQLite(OpenSqlStore):
    def __init__(self, group_commit: GroupCommit, reading: _Connection) -> None:
        self._group_commit = group_commit
        self._reading = reading

    async def read_in(self, transaction: Callable[[Transaction], T], /) -> T:
        require_trio("a store is used", in_asyncio=CALL_IN_ASYNCIO)
        return await self._reading.read(transaction)

    async def write_in(self, transaction: Callable[[Transaction], T], /) -> T:
        require_trio("a store is used", in_asyncio=CALL_IN_ASYNCIO)
        return await self._group_commit.write(transaction)


_ADD_RECORD = (
    f"INSERT INTO agentloop_records ({', '.join(RECORD_COLUMNS)}) VALUES ({', '.join('?' for _ in RECORD_COLUMNS)})"
)


class _Connection:
    """A connection for one thread at a time. It is the `Transaction` of its file."""

    # Transactions write one after another, so rows need no locks.
    lock = ""
    # A quarter faster than text to read a long session: SQLite has UTF-8, and the records are bytes.
    bytes_of = "CAST({} AS BLOB)"

    def __init__(self, db: sqlite3.Connection, path: Path, clock: Clock) -> None:
        self._db = db
        self._path = path
        # The program may change its folder later.
        self._file = path.absolute()
        self._identity = _identity(self._file)
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

    async def read(self, transaction: Callable[[Transaction], T]) -> T:
        def run() -> T:
            if self._closed:
                raise StoreError(f"{self._path} is closed: use it inside the block that opens it")
            self._check_file()
            try:
                return transaction(self)
            except (sqlite3.Error, OverflowError) as error:
                raise _explain(error, self._path) from error

        return await trio.to_thread.run_sync(run, limiter=self._limiter)

    def commit(self, writes: Sequence[Write]) -> Sequence[Outcome]:
        """In a thread: run ``writes`` in one transaction where possible. Returns the outcome of each; never raises."""
        try:
            self._check_file()
            self._db.execute("BEGIN IMMEDIATE")
        except StoreError as error:
            return [outcome.Error(error) for _ in writes]
        except sqlite3.Error as error:
            return [outcome.Error(_explain(error, self._path)) for _ in writes]
        try:
            outcomes = [self._outcome(write) for write in writes]
            self._db.execute("COMMIT")
        # Any exception: the tasks that wait for these writes must get it.
        except Exception as error:  # noqa: BLE001
            with suppress(sqlite3.Error):
                # SQLite rolls back by itself when the disk is full.
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
            if len(writes) == 1:
                return [outcome.Error(_explain(error, self._path))]
            # Each write alone: a write that is too large for the disk must not fail the others.
            return [result for write in writes for result in self.commit([write])]
        return outcomes

    def _check_file(self) -> None:
        """Raise `StoreError` if the path leads to another file by now: what is written would be lost."""
        if _identity(self._file) != self._identity:
            raise StoreError(
                f"{self._path} was removed or replaced while it was open: nothing can be saved in it any more. Put the "
                "file back, or open the store again"
            )

    def _outcome(self, write: Write) -> Outcome:
        try:
            return outcome.Value(write(self))
        except AgentLoopError as error:
            # Raised before the write's first statement that writes, so the transaction of the others continues.
            return outcome.Error(error)

    async def close(self) -> None:
        def run() -> None:
            self._closed = True
            self._db.close()

        await trio.to_thread.run_sync(run, limiter=self._limiter)


# ------------------------------------------------------------------------------------- opening the file


def connect(path: Path, *, synchronous: Synchronous, busy_seconds: float, reads: bool = False) -> sqlite3.Connection:
    """Open a connection to the file at ``path``, and create or migrate the tables.

    Args:
      path: see `SQLiteStore`, as for the next two.
      synchronous: see there.
      busy_seconds: see there.
      reads: for a second connection that only reads, after one that writes has prepared the file.

    Raises:
      StoreError: the file cannot be opened, or is not agentloop's.
    """
    try:
        _create_private(path)
        db = sqlite3.connect(path, timeout=busy_seconds, isolation_level=None, check_same_thread=False)
        try:
            if reads:
                db.execute("PRAGMA query_only=ON")
            else:
                _prepare(db, path, synchronous=synchronous, busy_seconds=busy_seconds)
        except BaseException:
            db.close()
            raise
    except sqlite3.Error as error:
        raise _explain(error, path) from error
    return db


def _prepare(db: sqlite3.Connection, path: Path, *, synchronous: Synchronous, busy_seconds: float) -> None:
    """Check the file's owner and version, switch on the write-ahead log, and migrate the tables.

    A file of another program or of a newer version is not written to.
    """
    # One transaction for the three reads: another process may be creating the tables at this moment.
    db.execute("BEGIN")
    version, owner = _pragma(db, "user_version"), _pragma(db, "application_id")
    has_tables = db.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is not None
    db.execute("COMMIT")
    if owner != APPLICATION_ID and (owner or version or has_tables):
        raise StoreError(f"{path} is the database of another program, not a store of sessions: give another path")
    pending_migrations(version, _DIALECT, str(path))
    # For a new file: most rows are of 1 to 4 KB. With pages of 4 KB, SQLite's default, half of each would stay empty.
    db.execute("PRAGMA page_size=8192")
    _switch_to_wal(db, path, busy_seconds)
    db.execute(f"PRAGMA synchronous={'FULL' if synchronous == 'full' else 'NORMAL'}")
    db.execute("BEGIN IMMEDIATE")
    try:
        # Read the version again: another process may have migrated the file meanwhile.
        statements = pending_migrations(_pragma(db, "user_version"), _DIALECT, str(path))
        for statement in statements:
            db.execute(statement)
        # Also where there is nothing to migrate: a file that cannot be written must fail here, not in the middle of a
        # run.
        db.execute(f"PRAGMA user_version={newest_version()}")
        db.execute(f"PRAGMA application_id={APPLICATION_ID}")
        db.execute("COMMIT" if statements else "ROLLBACK")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _pragma(db: sqlite3.Connection, name: str) -> int:
    return int(db.execute(f"PRAGMA {name}").fetchone()[0])


def _switch_to_wal(db: sqlite3.Connection, path: Path, busy_seconds: float) -> None:
    deadline = time.monotonic() + busy_seconds
    while (mode := db.execute("PRAGMA journal_mode").fetchone()[0]) != "wal":
        try:
            mode = db.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        except sqlite3.OperationalError as error:
            # SQLite's own timeout does not cover two processes that switch at the same time.
            if not _is_busy(error) or time.monotonic() > deadline:
                raise
            time.sleep(_RETRY_SECONDS)
        else:
            if mode == "wal":
                return
            raise StoreError(f"{path} cannot have a write-ahead log (its mode is {mode!r}): put it on a local disk")


# --------------------------------------------------------------------------------------- errors, explained


def _is_encodable(name: str) -> bool:
    try:
        return b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:
        return False


def _create_private(path: Path) -> None:
    """Create the file, if there is none, so that only this user can read it: sessions have what people say."""
    # Only a new file is opened here: closing an old one would take away the locks that other connections hold on it.
    # Whatever else goes wrong, SQLite's own error says.
    with suppress(OSError):
        # The file that a link leads to: there, SQLite would create one with the usual mode.
        os.close(os.open(path.resolve(), os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def _identity(path: Path) -> tuple[int, int] | None:
    """The file that ``path`` leads to: its device and its number there; ``None`` if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _code(error: sqlite3.Error) -> int:
    """SQLite's primary result code (https://www.sqlite.org/rescode.html), or 0 for an error of Python's own."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _is_busy(error: sqlite3.Error) -> bool:
    return _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


_LOCKED = "another program has locked it for too long: end that program, or wait for it"
_READ_ONLY = "it cannot be written to: give this user the right to write to the file and to its folder"
_MEANINGS = {
    sqlite3.SQLITE_FULL: "the disk is full: free some space. Earlier writes are safe; this write saved nothing",
    sqlite3.SQLITE_BUSY: _LOCKED,
    sqlite3.SQLITE_LOCKED: _LOCKED,
    sqlite3.SQLITE_CORRUPT: "the file is damaged: restore a backup, or recover what is readable with "
    "`sqlite3 FILE .recover`",
    sqlite3.SQLITE_NOTADB: "the file is not an SQLite database: give another path, or move the file away",
    sqlite3.SQLITE_READONLY: _READ_ONLY,
    sqlite3.SQLITE_PERM: _READ_ONLY,
    sqlite3.SQLITE_IOERR: "reading or writing it failed: check the disk. This write may be lost",
}


def _explain(error: Exception, path: Path) -> StoreError:
    """Make a `StoreError` of an error of SQLite: the file, the problem and the way out."""
    code = _code(error) if isinstance(error, sqlite3.Error) else 0
    meaning = _why_not_opened(path) if code == sqlite3.SQLITE_CANTOPEN else _MEANINGS.get(code, "SQLite failed")
    explained = StoreError(f"{path}: {meaning} ({type(error).__name__}: {error})")
    explained.__cause__ = error
    return explained


def _why_not_opened(path: Path) -> str:
    # `os`, because the methods of `Path` raise where this user may not look into a folder.
    if os.path.isdir(path):  # noqa: PTH112
        return "this is a folder: give the path of a file"
    existing = path if os.path.exists(path) else path.parent  # noqa: PTH110
    if not os.access(existing, os.R_OK | os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        if _is_missing(path.parent):
            return f"there is no folder {path.parent}: create it"
        return "it may not be opened: give this user the right to read and write the file and its folder"
    return "it cannot be opened: check whether the folder can be written to"


def _is_missing(folder: Path) -> bool:
    try:
        folder.stat()
    except OSError as error:
        return error.errno in (errno.ENOENT, errno.ENOTDIR)
    return not os.path.isdir(folder)  # noqa: PTH112
