"""Fixtures for tests of agents. pytest finds them by itself where agentloop is installed.

- ``scripted_model``: makes `ScriptedModel`s, and after the test checks that each script was played to its end.
- ``record_stream``: opens a stream of an agent that keeps its events, which are checked to be well formed.
- ``cassette``: what models reply in the test is recorded in ``cassettes/<module>/<test>.json`` beside it, and replayed
  from there; see `agentloop.testing.cassette`. ``pytest --cassettes=record`` records anew, ``--cassettes=replay`` never
  asks a model. A fixture ``cassette_options`` of your own gives further arguments: ``return {"redact": [...]}``.
- ``no_network_models``: models behind a network are refused in the test, those on this machine are not. The ini option
  ``agentloop_network = forbid`` says so for all tests; ``allow_network_models`` lifts it for one. The environment
  variable ``AGENTLOOP_NETWORK_MODELS=forbid`` is lifted by nothing.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Generator
from contextlib import AbstractAsyncContextManager, ExitStack
from pathlib import Path
from typing import Any

import pytest

from agentloop.agent import Agent
from agentloop.messages import Prompt
from agentloop.providers import _network
from agentloop.testing.cassettes import Cassette, cassette as make_cassette
from agentloop.testing.recording import RecordedStream, record
from agentloop.testing.scripted import Script, ScriptedModel
from agentloop.testing.wellformed import assert_well_formed

__all__ = [
    "allow_network_models",
    "cassette",
    "cassette_options",
    "no_network_models",
    "pytest_addoption",
    "pytest_configure",
    "pytest_runtest_makereport",
    "pytest_unconfigure",
    "record_stream",
    "scripted_model",
]

NETWORK_INI = "agentloop_network"
LONGEST_NAME = 120
"""Characters of a cassette's name. File systems take 255 bytes."""

_session = pytest.StashKey[ExitStack]()
_failed = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what the fixtures can be told from outside."""
    parser.getgroup("agentloop").addoption(
        "--cassettes",
        choices=("auto", "record", "replay"),
        default="auto",
        help="what the fixture `cassette` does: replay if there is a recording, else record (auto); record anew; or "
        "never ask a model (replay)",
    )
    parser.addini(
        NETWORK_INI, "whether models behind a network may be used in tests: `allow` or `forbid`", default="allow"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Forbid the network for all tests, if the ini option says so."""
    given = config.getini(NETWORK_INI)
    if given not in ("allow", "forbid"):
        raise pytest.UsageError(f"{NETWORK_INI} is `allow` or `forbid`, not {given!r}")
    stack = config.stash[_session] = ExitStack()
    if given == "forbid":
        stack.enter_context(_network.forbid_network_models(by=f"the ini option {NETWORK_INI}"))


def pytest_unconfigure(config: pytest.Config) -> None:
    """Let go of what `pytest_configure` took."""
    if _session in config.stash:
        config.stash[_session].close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note for the fixtures whether the test failed."""
    report = yield
    item.stash[_failed] = item.stash.get(_failed, False) or report.failed
    return report


@pytest.fixture
def scripted_model() -> Generator[Callable[..., ScriptedModel]]:
    """Scripted models for one test, by ``scripted_model(calls("add", a=2, b=3), says("It is 5."))``."""
    made: list[ScriptedModel] = []

    def make(*script: Script, **options: Any) -> ScriptedModel:
        made.append(ScriptedModel(*script, **options))
        return made[-1]

    yield make
    for model in made:
        model.assert_complete()


@pytest.fixture
def record_stream() -> Generator[Callable[..., AbstractAsyncContextManager[RecordedStream]]]:
    """Record streams; what they told is checked after the test."""
    made: list[RecordedStream] = []

    def make(agent: Agent, prompt: Prompt = "go", **options: Any) -> AbstractAsyncContextManager[RecordedStream]:
        return record(agent, prompt, into=made, **options)

    yield make
    for stream in made:
        assert_well_formed(stream.events, complete=stream.complete)


@pytest.fixture
def cassette_options() -> dict[str, Any]:
    """Further arguments of the cassette. For a fixture of the same name to put its own in the place of."""
    return {}


@pytest.fixture
def cassette(request: pytest.FixtureRequest, cassette_options: dict[str, Any]) -> Generator[Cassette]:
    """A cassette beside the test, which all agents of the test go through."""
    # For the whole process: a test runner may run the test in another context than its fixtures.
    options: dict[str, Any] = {"mode": request.config.getoption("--cassettes"), "agents": "process", **cassette_options}
    with make_cassette(_place(request.node), **options) as made:
        yield made
        if request.node.stash.get(_failed, False):
            # The test ended before its end: that is what its author should read about.
            made.ignore_unused()


def _place(item: pytest.Item) -> Path:
    """Where the cassette of a test is."""
    test = item.nodeid.partition("::")[2].replace("::", ".")
    name = re.sub(r"[^\w.\-\[\]]+", "-", test, flags=re.ASCII)[:LONGEST_NAME]
    if name != test:
        # Two tests whose names differ in what no file's name has must not share a cassette.
        name += "-" + hashlib.sha256(test.encode()).hexdigest()[:8]
    return item.path.parent / "cassettes" / item.path.stem / f"{name}.json"


@pytest.fixture
def no_network_models() -> Generator[None]:
    """Refuse models behind a network."""
    with _network.forbid_network_models(by="the fixture no_network_models"):
        yield


@pytest.fixture
def allow_network_models() -> Generator[None]:
    """Let one test use models behind a network where the ini option forbids them."""
    with _network.allow_network_models():
        yield
