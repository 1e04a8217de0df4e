"""What a store does, in SQL that SQLite and PostgreSQL both speak. Each function is one transaction.

Each looks first and writes last: one that raises an error of ours has written nothing, and the transaction that it
was in can go on. Rows are locked in one order, that of a session's lease before that of the session.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol

from agentloop.journal import Lease, Record, SessionInfo
from agentloop.stores._clock import Moment
from agentloop.stores._rules import (
    Held,
    check_addition,
    check_free,
    check_mine,
    is_mentioned,
    no_such_session,
    prolonged,
    taken,
    taken_meanwhile,
)

__all__ = [
    "RECORD_COLUMNS",
    "Row",
    "Transaction",
    "acquire",
    "answer",
    "answers",
    "append",
    "delete",
    "fork",
    "info",
    "mentions",
    "read",
    "release",
    "rename",
    "renew",
    "rows_of",
    "sessions",
]

Row = Sequence[Any]

SCAN_ROWS = 1000
"""How many records are looked through at once."""


class Transaction(Protocol):
    """A transaction that is running. Parameters of statements are named ``:like_this``."""

    lock: str
    """What to put after a SELECT so that the rows stay as they are until the end; empty where nobody else writes."""

    def moment(self) -> Moment:
        """The time."""
        ...

    def rows(self, statement: str, values: Mapping[str, object], /) -> Sequence[Row]:
        """What a SELECT finds."""
        ...

    def each_row(self, statement: str, values: Mapping[str, object], /) -> Iterable[Row]:
        """What a SELECT finds, one by one, for those that find much. There is no other statement meanwhile."""
        ...

    def write(self, statement: str, values: Mapping[str, object], /) -> int:
        """Run a statement. Gives how many rows it has changed."""
        ...

    def add_records(self, rows: Sequence[Row], /) -> None:
        """Add rows to the table of records, with what is in `RECORD_COLUMNS`."""
        ...


RECORD_COLUMNS = ("session", "seq", "kind", "data", "stream", "key", "at")


def rows_of(session: str, records: Sequence[Record], texts: Sequence[str]) -> list[Row]:
    """``records``, whose data is ``texts``, as `append` takes them."""
    return [
        (session, record.seq, record.kind, text, record.stream, record.key, record.at)
        for record, text in zip(records, texts, strict=True)
    ]


def append(
    tx: Transaction,
    session: str,
    records: Sequence[Record],
    rows: Sequence[Row],
    lease: Lease | None,
    parent: str,
) -> None:
    if not _moved_on(tx, session, records, lease):
        moment = tx.moment()
        held = _held(tx, session)
        if lease is None:
            check_free(session, held, moment)
        else:
            check_mine(session, held, lease)
        last = _last(tx, session)
        check_addition(session, last, records)
        if not records:
            return
        if last is None:
            _create(tx, session, parent, "", records[-1].seq, moment)
        else:
            values = {"session": session, "last": records[-1].seq, "now": moment.wall}
            tx.write(f"{_MOVE_ON} WHERE id = :session", values)
    tx.add_records(rows)


_MOVE_ON = "UPDATE agentloop_sessions SET last = :last, updated = CASE WHEN updated > :now THEN updated ELSE :now END"
_MOVE_ON_IF = f"{_MOVE_ON} WHERE id = :session AND last = :before AND"
_IF_HELD = "FROM agentloop_leases WHERE session = :session AND holder <> ''"
_MOVE_ON_WITH_LEASE = f"{_MOVE_ON_IF} EXISTS (SELECT 1 {_IF_HELD} AND token = :token)"
_MOVE_ON_WITHOUT = f"{_MOVE_ON_IF} NOT EXISTS (SELECT 1 {_IF_HELD})"


def _moved_on(tx: Transaction, session: str, records: Sequence[Record], lease: Lease | None) -> bool:
    """Whether all was as it mostly is, and the session's end is moved on: one statement in the place of three.

    Only where nobody else writes: this locks no lease, so elsewhere somebody could take it before we have written.
    """
    if tx.lock or not records:
        return False
    values = {
        "session": session,
        "before": records[0].seq - 1,
        "last": records[-1].seq,
        "now": tx.moment().wall,
    }
    if lease is None:
        return tx.write(_MOVE_ON_WITHOUT, values) == 1
    if lease.session != session:
        return False
    values["token"] = lease.token
    return tx.write(_MOVE_ON_WITH_LEASE, values) == 1


def read(tx: Transaction, session: str, after: int, limit: int | None, kinds: Collection[str] | None) -> list[Record]:
    statement = (
        "SELECT seq, kind, data, stream, key, at FROM agentloop_records WHERE session = :session AND seq > :after"
    )
    values: dict[str, object] = {"session": session, "after": after}
    if kinds is not None:
        if not kinds:
            return []
        # No index helps: those of other kinds stand between them on the same pages, which must be read either way, and
        # every addition would have to change it. Read in order, they are looked at no further than their kind.
        names = {f"kind{number}": kind for number, kind in enumerate(sorted(kinds))}
        statement += f" AND kind IN ({', '.join(f':{name}' for name in names)})"
        values |= names
    statement += " ORDER BY seq"
    if limit is not None:
        statement += " LIMIT :limit"
        values["limit"] = limit
    return [
        Record(seq, kind, data.encode(), stream, key, at)
        for seq, kind, data, stream, key, at in tx.each_row(statement, values)
    ]


def answer(tx: Transaction, session: str, question: str, data: str) -> bool:
    if _last(tx, session) is None:
        raise no_such_session(session)
    values = {"session": session, "question": question, "data": data}
    kept = tx.write(
        "INSERT INTO agentloop_answers (session, question, data) VALUES (:session, :question, :data) "
        "ON CONFLICT DO NOTHING",
        values,
    )
    return kept == 1


def answers(tx: Transaction, session: str) -> dict[str, bytes]:
    rows = tx.rows("SELECT question, data FROM agentloop_answers WHERE session = :session", {"session": session})
    return {question: data.encode() for question, data in rows}


def acquire(tx: Transaction, session: str, holder: str, seconds: float) -> Lease:
    held = _held(tx, session)
    if held is None:
        # Nobody's, so that whoever does the same at this moment finds a row, and waits for it.
        row = {"session": session, "token": 0, "holder": "", "expires": 0.0, "era": "", "until": 0.0}
        tx.write(
            "INSERT INTO agentloop_leases (session, token, holder, expires, era, until) "
            "VALUES (:session, :token, :holder, :expires, :era, :until) ON CONFLICT DO NOTHING",
            row,
        )
        held = _held(tx, session)
    moment = tx.moment()
    check_free(session, held, moment)
    return _keep(tx, session, taken(held, holder, seconds, moment))


def renew(tx: Transaction, lease: Lease, seconds: float) -> Lease:
    held = check_mine(lease.session, _held(tx, lease.session), lease)
    return _keep(tx, lease.session, prolonged(held, seconds, tx.moment()))


def release(tx: Transaction, lease: Lease) -> None:
    # The row stays, for its token: that of the next holder must be greater.
    tx.write(
        "UPDATE agentloop_leases SET holder = '' WHERE session = :session AND token = :token",
        {"session": lease.session, "token": lease.token},
    )


def info(tx: Transaction, session: str) -> SessionInfo | None:
    rows = tx.rows(f"SELECT {_INFO} FROM agentloop_sessions s {_HELD} WHERE s.id = :session", {"session": session})
    return _infos(tx, rows)[0] if rows else None


def sessions(tx: Transaction, parent: str | None, limit: int, before: SessionInfo | None) -> list[SessionInfo]:
    where: list[str] = []
    values: dict[str, object] = {"limit": limit}
    if parent is not None:
        where.append("parent = :parent")
        values["parent"] = parent
    if before is not None:
        where.append("(updated, id) < (:updated, :id)")
        values |= {"updated": before.updated, "id": before.id}
    condition = f" WHERE {' AND '.join(where)}" if where else ""
    page = f"SELECT * FROM agentloop_sessions{condition} ORDER BY updated DESC, id DESC LIMIT :limit"
    # Of a page only: to look for the lease of every session would take longer than the rest.
    statement = f"SELECT {_INFO} FROM ({page}) s {_HELD} ORDER BY s.updated DESC, s.id DESC"
    return _infos(tx, tx.rows(statement, values))


def mentions(tx: Transaction, session: str, search: str, after: int) -> tuple[bool, int | None]:
    """Whether one of the next records mentions ``search``, which is in lower case, and after which to look on."""
    # Only ASCII letters have the same lower case in every database, and nobody escapes them in JSON.
    part = max(re.findall("[a-z0-9 ]+", search), key=len, default="")
    rows = tx.rows(
        "SELECT seq, data FROM agentloop_records WHERE session = :session AND seq > :after "
        "AND lower(data) LIKE :part ORDER BY seq LIMIT :limit",
        {"session": session, "after": after, "part": f"%{part}%", "limit": SCAN_ROWS},
    )
    if any(is_mentioned(search, data) for _, data in rows):
        return True, None
    return False, rows[-1][0] if len(rows) == SCAN_ROWS else None


def fork(tx: Transaction, session: str, new: str, upto: int | None) -> None:
    rows = tx.rows(
        f"SELECT last, title FROM agentloop_sessions WHERE id = :session{tx.lock}",
        {"session": session},
    )
    if not rows:
        raise no_such_session(session)
    last, title = rows[0]
    end: int = last if upto is None else max(0, min(upto, last))
    if _last(tx, new) is not None:
        raise taken_meanwhile(new)
    _create(tx, new, session, title, end, tx.moment())
    tx.write(
        "INSERT INTO agentloop_records (session, seq, kind, data, stream, key, at) "
        "SELECT :new, seq, kind, data, stream, key, at FROM agentloop_records "
        "WHERE session = :session AND seq <= :end",
        {"new": new, "session": session, "end": end},
    )


def rename(tx: Transaction, session: str, title: str) -> None:
    changed = tx.write(
        "UPDATE agentloop_sessions SET title = :title WHERE id = :session", {"title": title, "session": session}
    )
    if not changed:
        raise no_such_session(session)


def delete(tx: Transaction, session: str) -> None:
    check_free(session, _held(tx, session), tx.moment())
    # The row stays, for its token: that of whoever comes later must be greater than that of whoever had it before.
    tx.write("UPDATE agentloop_leases SET holder = '' WHERE session = :session", {"session": session})
    _last(tx, session)
    for table in ("records", "answers"):
        tx.write(f"DELETE FROM agentloop_{table} WHERE session = :session", {"session": session})
    tx.write("DELETE FROM agentloop_sessions WHERE id = :session", {"session": session})


_INFO = "s.id, s.title, s.created, s.updated, s.last, s.parent, l.token, l.holder, l.expires, l.era, l.until"
_HELD = "LEFT JOIN agentloop_leases l ON l.session = s.id"


def _infos(tx: Transaction, rows: Sequence[Row]) -> list[SessionInfo]:
    helds = [Held(*row[6:]) for row in rows]
    # In PostgreSQL, to ask for the time is a statement of its own.
    moment = tx.moment() if any(held.holder for held in helds) else None
    found: list[SessionInfo] = []
    for (id, title, created, updated, last, parent, *_), held in zip(rows, helds, strict=True):
        holder = held.holder if moment is not None and held.is_running(moment) else ""
        found.append(SessionInfo(id, title, created, updated, last, parent, holder))
    return found


def _last(tx: Transaction, session: str) -> int | None:
    """The number of the last record of a session, if there is one of that id."""
    rows = tx.rows(f"SELECT last FROM agentloop_sessions WHERE id = :session{tx.lock}", {"session": session})
    return rows[0][0] if rows else None


def _create(tx: Transaction, session: str, parent: str, title: str, last: int, moment: Moment) -> None:
    created = tx.write(
        "INSERT INTO agentloop_sessions (id, title, created, updated, last, parent) "
        "VALUES (:session, :title, :now, :now, :last, :parent) ON CONFLICT DO NOTHING",
        {"session": session, "title": title, "now": moment.wall, "last": last, "parent": parent},
    )
    if not created:
        raise taken_meanwhile(session)


def _held(tx: Transaction, session: str) -> Held | None:
    rows = tx.rows(
        f"SELECT token, holder, expires, era, until FROM agentloop_leases WHERE session = :session{tx.lock}",
        {"session": session},
    )
    return Held(*rows[0]) if rows else None


def _keep(tx: Transaction, session: str, held: Held) -> Lease:
    tx.write(
        "UPDATE agentloop_leases SET token = :token, holder = :holder, expires = :expires, era = :era, until = :until "
        "WHERE session = :session",
        {
            "session": session,
            "token": held.token,
            "holder": held.holder,
            "expires": held.expires,
            "era": held.era,
            "until": held.until,
        },
    )
    return held.lease(session)
