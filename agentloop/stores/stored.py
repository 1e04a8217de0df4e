"""A session with a journal: its events are saved before they are visible, and one process at a time holds it."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Literal, cast

import msgspec
import trio

from agentloop._core.field_checks import shown
from agentloop._core.json_text import decode_own
from agentloop._runtime.blocks import NamedBlock, check_open_store, refuse_bare_generator, require_trio
from agentloop._runtime.exception_groups import raise_single
from agentloop._runtime.logs import JOURNAL, log
from agentloop.errors import SessionBusyError, SessionLeasedError, StoreError, UnknownQuestionError, UsageError
from agentloop.events import Question
from agentloop.journal import Lease, OpenStore
from agentloop.messages import Usage
from agentloop.permissions import Permissions
from agentloop.questions import Answer
from agentloop.session import Session
from agentloop.stores._branches import check_cut, fork_session
from agentloop.stores._follow import Follower
from agentloop.stores._journal_writer import JournalWriter, store_deadline

__all__ = ["StoredSession", "answer_question", "stored_session"]

LEASE_SECONDS = 30.0
"""How long a process that dies keeps others from its sessions."""

WAIT_SECONDS = 0.25
"""Between two looks at whether a session is free by now."""


class _RunFacts(msgspec.Struct):
    """As much of the start of a run, and of its end, as says what it has used."""

    resumes: str = ""
    usage: Usage = Usage()


class StoredSession(Session):
    """A session with a journal. Made by `stored_session`, and valid inside its block."""

    __slots__ = ("_store", "_writer")

    def __init__(self, store: OpenStore, lease: Lease, permissions: Permissions | None) -> None:
        super().__init__(lease.session, permissions=permissions)
        self._store = store
        self._writer = JournalWriter(store, lease, self._transcript)
        self._journal = self._writer

    @property
    def is_resumable(self) -> bool:
        """Whether the session has an unfinished run, for `Agent.resume`."""
        return self._writer.unfinished is not None

    @property
    def questions(self) -> tuple[Question, ...]:
        """The open questions of that run, oldest first; empty if no run is unfinished."""
        resumable_run = self._writer.unfinished
        return () if resumable_run is None else tuple(resumable_run.open_questions)

    async def usage(self) -> Usage:
        """What all runs in the journal have used so far: see `Session.usage`."""
        # By the ends of the runs, of which there are few records: what a run has used includes its children, and the
        # runs that it resumes.
        with store_deadline(self.id):
            records = await self._store.read(self.id, kinds=("stream_started", "stream_stopped"))
        used: dict[str, Usage] = {}
        for record in records:
            facts = decode_own(record.data, _RunFacts)
            if record.kind == "stream_started":
                used.pop(facts.resumes, None)
            else:
                used[record.stream] = facts.usage
        live = self._transcript.live
        return sum(used.values(), Usage() if live is None else live.meter.usage)

    def follow(self, *, after: int = 0) -> Follower:
        """Its events from number ``after`` on, those that are still to come too: see `follow_session`."""
        return Follower(self._store, self.id, after, self._writer)

    async def rewind(self, messages: int) -> None:
        """Continue from the first ``messages`` messages. The later ones stay in the journal, and no longer count.

        Raises:
          SessionBusyError: a stream runs on the session.
          UsageError: a provider would refuse a transcript of that length; the error names lengths that fit.
          StoreError: the journal failed; then nothing has changed.
        """
        if self._transcript.holder is not None:
            raise SessionBusyError(session=self.id, stream=self._transcript.holder)
        check_cut(self.messages, messages)
        await self._writer.rewind(messages)


def stored_session(
    store: OpenStore,
    id: str | None = None,
    *,
    permissions: Permissions | None = None,
    if_busy: Literal["refuse", "wait", "fork"] = "refuse",
    lease_seconds: float = LEASE_SECONDS,
) -> AbstractAsyncContextManager[StoredSession]:
    """Open session ``id`` of ``store``, or a new one, for this process alone until the block ends.

    A reader of a stream on it gets an event only after the store has saved it; deltas of a response are saved within a
    quarter of a second. The process may therefore die at any moment: the session is valid for a provider, every visible
    event is saved, and `Agent.resume` continues the run. A new prompt gives an unfinished run up instead, and the
    results of its open calls say whether they may have run.

    Args:
      store: an open store: ``async with SQLiteStore("chats.db").open() as store``.
      id: the session's id; a random one if not given.
      permissions: as for `Session`; those that are saved with the session if not given. ``Permissions()`` replaces them
        by none. A change is saved with the next run, or at the end of the block.
      if_busy: if another process holds the session: ``"refuse"`` raises `SessionLeasedError`, ``"wait"`` waits until it
        is free, ``"fork"`` continues from its last message in a fork, a session of its own.
      lease_seconds: seconds after which another process may take the session over, should this one die. The lease is
        renewed meanwhile.

    Raises:
      SessionLeasedError: another process holds the session; the error says which, and until when.
      StoreError: the store cannot be read, or a record cannot be read that the transcript needs.
    """
    opening = _stored_session(store, id, permissions, if_busy, lease_seconds)
    return NamedBlock(opening, "stored_session(store, id)", "session")


@asynccontextmanager
async def _stored_session(
    store: OpenStore,
    id: str | None,
    permissions: Permissions | None,
    if_busy: Literal["refuse", "wait", "fork"],
    lease_seconds: float,
) -> AsyncGenerator[StoredSession]:
    require_trio("a session is opened", in_asyncio="`async with agentloop.asyncio.block(stored_session(store, id))`")
    refuse_bare_generator("a session is opened")
    check_open_store(store)
    if not lease_seconds > 0:
        raise UsageError(f"lease_seconds={lease_seconds!r}: give seconds above 0")
    if if_busy not in ("refuse", "wait", "fork"):
        raise UsageError(f"if_busy={if_busy!r}: say 'refuse', 'wait' or 'fork'")
    if isinstance(id, str):
        # A subclass of `str`, such as a member of an enum, cannot be written into each event.
        id = str.__str__(id)
    lease = await _lease(store, os.urandom(8).hex() if id is None else id, if_busy, lease_seconds)
    log(JOURNAL, logging.DEBUG, "session %r: lease acquired by %s, token %d", lease.session, lease.holder, lease.token)
    session = StoredSession(store, lease, permissions)
    journal = session._writer
    try:
        if id is None:
            journal.begin()
        else:
            await journal.open()
        async with trio.open_nursery() as nursery:
            # Both have time: the block need not wait until they have begun.
            nursery.start_soon(journal.renew, lease_seconds)  # noqa: ASYNC113
            nursery.start_soon(journal.run)  # noqa: ASYNC113
            try:
                yield session
                await journal.save_permissions()
            except BaseException:
                # Shielded: what a session forbids is kept with it, however its block ends.
                with suppress(StoreError), trio.move_on_after(lease_seconds, shield=True):
                    await journal.save_permissions()
                raise
            finally:
                journal.close()
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        raise_single(group)
    finally:
        # A lease that cannot be given back runs out by itself, which is nothing to hide the block's own error for.
        with suppress(StoreError), trio.move_on_after(lease_seconds, shield=True):
            await store.release(journal.lease)
            log(JOURNAL, logging.DEBUG, "session %r: lease released", lease.session)


async def answer_question(store: OpenStore, session: str, question: str, answer: Answer) -> None:
    """Answer a question of a parked run, without resuming it: the process that resumes it finds the answer.

    An answer is accepted once, from any process, and counts from then on.

    Raises:
      UnknownQuestionError: the question is not open.
      InvalidAnswerError: the answer is of the wrong class, or does not fit the form.
      SessionLeasedError: another process holds the session; if its run is live, answer there.
      StoreError: the answer cannot be saved.
    """
    if not isinstance(cast("object", question), str):
        raise UnknownQuestionError(given=shown(question), open_ids=())
    async with stored_session(store, session) as parked:
        await parked._writer.accept({question: answer})


async def _lease(store: OpenStore, id: str, if_busy: Literal["refuse", "wait", "fork"], seconds: float) -> Lease:
    holder = f"process {os.getpid()} on {socket.gethostname()}"
    while True:
        try:
            with store_deadline(id):
                return await store.acquire(id, holder, seconds=seconds)
        except SessionLeasedError:
            if if_busy == "refuse":
                raise
            if if_busy == "fork":
                # A session without records cannot be forked: begin a new one.
                is_there = await store.info(id) is not None
                id = await fork_session(store, id) if is_there else os.urandom(8).hex()
                continue
        await trio.sleep(WAIT_SECONDS)
