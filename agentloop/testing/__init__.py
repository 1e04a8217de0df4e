"""Tools for testing agents, tools, hooks and models, and the harness that tests agentloop itself.

- Models without a network: `ScriptedModel` with `says`, `calls`, `thinks`, `fails` and `hangs`; `FunctionModel`.
- Other models for existing agents: `Agent.override`, and `override_agents` for all of them.
- Real models, recorded once and replayed without a network: `cassette`.
- No network at all: `forbid_network_models`, and `allow_network_models` inside of it.
- Requests: `request_problems` and `assert_accepted` hold one against the rules of a provider, without a network;
  ``agentloop.testing.transcripts`` draws sessions that several providers have written.
- Streams: `record` one, and `assert_well_formed` its events.
- The fault harness: `sweep` a function of a `Lab`, or make a test of it by `swept`; see ``agentloop.testing.checking``.
  For programs without agents: ``agentloop.testing.simulation``.
- ``python -m agentloop.testing``: the harness on agentloop itself.
- Fixtures for pytest: `agentloop.testing.pytest_plugin`.
"""

from __future__ import annotations

from agentloop.providers._network import NetworkForbiddenError, allow_network_models, forbid_network_models
from agentloop.testing._lab import Lab
from agentloop.testing.cassettes import Cassette, CassetteMode, cassette
from agentloop.testing.checking import replay, sweep, swept
from agentloop.testing.overriding import override_agents
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
from agentloop.testing.simulation import HarnessError, SweepReport, Violation
from agentloop.testing.wellformed import assert_well_formed
from agentloop.testing.wire_checks import WireProvider, assert_accepted, request_problems

__all__ = [
    "Cassette",
    "CassetteMode",
    "FunctionModel",
    "HarnessError",
    "Lab",
    "NetworkForbiddenError",
    "RecordedStream",
    "Response",
    "ScriptedModel",
    "SweepReport",
    "Violation",
    "WireProvider",
    "allow_network_models",
    "assert_accepted",
    "assert_well_formed",
    "calls",
    "cassette",
    "fails",
    "forbid_network_models",
    "hangs",
    "override_agents",
    "record",
    "replay",
    "request_problems",
    "says",
    "sweep",
    "swept",
    "thinks",
]
