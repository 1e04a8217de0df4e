"""Agents that a model names in the arguments of a tool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from agentloop.agent import Agent
from agentloop.errors import UsageError

__all__ = ["agents_by_name", "prompt_of", "with_list"]


def agents_by_name(function: str, agents: Sequence[Agent[Any, Any]]) -> Mapping[str, Agent[Any, Any]]:
    """``agents`` by their names, as arguments of ``function``.

    Raises:
      UsageError: there are none, one is no agent, or two have one name.
    """
    known: dict[str, Agent[Any, Any]] = {}
    for agent in agents:
        if not isinstance(cast("object", agent), Agent):
            raise UsageError(f"{function}(...) takes agents, one after the other, not {agent!r}")
        if agent.name in known:
            raise UsageError(f"two agents of {function}(...) are called {agent.name!r}: give one another name=")
        known[agent.name] = agent
    if not known:
        raise UsageError(f"{function}(...) has no agents: write {function}(researcher, coder)")
    return known


def with_list(description: str, agents: Mapping[str, Agent[Any, Any]]) -> str:
    """The description of a tool, with a line for each agent."""
    lines = [f"- {name}: {agent.description}" if agent.description else f"- {name}" for name, agent in agents.items()]
    return "\n".join([f"{description} Agents:", *lines])


def prompt_of(task: str, expected_output: str) -> str:
    """The prompt of an agent that gets a task."""
    return f"{task}\n\nExpected output:\n{expected_output}" if expected_output.strip() else task
