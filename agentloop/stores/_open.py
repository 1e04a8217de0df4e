"""An open store whose sessions are in a database: what is asked of it, as statements."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

from agentloop.journal import Lease, Record, SessionInfo
from agentloop.stores import _statements as statements
from agentloop.stores._rules import check_kinds, check_name, check_records, check_text, text_of
from agentloop.stores._statements import Transaction

__all__ = ["OpenSql"]

T = TypeVar("T")


class OpenSql:
    """What `agentloop.journal.OpenStore` says, over ways to read and to write."""

    async def _read(self, work: Callable[[Transaction], T]) -> T:
        """What ``work`` gives, which only reads."""
        raise NotImplementedError

    async def _write(self, work: Callable[[Transaction], T]) -> T:
        """What ``work`` gives, in a transaction that is durable when this returns."""
        raise NotImplementedError

    async def append(
        self, session: str, records: Sequence[Record], /, *, lease: Lease | None = None, parent: str = ""
    ) -> None:
        texts = check_records(session, records)
        if parent:
            check_text("the parent's id", parent)
        rows = statements.rows_of(session, records, texts)
        await self._write(lambda tx: statements.append(tx, session, records, rows, lease, parent))

    async def read(
        self, session: str, /, *, after: int = 0, limit: int | None = None, kinds: Collection[str] | None = None
    ) -> Sequence[Record]:
        wanted = check_kinds(kinds)
        return await self._read(lambda tx: statements.read(tx, session, after, limit, wanted))

    async def answer(self, session: str, question: str, data: bytes, /) -> bool:
        check_name("question's id", question)
        text = text_of(f"the answer to question {question!r}", data)
        return await self._write(lambda tx: statements.answer(tx, session, question, text))

    async def answers(self, session: str, /) -> dict[str, bytes]:
        return await self._read(lambda tx: statements.answers(tx, session))

    async def acquire(self, session: str, holder: str, /, *, seconds: float) -> Lease:
        check_name("session's id", session)
        return await self._write(lambda tx: statements.acquire(tx, session, holder, seconds))

    async def renew(self, lease: Lease, /, *, seconds: float) -> Lease:
        return await self._write(lambda tx: statements.renew(tx, lease, seconds))

    async def release(self, lease: Lease, /) -> None:
        await self._write(lambda tx: statements.release(tx, lease))

    async def info(self, session: str, /) -> SessionInfo | None:
        return await self._read(lambda tx: statements.info(tx, session))

    async def sessions(
        self, *, search: str = "", parent: str | None = None, limit: int = 50, before: SessionInfo | None = None
    ) -> Sequence[SessionInfo]:
        if not search:
            return await self._read(lambda tx: statements.sessions(tx, parent, limit, before))
        wanted, found = search.lower(), list[SessionInfo]()
        page = await self._page(parent, before)
        while page:
            for info in page:
                if len(found) >= limit:
                    return found
                if wanted in info.title.lower() or await self._is_mentioned(wanted, info.id):
                    found.append(info)
            page = await self._page(parent, page[-1])
        return found

    async def _page(self, parent: str | None, before: SessionInfo | None) -> Sequence[SessionInfo]:
        return await self._read(lambda tx: statements.sessions(tx, parent, 100, before))

    async def _is_mentioned(self, search: str, session: str) -> bool:
        after: int | None = 0
        while after is not None:
            found, after = await self._next_mention(search, session, after)
            if found:
                return True
        return False

    async def _next_mention(self, search: str, session: str, after: int) -> tuple[bool, int | None]:
        # A piece at a time: a long search can be cancelled, and others read meanwhile.
        return await self._read(lambda tx: statements.mentions(tx, session, search, after))

    async def fork(self, session: str, new: str, /, *, upto: int | None = None) -> None:
        check_name("session's id", new)
        await self._write(lambda tx: statements.fork(tx, session, new, upto))

    async def rename(self, session: str, title: str, /) -> None:
        check_text("the title", title)
        await self._write(lambda tx: statements.rename(tx, session, title))

    async def delete(self, session: str, /) -> None:
        await self._write(lambda tx: statements.delete(tx, session))
