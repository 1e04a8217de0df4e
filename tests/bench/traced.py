"""What tracing costs a turn: over HTTP, against the same turn without it, and what it adds to one without any I/O."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial

import trio
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from agentloop import Agent
from agentloop.providers.openai_chat import OpenAIChat
from agentloop.telemetry import Tracing
from tests.bench import ours
from tests.bench.figures import Measured, _all_of, _measured
from tests.bench.measure import Samples, alternate, alternate_here, median, ratio
from tests.bench.server import running_server
from tests.bench.work import add, turns

__all__ = ["turn"]


class Drops(SpanExporter):
    """An exporter that has nothing to do."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS


def _sides(agent: Agent) -> dict[str, Agent]:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(Drops()))
    spans = Tracing(tracer_provider=provider, metrics=False)
    metrics = Tracing(tracer_provider=provider, meter_provider=MeterProvider(shutdown_on_exit=False))
    return {
        "bare": agent,
        "ours": agent.replace(observers=[spans]),
        "with metrics": agent.replace(observers=[metrics]),
        "without an SDK": agent.replace(observers=[Tracing()]),
    }


def turn(quick: bool) -> Measured:
    """A turn with a tool call over HTTP, traced."""
    plan = turns(20)

    async def run(url: str) -> dict[str, Samples]:
        async with AsyncExitStack() as stack:
            model = await stack.enter_async_context(OpenAIChat("bench", base_url=url, api_key="key").open())
            sides = _sides(ours.agent_on(model, add))
            works = {name: _all_of(partial(ours.read, agent), plan.texts) for name, agent in sides.items()}
            return await alternate_here(works, rounds=5 if quick else 41, repeat=3)

    with running_server() as server:
        measured = _measured(trio.run(run, f"{server}/turns/v1"), scale=1e6 / 20)
    sides = _sides(ours.agent_for(plan, add))
    works = {name: _all_of(partial(ours.read, sides[name]), plan.texts) for name in ("bare", "ours")}
    samples = alternate(works, rounds=5 if quick else 41, repeat=5)
    more = (median(samples["ours"]) - median(samples["bare"])) * 1e6 / 20
    note = f"{measured.note}; without I/O {more:.0f} us more, {ratio(samples['ours'], samples['bare']):.2f}x"
    return Measured(ours=measured.ours, bare=measured.bare, value=measured.value, note=note)
