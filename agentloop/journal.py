"""What a session's store keeps: records, in one order, which are only ever added to.

A store knows nothing of what is in a record but its key. What it promises is order, durability and exclusion:

- a record that `OpenStore.append` has returned for is there after the power fails, as far as the store says so;
- the records of a session are numbered from 1, without gaps, by whoever appends; two writers cannot both add a number;
- one holder of a session's lease at a time, and who has lost it can add nothing any more (a fencing token).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import msgspec

__all__ = ["Lease", "OpenStore", "Record", "SessionInfo", "Store"]


# The garbage collector need not look at them: a session may have a hundred thousand, and none refers to anything.
class Record(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One entry of a session's journal."""

    seq: int
    """Its number in the session, from 1, without gaps."""
    kind: str
    """What it is: the ``type`` of an event, or a word of agentloop's own for what no reader is told."""
    data: bytes
    """A JSON object, in UTF-8."""
    stream: str = ""
    """The stream that it is about, if it is about one."""
    key: str = ""
    """The tool call or the question that it is about, if it is about one."""
    at: float = 0.0
    """When it was written, in seconds since 1970 (UTC). For people: the order is that of ``seq``."""


class SessionInfo(msgspec.Struct, frozen=True):
    """What a list of sessions says of one."""

    id: str
    title: str
    created: float
    """Seconds since 1970 (UTC)."""
    updated: float
    records: int
    """How many there are; the number of the last one."""
    parent: str = ""
    """The session that it was forked from; empty if it was not."""
    holder: str = ""
    """Who has it now: the holder of a lease that has not run out; empty if nobody has."""


class Lease(msgspec.Struct, frozen=True):
    """The right to add to a session, for a while."""

    session: str
    holder: str
    """Who has it: a stream's id and the process, in words for a person."""
    token: int
    """Greater than that of every holder before. What is added under a smaller one than the newest is refused."""
    expires: float
    """Seconds since 1970 (UTC), by the store's clock."""


class OpenStore(Protocol):
    """A store that is connected.

    Each method either has done all of what it says when it returns, or nothing and raises. One that is cancelled may
    have done it; whoever needs to know reads.

    Raises, all of them:
      StoreError: it cannot be done; the message names the file, or the place, and the way out.
    """

    async def append(
        self, session: str, records: Sequence[Record], /, *, lease: Lease | None = None, parent: str = ""
    ) -> None:
        """Add ``records``, all or none. The first one creates the session.

        A lease that has run out is good for as long as nobody else has taken it.

        Args:
          lease: may be left out where nobody has one.
          parent: what its `SessionInfo.parent` is to be, where this creates the session: an import, say.

        Raises:
          SequenceError: ``records`` do not begin where the session ends: somebody else has added to it.
          LeaseLostError: ``lease`` has run out and was taken over, or was given back, or is another session's.
          SessionLeasedError: there is no ``lease``, and somebody else has one.
        """
        ...

    async def read(
        self, session: str, /, *, after: int = 0, limit: int | None = None, kinds: Collection[str] | None = None
    ) -> Sequence[Record]:
        """The records with a number above ``after``, in order; none for a session that there is not.

        Args:
          limit: at most so many.
          kinds: only records of these kinds, which ``limit`` counts, too.
        """
        ...

    async def answer(self, session: str, question: str, data: bytes, /) -> bool:
        """Keep an answer to a question of a session, unless there is one. Gives whether this was the first.

        This needs no lease: whoever asks may be gone, and whoever answers is somebody else. It does need the session.
        """
        ...

    async def answers(self, session: str, /) -> dict[str, bytes]:
        """The answers that were kept, by question."""
        ...

    async def acquire(self, session: str, holder: str, /, *, seconds: float) -> Lease:
        """Take the session for ``seconds``.

        Raises:
          SessionLeasedError: somebody else has it; the error says who, and until when.
        """
        ...

    async def renew(self, lease: Lease, /, *, seconds: float) -> Lease:
        """Keep the session for ``seconds`` from now. Raises `LeaseLostError` if it was taken over, or given back."""
        ...

    async def release(self, lease: Lease, /) -> None:
        """Give the session back. Nothing happens if it was lost."""
        ...

    async def info(self, session: str, /) -> SessionInfo | None:
        """What is known of a session; ``None`` if there is none of that id, even if somebody has a lease on it."""
        ...

    async def sessions(
        self, *, search: str = "", parent: str | None = None, limit: int = 50, before: SessionInfo | None = None
    ) -> Sequence[SessionInfo]:
        """Sessions, the one updated last first; of those updated at the same time, the greatest id first.

        Args:
          search: only those with this text in their title or in a string in a record; case does not count.
          parent: only those of this parent; ``""`` for those that have none.
          before: the last one of a page, for the page after it.
        """
        ...

    async def fork(self, session: str, new: str, /, *, upto: int | None = None) -> None:
        """Copy the records up to number ``upto``, and the title, to a new session, whose parent ``session`` is.

        Answers that were kept are not copied: of what was asked and not yet recorded as answered, the new session asks
        for itself. Raises `SequenceError` if there is a session of the new name.
        """
        ...

    async def rename(self, session: str, title: str, /) -> None:
        """Give a session a title."""
        ...

    async def delete(self, session: str, /) -> None:
        """Forget a session, with the answers to its questions, if there is one.

        A lease on it that has run out is lost. Raises `SessionLeasedError` if somebody has the session.
        """
        ...


class Store(Protocol):
    """Where sessions are kept beyond the process."""

    def open(self) -> AbstractAsyncContextManager[OpenStore]:
        """Connect, for as long as the block runs. What was begun is finished, or undone, when it ends."""
        ...
