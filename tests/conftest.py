"""How the tests run: pytest-trio gives an ``async def`` test, and its async fixtures, a `trio.run` of its own.

- Time is virtual: whenever all tasks wait, the clock jumps to the next deadline, so a test may `trio.sleep(60)` for
  nothing. A test that needs sockets or threads is marked ``real_clock``: else time would jump while they work.
- A test that takes longer than 10 seconds of virtual time fails with `trio.TooSlowError`, which is how a test that
  hangs ends. ``@pytest.mark.seconds(1000)`` gives it more, for tests of long deadlines. On a real clock a test has a
  minute: a busy machine may take 10 seconds to start a process.
- Exception groups are strict, whatever a test does. A lone error of a test is raised without a group around it.
- Each example of a hypothesis test gets a new run and a new clock, and may take as long as it takes: the deadline
  that hypothesis has for an example fails tests on a machine that is busy.

The clock, the bound and the lone errors are those that `agentloop.testing.pytest_plugin` has for everybody's tests.
What several test modules need is in `tests.support`.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable, Generator, Sequence

import pytest
import trio
from hypothesis import settings
from trio.testing import MockClock

settings.register_profile("tests", deadline=None, print_blob=True)
settings.load_profile("tests")

pytest_plugins = ["pytester"]

SECONDS = {"virtual": 10.0, "real": 60.0}
"""The bound of a test on each clock, unless the test is marked ``seconds``."""

if "PYTEST_XDIST_WORKER" in os.environ:
    # With this variable, coverage measures the processes of pytest-xdist. It would also measure the programs that the
    # tests start, which have deadlines on real clocks.
    os.environ.pop("COVERAGE_PROCESS_CONFIG", None)


def run_in_trio(function: Callable[..., Awaitable[object]], *, seconds: float = SECONDS["virtual"]) -> None:
    """Run ``function()`` as if it were a test, inside of a test that is not async."""

    async def main() -> None:
        with trio.fail_after(seconds):
            await function()

    trio.run(main, clock=MockClock(autojump_threshold=0), strict_exception_groups=True)


def pytest_configure() -> None:
    # A shell has its background jobs ignore SIGINT, and Python keeps it so: tests of Ctrl-C would wait in vain.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    for item in items:
        marker = item.get_closest_marker("seconds")
        clock = "virtual" if item.get_closest_marker("real_clock") is None else "real"
        seconds = SECONDS[clock] if marker is None else marker.args[0]
        item.add_marker(pytest.mark.agentloop_clock(clock, seconds=seconds))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let pytest-xdist send what a test has logged: a name of a file in it may have lone surrogates."""
    report = yield
    report.sections = [(title, text.encode("utf-8", "backslashreplace").decode()) for title, text in report.sections]
    return report
