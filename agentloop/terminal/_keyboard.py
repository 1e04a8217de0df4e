"""Reading what a person types, without blocking the loop, and so that it can be cancelled at any moment."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol, TextIO, TypeAlias

import trio

from agentloop.terminal._characters import printable
from agentloop.terminal._single_keys import keyboard

if sys.platform != "win32":
    import termios

__all__ = ["Lines", "PlainLines", "ReadLine", "discard_typed", "is_gone"]

ReadLine: TypeAlias = Callable[[str], Awaitable[str | None]]
"""Shows a prompt, and gives the line that is typed, without its end; ``None`` at the end of the input."""


class Lines(Protocol):
    """A keyboard, line by line."""

    async def __call__(self, prompt: str) -> str | None:
        """Show ``prompt``, and read a line; ``None`` at the end of the input."""
        ...

    def forget(self) -> None:
        """Discard all that was typed and not read."""
        ...


class PlainLines:
    """Lines as the terminal itself lets them be edited."""

    def __init__(self, source: TextIO, out: TextIO) -> None:
        # Past the file's own buffer, which `wait_readable` knows nothing of.
        self._descriptor = source.fileno()
        self._out = out
        self._typed = b""

    async def __call__(self, prompt: str) -> str | None:
        """Show ``prompt``, and read a line; ``None`` at the end of the input."""
        keys = keyboard()
        # Before the prompt is shown: the answer to it is typed as a line.
        with keys.typing():
            ahead = keys.take_line()
            self._out.write(printable(f"{prompt}{ahead}"))
            self._out.flush()
            self._typed += ahead.encode()
            await trio.lowlevel.checkpoint()
            while b"\n" not in self._typed:
                piece = await _read(self._descriptor)
                if not piece:
                    # The cursor still stands behind the prompt.
                    self._out.write("\n")
                    return None
                self._typed += piece
        line, _, self._typed = self._typed.partition(b"\n")
        return line.decode(errors="replace").rstrip("\r")

    def forget(self) -> None:
        """Discard all that was typed and not read."""
        self._typed = b""
        keyboard().forget()
        discard_typed(self._descriptor)


def discard_typed(descriptor: int) -> None:
    """Discard what a terminal has received and no program has read."""
    if sys.platform != "win32":
        with suppress(termios.error, OSError):  # no terminal, or one that has closed
            termios.tcflush(descriptor, termios.TCIFLUSH)


async def _read(descriptor: int) -> bytes:
    if sys.platform == "win32":
        # No way to wait for a console there. A thread whose read is cancelled waits on, and ends with the process.
        return await trio.to_thread.run_sync(os.read, descriptor, 4096, abandon_on_cancel=True)
    await trio.lowlevel.wait_readable(descriptor)
    return os.read(descriptor, 4096)


def is_gone(terminal: TextIO) -> bool:
    """Whether the terminal has closed. Input ends then, as after Ctrl-D."""
    if sys.platform == "win32":
        return False
    try:
        termios.tcgetattr(terminal)
    except (termios.error, ValueError):
        return True
    return False
