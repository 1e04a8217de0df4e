"""The answers to a stream's questions: from a person at the terminal, or by default."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any, Protocol

import trio

from agentloop.events import ApprovalRequested, ElicitationRequested, Question
from agentloop.questions import Accept, Answer, Approve, Cancel, Decline, Deny
from agentloop.terminal._keyboard import ReadLine
from agentloop.terminal._replies import Field, default_answer, fields_of, verdict
from agentloop.terminal._screen import Screen

__all__ = ["Agreeable", "Nobody", "Person", "Typist"]


class Person(Protocol):
    """Answers questions."""

    async def answer(self, question: Question, problem: str = "", *, may_wait: bool = False) -> Answer | None:
        """Ask for the answer to ``question``.

        Args:
          problem: the mistake in the previous answer, if there was one.
          may_wait: whether the question can be left for another day.

        Returns:
          The answer, or ``None`` to answer another day.
        """
        ...


class Agreeable:
    """Says yes to everything, and fills in forms with their defaults: ``--yes``."""

    async def answer(self, question: Question, problem: str = "", *, may_wait: bool = False) -> Answer | None:
        """The answer that the question itself suggests."""
        await trio.lowlevel.checkpoint()
        return default_answer(question) if not problem else _declined(question, problem)


class Nobody:
    """Declines every question, since there is neither a keyboard nor ``--yes``."""

    async def answer(self, question: Question, problem: str = "", *, may_wait: bool = False) -> Answer | None:
        """The answer that approves nothing."""
        await trio.lowlevel.checkpoint()
        return _declined(question, problem or "There is no terminal to ask at.")


def _declined(question: Question, note: str) -> Answer:
    return Decline(note) if isinstance(question, ElicitationRequested) else Deny(note)


class _LaterError(Exception):
    """The question is to be answered another day."""


class Typist:
    """A person at the keyboard.

    In a form, an empty line takes the default; to an approval it is a no. The end of the input (Ctrl-D) dismisses the
    question. ``later`` leaves a question for another day; in a form, where that may be a value, ``/later``.

    Args:
      forget: discards what was typed and not read: it was typed before the question was seen.
      is_gone: whether the input ended because the terminal has closed: then the person has not refused, and reading
        raises ``OSError``.
    """

    def __init__(
        self,
        read_line: ReadLine,
        screen: Screen,
        *,
        forget: Callable[[], None] = lambda: None,
        is_gone: Callable[[], bool] = lambda: False,
    ) -> None:
        self._type_line = read_line
        self._forget = forget
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
            self._forget()
            try:
                if isinstance(question, ElicitationRequested):
                    return await self._fill_in(question, problem, may_wait=may_wait)
                return await self._judge(question, may_wait=may_wait)
            except _LaterError:
                return None  # noqa: ASYNC910 - the person has typed

    async def _fill_in(self, question: ElicitationRequested, problem: str, *, may_wait: bool) -> Answer:
        id, before = self._filled
        is_again = id == question.id
        fields = fields_of(question.form, before if is_again else None)
        if not fields:
            return await self._judge(question, may_wait=may_wait)
        # Only for the fields that were wrong; for all of them, if the problem names none.
        wrong = [field for field in fields if f"`{field.name}`" in problem] if is_again else []
        content: dict[str, Any] = dict(before) if wrong else {}
        fields = wrong or fields
        await trio.lowlevel.checkpoint()
        if may_wait and not self._knows_later:
            self._knows_later = True
            self._screen.note("  (/later leaves it for another day)")
        for field in fields:
            try:
                value = await self._value_of(field, may_wait=may_wait)
            except EOFError:
                return Cancel()
            if value is None:
                content.pop(field.name, None)
            else:
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
        choices = f"[y/N{always}{'/later' if may_wait else ''}]"
        while True:
            typed = await self._read_line(f"  {choices} ")
            if typed is not None and typed.strip().lower() in ("l", "later", "/later"):
                if may_wait:
                    raise _LaterError
                self._screen.note("  Nothing is saved here, so there is no later: yes or no?")
                continue
            try:
                judged = verdict("no" if typed is None or not typed.strip() else typed)
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
