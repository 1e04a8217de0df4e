"""The agents that `python -m agentloop serve agentloop.demo:agents` serves, without a server."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

import pytest
import trio

from agentloop import Accept, Approve, Decline, Deny, Session
from agentloop.demo import agents, served
from agentloop.events import ApprovalRequested, ElicitationRequested, Question
from agentloop.questions import Answer
from agentloop.testing import forbid_network_models


async def talk(name: str, *prompts: str, answers: Mapping[type[Question], Answer] | None = None) -> str:
    """The last answer of an agent of the demo, to one prompt after another."""
    session, said = Session(), ""
    with forbid_network_models():
        for prompt in prompts:
            async with agents[name].stream(prompt, session=session) as stream:
                async for event in stream:
                    if isinstance(event, ElicitationRequested | ApprovalRequested):
                        stream.answer(event.id, (answers or {})[type(event)])
            said = str(stream.result.output)
    return said


@pytest.mark.seconds(60)
async def test_the_guide_says_what_there_is_to_try_and_each_thing_works() -> None:
    welcome = await talk("guide", "hello")
    assert all(f"**{word}**" in welcome for word in ("count", "story", "secretary", "editor"))
    assert "```python" in await talk("guide", "hello", "tell me a story")
    assert "countdown" in await talk("guide", "count")


@pytest.mark.seconds(60)
async def test_the_guide_reads_a_message_that_comes_while_it_counts() -> None:
    async with agents["guide"].stream("count") as stream:
        async for event in stream:
            if type(event).__name__ == "ToolCallStarted":
                stream.steer("How is it going?")
    assert "How is it going?" in str(stream.result.output)


@pytest.mark.real_clock
@pytest.mark.parametrize("words", [{"is_formal": True, "seats": 1, "dishes": []}, {"dishes": ["Cake"]}])
async def test_the_secretary_writes_what_the_form_says_and_saves_it_if_a_person_approves(
    words: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "WORD_SECONDS", 0)
    form = Accept({"guest": "Ada", "day": date(2026, 12, 24).isoformat(), **words})
    said = await talk("secretary", "hello", answers={ElicitationRequested: form, ApprovalRequested: Approve()})
    path = trio.Path(said.partition("`")[2].partition("`")[0])
    try:
        text = await path.read_text(encoding="utf-8")
    finally:
        await path.unlink()  # noqa: ASYNC102
    assert path.name.startswith("invitation-for-ada-")
    assert "Thursday, 24 December" in text
    assert ("Dear Ada" in text) == words.get("is_formal", False)
    assert ("cake" in text) == ("Cake" in words["dishes"])


async def test_the_secretary_saves_nothing_without_a_form_or_an_approval() -> None:
    assert "no invitation" in await talk("secretary", "hello", answers={ElicitationRequested: Decline()})
    form = Accept({"guest": "Ada", "day": "2026-12-24"})
    said = await talk("secretary", "hello", answers={ElicitationRequested: form, ApprovalRequested: Deny("not now")})
    assert "saved nothing" in said


async def test_the_editor_has_two_others_read_the_text() -> None:
    said = await talk(
        "editor", "It was a bright cold day in April, and the clocks were striking thirteen. Nobody wondered."
    )
    assert "16 words in 2 sentences" in said
    assert "> It was a bright cold day" in said
    assert "too long" in await talk("editor", "Read something.")
