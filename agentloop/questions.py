"""Answers to questions. A question is anything that waits for a person.

The questions themselves are events (`ElicitationRequested`, `ApprovalRequested`, `ContinueRequested`): a reader gets
them with its stream, a handler is called with them, and `Stream.pending` lists the open ones.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from agentloop.permissions import Rule
from agentloop.safety import SafetyLevel

__all__ = ["Accept", "Answer", "Approve", "Cancel", "Decline", "Deny"]


class Accept(msgspec.Struct, frozen=True, tag="accept", omit_defaults=True):
    """The person filled in the form. Answers an elicitation."""

    content: dict[str, Any] = {}
    """JSON values by field name, as the form asks; agentloop fills in the defaults of fields left out."""


class Decline(msgspec.Struct, frozen=True, tag="decline", omit_defaults=True):
    """The person said no. Answers an elicitation."""

    note: str = ""
    """Why, for the model to read. When nobody could be asked, agentloop writes that here."""


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    """The person closed the dialog without choosing. Answers an elicitation."""


class Approve(msgspec.Struct, frozen=True, tag="approve", omit_defaults=True):
    """The person agreed. Answers an approval, or the question whether to go past a limit."""

    arguments: dict[str, Any] | None = None
    """Call the tool with these arguments instead of those that were shown."""
    always: bool | Rule | SafetyLevel = False
    """Do not ask again in this session. ``True`` covers this very call: this tool of this agent with the approved
    arguments, and no others. A rule for this tool covers all calls of this agent that it certainly matches; a rule
    without conditions covers all calls of the tool. ``"safe"`` and ``"safer"`` approve this call once, and from now on
    all calls of this agent that the mode of that name runs, of whatever tool. They satisfy a mode that asks, and
    ``"safer"`` also a tool that requires approval of a harmless call; rules and hooks that ask still ask."""


class Deny(msgspec.Struct, frozen=True, tag="deny", omit_defaults=True):
    """The person refused. Answers an approval, or the question whether to go past a limit."""

    reason: str = ""
    """Why, for the model to read."""


Answer: TypeAlias = Accept | Decline | Cancel | Approve | Deny
