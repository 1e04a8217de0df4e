"""The one writer of a session's journal: what is told is in the store first, and goes there together."""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import msgspec
import trio
from attrs import evolve

from agentloop._core.compaction import View
from agentloop._core.json_text import decode_own
from agentloop._core.questions import check_answer
from agentloop._core.state import (
    Note,
    QuestionRecord,
    SessionRewound,
    SessionSettings,
    StreamState,
    TurnAbandoned,
)
from agentloop._core.transcript import Transcript
from agentloop._runtime.emitter import CAPACITY
from agentloop._runtime.foreign import describe
from agentloop._runtime.ledger import HeldFeed, Ledger
from agentloop._runtime.logs import JOURNAL, log
from agentloop.errors import StoreError, UnknownQuestionError
from agentloop.events import (
    MessageCommitted,
    ReasoningDelta,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    ToolCallOutput,
)
from agentloop.journal import Lease, OpenStore, Record
from agentloop.questions import Answer
from agentloop.stores._replay import StoredState, encode_note, load, note_key
from agentloop.wire import encode_event, event_type

__all__ = ["DELTA_LAG", "LAG", "Journal", "answering"]

LAG = 0.01
"""Seconds that an event waits for others to be kept together with, where nothing in the run waits for it."""

DELTA_LAG = 0.25
"""Seconds by which what is kept of the model's words may be behind what was told of them."""

WRITE_SECONDS = 30.0
"""What the store may take for one thing. A stream that waits for it has a deadline of its own."""

_DELTAS = (TextDelta, ReasoningDelta, ToolCallDelta, ToolCallOutput)

Delta = TextDelta | ReasoningDelta | ToolCallDelta | ToolCallOutput


@contextmanager
def answering(session: str) -> Generator[None]:
    """What the store is asked for in the block, it is to give within `WRITE_SECONDS`. Raises `StoreError`."""
    with trio.move_on_after(WRITE_SECONDS) as scope:
        yield
    if scope.cancelled_caught:
        raise StoreError(f"the store of session {session!r} has given no answer for {WRITE_SECONDS:g} s")


class _Entry:
    """Something on its way into the store, and to a reader."""

    __slots__ = ("event", "feed", "key", "kind", "more", "stream", "value")

    def __init__(self, kind: str, value: Any, stream: str, key: str) -> None:
        self.kind = kind
        """Of the record that it becomes; empty if it becomes none."""
        self.value = value
        """What is not told."""
        self.stream = stream
        self.key = key
        self.event: StreamEvent | None = None
        """What is kept, and told."""
        self.feed: HeldFeed | None = None
        """To whom it is told, as soon as it is kept."""
        self.more: list[str] | None = None
        """Of a delta that was told already, what came after it."""

    def record(self, seq: int, at: float) -> Record:
        if self.event is None:
            data = encode_note(self.value)
        elif self.more is None:
            data = encode_event(self.event)
        else:
            data = encode_event(_joined(self.event, self.more, self.value))
            if self.more:
                # For who has read some of them: they are numbered one after the other, up to the number of them all.
                sizes = [len(_words(self.event)), *map(len, self.more)]
                data = b'%s,"sizes":%s}' % (data[:-1], msgspec.json.encode(sizes))
        return Record(seq, self.kind, data, self.stream, self.key, at)


class Journal(Ledger):
    """Keeps a session, for the process that has its lease."""

    def __init__(self, store: OpenStore, lease: Lease, transcript: Transcript) -> None:
        self._store = store
        self._transcript = transcript
        self._session = lease.session
        self._length = 0
        """How many records there are in the store."""
        self._settings = SessionSettings()
        """As it is in the store."""
        self._waiting: list[_Entry] = []
        self._writing: list[_Entry] = []
        self._committing: dict[str, Transcript] = {}
        """By session, where the messages are that are told."""
        self._delta: _Entry | None = None
        """The last of them, if it is a delta."""
        self._held = 0
        """How many of them a reader is to be told."""
        self._noted = 0
        """How many there ever were."""
        self._kept = 0
        self._lock = trio.Lock()
        self._due = trio.Event()
        self._is_hurried = trio.Event()
        """Set when a reader is to be told of what waits, which may be put off less than the model's words."""
        self._is_full = trio.Event()
        """Set when those who tell what waits will soon have to wait themselves."""
        self._followers = trio.lowlevel.ParkingLot()
        self._is_stale = True
        self._failure: StoreError | None = None
        self.lease = lease
        self.unfinished: StreamState | None = None
        """The stream that ended, and can be gone on with."""

    # --------------------------------------------------------------------- before a stream

    async def ready(self, *, resumes: bool) -> None:
        if self._is_stale or self._failure is not None:
            await self.open()
        if not resumes and self.unfinished is not None:
            await self._give_up()

    async def open(self) -> None:
        """Have the session as the store has it; a stream that has no end there is ended.

        Raises:
          StoreError: the store cannot be read, or written to, or what is in it is no session.
        """
        with answering(self._session):
            await self._open()

    async def _open(self) -> None:
        async with self._lock:
            loaded = await load(self._store, self._session)
            self._length = loaded.length
            transcript = self._transcript
            if self._settings == SessionSettings():
                self._show(loaded.state.settings)
            for call_id, text in loaded.state.long_results.items():
                transcript.kept.keep(call_id, text)
            transcript.seq = max(transcript.seq, loaded.seq)
            transcript.streams = max(transcript.streams, loaded.length)
            await self._end_what_runs(loaded)
            if loaded.state.resumable is not None:
                await self._take_answers(loaded.state.resumable)
            self._take_over(loaded)
            self._is_stale, self._failure = False, None
            self._committing.clear()
            resumable = self.unfinished is not None
            text = "session %r: journal read: %d records, resumable: %s"
            log(JOURNAL, logging.DEBUG, text, self._session, self._length, resumable)

    def _show(self, settings: SessionSettings) -> None:
        self._settings = settings
        transcript = self._transcript
        transcript.grants.extend(grant for grant in settings.grants if grant not in transcript.grants)
        transcript.show_less(
            elided=frozenset(settings.elided), summary=settings.summary, first_kept=settings.first_kept
        )

    async def _end_what_runs(self, loaded: StoredState) -> None:
        """Give the streams an end that were cut off with their process, for those who read the journal."""
        records: list[Record] = []
        seq = self._transcript.seq
        for kind, source, fields in loaded.state.ends():
            if not records:
                # Their readers may have been told of words that were not kept yet; a number must not mean two things.
                seq += LOST_NUMBERS
            seq += 1
            event = kind(source, seq, **fields)
            number = self._length + len(records) + 1
            data = encode_event(event)
            records.append(Record(number, event_type(event), data, source.stream, _key(event), time.time()))
        if records:
            await self._store.append(self._session, records, lease=self.lease)
            self._length += len(records)
            self._transcript.seq = seq
            loaded.replay.read(records)

    def _take_over(self, loaded: StoredState) -> None:
        """Have the messages that count; those of an open turn closed, as they would be if nobody went on with it."""
        self.unfinished = loaded.state.resumable
        transcript = self._transcript
        transcript.take_ids(loaded.state.removed)
        transcript.truncate(0)
        transcript.extend(loaded.state.messages)
        transcript.provisional = 0
        if self.unfinished is not None:
            closing = self.unfinished.closing
            transcript.extend(closing)
            transcript.provisional = len(closing)

    async def _give_up(self) -> None:
        """Close what is unfinished for good."""
        assert self.unfinished is not None
        transcript = self._transcript
        closing = transcript.messages[len(transcript) - transcript.provisional :]
        self.note(TurnAbandoned(closing))
        with answering(self._session):
            await self.keep()
        transcript.provisional = 0
        self.unfinished = None

    async def rewind(self, messages: int) -> None:
        """Have only the first so many messages count. Raises `StoreError`."""
        await self.ready(resumes=False)
        self.note(SessionRewound(messages))
        with answering(self._session):
            await self.keep()
        transcript = self._transcript
        transcript.truncate(messages)
        if transcript.shown.first_kept > messages or max(transcript.shown.elided, default=0) >= messages:
            transcript.shown = View()

    async def accept(self, answers: Mapping[str, Answer]) -> None:
        await self.ready(resumes=True)
        past = self.unfinished
        if past is None:
            if answers:
                raise UnknownQuestionError(given=next(iter(answers)), open_ids=())
            return
        with answering(self._session):
            await self._accept(past, answers)

    async def _accept(self, past: StreamState, answers: Mapping[str, Answer]) -> None:
        await self._take_answers(past)
        accepted = {id: _checked(past, id, answer) for id, answer in answers.items()}
        for asked, answer in accepted.values():
            id = asked.question.id
            if not await self._store.answer(self._session, id, msgspec.json.encode(answer)):
                raise UnknownQuestionError(given=id, open_ids=[each.id for each in past.open_questions])
            asked.answer = answer

    async def _take_answers(self, past: StreamState) -> None:
        """Have the answers that were accepted before, in whichever process."""
        for id, data in (await self._store.answers(self._session)).items():
            asked = past.find_question(id)
            if asked is not None and asked.lacks_answer:
                try:
                    asked.answer = decode_own(data, Answer)
                except msgspec.DecodeError as error:
                    raise StoreError(
                        f"session {self._session!r}: the answer to {id!r} cannot be read: {error}"
                    ) from error

    def take_up(self) -> StreamState | None:
        """What there is to go on with. Its open turn is not part of the transcript any more."""
        transcript = self._transcript
        transcript.truncate(len(transcript) - transcript.provisional)
        transcript.provisional = 0
        found, self.unfinished = self.unfinished, None
        return found

    def reload(self) -> None:
        self._is_stale = True

    # ---------------------------------------------------------------------- while one runs

    def tell(self, feed: HeldFeed, event: StreamEvent) -> None:
        if self._failure is not None:
            feed.deliver_in_spite(event)
            feed.renumber()
            return
        kind = event_type(event) if feed.is_root else ""
        if isinstance(event, _DELTAS):
            if kind and self._merge(event):
                kind = ""
            if not self._held:
                # The model's words are not held up by the store; what is kept of them is a little behind.
                if kind:
                    self._add(self._delta_entry(kind, event))
                feed.deliver(event)
                return
            entry = self._delta_entry(kind, event) if kind else _Entry("", None, "", "")
        else:
            entry = _Entry(kind, None, event.stream, _key(event))
        entry.event, entry.feed = event, feed
        self._held += 1
        if self._held == 1:
            self._is_hurried.set()
        self._add(entry)
        if feed.unread >= CAPACITY // 2:
            self._is_full.set()

    def _delta_entry(self, kind: str, event: Delta) -> _Entry:
        """What further deltas of the same kind are kept with."""
        self._delta = entry = _Entry(kind, event.seq, event.stream, _key(event))
        entry.event, entry.more = event, []
        return entry

    def _merge(self, event: Delta) -> bool:
        """Keep ``event`` with the delta before it, if that is one of the same kind, and nothing came in between."""
        last = self._delta
        if (
            last is None
            or last.more is None
            or last.event.__class__ is not event.__class__
            or last.stream != event.stream
            or last.key != _key(event)
            or getattr(last.event, "name", "") != getattr(event, "name", "")
        ):
            return False
        last.more.append(_words(event))
        last.value = event.seq
        return True

    def note(self, note: Note, stream: str = "") -> None:
        if self._failure is None:
            self._add(_Entry(note.kind, note, stream, note_key(note)))

    def _add(self, entry: _Entry) -> None:
        self._noted += 1
        self._waiting.append(entry)
        if entry.kind and entry is not self._delta:
            self._delta = None
        if len(self._waiting) == 1:
            self._due.set()

    def commit(self, transcript: Transcript) -> None:
        if self._failure is not None:
            raise self._failure
        self._committing[transcript.id] = transcript

    async def keep(self) -> None:
        due = self._noted
        try:
            while self._kept < due and self._failure is None:
                await self._write_in_turn(due)
        except trio.Cancelled:
            self._fail(StoreError(f"what was to be kept of session {self._session!r} may be there or not"))
            raise
        if self._failure is not None:
            raise self._failure

    async def _write_in_turn(self, due: int) -> None:
        """Keep all that waits, unless somebody has kept the first ``due`` entries when this has its turn."""
        try:
            self._lock.acquire_nowait()
        except trio.WouldBlock:
            await self._lock.acquire()
        # In this turn, and not in the next: the lock is handed on, and two that only looked would do so for ever.
        try:
            if self._kept < due and self._waiting and self._failure is None:
                await self._write()
        finally:
            self._lock.release()

    async def serve(self) -> None:
        """Keep what nobody waits for, for as long as this runs."""
        while True:
            await self._due.wait()
            self._due = trio.Event()
            self._is_full = trio.Event()
            with trio.move_on_after(LAG):
                await self._is_full.wait()
            if not self._held and all(entry.more is not None for entry in self._waiting):
                self._is_hurried = trio.Event()
                with trio.move_on_after(DELTA_LAG - LAG):
                    await self._is_hurried.wait()
                    await trio.sleep(LAG)
            if self._waiting and self._failure is None:
                # Who adds a fact is told what is wrong.
                with suppress(StoreError), trio.move_on_after(WRITE_SECONDS):
                    await self._write_in_turn(self._noted)

    async def renew(self, seconds: float) -> None:
        """Keep the lease for as long as this runs."""
        while True:
            await trio.sleep(seconds / 3)
            try:
                self.lease = await self._store.renew(self.lease, seconds=seconds)
                log(JOURNAL, logging.DEBUG, "session %r: lease renewed for %g s", self._session, seconds)
            except StoreError as error:
                text = "session %r: the lease could not be renewed: %s"
                log(JOURNAL, logging.WARNING, text, self._session, type(error).__name__)
                # Whoever adds to the session next is told: the store refuses it. To end the run here would say less.
                return

    async def _write(self) -> None:
        """Keep all that waits, and tell it."""
        self._note_state()
        batch, self._waiting, self._delta = self._waiting, [], None
        self._writing = batch
        records: list[Record] = []
        at, began = time.time(), time.perf_counter()
        for entry in batch:
            if entry.kind:
                records.append(entry.record(self._length + len(records) + 1, at))
        try:
            if records:
                await self._store.append(self._session, records, lease=self.lease)
        except StoreError as error:
            self._fail(error)
            raise
        except Exception as error:
            failure = StoreError(f"the store of session {self._session!r} failed: {describe(error)}")
            failure.__cause__ = error
            self._fail(failure)
            raise failure from error
        except BaseException:
            self._fail(StoreError(f"what was to be kept of session {self._session!r} may be there or not"))
            raise
        if self._failure is not None:
            # Somebody did not want to wait any longer, so that all was told already.
            return
        if records and JOURNAL.isEnabledFor(logging.DEBUG):
            took = time.perf_counter() - began
            text = "session %r: %d records written, %d in all, %.3f s"
            log(JOURNAL, logging.DEBUG, text, self._session, len(records), self._length + len(records), took)
        self._writing = []
        if not self._waiting:
            # Else the transcript of every child stream would be held for as long as the session.
            self._committing.clear()
        self._length += len(records)
        self._kept += len(batch)
        for entry in batch:
            if entry.feed is not None:
                assert entry.event is not None
                self._held -= 1
                entry.feed.deliver(entry.event)
        self._followers.unpark_all()

    def _fail(self, error: StoreError) -> None:
        """Nothing can be kept any more. What waits is told, but for what may only be told if it is kept."""
        if self._failure is not None:
            return
        self._failure = error
        # Without the traceback: an error of a database says what was written.
        cause = error if error.__cause__ is None else error.__cause__
        log(JOURNAL, logging.WARNING, "session %r: the store failed: %s", self._session, type(cause).__name__)
        # None of it is there, the state neither: it goes with what is next.
        self._settings = SessionSettings()
        feeds: dict[HeldFeed, None] = {}
        lost, self._writing, self._waiting = [*self._writing, *self._waiting], [], []
        self._kept += len(lost)
        self._held = 0
        for entry in lost:
            if entry.feed is None or entry.event is None:
                continue
            feeds[entry.feed] = None
            entry.feed.deliver_in_spite(entry.event)
            if entry.kind and isinstance(entry.event, MessageCommitted):
                transcript = self._committing[entry.event.session]
                transcript.truncate(min(len(transcript), entry.event.index))
        for feed in feeds:
            feed.renumber()

    def _note_state(self) -> None:
        """Have what has changed go into the store with what is next. What is lost before that is asked for anew."""
        transcript = self._transcript
        shown = transcript.shown
        if shown.is_plain and not transcript.grants and self._settings == SessionSettings():
            return
        settings = SessionSettings(
            tuple(transcript.grants), shown.summary, shown.first_kept, tuple(sorted(shown.elided))
        )
        if settings != self._settings:
            self._settings = settings
            self.note(settings)

    @property
    def stream(self) -> str:
        """The stream that is open on the session; empty if none is."""
        return self._transcript.holder or ""

    async def news(self, after: int) -> None:
        """Return when more is kept than the first ``after`` records."""
        if self._length <= after:
            await self._followers.park()
        else:
            await trio.lowlevel.checkpoint()


LOST_NUMBERS = 100_000
"""More events than can be told within `DELTA_LAG`."""


def _checked(past: StreamState, id: str, answer: Answer) -> tuple[QuestionRecord, Answer]:
    """The question, which is open, and ``answer`` as it is accepted, as far as that can be said without the agent."""
    asked = past.find_question(id)
    if asked is None or not asked.is_open:
        raise UnknownQuestionError(given=id, open_ids=[each.id for each in past.open_questions])
    return asked, check_answer(asked.question, answer)


def _key(event: StreamEvent) -> str:
    """The question, or the tool call, that ``event`` is about, if it is about one."""
    key: str = getattr(event, "id", "") or getattr(event, "call_id", "")
    return key


def _words(event: StreamEvent) -> str:
    words: str = event.arguments if isinstance(event, ToolCallDelta) else getattr(event, "text", "")
    return words


def _joined(event: StreamEvent, more: Sequence[str], seq: int) -> StreamEvent:
    """One delta for several."""
    words = _words(event) + "".join(more)
    if isinstance(event, ToolCallDelta):
        return evolve(event, seq=seq, arguments=words)
    assert isinstance(event, (TextDelta, ReasoningDelta, ToolCallOutput))
    return evolve(event, seq=seq, text=words)
