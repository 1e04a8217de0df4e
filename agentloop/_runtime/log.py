"""The log of a run: its events, and those of all runs inside it, each once and in order.

A root run has one `EventLog`. Each run of the tree appends to it through a writing end of its own (`EventWriter`, a
`trio.abc.SendChannel`), and may have readers (`Reader`, a `trio.abc.ReceiveChannel`). A reader of a run gets the events
of that run and of the runs inside it. The nursery of a run owns both ends, and closes both when it exits.

Everything that happens to an event after it was appended is done by a reader: the user's loop, an observer, a follower
of the session in this process, and the journal writer, which differs from the others in that it moves a mark. This
module calls neither a store nor user code.

Three marks move along the log::

    saved  <=  visible  <=  end
    in the     readers      appended
    store      read up
               to here

Without a journal the marks move together. With one, an event becomes visible when it is saved. Deltas, which come
faster than a store can write, become visible at once, unless an event that is not visible yet stands before them.

A `LiveTail` is what a follower reads of a run in its own process. The run does not wait for it: a follower that falls
too far behind reads the journal instead.

**Appending never waits and never fails.** An event that was made is delivered, in order, also if the task that emits
it is cancelled at that moment, and also if nothing reads. The poster waits *afterwards*, by
`EventWriter.wait_for_readers`: for readers that lag, and for a store that lags. Memory is therefore bounded: by
`CAPACITY` events per reader, by `UNSAVED_EVENTS` and `UNSAVED_CHARACTERS` per journal, plus one event for each task
that emits at once, plus the ends of whatever is open when a run is torn down. A full buffer can never tear a
started/finished pair apart, or drop the last event.

**If the journal fails**, `EventLog.fail` makes the rest of the log visible without it. Events that state a fact which
is now lost (a message is part of the session; a tool gave this result) are left out or replaced, and the events after
them are numbered without a gap. `EventLog.lost` says which messages are not part of their sessions any more.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from types import TracebackType
from typing import Concatenate, ParamSpec, Protocol, Self, TypeAlias, cast

import msgspec
import trio

from agentloop._core.field_checks import plain_text
from agentloop._core.secrets import Redactor
from agentloop._core.state import NOTES, Note, StreamState
from agentloop._core.transcript import interrupted_result
from agentloop._runtime.logs import LOGGER_OF, log_event, log_warning
from agentloop.errors import StoreError
from agentloop.events import (
    ChildStreamStarted,
    ChildStreamStopped,
    HandedOff,
    MessageCommitted,
    OutputDelta,
    ReasoningDelta,
    Source,
    StreamEvent,
    StreamStarted,
    StreamStopped,
    TextDelta,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallOutput,
    WarningIssued,
)
from agentloop.messages import ToolCall
from agentloop.questions import Answer

__all__ = [
    "CAPACITY",
    "DELTAS",
    "FACTS",
    "KINDS_OF_NOTES",
    "KINDS_OF_WORDS",
    "NOW",
    "WORDS",
    "Entry",
    "EventLog",
    "EventWriter",
    "Journal",
    "LiveTail",
    "Reader",
    "Redact",
    "RedactingWriter",
    "substitute_if_unsaved",
    "words_of",
]

P = ParamSpec("P")

CAPACITY = 32
"""Unread events before posters wait. A switch between tasks costs about as much as ten events: with 32, the switches do
not show, and posters still wait within a few words of text for a reader that stalls."""

_HALF = CAPACITY // 2

UNSAVED_EVENTS = 2048
"""Unsaved entries before posters wait for the store. More than a local model says in the time of one write."""

UNSAVED_CHARACTERS = 1_000_000
"""Characters of unsaved deltas before posters wait for the store."""

WORDS = (TextDelta, ReasoningDelta, ToolCallDelta, ToolCallOutput, OutputDelta)
"""The events that become visible before they are saved."""

NOTHING, DELTAS, FACTS, NOW, NEVER = range(5)
"""How urgent it is to save the unsaved entries: there are none; only deltas, which readers have already; facts, which
readers wait for; at once, since the run waits for it, or will soon."""


KINDS_OF_WORDS: frozenset[type] = frozenset(WORDS)
"""`WORDS`, to ask of an event's class. ``isinstance`` takes 900 instructions to say no, since the classes of msgspec
have a metaclass, and a turn with a journal asks thirty times."""

KINDS_OF_NOTES: frozenset[type] = frozenset(NOTES.values())
"""The classes of `Note`, to ask of an entry's class, for the same reason."""

_SHOWN_AT_ONCE = (*WORDS, Note)

Entry: TypeAlias = "tuple[StreamEvent | Note, EventWriter, float]"
"""An event or a note that is not saved yet, the writing end that appended it, and the time at which it did, in seconds
since 1970: a write may come a quarter of a second later."""


_NOTHING_UNSAVED: deque[Entry] = deque(maxlen=0)
_NO_OUTPUT: dict[tuple[str, str], float] = {}
_NOTHING_LOST: Mapping[str, int] = {}


class EventLog:
    """The log of a root run and of all runs inside it.

    Args:
      seq: number of the session's last event.
      journaled: whether a journal writer saves the entries. Otherwise they count as saved when they are appended.
      tails: of the followers of the session, which come and go.
    """

    __slots__ = (
        "_facts",
        "_flushes",
        "_hidden",
        "_room",
        "_saved",
        "_size",
        "_unsaved",
        "_wanted",
        "_wanting",
        "end",
        "failure",
        "is_closed",
        "is_journaled",
        "lost",
        "output_left",
        "patient",
        "seq",
        "tails",
    )

    def __init__(self, *, seq: int = 0, journaled: bool = False, tails: Sequence[LiveTail] = ()) -> None:
        self.seq = seq
        """Number of the last event."""
        self.end = 0
        """How many entries were appended."""
        self.is_journaled = journaled
        """Whether entries still have to be saved: not without a journal, nor after it has failed."""
        self.is_closed = False
        self.tails = tails
        self.failure: StoreError | None = None
        self.lost: Mapping[str, int] = _NOTHING_LOST
        """Session id to the index of the first message that could not be saved."""
        self.patient: tuple[Reader, ...] = ()
        """The readers that are woken for some kinds of events only: see `Reader.wait_for`."""
        # A log without a journal, which most are, is spared what only a journal needs.
        self.output_left: dict[tuple[str, str], float] = {} if journaled else _NO_OUTPUT
        """How many characters of a call's output the journal may still save, by stream and call."""
        self._unsaved: deque[Entry] = deque() if journaled else _NOTHING_UNSAVED
        self._hidden = 0
        """How many entries, the last ones, are not visible."""
        self._facts = 0
        """How many unsaved entries are not deltas."""
        self._size = 0
        """Characters of the unsaved deltas."""
        self._room: trio.lowlevel.ParkingLot | None = None
        """Posters that wait for readers or for the store."""
        self._saved: trio.lowlevel.ParkingLot | None = None
        """Tasks that wait for a flush."""
        self._wanting: trio.lowlevel.ParkingLot | None = None
        """The journal writer, while nothing is urgent enough."""
        self._flushes = 0
        self._wanted = NEVER
        """How urgent it must be to wake the journal writer."""

    @property
    def saved(self) -> int:
        """How many entries are saved."""
        return self.end - len(self._unsaved)

    @property
    def visible(self) -> int:
        """How many entries readers can read."""
        return self.end - self._hidden

    # ------------------------------------------------------------------------------- appending

    def append(self, event: StreamEvent, writer: EventWriter) -> None:
        """Add ``event``, whose number is ``seq + 1``. Does not wait, does not fail."""
        if not self.is_journaled:
            if self.failure is not None:
                substitute = substitute_if_unsaved(event)
                if substitute is None:
                    return
                event = substitute
            self.seq += 1
            self.end += 1
            # `writer.deliver(event)`, written out: a tenth of what it takes to emit an event.
            around: EventWriter | None = writer
            while around is not None:
                for reader in around._readers:
                    reader._queue.append(event)
                    if reader._is_waited_for:
                        reader.wake()
                around = around._parent
            return
        self.seq += 1
        self.end += 1
        self._unsaved.append((event, writer, time.time()))
        if event.__class__ not in KINDS_OF_WORDS:
            self._facts += 1
            self._hide(writer)
            # A writer that waits for `NOW`, as it nearly always does, is not asked for its `urgency`: of all that
            # decides over that, a fact changes only this.
            wakes = self._wanted < NOW or self._hidden >= _HALF
        else:
            self._size += _size_of(event)
            if self._hidden:
                self._hide(writer)
            else:
                writer.deliver(event)
            wakes = self._wanted < NEVER
        if wakes:
            self._wake_writer()

    def note(self, note: Note, writer: EventWriter) -> None:
        """Add a fact for the journal, in its place among the events. Does not wait, does not fail."""
        if self.is_journaled:
            self.end += 1
            self._unsaved.append((note, writer, time.time()))
            self._facts += 1
            if self._hidden:
                self._hidden += 1
            if self._wanted < NEVER:
                self._wake_writer()

    def _hide(self, writer: EventWriter) -> None:
        self._hidden += 1
        ancestor: EventWriter | None = writer
        while ancestor is not None:
            for reader in ancestor._readers:
                reader.hidden += 1
            ancestor = ancestor._parent

    def _show(self, item: StreamEvent | Note, writer: EventWriter) -> None:
        self._hidden -= 1
        if isinstance(item, Note):
            return
        writer.deliver(item, was_hidden=1)
        if self.patient:
            self.wake_patient(item.__class__)

    def wake_patient(self, kind: type | None = None) -> None:
        """Wake the patient readers that want to be woken for ``kind``; all of them for ``None``."""
        for reader in self.patient:
            if kind is None or kind in reader.kinds:
                self.patient = tuple(other for other in self.patient if other is not reader)
                reader.wake()

    def _wake_writer(self) -> None:
        """Wake the journal writer if saving has become urgent enough for it."""
        if self._wanting is not None and self._wanted <= self.urgency:
            self._wanting.unpark_all()

    async def flush(self) -> None:
        """Wait until every entry that was appended so far is saved.

        Raises:
          StoreError: the journal failed.
        """
        end = self.end
        while self.saved < end and self.failure is None:
            self._flushes += 1
            self._wake_writer()
            if self._saved is None:
                self._saved = trio.lowlevel.ParkingLot()
            try:
                await self._saved.park()
            finally:
                self._flushes -= 1
        self.check()

    def check(self) -> None:
        """Raise `StoreError` if the journal has failed."""
        if self.failure is not None:
            raise self.failure

    @property
    def is_full(self) -> bool:
        """Whether so much is unsaved that posters wait for the store."""
        return self._hidden >= CAPACITY or len(self._unsaved) >= UNSAVED_EVENTS or self._size >= UNSAVED_CHARACTERS

    async def wait_for_room(self) -> None:
        """Wait until something has been read, or saved."""
        if self._room is None:
            self._room = trio.lowlevel.ParkingLot()
        await self._room.park()

    def make_room(self) -> None:
        """Wake the posters: a reader has caught up, or has left."""
        if self._room is not None:
            self._room.unpark_all()

    def close(self) -> None:
        """End the log: the journal writer saves the rest and ends. Idempotent."""
        self.is_closed = True
        if self._wanting is not None:
            self._wanting.unpark_all()

    # ------------------------------------------------------------------- for the journal writer

    @property
    def urgency(self) -> int:
        """How urgent saving is: `DELTAS`, `FACTS` or `NOW`; lower if every entry is saved."""
        if not self._unsaved:
            return NOTHING
        if (
            self._flushes
            or self.is_closed
            or self._hidden >= _HALF
            or len(self._unsaved) >= UNSAVED_EVENTS // 2
            or self._size >= UNSAVED_CHARACTERS // 2
        ):
            return NOW
        return FACTS if self._facts else DELTAS

    @property
    def is_drained(self) -> bool:
        """Whether there is nothing to save, and never will be."""
        return self.failure is not None or (self.is_closed and not self._unsaved)

    async def wait_until(self, urgency: int) -> None:
        """Wait until saving is as urgent as ``urgency``, or until the log `is_drained`."""
        self._wanted = urgency
        if self._wanting is None:
            self._wanting = trio.lowlevel.ParkingLot()
        try:
            while self.urgency < urgency and not self.is_drained:
                await self._wanting.park()
        finally:
            self._wanted = NEVER

    def unsaved(self) -> list[Entry]:
        """The entries that are not saved, in order."""
        return list(self._unsaved)

    def hidden(self) -> list[Entry]:
        """The entries that are not visible, in order."""
        return list(self._unsaved)[len(self._unsaved) - self._hidden :]

    def mark_saved(self, count: int) -> None:
        """Move the mark: the next ``count`` entries are saved, and so visible."""
        unsaved = self._unsaved
        visible = len(unsaved) - self._hidden
        for number in range(count):
            item, writer, _ = unsaved.popleft()
            if item.__class__ in KINDS_OF_WORDS:
                self._size -= _size_of(item)
            else:
                self._facts -= 1
            if number < visible:
                continue
            # `_show` and `EventWriter.deliver`, written out: a fifth of what it takes to save a turn in memory.
            self._hidden -= 1
            if item.__class__ in KINDS_OF_NOTES:
                continue
            event = cast("StreamEvent", item)
            around: EventWriter | None = writer
            while around is not None:
                for reader in around._readers:
                    reader.hidden -= 1
                    reader._queue.append(event)
                    if reader._is_waited_for:
                        reader.wake()
                around = around._parent
            for tail in self.tails:
                tail.add(event)
            if self.patient:
                self.wake_patient(event.__class__)
        # The deltas behind it were hidden only by what stood before them.
        while self._hidden and isinstance(unsaved[-self._hidden][0], _SHOWN_AT_ONCE):
            item, writer, _ = unsaved[-self._hidden]
            self._show(item, writer)
        if self._saved is not None:
            self._saved.unpark_all()
        self.make_room()

    def fail(self, error: StoreError) -> None:
        """End the journal: nothing can be saved any more. The rest becomes visible, as far as it still holds."""
        if not self.is_journaled or self.is_drained:
            return
        hidden = [self._unsaved.pop() for _ in range(self._hidden)][::-1]
        self._unsaved.clear()
        self._hidden = self._facts = self._size = 0
        self.failure, self.is_journaled = error, False
        events = [(item, writer) for item, writer, _ in hidden if not isinstance(item, Note)]
        self.seq -= len(events)
        for event, writer in events:
            for reader in writer.all_readers():
                reader.hidden -= 1
            if isinstance(event, MessageCommitted):
                self.lost = {event.session: event.index, **self.lost}
            self.append(msgspec.structs.replace(event, seq=self.seq + 1), writer)
            # Also if nothing was put in its place: it may have been the last one.
            for reader in writer.all_readers():
                reader.wake()
        if self._saved is not None:
            self._saved.unpark_all()
        if self._wanting is not None:
            self._wanting.unpark_all()
        self.make_room()


class EventWriter(trio.abc.SendChannel[StreamEvent]):
    """The writing end of one run: the only place where events are made.

    Args:
      log: the log of the root run.
      source: the run's own, which its events carry.
      state: the run's own, which each event changes before it is appended.
      parent: the writing end of the run around it. Its readers get the events of this one, too.
    """

    __slots__ = ("_apply", "_log", "_parent", "_readers", "is_closed", "source")

    def __init__(self, log: EventLog, source: Source, state: StreamState, parent: EventWriter | None = None) -> None:
        self._log = log
        self._apply = state.apply
        self._parent = parent
        self._readers: list[Reader] = []
        self.source = source
        self.is_closed = False

    def emit(
        self, kind: Callable[Concatenate[Source, int, P], StreamEvent], /, *args: P.args, **fields: P.kwargs
    ) -> None:
        """Make an event, ``kind(source, seq, **fields)``, and append it. Does not wait, does not fail.

        After the channel is closed, an event is dropped: then the run has ended, and its last event was appended. A
        delta that nothing reads is not made, since deltas change no state.
        """
        if self.is_closed:
            return
        if kind in KINDS_OF_WORDS:
            if self.has_readers:
                self.append_words(kind(self.source, self._log.seq + 1, *args, **fields))
            return
        self.append(kind(self.source, self._log.seq + 1, *args, **fields))

    def append(self, event: StreamEvent) -> None:
        """Append an event of this run that was made with the next number. Does not wait, does not fail.

        `emit`, for the events of each turn and of each tool call: a class that is called with its arguments takes a
        thousand instructions, and one to which they are passed on by keyword, 4 to 8 thousand.
        """
        if self.is_closed:
            return
        log, kind = self._log, event.__class__
        self._apply(event)
        logger = LOGGER_OF.get(kind)
        if logger is not None and logger.isEnabledFor(logging.DEBUG):
            log_event(event)
        log.append(event, self)
        if log.patient and not log.is_journaled:
            log.wake_patient(kind)

    def append_words(self, delta: StreamEvent) -> None:
        """Append a delta, which changes no state, and is made only if the run `has_readers`."""
        if not self.is_closed:
            self._log.append(delta, self)

    @property
    def has_readers(self) -> bool:
        """Whether a reader or a journal gets this run's deltas."""
        if self._readers:
            return True
        writer: EventWriter | None = self
        while writer is not None:
            if writer._readers:
                return True
            writer = writer._parent
        return self._log.is_journaled

    def warn(self, code: str, message: str, /, *, logged: str = "", error: BaseException | None = None) -> None:
        """Emit a warning, and log it. Does not wait.

        Args:
          logged: what to log instead of ``message``, where that has words of a user, a model or a server in it.
          error: logged with its traceback.
        """
        log_warning(code, self.source.stream, logged or message, error)
        self.emit(WarningIssued, code=code, message=plain_text(message))

    def note(self, note: Note) -> None:
        """Append a fact for the state and the journal, which no reader gets. Does not wait, does not fail."""
        if not self.is_closed:
            self._apply(note)
            self._log.note(note, self)

    async def send(self, value: StreamEvent) -> None:
        """Append an event, with the next number, then wait for readers that lag.

        A missing reader is no error: the journal may still want the event.

        Raises:
          trio.ClosedResourceError: the channel is closed.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if self.is_closed:
            raise trio.ClosedResourceError
        event = msgspec.structs.replace(value, seq=self._log.seq + 1)
        self._apply(event)
        self._log.append(event, self)
        if self.readers_lag:
            await self.wait_for_readers()
        else:
            await trio.lowlevel.cancel_shielded_checkpoint()

    @property
    def readers_lag(self) -> bool:
        """Whether a reader of this run, or of one around it, lags; or the store does. Then `wait_for_readers` waits."""
        # Asked for each piece of text, so written out.
        writer: EventWriter | None = self
        while writer is not None:
            for reader in writer._readers:
                if len(reader._queue) + reader.hidden >= CAPACITY:
                    return True
            writer = writer._parent
        return self._log.is_journaled and self._log.is_full

    async def wait_for_readers(self) -> None:
        """Wait while a reader, or the store, lags."""
        while self.readers_lag:
            if self._log.patient:
                self._log.wake_patient()
            await self._log.wait_for_room()

    def open_reader(self, *, as_root: bool = False) -> Reader:
        """Open a receive channel for the events of this run, and of all inside it, that are not visible yet.

        Args:
          as_root: whether to read them as those of a root run: numbered from 1, from `StreamStarted` to
            `StreamStopped`. Otherwise they are those of the log.
        """
        reader = Reader(self, as_root=as_root)
        for item, writer, _ in self._log.hidden():
            reader.hidden += not isinstance(item, Note) and self in writer.lineage()
        self._readers.append(reader)
        return reader

    def lineage(self) -> list[EventWriter]:
        """This writing end, and those around it, from the inside out."""
        writers: list[EventWriter] = []
        writer: EventWriter | None = self
        while writer is not None:
            writers.append(writer)
            writer = writer._parent
        return writers

    def all_readers(self) -> list[Reader]:
        """The readers that get the events of this run."""
        return [reader for writer in self.lineage() for reader in writer._readers]

    def deliver(self, event: StreamEvent, *, was_hidden: int = 0) -> None:
        """Hand a visible event to the readers of this run and of those around it.

        Args:
          was_hidden: 1 if it is one of the `Reader.hidden` events.
        """
        writer: EventWriter | None = self
        while writer is not None:
            for reader in writer._readers:
                reader.hidden -= was_hidden
                reader._queue.append(event)
                if reader._is_waited_for:
                    reader.wake()
            writer = writer._parent
        # A log whose journal has failed has events that no follower may show: nothing will ever have saved them.
        if self._log.tails and self._log.is_journaled:
            for tail in self._log.tails:
                tail.add(event)

    def close(self) -> None:
        """End the channel: its readers' loops end after the last event. Closing a root run's closes the log, too."""
        # Sync, as for readers: `aclose()` is a checkpoint, where a Cancelled could swallow an error on its way out.
        if not self.is_closed:
            self.is_closed = True
            for reader in self._readers:
                reader.wake()
            if self._parent is None:
                self._log.close()

    async def aclose(self) -> None:
        self.close()
        await trio.lowlevel.checkpoint()

    def remove(self, reader: Reader) -> None:
        """Take a reader off, which has closed."""
        self._readers.remove(reader)
        self._log.make_room()

    def add_patient(self, reader: Reader) -> None:
        """Wake ``reader`` for the next event of its kinds."""
        self._log.patient = (*self._log.patient, reader)

    def caught_up(self) -> None:
        """A reader has read half of its unread events."""
        self._log.make_room()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class RedactingWriter(EventWriter):
    """The writing end of a run that redacts secrets: the last net, for texts that no other place has redacted."""

    __slots__ = ("_redactor",)

    def __init__(
        self, log: EventLog, source: Source, state: StreamState, parent: EventWriter | None, redactor: Redactor
    ) -> None:
        super().__init__(log, source, state, parent)
        self._redactor = redactor

    def append(self, event: StreamEvent) -> None:
        # Deltas are redacted where they arrive: a secret may be in several of them.
        fields = {name: getattr(event, name) for name in event.__struct_fields__[2:]}
        super().append(msgspec.structs.replace(event, **self._redactor.fields(fields)))

    def note(self, note: Note) -> None:
        super().note(self._redactor.value(note))


class Reader(trio.abc.ReceiveChannel[StreamEvent]):
    """The receive channel of a run: its events and those of the runs inside it, as they become visible.

    Made by `EventWriter.open_reader`. Several tasks may receive; each event goes to one of them.
    """

    __slots__ = (
        "_as_root",
        "_callbacks",
        "_is_waited_for",
        "_queue",
        "_seq",
        "_waiting",
        "_writer",
        "hidden",
        "is_closed",
        "kinds",
    )

    def __init__(self, writer: EventWriter, *, as_root: bool) -> None:
        self._writer = writer
        self._as_root = as_root
        self._seq = 0
        self._queue: deque[StreamEvent] = deque()
        self._waiting: trio.lowlevel.ParkingLot | None = None
        self._callbacks: tuple[Callable[[], object], ...] = ()
        self._is_waited_for = False
        """Whether a task may wait. To ask the lot for each event would take as long as appending it."""
        self.hidden = 0
        """How many events for this reader are appended, but not visible yet."""
        self.kinds: Collection[type] = ()
        """The kinds of events for which a patient reader is woken."""
        self.is_closed = False

    @property
    def unread(self) -> int:
        """How many events wait for this reader, the hidden ones included."""
        return len(self._queue) + self.hidden

    def wake(self) -> None:
        """Have the tasks that wait look again: there is an event, or the end."""
        self._is_waited_for = False
        if self._waiting is not None:
            self._waiting.unpark_all()
        if self._callbacks:
            callbacks, self._callbacks = self._callbacks, ()
            for callback in callbacks:
                callback()

    def take(self) -> StreamEvent | None:
        """The next event, if it is visible already."""
        queue = self._queue
        if not queue:
            return None
        event = queue.popleft()
        # Half empty, not at the first gap: else reader and poster would take turns at every event.
        if len(queue) + self.hidden == _HALF:
            self._writer.caught_up()
        return self._as_roots(event) if self._as_root else event

    def receive_nowait(self) -> StreamEvent:
        """The next event.

        Raises:
          trio.WouldBlock: it is not visible yet.
          trio.EndOfChannel: there is none after the last one.
          trio.ClosedResourceError: this channel is closed.
        """
        event = self.take()
        if event is None:
            self._check()
            raise trio.WouldBlock
        return event

    async def receive(self) -> StreamEvent:
        """The next event, as soon as it is visible. Raises as `receive_nowait` does, but does not block."""
        await trio.lowlevel.checkpoint_if_cancelled()
        event = self.take()
        if event is None:
            return await self.wait()
        await trio.lowlevel.cancel_shielded_checkpoint()
        return event

    async def wait(self) -> StreamEvent:
        """`receive`, where `take` has just found no event: without a checkpoint before it waits."""
        while (event := self.take()) is None:
            self._check()
            await self.wait_until_ready()
        return event

    async def wait_until_ready(self) -> None:
        """Wait for an event, for the end, or for `close`, where there is none of them yet."""
        # Made only here: a run that nothing waits for, or that is always ahead, does without.
        if self._waiting is None:
            self._waiting = trio.lowlevel.ParkingLot()
        self._is_waited_for = True
        await self._waiting.park()

    async def wait_for(self, kinds: Collection[type]) -> None:
        """`wait_until_ready`, for a reader that is woken for events of ``kinds`` only, and gets others with those.

        It is also woken when a poster waits for it, and at the end. So it does not cost a switch between tasks for each
        event.
        """
        self.kinds = kinds
        if self._waiting is None:
            self._waiting = trio.lowlevel.ParkingLot()
        self._writer.add_patient(self)
        await self._waiting.park()

    def call_when_ready(self, callback: Callable[[], object]) -> None:
        """`wait_until_ready`, for a reader that is no task of trio: ``callback`` is called once, in a step of trio."""
        self._callbacks = (*self._callbacks, callback)
        self._is_waited_for = True

    @property
    def is_at_end(self) -> bool:
        """Whether no event will follow those that `take` returns."""
        return self._writer.is_closed and not self.hidden

    def _check(self) -> None:
        if self.is_closed:
            raise trio.ClosedResourceError
        if self.is_at_end:
            raise trio.EndOfChannel

    def _as_roots(self, event: StreamEvent) -> StreamEvent:
        """The event of a child run as its own reader sees it, to whom it is the root."""
        self._seq += 1
        source, seq = event.source, self._seq
        if source is self._writer.source or source.stream == self._writer.source.stream:
            if isinstance(event, ChildStreamStarted):
                return StreamStarted(source, seq, message=event.message, model=event.model, resumes=event.resumes)
            if isinstance(event, ChildStreamStopped):
                return StreamStopped(
                    source, seq, reason=event.reason, detail=event.detail, error=event.error, usage=event.usage
                )
        return msgspec.structs.replace(event, seq=seq)

    def close(self) -> None:
        """Leave: drop unread and future events. Posters stop waiting for this reader. Idempotent."""
        if not self.is_closed:
            self.is_closed = True
            self.hidden = 0
            self._queue.clear()
            self._writer.remove(self)
            self.wake()

    async def aclose(self) -> None:
        self.close()
        await trio.lowlevel.checkpoint()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class LiveTail:
    """The visible events of a session's runs that one follower in this process has not read yet. No run waits for it.

    Args:
      size: with how many unread events the follower is too far behind.
    """

    __slots__ = ("_is_waited_for", "_ready", "_size", "events", "is_behind")

    def __init__(self, size: int) -> None:
        self.events: deque[StreamEvent] = deque()
        self.is_behind = False
        """Whether events are missing from here on: they were too many."""
        self._size = size
        self._ready = trio.lowlevel.ParkingLot()
        self._is_waited_for = False

    def add(self, event: StreamEvent) -> None:
        if len(self.events) < self._size:
            self.events.append(event)
        else:
            self.is_behind = True
        if self._is_waited_for:
            self.wake()

    def wake(self) -> None:
        """Have the task that waits look again, at these events and at the journal."""
        self._is_waited_for = False
        self._ready.unpark_all()

    async def wait(self) -> None:
        """Wait for the next event, or for `wake`."""
        self._is_waited_for = True
        await self._ready.park()


Redact: TypeAlias = Callable[[StreamState, Answer], Answer]
"""Replaces the secrets in an answer to a question of a resumable run."""


class Journal(Protocol):
    """The journal of a session, as the runtime uses it: it opens logs, and has the resumable run."""

    @property
    def has_unfinished_run(self) -> bool:
        """Whether there is a run to resume, as far as the journal was read."""
        ...

    async def open_log(self, *, resumes: bool) -> EventLog:
        """Open a log whose entries the journal saves. An unfinished run is closed for good, unless it is resumed.

        Raises:
          StoreError: the store cannot be used.
        """
        ...

    async def accept(self, answers: Mapping[str, Answer], redact: Redact | None = None) -> None:
        """Record answers to questions of the unfinished run, all or none of them.

        Args:
          redact: gives the answer to save in the place of one that has secrets.

        Raises:
          AnswerError: a question is not open, or its answer does not fit it.
          StoreError: the answers cannot be saved.
        """
        ...

    def take_up(self) -> StreamState | None:
        """The unfinished run, after `open_log`. Its open turn is not part of the transcript any more."""
        ...

    def invalidate(self) -> None:
        """Have the session read from the store before it is used next."""
        ...

    async def reload(self) -> None:
        """Replace the session in memory by the one in the store.

        Raises:
          StoreError: the store cannot be read.
        """
        ...


def substitute_if_unsaved(event: StreamEvent) -> StreamEvent | None:
    """The event to deliver when ``event`` could not be saved; ``None`` to deliver nothing.

    A committed message, a handoff and a tool's result state a durable fact: they are delivered only if they are saved.
    All other events are delivered in any case: a store that fails must not leave a reader without an end.
    """
    if isinstance(event, (MessageCommitted, HandedOff)):
        return None
    if isinstance(event, ToolCallFinished) and event.result.status != "interrupted":
        call = ToolCall(event.call_id, event.name, "")
        return msgspec.structs.replace(event, result=interrupted_result(call, started=True), error=None)
    return event


def _size_of(event: StreamEvent | Note) -> int:
    """The characters of a delta's text; 0 for anything else."""
    return len(words_of(event))


_FIELD_OF_WORDS: Mapping[type, str] = {
    TextDelta: "text",
    ReasoningDelta: "text",
    ToolCallDelta: "arguments",
    ToolCallOutput: "text",
}


def words_of(event: StreamEvent | Note) -> str:
    """The text of a delta; empty for an `OutputDelta`, whose text the `TextDelta` before it has."""
    field = _FIELD_OF_WORDS.get(event.__class__)
    if field is None:
        return ""
    text: str = getattr(event, field)
    return text
