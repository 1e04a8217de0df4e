"""Calling code that is not ours: tools, hooks, handlers. Whatever they raise is caught here, and only here."""

from __future__ import annotations

from collections.abc import Callable
from inspect import isawaitable
from typing import Any

import trio

from agentloop._runtime.groups import single

__all__ = ["ForeignError", "call_foreign", "describe"]


class ForeignError(Exception):
    """Code that is not ours raised, or took too long. The message says which, in words for a person or a model."""

    def __init__(self, message: str, *, timed_out: bool = False) -> None:
        super().__init__(message)
        self.timed_out = timed_out


def describe(error: BaseException) -> str:
    """``error`` in one line, such as ``ValueError: no such city``."""
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


async def call_foreign(scope: trio.CancelScope, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Call ``function``, await its result if that is awaitable, and return it.

    Args:
      scope: a cancel scope with the deadline. Entered here.

    Raises:
      ForeignError: the function raised, or the deadline passed. ``__cause__`` is the exception, if there is one.
    """
    try:
        with scope:
            value: Any = function(*args, **kwargs)
            return (await value) if isawaitable(value) else value
    # Around the scope: one that takes away the cancellations of a mixed group leaves the plain errors of it.
    except Exception as group:  # noqa: BLE001 - what raises here is not ours
        error = single(group)
        raise ForeignError(describe(error)) from error
    raise ForeignError("it took too long", timed_out=True)
