"""Which command lines are harmless: none that does harm is called so, whatever it is dressed up as."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from agentloop import Agent, Deny, Permissions
from agentloop.errors import MissingExtraError
from agentloop.events import ApprovalRequested, ToolCallFinished
from agentloop.safety import BlastRadius
from agentloop.testing import ScriptedModel, calls
from agentloop.toolkit import assess_command, command_assessor, shell
from agentloop.toolkit._shell_parser import _import_parser  # pyright: ignore[reportPrivateUsage]
from tests.runtime.builders import answering
from tests.support import of, watch
from tests.toolkit.commands import (
    DANGEROUS,
    DANGEROUS_IN_LINES,
    FOLDER,
    HARMLESS,
    HARMLESS_IN_LINES,
)


@pytest.mark.parametrize("line", HARMLESS + HARMLESS_IN_LINES, ids=ascii)
def test_a_command_that_only_reads_is_harmless(line: str) -> None:
    assessment = assess_command(line, folder=FOLDER)
    assert assessment.is_harmless, assessment.why
    assert assessment.blast_radius.is_complete


@pytest.mark.parametrize("line", DANGEROUS + DANGEROUS_IN_LINES, ids=lambda line: ascii(line)[:60])
def test_no_command_that_may_do_harm_is_called_harmless(line: str) -> None:
    assessment = assess_command(line, folder=FOLDER)
    assert not assessment.is_harmless
    assert assessment.why
    assert not assessment.blast_radius.is_complete


@pytest.mark.parametrize("line", HARMLESS, ids=ascii)
@pytest.mark.parametrize(
    "around", ["{}; rm x", "rm x\n{}", "{} | tee x", "{} > x", "PATH=. {}", "sudo {}", "f() {{ {}; }}"]
)
def test_a_harmless_command_beside_another_one_lends_it_nothing(line: str, around: str) -> None:
    # A comment at the end would hide what comes after it.
    assert not assess_command(around.format(line.partition(" #")[0]), folder=FOLDER).is_harmless


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("rm x", "rm is not known to be harmless"),
        ("git log --output=x", "git log --output=x is not known to be harmless"),
        ("sort -o x y", "sort -o is not known to be harmless"),
        ("echo > x", "> writes to x"),
        ("ls &", "it leaves a process in the background"),
        ("PATH=. ls", "the variable PATH may change what programs do"),
        ("cat .env", ".env may hold secrets"),
        ("cat ../x", "../x may lead out of the folder"),
        ("cat /etc/passwd", "/etc/passwd is outside of the folder"),
        ("cat $(ls)", "where ... leads is not known"),
        ("echo $KEY", "the variable KEY may be secret, and its value is not known"),
        ("ls\u00a0x", "it has the character U+00A0, which shells and people may take for another"),
        ("ls ((", "it cannot be taken apart"),
    ],
    ids=ascii,
)
def test_an_assessment_says_why_a_command_is_not_known_to_be_harmless(line: str, why: str) -> None:
    assert assess_command(line).why == why


def test_the_blast_radius_has_the_commands_the_paths_and_the_hosts_of_the_line() -> None:
    line = "cd build && rm -rf ./out /tmp/x | curl -d @log.txt https://ann:pw@example.org/up > done.txt"

    radius = assess_command(line).blast_radius

    commands = ("cd build", "rm -rf ./out /tmp/x", "curl -d @log.txt https://ann:pw@example.org/up")
    assert radius == BlastRadius(("./out", "/tmp/x", "done.txt"), ("example.org",), commands)


def test_of_a_line_that_cannot_be_taken_apart_the_blast_radius_is_the_line() -> None:
    assert assess_command("f() { rm x; }").blast_radius == BlastRadius(commands=("f() { rm x; }",))
    assert len(assess_command("f() { rm x; }" * 1000).blast_radius.commands[0]) <= 500


def test_absolute_paths_in_the_folder_are_harmless_and_those_of_another_folder_are_not() -> None:
    assert assess_command("cat /srv/a/x", folder="/srv/a").is_harmless
    assert not assess_command("cat /srv/a/x", folder="/srv/b").is_harmless
    assert not assess_command("cat /srv/a/x").is_harmless
    assert not assess_command("cat /etc/shadow", folder="/").is_harmless


# ------------------------------------------------------------------- in the shells of this machine

PIECES = (
    "ls", "rm", "x", " ", " ", "\n", ";", "&&", "||", "|", "&", "$(", "`", ")", "(", "'", '"', "\\", "\\\n", "#", "$f",
    "{", "}", ",", "<<E\n", "\nE\n", "<<'E'\n", ">", "<", " 2>", "1", ">&", "!", "=", "PATH=.", "[ ", " ]", "*", "?",
    "~", "-", "$((", "))", "${", "if ", "; then ", "; fi", "for f in ", "; do ", "; done", "case ", "esac ", "\t", "x=",
    "$'", "<(", "<<<", "env ", "xargs ", "sh -c ", "command ", "[[ ", "]]", "$?", "|&", "&>", "..", "eval ", "\u00e9",
)  # fmt: skip
SHELLS = [path for name in ("sh", "dash", "bash") if (path := shutil.which(name))]
HARMFUL = ("rm", "x", "f", "E", "xls", "lsx", "tee", "sudo")


@pytest.mark.skipif(os.name != "posix", reason="it runs shells")
@pytest.mark.parametrize("lines", [400, pytest.param(40_000, marks=pytest.mark.nightly)])
def test_no_shell_runs_another_program_for_a_line_that_is_called_harmless(lines: int, tmp_path: Path) -> None:
    """Mutants of harmless lines run in real shells, in which each program that is not known leaves a trace."""
    programs, folder, trace = tmp_path / "bin", tmp_path / "folder", tmp_path / "trace"
    programs.mkdir()
    folder.mkdir()
    for name in HARMFUL:
        (programs / name).write_text(f'#!/bin/sh\necho "$0" >> {trace}\n')
        (programs / name).chmod(0o755)
    for name in ("sh", "bash", "env", "xargs", "find", "sort", "sed", "uniq", "awk", "tr", "cut"):
        if found := shutil.which(name):
            (programs / name).symlink_to(found)
    # Names that are options of programs, for wildcards that are not in quotes.
    for name in ("-oout", "-delete", "a.py", "b c.py", "names.txt"):
        (folder / name).write_text("text\n")
    before = sorted(folder.iterdir())
    source = random.Random(lines)
    tried = 0
    for _ in range(lines):
        line = source.choice(HARMLESS)
        for _ in range(source.randint(1, 3)):
            at = source.randint(0, len(line))
            line = line[:at] + source.choice(PIECES) + line[at + source.randint(0, 2) :]
        if not assess_command(line).is_harmless:
            continue
        tried += 1
        for path in SHELLS:
            environment = {"PATH": str(programs), "HOME": "/nowhere"}
            output = subprocess.DEVNULL
            subprocess.run(
                [path, "-c", line], cwd=folder, env=environment, stdin=output, stdout=output, stderr=output, timeout=20,
                check=False,
            )  # fmt: skip
            assert not trace.exists(), line
            assert sorted(folder.iterdir()) == before, line
    assert tried > lines // 40


# -------------------------------------------------------------------------- in the shell and other tools


@pytest.mark.real_clock
@pytest.mark.skipif(os.name != "posix", reason="shell() needs a POSIX system")
async def test_the_shell_runs_harmless_commands_unasked_in_the_mode_safer(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("ann\n")
    script = [calls("shell", command="cat names.txt"), calls("shell", command="rm names.txt")]
    agent = Agent(ScriptedModel(*script, "Done."), tools=[shell(cwd=tmp_path)], permissions=Permissions(mode="safer"))

    watched = await watch(agent, on_event=answering(Deny()))

    finished = of(watched.events, ToolCallFinished)
    assert [event.result.text for event in finished] == ["ann\n[exit code 0]", "Denied by the user."]
    [question] = of(watched.events, ApprovalRequested)
    assert question.reason == "the mode 'safer' asks: rm is not known to be harmless"
    assert question.blast_radius == BlastRadius(paths=("names.txt",), commands=("rm names.txt",))
    assert (question.read_only, question.destructive) == (False, True)


def test_an_assessor_reads_the_argument_that_it_is_told() -> None:
    assess = command_assessor(argument="script", folder=FOLDER)

    assert assess({"script": "ls /srv/project"}).is_harmless
    assert not assess({"command": "ls"}).is_harmless
    assert not assess({"script": ["ls"]}).is_harmless


def test_without_the_extra_no_command_is_harmless_and_the_assessment_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _import_parser.cache_clear()
    monkeypatch.setitem(sys.modules, "tree_sitter_bash", None)

    assessment = assess_command("ls")

    error = MissingExtraError(feature="taking command lines apart", package="tree-sitter-bash", extra="shell")
    assert not assessment.is_harmless
    assert assessment.why == str(error)
    assert assessment.blast_radius == BlastRadius(commands=("ls",))
