"""Responses as servers really send them, in all formats: the quirks that cost nothing, and the ends that are none.

The tests are shared, as in ``test_conformance``: each provider writes in its own way.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import pytest

from agentloop import Agent, Retries, tool
from agentloop._core.response import MAX_CHARACTERS
from agentloop.errors import (
    ModelAuthenticationError,
    ModelConnectionError,
    ModelError,
    ModelOutputLimitError,
    ModelProtocolError,
    ModelRateLimitError,
    ModelStatusError,
)
from agentloop.messages import AssistantMessage, Reasoning, Text, ToolCall, Usage
from tests.providers import chat
from tests.providers.chat import ASK, Heard, ask
from tests.providers.conformance import OVER_HTTP, Adapter, Argued, Called, Piece, Said, Thought, parts_of, shown
from tests.providers.sdk import OVER_SDK
from tests.providers.server import DONE, HEAD, Peer, answer, answering, chunk, chunked, event, serving, until_close

ADAPTERS: tuple[Adapter, ...] = (*OVER_HTTP, *OVER_SDK)

pytestmark = [pytest.mark.real_clock]

each_adapter = pytest.mark.parametrize("adapter", ADAPTERS, ids=str)

CALL: tuple[Piece, ...] = (Called(0, "a", "add"), Argued(0, '{"x"'), Argued(0, ":1}"))


async def outcomes_of(adapter: Adapter, answers: Sequence[bytes]) -> list[AssistantMessage | ModelError]:
    """The response, or the error, that comes of each of ``answers``."""
    outcomes: list[AssistantMessage | ModelError] = []
    async with serving(answering(*answers)) as server, adapter.at(server.url) as model:
        for _ in answers:
            try:
                outcomes.append(await ask(model))
            except ModelError as error:
                outcomes.append(error)
    return outcomes


async def responses_to(adapter: Adapter, *answers: bytes) -> list[AssistantMessage]:
    outcomes = await outcomes_of(adapter, answers)
    assert all(isinstance(outcome, AssistantMessage) for outcome in outcomes), outcomes
    return [outcome for outcome in outcomes if isinstance(outcome, AssistantMessage)]


async def errors_of(adapter: Adapter, *answers: bytes) -> list[ModelError]:
    outcomes = await outcomes_of(adapter, answers)
    assert all(isinstance(outcome, ModelError) for outcome in outcomes), outcomes
    return [outcome for outcome in outcomes if isinstance(outcome, ModelError)]


# ------------------------------------------------------------------ what says nothing


NOTHING = (
    b"data: \n\n",
    b"data:\n\n",
    b"data\n\n",
    b"data: \ndata:  \n\n",
    b"data: null\n\n",
    b": keep-alive\n\n",
    b":\n",
    b"event: ping\ndata: ping\n\n",
    b"event: heartbeat\ndata: {}\n\n",
    b"event: keepalive\n\n",
    b"id: 7\nretry: 100\n\n",
    b"data: ping\n\n",
    b'data: "heartbeat"\n\n',
    b"data: [KEEPALIVE]\n\n",
    b"data: : keep-alive\n\n",
)


@each_adapter
async def test_an_event_that_says_nothing_is_a_sign_of_life_and_nothing_else(adapter: Adapter) -> None:
    events, pieces = list(NOTHING), [Thought("Hm"), Said("Hi"), *CALL]
    whole = adapter.wire.whole(*pieces)

    async def handler(peer: Peer) -> None:
        for nothing in events:
            await peer.request()
            await peer.send(HEAD, chunk(nothing))
            await heard.alive.wait()
            await peer.send(chunk(nothing.join(whole) + nothing), chunk(b""))

    async with serving(handler) as server, adapter.at(server.url) as model:
        for _ in events:
            heard = Heard()
            stop = await model.respond(ASK, heard)

            assert shown(heard.message(stop)) == parts_of(pieces)


@each_adapter
async def test_events_may_be_spelled_in_other_ways(adapter: Adapter) -> None:
    """Wrapped by a gateway, with control characters in a text, and with another spelling of the end marker."""
    events = adapter.wire.whole(Said("Hi <tab>"), *CALL)
    plain = b"".join(events)
    answers = [
        chunked(plain.replace(b"data: ", b"data: data: ")),
        chunked(plain.replace(b"<tab>", b"\t")),
        chunked(plain.replace(b"data: [DONE]", b"data:[done]")),
        chunked(plain.replace(b"data: [DONE]", b'data: "[DONE]"')),
    ]

    for message in await responses_to(adapter, *answers):
        assert shown(message)[1:] == parts_of(CALL)
        assert message.text in ("Hi <tab>", "Hi \t")


# -------------------------------------------------------------------- half characters


HIGH, LOW = "<high>", "<low>"


def halved(events: list[bytes]) -> bytes:
    """A whole answer in which the halves of an emoji stand for their marks, as JSON spells them."""
    body = b"".join(events)
    return chunked(body.replace(HIGH.encode(), b"\\ud83d").replace(LOW.encode(), b"\\ude00"))


CUT_EMOJIS: tuple[list[Piece], ...] = (
    [Said(f"Hi {HIGH}"), Said(f"{LOW}!")],
    [Said(f"Hi {HIGH}{LOW}!")],
    [Said("Hi "), Said(HIGH), Said(LOW), Said("!")],
    [Thought(f"Hm {HIGH}"), Thought(LOW), Said("Hi")],
    [Called(0, "a", "add"), Argued(0, f'{{"x":"{HIGH}'), Argued(0, f'{LOW}"}}')],
)


@each_adapter
async def test_an_emoji_that_was_cut_in_two_is_joined(adapter: Adapter) -> None:
    answers = [halved(adapter.wire.whole(*pieces)) for pieces in CUT_EMOJIS]

    for message, pieces in zip(await responses_to(adapter, *answers), CUT_EMOJIS, strict=True):
        assert shown(message) == [_joined(part) for part in parts_of(pieces)]


def _joined(part: Text | Reasoning | ToolCall) -> Text | Reasoning | ToolCall:
    emoji = "\N{GRINNING FACE}"
    if isinstance(part, ToolCall):
        return ToolCall(part.id, part.name, part.arguments.replace(HIGH + LOW, emoji))
    return type(part)(part.text.replace(HIGH + LOW, emoji))


LOST = "\N{REPLACEMENT CHARACTER}"
HALF_EMOJIS: tuple[tuple[list[Piece], str], ...] = (
    ([Said(f"Hi {HIGH}"), Said("!")], f"Hi {LOST}!"),
    ([Said(f"{LOW}Hi")], f"{LOST}Hi"),
    ([Said(f"Hi {LOW}{HIGH}{HIGH}"), Said(f"{LOW}!")], f"Hi {LOST}{LOST}\N{GRINNING FACE}!"),
    ([Said("Hi"), Said(HIGH)], "Hi"),
)


@each_adapter
async def test_half_an_emoji_costs_one_character_at_most(adapter: Adapter) -> None:
    # Without the closing events, which say the whole text once more.
    answers = [halved(adapter.wire.ended_with("length", *pieces)) for pieces, _ in HALF_EMOJIS]

    assert [message.text for message in await responses_to(adapter, *answers)] == [text for _, text in HALF_EMOJIS]


# ----------------------------------------------------------------------------- errors


ERRORS: list[tuple[bytes, type[ModelError], str]] = [
    (b'{"code": 500, "message": "the worker crashed"}', ModelStatusError, "the worker crashed"),
    (b'{"error": {"code": 429, "message": "slow down"}}', ModelRateLimitError, "slow down"),
    (b'{"detail": "the worker crashed"}', ModelStatusError, "the worker crashed"),
    (b'{"type": "error", "message": "the worker crashed"}', ModelStatusError, "the worker crashed"),
    (b"the worker crashed", ModelStatusError, "the worker crashed"),
    (b'["crashed"]', ModelStatusError, "crashed"),
    (b"{}", ModelStatusError, ""),
    (b"", ModelStatusError, "an error without a word"),
]


@each_adapter
async def test_an_event_that_is_named_error_is_one(adapter: Adapter) -> None:
    expected, answers = [], []
    for (data, kind, words), pieces in product(ERRORS, [(), (Said("Once upon"),)]):
        named = b"event: error\ndata: " + data + b"\n\n"
        answers.append(chunked(*adapter.wire.begun(*pieces), named, DONE))
        expected.append((kind, words))

    for error, (kind, words) in zip(await errors_of(adapter, *answers), expected, strict=True):
        assert type(error) is kind
        assert words in str(error)


FOREIGN: list[tuple[dict[str, Any], type[ModelError], str]] = [
    ({"code": 401, "msg": "the token has expired", "success": False}, ModelAuthenticationError, "has expired"),
    ({"status": 429, "message": "slow down"}, ModelRateLimitError, "slow down"),
    ({"statusCode": 503, "error": "Service Unavailable", "message": "no worker"}, ModelStatusError, "Unavailable"),
    ({"detail": "Not authenticated"}, ModelProtocolError, "Not authenticated"),
    ({"errors": ["no such model"]}, ModelProtocolError, "no such model"),
    ({"ok": True}, ModelProtocolError, "ok"),
    ({"error": "the worker crashed"}, ModelStatusError, "the worker crashed"),
    ({"error": {"message": "the worker crashed"}, "type": "error"}, ModelStatusError, "the worker crashed"),
    ({}, ModelProtocolError, "{}"),
]


@each_adapter
async def test_json_of_another_kind_is_an_error_with_the_words_of_the_server(adapter: Adapter) -> None:
    for value, kind, words in FOREIGN:
        told = event(value)
        body = told.removeprefix(b"data: ").strip()
        answers = [answer(body), answer(body, type="text/event-stream"), chunked(told, DONE), chunked(told)]

        for error in await errors_of(adapter, *answers):
            assert type(error) is kind
            assert words in str(error)


@each_adapter
async def test_an_error_without_a_name_before_the_end_marker_is_one(adapter: Adapter) -> None:
    begun = adapter.wire.begun(Said("Once upon"))

    [error] = await errors_of(adapter, chunked(*begun, event({"code": 500, "message": "the worker crashed"}), DONE))

    assert "the worker crashed" in str(error)


@each_adapter
async def test_an_error_that_is_no_event_is_one_all_the_same(adapter: Adapter) -> None:
    """The server began to answer with comments, and then found no provider."""
    [error] = await errors_of(
        adapter, chunked(b": PROCESSING\n\n", b'{"error":{"message":"no provider","code":502}}\n')
    )

    assert isinstance(error, ModelStatusError)
    assert (error.status, error.body.removeprefix("502: ")) == (502, "no provider")


# ---------------------------------------------------------------------------- endings


FAILED = (
    "function_call_filter: MALFORMED_FUNCTION_CALL",
    "MALFORMED_RESPONSE",
    "UNEXPECTED_TOOL_CALL",
    "error",
    "ERROR_LIMIT",
    "network_error",
    "insufficient_system_resource",
    "abort",
    "cancelled",
    "OTHER",
    "FINISH_REASON_UNSPECIFIED",
    "MISSING_THOUGHT_SIGNATURE",
    "TIMEOUT",
)


@each_adapter
async def test_a_reason_that_names_a_failure_is_an_error_that_shows_it(adapter: Adapter) -> None:
    reasons = list(product(FAILED, [(), (Said("Once upon"),), CALL]))
    answers = [chunked(*adapter.wire.ended_with(reason, *pieces)) for reason, pieces in reasons]

    for error, (reason, _) in zip(await errors_of(adapter, *answers), reasons, strict=True):
        assert type(error) is ModelProtocolError
        assert repr(reason) in str(error)


LIMITS = ("length", "max_tokens", "MAX_TOKENS", "model_length", "max_output_tokens", "model_context_window_exceeded")
REFUSALS = ("content_filter", "SAFETY", "RECITATION", "guardrail_intervened", "sensitive")


@each_adapter
async def test_each_word_for_a_limit_or_a_refusal_is_known(adapter: Adapter) -> None:
    answers = [chunked(*adapter.wire.ended_with(reason, Said("I"), *CALL)) for reason in (*LIMITS, *REFUSALS)]

    stops = [message.stop for message in await responses_to(adapter, *answers)]

    assert stops == ["length"] * len(LIMITS) + ["refusal"] * len(REFUSALS)


@each_adapter
async def test_an_unknown_reason_is_an_end_if_there_is_an_answer(adapter: Adapter) -> None:
    wire = adapter.wire
    answers = [wire.ended_with("something_new", Said("Hi")), wire.ended_with("x", Said("Hi"), *CALL)]

    messages = await responses_to(adapter, *(chunked(*events) for events in answers))

    assert [message.stop for message in messages] == ["end", "tool_calls"]


NO_ANSWERS: tuple[tuple[Piece, ...], ...] = (
    (),
    (Said(" \n"),),
    (Thought("Hm"),),
    (Called(0, "a", "add"), Argued(0, "{")),
    (*CALL, Called(1, "b", "add"), Argued(1, "{")),
)


@each_adapter
async def test_an_unknown_reason_without_an_answer_is_an_error(adapter: Adapter) -> None:
    answers = [chunked(*adapter.wire.ended_with("something_new", *pieces)) for pieces in NO_ANSWERS]

    for error in await errors_of(adapter, *answers):
        assert type(error) is ModelProtocolError
        assert "'something_new'" in str(error)


@each_adapter
async def test_an_end_marker_without_a_reason_is_no_end_without_an_answer(adapter: Adapter) -> None:
    all_pieces = [*NO_ANSWERS, (Called(0, "a", "add"),)]

    errors = await errors_of(adapter, *(chunked(*adapter.wire.marked(*pieces)) for pieces in all_pieces))

    assert {type(error) for error in errors} <= {ModelProtocolError, ModelConnectionError}


WITH_REASON_AND_MARKER = [adapter for adapter in ADAPTERS if adapter.name != "responses"]
"""The formats in which a reason and an end marker come one after the other."""
each_with_marker = pytest.mark.parametrize("adapter", WITH_REASON_AND_MARKER, ids=str)


@each_with_marker
async def test_an_end_marker_without_a_reason_is_an_end_after_an_answer(adapter: Adapter) -> None:
    answers = [chunked(*adapter.wire.marked(*pieces)) for pieces in ((Said("Hi"),), CALL)]

    assert [shown(message) for message in await responses_to(adapter, *answers)] == [[Text("Hi")], parts_of(CALL)]


@each_with_marker
async def test_a_response_that_goes_on_after_its_reason_ends_with_its_marker(adapter: Adapter) -> None:
    *begun, first, marker = adapter.wire.ended_with("end_turn", Said("one "))
    [*_, more] = adapter.wire.begun(Said("two "))
    events = [*begun, first, more, first, more, first]

    [message, error] = await outcomes_of(adapter, [chunked(*events, marker), until_close(b"".join(events))])

    assert isinstance(message, AssistantMessage)
    assert message.text == "one two two "
    # Without the marker, nothing says that it was all.
    assert type(error) is ModelConnectionError


@each_with_marker
async def test_of_several_reasons_the_most_cautious_counts(adapter: Adapter) -> None:
    answers = []
    for reasons in (("end_turn", "max_tokens"), ("max_tokens", "end_turn"), ("stop", "length", "stop")):
        [*begun, _, marker] = adapter.wire.ended_with("stop", Said("Hi"))
        endings = [adapter.wire.ended_with(reason)[-2] for reason in reasons]
        answers.append(chunked(*begun, *endings, marker))

    assert {message.stop for message in await responses_to(adapter, *answers)} == {"length"}


# ----------------------------------------------------------------------- cut-off calls


RAN: list[str] = []


@tool
async def clean(path: str = "/") -> str:
    """Delete everything below a path."""
    RAN.append(path)
    return "done"


@each_adapter
async def test_no_call_of_a_response_that_was_cut_off_runs(adapter: Adapter) -> None:
    RAN.clear()
    answers = [
        adapter.wire.whole(Called(0, "a", "clean"), Called(1, "b", "clean"), Argued(1, "{"), stop="length"),
        adapter.wire.whole(Called(0, "c", "clean"), Argued(0, '{"path": "/tm"}'), stop="length"),
        adapter.wire.whole(Called(0, "d", "clean"), Argued(0, '{"path":"/tmp"}'), stop="tool_calls"),
        adapter.wire.whole(Said("Done.")),
    ]
    async with (
        serving(answering(*(chunked(*events) for events in answers))) as server,
        adapter.at(server.url) as model,
    ):
        outcome = await Agent(model, tools=[clean]).run("Clean up.")

        assert "cut off" in server.requests[1].body.decode()
    assert RAN == ["/tmp"]
    assert outcome.output == "Done."


@each_adapter
async def test_a_failure_that_the_server_names_as_its_reason_is_retried(adapter: Adapter) -> None:
    answers = [adapter.wire.ended_with("MALFORMED_FUNCTION_CALL"), adapter.wire.whole(Said("The answer."))]
    async with (
        serving(answering(*(chunked(*events) for events in answers))) as server,
        adapter.at(server.url) as model,
    ):
        assert (await Agent(model, retries=Retries(delay=0)).run("Go.")).output == "The answer."


@each_adapter
async def test_an_empty_response_is_requested_once_more(adapter: Adapter) -> None:
    answers = [adapter.wire.whole(Thought("Hm. ")), adapter.wire.whole(Said("The answer."))]
    async with (
        serving(answering(*(chunked(*events) for events in answers))) as server,
        adapter.at(server.url) as model,
    ):
        assert (await Agent(model).run("Go.")).output == "The answer."


# ------------------------------------------------------------------- said at the end


SAID_BEFORE: tuple[tuple[Piece, ...], ...] = (
    (),
    (Said("He"),),
    (Said("Hello."), Called(0, "a", "clean")),
    (Said("Hello."), Called(0, "a", "clean"), Argued(0, '{"path":')),
    (Said("Hello."), Called(0, "a", "clean"), Argued(0, '{"path":"/tmp"}')),
)


@each_adapter
async def test_closing_events_add_what_the_deltas_left_out(adapter: Adapter) -> None:
    call = ToolCall("a", "clean", '{"path":"/tmp"}')
    answers = [chunked(*adapter.wire.closed(*before, text="Hello.", calls=[call])) for before in SAID_BEFORE]

    for message in await responses_to(adapter, *answers):
        assert shown(message) == [Text("Hello."), call]


@each_adapter
async def test_closing_events_in_another_spelling_change_nothing(adapter: Adapter) -> None:
    pieces: list[Piece] = [Said("Hello."), Called(0, "a", "clean"), Argued(0, '{"path": "/tmp"}')]
    again = ToolCall("a", "clean", '{"path":"/tmp"}')

    [message] = await responses_to(adapter, chunked(*adapter.wire.closed(*pieces, text="Hello!", calls=[again])))

    assert shown(message) == parts_of(pieces)


@each_adapter
async def test_two_versions_of_arguments_of_which_none_is_whole_are_an_error(adapter: Adapter) -> None:
    pieces: list[Piece] = [Called(0, "a", "clean"), Argued(0, '{"pat')]
    other = ToolCall("a", "clean", '{"root":"/tmp"}')

    [error] = await errors_of(adapter, chunked(*adapter.wire.closed(*pieces, calls=[other])))

    assert type(error) is ModelProtocolError
    assert "two versions" in str(error)


# -------------------------------------------------------------------- values of odd types


@each_adapter
async def test_an_id_may_be_a_number(adapter: Adapter) -> None:
    ids: list[Any] = [0, 7, -1]
    answers = [chunked(*adapter.wire.whole(Called(0, id, "add"), Argued(0, "{}"))) for id in ids]

    calls = [message.calls for message in await responses_to(adapter, *answers)]

    assert calls == [(ToolCall(str(id), "add", "{}"),) for id in ids]


USAGES: list[tuple[Any, int]] = [
    ("12", 12),
    (12.0, 12),
    (12.5, 0),
    (-5, 0),
    (None, 0),
    ([], 0),
    ({}, 0),
    (True, 0),
    ("many", 0),
    ([1, 2], 0),
]


@each_adapter
async def test_odd_usage_does_not_cost_the_response(adapter: Adapter) -> None:
    answers = [chunked(*adapter.wire.counted(usage, Said("Hi"))) for usage, _ in USAGES]
    # Numbers that Python's encoders do not write.
    [number] = [b"".join(adapter.wire.counted(12345, Said("Hi")))]
    answers += [chunked(number.replace(b"12345", odd)) for odd in (b"1e30", b"NaN", b"-Infinity", b"9" * 40)]

    messages = await responses_to(adapter, *answers)

    assert {message.text for message in messages} == {"Hi"}
    counts = [tokens for _, tokens in USAGES]
    assert [message.usage for message in messages[: len(counts)]] == [Usage(tokens, tokens) for tokens in counts]


UNKNOWN: list[dict[str, Any]] = [
    {"type": "debug", "content": "cache hit", "usage": ["a"], "delta": 7, "index": "x", "message": [], "choices": "no"},
    {"type": "debug", "item": 7, "response": "no", "output_index": "x", "arguments": {}, "content_block": [1]},
    {"type": "response.new", "delta": {"text": [1]}, "item": [], "part": 7, "text": {}},
    {"type": "new_block", "content_block": {"type": "text", "text": [1]}, "stop_reason": 7, "model": {}},
]


@each_adapter
async def test_an_unknown_event_is_passed_over_whatever_its_fields_hold(adapter: Adapter) -> None:
    whole = adapter.wire.whole(Said("Hi"), *CALL)
    answers = [chunked(event(value) + event(value).join(whole)) for value in UNKNOWN]

    for message in await responses_to(adapter, *answers):
        assert shown(message) == parts_of([Said("Hi"), *CALL])


@each_adapter
async def test_an_encoding_that_compresses_nothing_is_none(adapter: Adapter) -> None:
    body = b"".join(adapter.wire.whole(Said("Hi")))
    encodings = ("none", "", "utf-8", "identity", "Identity, none", "chunked")
    answers = [
        answer(body, type="text/event-stream", extra=f"Content-Encoding: {encoding}\r\n") for encoding in encodings
    ]

    assert {message.text for message in await responses_to(adapter, *answers)} == {"Hi"}


# ---------------------------------------------------------------------------- bounds


@each_adapter
async def test_a_response_without_an_end_is_given_up(adapter: Adapter) -> None:
    closed = False
    [*begun, more] = adapter.wire.begun(Said("Hi"), Said("x" * 2**20))

    async def handler(peer: Peer) -> None:
        nonlocal closed
        await peer.request()
        try:
            await peer.send(HEAD, *map(chunk, begun))
            for _ in range(2 * MAX_CHARACTERS // 2**20):
                await peer.send(chunk(more))
        except OSError:
            pass
        closed = True

    async with serving(handler) as server, adapter.at(server.url) as model:
        with pytest.raises(ModelOutputLimitError, match="characters"):
            await Agent(model).run("Go.")


# ----------------------------------------------------------------- whose arguments are these?


def delta(index: int | None, id: str | None, name: str | None, arguments: Any) -> bytes:
    return chat.called(index, id, name, arguments)


TWO = [("now", "{}"), ("add", '{"a":1}')]


TWO_CALLS: list[list[bytes]] = [
    [delta(0, None, "now", {}), delta(0, None, "add", '{"a":1}')],
    [delta(0, None, "now", []), delta(0, None, "add", {"a": 1})],
    [delta(None, None, "now", "{}"), delta(None, None, "add", '{"a"'), delta(None, None, None, ":1}")],
    [delta(0, "x", "now", "{}"), delta(0, "x", "add", '{"a":1}')],
    [delta(0, "x", "now", "{}"), delta(1, "x", "add", '{"a":1}')],
    [
        delta(0, "x", "now", ""),
        delta(0, "y", "add", ""),
        delta(0, "y", None, '{"a"'),
        delta(0, "x", None, "{"),
        delta(0, "y", None, ":1}"),
        delta(0, "x", None, "}"),
    ],
    [
        delta(None, "x", "now", ""),
        delta(None, "y", "add", '{"a"'),
        delta(None, "x", None, "{}"),
        delta(None, "y", None, ":1}"),
    ],
    [delta(None, "x", "now", "{}"), delta(None, "y1", "add", '{"a"'), delta(None, "y2", None, ":1}")],
    [delta(0, "x", "now", "{}"), delta(1, "y", "add", '{"a":1}'), delta(1, "y", "add", '{"a":1}')],
    [delta(0, "x", "now", "{}"), delta(1, "y", "add", '{"a":1}'), delta(1, "y", "add", "")],
    [delta(0, "x", "now", "{}"), delta(1, "y", "add", '{"a"'), delta(1, "y", "add", ":1}")],
    [delta(1, "x", "now", "{}"), delta(7, "y", "add", '{"a":1}')],
]


async def test_calls_are_told_apart_by_index_by_id_or_by_order_alone() -> None:
    answers = [chat.whole(*deltas, finish="tool_calls") for deltas in TWO_CALLS]
    [adapter, *_] = ADAPTERS

    for message in await responses_to(adapter, *answers):
        assert [(call.name, call.arguments) for call in message.calls] == TWO


async def test_a_call_without_arguments_never_takes_those_of_the_next() -> None:
    none: list[Any] = ["", "{}", {}, None]
    second = delta(0, None, *TWO[1])
    answers = [chat.whole(delta(0, None, "now", arguments), second, finish="tool_calls") for arguments in none]
    [adapter, *_] = ADAPTERS

    for message in await responses_to(adapter, *answers):
        assert [call.name for call in message.calls] == ["now", "add"]
        assert [call.arguments for call in message.calls] in (["", TWO[1][1]], ["{}", TWO[1][1]])
