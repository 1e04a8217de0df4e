"""Remove secrets from the memory that ``/proc/<pid>/environ`` shows, on Linux.

That file is the environment with which this process was started, and every process of the same user can read it: a
command that inherits no key could read all keys of its parent there. The C library's environment consists of pointers
into the same memory, so each variable is copied before it is overwritten: `os.environ`, ``getenv()`` and inheritance
by child processes stay as they were. Programs that change their title overwrite this memory in the same way.

The memory of this process and the environments of other programs of the same user (a parent that was started with the
same keys) stay readable where the system allows it; only another user or a container keeps those apart.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection
from contextlib import suppress
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

__all__ = ["inherited_environment"]


def inherited_environment(names: Collection[str]) -> dict[str, str]:
    """The variables that a child process inherits, and no way for it to read the others in this process's memory.

    Args:
      names: names of variables, or patterns such as ``LC_*``.
    """
    _hide_initial_environment(tuple(names))
    return {name: value for name, value in os.environ.items() if any(fnmatchcase(name, pattern) for pattern in names)}


@cache
def _hide_initial_environment(shown: Collection[str]) -> None:
    """Overwrite the values of all variables in the initial environment, except of those that may be shown.

    Args:
      shown: names of variables, or patterns, whose values a child process gets anyway.
    """
    if sys.platform != "linux":
        return
    # Without /proc, or without the right to write to it, there is nothing to hide or no way to do it.
    with suppress(OSError, ValueError, IndexError):
        _overwrite(shown)


def _overwrite(shown: Collection[str]) -> None:
    # After the name, which may contain any character, the third field is the first.
    start = int(Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()[47])
    initial = Path("/proc/self/environ").read_bytes()
    hidden: list[tuple[int, int]] = []
    position = 0
    for variable in initial.split(b"\0"):
        name, separator, value = variable.partition(b"=")
        if value and not any(fnmatchcase(os.fsdecode(name), pattern) for pattern in shown):
            if os.environb.get(name) == value:
                # A copy on the heap, which the C library uses from now on.
                os.putenv(name, value)
            hidden.append((start + position + len(name) + len(separator), len(value)))
        position += len(variable) + 1
    with open("/proc/self/mem", "r+b", buffering=0) as memory:  # noqa: PTH123 - unbuffered
        for address, size in hidden:
            memory.seek(address)
            memory.write(bytes(size))
