"""Text that may be too long for a model: its beginning and its end are told, and the whole is kept in a file.

Where the file is depends on who owns the folder. One that the user names is theirs, and so is what is in it. That of
`Scratch` ends with the stream. Where there is no folder, what is left out is gone, and the text says so.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import trio

__all__ = ["MAX_CHARS", "Capped", "open_capped"]

MAX_CHARS = 30_000
"""Characters of a result that a model gets to read: some 8000 tokens."""
MAX_KEPT_BYTES = 100_000_000
"""How large the file may get."""


class Capped:
    """Text that comes in pieces. Made by `open_capped`."""

    __slots__ = ("_file", "_head", "_keep_in", "_kept", "_max_chars", "_name", "_problem", "_tail", "path", "total")

    def __init__(self, max_chars: int, keep_in: Path | None, name: str) -> None:
        self._max_chars = max_chars
        self._keep_in = keep_in
        self._name = name
        self._head = ""
        self._tail = ""
        self._file: int | None = None
        self._kept = 0
        self._problem = ""
        self.path: Path | None = None
        """Where the whole is; ``None`` while all of it fits."""
        self.total = 0
        """Characters that have come."""

    async def add(self, text: str) -> None:
        """Take the next piece."""
        if self._keep_in is not None and self.total + len(text) > self._max_chars:
            try:
                await trio.to_thread.run_sync(self._keep, text)
            except OSError as error:
                # The disk may be full: no reason to lose what there is.
                self._keep_in, self._problem = None, error.strerror or str(error)
        self.total += len(text)
        room = self._max_chars // 2 - len(self._head)
        self._head += text[:room]
        # Longer than is told, so that it is not copied for each piece.
        self._tail += text[room:]
        if len(self._tail) > 2 * self._max_chars:
            self._tail = self._tail[-self._max_chars :]

    def _keep(self, text: str) -> None:
        if self._file is None:
            # What came before is still whole in memory: it has fitted so far.
            text = self._head + self._tail + text
            prefix, suffix = f"{self._name}-", ".txt"
            self._file, path = tempfile.mkstemp(prefix=prefix, suffix=suffix, dir=self._keep_in)
            self.path = Path(path)
        data = text.encode("utf-8", "replace")[: MAX_KEPT_BYTES - self._kept]
        self._kept += len(data)
        while data:
            data = data[os.write(self._file, data) :]

    def close(self, *, discard: bool) -> None:
        """Close the file, and remove it if nobody gets to know of it."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
        if discard and self.path is not None:
            with suppress(FileNotFoundError):
                self.path.unlink()

    def text(self) -> str:
        """All of it if it fits, else its beginning and its end, with a word about the rest in between."""
        if self.total <= self._max_chars:
            return self._head + self._tail
        tail = self._tail[-(self._max_chars - len(self._head)) :]
        left_out = self.total - len(self._head) - len(tail)
        where = "" if self.path is None else f"; the whole is in {self.path}"
        if self._problem:
            where = f"; the whole could not be kept in a file: {self._problem}"
        elif self._kept >= MAX_KEPT_BYTES:
            where = f"; the first {MAX_KEPT_BYTES} bytes of the whole are in {self.path}"
        return f"{self._head}\n[... {left_out} characters left out{where} ...]\n{tail}"


@asynccontextmanager
async def open_capped(max_chars: int, *, keep_in: Path | None, name: str) -> AsyncGenerator[Capped]:
    """Text of which ``max_chars`` characters are told.

    Args:
      keep_in: the folder for the whole; ``None`` to keep no more than is told.
      name: how the file's name begins.
    """
    capped = Capped(max_chars, keep_in, name)
    try:
        yield capped
    except BaseException:
        capped.close(discard=True)
        raise
    capped.close(discard=False)
