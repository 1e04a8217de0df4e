"""``python -m agentloop picture``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import trio

from agentloop import Agent
from agentloop.__main__ import main
from agentloop.stores import SQLiteStore, stored_session
from agentloop.testing import ScriptedModel


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "chats.db"

    async def run() -> None:
        async with SQLiteStore(path).open() as opened:
            for name in ("ann-1", "bob-1", "bob-2"):
                async with stored_session(opened, name) as session:
                    await Agent(ScriptedModel("Hi")).run("Hello", session=session)
            await opened.rename("ann-1", "Trip to Boston")
            await opened.rename("bob-1", "Twice")
            await opened.rename("bob-2", "Twice")

    trio.run(run)
    return path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["agentloop", "picture", *map(str, arguments)])
    return main()


def test_the_command_writes_each_form(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes], tmp_path: Path
) -> None:
    assert run(monkeypatch, "Trip to Boston", "--store", store) == 0
    assert b"session ann-1 (Trip to Boston): 1 run" in capsysbinary.readouterr().out
    page, trace, text = (tmp_path / name for name in ("run.html", "run.json", "run.txt"))
    for path in (page, trace, text):
        assert run(monkeypatch, "ann-1", "--store", store, "-o", path) == 0
    assert page.read_text("utf-8").startswith("<!doctype html>")
    assert json.loads(trace.read_bytes())["traceEvents"]
    assert "model: scripted" in text.read_text("utf-8")
    assert run(monkeypatch, "ann-1", "--store", store, "--format", "perfetto") == 0
    assert capsysbinary.readouterr().out == trace.read_bytes()


def test_a_typo_gets_a_sentence_that_names_the_nearest(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def refusal(*arguments: object) -> str:
        assert run(monkeypatch, *arguments) == 2
        return capsys.readouterr().err

    assert "has no session 'an-1': did you mean 'ann-1'?" in refusal("an-1", "--store", store)
    assert "did you mean 'Trip to Boston'?" in refusal("trip to Bostn", "--store", store)
    assert "its newest session is 'bob-2'" in refusal("zzzzzzz", "--store", store)
    assert "2 sessions have the title 'Twice'" in refusal("Twice", "--store", store)
    assert "did you mean 'chats.db'?" in refusal("ann-1", "--store", tmp_path / "chat.db")
    assert not (tmp_path / "chat.db").exists()
    assert "there is no file" in refusal("ann-1", "--store", tmp_path / "nowhere" / "chat.db")
    assert "cannot be written" in refusal("ann-1", "--store", store, "-o", tmp_path / "nowhere" / "run.html")
    trio.run(_make_empty, tmp_path / "empty.db")
    assert "has no sessions" in refusal("ann-1", "--store", tmp_path / "empty.db")


async def _make_empty(path: Path) -> None:
    async with SQLiteStore(path).open():
        pass
