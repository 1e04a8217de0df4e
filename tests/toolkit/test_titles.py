"""Titles of sessions that a model makes."""

from __future__ import annotations

import pytest
import trio

from agentloop import Agent, Session, UsageError
from agentloop.errors import AgentLoopError
from agentloop.testing import ScriptedModel, hangs
from agentloop.toolkit import title_of


async def talked() -> Session:
    session = Session()
    await Agent(ScriptedModel("It rains in Bern.")).run("  How is the weather?\nIn Bern.", session=session)
    return session


@pytest.mark.parametrize(
    ("answer", "title"),
    [
        ("Weather in Bern", "Weather in Bern"),
        ('# Title: "Weather in Bern."\nHope that helps!', "Weather in Bern"),
        ("\n**Weather**\u202e in Bern\x1b", "Weather in Bern"),
        ("word " * 100, "word word word wo ..."),
        ("***", "How is the weather?"),
    ],
)
async def test_the_title_is_one_short_line_of_what_the_model_answered(answer: str, title: str) -> None:
    session = await talked()
    model = ScriptedModel(answer)

    assert await title_of(session, model, longest=21) == title
    assert len(session.messages) == 2
    [request] = model.requests
    assert "user:   How is the weather?\nIn Bern.\nassistant: It rains in Bern." in request.messages[0].text


async def test_a_model_that_hangs_or_a_session_without_a_word_is_an_error() -> None:
    session = await talked()
    began = trio.current_time()
    with pytest.raises(AgentLoopError):
        await title_of(session, ScriptedModel(hangs()), seconds=5)
    assert trio.current_time() - began == pytest.approx(5)
    with pytest.raises(UsageError, match="nobody has said anything"):
        await title_of(Session(), ScriptedModel("x"))
