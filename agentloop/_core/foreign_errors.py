"""Exceptions of user code in words: their ``__str__`` is user code as well, and may raise."""

from __future__ import annotations

from agentloop._core.field_checks import plain_text

__all__ = ["describe", "error_name", "error_text", "wrong_loop"]

ASYNCIO_ON_TRIO = (
    "this is asyncio code, and it was called by trio: decorate a tool of asyncio code with @asyncio_tool, and pass any "
    "other function, toolset or model of asyncio code as aio_as_trio(...); both are in agentloop.asyncio"
)
TRIO_ON_ASYNCIO = (
    "this is trio code, and it was called by asyncio: write `await agentloop.asyncio.call(function, ...)` in the place "
    "of `await function(...)`, and decorate a tool of trio code with @tool"
)


def wrong_loop(error: BaseException) -> str:
    """What to write, if ``error`` says that code of asyncio runs on trio, or the other way round; empty otherwise."""
    if isinstance(error, TypeError):
        return ASYNCIO_ON_TRIO if _str(error).startswith("trio.run received unrecognized yield message ") else ""
    if not isinstance(error, RuntimeError):
        return ""
    text = _str(error)
    if text == "no running event loop" or text.endswith(("should be used inside a task", "determine the parent task")):
        return ASYNCIO_ON_TRIO
    if text == "must be called from async context" or text.startswith("Task got bad yield: <class 'trio."):
        return TRIO_ON_ASYNCIO
    return ""


def _str(error: BaseException) -> str:
    # The class of the interpreter, whose text is no user code.
    return str(error) if type(error) in (TypeError, RuntimeError) else ""


def error_text(error: BaseException) -> str:
    """The text of ``error``, in whole characters; a note in its place, if ``__str__`` raises. Never raises itself."""
    try:
        return plain_text(str(error))
    except (Exception, SystemExit) as flaw:  # noqa: BLE001 - `__str__` may raise anything
        return f"(its text cannot be shown: __str__ raised {error_name(flaw)})"


def error_name(error: BaseException) -> str:
    """The name of the class of ``error``. Never raises: a metaclass may define another ``__name__``."""
    name: str = type.__dict__["__name__"].__get__(type(error))
    return name


def describe(error: BaseException) -> str:
    """``error`` in one line, such as ``ValueError: no such city``, or what to write instead. Never raises."""
    if advice := wrong_loop(error):
        return advice
    text = error_text(error)
    return f"{error_name(error)}: {text}" if text else error_name(error)
