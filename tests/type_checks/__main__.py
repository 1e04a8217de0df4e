"""Run the type checkers, mypy beside the others: each of them uses one processor.

::

    python -m tests.type_checks FOLDER

``FOLDER`` is filled with the programs of the README and of the documentation. The status is 1 if a checker found
something.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.type_checks.programs import write_programs

EXPECTED = Path(__file__).parent


def run(lane: Sequence[Sequence[str]]) -> bool:
    """Run the commands of ``lane`` one after the other, and say whether all succeeded."""
    succeeded = True
    for command in lane:
        checked = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        shown = " ".join(command[:6]) + (" ..." if len(command) > 6 else "")
        # One write: the lines of two lanes must not mix.
        sys.stdout.write(f"{shown}\n{checked.stdout}\n")
        sys.stdout.flush()
        succeeded = succeeded and checked.returncode == 0
    return succeeded


def main(programs: Path) -> int:
    """Check everything, and the programs of the pages in the folder ``programs``."""
    write_programs(programs)
    mypy = [["mypy"], ["mypy", str(programs)]]
    others = [["pyright"]]
    for folder in (programs, EXPECTED):
        others.append(["pyright", "-p", str(folder)])
        files = sorted(str(file) for file in folder.glob("*.py") if file.name not in ("__main__.py", "programs.py"))
        others.append(["pyrefly", "check", "--config", str(folder / "pyrefly.toml"), *files])
    with ThreadPoolExecutor(2) as lanes:
        return 0 if all([*lanes.map(run, (mypy, others))]) else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
