"""The model asks the user."""

from __future__ import annotations

import pytest

from agentloop.events import ElicitationRequested
from agentloop.questions import Accept, Answer, Cancel, Decline
from agentloop.toolkit import ask_user
from tests.runtime.builders import answering, asked, results
from tests.toolkit.builders import call, watch_call


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (Accept({"answer": "42"}), "The user answered: 42"),
        (Accept({"answer": ""}), "The user answered with an empty text."),
        (Decline(), "The user declined to answer."),
        (Decline("too private"), "The user declined to answer: too private"),
        (Cancel(), "The user closed the question without an answer."),
    ],
)
async def test_the_model_is_told_what_became_of_its_question(answer: Answer, text: str) -> None:
    watched = await watch_call(ask_user(), {"question": "How much?"}, on_event=answering(answer))

    [question] = asked(watched.events)
    assert isinstance(question, ElicitationRequested)
    assert question.message == "How much?"
    assert [(result.status, result.text) for result in results(watched)] == [("ok", text)]


async def test_choices_are_a_form_with_choices() -> None:
    arguments = {"question": "Which?", "choices": ["red", "blue"]}

    watched = await watch_call(ask_user(), arguments, on_event=answering(Accept({"answer": "blue"})))

    [question] = asked(watched.events)
    assert isinstance(question, ElicitationRequested)
    assert question.form["properties"]["answer"]["enum"] == ["red", "blue"]
    assert results(watched)[0].text == "The user answered: blue"


@pytest.mark.parametrize(
    "arguments", [{"question": " "}, {"question": "x", "choices": ["a", "a"]}, {"question": "x", "choices": ["a", ""]}]
)
async def test_a_question_that_makes_no_sense_is_not_asked(arguments: dict[str, object]) -> None:
    result = await call(ask_user(), **arguments)

    assert result.status == "error"


async def test_where_there_is_nobody_the_model_is_told_so() -> None:
    watched = await watch_call(ask_user(name="ask"), {"question": "x?"}, on_question="decline")

    assert results(watched)[0].text.startswith("The user declined to answer: ")
