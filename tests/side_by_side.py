"""Run checkers side by side, each of which uses one processor; or flake8 on the halves of a list of folders.

::

    python -m tests.side_by_side FOLDER ... -- OPTION ...

runs ``flake8`` with the options. The status is 1 if a checker found something.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

__all__ = ["side_by_side"]


def side_by_side(*lanes: Sequence[Sequence[str]]) -> int:
    """Run the commands of each lane one after the other, two lanes at a time. Returns the exit status."""
    with ThreadPoolExecutor(2) as pool:
        return 0 if all([*pool.map(_run, lanes)]) else 1


def _run(lane: Sequence[Sequence[str]]) -> bool:
    succeeded = True
    for command in lane:
        checked = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        shown = " ".join(command[:6]) + (" ..." if len(command) > 6 else "")
        # One write: the lines of two lanes must not mix.
        sys.stdout.write(f"{shown}\n{checked.stdout}\n")
        sys.stdout.flush()
        succeeded = succeeded and checked.returncode == 0
    return succeeded


ABOUT_ASYNC = re.compile(r"async|trio|anyio")
"""What a file has in which a rule of async code can be broken."""


def flake8(folders: Sequence[str], options: Sequence[str]) -> int:
    """Run flake8 on two halves of the files that have async code, by size."""
    # flake8 itself excludes folders only where it looks for files.
    excluded = [folder for option in options if option.startswith("--exclude=") for folder in option[10:].split(",")]
    files = [
        path
        for folder in folders
        for path in sorted(Path(folder).rglob("*.py"))
        if not any(path.is_relative_to(each) for each in excluded)
        and ABOUT_ASYNC.search(path.read_text(encoding="utf-8"))
    ]
    halves: tuple[list[str], list[str]] = ([], [])
    sizes = [0, 0]
    for path in sorted(files, key=lambda path: path.stat().st_size, reverse=True):
        smaller = sizes.index(min(sizes))
        halves[smaller].append(str(path))
        sizes[smaller] += path.stat().st_size
    # Its own `--jobs` deals out the files in blocks that take very different times.
    return side_by_side(*[[["flake8", "--jobs=1", *options, *half]] for half in halves])


if __name__ == "__main__":
    end = sys.argv.index("--")
    sys.exit(flake8(sys.argv[1:end], sys.argv[end + 1 :]))
