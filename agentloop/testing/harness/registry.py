"""How scenarios come into the corpus: by decorators, under the names of their functions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeAlias

from agentloop.agent import Agent
from agentloop.events import Question, StreamEvent, StreamReason
from agentloop.questions import Answer
from agentloop.testing._lab import AgentScenario, Lab, echo
from agentloop.testing.scripted import calls

__all__ = ["GROUPS", "SCENARIOS", "MakeAgent", "Play", "ends", "nested", "on_depths", "scenario"]

SCENARIOS: dict[str, Callable[[], AgentScenario]] = {}
"""Every scenario without a journal, by name."""

GROUPS: dict[str, str] = {}
"""The module that each scenario is defined in, by the scenario's name."""

Play: TypeAlias = Callable[[Lab], Awaitable[None]]
MakeAgent: TypeAlias = Callable[[Lab], Agent]


def scenario(expect: Callable[[Lab], None] | None = None) -> Callable[[Play], Play]:
    """Add a function of a lab to the corpus, under its own name."""

    def add(play: Play) -> Play:
        name = play.__name__.replace("_", "-")
        SCENARIOS[name] = partial(AgentScenario, name, play, expect)
        GROUPS[name] = play.__module__
        return play

    return add


def on_depths(
    reason: StreamReason,
    *,
    answer: Callable[[Question], Answer | None] | None = echo,
    depths: tuple[int, ...] = (0, 1, 2),
    tells: type[StreamEvent] | None = None,
) -> Callable[[MakeAgent], MakeAgent]:
    """Add an agent to the corpus, run directly and nested, read to its end.

    Args:
      reason: why the agent's own stream must stop, where nothing is injected.
      answer: how the root's reader answers questions.
      tells: a class that must be among the events.
    """

    def add(make: MakeAgent) -> MakeAgent:
        for depth in depths:
            name = f"{make.__name__.replace('_', '-')}-{depth}"

            async def play(lab: Lab, depth: int = depth) -> None:
                async with lab.stream(nested(lab, make(lab), depth)) as stream:
                    await stream.drain(answer=answer)

            def expect(lab: Lab, depth: int = depth) -> None:
                innermost = lab.watch.runs[depth]
                assert innermost.outcome is not None
                assert innermost.outcome.reason == reason, innermost.outcome
                if depth:
                    assert lab.recorded[0].stream.outcome.reason == "completed"
                if tells is not None:
                    assert any(isinstance(event, tells) for event in lab.recorded[0].events), tells

            SCENARIOS[name] = partial(AgentScenario, name, play, expect)
            GROUPS[name] = make.__module__
        return make

    return add


def nested(lab: Lab, agent: Agent, depth: int) -> Agent:
    """``agent`` as the tool of an agent, ``depth`` times."""
    for level in range(depth):
        helper = agent.as_tool(name="helper")
        agent = Agent(
            lab.model(calls("helper", prompt="go on"), name=f"outer{level}"), name=f"outer{level}", tools=[helper]
        )
    return agent


def ends(reason: StreamReason) -> Callable[[Lab], None]:
    """Expect that the first root stream ends for ``reason``."""

    def expect(lab: Lab) -> None:
        assert lab.recorded[0].stream.outcome.reason == reason, lab.recorded[0].stream.outcome

    return expect
