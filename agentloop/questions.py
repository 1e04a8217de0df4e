"""Answers to questions. A question is anything that waits for a person.

The questions themselves are events (`ElicitationRequested`, `ApprovalRequested`, `ContinueRequested`): a
reader sees them in its stream, a handler is called with them, and `Stream.pending` lists those that are open.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from agentloop.permissions import Rule

__all__ = ["Accept", "Answer", "Approve", "Cancel", "Decline", "Deny"]


class Accept(msgspec.Struct, frozen=True, tag="accept", omit_defaults=True):
    """The person filled in the form. Answers an elicitation."""

    content: dict[str, Any] = {}
    """Field name to JSON value, as the form asked; defaults are filled in for fields left out."""


class Decline(msgspec.Struct, frozen=True, tag="decline", omit_defaults=True):
    """The person said no. Answers an elicitation."""

    note: str = ""
    """Why, for the model to read; agentloop itself says so here when nobody could be asked."""


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    """The person closed the dialog without choosing. Answers an elicitation."""


class Approve(msgspec.Struct, frozen=True, tag="approve", omit_defaults=True):
    """Go on. Answers an approval, or the question whether to go past a limit."""

    arguments: dict[str, Any] | None = None
    """Call the tool with these arguments instead of those that were shown."""
    always: bool | Rule = False
    """Do not ask again while the session lives. ``True`` means this very call: this tool of this agent, with the
    arguments that are approved, and no others. A rule for this tool means all calls of this agent that it certainly
    matches; without conditions, all calls of the tool."""


class Deny(msgspec.Struct, frozen=True, tag="deny", omit_defaults=True):
    """Do not. Answers an approval, or the question whether to go past a limit."""

    reason: str = ""
    """For the model to read."""


Answer: TypeAlias = Accept | Decline | Cancel | Approve | Deny
