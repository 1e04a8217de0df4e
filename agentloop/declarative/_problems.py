"""Places in a file, and what is wrong there."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from attrs import frozen

from agentloop._core.redaction import visible
from agentloop.errors import UsageError

__all__ = ["MAX_FIELD", "Place", "TeamFileError", "Unsupported", "nearest", "shown"]


MAX_PROBLEM = 4000
"""Characters of an error."""
MAX_FIELD = 300
"""Characters of the path of a field."""


def shown(text: str, most: int) -> str:
    """``text`` with nothing that a terminal obeys, and with so many characters at most."""
    text = text if len(text) <= most else f"{text[: most - 1]}\u2026"
    return "\n".join(visible(line) for line in text.split("\n"))


@frozen
class Place:
    """A place in a file, for errors."""

    file: str
    """The name of the file, as it was given."""
    line: int = 0
    """Number of the line, from 1; 0 if the place is the whole file."""
    column: int = 0
    """Number of the character in the line, from 1; 0 if the place is the whole file."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


class TeamFileError(UsageError):
    """A file of a team cannot be used. The message begins with file, line and column, and names the way out."""

    def __init__(self, problem: str, place: Place, field: str = "") -> None:
        # Both may have names of the file in them.
        problem, field = shown(problem, MAX_PROBLEM), shown(field, MAX_FIELD)
        super().__init__(f"{place}: {field}: {problem}" if field else f"{place}: {problem}")
        self.problem = problem
        """What is wrong, without the place."""
        self.place = place
        """Where it is."""
        self.field = field
        """The field, as in ``agents.root.model``; empty if it is no field."""


@frozen
class Unsupported:
    """A field of a file that was read, and has no effect here, or another one than in docker-agent."""

    field: str
    """The field, as in ``agents.root.cache``."""
    place: Place
    """Where it is."""
    reason: str
    """One sentence: what does not happen, and what does instead."""

    def __str__(self) -> str:
        return f"{self.place}: {self.field}: {self.reason}"


def nearest(name: str, known: Iterable[str]) -> str:
    """The one of ``known`` that ``name`` was most likely meant to be; empty if it resembles none."""
    plain = {_plain(one): one for one in known}
    near = get_close_matches(_plain(name[:100]), plain, n=1, cutoff=0.6)
    return plain[near[0]] if near else ""


def _plain(name: str) -> str:
    return name.replace("_", "").replace("-", "").strip().casefold()
