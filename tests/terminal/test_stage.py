"""What the standard input and output make of the stage."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from typing import TextIO, TypeAlias

import pytest
import trio
from prompt_toolkit.application import create_app_session

from agentloop.questions import Approve, Decline, Deny
from agentloop.terminal import _stage as stages
from agentloop.terminal._fancy import Fancy
from agentloop.terminal._person import Agreeable, Nobody, Typist
from agentloop.terminal._plain import Plain
from agentloop.terminal._stage import PACE, Stage, is_terminal, open_stage
from tests.demo.builders import approval, elicitation

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")


Terminal: TypeAlias = tuple[TextIO, TextIO]


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    """The two ends of a terminal that a program has: what is typed, and what is shown."""
    keyboard, screen = os.openpty()
    with os.fdopen(screen, encoding="utf-8", closefd=False) as source, os.fdopen(screen, "w", encoding="utf-8") as out:
        yield source, out
    os.close(keyboard)


async def opened(
    monkeypatch: pytest.MonkeyPatch,
    files: Terminal,
    *,
    plain: bool = False,
    yes: bool = False,
    paced: bool = True,
    term: str = "xterm",
) -> Stage:
    """The stage that ``files`` make, as standard input and output."""
    # Here, and not in the fixture: pytest puts its own in their place when the test begins.
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdin", files[0])
        patch.setattr(sys, "stdout", files[1])
        patch.setenv("TERM", term)
        with create_app_session():
            async with open_stage(plain=plain, yes=yes, paced=paced) as stage:
                return stage


async def test_a_terminal_has_colours_a_person_and_a_pace(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = await opened(monkeypatch, terminal)

    assert isinstance(stage.screen, Fancy)
    assert isinstance(stage.person, Typist)
    assert stage.pace == PACE


async def test_a_terminal_may_be_plain(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = await opened(monkeypatch, terminal, plain=True)

    assert isinstance(stage.screen, Plain)
    assert isinstance(stage.person, Typist)


async def test_a_dumb_terminal_is_plain(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance((await opened(monkeypatch, terminal, term="dumb")).screen, Plain)


async def test_without_the_extra_a_terminal_is_plain(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "find_spec", lambda name: None if name == "rich" else object())

    assert isinstance((await opened(monkeypatch, terminal)).screen, Plain)


async def test_with_yes_nobody_is_asked(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance((await opened(monkeypatch, terminal, yes=True)).person, Agreeable)


async def test_a_real_model_is_slow_enough_by_itself(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await opened(monkeypatch, terminal, paced=False)).pace == 0


async def test_without_a_terminal_every_question_is_declined(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "TERMINAL", "/nowhere")
    _, shown = terminal

    person = (await opened(monkeypatch, (io.StringIO(), shown))).person

    assert isinstance(person, Nobody)
    assert isinstance(await person.answer(approval()), Deny)
    assert isinstance(await person.answer(elicitation()), Decline)


@pytest.mark.real_clock
@pytest.mark.parametrize("is_input", [True, False], ids=["input", "/dev/tty"])
async def test_with_a_terminal_questions_are_asked_there_although_the_output_is_a_pipe(
    is_input: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    keyboard, screen = os.openpty()
    with os.fdopen(screen, encoding="utf-8") as source:  # noqa: ASYNC231
        monkeypatch.setattr(stages, "TERMINAL", os.ttyname(screen))
        monkeypatch.setattr(sys, "stdin", source if is_input else io.StringIO())
        monkeypatch.setattr(sys, "stdout", io.StringIO())
        async with open_stage(plain=False, yes=False, paced=False) as stage, trio.open_nursery() as nursery:
            shown = b""

            async def type_after_the_prompt() -> None:
                nonlocal shown
                while b"[y/N" not in shown:
                    await trio.lowlevel.wait_readable(keyboard)
                    shown += os.read(keyboard, 4096)
                os.write(keyboard, b"perhaps\ny\n")

            os.write(keyboard, b"y\n")  # before the question
            nursery.start_soon(type_after_the_prompt)
            with trio.fail_after(10):
                answer = await stage.person.answer(approval())
    os.close(keyboard)

    assert answer == Approve()
    assert b"May I call" in shown


def test_a_closed_file_is_no_terminal() -> None:
    closed: TextIO = io.StringIO()
    closed.close()

    assert not is_terminal(closed)
    assert not is_terminal(None)
