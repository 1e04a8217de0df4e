"""Recorded runs: text files in the repository that say what each scenario did when it was recorded."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path

import agentloop

__all__ = ["RecordAnew", "Recordings", "compare_recorded"]

_HEAD = "== "
_SHOWN = 40
"""Lines of a difference that are shown."""
_COMMAND = "python -m agentloop.testing record"


class RecordAnew(list[str]):
    """In the place of a recording: the run is recorded, and not compared."""


class Recordings:
    """The recorded runs in a folder, a file for each group.

    Attributes:
      folder: the folder; None where there is none, as in an installed package.
    """

    def __init__(self, folder: Path | None = None) -> None:
        here = Path(agentloop.__file__).parents[1] / "tests" / "testing" / "recorded"
        self.folder = folder or (here if here.is_dir() else None)
        self._groups: dict[str, dict[str, list[str]]] = {}

    def lines_of(self, group: str, name: str) -> list[str]:
        """The lines that were recorded for ``name``; none if it was not recorded."""
        if group not in self._groups:
            self._groups[group] = self._read(group)
        return self._groups[group].get(name, [])

    def names_of(self, group: str) -> list[str]:
        """The names that were recorded in a group."""
        self.lines_of(group, "")
        return list(self._groups[group])

    def _read(self, group: str) -> dict[str, list[str]]:
        assert self.folder is not None
        path = self.folder / f"{group}.txt"
        runs: dict[str, list[str]] = {}
        lines: list[str] = []
        for line in path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []:
            if line.startswith(_HEAD):
                lines = runs[line.removeprefix(_HEAD)] = []
            else:
                lines.append(line)
        return runs

    def write(self, groups: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
        """Replace the recorded runs of these groups."""
        assert self.folder is not None
        for group, runs in groups.items():
            text = "".join(f"{_HEAD}{name}\n" + "".join(f"{line}\n" for line in lines) for name, lines in runs.items())
            (self.folder / f"{group}.txt").write_text(text, encoding="utf-8", newline="\n")
        self._groups = {}


def compare_recorded(name: str, recorded: Sequence[str], lines: Sequence[str]) -> None:
    """Check that a run did what was recorded of it.

    Raises:
      AssertionError: it did something else; the message has the difference.
    """
    if isinstance(recorded, RecordAnew) or list(recorded) == list(lines):
        return
    if not recorded:
        # No `assert`: pytest would add the values once more.
        raise AssertionError(f"{name} has not been recorded: run `{_COMMAND}`, and look at its diff")
    difference = list(difflib.unified_diff(recorded, lines, "recorded", "now", n=2, lineterm=""))
    more = [f"... and {len(difference) - _SHOWN} more lines"] if len(difference) > _SHOWN else []
    text = "\n".join([*difference[:_SHOWN], *more])
    raise AssertionError(f"{name} is not what was recorded. If it should be so, run `{_COMMAND}`.\n{text}")
