"""Usage: what a stream and all inside it have used, as the provider counted it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
from trio.testing import wait_all_tasks_blocked

from agentloop import Agent, Compaction, Deadlines, Limits, Price, Retries, Session, Text, ToolContext, tool
from agentloop._runtime.stream import Stream
from agentloop.errors import ModelConnectionError, ModelError, RunError
from agentloop.events import (
    ChildStreamStopped,
    MessageCommitted,
    StreamEvent,
    StreamStopped,
    TextDelta,
    TurnFinished,
    UsageReported,
)
from agentloop.messages import AssistantMessage, Message, Usage, user_message
from agentloop.testing import Response, ScriptedModel, calls, fails, hangs, says
from tests.runtime.builders import agent_with
from tests.support import first, nested, of, opened, watch

ONE = Usage(input_tokens=10, output_tokens=5, requests=1)
"""What a scripted response uses."""


def times(number: int) -> Usage:
    return Usage(input_tokens=10 * number, output_tokens=5 * number, requests=number)


@tool
async def look() -> str:
    return "blue"


def using(usage: Usage, text: str = "Hi.") -> Response:
    return msgspec.structs.replace(says(text), usage=usage)


def test_usages_add_up_field_by_field() -> None:
    assert Usage(1, 2, 3, 4, 5) + Usage(10, 20, 30, 40, 50) == Usage(11, 22, 33, 44, 55)
    assert Usage(1, 2, 3, 4, 5).total_tokens == 3


async def test_a_run_has_used_what_its_responses_did() -> None:
    watched = await watch(agent_with(look))

    assert watched.outcome.usage == times(2)


async def test_each_response_is_reported_with_the_total_so_far() -> None:
    watched = await watch(agent_with(look))

    reports = of(watched.events, UsageReported)
    assert [(report.usage, report.total) for report in reports] == [(ONE, ONE), (ONE, times(2))]


async def test_the_last_event_carries_the_usage_of_the_outcome() -> None:
    watched = await watch(agent_with(look))

    assert of(watched.events, StreamStopped)[0].usage == watched.outcome.usage


async def test_cached_and_reasoning_tokens_are_reported() -> None:
    usage = Usage(input_tokens=100, output_tokens=50, cached_tokens=90, reasoning_tokens=40)

    watched = await watch(Agent(ScriptedModel(using(usage))))

    assert watched.outcome.usage == msgspec.structs.replace(usage, requests=1)


async def test_a_response_is_one_request_whatever_the_model_says() -> None:
    watched = await watch(Agent(ScriptedModel(using(Usage(requests=7)))))

    assert watched.outcome.usage.requests == 1


async def test_a_message_carries_the_usage_of_its_response() -> None:
    usage = Usage(input_tokens=100, output_tokens=50)

    watched = await watch(Agent(ScriptedModel(using(usage))))

    message = watched.messages[-1]
    assert isinstance(message, AssistantMessage)
    assert message.usage == msgspec.structs.replace(usage, requests=1)


async def test_a_stream_can_be_asked_what_it_has_used_so_far() -> None:
    agent = agent_with(look, model=ScriptedModel(calls("look"), calls("look"), hangs()))

    async with opened(agent) as stream:
        assert stream.usage == Usage()
        await wait_all_tasks_blocked()
        assert stream.usage == times(2)


async def test_the_second_stream_on_a_session_begins_at_nothing() -> None:
    session = Session()
    agent = Agent(ScriptedModel("Hi.", repeat=True))
    await agent.run("go", session=session)

    assert (await agent.run("go", session=session)).usage == ONE


# ------------------------------------------------------------------------------ child streams


@pytest.mark.parametrize("depth", [1, 2, 3])
async def test_what_children_use_counts_in_every_stream_above_them(depth: int) -> None:
    watched = await watch(nested(agent_with(look, name="inner"), depth))

    used = {event.depth: event.usage for event in of(watched.events, ChildStreamStopped)}
    used[0] = watched.outcome.usage
    assert used == {level: times(2 * (depth - level + 1)) for level in range(depth + 1)}


async def test_the_total_at_the_root_is_the_sum_of_all_reports() -> None:
    inner = [agent_with(look, name=f"inner{number}") for number in range(3)]
    together = calls("inner0", prompt="go") + calls("inner1", prompt="go") + calls("inner2", prompt="go")

    watched = await watch(agent_with(*[agent.as_tool() for agent in inner], name="outer", response=together))

    reports = of(watched.events, UsageReported)
    total = Usage()
    for report in reports:
        total += report.usage
    assert total == watched.outcome.usage == times(8)


async def test_children_side_by_side_do_not_see_each_others_usage() -> None:
    left, right = agent_with(look, name="left"), Agent(ScriptedModel("Hi."), name="right")
    together = calls("left", prompt="go") + calls("right", prompt="go")

    watched = await watch(agent_with(left.as_tool(), right.as_tool(), name="outer", response=together))

    used = {event.agent: event.usage for event in of(watched.events, ChildStreamStopped)}
    assert used == {"left": times(2), "right": times(1)}


async def test_a_tool_that_runs_a_child_gets_the_usage_of_the_child() -> None:
    used: list[Usage] = []

    @tool
    async def delegate(context: ToolContext[Any]) -> str:
        used.append((await context.run(agent_with(look, name="inner"), "go")).usage)
        return "done"

    await watch(agent_with(delegate))

    assert used == [times(2)]


# ----------------------------------------------------------------------------- unhappy endings


async def test_a_run_that_failed_has_used_what_it_had_until_then() -> None:
    agent = agent_with(look, model=ScriptedModel(calls("look"), fails(ValueError("gone"))))

    watched = await watch(agent)

    assert (watched.outcome.reason, watched.outcome.usage) == ("failed", ONE)


async def test_a_run_that_was_stopped_has_used_what_it_had_until_then() -> None:
    async with opened(agent_with(look, model=ScriptedModel(calls("look"), hangs()))) as stream:
        await first(stream, TurnFinished)
        await wait_all_tasks_blocked()
        stream.stop()
        await stream.wait()

        assert stream.outcome.usage == ONE


async def test_what_a_child_used_that_failed_counts_too() -> None:
    inner = agent_with(look, name="inner", model=ScriptedModel(calls("look"), fails(ValueError("gone"))))

    watched = await watch(nested(inner, 1))

    assert watched.outcome.usage == times(3)


async def test_the_error_of_a_run_without_a_result_carries_its_usage() -> None:
    with pytest.raises(RunError) as caught:
        await agent_with(look, limits=Limits(turns=1)).run("go")

    assert getattr(caught.value.outcome, "usage", None) == ONE


async def test_usage_is_reported_before_the_message_is_committed() -> None:
    """A reader that adds up what it is told never knows of a message that it has not paid for."""
    watched = await watch(agent_with(look))

    told = [type(event) for event in watched.events if isinstance(event, (UsageReported, MessageCommitted))]
    assert told[:3] == [MessageCommitted, UsageReported, MessageCommitted]


# ---------------------------------------------------------------- responses that break off

EARLY = Usage(input_tokens=100, output_tokens=1)
"""The usage that a provider reports at the beginning of a response."""
BILLED = msgspec.structs.replace(EARLY, requests=1)


def breaks_off(error: Exception | None = None) -> Response:
    """A response that reports its usage at its beginning, and then fails, or hangs."""
    start = msgspec.structs.replace(says("Well, "), reported=EARLY)
    return start + (hangs() if error is None else fails(error))


def total_of(events: Iterable[StreamEvent]) -> Usage:
    return sum_of(report.usage for report in of(events, UsageReported))


def sum_of(usages: Iterable[Usage]) -> Usage:
    total = Usage()
    for usage in usages:
        total += usage
    return total


async def test_what_a_discarded_response_had_reported_counts() -> None:
    model = ScriptedModel(breaks_off(ModelConnectionError("dropped")), "Hello.")

    watched = await watch(Agent(model, retries=Retries(delay=0.01)))

    assert watched.outcome.usage == BILLED + ONE == total_of(watched.events)
    assert [report.is_complete for report in of(watched.events, UsageReported)] == [False, True]


async def test_what_a_response_had_reported_that_failed_for_good_counts() -> None:
    model = ScriptedModel(breaks_off(ModelError("broken")))

    watched = await watch(Agent(model, retries=Retries(attempts=1)))

    assert (watched.outcome.reason, watched.outcome.usage) == ("failed", BILLED)
    assert total_of(watched.events) == BILLED
    message = watched.messages[-1]
    assert isinstance(message, AssistantMessage)
    assert (message.stop, message.usage) == ("interrupted", BILLED)


async def test_what_a_response_had_reported_that_was_stopped_counts() -> None:
    def stop_at_text(stream: Stream, event: StreamEvent) -> None:
        if isinstance(event, TextDelta):
            stream.stop("enough")

    watched = await watch(Agent(ScriptedModel(breaks_off())), on_event=stop_at_text)

    assert (watched.outcome.reason, watched.outcome.usage) == ("cancelled", BILLED)
    assert total_of(watched.events) == BILLED


async def test_what_a_response_had_reported_that_a_deadline_ended_counts() -> None:
    agent = Agent(ScriptedModel(breaks_off(), "Hello."), deadlines=Deadlines(idle=1), retries=Retries(delay=0.01))

    watched = await watch(agent)

    assert watched.outcome.usage == BILLED + ONE


async def test_the_usage_of_responses_that_broke_off_reaches_a_limit() -> None:
    model = ScriptedModel(breaks_off(ModelConnectionError("dropped")), "Hello.")

    watched = await watch(Agent(model, limits=Limits(tokens=100), retries=Retries(delay=0.01)))

    assert isinstance(watched.error, ModelConnectionError)
    assert len(model.requests) == 1


async def test_a_model_that_reports_its_usage_early_only_need_not_repeat_it_at_the_end() -> None:
    response = msgspec.structs.replace(says("Hello."), reported=EARLY, usage=Usage())

    watched = await watch(Agent(ScriptedModel(response)))

    assert watched.outcome.usage == BILLED


async def test_what_was_reported_of_a_summary_that_failed_counts() -> None:
    model = ScriptedModel(breaks_off(ModelError("broken")), "Hello.")
    long: list[Message] = [user_message("bla " * 400), AssistantMessage((Text("bla " * 400),))] * 3
    agent = Agent(model, compaction=Compaction(window=1000), retries=Retries(attempts=1))

    watched = await watch(agent, session=Session(messages=long))

    reports = of(watched.events, UsageReported)
    assert [(report.purpose, report.usage) for report in reports] == [("summary", BILLED), ("turn", ONE)]
    assert watched.outcome.usage == BILLED + ONE


async def test_a_response_that_broke_off_without_usage_reaches_a_limit_by_an_estimate() -> None:
    model = ScriptedModel(says("word " * 400) + fails(ModelConnectionError("dropped")), "Hello.")

    watched = await watch(Agent(model, limits=Limits(tokens=300), retries=Retries(delay=0.01)))

    assert len(model.requests) == 1
    assert isinstance(watched.error, ModelConnectionError)
    [report] = of(watched.events, UsageReported)
    assert (report.is_complete, report.usage.estimated_requests) == (False, 1)
    assert report.usage == watched.outcome.usage


# ------------------------------------------------------------------------------------ cost


async def test_a_model_that_is_free_differs_from_one_without_a_price() -> None:
    free = await Agent(ScriptedModel("Hi."), prices={"scripted": Price(0, 0)}).run("go")
    unpriced = await Agent(ScriptedModel("Hi.")).run("go")

    assert (free.usage.cost, free.usage.is_cost_known) == (0, True)
    assert (unpriced.usage.cost, unpriced.usage.is_cost_known) == (0, False)


async def test_the_cost_of_a_run_is_known_if_all_of_its_responses_have_a_price() -> None:
    inner = Agent(ScriptedModel("Hi.", name="inner"), name="inner")
    agent = agent_with(inner.as_tool(), response=calls("inner", prompt="go"), prices={"scripted": Price(1, 1)})

    usage = (await agent.run("go")).usage

    assert (usage.requests, usage.priced_requests, usage.is_cost_known) == (3, 2, False)
