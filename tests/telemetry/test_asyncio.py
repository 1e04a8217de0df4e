"""In asyncio, a run continues the trace of the task that calls it, as a request to a web server has begun it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager

import pytest
from opentelemetry import context as otel_context
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

import agentloop.asyncio
from agentloop import Agent, tool
from agentloop.asyncio import TrioHost, aio_as_trio
from agentloop.testing import ScriptedModel, calls
from tests.asyncio.support import in_asyncio
from tests.telemetry.support import Recorder, tree

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@contextmanager
def incoming() -> Generator[None]:
    """The context of a request that came with ``traceparent``."""
    context = TraceContextTextMapPropagator().extract({"traceparent": f"00-{TRACE}-{CALLER}-01"})
    token = otel_context.attach(context)
    try:
        yield
    finally:
        otel_context.detach(token)


async def by_run(agent: Agent) -> None:
    await agentloop.asyncio.run(agent, "go")


async def by_stream(agent: Agent) -> None:
    async with agentloop.asyncio.stream(agent, "go") as stream:
        async for _ in stream:
            pass


async def by_text(agent: Agent) -> None:
    async with agentloop.asyncio.stream_text(agent, "go") as text:
        async for _ in text:
            pass


async def by_call(agent: Agent) -> None:
    await agentloop.asyncio.call(agent.run, "go")


def check_trace(spans: list[ReadableSpan], trace: str, parent: str) -> None:
    [run] = [span for span in spans if span.name.startswith("invoke_agent")]
    assert run.parent is not None
    assert f"{run.parent.span_id:016x}" == parent
    contexts = [span.get_span_context() for span in spans]
    assert {f"{context.trace_id:032x}" for context in contexts if context is not None} == {trace}


@pytest.mark.parametrize("way", [by_run, by_stream, by_text, by_call], ids=lambda way: way.__name__)
@in_asyncio
async def test_a_run_continues_the_trace_of_its_caller(way: Callable[[Agent], Awaitable[None]]) -> None:
    recorder = Recorder()
    agent = Agent(ScriptedModel("Hi."), observers=[recorder.tracing])
    with incoming():
        await way(agent)
        assert f"{get_current_span().get_span_context().span_id:016x}" == CALLER
    check_trace(recorder.spans, TRACE, CALLER)


@in_asyncio
async def test_requests_of_a_server_at_once_have_each_its_own_trace() -> None:
    recorder = Recorder()
    tracer = recorder.provider.get_tracer("server")
    model = ScriptedModel(*["Hi."] * 8)

    async def request(host: TrioHost, number: int) -> None:
        agent = Agent(model, name=f"agent{number}", observers=[recorder.tracing])
        with tracer.start_as_current_span(f"request{number}"):
            if number % 2:
                await host.run(agent, "go")
            else:
                async with host.stream(agent, "go") as stream:
                    await stream.wait()

    # As a web server does: the host belongs to its lifespan, and has been entered in another context.
    with tracer.start_as_current_span("lifespan"):
        host = TrioHost()
        await host.__aenter__()
    try:
        await asyncio.gather(*(request(host, number) for number in range(8)))
    finally:
        await host.__aexit__(None, None, None)
    lines = tree(recorder.spans)
    for number in range(8):
        at = lines.index(f"request{number}")
        assert lines[at + 1] == f"  invoke_agent agent{number}"


@in_asyncio
async def test_spans_of_asyncio_code_in_a_tool_are_inside_the_call() -> None:
    recorder = Recorder()
    tracer = recorder.provider.get_tracer("client")

    async def look_up() -> str:
        with tracer.start_as_current_span("query"):
            await asyncio.sleep(0)
        return "found"

    @tool
    async def search() -> str:
        """Search."""
        return await aio_as_trio(look_up)()

    agent = Agent(ScriptedModel(calls("search"), "Done."), name="a", tools=[search], observers=[recorder.tracing])
    await agentloop.asyncio.run(agent, "go")
    lines = tree(recorder.spans)
    assert lines[lines.index("    query") - 1] == "  execute_tool search"
