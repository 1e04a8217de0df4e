"""Models behind a client of a provider's own SDK: the same protocols, over another way."""

from __future__ import annotations

import gc
import gzip
import socket
import struct
import subprocess
import sys
import zlib
from base64 import b64encode
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anthropic
import msgspec
import openai
import pytest
import trio
import trio.lowlevel
from trio.testing import MockClock, wait_all_tasks_blocked

from agentloop import Agent, tool
from agentloop.errors import (
    ModelConnectionError,
    ModelContextOverflowError,
    ModelProtocolError,
    ModelRateLimitError,
    ModelStatusError,
    UsageError,
)
from agentloop.messages import AssistantMessage, Reasoning, Text, Usage
from agentloop.models import Model, ModelRequest, ModelSettings, ToolSpec
from agentloop.providers import _sdk
from agentloop.providers._network import NetworkForbiddenError, forbid_network_models
from agentloop.providers.anthropic_client import AnthropicClient
from agentloop.providers.openai_client import OpenAIClientChat, OpenAIClientResponses
from tests.providers import messages
from tests.providers.chat import ASK, Heard, ask
from tests.providers.conformance import (
    Argued,
    Called,
    Quiet,
    Refused,
    Said,
    Thought,
    shown,
)
from tests.providers.sdk import (
    CHAT,
    MESSAGES,
    NO_TLS,
    OVER_SDK,
    RESPONSES,
    OverSdk,
)
from tests.providers.server import HEAD, Peer, answer, answering, chunk, chunked, serving

pytestmark = pytest.mark.real_clock


each_kind = pytest.mark.parametrize("kind", OVER_SDK, ids=str)

TOOL = ToolSpec("add", "Add.", {"type": "object", "properties": {"a": {"type": "integer"}}})
SETTINGS = ModelSettings(temperature=0.5, max_tokens=100, tool_choice="auto", extra={"user": "u-1"})


# ------------------------------------------------------------------------------- requests


@each_kind
async def test_the_server_gets_the_request_that_it_gets_without_the_sdk(kind: OverSdk) -> None:
    request = ModelRequest(ASK.messages, instructions="Be brief.", tools=(TOOL,), settings=SETTINGS)
    async with serving(answering(kind.whole(Said("Hi")), kind.whole(Said("Hi")))) as server:
        async with kind.at(server.url) as model:
            await ask(model, request)
        await ask(kind.over_http(server.url), request)

    over_sdk, over_http = server.requests
    assert over_sdk.line == over_http.line == f"POST {kind.path} HTTP/1.1"
    assert over_sdk.json == over_http.json
    assert over_sdk.json["user"] == "u-1"


async def test_openai_itself_has_another_name_for_the_limit_of_tokens() -> None:
    async with openai.AsyncOpenAI(api_key="k") as there, openai.AsyncOpenAI(base_url="http://h", api_key="k") as here:
        models: list[Any] = [
            OpenAIClientChat(there, "m"),
            OpenAIClientChat(here, "m"),
            OpenAIClientChat(here, "m", max_tokens_field="limit"),
        ]
    names = [model._format.dialect.max_tokens_field for model in models]
    assert names == ["max_completion_tokens", "max_tokens", "limit"]


@each_kind
async def test_a_model_at_another_machine_may_be_forbidden(kind: OverSdk) -> None:
    async with kind.at("https://somewhere.example/v1") as model:
        with (
            forbid_network_models(),
            pytest.raises(NetworkForbiddenError, match=r"the model 'm' .* is at https://somewhere\.example,"),
        ):
            await ask(model)


@each_kind
def test_a_model_has_a_name_of_its_own_if_it_is_given_one(kind: OverSdk) -> None:
    model = kind.model(kind.client("http://h/v1"))

    assert model.name == "m"
    assert repr(model) == f"<{type(model).__name__} m>"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OpenAIClientChat(openai.OpenAI(api_key="k"), "m"), r"OpenAI is no .* openai\.AsyncOpenAI\(\)"),  # type: ignore[arg-type]
        (lambda: OpenAIClientResponses(openai.OpenAI(api_key="k"), "m"), r"openai\.AsyncOpenAI\(\)"),  # type: ignore[arg-type]
        (lambda: AnthropicClient(anthropic.Anthropic(api_key="k"), "m"), r"anthropic\.AsyncAnthropic\(\)"),  # type: ignore[arg-type]
        (lambda: AnthropicClient("https://h", "m"), "str is no asynchronous client"),  # type: ignore[arg-type]
    ],
    ids=["chat", "responses", "messages", "text"],
)
def test_a_client_that_cannot_be_waited_for_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()


# ------------------------------------------------------------------------------ responses


@each_kind
async def test_text_comes_piece_by_piece(kind: OverSdk) -> None:
    heard = Heard()
    async with serving(answering(kind.whole(Said("Hel"), Quiet(), Said("lo")))) as server, kind.at(server.url) as model:
        stop = await model.respond(ASK, heard)

    assert [piece for piece in heard.pieces if piece[0] == "text"] == [("text", "Hel"), ("text", "lo")]
    assert (stop.reason, stop.model) == ("end", "m-1")


@each_kind
async def test_reasoning_is_told(kind: OverSdk) -> None:
    wire = kind.whole(Thought("Hm, "), Thought("well."), Said("Yes"))
    async with serving(answering(wire)) as server, kind.at(server.url) as model:
        message = await ask(model)

    assert shown(message) == [Reasoning("Hm, well."), Text("Yes")]


@each_kind
async def test_calls_come_together_wherever_they_are_split(kind: OverSdk) -> None:
    first, second = '{"a": "\N{SNOWMAN}"}', '{"b": [1, 2]}'
    pieces: list[Called | Argued] = [Called(0, "c0", "add"), Called(1, "c1", "mul")]
    pieces += [Argued(index, letter) for pair in zip(first, second, strict=False) for index, letter in enumerate(pair)]
    pieces.append(Argued(1, second[len(first) :]))
    body = b"".join(kind.wire.whole(*pieces, stop="tool_calls"))
    # Cut anywhere, in the middle of a character too.
    wire = chunked(*(body[start : start + 7] for start in range(0, len(body), 7)))
    async with serving(answering(wire)) as server, kind.at(server.url) as model:
        message = await ask(model)

    calls = [(call.id, call.name, call.arguments) for call in message.calls]
    assert calls == [("c0", "add", first), ("c1", "mul", second)]


@each_kind
async def test_a_refusal_is_told_as_one(kind: OverSdk) -> None:
    wire = kind.whole(Refused("I won't."), stop="refusal")
    async with serving(answering(wire)) as server, kind.at(server.url) as model:
        message = await ask(model)

    assert (message.text, message.stop) == ("I won't.", "refusal")


@each_kind
async def test_usage_is_counted(kind: OverSdk) -> None:
    usage = Usage(input_tokens=10, output_tokens=7, cached_tokens=4, reasoning_tokens=2)
    wire = kind.whole(Said("Hi"), usage=usage)
    async with serving(answering(wire)) as server, kind.at(server.url) as model:
        message = await ask(model)

    assert message.usage == usage


@each_kind
async def test_a_compressed_answer_is_read(kind: OverSdk) -> None:
    """The SDKs ask for it."""
    body = gzip.compress(b"".join(kind.wire.whole(Said("Hi"))))
    wire = answer(body, type="text/event-stream", extra="Content-Encoding: gzip\r\n")
    async with serving(answering(wire)) as server, kind.at(server.url) as model:
        assert (await ask(model)).text == "Hi"


async def test_a_ping_tells_that_a_silent_model_is_at_work() -> None:
    """The SDK drops it."""
    heard = Heard()
    wire = MESSAGES.whole(Thought("Hm"), Quiet(), Said("Yes"))
    async with serving(answering(wire)) as server, MESSAGES.at(server.url) as model:
        await model.respond(ASK, heard)

    assert heard.pieces[:2] == [("reasoning", "Hm"), ("reasoning", "")]


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@each_kind
async def test_an_agent_runs_on_it(kind: OverSdk) -> None:
    asks = kind.whole(Called(0, "c0", "add"), Argued(0, '{"a":1,"b":2}'), stop="tool_calls")
    async with serving(answering(asks, kind.whole(Said("3.")))) as server, kind.at(server.url) as model:
        outcome = await Agent(model, tools=[add]).run("What is 1 + 2?")

    assert outcome.output == "3."
    assert "c0" in server.requests[1].body.decode()
    # Whoever reads to the end can use the connection again: it is the client's, which is not ours to close.
    assert server.connections == 1


# --------------------------------------------------------------------------------- errors


@each_kind
@pytest.mark.parametrize("status", [401, 404, 413, 429, 500, 503, 529])
async def test_a_refused_request_is_the_error_that_it_is_without_the_sdk(kind: OverSdk, status: int) -> None:
    body, _ = kind.wire.errors[status]
    wire = answer(body.encode(), status=f"{status} No", extra="Retry-After: 7\r\n")
    async with serving(answering(wire, wire, wire, wire)) as server:
        async with kind.at(server.url) as model:
            with pytest.raises(ModelStatusError) as over_sdk:
                await ask(model)
        # One request: who asks retries is the stream.
        assert len(server.requests) == 1
        with pytest.raises(ModelStatusError) as over_http:
            await ask(kind.over_http(server.url))

    error, expected = over_sdk.value, over_http.value
    assert type(error) is type(expected)
    assert (error.status, error.body, error.code) == (status, expected.body, expected.code)
    assert error.retry_after == 7
    assert isinstance(error.__cause__, (openai.APIStatusError, anthropic.APIStatusError))


@each_kind
async def test_a_prompt_that_is_too_long_is_told_apart(kind: OverSdk) -> None:
    wire = answer(kind.wire.overflow.encode(), status="400 Bad Request")
    async with serving(answering(wire)) as server, kind.at(server.url) as model:
        with pytest.raises(ModelContextOverflowError):
            await ask(model)


@each_kind
async def test_an_error_in_mid_stream_is_raised_and_nothing_is_left(kind: OverSdk) -> None:
    closed = trio.Event()

    async def handler(peer: Peer) -> None:
        await peer.request()
        failed = kind.wire.failed("rate_limit", "Slow down.")
        # There is more to come, so the SDK's generators stand half-way.
        await peer.send(HEAD, *map(chunk, kind.wire.begun(Said("Hi"))), chunk(failed + failed), chunk(failed))
        await peer.until_closed()
        closed.set()

    async with serving(handler) as server, kind.at(server.url) as model:
        with pytest.raises(ModelRateLimitError, match="Slow down"):
            await ask(model)
        await closed.wait()


@each_kind
async def test_json_that_is_none_is_a_broken_protocol(kind: OverSdk) -> None:
    wire = chunked(*kind.wire.begun(Said("Hi")), b"data: {nonsense\n\n")
    async with serving(answering(wire)) as server, kind.at(server.url) as model:
        with pytest.raises(ModelProtocolError, match=r"model 'm' sent b'\{nonsense'"):
            await ask(model)


@each_kind
async def test_a_page_is_no_response(kind: OverSdk) -> None:
    async with serving(answering(answer(b"<html>Hi</html>", type="text/html"))) as server, kind.at(server.url) as model:
        with pytest.raises(ModelProtocolError, match="text/html"):
            await ask(model)


@each_kind
async def test_a_response_that_is_cut_off_is_a_connection_error(kind: OverSdk) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD, *map(chunk, kind.wire.begun(Said("Hi"))))

    async with serving(handler) as server, kind.at(server.url) as model:
        with pytest.raises(ModelConnectionError, match=r"model 'm': the connection dropped: .*incomplete") as caught:
            await ask(model)

    assert type(caught.value.__cause__).__module__ == "httpx2"


@each_kind
async def test_a_response_without_its_end_is_a_connection_error(kind: OverSdk) -> None:
    wire = chunked(*kind.wire.begun(Said("Hi")))
    async with serving(answering(wire)) as server, kind.at(server.url) as model:
        with pytest.raises(ModelConnectionError, match="ended before the response did"):
            await ask(model)


@each_kind
async def test_a_server_that_hangs_up_is_a_connection_error(kind: OverSdk) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()

    async with serving(handler) as server, kind.at(server.url) as model:
        with pytest.raises(ModelConnectionError, match=r"model 'm': no answer from http://localhost:\d+: ") as caught:
            await ask(model)

    assert len(server.requests) == 1
    assert isinstance(caught.value.__cause__, (openai.APIConnectionError, anthropic.APIConnectionError))


@each_kind
async def test_a_server_that_hangs_up_while_it_refuses_is_a_connection_error(kind: OverSdk) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 500 No\r\nContent-Length: 100\r\n\r\n{")

    async with serving(handler) as server, kind.at(server.url) as model:
        with pytest.raises(ModelConnectionError, match="model 'm'"):
            await ask(model)


@each_kind
async def test_a_server_that_is_not_there_is_a_connection_error(kind: OverSdk) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening
        async with kind.at(f"http://127.0.0.1:{taken.getsockname()[1]}/v1") as model:
            with pytest.raises(
                ModelConnectionError, match=r"no answer from http://127\.0\.0\.1:\d+: .*(refused|failed)"
            ):
                await ask(model)


@each_kind
async def test_the_timeout_of_the_client_is_a_connection_error(kind: OverSdk) -> None:
    async def handler(peer: Peer) -> None:
        await peer.until_closed()

    async with serving(handler) as server, kind.client(server.url) as client:
        model = kind.model(client.with_options(timeout=0.05))
        with pytest.raises(ModelConnectionError, match="the client's own timeout is over"):
            await ask(model)


# --------------------------------------------------------------------------------- ending


@each_kind
async def test_the_server_sees_the_connection_close_when_a_response_is_cancelled(kind: OverSdk) -> None:
    closed = trio.Event()

    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD, *map(chunk, kind.wire.begun(Said("Hi"))))
        await peer.until_closed()
        closed.set()

    async with serving(handler) as server, kind.at(server.url) as model:
        heard = Heard()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(model.respond, ASK, heard)
            await heard.told.wait()
            await wait_all_tasks_blocked(0.01)
            nursery.cancel_scope.cancel()
        # The client is still open: nobody else closes the connection.
        await closed.wait()


class Slow(Heard):
    """A reply whose reader has stopped reading."""

    async def text(self, text: str, /) -> None:
        await super().text(text)
        if text:
            await trio.sleep_forever()


@each_kind
async def test_a_response_that_is_cancelled_while_its_reader_is_slow_is_closed_too(kind: OverSdk) -> None:
    """Then it is not the network that is waited for, and all generators stand half-way."""
    closed = trio.Event()

    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD + b"".join(map(chunk, kind.wire.begun(*[Said("Hi")] * 100))))
        await peer.until_closed()
        closed.set()

    async with serving(handler) as server, kind.at(server.url) as model:
        heard = Slow()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(model.respond, ASK, heard)
            await heard.told.wait()
            nursery.cancel_scope.cancel()
        await closed.wait()


@each_kind
async def test_a_reply_that_raises_leaves_nothing(kind: OverSdk) -> None:
    closed = trio.Event()

    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD + b"".join(map(chunk, kind.wire.begun(*[Said("Hi")] * 100))))
        await peer.until_closed()
        closed.set()

    class Broken(Heard):
        async def text(self, text: str, /) -> None:
            raise LookupError

    async with serving(handler) as server, kind.at(server.url) as model:
        with pytest.raises(LookupError):
            await model.respond(ASK, Broken())
        await closed.wait()


async def test_what_never_comes_to_an_end_nor_to_the_network_is_not_read_for_ever() -> None:
    class Endless:
        def __aiter__(self) -> Endless:
            return self

        async def __anext__(self) -> bytes:
            return b"more"

    await _sdk._unwind(Endless())


class Cancelling(trio.abc.Instrument):
    """Cancels a scope when its task is about to take its n-th step."""

    def __init__(self, scope: trio.CancelScope, steps: int) -> None:
        self.scope = scope
        self.left = steps
        self.task = trio.lowlevel.current_task()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task:
            self.left -= 1
            if self.left == 0:
                self.scope.cancel()


@pytest.mark.seconds(60)
@each_kind
async def test_cancelled_at_any_checkpoint_it_leaves_nothing(kind: OverSdk) -> None:
    wire = kind.whole(Said("Hi"), Called(0, "a", "add"), Argued(0, "{}"), stop="tool_calls")
    steps = 0
    finished = False
    while not finished:
        steps += 1
        closed = trio.Event()

        async def handler(peer: Peer, closed: trio.Event = closed) -> None:
            if await peer.request() is not None:
                await peer.send(wire)
                await peer.until_closed()
            closed.set()

        async with serving(handler) as server, kind.at(server.url) as model:
            with trio.CancelScope() as scope:
                instrument = Cancelling(scope, steps)
                trio.lowlevel.add_instrument(instrument)
                try:
                    await ask(model)
                finally:
                    trio.lowlevel.remove_instrument(instrument)
            finished = not scope.cancel_called
        gc.collect()
    assert steps > 4


def test_a_server_that_does_not_end_its_answer_is_not_waited_for_long() -> None:
    clock = MockClock()

    async def main(kind: OverSdk) -> None:
        closed, ended = trio.Event(), trio.Event()
        heard = Heard()

        async def handler(peer: Peer) -> None:
            await peer.request()
            await peer.send(HEAD, *map(chunk, kind.wire.whole(Said("Hi"))))
            await peer.until_closed()
            closed.set()

        async def respond() -> None:
            await model.respond(ASK, heard)
            ended.set()

        async with serving(handler) as server, kind.at(server.url) as model, trio.open_nursery() as nursery:
            nursery.start_soon(respond)
            await until(heard.told)
            await wait_all_tasks_blocked(0.05)
            assert not ended.is_set()
            clock.jump(6)
            await until(ended)
            await until(closed)

    for kind in (CHAT, RESPONSES, MESSAGES):
        trio.run(main, kind, clock=clock)


async def until(event: trio.Event) -> None:
    """Wait for ``event``, for so long in real time: on a clock that stands still, no deadline would end a test."""
    for _ in range(500):
        if event.is_set():
            return
        await wait_all_tasks_blocked(0.01)
    raise TimeoutError


# ----------------------------------------------------------------------------- other clouds


async def test_a_client_for_azure_finds_its_deployment() -> None:
    async with serving(answering(CHAT.whole(Said("1")), RESPONSES.whole(Said("2")))) as server:
        azure = openai.AsyncAzureOpenAI(
            azure_endpoint=server.url.removesuffix("/v1"), api_version="2026-01-01", api_key="azure-key"
        )
        async with azure:
            settings = ModelRequest(ASK.messages, settings=ModelSettings(max_tokens=9))
            assert (await ask(OpenAIClientChat(azure, "mine"), settings)).text == "1"
            assert (await ask(OpenAIClientResponses(azure, "mine"))).text == "2"

    asked, responding = server.requests
    assert asked.line == "POST /openai/deployments/mine/chat/completions?api-version=2026-01-01 HTTP/1.1"
    assert asked.headers["api-key"] == "azure-key"
    assert asked.json["max_completion_tokens"] == 9
    assert responding.line == "POST /openai/responses?api-version=2026-01-01 HTTP/1.1"


async def test_a_client_for_vertex_moves_the_model_to_the_url() -> None:
    async with serving(answering(MESSAGES.whole(Said("Hi")))) as server:
        vertex = anthropic.AsyncAnthropicVertex(
            base_url=server.url, region="europe-west1", project_id="p", access_token="t"
        )
        async with vertex:
            assert (await ask(AnthropicClient(vertex, "claude-opus-5-5"))).text == "Hi"

    (request,) = server.requests
    path = "projects/p/locations/europe-west1/publishers/anthropic/models/claude-opus-5-5:streamRawPredict"
    assert request.line == f"POST /v1/{path} HTTP/1.1"
    assert request.headers["authorization"] == "Bearer t"
    assert "model" not in request.json
    assert "anthropic_version" in request.json


BINARY = "application/vnd.amazon.eventstream"


def framed(data: bytes, **headers: str) -> bytes:
    """A message of AWS's event streams: lengths, headers and data, each with a checksum."""
    head = b"".join(
        bytes([len(name)]) + name.encode() + b"\x07" + struct.pack("!H", len(value)) + value.encode()
        for name, value in ((f":{name.replace('_', '-')}", value) for name, value in headers.items())
    )
    return raw_frame(head, data)


def raw_frame(head: bytes, data: bytes) -> bytes:
    prelude = struct.pack("!II", 16 + len(head) + len(data), len(head))
    message = prelude + struct.pack("!I", zlib.crc32(prelude)) + head + data
    return message + struct.pack("!I", zlib.crc32(message))


def bedrock_event(event: bytes) -> bytes:
    """A server-sent event, as Bedrock wraps it."""
    (data,) = (line.removeprefix(b"data: ") for line in event.splitlines() if line.startswith(b"data: "))
    wrapped = msgspec.json.encode({"bytes": b64encode(data).decode()})
    return framed(wrapped, event_type="chunk", content_type="application/json", message_type="event")


async def framed_response(*frames: bytes) -> AssistantMessage:
    """Of a client that knows nothing of frames: it is not the SDK that reads them."""
    async with serving(answering(chunked(*frames, type=BINARY))) as server, MESSAGES.at(server.url) as model:
        return await ask(model)


async def test_frames_may_be_cut_by_the_network() -> None:
    events = MESSAGES.wire.whole(Said("Hi"), Called(0, "c0", "add"), Argued(0, "{}"), stop="tool_calls")
    body = b"".join(map(bedrock_event, events))
    cut = (body[start : start + 11] for start in range(0, len(body), 11))

    assert await framed_response(*cut) == await framed_response(body)


@pytest.mark.parametrize(
    ("headers", "body", "kind", "text"),
    [
        ({"exception_type": "throttlingException"}, b'{"message":"Slow down."}', ModelRateLimitError, "429.*Slow down"),
        ({"exception_type": "internalServerException"}, b"{}", ModelStatusError, "500.*internalServerException"),
        ({"error_code": "Odd", "error_message": "Oh no"}, b"", ModelStatusError, "500.*Oh no"),
    ],
    ids=["exception", "silent", "error"],
)
async def test_an_exception_in_a_frame_is_an_error_in_mid_stream(
    headers: dict[str, str], body: bytes, kind: type[Exception], text: str
) -> None:
    begun = map(bedrock_event, MESSAGES.wire.begun(Said("Hi")))
    with pytest.raises(kind, match=text):
        await framed_response(*begun, framed(body, message_type="exception", **headers))


def damaged(frame: bytes, at: int) -> bytes:
    return frame[:at] + bytes([frame[at] ^ 1]) + frame[at + 1 :]


@pytest.mark.parametrize(
    ("frame", "text"),
    [
        (messages.END, "a malformed event-stream frame"),
        (damaged(bedrock_event(messages.END), 3), "a malformed event-stream frame"),
        (damaged(bedrock_event(messages.END), -5), "a damaged event-stream frame"),
        (framed(b"nonsense"), "an event-stream frame with b'nonsense'"),
        (raw_frame(b"\x01a\x0f", b"{}"), "malformed headers"),
    ],
    ids=["text", "length", "payload", "json", "headers"],
)
async def test_a_malformed_frame_is_a_protocol_error(frame: bytes, text: str) -> None:
    with pytest.raises(ModelProtocolError, match=text):
        await framed_response(*map(bedrock_event, MESSAGES.wire.begun(Said("Hi"))), frame)


async def test_headers_and_frames_of_other_kinds_are_passed_over() -> None:
    ignored = raw_frame(b"\x01a\x00\x01b\x04abcd\x01c\x06\x00\x01x", b"")

    assert (await framed_response(ignored, *map(bedrock_event, MESSAGES.wire.whole(Said("Hi"))))).text == "Hi"


async def test_frames_that_are_cut_off_are_a_connection_error() -> None:
    frames = b"".join(map(bedrock_event, MESSAGES.wire.begun(Said("Hi"))))
    with pytest.raises(ModelConnectionError, match="ended before the response did"):
        await framed_response(frames[:-3])


@asynccontextmanager
async def bedrock(url: str) -> AsyncGenerator[Model]:
    pytest.importorskip("botocore", reason="the SDK needs it for Bedrock")
    client = anthropic.AsyncAnthropicBedrock(
        base_url=url.removesuffix("/v1"),
        aws_region="eu-central-1",
        aws_access_key="a",
        aws_secret_key="s",
        http_client=anthropic.DefaultAsyncHttpxClient(verify=NO_TLS),
    )
    async with client:
        yield AnthropicClient(client, "anthropic.claude-opus-5-5")


async def test_a_client_for_bedrock_reads_its_binary_events() -> None:
    events = [bedrock_event(event) for event in MESSAGES.wire.whole(Said("Hel"), Said("lo"))]
    async with serving(answering(chunked(*events, type=BINARY))) as server, bedrock(server.url) as model:
        message = await ask(model)

    assert message.text == "Hello"
    (request,) = server.requests
    assert request.line == "POST /model/anthropic.claude-opus-5-5/invoke-with-response-stream HTTP/1.1"
    assert request.headers["authorization"].startswith("AWS4-HMAC-SHA256 ")
    assert not {"model", "stream"} & request.json.keys()


async def test_a_client_for_bedrock_can_be_cancelled() -> None:
    closed = trio.Event()

    async def handler(peer: Peer) -> None:
        await peer.request()
        events = b"".join(map(bedrock_event, MESSAGES.wire.begun(Said("Hi"), Said("Ho"))))
        await peer.send(HEAD.replace(b"text/event-stream", BINARY.encode()), chunk(events))
        await peer.until_closed()
        closed.set()

    async with serving(handler) as server, bedrock(server.url) as model:
        for heard in (Heard(), Slow()):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(model.respond, ASK, heard)
                await heard.told.wait()
                await wait_all_tasks_blocked(0.01)
                nursery.cancel_scope.cancel()
            await closed.wait()
            closed = trio.Event()


# --------------------------------------------------------------------------------- extras


def run_python(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("module", "package", "feature"),
    [
        ("openai_client", "openai", "A model behind an OpenAI client"),
        ("anthropic_client", "anthropic", "A model behind an Anthropic client"),
    ],
)
def test_a_missing_package_is_one_sentence(module: str, package: str, feature: str) -> None:
    program = f"""
import sys
# With the SDK, what comes with it is missing too.
sys.modules[{package!r}] = sys.modules["httpx2"] = sys.modules["httpcore2"] = None
from agentloop.errors import MissingExtraError
try:
    import agentloop.providers.{module}
except MissingExtraError as error:
    print(error)
"""
    assert run_python(program) == (
        f"{feature} needs the package {package!r}, which is not installed: pip install 'agentloop-trio[{package}]'"
    )


def test_no_sdk_is_imported_where_there_is_no_client() -> None:
    """They take a second or two."""
    program = """
import sys
from agentloop.providers import find_model
for provider in ("openai", "openai-responses", "anthropic"):
    find_model(f"{provider}:m", api_key="k")
print([name for name in ("openai", "anthropic", "pydantic") if name in sys.modules])
"""
    assert run_python(program) == "[]"
