"""Slash commands that a person types at the terminal."""

from __future__ import annotations

from typing import Any

from agentloop.commands import expanded
from agentloop.config import AgentConfig
from agentloop.errors import UnknownCommandError
from agentloop.messages import user_message
from agentloop.terminal._characters import printable
from agentloop.terminal._screen import Screen

__all__ = ["meant_by"]

HELP = "/help"
"""Lists the commands, unless the agent has one of that name."""


def meant_by(agent: AgentConfig[Any, Any], typed: str, screen: Screen) -> str | None:
    """The prompt that a person means by ``typed``; ``None`` if they are to type again, and the screen says why."""
    if not agent.commands or not typed.strip():
        return typed
    if typed.strip() == HELP and HELP[1:] not in agent.commands:
        for name, command in agent.commands.items():
            words = "  ".join(filter(None, (f"/{name} {command.hint}".strip(), command.description)))
            screen.note(f"  {printable(words)}")
        return None
    try:
        message = expanded(agent.commands, user_message(typed))
    except UnknownCommandError as error:
        screen.note(f"  ({printable(str(error))}.)")
        return None
    return message.text
