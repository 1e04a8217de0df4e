"""Simulated threads: `trio.to_thread.run_sync` with one thread at a time, in an order that the schedule chooses.

A function that trio sends to a thread runs in a real thread, but only while trio's loop waits for it: until it
returns, sleeps by ``time.sleep``, or calls `trio.from_thread`. A task of the simulation stands for the thread in
trio's loop, so that the schedule orders the thread among the tasks, and a sleep takes virtual time.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

import outcome
import trio
from attrs import Factory, define

from agentloop.testing.simulation.errors import Abandoned, HarnessError

__all__ = ["Threads", "Worker", "current_worker"]

REAL_SECONDS = 10.0
"""How long a function may keep trio's loop waiting in real time. It waits for another thread, or for the world."""
MOST_PAUSES = 100
"""How often a function of a run that is being ended may sleep again, or call trio again."""

_real_sleep = time.sleep


class _Current(threading.local):
    worker: Worker | None = None


_CURRENT = _Current()
_IDLE: list[Worker] = []
# A forked process has none of the threads.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_IDLE.clear)


def current_worker() -> Worker | None:
    """The simulated thread that calls, if one does."""
    return _CURRENT.worker


@define(eq=False)
class _Done:
    result: outcome.Outcome[object]


@define(eq=False)
class _Sleep:
    seconds: float


@define(eq=False)
class Answer:
    """Stands in for the queue on which a thread waits for trio's answer to a call by `trio.from_thread`."""

    worker: Worker
    event: trio.Event = Factory(trio.Event)
    result: outcome.Outcome[Any] | None = None

    def put_nowait(self, result: outcome.Outcome[Any]) -> None:
        """Called in trio's thread: the thread may go on in a step of its own."""
        self.result = result
        self.event.set()

    def get(self) -> outcome.Outcome[Any]:
        """Called in the worker: let trio's loop run until the answer is there."""
        self.worker.pause(self)
        assert self.result is not None
        return self.result


class Worker:
    """A real thread that runs only between `resume` and its next pause."""

    def __init__(self, start: Callable[[threading.Thread], object]) -> None:
        self._turn = threading.Semaphore(0)
        self._back = threading.Semaphore(0)
        self._function: Callable[[], object] | None = None
        self._pause: _Done | _Sleep | Answer | None = None
        self._is_abandoned = False
        self._thread = threading.Thread(target=self._work, daemon=True, name="simulated thread")
        start(self._thread)

    def begin(self, function: Callable[[], object]) -> None:
        """Take a function, to run it at the first `resume`."""
        self._function = function
        self._is_abandoned = False

    def resume(self) -> _Done | _Sleep | Answer | None:
        """Run to the next pause, and return it; None if the function does not come to one in time."""
        self._turn.release()
        if not self._back.acquire(timeout=REAL_SECONDS):
            return None
        # The result is not to live on in an idle thread: a file that was left open would not be found.
        pause, self._pause = self._pause, None
        return pause

    def abandon(self) -> None:
        """Have the function unwind, with an error raised wherever it pauses."""
        self._is_abandoned = True
        for _ in range(MOST_PAUSES):
            pause = self.resume()
            if pause is None:
                return
            if isinstance(pause, _Done):
                self.free()
                return

    def free(self) -> None:
        """The function has ended: keep the thread for another one."""
        _IDLE.append(self)

    def pause(self, pause: _Done | _Sleep | Answer) -> None:
        """Called in the worker: give the turn back to trio's loop, and wait for the next one."""
        self._pause = pause
        self._hand_over()
        if self._is_abandoned:
            raise Abandoned("the run is stuck, and is being ended")

    def _hand_over(self) -> None:
        self._back.release()
        self._turn.acquire()

    def where(self) -> str:
        """The position of the function, for an error."""
        frame = sys._current_frames().get(self._thread.ident or 0)
        return "" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_qualname}"

    def _work(self) -> None:
        _CURRENT.worker = self
        self._turn.acquire()
        while True:
            assert self._function is not None
            # In no variable, which would keep the result alive.
            self._pause = _Done(outcome.capture(self._function))
            self._function = None
            self._hand_over()


class Threads:
    """Stands in for trio's cache of threads, and for the functions by which a thread waits.

    Args:
      thread: the identity of the thread in which the simulation runs.
      start: starts a real thread.
      refuse: notes that the scenario needs something that the simulation has not got.
      fails: the error with which the call that is being made is to fail, if it is.
    """

    def __init__(
        self,
        thread: int,
        start: Callable[[threading.Thread], object],
        refuse: Callable[[str], HarnessError],
        fails: Callable[[], OSError | None],
    ) -> None:
        self._thread = thread
        self._start = start
        self._refuse = refuse
        self._fails = fails
        self.tasks: set[trio.lowlevel.Task] = set()
        """The tasks that stand for threads."""

    def is_mine(self) -> bool:
        """Whether the caller runs in the simulation, or in one of its threads."""
        return threading.get_ident() == self._thread or _CURRENT.worker is not None

    def start_thread_soon(
        self,
        fn: Callable[[], object],
        deliver: Callable[[outcome.Outcome[Any]], object],
        name: str | None = None,
    ) -> None:
        """Have ``fn`` run in a thread of its own, soon, and its result delivered."""
        error = self._fails()
        function = fn if error is None else _raises(error)
        try:
            task = trio.lowlevel.spawn_system_task(self._live, function, deliver, name=f"thread {name}")
        except RuntimeError:
            # The run is over but for the finalizers of async generators: there is nothing to interleave with.
            deliver(outcome.capture(function))
        else:
            self.tasks.add(task)

    async def _live(self, function: Callable[[], object], deliver: Callable[[outcome.Outcome[Any]], object]) -> None:
        """Live as the thread does: not to be cancelled, and as long as the function runs."""
        worker = _IDLE.pop() if _IDLE else Worker(self._start)
        worker.begin(function)
        try:
            result = await self._run(worker)
        except Abandoned as error:
            worker.abandon()
            deliver(outcome.Error(error))
        except HarnessError as error:
            deliver(outcome.Error(error))
        else:
            worker.free()
            deliver(result)

    async def _run(self, worker: Worker) -> outcome.Outcome[Any]:
        with trio.CancelScope(shield=True):
            await trio.lowlevel.checkpoint()
        while True:
            pause = worker.resume()
            if isinstance(pause, _Done):
                return pause.result
            if pause is None:
                raise self._refuse(
                    f"a thread that waits for another thread, or for something outside, at {worker.where()}"
                )
            with trio.CancelScope(shield=True):
                if isinstance(pause, _Sleep):
                    await trio.sleep(pause.seconds)
                else:
                    await pause.event.wait()


def sleep(seconds: float, /) -> None:
    """Stand in for ``time.sleep``: a simulated thread sleeps in virtual time, and any other in real time."""
    worker = _CURRENT.worker
    if worker is None or seconds < 0:
        _real_sleep(seconds)
    else:
        worker.pause(_Sleep(seconds))


def _raises(error: OSError) -> Callable[[], NoReturn]:
    def fail() -> NoReturn:
        raise error

    return fail
