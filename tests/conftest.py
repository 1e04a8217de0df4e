"""How the tests run: an ``async def`` test gets a `trio.run` of its own.

- Time is virtual: whenever all tasks wait, the clock jumps to the next deadline, so a test may `trio.sleep(60)` for
  nothing. A test that needs sockets or threads is marked ``real_clock``: else time would jump while they work.
- A test that takes longer than 10 seconds on its clock fails with `trio.TooSlowError`: this is how one that hangs is
  found out. ``@pytest.mark.seconds(1000)`` gives it more, for tests of long deadlines.
- Exception groups are strict, whatever a test does.
- A hypothesis test gets a new run and a new clock for each example, and may take as long as it takes: the deadline
  that hypothesis has for an example fails tests on a machine that is busy.

Fixtures, parametrization and `@given` work as for other tests. Fixtures are plain ones: what has to be opened in
trio is opened in the test. What several test modules need is in `tests.support`.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from functools import partial, wraps
from typing import Any

import pytest
import trio
from hypothesis import settings
from trio.testing import MockClock

settings.register_profile("tests", deadline=None, print_blob=True)
settings.load_profile("tests")

pytest_plugins = ["pytester"]

SECONDS = 10.0
"""What a test may take, unless it is marked ``seconds``."""


def run_in_trio(
    function: Callable[..., Awaitable[object]], *, real_clock: bool = False, seconds: float = SECONDS
) -> None:
    """Run ``function()`` in trio as if it were a test."""

    async def main() -> None:
        with trio.fail_after(seconds):
            await function()

    clock = None if real_clock else MockClock(autojump_threshold=0)
    trio.run(main, clock=clock, strict_exception_groups=True)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> object:
    mark = pyfuncitem.get_closest_marker("seconds")
    options: dict[str, Any] = {
        "real_clock": pyfuncitem.get_closest_marker("real_clock") is not None,
        "seconds": mark.args[0] if mark is not None else SECONDS,
    }
    test = pyfuncitem.obj
    hypothesis_test = getattr(test, "hypothesis", None)
    if hypothesis_test is not None:
        inner = hypothesis_test.inner_test
        if inspect.iscoroutinefunction(inner):
            hypothesis_test.inner_test = _sync(inner, options)
        return None
    if not inspect.iscoroutinefunction(test):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    run_in_trio(partial(test, **arguments), **options)
    return True


def _sync(test: Callable[..., Awaitable[object]], options: dict[str, Any]) -> Callable[..., None]:
    # Wraps the test that stands inside `@given`, so that each example is a run.
    @wraps(test)
    def example(*args: Any, **kwargs: Any) -> None:
        run_in_trio(partial(test, *args, **kwargs), **options)

    # Else hypothesis, and this hook, would still take it for an async function.
    del example.__wrapped__
    return example
