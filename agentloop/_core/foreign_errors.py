"""Exceptions of user code in words: their ``__str__`` is user code as well, and may raise."""

from __future__ import annotations

from agentloop._core.field_checks import plain_text

__all__ = ["describe", "error_text"]


def error_text(error: BaseException) -> str:
    """The text of ``error``, in whole characters; a note in its place, if ``__str__`` raises. Never raises itself."""
    try:
        return plain_text(str(error))
    except Exception as flaw:  # noqa: BLE001 - `__str__` may raise anything
        return f"(its text cannot be shown: __str__ raised {type(flaw).__name__})"


def describe(error: BaseException) -> str:
    """``error`` in one line, such as ``ValueError: no such city``. Never raises."""
    text = error_text(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
