"""Finish spans in a thread, so that no span processor and no exporter can hold up a run.

``span.end()`` calls the span processors of the SDK, and some of them export the span at once, over a network: the call
takes as long as that does, and may never return. Here a run only puts a function into a queue that finishes its span:
that sets the attributes of the end, records the metrics, and ends the span, whose end time was taken before. Most of
the time that tracing takes is spent so while the run waits for its model. The queue is bounded, and a processor that
raises costs its span and nothing else.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TypeAlias

__all__ = ["SpanEnder"]

LOGGER = logging.getLogger("agentloop.telemetry")

MAX_WAITING = 10_000
"""Spans that wait to be finished. Those that come when the queue is full are lost, as in the SDK's own queue."""

BATCH = 128
"""Spans that wake the thread at once."""

BATCH_SECONDS = 0.05
"""Seconds after which the thread looks for spans, if it is not woken. To wake it for each span would take as long as to
start one."""

SPANS_AT_ONCE, PAUSE_SECONDS = 8, 0.0005
"""Spans that the thread finishes before it gives way to the others, and for how long. A span takes as long as some
events: without a pause, a run would wait for all of them whenever it has waited for a socket. There is no pause while
`SpanEnder.flush` waits: its caller, a run that ends above all, would wait for the pauses as well."""

IDLE_SECONDS = 5.0
"""Seconds without a span after which the thread ends."""

DRAIN_SECONDS = 0.02
"""Seconds that the end of a run may wait for its spans. A processor that is too slow is not waited for again."""

EXIT_SECONDS = 2.0
"""Seconds that the end of the process waits for spans."""

_Finish: TypeAlias = Callable[[], object]


class SpanEnder:
    """Finishes spans, in order, in a thread that runs while there are spans to finish."""

    def __init__(self) -> None:
        self._waiting: deque[_Finish] = deque()
        self._wake = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._is_running = False
        self._is_slow = False
        self._lost = 0
        self._marks: set[threading.Event] = set()
        """One for each `flush` that waits, set when the thread has come to it."""

    def end(self, finish: _Finish) -> None:
        """Have ``finish()`` called, which ends a span. Does not wait, does not fail."""
        waiting = len(self._waiting)
        if waiting >= MAX_WAITING:
            if not self._lost:
                LOGGER.error("spans are lost: %d of them wait for a span processor that is too slow", MAX_WAITING)
            self._lost += 1
            return
        self._put(finish)
        if waiting >= BATCH:
            self._wake.set()

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
        self._marks.add(mark)
        try:
            self._put(mark.set)
            self._wake.set()
            return mark.wait(seconds)
        finally:
            self._marks.discard(mark)

    def _put(self, finish: _Finish) -> None:
        self._waiting.append(finish)
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
                LOGGER.warning("spans cannot be finished now: %s", error)

    def _run(self) -> None:
        last = time.monotonic()
        while True:
            self._wake.wait(BATCH_SECONDS)
            self._wake.clear()
            while self._waiting:
                self._finish_some()
                last = time.monotonic()
                if self._waiting and not self._marks and not self._wake.is_set():
                    # Let the thread of the runs go on if it has work.
                    time.sleep(PAUSE_SECONDS)
            if time.monotonic() - last >= IDLE_SECONDS:
                with self._lock:
                    # In this order: a span that comes after the look into the queue starts another thread.
                    self._is_running = False
                    if not self._waiting:
                        return
                    self._is_running = True

    def _finish_some(self) -> None:
        for _ in range(min(len(self._waiting), SPANS_AT_ONCE)):
            try:
                self._waiting.popleft()()
            except BaseException:  # noqa: ASYNC103 - of code that is no task of trio
                LOGGER.exception("a span could not be finished")
