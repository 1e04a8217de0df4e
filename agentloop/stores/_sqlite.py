"""A file of SQLite: how it is opened, and what its errors mean to the user."""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from pathlib import Path
from typing import Literal, TypeAlias

from agentloop.errors import StoreError
from agentloop.stores import _schema

__all__ = ["APPLICATION_ID", "DIALECT", "Synchronous", "connect", "explain", "prepare"]

Synchronous: TypeAlias = Literal["normal", "full"]

APPLICATION_ID = 0x61676C70
"""What makes a file ours: "aglp", in SQLite's header."""

DIALECT = _schema.Dialect(without_rowid=" WITHOUT ROWID")

_RETRY_SECONDS = 0.01


def connect(path: Path, *, synchronous: Synchronous, busy_seconds: float, reads: bool = False) -> sqlite3.Connection:
    """A connection to the file at ``path``, which is created, or brought to the newest version.

    Args:
      reads: for one that only reads, after another one has seen to the rest.

    Raises:
      StoreError: it cannot be opened, or is not ours.
    """
    try:
        db = sqlite3.connect(path, timeout=busy_seconds, isolation_level=None, check_same_thread=False)
        try:
            if reads:
                db.execute("PRAGMA query_only=ON")
            else:
                prepare(db, path, synchronous=synchronous, busy_seconds=busy_seconds)
        except BaseException:
            db.close()
            raise
    except sqlite3.Error as error:
        raise explain(error, path) from error
    return db


def prepare(db: sqlite3.Connection, path: Path, *, synchronous: Synchronous, busy_seconds: float) -> None:
    """See to it that ``db`` is what we need. Nothing is written to a file that is not ours, or too new."""
    # In one transaction, since another process may be making the tables at this moment.
    db.execute("BEGIN")
    version, owner = _number(db, "user_version"), _number(db, "application_id")
    has_tables = db.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is not None
    db.execute("COMMIT")
    if owner != APPLICATION_ID and (owner or version or has_tables):
        raise StoreError(f"{path} is the database of another program, and no store of sessions: give another path")
    _schema.statements_from(version, DIALECT, str(path))
    _switch_to_wal(db, path, busy_seconds)
    db.execute(f"PRAGMA synchronous={'FULL' if synchronous == 'full' else 'NORMAL'}")
    db.execute("BEGIN IMMEDIATE")
    try:
        # Again, since another process may have done it meanwhile.
        statements = _schema.statements_from(_number(db, "user_version"), DIALECT, str(path))
        for statement in statements:
            db.execute(statement)
        db.execute(f"PRAGMA user_version={len(_schema.STEPS)}")
        db.execute(f"PRAGMA application_id={APPLICATION_ID}")
        # Where there was nothing to do, it was tried: a file that cannot be written to is noticed now, not in mid-run.
        db.execute("COMMIT" if statements else "ROLLBACK")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _number(db: sqlite3.Connection, pragma: str) -> int:
    return int(db.execute(f"PRAGMA {pragma}").fetchone()[0])


def _switch_to_wal(db: sqlite3.Connection, path: Path, busy_seconds: float) -> None:
    deadline = time.monotonic() + busy_seconds
    while (mode := db.execute("PRAGMA journal_mode").fetchone()[0]) != "wal":
        try:
            mode = db.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        except sqlite3.OperationalError as error:
            # SQLite does not wait here by itself while another process does the same.
            if not _is_busy(error) or time.monotonic() > deadline:
                raise
            time.sleep(_RETRY_SECONDS)
        else:
            if mode == "wal":
                return
            raise StoreError(f"{path} cannot have a write-ahead log (its mode is {mode!r}): put it on a local disk")


def _code(error: sqlite3.Error) -> int:
    """SQLite's code for it, without what further parts there are; 0 if it is Python's own."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _is_busy(error: sqlite3.Error) -> bool:
    return _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


_MEANINGS = {
    sqlite3.SQLITE_FULL: "the disk is full: free some space. What was kept before is safe; of this, nothing was kept",
    sqlite3.SQLITE_BUSY: "another program has locked it for too long: end that program, or wait for it",
    sqlite3.SQLITE_LOCKED: "another program has locked it for too long: end that program, or wait for it",
    sqlite3.SQLITE_CORRUPT: "the file is damaged: put a backup in its place, or save what can be read of it with "
    "`sqlite3 FILE .recover`",
    sqlite3.SQLITE_NOTADB: "this is no SQLite database: give another path, or move the file away",
    sqlite3.SQLITE_READONLY: "it cannot be written to: give this user the right to write to the file and to its folder",
    sqlite3.SQLITE_PERM: "it cannot be written to: give this user the right to write to the file and to its folder",
    sqlite3.SQLITE_IOERR: "reading or writing it failed: look after the disk. Of this, nothing was kept for certain",
}


def explain(error: Exception, path: Path) -> StoreError:
    """``error`` for a person: which file, what is wrong, and the way out."""
    code = _code(error) if isinstance(error, sqlite3.Error) else 0
    meaning = _MEANINGS.get(code, "it cannot be done") if code != sqlite3.SQLITE_CANTOPEN else _why_not_opened(path)
    told = StoreError(f"{path}: {meaning} ({type(error).__name__}: {error})")
    told.__cause__ = error
    return told


def _why_not_opened(path: Path) -> str:
    # Not by methods of the path, which raise where a folder may not be looked into.
    if os.path.isdir(path):  # noqa: PTH112
        return "this is a folder: give the path of a file"
    place = path if os.path.exists(path) else path.parent  # noqa: PTH110
    if not os.access(place, os.R_OK | os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        if _is_missing(path.parent):
            return f"there is no folder {path.parent}: create it"
        return "it may not be opened: give this user the right to read and write the file and its folder"
    return "it cannot be opened: see whether the folder can be written to"


def _is_missing(folder: Path) -> bool:
    try:
        folder.stat()
    except OSError as error:
        return error.errno in (errno.ENOENT, errno.ENOTDIR)
    return not os.path.isdir(folder)  # noqa: PTH112
