"""The harness as somebody uses it on a tool of their own."""

from __future__ import annotations

import time
from typing import Any

import pytest
import trio

from agentloop import Agent, ToolContext, tool
from agentloop.events import ElicitationRequested
from agentloop.testing import Lab, ScriptedModel, calls, replay, sweep, swept
from agentloop.testing._lab import echo
from agentloop.testing.simulation import HarnessError, Violation


@tool
async def refund(order: int, context: ToolContext[Any]) -> str:
    """Pay back an order.

    Args:
      order: its number.
    """
    await context.output(f"looking up {order}")
    await trio.sleep(1)
    return "paid back"


async def refunds(lab: Lab) -> None:
    agent = Agent(lab.model(calls("refund", order=7), "Done."), tools=[refund])
    async with lab.stream(agent) as stream:
        await stream.drain()


async def leaky(lab: Lab) -> None:
    """A tool that does not close what it opened, if it is cancelled."""
    opened: list[str] = []

    async def leak(context: ToolContext[Any]) -> str:
        opened.append("door")
        await trio.sleep(1)
        opened.remove("door")
        return "closed"

    agent = Agent(lab.model(calls("leak"), "Done."), tools=[lab.tool("leak", leak)])
    try:
        async with lab.stream(agent) as stream:
            await stream.drain()
    finally:
        assert not opened, "the door is open"


def test_a_sound_tool_passes_in_one_line() -> None:
    report = sweep(refunds)

    assert report.fired > 20


def test_a_tool_that_leaks_is_caught_and_its_token_shows_it_again() -> None:
    with pytest.raises(Violation, match="the door is open") as caught:
        sweep(leaky)

    with pytest.raises(Violation, match="the door is open"):
        replay(leaky, caught.value.token)


def test_the_report_says_what_was_injected_where() -> None:
    with pytest.raises(Violation) as caught:
        sweep(leaky)

    assert "cancelled after step" in str(caught.value)
    assert "tool_calls.py" in str(caught.value)
    assert caught.value.token in str(caught.value)


async def fails_by_itself(lab: Lab) -> None:
    raise AssertionError("broken")


def test_what_fails_without_a_fault_proves_nothing() -> None:
    with pytest.raises(HarnessError, match="fails without any fault"):
        sweep(fails_by_itself)


@tool
def blocking(order: int) -> str:
    """Block a thread.

    Args:
      order: its number.
    """
    time.sleep(60)
    return f"paid {order}"


@swept
async def test_a_plain_tool_is_swept_in_a_simulated_thread(lab: Lab) -> None:
    agent = Agent(lab.model(calls("blocking", order=7), "Done."), tools=[blocking])
    async with lab.stream(agent) as stream:
        await stream.drain()


@swept
async def test_streams_are_swept_without_a_lab() -> None:
    agent = Agent(ScriptedModel(calls("refund", order=7), "Done."), tools=[refund])
    async with agent.stream("go") as stream:
        async for _ in stream:
            pass
    assert stream.result.output == "Done."


@swept(limit=10)
async def test_a_model_of_the_lab_may_fail_in_a_stream_that_the_play_opens(lab: Lab) -> None:
    agent = Agent(lab.model(calls("refund", order=7), "Done."), tools=[refund])
    async with agent.stream("go") as stream:
        async for _ in stream:
            pass


@pytest.fixture
def order() -> int:
    return 8


@swept(limit=3)
async def test_a_swept_test_gets_its_fixtures(lab: Lab, order: int) -> None:
    assert order == 8
    agent = Agent(lab.model(calls("refund", order=order), "Done."), tools=[refund])
    async with lab.stream(agent) as stream:
        await stream.drain()


async def answers_twice(lab: Lab) -> None:
    agent = Agent(lab.model(calls("ask"), "Done."), tools=[lab.asker("ask")])
    async with lab.stream(agent) as stream:
        async for event in stream:
            if isinstance(event, ElicitationRequested):
                stream.stream.answer(event.id, echo(event))
                stream.stream.answer(event.id, echo(event))


def test_an_error_of_the_play_itself_is_reported_with_its_line() -> None:
    with pytest.raises(HarnessError, match=r"UnknownQuestionError got out(.|\n)*test_checking.py:\d+ answers_twice"):
        sweep(answers_twice)


def test_only_runs_the_cases_that_tokens_name() -> None:
    with pytest.raises(Violation) as caught:
        sweep(leaky)

    with pytest.raises(Violation, match="the door is open"):
        sweep(leaky, only=caught.value.token)
    assert sweep(refunds, only=["seam:1", "cancel:main@4"]).runs == 2
    assert f"sweep(leaky, only={caught.value.token!r})" in str(caught.value)
    assert all("leaky " in line for line in caught.value.__notes__[1].splitlines()[1:-1])


async def two_streams(lab: Lab) -> None:
    for _ in range(2):
        agent = Agent(lab.model(calls("pay"), "Done."), tools=[lab.tool("pay")])
        async with lab.stream(agent) as stream:
            await stream.drain()


def test_streams_one_after_another_may_have_the_same_name() -> None:
    assert sweep(two_streams, limit=40).fired > 40


async def leaves_a_task(lab: Lab) -> None:
    async def leave(context: ToolContext[Any]) -> str:
        trio.lowlevel.spawn_system_task(trio.sleep_forever)
        return "left"

    agent = Agent(lab.model(calls("leave"), "Done."), tools=[lab.bare("leave", leave)])
    async with lab.stream(agent) as stream:
        await stream.drain()


def test_a_system_task_that_a_tool_leaves_is_a_leak() -> None:
    with pytest.raises(HarnessError, match=r"system task trio\.sleep_forever is still running"):
        sweep(leaves_a_task)


def test_what_is_no_async_function_is_refused() -> None:
    with pytest.raises(HarnessError, match="give an async function"):
        sweep(lambda lab: None)  # type: ignore[arg-type]
