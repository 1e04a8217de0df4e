"""From what happens to who reads it: events are numbered, posted, and read.

Posting never waits and never fails: an event that was made is told, in order, also by a task that is cancelled at
that moment, and also where nobody reads any more. What waits is the poster *afterwards*, for room. So memory is
bounded by `CAPACITY`, plus one event for each task that posts at once, plus one for each thing that is open when
the stream is torn down; and no started/finished pair can be torn apart by a full buffer.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Concatenate, ParamSpec

import trio

from agentloop._core.transcript import Transcript
from agentloop._runtime.logs import LOGGER_OF, log_event, log_warning
from agentloop.events import Source, StreamEvent, WarningIssued

__all__ = ["CAPACITY", "Emitter", "Feed"]

P = ParamSpec("P")

CAPACITY = 32
"""Unread events before posters wait. A switch between tasks costs about as much as ten events: with 32, that is
noise, and a reader that stalls is still noticed within a few words of text."""


class Feed:
    """What one reader reads: the events of its stream and of every stream inside it, in one order."""

    __slots__ = ("_lot", "_receive", "_send", "_transcript", "closed", "unread")

    def __init__(self, transcript: Transcript) -> None:
        # Unbounded, so that posting cannot fail; `room` is the bound.
        self._send, self._receive = trio.open_memory_channel[StreamEvent](math.inf)
        self._transcript = transcript
        self._lot = trio.lowlevel.ParkingLot()
        self.unread: int = 0
        """How many events wait for the reader."""
        self.closed = False
        """Whether nobody will read what is posted from now on."""

    def close(self) -> None:
        """Close both ends of the channel: the block is over."""
        # Sync, both: the channels' `aclose()` is a checkpoint, where a Cancelled can swallow an error on its way out.
        self._send.close()
        self._receive.close()
        self.closed = True

    def next_seq(self) -> int:
        """The number of the event that is posted next."""
        self._transcript.seq += 1
        return self._transcript.seq

    def post(self, event: StreamEvent) -> None:
        """Have ``event`` read next."""
        if not self.closed:
            self.unread += 1
            self._send.send_nowait(event)

    @property
    def is_left(self) -> bool:
        """Whether nobody reads it, and nobody will."""
        return self.closed

    @property
    def is_full(self) -> bool:
        """Whether a poster should wait for `room`."""
        return self.unread >= CAPACITY

    async def room(self) -> None:
        """Wait until the reader has caught up."""
        while self.unread >= CAPACITY and not self.closed:
            await self._lot.park()

    def end(self) -> None:
        """Nothing more will be posted: the reader's loop ends after the last event."""
        self._send.close()

    def detach(self) -> None:
        """Nobody will read any more: drop what is unread, and what is still to come."""
        self.closed = True
        self.unread = 0
        self._receive.close()
        self._lot.unpark_all()

    def receive_nowait(self) -> StreamEvent:
        """The next event, if it is there.

        Raises:
          trio.WouldBlock: it is not.
          trio.EndOfChannel: the last one was read.
        """
        event = self._receive.receive_nowait()
        self._was_read()
        return event

    async def receive(self) -> StreamEvent:
        """The next event, as soon as it comes. Raises `trio.EndOfChannel` after the last one."""
        event = await self._receive.receive()
        self._was_read()
        return event

    def _was_read(self) -> None:
        self.unread -= 1
        # Half empty, not at the first gap: else reader and poster would take turns at every event.
        if self.unread == CAPACITY // 2:
            self._lot.unpark_all()

    @property
    def is_open(self) -> bool:
        """Whether either end of the channel is still open. For checks."""
        statistics = self._send.statistics()
        return bool(statistics.open_send_channels or statistics.open_receive_channels)


class Emitter:
    """The single writer of a stream's events, to its own reader and to those of the streams around it."""

    __slots__ = ("feeds", "source")

    def __init__(self, source: Source, feeds: tuple[Feed, ...]) -> None:
        self.source = source
        self.feeds = feeds

    def post(
        self, event: Callable[Concatenate[Source, int, P], StreamEvent], /, *args: P.args, **fields: P.kwargs
    ) -> None:
        """Tell ``event(**fields)`` without waiting. For what must be told whatever happens, such as ends."""
        logger = LOGGER_OF.get(event)
        if logger is not None and logger.isEnabledFor(logging.DEBUG):
            log_event(event(self.source, 0, *args, **fields))
        for feed in self.feeds:
            if not feed.closed:
                feed.post(event(self.source, feed.next_seq(), *args, **fields))

    def is_behind(self) -> bool:
        """Whether a reader is behind, so that `room` would wait."""
        # Asked for each piece of text: a generator inside `any` would take longer than telling it.
        for feed in self.feeds:  # noqa: SIM110
            if feed.unread >= CAPACITY:
                return True
        return False

    async def room(self) -> None:
        """Wait while a reader is behind."""
        for feed in self.feeds:
            await feed.room()

    def warn(self, code: str, message: str, /, *, logged: str = "", error: BaseException | None = None) -> None:
        """Emit a warning, and log it. Does not wait.

        Args:
          logged: what to log instead of ``message``, where that has words of a user, a model or a server in it.
          error: logged with its traceback.
        """
        log_warning(code, self.source.stream, logged or message, error)
        self.post(WarningIssued, code=code, message=message)
