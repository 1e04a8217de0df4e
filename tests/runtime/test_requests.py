"""Every request to a model, whatever it is for: limits count it, and still do after the run was parked or killed."""

from __future__ import annotations

import trio

from agentloop import Agent, Approve, Compaction, Limits, Retries, tool
from agentloop.errors import ModelError
from agentloop.journal import OpenStore
from agentloop.models import ModelRequest
from agentloop.outcome import Outcome
from agentloop.stores import MemoryStore, stored_session
from agentloop.testing import FunctionModel, Response, calls, fails, hangs

ONCE = Retries(attempts=1)


@tool(requires_approval=True)
async def pay() -> str:
    return "paid"


class Counting:
    """A model that gives the responses of ``script`` in order, and counts the requests it got."""

    def __init__(self, *script: Response | str) -> None:
        self.script = list(script)
        self.asked = 0
        self.model = FunctionModel(self.respond)

    def respond(self, _request: ModelRequest) -> Response | str:
        self.asked += 1
        return self.script.pop(0)


async def ended(agent: Agent, store: OpenStore) -> Outcome:
    """Resume the run of ``store`` with its questions approved, and give its end."""
    async with stored_session(store, "ann") as session:
        answers = {question.id: Approve() for question in session.questions}
        async with agent.resume_stream(session, answers, on_question="decline") as stream:
            return await stream.wait()


async def parked(agent: Agent, store: OpenStore, prompt: str = "Pay.") -> Outcome:
    async with stored_session(store, "ann") as session:
        outcome = await agent.run(prompt, session=session, on_question="park")
    assert outcome.reason == "needs_input"
    return outcome


async def test_a_summary_that_failed_still_counts_after_the_run_was_parked() -> None:
    counting = Counting(fails(ModelError("busy")), calls("pay"), "Paid.")
    agent = Agent(
        counting.model, tools=[pay], limits=Limits(requests=2), retries=ONCE, compaction=Compaction(window=1000)
    )
    async with MemoryStore().open() as store:
        async with stored_session(store, "ann") as session:
            for _ in range(5):
                await Agent(FunctionModel(lambda _request: "bla " * 400)).run("bla " * 400, session=session)
        await parked(agent, store)
        outcome = await ended(agent, store)

    assert (outcome.reason, outcome.detail, counting.asked) == ("limit", "requests: 2 of 2 used", 2)


async def test_the_request_of_a_child_that_failed_still_counts_after_the_run_was_parked() -> None:
    inner = Agent(FunctionModel(lambda _request: fails(ModelError("busy"))), name="inner", retries=ONCE)
    counting = Counting(calls("inner", prompt="go"), calls("pay"), "Paid.")
    agent = Agent(counting.model, tools=[inner.as_tool(), pay], limits=Limits(requests=3))
    async with MemoryStore().open() as store:
        await parked(agent, store)
        outcome = await ended(agent, store)

    assert (outcome.reason, outcome.detail, counting.asked) == ("limit", "requests: 3 of 3 used", 2)


async def test_a_request_during_which_the_process_died_counts_when_the_run_is_resumed() -> None:
    counting = Counting(hangs(), "Hello.")
    agent = Agent(counting.model, limits=Limits(requests=1))
    async with (
        MemoryStore().open() as store,
        stored_session(store, "ann") as session,
        agent.stream("go", session=session),
    ):
        # For long enough that the journal has saved everything.
        await trio.sleep(1)
        records = list(await store.read("ann"))
    async with MemoryStore().open() as store:
        await store.append("ann", records)
        outcome = await ended(agent, store)

    assert (outcome.reason, outcome.detail, counting.asked) == ("limit", "requests: 1 of 1 used", 1)
