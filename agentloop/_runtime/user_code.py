"""Call user code: tools, hooks, handlers. The only place where its exceptions are caught, and the threads it has."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from inspect import isawaitable
from threading import Lock
from typing import Any

import trio

from agentloop._core.foreign_errors import describe
from agentloop._runtime.blocks import is_real
from agentloop._runtime.exception_groups import failure_of

__all__ = [
    "MAX_TOOL_THREADS",
    "UserCodeError",
    "call_in_thread",
    "call_user_code",
    "describe",
    "in_thread_if_plain",
    "tool_threads",
]


class UserCodeError(Exception):
    """User code raised, or took too long. The message says which, in words for a person or a model."""

    def __init__(self, message: str, *, timed_out: bool = False) -> None:
        super().__init__(message)
        self.timed_out = timed_out


async def call_user_code(
    scope: trio.CancelScope | None, function: Callable[..., Any], /, *args: Any, **kwargs: Any
) -> Any:
    """Call ``function``, await its result if that is awaitable, and return it.

    Args:
      scope: a cancel scope with the deadline. Entered here. ``None`` where a scope around the call has it.

    Raises:
      UserCodeError: the function raised, or the deadline passed. ``__cause__`` is the exception, if there is one.
    """
    try:
        if scope is None:
            value: Any = function(*args, **kwargs)
            return (await value) if isawaitable(value) else value
        with scope:
            value = function(*args, **kwargs)
            return (await value) if isawaitable(value) else value
    # Around the scope: one that takes away the cancellations of a mixed group leaves the plain errors of it.
    except UserCodeError:
        raise
    except BaseException as group:  # noqa: BLE001 - `failure_of` raises a cancellation and an interrupt again
        error = failure_of(group)
        raise UserCodeError(describe(error)) from error  # noqa: ASYNC104 - as above
    raise UserCodeError("it took too long", timed_out=True)


# --------------------------------------------------------------------- threads


# Plain functions of users run in threads: one that blocks must not stop the loop, nor its own deadline. One that hangs
# holds its thread after its deadline, since a thread cannot be stopped. With trio's limiter, some forty of them would
# keep every other user of threads waiting: host names, files, databases. With one limiter for all of them, guards would
# wait for hanging tools. So plain tools have a limiter of their own, and hooks and other functions have another: one of
# each for each `trio.run`.

MAX_TOOL_THREADS = 64
"""Plain tools that run at once. A call beyond them waits for a thread, until its own deadline."""
MAX_HOOK_THREADS = 64
"""Plain functions that are no tools, such as hooks, that run at once. A call beyond them waits likewise."""

# In a `RunVar`: an abandoned thread gives its token back only while the trio run that lent it still runs.
_tool_limiter: trio.lowlevel.RunVar[trio.CapacityLimiter] = trio.lowlevel.RunVar("agentloop_tool_threads")
_hook_limiter: trio.lowlevel.RunVar[trio.CapacityLimiter] = trio.lowlevel.RunVar("agentloop_hook_threads")


def _limiter(of_run: trio.lowlevel.RunVar[trio.CapacityLimiter], threads: int) -> trio.CapacityLimiter:
    try:
        return of_run.get()
    except LookupError:
        limiter = trio.CapacityLimiter(threads)
        of_run.set(limiter)
        return limiter


def tool_threads() -> trio.CapacityLimiter:
    """The limiter of this `trio.run` for the threads of plain tools."""
    return _limiter(_tool_limiter, MAX_TOOL_THREADS)


def call_in_thread(function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """Call the ``function`` of a plain tool in the thread that runs this.

    Raises:
      UserCodeError: the function called ``sys.exit()``, which ends nothing in a thread: it is a failure as well.
    """
    try:
        return function(**arguments)
    except (SystemExit, GeneratorExit) as error:
        raise UserCodeError(describe(error)) from error


def in_thread_if_plain(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` itself if it is async; otherwise an async function that calls it in a thread. For all but tools.

    On the virtual clock of a test, a plain function runs in the task itself: a thread takes real time, in which such a
    clock jumps to the next deadline, and the order of events would depend on the machine.
    """
    if _is_async(function) or not is_real(trio.lowlevel.current_clock()):
        return function
    return partial(_await_in_thread, function)


def _is_async(function: Callable[..., Any]) -> bool:
    while isinstance(function, partial):
        function = function.func
    # An object with an async `__call__` counts as an async function.
    called = function if inspect.isroutine(function) else getattr(function, "__call__", function)  # noqa: B004
    return inspect.iscoroutinefunction(called)


async def _await_in_thread(function: Callable[..., Any], /, *args: Any) -> Any:
    # Locked for good, by the thread as it begins or by us as we give up: a function must not begin any later.
    begun = Lock()

    def call() -> tuple[Any]:
        try:
            # In a tuple, since trio refuses a coroutine here, as a plain wrapper of an async function returns it.
            return (function(*args) if begun.acquire(blocking=False) else None,)
        except (SystemExit, GeneratorExit) as error:
            # In a thread, it ends nothing: it is a failure like any other.
            raise UserCodeError(describe(error)) from error

    limiter = _limiter(_hook_limiter, MAX_HOOK_THREADS)
    try:
        (value,) = await trio.to_thread.run_sync(call, abandon_on_cancel=True, limiter=limiter)
    except trio.Cancelled:
        begun.acquire(blocking=False)
        raise
    return (await value) if isawaitable(value) else value
