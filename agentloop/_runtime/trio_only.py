"""What needs a task of trio says so where there is none, and names the way out."""

from __future__ import annotations

import sys

import trio

from agentloop.errors import UsageError

__all__ = ["OPEN_IN_ASYNCIO", "asyncio_runs_here", "require_trio"]

OPEN_IN_ASYNCIO = "`async with agentloop.asyncio.block(store.open()) as opened:`"


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
