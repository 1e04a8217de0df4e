"""Files as parts of a prompt, and with a task for another agent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agentloop import Agent, File, Image, Text, ToolError, UsageError
from agentloop.testing import ScriptedModel, calls
from agentloop.toolkit import attached, transfer_task
from tests.runtime.builders import results
from tests.support import watch

pytestmark = [
    pytest.mark.real_clock,
    pytest.mark.skipif(os.name != "posix", reason="the files are read by POSIX calls"),
]
PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    inner = tmp_path / "folder"
    inner.mkdir()
    (inner / "notes.txt").write_text("Buy tea.")
    (inner / "picture.txt").write_bytes(PNG)
    (inner / "report.pdf").write_bytes(b"%PDF-1.7 ...")
    (inner / "data.bin").write_bytes(b"\0\1\2")
    (tmp_path / "secret.txt").write_text("secret")
    (inner / "out.txt").symlink_to(tmp_path / "secret.txt")
    return inner


def test_files_are_parts_by_what_their_bytes_say(folder: Path) -> None:
    parts = attached("notes.txt", "picture.txt", "report.pdf", "data.bin", "notes.txt", folder=folder)

    assert parts == [
        Text("--- notes.txt\nBuy tea.\n--- end of notes.txt"),
        Text("The picture picture.txt:"),
        Image(PNG, media_type="image/png"),
        File(b"%PDF-1.7 ...", media_type="application/pdf", name="report.pdf"),
        File(b"\0\1\2", media_type="application/octet-stream", name="data.bin"),
    ]


@pytest.mark.parametrize("path", ["missing.txt", "../secret.txt", "out.txt", "."])
def test_what_is_no_file_in_the_folder_is_refused(folder: Path, path: str) -> None:
    with pytest.raises(ToolError):
        attached(path, folder=folder)


def test_the_sizes_of_all_files_count_together(folder: Path) -> None:
    with pytest.raises(ToolError, match="too large"):
        attached("notes.txt", "picture.txt", folder=folder, max_bytes=20)
    with pytest.raises(UsageError, match="no files"):
        attached(folder=folder)


async def test_a_task_is_given_with_files_of_the_folder_and_of_no_other(folder: Path) -> None:
    inner = ScriptedModel("Tea.", "Tea.")
    task = transfer_task(Agent(inner, name="reader"), files=folder)
    script = (
        calls("transfer_task", agent="reader", task="Read.", expected_output="One word.", files=["notes.txt"])
        + calls("transfer_task", agent="reader", task="Read.", files=["out.txt"])
        + calls("transfer_task", agent="reader", task="Read.")
    )

    watched = await watch(Agent(ScriptedModel(script, "Done."), tools=[task]))

    assert [(result.status, result.text[:8]) for result in results(watched)] == [
        ("ok", "Tea."),
        ("error", "'out.txt"),
        ("ok", "Tea."),
    ]
    prompts = sorted([request.messages[0].parts for request in inner.requests], key=len)
    note = Text("--- notes.txt\nBuy tea.\n--- end of notes.txt")
    assert prompts == [(Text("Read."),), (Text("Read.\n\nExpected output:\nOne word."), note)]


def test_a_tool_without_a_folder_has_no_files() -> None:
    plain = transfer_task(Agent(ScriptedModel(), name="reader"))

    assert "files" not in plain.arguments.schema["properties"]
