"""The examples print what they say they print, as programs and in the demo, on the user's own text too."""

from __future__ import annotations

import doctest
import io
import runpy
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentloop.demo.catalogue import Example, find_examples, load
from agentloop.terminal._following import play
from agentloop.terminal._person import Agreeable
from agentloop.terminal._plain import Plain
from agentloop.terminal._stage import Stage

EXAMPLES = find_examples()
STORIES = ["staff", "stopping"]
"""Those that have no agent for the demo to run."""

ANY_ORDER = ["nested"]
"""Those whose agents speak at the same time."""

every_example = pytest.mark.parametrize("name", EXAMPLES)
every_agent = pytest.mark.parametrize("name", [name for name in EXAMPLES if name not in STORIES])


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the tools save their files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return iter([tmp_path])


def agrees(promise: str, printed: str) -> bool:
    return doctest.OutputChecker().check_output(promise, printed, doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)


def in_order(text: str) -> str:
    return "\n".join(sorted(text.splitlines()))


def test_there_is_an_example_for_each_thing_that_a_newcomer_looks_for() -> None:
    wanted = {"hello", "tools", "stopping", "questions", "nested", "structured", "hooks", "permissions", "conversation"}

    others = {"background", "early_returns", "external_agent", "handoffs", "mcp_server", "parked", "staff", "toolbox"}
    others.add("workers")
    assert {*EXAMPLES} == wanted | others


@every_example
def test_an_example_promises_what_it_prints(name: str) -> None:
    example = EXAMPLES[name]

    assert example.promise
    assert len(example.summary) < 110


@every_example
def test_an_example_run_as_a_program_prints_what_it_promises(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLES[name].path), run_name="__main__")

    promise, printed = EXAMPLES[name].promise, capsys.readouterr().out
    if name in ANY_ORDER:
        promise, printed = in_order(promise), in_order(printed)
    assert agrees(promise, printed), f"promised:\n{promise}\nprinted:\n{printed}"


async def shown(example: Example, *prompts: str) -> str:
    """What the demo shows of ``example``."""
    program, out = load(example), io.StringIO()
    assert program.make_agent is not None
    await play(program.make_agent(None), prompts or program.prompts, Stage(Plain(out), Agreeable()))
    return out.getvalue()


@pytest.mark.real_clock
@every_agent
async def test_the_demo_runs_an_example_to_its_end(name: str) -> None:
    text = await shown(EXAMPLES[name])

    assert text.startswith("you: ")
    assert "ends: completed" in text.splitlines()[-1 if name != "structured" else -2]


@pytest.mark.real_clock
@every_agent
async def test_an_example_takes_the_users_own_text(name: str) -> None:
    assert "ends: completed" in await shown(EXAMPLES[name], "Tell me: what else could there be?")


@pytest.mark.real_clock
@pytest.mark.parametrize(
    ("name", "prompt", "told"),
    [
        ("hello", "One two three", 'You wrote 3 words, and the last one is "three".'),
        ("tools", "How much is 6 * 7?", "I worked out 42 for you."),
        ("tools", "How much is 1 / 0?", "calculate: ZeroDivisionError: division by zero"),
        ("tools", "Hello.", "Ask me for a sum such as 17 * 23, or for a date."),
        (
            "questions",
            "Write an invitation to a concert.",
            "you are invited to a concert. Come on Saturday, 2 at most!",
        ),
        ("nested", "Short. But this one is longer!", 'This is too long: "But this one is longer!"'),
        (
            "structured",
            "Write to x@example.org.",
            "The result: Contacts(people=[], emails=['x@example.org'], phones=[])",
        ),
        ("hooks", "Say PATH and MY_KEY_IS_SECRET", "!! read_setting: Denied by a hook: secrets stay here"),
        ("conversation", "I am Bo, and I like fog. Right?", "You are Bo, and you like fog."),
    ],
)
async def test_an_example_looks_at_the_users_own_text(name: str, prompt: str, told: str) -> None:
    assert told in await shown(EXAMPLES[name], prompt)


@pytest.mark.real_clock
async def test_the_invitation_is_really_saved(folder: Iterator[Path]) -> None:
    await shown(EXAMPLES["questions"])

    [file] = next(folder).iterdir()
    assert file.read_text(encoding="utf-8").startswith("Dear Ada, you are invited to a summer party in the garden.")
