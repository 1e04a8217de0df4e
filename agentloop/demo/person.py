"""Who answers the questions of a stream: a person at the terminal, or nobody."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any, Protocol

import trio

from agentloop.demo.replies import Field, default_answer, fields_of, verdict
from agentloop.demo.screen import Screen
from agentloop.demo.terminal import ReadLine
from agentloop.events import ApprovalRequested, ElicitationRequested, Question
from agentloop.questions import Accept, Answer, Approve, Cancel, Decline, Deny

__all__ = ["Nobody", "Person", "Typist"]


class Person(Protocol):
    """Answers questions."""

    async def answer(self, question: Question, problem: str = "", *, may_wait: bool = False) -> Answer | None:
        """The answer to ``question``; ``None`` to answer it another day.

        Args:
          problem: what was wrong with the answer before, if there was one.
          may_wait: whether it can be kept for another day.
        """
        ...


class Nobody:
    """Says yes to everything, and fills in forms with their defaults."""

    async def answer(self, question: Question, problem: str = "", *, may_wait: bool = False) -> Answer | None:
        """The answer that the question itself suggests."""
        await trio.lowlevel.checkpoint()
        if not problem:
            return default_answer(question)
        return Decline(problem) if isinstance(question, ElicitationRequested) else Deny(problem)


class _LaterError(Exception):
    """The question is to be answered another day."""


class Typist:
    """A person who types. An empty line is the default; the end of the input (Ctrl-D) dismisses the question.

    What can be kept for another day is, by ``later``; in a form, where that may be what one wants to say, ``/later``.

    Args:
      is_gone: whether the input has ended since there is no terminal any more: then nobody has said no, and it is an
        ``OSError``.
    """

    def __init__(self, read_line: ReadLine, screen: Screen, *, is_gone: Callable[[], bool] = lambda: False) -> None:
        self._type_line = read_line
        self._is_gone = is_gone
        self._screen = screen
        self._filled: tuple[str, dict[str, Any]] = ("", {})
        """The form that was filled in last, and how: if there was something wrong with it, it is the default."""
        self._knows_later = False

    async def answer(self, question: Question, problem: str = "", *, may_wait: bool = False) -> Answer | None:
        """The answer that is typed."""
        with self._screen.paused():
            if problem:
                self._screen.note(f"  {problem}")
            try:
                if isinstance(question, ElicitationRequested):
                    return await self._fill_in(question, may_wait=may_wait)
                return await self._judge(question, may_wait=may_wait)
            except _LaterError:
                return None  # noqa: ASYNC910 - somebody has typed

    async def _fill_in(self, question: ElicitationRequested, *, may_wait: bool) -> Answer:
        id, before = self._filled
        fields = fields_of(question.form, before if id == question.id else None)
        if not fields:
            return await self._judge(question, may_wait=may_wait)
        content: dict[str, Any] = {}
        await trio.lowlevel.checkpoint()
        if may_wait and not self._knows_later:
            self._knows_later = True
            self._screen.note("  (/later leaves it for another day)")
        for field in fields:
            try:
                value = await self._value_of(field, may_wait=may_wait)
            except EOFError:
                return Cancel()
            if value is not None:
                content[field.name] = value
        self._filled = (question.id, content)
        return Accept(content)

    async def _value_of(self, field: Field, *, may_wait: bool) -> Any:
        while True:
            typed = await self._read_line(f"  {field.prompt}")
            if typed is None:
                raise EOFError
            if may_wait and typed.strip().lower() == "/later":
                raise _LaterError
            try:
                return field.parse(typed)
            except ValueError as error:
                self._screen.note(f"  Please: {error}")

    async def _judge(self, question: Question, *, may_wait: bool) -> Answer:
        always = "/always" if isinstance(question, ApprovalRequested) else ""
        choices = f"[Y/n{always}{'/later' if may_wait else ''}]"
        while True:
            typed = await self._read_line(f"  {choices} ")
            if may_wait and typed is not None and typed.strip().lower() in ("l", "later", "/later"):
                raise _LaterError
            try:
                judged = verdict("no" if typed is None else typed)
            except ValueError as error:
                self._screen.note(f"  Please: {error}")
                continue
            if not isinstance(question, ElicitationRequested):
                return judged
            if typed is None:
                return Cancel()
            return Accept() if isinstance(judged, Approve) else Decline(judged.reason)

    async def _read_line(self, prompt: str) -> str | None:
        typed = await self._type_line(prompt)
        if typed is None and self._is_gone():
            raise OSError(errno.EIO, "the terminal is gone")
        return typed
