"""Observers: user code that sees every event of a run, and changes nothing in it.

An observer is an object with a method ``observe(event)``, such as a tracer or a counter::

    class Counter:
        def __init__(self) -> None:
            self.calls = 0

        def observe(self, event: StreamEvent) -> None:
            if isinstance(event, ToolCallFinished):
                self.calls += 1

    agent = Agent(model, observers=[Counter()])

The observers of an agent see the events of its runs, and of the runs inside those; `add_observer` is for all runs of
the process. An observer that belongs to a run and to one around it gets each event once. It gets the events as the
reader of the root stream does: in order, once they are saved if the session has a journal, up to the last one, also
when the reader has left. A stream's block ends after its observers have seen its last event.

An observer cannot change a run, fail it or hold it up. A call that raises is logged, with its traceback, and the
observer sees no more of that run. ``observe`` is called in trio's thread, between the steps of the run, so it must not
block: work that waits belongs in a queue, a thread or a task of the observer's own.
"""

from __future__ import annotations

from inspect import iscoroutinefunction
from typing import Protocol, cast

from agentloop.errors import UsageError
from agentloop.events import StreamEvent

__all__ = ["Observer", "add_observer", "check_observer", "of_process", "remove_observer"]


class Observer(Protocol):
    """An object that sees events."""

    def observe(self, event: StreamEvent, /) -> None:
        """See ``event``. Must not block."""
        ...


of_process: list[Observer] = []
"""The observers that `add_observer` has added, in order. Changed by that function and by `remove_observer` only."""


def add_observer(observer: Observer) -> None:
    """Have ``observer`` see the events of every run of this process that is opened from now on, of any agent.

    Raises:
      UsageError: ``observer`` has no method ``observe``, or an async one.
    """
    check_observer(observer)
    if all(other is not observer for other in of_process):
        of_process.append(observer)


def remove_observer(observer: Observer) -> None:
    """Undo `add_observer`, for runs that are opened from now on."""
    of_process[:] = [other for other in of_process if other is not observer]


def check_observer(observer: object) -> Observer:
    """Return ``observer``. Raises `UsageError` if it is none."""
    observe = getattr(observer, "observe", None)
    if not callable(observe) or isinstance(observer, type):
        raise UsageError(f"an observer is an object with a method observe(event), not {observer!r}")
    if iscoroutinefunction(observe):
        raise UsageError(f"the method observe() of {observer!r} is async: make it a plain one, which must not block")
    return cast("Observer", observer)
