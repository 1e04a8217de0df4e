"""The shape of a stream's events, on which each reader may rely, whatever happened."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define

from agentloop._core.state import ReportTaken, SessionState, StreamState, complaint
from agentloop._core.transcript import problems
from agentloop.events import (
    ChildStreamStarted,
    ChildStreamStopped,
    MessageCommitted,
    ResponseDiscarded,
    Source,
    StreamEvent,
    StreamStarted,
    StreamStopped,
    TextDelta,
    ToolCallStarted,
    TurnStarted,
    UsageReported,
)
from agentloop.messages import AssistantMessage, UserMessage

__all__ = ["assert_well_formed", "event_problems"]


def assert_well_formed(events: Sequence[StreamEvent], *, complete: bool = True) -> None:
    """Raise `AssertionError` with every broken promise if ``events``, as one reader read them, are not well formed.

    They are numbered without gaps. The first is `StreamStarted`, and the last, and only the last, `StreamStopped`.
    Every turn, tool call, question and child stream that starts is finished, once, inside the run or call that it
    belongs to. The committed messages are a transcript that providers accept.

    Args:
      complete: whether the reader read to the end; else a prefix is checked.
    """
    broken = event_problems(events, complete=complete)
    if broken:
        tail = [f"  {event}" for event in events[-20:]]
        raise AssertionError("\n".join([*broken, f"the last {len(tail)} of {len(events)} events:", *tail]))


def event_problems(events: Sequence[StreamEvent], *, complete: bool = True) -> list[str]:
    """The broken promises in ``events``, a sentence each."""
    reader = _Reader()
    for event in events:
        reader.read(event)
    if complete and (not events or not isinstance(events[-1], StreamStopped)):
        reader.problems.append("the last event is not StreamStopped")
    return reader.problems


@define
class _Stream:
    """The part of a stream's events that its state does not need: the text, and the totals."""

    source: Source
    """The source of its events, until the agent that gets the conversation acts."""
    is_resumed: bool
    text: str = ""
    """The text that counts so far, of the response at hand."""
    has_response: bool = False
    """Whether a response was committed."""
    is_first_change: bool = True
    """Whether its agent has not changed yet."""
    tokens: int = 0

    def may_change(self, source: Source) -> bool:
        """Whether the agent changes by a handoff of the stream before, in the turn that this stream resumes."""
        first, self.is_first_change = self.is_first_change, False
        return first and self.is_resumed and source.agents[:-1] == self.source.agents[:-1]


def _is_handed_to(source: Source, run: StreamState | None) -> bool:
    """Whether the last turn of ``run`` has handed the conversation to the agent of ``source``."""
    return run is not None and run.source == source


class _Reader:
    """Follows the events of one reader: the order by `SessionState`, the numbers and the text by itself."""

    def __init__(self) -> None:
        self.state = SessionState()
        self.problems = self.state.complaints
        self._streams: dict[str, _Stream] = {}
        self._seq: int | None = None
        self._stopped = False
        self._reported: set[tuple[str, str]] = set()
        """The background runs whose ends were reported, by the session of the report."""

    def read(self, event: StreamEvent) -> None:
        if self._seq is not None and event.seq != self._seq + 1:
            self._note(event, f"comes after number {self._seq}")
        self._seq = event.seq
        if self._stopped:
            self._note(event, "comes after StreamStopped")
        if isinstance(event, (StreamStarted, ChildStreamStarted)):
            self._start(event)
            return
        if isinstance(event, (StreamStopped, ChildStreamStopped)):
            self._stop(event)
        run = self.state.running.get(event.stream)
        if isinstance(event, MessageCommitted) and isinstance(event.message, UserMessage) and event.message.reports:
            self._read_reports(event, event.message.reports, run)
        if isinstance(event, ToolCallStarted) and run is not None and any(state.is_paused for state in run.around):
            self._note(event, "comes while its stream, or one around it, is paused")
        self.state.apply(event)
        stream = self._streams.get(event.stream)
        if stream is not None:
            if event.source != stream.source and (_is_handed_to(event.source, run) or stream.may_change(event.source)):
                stream.source = event.source
            if event.source != stream.source:
                self._note(event, f"comes from {event.source}, but its stream is of {stream.source}")
            self._read_response(event, stream)

    def _read_reports(self, event: StreamEvent, ids: tuple[str, ...], run: StreamState | None) -> None:
        """Runs of a block, and of earlier runs of the session, begin in no event: even so, each is reported once."""
        others = tuple([id for id in ids if run is None or id not in run.background])
        for id in others:
            if (event.session, id) in self._reported:
                self._note(event, f"reports the end of {id!r} for the second time")
        self._reported.update((event.session, id) for id in ids)
        if others:
            self.state.apply(ReportTaken(others), event.stream)

    def _note(self, event: StreamEvent, problem: str) -> None:
        self.problems.append(complaint(event, event.stream, problem))

    def _start(self, event: StreamStarted | ChildStreamStarted) -> None:
        if event.stream in self._streams:
            self._note(event, "its stream has started before")
        if isinstance(event, StreamStarted) and self._streams:
            self._note(event, "is not the first event")
        self._streams[event.stream] = _Stream(event.source, bool(event.resumes))
        self.state.apply(event)

    def _stop(self, event: StreamStopped | ChildStreamStopped) -> None:
        if (event.error is not None) != (event.reason == "failed"):
            self._note(event, f"has the reason {event.reason}, and the error {event.error}")
        run = self.state.running.get(event.stream)
        for problem in problems(run.messages if run is not None else ()):
            self._note(event, f"leaves a transcript that a provider would refuse: {problem}")
        self._stopped = self._stopped or isinstance(event, StreamStopped)

    def _read_response(self, event: StreamEvent, stream: _Stream) -> None:
        match event:
            case TextDelta(text=text):
                stream.text += text
            case TurnStarted() | ResponseDiscarded(purpose="turn"):
                stream.text = ""
            case MessageCommitted(message=AssistantMessage() as message):
                # The response of a turn that is resumed was delivered by an earlier stream.
                is_earlier = stream.is_resumed and not stream.has_response and not stream.text
                if message.text != stream.text and not is_earlier:
                    self._note(event, f"says {message.text!r}, but {stream.text!r} was delivered")
                stream.text, stream.has_response = "", True
            case UsageReported(total=total):
                if total.total_tokens < stream.tokens:
                    self._note(event, f"the total shrinks from {stream.tokens} to {total.total_tokens}")
                stream.tokens = total.total_tokens
            case _:
                pass
