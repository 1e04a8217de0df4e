"""The journal writer: the reader of a session's logs that saves what it reads.

One process at a time holds a session's lease, and in it one `JournalWriter` writes the session's journal. It opens an
`EventLog` for each root run. Its task, in the nursery of `stored_session`, pulls the unsaved entries from the log,
writes them to the store in one transaction, and then moves the log's mark, which makes them visible. The run never
calls the store: it appends, and where it must not go on before something is saved, it flushes the log.

The task writes at once if a flush waits, or if posters will soon wait for the store; `LAG` after the first fact, so
that facts share a write; `DELTA_LAG` after the first delta if there are only deltas, which readers have already.

The task is shielded from cancellation: the nursery of the session may be cancelled at the same moment as the runs
inside it, whose last events still have to be saved. `JournalWriter.close` ends it. If a write fails or takes longer
than `WRITE_SECONDS`, or an event cannot be encoded, nothing more of that log is saved (`EventLog.fail`), and the next
run reads the session from the store again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple, cast

import msgspec
import trio

from agentloop._core.handoffs import agent_after_rewind
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
from agentloop._runtime.blocks import after
from agentloop._runtime.log import (
    DELTAS,
    FACTS,
    KINDS_OF_NOTES,
    KINDS_OF_WORDS,
    NOW,
    WORDS,
    Entry,
    EventLog,
    Journal,
    LiveTail,
    Redact,
    words_of,
)
from agentloop._runtime.logs import JOURNAL, log
from agentloop._runtime.user_code import describe
from agentloop.errors import LeaseLostError, StoreError, UnknownQuestionError
from agentloop.events import (
    OutputDelta,
    ReasoningDelta,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallOutput,
)
from agentloop.journal import Lease, OpenStore, Record
from agentloop.models import ModelChoice, ReasoningEffort
from agentloop.questions import Answer
from agentloop.stores._replay import UNREADABLE, StoredState, encode_note, load, note_key
from agentloop.stores._saved_output import saved_output
from agentloop.wire import EVENT_KINDS, check_readable, encode_event, event_type

__all__ = ["DELTA_LAG", "LAG", "JournalWriter", "store_deadline"]

LAG = 0.01
"""Seconds to collect entries into one write when nothing waits for that write."""

DELTA_LAG = 0.25
"""Seconds by which the saved deltas may be behind the delivered ones."""

WRITE_SECONDS = 30.0
"""Seconds that one call of the store may take. A run that waits for it has a deadline of its own."""

PLAIN_KINDS = frozenset(
    {
        "child_stream_stopped",
        "stream_stopped",
        "tool_call_finished",
        "tool_call_parked",
        "tool_call_started",
        "turn_finished",
        "turn_started",
        "usage_reported",
    }
)
"""Kinds of events that are not checked when they are saved: the runtime makes their values, or the message that is
committed has them as well. The check of an event takes as long as its encoding."""

Delta = TextDelta | ReasoningDelta | ToolCallDelta | ToolCallOutput


@contextmanager
def store_deadline(session: str) -> Generator[None]:
    """Raise `StoreError` if the calls of the store in this block take longer than `WRITE_SECONDS`."""
    with trio.CancelScope(deadline=after(WRITE_SECONDS)) as scope:
        yield
    if scope.cancelled_caught:
        raise StoreError(f"the store of session {session!r} has given no answer for {WRITE_SECONDS:g} s")


SAME_TIME = 0.02
"""Seconds within which the events of one write have one time: those of one time share a row of a database. With a row
for each event, a session of 10,000 messages took 2.5 times as long to open."""


class JournalWriter(Journal):
    """Writes the journal of a session, for the process that has its lease."""

    def __init__(self, store: OpenStore, lease: Lease, transcript: Transcript) -> None:
        self._store = store
        self._transcript = transcript
        self._session = lease.session
        self._length = 0
        """How many records the store has."""
        self._settings = SessionSettings()
        """The last ones that were written."""
        self._has_settings = False
        """Whether the session in memory has the settings that the store had."""
        self._lock = trio.Lock()
        """Held by the task that reads or writes the store."""
        self._tails: list[LiveTail] = []
        """Of the followers in this process."""
        self._is_stale = True
        """Whether the session in memory may differ from the one in the store."""
        self._log: EventLog | None = None
        """The log of the last run."""
        self._opened = trio.lowlevel.ParkingLot()
        """Parks the task until a log is opened."""
        self._scope = trio.CancelScope(shield=True)
        """The scope of the task."""
        self.lease = lease
        self.unfinished: StreamState | None = None
        """The run that ended without an end in the journal, or parked: it can be resumed."""

    @property
    def has_unfinished_run(self) -> bool:
        return self.unfinished is not None

    async def run(self) -> None:
        """Save the entries of the logs that are opened, until `close`. The session's nursery runs this."""
        with self._scope:
            while True:
                log = self._log
                if log is None or log.is_drained:
                    await self._opened.park()
                else:
                    await self._save(log)

    def close(self) -> None:
        """End `run`. Entries that no run has flushed by now are not saved: the block of the session ends."""
        self._scope.cancel()
        if self._log is not None:
            self._log.fail(StoreError(f"the block of session {self._session!r} has ended"))

    # --------------------------------------------------------------------- before a stream

    async def open_log(self, *, resumes: bool) -> EventLog:
        await self.ready(resumes=resumes)
        if self._scope.cancel_called:
            raise StoreError(f"session {self._session!r} is used outside of its block: async with stored_session(...)")
        self._log = EventLog(seq=self._transcript.seq, journaled=True, tails=self._tails)
        self._opened.unpark_all()
        return self._log

    async def ready(self, *, resumes: bool) -> None:
        """Have the session as it is in the store. Unless it is to be resumed, an unfinished run is closed for good.

        Raises:
          StoreError: the store cannot be used.
        """
        if self._log is not None and self._log.is_closed:
            # A run that was torn down by an interrupt may not have waited for its last entries.
            self._log.fail(StoreError(f"the last entries of session {self._session!r} were not saved in time"))
        if self._log is not None and self._log.failure is not None:
            # Whatever was being written may be in the store or not.
            self._is_stale, self._settings, self._log = True, SessionSettings(), None
        if self._is_stale:
            await self.open()
        if not resumes and self.unfinished is not None:
            await self._give_up()

    def begin(self) -> None:
        """Begin a session with a new id, without a look at the store, which has no records of it."""
        self._is_stale = False

    async def open(self) -> None:
        """Read the session from the store, and end the streams that have no end there.

        Raises:
          StoreError: the store cannot be read or written, or its records are not a session.
        """
        with store_deadline(self._session):
            lacks_step = await self._open()
        if lacks_step and self.unfinished is not None:
            # A record is unreadable without which a resumed run might do something for a second time.
            await self._give_up()

    async def _open(self) -> bool:
        """Returns whether the unfinished run, if there is one, must not be resumed."""
        async with self._lock:
            loaded = await load(self._store, self._session)
            self._length = loaded.length
            transcript = self._transcript
            if self._settings == SessionSettings():
                self._show(loaded.state.settings)
            for call_id, text in loaded.state.long_results.items():
                transcript.long_results.store(call_id, text)
            # Values that could not be saved do not count, whatever this process had in memory.
            transcript.values = loaded.state.settings.values
            transcript.seq = max(transcript.seq, loaded.seq)
            transcript.streams = max(transcript.streams, loaded.length)
            await self._end_what_runs(loaded)
            if loaded.state.resumable is not None:
                await self._take_answers(loaded.state.resumable)
            self._take_over(loaded)
            self._is_stale = False
            resumable = self.unfinished is not None
            text = "session %r: journal read: %d records, resumable: %s"
            log(JOURNAL, logging.DEBUG, text, self._session, self._length, resumable)
            return loaded.replay.lacks_step

    def _show(self, settings: SessionSettings) -> None:
        self._settings = settings
        transcript = self._transcript
        transcript.grants.extend(grant for grant in settings.grants if grant not in transcript.grants)
        if not self._has_settings and transcript.permissions is None:
            transcript.permissions = settings.permissions
        if not self._has_settings and transcript.choice is None and (settings.model or settings.reasoning_effort):
            model = settings.model or None
            transcript.choice = ModelChoice(model=model, reasoning_effort=settings.reasoning_effort)
        self._has_settings = True
        transcript.shown.restore(
            summary=settings.summary,
            first_kept=settings.first_kept,
            elided=settings.elided,
            in_part=settings.in_part,
            changed_at=settings.changed_at,
            failures=settings.failures,
            cut=settings.cut,
        )

    async def _end_what_runs(self, loaded: StoredState) -> None:
        """Give the streams an end that were cut off with their process, for those who read the journal."""
        records: list[Record] = []
        seq = self._transcript.seq
        for kind, source, fields in loaded.state.ends():
            if not records:
                # Their readers may have seen deltas that were not saved; one number must not name two events.
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
        """Replace the messages in memory by the journal's; an open turn is closed, as if it were never resumed."""
        self.unfinished = loaded.state.resumable
        transcript = self._transcript
        transcript.take_ids(loaded.state.removed)
        transcript.truncate(0)
        transcript.extend(loaded.state.messages)
        transcript.agent, transcript.handoffs = loaded.state.agent, loaded.state.handoffs
        transcript.provisional = 0
        if self.unfinished is not None:
            closing = self.unfinished.closing
            transcript.extend(closing)
            transcript.provisional = len(closing)

    async def _give_up(self) -> None:
        """Close the unfinished run for good."""
        assert self.unfinished is not None
        transcript = self._transcript
        closing = transcript.messages[len(transcript) - transcript.provisional :]
        await self._append(TurnAbandoned(closing))
        transcript.provisional = 0
        self.unfinished = None

    async def rewind(self, messages: int) -> None:
        """Have only the first so many messages count. Raises `StoreError`."""
        await self.ready(resumes=False)
        await self._append(SessionRewound(messages))
        transcript = self._transcript
        transcript.truncate(messages)
        transcript.shown.rewind(messages)
        transcript.handoffs, transcript.agent = agent_after_rewind(transcript.handoffs, transcript.agent, messages)

    async def save_permissions(self) -> None:
        """Save the permissions and the chosen model in the store, if they have changed since the session's last run.

        Raises:
          StoreError: they cannot be saved.
        """
        saved = self._settings
        is_saved = self._transcript.permissions == saved.permissions
        if not self._length or (is_saved and self._choice == (saved.model, saved.reasoning_effort)):
            return
        await self.ready(resumes=True)
        settings = self._changed_settings()
        if settings is not None:
            await self._append(settings)

    async def accept(self, answers: Mapping[str, Answer], redact: Redact | None = None) -> None:
        await self.ready(resumes=True)
        past = self.unfinished
        if past is None:
            if answers:
                raise UnknownQuestionError(given=next(iter(answers)), open_ids=())
            return
        with store_deadline(self._session):
            await self._accept(past, answers, redact)

    async def _accept(self, past: StreamState, answers: Mapping[str, Answer], redact: Redact | None) -> None:
        await self._take_answers(past)
        accepted = {id: _checked(past, id, answer) for id, answer in answers.items()}
        for asked, answer in accepted.values():
            id = asked.question.id
            # Only now: the placeholder of a secret need not fit the form.
            saved = answer if redact is None else redact(past, answer)
            if not await self._store.answer(self._session, id, msgspec.json.encode(saved)):
                raise UnknownQuestionError(given=id, open_ids=[each.id for each in past.open_questions])
            asked.answer = saved

    async def _take_answers(self, past: StreamState) -> None:
        """Have the answers that were accepted before, in whichever process."""
        for id, data in (await self._store.answers(self._session)).items():
            asked = past.find_question(id)
            if asked is not None and asked.lacks_answer:
                try:
                    asked.answer = decode_own(data, Answer)
                except UNREADABLE:
                    text = "session %r: the answer to question %r cannot be read: the question is asked again"
                    log(JOURNAL, logging.WARNING, text, self._session, id)

    def take_up(self) -> StreamState | None:
        """The unfinished run. Its open turn is no longer part of the transcript."""
        transcript = self._transcript
        transcript.truncate(len(transcript) - transcript.provisional)
        transcript.provisional = 0
        found, self.unfinished = self.unfinished, None
        return found

    def invalidate(self) -> None:
        self._is_stale = True

    async def reload(self) -> None:
        self.invalidate()
        await self.ready(resumes=True)

    async def _append(self, note: Note) -> None:
        """Write one record, while no run is open on the session. Raises `StoreError`."""
        # Until it is there: a write that fails may be in the store or not.
        self._is_stale = True
        with store_deadline(self._session):
            async with self._lock:
                record = Record(self._length + 1, note.kind, encode_note(note), "", note_key(note), time.time())
                await self._write_records([record])
        self._is_stale = False

    # ---------------------------------------------------------------------- while one runs

    async def _save(self, log: EventLog) -> None:
        """Save urgent entries as they come, and the rest once `LAG` has passed without a flush."""
        # One scope for all writes of a busy run: entering one takes six times as long as moving its deadline. If the
        # clock fails, all waits end at once.
        with trio.CancelScope(deadline=after(LAG)) as timer:
            while True:
                await log.wait_until(NOW)
                if log.is_drained:
                    return
                if timer.cancel_called:
                    break
                timer.deadline = after(WRITE_SECONDS)
                await self._write(log)
                timer.deadline = after(LAG)
        if log.urgency < DELTAS:
            await log.wait_until(DELTAS)
            return
        if log.urgency < FACTS:
            with trio.CancelScope(deadline=after(DELTA_LAG - LAG)):
                await log.wait_until(FACTS)
                with trio.CancelScope(deadline=after(LAG)):
                    await log.wait_until(NOW)
        if not log.is_drained:
            with trio.CancelScope(deadline=after(WRITE_SECONDS)):
                await self._write(log)

    async def _write(self, log: EventLog) -> None:
        """Save all entries that are not saved, and move the mark of ``log``."""
        try:
            # Without the checkpoint of `acquire`, which lets all other tasks run first: the store has checkpoints.
            self._lock.acquire_nowait()
        except trio.WouldBlock:
            await self._lock.acquire()
        try:
            entries = log.unsaved()
            try:
                await self._write_records(self._records(log, entries))
            except StoreError as error:
                self._fail(log, error)
                return
            except BaseException:
                late = f"the store of session {self._session!r} has given no answer for {WRITE_SECONDS:g} s"
                cut = f"the last entries of session {self._session!r} may be saved or not"
                self._fail(log, StoreError(cut if self._scope.cancel_called else late))
                raise
            # If the run did not want to wait any longer, the log has failed meanwhile, and has no unsaved entries.
            if log.failure is None:
                log.mark_saved(len(entries))
        finally:
            self._lock.release()

    def _records(self, log: EventLog, entries: Iterable[Entry]) -> list[Record]:
        """The records of ``entries``, and of the session's state if it has changed. Raises `StoreError`.

        Each event or note has a record of its own, but for the deltas of one text in a row, which share one.
        """
        records: list[Record] = []
        deltas: list[Delta] = []
        began = 0.0
        """The time of the first of ``deltas``."""
        moment = 0.0
        """The time of the records at hand."""
        omitted: Delta | None = None
        """Output that is left out, if no other event follows it: its number is saved, since readers have seen it."""
        number = self._length + 1
        try:
            for item, writer, at in entries:
                # A clock may be set back, too.
                if not moment <= at < moment + SAME_TIME:
                    moment = at
                at = moment  # noqa: PLW2901 - rounded
                # The class first: see `KINDS_OF_WORDS`.
                if item.__class__ in KINDS_OF_WORDS and isinstance(item, WORDS):
                    if isinstance(item, OutputDelta):
                        # Readers have seen its number, which is saved with the text that has its part.
                        delta: Delta = TextDelta(item.source, item.seq, text="")
                    else:
                        delta = saved_output(item, log.output_left) if isinstance(item, ToolCallOutput) else item
                    if deltas and not _continues(deltas[0], delta):
                        records.append(_record_of_deltas(number + len(records), deltas, began))
                        deltas = []
                    if delta is not item and not words_of(delta) and not isinstance(delta, TextDelta):
                        omitted = delta
                    else:
                        omitted = None
                        began = began if deltas else at
                        deltas.append(delta)
                    continue
                if deltas:
                    records.append(_record_of_deltas(number + len(records), deltas, began))
                    deltas = []
                if item.__class__ in KINDS_OF_NOTES and isinstance(item, Note):
                    kind, data, key = item.kind, encode_note(item), note_key(item)
                else:
                    omitted = None
                    event = cast("StreamEvent", item)
                    kind, is_plain, key_fields = _form(event.__class__)
                    data, key = encode_event(event), ""
                    # `_key`, written out.
                    for name in key_fields:
                        if key := getattr(event, name):
                            break
                    if not is_plain:
                        check_readable(kind, data)
                    if item.__class__ is ToolCallFinished:
                        log.output_left.pop((writer.source.stream, key), None)
                records.append(Record(number + len(records), kind, data, writer.source.stream, key, at))
            if deltas:
                records.append(_record_of_deltas(number + len(records), deltas, began))
            if omitted is not None:
                records.append(_record_of_deltas(number + len(records), (omitted,), moment))
            settings = self._changed_settings()
            if settings is not None:
                records.append(
                    Record(number + len(records), settings.kind, encode_note(settings), at=moment or time.time())
                )
        # An event may hold values of user code, whose encoding raises anything; and text that no encoding has, such as
        # half of a surrogate pair. Not caught here, the error would end the writer's task, and with it the session.
        except Exception as error:
            raise StoreError(f"session {self._session!r}: an event cannot be saved: {describe(error)}") from error
        return records

    async def _write_records(self, records: Sequence[Record]) -> None:
        """Write ``records``. The lock is held. Raises `StoreError`."""
        is_logged = JOURNAL.isEnabledFor(logging.DEBUG)
        began = time.perf_counter() if is_logged else 0.0
        try:
            await self._store.append(self._session, records, lease=self.lease)
        except StoreError:
            raise
        except Exception as error:
            raise StoreError(f"the store of session {self._session!r} failed: {describe(error)}") from error
        self._length += len(records)
        if is_logged:
            took = time.perf_counter() - began
            text = "session %r: %d records written, %d in all, %.3f s"
            log(JOURNAL, logging.DEBUG, text, self._session, len(records), self._length, took)
        if self._tails:
            # A follower that is behind may be gone for good; if it is not, it opens another tail.
            self._tails[:] = [tail for tail in self._tails if not tail.is_behind]
            for tail in self._tails:
                tail.wake()

    def _fail(self, failed: EventLog, error: StoreError) -> None:
        # Without the traceback: a database's error quotes the records.
        cause = error if error.__cause__ is None else error.__cause__
        log(JOURNAL, logging.WARNING, "session %r: the store failed: %s", self._session, type(cause).__name__)
        failed.fail(error)

    @property
    def _choice(self) -> tuple[str, ReasoningEffort | None]:
        """The chosen model of the session, as it is saved. An object has no name by which it could be found again."""
        choice = self._transcript.choice
        if choice is None:
            return "", None
        return (choice.model if isinstance(choice.model, str) else ""), choice.reasoning_effort

    def _changed_settings(self) -> SessionSettings | None:
        """The session's settings, if they are not in the store."""
        transcript = self._transcript
        shown, permissions = transcript.shown, transcript.permissions
        is_plain = shown.is_plain and not shown.failures and not transcript.grants and permissions is None
        is_plain = is_plain and not transcript.values and transcript.choice is None
        if is_plain and self._settings == SessionSettings():
            return None
        settings = SessionSettings(
            tuple(transcript.grants),
            shown.summary,
            shown.first_kept,
            tuple(sorted(shown.elided)),
            tuple(sorted(shown.in_part.items())),
            shown.changed_at,
            shown.failures,
            permissions,
            transcript.values,
            shown.cut,
            *self._choice,
        )
        if settings == self._settings:
            return None
        self._settings = settings
        return settings

    async def renew(self, seconds: float) -> None:
        """Keep the lease for as long as this runs, or until another process has taken the session over."""
        wait = seconds / 3
        while True:
            await trio.sleep(wait)
            try:
                self.lease = await self._store.renew(self.lease, seconds=seconds)
            except StoreError as error:
                text = "session %r: the lease could not be renewed: %s"
                log(JOURNAL, logging.WARNING, text, self._session, type(error).__name__)
                if isinstance(error, LeaseLostError):
                    # The next append fails with a precise error from the store. Ending the run here would say less.
                    return
                # The store may be well again in time. Also after the lease has expired: it can still be renewed, as
                # long as no other process has asked for the session.
                wait = seconds / 12
            else:
                log(JOURNAL, logging.DEBUG, "session %r: lease renewed for %g s", self._session, seconds)
                wait = seconds / 3

    @property
    def stream(self) -> str:
        """The stream that is open on the session; empty if none is."""
        return self._transcript.holder or ""

    @property
    def length(self) -> int:
        """How many records the journal has."""
        return self._length

    @property
    def is_idle(self) -> bool:
        """Whether every event that was emitted is in the journal."""
        return self._log is None or self._log.saved == self._log.end

    def open_tail(self, size: int) -> LiveTail:
        """Open a tail for a follower. See `LiveTail`."""
        tail = LiveTail(size)
        self._tails.append(tail)
        return tail

    def close_tail(self, tail: LiveTail) -> None:
        if tail in self._tails:
            self._tails.remove(tail)


LOST_NUMBERS = 100_000
"""More events than a run can emit within `DELTA_LAG`."""


def _checked(past: StreamState, id: str, answer: Answer) -> tuple[QuestionRecord, Answer]:
    """The question, which is open, and ``answer`` as it is accepted, as far as that can be said without the agent."""
    asked = past.find_question(id)
    if asked is None or not asked.is_open:
        raise UnknownQuestionError(given=id, open_ids=[each.id for each in past.open_questions])
    return asked, check_answer(asked.question, answer)


class _Form(NamedTuple):
    """What the records of all events of one class have in common."""

    kind: str
    is_plain: bool
    """Whether it is one of `PLAIN_KINDS`."""
    key_fields: Sequence[str]
    """The fields that may have the record's key: the first that is not empty."""


@cache
def _form(cls: type[StreamEvent]) -> _Form:
    # Asked for once: to look for fields that an event lacks takes as long as to encode it.
    kind = EVENT_KINDS[cls]
    return _Form(kind, kind in PLAIN_KINDS, [name for name in ("id", "call_id") if hasattr(cls, name)])


def _key(event: StreamEvent) -> str:
    """The question, or the tool call, that ``event`` is about, if it is about one."""
    for name in _form(event.__class__).key_fields:
        key: str = getattr(event, name)
        if key:
            return key
    return ""


def _continues(first: Delta, delta: Delta) -> bool:
    """Whether both are deltas of the same text."""
    return (
        delta.__class__ is first.__class__
        and delta.stream == first.stream
        and _key(delta) == _key(first)
        and getattr(delta, "name", "") == getattr(first, "name", "")
    )


def _record_of_deltas(number: int, deltas: Sequence[Delta], at: float) -> Record:
    """Encode several deltas as one, with the number of the last and the sizes of all: a follower may have read some."""
    first, last = deltas[0], deltas[-1]
    if len(deltas) == 1:
        data = encode_event(first)
    else:
        words = [words_of(delta) for delta in deltas]
        joined = encode_event(_with_text(last, "".join(words)))
        data = b'%s,"sizes":%s}' % (joined[:-1], msgspec.json.encode([len(each) for each in words]))
    return Record(number, event_type(first), data, first.stream, _key(first), at)


def _with_text(delta: Delta, text: str) -> Delta:
    """``delta`` with another text."""
    if isinstance(delta, ToolCallDelta):
        return msgspec.structs.replace(delta, arguments=text)
    return msgspec.structs.replace(delta, text=text)
