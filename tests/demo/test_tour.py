"""The tour shows what it says it shows, and counts what is left instead of promising it."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio

from agentloop.demo.cast import make_cast, search_python
from agentloop.demo.tour import tour, what_is_left
from agentloop.messages import AssistantMessage, Message, ToolCall, ToolResult
from agentloop.questions import Accept, Answer, Deny
from agentloop.terminal._person import Agreeable
from agentloop.terminal._plain import Plain
from agentloop.terminal._stage import Stage
from tests.demo.builders import Answering

pytestmark = pytest.mark.real_clock


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def saved(folder: Path) -> list[str]:
    return [path.read_text(encoding="utf-8") for path in folder.iterdir()]


async def toured(*answers: Answer, text: str | None = None) -> str:
    out = io.StringIO()
    await tour(Stage(Plain(out), Answering(answers) if answers else Agreeable()), text=text)
    return out.getvalue()


async def test_the_tour_shows_tools_a_nested_agent_questions_and_a_stop(folder: Path) -> None:
    page = await toured()

    for told in (
        "guide <- measure: 53 words in 4 sentences",
        'guide -> search_python({"word":"block"})',
        "    critic -> longest_sentence()",
        "    critic ?? To whom do I speak, and shall I be kind, or frank?",
        "    critic begins in the background, as critic-1",
        "guide reads the answer of critic-1",
        "guide ?? May I call save_report?",
        "guide !! count_down: Interrupted",
        "    dreamer ends: cancelled",
        "guide ends: cancelled: the tour has seen enough",
        "guide: Yes, I am. I was interrupted at: count_down, run_program, dreamer.",
        "guide hands the conversation to host",
        "host: Thank you for your time. Good-bye!",
    ):
        assert told in page
    [report] = saved(folder)
    assert "- 53 words in 4 sentences\n" in report


async def test_nothing_is_left_of_what_was_stopped() -> None:
    page = await toured()

    for counted in ("tasks still running        0   (there were ", "programs still running     0   ("):
        assert counted in page
    assert "calls without a result     0   (of 10 in the transcript" in page


async def test_the_tour_goes_by_what_the_person_answers(folder: Path) -> None:
    page = await toured(Accept({"name": "Zoe", "tone": "frank"}), Deny("keep it"))

    assert "critic: Zoe, nobody should be made to read a sentence of 22 words." in page
    assert "Done, and nothing was saved." in page
    assert saved(folder) == []


async def test_the_tour_takes_the_users_own_text() -> None:
    page = await toured(text="Elephants never forget. Elephants!")

    assert "guide <- measure: 4 words in 2 sentences" in page
    assert 'guide -> search_python({"word":"elephants"})' in page


@pytest.mark.parametrize("text", ["?!", "a b c", "日本語"])
async def test_the_tour_takes_any_text(text: str) -> None:
    assert "Done. The report is saved as " in await toured(text=text)


async def test_what_is_left_is_counted() -> None:
    """Were something left, the tour would say so."""
    cast = make_cast(None, "")
    process = await trio.lowlevel.open_process(["sleep", "60"])
    cast.processes.append(process)
    calls = tuple(ToolCall(id, "wait", "{}") for id in ("a", "b"))
    messages: Sequence[Message] = [AssistantMessage(calls), ToolResult("a", "wait", ())]

    tasks, programs, results = what_is_left(cast, messages, (9, 2))
    process.kill()
    await process.wait()

    assert tasks.split() == ["tasks", "still", "running", "2", "(there", "were", "9)"]
    assert programs.split()[:4] == ["programs", "still", "running", "1"]
    assert results.split()[:5] == ["calls", "without", "a", "result", "1"]


def test_the_library_of_python_is_really_searched() -> None:
    everywhere, nowhere = search_python("import"), search_python("thiswordisnowhere")

    assert not everywhere.startswith('"import" is in 0 of')
    assert " is in 0 of" in nowhere


async def test_a_program_that_ends_by_itself_is_waited_for() -> None:
    cast = make_cast(None, "")
    [runner] = [tool for tool in cast.guide.tools if getattr(tool, "name", "") == "run_program"]

    class Context:
        async def output(self, text: str) -> None:
            await trio.lowlevel.checkpoint()

    assert (await runner(seconds=0, context=Context())).endswith("has ended with 0")
