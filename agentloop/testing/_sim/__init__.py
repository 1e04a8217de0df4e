"""A simulation of trio programs: every interleaving, cancellation and failure on demand, the same each time.

Knows nothing of agents. `agentloop.testing` is the public face; ``strategies``, which needs hypothesis, is not
imported here.
"""

from __future__ import annotations

from agentloop.testing._sim.errors import HarnessError, InjectedFault
from agentloop.testing._sim.faults import Cancel, ClockRaise, Fault, SeamRaise, StepRaise, parse_fault
from agentloop.testing._sim.scenario import Invariants, Outcome, Scenario
from agentloop.testing._sim.schedule import Granularity, Schedule, fifo, parse_schedule, replay, seeded
from agentloop.testing._sim.sim import Injection, Sim
from agentloop.testing._sim.simplify import simplify_token
from agentloop.testing._sim.simulate import simulate
from agentloop.testing._sim.stuck import StuckReport, StuckTask
from agentloop.testing._sim.sweep import Kind, OnRun, SweepReport, Tally, replay_token, sweep
from agentloop.testing._sim.tokens import Token, parse_token
from agentloop.testing._sim.violation import Violation

__all__ = [
    "Cancel",
    "ClockRaise",
    "Fault",
    "Granularity",
    "HarnessError",
    "InjectedFault",
    "Injection",
    "Invariants",
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
]
