"""Where a block may be opened: in a task of trio, and in no async generator that may be abandoned.

The blocks of streams, sessions, stores and toolsets check it when they are entered, and name the way out.

A caller that leaves a loop over an async generator early leaves the generator where it stands. Python finishes it
later, in another task, where trio cannot close the nursery inside it: unrelated tasks are cancelled, and the program
dies. A block with a nursery is therefore refused there, unless the code that drives the generator also closes it.
"""

from __future__ import annotations

import inspect
import sys

import trio

from agentloop.errors import UsageError

__all__ = ["CALL_IN_ASYNCIO", "OPEN_IN_ASYNCIO", "asyncio_runs_here", "refuse_bare_generator", "require_trio"]

OPEN_IN_ASYNCIO = "`async with agentloop.asyncio.block(store.open()) as opened:`"
CALL_IN_ASYNCIO = "`await agentloop.asyncio.call(function, ...)` in the place of `await function(...)`"


def require_trio(what: str, *, in_asyncio: str) -> None:
    """Raise `UsageError` unless a task of trio runs.

    Args:
      what: what needs it, with a verb: "an agent runs".
      in_asyncio: what to write in asyncio instead.
    """
    if trio.lowlevel.in_trio_task():
        return
    if asyncio_runs_here():
        raise UsageError(f"{what} on trio, and this is asyncio: write {in_asyncio}")
    raise UsageError(f"{what} on trio, and this is no task of trio: start it with trio.run(), or with run_sync()")


def asyncio_runs_here() -> bool:
    """Whether this is a coroutine, or a callback, of a running asyncio loop."""
    # Not imported here: a program without asyncio has no such loop, and need not wait for the import.
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and asyncio._get_running_loop() is not None


_DRIVERS = frozenset({"contextlib", "trio", "pytest_trio", "anyio", "async_generator", "agentloop"})
"""Packages that close each async generator that they drive: `contextlib.asynccontextmanager`, `trio.as_safe_channel`,
fixtures of pytest-trio and anyio, and tools that are async generators."""


_ENDS = frozenset({"agentloop._runtime.user_code", "agentloop._runtime.tool_calls"})
"""Modules that call tools and hooks: frames above theirs belong to a stream that was looked at when it was opened."""


def refuse_bare_generator(action: str) -> None:
    """Raise `UsageError` if an async generator that may be abandoned opens this block. Call it from the block itself.

    Only the frames of this task are looked at, up to the tool call of a stream around it: 2 to 3 us.
    """
    # Not by way of the block's own frame: each frame that is looked at becomes an object of 260 bytes, which lives as
    # long as the frame does.
    frame = sys._getframe(2)
    while True:
        module = str(frame.f_globals.get("__name__", ""))
        driver = frame.f_back
        if module.startswith("trio.") or module in _ENDS or driver is None:
            return
        if frame.f_code.co_flags & inspect.CO_ASYNC_GENERATOR:
            package = str(driver.f_globals.get("__name__", "")).partition(".")[0]
            if package in _DRIVERS:
                frame = driver
                continue
            name = frame.f_code.co_name
            raise UsageError(
                f"{action} inside the async generator {name}(), which its caller may leave half-way: Python would "
                f"finish it in another task. Decorate {name}() with @trio.as_safe_channel, or with "
                "@contextlib.asynccontextmanager if it yields once; or read `async for text in stream.text()` where "
                "the text is used"
            )
        frame = driver
