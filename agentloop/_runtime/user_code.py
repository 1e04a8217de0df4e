"""Call user code: tools, hooks, handlers. The only place where its exceptions are caught."""

from __future__ import annotations

from collections.abc import Callable
from inspect import isawaitable
from typing import Any

import trio

from agentloop._core.results import words_of
from agentloop._runtime.exception_groups import single

__all__ = ["UserCodeError", "call_user_code", "describe"]


class UserCodeError(Exception):
    """User code raised, or took too long. The message says which, in words for a person or a model."""

    def __init__(self, message: str, *, timed_out: bool = False) -> None:
        super().__init__(message)
        self.timed_out = timed_out


def describe(error: BaseException) -> str:
    """``error`` in one line, such as ``ValueError: no such city``."""
    text = words_of(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


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
    except Exception as group:  # noqa: BLE001 - user code may raise anything
        error = single(group)
        raise UserCodeError(describe(error)) from error
    raise UserCodeError("it took too long", timed_out=True)
