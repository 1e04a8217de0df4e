"""A store of journals whose every method may fail, and the promises that its records must keep."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import trio

from agentloop.errors import StoreError
from agentloop.events import (
    ApprovalRequested,
    ChildStreamStarted,
    ChildStreamStopped,
    ElicitationRequested,
    MessageCommitted,
    OutputDelta,
    QuestionAnswered,
    QuestionDeclined,
    ReasoningDelta,
    StreamEvent,
    StreamStarted,
    TextDelta,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallOutput,
    UnknownEvent,
)
from agentloop.journal import Lease, OpenStore, Record, SessionInfo
from agentloop.messages import ToolResult
from agentloop.questions import Accept, Cancel, Decline
from agentloop.stores import MemoryStore
from agentloop.testing.simulation import ClockRaise, InjectedFault, Sim
from agentloop.wire import EVENT_TYPES, decode_event, event_type

__all__ = [
    "PATIENCE",
    "JournalClient",
    "SavedEvents",
    "SeamJournal",
    "StoreHangs",
    "StoreIsSlow",
    "StoreRefuses",
    "parts_of",
]

T = TypeVar("T")

SLOW = 2.0
"""Seconds that a store which is slow takes: less than anybody's deadline."""

PATIENCE = 500.0
"""Seconds after which a process gives up: more than anything takes where people answer in time."""

DELTAS = (TextDelta, ReasoningDelta, ToolCallDelta, ToolCallOutput, OutputDelta)


class StoreRefuses(StoreError, InjectedFault):  # noqa: N818 - nor is this an error
    """The store says that it cannot do it."""


class StoreHangs(InjectedFault):
    """The store does not come back."""


class StoreIsSlow(InjectedFault):
    """The store takes its time, and does it."""


WAYS = (StoreRefuses, StoreHangs, StoreIsSlow)


def is_fact(event: StreamEvent) -> bool:
    """Whether ``event`` may be delivered only if it is saved. Other events are delivered anyway."""
    if isinstance(event, ToolCallFinished):
        return event.result.status != "interrupted"
    return isinstance(event, MessageCommitted)


def session_of(stream: str) -> str:
    """The session that a stream runs on."""
    return stream.rpartition("/")[0]


class SavedEvents:
    """The saved events of one session, checked as they are read."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self._read = 0
        self._seq = 0
        self.events: dict[int, StreamEvent] = {}
        """By number."""
        self.began: set[tuple[str, str]] = set()
        """The stream and the call, where a tool was about to run."""
        self.ended: dict[tuple[str, str], ToolResult] = {}
        """The result of a call, by session and call."""
        self._over: dict[tuple[str, str], str] = {}
        """The child stream that came to its end, by its session and the call that had opened it."""

    def catch_up(self, records: Sequence[Record]) -> None:
        """Read the records that were added since."""
        for record in records[self._read :]:
            self._take_in(record)
        self._read = len(records)

    def _take_in(self, record: Record) -> None:
        if record.kind == "call":
            self.began.add((record.stream, record.key))
            if (session_of(record.stream), record.key) in self.ended:
                self._note(f"record {record.seq}: call {record.key} begins, which has a result")
        if record.kind not in EVENT_TYPES:
            return
        event = decode_event(record.data)
        assert not isinstance(event, UnknownEvent)
        if event.seq <= self._seq:
            self._note(f"record {record.seq}: event {event.seq} is kept after event {self._seq}")
        self._seq = event.seq
        self.events[event.seq] = event
        match event:
            case ToolCallFinished(call_id=id, result=result):
                if (event.session, id) in self.ended:
                    self._note(f"record {record.seq}: call {id} ends for the second time")
                self.ended[event.session, id] = result
            case ChildStreamStarted(call_id=id) if id:
                over = self._over.get((event.session, id))
                if over is not None:
                    self._note(f"record {record.seq}: {event.stream} begins, though {over} of this call was done")
            case ChildStreamStopped(call_id=id) if id:
                if event.reason not in ("needs_input", "interrupted", "cancelled"):
                    self._over[event.session, id] = event.stream
            case _:
                pass


class SeamJournal:
    """A store in memory, seen by processes that can be killed.

    Attributes:
      plain: the store, to which nothing happens, inside the block of `open`.
      has_failed: whether the store has failed, so that delivered events need not be saved any more.
      was_well: whether it had not failed when the story ended.
    """

    def __init__(self, sim: Sim, note: Callable[[str], None]) -> None:
        self._sim = sim
        self._note = note
        # A process that cannot read the clock may give up on a store that is well.
        self.has_failed = isinstance(sim.fault, ClockRaise)
        self._memory = MemoryStore(clock=lambda: 1e9 + sim.now)
        self._saved: dict[str, SavedEvents] = {}
        self._delivered: dict[tuple[str, int], StreamEvent] = {}
        """The events that were delivered while all was well, by session and number."""
        self.plain: OpenStore
        self.was_well = True

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[SeamJournal]:
        """Open it."""
        async with self._memory.open() as self.plain:
            yield self

    @asynccontextmanager
    async def process(self, name: str, *, patience: float = PATIENCE) -> AsyncGenerator[JournalClient]:
        """The work of one process on the store. A cancel may kill it (``kill:A``): then it can do nothing more.

        Args:
          patience: seconds after which the process gives up. That breaks a promise where no fault made it wait.
        """
        with self._sim.scope(f"kill:{name}") as scope:
            client = JournalClient(self, self._sim, name, scope)
            # Not in the same scope, which would look as if it were killed.
            with trio.move_on_after(patience) as given_up:  # noqa: ASYNC100 - what is inside waits
                yield client
            if given_up.cancelled_caught and not scope.cancel_called and self._sim.fault is None:
                self._note(f"process {name} gave up after {patience:g} s, and no fault had made it wait")

    def records(self, session: str) -> list[Record]:
        """The session's records at this moment."""
        stored = self._memory._sessions.get(session)
        return [] if stored is None else stored.records

    def saved(self, session: str) -> SavedEvents:
        """The events in those records."""
        saved_events = self._saved.setdefault(session, SavedEvents(self._note))
        saved_events.catch_up(self.records(session))
        return saved_events

    def is_free(self, session: str) -> bool:
        """Whether no process holds the session, nor one that ended without releasing it."""
        held = self._memory._leases.get(session)
        return held is None or not held.holder

    def check_delivered(self, reader: str, session: str, event: StreamEvent, *, is_dead: bool) -> None:
        """Check an event that has just been read: a fact must be saved, and without a failure any other event too."""
        saved_events = self.saved(session)
        if is_fact(event):
            fact: Any = event.message if isinstance(event, MessageCommitted) else event
            there: Any = saved_events.events.get(event.seq)
            saved = there.message if isinstance(there, MessageCommitted) else there
            if saved != fact:
                self._note(f"{reader} was told {event_type(event)} {event.seq} of {event.stream}, which is not kept")
        if not self.has_failed and not is_dead:
            self._delivered[session, event.seq] = event
        if is_fact(event) or isinstance(event, DELTAS):
            return
        if not self.has_failed and not is_dead and saved_events.events.get(event.seq) != event:
            self._note(f"{reader} was told {event_type(event)} {event.seq} of {event.stream} before it was kept")

    def check_numbers(self, session: str) -> None:
        """A number has one meaning, for every reader of the stream and every reader of the journal."""
        for seq, event in self.saved(session).events.items():
            delivered = self._delivered.get((session, seq), event)
            if delivered != event and not (type(delivered) is type(event) and delivered.stream == event.stream):
                self._note(f"{delivered} was told as number {seq}, and {event} is kept as that")

    def check_answered(self, session: str, message: str, answer: object) -> None:
        """A tool is about to act on an answer of a person: the answer is saved, as an event or among the answers."""
        if self.has_failed or not isinstance(answer, (Accept, Decline, Cancel)):
            return
        events = self.saved(session).events.values()
        asked = {event.id for event in events if isinstance(event, ElicitationRequested) and event.message == message}
        saved = {event.id for event in events if isinstance(event, (QuestionAnswered, QuestionDeclined))}
        stored = self._memory._sessions.get(session)
        given = set[str]() if stored is None else set(stored.answers)
        if not asked & (saved | given):
            self._note(f"{message!r} got its answer before the answer was saved")

    def check_child(self, session: str, stream: str) -> None:
        """A tool is about to act on the outcome of a child stream: the end of the child is saved."""
        ends = [event.stream for event in self.saved(session).events.values() if isinstance(event, ChildStreamStopped)]
        if not self.has_failed and stream not in ends:
            self._note(f"a tool got the outcome of {stream} before that was saved")

    def check_approved(self, session: str, own: str, call_id: str) -> None:
        """A tool that needs approval begins: the approval is saved."""
        if self.has_failed:
            return
        events = self.saved(session).events.values()
        requests = [event for event in events if isinstance(event, ApprovalRequested) and event.call_id == call_id]
        # A child numbers its calls from one, too.
        asked = {event.id for event in requests if event.session == own}
        saved = {event.id for event in events if isinstance(event, QuestionAnswered)}
        stored = self._memory._sessions.get(session)
        given = set[str]() if stored is None else set(stored.answers)
        if asked and not asked & (saved | given):
            self._note(f"call {call_id} runs before its approval was saved")

    def check_effect(self, session: str, stream: str, call_id: str, *, may_run_again: bool) -> None:
        """A tool begins to do something."""
        saved_events = self.saved(session)
        if not may_run_again and (stream, call_id) not in saved_events.began:
            self._note(f"call {call_id} of {stream} runs, and nobody would know")
        self.check_approved(session, session_of(stream), call_id)
        if (session_of(stream), call_id) in saved_events.ended:
            self._note(f"call {call_id} of {stream} runs, though it has a result already")


class JournalClient:
    """The store as one process has it: `agentloop.journal.OpenStore` with a seam before and after each deed."""

    def __init__(self, journal: SeamJournal, sim: Sim, name: str, scope: trio.CancelScope) -> None:
        self._journal = journal
        self._sim = sim
        self._scope = scope
        self.name = name
        self.is_full = False
        self.refused_renewals = 0
        """How many of the next renewals fail."""
        self.delay = 0.0
        """Seconds that each write takes."""

    @property
    def is_dead(self) -> bool:
        """Whether the process was killed."""
        return self._scope.cancel_called

    def kill(self) -> None:
        """End the process, as if by a signal."""
        self._scope.cancel()

    def fill(self) -> None:
        """Have no room for more, as long as ``is_full`` is set."""
        self.is_full = self._journal.has_failed = True

    async def _do(self, name: str, deed: Callable[[], Awaitable[T]]) -> T:
        await self._seam(f"store:{name}")
        self._check_alive()
        if self.is_full and name == "append":
            raise StoreError("the disk is full")
        if name == "renew" and self.refused_renewals:
            self.refused_renewals -= 1
            raise StoreError("the store is busy")
        if name == "append" and self.delay:
            await trio.sleep(self.delay)
        try:
            done = await deed()
        except trio.Cancelled:
            self._journal.has_failed = True
            raise
        await self._seam(f"store:{name}:done")
        self._check_alive()
        return done

    async def _seam(self, name: str) -> None:
        try:
            await self._sim.seam(name, *WAYS)
        except StoreIsSlow:
            await trio.sleep(SLOW)
        except StoreHangs:
            self._journal.has_failed = True
            await trio.sleep_forever()
        except BaseException:
            # Cancelled, too: the outcome of the call is unknown.
            self._journal.has_failed = True
            raise

    def _check_alive(self) -> None:
        if self.is_dead:
            self._journal.has_failed = True
            raise StoreError("this process is dead")

    async def append(
        self, session: str, records: Sequence[Record], /, *, lease: Lease | None = None, parent: str = ""
    ) -> None:
        """Add ``records``."""
        await self._do("append", lambda: self._journal.plain.append(session, records, lease=lease, parent=parent))

    async def read(
        self, session: str, /, *, after: int = 0, limit: int | None = None, kinds: Collection[str] | None = None
    ) -> Sequence[Record]:
        """Read."""
        return await self._do("read", lambda: self._journal.plain.read(session, after=after, limit=limit, kinds=kinds))

    async def answer(self, session: str, question: str, data: bytes, /) -> bool:
        """Keep an answer."""
        return await self._do("answer", lambda: self._journal.plain.answer(session, question, data))

    async def answers(self, session: str, /) -> dict[str, bytes]:
        """The answers."""
        return await self._do("answers", lambda: self._journal.plain.answers(session))

    async def acquire(self, session: str, holder: str, /, *, seconds: float) -> Lease:
        """Take a session."""
        return await self._do("acquire", lambda: self._journal.plain.acquire(session, holder, seconds=seconds))

    async def renew(self, lease: Lease, /, *, seconds: float) -> Lease:
        """Keep a session."""
        return await self._do("renew", lambda: self._journal.plain.renew(lease, seconds=seconds))

    async def release(self, lease: Lease, /) -> None:
        """Give a session back."""
        await self._do("release", lambda: self._journal.plain.release(lease))

    async def info(self, session: str, /) -> SessionInfo | None:
        """Describe a session."""
        return await self._do("info", lambda: self._journal.plain.info(session))

    async def sessions(
        self,
        *,
        search: str = "",
        prefix: str = "",
        parent: str | None = None,
        limit: int = 50,
        before: SessionInfo | None = None,
    ) -> Sequence[SessionInfo]:
        """Sessions."""
        return await self._do(
            "sessions",
            lambda: self._journal.plain.sessions(
                search=search, prefix=prefix, parent=parent, limit=limit, before=before
            ),
        )

    async def fork(self, session: str, new: str, /, *, upto: int | None = None) -> None:
        """Copy a session."""
        await self._do("fork", lambda: self._journal.plain.fork(session, new, upto=upto))

    async def rename(self, session: str, title: str, /) -> None:
        """Give a session a title."""
        await self._do("rename", lambda: self._journal.plain.rename(session, title))

    async def delete(self, session: str, /) -> None:
        """Forget a session."""
        await self._do("delete", lambda: self._journal.plain.delete(session))


def parts_of(events: Sequence[StreamEvent]) -> list[list[StreamEvent]]:
    """``events`` as a follower read them, each root stream's by themselves."""
    parts: list[list[StreamEvent]] = []
    for event in events:
        if isinstance(event, StreamStarted) or not parts:
            parts.append([])
        parts[-1].append(event)
    return parts
