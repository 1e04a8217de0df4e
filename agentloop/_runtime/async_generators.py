"""Refuse blocks with a nursery inside an async generator that may be abandoned.

A caller that leaves a loop over an async generator early leaves the generator where it stands. Python finishes it
later, in another task, where trio cannot close the nursery inside it: unrelated tasks are cancelled, and the program
dies. Such a block is therefore refused when it is entered, unless the code that drives the generator also closes it.
"""

from __future__ import annotations

import inspect
import sys

from agentloop.errors import UsageError

__all__ = ["refuse_bare_generator"]

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
    while frame is not None:
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
