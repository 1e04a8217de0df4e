"""What git says about a folder: the branch, the files that differ, and the latest commits.

No program of the repository's own runs: its configuration may name some (a monitor of the file system, filters, a
transport), and an agent may have written it. So ``git status`` and ``git log`` run on a temporary git folder of ours,
which has the commit at ``HEAD``, the objects and the index of the repository, and none of its settings. Each command of
git is a process tree that is killed with its block.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import trio
from attrs import frozen

from agentloop._core.redaction import visible
from agentloop._process_tree import open_process_tree
from agentloop.errors import ToolError
from agentloop.toolkit._walk import spelled

__all__ = ["git_status"]

MAX_BYTES = 1_000_000
"""Bytes of output of a command of git that are read."""
MAX_NAME = 300
"""Characters of a path, a branch or the first line of a commit that the model reads."""

_SETTINGS = ("core.fsmonitor=false", "core.untrackedCache=false", f"core.hooksPath={os.devnull}")
_OPTIONS = ("--no-pager", *[part for setting in _SETTINGS for part in ("-c", setting)])


async def git_status(folder: str, *, max_files: int, commits: int) -> str:
    """What the model reads about the repository of ``folder``; empty if there is none, or no git.

    Raises:
      ToolError: git failed in the repository.
    """
    try:
        repository = await _find(folder)
    except ToolError:
        return ""
    head = await _line(folder, "rev-parse", "--quiet", "--verify", "HEAD")
    branch = await _line(folder, "symbolic-ref", "--quiet", "--short", "HEAD")
    # Few and small files, made at once: no thread is needed, and no checkpoint stands before the block that removes
    # them.
    with tempfile.TemporaryDirectory(prefix="agentloop-git-") as own:
        variables = _begin(Path(own), repository, head)
        changed = await _run(
            folder,
            ("status", "--porcelain=v1", "-z", "--no-renames", "--untracked-files=normal", "--ignore-submodules=all"),
            variables,
        )
        lines = [f"Repository: {_shown(repository.top)}", _branch_line(branch, head), *_changes(changed, max_files)]
        if commits and head:
            log = ("log", f"--max-count={commits}", "--no-show-signature", "--no-decorate", "--format=%h %s%x00")
            subjects = [part.strip() for part in os.fsdecode(await _run(folder, log, variables)).split("\0")]
            lines += ["Latest commits:", *[f"  {_shown(subject)}" for subject in subjects if subject]]
    return "\n".join(lines)


@frozen
class _Repository:
    top: str
    objects: str
    index: str
    excluded: str
    shallow: str
    format: str


async def _find(folder: str) -> _Repository:
    paths = [part for name in ("objects", "index", "info/exclude", "shallow") for part in ("--git-path", name)]
    found = await _run(folder, ("rev-parse", "--show-toplevel", *paths, "--show-object-format"), {})
    try:
        top, objects, index, excluded, shallow, format = os.fsdecode(found).removesuffix("\n").split("\n")
    except ValueError:
        raise ToolError(f"the repository of {folder!r} has a path with a line end") from None

    def absolute(path: str) -> str:
        return os.path.join(folder, path)  # noqa: PTH118

    return _Repository(top, absolute(objects), absolute(index), absolute(excluded), absolute(shallow), format)


def _begin(own: Path, repository: _Repository, head: str) -> Mapping[str, str]:
    """Make the git folder ``own``, and give the variables with which git uses it."""
    (own / "refs").mkdir()
    (own / "objects").mkdir()
    (own / "HEAD").write_text(f"{head or 'ref: refs/heads/none'}\n", encoding="ascii")
    version, extension = ("0", "") if repository.format == "sha1" else ("1", f"objectFormat = {repository.format}\n")
    config = f"[core]\nrepositoryformatversion = {version}\nbare = false\n[extensions]\n{extension}"
    (own / "config").write_text(config, encoding="ascii")
    variables = {
        "GIT_DIR": str(own),
        "GIT_WORK_TREE": repository.top,
        "GIT_OBJECT_DIRECTORY": repository.objects,
        "GIT_INDEX_FILE": repository.index,
        # Patterns that only this clone ignores.
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "core.excludesFile",
        "GIT_CONFIG_VALUE_0": repository.excluded,
    }
    if os.path.exists(repository.shallow):  # noqa: PTH110
        variables["GIT_SHALLOW_FILE"] = repository.shallow
    return variables


def _branch_line(branch: str, head: str) -> str:
    if not branch:
        return f"Branch: none, at commit {head[:10]}"
    return f"Branch: {_shown(branch)}{'' if head else ', without a commit yet'}"


def _changes(status: bytes, most: int) -> list[str]:
    entries = [os.fsdecode(entry) for entry in status.split(b"\0") if entry]
    if not entries:
        return ["No file differs from the latest commit."]
    lines = [f"Files that differ from the latest commit ({len(entries)}, as git status marks them):"]
    lines += [f"  {entry[:2]} {_shown(entry[3:])}" for entry in entries[:most]]
    if len(entries) > most:
        lines.append(f"  ... and {len(entries) - most} more")
    return lines


def _shown(text: str) -> str:
    return visible(spelled(text))[:MAX_NAME]


async def _line(folder: str, *arguments: str) -> str:
    """The only line of a command; empty if it failed, as it does where there is no branch or commit."""
    try:
        return os.fsdecode(await _run(folder, arguments, {})).strip()
    except ToolError:
        return ""


async def _run(folder: str, arguments: Sequence[str], variables: Mapping[str, str]) -> bytes:
    """The output of a command of git, which is killed with all that it started when the block is left.

    Raises:
      ToolError: there is no git, it failed, or its output is too long.
    """
    environment = {
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C",
        "PATH": os.environ.get("PATH", os.defpath),
        **variables,
    }
    output = bytearray()
    command = ["git", *_OPTIONS, *arguments]
    try:
        async with open_process_tree(command, cwd=folder, env=environment, grace=0, stderr=subprocess.DEVNULL) as tree:
            while chunk := await tree.stdout.receive_some(65536):
                output += chunk
                if len(output) > MAX_BYTES:
                    raise ToolError(f"git {arguments[0]} says more than {MAX_BYTES} bytes about {folder!r}")
            await tree.leader_exited()
            code = await tree.end()
    except OSError as error:
        raise ToolError(f"git cannot be started: {error.strerror or error}") from error
    except trio.BrokenResourceError as error:
        raise ToolError(f"the output of git {arguments[0]} broke off") from error
    if code:
        raise ToolError(f"git {arguments[0]} failed in {folder!r} with exit code {code}")
    return bytes(output)
