"""Programs of agentloop's own run on this Python, and never start the user's application a second time."""

from __future__ import annotations

import multiprocessing
import multiprocessing.spawn
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from agentloop import Agent
from agentloop._interpreter import loader_environment, python_command, script_arguments
from agentloop.errors import UsageError
from agentloop.messages import ToolResult
from agentloop.testing import ScriptedModel, calls
from agentloop.toolkit import file_tools

pytestmark = pytest.mark.real_clock


@pytest.fixture(autouse=True)
def _no_executable_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multiprocessing.spawn, "_python_exe", os.fsencode(sys.executable))


def become(monkeypatch: pytest.MonkeyPatch, executable: str, *, frozen: bool) -> None:
    """Let this process look like the application ``executable``."""
    monkeypatch.setattr(sys, "executable", executable)
    monkeypatch.setattr(sys, "frozen", frozen, raising=False)
    multiprocessing.set_executable(executable)


@pytest.mark.parametrize(
    "name", ["python", "python3.15", "pypy3", "Python", "pythonw.exe", "graalpy", ".python-wrapped"]
)
def test_an_interpreter_is_known_by_its_name(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    become(monkeypatch, f"/somewhere/{name}", frozen=False)

    assert python_command("It") == f"/somewhere/{name}"


def test_what_multiprocessing_starts_by_default_is_no_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/somewhere/python")

    assert python_command("It") == "/somewhere/python"


@pytest.mark.parametrize(("executable", "frozen"), [("/opt/python-app", True), ("/usr/bin/uwsgi", False), ("", False)])
def test_an_application_is_refused_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch, executable: str, frozen: bool
) -> None:
    become(monkeypatch, executable, frozen=frozen)

    with pytest.raises(
        UsageError, match=r"It needs to start a Python interpreter.*multiprocessing.set_executable\(path\)"
    ):
        python_command("It")

    multiprocessing.set_executable("/usr/bin/python3")
    assert python_command("It") == "/usr/bin/python3"


async def test_searching_files_does_not_start_a_frozen_application(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    started, app = tmp_path / "started", tmp_path / "app"
    app.write_text(f"#!/bin/sh\ntouch {started}\n")
    app.chmod(0o755)
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.txt").write_text("x\n")
    become(monkeypatch, str(app), frozen=True)
    responses = calls("list_files") + calls("search_files", pattern="x") + calls("read_file", path="a.txt")
    agent = Agent(ScriptedModel(responses, "done"), tools=file_tools(tmp_path / "files"))

    results = [message for message in (await agent.run("go")).messages if isinstance(message, ToolResult)]

    assert not started.exists()
    assert [result.status for result in results] == ["error", "error", "ok"]
    assert "multiprocessing.set_executable" in results[0].text


async def test_searching_files_works_where_the_interpreter_needs_the_loaders_variables(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wrapper = tmp_path / "python"
    wrapper.write_text(
        f'#!/bin/sh\n[ "$LD_LIBRARY_PATH" = /libraries ] && [ -z "$SECRET" ] && exec {sys.executable} "$@"\n'
    )
    wrapper.chmod(0o755)
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.txt").write_text("x\n")
    become(monkeypatch, str(wrapper), frozen=False)
    monkeypatch.setenv("LD_LIBRARY_PATH", "/libraries")
    monkeypatch.setenv("SECRET", "s")
    model = ScriptedModel(calls("list_files") + calls("search_files", pattern="x"), "done")

    outcome = await Agent(model, tools=file_tools(tmp_path / "files")).run("go")

    assert [message.text for message in outcome.messages if isinstance(message, ToolResult)] == ["a.txt", "a.txt:1:x"]


def test_a_frozen_application_keeps_its_libraries_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", "/bundle")
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert "LD_LIBRARY_PATH" not in loader_environment()

    monkeypatch.setenv("LD_LIBRARY_PATH_ORIG", "/system")
    assert loader_environment()["LD_LIBRARY_PATH"] == "/system"


def test_a_program_without_a_file_runs_from_its_source(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    archive = tmp_path / "app.zip"
    with zipfile.ZipFile(archive, "w") as written:
        written.writestr("zipped_package/__init__.py", "")
        written.writestr("zipped_package/program.py", "import sys; print('ran with', sys.argv[1])")
    monkeypatch.syspath_prepend(archive)

    arguments = script_arguments("zipped_package", "program.py")

    assert arguments[0] == "-c"
    done = subprocess.run([sys.executable, "-I", *arguments, "it"], capture_output=True, text=True, check=True)
    assert done.stdout == "ran with it\n"
