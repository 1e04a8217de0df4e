"""A stream with a server in this process, cancelled at each of its steps: nothing is left, whatever it was doing."""

from __future__ import annotations

from contextlib import suppress

import pytest
from attrs import define

from agentloop import Accept
from agentloop.errors import UnknownQuestionError
from agentloop.events import ElicitationRequested
from agentloop.testing import calls
from agentloop.testing.simulation import Outcome, Sim, sweep_scenario
from tests.mcp.support import ERAS, agent_with, playground


@define
class Asking:
    """A stream whose server starts, lists its tools, tells its progress, asks, answers, and stops."""

    mode: str
    name: str = "mcp-asking"

    async def run(self, sim: Sim, /) -> None:
        server = playground(self.mode, allow=["invite", "work"])
        agent = agent_with(server, calls("invite") + calls("work", steps=2))
        with sim.scope("stream"):
            async with agent.stream("go") as stream:
                async for event in stream:
                    if isinstance(event, ElicitationRequested):
                        # Read, but withdrawn in the same instant.
                        with suppress(UnknownQuestionError):
                            stream.answer(event.id, Accept({"name": "Bo"}))

    def check(self, sim: Sim, outcome: Outcome, /) -> None:
        assert outcome.error is None, outcome.error


@pytest.mark.parametrize("mode", ERAS)
def test_a_stream_with_a_server_can_be_cancelled_at_any_step(mode: str) -> None:
    report = sweep_scenario(lambda: Asking(mode), kinds=["cancel"], limit=40)
    assert report.violations == []
    assert report.fired >= 30
