"""Recorded runs: text files in the repository that say what each scenario did when it was recorded."""

from __future__ import annotations

import base64
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from zlib import crc32

import agentloop

__all__ = ["Checksums", "RecordAnew", "Recordings", "checksums_of", "compare_recorded", "compare_under_fault"]

_HEAD = "== "
_SHOWN = 40
"""Lines of a difference that are shown."""
_AROUND = 8
"""Lines before and after the first difference of a run that is recorded by checksums."""
_LETTERS = 3
_IN_A_ROW = 36
_COMMAND = "python -m agentloop.testing record"


class RecordAnew(list[str]):
    """In the place of a recording: the run is recorded, and not compared."""


class Checksums(list[str]):
    """Rows of checksums, one for each line of a run: a recording that is small, and says where a run differs."""


class Recordings:
    """The recorded runs in a folder, a file for each group.

    Args:
      inner: a folder inside of the usual one, where ``folder`` is not given.

    Attributes:
      folder: the folder; None where there is none, as in an installed package.
    """

    def __init__(self, folder: Path | None = None, *, inner: str = "") -> None:
        here = Path(agentloop.__file__).parents[1] / "tests" / "testing" / "recorded" / inner
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
        self.folder.mkdir(exist_ok=True)
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
    if isinstance(recorded, Checksums):
        _compare_checksums(name, recorded, lines)
        return
    if not recorded:
        # No `assert`: pytest would add the values once more.
        raise AssertionError(f"{name} has not been recorded: run `{_COMMAND}`, and look at its diff")
    difference = list(difflib.unified_diff(recorded, lines, "recorded", "now", n=2, lineterm=""))
    more = [f"... and {len(difference) - _SHOWN} more lines"] if len(difference) > _SHOWN else []
    text = "\n".join([*difference[:_SHOWN], *more])
    raise AssertionError(f"{name} is not what was recorded. If it should be so, run `{_COMMAND}`.\n{text}")


def checksums_of(lines: Sequence[str]) -> list[str]:
    """Three letters for each line, in rows."""
    marks = [_mark(line) for line in lines]
    return ["".join(marks[start : start + _IN_A_ROW]) for start in range(0, len(marks), _IN_A_ROW)]


def _mark(line: str) -> str:
    # 18 bits: of the lines that differ, four in a million are not seen.
    return base64.b64encode(crc32(line.encode("utf-8", "surrogatepass")).to_bytes(4, "big")).decode()[:_LETTERS]


def _compare_checksums(name: str, recorded: Sequence[str], lines: Sequence[str]) -> None:
    if recorded == checksums_of(lines):
        return
    before, now = "".join(recorded), [_mark(line) for line in lines]
    marks = [before[start : start + _LETTERS] for start in range(0, len(before), _LETTERS)]
    first = 0
    while first < min(len(marks), len(now)) and marks[first] == now[first]:
        first += 1
    same = [f"  {line}" for line in lines[max(first - _AROUND, 0) : first]]
    new = [f"+ {line}" for line in lines[first : first + _AROUND]]
    raise AssertionError(
        f"{name} is not what was recorded from line {first + 1} on, of {len(marks)} lines. If it should be so, run "
        f"`{_COMMAND}`. To see what it was, run `python -m agentloop.testing replay --trace {name}` of the commit "
        "before.\n" + "\n".join([*same, *new])
    )


def compare_under_fault(name: str, fault: str, recorded: str, line: str) -> None:
    """Check that a run with a fault came out as it was recorded.

    Raises:
      AssertionError: it came out in another way; the message has both lines.
    """
    if recorded == line:
        return
    raise AssertionError(
        f"{name} with {fault} does not come out as recorded. If it should, run `{_COMMAND}`. Where only the checksum "
        f"differs, compare `python -m agentloop.testing replay --trace '{name} {fault}'` of both versions.\n"
        f"-{recorded}\n+{line}"
    )
