"""A person who types, and one who does not."""

from __future__ import annotations

import io
from typing import Any

import trio

from agentloop.demo.person import Nobody, Typist
from agentloop.demo.plain import Plain
from agentloop.events import Question
from agentloop.questions import Accept, Answer, Approve, Cancel, Decline, Deny
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
        self.person = Typist(self._read_line, Plain(self.out))

    async def _read_line(self, prompt: str) -> str | None:
        await trio.lowlevel.checkpoint()
        self.prompts.append(prompt.strip())
        return self._lines.pop(0) if self._lines else None

    async def answer(self, question: Question, problem: str = "") -> Answer:
        return await self.person.answer(question, problem)


async def test_a_form_is_filled_in_field_by_field() -> None:
    typed = Typed("", "3")

    assert await typed.answer(elicitation(FORM)) == Accept({"name": "Ann", "seats": 3})
    assert typed.prompts == ["name [Ann]:", "seats (a whole number):"]


async def test_a_field_is_asked_for_again_until_it_is_right() -> None:
    typed = Typed("Bob", "many", "", "2")

    assert await typed.answer(elicitation(FORM)) == Accept({"name": "Bob", "seats": 2})
    assert typed.out.getvalue() == "  Please: a whole number, not 'many'\n  Please: this one is needed\n"


async def test_the_second_time_what_was_typed_before_is_the_default() -> None:
    typed = Typed("Bob", "99", "", "4")
    await typed.answer(elicitation(FORM))

    assert await typed.answer(elicitation(FORM), "`seats`: at most 8") == Accept({"name": "Bob", "seats": 4})
    assert typed.prompts[2:] == ["name [Bob]:", "seats (a whole number) [99]:"]
    assert typed.out.getvalue() == "  `seats`: at most 8\n"


async def test_the_end_of_the_input_dismisses_a_form() -> None:
    assert await Typed("Bob").answer(elicitation(FORM)) == Cancel()


async def test_a_form_without_fields_is_yes_or_no() -> None:
    assert await Typed("y").answer(elicitation()) == Accept()
    assert await Typed("no thanks").answer(elicitation()) == Decline("thanks")
    assert await Typed().answer(elicitation()) == Cancel()


async def test_a_call_is_approved_denied_or_approved_for_good() -> None:
    assert await Typed("").answer(approval()) == Approve()
    assert await Typed("always").answer(approval()) == Approve(always=True)
    assert await Typed("perhaps", "n because").answer(approval()) == Deny("because")


async def test_the_end_of_the_input_approves_nothing() -> None:
    assert await Typed().answer(approval()) == Deny()


async def test_nobody_says_yes_until_that_is_refused() -> None:
    assert await Nobody().answer(elicitation({"n": {"type": "integer", "default": 1}})) == Accept({"n": 1})
    assert await Nobody().answer(elicitation(FORM), "no") == Decline("no")
    assert await Nobody().answer(approval(), "no") == Deny("no")
