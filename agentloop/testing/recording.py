"""A stream that keeps what its reader read."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

from agentloop._runtime.stream import Stream
from agentloop.agent import Agent
from agentloop.events import ApprovalRequested, ContinueRequested, ElicitationRequested, Question, StreamEvent
from agentloop.messages import Prompt
from agentloop.questions import Answer

__all__ = ["RecordedStream", "record"]


class RecordedStream:
    """A stream and its events. Iterate it like the stream, or `drain` it; all else is asked of ``stream``."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.events: list[StreamEvent] = []
        """As they were read."""
        self.complete = False
        """Whether they were read to the end."""

    def __aiter__(self) -> RecordedStream:
        return self

    async def __anext__(self) -> StreamEvent:
        try:
            event = await self.stream.__anext__()
        except BaseException as error:
            # A failed run raises its error after its last event. A reader that was cancelled, or has left, has not read
            # to the end.
            self.complete = isinstance(error, StopAsyncIteration) or error is self._failure()
            raise
        self.events.append(event)
        return event

    def _failure(self) -> BaseException | None:
        outcome = self.stream._run.outcome
        return None if outcome is None else outcome.error

    async def drain(self, answer: Callable[[Question], Answer | None] | None = None) -> list[StreamEvent]:
        """Read to the end, answering the questions that ``answer`` has an answer for, and give all events.

        Raises:
          AgentLoopError: the run failed.
        """
        async for event in self:
            if answer is not None and isinstance(event, (ElicitationRequested, ApprovalRequested, ContinueRequested)):
                reply = answer(event)
                if reply is not None:
                    self.stream.answer(event.id, reply)
        return self.events

    async def until(self, kind: type[StreamEvent]) -> StreamEvent:
        """Read up to the first event of ``kind``, and give it.

        Raises:
          AssertionError: the stream ended before.
        """
        async for event in self:
            if isinstance(event, kind):
                return event
        raise AssertionError(f"no {kind.__name__} came; these did: {[type(read).__name__ for read in self.events]}")


@asynccontextmanager
async def record(
    agent: Agent[Any, Any], prompt: Prompt, *, into: list[RecordedStream] | None = None, **options: Any
) -> AsyncGenerator[RecordedStream]:
    """Open a stream of ``agent`` that keeps its events; ``options`` are those of `Agent.stream`."""
    async with agent.stream(prompt, **options) as stream:
        recorded = RecordedStream(stream)
        if into is not None:
            into.append(recorded)
        yield recorded
