"""The corpus: all scenarios by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from agentloop.testing._lab import AgentScenario
from agentloop.testing._recorded import RecordAnew, Recordings
from agentloop.testing.harness import (
    agent_scenarios as _agents,
    background_scenarios as _background,
    block_scenarios as _blocks,
    context_scenarios as _contexts,
    deferred_scenarios as _deferred,
    guard_scenarios as _guards,
    handoff_scenarios as _handoffs,
    hook_run_scenarios as _hook_runs,
    law_scenarios as _laws,
    pause_scenarios as _pauses,
    reader_scenarios as _readers,
    result_scenarios as _results,
    safety_scenarios as _safety,
    session_scenarios,
    tool_scenarios as _tools,
    toolset_scenarios as _toolsets,
    value_scenarios as _values,
)
from agentloop.testing.harness.mix_plays import mixes
from agentloop.testing.harness.registry import GROUPS, SCENARIOS
from agentloop.testing.simulation import Fault, Kind, parse_fault, simulate
from agentloop.testing.simulation.sweep import faults_tried

__all__ = [
    "EVERY",
    "FAULTS",
    "PLACES",
    "RECORDINGS",
    "corpus",
    "find_scenario",
    "record",
    "record_faults",
    "recorded_faults",
]

_ADDED = (
    *(_agents, _background, _blocks, _contexts, _deferred, _guards, _handoffs, _hook_runs, _laws),
    *(_pauses, _readers, _results, _safety, _tools, _toolsets, _values),
)
"""The modules that add to the registry when they are imported."""


RECORDINGS = Recordings()
"""The recorded runs, where this checkout has them."""

FAULTS = Recordings(inner="faults")
"""How runs with a fault come out: a line for each."""

PLACES = 3
"""Places of each kind of fault that the corpus tries in each scenario: some 90 s on one core."""

EVERY = 200
"""The same for the sweep of everything: all places of all but long scenarios."""

_TRIED = 8
"""Places of each kind, some of which are recorded."""

_RECORDED: dict[Kind, tuple[int, ...]] = {"cancel": (1, 4, 6), "seam": (1, 3, 5, 6), "clock": (4,), "interrupt": (3, 5)}
"""Which of these places are recorded."""


def corpus() -> dict[str, Callable[[], AgentScenario]]:
    """Every scenario by name; call one to make it."""
    makers = {**session_scenarios.STORIES, **SCENARIOS}
    return {name: partial(_with_recording, make, name) for name, make in makers.items()}


def _with_recording(make: Callable[[], AgentScenario], name: str) -> AgentScenario:
    scenario = make()
    if RECORDINGS.folder is not None:
        scenario.recorded = RECORDINGS.lines_of(_group(name), name)
    if FAULTS.folder is not None:
        lines = FAULTS.lines_of(_group(name), name)
        scenario.recorded_faults = dict(line.split(" ", 1) for line in lines)
    return scenario


def recorded_faults(name: str) -> list[Fault]:
    """The faults with which the runs of a scenario are recorded."""
    return [parse_fault(fault) for fault in corpus()[name]().recorded_faults]


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


def record_faults() -> list[str]:
    """Run each scenario with some faults, and write down how it comes out. Return the names of those that differ.

    Raises:
      Violation: a run breaks a promise.
    """
    groups: dict[str, dict[str, list[str]]] = {}
    changed: list[str] = []
    for name, make in corpus().items():
        base = make()
        before = base.recorded_faults
        base.recorded = None
        sim = simulate(base)
        lines: dict[str, str] = {}
        for kind, places in _RECORDED.items():
            tried = faults_tried(sim, kind, _TRIED)
            for fault in [tried[place] for place in places if place < len(tried)]:
                scenario = make()
                scenario.recorded_faults = {str(fault): ""}
                if simulate(scenario, fault=fault).fired:
                    assert scenario.lab is not None
                    assert scenario.lab.trace is not None
                    lines[str(fault)] = scenario.lab.trace.brief()
        groups.setdefault(_group(name), {})[name] = [f"{fault} {line}" for fault, line in lines.items()]
        if lines != before:
            changed.append(name)
    FAULTS.write(groups)
    return changed


def find_scenario(token: str) -> Callable[[], AgentScenario]:
    """The scenario that a token belongs to.

    Raises:
      KeyError: there is none of that name.
    """
    name = token.split(maxsplit=1)[0]
    return mixes()[name] if name.startswith(("mix-", "talk-")) else corpus()[name]
