"""The same work on agentloop, as a user would write it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agentloop import Agent, Limits, Tool
from agentloop.events import TextDelta
from agentloop.models import Model, ModelRequest, Reply, Stop
from tests.bench.work import NESTED, Plan

__all__ = ["PlannedModel", "agent_for", "agent_on", "nested_agent", "read"]


class PlannedModel:
    """A model that goes by ``plan``."""

    name = "planned"

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
        turn = self._plan.next(len(request.messages))
        for text in turn.texts:
            await reply.text(text)
        for index, call in enumerate(turn.calls):
            await reply.tool_call(index, id=call.id, name=call.name, arguments=call.arguments)
        return Stop()


def agent_for(plan: Plan, *tools: Tool | Callable[..., Any], name: str = "agent") -> Agent:
    """An agent that goes by ``plan``, however many turns it has."""
    return Agent(PlannedModel(plan), name=name, tools=tools, limits=Limits(turns=1000))


def agent_on(model: Model, *tools: Callable[..., Any]) -> Agent:
    """An agent on a model that is not planned here."""
    return Agent(model, tools=tools)


def nested_agent() -> Agent:
    """An agent whose tool is an agent whose tool is an agent."""
    outer, middle, inner = NESTED
    innermost = agent_for(inner, name="inner")
    between = agent_for(middle, innermost.as_tool(), name="middle")
    return agent_for(outer, between.as_tool(), name="outer")


async def read(agent: Agent) -> int:
    """Run to the end, and count the pieces of text."""
    texts = 0
    async with agent.stream("go") as stream:
        async for event in stream:
            if isinstance(event, TextDelta):
                texts += 1
    return texts
