"""A store that a server or a worker closes for writing before it leaves, so that its last runs can be resumed."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import trio

from agentloop.errors import StoreError
from agentloop.journal import Lease, OpenStore, Record, SessionInfo

__all__ = ["Fence"]


class Fence:
    """An open store, until `close`. From then on it saves no record: runs that are cut off look as if they were killed.

    A run that is cancelled would otherwise save that it was stopped, and could not be resumed. What was saved before,
    stays; no tool call begins whose beginning cannot be saved.
    """

    def __init__(self, store: OpenStore) -> None:
        self._store = store
        self.is_closed = False

    def close(self) -> None:
        self.is_closed = True

    async def append(
        self, session: str, records: Sequence[Record], /, *, lease: Lease | None = None, parent: str = ""
    ) -> None:
        if self.is_closed:
            await trio.lowlevel.checkpoint_if_cancelled()
            raise StoreError(f"session {session!r}: this process leaves, and saves nothing more")
        await self._store.append(session, records, lease=lease, parent=parent)

    async def read(
        self, session: str, /, *, after: int = 0, limit: int | None = None, kinds: Collection[str] | None = None
    ) -> Sequence[Record]:
        return await self._store.read(session, after=after, limit=limit, kinds=kinds)

    async def answer(self, session: str, question: str, data: bytes, /) -> bool:
        return await self._store.answer(session, question, data)

    async def answers(self, session: str, /) -> dict[str, bytes]:
        return await self._store.answers(session)

    async def acquire(self, session: str, holder: str, /, *, seconds: float) -> Lease:
        return await self._store.acquire(session, holder, seconds=seconds)

    async def renew(self, lease: Lease, /, *, seconds: float) -> Lease:
        return await self._store.renew(lease, seconds=seconds)

    async def release(self, lease: Lease, /) -> None:
        await self._store.release(lease)

    async def info(self, session: str, /) -> SessionInfo | None:
        return await self._store.info(session)

    async def sessions(
        self,
        *,
        search: str = "",
        prefix: str = "",
        parent: str | None = None,
        limit: int = 50,
        before: SessionInfo | None = None,
    ) -> Sequence[SessionInfo]:
        return await self._store.sessions(search=search, prefix=prefix, parent=parent, limit=limit, before=before)

    async def fork(self, session: str, new: str, /, *, upto: int | None = None) -> None:
        await self._store.fork(session, new, upto=upto)

    async def rename(self, session: str, title: str, /) -> None:
        await self._store.rename(session, title)

    async def delete(self, session: str, /) -> None:
        await self._store.delete(session)
