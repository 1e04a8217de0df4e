"""The commands that take a file: ``run``, ``schema``, ``serve`` and ``worker``."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from agentloop.declarative import LoadedTeam, TeamFileError, json_schema
from agentloop.engines import _command as worker_command
from agentloop.serving import _command as serving_command

FILE = """\
agents:
  root:
    model: openai/gpt-5
    welcome_message: Welcome!
    code_mode_tools: true
    commands: {fix: "Fix $1 now"}
"""

PROGRAM = f"""\
from agentloop.declarative import load_team
from agentloop.testing import FunctionModel

team = load_team({FILE!r}, models=FunctionModel(lambda request: f"I read: {{request.messages[-1].text}}"))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tmp_path.joinpath("team.yaml").write_text(FILE)
    tmp_path.joinpath("program.py").write_text(PROGRAM)
    return tmp_path


def run(folder: Path, *arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "agentloop", *arguments]
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(
        command, cwd=folder, env=environment, input=typed, capture_output=True, text=True, check=False, timeout=60
    )


def test_run_greets_reads_prompts_and_spells_commands_out(folder: Path) -> None:
    done = run(folder, "run", "program:team", typed="Hi!\n/fix main.py\n")
    assert done.returncode == 0, done.stderr
    assert "Welcome!" in done.stdout
    assert "I read: Hi!" in done.stdout
    assert "I read: Fix main.py now" in done.stdout


def test_run_with_a_prompt_runs_once(folder: Path) -> None:
    done = run(folder, "run", "program:team", "--prompt", "Hi!")
    assert done.returncode == 0, done.stderr
    assert "I read: Hi!" in done.stdout
    assert "Welcome!" not in done.stdout


def test_run_names_what_a_file_asks_for_in_vain_and_fails_without_a_key(folder: Path) -> None:
    done = run(folder, "run", "team.yaml", "--prompt", "Hi!")
    assert done.returncode == 1
    assert "team.yaml:5:5: agents.root.code_mode_tools: The model calls the tools one by one." in done.stderr
    assert "set the environment variable OPENAI_API_KEY" in done.stderr
    assert "Traceback" not in done.stderr


def test_run_takes_another_model_for_all_agents(folder: Path) -> None:
    done = run(folder, "run", "team.yaml", "--model", "anthropic:x", "--prompt", "Hi!")
    assert "ANTHROPIC_API_KEY" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "none.yaml"], "none.yaml: the file cannot be read"),
        (["run", "team.yaml", "--strict"], "agents.root.code_mode_tools"),
        (["run", "program:nobody"], "has no 'nobody'"),
        (["worker", "none.yaml", "--database", "x.db"], "none.yaml: the file cannot be read"),
    ],
)
def test_what_cannot_be_run_is_one_line_and_exit_code_2(folder: Path, arguments: list[str], said: str) -> None:
    done = run(folder, *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_schema_prints_the_schema(folder: Path) -> None:
    done = run(folder, "schema")
    assert done.returncode == 0
    assert json.loads(done.stdout) == json_schema()


def test_serve_and_worker_find_the_team_of_a_file_and_log_what_is_not_obeyed(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = str(folder / "team.yaml")
    with caplog.at_level(logging.WARNING):
        served = serving_command.find_served(path)
        agents = worker_command._agents(path)
    assert isinstance(served, LoadedTeam)
    assert [*agents] == ["root"]
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "agents.root.code_mode_tools" in caplog.messages[0]
    with pytest.raises(TeamFileError):
        serving_command.find_served(str(folder / "none.yml"))


def test_two_files_of_one_name_have_stores_of_their_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving_command, "data_folder", lambda: folder / "data")
    monkeypatch.chdir(folder)
    one, other = serving_command._own_file("team.yaml"), serving_command._own_file("other/team.yaml")
    assert one is not None
    assert other is not None
    assert one != other
    assert serving_command._own_file(str(folder / "team.yaml")) == one
