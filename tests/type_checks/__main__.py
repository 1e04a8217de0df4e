"""Run the type checkers, mypy beside the others: each of them uses one processor.

::

    python -m tests.type_checks FOLDER

``FOLDER`` is filled with the programs of the README and of the documentation. The status is 1 if a checker found
something.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.side_by_side import side_by_side
from tests.type_checks.programs import write_programs

EXPECTED = Path(__file__).parent


def main(programs: Path) -> int:
    """Check everything, and the programs of the pages in the folder ``programs``."""
    write_programs(programs)
    mypy = [["mypy"], ["mypy", str(programs)]]
    others = [["pyright"]]
    for folder in (programs, EXPECTED):
        others.append(["pyright", "-p", str(folder)])
        files = sorted(str(file) for file in folder.glob("*.py") if file.name not in ("__main__.py", "programs.py"))
        others.append(["pyrefly", "check", "--config", str(folder / "pyrefly.toml"), *files])
    return side_by_side(mypy, others)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
