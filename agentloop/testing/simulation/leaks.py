"""Leaks of a run that Python or trio report where no test looks."""

from __future__ import annotations

import gc
import re
import sys
import warnings
from types import TracebackType
from typing import Any, Self

__all__ = ["LeakWatch"]


class LeakWatch:
    """Listens, while entered, for unraisable errors, and for warnings that something was left unfinished.

    Other warnings are passed on when it is left. The garbage collector does not run meanwhile except at the end,
    and then over the youngest objects only, which are those of this run: a full collection would take ten times
    as long as the run, and could blame it for what others left behind.
    """

    def __init__(self) -> None:
        self.found: list[str] = []
        """The leaks, a sentence each; complete when the block has been left."""

    def __enter__(self) -> Self:
        self._gc_enabled = gc.isenabled()
        gc.collect(0)
        gc.disable()
        self._unraisable_hook = sys.unraisablehook
        sys.unraisablehook = self._on_unraisable
        self._catch = warnings.catch_warnings(record=True)
        self._log = self._catch.__enter__()
        # Also where the caller's filters make errors of them: raised in a finalizer, an error is only printed.
        warnings.simplefilter("always", ResourceWarning)
        warnings.simplefilter("always", RuntimeWarning)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            gc.collect(0)
        finally:
            self._catch.__exit__(exc_type, exc, traceback)
            sys.unraisablehook = self._unraisable_hook
            if self._gc_enabled:
                gc.enable()
        for warning in self._log or ():
            if _is_leak(warning):
                # Without addresses, which differ from run to run.
                text = re.sub(r" at (0x)?[0-9a-fA-F]{6,}", "", str(warning.message))
                self.found.append(f"{warning.category.__name__}: {text}")
            else:
                warnings.showwarning(
                    warning.message, warning.category, warning.filename, warning.lineno, warning.file, warning.line
                )

    def _on_unraisable(self, unraisable: Any) -> None:
        # Text only: to keep the object would bring it back to life.
        if unraisable.object is not None:
            where = getattr(unraisable.object, "__qualname__", type(unraisable.object).__name__)
        elif unraisable.exc_traceback is not None:
            # From Python 3.14 on, a finalizer is named in the message only, with its address.
            where = unraisable.exc_traceback.tb_frame.f_code.co_qualname
        else:
            where = "unknown code"
        self.found.append(f"unraisable {unraisable.exc_type.__name__} in {where}: {unraisable.exc_value}")


def _is_leak(warning: warnings.WarningMessage) -> bool:
    if issubclass(warning.category, ResourceWarning):
        return True
    return issubclass(warning.category, RuntimeWarning) and "never awaited" in str(warning.message)
