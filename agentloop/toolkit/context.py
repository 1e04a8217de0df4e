"""Sources of context: the date, the folder of the work, a git repository, and files of a project for agents.

::

    from agentloop.toolkit import context

    agent = Agent(
        "openai:gpt-5",
        context=[context.date(), context.environment("."), context.git("."), context.prompt_files(folder=".")],
    )

The model gets each text again when it has changed, as a message at the end of the conversation, so that the provider's
cache knows all that comes before it. See `agentloop.context_sources`.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import trio

from agentloop._core.redaction import visible
from agentloop.context_sources import ContextSource
from agentloop.errors import UsageError
from agentloop.toolkit._git_status import git_status
from agentloop.toolkit._project_files import MAX_CHARS, find_project_files
from agentloop.toolkit._walk import spelled

__all__ = ["date", "environment", "git", "listing", "prompt_files"]

_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MAX_ENTRIES = 10_000
"""Entries of a folder that are read at all."""


def date(zone: str | None = None, *, now: Callable[[], datetime] | None = None) -> ContextSource:
    """The date and the day of the week. The model gets it again on the first turn of a new day.

    Args:
      zone: the time zone, such as ``"Europe/Berlin"``; that of this machine by default.
      now: gives the present time, with a time zone; the system's clock by default.

    Raises:
      UsageError: the system does not know the zone.
    """
    try:
        info = None if zone is None else ZoneInfo(zone)
    except (ValueError, OSError, LookupError) as error:
        raise UsageError(f"date({zone!r}): this system knows no such time zone; one is 'Europe/Berlin'") from error

    async def today() -> str:  # noqa: ASYNC124 - a plain function would get a thread
        present = (datetime.now().astimezone() if now is None else now()).astimezone(info)
        # Not by `strftime`, whose names depend on the locale.
        return f"Today is {_DAYS[present.weekday()]}, {present.date().isoformat()} ({present.tzname()})."

    return ContextSource("date", today)


def environment(folder: str | os.PathLike[str] = ".") -> ContextSource:
    """The folder of the work and the platform. Asked once for each run.

    Raises:
      UsageError: ``folder`` is none.
    """
    place = _folder("environment", folder)

    async def describe() -> str:  # noqa: ASYNC124 - as above
        system = " ".join(filter(None, (platform.system(), platform.release())))
        return f"Working folder: {_shown(str(place))}\nPlatform: {system} ({platform.machine()})"

    return ContextSource("environment", describe, each="run")


def git(
    folder: str | os.PathLike[str] = ".", *, max_files: int = 50, commits: int = 0, timeout: float = 10.0
) -> ContextSource:
    """The branch, and the files that differ from the latest commit; empty without a repository. Asked for each run.

    git is asked by processes of its own, which are killed when the time is up or the run ends. They change nothing, and
    no program that the repository's configuration names is run: no filter, no hook, no monitor. Files that only such a
    filter makes equal count as changed. Submodules are left out.

    Args:
      folder: a folder in the working tree; changes outside of it count as well.
      max_files: files that are listed at most.
      commits: how many of the latest commits are listed.
      timeout: seconds for all questions to git, within ``Deadlines.hook``.

    Raises:
      UsageError: ``folder`` is none, or a number is out of range.
    """
    place = _folder("git", folder)
    if max_files < 0 or commits < 0 or not timeout > 0:
        raise UsageError("git(): give max_files and commits of 0 or more, and a timeout above 0")

    async def status() -> str:
        with trio.fail_after(timeout):
            return await git_status(str(place), max_files=max_files, commits=commits)

    return ContextSource("git", status, each="run")


def listing(folder: str | os.PathLike[str] = ".", *, max_entries: int = 100) -> ContextSource:
    """The names in a folder, without those in its folders, and without hidden ones. Asked once for each run.

    Raises:
      UsageError: ``folder`` is none, or ``max_entries`` is below 1.
    """
    place = _folder("listing", folder)
    if max_entries < 1:
        raise UsageError(f"listing(max_entries={max_entries}): give a number above 0")

    def names() -> str:
        found: list[str] = []
        with os.scandir(place) as entries:
            for entry in entries:
                if not entry.name.startswith("."):
                    found.append(entry.name + ("/" if entry.is_dir(follow_symlinks=False) else ""))
                if len(found) >= MAX_ENTRIES:
                    break
        shown = [_shown(name) for name in sorted(found)[:max_entries]]
        if len(found) > max_entries:
            shown.append(f"... and {len(found) - max_entries} more")
        return "\n".join([f"In {_shown(str(place))}:", *(shown or ["(nothing)"])])

    return ContextSource("listing", names, each="run")


def prompt_files(
    *names: str,
    folder: str | os.PathLike[str] = ".",
    root: str | os.PathLike[str] | None = None,
    max_chars: int = MAX_CHARS,
) -> ContextSource:
    """The files in which a project tells agents how to work on it. The model gets them again when one has changed.

    They are found, read and marked as `agentloop.toolkit.project_files` does, which adds them to the instructions
    instead: use one of the two. They are read before each turn.

    Args:
      *names: the names of the files; by default ``AGENTS.md``, ``CLAUDE.md`` and ``CLAUDE.local.md``.
      folder: the folder of the work.
      root: the top folder of the project; by default the nearest folder with ``.git``, ``.hg`` or ``.jj`` in it.
      max_chars: characters of all files together.

    Raises:
      UsageError: a folder is none, ``folder`` is not in ``root``, or a name is a path.
    """
    files = find_project_files("prompt_files", names, folder, root, max_chars)

    def read() -> str:
        text, problems = files.read()
        return "\n\n".join([text, *[f"Note: {problem}" for problem in problems]]).strip()

    return ContextSource("project files", read)


def _folder(function: str, folder: str | os.PathLike[str]) -> Path:
    place = Path(os.path.realpath(folder))
    if not place.is_dir():
        raise UsageError(f"{function}({os.fspath(folder)!r}): this is no folder")
    return place


def _shown(text: str) -> str:
    return visible(spelled(text))
