"""Execute the steps of a run inside the context managers of its observers: see `agentloop.observers`.

The context managers are user code. Whatever they raise is logged, and the step is executed all the same; they swallow
no exception of the step.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager
from types import TracebackType

from agentloop._runtime.exception_groups import failure_of
from agentloop._runtime.logs import RUN, log
from agentloop.observers import Observer, Step, StepObserver

__all__ = ["Surrounded", "step_observers"]


def step_observers(observers: Sequence[Observer]) -> tuple[StepObserver, ...]:
    """Those of ``observers`` that surround steps, those of the innermost run first."""
    return tuple([observer for observer in reversed(observers) if isinstance(observer, StepObserver)])


class Surrounded:
    """A context manager that enters those of ``observers`` for ``step``."""

    __slots__ = ("_entered", "_observers", "_step")

    def __init__(self, observers: Sequence[StepObserver], step: Step) -> None:
        self._observers = observers
        self._step = step
        self._entered: list[tuple[StepObserver, AbstractContextManager[object]]] = []

    def __enter__(self) -> None:
        for observer in self._observers:
            try:
                manager = observer.around(self._step)
                manager.__enter__()
            except BaseException as raised:  # noqa: ASYNC103, BLE001 - `failure_of` raises an interrupt again
                self._log(observer, raised)
            else:
                self._entered.append((observer, manager))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        while self._entered:
            observer, manager = self._entered.pop()
            try:
                manager.__exit__(kind, error, traceback)
            except BaseException as raised:  # noqa: ASYNC103, BLE001 - as above
                if raised is not error:
                    self._log(observer, raised)

    def _log(self, observer: StepObserver, raised: BaseException) -> None:
        error = failure_of(raised)
        name, step, stream = type(observer).__qualname__, type(self._step).__name__, self._step.source.stream
        log(RUN, logging.ERROR, "stream %r: observer %s failed around a %s", stream, name, step, error=error)
