"""What every adapter must make of what a server says: the same tests for all, each provider writing in its own way.

What only one of them has is in a file of its own: ``test_chat_stream.py`` and its neighbours.
"""

from __future__ import annotations

import socket
import zlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import msgspec
import pytest
import trio
import trio.testing

from agentloop import Agent, Deadlines, Retries, tool
from agentloop.errors import (
    ModelAuthenticationError,
    ModelConnectionError,
    ModelContextOverflowError,
    ModelProtocolError,
    ModelQuotaError,
    ModelRateLimitError,
    ModelRefusalError,
    ModelStatusError,
    ModelTimeoutError,
    UsageError,
)
from agentloop.events import ReasoningDelta, TextDelta, ToolCallDelta
from agentloop.messages import AssistantMessage, Text, ToolCall, ToolResult, Usage, UserMessage
from agentloop.models import Model, ModelRequest
from agentloop.testing import ScriptedModel
from agentloop.tools import JsonArguments, Tool
from tests.providers.chat import ASK, Heard, ask
from tests.providers.conformance import (
    OVER_HTTP,
    Adapter,
    Argued,
    Called,
    Piece,
    Quiet,
    Refused,
    Said,
    Thought,
    check_cuts,
    cut_off,
    cutting,
    parts_of,
    shown,
)
from tests.providers.overflows import OVERFLOWS
from tests.providers.sdk import OVER_SDK
from tests.providers.server import HEAD, Peer, answer, answering, chunk, chunked, serving, until_close

BAD, SLOW = "400 Bad Request", "429 Too Many Requests"

ADAPTERS: tuple[Adapter, ...] = (*OVER_HTTP, *OVER_SDK)

pytestmark = [pytest.mark.real_clock, pytest.mark.parametrize("adapter", ADAPTERS, ids=str)]

EVERYTHING: tuple[Piece, ...] = (
    Thought("Hm, \N{SNOWMAN}"),
    Said("Grüße, "),
    Said("Welt"),
    Called(0, "a", "add"),
    Called(1, "b", "greet"),
    Argued(0, '{"x"'),
    Argued(1, '{"name":"Gr\\u00fc\\"ße '),
    Argued(0, ":1}"),
    Argued(1, '\N{SNOWMAN}"}'),
)
"""Some of each. The calls interleave, and there is more than ASCII in the text."""


async def response_to(adapter: Adapter, *answers: bytes | list[bytes]) -> AssistantMessage:
    async with serving(answering(*answers)) as server, adapter.at(server.url) as model:
        return await ask(model)


async def told(adapter: Adapter, *pieces: Piece) -> AssistantMessage:
    return await response_to(adapter, chunked(*adapter.wire.whole(*pieces)))


# ------------------------------------------------------------------------------ pieces


async def test_text_comes_piece_by_piece(adapter: Adapter) -> None:
    heard = Heard()
    answer = chunked(*adapter.wire.whole(Said("Hel"), Said("lo")))
    async with serving(answering(answer)) as server, adapter.at(server.url) as model:
        stop = await model.respond(ASK, heard)

    assert heard.pieces == [("text", "Hel"), ("text", "lo")]
    assert (stop.reason, stop.model) == ("end", "m-1")


async def test_a_piece_is_told_before_the_next_one_comes(adapter: Adapter) -> None:
    heard = Heard()

    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD, *map(chunk, begun))
        await heard.told.wait()
        await peer.send(*map(chunk, whole[len(begun) :]), chunk(b""))

    begun, whole = adapter.wire.begun(Said("Hi")), adapter.wire.whole(Said("Hi"))
    async with serving(handler) as server, adapter.at(server.url) as model:
        await model.respond(ASK, heard)


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"], ids=["lf", "crlf"])
async def test_the_network_may_cut_anywhere(adapter: Adapter, line_end: bytes) -> None:
    """In the middle of a character, of a tool call's arguments, and of a line's end."""
    body = b"".join(adapter.wire.whole(*EVERYTHING, stop="tool_calls")).replace(b"\n", line_end)

    message = await response_to(adapter, chunked(*[bytes([byte]) for byte in body]))

    assert shown(message) == parts_of(EVERYTHING)
    assert message.stop == "tool_calls"


async def test_a_response_may_end_with_the_connection(adapter: Adapter) -> None:
    message = await response_to(adapter, until_close(b"".join(adapter.wire.whole(*EVERYTHING, stop="tool_calls"))))

    assert shown(message) == parts_of(EVERYTHING)


async def test_parallel_calls_may_come_one_after_the_other(adapter: Adapter) -> None:
    calls: list[Piece] = [
        Called(0, "a", "add"),
        Argued(0, '{"x":1}'),
        Called(1, "b", "add"),
        Argued(1, '{"x":'),
        Argued(1, "2}"),
    ]

    assert shown(await told(adapter, Said("I add."), *calls)) == [
        Text("I add."),
        ToolCall("a", "add", '{"x":1}'),
        ToolCall("b", "add", '{"x":2}'),
    ]


async def test_what_says_nothing_is_not_told(adapter: Adapter) -> None:
    heard = Heard()
    pieces: list[Piece] = [Quiet(), Said("a"), Quiet(), Said("b"), Quiet()]
    async with serving(answering(chunked(*adapter.wire.whole(*pieces)))) as server, adapter.at(server.url) as model:
        await model.respond(ASK, heard)

    assert heard.pieces == [("text", "a"), ("text", "b")]


# ----------------------------------------------------------------------------- endings


async def test_a_response_that_reached_its_limit_says_so(adapter: Adapter) -> None:
    message = await response_to(adapter, chunked(*adapter.wire.whole(Said("Once upon"), stop="length")))

    assert (message.text, message.stop) == ("Once upon", "length")


async def test_a_refusal_is_told_as_text(adapter: Adapter) -> None:
    message = await response_to(
        adapter, chunked(*adapter.wire.whole(Refused("I can"), Refused("not."), stop="refusal"))
    )

    assert (message.text, message.stop) == ("I cannot.", "refusal")


async def test_the_usage_counts_what_was_cached_and_what_was_reasoning(adapter: Adapter) -> None:
    usage = Usage(input_tokens=100, output_tokens=20, cached_tokens=64, reasoning_tokens=12)

    assert (await response_to(adapter, chunked(*adapter.wire.whole(Said("Hi"), usage=usage)))).usage == usage


async def test_a_server_that_does_not_hang_up_is_not_waited_for(adapter: Adapter) -> None:
    closed = trio.Event()

    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD, *map(chunk, adapter.wire.whole(Said("Hi"))))
        await peer.until_closed()
        closed.set()

    async with serving(handler) as server, adapter.at(server.url) as model:
        assert (await ask(model)).text == "Hi"
        await closed.wait()


# ------------------------------------------------------------------------------ errors


KINDS: dict[int, type[ModelStatusError]] = {
    401: ModelAuthenticationError,
    402: ModelQuotaError,
    403: ModelAuthenticationError,
    404: ModelStatusError,
    413: ModelContextOverflowError,
    429: ModelRateLimitError,
    500: ModelStatusError,
    503: ModelStatusError,
    529: ModelStatusError,
}


async def refusal(adapter: Adapter, status: int, body: str, extra: str = "") -> ModelStatusError:
    """The error that is made of an answer."""
    with pytest.raises(ModelStatusError, match="model 'm': HTTP status") as caught:
        await response_to(adapter, answer(body.encode(), status=f"{status} No", extra=extra))
    return caught.value


@pytest.mark.parametrize("status", KINDS)
async def test_a_status_that_is_no_success_is_an_error_of_its_kind(adapter: Adapter, status: int) -> None:
    body, code = adapter.wire.errors[status]

    error = await refusal(adapter, status, body)

    assert type(error) is KINDS[status]
    assert (error.model, error.status, error.body, error.code) == ("m", status, body, code)
    assert error.retry_after is None


async def test_a_prompt_that_is_too_long_is_an_error_of_its_own(adapter: Adapter) -> None:
    error = await refusal(adapter, 400, adapter.wire.overflow)

    assert type(error) is ModelContextOverflowError


@pytest.mark.parametrize("status", [429, 503, 529])
@pytest.mark.parametrize(
    ("header", "seconds"),
    [("Retry-After: 12", 12.0), ("retry-after-ms: 250\r\nretry-after: 1", 0.25), ("Retry-After: soon", None)],
    ids=["seconds", "milliseconds", "nonsense"],
)
async def test_the_error_says_for_how_long_to_wait(
    adapter: Adapter, status: int, header: str, seconds: float | None
) -> None:
    body, _ = adapter.wire.errors[status]

    assert (await refusal(adapter, status, body, extra=f"{header}\r\n")).retry_after == seconds


async def test_the_error_says_until_when_to_wait(adapter: Adapter) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)

    error = await refusal(adapter, 429, adapter.wire.errors[429][0], extra=f"Retry-After: {date}\r\n")

    assert error.retry_after is not None
    assert 60 < error.retry_after <= 90


async def test_a_prompt_that_is_too_long_is_recognized_in_the_words_of_every_server(adapter: Adapter) -> None:
    answers = [answer(msgspec.json.encode({"error": {"message": words}}), status=BAD) for words in OVERFLOWS.values()]
    missed: list[str] = []
    async with serving(answering(*answers)) as server, adapter.at(server.url) as model:
        for name in OVERFLOWS:
            with pytest.raises(ModelStatusError) as caught:
                await ask(model)
            if type(caught.value) is not ModelContextOverflowError:
                missed.append(name)

    assert missed == []


@pytest.mark.parametrize("coding", ["gzip", "deflate", "raw deflate"])
async def test_an_error_that_is_compressed_unasked_is_read(adapter: Adapter, coding: str) -> None:
    text = b'{"error":{"code":"insufficient_quota","message":"no credit"}}'
    bits = {"gzip": 31, "deflate": 15, "raw deflate": -15}[coding]
    compressor = zlib.compressobj(wbits=bits)
    body = compressor.compress(text) + compressor.flush()
    extra = f"Content-Encoding: {coding.rpartition(' ')[2]}\r\n"
    async with serving(answering(answer(body, status=SLOW, extra=extra))) as server, adapter.at(server.url) as model:
        with pytest.raises(ModelQuotaError, match="no credit"):
            await ask(model)


async def test_an_error_in_an_array_says_its_words_and_the_delay(adapter: Adapter) -> None:
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1.5s"}]
    error = {"code": 429, "message": "too many requests", "status": "RESOURCE_EXHAUSTED", "details": details}

    refused = await refusal(adapter, 429, msgspec.json.encode([{"error": error}]).decode())

    assert type(refused) is ModelRateLimitError
    assert (refused.retry_after, refused.code) == (1.5, "RESOURCE_EXHAUSTED")


async def test_a_response_that_the_server_cannot_parse_is_asked_for_again(adapter: Adapter) -> None:
    failed = b'{"error":{"message":"Failed to call a function.","code":"tool_use_failed","failed_generation":"<f>"}}'
    answers = [answer(failed, status=BAD), chunked(*adapter.wire.whole(Said("3.")))]
    async with serving(answering(*answers)) as server, adapter.at(server.url) as model:
        outcome = await Agent(model, retries=Retries(attempts=2, delay=0.001)).run("What is 1 + 2?")

    assert outcome.output == "3."


async def test_an_unsupported_parameter_is_named_with_the_way_out(adapter: Adapter) -> None:
    error = {"message": "Unsupported value: no", "param": "temperature", "code": "unsupported_value"}
    refused = await refusal(adapter, 400, msgspec.json.encode({"error": error}).decode())

    assert "the model does not take 'temperature': leave ModelSettings.temperature out" in str(refused)


async def test_a_page_under_the_type_of_a_stream_is_shown(adapter: Adapter) -> None:
    with pytest.raises(ModelProtocolError, match="It begins with b'<html>Bad gateway"):
        await response_to(adapter, answer(b"<html>Bad gateway</html>", type="text/event-stream"))


async def test_of_a_long_error_only_the_beginning_is_kept(adapter: Adapter) -> None:
    assert len((await refusal(adapter, 500, "x" * 100_000)).body) == 4096


@pytest.mark.parametrize(
    ("code", "kind", "status"), [("rate_limit", ModelRateLimitError, 429), ("server", ModelStatusError, 500)]
)
async def test_an_error_in_mid_stream_is_one_of_its_kind(
    adapter: Adapter, code: str, kind: type[ModelStatusError], status: int
) -> None:
    body = [*adapter.wire.begun(*EVERYTHING), adapter.wire.failed(code, "Sorry")]

    with pytest.raises(ModelStatusError, match=r"model 'm'.*Sorry") as caught:
        await response_to(adapter, chunked(*body))

    assert type(caught.value) is kind
    assert caught.value.status == status


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"{nonsense", "nonsense"),
        (b"[]", r"\[\]"),
        (b'{"a":"\xff', "xff"),
    ],
    ids=["no json", "no object", "no utf-8"],
)
async def test_an_event_that_is_none_is_a_broken_protocol(adapter: Adapter, data: bytes, said: str) -> None:
    with pytest.raises(ModelProtocolError, match=f"model 'm' sent b'.*{said}"):
        await response_to(adapter, chunked(*adapter.wire.begun(Said("Hi")), b"data: " + data + b"\n\n"))


async def test_a_page_is_no_response(adapter: Adapter) -> None:
    with pytest.raises(ModelProtocolError, match=r"answered with text/html .* is its URL right\?"):
        await response_to(adapter, answer(b"<html>Welcome!</html>", type="text/html"))


@pytest.mark.parametrize("sent", [b"", b"SSH-2.0-OpenSSH_9.6\r\n\r\n"], ids=["nothing", "ssh"])
async def test_an_answer_that_is_not_http_is_a_connection_error(adapter: Adapter, sent: bytes) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(sent)

    async with serving(handler) as server, adapter.at(server.url) as model:
        with pytest.raises(ModelConnectionError, match="model 'm': no answer from"):
            await ask(model)


async def test_a_server_that_is_not_there_is_a_connection_error(adapter: Adapter) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening
        async with adapter.at(f"http://127.0.0.1:{taken.getsockname()[1]}/v1") as model:
            with pytest.raises(ModelConnectionError, match=r"model 'm': no answer from http://127\.0\.0\.1:\d+: "):
                await ask(model)


# ----------------------------------------------------------------------------- cut off


@pytest.mark.parametrize("framing", ["chunked", "until_close"])
async def test_a_response_that_is_cut_off_is_an_error_or_whole(adapter: Adapter, framing: str) -> None:
    """Never a part of a response that passes for all of it. At any byte whatever: see ``test_sweep.py``."""
    wire, pieces = cut_off(adapter.wire, framing)
    # Before, in and after the end of each event.
    ends = [place for place in range(len(wire)) if wire[:place].endswith(b"\n\n")]
    places = [0, *(end + step for end in ends for step in (-2, -1, 0, 1)), *range(len(wire) - 5, len(wire) + 1)]
    async with serving(cutting(wire, sorted(set(places)))) as server, adapter.at(server.url) as model:
        await check_cuts(model, len(set(places)), pieces)


async def test_a_connection_that_is_reset_is_a_connection_error(adapter: Adapter) -> None:
    heard = Heard()

    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD, *map(chunk, adapter.wire.begun(Said("Hi"))))
        await heard.told.wait()
        await peer.reset()

    async with serving(handler) as server, adapter.at(server.url) as model:
        with pytest.raises(ModelConnectionError, match=r"model 'm': the connection dropped: .*Connection ?[Rr]eset"):
            await model.respond(ASK, heard)


# ------------------------------------------------------------------- connections, cancelled


@asynccontextmanager
async def stalling(adapter: Adapter, *pieces: Piece) -> AsyncGenerator[Model]:
    """A model whose server says ``pieces``, and then nothing. At the end, the server must see the connection close.

    Without pieces it does not even begin to answer.
    """
    closed = trio.Event()

    async def handler(peer: Peer) -> None:
        await peer.request()
        if pieces:
            await peer.send(HEAD, *map(chunk, adapter.wire.begun(*pieces)))
        await peer.until_closed()
        closed.set()

    async with serving(handler) as server, adapter.at(server.url) as model:
        yield model
        # On a busy machine a deadline may pass before the client has connected.
        if server.connections:
            await closed.wait()


async def test_the_server_sees_the_connection_close_when_a_response_is_cancelled(adapter: Adapter) -> None:
    heard = Heard()
    async with stalling(adapter, Said("Hi")) as model, trio.open_nursery() as nursery:
        nursery.start_soon(model.respond, ASK, heard)
        await heard.told.wait()
        nursery.cancel_scope.cancel()


async def test_responses_at_once_do_not_mix(adapter: Adapter) -> None:
    """Each has a connection of its own, on which the pieces of all come in turn."""
    count, together = 5, trio.Event()

    async def handler(peer: Peer) -> None:
        request = await peer.request()
        assert request is not None
        (number,) = (n for n in range(count) if f"Number {n}" in request.body.decode())
        if len(server.requests) == count:
            together.set()
        await together.wait()
        await peer.send(HEAD)
        for event in adapter.wire.whole(*(Said(f"{number}") for _ in range(10))):
            await peer.send(chunk(event))
            await trio.lowlevel.checkpoint()
        await peer.send(chunk(b""))
        await peer.until_closed()

    async def ask_for(number: int) -> None:
        request = ModelRequest((UserMessage((Text(f"Number {number}"),)),))
        texts[number] = (await ask(model, request)).text

    texts: dict[int, str] = {}
    async with serving(handler) as server:
        async with adapter.at(server.url) as model, trio.open_nursery() as nursery:
            for number in range(count):
                nursery.start_soon(ask_for, number)

        assert server.connections == count
    assert texts == {number: f"{number}" * 10 for number in range(count)}


# ---------------------------------------------------------------------- under an agent


ONCE = Retries(attempts=1)


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@pytest.mark.parametrize(
    ("pieces", "begun"),
    [
        ([Said("Once upon")], TextDelta),
        ([Thought("Hm")], ReasoningDelta),
        ([Called(0, "c1", "add"), Argued(0, '{"a":')], ToolCallDelta),
    ],
    ids=["text", "reasoning", "call"],
)
async def test_leaving_a_stream_in_mid_delta_closes_the_connection(
    adapter: Adapter, pieces: list[Piece], begun: type
) -> None:
    async with stalling(adapter, *pieces) as model, Agent(model, tools=[add]).stream("Tell me a story.") as stream:
        async for event in stream:
            if isinstance(event, begun):
                break


async def test_a_server_that_does_not_begin_is_given_up(adapter: Adapter) -> None:
    async with stalling(adapter) as model:
        with pytest.raises(ModelTimeoutError) as caught:
            await Agent(model, deadlines=Deadlines(first_token=0.05), retries=ONCE).run("Tell me a story.")

    assert (caught.value.model, caught.value.waiting_for) == ("m", "its first token")


async def test_a_server_that_falls_silent_is_given_up(adapter: Adapter) -> None:
    async with stalling(adapter, Said("Once upon")) as model:
        with pytest.raises(ModelTimeoutError) as caught:
            await Agent(model, deadlines=Deadlines(idle=0.05), retries=ONCE).run("Tell me a story.")

    assert (caught.value.model, caught.value.waiting_for) == ("m", "the next piece")


@pytest.mark.parametrize("cause", ["cut", "error"])
async def test_a_run_that_fails_in_mid_stream_keeps_what_was_said_but_no_half_call(
    adapter: Adapter, cause: str
) -> None:
    begun = adapter.wire.begun(Said("Once upon"), Called(0, "c1", "add"), Argued(0, '{"a":'))
    end = adapter.wire.failed("server", "Sorry.") if cause == "error" else b""

    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD, chunk(b"".join(begun) + end))

    async with (
        serving(handler) as server,
        adapter.at(server.url) as model,
        Agent(model, tools=[add], retries=ONCE).stream("Tell me a story.") as stream,
    ):
        outcome = await stream.wait()

    assert outcome.reason == "failed"
    assert isinstance(outcome.error, ModelStatusError if cause == "error" else ModelConnectionError)
    assert [str(message) for message in outcome.messages] == ["'Tell me a story.'", "'Once upon'"]


async def test_a_call_in_the_markup_of_a_template_is_run_and_not_shown(adapter: Adapter) -> None:
    markup = ["I add.\n\n<tool", '_call>\n{"name": "add", "argu', 'ments": {"a": 1, "b": 2}}\n</tool_call>']
    answers = [adapter.wire.whole(*map(Said, markup)), adapter.wire.whole(Said("<tool_call> is a tag."))]
    async with serving(answering(*(chunked(*events) for events in answers))) as server, adapter.at(server.url) as model:
        async with Agent(model, tools=[add]).stream("What is 1 + 2?") as stream:
            deltas = [event.text async for event in stream if isinstance(event, TextDelta)]

        assert "".join(deltas) == "I add.\n\n<tool_call> is a tag."
        assert stream.outcome.output == "<tool_call> is a tag."
        [result] = [message for message in stream.outcome.messages if isinstance(message, ToolResult)]
        assert (result.name, result.text) == ("add", "3")


async def test_a_request_that_cannot_be_encoded_is_no_fault_of_the_model(adapter: Adapter) -> None:
    other = ScriptedModel("never")
    schema = {"type": "object", "properties": {"a": {"default": object()}}}
    odd = Tool(name="odd", description="", function=lambda: "", arguments=JsonArguments(schema))

    async with serving(answering(b"never")) as server, adapter.at(server.url) as model:
        with pytest.raises(UsageError, match="model 'm': the request cannot be encoded"):
            await Agent(model, tools=[odd], fallbacks=[other]).run("Do it.")

        assert server.requests == []
    assert other.requests == []


async def test_a_refusal_ends_the_run_with_what_the_model_said(adapter: Adapter) -> None:
    answer = chunked(*adapter.wire.whole(Refused("I cannot."), stop="refusal"))
    async with serving(answering(answer)) as server, adapter.at(server.url) as model:
        with pytest.raises(ModelRefusalError, match=r"refused to answer: I cannot\."):
            await Agent(model).run("Do it.")


async def test_a_stream_keeps_its_connection_from_turn_to_turn(adapter: Adapter) -> None:
    calls: list[Piece] = [Called(0, "c1", "add"), Argued(0, '{"a":1,"b":2}')]
    turns = [adapter.wire.whole(*calls, stop="tool_calls"), adapter.wire.whole(Said("3."))]
    async with serving(answering(*(chunked(*events) for events in turns))) as server, adapter.at(server.url) as model:
        outcome = await Agent(model, tools=[add]).run("What is 1 + 2?")

        assert outcome.output == "3."
        assert server.connections == 1


async def test_streams_of_an_open_model_share_its_connection(adapter: Adapter) -> None:
    answers = [chunked(*adapter.wire.whole(Said(text))) for text in ("1", "2")]
    async with serving(answering(*answers)) as server:
        async with adapter.at(server.url) as model:
            outputs = [(await Agent(model).run(prompt)).output for prompt in ("One?", "Two?")]

        assert outputs == ["1", "2"]
        assert server.connections == 1
