"""The SQL of a store, in the part of the language that SQLite and PostgreSQL share: tables, migrations, statements.

`OpenSqlStore` spells out each method of `agentloop.journal.OpenStore` once, as one transaction. A database adds two
ways to run a transaction (`OpenSqlStore.read_in` and `write_in`) and a `Transaction` over its driver.

A row of ``agentloop_records`` holds many records: see `agentloop.stores._rows`.

A transaction reads first and writes last, so one that raises an `AgentLoopError` has written nothing, and other work in
the same database transaction can continue. Rows are locked in one order everywhere, the session's lease before
the session, so that two transactions cannot deadlock over one session.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Protocol, TypeAlias, TypeVar

from attrs import astuple, frozen

from agentloop.errors import StoreError
from agentloop.journal import READY, UNFINISHED, WAITING, Lease, Record, SessionInfo
from agentloop.stores._checks import (
    RECORD_SEPARATOR,
    check_kinds,
    check_name,
    check_next_seq,
    check_records,
    check_text,
    decode_json_text,
    has_text,
    no_such_session,
    session_exists,
)
from agentloop.stores._leases import (
    LeaseState,
    Moment,
    acquired,
    check_holder,
    check_not_leased,
    renewed,
)
from agentloop.stores._rows import RECORD_COLUMNS, TRANSCRIPT_KINDS, Row, RowReader, rows_of
from agentloop.stores._session_index import IndexEntry, index_entry
from agentloop.stores.mailbox import Mail, WaitingWork, delivered_before, mail_values

__all__ = [
    "AND_STATE",
    "MIGRATIONS",
    "Dialect",
    "OpenSqlStore",
    "Transaction",
    "newest_version",
    "pending_migrations",
]

T = TypeVar("T")
Values: TypeAlias = Mapping[str, object]

SEARCH_PAGE = 100
"""Rows that one step of a search reads. Between steps the search can be cancelled, and others can read."""


# ------------------------------------------------------------------------------- tables and migrations


@frozen
class Dialect:
    """Keywords that differ between databases."""

    text: str = "TEXT"
    """The type of text that compares byte by byte, whatever language the database is set to."""
    without_rowid: str = ""
    """Ends the definition of a table that is stored in the order of its primary key."""
    json_array: str = "json_array"
    """The function that makes a JSON array of its arguments."""


def _create_tables(dialect: Dialect) -> Sequence[str]:
    text, end = f"{dialect.text} NOT NULL", dialect.without_rowid
    number, real = "BIGINT NOT NULL", "DOUBLE PRECISION NOT NULL"
    # No index on `updated`: each append would have to write it, and sessions are listed seldom.
    return (
        f"""CREATE TABLE agentloop_sessions (
            id {text} PRIMARY KEY, title {text}, created {real}, updated {real}, last {number}, parent {text}
        ){end}""",
        f"""CREATE TABLE agentloop_records (
            session {text}, seq {number}, kind {text}, data {text}, stream {text}, key {text}, at {real},
            PRIMARY KEY (session, seq)
        ){end}""",
        f"""CREATE TABLE agentloop_answers (
            session {text}, question {text}, data {text}, PRIMARY KEY (session, question)
        ){end}""",
        f"""CREATE TABLE agentloop_leases (
            session {text} PRIMARY KEY, token {number}, holder {text}, expires {real}, era {text}, until {real}
        ){end}""",
    )


def _put_many_records_into_a_row(dialect: Dialect) -> Sequence[str]:
    text, number, real = f"{dialect.text} NOT NULL", "BIGINT NOT NULL", "DOUBLE PRECISION NOT NULL"
    kinds = ", ".join(f"'{kind}'" for kind in sorted(TRANSCRIPT_KINDS))
    is_transcript = f"kind IN ({kinds})"
    array = dialect.json_array
    # Stored in the order of their writing, not of the primary key: there, SQLite would put a row of more than 1 KB
    # into a page of its own.
    return (
        "ALTER TABLE agentloop_records RENAME TO agentloop_records_1",
        f"""CREATE TABLE agentloop_records (
            session {text}, seq {number}, kinds {text}, keys {text}, stream {text}, at {real}, transcript {text},
            data {text}, PRIMARY KEY (session, seq)
        )""",
        f"""INSERT INTO agentloop_records ({", ".join(RECORD_COLUMNS)})
            SELECT session, seq,
                CASE WHEN key = '' THEN {array}(kind) ELSE {array}({array}(kind)) END,
                CASE WHEN key = '' THEN '' ELSE CAST({array}(key) AS TEXT) END, stream, at,
                CASE WHEN {is_transcript} THEN data ELSE '' END, CASE WHEN {is_transcript} THEN '' ELSE data END
            FROM agentloop_records_1""",
        "DROP TABLE agentloop_records_1",
    )


def _add_session_states_and_mailboxes(dialect: Dialect) -> Sequence[str]:
    text, number, real = f"{dialect.text} NOT NULL", "BIGINT NOT NULL", "DOUBLE PRECISION NOT NULL"
    # The indexes have only what workers look for: a row that is in none of them costs its writer nothing.
    return (
        f"ALTER TABLE agentloop_sessions ADD COLUMN state {text} DEFAULT ''",
        f"ALTER TABLE agentloop_sessions ADD COLUMN agent {text} DEFAULT ''",
        f"CREATE INDEX agentloop_unfinished ON agentloop_sessions (id) WHERE state = '{UNFINISHED}'",
        f"""CREATE TABLE agentloop_mail (
            session {text}, id {text}, kind {text}, agent {text}, question {text}, data {text}, posted {real},
            due {real}, delivered {number}, PRIMARY KEY (session, id)
        )""",
        "CREATE INDEX agentloop_due ON agentloop_mail (due) WHERE delivered = 0",
    )


Migration: TypeAlias = Callable[[Dialect], Sequence[str]]

MIGRATIONS: tuple[Migration, ...] = (
    _create_tables,
    _put_many_records_into_a_row,
    _add_session_states_and_mailboxes,
)
"""Migration ``n`` makes version ``n + 1`` of the tables from version ``n``; version 0 is an empty database.

Append to this tuple and change no migration in it: databases of users have run them.
"""


def newest_version() -> int:
    """The version that all migrations together make."""
    return len(MIGRATIONS)


def pending_migrations(version: int, dialect: Dialect, place: str) -> list[str]:
    """The statements that bring the tables from ``version`` to the newest one.

    Args:
      place: the database, for the error.

    Raises:
      StoreError: ``version`` is newer than the newest that this agentloop knows.
    """
    if version > newest_version():
        raise StoreError(
            f"{place} was written by a newer agentloop: its format is version {version}, and this one knows "
            f"versions up to {newest_version()}. Update agentloop (pip install -U agentloop-trio), "
            "or give another place"
        )
    return [statement for migration in MIGRATIONS[version:] for statement in migration(dialect)]


# ---------------------------------------------------------------------------------------- transactions


class Transaction(Protocol):
    """A running transaction, or a connection that reads. Parameters in statements are named ``:like_this``."""

    lock: str
    """Appended to a SELECT to lock its rows until the transaction ends; empty for a database with a single writer."""

    bytes_of: str
    """How to select the bytes of a text ``{}``, if the database has them faster than the text."""

    def moment(self) -> Moment:
        """The current time on the clock that decides over leases."""
        ...

    def rows(self, statement: str, values: Values, /) -> Sequence[Row]:
        """All rows of a SELECT."""
        ...

    def each_row(self, statement: str, values: Values, /) -> Iterable[Row]:
        """The rows of a SELECT one by one, for large results. Run no other statement before the last row."""
        ...

    def write(self, statement: str, values: Values, /) -> int:
        """Run a statement that writes. Returns the number of rows it changed."""
        ...

    def add_records(self, rows: Sequence[Row], /) -> None:
        """Insert rows of `RECORD_COLUMNS` into ``agentloop_records``."""
        ...


# ------------------------------------------------------------------------------------------- the store


class OpenSqlStore:
    """`agentloop.journal.OpenStore` over a database: each method checks its arguments and runs one transaction."""

    async def read_in(self, transaction: Callable[[Transaction], T], /) -> T:
        """Call ``transaction``, which only reads, in a thread. Returns its result."""
        raise NotImplementedError

    async def write_in(self, transaction: Callable[[Transaction], T], /) -> T:
        """Call ``transaction`` in a thread and commit. Returns its result after the commit is durable."""
        raise NotImplementedError

    async def append_at_once(
        self, session: str, records: Sequence[Record], rows: Sequence[Row], lease: Lease | None, /
    ) -> bool:
        """Append in fewer round trips than a transaction, where a database can. ``False``: nothing was written."""
        return False

    async def append(
        self, session: str, records: Sequence[Record], /, *, lease: Lease | None = None, parent: str = ""
    ) -> None:
        check_records(session, records)
        if parent:
            check_text("the parent's id", parent)
        # Before the transaction: rows are made while other sessions' transactions run.
        rows = rows_of(session, records)

        if await self.append_at_once(session, records, rows, lease):
            return

        def append(tx: Transaction) -> None:
            if not _advance_at_once(tx, session, records, lease) and not _advance(tx, session, records, lease, parent):
                return
            tx.add_records(rows)

        await self.write_in(append)

    async def read(
        self, session: str, /, *, after: int = 0, limit: int | None = None, kinds: Collection[str] | None = None
    ) -> Sequence[Record]:
        kinds = check_kinds(kinds)
        if kinds is not None and not kinds:
            return []
        # Each row has one record at least, but maybe none of ``kinds``.
        page = " LIMIT :limit" if limit is not None and kinds is None else ""
        values: dict[str, object] = {"session": session, "after": after, **({"limit": limit} if page else {})}

        def read(tx: Transaction) -> list[Record]:
            reader = RowReader(after, kinds, bytes_of=tx.bytes_of)
            statement = (
                f"SELECT {reader.columns} FROM agentloop_records "
                f"WHERE session = :session AND seq > :after ORDER BY seq{page}"
            )
            records: list[Record] = []
            for row in tx.each_row(statement, values):
                records += reader.records(row)
                if limit is not None and len(records) >= limit:
                    return records[: max(limit, 0)]
            return records

        return await self.read_in(read)

    async def transcript_rows(self, session: str, /) -> tuple[RowReader, Sequence[Row]]:
        """All rows of a session, as far as opening it reads them, and what reads records out of them.

        Raises:
          StoreError: the database cannot be read, or has a text that is not UTF-8. `read` gives the records without it.
        """

        def read(tx: Transaction) -> tuple[RowReader, Sequence[Row]]:
            # Text, not bytes: of all rows at once, SQLite gives it faster, and it is decoded as fast.
            reader = RowReader(kinds=TRANSCRIPT_KINDS)
            statement = f"SELECT {reader.columns} FROM agentloop_records WHERE session = :session ORDER BY seq"
            return reader, tx.rows(statement, {"session": session})

        return await self.read_in(read)

    async def answer(self, session: str, question: str, data: bytes, /) -> bool:
        check_name("question's id", question)
        text = decode_json_text(f"the answer to question {question!r}", data)

        def answer(tx: Transaction) -> bool:
            if _last_seq(tx, session) is None:
                raise no_such_session(session)
            inserted = tx.write(
                "INSERT INTO agentloop_answers (session, question, data) VALUES (:session, :question, :data) "
                "ON CONFLICT DO NOTHING",
                {"session": session, "question": question, "data": text},
            )
            if inserted:
                # The run no longer waits for people alone: it can be resumed.
                tx.write(
                    f"UPDATE agentloop_sessions SET state = '{UNFINISHED}' WHERE id = :session AND state = '{WAITING}'",
                    {"session": session},
                )
            return inserted == 1

        return await self.write_in(answer)

    async def answers(self, session: str, /) -> dict[str, bytes]:
        statement = "SELECT question, data FROM agentloop_answers WHERE session = :session"
        rows = await self.read_in(lambda tx: tx.rows(statement, {"session": session}))
        return {question: data.encode() for question, data in rows}

    async def acquire(self, session: str, holder: str, /, *, seconds: float) -> Lease:
        check_name("session's id", session)

        def acquire(tx: Transaction) -> Lease:
            state = _lease_state(tx, session)
            if state is None:
                # A released lease first: a second process that acquires now finds the row, and waits for its lock.
                tx.write(_INSERT_LEASE, {"session": session})
                state = _lease_state(tx, session)
            moment = tx.moment()
            check_not_leased(session, state, moment)
            return _save_lease(tx, session, acquired(state, holder, seconds, moment))

        return await self.write_in(acquire)

    async def renew(self, lease: Lease, /, *, seconds: float) -> Lease:
        def renew(tx: Transaction) -> Lease:
            state = check_holder(lease.session, _lease_state(tx, lease.session), lease)
            return _save_lease(tx, lease.session, renewed(state, seconds, tx.moment()))

        return await self.write_in(renew)

    async def release(self, lease: Lease, /) -> None:
        # The row stays, for its token: the token of the next holder must be greater.
        statement = "UPDATE agentloop_leases SET holder = '' WHERE session = :session AND token = :token"
        await self.write_in(lambda tx: tx.write(statement, {"session": lease.session, "token": lease.token}))

    async def info(self, session: str, /) -> SessionInfo | None:
        statement = f"SELECT {_INFO} FROM agentloop_sessions s {_LEASE} WHERE s.id = :session"
        infos = await self.read_in(lambda tx: _infos(tx, tx.rows(statement, {"session": session})))
        return infos[0] if infos else None

    async def sessions(
        self,
        *,
        search: str = "",
        prefix: str = "",
        parent: str | None = None,
        limit: int = 50,
        before: SessionInfo | None = None,
    ) -> Sequence[SessionInfo]:
        if not search:
            return await self._page(prefix, parent, limit, before)
        search, matching = search.lower(), list[SessionInfo]()
        page = await self._page(prefix, parent, 100, before)
        while page:
            for info in page:
                if len(matching) >= limit:
                    return matching
                if search in info.title.lower() or await self._session_has_text(info.id, search):
                    matching.append(info)
            page = await self._page(prefix, parent, 100, page[-1])
        return matching

    async def _page(
        self, prefix: str, parent: str | None, limit: int, before: SessionInfo | None
    ) -> Sequence[SessionInfo]:
        """The ``limit`` sessions after ``before``, the most recently updated first."""
        conditions: list[str] = []
        values: dict[str, object] = {"limit": limit}
        if prefix:
            # Not `LIKE`, to which `%` and `_` are wildcards and which ignores case in SQLite.
            conditions.append("substr(id, 1, :length) = :prefix")
            values |= {"length": len(prefix), "prefix": prefix}
        if parent is not None:
            conditions.append("parent = :parent")
            values["parent"] = parent
        if before is not None:
            conditions.append("(updated, id) < (:updated, :id)")
            values |= {"updated": before.updated, "id": before.id}
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        page = f"SELECT * FROM agentloop_sessions{where} ORDER BY updated DESC, id DESC LIMIT :limit"
        # The join is outside: with it inside, the database would look for the lease of every session.
        statement = f"SELECT {_INFO} FROM ({page}) s {_LEASE} ORDER BY s.updated DESC, s.id DESC"
        return await self.read_in(lambda tx: _infos(tx, tx.rows(statement, values)))

    async def _session_has_text(self, session: str, search: str) -> bool:
        """Whether a record of the session contains ``search``, which is in lower case."""
        # The database narrows the search by a run of ASCII letters: only those have the same lower case in every
        # database, and no JSON encoder escapes them.
        ascii_part = max(re.findall("[a-z0-9 ]+", search), key=len, default="")
        statement = (
            "SELECT seq, transcript, data FROM agentloop_records WHERE session = :session AND seq > :after "
            "AND (lower(transcript) LIKE :part OR lower(data) LIKE :part) ORDER BY seq LIMIT :limit"
        )
        values: dict[str, object] = {"session": session, "after": 0, "part": f"%{ascii_part}%", "limit": SEARCH_PAGE}

        def search_page(tx: Transaction) -> tuple[bool, int | None]:
            rows = tx.rows(statement, values)
            for _, *columns in rows:
                if any(
                    has_text(text, search) for column in columns for text in column.encode().split(RECORD_SEPARATOR)
                ):
                    return True, None
            return False, rows[-1][0] if len(rows) == SEARCH_PAGE else None

        while True:
            is_match, last = await self.read_in(search_page)
            if last is None:
                return is_match
            values["after"] = last

    async def fork(self, session: str, new: str, /, *, upto: int | None = None) -> None:
        check_name("session's id", new)

        def fork(tx: Transaction) -> None:
            rows = tx.rows(
                f"SELECT last, title, state, agent FROM agentloop_sessions WHERE id = :session{tx.lock}",
                {"session": session},
            )
            if not rows:
                raise no_such_session(session)
            last, title, state, agent = rows[0]
            end: int = last if upto is None else max(0, min(upto, last))
            if _last_seq(tx, new) is not None:
                raise session_exists(new)
            entry = IndexEntry(state if end == last else READY, agent)
            _create_session(tx, new, session, title, end, tx.moment(), entry)
            values = {"new": new, "session": session, "end": end}
            columns = ", ".join(RECORD_COLUMNS[1:])
            tx.write(
                f"INSERT INTO agentloop_records (session, {columns}) "
                f"SELECT :new, {columns} FROM agentloop_records WHERE session = :session AND seq <= :end",
                values,
            )
            # The next row may begin with records up to ``end``.
            reader = RowReader()
            for row in tx.rows(
                f"SELECT {reader.columns} FROM agentloop_records "
                "WHERE session = :session AND seq > :end ORDER BY seq LIMIT 1",
                {"session": session, "end": end},
            ):
                tx.add_records(rows_of(new, [record for record in reader.records(row) if record.seq <= end]))

        await self.write_in(fork)

    async def rename(self, session: str, title: str, /) -> None:
        check_text("the title", title)
        statement = "UPDATE agentloop_sessions SET title = :title WHERE id = :session"

        def rename(tx: Transaction) -> None:
            if not tx.write(statement, {"title": title, "session": session}):
                raise no_such_session(session)

        await self.write_in(rename)

    async def delete(self, session: str, /) -> None:
        values = {"session": session}

        def delete(tx: Transaction) -> None:
            check_not_leased(session, _lease_state(tx, session), tx.moment())
            # The lease's row stays, for its token: the token of the next holder must be greater.
            tx.write("UPDATE agentloop_leases SET holder = '' WHERE session = :session", values)
            _last_seq(tx, session)
            for table in ("records", "answers", "mail"):
                tx.write(f"DELETE FROM agentloop_{table} WHERE session = :session", values)
            tx.write("DELETE FROM agentloop_sessions WHERE id = :session", values)

        await self.write_in(delete)

    # Mailboxes: `agentloop.stores.mailbox.Mailboxes`.

    async def post(self, session: str, mail: Mail, /, *, delay: float = 0.0) -> bool:
        values = mail_values(session, mail)
        return await self.write_in(lambda tx: _post(tx, values, delay))

    async def mail(self, session: str, /) -> Sequence[Mail]:
        def read(tx: Transaction) -> list[Mail]:
            rows = tx.rows(_SELECT_MAIL, {"session": session, "now": tx.moment().wall})
            return [
                Mail(id, kind, data.encode(), agent, question, due) for id, kind, data, agent, question, due in rows
            ]

        return await self.read_in(read)

    async def take(self, lease: Lease, mail: str, /) -> bool:
        def take(tx: Transaction) -> bool:
            check_holder(lease.session, _lease_state(tx, lease.session), lease)
            return tx.write(_TAKE, {"session": lease.session, "id": mail}) == 1

        return await self.write_in(take)

    async def append_and_take(self, session: str, records: Sequence[Record], lease: Lease, mail: str, /) -> None:
        check_records(session, records)
        rows = rows_of(session, records)
        values = {"session": session, "id": mail}

        def append(tx: Transaction) -> None:
            # Reads first: see above. The lease is locked, so no other process takes the mail in between.
            check_holder(session, _lease_state(tx, session), lease)
            if not tx.rows(
                "SELECT 1 FROM agentloop_mail WHERE session = :session AND id = :id AND delivered = 0", values
            ):
                raise delivered_before(session, mail)
            _advance(tx, session, records, lease, "")
            tx.add_records(rows)
            if not tx.write(_DELIVER, {**values, "number": records[0].seq if records else -1}):
                # It was withdrawn meanwhile, which needs no lease.
                raise delivered_before(session, mail)

        await self.write_in(append)

    async def withdraw(self, session: str, mail: str, /) -> bool:
        return await self.write_in(lambda tx: tx.write(_TAKE, {"session": session, "id": mail}) == 1)

    async def delivered(self, session: str, mail: str, /) -> int | None:
        def read(tx: Transaction) -> int | None:
            rows = tx.rows(_SELECT_DELIVERED, {"session": session, "id": mail})
            # 0 says that it waits, and less that it was taken without a record.
            return max(rows[0][0], 0) if rows and rows[0][0] else None

        return await self.read_in(read)

    async def waiting_work(self, *, limit: int = 100) -> Sequence[WaitingWork]:
        def read(tx: Transaction) -> list[WaitingWork]:
            moment = tx.moment()
            values = {"now": moment.wall, "era": moment.era, "steady": moment.steady, "limit": limit}
            rows = tx.rows(_WAITING_WORK, values)
            return [WaitingWork(session, agent, token, not place) for session, agent, token, place in rows]

        return await self.read_in(read)


# -------------------------------------------------------------------------------- parts of transactions

_ADVANCE = "UPDATE agentloop_sessions SET last = :last, updated = CASE WHEN updated > :now THEN updated ELSE :now END"
AND_STATE = ", state = :state, agent = CASE WHEN :agent = '' THEN agent ELSE :agent END"
_RUNNING_LEASE = "FROM agentloop_leases WHERE session = :session AND holder <> ''"
_WITH_LEASE = f" WHERE id = :session AND last = :before AND EXISTS (SELECT 1 {_RUNNING_LEASE} AND token = :token)"
_WITHOUT_LEASE = f" WHERE id = :session AND last = :before AND NOT EXISTS (SELECT 1 {_RUNNING_LEASE})"


def _advance_statement(entry: IndexEntry | None, values: dict[str, object]) -> str:
    """The statement without its condition, with the session's state if it changes."""
    if entry is None:
        return _ADVANCE
    values |= entry._asdict()
    return _ADVANCE + AND_STATE


def _advance_at_once(tx: Transaction, session: str, records: Sequence[Record], lease: Lease | None) -> bool:
    """Check and advance the session's end in one statement in place of three. ``False``: `_advance` must look closer.

    Only for a database with a single writer: the statement locks no lease, so elsewhere another process could acquire
    the session before this transaction commits.
    """
    if tx.lock or not records:
        return False
    values: dict[str, object] = {
        "session": session,
        "before": records[0].seq - 1,
        "last": records[-1].seq,
        "now": tx.moment().wall,
    }
    statement = _advance_statement(index_entry(records), values)
    if lease is None:
        return tx.write(statement + _WITHOUT_LEASE, values) == 1
    if lease.session != session:
        return False
    values["token"] = lease.token
    return tx.write(statement + _WITH_LEASE, values) == 1


def _advance(tx: Transaction, session: str, records: Sequence[Record], lease: Lease | None, parent: str) -> bool:
    """Check lease and number, and advance the session's end, or create the session. ``False`` without records."""
    moment = tx.moment()
    state = _lease_state(tx, session)
    if lease is None:
        check_not_leased(session, state, moment)
    else:
        check_holder(session, state, lease)
    last = _last_seq(tx, session)
    check_next_seq(session, last, records)
    if not records:
        return False
    if last is None:
        _create_session(tx, session, parent, "", records[-1].seq, moment, index_entry(records))
    else:
        values: dict[str, object] = {"session": session, "last": records[-1].seq, "now": moment.wall}
        tx.write(f"{_advance_statement(index_entry(records), values)} WHERE id = :session", values)
    return True


_SESSION = "s.id, s.title, s.created, s.updated, s.last, s.parent, s.state, s.agent"
_INFO = f"{_SESSION}, l.token, l.holder, l.expires, l.era, l.until"
_LEASE = "LEFT JOIN agentloop_leases l ON l.session = s.id"


def _infos(tx: Transaction, rows: Sequence[Row]) -> list[SessionInfo]:
    """Rows of `_INFO` as values."""
    states = [LeaseState(*row[8:]) for row in rows]
    # PostgreSQL needs a statement to read the clock, so read it only where a lease must be compared with it.
    moment = tx.moment() if any(state.holder for state in states) else None
    infos: list[SessionInfo] = []
    for row, lease in zip(rows, states, strict=True):
        holder = lease.holder if moment is not None and lease.is_running(moment) else ""
        id, title, created, updated, last, parent, state, agent = row[:8]
        infos.append(SessionInfo(id, title, created, updated, last, parent, holder, state, agent))
    return infos


def _last_seq(tx: Transaction, session: str) -> int | None:
    """The number of the session's last record, or ``None`` if the session does not exist. Locks the session."""
    rows = tx.rows(f"SELECT last FROM agentloop_sessions WHERE id = :session{tx.lock}", {"session": session})
    return rows[0][0] if rows else None


def _create_session(
    tx: Transaction, session: str, parent: str, title: str, last: int, moment: Moment, entry: IndexEntry | None
) -> None:
    state, agent = ("", "") if entry is None else entry
    values = {"session": session, "title": title, "now": moment.wall, "last": last, "parent": parent}
    created = tx.write(
        "INSERT INTO agentloop_sessions (id, title, created, updated, last, parent, state, agent) "
        "VALUES (:session, :title, :now, :now, :last, :parent, :state, :agent) ON CONFLICT DO NOTHING",
        values | {"state": state, "agent": agent},
    )
    if not created:
        raise session_exists(session)


_INSERT_LEASE = (
    "INSERT INTO agentloop_leases (session, token, holder, expires, era, until) "
    "VALUES (:session, 0, '', 0.0, '', 0.0) ON CONFLICT DO NOTHING"
)
_SELECT_LEASE = "SELECT token, holder, expires, era, until FROM agentloop_leases WHERE session = :session"
_UPDATE_LEASE = (
    "UPDATE agentloop_leases SET token = :token, holder = :holder, expires = :expires, era = :era, until = :until "
    "WHERE session = :session"
)


def _lease_state(tx: Transaction, session: str) -> LeaseState | None:
    """The newest lease on the session. Locks it."""
    rows = tx.rows(f"{_SELECT_LEASE}{tx.lock}", {"session": session})
    return LeaseState(*rows[0]) if rows else None


def _save_lease(tx: Transaction, session: str, state: LeaseState) -> Lease:
    columns = ("token", "holder", "expires", "era", "until")
    tx.write(_UPDATE_LEASE, {"session": session, **dict(zip(columns, astuple(state), strict=True))})
    return state.lease(session)


_POST = (
    "INSERT INTO agentloop_mail (session, id, kind, agent, question, data, posted, due, delivered) "
    "VALUES (:session, :id, :kind, :agent, :question, :data, :now, :due, 0) ON CONFLICT DO NOTHING"
)
_SELECT_MAIL = (
    "SELECT id, kind, data, agent, question, due FROM agentloop_mail "
    "WHERE session = :session AND delivered = 0 AND due <= :now ORDER BY posted, id"
)
_DELIVER = (
    "UPDATE agentloop_mail SET delivered = :number, data = '' WHERE session = :session AND id = :id AND delivered = 0"
)
"""The row stays, so that mail that is posted again is not delivered again."""
_TAKE = _DELIVER.replace(":number", "-1")
_SELECT_DELIVERED = "SELECT delivered FROM agentloop_mail WHERE session = :session AND id = :id"
_WAITING_WORK = f"""
    SELECT w.session, w.agent, COALESCE(l.token, 0), w.place
    FROM (
        SELECT id AS session, agent, 0 AS place FROM agentloop_sessions WHERE state = '{UNFINISHED}'
        UNION ALL
        SELECT first.session, COALESCE(NULLIF(first.agent, ''), s.agent, ''), 1
        FROM (
            SELECT m.session, MAX(m.agent) AS agent, MIN(m.kind) AS least, MAX(m.kind) AS greatest FROM agentloop_mail m
            WHERE m.delivered = 0 AND m.due <= :now GROUP BY m.session
        ) first
        LEFT JOIN agentloop_sessions s ON s.id = first.session
        WHERE COALESCE(s.state, '') <> '{UNFINISHED}'
            AND (first.least = 'answer' OR first.greatest = 'stop' OR COALESCE(s.state, '') <> '{WAITING}')
    ) w LEFT JOIN agentloop_leases l ON l.session = w.session
    WHERE COALESCE(l.holder, '') = ''
        OR CASE WHEN l.era = :era THEN l.until <= :steady ELSE l.expires <= :now END
    ORDER BY w.place, CASE WHEN w.place = 0 THEN CAST(COALESCE(l.expires, 0.0) AS BIGINT) ELSE 0 END, random()
    LIMIT :limit
"""
"""Of the runs that were cut off, that one goes first which no process has held for longest: in a random order, a few
would wait for very long where more are cut off than the workers take over at once. Within a second the order is random,
so that workers do not all try the same session."""


def _post(tx: Transaction, values: dict[str, object], delay: float) -> bool:
    now = tx.moment().wall
    return tx.write(_POST, {**values, "now": now, "due": now + delay}) == 1
