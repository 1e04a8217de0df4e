"""Told when it is kept: the events of a stream whose session has a journal wait for it before they are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from attrs import evolve

from agentloop._core.state import Note, StreamState
from agentloop._core.transcript import Transcript, interrupted_result
from agentloop._runtime.emitter import Feed
from agentloop.events import MessageCommitted, StreamEvent, ToolCallFinished
from agentloop.messages import ToolCall
from agentloop.questions import Answer

__all__ = ["HeldFeed", "Ledger", "in_spite"]


def in_spite(event: StreamEvent) -> StreamEvent | None:
    """What is told in the place of ``event`` where it cannot be kept; ``None`` for nothing.

    That a message is part of the session, or what a tool has given, is told only if it is there for good. All else says
    what goes on, and is told in any case: also a store that fails must not leave a reader without an end.
    """
    if isinstance(event, MessageCommitted):
        return None
    if isinstance(event, ToolCallFinished) and event.result.status != "interrupted":
        call = ToolCall(event.call_id, event.name, "")
        return evolve(event, result=interrupted_result(call, started=True))
    return event


class Ledger(Protocol):
    """The one writer of a session's journal, for the stream on it and all streams inside."""

    async def ready(self, *, resumes: bool) -> None:
        """Prepare for a stream. Unless it ``resumes`` what is unfinished, that is closed for good.

        Raises:
          StoreError: the store cannot be used.
        """
        ...

    def tell(self, feed: HeldFeed, event: StreamEvent) -> None:
        """Have ``event`` kept, if ``feed`` is the root's, and then delivered to ``feed``. Does not wait or fail."""
        ...

    def note(self, note: Note, stream: str = "") -> None:
        """Save ``note``, a fact about ``stream``, in its place among the events. Does not wait or fail."""
        ...

    def commit(self, transcript: Transcript) -> None:
        """Messages were added to ``transcript``, and are about to be told. If they cannot be kept, they are taken away.

        Raises:
          StoreError: nothing can be kept any more.
        """
        ...

    async def keep(self) -> None:
        """Return when all that was told and noted so far is kept.

        Raises:
          StoreError: it is not. Then it was delivered as `in_spite` says.
        """
        ...

    async def accept(self, answers: Mapping[str, Answer]) -> None:
        """Take answers to questions of what is unfinished, all or none of them.

        Raises:
          AnswerError: one of the questions is not open, or its answer does not fit it.
          StoreError: they cannot be kept.
        """
        ...

    def take_up(self) -> StreamState | None:
        """What there is to go on with, after `ready`. Its open turn is not part of the transcript any more."""
        ...

    def reload(self) -> None:
        """What is in memory is not what counts any more: the next stream goes by what is kept."""
        ...


class HeldFeed(Feed):
    """A feed whose events go through a ledger."""

    __slots__ = ("_is_read", "is_root", "ledger", "told")

    def __init__(self, transcript: Transcript, ledger: Ledger, *, is_root: bool, read: bool) -> None:
        super().__init__(transcript)
        self.ledger = ledger
        self.is_root = is_root
        """Whether its events are kept: each is told to the root's feed, and to those of some streams inside."""
        self._is_read = read
        """Whether somebody does, or may still."""
        self.told = transcript.seq
        """The number of the event that was delivered last."""

    def post(self, event: StreamEvent) -> None:
        if not self.closed:
            # It counts until it is read; where nobody reads, until it is kept: the run waits for a store that is slow.
            self.unread += 1
            self.ledger.tell(self, event)

    def deliver(self, event: StreamEvent) -> None:
        """``event`` is kept, or need not be: have it read."""
        self.told = event.seq
        if self._is_read and not self.closed:
            self._send.send_nowait(event)
        else:
            self._was_read()

    def deliver_in_spite(self, event: StreamEvent) -> None:
        """``event`` cannot be kept: what is told all the same goes on with the number after that of the last one."""
        told = in_spite(event)
        if told is None:
            self._was_read()
        else:
            self.deliver(evolve(told, seq=self.told + 1))

    def renumber(self) -> None:
        """Go on with the number after that of the event that was delivered last."""
        self._transcript.seq = self.told

    def detach(self) -> None:
        if self._is_read:
            self._is_read = False
            self.unread -= self._send.statistics().current_buffer_used
            self._receive.close()
            self._lot.unpark_all()

    @property
    def is_left(self) -> bool:
        return self.closed or not self._is_read
