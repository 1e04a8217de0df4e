"""The seams of a run that several workers have driven, and an encoder that knows runs without them.

A worker that takes a run over resumes it: the journal has the end of the stream that was cut off, and the beginning of
the one that resumes it. Clients of other people's protocols have asked for one run, and get one beginning and one end.
"""

from __future__ import annotations

from collections.abc import Sequence

from agentloop.events import (
    ErrorInfo,
    ReasoningDelta,
    ResponseDiscarded,
    StreamEvent,
    StreamStarted,
    StreamStopped,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
    TurnFinished,
    TurnStarted,
)

__all__ = ["Seams"]

TAKEN_OVER = ErrorInfo("WorkerLost", "the worker that ran this is gone, and another one asks the model again")


class Seams:
    """Takes the seams out of the events of one run. Those of its children have none that a client must not see."""

    def __init__(self) -> None:
        self._has_begun = False
        self._calls: set[str] = set()
        """The calls that have begun."""
        self._turn: TurnFinished | None = None
        """The end of a turn, held back until it is known that the turn does not continue."""
        self._end: StreamStopped | None = None
        """The end of a stream, held back until it is known that no other stream resumes it."""
        self._model = ""
        """The name of the run's model."""
        self._has_words = False
        """Whether a part of the turn's response has come."""

    def join(self, event: StreamEvent) -> Sequence[StreamEvent]:
        """The events for the encoder after ``event``: none while it may be part of a seam."""
        if event.depth:
            return [*self.rest(), event]
        match event:
            case StreamStarted() if self._has_begun and event.resumes:
                self._end = None
                return ()
            case StreamStarted():
                self._has_begun, self._model = True, event.model
            case StreamStopped():
                self._end = event
                return ()
            case TurnFinished(reason="interrupted" | "needs_input"):
                self._turn = event
                return ()
            case TurnStarted():
                return self._begin(event)
            case TextDelta() | ReasoningDelta() | ToolCallDelta():
                self._has_words = True
            case ResponseDiscarded(purpose="turn"):
                self._has_words = False
            case ToolCallStarted():
                if event.call_id in self._calls:
                    return self.rest()
                self._calls.add(event.call_id)
            case _:
                pass
        return [*self.rest(), event]

    def _begin(self, event: TurnStarted) -> Sequence[StreamEvent]:
        finished, self._turn = self._turn, None
        if finished is not None and finished.turn == event.turn:
            # Its response was saved, and stands.
            return ()
        events: list[StreamEvent] = []
        if finished is not None:
            if self._has_words:
                name = self._model
                discarded = ResponseDiscarded(
                    event.source, event.seq, error=TAKEN_OVER, model=name, next_model=name, delay=0.0
                )
                events.append(discarded)
            events.append(finished)
        self._has_words = False
        return [*events, event]

    def rest(self) -> Sequence[StreamEvent]:
        """The events that were held back: the run has ended, or goes on without a seam."""
        held = [event for event in (self._turn, self._end) if event is not None]
        self._turn = self._end = None
        return held
