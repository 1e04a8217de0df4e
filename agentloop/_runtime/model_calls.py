"""One request to a model: emit its deltas, assemble the message, enforce its deadlines."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

import trio

from agentloop._core.assembly import Assembler
from agentloop._runtime.clock import now
from agentloop._runtime.foreign import describe
from agentloop._runtime.groups import single
from agentloop._runtime.logs import MODEL, log
from agentloop._runtime.run import Run
from agentloop.errors import AgentLoopError, ModelConnectionError, ModelError, ModelProtocolError, ModelTimeoutError
from agentloop.events import ReasoningDelta, TextDelta, ToolCallDelta
from agentloop.messages import AssistantMessage
from agentloop.models import Model, ModelRequest, OpenableModel, Stop

__all__ = ["ModelCall", "open_models"]

FIRST_PIECE = "its first token"
NEXT_PIECE = "the next piece"
SLACK = 1 / 16
"""The part of ``Deadlines.idle`` by which a silence may last longer before it is noticed."""


class ModelCall:
    """A response in the making: the `Reply` that the model writes to.

    Args:
      silent: whether to emit no events of it.
    """

    __slots__ = ("_assembler", "_emit", "_idle", "_model", "_renew_at", "_run", "_scope", "_waiting_for", "_writer")

    def __init__(self, run: Run, model: Model, *, silent: bool = False) -> None:
        self._run = run
        self._writer = run.writer
        self._emit = _drop if silent else run.emit
        self._model = model
        prefix = f"call_{run.transcript.streams}_{run.state.turn}"
        self._assembler = Assembler(prefix=prefix, taken=run.transcript.call_ids)
        self._idle = run.config.deadlines.idle
        self._scope: trio.CancelScope
        self._renew_at = -math.inf
        self._waiting_for = FIRST_PIECE

    async def respond(self, request: ModelRequest) -> AssistantMessage:
        """Ask the model, and emit its deltas as they come.

        Raises:
          ModelError: the model failed, broke the protocol, or was silent for too long.
          UsageError: the model was used wrongly: a script at its end, say.
        """
        model = self._model
        stream, began = self._run.source.stream, time.perf_counter()
        if MODEL.isEnabledFor(logging.DEBUG):
            sizes = (len(request.messages), len(request.tools))
            log(MODEL, logging.DEBUG, "stream %r: asking model %r: %d messages, %d tools", stream, model.name, *sizes)
        first_token = self._run.config.deadlines.first_token
        self._scope = trio.CancelScope(deadline=now() + first_token)
        stop: object = None
        try:
            with self._scope:
                stop = await model.respond(request, self)
        except AgentLoopError as told:
            _name(told, model)
            raise
        except Exception as group:  # noqa: BLE001 - adapters let through what their libraries raise
            error = single(group)
            if isinstance(error, AgentLoopError):
                _name(error, model)
                raise error from error.__cause__
            # Whatever an adapter lets through is a failure of the model: the reader catches one type.
            kind = ModelConnectionError if isinstance(error, (OSError, trio.BrokenResourceError)) else ModelError
            failure = kind(f"model {model.name!r} failed: {describe(error)}")
            _name(failure, model)
            raise failure from error
        if self._scope.cancelled_caught:
            seconds = first_token if self._waiting_for == FIRST_PIECE else self._idle
            raise ModelTimeoutError(model=model.name, waiting_for=self._waiting_for, seconds=seconds)
        if not isinstance(stop, Stop):
            failure = ModelProtocolError(f"model {model.name!r} returned {stop!r} where a Stop is due")
            _name(failure, model)
            raise failure
        try:
            message = self._assembler.finish(stop.reason, stop.usage, stop.model or model.name)
        except ModelError as error:
            _name(error, model)
            raise
        if MODEL.isEnabledFor(logging.DEBUG):
            counts = (len(message.calls), message.usage.input_tokens, message.usage.output_tokens)
            values = (message.model, message.stop, *counts, time.perf_counter() - began)
            text = "stream %r: response of model %r complete: %s, %d calls, %d tokens in, %d out, %.3f s"
            log(MODEL, logging.DEBUG, text, stream, *values)
        return message

    def interrupted(self) -> AssistantMessage | None:
        """The part of a response that arrived before it was cut off; ``None`` if there is none."""
        return self._assembler.interrupted(self._model.name)

    # ------------------------------------------------------------------------- Reply

    async def text(self, text: str, /) -> None:
        if not text:
            return
        self._assembler.text(text)
        self._emit(TextDelta, text)
        await self._next()

    async def reasoning(self, text: str, /, *, signature: str | None = None) -> None:
        self._assembler.reasoning(text, signature)
        if text:
            self._emit(ReasoningDelta, text)
        await self._next()

    async def tool_call(self, index: int, /, *, id: str = "", name: str = "", arguments: str = "") -> None:
        call_id, whole_name = self._assembler.tool_call(index, id, name, arguments)
        self._emit(ToolCallDelta, call_id=call_id, name=whole_name, arguments=arguments)
        await self._next()

    async def _next(self) -> None:
        """Wait while a reader is behind, which is not the model's fault, then for the model again."""
        if self._writer.readers_lag:
            self._scope.deadline = math.inf
            await self._writer.wait_for_readers()
            self._renew_at = -math.inf
        at = now()
        # Moving a deadline costs as much as emitting a delta, so it is moved a few times per idle period only.
        if at >= self._renew_at:
            self._waiting_for = NEXT_PIECE
            self._scope.deadline = at + self._idle * (1 + SLACK)
            self._renew_at = at + self._idle * SLACK


def _drop(*event: object, **fields: object) -> None:
    """Emit nothing."""


def _name(error: AgentLoopError, model: Model) -> None:
    """Have ``error`` say which model it was."""
    if isinstance(error, ModelError) and not error.model:
        error.model = model.name


@asynccontextmanager
async def open_models(run: Run) -> AsyncGenerator[None]:
    """Open the models of the run, so that they hold their resources until the block ends.

    Raises:
      ModelError: none of them can be opened. If others are left, the failure of one is a warning.
    """
    opened: list[Model] = []
    failure: ModelError | None = None
    # In order, and before anything else of the stream is: what a model opens, a task say, encloses all the rest.
    async with AsyncExitStack() as stack:
        for model in run.models:
            try:
                opened.append(await stack.enter_async_context(_opened(run, model)))
            except ModelError as error:
                failure = error
                if len(run.models) > 1:
                    short = f"model {model.name!r} could not be opened: {type(error).__name__}"
                    run.warn("model_failed", str(error), logged=short)
        if not opened and failure is not None:
            raise failure
        run.models = tuple(opened)
        run.chain = run.new_chain()
        yield


@asynccontextmanager
async def _opened(run: Run, model: Model) -> AsyncGenerator[Model]:
    """``model``, opened. A failure to close it is a warning: the answer is complete by then."""
    if not isinstance(model, OpenableModel):
        yield model
        return
    entered = left = False
    try:
        async with model.open() as held:
            entered = True
            yield held
            left = True
    except Exception as group:
        if entered and not left:
            raise
        error = single(group)
        if left:
            short = f"closing model {model.name!r} failed"
            logged = f"{short}: {type(error).__name__}"
            run.warn("model_failed", f"{short}: {describe(error)}", logged=logged)
        elif isinstance(error, ModelError):
            raise error from error.__cause__
        else:
            raise ModelConnectionError(f"opening model {model.name!r} failed: {describe(error)}") from error
