"""`Stream.park`: a reader leaves what is asked to whoever resumes the run."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
import trio

from agentloop import Agent, Approve, Session, ToolContext, tool
from agentloop.errors import UsageError
from agentloop.events import ApprovalRequested, QuestionParked, QuestionWithdrawn
from agentloop.hooks import Notification, notification
from agentloop.journal import OpenStore
from agentloop.stores import MemoryStore, stored_session
from agentloop.testing import Response, ScriptedModel, calls
from tests.support import first


@tool(requires_approval=True)
async def pay(amount: int) -> str:
    """Pay."""
    await trio.lowlevel.checkpoint()
    return f"paid {amount}"


@tool
async def count() -> str:
    """Count."""
    await trio.sleep(5)
    return "counted"


@asynccontextmanager
async def memory() -> AsyncGenerator[OpenStore]:
    async with MemoryStore().open() as store:
        yield store


def payer(*script: Response | str) -> Agent:
    return Agent(ScriptedModel(*script), tools=[pay, count])


BOTH = calls("pay", amount=3) + calls("pay", amount=4)


async def test_a_deferred_question_is_asked_again_by_the_resumed_run() -> None:
    async with memory() as store:
        async with stored_session(store, "ann") as session:
            async with payer(calls("pay", amount=3)).stream("Pay.", session=session) as stream:
                await first(stream, ApprovalRequested)
                stream.park()
                events = [event async for event in stream]
            assert stream.outcome.reason == "needs_input"
            assert [event.id for event in events if isinstance(event, QuestionParked)] == ["ann/1?1"]

        async with stored_session(store, "ann") as session:
            outcome = await payer("Done.").resume(session, {"ann/1?1": Approve()})
            assert outcome.output == "Done."
            assert session.messages[2].text == "paid 3"


async def test_all_that_is_asked_by_then_is_left_and_nothing_is_withdrawn() -> None:
    async with memory() as store, stored_session(store, "ann") as session:
        async with payer(BOTH).stream("Pay.", session=session) as stream:
            await first(stream, ApprovalRequested)
            stream.park()
            events = [event async for event in stream]

        assert sorted(question.id for question in stream.outcome.questions) == ["ann/1?1", "ann/1?2"]
        assert not [event for event in events if isinstance(event, QuestionWithdrawn)]


async def test_calls_that_need_no_person_finish_before_the_run_parks() -> None:
    async with memory() as store, stored_session(store, "ann") as session:
        async with payer(calls("pay", amount=3) + calls("count")).stream("Go.", session=session) as stream:
            await first(stream, ApprovalRequested)
            stream.park()
            await stream.wait()
        assert stream.outcome.reason == "needs_input"

        outcome = await payer("Done.").resume(session, {"ann/1?1": Approve()})
        assert [message.text for message in session.messages[2:]] == ["paid 3", "counted", "Done."]
        assert outcome.usage.requests == 2


async def test_a_question_that_is_asked_afterwards_is_deferred_too() -> None:
    @tool
    async def ask_late(context: ToolContext[None]) -> str:
        """Ask."""
        await trio.sleep(1)
        return str(await context.ask("Well?", {"type": "object", "properties": {}}))

    agent = Agent(ScriptedModel(calls("pay", amount=3) + calls("ask_late")), tools=[pay, ask_late])
    async with memory() as store, stored_session(store, "ann") as session:
        async with agent.stream("Go.", session=session) as stream:
            await first(stream, ApprovalRequested)
            stream.park()
            await stream.wait()

        assert len(stream.outcome.questions) == 2


async def test_an_answer_counts_up_to_the_moment_at_which_the_run_is_parked() -> None:
    async with memory() as store, stored_session(store, "ann") as session:
        async with payer(BOTH, "Done.").stream("Pay.", session=session) as stream:
            await first(stream, ApprovalRequested)
            for question in stream.pending:
                stream.answer(question.id, Approve())
            stream.park()
            await stream.wait()

        assert stream.result.output == "Done."


async def test_two_questions_asked_at_once_are_both_parked_though_a_hook_gets_each_first() -> None:
    """The one that is through first finds that all wait, and ends the run before the other is through."""

    @notification
    async def slowly(told: Notification) -> None:
        await trio.sleep(1 if getattr(told.question, "arguments", {}) == {"amount": 3} else 2)

    agent = Agent(ScriptedModel(BOTH), tools=[pay], hooks=[slowly])
    async with memory() as store, stored_session(store, "ann") as session:
        outcome = await agent.run("Pay.", session=session, on_question="park")

        assert sorted(question.id for question in outcome.questions) == ["ann/1?1", "ann/1?2"]


async def test_only_a_session_with_a_journal_can_be_parked() -> None:
    async with payer(calls("pay", amount=3)).stream("Pay.", session=Session("ann")) as stream:
        with pytest.raises(UsageError, match="stream 'ann/1' cannot be parked: its session has no journal"):
            stream.park()
