"""Lists and searches files. A program of its own, which `_files` runs, and may kill.

A regular expression from a model can take for ever, and gigabytes, and would hold up all that Python does meanwhile: in
a thread it could not be stopped. So this is a process with a limit of memory, which imports nothing but the standard
library, to start within some 30 ms.

Its one argument is JSON: a `Query`'s fields. What it prints is JSON: a `Found`'s.
"""

# pathlib knows no folders that are open:
# ruff: noqa: PTH123

from __future__ import annotations

import fnmatch
import json
import os
import re
import stat
import sys
from collections.abc import Callable, Generator
from contextlib import suppress
from importlib import import_module
from typing import TypedDict

__all__ = ["Found", "Query", "entries", "expand", "find", "matches", "spelled", "wanted"]

MAX_DEPTH = 64
MAX_LINE = 300
MAX_PATTERNS = 64
MEMORY = 256_000_000
"""Bytes that this program may use, besides some times the size of the largest file."""
MEMORY_PER_BYTE = 12
_CONTROL = re.compile("[\x00-\x1f\x7f]")
# Windows has none of these flags, and nothing is searched there.
FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)
FILE = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


class Query(TypedDict):
    """The query: a folder and a pattern."""

    folder: int
    """A descriptor."""
    glob: str
    regex: str | None
    """Pattern of the lines to search for; ``None`` to list files and folders."""
    ignore_case: bool
    ignore: list[str]
    """Names, or patterns of them, that are passed over."""
    max_hits: int
    max_bytes: int
    """Larger files are passed over."""


class Found(TypedDict):
    """The answer to a query."""

    hits: list[str]
    more: bool
    """Whether there are more than ``max_hits``."""
    passed_over: int
    """Files that were too large, no text, or unreadable."""
    error: str
    """Why it cannot be looked for; empty if it can."""


def find(query: Query) -> Found:
    """Raises `ValueError` for a glob or a regular expression that is none."""
    found: Found = {"hits": [], "more": False, "passed_over": 0, "error": ""}
    is_wanted = wanted(query["glob"])
    try:
        flags = re.IGNORECASE if query["ignore_case"] else re.NOFLAG
        regex = None if query["regex"] is None else re.compile(query["regex"], flags)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"the pattern is no regular expression of Python's: {error}") from error
    for parts, folder, mode in entries(query["folder"], query["ignore"]):
        if not is_wanted(parts):
            continue
        path = spelled("/".join(parts))
        if regex is None:
            hits = [f"{path}/" if stat.S_ISDIR(mode) else path]
        elif stat.S_ISREG(mode):
            text = _text(folder, parts[-1], query["max_bytes"])
            if text is None:
                found["passed_over"] += 1
                continue
            hits = _lines(path, text, regex, query["max_hits"])
        else:
            continue
        found["hits"] += hits
        if len(found["hits"]) > query["max_hits"]:
            del found["hits"][query["max_hits"] :]
            found["more"] = True
            break
    return found


def entries(folder: int, ignore: list[str]) -> Generator[tuple[tuple[str, ...], int, int]]:
    """What is in an open folder, at any depth: the names on its path, the open folder that it is in, and its mode."""
    return _entries(folder, (), ignore)


def _entries(folder: int, above: tuple[str, ...], ignore: list[str]) -> Generator[tuple[tuple[str, ...], int, int]]:
    """The path of each entry, the open folder that it is in, and its mode. Links are not followed."""
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return
    for name in names:
        if any(fnmatch.fnmatchcase(name, each) for each in ignore):
            continue
        try:
            mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
        except OSError:
            continue
        yield (*above, name), folder, mode
        if stat.S_ISDIR(mode) and len(above) < MAX_DEPTH:
            try:
                inner = os.open(name, FOLDER, dir_fd=folder)
            except OSError:
                continue
            try:
                yield from _entries(inner, (*above, name), ignore)
            finally:
                os.close(inner)


def _text(folder: int, name: str, max_bytes: int) -> str | None:
    try:
        with open(os.open(name, FILE, dir_fd=folder), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size > max_bytes:
                return None
            data = file.read(max_bytes)
    except OSError:
        return None
    return None if b"\0" in data[:8192] else data.decode("utf-8", "replace")


def _lines(path: str, text: str, regex: re.Pattern[str], max_hits: int) -> list[str]:
    hits: list[str] = []
    for number, line in enumerate(text.split("\n"), 1):
        line = line.removesuffix("\r")  # noqa: PLW2901 - the line without its end
        found = regex.search(line)
        if found is not None:
            hits.append(f"{path}:{number}:{_around(line, found)}")
            if len(hits) > max_hits:
                break
    return hits


def _around(line: str, found: re.Match[str]) -> str:
    """``line``, or the part of a long one that has the match in it, and the column where that part begins."""
    if len(line) <= MAX_LINE:
        return line
    begin = max(0, min(found.start() - MAX_LINE // 4, len(line) - MAX_LINE))
    end = begin + MAX_LINE
    head = f"[from column {begin + 1}] ..." if begin else ""
    return f"{head}{line[begin:end]}{'...' if end < len(line) else ''}"


def spelled(path: str) -> str:
    r"""``path`` with each byte that is not UTF-8, and each control character, as an escape such as ``\xe9``."""
    path = path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return path if path.isprintable() else _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", path)


# -------------------------------------------------------------------------------- globs


def wanted(glob: str) -> Callable[[tuple[str, ...]], bool]:
    """Whether a glob matches the names on a path, as a function of these."""
    patterns = [tuple(one.removeprefix("./").rstrip("/").split("/")) for one in expand(glob)]
    # A pattern for a name alone is for names anywhere.
    patterns = [("**", *one) if len(one) == 1 else one for one in patterns]
    return lambda parts: any(matches(parts, pattern) for pattern in patterns)


def expand(glob: str) -> list[str]:
    """``glob`` without alternatives: ``*.{c,h}`` is ``*.c`` and ``*.h``."""
    done: list[str] = []
    todo = [glob]
    while todo:
        one = todo.pop()
        found = re.search(r"\{([^{}]*)\}", one)
        if found is None:
            done.append(one)
        else:
            todo += [one[: found.start()] + each + one[found.end() :] for each in found[1].split(",")]
        if len(done) + len(todo) > MAX_PATTERNS:
            raise ValueError("the glob has too many alternatives")
    return done


def matches(parts: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    """Whether the names of a path match those of a pattern, in which ``**`` is for any number of names."""
    # Which beginnings of `parts` the beginning of the pattern that was looked at can match.
    reached: set[int] = {0}
    for one in pattern:
        if one == "**":
            reached = set(range(min(reached), len(parts) + 1)) if reached else set()
        else:
            reached = {at + 1 for at in reached if at < len(parts) and fnmatch.fnmatchcase(parts[at], one)}
    return len(parts) in reached


def main(argument: str) -> Found:
    """Do what the ``argument`` says."""
    try:
        query: Query = json.loads(argument)
        _limit_memory(MEMORY + MEMORY_PER_BYTE * query["max_bytes"])
        return find(query)
    except ValueError as error:
        problem = str(error)
    except MemoryError:
        problem = "the pattern takes too much memory: give a simpler one, without nested repetitions"
    return {"hits": [], "more": False, "passed_over": 0, "error": problem}


def _limit_memory(size: int) -> None:
    with suppress(ImportError, OSError, ValueError):  # Windows; a lower limit; a system that does not know this one
        resource = import_module("resource")
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (size, most))


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.argv[1])))
