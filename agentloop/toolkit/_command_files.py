"""Slash commands from Markdown files, as ``.claude/commands`` has them."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

from agentloop._core.redaction import visible
from agentloop.commands import Command, is_command_name
from agentloop.errors import ToolError, UsageError
from agentloop.toolkit._front_matter import FrontMatterError, read_front_matter
from agentloop.toolkit._root import Root
from agentloop.toolkit._text_files import decoded, is_binary, on_one_line, without_hidden
from agentloop.toolkit._walk import spelled

__all__ = ["command_files"]

MAX_BYTES = 200_000
MAX_FILES = 500
MAX_DEPTH = 4
MAX_WORDS = 300
"""Characters of a description, and of a hint."""

_log = logging.getLogger("agentloop.toolkit")


def command_files(*folders: str | os.PathLike[str]) -> Mapping[str, Command]:
    """The slash commands in the Markdown files of folders, by name.

    ::

        agent = Agent(model, commands=command_files(".claude/commands"))

    ``fix.md`` is the command ``/fix``, and ``git/commit.md`` is ``/git:commit``. Of the front matter, ``description``
    and ``argument-hint`` count; it needs the extra ``yaml``. The rest of the file is the prompt, with its places for
    arguments: see `agentloop.commands`. Nothing in it is run, and ``@path`` stays as it is.

    The files are read once, here. A file that is no command, for its name or its content, is left out, and the log
    (``agentloop.toolkit``) says why; so is a link that leads out of its folder.

    Args:
      *folders: folders, or paths that begin with ``~``. A command of a later one replaces an earlier one of its name. A
        folder that is not there has no commands.

    Raises:
      UsageError: no folder is given, or the system cannot confine paths to one (Windows).
      MissingExtraError: a file has a front matter, and PyYAML is not installed.
    """
    if not folders:
        raise UsageError("command_files() has no folders: write command_files('.claude/commands')")
    commands: dict[str, Command] = {}
    for folder in folders:
        path = Path(folder).expanduser()
        if path.is_dir():
            root = Root(path)
            for file in _markdown_files(path):
                try:
                    name, command = _command(root, file)
                except (ToolError, FrontMatterError, UsageError, ValueError) as error:
                    _log.warning("%s is no command: %s", visible(spelled(str(path / file))), error)
                else:
                    commands[name] = command
    return commands


def _markdown_files(folder: Path) -> Iterator[str]:
    """The paths of Markdown files, relative to ``folder``, in order."""
    count = 0
    for above, folders, files in os.walk(folder):
        inner = os.path.relpath(above, folder)
        depth = 0 if inner == "." else inner.count(os.sep) + 1
        folders[:] = sorted(name for name in folders if not name.startswith(".")) if depth < MAX_DEPTH else []
        for name in sorted(files):
            if name.lower().endswith(".md") and not name.startswith("."):
                count += 1
                if count > MAX_FILES:
                    _log.warning("%s has more than %d files of commands: the others are left out", folder, MAX_FILES)
                    return
                yield name if inner == "." else f"{inner}/{name}"


def _command(root: Root, file: str) -> tuple[str, Command]:
    name = file[: -len(".md")].replace(os.sep, ":").replace("/", ":")
    if not is_command_name(name):
        raise ValueError("its name has other characters than letters, digits, '_', '.' and '-'")
    data, _ = root.read(file, MAX_BYTES)
    if is_binary(data):
        raise ValueError("it is no text")
    matter = read_front_matter(without_hidden(decoded(data).removeprefix("\ufeff")))
    description, hint = [_words(matter.fields.get(field)) for field in ("description", "argument-hint")]
    return name, Command(matter.body.strip(), description=description, hint=hint)


def _words(value: object) -> str:
    # YAML takes `[issue]` for a list.
    text = " ".join(f"[{item}]" for item in cast("list[object]", value)) if isinstance(value, list) else value
    return on_one_line(text)[:MAX_WORDS] if isinstance(text, str) else ""
