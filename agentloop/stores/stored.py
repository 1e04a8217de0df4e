"""A session that outlives its process: what was told is in a store, and one process at a time has it."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress

import msgspec
import trio

from agentloop._core.transcript import Transcript, close_turn
from agentloop._runtime.groups import raise_single
from agentloop._runtime.run import TurnStore
from agentloop.errors import StoreError, UsageError
from agentloop.journal import Lease, OpenStore, Record
from agentloop.messages import AssistantMessage, Message, ToolCall, ToolResult
from agentloop.permissions import Grant, Permissions
from agentloop.session import Session

__all__ = ["stored_session"]

LEASE_SECONDS = 30.0
"""How long a process that dies keeps others from its sessions."""

MESSAGES, TURN, CALL, RESULT, STATE = "messages", "turn", "call", "result", "state"
"""The kinds of records: whole messages, which complete a turn; and of a turn that is not complete, the response that
asks for its calls, each call that is about to run, and each result. Then what else there is to a session."""


@asynccontextmanager
async def stored_session(
    store: OpenStore,
    id: str | None = None,
    *,
    permissions: Permissions | None = None,
    lease_seconds: float = LEASE_SECONDS,
) -> AsyncGenerator[Session]:
    """The session ``id`` as it is in ``store``, or a new one; nobody else has it until the block ends.

    A session whose process died in the middle of a turn is valid all the same: calls that have a result keep it, and
    those that have none say whether they may have run.

    Args:
      id: made up at random if not given.
      lease_seconds: after how long others may take the session over, should this process die. It is renewed meanwhile.

    Raises:
      SessionLeasedError: another process has it; the error says which, and until when.
      StoreError: the store cannot be read, or what is in it is not a session.
    """
    if not lease_seconds > 0:
        raise UsageError(f"lease_seconds={lease_seconds!r}: give seconds above 0")
    session_id = os.urandom(8).hex() if id is None else id
    holder = f"process {os.getpid()} on {socket.gethostname()}"
    lease = await store.acquire(session_id, holder, seconds=lease_seconds)
    log = _Log(store, lease)
    try:
        session = Session(session_id, messages=await log.load(session_id), store=log, permissions=permissions)
        log.look_after(session.transcript)
        # Of every process a number of its own: ids of streams, and so keys of calls, are unique for good.
        session.transcript.streams = log.length(session_id)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(log.renew, lease_seconds)
            yield session
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        raise_single(group)
    finally:
        # A lease that cannot be given back runs out by itself, which is nothing to hide the block's own error for.
        with suppress(StoreError), trio.move_on_after(lease_seconds, shield=True):
            await store.release(log.lease)


class _Messages(msgspec.Struct):
    messages: tuple[Message, ...]


class _State(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a session has besides its messages."""

    grants: tuple[Grant, ...] = ()
    summary: str = ""
    first_kept: int = 0
    elided: tuple[int, ...] = ()


class _Entry:
    """A record to be, on its way into the store."""

    __slots__ = ("data", "failure", "is_kept", "key", "kind")

    def __init__(self, kind: str, data: bytes, key: str) -> None:
        self.kind = kind
        self.data = data
        self.key = key
        self.is_kept = False
        self.failure: StoreError | None = None


class _Journal:
    """The records of one session. Those that wait for the store at the same time go together."""

    __slots__ = ("in_doubt", "length", "lock", "pending")

    def __init__(self, length: int) -> None:
        self.length = length
        """How many there are in the store."""
        self.pending: list[_Entry] = []
        self.lock = trio.Lock()
        self.in_doubt = False
        """Whether it is not known any more what is in the store, since an addition was cut off."""


class _Log(TurnStore):
    """Keeps one session, and those of the child streams in it."""

    def __init__(self, store: OpenStore, lease: Lease) -> None:
        self._store = store
        self._journals: dict[str, _Journal] = {}
        self._transcript: Transcript | None = None
        self._state = _State()
        """As it is in the store."""
        self.lease = lease

    def look_after(self, transcript: Transcript) -> None:
        """Give the session the state that was kept, and keep what becomes of it."""
        self._transcript = transcript
        transcript.grants.extend(self._state.grants)
        transcript.show_less(
            elided=frozenset(self._state.elided), summary=self._state.summary, first_kept=self._state.first_kept
        )

    def length(self, session: str) -> int:
        """How many records there are of a session that was loaded."""
        return self._journals[session].length

    async def renew(self, seconds: float) -> None:
        """Keep the lease for as long as this runs."""
        while True:
            await trio.sleep(seconds / 3)
            try:
                self.lease = await self._store.renew(self.lease, seconds=seconds)
            except StoreError:
                # Whoever adds to the session next is told: the store refuses it. To end the run here would say less.
                return

    async def load(self, session: str) -> tuple[Message, ...]:
        """The transcript. A turn that was cut off is closed, here and in the store."""
        records = await self._store.read(session)
        self._journals[session] = _Journal(len(records))
        messages: list[Message] = []
        turn: AssistantMessage | None = None
        started: list[str] = []
        results: dict[str, ToolResult] = {}
        try:
            for record in records:
                match record.kind:
                    case "messages":
                        messages.extend(msgspec.json.decode(record.data, type=_Messages).messages)
                        turn = None
                    case "turn":
                        turn, started, results = msgspec.json.decode(record.data, type=AssistantMessage), [], {}
                    case "call":
                        started.append(record.key)
                    case "state":
                        self._state = msgspec.json.decode(record.data, type=_State)
                    case "result":
                        results[record.key] = msgspec.json.decode(record.data, type=ToolResult)
                    case _:
                        # Of a newer version, which knows what to do with it.
                        pass
        except msgspec.DecodeError as error:
            raise StoreError(f"session {session!r}: what is kept of it cannot be read: {error}") from error
        if turn is not None:
            closed = close_turn(turn, results, started)
            await self.append(session, closed)
            messages.extend(closed)
        return tuple(messages)

    # -------------------------------------------------------------------- what the runtime calls

    async def append(self, session: str, messages: Sequence[Message], /) -> None:
        self._note_state()
        await self._keep(session, MESSAGES, msgspec.json.encode(_Messages(tuple(messages))))

    def _note_state(self) -> None:
        """Have what has changed go into the store with what is next. What is lost before that is asked for anew."""
        if self._transcript is None:
            return
        shown = self._transcript.shown
        state = _State(tuple(self._transcript.grants), shown.summary, shown.first_kept, tuple(sorted(shown.elided)))
        if state != self._state:
            self._state = state
            self._journal(self.lease.session).pending.append(_Entry(STATE, msgspec.json.encode(state), ""))

    async def begin_turn(self, session: str, message: AssistantMessage, /) -> None:
        # With the record after it, the first call's: until a tool is about to run, there is nothing to lose.
        self._journal(session).pending.append(_Entry(TURN, msgspec.json.encode(message), ""))

    async def begin_call(self, session: str, call: ToolCall, /) -> None:
        await self._keep(session, CALL, b"{}", call.id)

    async def end_call(self, session: str, result: ToolResult, /) -> None:
        await self._keep(session, RESULT, msgspec.json.encode(result), result.call_id)

    async def _keep(self, session: str, kind: str, data: bytes, key: str = "") -> None:
        journal = self._journal(session)
        entry = _Entry(kind, data, key)
        journal.pending.append(entry)
        try:
            async with journal.lock:
                # It may have gone with another's, that waited for the lock as well.
                if not entry.is_kept and entry.failure is None:
                    await self._flush(session, journal)
        except trio.Cancelled:
            journal.in_doubt = True
            raise
        if entry.failure is not None:
            raise entry.failure

    def _journal(self, session: str) -> _Journal:
        # A child's id is made from that of its parent's stream, so that nobody else can have it.
        return self._journals.setdefault(session, _Journal(0))

    async def _flush(self, session: str, journal: _Journal) -> None:
        batch, journal.pending = journal.pending, []
        records = [
            Record(journal.length + number, entry.kind, entry.data, key=entry.key)
            for number, entry in enumerate(batch, start=1)
        ]
        try:
            if journal.in_doubt:
                raise StoreError(f"what was to be kept of session {session!r} may be there or not: open it anew")
            if session == self.lease.session:
                await self._store.append(session, records, lease=self.lease)
            else:
                await self._store.append(session, records, parent=self.lease.session)
        except StoreError as error:
            # None of them is there, the state neither: it goes with what is next.
            self._state = _State()
            for entry in batch:
                entry.failure = error
        else:
            journal.length += len(batch)
            for entry in batch:
                entry.is_kept = True
