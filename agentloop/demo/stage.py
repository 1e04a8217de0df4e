"""The stage of an example: its screen, its person, its pace."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import TextIO

from attrs import Factory, define, frozen

from agentloop.demo.person import Nobody, Person, Typist
from agentloop.demo.plain import Plain
from agentloop.demo.screen import Screen
from agentloop.demo.terminal import ReadLine, is_gone, plain_lines

__all__ = ["Door", "Stage", "is_terminal", "open_stage"]

PACE = 0.03
"""Seconds per word. A model that needs no network is done before anybody has seen it speak."""


@define
class Door:
    """The way out, for a program that is interrupted."""

    park: Callable[[], None] | None = None
    """Parks the question that the person is thinking about, if it can be left for another day."""
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
      yes: ask no questions; take the defaults.
      paced: no faster than a person reads, if a person watches.
      door: the way out of the program.
    """
    watched = is_terminal(sys.stdout)
    fancy = watched and not plain and os.environ.get("TERM") != "dumb" and _has_extra()
    async with _open_screen(fancy=fancy) as screen:
        person: Person = Nobody()
        read_line: ReadLine | None = None
        if watched and is_terminal(sys.stdin) and not yes:
            read_line = _lines(edited=fancy)
            person = Typist(read_line, screen, is_gone=partial(is_gone, sys.stdin))
        yield Stage(screen, person, PACE if paced and watched else 0.0, read_line, door or Door())


def is_terminal(file: TextIO | None) -> bool:
    """Whether ``file`` is a terminal; it is ``None`` if it was closed from the start."""
    return file is not None and not file.closed and file.isatty()


def _has_extra() -> bool:
    return all(find_spec(name) is not None for name in ("rich", "prompt_toolkit"))


# Imported by name: rich and prompt_toolkit are in the extra `demo`, and take a while to load.


def _open_screen(*, fancy: bool) -> AbstractAsyncContextManager[Screen]:
    if fancy:
        opened: AbstractAsyncContextManager[Screen] = import_module("agentloop.demo.fancy").open_fancy()
        return opened
    return _open_plain()


@asynccontextmanager
async def _open_plain() -> AsyncGenerator[Screen]:
    yield Plain(sys.stdout)


def _lines(*, edited: bool) -> ReadLine:
    if edited:
        lines: ReadLine = import_module("agentloop.demo.editing").edited_lines()
        return lines
    return plain_lines(sys.stdin, sys.stdout)
