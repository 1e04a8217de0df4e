"""An index of the words in the files of a folder: passages in SQLite's FTS5, and vectors of them.

Everything here runs in threads. A scan reads only files that are new or have changed, and its transactions are short:
one that is cancelled loses little. Vectors belong to the text of a passage, so an edit costs only the passages that it
changes.
"""

from __future__ import annotations

import hashlib
import os
import re
import sqlite3
import stat
import threading
import time
import weakref
from array import array
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import chain, islice
from operator import mul

from attrs import frozen

from agentloop.errors import ToolError, UsageError
from agentloop.toolkit import _walk
from agentloop.toolkit._root import Root
from agentloop.toolkit._text_files import decoded, is_binary, without_hidden

__all__ = ["FolderIndex", "Hit", "Scan", "check_fts5"]

BUSY_SECONDS = 10.0
"""Seconds that a call waits for another call, or another process, to finish its transaction."""
RETRY_SECONDS = 0.05
FILES_PER_TRANSACTION = 200
STEPS_PER_CHECK = 10_000
"""Steps of SQLite's machine between two looks at whether the call is cancelled."""
MAX_TERMS = 64
CANDIDATES = 50
"""Passages that each ranking gives to the fusion."""
FUSION = 60
"""The constant of reciprocal rank fusion."""
RACY_NS = 100_000_000
"""A file that was changed so short before it was read may change again without another time stamp."""

PASSAGE_CHARS = 1600
"""Characters of a passage at most; where a paragraph ends, half of that will do."""

APPLICATION = 0x61676C66
"""The ``application_id`` of the file."""
FORMAT = 1
SCHEMA = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE files (id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE, state TEXT NOT NULL, chars INTEGER);
CREATE TABLE passages (
    id INTEGER PRIMARY KEY, file INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, digest BLOB NOT NULL
);
CREATE INDEX passages_of_files ON passages (file);
CREATE INDEX passages_of_digests ON passages (digest);
CREATE VIRTUAL TABLE words USING fts5 (path, text, tokenize = 'porter unicode61 remove_diacritics 2');
CREATE TABLE vectors (digest BLOB PRIMARY KEY, vector BLOB NOT NULL);
"""
"""The rows of ``words`` have the ids of ``passages``. A file without ``chars`` is passed over."""

_CLOEXEC, _NOFOLLOW = getattr(os, "O_CLOEXEC", 0), getattr(os, "O_NOFOLLOW", 0)
_NEW = os.O_WRONLY | os.O_CREAT | _CLOEXEC | _NOFOLLOW | getattr(os, "O_NONBLOCK", 0)

_TERM = re.compile(r'"([^"]*)"|(\w+)')
_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
_BETWEEN_CJK = re.compile(f"(?<=[{_CJK}])(?=\\w)|(?<=\\w)(?=[{_CJK}])")
_SEPARATOR = "\u200b"
"""Between characters of scripts without spaces, each of which is then a word. No text has it by itself here."""


@frozen
class Hit:
    """A passage that fits a query."""

    path: str
    first: int
    """Number of its first line, from 1."""
    last: int
    text: str


@frozen
class Scan:
    """What a scan found."""

    files: int
    """Files that can be searched."""
    passed_over: int
    """Files that cannot: they are no text, too large, or unreadable."""
    is_partial: bool
    """Whether there are more files than fit."""


def check_fts5() -> None:
    """Check that SQLite has its full-text search.

    Raises:
      UsageError: it has not.
    """
    with closing(sqlite3.connect(":memory:")) as connection:
        try:
            connection.execute("CREATE VIRTUAL TABLE words USING fts5 (text)")
        except sqlite3.Error as error:
            raise UsageError(
                f"search_folder() needs SQLite's full-text search, FTS5, which this Python's SQLite "
                f"({sqlite3.sqlite_version}) does not have: {error}. Install a Python whose sqlite3 has it"
            ) from error


class FolderIndex:
    """The index of one folder.

    Args:
      root: the folder.
      file: the file of the index; ``None`` for one in memory.
      is_wanted: whether a file is indexed, by the names on its path.
      ignore: names, or patterns of names, that are passed over.
      max_bytes: larger files are passed over.
      max_files: files at most.
      max_total: characters of all files at most.
    """

    def __init__(
        self,
        root: Root,
        file: str | None,
        is_wanted: Callable[[tuple[str, ...]], bool],
        ignore: Sequence[str],
        *,
        max_bytes: int,
        max_files: int,
        max_total: int,
    ) -> None:
        self._root = root
        self._file = file
        self._is_wanted = is_wanted
        self._ignore = list(ignore)
        self._max_bytes = max_bytes
        self._max_files = max_files
        self._max_total = max_total
        self._lock = threading.Lock()
        """For calls at once, perhaps of several event loops."""
        self._memory: sqlite3.Connection | None = None
        self._own = () if file is None else self._identities(file)

    def _identities(self, file: str) -> tuple[str, ...]:
        """The paths of the index itself and its journals, if they are in the folder."""
        prefix = self._root.path.rstrip("/") + "/"
        if not os.path.realpath(file).startswith(prefix):
            return ()
        path = os.path.realpath(file)[len(prefix) :]
        return tuple(_walk.spelled(f"{path}{suffix}") for suffix in ("", "-journal", "-wal", "-shm"))

    # ---------------------------------------------------------------------- connections

    @contextmanager
    def _transaction(self, go_on: Callable[[], object]) -> Generator[sqlite3.Connection]:
        """A transaction, in which ``go_on`` is called now and then, and raises to end it."""
        give_up = time.monotonic() + BUSY_SECONDS
        while not self._lock.acquire(timeout=RETRY_SECONDS):
            go_on()
        try:
            with self._connection() as connection:
                while True:
                    go_on()
                    try:
                        connection.execute("BEGIN IMMEDIATE")
                        break
                    except sqlite3.OperationalError as error:
                        is_busy = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
                        if not is_busy or time.monotonic() > give_up:
                            raise
                    time.sleep(RETRY_SECONDS)
                cancelled: list[BaseException] = []

                def check() -> int:
                    # An exception in here would be lost.
                    try:
                        go_on()
                    except BaseException as error:  # noqa: ASYNC103, BLE001 - raised again below
                        cancelled.append(error)
                    return len(cancelled)

                connection.set_progress_handler(check, STEPS_PER_CHECK)
                try:
                    self._prepare(connection)
                    yield connection
                    connection.execute("COMMIT")
                except sqlite3.OperationalError:
                    if cancelled:
                        raise cancelled[0] from None
                    raise
                finally:
                    connection.set_progress_handler(None, 0)
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            hint = "" if self._file is None else ". If it is not in use elsewhere, remove it: it is made again"
            raise ToolError(f"the index {self._file or 'in memory'} cannot be used: {error}{hint}") from error
        except OSError as error:
            raise ToolError(f"the index {self._file} cannot be used: {error.strerror or error}") from error
        finally:
            self._lock.release()

    @contextmanager
    def _connection(self) -> Generator[sqlite3.Connection]:
        if self._file is None:
            if self._memory is None:
                # The lock lets one thread in at a time.
                self._memory = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
                weakref.finalize(self, self._memory.close)
            yield self._memory
            return
        descriptor = os.open(self._file, _NEW, 0o600)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ToolError(f"the index {self._file} is no ordinary file")
        finally:
            os.close(descriptor)
        with closing(sqlite3.connect(self._file, timeout=0, isolation_level=None)) as connection:
            yield connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        [application] = connection.execute("PRAGMA application_id").fetchone()
        [version] = connection.execute("PRAGMA user_version").fetchone()
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if tables and (application, version) != (APPLICATION, FORMAT):
            raise ToolError(f"the file {self._file} is a database of another kind, or of another agentloop")
        if not tables:
            for statement in SCHEMA.split(";\n"):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION}")
            connection.execute(f"PRAGMA user_version = {FORMAT}")
            connection.execute("INSERT INTO facts VALUES ('folder', ?)", (_walk.spelled(self._root.path),))
        [folder] = connection.execute("SELECT value FROM facts WHERE name = 'folder'").fetchone()
        if folder != _walk.spelled(self._root.path):
            raise ToolError(f"the index {self._file} is that of {folder}: give each folder a file of its own")

    # ----------------------------------------------------------------------------- scan

    def scan(self, go_on: Callable[[], object]) -> Scan:
        """Bring the index up to date.

        Raises:
          ToolError: the folder or the index cannot be used.
        """
        seen: set[str] = set()
        passed_over = searched = total = 0
        is_partial = False
        with self._transaction(go_on) as connection:
            rows = connection.execute("SELECT path, state, chars FROM files").fetchall()
        known: dict[str, tuple[str, int | None]] = {path: (state, chars) for path, state, chars in rows}
        total = sum(chars or 0 for _, chars in known.values())
        folder = self._root.open_folder(".")
        try:
            with closing(self._files(folder, go_on)) as files:
                for first in files:
                    with self._transaction(go_on) as connection:
                        # The folders of these files are open only until the next ones are asked for.
                        for path, inner, name, state in chain([first], islice(files, FILES_PER_TRANSACTION - 1)):
                            before, chars = known.get(path, ("", 0))
                            if not state or state != before:
                                text = _text_of(inner, name, self._max_bytes)
                                total -= chars or 0
                                chars = None if text is None else len(text)
                                if searched >= self._max_files or total + (chars or 0) > self._max_total:
                                    is_partial = True
                                    continue
                                total += chars or 0
                                _save(connection, path, state, text)
                            seen.add(path)
                            searched += chars is not None
                            passed_over += chars is None
        finally:
            os.close(folder)
        with self._transaction(go_on) as connection:
            for path in known:
                if path not in seen:
                    _forget(connection, path)
                    connection.execute("DELETE FROM files WHERE path = ?", (path,))
            connection.execute("DELETE FROM vectors WHERE digest NOT IN (SELECT digest FROM passages)")
        return Scan(searched, passed_over, is_partial)

    def _files(self, folder: int, go_on: Callable[[], object]) -> Generator[tuple[str, int, str, str]]:
        """The path of each file, the open folder that it is in, its name there, and its state."""
        with closing(_walk.entries(folder, self._ignore)) as entries:
            for parts, inner, mode in entries:
                go_on()
                path = _walk.spelled("/".join(parts))
                if not stat.S_ISREG(mode) or path in self._own or not self._is_wanted(parts):
                    continue
                try:
                    status = os.stat(parts[-1], dir_fd=inner, follow_symlinks=False)
                except OSError:
                    continue
                newest = max(status.st_mtime_ns, status.st_ctime_ns)
                is_racy = abs(time.time_ns() - newest) < RACY_NS
                parts_of_state = (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino)
                yield path, inner, parts[-1], "" if is_racy else "-".join(map(str, parts_of_state))

    # -------------------------------------------------------------------------- vectors

    def use_vectors_of(self, name: str, go_on: Callable[[], object]) -> None:
        """Forget the vectors if they were made by a function of another name."""
        with self._transaction(go_on) as connection:
            row = connection.execute("SELECT value FROM facts WHERE name = 'embed'").fetchone()
            if row != (name,):
                connection.execute("DELETE FROM vectors")
                connection.execute("INSERT OR REPLACE INTO facts VALUES ('embed', ?)", (name,))

    def without_vector(self, count: int, go_on: Callable[[], object]) -> tuple[list[tuple[bytes, str]], int]:
        """Some passages that have no vector yet, by their digests; and how many there are."""
        with self._transaction(go_on) as connection:
            count_missing = (
                "SELECT count(DISTINCT digest) FROM passages WHERE digest NOT IN (SELECT digest FROM vectors)"
            )
            [missing] = connection.execute(count_missing).fetchone()
            rows = connection.execute(
                "SELECT digest, text FROM passages JOIN words ON words.rowid = passages.id "
                "WHERE digest NOT IN (SELECT digest FROM vectors) GROUP BY digest LIMIT ?",
                (count,),
            ).fetchall()
        return [(digest, _shown(text)) for digest, text in rows], missing

    def save_vectors(
        self, digests: Sequence[bytes], vectors: Sequence[Sequence[float]], go_on: Callable[[], object]
    ) -> None:
        """Save the vectors of passages."""
        with self._transaction(go_on) as connection:
            rows = [(digest, _normal(vector)) for digest, vector in zip(digests, vectors, strict=True)]
            connection.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", rows)

    # --------------------------------------------------------------------------- search

    def search(self, query: str, vector: Sequence[float] | None, count: int, go_on: Callable[[], object]) -> list[Hit]:
        """The passages that fit best: by their words and, with a vector of the query, by their meaning too."""
        with self._transaction(go_on) as connection:
            rankings = [self._by_words(connection, query, count if vector is None else CANDIDATES)]
            if vector is not None:
                rankings.append(self._by_vector(connection, array("f", _normal(vector)), go_on))
            scores: dict[int, float] = {}
            for ranking in rankings:
                for place, id in enumerate(ranking):
                    scores[id] = scores.get(id, 0) + 1 / (FUSION + place)
            best = sorted(scores, key=lambda number: (-scores[number], number))[:count]
            return [_hit(connection, id) for id in best]

    def _by_words(self, connection: sqlite3.Connection, query: str, count: int) -> list[int]:
        terms = [
            term
            for term in (_spaced(phrase or word) for phrase, word in _TERM.findall(without_hidden(query)))
            if term.strip()
        ]
        if not terms:
            return []
        words = " OR ".join('"{}"'.format(term.replace('"', " ")) for term in terms[:MAX_TERMS])
        rows = connection.execute(
            "SELECT rowid FROM words WHERE words MATCH ? ORDER BY bm25(words, 2.0, 1.0), rowid LIMIT ?", (words, count)
        )
        return [id for (id,) in rows]

    def _by_vector(
        self, connection: sqlite3.Connection, vector: array[float], go_on: Callable[[], object]
    ) -> list[int]:
        size = len(vector) * vector.itemsize
        rows = connection.execute(
            "SELECT passages.id, vector FROM passages JOIN vectors USING (digest) WHERE length(vector) = ?", (size,)
        )
        near: list[tuple[float, int]] = []
        for number, (id, data) in enumerate(rows):
            if not number % 1000:
                go_on()
            near.append((-sum(map(mul, vector, array("f", data))), id))
        return [id for _, id in sorted(near)[:CANDIDATES]]


def _text_of(folder: int, name: str, max_bytes: int) -> str | None:
    """The text of a file; ``None`` if it is none, too large, or unreadable."""
    try:
        with open(os.open(name, _walk.FILE, dir_fd=folder), "rb") as file:  # noqa: PTH123
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size > max_bytes:
                return None
            data = file.read(max_bytes + 1)
    except OSError:
        return None
    return None if len(data) > max_bytes or is_binary(data) else without_hidden(decoded(data))


def _save(connection: sqlite3.Connection, path: str, state: str, text: str | None) -> None:
    """Replace what the index has of a file. ``None`` for one that is passed over."""
    _forget(connection, path)
    chars = None if text is None else len(text)
    # By its path, and not by an id that was read before: another call may have removed the file meanwhile.
    insert = "INSERT OR REPLACE INTO files (path, state, chars) VALUES (?, ?, ?)"
    file = connection.execute(insert, (path, state, chars)).lastrowid
    for first, last, passage in _passages(text or ""):
        digest = hashlib.sha256(passage.encode()).digest()[:16]
        insert = "INSERT INTO passages (file, first, last, digest) VALUES (?, ?, ?, ?)"
        number = connection.execute(insert, (file, first, last, digest)).lastrowid
        words = (number, _spaced(path), _spaced(passage))
        connection.execute("INSERT INTO words (rowid, path, text) VALUES (?, ?, ?)", words)


def _forget(connection: sqlite3.Connection, path: str) -> None:
    """Remove the passages of a file."""
    of_file = "SELECT passages.id FROM passages JOIN files ON files.id = file WHERE path = ?"
    ids = connection.execute(of_file, (path,)).fetchall()
    connection.executemany("DELETE FROM words WHERE rowid = ?", ids)
    connection.executemany("DELETE FROM passages WHERE id = ?", ids)


def _passages(text: str) -> Iterator[tuple[int, int, str]]:
    """The passages of a text, with the numbers of their first and last lines."""
    lines: list[str] = []
    first = last = 1
    size = 0
    for number, line in enumerate(text.split("\n"), 1):
        for begin in range(0, len(line) or 1, PASSAGE_CHARS):
            piece = line[begin : begin + PASSAGE_CHARS]
            is_blank = not piece.strip()
            if lines and (size + len(piece) > PASSAGE_CHARS or (is_blank and size > PASSAGE_CHARS // 2)):
                yield first, last, "\n".join(lines).rstrip()
                lines, size = [], 0
            if is_blank and not lines:
                continue
            if not lines:
                first = number
            if not is_blank:
                last = number
            lines.append(piece)
            size += len(piece) + 1
    if lines:
        yield first, last, "\n".join(lines).rstrip()


def _spaced(text: str) -> str:
    return _BETWEEN_CJK.sub(_SEPARATOR, text)


def _shown(text: str) -> str:
    return text.replace(_SEPARATOR, "")


def _normal(vector: Sequence[float]) -> bytes:
    """A vector of length 1, as it is saved."""
    length = sum(map(mul, vector, vector)) ** 0.5 or 1.0
    return array("f", [value / length for value in vector]).tobytes()


def _hit(connection: sqlite3.Connection, id: int) -> Hit:
    query = "SELECT path, first, last, text FROM words JOIN passages ON passages.id = words.rowid WHERE words.rowid = ?"
    path, first, last, text = connection.execute(query, (id,)).fetchone()
    return Hit(_shown(path), first, last, _shown(text))
