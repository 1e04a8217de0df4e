"""The benchmark's report: what it says of figures that got slower, and what it writes. Nothing is measured here."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import msgspec

from tests.bench.report import Report, Row, read_report, report_of, slower, write_page


def row(name: str, reached: float, unit: str = "x") -> Row:
    return Row(
        name=name, title=f"a {name} & more", unit="us", ours=reached * 10, bare=10.0, reached=reached, target=2.0,
        target_unit=unit, best_other="not measured", note="a note",
    )  # fmt: skip


def test_figures_that_are_more_than_a_tenth_slower_are_reported() -> None:
    last = report_of(0.5, [row("turn", 1.0), row("delta", 1.0), row("open", 40.0, "ms"), row("gone", 1.0)])
    lines = slower([row("turn", 1.09), row("delta", 1.2), row("open", 80.0, "ms"), row("new", 9.0)], last)
    assert lines == [
        "a delta & more: 1.00x -> 1.20x, 20% more",
        "a open & more: 40.0 ms -> 80.0 ms, 100% more",
    ]
    assert slower([row("turn", 9.0)], None) == []


def test_the_page_on_performance_gets_the_figures_as_json_as_a_table_and_as_a_plot(tmp_path: Path) -> None:
    report = report_of(0.5, [row("turn", 1.5), row("delta", 3.0), row("open", 40.0, "ms")])
    write_page(tmp_path, report)
    assert read_report((tmp_path / "figures.json").read_bytes()) == report
    table = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert report.date in table
    assert report.machine in table
    assert "| a turn & more | 15.0 us | 10.0 us | 1.50x | 2.00x | a note |" in table
    assert "**3.00x**" in table, "a figure that misses its target is in bold"
    ET.parse(tmp_path / "figures.svg")


def test_figures_of_another_form_are_no_figures() -> None:
    assert read_report(b"") is None
    assert read_report(msgspec.json.encode({"machine": {}, "figures": []})) is None
    assert isinstance(read_report(msgspec.json.encode(report_of(0, []))), Report)
