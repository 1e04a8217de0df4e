"""The corpus: all scenarios by name."""

from __future__ import annotations

from collections.abc import Callable

from agentloop.testing._lab import AgentScenario
from agentloop.testing.harness import (
    agent_scenarios as _agents,
    handoff_scenarios as _handoffs,
    law_scenarios as _laws,
    reader_scenarios as _readers,
    result_scenarios as _results,
    session_scenarios,
    tool_scenarios as _tools,
    value_scenarios as _values,
)
from agentloop.testing.harness.registry import SCENARIOS

__all__ = ["corpus", "find_scenario"]

_ADDED = (_agents, _handoffs, _laws, _readers, _results, _tools, _values)
"""The modules that add to the registry when they are imported."""


def corpus() -> dict[str, Callable[[], AgentScenario]]:
    """Every scenario by name; call one to make it."""
    return {**session_scenarios.STORIES, **SCENARIOS}


def find_scenario(token: str) -> Callable[[], AgentScenario]:
    """The scenario that a token belongs to.

    Raises:
      KeyError: there is none of that name.
    """
    return corpus()[token.split(maxsplit=1)[0]]
