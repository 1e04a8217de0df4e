"""The step after a response."""

from __future__ import annotations

from typing import Any

import pytest

from agentloop._core.response import (
    Answered,
    AskAgain,
    CallTools,
    Next,
    Proceed,
    after_response,
    answer_at_the_end,
    flaw_of,
)
from agentloop._core.structured_output import output_type
from agentloop.errors import ModelOutputLimitError, ModelRefusalError, OutputError
from agentloop.messages import AssistantMessage, Message, Reasoning, StopReason, Text, ToolCall, ToolResult, UserMessage

CALL = ToolCall("c", "f", "{}")
PROMPT = UserMessage((Text("Go."),))
RESULT = ToolResult("c", "f", (Text("done"),))
EMPTY = [(), (Text(" \n"),), (Text("\u200b\u00a0\ufeff"),), (Reasoning("Hm."),), (Reasoning("Hm."), Text("\n"))]


def says(text: str, *, stop: StopReason = "end") -> AssistantMessage:
    return AssistantMessage((Text(text),), stop, "m")


def after(
    message: AssistantMessage, output: Any = str, *, before: tuple[Message, ...] = (PROMPT,), attempt: int = 1
) -> Next:
    return after_response(message, output_type(output), before=before, attempt=attempt, attempts=3)


def test_text_is_the_answer_if_the_output_is_text() -> None:
    assert after(says("Hi.")) == Answered("Hi.")


@pytest.mark.parametrize("stop", ["end", "tool_calls", "paused"])
@pytest.mark.parametrize("output", [str, int])
def test_calls_run_whatever_else_the_response_says(stop: StopReason, output: type) -> None:
    message = AssistantMessage((Text("5"), CALL), stop, "m")
    assert after(message, output, attempt=9) == CallTools(message.calls)


@pytest.mark.parametrize("output", [str, int])
def test_no_call_of_a_response_that_was_cut_off_runs(output: type) -> None:
    message = AssistantMessage((Text("5"), CALL, ToolCall("d", "g", "")), "length", "m")

    following = after(message, output)

    assert isinstance(following, Proceed)
    response, *results = following.messages
    assert response is message
    assert [(result.call_id, result.status) for result in results if isinstance(result, ToolResult)] == [
        ("c", "error"),
        ("d", "error"),
    ]
    assert all("cut off" in getattr(result, "text", "") for result in results)


def test_the_third_response_in_a_row_that_is_cut_off_in_a_call_is_an_error() -> None:
    cut = AssistantMessage((CALL,), "length", "m")
    refused = ToolResult("c", "f", (Text("cut off"),), "error")

    assert isinstance(after(cut, before=(PROMPT, cut, refused)), Proceed)
    assert isinstance(after(cut, before=(cut, refused, PROMPT, cut, refused)), Proceed)
    with pytest.raises(ModelOutputLimitError, match="max_tokens") as raised:
        after(cut, before=(PROMPT, cut, refused, cut, refused))
    assert raised.value.model == "m"


def test_a_paused_response_continues() -> None:
    paused = says("Let me search. ", stop="paused")

    assert after(paused) == after(paused, int) == Proceed((paused,), "continued")
    assert after(AssistantMessage((), "paused", "m")) == Proceed((), "continued")


def test_an_answer_that_fits_is_decoded() -> None:
    assert after(says("[1, 2]"), list[int], attempt=3) == Answered([1, 2])


def test_an_answer_that_does_not_fit_gets_a_reminder_that_says_why() -> None:
    following = after(says("five"), int, attempt=1)
    assert isinstance(following, AskAgain)
    assert "That is not the output that was asked for" in getattr(following.messages[1], "text", "")


def test_the_last_invalid_output_is_an_error_with_its_text() -> None:
    with pytest.raises(OutputError) as raised:
        after(says("five"), int, attempt=3)
    assert (raised.value.attempts, raised.value.text, raised.value.model) == (3, "five", "m")
    assert isinstance(raised.value.__cause__, ValueError)


def test_the_beginning_of_an_output_is_no_output_even_if_it_fits() -> None:
    assert isinstance(after(says("12", stop="length"), int), AskAgain)
    with pytest.raises(OutputError, match="cut off"):
        after(says("12", stop="length"), int, attempt=3)


@pytest.mark.parametrize("parts", [(Text("No."),), (Text("No."), CALL), ()])
def test_a_refusal_is_an_error_also_beside_calls(parts: tuple[Text | ToolCall, ...]) -> None:
    with pytest.raises(ModelRefusalError, match="refused to answer"):
        after(AssistantMessage(parts, "refusal", "m"))


@pytest.mark.parametrize("parts", EMPTY)
def test_an_empty_answer_is_requested_once_more_and_then_says_that_it_is_empty(parts: tuple[Any, ...]) -> None:
    message = AssistantMessage(parts, "end", "m")

    assert after(message) == AskAgain()
    assert after(message, attempt=2) == Answered(message.text, "The model said nothing.")


@pytest.mark.parametrize("parts", EMPTY)
def test_a_model_may_end_without_a_word_after_its_tools(parts: tuple[Any, ...]) -> None:
    message = AssistantMessage(parts, "end", "m")

    assert after(message, before=(PROMPT, RESULT)) == Answered(message.text)
    assert flaw_of(message, (PROMPT, RESULT)) == ""


@pytest.mark.parametrize("before", [(PROMPT,), (PROMPT, RESULT)])
@pytest.mark.parametrize("parts", EMPTY)
def test_a_response_that_was_cut_off_before_it_said_anything_is_an_error_at_the_second_time(
    parts: tuple[Any, ...], before: tuple[Message, ...]
) -> None:
    message = AssistantMessage(parts, "length", "m")

    assert after(message, before=before) == AskAgain()
    with pytest.raises(ModelOutputLimitError, match="before it said anything"):
        after(message, before=before, attempt=2)


def test_an_answer_that_was_cut_off_says_so() -> None:
    assert after(says("And so", stop="length")) == Answered(
        "And so", "The response was cut off at the limit of tokens."
    )


def test_a_person_is_warned_of_partial_and_of_empty_answers() -> None:
    assert flaw_of(says("And so", stop="length"), (PROMPT,)) == "truncated"
    assert flaw_of(AssistantMessage((), "length"), (PROMPT,)) == "truncated"
    assert flaw_of(AssistantMessage((CALL,), "length"), (PROMPT,)) == "truncated"
    assert {flaw_of(AssistantMessage(parts), (PROMPT,)) for parts in EMPTY} == {"empty"}  # type: ignore[arg-type]
    assert flaw_of(AssistantMessage(()), ()) == "empty"
    assert flaw_of(says("Hi."), (PROMPT,)) == ""
    assert flaw_of(AssistantMessage((CALL,)), (PROMPT,)) == ""
    assert flaw_of(AssistantMessage((), "paused"), (PROMPT,)) == ""


def test_the_answer_at_the_end_of_a_transcript_is_the_one_that_the_run_would_have_given() -> None:
    assert answer_at_the_end((PROMPT, says("Hi.")), output_type(str)) == Answered("Hi.")
    assert answer_at_the_end((PROMPT, says("5")), output_type(int)) == Answered(5)
    cut = answer_at_the_end((PROMPT, says("5", stop="length")), output_type(str))
    assert cut is not None
    assert "cut off" in cut.detail


@pytest.mark.parametrize(
    "last",
    [
        PROMPT,
        RESULT,
        says("five"),
        says("5", stop="length"),
        says("5", stop="paused"),
        says("5", stop="interrupted"),
        AssistantMessage((CALL,)),
    ],
    ids=["prompt", "result", "no output", "cut off", "paused", "interrupted", "call"],
)
def test_a_transcript_without_an_answer_at_its_end_has_none(last: Message) -> None:
    assert answer_at_the_end((PROMPT, last), output_type(int)) is None
