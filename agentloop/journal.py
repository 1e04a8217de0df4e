"""The interface of a store: it saves the journal of a session, an append-only list of records.

A store does not interpret records. It promises order, durability and exclusion:

- a record is durable when `OpenStore.append` returns, to the degree that the store documents (power failure, crash);
- the records of a session are numbered from 1 without gaps by the writer; two writers cannot append the same number;
- a session has one lease holder at a time, and a process that has lost its lease can append nothing (fencing token).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final, Literal, Protocol, TypeAlias

import msgspec

__all__ = ["READY", "UNFINISHED", "WAITING", "Lease", "OpenStore", "Record", "SessionInfo", "SessionState", "Store"]

SessionState: TypeAlias = Literal["", "unfinished", "waiting", "ready"]
"""The state of a session's last run, in the index of a store.

- ``unfinished``: it runs, or it was cut off and can be resumed.
- ``waiting``: it is parked until a person answers its questions.
- ``ready``: it has ended, and the session is ready for the next prompt.
- empty: unknown, since an older version of agentloop wrote the last run.
"""

UNFINISHED: Final = "unfinished"
WAITING: Final = "waiting"
READY: Final = "ready"


# gc=False: a session may have a hundred thousand records, and none refers to another object that could refer back.
class Record(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One entry of a session's journal."""

    seq: int
    """Its number in the session, from 1, without gaps."""
    kind: str
    """The ``type`` of an event, or a word of agentloop's own for a fact that readers do not get."""
    data: bytes
    """A JSON object, in UTF-8."""
    stream: str = ""
    """The id of the stream that the record belongs to; empty for none."""
    key: str = ""
    """The id of the tool call or the question that the record belongs to; empty for none."""
    at: float = 0.0
    """The time at which the event happened, within 20 ms, in seconds since 1970 (UTC); that of the first, if the record
    stands for several deltas. In older journals, the time of writing. For people: ``seq`` alone decides over the order.
    """


class SessionInfo(msgspec.Struct, frozen=True):
    """A session, as `OpenStore.sessions` lists it."""

    id: str
    """The session's id."""
    title: str
    """The title that `OpenStore.rename` gave it; empty if none."""
    created: float
    """The time of the first append, in seconds since 1970 (UTC)."""
    updated: float
    """The time of the last append, in seconds since 1970 (UTC)."""
    records: int
    """The number of records, which is also the ``seq`` of the last one."""
    parent: str = ""
    """The session that it was forked from; empty if it was not."""
    holder: str = ""
    """The holder of the running lease on the session; empty if no process holds it."""
    state: SessionState = ""
    """The state of its last run."""
    agent: str = ""
    """The name of the agent of its last run; empty if the store does not know."""


class Lease(msgspec.Struct, frozen=True):
    """The exclusive right to append to a session, for a limited time."""

    session: str
    """The session's id."""
    holder: str
    """The holder's name, for people: a stream's id and the process."""
    token: int
    """The fencing token, greater than that of every earlier holder. Appends with an older token are refused."""
    expires: float
    """The end of the lease, in seconds since 1970 (UTC), by the store's clock."""


class OpenStore(Protocol):
    """An open store.

    Each method is atomic: it has done everything when it returns, and nothing when it raises. A cancelled call may have
    done everything; read to find out.

    Raises, for all methods:
      StoreError: the store cannot do it; the message names the file or the database, and the way out.
    """

    async def append(
        self, session: str, records: Sequence[Record], /, *, lease: Lease | None = None, parent: str = ""
    ) -> None:
        """Append ``records``, all or none. The first append creates the session.

        An expired lease is valid until another process acquires the session.

        Args:
          session: the session's id.
          records: numbered from the session's last record on, without gaps.
          lease: the caller's lease; ``None`` if no process has one.
          parent: the `SessionInfo.parent` of a session that this append creates, such as an import.

        Raises:
          SequenceError: ``records`` do not begin where the session ends: another writer has appended.
          LeaseLostError: ``lease`` was taken over after it expired, was released, or is for another session.
          SessionLeasedError: ``lease`` is missing, and another process holds one.
        """
        ...

    async def read(
        self, session: str, /, *, after: int = 0, limit: int | None = None, kinds: Collection[str] | None = None
    ) -> Sequence[Record]:
        """Read records in order. A session that does not exist has none.

        Args:
          session: the session's id.
          after: only records with a greater ``seq``.
          limit: at most this many records; ``None`` for all.
          kinds: only records of these kinds. ``limit`` counts after this filter.
        """
        ...

    async def answer(self, session: str, question: str, data: bytes, /) -> bool:
        """Save the answer to a question, unless the question has one.

        Needs no lease, since the process that asked may have ended, and another one answers. The session must exist. If
        it was waiting, it is unfinished from now on: see `SessionInfo.state`.

        Args:
          session: the session's id.
          question: the question's id.
          data: the answer as JSON, in UTF-8.

        Returns:
          Whether this answer was the first, and so was saved.
        """
        ...

    async def answers(self, session: str, /) -> dict[str, bytes]:
        """The saved answers, by the question's id."""
        ...

    async def acquire(self, session: str, holder: str, /, *, seconds: float) -> Lease:
        """Acquire the lease on a session, which need not exist yet.

        Args:
          session: the session's id.
          holder: a name for the caller, shown to other processes that want the session.
          seconds: the length of the lease, at most a year.

        Raises:
          SessionLeasedError: another process holds the lease; the error carries its name and the end of the lease.
        """
        ...

    async def renew(self, lease: Lease, /, *, seconds: float) -> Lease:
        """Extend the lease to ``seconds`` from now. Raises `LeaseLostError` if it was taken over or released."""
        ...

    async def release(self, lease: Lease, /) -> None:
        """Release the lease. Has no effect on a lost lease."""
        ...

    async def info(self, session: str, /) -> SessionInfo | None:
        """Describe a session; ``None`` if it does not exist, even if a process holds a lease on its id."""
        ...

    async def sessions(
        self,
        *,
        search: str = "",
        prefix: str = "",
        parent: str | None = None,
        limit: int = 50,
        before: SessionInfo | None = None,
    ) -> Sequence[SessionInfo]:
        """List sessions, the most recently updated first; ties by id, the greatest first.

        Args:
          search: only sessions with this text in the title, or in a string of a record; ignores case.
          prefix: only sessions whose ids begin with this text, such as a user's name and a slash.
          parent: only forks of this session; ``""`` for sessions without a parent; ``None`` for all.
          limit: at most this many sessions.
          before: the last session of the page before, to get the next page.
        """
        ...

    async def fork(self, session: str, new: str, /, *, upto: int | None = None) -> None:
        """Copy the title, and the records up to number ``upto``, to a new session whose parent is ``session``.

        Saved answers are not copied: the new session asks its open questions itself.

        Args:
          session: the id of the session to copy.
          new: the id of the copy.
          upto: the ``seq`` of the last record to copy; ``None`` for all.

        Raises:
          SequenceError: the id ``new`` is in use.
        """
        ...

    async def rename(self, session: str, title: str, /) -> None:
        """Set the title of a session, which must exist."""
        ...

    async def delete(self, session: str, /) -> None:
        """Delete a session with its answers, if it exists.

        An expired lease on it is lost. Raises `SessionLeasedError` if a process holds a running lease.
        """
        ...


class Store(Protocol):
    """A place that saves sessions beyond the life of a process."""

    def open(self) -> AbstractAsyncContextManager[OpenStore]:
        """Connect for as long as the block runs. At its end, each write that has begun is complete or undone."""
        ...
