"""Write each program of the README and of the documentation to a file of its own, for type checkers.

::

    python -m tests.type_checks.programs FOLDER
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

from tests.test_docs import SHOWN

SETTINGS = ("pyrefly.toml", "pyrightconfig.json")


def write_programs(folder: Path) -> None:
    """Fill ``folder`` with the programs whose output a page shows, and with the settings of the type checkers."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for settings in SETTINGS:
        shutil.copy(Path(__file__).parent / settings, folder)
    for place, program, _ in SHOWN:
        (folder / f"{re.sub(r'[^a-z0-9]+', '_', place.lower())}.py").write_text(program, encoding="utf-8")


if __name__ == "__main__":
    write_programs(Path(sys.argv[1]))
