"""Traces and metrics of runs with OpenTelemetry: one line for a process, or an observer for an agent.

::

    import agentloop.telemetry

    agentloop.telemetry.instrument()

Each run is a span ``invoke_agent``, each request to a model a span ``chat`` inside it, each tool call a span
``execute_tool``, and the runs of sub-agents are inside the tool calls that opened them. Names and attributes are those
of the GenAI conventions of OpenTelemetry. Spans that a tool, a hook or a model opens are inside these.

This module needs the extra ``otel``, which is the API of OpenTelemetry. The program brings the SDK, and configures it.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from agentloop.errors import MissingExtraError
from agentloop.observers import add_observer, remove_observer

try:
    from agentloop.telemetry._tracing import Tracing
except ModuleNotFoundError as error:
    raise MissingExtraError(feature="Tracing", extra="otel", package="opentelemetry-api") from error

__all__ = ["Instrumentation", "Tracing", "instrument"]


class Instrumentation:
    """The handle of `instrument`. Also a context manager, which undoes it at its end."""

    def __init__(self, tracing: Tracing) -> None:
        self.tracing = tracing
        """The observer that traces the runs of this process."""

    def undo(self) -> None:
        """Trace no run that is opened from now on. Runs that are open are traced to their end. Idempotent."""
        remove_observer(self.tracing)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.undo()


def instrument(**options: Any) -> Instrumentation:
    """Trace every run of this process that is opened from now on, of any agent.

    Args:
      options: those of `Tracing`.

    Returns:
      A handle, whose ``undo()`` ends it.
    """
    tracing = Tracing(**options)
    add_observer(tracing)
    return Instrumentation(tracing)
