"""What the tests of the demo need: events to show, and people who answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import define, field

from agentloop.events import (
    ApprovalRequested,
    ElicitationRequested,
    Question,
    Source,
    StreamEvent,
    StreamStarted,
    TextDelta,
    ToolCallFinished,
    ToolCallStarted,
    UsageReported,
)
from agentloop.messages import Text, ToolResult, Usage, UserMessage
from agentloop.questions import Answer

__all__ = [
    "ANN",
    "BOB",
    "CAT",
    "Answering",
    "approval",
    "call_finished",
    "call_started",
    "elicitation",
    "says",
    "started",
]

ANN = Source("s", "s/1", ("ann",))
BOB = Source("s/1.1", "s/1.1/1", ("ann", "bob"), "s/1")
CAT = Source("s/1.2", "s/1.2/1", ("ann", "cat"), "s/1")
"""Ann, and two agents that work for her."""


def started(prompt: str, source: Source = ANN) -> StreamStarted:
    return StreamStarted(source, 1, message=UserMessage((Text(prompt),)), model="scripted")


def says(text: str, source: Source = ANN) -> list[StreamEvent]:
    """A response, told word by word."""
    words = text.split(" ")
    pieces = [*(word + " " for word in words[:-1]), words[-1]]
    return [*(TextDelta(source, 1, piece) for piece in pieces), UsageReported(source, 1, usage=Usage(), total=Usage())]


def call_started(name: str, arguments: str = "{}", *, id: str = "c", source: Source = ANN) -> ToolCallStarted:
    return ToolCallStarted(source, 1, call_id=id, name=name, arguments=arguments)


def call_finished(
    name: str, text: str, *, id: str = "c", source: Source = ANN, elapsed: float = 0.0, **result: Any
) -> ToolCallFinished:
    told = ToolResult(id, name, (Text(text),), **result)
    return ToolCallFinished(source, 1, call_id=id, name=name, result=told, elapsed=elapsed)


def elicitation(
    form: dict[str, Any] | None = None, message: str = "Well?", url: str | None = None
) -> ElicitationRequested:
    schema = {"type": "object", "properties": form or {}, "required": list(form or {})}
    return ElicitationRequested(ANN, 1, id="q", call_id="c", message=message, form=schema, url=url)


def approval(**arguments: Any) -> ApprovalRequested:
    return ApprovalRequested(ANN, 1, id="q", call_id="c", name="delete", arguments=arguments)


@define
class Answering:
    """A person who gives one answer after another."""

    answers: Sequence[Answer | None]
    """``None`` for an answer on another day."""
    asked: list[tuple[Question, str]] = field(factory=list)
    """The questions, each with what was wrong with the answer before."""

    async def answer(self, question: Question, problem: str = "", *, may_wait: bool = False) -> Answer | None:
        self.asked.append((question, problem))
        return self.answers[len(self.asked) - 1]
