"""Slash commands from Markdown files, and the files that are none."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from agentloop import Agent, UsageError
from agentloop.commands import Command
from agentloop.testing import ScriptedModel
from agentloop.toolkit import command_files

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the files are read by POSIX calls")


def write(folder: Path, path: str, text: str | bytes) -> None:
    file = folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text if isinstance(text, bytes) else text.encode())


def test_files_are_commands_by_their_paths_and_their_front_matter(tmp_path: Path) -> None:
    write(tmp_path, "fix.md", "---\ndescription: Fix an issue\nargument-hint: [issue] [branch]\n---\n\nFix $1 on $2.\n")
    write(tmp_path, "git/commit.md", "Commit $ARGUMENTS.")
    write(tmp_path, "notes.txt", "no command")
    write(tmp_path, ".hidden.md", "no command")

    commands = command_files(tmp_path, tmp_path / "missing")

    assert commands == {
        "fix": Command("Fix $1 on $2.", description="Fix an issue", hint="[issue] [branch]"),
        "git:commit": Command("Commit $ARGUMENTS."),
    }
    agent = Agent(ScriptedModel(), commands=commands)
    assert agent.expand("/fix 7 main").text == "Fix 7 on main."
    assert agent.expand("/git:commit all").text == "Commit all."


def test_a_command_of_a_later_folder_replaces_one_of_its_name(tmp_path: Path) -> None:
    write(tmp_path, "a/go.md", "First.")
    write(tmp_path, "b/go.md", "Second.")

    assert command_files(tmp_path / "a", tmp_path / "b")["go"].prompt == "Second."


def test_a_file_that_is_no_command_is_left_out_and_the_log_says_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "commands"
    write(folder, "good.md", "Good.\u200b")
    write(folder, "with space.md", "x")
    write(folder, "empty.md", "---\ndescription: Empty\n---\n")
    write(folder, "endless.md", "---\ndescription: x\n")
    write(folder, "binary.md", b"\0\1\2")
    write(folder, "large.md", "x" * 300_000)
    write(tmp_path, "secret.md", "secret")
    (folder / "out.md").symlink_to(tmp_path / "secret.md")
    (folder / "round").symlink_to(folder)

    with caplog.at_level(logging.WARNING, "agentloop.toolkit"):
        commands = command_files(folder)

    assert {name: command.prompt for name, command in commands.items()} == {"good": "Good."}
    names = ("with space", "empty", "endless", "binary", "large", "out")
    assert sorted(record.args[0].rpartition("/")[2] for record in caplog.records) == sorted(  # type: ignore[index,union-attr]
        f"{name}.md" for name in names
    )


def test_command_files_without_a_folder_are_refused() -> None:
    with pytest.raises(UsageError, match="no folders"):
        command_files()
