"""Other models for all agents at once."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager

from agentloop._runtime.lifecycle import Override
from agentloop.config import AgentConfig
from agentloop.models import Model

__all__ = ["override_agents"]


def override_agents(
    models: Model | str | Mapping[str, Model | str], *, everywhere: bool = False
) -> AbstractContextManager[None]:
    """While the block runs, all agents that are opened in it run with another model than their own.

    Like `Agent.override`, for agents that a test cannot get hold of: those inside others, and copies of agents.

    Args:
      models: the model, or models by the agents' names; agents that are not named keep theirs.
      everywhere: whether it holds for the whole process, and not just for this task and the tasks that it starts. For
        fixtures of test runners that run a test in another context than its fixtures. An override for a task goes
        before it.

    Raises:
      UsageError: a model is none.
    """
    if isinstance(models, Mapping):
        checked = {name: AgentConfig(model).model for name, model in models.items()}
        return Override(lambda agent, original: checked.get(agent.name, original), everywhere=everywhere)
    model = AgentConfig(models).model
    return Override(lambda agent, original: model, everywhere=everywhere)
