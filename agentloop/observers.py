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

**Steps.** Events come after the fact, in a task of the observer's own. A tracer needs more: the time at which a step
of a run begins, and context variables that user code finds while the step lasts. So an observer may also have a method
``around(step)``. It returns a context manager, in which the runtime executes the step: a run (`RunStep`), a tool call
(`ToolStep`) or a request to a model (`ModelStep`). Context variables that it sets hold for all user code of the step,
in its tasks and threads. Like ``observe``, it changes nothing and must not block; an exception is logged. A third
method, ``leave(source)``, is called when the observer has seen the last event of a run, or sees no more of it. Without
an observer that has ``around``, steps cost nothing.

**Patience.** To wake an observer takes as long as some events do. One that has a class attribute ``wakes_for``, the
kinds of events that it must see soon, gets other events together with those, or when 32 are waiting, or at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from contextvars import ContextVar
from inspect import iscoroutinefunction
from typing import Protocol, TypeAlias, cast, runtime_checkable

import msgspec

from agentloop.errors import UsageError
from agentloop.events import ErrorInfo, RequestPurpose, Source, StreamEvent
from agentloop.messages import AssistantMessage, ToolResult, Usage, UserMessage
from agentloop.models import ModelRequest
from agentloop.outcome import Outcome

__all__ = [
    "TRACE_HEADERS",
    "ModelStep",
    "Observer",
    "RunStep",
    "Step",
    "StepObserver",
    "ToolStep",
    "add_observer",
    "check_observer",
    "of_process",
    "remove_observer",
]

TRACE_HEADERS: ContextVar[Callable[[], Mapping[str, str]] | None] = ContextVar("TRACE_HEADERS", default=None)
"""A function that gives the headers by which the next server continues the trace, such as ``traceparent``. A step
observer sets it; models behind HTTP send the headers with each request."""


# --------------------------------------------------------------------------------- steps


class RunStep(msgspec.Struct, eq=False, kw_only=True, weakref=True):
    """A run, from its first step to its end."""

    source: Source
    """The run's own. Each of its events carries this object."""
    parent: Source | None
    """That of the run around it; ``None`` at the root."""
    call_id: str
    """Id of the call, in the run around it, that opened it; empty at the root."""
    background: str = ""
    """Id of the background run that it is, which may outlive its call; empty for all others."""
    model: str
    """Name of the model that is asked first."""
    message: UserMessage
    """The prompt."""
    resumes: str
    """Id of the stream that it resumes; empty for a new run."""
    notes: Mapping[str, str]
    """The notes that observers took of the stream that it resumes: see ``take_note``."""
    take_note: Callable[[str, str], None]
    """``take_note(name, text)`` saves a short text in the session's journal, for the run that resumes this one, in any
    process. Has no effect without a journal."""
    outcome: Outcome | None = None
    """Set when the run has ended; ``None`` if its ending was interrupted."""


class ToolStep(msgspec.Struct, eq=False, kw_only=True, weakref=True):
    """A tool call: permission checks, approval and execution."""

    source: Source
    """The run's own."""
    call_id: str
    """Id of the call."""
    name: str
    """Name of the tool, as the model wrote it."""
    arguments: str
    """JSON text, as the model wrote it."""
    description: str | None
    """The tool's description; ``None`` if there is no such tool."""
    result: ToolResult | None = None
    """Set when the call has ended; ``None`` if the call was parked."""
    error: ErrorInfo | None = None
    """Set to the exception that the tool raised, if it did."""


class ModelStep(msgspec.Struct, eq=False, kw_only=True, weakref=True):
    """A request to a model, up to the end of its response. A retry is a step of its own."""

    source: Source
    """The run's own."""
    model: str
    """`Model.name`."""
    request: ModelRequest
    """The request, as hooks changed it."""
    purpose: RequestPurpose
    """What the model is asked for."""
    call_id: str
    """Id of the tool call that asks, if the purpose is ``tool``."""
    seconds_to_first: float | None = None
    """Seconds of real time from the request to the first piece of the response; ``None`` if there was none."""
    message: AssistantMessage | None = None
    """Set to the response when it is complete."""
    usage: Usage | None = None
    """Set to the usage that counts, with its cost: that of `UsageReported`."""
    error: BaseException | None = None
    """Set to the error that ended the response, a cancellation included."""


Step: TypeAlias = RunStep | ToolStep | ModelStep
"""A part of a run that an observer can surround."""


class Observer(Protocol):
    """An object that sees events."""

    def observe(self, event: StreamEvent, /) -> None:
        """See ``event``. Must not block."""
        ...


@runtime_checkable
class StepObserver(Protocol):
    """An observer that also surrounds the steps of a run."""

    def observe(self, event: StreamEvent, /) -> None:
        """See ``event``. Must not block."""
        ...

    def around(self, step: Step, /) -> AbstractContextManager[object]:
        """A context manager to execute ``step`` in. Must not block.

        The fields of the step that say how it ended are set before the context manager is left.
        """
        ...

    def leave(self, source: Source, /) -> None:
        """See no more of the run of ``source``. Must not block."""
        ...


# ----------------------------------------------------------------- observers of the process

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
