"""Reading what a person types, without blocking the loop, and so that it can be cancelled at any moment."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from typing import TextIO, TypeAlias

import trio

if sys.platform != "win32":
    import termios

__all__ = ["ReadLine", "is_gone", "plain_lines"]

ReadLine: TypeAlias = Callable[[str], Awaitable[str | None]]
"""Shows a prompt, and gives the line that is typed, without its end; ``None`` at the end of the input."""


def plain_lines(source: TextIO, out: TextIO) -> ReadLine:
    """Lines as the terminal itself lets them be edited."""
    # Past the file's own buffer, which `wait_readable` knows nothing of.
    descriptor = source.fileno()
    typed = b""

    async def read_line(prompt: str) -> str | None:
        nonlocal typed
        out.write(prompt)
        out.flush()
        await trio.lowlevel.checkpoint()
        while b"\n" not in typed:
            piece = await _read(descriptor)
            if not piece:
                # The cursor still stands behind the prompt.
                out.write("\n")
                return None
            typed += piece
        line, _, typed = typed.partition(b"\n")
        return line.decode(errors="replace").rstrip("\r")

    return read_line


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
