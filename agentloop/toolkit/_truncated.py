"""Text that may be too long for a model: the model gets its beginning and its end, and a file gets the whole.

The owner of the folder owns the file: a folder that the user names stays, and `SpoolDirectory` removes its own with
the stream. Without a folder the omitted part is lost, and the text says so.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import trio

__all__ = ["MAX_CHARS", "TruncatedText", "open_truncated"]

MAX_CHARS = 30_000
"""Characters of a result that the model gets: some 8,000 tokens."""
MAX_FILE_BYTES = 100_000_000
"""Bytes of the text that the file gets at most."""


class TruncatedText:
    """Text that arrives in pieces. Made by `open_truncated`."""

    __slots__ = (
        "_file",
        "_file_bytes",
        "_folder",
        "_head",
        "_max_chars",
        "_name",
        "_problem",
        "_tail",
        "path",
        "total",
    )

    def __init__(self, max_chars: int, keep_in: Path | None, name: str) -> None:
        self._max_chars = max_chars
        self._folder = keep_in
        self._name = name
        self._head = ""
        self._tail = ""
        self._file: int | None = None
        self._file_bytes = 0
        self._problem = ""
        self.path: Path | None = None
        """The file with the whole text; ``None`` while the text fits."""
        self.total = 0
        """Characters of the whole text so far."""

    async def add(self, text: str) -> None:
        """Append a piece. Never fails: a full disk is mentioned in `text`."""
        if self._folder is not None and self.total + len(text) > self._max_chars:
            try:
                await trio.to_thread.run_sync(self._save, text)
            except OSError as error:
                # The disk may be full: keep the beginning and the end in spite of it.
                self._folder, self._problem = None, error.strerror or str(error)
        self.total += len(text)
        room = self._max_chars // 2 - len(self._head)
        self._head += text[:room]
        # Longer than needed, so that it is not copied for each piece.
        self._tail += text[room:]
        if len(self._tail) > 2 * self._max_chars:
            self._tail = self._tail[-self._max_chars :]

    def _save(self, text: str) -> None:
        if self._file is None:
            # The earlier pieces are whole in memory: they have fitted so far.
            text = self._head + self._tail + text
            prefix, suffix = f"{self._name}-", ".txt"
            self._file, path = tempfile.mkstemp(prefix=prefix, suffix=suffix, dir=self._folder)
            self.path = Path(path)
        data = text.encode("utf-8", "replace")[: MAX_FILE_BYTES - self._file_bytes]
        self._file_bytes += len(data)
        while data:
            data = data[os.write(self._file, data) :]

    def close(self, *, discard: bool) -> None:
        """Close the file, and remove it if its path will not be part of a result."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
        if discard and self.path is not None:
            with suppress(FileNotFoundError):
                self.path.unlink()

    def text(self) -> str:
        """The whole text if it fits; else its beginning and end, with a line about the rest in between."""
        if self.total <= self._max_chars:
            return self._head + self._tail
        tail = self._tail[-(self._max_chars - len(self._head)) :]
        left_out = self.total - len(self._head) - len(tail)
        note = "" if self.path is None else f"; the whole is in {self.path}"
        if self._problem:
            note = f"; the whole could not be saved in a file: {self._problem}"
        elif self._file_bytes >= MAX_FILE_BYTES:
            note = f"; the first {MAX_FILE_BYTES} bytes of the whole are in {self.path}"
        return f"{self._head}\n[... {left_out} characters left out{note} ...]\n{tail}"


@asynccontextmanager
async def open_truncated(max_chars: int, *, keep_in: Path | None, name: str) -> AsyncGenerator[TruncatedText]:
    """A `TruncatedText`, whose file is closed when the block ends, and removed if the block fails.

    Args:
      max_chars: characters of the text that `TruncatedText.text` returns at most, besides the line about the rest.
      keep_in: the folder for the file with the whole text; ``None`` for no file.
      name: the beginning of the file's name.
    """
    truncated = TruncatedText(max_chars, keep_in, name)
    try:
        yield truncated
    except BaseException:
        truncated.close(discard=True)
        raise
    truncated.close(discard=False)
