"""Call user code: tools, hooks, handlers. The only place where its exceptions are caught, and the threads it has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import isawaitable
from typing import Any

import trio

from agentloop._core.foreign_errors import describe
from agentloop._runtime.exception_groups import failure_of

__all__ = [
    "MAX_TOOL_THREADS",
    "UserCodeError",
    "call_in_thread",
    "call_user_code",
    "describe",
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


# Plain tools have threads of their own, which are not trio's. A plain tool that hangs holds its thread after its call
# has timed out, since a thread cannot be stopped. With trio's limiter, some forty of them would keep every other user
# of threads waiting: host names, files, databases. So plain tools have a limiter of their own, one for each `trio.run`.

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


def call_in_thread(function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """Call ``function`` in the thread that runs this.

    Raises:
      UserCodeError: the function called ``sys.exit()``, which ends nothing in a thread: it is a failure as well.
    """
    try:
        return function(**arguments)
    except (SystemExit, GeneratorExit) as error:
        raise UserCodeError(describe(error)) from error
