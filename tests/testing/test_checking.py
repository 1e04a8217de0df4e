"""The harness as somebody uses it on a tool of their own."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from agentloop import Agent, ToolContext, tool
from agentloop.testing import Lab, calls, replay, sweep
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


async def uses_a_thread(lab: Lab) -> None:
    agent = Agent(lab.model(calls("blocking"), "Done."), tools=[blocking])
    async with lab.stream(agent) as stream:
        await stream.drain()


@tool
def blocking() -> str:
    """Block a thread."""
    return "done"


def test_threads_are_refused_with_the_way_out() -> None:
    with pytest.raises(HarnessError, match="thread"):
        sweep(uses_a_thread)
