"""Text that may be too long for a model: the model gets its beginning and its end, and a file gets the whole.

The owner of the folder owns the file: a folder that the user names stays, and `SpoolDirectory` removes its own with
the stream. Without a folder the omitted part is lost, and the text says so.
"""

from __future__ import annotations

import os
import re
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


MAX_NOTABLE = 20
MAX_NOTABLE_CHARS = 300
"""How many lines of the part that is left out are shown all the same, and how long they are at most."""
_WORDS = ("error", "exception", "warning", "fatal", "fail", "traceback", "panic", "denied", "cannot")
_PROBLEM = re.compile(
    r"error\b|exception\b|\b(?:warning|fatal|fail|failed|failure|traceback|panic|panicked|denied|cannot)\b"
)
"""Words with which a program reports a problem."""


class TruncatedText:
    """Text that arrives in pieces. Made by `open_truncated`."""

    __slots__ = (
        "_file",
        "_file_bytes",
        "_folder",
        "_head",
        "_max_chars",
        "_name",
        "_notable",
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
        self._notable: list[str] = []
        """Lines of the part that is left out in which a program reports a problem."""
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
            self._note_problems(self._tail[: -self._max_chars])
            self._tail = self._tail[-self._max_chars :]

    def _note_problems(self, left_out: str) -> None:
        room = self._max_chars // 4 - sum(map(len, self._notable))
        lowered = left_out.lower()
        # Some letters are two in lower case; and most output has none of these words, which is fast to find out.
        if len(lowered) != len(left_out) or not any(word in lowered for word in _WORDS):
            return
        shown_to = -1
        for found in _PROBLEM.finditer(lowered):
            if found.start() < shown_to:
                continue
            begin, end = left_out.rfind("\n", 0, found.start()) + 1, left_out.find("\n", found.end())
            begin = max(begin, found.start() - MAX_NOTABLE_CHARS // 3)
            shown_to = end if end >= 0 else len(left_out)
            line = left_out[begin:shown_to][:MAX_NOTABLE_CHARS].strip()
            if len(line) > room or len(self._notable) >= MAX_NOTABLE:
                break
            if line not in self._notable:
                self._notable.append(line)
                room -= len(line)

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
        self._note_problems(self._tail[: len(self._tail) - len(tail)])
        note = "" if self.path is None else f"; the whole is in {self.path}"
        if self._problem:
            note = f"; the whole could not be saved in a file: {self._problem}"
        elif self._file_bytes >= MAX_FILE_BYTES:
            note = f"; the first {MAX_FILE_BYTES} bytes of the whole are in {self.path}"
        problems = "".join(f"\n{line}" for line in self._notable)
        if problems:
            problems = f"; lines of them that report a problem:{problems}\n"
        return f"{self._head}\n[... {left_out} characters left out{note}{problems} ...]\n{tail}"


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
