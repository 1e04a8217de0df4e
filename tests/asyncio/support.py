"""What the tests of asyncio hosts share: a test in asyncio that checks that nothing is left, and waiting tools."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Awaitable, Callable, Coroutine
from importlib import import_module
from typing import Any

import trio

from agentloop import Agent, tool
from agentloop.testing import ScriptedModel, calls

__all__ = ["Waiting", "assert_nothing_is_left", "in_asyncio", "run_in_loop", "steps"]


def in_asyncio(function: Callable[..., Awaitable[object]]) -> Callable[..., None]:
    """A test that runs in asyncio, and after which no task and no trio run may be left."""

    @functools.wraps(function)
    def test(*args: Any, **kwargs: Any) -> None:
        async def main() -> None:
            async with asyncio.timeout(60):
                await function(*args, **kwargs)
            assert_nothing_is_left()

        run_in_loop(main)

    return test


def run_in_loop(function: Callable[[], Coroutine[Any, Any, object]]) -> None:
    """`asyncio.run`, on a loop of uvloop if the variable ASYNCIO_LOOP says so, as `nox -s hosts` does."""
    if os.environ.get("ASYNCIO_LOOP") == "uvloop":
        import_module("uvloop").run(function())
    else:
        asyncio.run(function())


def assert_nothing_is_left() -> None:
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert not trio.lowlevel.in_trio_run()


async def steps(count: int) -> None:
    """Let the asyncio loop, and the guest in it, do so many steps."""
    for _ in range(count):
        await asyncio.sleep(0)


class Waiting:
    """An agent with one tool, which waits until it is cancelled."""

    def __init__(self, *, cleanup_steps: int = 0) -> None:
        self.started = asyncio.Event()
        self.ends = 0
        """How often the tool has ended."""

        @tool
        async def wait() -> str:
            """Wait."""
            self.started.set()
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    for _ in range(cleanup_steps):
                        await trio.lowlevel.checkpoint()
                self.ends += 1
            raise AssertionError

        self.agent = Agent(ScriptedModel(calls("wait"), "Done."), tools=[wait])
