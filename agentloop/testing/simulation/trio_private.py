"""Everything here that is not trio's public API, in one place.

Trio promises none of these names. Each is looked up when a simulation starts, so that one which has gone is an
error at once; whether trio still *asks* our stand-ins is checked after every run (see `Loop.asked`).

- ``_ALLOW_DETERMINISTIC_SCHEDULING`` and ``_r``: with the first set, trio sorts each batch of runnable tasks by
  age and has ``_r`` shuffle it. pytest-trio relies on the same two.
- ``Runner.runq``: what the batch was taken from; tasks put back there wait for the next pass.
- ``TheIOManager``: waits for the operating system. Ours waits for nothing and refuses to.
- ``CancelScope._relative_deadline``: whether the clock is read for a time limit, or for trio's own ends.
- ``THREAD_CACHE`` and ``_send_message_to_trio``: how trio starts threads, and how they call it.
- ``MemoryChannelState``: what a memory channel is made of.
- ``Task._cancel_status``: the scopes that a task is in.
- ``Task._next_send``, ``Task._attempt_abort``: what a task is resumed with, and how it is interrupted.
"""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import ctypes
import errno
import math
import random
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from types import FrameType, ModuleType
from typing import Any, NoReturn, Protocol

import outcome
import trio
from attrs import define, field, frozen
from trio import _channel, _threads  # noqa: ASYNC106 - they are private modules
from trio._core import _run, _thread_cache

from agentloop.testing.simulation import threads
from agentloop.testing.simulation.errors import HarnessError

__all__ = ["Host", "Loop", "Task", "scope_has_ended", "scopes_with_deadlines", "simulated", "who_asks_for_time"]

Task = trio.lowlevel.Task

# The type checkers' view of it is not its run-time value.
_CONTEXT: Any = _run.GLOBAL_RUN_CONTEXT
_SCOPE: Any = trio.CancelScope
_CANCEL_CALLED = _SCOPE.cancel_called.fget.__code__

_HOUSEKEEPING = frozenset({"<init>", "<TrioToken.run_sync_soon task>"})


class Host(Protocol):
    """The methods that the stand-ins call, from inside trio's loop."""

    def order(self, batch: list[Task], /) -> None:
        """Put ``batch`` in the order in which to run it, last first; take tasks out to leave them for later."""
        ...

    def on_idle(self, next_deadline: float, /) -> None:
        """No task can run before the next deadline, ``inf`` if there is none: move the clock, or end the run."""
        ...

    def refuse(self, facility: str, /) -> HarnessError:
        """Make a note that the scenario used ``facility``, and return the error to raise at it."""
        ...

    def start_thread(self, thread: threading.Thread, /) -> None:
        """Start a thread for `simulation.threads`."""
        ...

    def fail_io(self, operation: str, kind: type[OSError], number: int, /) -> OSError | None:
        """The error with which to fail a use of the network, or of a file; None if it is to succeed."""
        ...


class _Order(random.Random):
    """Stands in for trio's source of randomness. Other threads' runs get their random order as before."""

    host: Host | None = None
    thread = 0
    asked = False

    def shuffle(self, x: Any) -> None:
        if self.host is None or threading.get_ident() != self.thread:
            super().shuffle(x)
            return
        self.asked = True
        if len(x) > 1:
            self.host.order(x)


# Shared by all runs: seeding a `random.Random` takes longer than a short run's first steps.
_ORDER = _Order()


@frozen
class _IOStatistics:
    backend: str = "simulated"


class _StoppedError(Exception):
    """Ends a run from within trio's loop, which makes a `trio.TrioInternalError` of it."""


@define(eq=False)
class _NoIO:
    """Stands in for epoll: never waits, since the simulation has no outside world.

    Only the callbacks queued for trio run: finalizers of async generators, Ctrl-C.
    """

    host: Host
    stop: bool = False
    """Whether to end the run in the loop's next pass, there and then."""
    _callbacks: Task | None = field(default=None, init=False)
    """The task that runs them, while it waits for some."""

    def statistics(self) -> _IOStatistics:
        return _IOStatistics()

    def close(self) -> None:
        pass

    def force_wakeup(self) -> None:
        pass

    def get_events(self, _timeout: float) -> list[tuple[int, int]]:
        runner: _run.Runner = _CONTEXT.runner
        if self._callbacks is not None and runner.entry_queue.size():
            return [(0, 0)]
        # `wait_all_tasks_blocked` takes it from here by itself, whatever its cushion: we have waited long enough.
        if not runner.runq and not runner.waiting_for_idle:
            self.host.on_idle(runner.deadlines.next_deadline())
        return []

    def process_events(self, events: list[tuple[int, int]]) -> None:
        if self.stop:
            raise _StoppedError
        if events and self._callbacks is not None:
            task, self._callbacks = self._callbacks, None
            trio.lowlevel.reschedule(task)

    async def wait_readable(self, fd: object) -> None:
        if fd is not _CONTEXT.runner.entry_queue.wakeup.wakeup_sock:
            raise self.host.refuse("a file descriptor (wait_readable)")
        self._callbacks = trio.lowlevel.current_task()

        def abort(_: object) -> trio.lowlevel.Abort:
            self._callbacks = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def notify_closing(self, fd: object) -> None:
        pass

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        # wait_writable, and whatever else this platform's backend offers
        if name.startswith("_"):
            raise AttributeError(name)

        def refused(*_: object) -> NoReturn:
            raise self.host.refuse(f"a file descriptor ({name})")

        return refused


@frozen
class _ThreadCache:
    """Stands in for trio's cache of worker threads, which `trio.to_thread.run_sync` and its like take from."""

    threads: threads.Threads
    original: _thread_cache.ThreadCache

    def start_thread_soon(
        self, fn: Callable[[], object], deliver: Callable[[outcome.Outcome[object]], object], name: str | None = None
    ) -> None:
        cache = self.threads if self.threads.is_mine() else self.original
        cache.start_thread_soon(fn, deliver, name)


# What trio's files and paths do in a thread, as far as it can fail and nothing is then left half done. To close a file,
# or to remove one, never fails: a program cannot do more than try.
_FILE_OPERATIONS = {
    **dict.fromkeys(("open", "write", "writelines", "flush", "fsync", "truncate", "mkdir", "touch"), errno.ENOSPC),
    **dict.fromkeys(("write_text", "write_bytes", "rename", "replace", "symlink_to", "copy"), errno.ENOSPC),
    **dict.fromkeys(("read", "readline", "readlines", "read1", "readinto", "read_text", "read_bytes"), errno.EIO),
}


def _fails_file(host: Host) -> OSError | None:
    """The error with which the function for a thread, which is just being started, is to fail."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code is not trio.to_thread.run_sync.__code__:
        frame = frame.f_back
    if frame is None:
        return None
    caller = frame.f_back
    function = frame.f_locals["sync_fn"]
    # anyio's files call trio by way of anyio, which wraps the function.
    while caller is not None and caller.f_globals.get("__name__", "") in ("anyio.to_thread", "anyio._backends._trio"):
        function = caller.f_locals.get("func", function)
        caller = caller.f_back
    if caller is None or caller.f_globals.get("__name__", "") not in _FILES:
        return None
    name = getattr(getattr(function, "func", function), "__name__", "")
    number = _FILE_OPERATIONS.get(name)
    return None if number is None else host.fail_io(f"{name} of a file", OSError, number)


_FILES = frozenset({"trio._file_io", "trio._path", "anyio._core._fileio"})


@define(eq=False)
class _Channels:
    """The memory channels that the run has opened."""

    thread: int
    original: Any
    opened: list[tuple[Any, str]] = field(factory=list[tuple[Any, str]], init=False)

    def make(self, *args: Any, **options: Any) -> Any:
        state = self.original(*args, **options)
        if threading.get_ident() == self.thread:
            self.opened.append((state, _opener()))
        return state

    def left(self) -> list[str]:
        """The ends that are still open, with the lines that opened the channels."""
        ends = (("sending", "open_send_channels"), ("receiving", "open_receive_channels"))
        return [
            f"the {end} end of a memory channel that was opened at {place}"
            for state, place in self.opened
            for end, attribute in ends
            if getattr(state, attribute) > 0
        ]


def _opener() -> str:
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "trio":
        frame = frame.f_back
    return f"{frame.f_code.co_filename.rpartition('/')[2]}:{frame.f_lineno}"


class Loop:
    """Trio's loop in this thread, as long as `simulated` is entered."""

    def __init__(self, io: _NoIO, threads: threads.Threads, channels: _Channels) -> None:
        self._io = io
        self._threads = threads
        self._channels = channels
        self._runner: _run.Runner | None = None

    def attach(self) -> None:
        """Get hold of the run that is just starting."""
        self._runner = _CONTEXT.runner

    @property
    def runner(self) -> _run.Runner:
        """Trio's runner of the current run."""
        assert self._runner is not None, "no run has started"
        return self._runner

    @property
    def asked(self) -> bool:
        """Whether trio asked our stand-in for the order of tasks at all."""
        return _ORDER.asked

    def put_back(self, tasks: Iterable[Task]) -> None:
        """Let runnable tasks, taken out of the batch, wait for the next pass."""
        self.runner.runq.extend(tasks)

    def tasks(self) -> list[Task]:
        """The scenario's tasks that have not ended, oldest first; at the very end trio's own, which closes up."""
        living = [task for task in self.runner.tasks if not is_housekeeping(task)]
        if not living and self.runner.init_task is not None:
            return [self.runner.init_task]
        return sorted(living, key=lambda task: task._counter)

    def is_main(self, task: Task) -> bool:
        """Whether ``task`` is the main task of the run."""
        return task is self.runner.main_task

    def unfinished_generators(self) -> list[str]:
        """Names of async generators that were begun and neither exhausted nor closed."""
        return sorted(agen.__qualname__ for agen in self.runner.asyncgens.alive if agen.ag_frame is not None)

    def channels_left(self) -> list[str]:
        """The ends of memory channels that are open, with the lines that opened the channels."""
        return self._channels.left()

    def system_tasks(self) -> list[Task]:
        """The scenario's tasks, but for the main task and those that stand for threads."""
        mine = [task for task in self.runner.tasks if not is_housekeeping(task) and task not in self._threads.tasks]
        return sorted((task for task in mine if not self.is_main(task)), key=lambda task: task._counter)

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._io.stop

    def stop(self) -> None:
        """Let ``trio.run`` raise `trio.TrioInternalError` in its next pass, whatever the tasks do."""
        self._io.stop = True

    def abandon_leftovers(self) -> None:
        """Make sure that tasks left behind by a stopped run never run again.

        Python would close their coroutines sooner or later, in the midst of other code or at exit. That would run them
        without trio, and a task that ignored every exception raised in it might then loop for ever.
        """
        for task in self._runner.tasks if self._runner is not None else ():
            # An extra reference: so they are not even collected at exit, as they would be from a list of ours.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(task.coro))
        self._runner = None


def is_housekeeping(task: Task) -> bool:
    """Whether this is one of trio's own two tasks, which every run has."""
    return task.name in _HOUSEKEEPING


def is_blocked(task: Task) -> bool:
    return task._next_send_fn is None


def has_started(task: Task) -> bool:
    """False for a task that has yet to run its first step."""
    return is_blocked(task) or task._next_send is not None


def is_leaving_nursery(task: Task) -> bool:
    """Whether the task stands at the end of an ``async with`` nursery block, which may not raise out of turn."""
    return bool(task._child_nurseries) and not task._child_nurseries[-1]._nested_child_running


def resume_with(task: Task, error: BaseException) -> bool:
    """Have a runnable task that has started be resumed with ``error``; False if it had better not be."""
    if is_blocked(task) or not has_started(task) or is_leaving_nursery(task):
        return False
    task._next_send_fn = task.coro.send
    task._next_send = outcome.Error(error)
    return True


def interrupt(task: Task, error: BaseException) -> bool:
    """Have ``error`` raised where the task waits, as trio has it with Ctrl-C; False if the task does not wait."""
    if not is_blocked(task) or task._abort_func is None:
        return False
    end_task(task, error)
    return True


def end_task(task: Task, error: BaseException) -> None:
    """Have ``error`` raised in a task wherever it is, also under a shield; without effect where that cannot be."""
    if is_blocked(task):
        # A task whose wait was aborted before, in vain, has no abort function any more.
        if task._abort_func is not None:

            def raise_error() -> NoReturn:
                raise error

            task._attempt_abort(raise_error)
    elif not resume_with(task, error) and not has_started(task):
        task._next_send_fn = task.coro.throw
        task._next_send = error


def scopes_with_deadlines(task: Task, seen: set[Any]) -> list[trio.CancelScope]:
    """The scopes with a deadline that a task has entered since it was looked at last, outermost first.

    The scope of a `trio.sleep` is none of them.

    Args:
      seen: the scopes that were looked at before; those that are returned, and the others, are added.
    """
    found: list[trio.CancelScope] = []
    status: Any = task._cancel_status
    while status is not None and status not in seen:
        seen.add(status)
        scope = status._scope
        if scope.deadline < math.inf and not scope.cancel_called and not _sleeps_in(task, status):
            found.append(scope)
        status = status._parent
    return found[::-1]


def _sleeps_in(task: Task, status: object) -> bool:
    return status is task._cancel_status and any(
        frame.f_code is trio.sleep_until.__code__ for frame, _ in task.iter_await_frames()
    )


def scope_has_ended(scope: trio.CancelScope) -> bool:
    """Whether the ``with`` block of a scope has been left."""
    return scope._has_been_entered and scope._cancel_status is None


@contextmanager
def simulated(host: Host) -> Generator[Loop]:
    """Have trio ask ``host`` for the order of tasks, simulate threads, and refuse I/O, until the block ends.

    Only for runs in this thread: others continue as before.

    Raises:
      HarnessError: this trio has not got one of the names, or trio, or another simulation, is running already.
    """
    if trio.lowlevel.in_trio_run():
        raise HarnessError("a simulation is a trio.run of its own: call simulate() from a plain function")
    if _ORDER.host is not None:
        raise HarnessError("another simulation is going on: simulate one thing at a time")
    thread = threading.get_ident()
    io = _NoIO(host)
    real_io = _lookup(_run, "TheIOManager")
    real_threads = _lookup(_thread_cache, "THREAD_CACHE")
    send_from_thread = _lookup(_threads, "_send_message_to_trio")
    simulated_threads = threads.Threads(thread, host.start_thread, host.refuse, lambda: _fails_file(host))
    channels = _Channels(thread, _lookup(_channel, "MemoryChannelState"))

    def io_manager() -> object:
        return io if threading.get_ident() == thread else real_io()

    def send_to_trio(token: Any, message: Any) -> Any:
        worker = threads.current_worker()
        if worker is not None:
            object.__setattr__(message, "queue", threads.Answer(worker))
        return send_from_thread(token, message)

    stand_ins = [
        (_run, "_ALLOW_DETERMINISTIC_SCHEDULING", True),
        (_run, "_r", _ORDER),
        (_run, "TheIOManager", io_manager),
        (_thread_cache, "THREAD_CACHE", _ThreadCache(simulated_threads, real_threads)),
        (_threads, "_send_message_to_trio", send_to_trio),
        (_channel, "MemoryChannelState", channels.make),
        (time, "sleep", threads.sleep),
    ]
    originals = [(module, name, _lookup(module, name)) for module, name, _ in stand_ins]
    _ORDER.host, _ORDER.thread, _ORDER.asked = host, thread, False
    try:
        _set(stand_ins)
        yield Loop(io, simulated_threads, channels)
    finally:
        _set(originals)
        _ORDER.host = None


def _lookup(module: ModuleType, name: str) -> Any:
    try:
        return getattr(module, name)
    except AttributeError:
        raise HarnessError(f"trio {trio.__version__} has no {module.__name__}.{name} any more") from None


def _set(values: Iterable[tuple[ModuleType, str, object]]) -> None:
    for module, name, value in values:
        setattr(module, name, value)


def who_asks_for_time(clock: FrameType) -> FrameType | None:
    """The code that asked trio for the time: by `trio.current_time`, or by entering a scope with a time limit.

    Args:
      clock: the method of the clock that trio calls for it.

    Returns:
      None where trio asks for its own ends: between the steps of tasks, or where a scope without a limit is entered.
    """
    runner = clock.f_back
    public = None if runner is None else runner.f_back
    if runner is None or runner.f_code is not _run.Runner.current_time.__code__ or public is None:
        return None
    asker = public.f_back
    if asker is not None and asker.f_code is _CANCEL_CALLED:
        return None
    if (
        asker is not None
        and asker.f_code is trio.CancelScope.__enter__.__code__
        and asker.f_locals["self"]._relative_deadline == math.inf
    ):
        return None
    while asker is not None and asker.f_globals.get("__name__", "").startswith("trio."):
        asker = asker.f_back
    return asker
