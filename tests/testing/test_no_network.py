"""No test talks to a provider by mistake."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Generator

import pytest
import trio
import trio.testing

from agentloop import Agent, UsageError, run_sync
from agentloop.models import Model
from agentloop.providers import check_network, find_model
from agentloop.providers._network import _rules
from agentloop.providers.anthropic import Anthropic
from agentloop.providers.openai_chat import OpenAIChat
from agentloop.providers.openai_responses import OpenAIResponses
from agentloop.testing import (
    NetworkForbiddenError,
    ScriptedModel,
    allow_network_models,
    calls,
    forbid_network_models,
)

ELSEWHERE = "http://provider.invalid/v1"
NOBODY = "http://127.0.0.1:9/v1"
"""On this machine; but nobody listens there."""


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    for variable in list(os.environ):
        if variable.endswith(("_PROXY", "_API_KEY", "_BASE_URL")) or variable == "AGENTLOOP_NETWORK_MODELS":
            monkeypatch.delenv(variable)
    yield
    assert _rules == []


async def test_a_model_by_name_is_refused_before_anything_starts_and_the_agent_is_named() -> None:
    with forbid_network_models(), pytest.raises(NetworkForbiddenError) as caught:
        await Agent("openai:gpt-5", name="writer").run("Hi")

    error = caught.value
    assert isinstance(error, UsageError)
    assert (error.agent, error.model, error.url) == ("writer", "openai:gpt-5", "https://api.openai.com")
    told = str(error)
    assert told.startswith("agent 'writer' may not use the model 'openai:gpt-5' here: it is at https://api.openai.com")
    for way_out in ("agent.override(model=ScriptedModel(", "agentloop.testing.cassette", "loopback", "allow_network"):
        assert way_out in told


@pytest.mark.parametrize("adapter", [OpenAIChat, OpenAIResponses, Anthropic])
async def test_an_adapter_is_refused_when_it_is_about_to_send(adapter: Callable[..., Model]) -> None:
    agent = Agent(adapter("some-model", base_url="http://user:pass@provider.invalid/v1", api_key="secret-key"))
    with forbid_network_models(), pytest.raises(NetworkForbiddenError, match=r"at http://provider\.invalid,") as caught:
        await agent.run("Hi")

    assert caught.value.model == "some-model"
    assert "pass" not in str(caught.value)


async def test_a_child_is_refused_too_and_the_model_above_reads_why() -> None:
    child = Agent("openai:gpt-5", name="child")
    model = ScriptedModel(calls("child", prompt="go"), "Done.")
    with forbid_network_models():
        await Agent(model, tools=[child.as_tool()]).run("Hi")

    assert "agent 'child' may not use the model 'openai:gpt-5'" in model.requests[1].messages[-1].text


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost", "LOCALHOST", "api.localhost", "[::1]"])
def test_a_server_on_this_machine_may_be_used(host: str) -> None:
    with forbid_network_models():
        check_network(model="m", url=f"http://{host}:8080/v1")


@pytest.mark.parametrize(
    "host", ["api.openai.com", "10.0.0.1", "localhost.example.org", "[2001:db8::1]", "127.0.0.1.nip"]
)
def test_a_server_elsewhere_may_not_be_used(host: str) -> None:
    with forbid_network_models(), pytest.raises(NetworkForbiddenError):
        check_network(model="m", url=f"http://{host}:8080/v1")


def test_the_error_shows_the_url_without_its_secrets() -> None:
    with forbid_network_models(), pytest.raises(NetworkForbiddenError) as caught:
        check_network(model="m", url="https://user:password@provider.invalid:8443/v1?key=secret")

    assert caught.value.url == "https://provider.invalid:8443"


async def test_a_name_that_stands_for_a_server_on_this_machine_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", NOBODY)
    with forbid_network_models():
        for name in ("openai:gpt-5", "ollama:qwen3"):
            async with Agent(name).stream("Hi"):
                pass


async def test_a_name_is_refused_where_the_user_has_put_its_server_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_BASE_URL", ELSEWHERE)
    with forbid_network_models(), pytest.raises(NetworkForbiddenError, match=r"provider\.invalid"):
        await Agent("ollama:qwen3").run("Hi")


def test_finding_a_model_is_not_forbidden_since_it_sends_nothing() -> None:
    with forbid_network_models():
        find_model("openai:gpt-5", api_key="a key")


async def test_an_override_is_a_way_out() -> None:
    agent = Agent("openai:gpt-5")
    with forbid_network_models(), agent.override(model=ScriptedModel("Hello.")):
        assert (await agent.run("Hi")).output == "Hello."


def test_nothing_is_forbidden_by_default_or_after_the_block() -> None:
    with forbid_network_models():
        pass
    check_network(model="m", url=ELSEWHERE)


def test_the_innermost_block_counts() -> None:
    with forbid_network_models():
        with allow_network_models():
            check_network(model="m", url=ELSEWHERE)
            with forbid_network_models(), pytest.raises(NetworkForbiddenError):
                check_network(model="m", url=ELSEWHERE)
        with pytest.raises(NetworkForbiddenError):
            check_network(model="m", url=ELSEWHERE)


def test_blocks_end_in_any_order() -> None:
    outer, inner = forbid_network_models(by="outer"), forbid_network_models(by="inner")
    outer.__enter__()
    inner.__enter__()
    outer.__exit__(None, None, None)
    with pytest.raises(NetworkForbiddenError, match="forbidden by inner"):
        check_network(model="m", url=ELSEWHERE)
    inner.__exit__(None, None, None)
    check_network(model="m", url=ELSEWHERE)


def test_it_is_forbidden_in_other_threads_and_runs_too() -> None:
    caught: list[BaseException] = []

    def thread() -> None:
        try:
            run_sync(Agent("openai:gpt-5"), "Hi")
        except NetworkForbiddenError as error:
            caught.append(error)

    with forbid_network_models():
        runner = threading.Thread(target=thread)
        runner.start()
        runner.join()

    assert len(caught) == 1


async def test_a_task_that_was_started_before_is_refused_too() -> None:
    go = trio.Event()
    caught: list[BaseException] = []

    async def task() -> None:
        await go.wait()
        try:
            await Agent("openai:gpt-5").run("Hi")
        except NetworkForbiddenError as error:
            caught.append(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(task)
        with forbid_network_models():
            go.set()
            await trio.testing.wait_all_tasks_blocked()

    assert len(caught) == 1


def test_the_environment_forbids_it_and_no_code_lifts_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTLOOP_NETWORK_MODELS", "forbid")
    with allow_network_models(), pytest.raises(NetworkForbiddenError, match="variable AGENTLOOP_NETWORK_MODELS"):
        check_network(model="m", url=ELSEWHERE)


def test_a_word_that_the_environment_cannot_say_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a slip of the pen would let the tests talk to a provider."""
    monkeypatch.setenv("AGENTLOOP_NETWORK_MODELS", "Forbid")
    with pytest.raises(UsageError, match="is `forbid` or `allow`, not 'Forbid'"):
        check_network(model="m", url=ELSEWHERE)


def test_the_environment_forbids_it_in_a_process_that_knows_nothing_of_tests() -> None:
    code = "from agentloop import Agent, run_sync; run_sync(Agent('openai:gpt-5'), 'Hi')"
    environment = {**os.environ, "AGENTLOOP_NETWORK_MODELS": "forbid"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)

    assert "NetworkForbiddenError: agent 'agent' may not use the model 'openai:gpt-5'" in done.stderr


# -------------------------------------------------------------------------------- pytest

REFUSED = """
import pytest
from agentloop.providers import check_network
from agentloop.testing import NetworkForbiddenError

URL = "https://provider.invalid"
"""


def test_an_ini_option_forbids_it_in_all_tests_but_those_that_lift_it(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nagentloop_network = forbid")
    pytester.makepyfile(
        REFUSED
        + """
def test_refused():
    with pytest.raises(NetworkForbiddenError, match="the ini option agentloop_network"):
        check_network(model="m", url=URL)

def test_lifted(allow_network_models):
    check_network(model="m", url=URL)

def test_refused_again():
    with pytest.raises(NetworkForbiddenError):
        check_network(model="m", url=URL)
"""
    )

    pytester.runpytest_inprocess().assert_outcomes(passed=3)
    check_network(model="m", url=ELSEWHERE)


def test_an_ini_option_that_says_something_else_is_an_error(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nagentloop_network = maybe")

    result = pytester.runpytest_inprocess()

    result.stderr.fnmatch_lines(["*agentloop_network is `allow` or `forbid`, not 'maybe'*"])


def test_a_fixture_forbids_it_in_one_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        REFUSED
        + """
def test_refused(no_network_models):
    with pytest.raises(NetworkForbiddenError, match="the fixture no_network_models"):
        check_network(model="m", url=URL)

def test_not_refused():
    check_network(model="m", url=URL)
"""
    )

    pytester.runpytest_inprocess().assert_outcomes(passed=2)
