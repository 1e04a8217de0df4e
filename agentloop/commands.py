r"""Slash commands: named prompts with arguments, for a person who types.

::

    agent = Agent(model, commands={"fix": Command("Fix issue $1. $ARGUMENTS", description="Fix an issue")})

    await agent.run(agent.expand("/fix 12 in the parser"))

A program's own prompts are never taken for commands: `Agent.expand` is called where a person types. The terminal
(``read_prompt(agent=agent)``), the demo, the page of a server and ACP do that; MCP clients get commands as prompts.

A text is a command if its first character is a slash, and a name and then white space, or nothing, follow.
``/etc/hosts is empty``, ``// TODO`` and a text that begins with white space are sent as they are. A name that the agent
does not have is an error with the nearest ones, and not sent, since it is most likely misspelt. An agent without
commands takes every text as it is.

In the text of a command, ``$ARGUMENTS`` stands for all that was typed after the name, and ``$1`` to ``$99`` for a part
of it: parts are separated by white space, and quotes hold one together. A part that was not typed is empty. ``\$1`` is
a dollar sign and a digit. Where the text has no place for arguments, they follow it as a paragraph of their own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, cast

from attrs import field, frozen

from agentloop._core.field_checks import plain_text, shown
from agentloop._core.on_first_use import get_close_matches
from agentloop.errors import UnknownCommandError, UsageError
from agentloop.messages import Text, UserMessage

__all__ = ["Command", "commands_of", "expanded", "is_command_name", "typed_command"]

MAX_PROMPT = 200_000
"""Characters of the text of a command."""

_NAME = r"[A-Za-z0-9][A-Za-z0-9_:.-]{0,63}"
_TYPED = re.compile(rf"/({_NAME})(?:\s+(.*))?", re.DOTALL)
_QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'")
_PART = re.compile(rf"(?:{_QUOTED.pattern}|[^\s\"'])+")
_PLACE = re.compile(r"\\(\$)(?=\d|ARGUMENTS)|\$(ARGUMENTS)\b|\$([1-9]\d?)(?!\d)")


def is_command_name(name: object) -> bool:
    """Whether a command may have this name: a letter or digit, and up to 63 of them, ``_``, ``:``, ``.`` and ``-``."""
    return isinstance(name, str) and re.fullmatch(_NAME, name) is not None


def _check_text(instance: object, attribute: Any, value: Any) -> None:
    if not isinstance(value, str):
        raise UsageError(f"Command({attribute.name}={shown(value)}): give some text")
    if attribute.name == "prompt" and not (value.strip() and len(value) <= MAX_PROMPT):
        raise UsageError(f"Command(prompt={shown(value)}): give a text of up to {MAX_PROMPT} characters")


@frozen
class Command:
    """A prompt with a name.

    Raises:
      UsageError: the prompt is empty or too long, or an argument is no text.
    """

    prompt: str = field(validator=_check_text)
    """The text that is sent, with the arguments in the places of ``$ARGUMENTS`` and ``$1``, ``$2``."""
    description: str = field(default="", kw_only=True, validator=_check_text)
    """What it does, for the person who chooses it."""
    hint: str = field(default="", kw_only=True, validator=_check_text)
    """What to type after the name, such as ``[issue] [branch]``; empty if it takes nothing, or does not say."""

    @property
    def takes_arguments(self) -> bool:
        """Whether the text has a place for arguments."""
        return any(match[1] is None for match in _PLACE.finditer(self.prompt))

    def fill(self, arguments: str = "") -> str:
        """The text to send, for ``arguments`` as they were typed after the name."""
        arguments = plain_text(arguments).strip()
        if arguments and not self.takes_arguments:
            return f"{self.prompt.rstrip()}\n\n{arguments}"
        parts = _parts(arguments)

        def put(place: re.Match[str]) -> str:
            if place[1] is not None:
                return "$"
            if place[2] is not None:
                return arguments
            number = int(place[3])
            return parts[number - 1] if number <= len(parts) else ""

        # In one go: a `$1` that was typed is text.
        return _PLACE.sub(put, self.prompt)


def _parts(arguments: str) -> list[str]:
    if any(quote in _QUOTED.sub("", arguments) for quote in "\"'"):
        # A quote without its end, such as an apostrophe.
        return arguments.split()
    return [_QUOTED.sub(lambda quoted: quoted[0][1:-1], part) for part in _PART.findall(arguments)]


def commands_of(items: Mapping[str, Command | str]) -> Mapping[str, Command]:
    """The commands of ``Agent(commands=...)``, by name. A text is made a command.

    Raises:
      UsageError: a name or a command is none.
    """
    given: Any = items
    if not isinstance(given, Mapping):
        raise UsageError(f"commands= takes a dict such as {{'fix': Command('Fix $1')}}, not {shown(given)}")
    commands: dict[str, Command] = {}
    for name, item in cast("Mapping[object, object]", given).items():
        if not is_command_name(name):
            problem = "leave out the slash" if isinstance(name, str) and name.startswith("/") else _RULE
            raise UsageError(f"commands=: {shown(name)} cannot be the name of a command: {problem}")
        if not isinstance(item, (str, Command)):
            raise UsageError(f"commands=: {name!r} is to be a text or Command(...), not {shown(item)}")
        commands[str(name)] = Command(item) if isinstance(item, str) else item
    return MappingProxyType(commands)


_RULE = "give a letter or digit, and then letters, digits, '_', ':', '.' and '-'"


def typed_command(text: str) -> tuple[str, str] | None:
    """The name of the command that ``text`` is, and what was typed after it; ``None`` if it is no command."""
    typed = _TYPED.fullmatch(text)
    return None if typed is None else (typed[1], typed[2] or "")


def expanded(commands: Mapping[str, Command], message: UserMessage) -> UserMessage:
    """``message``, or the prompt of the command that its first part names.

    Raises:
      UnknownCommandError: there is no such command.
    """
    first = message.parts[0] if message.parts else None
    typed = typed_command(first.text) if commands and isinstance(first, Text) else None
    if typed is None:
        return message
    name, arguments = typed
    command = commands.get(name)
    if command is None:
        raise UnknownCommandError(name=name, nearest=_nearest(name, commands), known=tuple(commands))
    return UserMessage((Text(plain_text(command.fill(arguments))), *message.parts[1:]))


def _nearest(name: str, commands: Mapping[str, Command]) -> tuple[str, ...]:
    """The commands whose names are most like ``name``, the nearest first."""
    folded = {known.casefold(): known for known in commands}
    near = get_close_matches(name.casefold(), folded, 3, 0.6)
    begin = [known for known in folded if known.startswith(name.casefold())]
    return tuple([folded[known] for known in dict.fromkeys([*near, *begin])][:3])
