"""Fixtures for tests of agents, and a clock for them. pytest loads this plugin wherever agentloop is installed.

Fixtures:

- ``scripted_model``: makes a `ScriptedModel` from a script, and checks after the test that the script was played to
  its end.
- ``record_stream``: opens a stream of an agent that keeps its events, which are checked to be well formed.
- ``cassette``: what models reply in the test is recorded in ``cassettes/<module>/<test>.json`` beside it, and replayed
  from there; see `agentloop.testing.cassette`. ``pytest --cassettes=record`` records anew, ``--cassettes=replay`` never
  asks a model. A fixture ``cassette_options`` of your own gives further arguments: ``return {"redact": [...]}``.
- ``no_network_models``: models behind a network are refused in the test, those on this machine are not. The ini option
  ``agentloop_network = forbid`` says so for all tests; ``allow_network_models`` lifts it for one. The environment
  variable ``AGENTLOOP_NETWORK_MODELS=forbid`` is lifted by nothing.

Async tests: pytest-trio, which comes with the extra ``testing``, runs an ``async def`` test that uses one of these
fixtures, without any configuration. It also runs the tests that ``trio_mode = true`` or ``@pytest.mark.trio`` give it.
A test that is marked for the plugin of anyio, or for pytest-asyncio, stays with that plugin.

The clock of a test that pytest-trio runs:

- The ini option ``agentloop_clock = virtual`` or the marker ``@pytest.mark.agentloop_clock("virtual")`` gives the test
  a virtual clock: when all tasks wait, time jumps to the next deadline, so ``trio.sleep(60)`` and a timeout take no
  time. A test that hangs fails with `trio.TooSlowError` after an hour of virtual time, which is over at once;
  ``agentloop_clock("virtual", seconds=10)`` is a shorter bound.
- ``@pytest.mark.agentloop_clock("real")`` is for a test with sockets, threads or processes: a virtual clock would jump
  while they work. A real clock is the default; it has a bound where ``seconds`` gives one.
- A clock among the test's fixtures, such as ``autojump_clock``, is the clock of that test.
- Each example of a hypothesis test gets a run and a clock of its own. It cannot use async fixtures.

pytest-trio reports the error of a test as a group of one error. Tests whose clock is chosen, and tests that run because
of a fixture of agentloop, fail with the error itself.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack
from functools import partial, wraps
from inspect import iscoroutinefunction
from pathlib import Path
from typing import Any

import trio
from attrs import frozen
from trio.testing import MockClock

from agentloop.agent import Agent
from agentloop.messages import Prompt
from agentloop.providers import _network
from agentloop.testing._pytest import pytest
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
    "pytest_collection_modifyitems",
    "pytest_configure",
    "pytest_runtest_call",
    "pytest_runtest_makereport",
    "pytest_unconfigure",
    "record_stream",
    "scripted_model",
]

NETWORK_INI = "agentloop_network"
CLOCK_INI = "agentloop_clock"
CLOCKS = ("real", "virtual")
VIRTUAL_SECONDS = 3600.0
"""Seconds that a test may take on a virtual clock, if its marker names no other bound."""
FIXTURES = frozenset({"allow_network_models", "cassette", "no_network_models", "record_stream", "scripted_model"})
OTHER_RUNNERS = ("anyio", "asyncio")
"""Markers of tests that another plugin runs."""
LONGEST_NAME = 120
"""Characters of a cassette's name. File systems take 255 bytes."""

_session = pytest.StashKey[ExitStack]()
_failed = pytest.StashKey[bool]()
_example = pytest.StashKey[Callable[..., None]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the command-line and ini options of the fixtures."""
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
    parser.addini(
        CLOCK_INI,
        "the clock of the tests that pytest-trio runs: `virtual` or `real`. With either, a test fails with its error "
        "itself, not with a group of one error",
        default="",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Check the ini options, and forbid the network for all tests if one of them says so."""
    config.addinivalue_line(
        "markers",
        f'{CLOCK_INI}(clock, seconds=None): the clock of an async test, "virtual" or "real", and the seconds that the '
        "test may take on it",
    )
    if config.getini(CLOCK_INI) not in ("", *CLOCKS):
        raise pytest.UsageError(f"{CLOCK_INI} is `virtual` or `real`, not {config.getini(CLOCK_INI)!r}")
    network = config.getini(NETWORK_INI)
    if network not in ("allow", "forbid"):
        raise pytest.UsageError(f"{NETWORK_INI} is `allow` or `forbid`, not {network!r}")
    stack = config.stash[_session] = ExitStack()
    if network == "forbid":
        stack.enter_context(_network.forbid_network_models(by=f"the ini option {NETWORK_INI}"))


def pytest_unconfigure(config: pytest.Config) -> None:
    """Let go of what `pytest_configure` took."""
    if _session in config.stash:
        config.stash[_session].close()


# ---------------------------------------------------------------------------------------- async tests


@frozen
class _Run:
    """Runs a test in trio, in the place of `trio.run`: for ``pytest.mark.trio(run=...)``."""

    clock: str
    seconds: float

    def __call__(
        self,
        test: Callable[[], Awaitable[object]],
        *,
        clock: trio.abc.Clock | None = None,
        instruments: Sequence[trio.abc.Instrument] = (),
    ) -> None:
        """Run ``test()``, on ``clock`` if the test's fixtures have one."""

        async def main() -> None:
            with trio.fail_after(self.seconds):
                await test()

        if clock is None and self.clock == "virtual":
            clock = MockClock(autojump_threshold=0)
        error: BaseException | None = None
        try:
            trio.run(main, clock=clock, instruments=instruments, strict_exception_groups=True)
        except BaseExceptionGroup as group:
            # pytest-trio runs each test in a nursery, which makes a group of a lone error.
            error = group.exceptions[0] if len(group.exceptions) == 1 else group
        if error is not None:
            raise error  # outside of the `except`, so that the error's own context stays


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give pytest-trio the async tests that use a fixture of this module, and a run to those whose clock is chosen.

    Last of all plugins, so that the markers of the others are there.
    """
    if not config.pluginmanager.hasplugin("trio"):
        return
    for item in items:
        if not isinstance(item, pytest.Function) or _has_another_runner(item):
            continue
        hypothesis = getattr(item.obj, "hypothesis", None)
        test = item.obj if hypothesis is None else hypothesis.inner_test
        run = _run_of(item) if iscoroutinefunction(test) else None
        if run is None:
            continue
        # In front of the marker that pytest-trio adds with `trio_mode`.
        item.add_marker(pytest.mark.trio(run=run), append=False)
        if hypothesis is not None:
            item.stash[_example] = _sync(test, run)


def _has_another_runner(item: pytest.Function) -> bool:
    """Whether another plugin runs the test, or a ``run`` that its author gave to pytest-trio."""
    return (
        "anyio_backend" in item.fixturenames
        or any(item.get_closest_marker(name) is not None for name in OTHER_RUNNERS)
        or any(marker.kwargs.get("run", trio.run) is not trio.run for marker in item.iter_markers("trio"))
    )


def _run_of(item: pytest.Function) -> _Run | None:
    """The run of an async test, or None where pytest-trio has its own way or another plugin may run the test."""
    clock: str = item.config.getini(CLOCK_INI)
    seconds: float | None = None
    marker = item.get_closest_marker(CLOCK_INI)
    is_given = item.get_closest_marker("trio") is not None
    uses_a_fixture = not FIXTURES.isdisjoint(item.fixturenames)
    if marker is not None:
        clock, seconds = _clock_of(marker, item)
    elif clock and (is_given or uses_a_fixture):
        pass
    elif uses_a_fixture and not is_given:
        clock = "real"
    else:
        return None
    if seconds is None:
        seconds = VIRTUAL_SECONDS if clock == "virtual" else math.inf
    return _Run(clock, seconds)


def _clock_of(marker: pytest.Mark, item: pytest.Item) -> tuple[str, float | None]:
    """The arguments of the marker ``agentloop_clock``."""

    def read(clock: str, *, seconds: float | None = None) -> tuple[str, float | None]:
        if clock not in CLOCKS:
            raise pytest.UsageError(f'{item.nodeid}: {CLOCK_INI} takes "virtual" or "real", not {clock!r}')
        return clock, seconds

    try:
        return read(*marker.args, **marker.kwargs)
    except TypeError as error:
        raise pytest.UsageError(
            f'{item.nodeid}: write `{CLOCK_INI}("virtual")` or `{CLOCK_INI}("virtual", seconds=10)` ({error})'
        ) from None


def _sync(test: Callable[..., Awaitable[object]], run: _Run) -> Callable[..., None]:
    """The function to call for each example of a hypothesis test."""

    @wraps(test)
    def example(**arguments: Any) -> None:
        clocks = [value for value in arguments.values() if isinstance(value, trio.abc.Clock)]
        run(partial(test, **arguments), clock=clocks[0] if clocks else None)

    # hypothesis would take the function for an async one.
    del example.__wrapped__
    return example


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """Run each example of a hypothesis test with the run of the test's marker, which pytest-trio does not ask there.

    Inside of pytest-trio's own wrapper, which has put a function of its own into the hypothesis test by then.
    """
    example = item.stash.get(_example, None)
    if example is None or not isinstance(item, pytest.Function):
        return (yield)
    hypothesis = item.obj.hypothesis
    replaced, hypothesis.inner_test = hypothesis.inner_test, example
    try:
        return (yield)
    finally:
        hypothesis.inner_test = replaced


# ---------------------------------------------------------------------------------------- fixtures


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
    """Record streams; their events are checked after the test."""
    made: list[RecordedStream] = []

    def make(
        agent: Agent[Any, Any], prompt: Prompt = "go", **options: Any
    ) -> AbstractAsyncContextManager[RecordedStream]:
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
    with make_cassette(_cassette_path(request.node), **options) as made:
        yield made
        if request.node.stash.get(_failed, False):
            # The test ended before its end: that is what its author should read about.
            made.ignore_unused()


def _cassette_path(item: pytest.Item) -> Path:
    """The file of a test's cassette."""
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
