"""What a chat completions server says, in all the ways in which servers were seen to say it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from agentloop.errors import ModelConnectionError, ModelProtocolError, ModelStatusError
from agentloop.messages import AssistantMessage, Reasoning, Text, ToolCall, Usage
from agentloop.providers.openai_chat import OpenAIChat
from tests.providers.chat import ASK, Heard, ask, called, counted, finished, piece, said, whole
from tests.providers.server import (
    DONE,
    HEAD,
    Peer,
    answer,
    answering,
    chunk,
    chunked,
    event,
    serving,
    until_close,
)

pytestmark = pytest.mark.real_clock


async def response_to(*answers: bytes | list[bytes]) -> AssistantMessage:
    async with serving(answering(*answers)) as server:
        return await ask(OpenAIChat("m", base_url=server.url))


# ---------------------------------------------------------------------------------- text


async def test_comments_empty_deltas_and_other_line_ends_are_fine() -> None:
    body = b": keep-alive\n\n" + said("a") + event(piece({})) + event(piece({"content": ""})) + said("b")
    body += event(piece({"role": "assistant", "content": None, "tool_calls": None})) + finished() + DONE

    assert (await response_to(chunked(body.replace(b"\n", b"\r\n")))).text == "ab"


async def test_only_the_first_of_several_choices_counts() -> None:
    other = piece({"content": "no"})
    other["choices"][0]["index"] = 1
    both = piece({"content": "yes"})
    both["choices"] += other["choices"]
    last = piece({}, "length")
    last["choices"][0]["index"] = 1

    message = await response_to(whole(event(other), event(both), event(last)))

    assert message.text == "yes"
    assert message.stop == "end"


async def test_an_answer_without_a_stream_is_one_too() -> None:
    """Some servers do not know ``stream``, or not together with tools."""
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a":1}'}}
    choice = {"index": 0, "message": {"content": "Hm.", "tool_calls": [call]}, "finish_reason": "tool_calls"}
    body = msgspec.json.encode({"object": "chat.completion", "choices": [choice], "usage": {"prompt_tokens": 3}})

    for wire in (answer(body), answer(b"\n " + body, type="text/plain"), until_close(body, type="application/json")):
        message = await response_to(wire)

        assert message.parts == (Text("Hm."), ToolCall("c1", "add", '{"a":1}'))
        assert message.usage.input_tokens == 3


async def test_a_stream_with_the_wrong_content_type_is_read() -> None:
    assert (await response_to(chunked(said("Hi"), finished(), DONE, type="application/json"))).text == "Hi"


async def test_content_in_parts_is_text_and_reasoning() -> None:
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm. "}]}
    parts = piece({"content": [thought, {"type": "text", "text": "Yes"}]})
    plain = piece({"content": [{"type": "thinking", "thinking": "Well"}, {"type": "reference", "ids": [1]}]})

    message = await response_to(whole(event(parts), event(plain)))

    assert message.parts == (Reasoning("Hm. "), Text("Yes"), Reasoning("Well"))


# ----------------------------------------------------------------------------- reasoning


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
async def test_reasoning_comes_in_either_field(field: str) -> None:
    message = await response_to(whole(event(piece({field: "Let me "})), event(piece({field: "see."})), said("Yes")))

    assert message.parts == (Reasoning("Let me see."), Text("Yes"))


async def test_reasoning_in_both_fields_is_told_once() -> None:
    message = await response_to(whole(event(piece({"reasoning_content": "Hm", "reasoning": "Hm"})), said("Yes")))

    assert message.parts == (Reasoning("Hm"), Text("Yes"))


# ---------------------------------------------------------------------------- tool calls


def calls_of(message: AssistantMessage) -> list[tuple[str, str, str]]:
    return [(call.id, call.name, call.arguments) for call in message.calls]


async def test_calls_whose_index_begins_anywhere_are_counted_from_zero() -> None:
    message = await response_to(whole(called(1, "a", "add", "{}"), called(3, "b", "mul", "{}")))

    assert calls_of(message) == [("a", "add", "{}"), ("b", "mul", "{}")]


@pytest.mark.parametrize("index", [None, 0])
async def test_calls_may_all_have_the_same_index_or_none(index: int | None) -> None:
    message = await response_to(
        whole(
            called(index, "a", "add", '{"x":'),
            called(index, "a", arguments="1}"),
            called(index, "b", "add", '{"x":2}'),
            called(index, arguments=""),
        )
    )

    assert calls_of(message) == [("a", "add", '{"x":1}'), ("b", "add", '{"x":2}')]


@pytest.mark.parametrize("index", [None, 0])
async def test_calls_may_have_neither_index_nor_id(index: int | None) -> None:
    message = await response_to(
        whole(called(index, name="add", arguments='{"x":1}'), called(index, name="add", arguments='{"x":2}'))
    )

    assert [(name, arguments) for _, name, arguments in calls_of(message)] == [("add", '{"x":1}'), ("add", '{"x":2}')]
    assert len({id for id, _, _ in calls_of(message)}) == 2


async def test_a_name_that_is_repeated_with_each_piece_begins_no_new_call() -> None:
    message = await response_to(whole(called(0, name="add", arguments='{"x":'), called(0, name="add", arguments="1}")))

    assert [(name, arguments) for _, name, arguments in calls_of(message)] == [("add", '{"x":1}')]


async def test_an_id_that_changes_with_each_piece_begins_no_new_call() -> None:
    message = await response_to(whole(called(0, "a", "add", '{"x":'), called(0, "b", arguments="1}")))

    assert calls_of(message) == [("a", "add", '{"x":1}')]


async def test_arguments_may_be_an_object() -> None:
    message = await response_to(whole(called(0, "a", "add", {"x": 1})))

    assert calls_of(message) == [("a", "add", '{"x":1}')]


async def test_calls_count_although_the_finish_does_not_say_so() -> None:
    message = await response_to(whole(called(0, "a", "add", "{}"), finish="stop"))

    assert message.stop == "tool_calls"


# -------------------------------------------------------------------------------- endings


@pytest.mark.parametrize(
    ("finish", "stop"),
    [("stop", "end"), ("length", "length"), ("content_filter", "refusal"), ("STOP", "end"), ("eos", "end")],
)
async def test_the_finish_says_how_it_ended(finish: str, stop: str) -> None:
    assert (await response_to(whole(said("Hm"), finish=finish))).stop == stop


@pytest.mark.parametrize(
    ("wire", "usage"),
    [
        ({"prompt_tokens": 9, "prompt_cache_hit_tokens": 4}, Usage(input_tokens=9, cached_tokens=4)),
        ({"prompt_tokens": 9, "cached_tokens": 4}, Usage(input_tokens=9, cached_tokens=4)),
        ({"prompt_tokens": 9, "completion_tokens": None, "prompt_tokens_details": None}, Usage(input_tokens=9)),
    ],
    ids=["deepseek", "moonshot", "nulls"],
)
async def test_usage_is_counted_in_several_ways(wire: dict[str, Any], usage: Usage) -> None:
    assert (await response_to(chunked(finished(), counted(**wire), DONE))).usage == usage


async def test_reasoning_that_is_counted_apart_is_output_too() -> None:
    wire = counted(
        prompt_tokens=10,
        completion_tokens=5,
        total_tokens=22,
        completion_tokens_details={"reasoning_tokens": 7},
    )

    usage = (await response_to(chunked(finished(), wire, DONE))).usage

    assert (usage.output_tokens, usage.reasoning_tokens) == (12, 7)


async def test_the_usage_may_stand_in_the_choice() -> None:
    last = piece({}, "stop")
    last["choices"][0]["usage"] = {"prompt_tokens": 5, "completion_tokens": 1}

    assert (await response_to(chunked(event(last), DONE))).usage == Usage(input_tokens=5, output_tokens=1)


async def test_a_response_may_end_with_its_finish() -> None:
    assert (await response_to(chunked(said("Hi"), finished()))).text == "Hi"


async def test_a_response_may_end_without_a_finish_if_it_is_done() -> None:
    assert (await response_to(chunked(said("Hi"), DONE))).text == "Hi"


async def test_what_comes_after_done_is_ignored() -> None:
    assert (await response_to(chunked(said("Hi"), finished(), DONE, said("!"), b"data: nonsense\n\n"))).text == "Hi"


async def test_the_last_empty_line_may_be_missing() -> None:
    assert (await response_to(chunked(said("Hi"), finished().rstrip()))).text == "Hi"


# --------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        ({"error": {"message": "Overloaded", "type": "overloaded_error", "code": None}}, 529, "Overloaded"),
        ({"error": {"message": "Upstream", "code": 502}}, 502, "Upstream"),
        ({"error": {"message": "Slow down", "code": "rate_limit_exceeded"}}, 429, "Slow down"),
        ({"error": {"message": "Oops", "type": "server_error"}}, 500, "Oops"),
        ({"error": "model crashed"}, 500, "model crashed"),
        ({"object": "error", "message": "Too long", "code": 400}, 400, "Too long"),
        ({"error": {"reason": 7}}, 500, '{"reason":7}'),
    ],
    ids=["type", "code", "name", "unknown", "string", "vllm", "odd"],
)
async def test_an_error_in_mid_stream_is_raised(error: dict[str, Any], status: int, said: str) -> None:
    with pytest.raises(ModelStatusError) as caught:
        await response_to(whole(event(piece({"content": "Hi"})), event(error)))

    assert (caught.value.status, caught.value.body) == (status, said)


async def test_an_error_beside_a_choice_is_raised() -> None:
    with pytest.raises(ModelStatusError, match="gone"):
        await response_to(whole(event(piece({"content": ""}, "error", error={"code": 502, "message": "gone"}))))


async def test_a_finish_that_is_an_error_is_raised() -> None:
    with pytest.raises(ModelProtocolError, match="with the reason 'error'"):
        await response_to(whole(said("Hi"), finish="error"))


async def test_an_empty_answer_is_no_response() -> None:
    with pytest.raises(ModelConnectionError, match="ended before the response did"):
        await response_to(chunked())


# ------------------------------------------------------------- servers that never hang up


async def until(event: trio.Event) -> None:
    """Wait for ``event``, for so long in real time: on a clock that stands still, no deadline would end a test."""
    for _ in range(500):
        if event.is_set():
            return
        await wait_all_tasks_blocked(0.01)
    raise TimeoutError


@pytest.mark.parametrize("last", [DONE, b""], ids=["done", "finished"])
def test_a_server_that_does_not_end_its_answer_is_not_waited_for_long(last: bytes) -> None:
    clock = MockClock()

    async def main() -> None:
        closed, ended = trio.Event(), trio.Event()
        heard = Heard()

        async def handler(peer: Peer) -> None:
            await peer.request()
            await peer.send(HEAD, chunk(said("Hi")), chunk(finished() + last))
            await peer.until_closed()
            closed.set()

        async def respond() -> None:
            await OpenAIChat("m", base_url=server.url).respond(ASK, heard)
            ended.set()

        async with serving(handler) as server, trio.open_nursery() as nursery:
            nursery.start_soon(respond)
            await until(heard.told)
            await wait_all_tasks_blocked(0.05)
            assert not ended.is_set()
            clock.jump(6)
            await until(ended)
            await until(closed)
        assert heard.pieces == [("text", "Hi")]

    trio.run(main, clock=clock)


def test_a_server_that_does_not_answer_a_handshake_is_not_waited_for_long() -> None:
    clock = MockClock()

    async def main() -> None:
        begun, ended = trio.Event(), trio.Event()

        async def handler(peer: Peer) -> None:
            begun.set()
            await peer.until_closed()

        async def respond() -> None:
            with pytest.raises(ModelConnectionError, match="the TLS handshake took more than 15 s"):
                await ask(OpenAIChat("m", base_url=server.url.replace("http:", "https:")))
            ended.set()

        async with serving(handler) as server, trio.open_nursery() as nursery:
            nursery.start_soon(respond)
            await until(begun)
            await wait_all_tasks_blocked(0.05)
            clock.jump(16)
            await until(ended)

    trio.run(main, clock=clock)


# ---------------------------------------------------------------------------- odd shapes


@pytest.mark.parametrize("place", ["choice", "delta"])
async def test_an_error_inside_a_choice_is_raised_with_its_words(place: str) -> None:
    error = {"error": {"code": 502, "message": "upstream died"}}
    choice = {"delta": {"content": "Hi"}, "finish_reason": "error", **error} if place == "choice" else {"delta": error}

    with pytest.raises(ModelStatusError, match="upstream died") as caught:
        await response_to(whole(event({"choices": [choice]})))
    assert caught.value.status == 502


@pytest.mark.parametrize(
    "content",
    [
        ["Hel", "lo"],
        {"type": "text", "text": "Hello"},
        [{"text": "Hel"}, "lo"],
        [{"type": "text", "text": "Hello"}, None],
    ],
    ids=repr,
)
async def test_content_may_be_a_part_or_a_list(content: Any) -> None:
    assert (await response_to(whole(event(piece({"content": content}))))).text == "Hello"
    last = {"index": 0, "message": {"content": content}, "finish_reason": "stop"}
    assert (await response_to(chunked(said("He"), event({"choices": [last]}), DONE))).text == "Hello"


@pytest.mark.parametrize("content", [5, True])
async def test_content_of_another_type_is_a_broken_protocol(content: Any) -> None:
    with pytest.raises(ModelProtocolError, match="content"):
        await response_to(whole(event(piece({"content": content}))))


async def test_a_call_may_lack_its_inner_object() -> None:
    flat = {"index": "0", "id": "a", "name": "add", "arguments": '{"x":1}'}

    message = await response_to(whole(event(piece({"tool_calls": [flat]}))))

    assert message.calls == (ToolCall("a", "add", '{"x":1}'),)


@pytest.mark.parametrize("calls", [{"id": "a"}, [{"id": "a", "function": "add"}], "add"])
async def test_calls_of_another_type_are_a_broken_protocol(calls: Any) -> None:
    with pytest.raises(ModelProtocolError):
        await response_to(whole(event(piece({"tool_calls": calls}))))


async def test_an_empty_usage_does_not_replace_the_real_one() -> None:
    wire = chunked(said("Hi"), finished(), counted(prompt_tokens=9), counted(prompt_tokens=0), DONE)

    assert (await response_to(wire)).usage == Usage(9)


async def test_usage_that_comes_with_each_chunk_is_reported_before_a_response_breaks_off() -> None:
    begins = event(piece({"content": "Hi"}, usage={"prompt_tokens": 9, "completion_tokens": 1}))
    heard = Heard()

    async with serving(answering(chunked(begins))) as server:
        with pytest.raises(ModelConnectionError):
            await OpenAIChat("m", base_url=server.url).respond(ASK, heard)

    assert heard.reported == Usage(9, 1)
