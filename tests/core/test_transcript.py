"""The rules of a transcript, and the state of a session."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from agentloop._core.transcript import Transcript, close_turn, interrupted_result, problems
from agentloop.errors import SessionBusyError
from agentloop.messages import AssistantMessage, Message, Text, ToolCall, ToolResult, UserMessage

HI = UserMessage((Text("Hi"),))
ANSWER = AssistantMessage((Text("Hello"),))


def call(*ids: str) -> AssistantMessage:
    return AssistantMessage(tuple(ToolCall(id, "f", "{}") for id in ids), "tool_calls")


def result(id: str) -> ToolResult:
    return ToolResult(id, "f", (Text("ok"),))


# ----------------------------------------------------------------------- what a provider takes


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [HI],
        [HI, ANSWER],
        [HI, call("a"), result("a"), ANSWER],
        [HI, call("a", "b"), result("a"), result("b"), call("c"), result("c"), HI, HI, ANSWER],
        [ANSWER, ANSWER],
    ],
)
def test_a_good_transcript_has_no_problems(messages: list[Message]) -> None:
    assert problems(messages) == []


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ([HI, call("a")], "the last message: call 'a' has no result"),
        ([HI, call("a"), HI], "message 2: call 'a' has no result before it"),
        ([HI, call("a"), ANSWER], "message 2: call 'a' has no result before it"),
        ([call("a", "b"), result("a"), HI], "message 2: call 'b' has no result before it"),
        ([result("a")], "message 0: a result of call 'a' that no message before it asks for"),
        ([call("a"), result("a"), result("a")], "message 2: a result of call 'a' that no message before it asks for"),
        ([call("a"), result("b")], "message 1: a result of call 'b' where 'a' is due"),
        ([call("a", "b"), result("b"), result("a")], "message 1: a result of call 'b' where 'a' is due"),
        ([call("a"), result("a"), call("a"), result("a")], "message 2: the call id 'a' was used before"),
        ([call("a", "a"), result("a"), result("a")], "message 0: the call id 'a' was used before"),
    ],
)
def test_the_problems_of_a_transcript_are_what_providers_refuse(messages: list[Message], problem: str) -> None:
    assert problem in problems(messages)


# ---------------------------------------------------------------------------- closing a turn

ids = st.lists(st.text("abcdef", min_size=1, max_size=2), unique=True, max_size=6)


@given(ids, st.data())
def test_a_closed_turn_has_one_result_for_each_call_in_call_order_whatever_is_known(
    call_ids: list[str], data: st.DataObject
) -> None:
    known = set(data.draw(st.lists(st.sampled_from([*call_ids, "other"]))))
    started = set(data.draw(st.lists(st.sampled_from([*call_ids, "other"]))))
    turn = close_turn(call(*call_ids), {id: result(id) for id in known}, started)

    assert problems(turn) == []
    for id, message in zip(call_ids, turn[1:], strict=True):
        assert isinstance(message, ToolResult)
        assert message.call_id == id
        assert message.status == ("ok" if id in known else "interrupted")


def test_an_interrupted_call_says_whether_it_can_have_had_an_effect() -> None:
    one = ToolCall("a", "f", "{}")
    assert "may have run" in interrupted_result(one, started=True).text
    assert "did not run" in interrupted_result(one, started=False).text


@given(st.lists(st.one_of(st.just("say"), ids), max_size=8))
def test_closed_turns_make_a_valid_transcript_after_every_one_of_them(turns: list[str | list[str]]) -> None:
    transcript = Transcript("s")
    for number, turn in enumerate(turns):
        if isinstance(turn, str):
            transcript.extend([HI, ANSWER])
        else:
            transcript.extend(close_turn(call(*(f"{number}{id}" for id in turn)), {}, ()))
        assert problems(transcript.messages) == []


# ------------------------------------------------------------------------------- the session


def test_the_messages_that_were_handed_out_do_not_change() -> None:
    transcript = Transcript("s", [HI])
    before = transcript.messages
    assert transcript.messages is before
    transcript.extend([ANSWER])
    assert (before, transcript.messages, len(transcript)) == ((HI,), (HI, ANSWER), 2)


def test_the_call_ids_that_are_taken_are_known_also_of_a_transcript_that_was_given() -> None:
    transcript = Transcript("s", [call("a"), result("a")])
    transcript.extend([call("b", "c"), result("b"), result("c")])
    assert transcript.call_ids == {"a", "b", "c"}


def test_one_stream_at_a_time_holds_a_session() -> None:
    transcript = Transcript("s")
    assert transcript.claim() == "s/1"
    with pytest.raises(SessionBusyError) as raised:
        transcript.claim()
    assert (raised.value.session, raised.value.stream) == ("s", "s/1")
    transcript.release()
    assert transcript.claim() == "s/2"
