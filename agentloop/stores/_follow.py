"""Reading a session's events from its journal, from any point, while they are written or long after."""

from __future__ import annotations

from collections import deque
from typing import Literal

import msgspec
import trio

from agentloop._core.field_checks import shown
from agentloop._core.json_text import decode_own
from agentloop._runtime.blocks import check_open_store, require_trio
from agentloop._runtime.log import LiveTail
from agentloop.errors import StoreError, UsageError
from agentloop.events import (
    ReasoningDelta,
    StreamEvent,
    StreamStarted,
    StreamStopped,
    TextDelta,
    ToolCallDelta,
    ToolCallOutput,
    UnknownEvent,
)
from agentloop.journal import UNFINISHED, OpenStore, Record, SessionInfo
from agentloop.stores._journal_writer import JournalWriter
from agentloop.stores._replay import UNREADABLE, log_unreadable, number_of
from agentloop.wire import EVENT_TYPES, decode_event

__all__ = ["Follower", "follow_session"]

POLL_SECONDS = 0.25
"""Between two looks at what another process has added."""

PAGE = 256
"""How many records are read at once, and so how many events a follower holds in memory."""

_ENDS = ("stream_started", "stream_stopped")


class _Pieces(msgspec.Struct):
    sizes: tuple[int, ...] = ()
    """Characters of each delta, if the record stands for several."""


def follow_session(
    store: OpenStore, id: str, *, after: int = 0, if_cut_off: Literal["raise", "wait"] = "raise"
) -> Follower:
    """Iterate the events of a session, past and future, in any process.

    Any process may follow, and none needs to hold the session. Followers never slow a run down. The events, their order
    and their numbers are those of the stream's own reader; but consecutive deltas come as one, with the number of the
    last, at most half a second late. A follower in the process that runs the stream, made by ``session.follow()``, gets
    each event as soon as the reader can have it, deltas too, while it keeps up.

    It ends when the last stream on the session has ended. Follow again, after the last event's number, for the next.

    Args:
      after: number of the last event that the caller has (`Event.seq`); 0 for all events.
      if_cut_off: if the process that ran a stream has died: ``"raise"`` an error, or ``"wait"`` for the process that
        resumes it, where workers (`agentloop.engines`) do so. Then it ends when the run has ended, waits for answers,
        or was given up, and not with the stream that was cut off.

    Raises:
      StoreError: there is no such session; or the process that ran a stream on it died, and no process has opened it
        since (see `stored_session`): then every saved event of the stream was delivered before.
    """
    if if_cut_off not in ("raise", "wait"):
        raise UsageError(f"if_cut_off={shown(if_cut_off)}: say 'raise' or 'wait'")
    return Follower(store, id, after, None, waits=if_cut_off == "wait")


class Follower:
    """The events of a session, each once, in order. Made by `follow_session`, and by ``session.follow()``.

    There is nothing to close: it holds a place in the journal, and of a run in this process at most 256 events.
    """

    def __init__(
        self, store: OpenStore, session: str, after: int, journal: JournalWriter | None, *, waits: bool = False
    ) -> None:
        if type(after) is not int or after < 0:
            raise UsageError(f"after={shown(after)}: give the number of an event, or 0 for all")
        check_open_store(store)
        self._store = store
        self._session = session
        self._after = after
        self._journal = journal
        """If this process runs the session, its journal writer."""
        self._waits = waits
        """Whether to wait for the process that resumes a run which was cut off."""
        self._tail: LiveTail | None = None
        """The events of that run, as they become visible."""
        self._is_live = False
        """Whether the next event of that run will be the next one of ``_tail``."""
        self._place = -1
        """The number of the record that was read last."""
        self._found: deque[StreamEvent] = deque()
        self._runs: bool | None = False
        """Whether the last stream that was read of has not ended; ``None`` if nothing was read that would say."""
        self._last = ""
        """That stream."""

    def __aiter__(self) -> Follower:
        return self

    async def __anext__(self) -> StreamEvent:
        if not self._found:
            require_trio("a session is followed", in_asyncio="`async for event in host.iterate(follow_session(...))`")
        while not self._found:
            await self._read()
        return self._found.popleft()

    def _take_live(self, journal: JournalWriter) -> None:
        """Take the events that the run in this process has made visible, if none is missing before them."""
        if self._tail is None:
            self._tail = journal.open_tail(PAGE)
        events = self._tail.events
        while events and events[0].seq <= self._after + 1:
            event = events.popleft()
            if event.seq > self._after:
                self._found.append(event)
                self._after = event.seq
                if isinstance(event, StreamStarted | StreamStopped):
                    self._runs, self._last = isinstance(event, StreamStarted), event.source.stream
        if self._tail.is_behind:
            self._leave()
            self._tail = journal.open_tail(PAGE)
        elif self._found:
            self._is_live = not events
            if self._is_live and journal.is_idle:
                # What is in the journal by now need not be read again.
                self._place = journal.length

    def _leave(self) -> None:
        if self._tail is not None and self._journal is not None:
            self._journal.close_tail(self._tail)
        self._tail, self._is_live = None, False

    async def _read(self) -> None:
        if self._place < 0:
            self._place = await self._locate()
        while True:
            if self._journal is not None:
                self._take_live(self._journal)
                if self._found:
                    await trio.lowlevel.checkpoint()
                    return
                if self._is_live and self._runs and self._begun() == self._last:
                    await self._wait()
                    continue
            # Asked before the store is read: a change in between must not be slept through.
            info, begun = await self._info(), self._begun()
            records = await self._store.read(self._session, after=self._place, limit=PAGE)
            for record in records:
                self._place = record.seq
                self._see(record)
                if record.kind not in EVENT_TYPES:
                    continue
                try:
                    event = decode_event(record.data)
                except UNREADABLE:
                    log_unreadable(self._session, record)
                    continue
                if not isinstance(event, UnknownEvent) and event.seq > self._after:
                    self._found.append(_without(event, record.data, self._after))
                    self._after = event.seq
            if self._found:
                return
            if records:
                continue
            if self._runs is None:
                await self._look_back()
            if self._waits and info is not None and info.state == UNFINISHED:
                # Another process continues the run, if this stream was cut off.
                await self._wait()
                continue
            if not self._runs and begun in ("", self._last):
                self._leave()
                raise StopAsyncIteration
            if not begun and self._journal is not None:
                # No process here could still save it.
                raise StoreError(
                    f"session {self._session!r}: how its last stream ended could not be kept; go on with it, or start "
                    "another one"
                )
            if not begun and (info is None or not info.holder):
                raise StoreError(
                    f"session {self._session!r}: the process that ran its last stream has ended; open the session to "
                    "go on with it, or to close it"
                )
            await self._wait()

    def _see(self, record: Record) -> None:
        if record.kind in _ENDS:
            self._runs, self._last = record.kind == "stream_started", record.stream

    async def _look_back(self) -> None:
        """See how the last stream was when all that was read came after it."""
        self._runs = False
        for record in await self._store.read(self._session, kinds=_ENDS):
            if record.seq <= self._place:
                self._see(record)

    def _begun(self) -> str:
        """Id of the stream that is open on the session in this process, or empty. Its events may not be saved yet."""
        return "" if self._journal is None else self._journal.stream

    async def _wait(self) -> None:
        with trio.move_on_after(POLL_SECONDS):
            if self._tail is None or self._journal is None:
                await trio.sleep_forever()
            elif self._is_live or self._journal.length <= self._place:
                await self._tail.wait()
            else:
                await trio.lowlevel.checkpoint()

    async def _info(self) -> SessionInfo | None:
        info = await self._store.info(self._session)
        if info is None and self._journal is None:
            raise StoreError(f"there is no session {self._session!r} to follow")
        # With a journal, the session exists from its first record on.
        return info

    async def _locate(self) -> int:
        """The number of a record after which all events come whose numbers are above ``after``, and not many others."""
        info = await self._store.info(self._session)
        if info is None or self._after == 0:
            return 0
        # Numbers of events only grow with those of records, so that halves can be left out.
        low, high = 0, info.records
        while high - low > PAGE:
            middle = (low + high) // 2
            seq = 0
            for record in await self._store.read(self._session, after=middle, limit=PAGE):
                seq = number_of(record) if record.kind in EVENT_TYPES else 0
                if seq:
                    break
            if 0 < seq <= self._after:
                low = middle
            else:
                high = middle
        if low > 0:
            self._runs = None
        return low


def _without(event: StreamEvent, data: bytes, after: int) -> StreamEvent:
    """``event`` without the deltas that are numbered up to ``after``, if it stands for several."""
    if not isinstance(event, (TextDelta, ReasoningDelta, ToolCallDelta, ToolCallOutput)):
        return event
    sizes = decode_own(data, _Pieces).sizes
    known = sum(sizes[: max(after - (event.seq - len(sizes)), 0)])
    if not known:
        return event
    if isinstance(event, ToolCallDelta):
        return msgspec.structs.replace(event, arguments=event.arguments[known:])
    return msgspec.structs.replace(event, text=event.text[known:])
