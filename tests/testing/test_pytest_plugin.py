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
    async with record_stream(Agent(ScriptedModel("", ""))) as stream:
        with pytest.raises(AssertionError, match="no TextDelta came"):
            await stream.until(TextDelta)


@pytest.mark.usefixtures("no_network_models")
async def test_a_model_by_name_is_refused_where_there_is_no_network() -> None:
    with pytest.raises(UsageError, match=r"may not use the model 'openai:gpt-5'"):
        await Agent("openai:gpt-5").run("Hi")


@pytest.mark.usefixtures("no_network_models")
async def test_a_model_that_is_given_is_used_where_there_is_no_network() -> None:
    assert (await Agent(ScriptedModel("Hello.")).run("Hi")).output == "Hello."


# ------------------------------------------------------------------------------- async tests


ASYNC_TEST = """
from agentloop import Agent

async def test_an_agent(scripted_model):
    assert (await Agent(scripted_model("Hello.")).run("Hi")).output == "Hello."
"""


def test_an_async_test_with_a_fixture_of_agentloop_runs_without_any_configuration(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(ASYNC_TEST)

    pytester.runpytest_inprocess("--strict-markers").assert_outcomes(passed=1)


def test_an_async_test_with_a_fixture_of_agentloop_may_have_async_fixtures(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
import pytest
import trio
from agentloop import Agent

@pytest.fixture
async def outcome(scripted_model):
    async with trio.open_nursery():
        yield await Agent(scripted_model("Hello.")).run("Hi")

async def test_an_agent(outcome, scripted_model):
    assert outcome.output == "Hello."
"""
    )

    pytester.runpytest_inprocess().assert_outcomes(passed=1)


def test_the_clock_of_an_async_test_is_real_by_default(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
import trio
from trio.testing import MockClock

async def test_the_clock(scripted_model):
    assert not isinstance(trio.lowlevel.current_clock(), MockClock)
"""
    )

    pytester.runpytest_inprocess().assert_outcomes(passed=1)


def test_a_marker_or_the_ini_option_gives_a_test_a_virtual_clock(pytester: pytest.Pytester) -> None:
    source = """
import pytest
import trio

{marker}
async def test_a_day():
    await trio.sleep(3000)
    assert trio.current_time() == 3000
"""
    pytester.makepyfile(
        test_marker=source.format(marker='@pytest.mark.agentloop_clock("virtual")'),
        test_option=source.format(marker="@pytest.mark.trio"),
    )

    pytester.runpytest_inprocess("-o", "agentloop_clock=virtual", "--strict-markers").assert_outcomes(passed=2)
    pytester.runpytest_inprocess("test_marker.py").assert_outcomes(passed=1)


def test_a_marker_gives_a_test_a_real_clock_where_the_ini_option_says_virtual(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
import pytest
import trio
from trio.testing import MockClock

@pytest.mark.agentloop_clock("real")
async def test_the_clock():
    assert not isinstance(trio.lowlevel.current_clock(), MockClock)
"""
    )

    pytester.runpytest_inprocess("-o", "agentloop_clock=virtual").assert_outcomes(passed=1)


def test_a_test_that_hangs_on_a_virtual_clock_times_out(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
import pytest
import trio

@pytest.mark.agentloop_clock("virtual")
async def test_an_hour():
    await trio.sleep_forever()

@pytest.mark.agentloop_clock("virtual", seconds=10)
async def test_ten_seconds():
    await trio.sleep(11)
"""
    )

    result = pytester.runpytest_inprocess()

    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*TooSlowError*"])


@pytest.mark.parametrize("options", [(), ("-o", "agentloop_clock=virtual"), ("-o", "trio_mode=true")])
def test_a_test_fails_with_its_own_error_unless_plain_pytest_trio_runs_it(
    pytester: pytest.Pytester, options: tuple[str, ...]
) -> None:
    pytester.makepyfile(
        """
import pytest

@pytest.mark.xfail(raises=ValueError, strict=True)
async def test_an_error(scripted_model):
    raise ValueError("the test's own")

async def test_a_skip(scripted_model):
    pytest.skip("not here")
"""
    )

    result = pytester.runpytest_inprocess(*options)

    if "trio_mode=true" in options:
        result.assert_outcomes(failed=1, skipped=1)
        result.stdout.fnmatch_lines(["*ExceptionGroup*"])
    else:
        result.assert_outcomes(xfailed=1, skipped=1)


def test_the_clock_among_the_fixtures_of_a_test_is_its_clock(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
import trio

async def test_the_clock(scripted_model, autojump_clock):
    assert trio.lowlevel.current_clock() is autojump_clock
    await trio.sleep(1000)
"""
    )

    pytester.runpytest_inprocess().assert_outcomes(passed=1)


def test_each_example_of_a_hypothesis_test_has_a_clock_of_its_own(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
import pytest
import trio
from hypothesis import given, settings, strategies as st

@pytest.mark.parametrize("seconds", [1, 5])
@given(number=st.integers())
@settings(max_examples=5)
async def test_the_clock(number, seconds):
    assert trio.current_time() == 0
    await trio.sleep(seconds)

@pytest.mark.xfail(raises=ValueError, strict=True)
@given(number=st.integers())
async def test_an_error(number):
    raise ValueError("the test's own")
"""
    )

    result = pytester.runpytest_inprocess(
        "-o", "trio_mode=true", "-o", "agentloop_clock=virtual", "-p", "no:cacheprovider"
    )

    result.assert_outcomes(passed=2, xfailed=1)


def test_a_clock_that_does_not_exist_is_a_usage_error(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
import pytest

@pytest.mark.agentloop_clock("mock")
async def test_it():
    pass
"""
    )

    marked = pytester.runpytest_inprocess()
    configured = pytester.runpytest_inprocess("-o", "agentloop_clock=mock")

    marked.stderr.fnmatch_lines(['*agentloop_clock takes "virtual" or "real", not \'mock\'*'])
    configured.stderr.fnmatch_lines(["*agentloop_clock is `virtual` or `real`, not 'mock'*"])
    assert marked.ret == configured.ret == pytest.ExitCode.USAGE_ERROR


@pytest.mark.parametrize("options", [(), ("-o", "agentloop_clock=virtual")])
@pytest.mark.parametrize("how", ["by mode", "by marker"])
def test_the_plugin_of_anyio_runs_the_tests_that_are_its_own(
    pytester: pytest.Pytester, how: str, options: tuple[str, ...]
) -> None:
    pytester.makepyfile(
        f"""
import anyio
import pytest
import trio
from agentloop import Agent
from trio.testing import MockClock

{"" if how == "by mode" else "pytestmark = pytest.mark.anyio"}

@pytest.fixture
def anyio_backend():
    return "trio"

@pytest.fixture
async def agent(scripted_model):
    await anyio.sleep(0)
    yield Agent(scripted_model("Hello."))

async def test_an_agent(agent):
    assert not isinstance(trio.lowlevel.current_clock(), MockClock)
    assert (await agent.run("Hi")).output == "Hello."
"""
    )
    mode = ("-o", "anyio_mode=auto") if how == "by mode" else ()

    result = pytester.runpytest_inprocess(*mode, *options)

    result.assert_outcomes(passed=1)


def test_a_runner_that_the_author_of_a_test_chose_runs_it(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
import pytest
import trio

runs = []

def run(test, *, clock, instruments):
    runs.append(test)
    trio.run(test, clock=clock, instruments=instruments)

@pytest.mark.trio(run=run)
async def test_it(scripted_model):
    assert len(runs) == 1
"""
    )

    pytester.runpytest_inprocess("-o", "agentloop_clock=virtual").assert_outcomes(passed=1)


def test_without_pytest_trio_the_fixtures_are_there_for_other_tests(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
import trio
from agentloop import Agent

def test_an_agent(scripted_model):
    assert trio.run(Agent(scripted_model("Hello.")).run, "Hi").output == "Hello."
"""
    )

    pytester.runpytest_inprocess("-p", "no:trio", "--strict-markers").assert_outcomes(passed=1)
