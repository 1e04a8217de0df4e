"""Spans and metrics over the wire: the OTLP exporter of the SDK, and a receiver that decodes what arrives."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from agentloop import Agent, tool
from agentloop.questions import Approve
from agentloop.stores import MemoryStore, stored_session
from agentloop.telemetry import Tracing
from agentloop.testing import ScriptedModel, calls

pytestmark = pytest.mark.real_clock


class Received:
    def __init__(self) -> None:
        self.url = ""
        self.spans: list[Any] = []
        self.metrics: set[str] = set()

    def take(self, path: str, body: bytes) -> None:
        if path.endswith("/traces"):
            traces = ExportTraceServiceRequest.FromString(body)
            self.spans += [
                span for resource in traces.resource_spans for scope in resource.scope_spans for span in scope.spans
            ]
        else:
            metrics = ExportMetricsServiceRequest.FromString(body)
            self.metrics |= {
                metric.name
                for resource in metrics.resource_metrics
                for scope in resource.scope_metrics
                for metric in scope.metrics
            }


@contextmanager
def receiving() -> Generator[Received]:
    received = Received()

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, format: str, *values: Any) -> None:
            """Say nothing."""

        def do_POST(self) -> None:
            received.take(self.path, self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    received.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield received
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@tool(requires_approval=True)
async def pays(text: str) -> str:
    """Pay."""
    return f"paid \ud800 {text}"


async def test_what_is_exported_arrives_with_its_tree_its_links_and_its_words() -> None:
    with receiving() as received:
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{received.url}/traces", compression=None)))
        reader = PeriodicExportingMetricReader(OTLPMetricExporter(f"{received.url}/metrics"), 1e9)
        meters = MeterProvider([reader], shutdown_on_exit=False)
        tracing = Tracing(content=True, tracer_provider=provider, meter_provider=meters)
        model = ScriptedModel(calls("pays", text="5 euros"), "Done \ud800.")
        agent = Agent(model, name="payer", tools=[pays], observers=[tracing])
        async with MemoryStore().open() as store, stored_session(store, "ann") as session:
            outcome = await agent.run("go \ud800", session=session, on_question="park")
            await agent.resume(session, {outcome.questions[0].id: Approve()})
        assert tracing.flush()
        provider.shutdown()
        meters.shutdown()
    parked, resumed = [span for span in received.spans if span.name == "invoke_agent payer"]
    [link] = resumed.links
    assert (link.trace_id, link.span_id) == (parked.trace_id, parked.span_id)
    assert {span.name for span in received.spans if span.parent_span_id == resumed.span_id} == {
        "execute_tool pays",
        "chat scripted",
    }
    [result] = [
        attribute.value.string_value
        for span in received.spans
        for attribute in span.attributes
        if attribute.key == "gen_ai.tool.call.result"
    ]
    assert result.startswith("paid ? 5 euros")
    assert all(span.end_time_unix_nano >= span.start_time_unix_nano > 0 for span in received.spans)
    assert {"gen_ai.client.token.usage", "gen_ai.client.operation.duration"} <= received.metrics
