"""How the tests run: pytest-trio gives an ``async def`` test, and what fixtures it has, a `trio.run` of its own.

- Time is virtual: whenever all tasks wait, the clock jumps to the next deadline, so a test may `trio.sleep(60)` for
  nothing. A test that needs sockets or threads is marked ``real_clock``: else time would jump while they work.
- A test that takes longer than 10 seconds on its clock fails with `trio.TooSlowError`: this is how one that hangs is
  found out. ``@pytest.mark.seconds(1000)`` gives it more, for tests of long deadlines.
- Exception groups are strict, whatever a test does. What a test itself raises is shown without the group around it.
- A hypothesis test takes its clock as an argument, ``@given(clock=clocks)``, one for each example, and may take as long
  as it takes: the deadline that hypothesis has for an example fails tests on a machine that is busy.

What several test modules need is in `tests.support`.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence

import pytest
import trio
from hypothesis import settings, strategies as st
from trio.testing import MockClock

settings.register_profile("tests", deadline=None, print_blob=True)
settings.load_profile("tests")

pytest_plugins = ["pytester"]

SECONDS = 10.0
"""What a test may take, unless it is marked ``seconds``."""

clocks = st.builds(MockClock, autojump_threshold=st.just(0))


def run_in_trio(
    function: Callable[..., Awaitable[object]],
    *,
    real_clock: bool = False,
    seconds: float = SECONDS,
    clock: trio.abc.Clock | None = None,
    instruments: Sequence[trio.abc.Instrument] = (),
) -> None:
    """Run ``function()`` in trio as if it were a test."""

    async def main() -> None:
        with trio.fail_after(seconds):
            await function()

    if clock is None and not real_clock:
        clock = MockClock(autojump_threshold=0)
    error: BaseException | None = None
    try:
        trio.run(main, clock=clock, instruments=instruments, strict_exception_groups=True)
    except BaseExceptionGroup as group:
        # pytest-trio runs the test in a nursery of its own: a group that holds one error only says nothing.
        error = group.exceptions[0] if len(group.exceptions) == 1 else group
    if error is not None:
        raise error  # here, so that its own context stays


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    for item in items:
        if not isinstance(item, pytest.Function) or not inspect.iscoroutinefunction(item.obj):
            continue
        seconds = item.get_closest_marker("seconds")
        real_clock = item.get_closest_marker("real_clock") is not None
        bound = SECONDS if seconds is None else seconds.args[0]

        def run(
            test: Callable[..., Awaitable[object]],
            *,
            clock: trio.abc.Clock | None,
            instruments: Sequence[trio.abc.Instrument],
            real_clock: bool = real_clock,
            bound: float = bound,
        ) -> None:
            run_in_trio(test, real_clock=real_clock, seconds=bound, clock=clock, instruments=instruments)

        item.add_marker(pytest.mark.trio(run=run), append=False)
