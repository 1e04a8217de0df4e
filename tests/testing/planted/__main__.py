"""Plant the bugs of ``table.py``, or of a later set, one at a time in a copy, and see which search notices each.

The corpus without a fault comes first, then mixes and the recorded faults, then programs, then a sample of the sweeps,
then the tests of the area. The first to notice ends the search. A bug whose words are not there any more is reported
as stale.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.testing.planted.eighth import EIGHTH
from tests.testing.planted.fifth import FIFTH
from tests.testing.planted.fourth import FOURTH
from tests.testing.planted.seventh import SEVENTH
from tests.testing.planted.sixth import SIXTH
from tests.testing.planted.table import PLANTED, Bug
from tests.testing.planted.third import THIRD
from tests.testing.planted.unseen import UNSEEN

SETS = {
    "first": PLANTED,
    "second": UNSEEN,
    "third": THIRD,
    "fourth": FOURTH,
    "fifth": FIFTH,
    "sixth": SIXTH,
    "seventh": SEVENTH,
    "eighth": EIGHTH,
}
"""No check was written for the second and the later ones before their first pass."""

ROOT = Path(__file__).parents[3]
SECONDS = 120
"""For the corpus and programs together, on an idle core."""

HUNT = """
import gc, sys
from agentloop.testing.harness.search import (
    search_corpus, search_mixes, search_programs, search_recorded_faults, search_sweeps
)
found = None
stages = sys.argv[1].split(",")
if "corpus" in stages:
    found, who = search_corpus(10_000), "corpus"
if found is None and "mixes" in stages:
    found, who = search_mixes(), "mixes"
if found is None and "faults" in stages:
    found, who = search_recorded_faults(), "corpus, with recorded faults"
for seed in (1, 2):
    if found is None and "programs" in stages:
        found, who = search_programs(150, seed=seed, faults=0, shrinks=False), "programs"
if found is None and "sweeps" in stages:
    found, who = search_sweeps(100_000, points=int(sys.argv[2])), "corpus, with faults"
if found is not None:
    print("NOTICED", who, "|", found.token.split("{")[0][:80], "|", " ".join(found.problem.split())[:160])
"""


def main() -> int:
    """Run it, and give the exit status: 0 if all bugs were noticed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("only", nargs="*", help="only bugs with one of these in their names, or with these numbers")
    parser.add_argument("--set", choices=SETS, default="first", help="which of the sets to plant")
    parser.add_argument("--stages", default="corpus,mixes,faults,programs,sweeps,tests")
    parser.add_argument("--points", type=int, default=3, help="places of each kind that the sweeps try")
    parser.add_argument("--limit", type=float, default=4 * SECONDS, help="seconds for each stage of a bug")
    options = parser.parse_args()
    survivors = 0
    for number, bug in enumerate(SETS[options.set], 1):
        if options.only and not any(word == str(number) or word in bug.name for word in options.only):
            continue
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="planted-") as folder:
            noticed = look_for(bug, Path(folder), options.stages.split(","), options.points, options.limit)
        survivors += not noticed
        print(f"{number:2} {bug.name}: {noticed or 'nobody'} ({time.monotonic() - began:.0f} s)", flush=True)
    return 1 if survivors else 0


def look_for(bug: Bug, folder: Path, stages: list[str], points: int, limit: float) -> str:
    """Who notices ``bug`` first; empty if nobody does."""
    shutil.copytree(ROOT / "agentloop", folder / "agentloop", ignore=shutil.ignore_patterns("__pycache__"))
    recorded = Path("tests") / "testing" / "recorded"
    shutil.copytree(ROOT / recorded, folder / recorded)
    path = folder / "agentloop" / bug.file
    text = path.read_text(encoding="utf-8")
    if text.count(bug.before) != 1:
        return "stale: the words are not there any more"
    path.write_text(text.replace(bug.before, bug.after), encoding="utf-8")
    hunted = ",".join(stage for stage in stages if stage != "tests")
    if hunted:
        command = [sys.executable, "-c", HUNT, hunted, str(points)]
        said = run(command, folder, limit)
        if "NOTICED" in said:
            return said[said.index("NOTICED") + 8 :].strip().splitlines()[0]
        if said.startswith("ended with"):
            return f"corpus | {said[-300:]}"
    if "tests" in stages:
        leave_out = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "tests", folder / "tests", ignore=leave_out, dirs_exist_ok=True)
        for name in ("docs", "examples"):
            shutil.copytree(ROOT / name, folder / name)
        for name in ("pyproject.toml", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "noxfile.py"):
            shutil.copy(ROOT / name, folder / name)
        areas = [f"tests/{area}" for area in bug.tests.split()]
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-q",
            "--no-header",
            "-p",
            "no:cacheprovider",
            "--tb=no",
            *areas,
        ]
        said = run(command, folder, limit)
        failed = [line for line in said.splitlines() if line.startswith(("FAILED", "ERROR"))]
        if failed:
            return f"tests | {failed[0][:160]}"
    return ""


def run(command: list[str], folder: Path, limit: float) -> str:
    """What a command prints, within so many seconds; how it ended, if it broke."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=limit, check=False
        )
    except subprocess.TimeoutExpired:
        return "it takes too long"
    if done.returncode not in (0, 1) or (done.returncode == 1 and "-m" not in command):
        return f"ended with {done.returncode}: {done.stderr[-400:]}"
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
