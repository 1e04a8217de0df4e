"""A person who types, and one who does not."""

from __future__ import annotations

import io
from typing import Any

import pytest
import trio

from agentloop.events import Question
from agentloop.questions import Accept, Answer, Approve, Cancel, Decline, Deny
from agentloop.terminal._person import Agreeable, Nobody, Typist
from agentloop.terminal._plain import Plain
from tests.demo.builders import approval, elicitation

FORM: dict[str, Any] = {
    "name": {"type": "string", "default": "Ann"},
    "seats": {"type": "integer"},
}


class Typed:
    """What somebody types, line by line; then the input ends."""

    def __init__(self, *lines: str) -> None:
        self._lines = list(lines)
        self.prompts: list[str] = []
        self.out = io.StringIO()
        self.is_gone = False
        self.person = Typist(self._read_line, Plain(self.out), is_gone=lambda: self.is_gone)

    async def _read_line(self, prompt: str) -> str | None:
        await trio.lowlevel.checkpoint()
        self.prompts.append(prompt.strip())
        return self._lines.pop(0) if self._lines else None

    async def answer(self, question: Question, problem: str = "", *, may_wait: bool = False) -> Answer | None:
        return await self.person.answer(question, problem, may_wait=may_wait)


async def test_a_form_is_filled_in_field_by_field() -> None:
    typed = Typed("", "3")

    assert await typed.answer(elicitation(FORM)) == Accept({"name": "Ann", "seats": 3})
    assert typed.prompts == ["name [Ann]:", "seats (a whole number):"]


async def test_a_field_is_asked_for_again_until_it_is_right() -> None:
    typed = Typed("Bob", "many", "", "2")

    assert await typed.answer(elicitation(FORM)) == Accept({"name": "Bob", "seats": 2})
    assert typed.out.getvalue() == "  Please: a whole number, not 'many'\n  Please: this one is needed\n"


async def test_only_the_fields_that_were_wrong_are_asked_for_again() -> None:
    typed = Typed("Bob", "99", "4")
    await typed.answer(elicitation(FORM))

    assert await typed.answer(elicitation(FORM), "`seats`: at most 8") == Accept({"name": "Bob", "seats": 4})
    assert typed.prompts[2:] == ["seats (a whole number) [99]:"]
    assert typed.out.getvalue() == "  `seats`: at most 8\n"


async def test_a_form_is_asked_for_again_as_a_whole_if_the_problem_names_no_field() -> None:
    typed = Typed("Bob", "9", "", "4")
    await typed.answer(elicitation(FORM))

    assert await typed.answer(elicitation(FORM), "not today") == Accept({"name": "Bob", "seats": 4})
    assert typed.prompts[2:] == ["name [Bob]:", "seats (a whole number) [9]:"]


async def test_the_end_of_the_input_dismisses_a_form() -> None:
    assert await Typed("Bob").answer(elicitation(FORM)) == Cancel()


async def test_a_form_without_fields_is_yes_or_no() -> None:
    assert await Typed("y").answer(elicitation()) == Accept()
    assert await Typed("no thanks").answer(elicitation()) == Decline("thanks")
    assert await Typed().answer(elicitation()) == Cancel()


async def test_a_call_is_approved_denied_or_approved_for_good() -> None:
    assert await Typed("y").answer(approval()) == Approve()
    assert await Typed("").answer(approval()) == Deny()
    assert await Typed("n").answer(approval()) == Deny()
    assert await Typed("always").answer(approval()) == Approve(always=True)
    assert await Typed("perhaps", "n because").answer(approval()) == Deny("because")


async def test_the_end_of_the_input_approves_nothing() -> None:
    assert await Typed().answer(approval()) == Deny()


async def test_with_yes_every_answer_is_yes_until_that_is_refused() -> None:
    assert await Agreeable().answer(elicitation({"n": {"type": "integer", "default": 1}})) == Accept({"n": 1})
    assert await Agreeable().answer(elicitation(FORM), "no") == Decline("no")
    assert await Agreeable().answer(approval(), "no") == Deny("no")


async def test_nobody_approves_nothing() -> None:
    assert await Nobody().answer(approval()) == Deny("There is no terminal to ask at.")
    assert await Nobody().answer(elicitation()) == Decline("There is no terminal to ask at.")


async def test_what_may_wait_is_left_for_another_day() -> None:
    typed = Typed("later")

    assert await typed.answer(approval(), may_wait=True) is None
    assert typed.prompts == ["[y/N/always/later]"]
    assert await Typed("l").answer(elicitation(), may_wait=True) is None
    assert await Typed("Bob", "/later").answer(elicitation(FORM), may_wait=True) is None


async def test_what_may_not_wait_is_asked_again() -> None:
    typed = Typed("later", "n")

    assert await typed.answer(approval()) == Deny()
    assert "there is no later" in typed.out.getvalue()


async def test_a_form_takes_the_word_later_as_a_word() -> None:
    assert await Typed("later", "3").answer(elicitation(FORM), may_wait=True) == Accept({"name": "later", "seats": 3})


async def test_how_to_leave_a_form_for_another_day_is_said_once() -> None:
    typed = Typed("", "3", "", "3")
    for _ in range(2):
        await typed.answer(elicitation(FORM), may_wait=True)

    assert typed.out.getvalue() == "  (/later leaves it for another day)\n"


async def test_a_terminal_that_was_closed_is_no_answer() -> None:
    """Its end of the input looks like that of somebody who says no."""
    typed = Typed()
    for question in (approval(), elicitation(), elicitation(FORM)):
        typed.is_gone = True
        with pytest.raises(OSError, match="the terminal is gone"):
            await typed.answer(question, may_wait=True)
        typed.is_gone = False
        assert await typed.answer(question, may_wait=True) in (Deny(), Cancel())
