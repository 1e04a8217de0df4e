"""End spans in a thread, so that no span processor and no exporter can hold up a run.

``span.end()`` calls the span processors of the SDK, and some of them export the span at once, over a network: the call
takes as long as that does, and may never return. Here a run only puts its span into a queue, with the time at which the
span ended. The queue is bounded, and a processor that raises costs its span and nothing else.
"""

from __future__ import annotations

import atexit
import logging
import queue
import threading
from typing import TypeAlias

from opentelemetry.trace import Span

__all__ = ["SpanEnder"]

LOGGER = logging.getLogger("agentloop.telemetry")

MAX_WAITING = 10_000
"""Spans that wait to be ended. Those that come when the queue is full are lost, as in the SDK's own queue."""

IDLE_SECONDS = 5.0
"""Seconds without a span after which the thread ends."""

DRAIN_SECONDS = 0.02
"""Seconds that the end of a run may wait for its spans. A processor that is too slow is not waited for again."""

EXIT_SECONDS = 2.0
"""Seconds that the end of the process waits for spans."""

_Entry: TypeAlias = tuple[Span, int] | threading.Event


class SpanEnder:
    """Ends spans, in order, in a thread that runs while there are spans to end."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[_Entry] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._is_running = False
        self._is_slow = False
        self._lost = 0

    def end(self, span: Span, at: int) -> None:
        """End ``span``, whose end was at ``at`` (nanoseconds since 1970). Does not wait, does not fail."""
        if self._queue.qsize() >= MAX_WAITING:
            if not self._lost:
                LOGGER.error("spans are lost: %d of them wait for a span processor that is too slow", MAX_WAITING)
            self._lost += 1
            return
        self._put((span, at))

    def drain(self) -> None:
        """Wait a moment until the spans so far have ended, unless an earlier moment was too short."""
        if not self._is_slow and not self.flush(DRAIN_SECONDS):
            self._is_slow = True
            text = "a span processor took more than %g s: runs do not wait for it from now on, and flush() does"
            LOGGER.warning(text, DRAIN_SECONDS)

    def flush(self, seconds: float) -> bool:
        """Wait until the spans so far have ended, up to ``seconds``. Returns whether they have."""
        if self._thread is None:
            return True
        mark = threading.Event()
        self._put(mark)
        return mark.wait(seconds)

    def _put(self, entry: _Entry) -> None:
        self._queue.put(entry)
        # A thread is not alive after a fork, either.
        if not self._is_running or self._thread is None or not self._thread.is_alive():
            self._start()

    def _start(self) -> None:
        with self._lock:
            if self._is_running and self._thread is not None and self._thread.is_alive():
                return
            if self._thread is None:
                atexit.register(self.flush, EXIT_SECONDS)
            thread = threading.Thread(target=self._run, name="agentloop-spans", daemon=True)
            self._thread, self._is_running = thread, True
            try:
                thread.start()
            except RuntimeError as error:
                # The machine has no more threads. The spans wait for the next attempt.
                self._is_running = False
                LOGGER.warning("spans cannot be ended now: %s", error)

    def _run(self) -> None:
        while True:
            try:
                entry = self._queue.get(timeout=IDLE_SECONDS)
            except queue.Empty:
                with self._lock:
                    # In this order: an entry that comes after the look into the queue starts another thread.
                    self._is_running = False
                    if self._queue.empty():
                        return
                    self._is_running = True
                continue
            if isinstance(entry, threading.Event):
                entry.set()
                continue
            span, at = entry
            try:
                span.end(at)
            except BaseException:
                LOGGER.exception("a span could not be ended")
