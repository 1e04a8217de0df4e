"""A stream of an external agent in this process, struck by faults at each of its steps: nothing is left of it."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio
from attrs import define

from agentloop import Approve
from agentloop.acp import ExternalAgent
from agentloop.errors import ModelError, UnknownQuestionError
from agentloop.events import ApprovalRequested
from agentloop.testing.simulation import Kind, Outcome, Sim, sweep_scenario
from tests.acp.support import Fake, Turn


async def work(turn: Turn) -> str:
    await turn.say("I begin. ")
    await turn.begin("long", "Build")
    answer = await turn.may("c", "Push")
    await turn.tell("c", "completed", answer)
    await turn.tell("long", "completed", "built")
    await turn.say("Done.")
    return "end_turn"


async def begin_and_die(turn: Turn) -> str:
    await turn.say("I begin. ")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(turn.may, "c", "Push")
        await trio.sleep(1)
        await turn.die()
    return "end_turn"


@define
class Working:
    """A stream whose agent starts, works, asks, and ends; or dies while it asks."""

    dies: bool
    name: str = "external-agent"

    async def run(self, sim: Sim, /) -> None:
        fake = Fake(begin_and_die if self.dies else work)
        agent = ExternalAgent("other", connect=fake.connect, files=False, terminal=False)
        with sim.scope("stream"), suppress(ModelError):
            async with agent.stream("go") as stream:
                async for event in stream:
                    if isinstance(event, ApprovalRequested) and not self.dies:
                        # Read, but withdrawn in the same instant.
                        with suppress(UnknownQuestionError):
                            stream.answer(event.id, Approve())

    def check(self, sim: Sim, outcome: Outcome, /) -> None:
        assert outcome.error is None, outcome.error


@pytest.mark.parametrize("dies", [False, True])
@pytest.mark.parametrize("kind", ["cancel", "batch"])
def test_a_stream_of_an_external_agent_can_be_struck_at_any_step(kind: Kind, dies: bool) -> None:
    report = sweep_scenario(lambda: Working(dies), kinds=[kind], limit=60)
    assert report.violations == []
    assert report.fired >= 20
