"""The stage of an example: its screen, its person, its pace."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, contextmanager
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import TextIO

from attrs import Factory, define, frozen

from agentloop.events import Question
from agentloop.questions import Answer
from agentloop.terminal._keyboard import Lines, PlainLines, ReadLine, is_gone
from agentloop.terminal._person import Agreeable, Nobody, Person, Typist
from agentloop.terminal._plain import Plain
from agentloop.terminal._screen import Screen

__all__ = ["Door", "Stage", "is_terminal", "open_stage"]

TERMINAL = "/dev/tty"
"""The terminal that this program was started from, whatever its input and output are."""

PACE = 0.03
"""Seconds per word. A model that needs no network is done before anybody has seen it speak."""


@define
class Door:
    """The way out, for a program that is interrupted."""

    park: Callable[[], None] | None = None
    """Parks the question that the person is thinking about, if it can be left for another day."""
    stop: Callable[[], None] | None = None
    """Ends the answer that a chat is waiting for, and not the chat."""
    is_leaving: bool = False
    """Whether that was done: there is nothing more to do then."""


@frozen
class Stage:
    """The stage of an example."""

    screen: Screen
    person: Person
    pace: float = 0.0
    """Seconds to wait after each piece of text, for those who watch."""
    read_line: ReadLine | None = None
    """Reads a typed line; ``None`` if there is no keyboard."""
    door: Door = Factory(Door)
    keyboard: int | None = None
    """Descriptor of the terminal whose single keys can be read; ``None`` if there is none."""

    async def say(self, prompt: str) -> str | None:
        """Reads the person's next prompt; it gives ``None`` at the end of the input."""
        assert self.read_line is not None
        with self.screen.paused():
            return await self.read_line(prompt)


@asynccontextmanager
async def open_stage(*, plain: bool, yes: bool, paced: bool, door: Door | None = None) -> AsyncGenerator[Stage]:
    """The stage for the standard input and output.

    Args:
      plain: without colours or animation.
      yes: ask no questions: yes to all of them, and forms with their defaults. Without it, and without a terminal to
        ask at, every question is declined.
      paced: no faster than a person reads, if a person watches.
      door: the way out of the program.
    """
    watched = is_terminal(sys.stdout)
    fancy = watched and not plain and os.environ.get("TERM") != "dumb" and _has_extra()
    async with _open_screen(fancy=fancy) as screen:
        pace = PACE if paced and watched else 0.0
        if yes:
            yield Stage(screen, Agreeable(), pace, None, door or Door())
        elif watched and is_terminal(sys.stdin):
            lines = _lines(edited=fancy)
            person = Typist(lines, screen, forget=lines.forget, is_gone=partial(is_gone, sys.stdin))
            yield Stage(screen, person, pace, lines, door or Door(), sys.stdin.fileno())
        else:
            with _open_terminal() as terminal:
                yield Stage(screen, Nobody() if terminal is None else _Aside(terminal), pace, None, door or Door())


class _Aside:
    """A person at a terminal that is not the output: each question is shown there, too."""

    def __init__(self, terminal: tuple[TextIO, TextIO]) -> None:
        source, out = terminal
        self._screen = Plain(out)
        lines = PlainLines(source, out)
        self._typist = Typist(lines, self._screen, forget=lines.forget, is_gone=partial(is_gone, source))

    async def answer(self, question: Question, problem: str = "", *, may_wait: bool = False) -> Answer | None:
        """The answer that is typed."""
        if not problem:
            self._screen.show(question)
        return await self._typist.answer(question, problem, may_wait=may_wait)


@contextmanager
def _open_terminal() -> Generator[tuple[TextIO, TextIO] | None]:
    """The keyboard and the screen of the terminal that this program was started from; ``None`` without one."""
    with ExitStack() as stack:
        files: list[TextIO] = []
        try:
            path = os.ttyname(sys.stdin.fileno()) if is_terminal(sys.stdin) else TERMINAL
            files += [
                stack.enter_context(open(path, mode, encoding="utf-8", errors="replace"))  # noqa: PTH123
                for mode in ("r", "w")
            ]
        except (OSError, ValueError, AttributeError):
            files.clear()
        yield (files[0], files[1]) if files else None


def is_terminal(file: TextIO | None) -> bool:
    """Whether ``file`` is a terminal; it is ``None`` if it was closed from the start."""
    return file is not None and not file.closed and file.isatty()


def _has_extra() -> bool:
    return all(find_spec(name) is not None for name in ("rich", "prompt_toolkit"))


# Imported by name: rich and prompt_toolkit are in the extra `demo`, and take a while to load.


def _open_screen(*, fancy: bool) -> AbstractAsyncContextManager[Screen]:
    if fancy:
        opened: AbstractAsyncContextManager[Screen] = import_module("agentloop.terminal._fancy").open_fancy()
        return opened
    return _open_plain()


@asynccontextmanager
async def _open_plain() -> AsyncGenerator[Screen]:
    yield Plain(sys.stdout)


def _lines(*, edited: bool) -> Lines:
    if edited:
        lines: Lines = import_module("agentloop.terminal._editing").EditedLines()
        return lines
    return PlainLines(sys.stdin, sys.stdout)
