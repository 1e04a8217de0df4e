"""Decide what follows a response. The loop waits; this decides."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import msgspec

from agentloop._core.results import error_result
from agentloop._core.structured_output import OutputType
from agentloop._core.transcript import close_turn
from agentloop.errors import ModelOutputLimitError, ModelRefusalError, OutputError
from agentloop.messages import AssistantMessage, Message, Text, ToolCall, ToolResult, UserMessage

__all__ = [
    "FLAWS",
    "Answered",
    "AskAgain",
    "CallTools",
    "Flaw",
    "Next",
    "Proceed",
    "after_response",
    "answer_at_the_end",
    "flaw_of",
    "is_blank",
]

MAX_CUT_OFF = 3
"""Responses in a row that are cut off at the token limit before the run fails."""
EMPTY_ATTEMPTS = 2
"""Requests for an answer that is not empty."""

NOT_RUN = (
    "Not run: your response was cut off at the limit of tokens, so this call may be incomplete. Ask for less at a "
    "time: split the work into several smaller calls, over several responses."
)
"""The result of each call of a response that was cut off."""

Flaw: TypeAlias = Literal["", "truncated", "empty"]
"""The warning code for a response that is no complete answer; empty for one that is."""

FLAWS: dict[Flaw, str] = {
    "": "",
    "truncated": "The response was cut off at the limit of tokens.",
    "empty": "The model said nothing.",
}
"""Each flaw as a sentence for a person."""


class CallTools(msgspec.Struct, frozen=True):
    """Run the calls that the response asks for, then ask the model again."""

    calls: tuple[ToolCall, ...]


class Answered(msgspec.Struct, frozen=True):
    """The response is the answer."""

    output: Any
    detail: str = ""
    """The flaw of the answer, for a person: it is empty, or was cut off."""


class Proceed(msgspec.Struct, frozen=True):
    """Commit ``messages``, and send the next request: the response was paused, or its calls must not run."""

    messages: tuple[Message, ...]
    reason: Literal["tool_calls", "continued"]
    """Why the turn finished."""


class AskAgain(msgspec.Struct, frozen=True):
    """The response is no valid output: commit ``messages``, and ask again.

    ``messages`` are the response and a reminder. An empty response commits nothing: the same request goes out again.
    """

    messages: tuple[Message, ...] = ()


Next: TypeAlias = CallTools | Answered | Proceed | AskAgain


def after_response(
    message: AssistantMessage, output: OutputType, *, before: Sequence[Message], attempt: int, attempts: float
) -> Next:
    """The step after the response ``message``.

    Args:
      message: the response.
      output: the type of the final answer.
      before: the transcript that the response follows.
      attempt: the number of answers so far that were no valid output, this one included.
      attempts: the most answers that may be no valid output.

    Raises:
      ModelRefusalError: the model refused.
      ModelOutputLimitError: response after response was cut off.
      OutputError: that was the last attempt, and it gave no valid output.
    """
    if message.stop == "refusal":
        raise ModelRefusalError(model=message.model, text=message.text)
    calls = message.calls
    if calls and message.stop != "length":
        return CallTools(calls)
    if calls:
        _check_cut_off(message, before)
        not_run = {call.id: error_result(call, NOT_RUN) for call in calls}
        return Proceed(close_turn(message, not_run, ()), "tool_calls")
    if message.stop == "paused":
        return Proceed((message,) if message.parts else (), "continued")
    flaw = flaw_of(message, before)
    if output.schema is None:
        return _after_text(message, flaw, attempt)
    try:
        return Answered(_decoded(message, flaw, output))
    except ValueError as error:
        if attempt >= attempts:
            raise OutputError(model=message.model, attempts=attempts, problem=str(error), text=message.text) from error
        reminder = Text(
            f"That is not the output that was asked for: {error}\n"
            "Answer again, with nothing but JSON that fits the schema."
        )
        return AskAgain((message, UserMessage((reminder,))))


def _after_text(message: AssistantMessage, flaw: Flaw, attempt: int) -> Next:
    """The step after an answer in plain text."""
    if flaw and is_blank(message.text):
        if attempt < EMPTY_ATTEMPTS:
            return AskAgain()
        if flaw == "truncated":
            problem = "before it said anything: give more max_tokens, or less reasoning_effort"
            raise ModelOutputLimitError(model=message.model, problem=f"reached its limit of tokens {problem}")
    return Answered(message.text, FLAWS[flaw])


def _decoded(message: AssistantMessage, flaw: Flaw, output: OutputType) -> Any:
    """The value in ``message``. Raises `ValueError` if the answer is cut off, or does not fit the type."""
    if flaw == "truncated":
        # The beginning of a JSON text may be valid JSON as well, such as 12 of 1234.
        raise ValueError("it was cut off at the limit of tokens; a shorter one is needed")
    return output.decode(message.text)


def _check_cut_off(message: AssistantMessage, before: Sequence[Message]) -> None:
    """Raise `ModelOutputLimitError` if ``message`` and the responses directly before it were all cut off."""
    cut_off = 1
    for earlier in reversed(before):
        if isinstance(earlier, AssistantMessage) and earlier.stop == "length":
            cut_off += 1
        elif not isinstance(earlier, ToolResult):
            break
    if cut_off >= MAX_CUT_OFF:
        problem = f"reached its limit of tokens in the middle of a tool call, {cut_off} times in a row"
        raise ModelOutputLimitError(
            model=message.model, problem=f"{problem}: give more max_tokens, or ask for less at a time"
        )


def flaw_of(message: AssistantMessage, before: Sequence[Message]) -> Flaw:
    """The warning code for ``message``, which follows the transcript ``before``; empty if it has no flaw.

    White space and thoughts alone are empty. A model that ends without a word after its tools has done its work.
    """
    if message.stop == "length":
        return "truncated"
    if message.calls or message.stop == "paused" or not is_blank(message.text):
        return ""
    return "" if before and isinstance(before[-1], ToolResult) else "empty"


def is_blank(text: str) -> bool:
    """Whether ``text`` has nothing to see: white space and invisible characters, such as a zero-width space, alone."""
    return not text.strip() or (len(text) < 100 and all(map(_is_invisible, text)))


def _is_invisible(character: str) -> bool:
    return character.isspace() or unicodedata.category(character) in ("Cc", "Cf")


def answer_at_the_end(messages: Sequence[Message], output: OutputType) -> Answered | None:
    """The final answer with which a transcript ends; ``None`` if the model has to go on."""
    last = messages[-1]
    if not isinstance(last, AssistantMessage) or last.calls or last.stop in ("interrupted", "paused"):
        return None
    flaw = flaw_of(last, messages[:-1])
    if output.schema is None:
        return Answered(last.text, FLAWS[flaw])
    try:
        return Answered(_decoded(last, flaw, output))
    except ValueError:
        return None
