"""The W3C trace context goes out with requests to models and to MCP servers."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.baggage import set_baggage
from opentelemetry.context import attach, detach
from opentelemetry.sdk.trace import ReadableSpan

from agentloop import Agent
from agentloop.mcp import McpServer
from agentloop.models import Model
from agentloop.observers import TRACE_HEADERS
from agentloop.providers.openai_chat import OpenAIChat
from agentloop.testing import calls
from agentloop.toolsets import Toolsets
from tests.mcp.servers.web import Answer, Request, serve
from tests.mcp.support import agent_with
from tests.providers.chat import ask, said, whole
from tests.providers.conformance import Said
from tests.providers.sdk import OVER_SDK, OverSdk
from tests.providers.server import answering, serving
from tests.telemetry.support import Recorder, attributes

pytestmark = [
    pytest.mark.real_clock,
    pytest.mark.filterwarnings("ignore:Async generator 'http:ResourceWarning"),
]


def traceparent(span: ReadableSpan) -> str:
    context = span.get_span_context()
    assert context is not None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


@pytest.mark.parametrize("kind", OVER_SDK, ids=str)
async def test_a_request_to_a_model_carries_the_span_of_the_request_and_no_baggage(kind: OverSdk) -> None:
    recorder = Recorder()
    async with serving(answering(kind.whole(Said("Hi")), kind.whole(Said("Hi")))) as server:
        token = attach(set_baggage("user", "ada"))
        try:
            async with kind.at(server.url) as model:
                await Agent(model, observers=[recorder.tracing]).run("go")
            await Agent(kind.over_http(server.url), observers=[recorder.tracing]).run("go")
        finally:
            detach(token)
    sent = [request.headers["traceparent"] for request in server.requests]
    assert sent == [traceparent(span) for span in recorder.named("chat")]
    assert not any("baggage" in request.headers for request in server.requests)


async def test_without_a_tracer_no_header_is_added() -> None:
    recorder = Recorder(propagate=False)
    async with serving(answering(whole(said("Hi")), whole(said("Hi")))) as server:
        await ask(OpenAIChat("m", base_url=server.url))
        await Agent(OpenAIChat("m", base_url=server.url), observers=[recorder.tracing]).run("go")
    assert not any("traceparent" in request.headers for request in server.requests)


@pytest.mark.parametrize(
    "headers",
    [{"traceparent": "a\r\nX-Evil: 1"}, {"trace parent": "a"}, {"traceparent": "\ud800"}, {"authorization": "b"}, None],
    ids=("two-lines", "name", "half-a-character", "taken", "fails"),
)
async def test_headers_of_a_trace_that_are_not_valid_are_left_out(headers: dict[str, str] | None) -> None:
    def provide() -> dict[str, str]:
        if headers is None:
            raise ValueError("no")
        return headers

    token = TRACE_HEADERS.set(provide)
    try:
        async with serving(answering(whole(said("Hi")))) as server:
            model: Model = OpenAIChat("m", base_url=server.url, api_key="k")
            assert (await ask(model)).text == "Hi"
    finally:
        TRACE_HEADERS.reset(token)
    [request] = server.requests
    assert not {"traceparent", "x-evil", "trace parent"} & request.headers.keys()
    assert request.headers["authorization"] == "Bearer k"


async def test_a_call_of_an_mcp_server_carries_the_span_of_the_call_in_the_message_and_as_headers() -> None:
    recorder = Recorder()
    requests: list[Request] = []

    def answer(request: Request) -> Answer:
        if request.method == "tools/call":
            requests.append(request)
        return request.usual()

    with serve(answer) as url:
        async with Toolsets(McpServer.http(url)) as shared:
            agent = agent_with(shared, calls("t"), observers=[recorder.tracing])
            await agent.run("go")
            await agent_with(shared, calls("t")).run("go")
    traced, plain = requests
    [call] = recorder.named("execute_tool")
    assert attributes(call)["gen_ai.tool.name"] == "t"
    meta: dict[str, Any] = traced.message["params"]["_meta"]
    assert meta["traceparent"] == traced.headers["traceparent"] == traceparent(call)
    assert "traceparent" not in plain.message["params"].get("_meta", {})
    assert plain.headers["traceparent"] is None


async def test_words_of_a_call_are_not_taken_for_its_trace_context() -> None:
    heard: list[str | None] = []

    def answer(request: Request) -> Answer:
        heard.append(request.headers["traceparent"])
        return request.usual()

    words = '"traceparent": "00-' + "1" * 32 + "-" + "1" * 16 + '-01"'
    with serve(answer) as url:
        async with Toolsets(McpServer.http(url)) as shared:
            await agent_with(shared, calls("t", text=words, traceparent="a\r\nb")).run("go")
    assert {*heard} == {None}
