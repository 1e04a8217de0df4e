"""What a tool can say of one call before it runs: whether it is harmless, why, and what it may touch.

A tool says of itself whether it only reads (``read_only=True``) or may destroy something. Some tools cannot: whether a
shell reads or deletes depends on the command. Such a tool has a function ``assess=``, which gets the arguments of a
call and returns an `Assessment`::

    def assess(arguments: dict[str, Any]) -> Assessment:
        return Assessment(is_harmless=arguments["statement"].startswith("SELECT "))

    @tool(requires_approval=True, assess=assess)
    async def query(statement: str) -> str: ...

The mode ``safer`` of `agentloop.permissions.Permissions` runs harmless calls without approval, and a person who is
asked about another call reads the rest of its assessment in `agentloop.events.ApprovalRequested`.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

__all__ = ["Assessment", "BlastRadius", "SafetyLevel"]

SafetyLevel: TypeAlias = Literal["safe", "safer"]
"""The calls that run unasked: ``safe`` for those of tools that only read, ``safer`` also for those that their tool's
``assess=`` calls harmless. The words are those of the modes of `agentloop.permissions.Permissions`."""


class BlastRadius(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a call may touch, as far as it is known before the call. For a person to read: nothing is enforced by it."""

    paths: tuple[str, ...] = ()
    """Files and folders, as the call names them."""
    hosts: tuple[str, ...] = ()
    """Names of computers."""
    commands: tuple[str, ...] = ()
    """Programs with their arguments, one for each that a command line would run."""
    is_complete: bool = False
    """Whether the call touches nothing else."""

    def __str__(self) -> str:
        parts = [*self.commands, *self.paths, *self.hosts]
        return ", ".join(parts if self.is_complete or not parts else [*parts, "..."])


class Assessment(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a tool says of one call of it, from the arguments alone."""

    is_harmless: bool = False
    """Whether the call changes nothing, sends nothing away, and reads nothing that is to stay secret."""
    why: str = ""
    """Why it is harmless, or is not known to be, in words for a person: ``rm is not known to be harmless``."""
    destructive: bool | None = None
    """Whether this call may destroy something; ``None`` for what the tool says of itself."""
    blast_radius: BlastRadius = BlastRadius()
    """What the call may touch."""
    metadata: dict[str, Any] = {}
    """JSON values by name, for the person who is asked; added to those of the tool."""
