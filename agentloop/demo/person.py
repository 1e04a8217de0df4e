"""Who answers the questions of a stream: a person at the terminal, or nobody."""

from __future__ import annotations

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

    async def answer(self, question: Question, problem: str = "") -> Answer:
        """The answer to ``question``. ``problem`` says what was wrong with the one before, if there was one."""
        ...


class Nobody:
    """Says yes to everything, and fills in forms with their defaults."""

    async def answer(self, question: Question, problem: str = "") -> Answer:
        """The answer that the question itself suggests."""
        await trio.lowlevel.checkpoint()
        if not problem:
            return default_answer(question)
        return Decline(problem) if isinstance(question, ElicitationRequested) else Deny(problem)


class Typist:
    """A person who types. An empty line is the default; the end of the input (Ctrl-D) dismisses the question."""

    def __init__(self, read_line: ReadLine, screen: Screen) -> None:
        self._read_line = read_line
        self._screen = screen
        self._filled: tuple[str, dict[str, Any]] = ("", {})
        """The form that was filled in last, and how: if there was something wrong with it, it is the default."""

    async def answer(self, question: Question, problem: str = "") -> Answer:
        """The answer that is typed."""
        with self._screen.paused():
            if problem:
                self._screen.note(f"  {problem}")
            if isinstance(question, ElicitationRequested):
                return await self._fill_in(question)
            return await self._judge(question)

    async def _fill_in(self, question: ElicitationRequested) -> Answer:
        id, before = self._filled
        fields = fields_of(question.form, before if id == question.id else None)
        if not fields:
            return await self._judge(question)
        content: dict[str, Any] = {}
        await trio.lowlevel.checkpoint()
        for field in fields:
            try:
                value = await self._value_of(field)
            except EOFError:
                return Cancel()
            if value is not None:
                content[field.name] = value
        self._filled = (question.id, content)
        return Accept(content)

    async def _value_of(self, field: Field) -> Any:
        while True:
            typed = await self._read_line(f"  {field.prompt}")
            if typed is None:
                raise EOFError
            try:
                return field.parse(typed)
            except ValueError as error:
                self._screen.note(f"  Please: {error}")

    async def _judge(self, question: Question) -> Answer:
        choices = "[Y/n/always]" if isinstance(question, ApprovalRequested) else "[Y/n]"
        while True:
            typed = await self._read_line(f"  {choices} ")
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
