"""A store in memory."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import islice
from random import shuffle

import trio
from attrs import define, field
from msgspec.structs import replace

from agentloop._core.first_guesses import refuse
from agentloop._runtime.blocks import CALL_IN_ASYNCIO, OPEN_IN_ASYNCIO, NamedBlock, now, require_trio
from agentloop.errors import StoreError
from agentloop.journal import READY, UNFINISHED, WAITING, Lease, OpenStore, Record, SessionInfo, SessionState
from agentloop.stores._checks import (
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
    Clock,
    LeaseState,
    acquired,
    check_holder,
    check_not_leased,
    released,
    renewed,
    wall_clock,
)
from agentloop.stores._session_index import index_entry
from agentloop.stores.mailbox import Mail, WaitingWork, delivered_before, mail_values

__all__ = ["MemoryStore"]


@define
class _SavedSession:
    title: str
    created: float
    updated: float
    parent: str
    records: list[Record]
    state: SessionState = ""
    agent: str = ""
    answers: dict[str, bytes] = field(factory=dict[str, bytes])

    def enter(self, records: Sequence[Record]) -> None:
        """Bring the state up to date with ``records``, which are appended."""
        entry = index_entry(records)
        if entry is not None:
            self.state, self.agent = entry.state, entry.agent or self.agent


_OPENED = "a store is opened: write `async with MemoryStore(...).open() as store:`"


class MemoryStore:
    """Saves sessions in memory: for tests, and for programs that need parking and following but no file.

    The sessions live as long as this object. It can be opened many times, also at once: all openings share
    them. Leases expire on trio's clock, so that a test's virtual clock ends them.

    Args:
      clock: returns seconds since 1970 (UTC), for tests.
    """

    def __init__(self, *, clock: Callable[[], float] | None = None) -> None:
        self._clock = clock
        self._sessions: dict[str, _SavedSession] = {}
        self._leases: dict[str, LeaseState] = {}
        self._mail: dict[str, dict[str, Mail | int]] = {}

    def open(self) -> AbstractAsyncContextManager[OpenStore]:
        """Give access to the sessions until the block ends. Never fails."""
        return NamedBlock(self._open(), "store.open()", "opened")

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[OpenStore]:
        require_trio("a store is opened", in_asyncio=OPEN_IN_ASYNCIO)
        clock = self._clock
        if clock is None:
            offset = time.time() - now()
            clock = lambda: now() + offset  # noqa: E731
        opened = _OpenMemory(self._sessions, self._leases, self._mail, wall_clock(clock))
        try:
            yield opened
        finally:
            opened.closed = True


refuse(MemoryStore, aenter=_OPENED, enter=_OPENED)


class _OpenMemory:
    """Every method checkpoints before it changes anything, so a cancelled call has no effect."""

    def __init__(
        self,
        sessions: dict[str, _SavedSession],
        leases: dict[str, LeaseState],
        mail: dict[str, dict[str, Mail | int]],
        clock: Clock,
    ) -> None:
        self._sessions = sessions
        self._leases = leases
        self._mail = mail
        """The mail by session and id; for mail that was delivered, the number of the record, or 0 without one."""
        self._clock = clock
        self.closed = False

    async def append(
        self, session: str, records: Sequence[Record], /, *, lease: Lease | None = None, parent: str = ""
    ) -> None:
        records = list(records)
        check_records(session, records)
        check_text("the parent's id", parent)
        await self._checkpoint()
        self._append(session, records, lease, parent)

    def _append(self, session: str, records: list[Record], lease: Lease | None, parent: str) -> None:
        moment, state, saved = self._clock(), self._leases.get(session), self._sessions.get(session)
        if lease is None:
            check_not_leased(session, state, moment)
        else:
            check_holder(session, state, lease)
        check_next_seq(session, None if saved is None else len(saved.records), records)
        if not records:
            return
        if saved is None:
            saved = self._sessions[session] = _SavedSession("", moment.wall, moment.wall, parent, records)
        else:
            saved.records += records
            saved.updated = max(saved.updated, moment.wall)
        saved.enter(records)

    async def read(
        self, session: str, /, *, after: int = 0, limit: int | None = None, kinds: Collection[str] | None = None
    ) -> Sequence[Record]:
        kinds = check_kinds(kinds)
        await self._checkpoint()
        saved = self._sessions.get(session)
        if saved is None:
            return []
        after = max(after, 0)
        if kinds is None:
            return saved.records[after : None if limit is None else after + limit]
        return list(islice((record for record in islice(saved.records, after, None) if record.kind in kinds), limit))

    async def answer(self, session: str, question: str, data: bytes, /) -> bool:
        check_name("question's id", question)
        decode_json_text(f"the answer to question {question!r}", data)
        await self._checkpoint()
        saved = self._saved(session)
        if question in saved.answers:
            return False
        saved.answers[question] = data
        if saved.state == WAITING:
            saved.state = UNFINISHED
        return True

    async def answers(self, session: str, /) -> dict[str, bytes]:
        await self._checkpoint()
        saved = self._sessions.get(session)
        return {} if saved is None else dict(saved.answers)

    async def acquire(self, session: str, holder: str, /, *, seconds: float) -> Lease:
        check_name("session's id", session)
        await self._checkpoint()
        moment, state = self._clock(), self._leases.get(session)
        check_not_leased(session, state, moment)
        self._leases[session] = new = acquired(state, holder, seconds, moment)
        return new.lease(session)

    async def renew(self, lease: Lease, /, *, seconds: float) -> Lease:
        await self._checkpoint()
        state = check_holder(lease.session, self._leases.get(lease.session), lease)
        self._leases[lease.session] = new = renewed(state, seconds, self._clock())
        return new.lease(lease.session)

    async def release(self, lease: Lease, /) -> None:
        await self._checkpoint()
        state = self._leases.get(lease.session)
        if state is not None and state.token == lease.token:
            self._leases[lease.session] = released(state)

    async def info(self, session: str, /) -> SessionInfo | None:
        await self._checkpoint()
        return self._info(session) if session in self._sessions else None

    async def sessions(
        self,
        *,
        search: str = "",
        prefix: str = "",
        parent: str | None = None,
        limit: int = 50,
        before: SessionInfo | None = None,
    ) -> Sequence[SessionInfo]:
        await self._checkpoint()
        search = search.lower()
        infos = sorted(map(self._info, self._sessions), key=_order, reverse=True)
        return [
            info
            for info in infos
            if info.id.startswith(prefix)
            and (parent is None or info.parent == parent)
            and (before is None or _order(info) < _order(before))
            and (not search or search in info.title.lower() or self._has_text(info.id, search))
        ][:limit]

    async def fork(self, session: str, new: str, /, *, upto: int | None = None) -> None:
        check_name("session's id", new)
        await self._checkpoint()
        saved, now = self._saved(session), self._clock().wall
        if new in self._sessions:
            raise session_exists(new)
        records = saved.records[: None if upto is None else max(upto, 0)]
        state = saved.state if len(records) == len(saved.records) else READY
        self._sessions[new] = _SavedSession(saved.title, now, now, session, records, state, saved.agent)

    async def rename(self, session: str, title: str, /) -> None:
        check_text("the title", title)
        await self._checkpoint()
        self._saved(session).title = title

    async def delete(self, session: str, /) -> None:
        await self._checkpoint()
        state = self._leases.get(session)
        check_not_leased(session, state, self._clock())
        if state is not None:
            # The state stays, for its token: the token of the next holder must be greater.
            self._leases[session] = released(state)
        self._sessions.pop(session, None)
        self._mail.pop(session, None)

    async def post(self, session: str, mail: Mail, /, *, delay: float = 0.0) -> bool:
        mail_values(session, mail)
        await self._checkpoint()
        posted = self._mail.setdefault(session, {})
        if mail.id in posted:
            return False
        posted[mail.id] = replace(mail, due=self._clock().wall + delay)
        return True

    async def mail(self, session: str, /) -> Sequence[Mail]:
        await self._checkpoint()
        return self._due(session)

    async def take(self, lease: Lease, mail: str, /) -> bool:
        await self._checkpoint()
        check_holder(lease.session, self._leases.get(lease.session), lease)
        return self._take(lease.session, mail)

    async def append_and_take(self, session: str, records: Sequence[Record], lease: Lease, mail: str, /) -> None:
        records = list(records)
        check_records(session, records)
        await self._checkpoint()
        if not isinstance(self._mail.get(session, {}).get(mail), Mail):
            raise delivered_before(session, mail)
        self._append(session, records, lease, "")
        self._take(session, mail, records[0].seq if records else 0)

    async def withdraw(self, session: str, mail: str, /) -> bool:
        await self._checkpoint()
        return self._take(session, mail)

    async def delivered(self, session: str, mail: str, /) -> int | None:
        await self._checkpoint()
        found = self._mail.get(session, {}).get(mail)
        return found if isinstance(found, int) else None

    async def waiting_work(self, *, limit: int = 100) -> Sequence[WaitingWork]:
        await self._checkpoint()
        found: list[WaitingWork] = []
        for session in {**self._sessions, **self._mail}:
            saved, lease = self._sessions.get(session), self._leases.get(session)
            state, agent = ("", "") if saved is None else (saved.state, saved.agent)
            mail = self._due(session)
            if lease is not None and lease.is_running(self._clock()):
                continue
            if state == UNFINISHED or any(state != WAITING or each.kind != "prompt" for each in mail):
                if state != UNFINISHED:
                    agent = next((each.agent for each in mail if each.agent), agent)
                token = 0 if lease is None else lease.token
                found.append(WaitingWork(session, agent, token, state == UNFINISHED))
        shuffle(found)
        found.sort(key=self._since)
        return found[:limit]

    def _since(self, work: WaitingWork) -> tuple[bool, int]:
        """Orders work: unfinished runs first, and of them the one that no process has held for longest."""
        lease = self._leases.get(work.session) if work.is_unfinished else None
        return not work.is_unfinished, 0 if lease is None else int(lease.expires)

    def _due(self, session: str) -> list[Mail]:
        now = self._clock().wall
        return [mail for mail in self._mail.get(session, {}).values() if isinstance(mail, Mail) and mail.due <= now]

    def _take(self, session: str, mail: str, record: int = 0) -> bool:
        posted = self._mail.get(session, {})
        is_new = isinstance(posted.get(mail), Mail)
        if is_new:
            posted[mail] = record
        return is_new

    async def _checkpoint(self) -> None:
        require_trio("a store is used", in_asyncio=CALL_IN_ASYNCIO)
        if self.closed:
            raise StoreError("the store in memory is closed: use it inside the block that opens it")
        await trio.lowlevel.checkpoint()

    def _saved(self, session: str) -> _SavedSession:
        try:
            return self._sessions[session]
        except KeyError:
            raise no_such_session(session) from None

    def _info(self, session: str) -> SessionInfo:
        saved, state = self._sessions[session], self._leases.get(session)
        holder = state.holder if state is not None and state.is_running(self._clock()) else ""
        return SessionInfo(
            session,
            saved.title,
            saved.created,
            saved.updated,
            len(saved.records),
            saved.parent,
            holder,
            saved.state,
            saved.agent,
        )

    def _has_text(self, session: str, search: str) -> bool:
        return any(has_text(record.data, search) for record in self._sessions[session].records)


def _order(info: SessionInfo) -> tuple[float, str]:
    return info.updated, info.id
