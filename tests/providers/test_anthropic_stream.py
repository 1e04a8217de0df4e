"""What Anthropic's Messages API says, and what servers say that speak like it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from agentloop.errors import ModelConnectionError, ModelStatusError
from agentloop.messages import AssistantMessage, Reasoning, Text, ToolCall, Usage
from agentloop.providers.anthropic import Anthropic
from tests.providers.chat import ASK, Heard, ask
from tests.providers.messages import (
    END,
    PING,
    began,
    called,
    delta,
    failed,
    finished,
    said,
    sent,
    started,
    stopped,
    thought,
    whole,
)
from tests.providers.server import HEAD, Peer, answer, answering, chunk, chunked, serving

pytestmark = pytest.mark.real_clock


async def response_to(wire: bytes | list[bytes], *, model: str = "m") -> AssistantMessage:
    async with serving(answering(wire)) as server:
        return await ask(Anthropic(model, base_url=server.url))


# ---------------------------------------------------------------------------------- text


async def test_pings_new_events_and_new_blocks_are_fine() -> None:
    message = await response_to(
        whole(
            PING,
            sent("weather_report", index=7, sun=True),
            started(0, "hologram", data="x"),
            delta(0, "hologram_delta", text=None),
            stopped(0),
            said("a", "", index=1),
            PING,
            delta(2, "text_delta", text="b"),
            stopped(9),
            sent("content_block_start", index=3),
            sent("content_block_delta", index=3),
        )
    )

    assert message.parts == (Text("ab"),)


async def test_a_block_may_begin_with_its_text() -> None:
    assert (await response_to(whole(started(0, "text", text="Hi"), delta(0, "text_delta", text="!")))).text == "Hi!"


async def test_a_message_in_one_piece_is_a_response_too() -> None:
    """As some proxies send it, whatever was asked for."""
    content = [
        {"type": "thinking", "thinking": "Hm.", "signature": "s"},
        {"type": "text", "text": "Yes"},
        {"type": "tool_use", "id": "a", "name": "add", "input": {"x": 1}},
    ]
    body: dict[str, Any] = {"type": "message", "model": "m-1", "content": content, "stop_reason": "tool_use"}
    body["usage"] = {"input_tokens": 3, "output_tokens": 2}

    message = await response_to(answer(msgspec.json.encode(body)))

    assert [type(part) for part in message.parts] == [Reasoning, Text, ToolCall]
    assert message.calls == (ToolCall("a", "add", '{"x":1}'),)
    assert (message.stop, message.usage) == ("tool_calls", Usage(input_tokens=3, output_tokens=2))


# ------------------------------------------------------------------------------ thinking


async def test_thoughts_are_closed_by_their_signatures() -> None:
    message = await response_to(whole(thought("Let me ", "see."), thought("Or not.", index=1), said("Yes", index=2)))

    first, second, text = message.parts
    assert isinstance(first, Reasoning)
    assert isinstance(second, Reasoning)
    assert (first.text, second.text, text) == ("Let me see.", "Or not.", Text("Yes"))
    assert first.signature is not None
    assert msgspec.json.decode(first.signature) == {"anthropic": "m", "signature": "sig"}


async def test_a_thought_without_a_signature_is_told_without_one() -> None:
    message = await response_to(whole(thought("Hm.", signature=None), said("Yes", index=1)))

    assert message.parts == (Reasoning("Hm."), Text("Yes"))


async def test_a_thought_that_is_kept_secret_keeps_its_signature() -> None:
    (part,) = (await response_to(whole(thought()))).parts

    assert isinstance(part, Reasoning)
    assert part.text == ""
    assert part.signature == '{"anthropic":"m","signature":"sig"}'


async def test_redacted_thinking_is_a_thought_without_text() -> None:
    message = await response_to(whole(started(0, "redacted_thinking", data="xyz"), stopped(0), said("Yes", index=1)))

    assert message.parts == (Reasoning("", '{"anthropic":"m","redacted":"xyz"}'), Text("Yes"))


# ---------------------------------------------------------------------------- tool calls


@pytest.mark.parametrize(
    ("input", "arguments"),
    [({"input": {}}, "{}"), ({}, "{}"), ({"input": None}, "{}"), ({"input": {"x": 1}}, '{"x":1}')],
)
async def test_a_call_without_pieces_has_the_arguments_that_it_began_with(input: Any, arguments: str) -> None:
    message = await response_to(whole(started(0, "tool_use", id="a", name="add", **input), stopped(0)))

    assert message.calls == (ToolCall("a", "add", arguments),)


async def test_a_call_that_is_not_said_to_stop_stops_with_the_response() -> None:
    message = await response_to(whole(started(0, "tool_use", id="a", name="add", input={}), finish="tool_use"))

    assert message.calls == (ToolCall("a", "add", "{}"),)


async def test_tools_that_the_server_runs_are_none_of_ours() -> None:
    message = await response_to(
        whole(
            started(0, "server_tool_use", id="s", name="web_search", input={}),
            delta(0, "input_json_delta", partial_json='{"query":"x"}'),
            stopped(0),
            started(1, "web_search_tool_result", tool_use_id="s", content=[]),
            stopped(1),
            said("Found.", index=2),
            called(3, "a", "add", "{}"),
        )
    )

    assert message.parts == (Text("Found."), ToolCall("a", "add", "{}"))


# -------------------------------------------------------------------------------- endings


@pytest.mark.parametrize(
    ("finish", "stop"),
    [
        ("end_turn", "end"),
        ("stop_sequence", "end"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("pause_turn", "paused"),
        ("refusal", "refusal"),
        ("something_new", "end"),
    ],
)
async def test_the_stop_reason_says_how_it_ended(finish: str, stop: str) -> None:
    assert (await response_to(whole(said("Hm"), finish=finish))).stop == stop


async def test_a_refusal_without_a_word_is_told_by_its_explanation() -> None:
    details = {"type": "refusal", "category": "cyber", "explanation": "Against the rules."}

    message = await response_to(chunked(began(), finished("refusal", details), END))
    partly = await response_to(chunked(began(), said("Well, "), finished("refusal", details), END))
    silent = await response_to(chunked(began(), finished("refusal", {"type": "refusal", "explanation": None}), END))

    assert (message.text, message.stop) == ("Against the rules.", "refusal")
    assert (partly.text, partly.stop) == ("Well, ", "refusal")
    assert (silent.text, silent.stop) == ("", "refusal")


async def test_what_was_read_is_counted_with_what_the_cache_read_and_wrote() -> None:
    start = began(input_tokens=10, cache_read_input_tokens=1000, cache_creation_input_tokens=200)

    usage = (await response_to(chunked(start, said("Hi"), finished(), END))).usage

    assert usage == Usage(input_tokens=1210, output_tokens=5, cached_tokens=1000, cache_written_tokens=200)


async def test_counts_are_totals_of_which_the_last_is_right() -> None:
    start = began(input_tokens=10, cache_read_input_tokens=0)
    details = {"thinking_tokens": 30}
    last = finished(
        input_tokens=12, output_tokens=50, cache_read_input_tokens=7, cache_creation_input_tokens=None,
        output_tokens_details=details,
    )  # fmt: skip

    usage = (await response_to(chunked(start, said("Hi"), last, END))).usage

    assert usage == Usage(input_tokens=19, output_tokens=50, cached_tokens=7, reasoning_tokens=30)


@pytest.mark.parametrize("last", [[finished()], [END], [finished(), END, said("!"), b"data: nonsense\n\n"]])
async def test_a_response_ends_with_its_stop_reason_or_its_last_event(last: list[bytes]) -> None:
    assert (await response_to(chunked(began(), said("Hi"), *last))).text == "Hi"


async def test_a_response_may_lack_all_that_can_be_done_without() -> None:
    message = await response_to(chunked(sent("message_start"), said("Hi"), sent("message_stop")))

    assert (message.text, message.model, message.usage) == ("Hi", "m", Usage())


async def test_a_connection_that_drops_after_the_stop_reason_does_no_harm() -> None:
    body = b"".join([began(), said("Hi"), finished()])
    wire = HEAD + chunk(body)

    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(wire)

    async with serving(handler) as server:
        assert (await ask(Anthropic("m", base_url=server.url))).text == "Hi"


# --------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("type", "status"),
    [
        ("overloaded_error", 529),
        ("rate_limit_error", 429),
        ("invalid_request_error", 400),
        ("authentication_error", 401),
        ("billing_error", 402),
        ("permission_error", 403),
        ("not_found_error", 404),
        ("request_too_large", 413),
        ("timeout_error", 504),
        ("api_error", 500),
        ("something_new", 500),
    ],
)
async def test_an_error_in_mid_stream_is_raised(type: str, status: int) -> None:
    with pytest.raises(ModelStatusError) as caught:
        await response_to(whole(said("Hi"), failed(type, "Sorry")))

    assert (caught.value.status, caught.value.body) == (status, "Sorry")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        ({"error": "crashed"}, "crashed"),
        ({"message": "crashed"}, "crashed"),
        ({"error": {"reason": 7}}, '{"reason":7}'),
        ({}, '{"type":"error"}'),
    ],
)
async def test_an_error_of_another_shape_is_one_too(error: Any, told: str) -> None:
    with pytest.raises(ModelStatusError) as caught:
        await response_to(chunked(sent("error", **error)))

    assert (caught.value.status, caught.value.body) == (500, told)


@pytest.mark.parametrize("wire", [[], [began()], [began(), said("Hi")]])
async def test_an_answer_without_an_end_is_no_response(wire: list[bytes]) -> None:
    with pytest.raises(ModelConnectionError, match="ended before the response did"):
        await response_to(chunked(*wire))


# ---------------------------------------------------------------------------- odd shapes


USE: dict[str, Any] = {"type": "tool_use", "id": "a", "name": "add"}


@pytest.mark.parametrize(
    "events",
    [
        [started(0, **USE, input='{"x":1}'), stopped(0)],
        [started(0, **USE, input={}), sent("content_block_stop", index=0, content_block={**USE, "input": {"x": 1}})],
        [started(0, **USE, input={}), delta(0, "input_json_delta", partial_json={"x": 1}), stopped(0)],
        [
            sent("content_block_start", content_block={**USE, "input": {}}),
            sent("content_block_delta", delta={"type": "input_json_delta", "partial_json": '{"x":1}'}),
        ],
    ],
    ids=["text", "at the end", "object", "without an index"],
)
async def test_arguments_may_come_in_other_ways(events: list[bytes]) -> None:
    message = await response_to(whole(*events, finish="tool_use"))

    assert message.calls == (ToolCall("a", "add", '{"x":1}'),)


async def test_a_block_without_its_end_ends_with_the_next_one() -> None:
    first = started(0, **USE, input={}) + delta(0, "input_json_delta", partial_json='{"x":1}')
    second = started(0, type="tool_use", id="b", name="mul", input={}) + stopped(0)

    message = await response_to(whole(first, second, finish="tool_use"))

    assert message.calls == (ToolCall("a", "add", '{"x":1}'), ToolCall("b", "mul", "{}"))


async def test_the_last_event_may_have_the_whole_message() -> None:
    last = sent("message_stop", message={"content": [{"type": "text", "text": "Hello"}]})

    assert (await response_to(chunked(began(), said("Hel"), finished(), last))).text == "Hello"


async def test_text_in_a_delta_of_an_unknown_type_is_no_answer() -> None:
    debug = delta(0, "debug_delta", text="hidden")

    assert (await response_to(whole(started(0, "text", text=""), debug, stopped(0), said("Hi", index=1)))).text == "Hi"


async def test_the_usage_at_the_beginning_is_reported_before_a_response_breaks_off() -> None:
    heard = Heard()

    async with serving(answering(chunked(began(cache_read_input_tokens=90), said("Hi")))) as server:
        with pytest.raises(ModelConnectionError):
            await Anthropic("m", base_url=server.url).respond(ASK, heard)

    assert heard.reported == Usage(input_tokens=100, output_tokens=1, cached_tokens=90)
