"""The command line: what it prints, where, and its exit status."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from agentloop.demo import __main__ as program, catalogue
from agentloop.demo.__main__ import main
from tests.demo.terminals import PATIENCE, POSIX, Open, command, environment


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


# ------------------------------------------------------------------------- in this process


def test_the_list_has_every_example_with_what_it_shows(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert "hello           Hello: an agent answers, word by word." in lines
    assert len(lines) == len(catalogue.find_examples())


def test_an_example_runs_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["hello", "--prompt", "One two"]) == 0

    assert capsys.readouterr().out.splitlines() == [
        "you: One two",
        'hello: You wrote 2 words, and the last one is "two".',
        "hello ends: completed (1 request, 15 tokens)",
    ]


@pytest.mark.parametrize(
    ("name", "line"),
    [("stopping", "the run was cancelled: two of three will do"), ("staff", "host reads the answer of counter-1")],
)
def test_a_story_is_told_by_itself(name: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name]) == 0

    assert line in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["helo"], "there is no example 'helo'; did you mean 'hello'? there are: background, conversation, "),
        (["prose"], "there is no example 'prose'; there are: background, conversation, "),
        (["hello", "--model", "openai:gpt-5"], "model 'openai:gpt-5' needs a key: set the environment variable"),
        (["hello", "--model", "nobody:any"], "there is no provider 'nobody'"),
        (["stopping", "--model", "nobody:any"], "there is no provider 'nobody'"),
        (["--model", "nobody:any"], "there is no provider 'nobody'"),
        (["hello", "--base-url", "http://localhost:1"], "--base-url says where a model is served: say which one"),
        (["hello", "--prompt", " "], "a prompt needs some text"),
        (["stopping", "--prompt", "Go"], "example 'stopping' tells a story of its own, and takes no prompt"),
    ],
)
def test_what_cannot_begin_is_told_in_one_line(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2

    told = capsys.readouterr()
    assert told.out.startswith(("", "An agent's run is a block."))
    [line] = told.err.splitlines()
    assert sentence in line


FAILING = '''"""Failing: a model that is gone."""
from agentloop import Agent
from agentloop.errors import ModelConnectionError
from agentloop.testing import ScriptedModel, fails

PROMPT = "Go."

def make_agent(model=None):
    return Agent(ScriptedModel(fails(ModelConnectionError("the line\\nis dead"))))

async def main(): ...
'''


def test_a_run_that_fails_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples" / "failing.py").write_text(FAILING, encoding="utf-8")
    monkeypatch.setattr(catalogue, "_HERE", tmp_path)

    assert main(["failing"]) == 1

    assert capsys.readouterr().err == "ModelConnectionError: the line is dead\n"


@pytest.mark.parametrize("arguments", [[], ["--prompt", "-"]])
def test_a_text_on_the_standard_input_is_the_prompt(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text").write_text("Three little words\n", encoding="utf-8")
    with (tmp_path / "text").open(encoding="utf-8") as source:
        monkeypatch.setattr(sys, "stdin", source)
        assert main(["hello", *arguments]) == 0

    assert capsys.readouterr().out.startswith("you: Three little words\nhello: You wrote 3 words")


def test_an_open_input_without_anybody_behind_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(program, "PATIENCE", 0.01)
    reading, writing = os.pipe()
    with os.fdopen(reading, encoding="utf-8") as source:
        monkeypatch.setattr(sys, "stdin", source)
        assert main(["hello"]) == 0
    os.close(writing)

    assert capsys.readouterr().out.startswith("you: Hello! Is there anybody in there?")


@pytest.mark.parametrize("closed", ["stdin", "stdout"])
def test_a_closed_input_or_output_is_none(closed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, closed, None)

    assert main(["hello"]) == 0
    if closed == "stdout":
        sys.stdout.close()


def test_a_letter_that_the_output_does_not_have_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out, encoding="ascii", newline="\n"))

    assert main(["hello", "--prompt", "Grüß Gott"]) == 0
    assert out.getvalue().startswith(b"you: Gr?? Gott\n")


# ---------------------------------------------------------------------- in one of its own


def test_the_tour_runs_without_a_terminal_a_key_or_a_network(tmp_path: Path) -> None:
    ran = subprocess.run(
        command("--yes"),
        cwd=tmp_path,
        env=environment(TMPDIR=str(tmp_path)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )

    assert (ran.returncode, ran.stderr) == (0, b"")
    assert b"tasks still running        0" in ran.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("arguments", [("hello", "--prompt", "hi", "--no-store"), ("--help",)], ids=["run", "help"])
def test_a_full_disk_is_one_line(arguments: Sequence[str], tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        ran = subprocess.run(
            command(*arguments),
            cwd=tmp_path,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=PATIENCE,
            check=False,
        )

    assert (ran.returncode, ran.stderr) == (1, b"The output cannot be written: No space left on device.\n")


@POSIX
@pytest.mark.parametrize("arguments", [("stopping",), ("hello",), ("--list",)])
def test_a_reader_that_leaves_the_pipe_is_no_error(arguments: Sequence[str], tmp_path: Path) -> None:
    with subprocess.Popen(
        command(*arguments),
        cwd=tmp_path,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.close()
        assert running.stderr.read() == b""
        assert running.wait(PATIENCE) == 141


@POSIX
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_program_with_one_line(number: signal.Signals, status: int, tmp_path: Path) -> None:
    with subprocess.Popen(
        command("stopping"),
        cwd=tmp_path,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline().startswith(b"count_primes")
        running.send_signal(number)
        _, told = running.communicate(timeout=PATIENCE)

    assert (running.returncode, told) == (status, b"\nInterrupted.\n")


@POSIX
def test_ctrl_c_while_modules_are_imported_is_silent(tmp_path: Path) -> None:
    # Found in place of the real one, which the package imports before the demo begins.
    (tmp_path / "trio.py").write_text("import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)\n")

    ran = subprocess.run(
        command("hello"), cwd=tmp_path, env=environment(), capture_output=True, timeout=PATIENCE, check=False
    )

    assert (ran.returncode, ran.stdout, ran.stderr) == (-signal.SIGINT, b"", b"")


# --------------------------------------------------------------------------- on a terminal


with_and_without_colours = pytest.mark.parametrize("arguments", [(), ("--plain",)])


@POSIX
@with_and_without_colours
def test_a_person_answers_what_is_asked(arguments: Sequence[str], terminal: Open) -> None:
    at = terminal("questions", *arguments)
    conversation = [
        ("guest [Ada]:", "Zoe"),
        ("[Saturday]:", "sun"),
        ("[2]:", "9"),
        ("expected an integer >= 1 and <= 8, got 9", None),
        ("[9]:", "3"),
        ("Dear Zoe", None),
        ("[y/N/always/later]", "y"),
    ]
    for asked, typed in conversation:
        at.wait_for(asked)
        if typed is not None:
            at.type(f"{typed}\r")

    status, page = at.ended()
    assert status == 0
    assert "Come on Sunday, 3 at most!" in page
    assert "The invitation is ready: saved" in page


@POSIX
@with_and_without_colours
def test_ctrl_c_at_a_question_ends_the_program_with_one_line(arguments: Sequence[str], terminal: Open) -> None:
    at = terminal("questions", *arguments)
    at.wait_for("guest [Ada]:")
    at.type("Half")
    at.wait_for("Half")
    at.type("\x03")

    status, page = at.ended()
    assert status == 130
    assert page.rstrip().endswith("Interrupted.")
    assert "Traceback" not in page


@POSIX
@with_and_without_colours
def test_ctrl_c_while_a_model_speaks_ends_the_program_with_one_line(arguments: Sequence[str], terminal: Open) -> None:
    at = terminal("structured", *arguments)
    at.wait_for("Certainly!")
    at.type("\x03")

    status, page = at.ended()
    assert status == 130
    assert page.rstrip().endswith("Interrupted.")
    assert "Traceback" not in page


HELLO = """\
you: Hello! Is there anybody in there?\r
hello: You wrote 6 words, and the last one is "there?".\r
hello ends: completed (1 request, 15 tokens)\r
"""


@POSIX
def test_a_terminal_may_be_dumb_and_without_colours(terminal: Open) -> None:
    at = terminal("hello", TERM="dumb", NO_COLOR="1")

    status, page = at.ended()
    assert status == 0
    assert re.fullmatch(
        rf"{re.escape(HELLO)}\(Kept as (hello-[0-9a-f]+): --continue --session \1 goes on with it.\)\r\n", page
    )
    assert b"\x1b" not in at.written


@POSIX
def test_a_terminal_may_be_narrow(terminal: Open) -> None:
    status, page = terminal("hello", COLUMNS="20").ended()

    assert status == 0
    assert max(map(len, page.replace("\r", "\n").splitlines())) <= 20


@POSIX
def test_yes_asks_nobody_on_a_terminal_either(terminal: Open) -> None:
    status, page = terminal("questions", "--yes").ended()

    assert status == 0
    assert "The invitation is ready" in page
