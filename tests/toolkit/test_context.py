"""The sources of context: what each says, and that asking git runs no program of the repository and leaves none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agentloop import Agent, UsageError
from agentloop.context_sources import ContextSource
from agentloop.errors import ToolError
from agentloop.events import WarningIssued
from agentloop.messages import UserMessage
from agentloop.testing import ScriptedModel
from agentloop.toolkit import _git_status, context
from tests.support import of, watch
from tests.toolkit.builders import gone

pytestmark = [
    pytest.mark.real_clock,
    pytest.mark.skipif(os.name != "posix", reason="the files are read by POSIX calls"),
]
needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


async def text(source: ContextSource) -> str:
    """The text that the model reads."""
    watched = await watch(Agent(ScriptedModel("Done."), context=[source]))
    assert not of(watched.events, WarningIssued)
    told = [m for m in watched.stream.result.messages if isinstance(m, UserMessage) and m.context]
    if not told:
        return ""
    part: Any = told[0].parts[1]
    return str(part.text.split("\n", 1)[1].rsplit("\n", 1)[0])


def git(folder: Path, *arguments: str) -> None:
    settings = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgSign=false"]
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    subprocess.run(["git", *settings, *arguments], cwd=folder, check=True, capture_output=True, env=environment)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch=trunk")
    (folder / "kept.txt").write_text("kept\n")
    (folder / ".gitignore").write_text("*.log\n")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "First words")
    return folder


async def test_the_date_has_its_day_and_its_zone_in_english() -> None:
    source = context.date("Asia/Tokyo", now=lambda: datetime(2026, 11, 29, 20, 0, tzinfo=UTC))

    assert await text(source) == "Today is Monday, 2026-11-30 (JST)."
    assert (await text(context.date())).startswith("Today is ")


async def test_the_environment_has_the_folder_and_the_platform(tmp_path: Path) -> None:
    said = await text(context.environment(tmp_path))

    assert said.splitlines()[0] == f"Working folder: {tmp_path}"
    assert "Platform: " in said


async def test_a_listing_is_sorted_bounded_and_without_hidden_names(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", ".hidden", "c\n.txt"):
        (tmp_path / name).touch()
    (tmp_path / "folder").mkdir()

    assert await text(context.listing(tmp_path)) == f"In {tmp_path}:\na.txt\nb.txt\nc\\x0a.txt\nfolder/"
    assert (await text(context.listing(tmp_path, max_entries=1))).splitlines()[1:] == ["a.txt", "... and 3 more"]


async def test_prompt_files_are_told_again_when_one_has_changed(tmp_path: Path) -> None:
    file = tmp_path / "AGENTS.md"
    file.write_text("Use tabs.")
    model = ScriptedModel("One.", "Two.", "Three.")
    agent = Agent(model, context=[context.prompt_files(folder=tmp_path)])
    first = await agent.run("go")
    assert "Use tabs." in first.messages[1].parts[1].text  # type: ignore[union-attr]
    said = await text(context.prompt_files("AGENTS.md", folder=tmp_path))
    file.write_text("Use spaces.")

    assert (
        said.replace("tabs", "spaces").split("\n")[0]
        == (await text(context.prompt_files("AGENTS.md", folder=tmp_path))).split("\n")[0]
    )
    assert "Use spaces." in await text(context.prompt_files("AGENTS.md", folder=tmp_path))
    assert await text(context.prompt_files("OTHER.md", folder=tmp_path)) == ""


@needs_git
async def test_git_says_the_branch_and_the_files_that_differ(repository: Path) -> None:
    assert await text(context.git(repository, commits=2)) == "\n".join(
        [
            f"Repository: {repository}",
            "Branch: trunk",
            "No file differs from the latest commit.",
            "Latest commits:",
            "  " + _head(repository)[:7] + " First words",
        ]
    )
    (repository / "kept.txt").write_text("changed\n")
    (repository / "new\n.txt").touch()
    (repository / "left.log").touch()
    (repository / "inner").mkdir()

    said = await text(context.git(repository / "inner"))

    assert said.splitlines()[2:] == [
        "Files that differ from the latest commit (2, as git status marks them):",
        "   M kept.txt",
        "  ?? new\\x0a.txt",
    ]
    assert (await text(context.git(repository, max_files=1))).splitlines()[-1] == "  ... and 1 more"


def _head(repository: Path) -> str:
    return subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=repository, check=True, capture_output=True, text=True
    ).stdout.strip()


@needs_git
async def test_git_knows_a_detached_head_a_new_repository_a_work_tree_and_a_shallow_clone(
    repository: Path, tmp_path: Path
) -> None:
    new = tmp_path / "new"
    new.mkdir()
    git(new, "init", "--quiet", "--initial-branch=trunk", "--object-format=sha256")
    assert "Branch: trunk, without a commit yet" in await text(context.git(new, commits=3))
    git(repository, "commit", "--quiet", "--allow-empty", "-m", "Second words")
    git(repository, "worktree", "add", "--quiet", "-b", "side", str(tmp_path / "side"))
    assert "Branch: side\nNo file differs" in await text(context.git(tmp_path / "side"))
    git(tmp_path, "clone", "--quiet", "--depth=1", f"file://{repository}", "shallow")
    assert (await text(context.git(tmp_path / "shallow", commits=9))).endswith("Second words")
    git(repository, "checkout", "--quiet", "--detach")
    assert f"Branch: none, at commit {_head(repository)[:10]}" in await text(context.git(repository))


async def test_git_says_nothing_of_a_folder_without_a_repository(tmp_path: Path, monkeypatch: Any) -> None:
    assert await text(context.git(tmp_path)) == ""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert await text(context.git(tmp_path)) == ""


@needs_git
async def test_no_program_that_the_repository_names_is_run(repository: Path, tmp_path: Path) -> None:
    traces = tmp_path / "traces"
    trap = tmp_path / "trap"
    trap.write_text(f"#!/bin/sh\necho ran >> {traces}\ncat\n")
    trap.chmod(0o755)
    for name in ("core.fsmonitor", "filter.f.clean", "core.pager", "gpg.program", "core.sshCommand"):
        git(repository, "config", name, str(trap))
    git(repository, "config", "log.showSignature", "true")
    (repository / ".gitattributes").write_text("* filter=f\n")
    (repository / "kept.txt").write_text("other\n")
    index = (repository / ".git/index").read_bytes()

    said = await text(context.git(repository, commits=1))

    assert " M kept.txt" in said
    assert not traces.exists()
    assert (repository / ".git/index").read_bytes() == index
    # The trap works: git itself would have run it.
    git(repository, "status")
    assert traces.exists()


@needs_git
@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
async def test_a_git_that_hangs_is_killed_at_the_deadline_and_the_run_goes_on(
    repository: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "git").write_text(f"#!/bin/sh\necho $$ >> {tmp_path}/pids\nexec /bin/sleep 1000\n")
    (programs / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))

    watched = await watch(Agent(ScriptedModel("Done."), context=[context.git(repository, timeout=0.3)]))

    [warning] = of(watched.events, WarningIssued)
    assert warning.code == "context_failed"
    assert watched.stream.result.output == "Done."
    for pid in (tmp_path / "pids").read_text().split():
        assert gone(int(pid))


@needs_git
async def test_more_output_than_there_is_room_for_is_an_error_and_not_a_full_memory(
    repository: Path, monkeypatch: Any
) -> None:
    for number in range(50):
        (repository / f"{number}.txt").touch()
    monkeypatch.setattr(_git_status, "MAX_BYTES", 300)
    with pytest.raises(ToolError, match="more than 300 bytes"):
        await _git_status.git_status(str(repository), max_files=5, commits=0)


@pytest.mark.parametrize(
    ("function", "argument", "options"),
    [
        (context.date, "Nowhere/Town", {}),
        (context.environment, "/nowhere", {}),
        (context.git, "/nowhere", {}),
        (context.git, ".", {"max_files": -1}),
        (context.listing, ".", {"max_entries": 0}),
        (context.prompt_files, "a/b", {}),
    ],
)
def test_wrong_arguments_are_refused_at_once(function: Any, argument: str, options: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        function(argument, **options)
