"""``python -m tests.bench``: measure the figures, print them, and write them down."""

from __future__ import annotations

import argparse
from pathlib import Path

from tests.bench.figures import FIGURES, Figure, Measured
from tests.bench.report import heading, line, write_json


def main() -> None:
    names = [figure.name for figure in FIGURES]
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("name", nargs="*", help=f"what to measure: {', '.join(names)}; everything if not given")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the figures")
    parser.add_argument("--quick", action="store_true", help="have a glance, in seconds")
    given = parser.parse_args()
    unknown = set(given.name) - set(names)
    if unknown:
        parser.error(f"no such figure: {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    print(heading(), flush=True)
    found: list[tuple[Figure, Measured]] = []
    for figure in FIGURES:
        if not given.name or figure.name in given.name:
            measured = figure.measure(given.quick)
            print(line(figure, measured), flush=True)
            found.append((figure, measured))
    if given.json is not None:
        write_json(given.json, found)


if __name__ == "__main__":
    main()
