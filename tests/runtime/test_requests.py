"""Every request to a model, whatever it is for: limits count it, and still do after the run was parked or killed."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import trio
from trio.testing import wait_all_tasks_blocked

from agentloop import Agent, Approve, Compaction, Limits, Retries, Tool, ToolContext, hooks, tool
from agentloop.errors import AgentLoopError, BlockedError, LimitReachedError, ModelConnectionError, ModelError
from agentloop.events import ResponseDiscarded, TextDelta, ToolCallStarted, UsageReported
from agentloop.hooks import Block
from agentloop.journal import OpenStore
from agentloop.messages import AssistantMessage, Usage, user_message
from agentloop.models import Model, ModelRequest
from agentloop.outcome import Outcome
from agentloop.stores import MemoryStore, stored_session
from agentloop.testing import FunctionModel, Response, ScriptedModel, calls, fails, hangs, says
from tests.runtime.builders import agent_with, results
from tests.support import first, of, watch

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


# -------------------------------------------------------------------- a tool asks a model

QUESTION = ModelRequest((user_message("Is it blue?"),))


def judging(model: Model | None = None) -> tuple[Tool, list[AssistantMessage | AgentLoopError]]:
    """A tool that asks a model, and what came of it."""
    answers: list[AssistantMessage | AgentLoopError] = []

    @tool
    async def judge(context: ToolContext[Any]) -> str:
        try:
            answers.append(await context.ask_model(QUESTION, model=model))
        except AgentLoopError as error:
            answers.append(error)
        return "done"

    return judge, answers


async def test_a_tool_gets_the_response_of_the_model_that_it_asks() -> None:
    judge, answers = judging(ScriptedModel("Yes.", name="judge"))

    watched = await watch(agent_with(judge))

    [answer] = answers
    assert isinstance(answer, AssistantMessage)
    assert (answer.text, answer.usage.requests) == ("Yes.", 1)
    assert [event.text for event in of(watched.events, TextDelta)] == ["Done."]
    assert [(event.purpose, event.model) for event in of(watched.events, UsageReported)] == [
        ("turn", "scripted"),
        ("tool", "judge"),
        ("turn", "scripted"),
    ]
    assert watched.outcome.usage.requests == 3


async def test_without_a_model_of_its_own_a_tool_asks_those_of_the_agent() -> None:
    judge, answers = judging()
    first_model = ScriptedModel(calls("judge"), fails(ModelError("busy")))
    other = ScriptedModel("Yes.", "Done.", name="other")

    watched = await watch(Agent(first_model, fallbacks=[other], tools=[judge]))

    [answer] = answers
    assert isinstance(answer, AssistantMessage)
    assert answer.text == "Yes."
    [discarded] = of(watched.events, ResponseDiscarded)
    assert (discarded.purpose, discarded.next_model) == ("tool", "other")


async def test_at_a_limit_a_tool_cannot_ask_a_model() -> None:
    judge, answers = judging(ScriptedModel())

    watched = await watch(agent_with(judge, limits=Limits(requests=1)), on_question="decline")

    assert [type(answer) for answer in answers] == [LimitReachedError]
    assert watched.outcome.reason == "limit"


async def test_a_hook_may_keep_a_tool_from_asking_a_model() -> None:
    @hooks.before_llm_call
    def guard(call: hooks.BeforeLLMCall) -> Block | None:
        return Block("no judges") if call.purpose == "tool" else None

    judge, answers = judging(ScriptedModel())
    watched = await watch(agent_with(judge, hooks=[guard]))

    assert [(type(answer), str(answer)) for answer in answers] == [(BlockedError, "no judges")]
    assert watched.outcome.reason == "completed"


async def test_the_model_that_a_tool_asks_is_opened_and_closed() -> None:
    doings: list[str] = []

    class Opened(ScriptedModel):
        @asynccontextmanager
        async def open(self) -> AsyncGenerator[Model]:
            doings.append("open")
            yield self
            doings.append("closed")

    judge, answers = judging(Opened("Yes."))
    await watch(agent_with(judge))

    assert len(answers) == 1
    assert doings == ["open", "closed"]


async def test_a_tool_that_is_stopped_while_it_asks_a_model_has_used_what_was_reported() -> None:
    early = msgspec.structs.replace(says("Well"), reported=Usage(input_tokens=100)) + hangs()
    judge, _ = judging(ScriptedModel(early))

    async with agent_with(judge).stream("go") as stream:
        await first(stream, ToolCallStarted)
        await wait_all_tasks_blocked()
        stream.stop()
        events = [event async for event in stream]

    [report] = of(events, UsageReported)
    assert (report.purpose, report.is_complete, report.usage.input_tokens) == ("tool", False, 100)
    assert stream.outcome.usage.input_tokens == 110


async def test_two_calls_that_ask_side_by_side_retry_each_for_itself() -> None:
    asked: dict[str, int] = {}

    def respond(request: ModelRequest) -> Response | str:
        text = request.messages[0].text
        asked[text] = asked.get(text, 0) + 1
        return fails(ModelConnectionError("dropped")) if asked[text] < 3 else "Yes."

    @tool
    async def judge(what: str, context: ToolContext[Any]) -> str:
        return (await context.ask_model(ModelRequest((user_message(what),)), model=FunctionModel(respond))).text

    agent = agent_with(judge, response=calls("judge", what="a") + calls("judge", what="b"))
    watched = await watch(agent)

    assert asked == {"a": 3, "b": 3}
    assert [result.text for result in results(watched)] == ["Yes.", "Yes."]
