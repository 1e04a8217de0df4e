"""The fixtures, as somebody's tests use them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from agentloop import Agent, UsageError
from agentloop.events import StreamStopped, TextDelta
from agentloop.testing import ScriptedModel, hangs, says

MakeModel = Callable[..., ScriptedModel]
PREAMBLE = """
import trio
from agentloop import Agent
from agentloop.testing import says
"""


async def test_a_scripted_model_is_made_and_played(scripted_model: MakeModel) -> None:
    outcome = await Agent(scripted_model("Hello.")).run("Hi")

    assert outcome.output == "Hello."


def test_a_script_that_is_not_played_to_its_end_fails_the_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        PREAMBLE
        + """
def test_it(scripted_model):
    agent = Agent(scripted_model("One.", "Two."))
    trio.run(agent.run, "Hi")
"""
    )

    result = pytester.runpytest_inprocess()

    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*1 of 2 responses of model 'scripted' were never asked for*"])


async def test_a_stream_is_recorded_and_drained(record_stream: Callable[..., Any]) -> None:
    async with record_stream(Agent(ScriptedModel("Hello."))) as stream:
        events = await stream.drain()

    assert isinstance(events[-1], StreamStopped)
    assert stream.complete


async def test_a_stream_is_read_up_to_an_event_and_left(record_stream: Callable[..., Any]) -> None:
    async with record_stream(Agent(ScriptedModel(says("Hello there. ") + hangs()))) as stream:
        delta = await stream.until(TextDelta)

    assert delta.text == "Hello "
    assert not stream.complete


async def test_an_event_that_does_not_come_is_an_assertion_error(record_stream: Callable[..., Any]) -> None:
    async with record_stream(Agent(ScriptedModel(""))) as stream:
        with pytest.raises(AssertionError, match="no TextDelta came"):
            await stream.until(TextDelta)


@pytest.mark.usefixtures("no_network_models")
async def test_a_model_by_name_is_refused_where_there_is_no_network() -> None:
    with pytest.raises(UsageError, match=r"may not use the model 'openai:gpt-5'"):
        await Agent("openai:gpt-5").run("Hi")


@pytest.mark.usefixtures("no_network_models")
async def test_a_model_that_is_given_is_used_where_there_is_no_network() -> None:
    assert (await Agent(ScriptedModel("Hello.")).run("Hi")).output == "Hello."
