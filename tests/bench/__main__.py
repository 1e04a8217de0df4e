"""``python -m tests.bench``: measure the figures, print them, compare them with the last ones, and write them down."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from tests.bench.figures import FIGURES, NotMeasuredError
from tests.bench.report import Row, heading, line, read_report, report_of, row_of, slower, write_page

PAGE = Path("docs/performance")


def main() -> None:
    names = [figure.name for figure in FIGURES]
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("name", nargs="*", help=f"what to measure: {', '.join(names)}; everything if not given")
    parser.add_argument("--write", action="store_true", help=f"write the figures into {PAGE}; all must be measured")
    parser.add_argument("--quick", action="store_true", help="have a glance, in seconds")
    given = parser.parse_args()
    unknown = set(given.name) - set(names)
    if unknown:
        parser.error(f"no such figure: {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    if given.write and given.name:
        parser.error("--write needs all figures")
    load = os.getloadavg()[0]
    print(heading(), flush=True)
    rows: list[Row] = []
    for figure in FIGURES:
        if not given.name or figure.name in given.name:
            try:
                row = row_of(figure, figure.measure(given.quick))
            except NotMeasuredError as error:
                print(f"{figure.title}: not measured, as {error}", flush=True)
                continue
            # The others are still worth having: on a busy machine, a server's client may time out.
            except Exception as error:  # noqa: BLE001
                print(f"{figure.title}: failed: {error!r}", flush=True)
                continue
            print(line(row), flush=True)
            rows.append(row)
    last = read_report(_last())
    if last is None:
        print("\nNo figures were committed before.")
    else:
        worse = slower(rows, last)
        print(f"\nMore than 10 % slower than on {last.date}, at a load of {last.load:.1f} (now {load:.1f}):")
        print("\n".join(worse) if worse else "nothing.")
    if given.write:
        PAGE.mkdir(exist_ok=True)
        write_page(PAGE, report_of(load, rows, is_glance=given.quick))


def _last() -> bytes:
    """The figures that were committed last."""
    command = ["git", "show", f"HEAD:{PAGE.as_posix()}/figures.json"]
    try:
        return subprocess.run(command, capture_output=True, check=False).stdout
    except OSError as error:
        print(f"git: {error}", file=sys.stderr)
        return b""


if __name__ == "__main__":
    main()
