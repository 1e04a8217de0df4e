"""Replay a session's journal: decode its records into facts, and apply them to a fresh `SessionState`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import msgspec

from agentloop._core.json_text import MAX_OWN_DEPTH, JsonDecoder, decode_own, opening_brackets
from agentloop._core.state import (
    NOTES,
    ChildReused,
    Fact,
    LongResultStored,
    Note,
    SessionRewound,
    SessionSettings,
    SessionState,
    ToolStarted,
    TurnAbandoned,
    TurnOpened,
    ValueRemembered,
)
from agentloop._runtime.logs import JOURNAL, log
from agentloop.errors import StoreError, UsageError
from agentloop.events import ChildStreamStopped, HandedOff, Source, StreamReason, StreamStopped, UnknownEvent
from agentloop.journal import OpenStore, Record
from agentloop.messages import AssistantMessage, Message
from agentloop.stores._checks import RECORD_SEPARATOR
from agentloop.stores._rows import Row, RowReader
from agentloop.stores._sql import OpenSqlStore
from agentloop.wire import EVENT_TYPES, decode_event

__all__ = [
    "DELTAS",
    "TRANSCRIPT_KINDS",
    "UNREADABLE",
    "Replay",
    "StoredState",
    "decode_fact",
    "encode_note",
    "load",
    "log_unreadable",
    "note_key",
    "number_of",
]

DELTAS = frozenset({"text_delta", "reasoning_delta", "tool_call_delta", "tool_call_output"})
"""Kinds of records that change no state: most of a journal. They are not decoded."""

TRANSCRIPT_KINDS = (
    "message_committed",
    "stream_started",
    "handed_off",
    SessionSettings.kind,
    TurnAbandoned.kind,
    SessionRewound.kind,
    LongResultStored.kind,
)
"""Kinds of records that say what the transcript is."""

# ------------------------------------------------------------------------------- notes


class _Memory(msgspec.Struct):
    name: str
    value: msgspec.Raw


def note_key(note: Note) -> str:
    """The call that ``note`` is about, if it is about one: the key of its record."""
    call_id: str = getattr(note, "call_id", "")
    return call_id


def encode_note(note: Note) -> bytes:
    """The data of the note's record, as JSON. Its call is the record's key."""
    match note:
        case TurnOpened(message=message):
            return msgspec.json.encode(message)
        case ToolStarted():
            return b"{}"
        case LongResultStored(text=text):
            return msgspec.json.encode(text)
        case ValueRemembered(name=name, value=value):
            return msgspec.json.encode(_Memory(name, msgspec.Raw(value)))
        case _:
            return msgspec.json.encode(note)


def _remembered(record: Record) -> Note:
    memory = decode_own(record.data, _Memory)
    return ValueRemembered(record.key, memory.name, bytes(memory.value))


_DECODERS: Mapping[str, Callable[[Record], Note]] = {
    TurnOpened.kind: lambda record: TurnOpened(decode_own(record.data, AssistantMessage)),
    ToolStarted.kind: lambda record: ToolStarted(record.key),
    LongResultStored.kind: lambda record: LongResultStored(record.key, decode_own(record.data, str)),
    ValueRemembered.kind: _remembered,
}
"""The notes whose record is not simply their JSON form."""


def decode_fact(record: Record) -> Fact | None:
    """The fact that ``record`` holds; ``None`` for a kind that a newer version has added.

    Raises:
      msgspec.DecodeError: the record holds no such fact.
      UsageError: the record holds no event.
    """
    kind = record.kind
    if kind in EVENT_TYPES:
        event = decode_event(record.data)
        return None if isinstance(event, UnknownEvent) else event
    if kind not in NOTES:
        return None
    decode = _DECODERS.get(kind)
    return decode_own(record.data, NOTES[kind]) if decode is None else decode(record)


# ------------------------------------------------------------------------------ replay


class _Committed(msgspec.Struct, gc=False):
    message: Message


class _Started(msgspec.Struct):
    resumes: str = ""


class _Numbered(msgspec.Struct):
    seq: int = 0


_committed = JsonDecoder(_Committed, max_depth=MAX_OWN_DEPTH)


_SEPARATOR = RECORD_SEPARATOR.decode()


class _Stopped(msgspec.Struct):
    """As much of the end of a stream as the state needs."""

    source: Source
    seq: int
    reason: StreamReason
    call_id: str = ""


UNREADABLE = (msgspec.DecodeError, UnicodeError, UsageError)
"""The errors of decoding a record that holds no such fact."""

_NEEDED = frozenset({"message_committed", "stream_started", TurnAbandoned.kind, SessionRewound.kind})
"""Kinds of records without which the transcript would be another one. Messages of child streams do not count."""

_STEPS = frozenset(
    {
        "child_stream_started",
        "handed_off",
        "message_committed",
        "tool_call_started",
        TurnOpened.kind,
        ToolStarted.kind,
        ValueRemembered.kind,
        ChildReused.kind,
    }
)
"""Kinds of records without which a resumed run might do for a second time what it has done before."""


class Replay:
    """Applies the records of a session's journal to a fresh state.

    A record that cannot be read is left out, with a warning in the log, unless the transcript needs it, or it has the
    newest settings: what the session forbids must not be allowed because a record is lost.

    Args:
      session: its id, for errors.
    """

    def __init__(self, session: str) -> None:
        self.state = SessionState()
        self.lacks_step = False
        """Whether a record is left out without which the last run must not be resumed."""
        self._session = session
        self._lost_settings: StoreError | None = None
        """Why the newest settings of the session cannot be read."""
        self._root = ""
        """The stream that runs on the session itself: after a fork, its id is not made of the session's."""

    def read(self, records: Sequence[Record]) -> None:
        """Apply ``records``, which follow those that were applied before.

        Raises:
          StoreError: a record cannot be read that the transcript needs.
        """
        state = self.state
        for record in records:
            if record.kind in DELTAS:
                continue
            if record.kind == "stream_started":
                self._root = record.stream
            try:
                fact = decode_fact(record)
            except UNREADABLE as error:
                fact = self._salvaged(record, error)
            if fact is not None:
                state.apply(fact, record.stream)
            if isinstance(fact, SessionSettings):
                self._lost_settings = None
        for complaint in state.complaints:
            JOURNAL.warning("session %r: the journal is out of order: %s", self._session, complaint)
        state.complaints.clear()

    def read_transcript(self, records: Sequence[Record]) -> None:
        """Apply ``records`` of `TRANSCRIPT_KINDS`, as far as they change the transcript, and not the last run.

        Raises:
          StoreError: a record cannot be read that the transcript needs.
        """
        state = self.state
        messages = state.messages
        for record in records:
            try:
                if record.kind == "message_committed":
                    # As most are: the message is all that is needed of the event.
                    if record.stream == self._root:
                        messages.append(_committed.decode(record.data).message)
                elif record.kind == "stream_started":
                    self._root = record.stream
                elif record.kind == "handed_off":
                    if record.stream == self._root:
                        state.hand_off(decode_own(record.data, HandedOff))
                elif record.kind == LongResultStored.kind:
                    # Calls of child streams have the same ids.
                    if record.stream == self._root:
                        state.long_results[record.key] = decode_own(record.data, str)
                else:
                    fact = decode_fact(record)
                    if fact is not None:
                        state.apply(fact)
                    if isinstance(fact, SessionSettings):
                        self._lost_settings = None
            except UNREADABLE as error:
                self._salvaged(record, error)

    def read_rows(self, reader: RowReader, rows: Sequence[Row]) -> None:
        """`read_transcript`, of rows: a third faster where they hold messages of the session alone, as most do."""
        messages, decode = self.state.messages, _committed.decode_shallow
        for row in rows:
            texts = reader.texts_of_messages(row, self._root)
            # One look at all texts of a row says that none nests too deeply.
            if texts is not None and opening_brackets(texts) <= MAX_OWN_DEPTH:
                try:
                    messages += [decode(text).message for text in texts.split(_SEPARATOR)]
                except UNREADABLE:
                    # None of them has been added.
                    self.read_transcript(reader.records(row))
            else:
                self.read_transcript(reader.records(row))

    def check(self) -> None:
        """Raise `StoreError` if the newest settings of the session cannot be read: they have what it forbids."""
        if self._lost_settings is not None:
            raise self._lost_settings

    def _salvaged(self, record: Record, error: Exception) -> Fact | None:
        """What is left of ``record``, which cannot be read; ``None`` to go on without it.

        Raises:
          StoreError: the transcript needs it.
        """
        kind = record.kind
        failure = StoreError(f"session {self._session!r}: record {record.seq}, {kind!r}, cannot be read: {error}")
        if kind in _NEEDED and (kind != "message_committed" or record.stream == self._root):
            raise failure from error
        if kind == SessionSettings.kind:
            failure.add_note("It has what the session allows and forbids, so the session is not opened without it.")
            self._lost_settings = failure
        log_unreadable(self._session, record)
        if kind in _STEPS:
            self.lacks_step = True
        if kind not in ("stream_stopped", "child_stream_stopped"):
            return None
        # That the run ended, and why, must not be lost with a detail.
        try:
            end = decode_own(record.data, _Stopped)
        except UNREADABLE:
            return None
        if kind == "stream_stopped":
            return StreamStopped(end.source, end.seq, reason=end.reason)
        return ChildStreamStopped(end.source, end.seq, call_id=end.call_id, reason=end.reason)


def log_unreadable(session: str, record: Record) -> None:
    """Log that ``record`` is left out, without its words."""
    text = "session %r: record %d, %r, cannot be read, and is left out"
    log(JOURNAL, logging.WARNING, text, session, record.seq, record.kind)


class StoredState(msgspec.Struct):
    """A session as its store has it."""

    replay: Replay
    length: int
    """Records in the journal. No smaller than the number of streams that were opened on the session."""
    seq: int
    """The ``seq`` of the last event that was saved."""

    @property
    def state(self) -> SessionState:
        """The state that the journal has led to."""
        return self.replay.state


async def load(store: OpenStore, session: str) -> StoredState:
    """Replay the journal of a session: empty if there is none.

    Runs that have ended are decoded only as far as their transcript; the last run is decoded whole.

    Raises:
      StoreError: the store cannot be read, or a record cannot be read that the transcript needs.
    """
    replay = Replay(session)
    info = await store.info(session)
    if info is None:
        return StoredState(replay, 0, 0)
    begins = await _read_ended_runs(store, session, replay)
    tail: Sequence[Record] = ()
    if begins:
        tail = await store.read(session, after=begins - 1)
        replay.read(tail)
    replay.check()
    return StoredState(replay, info.records, _last_number(tail))


async def _read_ended_runs(store: OpenStore, session: str, replay: Replay) -> int:
    """Have ``replay`` read the transcript of all runs but the last. The number of that one's first record, or 0."""
    found: tuple[RowReader, Sequence[Row]] | None = None
    # A database of agentloop's own, without a fence or another wrapper around it.
    if isinstance(store, OpenSqlStore):
        # Where a text is damaged, `read` gives it as bytes, to be left out or refused by its kind.
        with suppress(StoreError):
            found = await store.transcript_rows(session)
    if found is None:
        records = await store.read(session, kinds=TRANSCRIPT_KINDS)
    else:
        reader, rows = found
        rows, records = _split_at_last_run(session, reader, rows)
        replay.read_rows(reader, rows)
    begins = _last_run(session, records)
    replay.read_transcript(records[:begins])
    return records[begins].seq if begins < len(records) else 0


def _split_at_last_run(session: str, reader: RowReader, rows: Sequence[Row]) -> tuple[Sequence[Row], Sequence[Record]]:
    """The rows before the one in which the last run begins, and the records of that one."""
    for index in range(len(rows) - 1, -1, -1):
        if "stream_started" in rows[index][1]:
            records = reader.records(rows[index])
            if _last_run(session, records) < len(records):
                return rows[:index], records
    return rows, ()


def _last_run(session: str, records: Sequence[Record]) -> int:
    """The place in ``records`` where the last run begins, in however many streams; their number if there is none."""
    for index in range(len(records) - 1, -1, -1):
        record = records[index]
        if record.kind == "stream_started":
            try:
                started = decode_own(record.data, _Started)
            except UNREADABLE as error:
                raise StoreError(
                    f"session {session!r}: record {record.seq}, {record.kind!r}, cannot be read: {error}"
                ) from error
            if not started.resumes:
                return index
    return len(records)


def _last_number(records: Sequence[Record]) -> int:
    """The ``seq`` of the last event in ``records``."""
    for record in reversed(records):
        if record.kind in NOTES:
            continue
        seq = number_of(record)
        if seq:
            return seq
    return 0


def number_of(record: Record) -> int:
    """The ``seq`` of the event in ``record``; 0 if it cannot be read."""
    try:
        return decode_own(record.data, _Numbered).seq
    except UNREADABLE:
        return 0
