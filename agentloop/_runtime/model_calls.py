"""One request to the model: its reply told as it comes, put together, and kept within its deadlines."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio

from agentloop._core.assembly import Assembler
from agentloop._runtime.clock import now
from agentloop._runtime.foreign import describe
from agentloop._runtime.groups import single
from agentloop._runtime.run import Run
from agentloop.errors import AgentLoopError, ModelConnectionError, ModelError, ModelProtocolError, ModelTimeoutError
from agentloop.events import ReasoningDelta, TextDelta, ToolCallDelta
from agentloop.messages import AssistantMessage
from agentloop.models import ModelRequest, OpenableModel, Stop

__all__ = ["ModelCall", "open_model"]

FIRST_PIECE = "its first token"
NEXT_PIECE = "the next piece"
SLACK = 1 / 16
"""The part of ``Deadlines.idle`` by which a silence may last longer before it is noticed."""


class ModelCall:
    """A response in the making. It is the `Reply` that the model gets."""

    __slots__ = ("_assembler", "_idle", "_renew_at", "_run", "_scope", "_waiting_for")

    def __init__(self, run: Run) -> None:
        self._run = run
        self._assembler = Assembler(prefix=f"call_{run.transcript.streams}_{run.turn}", taken=run.transcript.call_ids)
        self._idle = run.config.deadlines.idle
        self._scope: trio.CancelScope
        self._renew_at = -math.inf
        self._waiting_for = FIRST_PIECE

    async def respond(self, request: ModelRequest) -> AssistantMessage:
        """The model's response to ``request``, told as it came.

        Raises:
          ModelError: the model failed, broke the protocol, or was silent for too long.
          UsageError: the model was used wrongly: a script at its end, say.
        """
        run = self._run
        first_token = run.config.deadlines.first_token
        self._scope = trio.CancelScope(deadline=now() + first_token)
        stop: object = None
        try:
            with self._scope:
                stop = await run.model.respond(request, self)
        except AgentLoopError:
            raise
        except Exception as group:  # noqa: BLE001 - adapters let through what their libraries raise
            error = single(group)
            if isinstance(error, AgentLoopError):
                raise error from error.__cause__
            # Whatever an adapter lets through is a failure of the model: the reader catches one type.
            raise ModelConnectionError(f"model {run.model.name!r} failed: {describe(error)}") from error
        if self._scope.cancelled_caught:
            seconds = first_token if self._waiting_for == FIRST_PIECE else self._idle
            raise ModelTimeoutError(model=run.model.name, waiting_for=self._waiting_for, seconds=seconds)
        if not isinstance(stop, Stop):
            raise ModelProtocolError(f"model {run.model.name!r} returned {stop!r} where a Stop is due")
        return self._assembler.finish(stop.reason, stop.usage, stop.model or run.model.name)

    def interrupted(self) -> AssistantMessage | None:
        """What there is of a response that was cut off; ``None`` if nothing was said."""
        return self._assembler.interrupted(self._run.model.name)

    # ------------------------------------------------------------------------- Reply

    async def text(self, text: str, /) -> None:
        if not text:
            return
        self._assembler.text(text)
        emitter = self._run.emitter
        for feed in emitter.feeds:
            if not feed.closed:
                feed.post(TextDelta(emitter.source, feed.next_seq(), text))
        await self._next()

    async def reasoning(self, text: str, /, *, signature: str | None = None) -> None:
        self._assembler.reasoning(text, signature)
        if text:
            self._run.emitter.post(ReasoningDelta, text)
        await self._next()

    async def tool_call(self, index: int, /, *, id: str = "", name: str = "", arguments: str = "") -> None:
        call_id, whole_name = self._assembler.tool_call(index, id, name, arguments)
        self._run.emitter.post(ToolCallDelta, call_id=call_id, name=whole_name, arguments=arguments)
        await self._next()

    async def _next(self) -> None:
        """Wait while a reader is behind, which is not the model's fault, then for the model again."""
        if self._run.emitter.is_behind():
            self._scope.deadline = math.inf
            await self._run.emitter.room()
            self._renew_at = -math.inf
        at = now()
        # Moving a deadline costs as much as telling the piece, so it is moved a few times per idle period only.
        if at >= self._renew_at:
            self._waiting_for = NEXT_PIECE
            self._scope.deadline = at + self._idle * (1 + SLACK)
            self._renew_at = at + self._idle * SLACK


@asynccontextmanager
async def open_model(run: Run) -> AsyncGenerator[None]:
    """Let the stream's model keep what it needs from one response to the next, until the block ends.

    Raises:
      ModelError: it cannot be opened. That it cannot be closed is a warning: the answer is there.
    """
    if not isinstance(run.model, OpenableModel):
        yield
        return
    entered = left = False
    try:
        async with run.model.open() as model:
            entered = True
            run.model = model
            yield
            left = True
    except Exception as group:
        if entered and not left:
            raise
        error = single(group)
        if left:
            run.emitter.warn("model_failed", f"closing model {run.model.name!r} failed: {describe(error)}")
        elif isinstance(error, ModelError):
            raise error from error.__cause__
        else:
            raise ModelConnectionError(f"opening model {run.model.name!r} failed: {describe(error)}") from error
