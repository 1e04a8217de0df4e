"""Sessions at a terminal: put off, interrupted, killed, and gone on with."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.demo.terminals import POSIX, Open

pytestmark = POSIX

WORK = '''"""Work: a step that is done at once, one that may hang, and one that wants approval."""
from pathlib import Path

import trio

from agentloop import Agent, ToolContext, tool
from agentloop.messages import ToolResult
from agentloop.testing import FunctionModel, calls, says

PROMPT = "Do it."

def log(line):
    with Path("log").open("a", encoding="utf-8") as file:
        file.write(line + "\\n")

@tool
async def step() -> str:
    log("step")
    return "stepped"

@tool(if_interrupted="ask")
async def hang(context: ToolContext[None]) -> str:
    log("hang")
    await context.output("hanging\\n")
    while Path("hang").exists():
        await trio.sleep(0.02)
    return "hung"

@tool(requires_approval=True)
async def pay() -> str:
    log("pay")
    return "paid"

def offline(request):
    last = request.messages[-1]
    if isinstance(last, ToolResult):
        results = [each for each in request.messages if isinstance(each, ToolResult)][-3:]
        return "Finished: " + ", ".join(f"{each.name} {each.status}" for each in results) + "."
    if last.text == "Do it.":
        return says("I begin.") + calls("step") + calls("hang") + calls("pay")
    return f"You said: {last.text}"

def make_agent(model=None):
    return Agent(FunctionModel(offline), name="worker", tools=[step, hang, pay])

async def main(): ...
'''

with_and_without_colours = pytest.mark.parametrize("style", [(), ("--plain",)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples" / "work.py").write_text(WORK, encoding="utf-8")
    return tmp_path


def logged(folder: Path) -> list[str]:
    return (folder / "log").read_text(encoding="utf-8").split()


@with_and_without_colours
def test_what_is_put_off_is_asked_again_by_continue(style: Sequence[str], folder: Path, terminal: Open) -> None:
    at = terminal("work", *style, quick=True)
    at.wait_for("[y/N/always/later]")
    at.type("later\r")
    status, page = at.ended()
    assert status == 0
    assert page.count("the question waits for an answer") == 1
    assert "(Kept as work-" in page

    at = terminal("--sessions", quick=True)
    _, page = at.ended()
    assert "Do it. (waits for an answer)" in page

    at = terminal("--continue", *style, quick=True)
    at.wait_for("It waits for your answer to a question.")
    at.wait_for("(Enter goes on with it) >")
    at.type("\r")
    at.wait_for("May I call pay?")
    at.wait_for("[y/N/always/later]")
    at.type("y\r")
    at.wait_for("Finished: step ok, hang ok, pay ok.")
    at.wait_for(">")
    at.type("Thank you.\r")
    at.wait_for("You said: Thank you.")
    assert at.page.count("you  Thank you.") == at.page.count("you: Thank you.") == 0
    at.wait_for(">")
    at.type("\r")
    status, page = at.ended()
    assert status == 0
    assert page.count("Do it.") == 1
    assert sorted(logged(folder)) == ["hang", "pay", "step"]


def test_ctrl_c_at_a_question_keeps_it(folder: Path, terminal: Open) -> None:
    at = terminal("work", "--plain", quick=True)
    at.wait_for("[y/N/always/later]")
    at.type("\x03")
    status, page = at.ended()
    assert status == 130
    assert "the question waits for an answer" in page
    assert page.rstrip().endswith("Interrupted.")

    at = terminal("--continue", "--plain", quick=True)
    at.wait_for("It waits for your answer to a question.")
    at.wait_for(">")
    at.type("\r")
    at.wait_for("[y/N/always/later]")
    at.type("n\r")
    at.wait_for("Finished: step ok, hang ok, pay denied.")
    at.wait_for(">")
    at.type("\x04")
    assert at.ended()[0] == 0


def test_ctrl_c_in_the_middle_stops_the_run_and_continue_offers_to_go_on(folder: Path, terminal: Open) -> None:
    (folder / "hang").touch()
    at = terminal("work", "--plain", "--yes", quick=True)
    at.wait_for("hanging")
    at.wait_for("paid")
    at.type("\x03")
    assert at.ended()[0] == 130

    at = terminal("--continue", "--plain", quick=True)
    at.wait_for("worker: I begin.")
    at.wait_for("Its last run was stopped.")
    at.wait_for("(Enter goes on with it) >")
    at.type("\r")
    at.wait_for("You said: Go on.")
    at.wait_for(">")
    at.type("\r")
    assert at.ended()[0] == 0


def test_a_run_that_was_killed_is_gone_on_with_and_nothing_is_done_twice(folder: Path, terminal: Open) -> None:
    (folder / "hang").touch()
    at = terminal("work", "--plain", quick=True)
    at.wait_for("[y/N/always/later]")
    at.type("y\r")
    at.wait_for("pay: paid")
    os.killpg(at.running.pid, signal.SIGKILL)
    assert at.ended()[0] == -signal.SIGKILL
    (folder / "hang").unlink()

    at = terminal("--continue", "--plain", quick=True)
    at.wait_for("Its last run was interrupted before it came to its end.")
    at.wait_for(">")
    at.type("\r")
    at.wait_for("it was interrupted, and may have run already: run it again?")
    at.wait_for("[y/N/always/later]")
    at.type("y\r")
    at.wait_for("Finished: step ok, hang ok, pay ok.")
    at.wait_for(">")
    at.type("\r")
    assert at.ended()[0] == 0
    assert sorted(logged(folder)) == ["hang", "hang", "pay", "step"]


def test_who_types_something_else_gives_up_what_was_interrupted(folder: Path, terminal: Open) -> None:
    at = terminal("work", "--plain", quick=True)
    at.wait_for("[y/N/always/later]")
    os.killpg(at.running.pid, signal.SIGKILL)
    at.ended()

    at = terminal("--continue", "--plain", quick=True)
    at.wait_for("It waits for your answer to a question.")
    at.wait_for(">")
    at.type("Never mind.\r")
    at.wait_for("You said: Never mind.")
    at.wait_for(">")
    at.type("\x04")
    assert at.ended()[0] == 0
    assert "(waits" not in terminal("--sessions", quick=True).ended()[1]


def test_where_nobody_types_what_is_unfinished_is_gone_on_with(folder: Path, terminal: Open) -> None:
    at = terminal("work", "--plain", quick=True)
    at.wait_for("[y/N/always/later]")
    at.type("later\r")
    at.ended()

    status, page = terminal("--continue", "--plain", "--yes", quick=True).ended()
    assert status == 0
    assert "Finished: step ok, hang ok, pay ok." in page


def test_a_session_that_another_demo_has_is_refused_in_one_line(folder: Path, terminal: Open) -> None:
    at = terminal("work", "--plain", quick=True)
    at.wait_for("[y/N/always/later]")

    status, page = terminal("--continue", "--plain", quick=True).ended()
    assert status == 2
    assert "is in use by process" in page.splitlines()[-1]
    assert "Traceback" not in page


@with_and_without_colours
def test_a_chat_goes_on_until_nothing_is_said(style: Sequence[str], folder: Path, terminal: Open) -> None:
    at = terminal("work", "--chat", "--no-store", *style, quick=True)
    for word in ("One.", "Two."):
        at.wait_for(">")
        at.type(f"{word}\r")
        at.wait_for(f"You said: {word}")
    at.wait_for(">")
    at.type("\r")

    status, page = at.ended()
    assert status == 0
    assert "Kept as" not in page


@with_and_without_colours
def test_ctrl_c_in_a_chat_ends_the_answer_and_not_the_chat(style: Sequence[str], folder: Path, terminal: Open) -> None:
    at = terminal("work", "--chat", "--no-store", *style, quick=True)
    at.wait_for("You talk with worker.")
    at.wait_for(">")
    at.type("Do it.\r")
    at.wait_for("[y/N/always]")
    at.type("\x03")
    at.wait_for("(stopped)")
    at.wait_for(">")
    at.type("Thank you.\r")
    at.wait_for("You said: Thank you.")
    at.wait_for(">")
    at.type("\r")

    assert at.ended()[0] == 0


def test_ctrl_c_at_a_question_of_a_chat_leaves_it_for_later(folder: Path, terminal: Open) -> None:
    at = terminal("work", "--chat", "--plain", quick=True)
    at.wait_for(">")
    at.type("Do it.\r")
    at.wait_for("[y/N/always/later]")
    at.type("\x03")
    at.wait_for("(Enter goes on with it) >")
    at.type("\r")
    at.wait_for("[y/N/always/later]")
    at.type("n\r")
    at.wait_for("Finished: step ok, hang ok, pay denied.")
    at.wait_for(">")
    at.type("\r")

    status, page = at.ended()
    assert status == 0
    assert "--continue --session work-" in page


def test_a_run_that_fails_does_not_end_the_chat(folder: Path, terminal: Open) -> None:
    work = folder / "examples" / "work.py"
    work.write_text(
        WORK.replace(
            'if last.text == "Do it."',
            'if last.text == "Fail.":\n        raise OSError("no line")\n    if last.text == "Do it."',
        ),
        "utf-8",
    )
    at = terminal("work", "--chat", "--plain", quick=True)
    at.wait_for(">")
    at.type("Fail.\r")
    at.wait_for("ends: failed")
    at.wait_for("(Enter goes on with it) >")
    at.type("Well?\r")
    at.wait_for("You said: Well?")
    at.wait_for(">")
    at.type("\r")
    assert at.ended()[0] == 0


@with_and_without_colours
def test_a_key_pauses_an_answer_and_lets_it_go_on_and_ctrl_c_ends_it_all_the_same(
    style: Sequence[str], folder: Path, terminal: Open
) -> None:
    (folder / "hang").touch()
    at = terminal("work", "--chat", "--no-store", *style, quick=True)
    at.wait_for(">")
    at.type("/help\r")
    at.wait_for("Ctrl-P")
    at.wait_for(">")
    at.type("Do it.\r")
    at.wait_for("[y/N/always]")
    at.type("y\r")
    at.wait_for("approved")
    at.type("\x10")
    at.wait_for("paused: it holds before its next step")
    at.wait_for("(Ctrl-P goes on.)")
    at.type("Thank you\x10")
    at.wait_for("goes on")
    (folder / "hang").unlink()
    at.wait_for("Finished: step ok, hang ok, pay ok.")
    # What was typed meanwhile is the beginning of the next prompt.
    at.wait_for("> Thank you")
    (folder / "hang").touch()
    at.type(".\r")
    at.wait_for("You said: Thank you.")
    at.wait_for(">")
    at.type("Do it.\r")
    at.wait_for("[y/N/always]")
    at.type("y\r")
    at.wait_for("approved")
    at.type("\x10")
    at.wait_for("(Ctrl-P goes on.)")
    at.type("\x03")
    at.wait_for("(stopped)")
    at.wait_for(">")
    at.type("/usage\r")
    at.wait_for("tokens")
    at.type("\r")
    assert at.ended()[0] == 0
