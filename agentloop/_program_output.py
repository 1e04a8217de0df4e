"""The output of a program that speaks a protocol over its pipes, as far as it is no message."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

__all__ = ["ProgramOutput"]


class ProgramOutput:
    """What a program wrote, apart from messages: the reason why it does not work is often there."""

    def __init__(self) -> None:
        self.noise = ""
        """The first line of the output that was not a message."""
        self.stderr_lines: deque[str] = deque(maxlen=5)
        """The last lines of stderr."""
        self.open_line = b""
        """The beginning of a line of the output that has not ended: a program may prompt, and wait for input."""
        self.open_stderr_line = b""
        """The same of stderr."""

    def __str__(self) -> str:
        """The words to add to an error; empty if the program wrote nothing."""
        noise = self.noise or self.open_line[:200].decode(errors="replace").strip()
        text = f"; its output began with {noise!r}, which is not a message" if noise else ""
        last = self.open_stderr_line[:500].decode(errors="replace").strip()
        lines = [*self.stderr_lines, last] if last else list(self.stderr_lines)
        return text + (f"; its stderr ended with: {' / '.join(lines[-5:])}" if lines else "")

    def add_to_stderr(self, lines: Iterable[bytes]) -> None:
        """Remember the last of ``lines``."""
        self.stderr_lines.extend(text[:500] for line in lines if (text := line.decode(errors="replace").strip()))
