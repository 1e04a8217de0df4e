"""Sessions over every store: what they rely on is there in each, also where two programs have the place open."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from agentloop import Accept, Agent, Approve, ToolContext, tool
from agentloop._core.transcript import problems
from agentloop.errors import SessionLeasedError, UnknownQuestionError
from agentloop.events import ApprovalRequested, StreamEvent, StreamStopped
from agentloop.questions import Answer
from agentloop.stores import (
    MemoryStore,
    answer_question,
    export_session,
    follow_session,
    fork_session,
    import_session,
    stored_session,
)
from agentloop.testing import ScriptedModel, calls
from tests.stores.places import Place

pytestmark = [pytest.mark.real_clock, pytest.mark.seconds(30)]

FORM = {"type": "object", "properties": {"tag": {"type": "string"}}}


@tool(requires_approval=True)
async def pay(amount: int) -> str:
    """Pay."""
    return f"paid {amount}"


@tool
async def ask(context: ToolContext[None]) -> str:
    """Ask."""
    answer = await context.ask("Which?", FORM)
    assert isinstance(answer, Accept)
    return str(answer.content["tag"])


def agent(*, began: bool) -> Agent:
    """One whose models say what there is to say, before or after it was parked."""
    inner = Agent(ScriptedModel(*(["Inner."] if began else [calls("ask")])), name="inner", tools=[ask])
    first = calls("pay", amount=3) + calls("inner", prompt="go")
    return Agent(ScriptedModel(*(["Done."] if began else [first])), tools=[pay, inner.as_tool()])


def answer_to(question: object) -> Answer:
    return Approve() if isinstance(question, ApprovalRequested) else Accept({"tag": "näïve 😀"})


async def test_it_is_parked_followed_answered_and_resumed_by_different_programs(place: Place) -> None:
    followed: list[StreamEvent] = []

    async def follow() -> None:
        async with place.store_on_real_time().open() as store:
            followed.extend([event async for event in follow_session(store, "ann")])

    async with place.store_on_real_time().open() as one, place.store_on_real_time().open() as other:
        async with stored_session(one, "ann") as session:
            parked = await agent(began=False).run("Go.", session=session, on_question="park")
            with pytest.raises(SessionLeasedError):
                await answer_question(other, "ann", parked.questions[0].id, Approve())
        first, *rest = parked.questions
        await answer_question(other, "ann", first.id, answer_to(first))
        with pytest.raises(UnknownQuestionError):
            await answer_question(one, "ann", first.id, answer_to(first))
        async with stored_session(other, "ann") as session, trio.open_nursery() as nursery:
            assert [question.id for question in session.questions] == [question.id for question in rest]
            nursery.start_soon(follow)
            answers = {question.id: answer_to(question) for question in rest}
            async with agent(began=True).resume_stream(session, answers) as stream:
                read = [event async for event in stream]
            assert stream.outcome.output == "Done."
            assert [message.text for message in session.messages[2:4]] == ["paid 3", "Inner."]
    await follow()
    assert isinstance(read[-1], StreamStopped)
    assert followed[-1] == read[-1]


async def test_a_fork_of_a_parked_session_is_resumed_by_itself(place: Place) -> None:
    async with place.store_on_real_time().open() as store:
        async with stored_session(store, "ann") as session:
            await agent(began=False).run("Go.", session=session, on_question="park")
        fork = await fork_session(store, "ann")
        for id in (fork, "ann"):
            async with stored_session(store, id) as session:
                answers = {question.id: answer_to(question) for question in session.questions}
                outcome = await agent(began=True).resume(session, answers)
                assert outcome.output == "Done."
                assert problems(session.messages) == []


async def test_a_session_that_was_exported_and_imported_elsewhere_is_resumed(place: Place, tmp_path: Path) -> None:
    async with place.store_on_real_time().open() as store:
        async with stored_session(store, "ann") as session:
            await agent(began=False).run("Go.", session=session, on_question="park")
        await export_session(store, "ann", tmp_path / "ann.jsonl")
    async with MemoryStore().open() as elsewhere:
        await import_session(elsewhere, tmp_path / "ann.jsonl", session="bob")
        async with stored_session(elsewhere, "bob") as session:
            answers = {question.id: answer_to(question) for question in session.questions}
            outcome = await agent(began=True).resume(session, answers)
            assert outcome.output == "Done."


async def test_a_session_is_rewound_for_good(place: Place) -> None:
    async with place.store_on_real_time().open() as store:
        async with stored_session(store, "ann") as session:
            for word in ("one", "two", "three"):
                await Agent(ScriptedModel(word)).run(f"{word}?", session=session)
            await session.rewind(2)
            await Agent(ScriptedModel("four")).run("four?", session=session)
        async with stored_session(store, "ann") as session:
            assert [message.text for message in session.messages] == ["one?", "one", "four?", "four"]
        assert [info.id for info in await store.sessions(search="three")] == ["ann"]
