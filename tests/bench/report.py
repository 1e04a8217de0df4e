"""The figures as a table for people, as JSON, and against those that were committed last."""

from __future__ import annotations

import os
import platform
import sqlite3
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import msgspec

from tests.bench.figures import Figure, Measured
from tests.bench.plot import plot

__all__ = ["Report", "Row", "heading", "line", "read_report", "report_of", "row_of", "slower", "write_page"]

_LINE = "{:40} {:>11} {:>11} {:>9} {:>9} {:>11}  {}"
_PACKAGES = ("trio", "attrs", "msgspec")

MARGIN = 1.1
"""How much slower a figure may be than the last time before it is reported."""


class Row(msgspec.Struct, frozen=True):
    """One figure."""

    name: str
    title: str
    unit: str
    ours: float
    bare: float
    reached: float
    target: float
    target_unit: str
    best_other: str
    note: str = ""

    @property
    def is_met(self) -> bool:
        """Whether the target is reached."""
        return self.reached <= self.target


class Report(msgspec.Struct, frozen=True):
    """All figures, with what they were measured on."""

    date: str
    python: str
    machine: str
    load: float
    """The load average of the last minute when the measuring began: on a busy machine, all figures are worse."""
    versions: dict[str, str]
    figures: Sequence[Row]
    is_glance: bool = False
    """Whether each figure was measured only a few times."""


def row_of(figure: Figure, measured: Measured) -> Row:
    """What was measured of ``figure``."""
    return Row(
        name=figure.name,
        title=figure.title,
        unit=figure.unit,
        ours=measured.ours,
        bare=measured.bare,
        reached=measured.value,
        target=figure.target,
        target_unit=figure.target_unit,
        best_other=figure.peer,
        note=measured.note,
    )


def report_of(load: float, rows: Sequence[Row], *, is_glance: bool = False) -> Report:
    """The report of a measurement that ends now."""
    versions = {package: version(package) for package in _PACKAGES}
    versions["sqlite"] = sqlite3.sqlite_version
    machine = f"{_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}"
    date = datetime.now(UTC).strftime("%Y-%m-%d")
    return Report(date, sys.version.split()[0], machine, load, versions, rows, is_glance)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def heading() -> str:
    """The heading of the lines."""
    versions = ", ".join(f"{package} {version(package)}" for package in _PACKAGES)
    return (
        f"Python {platform.python_version()}, {versions}. Medians of CPU time; bare: a loop by hand on trio.\n\n"
        + _LINE.format("", "ours", "bare", "reached", "target", "best other", "")
    ).rstrip()


def line(row: Row) -> str:
    """One figure."""
    return _LINE.format(*_cells(row), "; ".join(filter(None, ["" if row.is_met else "MISSED", row.note]))).rstrip()


def _cells(row: Row) -> tuple[str, str, str, str, str, str]:
    return (
        row.title,
        _shown(row.ours, row.unit),
        _shown(row.bare, row.unit),
        _shown(row.reached, row.target_unit),
        _shown(row.target, row.target_unit),
        f"({row.best_other})",
    )


def _shown(value: float, unit: str) -> str:
    if unit == "x":
        return f"{value:.2f}x"
    return f"{value:,.{0 if value >= 100 else 1}f} {unit}"


def slower(rows: Iterable[Row], last: Report | None) -> list[str]:
    """A line for each of ``rows`` that is worse than in ``last`` by more than `MARGIN`."""
    before = {} if last is None else {row.name: row for row in last.figures}
    lines: list[str] = []
    for row in rows:
        old = before.get(row.name)
        if old is not None and old.target_unit == row.target_unit and row.reached > old.reached * MARGIN:
            unit = row.target_unit
            more = f"{row.reached / old.reached - 1:.0%} more" if old.reached else "more"
            lines.append(f"{row.title}: {_shown(old.reached, unit)} -> {_shown(row.reached, unit)}, {more}")
    return lines


def read_report(text: bytes) -> Report | None:
    """The report that `write_page` wrote; ``None`` if ``text`` is empty or of another form."""
    try:
        return msgspec.json.decode(text, type=Report)
    except msgspec.DecodeError:
        return None


def write_page(folder: Path, report: Report) -> None:
    """Write the figures into the folder of the page on performance: as JSON, as a table, and as a plot."""
    (folder / "figures.json").write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    (folder / "table.md").write_text(_table(report), encoding="utf-8")
    ratios = [row for row in report.figures if row.target_unit == "x"]
    (folder / "figures.svg").write_text(
        plot([(row.title, row.reached, row.target, _shown(row.reached, "x")) for row in ratios]), encoding="utf-8"
    )


def _table(report: Report) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in report.versions.items())
    machine = f"{report.machine}, load average {report.load:.1f}"
    how = "Measured at a glance" if report.is_glance else "Measured"
    lines = [
        f"{how} on {report.date}: {machine}; Python {report.python}, {versions}.",
        "",
        "| figure | agentloop | by hand | reached | target | note |",
        "| --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for row in report.figures:
        title, ours, bare, reached, target, _ = _cells(row)
        lines.append(
            f"| {title} | {ours} | {bare} | {reached if row.is_met else f'**{reached}**'} | {target} | {row.note} |"
        )
    return "\n".join(lines) + "\n"
