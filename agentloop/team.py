"""A team: agents that hand the conversation to each other, run as one agent."""

from __future__ import annotations

from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Any, cast

import attrs

from agentloop._core.field_checks import shown
from agentloop._core.first_guesses import name_the_way
from agentloop._core.typevars import AgentOutput_co, Deps_contra
from agentloop._runtime.handoffs import check_team
from agentloop._runtime.lifecycle import Override
from agentloop.agent import Agent
from agentloop.errors import UsageError
from agentloop.models import Model

__all__ = ["Team"]


class Team(Agent[Deps_contra, AgentOutput_co]):
    """Agents that hand the conversation to each other by name. It runs as an `Agent` does, and wherever one may stand.

    ::

        front = Agent(model, name="front", handoffs=["billing"])
        billing = Agent(model, name="billing", handoffs=["front"])
        team = Team(front, billing)
        outcome = await team.run("Why was I charged twice?", session=session)

    The first agent takes the first prompt of a session. A later prompt goes to the agent that has the conversation by
    then, also in another process if the session has a journal, and so does a run that is resumed. The limits, the time
    limit and the observers of a stream are those of the agent that it began with. Model, instructions, tools, hooks,
    permissions and output type are those of the agent that acts: ``outcome.output`` is of the agent that answered.

    The fields of a team, such as ``team.name`` and ``team.limits``, are those of its first agent.

    Raises:
      UsageError: two agents have one name, or one hands off to a name that no agent of the team has.
    """

    __slots__ = ("members",)

    def __init__(self, *agents: Agent[Deps_contra, AgentOutput_co]) -> None:
        if not agents:
            raise UsageError("a team has agents: write Team(front, billing)")
        members: dict[str, Agent[Any, Any]] = {}
        for agent in agents:
            if not isinstance(cast("object", agent), Agent) or agent.members:
                raise UsageError(f"Team(...) takes agents, one after the other, not {shown(agent)}")
            if agent.name in members:
                raise UsageError(f"two agents of the team are called {agent.name!r}: give one of them another name=")
            members[agent.name] = agent
        for agent in agents:
            check_team(agent, members)
        # The class of the agent is frozen: its fields are set once, here.
        for attribute in attrs.fields(Agent):
            object.__setattr__(self, attribute.name, getattr(agents[0], attribute.name))
        object.__setattr__(self, "members", MappingProxyType(members))

    @property
    def agents(self) -> tuple[Agent[Any, Any], ...]:
        """The agents of the team, the one that takes a session's first prompt first."""
        return tuple(cast("Agent[Any, Any]", agent) for agent in self.members.values())

    def replace(self, **changes: Any) -> Team[Any, Any]:
        """Make a copy whose first agent has some fields changed."""
        first, *others = self.agents
        return Team(first.replace(**changes), *others)

    def override(self, *, model: Model | str) -> AbstractContextManager[None]:
        """While the block runs, all agents of the team run with ``model``. As `Agent.override`."""
        substitute = self.agents[0].replace(model=model).model
        return Override(lambda agent, model_now: substitute if agent in self.agents else model_now)

    def __repr__(self) -> str:
        return f"Team({', '.join(map(repr, self.members))})"


name_the_way(Team, {"handoff": "give one agent handoffs=['name of another']"})
