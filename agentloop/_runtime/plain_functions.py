"""Call plain functions of users, such as hooks, in threads: one that blocks must not stop the loop, nor its deadline.

They have a limiter of their own, one for each `trio.run`: a plain function that hangs holds its thread after its
deadline, since a thread cannot be stopped, and with trio's limiter, or that of tools, guards would wait for hanging
tools.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from threading import Lock
from typing import Any

import trio

from agentloop._runtime.user_code import UserCodeError, describe

__all__ = ["MAX_THREADS", "in_thread_if_plain"]

MAX_THREADS = 64
"""Plain functions that run at once. A call beyond them waits for a thread, until its own deadline."""

# In a `RunVar`: an abandoned thread gives its token back only while the trio run that lent it still runs.
_limiter: trio.lowlevel.RunVar[trio.CapacityLimiter] = trio.lowlevel.RunVar("agentloop_plain_functions")


def in_thread_if_plain(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` itself if it is async; otherwise an async function that calls it in a thread.

    On the virtual clock of a test, a plain function runs in the task itself: a thread takes real time, in which such a
    clock jumps to the next deadline, and the order of events would depend on the machine.
    """
    if _is_async(function) or type(trio.lowlevel.current_clock()).__name__ != "SystemClock":
        return function
    return partial(_call_in_thread, function)


def _is_async(function: Callable[..., Any]) -> bool:
    while isinstance(function, partial):
        function = function.func
    # An object with an async `__call__` counts as an async function.
    called = function if inspect.isroutine(function) else getattr(function, "__call__", function)  # noqa: B004
    return inspect.iscoroutinefunction(called)


async def _call_in_thread(function: Callable[..., Any], /, *args: Any) -> Any:
    # Locked for good, by the thread as it begins or by us as we give up: a function must not begin any later.
    begun = Lock()

    def call() -> tuple[Any]:
        try:
            # In a tuple, since trio refuses a coroutine here, as a plain wrapper of an async function returns it.
            return (function(*args) if begun.acquire(blocking=False) else None,)
        except (SystemExit, GeneratorExit) as error:
            # In a thread, it ends nothing: it is a failure like any other.
            raise UserCodeError(describe(error)) from error

    try:
        (value,) = await trio.to_thread.run_sync(call, abandon_on_cancel=True, limiter=_threads())
    except trio.Cancelled:
        begun.acquire(blocking=False)
        raise
    return (await value) if inspect.isawaitable(value) else value


def _threads() -> trio.CapacityLimiter:
    try:
        return _limiter.get()
    except LookupError:
        limiter = trio.CapacityLimiter(MAX_THREADS)
        _limiter.set(limiter)
        return limiter
