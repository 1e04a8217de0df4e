"""The observer that makes spans of the steps of a run, and span events of its events.

Two sources meet here. The **steps** (`Tracing.around`) say when: a span begins and ends with its step, and is the
current span for the user code of the step. The **events** (`Tracing.observe`) say what happens meanwhile, later: a
reader of a stored session gets them when they are saved.

A span of a tool call or of a request ends with its step. The span of a run ends when its step has ended *and* its last
event was seen, or the observer sees no more of it; both come on every way out of a run. Its end time is that of the
step.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from contextvars import Token
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from types import TracebackType
from typing import Any, TypeAlias

from opentelemetry import context as otel_context
from opentelemetry.context import Context
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import (
    Link,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TracerProvider,
    get_current_span,
    get_tracer,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from agentloop.errors import UsageError
from agentloop.events import (
    ApprovalRequested,
    ChildStreamStopped,
    CompactionFinished,
    CompactionStarted,
    ContinueRequested,
    ElicitationRequested,
    HandedOff,
    Paused,
    QuestionAnswered,
    QuestionDeclined,
    QuestionParked,
    QuestionWithdrawn,
    ResponseDiscarded,
    Resumed,
    Source,
    StreamEvent,
    StreamStopped,
    ToolsetChanged,
    WarningIssued,
)
from agentloop.messages import Usage
from agentloop.observers import TRACE_HEADERS, ModelStep, RunStep, Step, ToolStep
from agentloop.outcome import Outcome
from agentloop.telemetry._content import Content, plain
from agentloop.telemetry._ending import SpanEnder
from agentloop.telemetry._metrics import Metrics
from agentloop.telemetry._names import FINISH_REASONS, provider_of

__all__ = ["Tracing"]

LOGGER = logging.getLogger("agentloop.telemetry")

MAX_CONTENT = 16_384

Attributes: TypeAlias = dict[str, Any]

RECORDED: frozenset[type] = frozenset(
    {
        ApprovalRequested,
        ChildStreamStopped,
        CompactionFinished,
        CompactionStarted,
        ContinueRequested,
        ElicitationRequested,
        HandedOff,
        Paused,
        QuestionAnswered,
        QuestionDeclined,
        QuestionParked,
        QuestionWithdrawn,
        ResponseDiscarded,
        Resumed,
        StreamStopped,
        ToolsetChanged,
        WarningIssued,
    }
)
"""The events that change a span."""

_W3C = TraceContextTextMapPropagator()

_traced: set[int] = set()
"""The runs that are traced, each by one `Tracing`: the ``id`` of their `Source`."""


class _OpenRun:
    """A run whose span is open."""

    __slots__ = (
        "began",
        "calls",
        "ended_at",
        "inner",
        "is_over",
        "later_sources",
        "outcome",
        "outer",
        "seconds",
        "source",
        "span",
    )

    def __init__(self, source: Source, span: Span, outer: _OpenRun | None) -> None:
        self.source = source
        """Held, so that no other run gets its ``id``."""
        self.later_sources: list[Source] = []
        """Those that it had after handoffs, held likewise."""
        self.span = span
        self.outer = outer
        """The run around it, if that is traced by the same `Tracing`."""
        self.inner: list[_OpenRun] = []
        self.calls: dict[str, Span] = {}
        """The spans of its tool calls that are open, by call id."""
        self.began = time.perf_counter()
        self.ended_at = 0
        """The time at which its step ended, in nanoseconds since 1970; 0 before."""
        self.seconds = 0.0
        """How long its step took."""
        self.outcome: Outcome | None = None
        """Its outcome; ``None`` if an interrupt has torn its ending apart."""
        self.is_over = False
        """Whether no more events of it are to come."""


class Tracing:
    """An observer that traces runs with OpenTelemetry: ``Agent(..., observers=[Tracing()])``.

    Without a configured SDK of OpenTelemetry it records nothing. A run that has several is traced by one of them: its
    agent's own, or else that of the run around it, or else that of the process (`agentloop.telemetry.instrument`).

    Args:
      content: whether to record prompts, answers, instructions, and the arguments and results of tools. They may be
        personal data. What looks like a secret is redacted.
      max_content: characters of text in an attribute, if ``content`` is recorded.
      propagate: whether requests to models carry ``traceparent``, so that a model's server continues the trace.
      metrics: whether to record the metrics, too.
      tracer_provider: the provider of tracers; the global one by default.
      meter_provider: the provider of meters; the global one by default.
    """

    wakes_for = RECORDED
    """The kinds of events that it has to see soon: see `agentloop.observers`."""

    def __init__(
        self,
        *,
        content: bool = False,
        max_content: int = MAX_CONTENT,
        propagate: bool = True,
        metrics: bool = True,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        if max_content < 1:
            raise UsageError(f"max_content={max_content!r}: give a number of characters, or content=False")
        self._content = Content(max_content) if content else None
        self._propagates = propagate
        self._tracer = get_tracer("agentloop", _VERSION, tracer_provider)
        self._metrics = Metrics(_VERSION, meter_provider) if metrics else None
        self._ender = SpanEnder()
        self._runs: dict[int, _OpenRun] = {}
        """By the ``id`` of each source that a run has had."""
        self._by_stream: dict[tuple[str, str], _OpenRun] = {}
        """By the ids of session and stream, to find a run by a source that it got by a handoff."""

    def __repr__(self) -> str:
        return f"Tracing(content={self._content is not None})"

    def flush(self, seconds: float = 5.0) -> bool:
        """Wait until the spans that have ended so far are with their span processor, up to ``seconds``.

        Blocks the thread. The end of a process waits so by itself. Call it before ``force_flush()`` of the SDK.

        Returns:
          Whether they are.
        """
        return self._ender.flush(seconds)

    # -------------------------------------------------------------------------- the observer

    def observe(self, event: StreamEvent, /) -> None:
        """Record ``event``."""
        if event.__class__ not in RECORDED:
            # As nearly all: deltas, above all.
            return
        run = self._run_of(event.source)
        if run is None:
            return
        try:
            if isinstance(event, (StreamStopped, ChildStreamStopped)):
                self._close(run)
            elif (described := _described(event)) is not None:
                name, attributes = described
                call_id = getattr(event, "call_id", "")
                if self._content is not None and isinstance(event, WarningIssued):
                    attributes["agentloop.warning.message"] = self._content.text(event.message)
                run.calls.get(call_id, run.span).add_event(name, attributes)
        except Exception:
            # Caught here: an observer that raises sees no more of the run, and its spans would stay open.
            LOGGER.exception("an event could not be recorded")

    def around(self, step: Step, /) -> AbstractContextManager[object]:
        """A context manager in which the span of ``step`` is the current one."""
        if isinstance(step, RunStep):
            return nullcontext() if id(step.source) in _traced else _RunBlock(self, step)
        run = self._run_of(step.source)
        if run is None:
            return nullcontext()
        return _ToolBlock(self, run, step) if isinstance(step, ToolStep) else _ModelBlock(self, run, step)

    def leave(self, source: Source, /) -> None:
        """See no more of the run of ``source``."""
        run = self._run_of(source)
        if run is not None:
            self._close(run)

    def _run_of(self, source: Source) -> _OpenRun | None:
        """The run of ``source``, if it is traced here."""
        run = self._runs.get(id(source))
        if run is None and (run := self._by_stream.get((source.session, source.stream))) is not None:
            # A run has another source after each handoff.
            if source.agents[:-1] != run.source.agents[:-1]:
                return None
            self._runs[id(source)] = run
            run.later_sources.append(source)
        return run

    def _close(self, run: _OpenRun) -> None:
        """No more events of ``run`` are to come, nor of the runs inside it."""
        run.is_over = True
        for inner in list(run.inner):
            self._close(inner)
        self._end_if_over(run)

    # ------------------------------------------------------------------------------- spans

    def _open_run(self, step: RunStep) -> _OpenRun:
        outer = None if step.parent is None else self._run_of(step.parent)
        links: list[Link] = []
        if (previous := step.notes.get("traceparent")) is not None:
            before = _span_context(previous)
            if before.is_valid:
                links.append(Link(before, {"agentloop.resumes": plain(step.resumes)}))
        provider, model = provider_of(step.model)
        agent = plain(step.source.agents[-1])
        attributes: Attributes = {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.provider.name": plain(provider),
            "gen_ai.agent.name": agent,
            "gen_ai.request.model": plain(model),
            "gen_ai.conversation.id": plain(step.source.session),
            "agentloop.stream": plain(step.source.stream),
        }
        root = outer
        while root is not None and root.outer is not None:
            root = root.outer
        attributes["session.id"] = plain((root or step).source.session)
        if step.resumes:
            attributes["agentloop.resumes"] = plain(step.resumes)
        if self._content is not None and step.message.parts:
            attributes["gen_ai.input.messages"] = self._content.messages([step.message])
        context = None
        if outer is not None:
            # The call of a background run may have ended.
            context = _inside(outer.span if step.background else outer.calls.get(step.call_id, outer.span))
        elif step.background:
            # It belongs to a block, and outlives the trace of the call that has started it.
            starter = get_current_span().get_span_context()
            if starter.is_valid:
                links.append(Link(starter, {"agentloop.background": plain(step.background)}))
            context = Context()
        span = self._tracer.start_span(f"invoke_agent {agent}", context, SpanKind.INTERNAL, attributes, links)
        run = _OpenRun(step.source, span, outer)
        self._runs[id(step.source)] = self._by_stream[step.source.session, step.source.stream] = run
        _traced.add(id(step.source))
        if outer is not None:
            outer.inner.append(run)
        if (now := span.get_span_context()).is_valid:
            step.take_note("traceparent", _traceparent(now))
        return run

    def _end_run_step(self, run: _OpenRun, step: RunStep) -> None:
        run.ended_at = time.time_ns()
        run.seconds = time.perf_counter() - run.began
        run.outcome = step.outcome
        if run.outcome is None:
            # An interrupt has torn the ending apart.
            self._close(run)
        else:
            self._end_if_over(run)

    def _end_if_over(self, run: _OpenRun) -> None:
        if not run.is_over or not run.ended_at or self._runs.pop(id(run.source), None) is None:
            return
        _traced.discard(id(run.source))
        for source in run.later_sources:
            del self._runs[id(source)]
        key = run.source.session, run.source.stream
        if self._by_stream.get(key) is run:
            del self._by_stream[key]
        self._end(run.span, partial(self._finish_run, run))
        if run.outer is not None:
            run.outer.inner.remove(run)
        elif run.span.is_recording():
            # So that a program that ends next, or a test that looks next, finds the spans.
            self._ender.drain()

    def _end(self, span: Span, finish: Callable[[], None]) -> None:
        if span.is_recording():
            self._ender.end(finish)
        else:
            # No span processor sees it.
            finish()

    def _finish_run(self, run: _OpenRun) -> None:
        """The end of a run's span, in the thread."""
        span, outcome = run.span, run.outcome
        if outcome is None:
            self._set_failure(span, "interrupted", "")
        elif span.is_recording():
            attributes: Attributes = {"agentloop.outcome": outcome.reason, **_aggregated(outcome.usage)}
            if self._content is not None and outcome.reason == "completed":
                attributes["gen_ai.output.messages"] = self._content.messages(outcome.messages[-1:])
            span.set_attributes(attributes)
            if outcome.reason == "failed" and outcome.error is not None:
                self._set_failure(span, type(outcome.error).__name__, outcome.detail)
            elif outcome.reason in ("blocked", "limit"):
                self._set_failure(span, outcome.reason, outcome.detail)
        if self._metrics is not None:
            labels = {"gen_ai.agent.name": plain(run.source.agents[-1])}
            self._metrics.run.record(run.seconds, labels, _inside(span))
        span.end(run.ended_at)

    def _set_failure(self, span: Span, kind: str, message: str) -> None:
        span.set_attribute("error.type", plain(kind))
        # An error's words may be anybody's.
        span.set_status(StatusCode.ERROR, self._content.text(message) if self._content is not None else None)


class _Block:
    """Makes a span the current one while a step is executed."""

    __slots__ = ("_headers", "_token", "run", "span", "tracing")

    span: Span

    def __init__(self, tracing: Tracing) -> None:
        self.tracing = tracing
        self._token: Token[Context] | None = None
        self._headers: Token[Any] | None = None

    def _attach(self) -> None:
        self._token = otel_context.attach(_inside(self.span))

    def _detach(self) -> None:
        if self._token is not None:
            otel_context.detach(self._token)


class _RunBlock(_Block):
    __slots__ = ("step",)

    def __init__(self, tracing: Tracing, step: RunStep) -> None:
        super().__init__(tracing)
        self.step = step

    def __enter__(self) -> None:
        self.run = self.tracing._open_run(self.step)
        self.span = self.run.span
        self._attach()
        if self.tracing._propagates:
            self._headers = TRACE_HEADERS.set(_headers)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._headers is not None:
            TRACE_HEADERS.reset(self._headers)
        self._detach()
        self.tracing._end_run_step(self.run, self.step)


class _ToolBlock(_Block):
    __slots__ = ("began", "ended_at", "seconds", "step")

    def __init__(self, tracing: Tracing, run: _OpenRun, step: ToolStep) -> None:
        super().__init__(tracing)
        self.run, self.step = run, step

    def __enter__(self) -> None:
        step, name = self.step, plain(self.step.name)
        # A name that a model has made up stays out of the span's: there are too many of them.
        title = "execute_tool" if step.description is None else f"execute_tool {name}"
        # Those by which a sampler may decide. The others are set at the end, in the thread.
        attributes: Attributes = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": name}
        self.began = time.perf_counter()
        self.span = self.tracing._tracer.start_span(title, _inside(self.run.span), SpanKind.INTERNAL, attributes)
        self.run.calls[step.call_id] = self.span
        self._attach()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._detach()
        self.seconds, self.ended_at = time.perf_counter() - self.began, time.time_ns()
        self.run.calls.pop(self.step.call_id, None)
        self.tracing._end(self.span, self._finish)

    def _finish(self) -> None:
        step, span, tracing = self.step, self.span, self.tracing
        content, metrics, result = tracing._content, tracing._metrics, step.result
        failure = message = ""
        if result is not None and result.status in ("error", "denied", "timeout"):
            failure, message = (result.status, "") if step.error is None else (step.error.type, step.error.message)
        if span.is_recording():
            attributes: Attributes = {
                "gen_ai.tool.call.id": plain(step.call_id),
                "gen_ai.tool.type": "function",
                "agentloop.outcome": "parked" if result is None else result.status,
            }
            if step.description:
                attributes["gen_ai.tool.description"] = plain(step.description)
            if content is not None:
                attributes["gen_ai.tool.call.arguments"] = content.text(step.arguments)
                if result is not None:
                    attributes["gen_ai.tool.call.result"] = content.text(result.text)
            span.set_attributes(attributes)
            if failure:
                tracing._set_failure(span, failure, message)
        if metrics is not None:
            labels = {"gen_ai.tool.name": plain(step.name) if step.description is not None else "unknown"}
            if failure:
                labels["error.type"] = plain(failure)
            metrics.tool.record(self.seconds, labels, _inside(span))
        span.end(self.ended_at)


class _ModelBlock(_Block):
    __slots__ = ("began", "ended_at", "labels", "seconds", "step")

    def __init__(self, tracing: Tracing, run: _OpenRun, step: ModelStep) -> None:
        super().__init__(tracing)
        self.run, self.step = run, step

    def __enter__(self) -> None:
        provider, model = provider_of(self.step.model)
        self.labels: dict[str, str] = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": plain(provider),
            "gen_ai.request.model": plain(model),
        }
        self.began = time.perf_counter()
        # In the current context, whose span may be one that a tool has opened around its request.
        self.span = self.tracing._tracer.start_span(
            f"chat {self.labels['gen_ai.request.model']}", None, SpanKind.CLIENT, self.labels
        )
        self._attach()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._detach()
        self.seconds, self.ended_at = time.perf_counter() - self.began, time.time_ns()
        self.tracing._end(self.span, self._finish)

    def _finish(self) -> None:
        step, span, tracing = self.step, self.span, self.tracing
        failure = type(step.error).__name__ if isinstance(step.error, Exception) else ""
        if span.is_recording():
            attributes = _of_request(step)
            attributes.update(_of_response(step))
            if tracing._content is not None:
                attributes.update(_words_of(step, tracing._content))
            span.set_attributes(attributes)
            if failure:
                tracing._set_failure(span, failure, str(step.error))
        if tracing._metrics is not None:
            self._measure(tracing._metrics, failure)
        span.end(self.ended_at)

    def _measure(self, metrics: Metrics, failure: str) -> None:
        step, labels, context = self.step, dict(self.labels), _inside(self.span)
        if step.message is not None and step.message.model:
            labels["gen_ai.response.model"] = _response_model(step.message.model)
        if step.usage is not None and step.usage.total_tokens:
            metrics.count_tokens(step.usage, labels, context)
        if step.seconds_to_first is not None:
            metrics.first.record(step.seconds_to_first, labels, context)
        if failure:
            labels["error.type"] = plain(failure)
        metrics.operation.record(self.seconds, labels, context)


def _of_request(step: ModelStep) -> Attributes:
    """The attributes of a request that no sampler needs."""
    attributes: Attributes = {
        "gen_ai.request.stream": True,
        "gen_ai.conversation.id": plain(step.source.session),
    }
    if step.purpose != "turn":
        attributes["agentloop.purpose"] = step.purpose
    settings = step.request.settings
    for name, value in (
        ("temperature", settings.temperature),
        ("top_p", settings.top_p),
        ("max_tokens", settings.max_tokens),
        ("seed", settings.seed),
        ("stop_sequences", settings.stop or None),
    ):
        if value is not None:
            attributes[f"gen_ai.request.{name}"] = value
    return attributes


def _response_model(name: str) -> str:
    """The provider's name for the model that answered. If the provider gave none, it is that of the model asked."""
    return plain(provider_of(name)[1])


def _words_of(step: ModelStep, content: Content) -> Attributes:
    """What was said in a request and in its response."""
    attributes: Attributes = {"gen_ai.input.messages": content.messages(step.request.messages)}
    if step.request.instructions:
        attributes["gen_ai.system_instructions"] = content.instructions(step.request.instructions)
    if step.message is not None:
        attributes["gen_ai.output.messages"] = content.messages([step.message])
    return attributes


def _of_response(step: ModelStep) -> Attributes:
    """The attributes of a response, as far as it came."""
    attributes: Attributes = {}
    if step.message is not None:
        attributes["gen_ai.response.finish_reasons"] = (FINISH_REASONS[step.message.stop],)
        if step.message.model:
            attributes["gen_ai.response.model"] = _response_model(step.message.model)
    elif not isinstance(step.error, Exception):
        attributes["agentloop.outcome"] = "cancelled"
    if step.seconds_to_first is not None:
        attributes["gen_ai.response.time_to_first_chunk"] = step.seconds_to_first
    if step.usage is not None:
        usage = step.usage
        attributes["gen_ai.usage.input_tokens"] = usage.input_tokens
        attributes["gen_ai.usage.output_tokens"] = usage.output_tokens
        for name, tokens in (
            ("cache_read.input_tokens", usage.cached_tokens),
            ("cache_creation.input_tokens", usage.cache_written_tokens),
            ("reasoning.output_tokens", usage.reasoning_tokens),
        ):
            if tokens:
                attributes[f"gen_ai.usage.{name}"] = tokens
        if usage.is_cost_known:
            # The conventions name no cost. The first name is read by Langfuse, and the second by Logfire.
            attributes["gen_ai.usage.cost"] = attributes["operation.cost"] = usage.cost
        if usage.estimated_requests:
            attributes["agentloop.usage.is_estimated"] = True
    return attributes


def _aggregated(usage: Usage) -> Attributes:
    """The usage of a run and of all runs inside it.

    Not as ``gen_ai.usage``: a viewer that adds up the spans of a trace would count each response several times.
    """
    attributes: Attributes = {
        "gen_ai.aggregated_usage.input_tokens": usage.input_tokens,
        "gen_ai.aggregated_usage.output_tokens": usage.output_tokens,
        "agentloop.usage.requests": usage.requests,
    }
    if usage.priced_requests:
        attributes["agentloop.usage.cost"] = usage.cost
    return attributes


def _described(event: StreamEvent) -> tuple[str, Attributes] | None:
    """The span event for ``event``, with facts and without words; ``None`` for most events."""
    match event:
        case ApprovalRequested(id=id):
            return "agentloop.question", {"agentloop.question.id": plain(id), "agentloop.question.kind": "approval"}
        case ElicitationRequested(id=id):
            return "agentloop.question", {"agentloop.question.id": plain(id), "agentloop.question.kind": "elicitation"}
        case ContinueRequested(id=id, limit=limit):
            kind = f"limit: {limit}"
            return "agentloop.question", {"agentloop.question.id": plain(id), "agentloop.question.kind": plain(kind)}
        case QuestionAnswered(id=id, answer=answer, by=by):
            ending = {"agentloop.question.answer": type(answer).__name__, "agentloop.question.by": by}
            return "agentloop.question.answered", {"agentloop.question.id": plain(id), **ending}
        case QuestionDeclined(id=id):
            return "agentloop.question.declined", {"agentloop.question.id": plain(id)}
        case QuestionWithdrawn(id=id):
            return "agentloop.question.withdrawn", {"agentloop.question.id": plain(id)}
        case QuestionParked(id=id):
            return "agentloop.question.parked", {"agentloop.question.id": plain(id)}
        case Paused():
            return "agentloop.paused", {}
        case Resumed():
            return "agentloop.resumed", {}
        case HandedOff(to=to):
            return "agentloop.handoff", {
                "agentloop.handoff.to": plain(to),
                "agentloop.handoff.from": plain(event.agent),
            }
        case ToolsetChanged(toolset=toolset):
            name, state = plain(toolset.name), toolset.state
            return "agentloop.toolset", {"agentloop.toolset.name": name, "agentloop.toolset.state": state}
        case WarningIssued(code=code):
            return "agentloop.warning", {"agentloop.warning.code": plain(code)}
        case ResponseDiscarded(error=error, next_model=next_model, delay=delay):
            after = {"agentloop.retry.model": plain(next_model), "agentloop.retry.delay": delay}
            return "agentloop.retry", {"error.type": plain(error.type), **after}
        case CompactionStarted(reason=reason, tokens=tokens):
            return "agentloop.compaction.started", {"agentloop.compaction.reason": reason, "agentloop.tokens": tokens}
        case CompactionFinished(tokens=tokens, problem=problem):
            is_done = {"agentloop.compaction.failed": bool(problem)}
            return "agentloop.compaction.finished", {"agentloop.tokens": tokens, **is_done}
        case _:
            return None


def _inside(span: Span) -> Context:
    return set_span_in_context(span)


def _headers() -> Mapping[str, str]:
    """The headers by which a server continues the current trace. Without baggage, which is for the own servers."""
    context = get_current_span().get_span_context()
    if not context.is_valid:
        return {}
    headers = {"traceparent": _traceparent(context)}
    if context.trace_state:
        headers["tracestate"] = context.trace_state.to_header()
    return headers


def _traceparent(context: SpanContext) -> str:
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def _span_context(traceparent: str) -> SpanContext:
    context = _W3C.extract({"traceparent": traceparent}, Context())
    return get_current_span(context).get_span_context()


def _version() -> str:
    try:
        return version("agentloop-trio")
    except PackageNotFoundError:
        # The code is used without having been installed.
        return ""


_VERSION = _version()
