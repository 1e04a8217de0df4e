"""No test asks questions at the terminal of whoever runs it."""

from __future__ import annotations

import pytest

from agentloop.terminal import _stage


@pytest.fixture(autouse=True)
def no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """No terminal beside the standard input and output."""
    monkeypatch.setattr(_stage, "TERMINAL", "/nowhere")
