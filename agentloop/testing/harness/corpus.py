"""The corpus: all scenarios by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from agentloop.testing._lab import AgentScenario
from agentloop.testing._recorded import RecordAnew, Recordings
from agentloop.testing.harness import (
    agent_scenarios as _agents,
    guard_scenarios as _guards,
    handoff_scenarios as _handoffs,
    law_scenarios as _laws,
    reader_scenarios as _readers,
    result_scenarios as _results,
    session_scenarios,
    tool_scenarios as _tools,
    value_scenarios as _values,
)
from agentloop.testing.harness.registry import GROUPS, SCENARIOS
from agentloop.testing.simulation import simulate

__all__ = ["RECORDINGS", "corpus", "find_scenario", "record"]

_ADDED = (_agents, _guards, _handoffs, _laws, _readers, _results, _tools, _values)
"""The modules that add to the registry when they are imported."""


RECORDINGS = Recordings()
"""The recorded runs, where this checkout has them."""


def corpus() -> dict[str, Callable[[], AgentScenario]]:
    """Every scenario by name; call one to make it."""
    makers = {**session_scenarios.STORIES, **SCENARIOS}
    return {name: partial(_with_recording, make, name) for name, make in makers.items()}


def _with_recording(make: Callable[[], AgentScenario], name: str) -> AgentScenario:
    scenario = make()
    if RECORDINGS.folder is not None:
        scenario.recorded = RECORDINGS.lines_of(_group(name), name)
    return scenario


def _group(name: str) -> str:
    return GROUPS.get(name, session_scenarios.__name__).rpartition(".")[2].removesuffix("_scenarios")


def record() -> list[str]:
    """Run each scenario without a fault, and write down what it shows. Return the names of those that differ.

    Raises:
      Violation: a scenario fails for another reason than that it differs from its recording.
    """
    groups: dict[str, dict[str, list[str]]] = {}
    changed: list[str] = []
    for name, make in corpus().items():
        scenario = make()
        before, scenario.recorded = scenario.recorded, RecordAnew()
        simulate(scenario)
        assert scenario.lab is not None
        assert scenario.lab.trace is not None
        lines = groups.setdefault(_group(name), {})[name] = scenario.lab.trace.lines
        if lines != before:
            changed.append(name)
    RECORDINGS.write(groups)
    return changed


def find_scenario(token: str) -> Callable[[], AgentScenario]:
    """The scenario that a token belongs to.

    Raises:
      KeyError: there is none of that name.
    """
    return corpus()[token.split(maxsplit=1)[0]]
