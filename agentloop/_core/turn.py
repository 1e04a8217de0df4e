"""Decide what follows a response. The loop waits; this decides."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

from agentloop._core.structured_output import OutputType
from agentloop.errors import ModelRefusalError, OutputError
from agentloop.messages import AssistantMessage, ToolCall

__all__ = ["Answered", "CallTools", "Next", "Remind", "after_response", "truncated"]


class CallTools(msgspec.Struct, frozen=True):
    """Run the calls that the response asks for, then ask the model again."""

    calls: tuple[ToolCall, ...]


class Answered(msgspec.Struct, frozen=True):
    """The response is the answer."""

    output: Any


class Remind(msgspec.Struct, frozen=True):
    """The response is no valid output: say so to the model, and ask again."""

    text: str


Next: TypeAlias = CallTools | Answered | Remind


def after_response(message: AssistantMessage, output: OutputType, *, attempt: int, attempts: float) -> Next:
    """What to do after ``message``.

    Args:
      output: what the final answer must be.
      attempt: how many answers that were none there are, this one included.
      attempts: how many there may be.

    Raises:
      ModelRefusalError: the model refused.
      OutputError: that was the last attempt, and still no valid output.
    """
    if message.stop == "refusal":
        raise ModelRefusalError(model=message.model, text=message.text)
    calls = message.calls
    if calls:
        return CallTools(calls)
    try:
        return Answered(output.decode(message.text))
    except ValueError as error:
        if attempt >= attempts:
            raise OutputError(model=message.model, attempts=attempts, problem=str(error), text=message.text) from error
        return Remind(
            f"That is not the output that was asked for: {error}\n"
            "Answer again, with nothing but JSON that fits the schema."
        )


def truncated(message: AssistantMessage) -> Literal["", "truncated", "empty"]:
    """A word for what a person should be warned of, if anything."""
    if message.stop == "length":
        return "truncated"
    return "" if message.parts else "empty"
