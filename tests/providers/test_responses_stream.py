"""What OpenAI's Responses API says, and servers that speak like it, in all the ways in which they were seen to."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from agentloop.errors import ModelConnectionError, ModelProtocolError, ModelStatusError
from agentloop.messages import AssistantMessage, Reasoning, Text, ToolCall, Usage
from agentloop.providers.openai_responses import OpenAIResponses
from tests.providers.chat import ASK, Heard, ask
from tests.providers.responses import (
    BEGUN,
    call,
    call_begun,
    call_ended,
    call_piece,
    ended,
    message,
    response,
    said,
    thought,
    told,
    whole,
    whole_call,
    whole_message,
    whole_thought,
)
from tests.providers.server import DONE, answer, answering, chunked, event, serving, until_close

pytestmark = pytest.mark.real_clock


async def response_to(*answers: bytes | list[bytes]) -> AssistantMessage:
    async with serving(answering(*answers)) as server:
        return await ask(OpenAIResponses("m", base_url=server.url))


async def heard_from(*answers: bytes) -> Heard:
    heard = Heard()
    async with serving(answering(*answers)) as server:
        await OpenAIResponses("m", base_url=server.url).respond(ASK, heard)
    return heard


def shown(message: AssistantMessage) -> list[Any]:
    """The parts, without what is kept for the server."""
    return [Reasoning(part.text) if isinstance(part, Reasoning) else part for part in message.parts]


# ---------------------------------------------------------------------------------- text


async def test_events_of_unknown_types_are_ignored() -> None:
    """Also where their fields are not what those of known types are."""
    odd = told("response.future.delta", delta={"x": 1}, item=[1], response="?", error=7, arguments=[], code={})
    keep_alive = told("keepalive", sequence_number=3)
    hosted = told("response.output_item.added", output_index=0, item={"type": "web_search_call", "id": "ws_1"}) + told(
        "response.output_item.done", output_index=0, item={"type": "web_search_call", "action": {"query": "x"}}
    )

    heard = await response_to(whole(odd, keep_alive, hosted, whole_message("Hi", index=1), odd))

    assert heard.parts == (Text("Hi"),)


async def test_two_messages_of_a_response_do_not_run_into_one_another() -> None:
    response = whole(whole_message("Let me ", "look."), whole_message("It is 3.", index=1))

    assert (await response_to(response)).text == "Let me look.\n\nIt is 3."


async def test_a_message_without_pieces_is_told_when_it_is_done() -> None:
    done = told("response.output_item.done", output_index=0, item=message("Hello"))

    assert (await response_to(whole(done))).text == "Hello"


async def test_items_may_come_with_the_end_only() -> None:
    output = [thought("Hm."), message("I add."), call("c1", "add", '{"a":1}')]

    answered = await response_to(chunked(BEGUN, ended(output=output)))

    assert shown(answered) == [Reasoning("Hm."), Text("I add."), ToolCall("c1", "add", '{"a":1}')]


async def test_what_was_told_is_not_told_again_at_the_end() -> None:
    output = [thought("Hm."), message("Hi"), call("c1", "add", "{}")]
    events = [whole_thought("Hm."), whole_message("Hi", index=1), whole_call(2, "c1", "add", "{}")]

    answered = await response_to(whole(*events, output=output))

    assert shown(answered) == [Reasoning("Hm."), Text("Hi"), ToolCall("c1", "add", "{}")]


async def test_an_answer_without_a_stream_is_one_too() -> None:
    """Some gateways do not know ``stream``."""
    usage = {"input_tokens": 3, "output_tokens": 1, "total_tokens": 4}
    body = msgspec.json.encode(response(output=[message("Hm."), call("c1", "add", '{"a":1}')], usage=usage))

    for wire in (answer(body), answer(b"\n " + body, type="text/plain"), until_close(body, type="application/json")):
        answered = await response_to(wire)

        assert answered.parts == (Text("Hm."), ToolCall("c1", "add", '{"a":1}'))
        assert answered.usage.input_tokens == 3


# ----------------------------------------------------------------------------- reasoning


async def test_the_summary_of_the_reasoning_is_shown_by_paragraphs() -> None:
    answered = await response_to(whole(whole_thought("First.", "Second."), whole_message("Yes", index=1)))

    assert shown(answered) == [Reasoning("First.\n\nSecond."), Text("Yes")]


async def test_reasoning_in_plain_text_is_shown() -> None:
    """Models whose reasoning is no secret send it as it is."""
    text = told("response.reasoning_text.delta", item_id="rs", output_index=0, content_index=0, delta="Hm.")
    done = told("response.output_item.done", output_index=0, item={"type": "reasoning", "id": "rs", "summary": []})

    answered = await response_to(whole(text, done, whole_message("Yes", index=1)))

    assert answered.parts == (Reasoning("Hm."), Text("Yes"))


async def test_of_reasoning_and_its_summary_one_is_shown() -> None:
    text = told("response.reasoning_text.delta", output_index=0, delta="Hm.")
    summary = told("response.reasoning_summary_text.delta", output_index=0, delta="It thinks.")
    part = told("response.reasoning_summary_part.added", output_index=0)

    answered = await response_to(whole(text, part, summary, text, whole_message("Yes", index=1)))

    assert shown(answered) == [Reasoning("Hm.Hm."), Text("Yes")]


async def test_reasoning_without_pieces_is_told_when_it_is_done() -> None:
    done = told("response.output_item.done", output_index=0, item=thought("First.", "Second."))

    assert shown(await response_to(whole(done)))[0] == Reasoning("First.\n\nSecond.")


async def test_reasoning_that_shows_nothing_is_no_part_unless_it_is_kept() -> None:
    def done(encrypted: str | None) -> bytes:
        return told("response.output_item.done", output_index=0, item=thought(encrypted=encrypted))

    assert (await response_to(whole(done(None), whole_message("Yes", index=1)))).parts == (Text("Yes"),)
    assert len((await response_to(whole(done("gAAA"), whole_message("Yes", index=1)))).parts) == 2


# ---------------------------------------------------------------------------- tool calls


def calls_of(message: AssistantMessage) -> list[tuple[str, str, str]]:
    return [(call.id, call.name, call.arguments) for call in message.calls]


async def test_a_call_comes_piece_by_piece_under_the_id_of_its_result() -> None:
    heard = await heard_from(whole(whole_call(0, "c1", "add", '{"a":1}')))

    assert heard.pieces == [
        ("tool_call", 0, "c1", "add", ""),
        ("tool_call", 0, "", "", '{"a'),
        ("tool_call", 0, "", "", '":1}'),
    ]


async def test_arguments_without_pieces_are_told_when_they_are_done() -> None:
    answered = await response_to(whole(call_begun(0, "a", "add"), call_ended(0, "a", "add", '{"x":1}')))

    assert calls_of(answered) == [("a", "add", '{"x":1}')]


async def test_a_call_may_come_whole() -> None:
    done = told("response.output_item.done", output_index=0, item=call("a", "add", '{"x":1}'))

    assert calls_of(await response_to(whole(done))) == [("a", "add", '{"x":1}')]


async def test_arguments_may_be_an_object() -> None:
    item = {**call("a", "add"), "arguments": {"x": 1}}

    answered = await response_to(whole(told("response.output_item.done", output_index=0, item=item)))

    assert calls_of(answered) == [("a", "add", '{"x":1}')]


async def test_a_call_without_an_id_for_its_result_goes_by_its_own() -> None:
    item = {**call("a", "add", "{}"), "call_id": None}

    answered = await response_to(whole(told("response.output_item.done", output_index=0, item=item)))

    assert calls_of(answered) == [("fc_a", "add", "{}")]


async def test_items_without_an_index_come_one_after_the_other() -> None:
    def begun(id: str) -> bytes:
        return told("response.output_item.added", item=call(id, "add"))

    def piece(arguments: str) -> bytes:
        return told("response.function_call_arguments.delta", delta=arguments)

    answered = await response_to(whole(begun("a"), piece('{"x":'), piece("1}"), begun("b"), piece("{}")))

    assert calls_of(answered) == [("a", "add", '{"x":1}'), ("b", "add", "{}")]


async def test_items_that_are_null_are_ignored() -> None:
    added, done = (told(f"response.output_item.{what}", output_index=0, item=None) for what in ("added", "done"))

    assert (await response_to(whole(added, done, whole_message("Hi")))).parts == (Text("Hi"),)


# -------------------------------------------------------------------------------- endings


@pytest.mark.parametrize(
    ("reason", "stop"), [("max_output_tokens", "length"), ("content_filter", "refusal"), ("max_x", "length")]
)
async def test_an_incomplete_response_says_why(reason: str, stop: str) -> None:
    end = ended("incomplete", incomplete_details={"reason": reason})

    answered = await response_to(chunked(BEGUN, whole_message("Once"), end))

    assert (answered.text, answered.stop) == ("Once", stop)


async def test_an_incomplete_response_may_not_say_why() -> None:
    assert (await response_to(chunked(BEGUN, ended("incomplete")))).stop == "length"


async def test_an_end_may_have_no_response_in_it() -> None:
    answered = await response_to(chunked(said("Hi"), told("response.completed")))

    assert (answered.text, answered.stop, answered.model) == ("Hi", "end", "m")


async def test_a_refusal_is_told_as_text() -> None:
    pieces = [
        told("response.refusal.delta", item_id="msg_1", output_index=0, content_index=0, delta=text)
        for text in ("I can", "not.")
    ]
    refusal = message(content=[{"type": "refusal", "refusal": "I cannot."}])
    done = told("response.output_item.done", output_index=0, item=refusal)

    for wire in (whole(*pieces, done), whole(done), whole(output=[refusal])):
        answered = await response_to(wire)

        assert (answered.text, answered.stop) == ("I cannot.", "refusal")


async def test_usage_may_leave_things_out() -> None:
    usage = {"input_tokens": 9, "output_tokens": None, "input_tokens_details": None}

    assert (await response_to(whole(usage=usage))).usage == Usage(input_tokens=9)


async def test_what_comes_after_the_end_is_ignored() -> None:
    body = chunked(BEGUN, whole_message("Hi"), ended(), said("!"), b"data: nonsense\n\n", DONE)

    assert (await response_to(body)).text == "Hi"


# --------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        ({"type": "error", "code": "rate_limit_exceeded", "message": "No"}, 429, "rate_limit_exceeded: No"),
        (
            {"type": "error", "error": {"type": "tokens", "code": "rate_limit_exceeded", "message": "No"}},
            429,
            "rate_limit_exceeded: No",
        ),
        ({"type": "error", "error": {"type": "insufficient_quota", "message": "Pay"}}, 429, "Pay"),
        ({"type": "error", "error": {"type": "invalid_request_error", "message": "No", "code": None}}, 400, "No"),
        (
            {
                "type": "error",
                "error": {"type": "invalid_request_error", "code": "insufficient_quota", "message": "Pay"},
            },
            429,
            "insufficient_quota: Pay",
        ),
        ({"type": "error", "code": 502, "message": "Upstream"}, 502, "Upstream"),
        ({"type": "error", "code": "429", "message": "Slow"}, 429, "429: Slow"),
        ({"type": "error", "message": "Oops", "code": None}, 500, "Oops"),
        ({"type": "error"}, 500, '{"type":"error"}'),
        ({"error": "crashed"}, 500, "crashed"),
        ({"type": "error", "error": {"reason": 7}}, 500, '{"reason":7}'),
    ],
)
async def test_an_error_in_mid_stream_is_raised(error: dict[str, Any], status: int, said: str) -> None:
    with pytest.raises(ModelStatusError) as caught:
        await response_to(chunked(BEGUN, whole_message("Hi"), event(error)))

    assert (caught.value.status, caught.value.body) == (status, said)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("server_error", 500),
        ("rate_limit_exceeded", 429),
        ("context_length_exceeded", 400),
        ("invalid_prompt", 400),
        ("image_too_large", 400),
        ("unsupported_image_media_type", 400),
        ("vector_store_timeout", 504),
    ],
)
async def test_a_response_that_failed_is_raised(code: str, status: int) -> None:
    failed = ended("failed", error={"code": code, "message": "Sorry."})

    with pytest.raises(ModelStatusError) as caught:
        await response_to(chunked(BEGUN, whole_message("Hi"), failed))

    assert (caught.value.status, caught.value.body) == (status, f"{code}: Sorry.")


async def test_a_response_may_fail_without_a_reason() -> None:
    with pytest.raises(ModelStatusError, match="the response failed"):
        await response_to(chunked(BEGUN, ended("failed")))


async def test_an_answer_without_a_stream_may_be_an_error() -> None:
    for body in ({"error": {"code": "server_error", "message": "No"}}, response("failed", error={"message": "No"})):
        with pytest.raises(ModelStatusError, match="No"):
            await response_to(answer(msgspec.json.encode(body)))


async def test_a_response_that_was_cancelled_by_the_server_is_a_broken_protocol() -> None:
    with pytest.raises(ModelProtocolError, match="ended its response as 'cancelled'"):
        await response_to(chunked(BEGUN, said("Hi"), ended("cancelled")))


async def test_json_that_is_no_response_is_a_broken_protocol() -> None:
    """Such as the answer of another protocol."""
    with pytest.raises(ModelProtocolError, match=r"JSON that is no response: b'\{\"choices\""):
        await response_to(answer(b'{"choices":[]}'))


@pytest.mark.parametrize(
    "data",
    [
        b"{nonsense",
        b"7",
        b'{"type":7}',
        b'{"type":"response.output_item.done","output_index":0,"item":7}',
        b'{"type":"response.completed","response":[]}',
        b'{"type":"response.output_text.delta","delta":"\xff"}',
    ],
)
async def test_json_of_another_shape_is_a_broken_protocol(data: bytes) -> None:
    with pytest.raises(ModelProtocolError, match=r"model 'm' sent .*b'"):
        await response_to(chunked(BEGUN, b"data: " + data + b"\n\n"))


async def test_a_stream_that_is_done_without_an_end_was_cut_off() -> None:
    for body in (chunked(), chunked(BEGUN, whole_message("Hi")), chunked(BEGUN, whole_message("Hi"), DONE)):
        with pytest.raises(ModelConnectionError, match="ended before the response did"):
            await response_to(body)


# --------------------------------------------------------------- said at the end, or oddly


def added(index: int | None, id: str, name: str, arguments: str = "") -> bytes:
    fields = {} if index is None else {"output_index": index}
    return told("response.output_item.added", **fields, item=call(id, name, arguments))


async def test_a_call_never_gets_the_arguments_of_another_at_the_end() -> None:
    begun = added(0, "a", "add") + added(1, "b", "mul")
    same_name = added(0, "a", "add", "") + call_piece(0, '{"x":1}')
    a, b = call("a", "add", '{"x":1}'), call("b", "mul", '{"y":2}')
    bodies = [
        chunked(BEGUN, begun, ended(output=[b, a])),
        # Ids of their own in the last event.
        chunked(BEGUN, begun, ended(output=[{**b, "call_id": "q", "id": "q"}, {**a, "call_id": "p", "id": "p"}])),
        chunked(BEGUN, begun, ended(output=[thought("Hm"), a, b])),
    ]
    for body in bodies:
        assert calls_of(await response_to(body)) == [("a", "add", '{"x":1}'), ("b", "mul", '{"y":2}')]

    again = {**a, "call_id": "c", "id": "c", "arguments": '{"x":2}'}
    calls = calls_of(await response_to(chunked(BEGUN, same_name, ended(output=[a, again]))))
    assert calls == [("a", "add", '{"x":1}'), ("c", "add", '{"x":2}')]


async def test_items_without_an_index_are_told_apart() -> None:
    done = [told("response.output_item.done", item=call(id, name, "{}")) for id, name in (("a", "add"), ("b", "mul"))]

    assert calls_of(await response_to(whole(*done))) == [("a", "add", "{}"), ("b", "mul", "{}")]


async def test_pieces_without_an_index_belong_to_the_item_with_their_id() -> None:
    begun = added(None, "a", "add") + added(None, "b", "mul")
    pieces = [
        told("response.function_call_arguments.delta", item_id=f"fc_{id}", delta=piece)
        for id, piece in (("a", '{"x"'), ("b", '{"y"'), ("a", ":1}"), ("b", ":2}"))
    ]

    calls = calls_of(await response_to(whole(begun, *pieces)))

    assert calls == [("a", "add", '{"x":1}'), ("b", "mul", '{"y":2}')]


async def test_a_call_may_have_all_of_its_arguments_at_its_beginning() -> None:
    assert calls_of(await response_to(whole(added(0, "a", "add", '{"x":1}')))) == [("a", "add", '{"x":1}')]
    pieces = call_piece(0, '{"x":') + call_piece(0, "1}")
    assert calls_of(await response_to(whole(added(0, "a", "add", "{}"), pieces))) == [("a", "add", '{"x":1}')]


async def test_the_name_of_a_call_may_come_with_its_whole_arguments() -> None:
    done = told("response.function_call_arguments.done", output_index=0, name="add", arguments='{"x":1}')

    assert [call[1:] for call in calls_of(await response_to(whole(done)))] == [("add", '{"x":1}')]


@pytest.mark.parametrize(
    "events",
    [
        [told("response.output_text.done", output_index=0, content_index=0, text="Hello")],
        [told("response.content_part.done", output_index=0, part={"type": "output_text", "text": "Hello"})],
        [said("Hel"), told("response.output_text.done", output_index=0, content_index=0, text="Hello")],
        [
            told("response.output_text.delta", output_index=0, content_index=0, delta="Hel"),
            told("response.output_text.done", output_index=0, content_index=0, text="Hel"),
            told("response.output_text.done", output_index=0, content_index=1, text="lo"),
        ],
        [ended(output_text="Hello")],
        [ended(output=[{"type": "message", "content": "Hello"}])],
    ],
    ids=["text", "part", "end of text", "second part", "field", "content"],
)
async def test_text_that_only_closing_events_have_is_the_answer(events: list[bytes]) -> None:
    assert (await response_to(whole(*events))).text == "Hello"


async def test_a_call_that_is_incomplete_is_cut_off() -> None:
    cut = told("response.output_item.done", output_index=0, item=call("a", "add", '{"x"', status="incomplete"))

    assert (await response_to(whole(cut))).stop == "length"


async def test_text_of_another_type_is_a_broken_protocol() -> None:
    with pytest.raises(ModelProtocolError, match="delta of text"):
        await response_to(whole(told("response.output_text.delta", output_index=0, delta=["Hi"])))


@pytest.mark.parametrize("output", [{}, "none", 7])
async def test_an_odd_output_does_not_cost_what_was_said(output: Any) -> None:
    assert (await response_to(chunked(BEGUN, said("Hi"), ended(output=output)))).text == "Hi"


@pytest.mark.parametrize(
    "events",
    [
        [told("response.in_progress", response=response("in_progress", usage={"input_tokens": 9})), said("Hi")],
        [said("Hi"), ended("failed", usage={"input_tokens": 9}, error={"code": "server_error", "message": "no"})],
    ],
    ids=["at its beginning", "with its failure"],
)
async def test_the_usage_of_a_response_that_fails_is_reported(events: list[bytes]) -> None:
    heard = Heard()

    async with serving(answering(chunked(*events))) as server:
        with pytest.raises((ModelConnectionError, ModelStatusError)):
            await OpenAIResponses("m", base_url=server.url).respond(ASK, heard)

    assert heard.reported == Usage(9)


@pytest.mark.parametrize("odd", ["?", [1], {"usage": "?"}, {"usage": {"input_tokens": "?"}}])
async def test_odd_usage_before_the_end_does_not_spoil_a_response(odd: Any) -> None:
    begins = told("response.in_progress", response=odd)

    assert (await response_to(whole(begins, whole_message("Hi")))).text == "Hi"
