"""The threads of plain tools, which are not trio's own.

A plain tool that hangs holds its thread after its call has timed out, since a thread cannot be stopped. With trio's
limiter, some forty of them would keep every other user of threads waiting: host names, files, databases. So plain tools
have a limiter of their own, one for each `trio.run`.
"""

from __future__ import annotations

import trio

__all__ = ["MAX_TOOL_THREADS", "tool_threads"]

MAX_TOOL_THREADS = 64
"""Plain tools that run at once. A call beyond them waits for a thread, until its own deadline."""

# In a `RunVar`: an abandoned thread gives its token back only while the trio run that lent it still runs.
_limiter: trio.lowlevel.RunVar[trio.CapacityLimiter] = trio.lowlevel.RunVar("agentloop_tool_threads")


def tool_threads() -> trio.CapacityLimiter:
    """The limiter of this `trio.run` for the threads of plain tools."""
    try:
        return _limiter.get()
    except LookupError:
        limiter = trio.CapacityLimiter(MAX_TOOL_THREADS)
        _limiter.set(limiter)
        return limiter
