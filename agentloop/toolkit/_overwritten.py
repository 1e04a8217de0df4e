"""Lines as they stand in the end: a progress bar writes its line again and again, and only its last state is read."""

from __future__ import annotations

import re

__all__ = ["OverwrittenLines"]

MAX_PENDING = 65536
"""Characters of an incomplete line at most. What is before them is passed on, and cannot be overwritten any more."""

_SPECIAL = re.compile("[\r\b\x1b]")
_RETURN = re.compile("\x1b\\[(?:[12]K|[01]?G)")
"""Escape sequences that begin the line anew: erase it, or move to its first column."""
_INCOMPLETE = re.compile("(?:\r|\x1b(?:\\[[0-9;]*)?)$")
"""The beginning of what may turn out to be a line end, or an escape sequence."""


class OverwrittenLines:
    """Passes text on, piece by piece, without what later text of the same line overwrites."""

    __slots__ = ("_line", "_rest")

    def __init__(self) -> None:
        self._line = ""
        self._rest = ""

    def add(self, text: str) -> str:
        """Take a piece, and return the lines that it completes."""
        text = self._rest + text
        if not _SPECIAL.search(text) and not self._line.endswith("\r"):
            lines, end, self._line = (self._line + text).rpartition("\n")
            self._rest = ""
            return lines + end + self._overflow()
        held = _INCOMPLETE.search(text)
        self._rest = "" if held is None else text[held.start() :]
        text = text[: len(text) - len(self._rest)]
        *complete, line = _RETURN.sub("\r", self._line + text).replace("\x1b[K", "").split("\n")
        self._line = _last_state(line)
        passed = "".join(f"{_last_state(each)}\n" for each in complete)
        return passed + self._overflow()

    def _overflow(self) -> str:
        if len(self._line) <= MAX_PENDING:
            return ""
        line, self._line = self._line, ""
        return line

    def end(self) -> str:
        """Return the last line, which has no end."""
        line, self._line, self._rest = self._line + self._rest, "", ""
        return line


def _last_state(line: str) -> str:
    """What a terminal shows of ``line`` in the end; a return before its end is a part of the end."""
    body = line.rstrip("\r")
    kept = line[len(body) :]
    start = body.rfind("\r") + 1
    body = body[start:]
    if "\b" not in body:
        return body + kept
    # One pass: a command may write any number of them in any order.
    shown: list[str] = []
    for character in body:
        if character != "\b":
            shown.append(character)
        elif shown:
            shown.pop()
    return "".join(shown) + kept
