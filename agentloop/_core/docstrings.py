"""The content of a docstring: its summary, and a description of each parameter.

Three styles are read: Google (``Args:``), NumPy (``Parameters``, underlined) and Sphinx (``:param x:``).
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import msgspec

__all__ = ["Doc", "parse"]

_PARAMETERS = frozenset(
    ["args", "arguments", "keyword args", "keyword arguments", "other parameters", "parameters", "params"]
)
# No admonitions ("Note:", "Warning:"): they address the function's caller.
_OTHER_TITLES = frozenset(["attributes", "example", "examples", "raises", "return", "returns", "see also", "yields"])

# Not compiled here: `re` does it once, on first use, and a program without docstrings to read imports faster.
_FIELD = r":(\w+)(?:\s+([^:`]*))?:(?:\s+(.*))?"
_GOOGLE_ENTRY = r"\*{0,2}(\w+)\s*(?:\(.*?\))?\s*:(?:\s+(.*))?"
_NUMPY_ENTRY = r"(\*{0,2}\w+(?:\s*,\s*\*{0,2}\w+)*)\s*(?::.*)?()"


class Doc(msgspec.Struct, frozen=True):
    """A docstring, read."""

    summary: str
    """Everything before the first section, dedented. Empty without a docstring."""

    parameters: dict[str, str]
    """Name to description, in the order of the docstring. A description is one line."""


def parse(doc: str | None) -> Doc:
    """Read ``doc``, whichever of the three styles it is written in.

    Never raises: text that is not understood counts as summary before the first section, and is left out after it.
    """
    lines = inspect.cleandoc(doc or "").splitlines()
    starts = [index for index in range(len(lines)) if _starts_section(lines[index:])]
    ends = [*starts, len(lines)]
    parameters: dict[str, str] = {}
    for start, end in zip(starts, ends[1:], strict=True):
        parameters.update(_descriptions(lines[start:end]))
    return Doc("\n".join(lines[: ends[0]]).strip(), parameters)


def _starts_section(lines: list[str]) -> bool:
    return _field(lines[0]) is not None or _is_underlined(lines) or _is_google_header(lines)


def _field(line: str) -> re.Match[str] | None:
    return re.fullmatch(_FIELD, line) if line.startswith(":") else None


def _is_underlined(lines: list[str]) -> bool:
    rule = "".join(lines[1:2]).rstrip()
    return len(rule) >= 3 and rule in ("-" * len(rule), "=" * len(rule)) and _is_title(lines[0])


def _is_google_header(lines: list[str]) -> bool:
    """A title with a colon, and indented text below: "Examples:" at the end of a paragraph is only text."""
    below = next((line for line in lines[1:] if line), "")
    return lines[0].rstrip().endswith(":") and _is_title(lines[0]) and below.startswith(" ")


def _is_title(line: str) -> bool:
    return _title(line) in _PARAMETERS or _title(line) in _OTHER_TITLES


def _title(line: str) -> str:
    return line.rstrip().removesuffix(":").lower()


def _descriptions(section: list[str]) -> dict[str, str]:
    """The parameters that a section describes; none, if it describes something else."""
    if field := _field(section[0]):
        return _field_description(field, section[1:])
    if _title(section[0]) not in _PARAMETERS:
        return {}
    if _is_underlined(section):
        return _entries(section[2:], _NUMPY_ENTRY)
    return _entries(inspect.cleandoc("\n".join(["", *_indented(section[1:])])).splitlines(), _GOOGLE_ENTRY)


def _field_description(field: re.Match[str], below: list[str]) -> dict[str, str]:
    kind, argument, first = field.groups("")
    words = argument.split()  # the name, with or without a type before it
    if kind not in ("param", "parameter", "arg", "argument", "key", "keyword") or not words:
        return {}
    return {words[-1].lstrip("\\*"): _joined([first, *_indented(below)])}


def _entries(lines: list[str], entry: str) -> dict[str, str]:
    """Read entries that begin in the first column; indented lines below one describe it."""
    descriptions: dict[str, str] = {}
    names: list[str] = []
    for line in lines:
        if match := re.fullmatch(entry, line):
            names = [name.strip().lstrip("*") for name in match[1].split(",")]
            descriptions.update(dict.fromkeys(names, match[2] or ""))
        else:
            descriptions.update({name: _joined([descriptions[name], line]) for name in names})
    return descriptions


def _indented(lines: list[str]) -> Iterator[str]:
    """Lines up to the first that is neither empty nor indented."""
    for line in lines:
        if line and not line.startswith(" "):
            return
        yield line


def _joined(lines: list[str]) -> str:
    return " ".join(" ".join(lines).split())
