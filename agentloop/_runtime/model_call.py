"""Ask a model for a response: emit its deltas, assemble the message, enforce deadlines, retry, fall back.

`ask` is the one place from which the requests of a run go out: those of its turns, those for summaries, and those for
tools. So limits, prices, retries, fallbacks, hooks, deadlines and events hold for all of them.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

import msgspec
import trio

from agentloop._core.foreign_errors import error_text
from agentloop._core.partial_json import Change
from agentloop._core.prices import CATALOGUE_CURRENCY, cost_by_catalogue, reports_cost
from agentloop._core.prompt_cache import CachedRequest, is_lost, reasons_of_loss
from agentloop._core.response import MAX_CHARACTERS, Assembler, checked_delta, checked_stop, checked_usage
from agentloop._core.results import error_info
from agentloop._core.retries import Chain, Cooldowns, Next
from agentloop._core.secrets import HeldText, Redactor
from agentloop._core.state import RequestSent
from agentloop._core.tokens import estimate, tokens_in_front
from agentloop._core.usage import Exceeded, in_words, priced, with_cost
from agentloop._runtime.blocks import PausableDeadline, is_real, now, sleep
from agentloop._runtime.exception_groups import failure_of
from agentloop._runtime.hooks import HookFailedError
from agentloop._runtime.logs import MODEL, log
from agentloop._runtime.pauses import hold
from agentloop._runtime.run import Run, commit
from agentloop._runtime.steps import Surrounded
from agentloop._runtime.user_code import describe
from agentloop.errors import (
    AgentLoopError,
    ClockError,
    LimitReachedError,
    ModelConnectionError,
    ModelContextOverflowError,
    ModelError,
    ModelTimeoutError,
)
from agentloop.events import (
    OutputDelta,
    ReasoningDelta,
    RequestPurpose,
    ResponseDiscarded,
    TextDelta,
    ToolCallDelta,
    UsageReported,
)
from agentloop.hooks import AfterLLMCall, BeforeLLMCall, Block, ReplaceMessages, ReplaceRequest
from agentloop.messages import AssistantMessage, Message, Usage
from agentloop.models import Model, ModelChoice, ModelRequest, OpenableModel, check_model_name
from agentloop.observers import ModelStep

__all__ = ["RequestRefusedError", "Shorten", "ask", "open_models"]

Shorten: TypeAlias = Callable[[], Awaitable[ModelRequest | None]]
"""Gives a request once more, with less in it, after a model has refused it as too long; ``None`` to give up."""

_NO_USAGE = Usage()

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
        "_filter",
        "_give_up_at",
        "_has_output_deltas",
        "_idle",
        "_log",
        "_model",
        "_patience",
        "_renew_at",
        "_run",
        "_scope",
        "_waiting_for",
        "_writer",
        "began",
        "first_piece",
        "is_silent",
        "reported",
    )

    def __init__(self, run: Run, model: Model, *, silent: bool = False) -> None:
        self._run = run
        self._writer, self._log = run.writer, run.log
        self.is_silent = silent
        """Whether it emits no events."""
        self._model = model
        prefix = f"call_{run.transcript.streams}_{run.state.turn}"
        self._assembler = Assembler(
            prefix=prefix, taken=run.transcript.call_ids, model=model.name, agent=run.config.name
        )
        self._has_output_deltas = False
        if not silent and run.config.output_type is not str:
            run.response, run.partial = self._assembler, None
            if run.config.output_deltas:
                self._has_output_deltas = True
                run.open_partial(self._report_change)
        self._filter = None if run.redactor is None else _Filter(run.redactor, self)
        """Redacts the response; ``None`` for most runs."""
        self._idle = run.config.deadlines.idle
        self._scope: trio.CancelScope
        self._renew_at = -math.inf
        self._patience = run.config.deadlines.first_token
        """Seconds of silence after which the model is given up."""
        self._give_up_at = math.inf
        """The time at which it is given up in spite of all signs of life."""
        self._waiting_for = FIRST_PIECE
        self.reported = _NO_USAGE
        """The usage of the response so far, as the model reports it."""
        self.began = self.first_piece = 0.0
        """The time of the request, and of the first piece of the response, by `time.perf_counter`; 0 before."""

    def _report_change(self, change: Change) -> None:
        self._run.emit(OutputDelta, location=change.path, value=change.value, is_piece=change.is_piece)

    async def respond(self, request: ModelRequest) -> AssistantMessage:
        """Ask the model, and emit its deltas as they come.

        Raises:
          ModelError: the model failed, broke the protocol, or was silent for too long.
          UsageError: the model was used wrongly: a script at its end, say.
        """
        model = self._model
        stream, began = self._run.source.stream, time.perf_counter()
        self.began = began
        if MODEL.isEnabledFor(logging.DEBUG):
            sizes = (len(request.messages), len(request.tools))
            log(MODEL, logging.DEBUG, "stream %r: asking model %r: %d messages, %d tools", stream, model.name, *sizes)
        at = now()
        self._scope = trio.CancelScope(deadline=at + self._patience)
        self._give_up_at = at + self._patience * SIGNS_OF_LIFE
        stop: object = None
        try:
            with self._scope:
                deferred = self._run.deferred
                if deferred is None:
                    stop = await model.respond(request, self)
                else:
                    stop = await deferred.respond(model, request, self)
        except AgentLoopError as own_error:
            _name(own_error, model)
            raise
        except BaseException as group:  # noqa: BLE001 - adapters let through what their libraries raise
            error = failure_of(group)
            if isinstance(error, AgentLoopError):
                _name(error, model)
                raise error from error.__cause__  # noqa: ASYNC104 - `failure_of` has raised a cancellation
            # Whatever an adapter lets through is a failure of the model: the reader catches one type.
            kind = ModelConnectionError if isinstance(error, (OSError, trio.BrokenResourceError)) else ModelError
            failure = kind(f"model {model.name!r} failed: {describe(error)}")
            _name(failure, model)
            raise failure from error  # noqa: ASYNC104 - as above
        if self._scope.cancelled_caught:
            was_alive = self._scope.deadline == self._give_up_at
            seconds = self._patience * SIGNS_OF_LIFE if was_alive else self._patience
            raise ModelTimeoutError(model=model.name, waiting_for=self._waiting_for, seconds=seconds)
        try:
            ending = checked_stop(stop, model=model.name)
            if ending.usage.total_tokens:
                self.reported = ending.usage
            if self._filter is not None:
                self._filter.flush()
            message = self._assembler.finish(ending.reason, self.reported, ending.model or model.name)
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
        if self._filter is not None:
            with suppress(ModelError):
                self._filter.flush()
        return self._assembler.interrupted(self._model.name)

    # ------------------------------------------------------------------------- Reply

    async def text(self, text: str, /) -> None:
        if text.__class__ is not str or not text.isascii():
            text = checked_delta(self._model.name, "text(text)", text)
        if not text:
            self._show_life()
            return
        if self._filter is not None:
            self._filter.text(text)
        else:
            self.take_text(text)
        await self._next()

    def take_text(self, text: str) -> None:
        """Take a piece of the answer into the response, and emit it."""
        self._assembler.text(text)
        writer = self._writer
        if not self.is_silent and writer.has_readers:
            writer.append_words(TextDelta(writer.source, self._log.seq + 1, text))
        if self._has_output_deltas and self._run.partial is not None:
            self._run.partial.update()

    async def reasoning(self, text: str, /, *, signature: str | None = None) -> None:
        text = checked_delta(self._model.name, "reasoning(text)", text)
        if signature is not None:
            signature = checked_delta(self._model.name, "reasoning(signature=)", signature)
        if self._filter is not None:
            self._filter.reasoning(text, signature)
        else:
            self.take_reasoning(text, signature)
        await self._next()

    def take_reasoning(self, text: str, signature: str | None) -> None:
        """Take a piece of the reasoning, or its signature, into the response, and emit it."""
        self._assembler.reasoning(text, signature)
        writer = self._writer
        if text and not self.is_silent and writer.has_readers:
            writer.append_words(ReasoningDelta(writer.source, self._log.seq + 1, text))

    async def tool_call(self, index: int, /, *, id: str = "", name: str = "", arguments: str = "") -> None:
        id = checked_delta(self._model.name, "tool_call(id=)", id)
        name = checked_delta(self._model.name, "tool_call(name=)", name)
        arguments = checked_delta(self._model.name, "tool_call(arguments=)", arguments)
        if self._filter is None:
            self.take_tool_call(index, id, name, arguments)
        elif self._filter.hold(index, arguments) or id or name:
            self.take_tool_call(index, id, name, "")
        await self._next()

    def take_tool_call(self, index: int, id: str, name: str, arguments: str) -> None:
        """Take a piece of a tool call into the response, and emit it."""
        call_id, whole_name = self._assembler.tool_call(index, id, name, arguments)
        writer = self._writer
        if not self.is_silent and writer.has_readers:
            seq = self._log.seq + 1
            writer.append_words(
                ToolCallDelta(writer.source, seq, call_id=call_id, name=whole_name, arguments=arguments)
            )

    def report_usage(self, usage: Usage, /) -> None:
        self.reported = checked_usage(usage)

    async def _next(self) -> None:
        """Wait while a reader is behind, which is not the model's fault, then for the model again."""
        if self._writer.readers_lag and not self.is_silent:
            self._scope.deadline = math.inf
            await self._writer.wait_for_readers()
            self._renew_at = -math.inf
        moment = now()
        # Moving a deadline costs as much as emitting a delta, so it is moved a few times per idle period only.
        if moment >= self._renew_at:
            if self._waiting_for is FIRST_PIECE:
                self.first_piece = time.perf_counter()
            self._waiting_for = NEXT_PIECE
            self._patience = self._idle
            self._scope.deadline = moment + self._idle * (1 + SLACK)
            self._give_up_at = moment + self._idle * SIGNS_OF_LIFE
            self._renew_at = moment + self._idle * SLACK

    def _show_life(self) -> None:
        """Start the deadline for silence again, though the model has said nothing."""
        self._scope.deadline = min(now() + self._patience, self._give_up_at)


class _Filter:
    """Redacts a response before anything else sees it: text word by word, and the arguments of a call at its end.

    The model has read no secret, so it can write only one that it has from elsewhere: from a picture, say, or one that
    it makes up.
    """

    __slots__ = ("_arguments", "_call", "_held", "_reasoning", "_redactor", "_text")

    def __init__(self, redactor: Redactor, call: ModelCall) -> None:
        self._redactor = redactor
        self._call = call
        self._text: HeldText | None = None
        self._reasoning: HeldText | None = None
        self._arguments: dict[int, list[str]] = {}
        """The arguments of the open calls, by index, in pieces."""
        self._held = 0
        """Their characters."""

    def text(self, text: str) -> None:
        if self._text is None:
            self.flush()
            self._text = HeldText(self._redactor)
        clean = self._text.feed(text)
        if clean:
            self._call.take_text(clean)

    def reasoning(self, text: str, signature: str | None) -> None:
        if self._reasoning is None:
            self.flush()
            self._reasoning = HeldText(self._redactor)
        clean = self._reasoning.feed(text)
        if signature is not None:
            clean += self._reasoning.flush()
            # The provider's signature is about the text as it was.
            signature = None if self._reasoning.was_changed else signature
        if clean or signature is not None:
            self._call.take_reasoning(clean, signature)

    def hold(self, index: int, arguments: str) -> bool:
        """Hold a piece of a call's arguments back. Returns whether the call is new."""
        is_new = index not in self._arguments
        if is_new:
            self._flush_words()
            self._arguments[index] = []
        self._arguments[index].append(arguments)
        self._held += len(arguments)
        if self._held > MAX_CHARACTERS:
            # The response is too long, and ends with this error.
            self.flush()
        return is_new

    def flush(self) -> None:
        """Pass on all that is held back: another part of the response begins, or it ends."""
        self._flush_words()
        calls, self._arguments, self._held = self._arguments, {}, 0
        for index, pieces in calls.items():
            arguments = self._redactor.json("".join(pieces))
            if arguments:
                self._call.take_tool_call(index, "", "", arguments)

    def _flush_words(self) -> None:
        if self._text is not None:
            rest, self._text = self._text.flush(), None
            if rest:
                self._call.take_text(rest)
        if self._reasoning is not None:
            rest, self._reasoning = self._reasoning.flush(), None
            if rest:
                self._call.take_reasoning(rest, None)


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
        run.chain = _new_chain(run, originals)
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
            for_session: Callable[[str], Model] | None = getattr(held, "for_session", None)
            used = held if for_session is None else for_session(run.transcript.id)
            entered = True
            yield used
            left = True
    except BaseException as group:  # noqa: ASYNC103 - `failure_of` raises a cancellation again
        if entered and not left:
            raise
        error = failure_of(group)
        if left:
            short = f"closing model {model.name!r} failed"
            logged = f"{short}: {type(error).__name__}"
            run.warn("model_failed", f"{short}: {describe(error)}", logged=logged)
        elif isinstance(error, ModelError):
            raise error from error.__cause__  # noqa: ASYNC104 - as above
        else:
            problem = f"opening model {model.name!r} failed: {describe(error)}"
            raise ModelConnectionError(problem) from error  # noqa: ASYNC104 - as above


# ------------------------------------------------------------------ the one place that asks


class RequestRefusedError(Exception):
    """A request does not go out, since a hook refuses it, or a limit leaves no request. The message says why.

    Args:
      reached: the limit; ``None`` if a hook refuses.
    """

    def __init__(self, message: str, *, reached: Exceeded | None = None) -> None:
        super().__init__(message)
        self.reached = reached


async def ask(
    run: Run,
    request: ModelRequest,
    *,
    purpose: RequestPurpose = "turn",
    call_id: str = "",
    models: Sequence[Model] | None = None,
    shorten: Shorten | None = None,
    deadline: PausableDeadline | None = None,
    chosen: Model | str | None = None,
) -> AssistantMessage:
    """Ask for the response to ``request``, and count its usage. The response may not be whole: see its ``stop``.

    Args:
      run: the run that asks.
      request: the request, before hooks change it.
      purpose: what the response is for. Only the response of a turn emits deltas, and its visible part is committed if
        the response is cut off. The other purposes count as requests here; the loop has counted that of a turn.
      call_id: the tool call that asks, if the purpose is ``tool``.
      models: the models to ask, in order; ``None`` for those of the agent. They are opened until the response is there.
      shorten: called as often as a model refuses the request as too long.
      deadline: stands still while the run is paused; that of the run if left out.
      chosen: the model to ask in place of the agent's, before its fallbacks, if hooks choose none.

    Raises:
      RequestRefusedError: a hook refuses the request, or a limit leaves no request.
      ModelError: the response failed for good: the last failure, with the earlier ones as notes.
      UsageError: a model was used wrongly: a script at its end, say.
    """
    if chosen is not None:
        models = _with_chosen(run, chosen)
    request, by_hook = await _vetted(run, request, purpose, call_id, (models or run.models)[0].name)
    if by_hook is not None:
        models = _with_chosen(run, by_hook)
    if purpose != "turn":
        # Nothing waits between the two: of requests side by side, the first counts before the second is checked.
        reached = run.meter.before_retry()
        if reached is not None:
            raise RequestRefusedError(f"a limit leaves no request for it ({in_words(reached)})", reached=reached)
        run.meter.count_retry()
        run.note(RequestSent(purpose))
    if models is None:
        if run.chain is None:
            run.chain = _new_chain(run, run.models)
        retry = ModelRetry(run, run.models, run.chain, purpose, call_id, shorten, deadline)
        return await _respond(retry, request)
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(_opened(run, model)) for model in models]
        retry = ModelRetry(run, opened, _new_chain(run, models), purpose, call_id, shorten, deadline)
        return await _respond(retry, request)


class JudgesRequest:
    """The request of a hook, for a run: `agentloop.hooks.Asking`."""

    __slots__ = ("_run",)

    def __init__(self, run: Run, /) -> None:
        self._run = run

    @property
    def messages(self) -> Sequence[Message]:
        return self._run.transcript.view

    async def ask(self, request: ModelRequest, model: Model | str, /) -> AssistantMessage:
        run = self._run
        # A name is resolved as the agent's own is, so that overrides in tests hold. Its fallbacks are not asked.
        models = run.root.resolve(run.config, model)[:1] if isinstance(model, str) else (model,)
        try:
            return await ask(run, request, purpose="judge", models=models)
        except RequestRefusedError as refusal:
            raise LimitReachedError(str(refusal)) from None

    def warn(self, code: str, message: str, /) -> None:
        self._run.warn(code, message, logged=code)


async def _vetted(
    run: Run, request: ModelRequest, purpose: RequestPurpose, call_id: str, model: str
) -> tuple[ModelRequest, Model | str | None]:
    """``request`` as the before_llm_call hooks want it to go out, and the model that they chose.

    Args:
      model: name of the model that is asked if they choose none.
    """
    chosen: Model | str | None = None
    tools = request.tools
    # Not for the request of a judge: one at this point would judge its own, and that one, without an end.
    for hook in run.hooks.at("before_llm_call") if purpose != "judge" else ():
        value = BeforeLLMCall(run.source, run.state.turn, request, purpose, call_id, model)
        try:
            verdict = await run.hooks.ask(hook, value)
        except HookFailedError as error:
            raise RequestRefusedError(str(error)) from None
        if isinstance(verdict, Block):
            raise RequestRefusedError(verdict.reason)
        if isinstance(verdict, ReplaceMessages):
            request = msgspec.structs.replace(request, messages=tuple(verdict.messages))
        elif isinstance(verdict, ReplaceRequest):
            request = _replaced(request, verdict)
            if verdict.model is not None:
                chosen = verdict.model
                model = chosen if isinstance(chosen, str) else chosen.name
    if run.redactor is not None:
        request = _redacted(run.redactor, request)
    if purpose == "turn":
        run.offered = None if request.tools is tools else frozenset([spec.name for spec in request.tools])
    return request, chosen


def _redacted(redactor: Redactor, request: ModelRequest) -> ModelRequest:
    """``request`` with placeholders for secrets: also for those in instructions, tools and the messages of hooks."""
    messages, tools = redactor.messages(request.messages), redactor.value(request.tools)
    instructions = redactor.text(request.instructions)
    return msgspec.structs.replace(request, messages=messages, tools=tools, instructions=instructions)


def _replaced(request: ModelRequest, verdict: ReplaceRequest) -> ModelRequest:
    """``request`` with the parts that ``verdict`` replaces."""
    parts = {name: getattr(verdict, name) for name in ("messages", "instructions", "tools", "settings")}
    return msgspec.structs.replace(request, **{name: part for name, part in parts.items() if part is not None})


def _with_chosen(run: Run, chosen: Model | str) -> Sequence[Model]:
    """The models to ask where one was chosen: it stands in the place of the agent's, before the fallbacks.

    Raises:
      UsageError: there is no such model, or it cannot be used here.
    """
    # One of the run's models is open already, and shares its connections.
    for model in run.originals:
        if chosen is model or (isinstance(chosen, str) and chosen == model.name):
            return (model, *[other for other in run.originals[1:] if other is not model])
    return run.root.resolve(run.config, chosen)


async def _respond(retry: ModelRetry, request: ModelRequest) -> AssistantMessage:
    """The response, counted, after the hooks have seen it."""
    run = retry.run
    try:
        message = await retry.respond(request)
        retry.take_reported()
        usage = message.usage
        _count(retry, usage, message, is_complete=True)
        if usage.cached_tokens or usage.cache_written_tokens or run.transcript.cached_request is not None:
            _watch_cache(retry, message)
        retry.end_step(message)
        message = msgspec.structs.replace(message, usage=retry.counted)
        if run.hooks.at("after_llm_call"):
            value = AfterLLMCall(run.source, run.state.turn, message, retry.purpose, retry.call_id)
            await run.hooks.notify("after_llm_call", value)
    except BaseException as error:
        _count_broken(retry)
        retry.end_step(None, error)
        cut_off = retry.interrupted()
        if cut_off is not None and retry.purpose == "turn":
            commit(run, (msgspec.structs.replace(cut_off, usage=retry.counted),))
        raise
    return message


# ---------------------------------------------------------------------------------- usage


def _count(retry: ModelRetry, usage: Usage, message: AssistantMessage | None, *, is_complete: bool) -> None:
    """Count the ``usage`` of a response, with its cost, and emit it.

    Args:
      message: the response, or the visible part of it.
    """
    run, name = retry.run, retry.model.name
    if not usage.total_tokens and message is not None and run.meter.counts_tokens:
        if is_complete:
            problem = f"model {name!r} reports no usage: the limits on tokens and cost count an estimate of it"
            run.warn_once("unmetered", problem)
        usage = _estimated(retry.request, message)
    usage = _priced(run, usage, name, name if message is None else message.model)
    retry.counted = usage
    run.meter.count_usage(usage)
    reported = UsageReported(
        run.source,
        run.log.seq + 1,
        usage=usage,
        total=run.meter.usage,
        purpose=retry.purpose,
        call_id=retry.call_id,
        model=name,
        is_complete=is_complete,
    )
    run.writer.append(reported)


def _watch_cache(retry: ModelRetry, message: AssistantMessage) -> None:
    """Emit a warning if the provider's cache had nothing of a request that begins as the request before it."""
    if retry.purpose != "turn":
        # A summary and a tool's request have a beginning of their own.
        return
    run, usage, transcript = retry.run, message.usage, retry.run.transcript
    view = transcript.shown
    try:
        at = _time_of_cooldowns()
    except ClockError:
        at = 0.0
    request = CachedRequest.of(
        retry.request,
        usage,
        model=retry.model.name,
        agent=run.config.name,
        view=(view.first_kept, view.changed_at, view.cut),
        at=at,
    )
    before, transcript.cached_request = transcript.cached_request, request
    if before is None or not is_lost(before, request, usage):
        return
    text = f"model {retry.model.name!r} read {usage.input_tokens} tokens anew, none of them from its cache"
    if why := reasons_of_loss(before, request):
        run.warn("cache_lost", f"{text}: {why}")
    else:
        # Some providers forget now and then, and nobody can do anything about it: once is enough.
        run.warn_once("cache_lost", f"{text}: nothing in the request says why")


def _count_broken(retry: ModelRetry) -> None:
    """Count the usage of a response that broke off, once: the provider bills what it has reported.

    If the response was to report its usage at its end, the part that arrived is estimated for a limit that needs it.
    """
    usage = retry.take_reported()
    if usage is None:
        return
    part = retry.interrupted()
    if usage != Usage() or (part is not None and retry.run.meter.counts_tokens):
        _count(retry, usage, part, is_complete=False)


def _estimated(request: ModelRequest, message: AssistantMessage) -> Usage:
    """About what the response ``message`` to ``request`` used."""
    read = tokens_in_front(request.instructions, request.tools) + sum(map(estimate, request.messages))
    return Usage(input_tokens=read, output_tokens=estimate(message), estimated_requests=1)


def _priced(run: Run, usage: Usage, *names: str) -> Usage:
    """``usage`` of one response of the model that goes by ``names``, with its cost."""
    usage = msgspec.structs.replace(usage, requests=1)
    currency = run.config.currency
    if usage.priced_requests and not usage.cost:
        # The model says that this response costs nothing, whatever others cost: it came from a cache, say.
        return usage
    price = run.price_of(*names)
    if price is not None:
        return priced(usage, price, currency=currency, price_list="prices")
    if usage.cost > 0:
        # A model may report a cost of its own.
        return with_cost(usage, usage.cost, currency=usage.currency or currency, price_list="provider")
    if currency == CATALOGUE_CURRENCY:
        known = cost_by_catalogue(usage, *names)
        if known is not None:
            return known
    if run.meter.counts_cost:
        run.meter.mark_unpriced(names[0])
        problem = f"Limits.cost cannot count what model {names[0]!r} costs: give its price in prices="
        run.warn_once("unpriced", problem)
    return usage


def check_price(run: Run, choice: ModelChoice | None = None) -> None:
    """Note that the price of the model which is asked next is not known, if it is not, and there is a limit on cost."""
    chosen = None if choice is None else choice.model
    name = (run.models if chosen is None else _with_chosen(run, chosen))[0].name
    # A table may have the name that the provider reports with its response.
    if run.has_prices or reports_cost(name):
        return
    is_known = run.config.currency == CATALOGUE_CURRENCY and cost_by_catalogue(Usage(requests=1), name) is not None
    if not is_known:
        run.meter.mark_unpriced(name)


# ------------------------------------------------------------- retries and fallbacks


_COOLDOWNS = Cooldowns()
"""Those of all runs of the process, on the clock of `time.monotonic`: each run of trio counts from another number."""
_COOLDOWNS_OF_CLOCKS: WeakKeyDictionary[Any, Cooldowns] = WeakKeyDictionary()
"""Those of runs on a clock of their own, such as a test's, which know nothing of one another."""


def _new_chain(run: Run, models: Sequence[Model]) -> Chain:
    """Which of ``models`` to ask, from the start."""
    clock = trio.lowlevel.current_clock()
    try:
        cooldowns = _COOLDOWNS if is_real(clock) else _COOLDOWNS_OF_CLOCKS.setdefault(clock, Cooldowns())
    except TypeError:
        # A clock that cannot be such a key: its runs share no cooldowns.
        cooldowns = Cooldowns()
    return Chain(models, run.config.retries, cooldowns=cooldowns, seed=run.source.stream)


def _time_of_cooldowns() -> float:
    return time.monotonic() if is_real(trio.lowlevel.current_clock()) else now()


class ModelRetry:
    """Asks for a response, and retries, or asks the next model, where that may help.

    A response is never assembled from two requests: a failed one is discarded as a whole, and `ResponseDiscarded` is
    emitted.

    Args:
      models: the models, in the order in which they are asked.
      chain: which of them to ask.
      shorten: see `ask`.
      deadline: see `ask`.
    """

    __slots__ = (
        "_call",
        "_chain",
        "_deadline",
        "_failures",
        "_is_taken",
        "_models",
        "_shorten",
        "_surrounded",
        "call_id",
        "counted",
        "model",
        "purpose",
        "request",
        "run",
    )

    def __init__(
        self,
        run: Run,
        models: Sequence[Model],
        chain: Chain,
        purpose: RequestPurpose,
        call_id: str,
        shorten: Shorten | None,
        deadline: PausableDeadline | None = None,
    ) -> None:
        self.run = run
        self.purpose: RequestPurpose = purpose
        self.call_id = call_id
        self._models = models
        self._chain = chain
        self._shorten = shorten
        self._deadline = deadline
        self._call: ModelCall | None = None
        self._failures: list[str] = []
        self._is_taken = False
        """Whether the usage of the response at hand was taken, to be counted."""
        self.model: Model = models[0]
        """The model that was asked last."""
        self.request: ModelRequest
        """The request that it got."""
        self.counted = _NO_USAGE
        """The usage of its response, as it was counted."""
        self._surrounded: tuple[Surrounded, ModelStep] | None = None
        """The step that observers surround, while the response at hand is awaited and counted."""

    async def respond(self, request: ModelRequest) -> AssistantMessage:
        """Ask for the response to ``request``. Raises as `ask` does."""
        run = self.run
        silent = self.purpose != "turn"
        failed: dict[int, int] = {}
        index = self._chain.first(_time_of_cooldowns())
        while True:
            if run.root.pauses is not None:
                await hold(run, self.call_id, self._deadline)
            self.model, self.counted = self._models[index], _NO_USAGE
            self.request, self._is_taken = request, False
            self._call = ModelCall(run, self.model, silent=silent)
            if run.around:
                self._begin_step()
            try:
                return await self._call.respond(request)
            except ModelError as error:
                # First, since it may reach a limit.
                _count_broken(self)
                self.end_step(None, error)
                # A cancelled run makes no further request, even if the model swallowed the cancellation.
                cancelled = trio.current_effective_deadline() == -math.inf
                following: Next | None = None
                if not cancelled and run.meter.before_retry() is None:
                    # Before another model is asked, which leaves this one alone for a while: it has only read too much.
                    shortened = await self._shortened(error)  # noqa: ASYNC120 - if it is cut off, so is the run
                    if self._may_be_too_long(error) and (reached := run.meter.before_retry()) is not None:
                        # The summary was one more request, or several, whether or not there is one.
                        error.add_note(f"A limit leaves no request after the summary ({in_words(reached)})")
                    elif shortened is not None:
                        request, following = shortened, Next(index, 0.0)
                    else:
                        following = self._chain.after_failure(index, error, _time_of_cooldowns(), failed)
                if following is None:
                    for failure in self._failures:
                        error.add_note(f"Before that: {failure}")
                    raise
                info = error_info(error)
            self._failures.append(f"{info.type}: {info.message}")
            run.emit(
                ResponseDiscarded,
                error=info,
                model=self.model.name,
                next_model=self._models[following.model].name,
                delay=following.delay,
                purpose=self.purpose,
                call_id=self.call_id,
            )
            # At once, and not after the delay: meanwhile, children side by side would all pass the limit.
            run.meter.count_retry()
            index, self._call = following.model, None
            if run.writer.readers_lag:
                await run.writer.wait_for_readers()
            await sleep(following.delay)

    def _begin_step(self) -> None:
        source, model, request = self.run.source, self.model.name, self.request
        step = ModelStep(source=source, model=model, request=request, purpose=self.purpose, call_id=self.call_id)
        surrounded = Surrounded(self.run.around, step)
        surrounded.__enter__()
        self._surrounded = surrounded, step

    def end_step(self, message: AssistantMessage | None, error: BaseException | None = None) -> None:
        """End the step that observers surround, if there is one: the response is complete and counted, or broke off."""
        if self._surrounded is None or self._call is None:
            return
        (surrounded, step), self._surrounded = self._surrounded, None
        step.message, step.error = message, error
        step.usage = self.counted if self.counted.requests else None
        if self._call.first_piece:
            step.seconds_to_first = self._call.first_piece - self._call.began
        surrounded.__exit__(None, None, None)

    def _may_be_too_long(self, error: ModelError) -> bool:
        """Whether a shorter request is worth a try."""
        return self._shorten is not None and isinstance(error, ModelContextOverflowError)

    async def _shortened(self, error: ModelError) -> ModelRequest | None:
        """The request with less in it, if ``error`` says that it was too long; ``None`` if it cannot be shortened."""
        if self._shorten is None or not isinstance(error, ModelContextOverflowError):
            return None
        request = await self._shorten()
        try:
            if request is None:
                return None
            # Another model is not chosen here: it was shortened for the one that refused it.
            shortened, _ = await _vetted(self.run, request, self.purpose, self.call_id, self.model.name)
            return shortened
        except RequestRefusedError:
            return None

    def take_reported(self) -> Usage | None:
        """The usage that was reported of the response at hand, once: ``None`` from then on."""
        if self._is_taken or self._call is None:
            return None
        self._is_taken = True
        return self._call.reported

    def interrupted(self) -> AssistantMessage | None:
        """The part of a response that arrived before it was cut off; ``None`` if there is none, or it was discarded."""
        return None if self._call is None else self._call.interrupted()
