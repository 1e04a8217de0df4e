"""Which model an agent runs with, where that is not its own: what tests put in its place.

Nothing is written on an agent, which is shared. What is in force is a property of where the agent is opened: of the
task (a context variable, which tasks and threads inherit when they are started), or of the whole process.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from contextvars import ContextVar
from importlib import import_module
from typing import TypeAlias

from agentloop.config import AgentConfig
from agentloop.models import Model

__all__ = ["Override", "Substitute", "models_of", "resolve", "resolve_model"]

Substitute: TypeAlias = Callable[[AgentConfig, Model | str], Model | str]
"""The model for an agent, given the one that it would have otherwise."""


class Override(AbstractContextManager[None]):
    """While the block runs, agents run with what ``substitute`` gives.

    Blocks may be nested, and left in any order: leaving one takes away what it added, and nothing else.

    Args:
      substitute: called whenever a stream is opened.
      everywhere: whether it holds for the whole process, and not just for this task and what it starts.
    """

    # A class, and not `@contextmanager`: its blocks would be decorators too, which do nothing for an async function.
    __slots__ = ("_everywhere", "_substitute")

    def __init__(self, substitute: Substitute, *, everywhere: bool = False) -> None:
        self._substitute = substitute
        self._everywhere = everywhere

    def __enter__(self) -> None:
        if self._everywhere:
            _everywhere.append(self)
        else:
            _here.set((*_here.get(), self))

    def __exit__(self, *exc_info: object) -> None:
        if self._everywhere:
            _everywhere.remove(self)
        else:
            # Not `ContextVar.reset`: it would restore overrides that have ended since.
            left = list(_here.get())
            # The override is missing if the block is left in another context than it was entered in.
            if self in left:
                left.remove(self)
                _here.set(tuple(left))

    def __call__(self, agent: AgentConfig, model: Model | str) -> Model | str:
        return self._substitute(agent, model)


_here: ContextVar[tuple[Override, ...]] = ContextVar("agentloop_overrides", default=())
_everywhere: list[Override] = []


def models_of(agent: AgentConfig) -> list[Model | str]:
    """The models that ``agent`` runs with when it is opened here: the innermost block has the last word.

    Its fallbacks are replaced, too; a model that takes the place of several counts once.
    """
    if not (agent.fallbacks or _everywhere or _here.get()):
        return [agent.model]
    models: list[Model | str] = []
    for original in (agent.model, *agent.fallbacks):
        model = original
        for override in (*_everywhere, *_here.get()):
            model = override(agent, model)
        if not any(model is other for other in models):
            models.append(model)
    return models


def resolve(agent: AgentConfig) -> tuple[Model, ...]:
    """The models that ``agent`` runs with, overrides applied and names resolved.

    Raises:
      ModelNotFoundError: a name is unknown, or its key is missing; the message says what to set.
      MissingExtraError: a model needs an extra; the message says what to install.
      NetworkForbiddenError: a model is behind a network, and the network is forbidden.
    """
    return tuple([resolve_model(agent, model) for model in models_of(agent)])


def resolve_model(agent: AgentConfig, model: Model | str) -> Model:
    """``model``, made of its name if it is one. Raises as `resolve` does."""
    if not isinstance(model, str):
        return model
    resolved: Model = import_module("agentloop.providers").model_for(agent.name, model)
    return resolved
