"""What the tests of tools, questions, hooks and limits share: small agents, and what came of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from agentloop import Agent, Tool
from agentloop._runtime.stream import Stream
from agentloop.events import (
    ApprovalRequested,
    ContinueRequested,
    ElicitationRequested,
    Question,
    StreamEvent,
    ToolCallFinished,
    WarningIssued,
)
from agentloop.messages import ToolResult
from agentloop.models import Model
from agentloop.questions import Answer
from agentloop.testing import Response, ScriptedModel, calls
from tests.support import OnEvent, Watched, of, watch

__all__ = ["agent_with", "answering", "asked", "only_result", "results", "results_in", "warnings_in"]


def agent_with(
    *tools: Tool | Callable[..., Any], response: Response | None = None, model: Model | None = None, **options: Any
) -> Agent[Any, Any]:
    """An agent that calls its first tool, or gives ``response``, and then says "Done."."""
    agent = Agent(ScriptedModel(), tools=tools, **options)
    if model is None:
        [first, *_] = agent.tools
        assert isinstance(first, Tool)
        model = ScriptedModel(calls(first.name) if response is None else response, "Done.")
    return agent.replace(model=model)


def results(watched: Watched) -> list[ToolResult]:
    """What the model got to read, in the order of the transcript."""
    return [message for message in watched.messages if isinstance(message, ToolResult)]


def results_in(events: Iterable[StreamEvent]) -> dict[str, ToolResult]:
    """By call id, what the calls of all depths gave."""
    return {event.call_id: event.result for event in of(events, ToolCallFinished)}


async def only_result(agent: Agent, **options: Any) -> ToolResult:
    """The result of the one tool call that ``agent`` makes on its way to its answer."""
    watched = await watch(agent, **options)
    assert watched.outcome.reason == "completed"
    [result] = results(watched)
    return result


def warnings_in(events: Iterable[StreamEvent]) -> list[str]:
    """The codes of the warnings."""
    return [event.code for event in of(events, WarningIssued)]


def asked(events: Iterable[StreamEvent]) -> list[Question]:
    """The questions, in the order in which they were told."""
    kinds = (ElicitationRequested, ApprovalRequested, ContinueRequested)
    return [event for event in events if isinstance(event, kinds)]


def answering(*answers: Answer) -> OnEvent:
    """A reader that gives the n-th question the n-th answer, and each one after that the last."""
    left = list(answers)

    def answer(stream: Stream, event: StreamEvent) -> None:
        if isinstance(event, (ElicitationRequested, ApprovalRequested, ContinueRequested)):
            stream.answer(event.id, left.pop(0) if len(left) > 1 else left[0])

    return answer
