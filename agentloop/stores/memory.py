"""Sessions that are kept for as long as the process runs."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from itertools import islice

import trio
from attrs import define, evolve, field

from agentloop._runtime import clock as trio_clock
from agentloop.errors import StoreError
from agentloop.journal import Lease, Record, SessionInfo
from agentloop.stores._clock import Clock, wall_clock
from agentloop.stores._rules import (
    Held,
    check_addition,
    check_free,
    check_kinds,
    check_mine,
    check_name,
    check_records,
    check_text,
    is_mentioned,
    no_such_session,
    prolonged,
    taken,
    taken_meanwhile,
    text_of,
)

__all__ = ["MemoryStore"]


@define
class _Kept:
    """A session."""

    title: str
    created: float
    updated: float
    parent: str
    records: list[Record]
    answers: dict[str, bytes] = field(factory=dict[str, bytes])


class MemoryStore:
    """Keeps sessions in memory: for tests, and for programs that want parking and following, and no file.

    What was added is there for as long as this object is, however often it is opened, and also by several at once.
    Leases run out by trio's clock, so that a test's virtual clock ends them.

    Args:
      clock: gives seconds since 1970 (UTC), for tests.
    """

    def __init__(self, *, clock: Callable[[], float] | None = None) -> None:
        self._clock = clock
        self._sessions: dict[str, _Kept] = {}
        self._leases: dict[str, Held] = {}

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[_OpenMemory]:
        """Look into it."""
        clock = self._clock
        if clock is None:
            offset = time.time() - trio_clock.now()
            clock = lambda: trio_clock.now() + offset  # noqa: E731
        opened = _OpenMemory(self._sessions, self._leases, wall_clock(clock))
        try:
            yield opened
        finally:
            opened.closed = True


class _OpenMemory:
    """A checkpoint stands before each deed: whoever is cancelled there has done nothing."""

    def __init__(self, sessions: dict[str, _Kept], leases: dict[str, Held], clock: Clock) -> None:
        self._sessions = sessions
        self._leases = leases
        self._clock = clock
        self.closed = False

    async def append(
        self, session: str, records: Sequence[Record], /, *, lease: Lease | None = None, parent: str = ""
    ) -> None:
        records = list(records)
        check_records(session, records)
        check_text("the parent's id", parent)
        await self._checkpoint()
        moment, held, kept = self._clock(), self._leases.get(session), self._sessions.get(session)
        if lease is None:
            check_free(session, held, moment)
        else:
            check_mine(session, held, lease)
        check_addition(session, None if kept is None else len(kept.records), records)
        if not records:
            return
        if kept is None:
            self._sessions[session] = _Kept("", moment.wall, moment.wall, parent, records)
        else:
            kept.records += records
            kept.updated = max(kept.updated, moment.wall)

    async def read(
        self, session: str, /, *, after: int = 0, limit: int | None = None, kinds: Collection[str] | None = None
    ) -> Sequence[Record]:
        wanted = check_kinds(kinds)
        await self._checkpoint()
        kept = self._sessions.get(session)
        if kept is None:
            return []
        after = max(after, 0)
        if wanted is None:
            return kept.records[after : None if limit is None else after + limit]
        return list(islice((each for each in islice(kept.records, after, None) if each.kind in wanted), limit))

    async def answer(self, session: str, question: str, data: bytes, /) -> bool:
        check_name("question's id", question)
        text_of(f"the answer to question {question!r}", data)
        await self._checkpoint()
        answers = self._kept(session).answers
        if question in answers:
            return False
        answers[question] = data
        return True

    async def answers(self, session: str, /) -> dict[str, bytes]:
        await self._checkpoint()
        kept = self._sessions.get(session)
        return {} if kept is None else dict(kept.answers)

    async def acquire(self, session: str, holder: str, /, *, seconds: float) -> Lease:
        check_name("session's id", session)
        await self._checkpoint()
        moment, held = self._clock(), self._leases.get(session)
        check_free(session, held, moment)
        self._leases[session] = new = taken(held, holder, seconds, moment)
        return new.lease(session)

    async def renew(self, lease: Lease, /, *, seconds: float) -> Lease:
        await self._checkpoint()
        held = check_mine(lease.session, self._leases.get(lease.session), lease)
        self._leases[lease.session] = new = prolonged(held, seconds, self._clock())
        return new.lease(lease.session)

    async def release(self, lease: Lease, /) -> None:
        await self._checkpoint()
        held = self._leases.get(lease.session)
        if held is not None and held.token == lease.token:
            self._leases[lease.session] = evolve(held, holder="")

    async def info(self, session: str, /) -> SessionInfo | None:
        await self._checkpoint()
        return self._info(session) if session in self._sessions else None

    async def sessions(
        self, *, search: str = "", parent: str | None = None, limit: int = 50, before: SessionInfo | None = None
    ) -> Sequence[SessionInfo]:
        await self._checkpoint()
        wanted = search.lower()
        found = sorted(map(self._info, self._sessions), key=_order, reverse=True)
        return [
            info
            for info in found
            if (parent is None or info.parent == parent)
            and (before is None or _order(info) < _order(before))
            and (not wanted or wanted in info.title.lower() or self._is_mentioned(wanted, info.id))
        ][:limit]

    async def fork(self, session: str, new: str, /, *, upto: int | None = None) -> None:
        check_name("session's id", new)
        await self._checkpoint()
        kept, now = self._kept(session), self._clock().wall
        if new in self._sessions:
            raise taken_meanwhile(new)
        records = kept.records[: None if upto is None else max(upto, 0)]
        self._sessions[new] = _Kept(kept.title, now, now, session, records)

    async def rename(self, session: str, title: str, /) -> None:
        check_text("the title", title)
        await self._checkpoint()
        self._kept(session).title = title

    async def delete(self, session: str, /) -> None:
        await self._checkpoint()
        held = self._leases.get(session)
        check_free(session, held, self._clock())
        if held is not None:
            # Whoever comes later has a greater token than whoever had the session before it was deleted.
            self._leases[session] = evolve(held, holder="")
        self._sessions.pop(session, None)

    async def _checkpoint(self) -> None:
        if self.closed:
            raise StoreError("the store in memory is closed: use it inside the block that opens it")
        await trio.lowlevel.checkpoint()

    def _kept(self, session: str) -> _Kept:
        try:
            return self._sessions[session]
        except KeyError:
            raise no_such_session(session) from None

    def _info(self, session: str) -> SessionInfo:
        kept, held = self._sessions[session], self._leases.get(session)
        holder = held.holder if held is not None and held.is_running(self._clock()) else ""
        return SessionInfo(session, kept.title, kept.created, kept.updated, len(kept.records), kept.parent, holder)

    def _is_mentioned(self, search: str, session: str) -> bool:
        return any(is_mentioned(search, record.data) for record in self._sessions[session].records)


def _order(info: SessionInfo) -> tuple[float, str]:
    return info.updated, info.id
