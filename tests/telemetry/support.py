"""What the tests of tracing need: a provider that remembers its spans, and a picture of them as a tree."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from threading import Lock
from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider

from agentloop.telemetry import Tracing
from agentloop.telemetry._ending import SpanEnder

__all__ = ["Recorder", "attributes", "id_of", "parent_id", "tree"]


class Remembers(SpanProcessor):
    """Remembers each span that was started, and each that has ended."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.open: list[str] = []
        self.ended: list[ReadableSpan] = []

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        with self.lock:
            self.open.append(span.name)

    def on_end(self, span: ReadableSpan) -> None:
        with self.lock:
            self.open.remove(span.name)
            self.ended.append(span)


class EndsAtOnce(SpanEnder):
    """Ends spans in the thread of the run."""

    def end(self, finish: Callable[[], object]) -> None:
        finish()


class Recorder:
    """A provider of tracers and one of meters, of a test's own, and a `Tracing` that uses them."""

    def __init__(self, *, at_once: bool = False, **options: Any) -> None:
        """``at_once`` is for a simulation, which has no threads."""
        self.processor = Remembers()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(self.processor)
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader], shutdown_on_exit=False)
        self.tracing = self.another(**options)
        if at_once:
            self.tracing._ender = EndsAtOnce()

    def another(self, **options: Any) -> Tracing:
        """Another `Tracing` for the same providers."""
        return Tracing(**{"tracer_provider": self.provider, "meter_provider": self.meters, **options})

    @property
    def spans(self) -> list[ReadableSpan]:
        """The spans that have ended, in order of their start. None may be open."""
        assert self.tracing.flush()
        assert self.processor.open == []
        return sorted(self.processor.ended, key=lambda span: span.start_time or 0)

    def named(self, name: str) -> list[ReadableSpan]:
        """The spans whose name begins so."""
        return [span for span in self.spans if span.name.startswith(name)]

    def metrics(self) -> dict[str, list[Any]]:
        """The data points, by the name of the metric."""
        data = self.reader.get_metrics_data()
        found: dict[str, list[Any]] = {}
        for resource in data.resource_metrics if data is not None else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    found[metric.name] = list(metric.data.data_points)
        return found


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def id_of(span: ReadableSpan) -> int:
    context = span.get_span_context()
    assert context is not None
    return context.span_id


def parent_id(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


def tree(spans: Iterable[ReadableSpan]) -> list[str]:
    """The names of ``spans``, each indented below its parent."""
    listed = list(spans)
    ids = {id_of(span) for span in listed}

    def below(parent: int | None, indent: str) -> Iterator[str]:
        for span in listed:
            above = parent_id(span)
            if (above if above in ids else None) == parent:
                yield indent + span.name
                yield from below(id_of(span), indent + "  ")

    return list(below(None, ""))
