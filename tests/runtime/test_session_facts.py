"""An opened session knows what it has used, what is left of its window, and how it can go on."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from agentloop import Agent, Approve, Compaction, Limits, Session, UsageError, hooks, tool
from agentloop.errors import LimitReachedError, ModelConnectionError, SessionBusyError, StreamStateError
from agentloop.events import StreamStarted, ToolCallStarted
from agentloop.messages import UserMessage
from agentloop.models import ModelChoice
from agentloop.outcome import Cost
from agentloop.session import live_sessions
from agentloop.stores import MemoryStore, fork_session, stored_session
from agentloop.testing import ScriptedModel, calls, fails, hangs
from tests.support import nested


@tool
async def look() -> str:
    await trio.sleep(1)
    return "seen"


@tool(requires_approval=True)
async def pay() -> str:
    return "paid"


def looking(*rest: Any, **options: Any) -> Agent[Any, Any]:
    return Agent(ScriptedModel(calls("look"), *rest), tools=[look], **options)


# ------------------------------------------------------------------------------- usage


async def test_a_session_has_used_what_all_of_its_runs_and_their_children_have() -> None:
    session = Session()
    outcomes = [await nested(looking("Done."), 1).run("go", session=session) for _ in range(2)]

    used = await session.usage()

    assert used == outcomes[0].usage + outcomes[1].usage
    assert used.requests == 8
    assert Cost.of(used) == Cost(0.0, "", (), used.is_cost_known)


async def test_the_run_that_goes_on_counts() -> None:
    session = Session()
    async with looking(hangs()).stream("go", session=session) as stream:
        async for event in stream:
            if isinstance(event, ToolCallStarted):
                break
        assert (await session.usage()).requests == 1
    assert (await session.usage()).requests >= 1
    assert await session.usage() == stream.outcome.usage


async def test_a_stored_session_knows_what_earlier_processes_have_used() -> None:
    agent = Agent(ScriptedModel(calls("pay"), "Done.", repeat=True), tools=[pay])
    async with MemoryStore().open() as store:
        async with stored_session(store, "s") as session:
            parked = await agent.run("go", session=session, on_question="park")
            assert (await session.usage()).requests == 1
        async with stored_session(store, "s") as session:
            resumed = await agent.resume(session, {parked.questions[0].id: Approve()})
            # The outcome of a resumed run counts what it resumes.
            assert resumed.usage.requests == 2
            assert await session.usage() == resumed.usage
            again = await agent.run("go", session=session, on_question=lambda question: Approve())
            assert await session.usage() == resumed.usage + again.usage
        fork = await fork_session(store, "s")
        async with stored_session(store, fork) as session:
            assert await session.usage() == resumed.usage + again.usage


# ------------------------------------------------------------------------------ window


async def test_the_window_of_the_next_request_and_what_is_left_of_it_are_known() -> None:
    session = Session()
    agent = Agent(ScriptedModel("Done.", name="openai:gpt-4o"), compaction=Compaction(window=1000))
    await agent.run("go", session=session)

    use = session.context(agent)
    assert use.window == 1000
    assert use.left == 1000 - use.tokens
    assert session.context().window is None
    assert session.context().left is None
    by_name = session.context(agent.replace(compaction=None)).window
    assert by_name == 128_000
    session.choice = ModelChoice(model="openai:gpt-5")
    assert session.context(agent.replace(compaction=None)).window != by_name
    assert session.context(Agent(ScriptedModel(name="nobody:knows"))).window is not None
    session.choice = None
    assert session.context(Agent(ScriptedModel(name="nobody:knows"))).window is None


# ------------------------------------------------------------------ going on without a prompt


async def test_a_run_that_ended_at_a_limit_goes_on_without_a_prompt() -> None:
    session = Session()
    model = ScriptedModel(calls("look"), "Done.")
    agent = Agent(model, tools=[look], limits=Limits(turns=1))
    with pytest.raises(LimitReachedError):
        await agent.run("go", session=session)

    assert session.may_continue
    async with agent.stream(None, session=session) as stream:
        events = [event async for event in stream]

    assert isinstance(events[0], StreamStarted)
    assert events[0].continues
    assert events[0].message == UserMessage(())
    assert stream.outcome.output == "Done."
    assert [message for message in session.messages if isinstance(message, UserMessage)] == [session.messages[0]]
    assert not session.may_continue


async def test_a_request_that_failed_is_made_again_without_a_prompt() -> None:
    session = Session()
    error = ModelConnectionError("gone")
    with pytest.raises(ModelConnectionError):
        await Agent(ScriptedModel(fails(error))).run("go", session=session)

    assert session.may_continue
    assert (await Agent(ScriptedModel("Done.")).run(None, session=session)).output == "Done."


async def test_a_session_with_nothing_to_answer_needs_a_prompt() -> None:
    agent = Agent(ScriptedModel("Done."))
    session = Session()
    assert not session.may_continue
    for given in (None, session):
        with pytest.raises(UsageError, match="give a prompt"):
            await agent.run(None, session=given)
    await agent.run("go", session=session)
    with pytest.raises(UsageError, match="give a prompt"):
        await agent.run(None, session=session)


async def test_a_session_with_an_unfinished_run_is_resumed_and_goes_on_not_without() -> None:
    agent = Agent(ScriptedModel(calls("pay"), "Done."), tools=[pay])
    async with MemoryStore().open() as store, stored_session(store) as session:
        await agent.run("go", session=session, on_question="park")
        assert not session.may_continue
        with pytest.raises(UsageError, match="unfinished run"):
            await agent.run(None, session=session)


async def test_a_run_without_a_prompt_is_parked_and_resumed_as_any_other() -> None:
    limited = Agent(ScriptedModel(calls("look")), tools=[look], limits=Limits(turns=1))
    agent = Agent(ScriptedModel(calls("pay"), "Done."), tools=[pay, look])
    async with MemoryStore().open() as store:
        async with stored_session(store, "s") as session:
            with pytest.raises(LimitReachedError):
                await limited.run("go", session=session)
        async with stored_session(store, "s") as session:
            assert session.may_continue
            parked = await agent.run(None, session=session, on_question="park")
        async with stored_session(store, "s") as session:
            assert session.is_resumable
            outcome = await agent.resume(session, {parked.questions[0].id: Approve()})
        assert outcome.output == "Done."
        assert sum(isinstance(message, UserMessage) for message in session.messages) == 1


# ---------------------------------------------------------------------------- steering


async def test_a_message_between_two_runs_is_read_by_the_next_one() -> None:
    session, model = Session(), ScriptedModel("A.", "B.")
    agent = Agent(model)
    await agent.run("go", session=session)
    session.steer("Be brief.")
    await agent.run("And now?", session=session)

    texts = [message.text for message in model.requests[1].messages if isinstance(message, UserMessage)]
    assert texts == ["go", "And now?", "Be brief."]


async def test_a_message_to_a_session_whose_run_is_live_steers_that_run() -> None:
    session, model = Session(), ScriptedModel(calls("look"), "Done.")
    async with Agent(model, tools=[look]).stream("go", session=session) as stream:
        async for event in stream:
            if isinstance(event, ToolCallStarted):
                session.steer("Look harder.")
    last = model.requests[1].messages[-1]
    assert (type(last), last.text) == (UserMessage, "Look harder.")
    assert stream.outcome.undelivered == ()


async def test_a_message_to_a_session_whose_run_is_ending_waits_for_the_next_one() -> None:
    @hooks.session_end
    async def late(ending: hooks.SessionEnd) -> None:
        if not said:
            said.append(ending.reason)
            session.steer("One more thing.")

    said: list[str] = []
    session, model = Session(), ScriptedModel("A.", "B.")
    agent = Agent(model, hooks=[late])
    outcome = await agent.run("go", session=session)
    await agent.run("And now?", session=session)

    assert outcome.undelivered == ()
    assert model.requests[1].messages[-1].text == "One more thing."


async def test_a_session_takes_so_many_messages_and_no_empty_one() -> None:
    session = Session()
    for _ in range(20):
        session.steer("more")
    with pytest.raises(StreamStateError, match="20 steering messages"):
        session.steer("more")
    with pytest.raises(UsageError, match="empty"):
        session.steer(" ")


# --------------------------------------------------------------------------------- live


async def test_live_sessions_are_listed_with_their_runs() -> None:
    assert live_sessions() == ()
    first, second = Session("first"), Session("second")
    async with looking(hangs(), name="one").stream("go", session=first) as stream:
        async with Agent(ScriptedModel(calls("pay"), "Done."), tools=[pay], name="two").stream(
            "go", session=second
        ) as other:
            await trio.sleep(5)
            stream.pause()
            listed = live_sessions()
            assert [(session.id, session.agent, session.turn) for session in listed] == [
                ("first", "one", 2),
                ("second", "two", 1),
            ]
            assert [(session.questions, session.is_paused) for session in listed] == [(0, True), (1, False)]
            assert [session.stream for session in listed] == [stream.id, other.id]
            assert listed[0].usage.requests == 1
        assert [session.id for session in live_sessions()] == ["first"]
        with pytest.raises(SessionBusyError):
            await looking().run("go", session=first)
        assert [session.id for session in live_sessions()] == ["first"]
    assert live_sessions() == ()
