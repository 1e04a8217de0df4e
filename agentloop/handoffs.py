"""Handoffs: an agent gives the conversation to another agent of its team, which continues it in the same stream.

::

    front = Agent(model, name="front", handoffs=["billing", Handoff("refunds", history="last")])
    team = Team(front, billing, refunds)

Agents name each other, so two of them can hand off to one another. `agentloop.team.Team` finds the agents by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, TypeAlias, cast

from attrs import field, frozen

from agentloop._core.field_checks import is_name, shown
from agentloop.errors import UsageError
from agentloop.messages import Message

__all__ = ["HANDOFF", "Handoff", "History", "handoffs_of"]

HANDOFF = "handoff"
"""Name of the tool by which a model hands the conversation off."""

History: TypeAlias = Literal["all", "last"] | Callable[[tuple[Message, ...]], Sequence[Message]]
"""What the next agent reads of the conversation before the handoff: see `Handoff.history`."""


def _check_agent(instance: object, attribute: object, agent: Any) -> None:
    if not is_name(agent) or not str(agent).strip():
        name: object = getattr(agent, "name", None)
        hint = f": write {name!r}" if is_name(name) else ""
        raise UsageError(f"a handoff goes to the name of an agent, not to {shown(agent)}{hint}")


def _check_description(instance: object, attribute: object, text: object) -> None:
    if not isinstance(text, str):
        raise UsageError(f"Handoff(description=) takes some text for the model, not {shown(text)}")


def _check_history(instance: object, attribute: object, history: object) -> None:
    if history not in ("all", "last") and not callable(history):
        raise UsageError(f"Handoff(history=) takes 'all', 'last', or a function of the messages, not {shown(history)}")


@frozen
class Handoff:
    """A handoff that an agent may make.

    Raises:
      UsageError: a field is wrong.
    """

    agent: str = field(validator=_check_agent)
    """Name of the agent that gets the conversation."""
    description: str = field(default="", kw_only=True, validator=_check_description)
    """When to hand off to it, in words for the model; the description of that agent if left out."""
    history: History = field(default="all", kw_only=True, validator=_check_history)
    """The messages before the handoff that the next agent reads. The session keeps all messages.

    - ``"all"``: all of them.
    - ``"last"``: the newest message of the user, and what followed it, the handoff included.
    - a function: it gets the messages that the agent before has read, the handoff included, and returns those that the
      next agent reads instead. A plain function runs in a thread. It is called once for each handoff, and once more if
      the process dies at that moment.
    """


def handoffs_of(items: Iterable[Handoff | str]) -> tuple[Handoff, ...]:
    """The handoffs of an agent: each item, made a `Handoff` if it is a name."""
    if isinstance(cast("object", items), str) or not isinstance(cast("object", items), Iterable):
        raise UsageError(f"handoffs= takes a list of names, or of Handoff(...), not {shown(items)}")
    listed: list[Any] = list(items)
    handoffs = tuple([item if isinstance(item, Handoff) else Handoff(item) for item in listed])
    names = [handoff.agent for handoff in handoffs]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"handoffs= names {name!r} twice: once is enough")
    return handoffs
