"""No test of the demo may touch the files of whoever runs it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentloop.demo.sessions import VARIABLE
from agentloop.terminal import _stage
from tests.demo.terminals import Open, Terminal


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder that is empty."""
    home = tmp_path_factory.mktemp("home")
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(home))
    for name in ("XDG_DATA_HOME", "LOCALAPPDATA", VARIABLE):
        monkeypatch.delenv(name, raising=False)
    return home


@pytest.fixture(autouse=True)
def no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test asks questions at the terminal of whoever runs it."""
    monkeypatch.setattr(_stage, "TERMINAL", "/nowhere")


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Open]:
    """Opens terminals, and runs the demo there."""
    opened: list[Terminal] = []

    def open_terminal(*arguments: str, **changes: Any) -> Terminal:
        opened.append(Terminal(arguments, tmp_path, **changes))
        return opened[-1]

    yield open_terminal
    for one in opened:
        one.close()
