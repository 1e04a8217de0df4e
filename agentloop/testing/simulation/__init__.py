"""A simulation of trio programs: every interleaving, cancellation and failure on demand, the same each time.

Knows nothing of agents. `agentloop.testing` is the public face; ``strategies``, which needs hypothesis, is not
imported here.
"""

from __future__ import annotations

from agentloop.testing.simulation.errors import HarnessError, InjectedFault, InjectedInterrupt
from agentloop.testing.simulation.faults import (
    Cancel,
    ClockRaise,
    Fault,
    Interrupt,
    IoRaise,
    SeamRaise,
    StepRaise,
    parse_fault,
)
from agentloop.testing.simulation.program import sweep, swept
from agentloop.testing.simulation.scenario import Invariants, Outcome, Scenario
from agentloop.testing.simulation.schedule import Granularity, Schedule, fifo, parse_schedule, replay, seeded
from agentloop.testing.simulation.sim import Injection, Sim
from agentloop.testing.simulation.simplify import simplify_token
from agentloop.testing.simulation.simulate import simulate
from agentloop.testing.simulation.stuck import StuckReport, StuckTask
from agentloop.testing.simulation.sweep import Kind, OnRun, SweepReport, Tally, replay_token, sweep_scenario
from agentloop.testing.simulation.tokens import Token, parse_token
from agentloop.testing.simulation.violation import Violation

__all__ = [
    "Cancel",
    "ClockRaise",
    "Fault",
    "Granularity",
    "HarnessError",
    "InjectedFault",
    "InjectedInterrupt",
    "Injection",
    "Interrupt",
    "Invariants",
    "IoRaise",
    "Kind",
    "OnRun",
    "Outcome",
    "Scenario",
    "Schedule",
    "SeamRaise",
    "Sim",
    "StepRaise",
    "StuckReport",
    "StuckTask",
    "SweepReport",
    "Tally",
    "Token",
    "Violation",
    "fifo",
    "parse_fault",
    "parse_schedule",
    "parse_token",
    "replay",
    "replay_token",
    "seeded",
    "simplify_token",
    "simulate",
    "sweep",
    "sweep_scenario",
    "swept",
]
