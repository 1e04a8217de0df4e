"""The figures as a table for people, and as JSON."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import version
from pathlib import Path

import msgspec

from tests.bench.figures import Figure, Measured

__all__ = ["heading", "line", "write_json"]

_LINE = "{:34} {:>11} {:>11} {:>9} {:>9} {:>11}  {}"


def heading() -> str:
    """What stands over the lines."""
    versions = ", ".join(f"{package} {version(package)}" for package in ("trio", "attrs", "msgspec"))
    return (
        f"Python {platform.python_version()}, {versions}. Medians of CPU time; bare: a loop by hand on trio.\n\n"
        + _LINE.format("", "ours", "bare", "reached", "target", "best other", "")
    ).rstrip()


def line(figure: Figure, measured: Measured) -> str:
    """One figure."""
    verdict = "" if measured.value <= figure.target else "MISSED"
    return _LINE.format(
        figure.title,
        _shown(measured.ours, figure.unit),
        _shown(measured.bare, figure.unit),
        _shown(measured.value, figure.target_unit),
        _shown(figure.target, figure.target_unit),
        f"({figure.peer})",
        "; ".join(filter(None, [verdict, measured.note])),
    ).rstrip()


def _shown(value: float, unit: str) -> str:
    if unit == "x":
        return f"{value:.2f}x"
    return f"{value:.{0 if value >= 100 else 1}f} {unit}"


def write_json(path: Path, found: list[tuple[Figure, Measured]]) -> None:
    """All figures, with what they were measured on."""
    rows = [
        {
            "name": figure.name,
            "title": figure.title,
            "unit": figure.unit,
            "ours": measured.ours,
            "bare": measured.bare,
            "reached": measured.value,
            "target": figure.target,
            "target_unit": figure.target_unit,
            "met": measured.value <= figure.target,
            "best_other": figure.peer,
            "note": measured.note,
        }
        for figure, measured in found
    ]
    machine = {"python": sys.version, "platform": platform.platform()}
    versions = {package: version(package) for package in ("trio", "attrs", "msgspec")}
    written = msgspec.json.encode({"machine": machine, "versions": versions, "figures": rows})
    path.write_bytes(msgspec.json.format(written))
