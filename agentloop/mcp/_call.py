"""One round of a tool call: its questions, its progress, and their end."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager, suppress
from typing import Any

import trio

from agentloop.context import ToolContext
from agentloop.errors import AgentLoopError, StreamStateError
from agentloop.mcp._rounds import QuestionReplay

__all__ = ["Call", "Progress"]

PROGRESS_QUEUE = 64
"""Progress reports that wait for a slow reader at most. When the queue is full, a new report replaces the last one."""


class Call:
    """A round of a call, with the questions and the progress that the server sends meanwhile.

    Args:
      questions: asks the user on behalf of the call.
      spawn: starts a task that may outlive the caller's, in the server's nursery.
      max_timeout: seconds that the call may take while it reports progress; ``None`` for those without progress.
    """

    def __init__(
        self,
        questions: QuestionReplay,
        spawn: Callable[[Callable[[], Awaitable[None]]], None],
        max_timeout: float | None = None,
    ) -> None:
        self.questions = questions
        self.context = context = questions.context
        self.stream = context.source.stream
        self.progress = Progress(context, spawn, max_timeout)
        self._ended = False
        self._warned: set[str] = set()
        """Codes of the warnings that are emitted once, and were."""
        self._answering: set[trio.CancelScope] = set()
        """The scopes of questions that are being answered."""
        self._all_answered = trio.Event()
        """Set after `end`, when no question is being answered any more."""

    @contextmanager
    def answering(self) -> Generator[trio.CancelScope]:
        """The scope of a question that is answered in another task; cancelled when the call ends.

        Raises:
          StreamStateError: the call has ended already.
        """
        if self._has_ended():
            raise StreamStateError(f"call {self.context.call_id!r} has ended")
        scope = trio.CancelScope()
        self._answering.add(scope)
        try:
            with scope:
                yield scope
        finally:
            self._answering.discard(scope)
            if self._has_ended() and not self._answering:
                self._all_answered.set()

    def _has_ended(self) -> bool:
        return self._ended

    @property
    def is_answering(self) -> bool:
        """Whether a question that arrived meanwhile is being answered on behalf of this call."""
        return bool(self._answering)

    def warn(self, code: str, message: str) -> None:
        """Emit a `WarningIssued` in the call's stream, unless the call has ended."""
        if not self._ended:
            self.context.warn(code, message)

    def warn_once(self, code: str, message: str) -> None:
        """As `warn`, unless a warning with the same code was emitted so: a server may ask in a loop."""
        if code not in self._warned:
            self._warned.add(code)
            self.warn(code, message)

    async def end(self) -> None:
        """End the call: withdraw its open questions, and emit the progress that is queued."""
        self._ended = True
        for scope in self._answering:
            scope.cancel()
        if self._answering:
            with trio.CancelScope(shield=True):
                await self._all_answered.wait()
        await self.progress.end()


class Progress:
    """Queues progress reports, which the SDK delivers without waiting, and emits them in order.

    Args:
      context: of the tool call.
      spawn, max_timeout: as for `Call`.
    """

    def __init__(
        self,
        context: ToolContext[Any],
        spawn: Callable[[Callable[[], Awaitable[None]]], None],
        max_timeout: float | None,
    ) -> None:
        self._context = context
        self._max_timeout = max_timeout
        self._spawn = spawn
        self._queue: deque[tuple[float, float | None, str]] = deque()
        self._highest = -math.inf
        self._idle: trio.Event | None = None
        """Set when the task that emits the reports ends; ``None`` without such a task."""

    async def report(self, progress: float, total: float | None, message: str | None) -> None:
        """The SDK's callback. It keeps the order of arrival only as long as this function does not wait."""
        finite = math.isfinite(progress) and (total is None or math.isfinite(total))
        # The protocol: progress "MUST increase with each notification". A smaller one would make a bar jump back.
        if not finite or progress <= self._highest:
            return
        self._highest = progress
        if self._max_timeout is not None:
            with suppress(StreamStateError):
                self._context.restart_deadline(at_most=self._max_timeout)
        if len(self._queue) >= PROGRESS_QUEUE:
            self._queue.pop()
        self._queue.append((float(progress), total, message or ""))
        if self._idle is None:
            self._idle = trio.Event()
            self._spawn(self._run)

    async def _run(self) -> None:
        idle = self._idle
        assert idle is not None
        try:
            while self._queue:
                progress, total, message = self._queue.popleft()
                await self._context.progress(progress, total=total, message=message)
        except AgentLoopError:
            # The call has ended, and with it the interest in its progress.
            self._queue.clear()
        finally:
            self._idle = None
            idle.set()

    async def end(self) -> None:
        """Wait until all queued reports are emitted: progress comes before the result."""
        if self._idle is not None:
            await self._idle.wait()
