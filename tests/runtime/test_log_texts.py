"""The texts of exceptions and servers in a log: no secret of the environment, nothing that a terminal obeys."""

from __future__ import annotations

import logging

import pytest

from agentloop import Agent, tool
from agentloop.testing import ScriptedModel, calls


@tool
async def fail(text: str) -> str:
    """Fail."""
    raise ValueError(text)


async def logged(text: str, caplog: pytest.LogCaptureFixture) -> str:
    with caplog.at_level(logging.DEBUG, logger="agentloop"):
        await Agent(ScriptedModel(calls("fail", text=text), "Done."), tools=[fail]).run("go")
    formatter = logging.Formatter()
    return "\n".join(formatter.format(record) for record in caplog.records)


@pytest.mark.parametrize(
    "character",
    ["\x1b", "\x9b", "\x07", "\r", "\u202e", "\u2066", "\x7f"],
    ids=["escape", "csi", "bell", "return", "override", "isolate", "delete"],
)
async def test_a_log_has_no_character_that_a_terminal_obeys(character: str, caplog: pytest.LogCaptureFixture) -> None:
    text = await logged(f"before {character} after", caplog)

    assert character not in text
    assert f"before {ascii(character)[1:-1]} after" in text


@pytest.mark.parametrize(
    ("variable", "value", "secret"),
    [
        ("GITHUB_TOKEN", "hunter2hunter2", "hunter2hunter2"),
        ("PGPASSWORD", "hunter2hunter2", "hunter2hunter2"),
        ("AWS_SECRET_ACCESS_KEY", "hunter2hunter2", "hunter2hunter2"),
        ("DATABASE_URL", "postgres://ada:hunter2hunter2@h/d", "hunter2hunter2"),
    ],
)
async def test_a_log_has_no_secret_of_the_environment(
    variable: str, value: str, secret: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)

    assert secret not in await logged(f"the server said: {secret} is wrong", caplog)


async def test_a_log_has_the_current_folder(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PWD", "/home/ada/project")

    assert "/home/ada/project/x" in await logged("no file /home/ada/project/x", caplog)
