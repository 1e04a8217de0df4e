"""The handoffs of a session: which agent has had the conversation, and which agent has it now."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

import msgspec

from agentloop._core.on_first_use import get_close_matches

__all__ = ["HandoffRecord", "Handoffs", "agent_after_rewind", "continue_message", "nearest"]


class HandoffRecord(msgspec.Struct, frozen=True):
    """A handoff that was made."""

    index: int
    """How many messages the transcript had when it was made: the turn that it ends comes after them."""
    agent: str
    """Name of the agent that handed the conversation off."""
    to: str
    """Name of the agent that got it."""
    call_id: str = ""
    """Id of the tool call that asked for it; empty if the agent had answered."""


Handoffs: TypeAlias = tuple[HandoffRecord, ...]
"""The handoffs of a session, oldest first. A tuple, since nearly all sessions have none."""


def agent_after_rewind(handoffs: Handoffs, agent: str, messages: int) -> tuple[Handoffs, str]:
    """The handoffs that count once only the first so many ``messages`` do, and the agent that has the conversation.

    Args:
      agent: the agent that had it before the rewind.
    """
    left = tuple([handoff for handoff in handoffs if handoff.index < messages])
    return left, agent if len(left) == len(handoffs) else handoffs[len(left)].agent


def nearest(name: str, known: Iterable[str]) -> str:
    """Words for an error about ``name``, which is none of ``known``: the nearest of those, or all of them."""
    folded = {other.casefold(): other for other in known}
    near = get_close_matches(name.casefold(), folded, 1, 0.6)
    return f"did you mean {folded[near[0]]!r}?" if near else f"there are {', '.join(map(repr, folded.values()))}"


def continue_message(agent: str, to: str) -> str:
    """The message that a model reads when it gets the conversation from an agent that has answered."""
    return f"[The agent {agent} has finished its part. Continue the conversation as the agent {to}.]"
