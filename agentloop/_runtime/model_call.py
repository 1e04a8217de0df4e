"""Ask a model for a response: emit its deltas, assemble the message, enforce deadlines, retry, fall back."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec
import trio

from agentloop._core.assembly import Assembler
from agentloop._core.foreign_errors import error_text
from agentloop._core.results import error_info
from agentloop._core.retries import Next
from agentloop._core.stops import checked_delta, checked_stop
from agentloop._core.usage import priced
from agentloop._runtime.deadlines import now, sleep
from agentloop._runtime.exception_groups import failure_of
from agentloop._runtime.logs import MODEL, log
from agentloop._runtime.run import Run
from agentloop._runtime.user_code import describe
from agentloop.errors import (
    AgentLoopError,
    ModelConnectionError,
    ModelContextOverflowError,
    ModelError,
    ModelTimeoutError,
)
from agentloop.events import ReasoningDelta, ResponseDiscarded, TextDelta, ToolCallDelta, UsageReported
from agentloop.messages import AssistantMessage, Usage
from agentloop.models import Model, ModelRequest, OpenableModel, check_model_name

__all__ = ["ModelCall", "ModelRetry", "UsageAccount", "open_models"]

FIRST_PIECE = "its first token"
NEXT_PIECE = "the next piece"
SLACK = 1 / 16
"""The part of ``Deadlines.idle`` by which a silence may last longer before it is noticed."""
SIGNS_OF_LIFE = 10
"""The number of deadlines for which signs of life, and nothing else, may go on: a server that only ever says that it
lives is given up as well."""


class ModelCall:
    """A response in the making: the `Reply` that the model writes to.

    Args:
      silent: whether to emit no events of it.
    """

    __slots__ = (
        "_assembler",
        "_emit",
        "_give_up_at",
        "_idle",
        "_model",
        "_patience",
        "_renew_at",
        "_run",
        "_scope",
        "_waiting_for",
        "_writer",
    )

    def __init__(self, run: Run, model: Model, *, silent: bool = False) -> None:
        self._run = run
        self._writer = run.writer
        self._emit = _drop if silent else run.emit
        self._model = model
        prefix = f"call_{run.transcript.streams}_{run.state.turn}"
        self._assembler = Assembler(prefix=prefix, taken=run.transcript.call_ids, model=model.name)
        self._idle = run.config.deadlines.idle
        self._scope: trio.CancelScope
        self._renew_at = -math.inf
        self._patience = run.config.deadlines.first_token
        """Seconds of silence after which the model is given up."""
        self._give_up_at = math.inf
        """The time at which it is given up in spite of all signs of life."""
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
        at = now()
        self._scope = trio.CancelScope(deadline=at + self._patience)
        self._give_up_at = at + self._patience * SIGNS_OF_LIFE
        stop: object = None
        try:
            with self._scope:
                stop = await model.respond(request, self)
        except AgentLoopError as own_error:
            _name(own_error, model)
            raise
        except BaseException as group:  # noqa: BLE001 - adapters let through what their libraries raise
            error = failure_of(group)
            if isinstance(error, AgentLoopError):
                _name(error, model)
                raise error from error.__cause__
            # Whatever an adapter lets through is a failure of the model: the reader catches one type.
            kind = ModelConnectionError if isinstance(error, (OSError, trio.BrokenResourceError)) else ModelError
            failure = kind(f"model {model.name!r} failed: {describe(error)}")
            _name(failure, model)
            raise failure from error
        if self._scope.cancelled_caught:
            was_alive = self._scope.deadline == self._give_up_at
            seconds = self._patience * SIGNS_OF_LIFE if was_alive else self._patience
            raise ModelTimeoutError(model=model.name, waiting_for=self._waiting_for, seconds=seconds)
        try:
            ending = checked_stop(stop, model=model.name)
            message = self._assembler.finish(ending.reason, ending.usage, ending.model or model.name)
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
        if text.__class__ is not str or not text.isascii():
            text = checked_delta(self._model.name, "text(text)", text)
        if not text:
            self._show_life()
            return
        self._assembler.text(text)
        self._emit(TextDelta, text)
        await self._next()

    async def reasoning(self, text: str, /, *, signature: str | None = None) -> None:
        text = checked_delta(self._model.name, "reasoning(text)", text)
        if signature is not None:
            signature = checked_delta(self._model.name, "reasoning(signature=)", signature)
        self._assembler.reasoning(text, signature)
        if text:
            self._emit(ReasoningDelta, text)
        await self._next()

    async def tool_call(self, index: int, /, *, id: str = "", name: str = "", arguments: str = "") -> None:
        id = checked_delta(self._model.name, "tool_call(id=)", id)
        name = checked_delta(self._model.name, "tool_call(name=)", name)
        arguments = checked_delta(self._model.name, "tool_call(arguments=)", arguments)
        call_id, whole_name = self._assembler.tool_call(index, id, name, arguments)
        self._emit(ToolCallDelta, call_id=call_id, name=whole_name, arguments=arguments)
        await self._next()

    async def _next(self) -> None:
        """Wait while a reader is behind, which is not the model's fault, then for the model again."""
        if self._writer.readers_lag:
            self._scope.deadline = math.inf
            await self._writer.wait_for_readers()
            self._renew_at = -math.inf
        moment = now()
        # Moving a deadline costs as much as emitting a delta, so it is moved a few times per idle period only.
        if moment >= self._renew_at:
            self._waiting_for = NEXT_PIECE
            self._patience = self._idle
            self._scope.deadline = moment + self._idle * (1 + SLACK)
            self._give_up_at = moment + self._idle * SIGNS_OF_LIFE
            self._renew_at = moment + self._idle * SLACK

    def _show_life(self) -> None:
        """Start the deadline for silence again, though the model has said nothing."""
        self._scope.deadline = min(now() + self._patience, self._give_up_at)


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
    originals: list[Model] = []
    failure: ModelError | None = None
    # In order, and before anything else of the stream is: what a model opens, a task say, encloses all the rest.
    async with AsyncExitStack() as stack:
        for model in run.models:
            try:
                opened.append(await stack.enter_async_context(_opened(run, model)))
                originals.append(model)
            except ModelError as error:
                failure = error
                if len(run.models) > 1:
                    short = f"model {model.name!r} could not be opened: {type(error).__name__}"
                    run.warn("model_failed", error_text(error), logged=short)
        if not opened and failure is not None:
            raise failure
        run.models = tuple(opened)
        run.chain = run.new_chain(originals)
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
            check_model_name(held)
            entered = True
            yield held
            left = True
    except BaseException as group:
        if entered and not left:
            raise
        error = failure_of(group)
        if left:
            short = f"closing model {model.name!r} failed"
            logged = f"{short}: {type(error).__name__}"
            run.warn("model_failed", f"{short}: {describe(error)}", logged=logged)
        elif isinstance(error, ModelError):
            raise error from error.__cause__
        else:
            raise ModelConnectionError(f"opening model {model.name!r} failed: {describe(error)}") from error


# ------------------------------------------------------------- retries and fallbacks


class UsageAccount:
    """Counts what the responses of a run use, and warns once of a model whose usage or price is unknown."""

    __slots__ = ("_run", "_unmetered", "_unpriced")

    def __init__(self, run: Run) -> None:
        self._run = run
        self._unmetered = False
        """Whether the warning about a model without usage was emitted."""
        self._unpriced = False
        """Whether the warning about a model without a price was emitted."""

    def count(self, message: AssistantMessage, model: Model) -> Usage:
        """Count the usage of ``message``, the response of ``model``, emit it, and give it with its cost."""
        run = self._run
        usage = self._priced(msgspec.structs.replace(message.usage, requests=1), model.name, message.model)
        run.meter.count_usage(usage)
        run.emit(UsageReported, usage=usage, total=run.meter.usage)
        return usage

    def _priced(self, usage: Usage, *names: str) -> Usage:
        """``usage`` of the model that goes by ``names``, with its cost."""
        run = self._run
        if not usage.total_tokens and run.meter.counts_tokens and not self._unmetered:
            self._unmetered = True
            run.warn("unmetered", f"the limits on tokens and cost cannot count model {names[0]!r}: it reports no usage")
        price = run.price_of(*names)
        if price is not None:
            return priced(usage, price)
        if run.meter.counts_cost and not self._unpriced:
            self._unpriced = True
            run.warn("unpriced", f"Limits.cost cannot count what model {names[0]!r} costs: give its price in prices=")
        return usage


class ModelRetry:
    """Asks for a response, and retries, or asks the next model, where that may help.

    A response is never assembled from two requests: a failed one is discarded as a whole, and `ResponseDiscarded` is
    emitted.

    Args:
      shorten: gives the request once more, with less in it, after a model has refused it as too long; at most once.
      silent: whether to emit no deltas.
    """

    __slots__ = ("_call", "_failures", "_run", "_shorten", "_silent", "model")

    def __init__(
        self, run: Run, shorten: Callable[[], Awaitable[ModelRequest | None]], *, silent: bool = False
    ) -> None:
        self._run = run
        self._shorten = shorten
        self._silent = silent
        self._call: ModelCall | None = None
        self._failures: list[str] = []
        self.model: Model = run.models[0]
        """The model that was asked last."""

    async def respond(self, request: ModelRequest) -> AssistantMessage:
        """Ask for the response to ``request``, and emit its deltas as they come.

        Raises:
          ModelError: it failed for good: the last failure, with the earlier ones as notes.
          UsageError: a model was used wrongly: a script at its end, say.
        """
        run = self._run
        index = run.chain.first(now())
        while True:
            self.model = run.models[index]
            self._call = ModelCall(run, self.model, silent=self._silent)
            try:
                return await self._call.respond(request)
            except ModelError as error:
                # A cancelled run makes no further request, even if the model swallowed the cancellation.
                cancelled = trio.current_effective_deadline() == -math.inf
                following: Next | None = None
                if not cancelled and run.meter.may_retry():
                    # Before another model is asked, which leaves this one alone for a while: it has only read too much.
                    shortened = await self._shortened(error)  # noqa: ASYNC120 - if it is cut off, so is the run
                    if shortened is not None:
                        request, following = shortened, Next(index, 0.0)
                    else:
                        following = run.chain.after_failure(index, error, now())
                if following is None:
                    for failure in self._failures:
                        error.add_note(f"Before that: {failure}")
                    raise
                info = error_info(error)
            self._failures.append(f"{info.type}: {info.message}")
            index, self._call = following.model, None
            run.emit(
                ResponseDiscarded,
                error=info,
                model=self.model.name,
                next_model=run.models[index].name,
                delay=following.delay,
            )
            if run.writer.readers_lag:
                await run.writer.wait_for_readers()
            await sleep(following.delay)
            run.meter.count_retry()

    async def _shortened(self, error: ModelError) -> ModelRequest | None:
        return await self._shorten() if isinstance(error, ModelContextOverflowError) else None

    def interrupted(self) -> AssistantMessage | None:
        """The part of a response that arrived before it was cut off; ``None`` if there is none, or it was discarded."""
        return None if self._call is None else self._call.interrupted()
