"""The list of a folder's snapshots, on disk: a log with a line for each turn that began, ended or was undone.

One thread of all processes at a time has the folder's lock. A process whose turns go on has a lock of its own, too,
which the system frees when the process ends, however it ends: so others see whether a turn still goes on.

Plain functions of threads.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import IO, Any, TypeAlias

import msgspec
import trio

from agentloop._core.json_text import decode_own
from agentloop.errors import ToolError
from agentloop.events import Source

__all__ = ["Began", "Ended", "Log", "SnapshotLog", "Undone"]

LOOK_SECONDS = 0.02
"""Seconds between two looks for the lock, while another process has it."""


class Began(msgspec.Struct, frozen=True, tag="began", tag_field="type"):
    """The first tool of a turn is about to be called."""

    id: int
    trees: str
    """The place of its trees: see `agentloop.toolkit._trees`."""
    tree: str
    source: Source
    turn: int
    time: float
    owner: str
    """The name of the process's lock."""


class Ended(msgspec.Struct, frozen=True, tag="ended", tag_field="type"):
    """The turn has ended."""

    id: int
    tree: str


class Undone(msgspec.Struct, frozen=True, tag="undone", tag_field="type"):
    """The changes of the turn were put back."""

    id: int


Line: TypeAlias = Began | Ended | Undone


class Log(msgspec.Struct):
    """The turns of a folder, by their numbers."""

    began: dict[int, Began] = {}
    ended: dict[int, str] = {}
    """The trees after them."""
    undone: set[int] = set()

    def add(self, line: Line) -> None:
        """Take up a line."""
        match line:
            case Began():
                self.began[line.id] = line
            case Ended():
                self.ended[line.id] = line.tree
            case Undone():
                self.undone.add(line.id)


class SnapshotLog:
    """The log in the folder ``home``."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.owner = secrets.token_hex(8)
        """The name of this process's lock."""
        self._alive: IO[bytes] | None = None

    @contextmanager
    def locked(self) -> Generator[None]:
        """The folder's lock. Any `OSError` in the block is a `ToolError`."""
        try:
            self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
            with (self.home / "lock").open("ab") as file:
                while not _try_lock(file):
                    trio.from_thread.check_cancelled()
                    time.sleep(LOOK_SECONDS)  # in a thread
                yield
        except OSError as error:
            raise ToolError(f"the snapshots in {str(self.home)!r} cannot be used: {error}") from error

    def read(self) -> Log:
        """All lines."""
        log = Log()
        with suppress(FileNotFoundError):
            for line in (self.home / "log").read_bytes().split(b"\n"):
                # A line that was cut off by the end of its process is no line.
                with suppress(msgspec.DecodeError):
                    log.add(decode_own(line, Line))
        return log

    def append(self, lines: Iterable[Line]) -> None:
        """Write ``lines``, each of which is on disk when this returns."""
        # A line end before them: the last write may have been cut off.
        data = b"".join(b"\n" + msgspec.json.encode(line) for line in lines)
        with (self.home / "log").open("ab") as file:
            file.write(data + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def hold(self) -> None:
        """Lock a file, so that other processes see that turns go on in this one."""
        if self._alive is None:
            owners = self.home / "owners"
            owners.mkdir(exist_ok=True)
            for path in owners.iterdir():
                if self.is_gone(path.name):
                    path.unlink(missing_ok=True)
            self._alive = (owners / self.owner).open("ab")
            _try_lock(self._alive)

    def release(self) -> None:
        """Free that file."""
        if self._alive is not None:
            Path(self._alive.name).unlink(missing_ok=True)
            self._alive.close()
            self._alive = None

    def is_gone(self, owner: str) -> bool:
        """Whether no turn goes on in the process whose lock has this name."""
        if owner == self.owner:
            return self._alive is None
        try:
            with (self.home / "owners" / owner).open("rb") as file:
                return _try_lock(file)
        except FileNotFoundError:
            return True


def _try_lock(file: IO[bytes]) -> bool:
    # Imported here, since Windows lacks it. A `Root` is refused there.
    fcntl: Any = import_module("fcntl")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
