"""The demo as a program of its own, at a terminal or not."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import pytest

import agentloop

__all__ = ["PATIENCE", "POSIX", "Open", "Terminal", "command", "environment"]

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals, nor SIGINT for others")

PATIENCE = 20.0
"""Seconds until a program that does not do what it should is ended."""


QUICK = """\
import sys
from pathlib import Path
from agentloop.demo import __main__ as program, catalogue, sessions

catalogue._HERE, sessions.LEASE = Path.cwd(), 2.0
sys.exit(program.main())
"""
"""The demo with the examples of the folder that it runs in, and with sessions that are soon free after a kill."""


def command(*arguments: str, quick: bool = False) -> list[str]:
    return [sys.executable, *(("-c", QUICK) if quick else ("-m", "agentloop.demo")), *arguments]


def environment(**changes: str) -> dict[str, str]:
    # Found wherever it was imported from here; and not by the folder that the program happens to run in.
    source = str(Path(agentloop.__file__).parents[1])
    return {**os.environ, "PYTHONPATH": source, "PYTHONUNBUFFERED": "", "TERM": "xterm", **changes}


ON_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.executable, sys.argv[1:])"
)
"""Makes the standard input the terminal that signals come from."""


class Terminal:
    """A program on a pseudo-terminal, and what stands there."""

    def __init__(self, arguments: Sequence[str], folder: Path, *, quick: bool = False, **changes: str) -> None:
        self._keyboard, terminal = os.openpty()
        self.written = b""
        self._waited_for = 0
        self.running = subprocess.Popen(
            [sys.executable, "-c", ON_TERMINAL, *command(*arguments, quick=quick)],
            cwd=folder,
            env=environment(TMPDIR=str(folder), **changes),
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            start_new_session=True,
        )
        os.close(terminal)

    @property
    def page(self) -> str:
        """What stands there, without colours and movements."""
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.written.decode(errors="replace"))

    def wait_for(self, text: str) -> None:
        """Read until ``text`` is on the page, after what was waited for before."""
        while text not in self.page[self._waited_for :]:
            piece = self._read()
            assert piece, f"waited for {text!r}, and there is: {self.page}"
            self.written += piece
        self._waited_for = self.page.index(text, self._waited_for) + len(text)

    def type(self, keys: str) -> None:
        os.write(self._keyboard, keys.encode())

    def ended(self) -> tuple[int, str]:
        """The exit status, and the page, when the program has ended."""
        while piece := self._read():
            self.written += piece
        return self.running.wait(PATIENCE), self.page

    def _read(self) -> bytes:
        ready, _, _ = select.select([self._keyboard], [], [], PATIENCE)
        assert ready, f"nothing happens any more, and there is: {self.page}"
        try:
            return os.read(self._keyboard, 65536)
        except OSError:
            # The end of a terminal, on Linux.
            return b""

    def close(self) -> None:
        if self.running.poll() is None:
            os.killpg(self.running.pid, signal.SIGKILL)
        self.running.wait()
        os.close(self._keyboard)


Open: TypeAlias = Callable[..., Terminal]
