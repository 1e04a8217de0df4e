"""What you need to test agents, tools, hooks and models, and what agentloop itself is tested with.

- Models without a network: `ScriptedModel` with `says`, `calls`, `thinks`, `fails` and `hangs`; `FunctionModel`.
- Streams: `record` one, and `assert_well_formed` its events.
- The fault harness: `sweep` a function of a `Lab`, and `replay` what it found; see `agentloop.testing.checking`.
- ``python -m agentloop.testing``: the harness on agentloop itself.
- Fixtures for pytest: `agentloop.testing.pytest_plugin`. Programs for hypothesis: `agentloop.testing.machine`.
"""

from __future__ import annotations

from agentloop.testing._lab import Lab
from agentloop.testing._sim import HarnessError, SweepReport, Violation
from agentloop.testing.checking import replay, sweep
from agentloop.testing.recording import RecordedStream, record
from agentloop.testing.scripted import (
    FunctionModel,
    Response,
    ScriptedModel,
    calls,
    fails,
    hangs,
    says,
    thinks,
)
from agentloop.testing.wellformed import assert_well_formed

__all__ = [
    "FunctionModel",
    "HarnessError",
    "Lab",
    "RecordedStream",
    "Response",
    "ScriptedModel",
    "SweepReport",
    "Violation",
    "assert_well_formed",
    "calls",
    "fails",
    "hangs",
    "record",
    "replay",
    "says",
    "sweep",
    "thinks",
]
