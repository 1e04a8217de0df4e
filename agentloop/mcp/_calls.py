"""A tool call on its way to a server, as far as the stream is concerned that made it."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import Any

import trio

from agentloop.context import ToolContext
from agentloop.errors import AgentLoopError, StreamStateError
from agentloop.mcp._asking import Asking

__all__ = ["Call", "Progress"]

UNREAD = 64
"""Reports of progress that may wait for a slow reader; from then on, only the last one is kept up to date."""


class Call:
    """A call, with what happens on its account meanwhile."""

    def __init__(self, asking: Asking, spawn: Callable[[Callable[[], Awaitable[None]]], None]) -> None:
        self.asking = asking
        self.context = context = asking.context
        self.stream = context.source.stream
        self.progress = Progress(context, spawn)
        self._ended = False
        self._answers: set[trio.CancelScope] = set()
        self._answered = trio.Event()

    @contextmanager
    def answering(self) -> Generator[trio.CancelScope]:
        """Answer a question of the server in another task, until the call ends.

        Raises:
          StreamStateError: it has ended already.
        """
        if self._has_ended():
            raise StreamStateError(f"call {self.context.call_id!r} has ended")
        scope = trio.CancelScope()
        self._answers.add(scope)
        try:
            with scope:
                yield scope
        finally:
            self._answers.discard(scope)
            if self._has_ended() and not self._answers:
                self._answered.set()

    def _has_ended(self) -> bool:
        return self._ended

    @property
    def is_answering(self) -> bool:
        """Whether a question that came meanwhile is taken to be its."""
        return bool(self._answers)

    def warn(self, code: str, message: str) -> None:
        """Tell whoever reads the stream, if the call has not ended."""
        if not self._ended:
            self.context.warn(code, message)

    async def end(self) -> None:
        """Nothing more happens on account of the call: what it has left to tell is told, what is asked is withdrawn."""
        self._ended = True
        for scope in self._answers:
            scope.cancel()
        if self._answers:
            with trio.CancelScope(shield=True):
                await self._answered.wait()
        await self.progress.end()


class Progress:
    """Reports of progress, which come without waiting, told in order to a reader that may be slow."""

    def __init__(self, context: ToolContext[Any], spawn: Callable[[Callable[[], Awaitable[None]]], None]) -> None:
        self._context = context
        self._spawn = spawn
        self._untold: deque[tuple[float, float | None, str]] = deque()
        self._last = -math.inf
        self._idle: trio.Event | None = None
        """Set when the task that tells them has come to its end, if there is one."""

    async def tell(self, progress: float, total: float | None, message: str | None) -> None:
        """What the SDK calls, in the order of arrival as long as nothing here waits."""
        finite = math.isfinite(progress) and (total is None or math.isfinite(total))
        # It "must increase with each notification"; one that does not would tell a reader to go back.
        if not finite or progress <= self._last:
            return
        self._last = progress
        if len(self._untold) >= UNREAD:
            self._untold.pop()
        self._untold.append((float(progress), total, message or ""))
        if self._idle is None:
            self._idle = trio.Event()
            self._spawn(self._run)

    async def _run(self) -> None:
        idle = self._idle
        assert idle is not None
        try:
            while self._untold:
                progress, total, message = self._untold.popleft()
                await self._context.progress(progress, total=total, message=message)
        except AgentLoopError:
            # The call has ended; nobody wants to know any more.
            self._untold.clear()
        finally:
            self._idle = None
            idle.set()

    async def end(self) -> None:
        """Wait until all is told: progress comes before the result."""
        if self._idle is not None:
            await self._idle.wait()
