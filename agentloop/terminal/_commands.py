"""Slash commands that a person types at the terminal: those of the agent, and those of the terminal itself."""

from __future__ import annotations

from typing import Any

from agentloop._choosing import nearest
from agentloop.commands import expanded, typed_command
from agentloop.config import AgentConfig
from agentloop.errors import UnknownCommandError, UsageError
from agentloop.messages import user_message
from agentloop.session import Session
from agentloop.terminal._characters import printable
from agentloop.terminal._picking import model_lines, pick_level, pick_model, usage_lines, wrapped_entry
from agentloop.terminal._screen import Screen
from agentloop.terminal._single_keys import PAUSE_KEY, has_pause_key

__all__ = ["meant_by"]

HELP, MODEL, THINKING, USAGE = "help", "model", "thinking", "usage"

OWN = {
    MODEL: ("[name]", "the models that can be chosen; with a name, choose one"),
    THINKING: ("[level]", "how much the model thinks"),
    USAGE: ("", "what the session has used, and what is left of the window"),
    HELP: ("", "this list"),
}
"""The terminal's own commands: what to type after the name, and what each does. An agent's command of one of these
names comes before."""


async def meant_by(
    agent: AgentConfig[Any, Any], typed: str, screen: Screen, session: Session | None = None
) -> str | None:
    """The prompt that a person means by ``typed``; ``None`` if they are to type again, and the screen says why.

    Args:
      session: the session that the prompt is for. Without one, the only command of the terminal's own is ``/help``, and
        an agent without commands takes every text as it is.
    """
    own = OWN if session is not None else {HELP: OWN[HELP]} if agent.commands else {}
    command = typed_command(typed.strip()) if typed.startswith("/") else None
    if command is None or not own:
        return typed
    name, words = command
    try:
        if name in agent.commands:
            return expanded(agent.commands, user_message(typed)).text
        if name == HELP:
            _help(agent, own, screen)
        elif session is None or name not in own:
            known = (*agent.commands, *own)
            raise UnknownCommandError(name=name, nearest=nearest(name, known), known=known)
        else:
            await _do(agent, session, name, words, screen)
    except UsageError as error:
        told = printable(str(error))
        screen.note(f"  ({told}{'' if told.endswith(('?', '=', '.')) else '.'})")
    return None


async def _do(agent: AgentConfig[Any, Any], session: Session, name: str, words: str, screen: Screen) -> None:
    if name == MODEL:
        _show(pick_model(agent, session, words) if words else model_lines(agent, session), screen)
    elif name == THINKING:
        _show(pick_level(agent, session, words), screen)
    else:
        _show(usage_lines(agent, session, await session.usage()), screen)


def _show(lines: list[str], screen: Screen) -> None:
    for line in lines:
        screen.note(printable(line))


def _help(agent: AgentConfig[Any, Any], own: dict[str, tuple[str, str]], screen: Screen) -> None:
    rows = [(f"/{name} {command.hint}".strip(), command.description) for name, command in agent.commands.items()]
    rows += [(f"/{name} {hint}".strip(), does) for name, (hint, does) in own.items() if name not in agent.commands]
    if has_pause_key():
        rows.append((PAUSE_KEY, "while the agent works: pause it, and let it go on"))
    # As wide as those that leave room beside them.
    column = max(len(head) for head, _ in rows if len(head) <= 24)
    for head, does in rows:
        _show(wrapped_entry(head, does, column), screen)
