"""Exceptions of user code in words: their ``__str__`` is user code as well, and may raise."""

from __future__ import annotations

from agentloop._core.field_checks import plain_text

__all__ = ["describe", "error_name", "error_text"]


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
    """``error`` in one line, such as ``ValueError: no such city``. Never raises."""
    text = error_text(error)
    return f"{error_name(error)}: {text}" if text else error_name(error)
