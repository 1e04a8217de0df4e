"""What comes after a response."""

from __future__ import annotations

import pytest

from agentloop._core.structured_output import output_type
from agentloop._core.turn import Answered, CallTools, Remind, after_response, truncated
from agentloop.errors import ModelRefusalError, OutputError
from agentloop.messages import AssistantMessage, Reasoning, StopReason, Text, ToolCall

CALL = ToolCall("c", "f", "{}")


def says(text: str, *, stop: StopReason = "end") -> AssistantMessage:
    return AssistantMessage((Text(text),), stop, "m")


def test_text_is_the_answer_where_text_is_wanted() -> None:
    assert after_response(says("Hi."), output_type(str), attempt=1, attempts=3) == Answered("Hi.")


@pytest.mark.parametrize("stop", ["end", "tool_calls", "length"])
@pytest.mark.parametrize("output", [str, int])
def test_calls_are_run_whatever_else_the_response_says(stop: StopReason, output: type) -> None:
    message = AssistantMessage((Text("5"), CALL), stop, "m")
    assert after_response(message, output_type(output), attempt=9, attempts=3) == CallTools(message.calls)


def test_an_answer_that_fits_is_decoded() -> None:
    assert after_response(says("[1, 2]"), output_type(list[int]), attempt=3, attempts=3) == Answered([1, 2])


def test_an_answer_that_does_not_fit_is_worth_a_reminder_that_says_why() -> None:
    following = after_response(says("five"), output_type(int), attempt=1, attempts=2)
    assert isinstance(following, Remind)
    assert "That is not the output that was asked for" in following.text


def test_the_last_invalid_output_is_an_error_with_its_text() -> None:
    with pytest.raises(OutputError) as raised:
        after_response(says("five"), output_type(int), attempt=2, attempts=2)
    assert (raised.value.attempts, raised.value.text, raised.value.model) == (2, "five", "m")
    assert isinstance(raised.value.__cause__, ValueError)


@pytest.mark.parametrize("parts", [(Text("No."),), (Text("No."), CALL), ()])
def test_a_refusal_is_an_error_also_beside_calls(parts: tuple[Text | ToolCall, ...]) -> None:
    with pytest.raises(ModelRefusalError, match="refused to answer"):
        after_response(AssistantMessage(parts, "refusal", "m"), output_type(str), attempt=1, attempts=3)


def test_a_person_is_warned_of_half_and_of_empty_answers() -> None:
    assert truncated(says("And so", stop="length")) == "truncated"
    assert truncated(AssistantMessage((), "length")) == "truncated"
    assert truncated(AssistantMessage(())) == "empty"
    assert truncated(says("Hi.")) == ""
    assert truncated(AssistantMessage((Reasoning("hm"),))) == ""
