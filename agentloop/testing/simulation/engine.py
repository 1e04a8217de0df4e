"""A trio run under control: order and count the steps, move the clock, fire the fault, end a run that hangs."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar

import trio
from attrs import define

from agentloop.testing.simulation.anyio_listeners import simulated_listeners
from agentloop.testing.simulation.condemned import Condemned
from agentloop.testing.simulation.errors import HarnessError, InjectedInterrupt
from agentloop.testing.simulation.faults import Cancel, Interrupt, StepRaise
from agentloop.testing.simulation.network import Network
from agentloop.testing.simulation.randomness import same_randomness
from agentloop.testing.simulation.real_world import RealWorld
from agentloop.testing.simulation.schedule import Schedule
from agentloop.testing.simulation.sim import Injection, Sim
from agentloop.testing.simulation.stuck import StuckReason, StuckReport, StuckTask, await_chain, chain_to_user
from agentloop.testing.simulation.trio_private import (
    Loop,
    Task,
    interrupt,
    is_blocked,
    is_housekeeping,
    resume_with,
    scopes_with_deadlines,
    simulated,
)

__all__ = ["Engine"]


@define(eq=False)
class _VirtualClock(trio.abc.Clock):
    sim: Sim

    def start_clock(self) -> None:
        pass

    def current_time(self) -> float:
        self.sim.clock_read()
        return self.sim.now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        # No task sleeps this long in real time. It must exceed any cushion given to `wait_all_tasks_blocked`: tasks
        # that wait for idleness go first, and then the clock moves.
        return 0 if deadline <= self.sim.now else 1e9


class _Hooks(Protocol):
    def hook_failed(self, error: Exception, /) -> None: ...


H = TypeVar("H", bound=_Hooks)
P = ParamSpec("P")


def _never_raises(method: Callable[Concatenate[H, P], None]) -> Callable[Concatenate[H, P], None]:
    """Store the exception of an instrument's hook: trio would log it and continue without the instrument.

    The methods that `trio_private` calls run in the middle of trio's loop, which an exception would unwind.
    """

    @wraps(method)
    def guarded(self: H, /, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            method(self, *args, **kwargs)
        except Exception as error:  # noqa: BLE001
            self.hook_failed(error)

    return guarded


class Engine(trio.abc.Instrument):
    """Runs one scenario. Errors meanwhile are stored in attributes: trio's hooks cannot raise them.

    Attributes:
      schedule_error: what the schedule raised when it was asked. The schedule is not asked again.
      action_error: what a cancel action raised.
      crash: what made ``trio.run`` itself fail; None if that was us.
      left: what was left behind when the scenario ended, but for leaks that Python warns of; a sentence each.
    """

    def __init__(self, sim: Sim, schedule: Schedule, *, max_steps: int, max_virtual: float) -> None:
        self.schedule_error: BaseException | None = None
        self.action_error: Exception | None = None
        self.crash: trio.TrioInternalError | None = None
        self.left: list[str] = []
        self._sim = sim
        self._schedule = schedule
        self._max_steps = max_steps
        self._max_virtual = max_virtual
        self._cancel_at = sim.fault.step if isinstance(sim.fault, (Cancel, Interrupt)) else 0
        self._world = RealWorld(self.refuse)
        self._condemned: Condemned | None = None
        self._chores = 0
        # Numbers in order of spawning, 0 for trio's own tasks: the same in each run, unlike the tasks' hashes.
        self._serials: dict[Task, int] = {}
        # The step in which a task last became runnable. Tasks that one step wakes are ordered by age, since it
        # may have woken them in the order of a set, as cancelling a nursery does.
        self._woken_at: dict[Task, int] = {}
        self._network = Network(self.refuse, self.fail_io)
        self._scopes_seen: set[object] = set()
        self._loop: Loop

    def run(self, main: Callable[[Sim], Awaitable[None]]) -> None:
        """Run ``main`` to its end, or to ours. Raises only what ``main`` does, and HarnessError."""
        instruments: list[trio.abc.Instrument] = [self]
        if isinstance(self._sim.fault, StepRaise):
            instruments.append(_StepRaiser(self._sim, self._sim.fault, self.hook_failed))
        with same_randomness(), simulated_listeners(self._network), simulated(self) as self._loop:
            try:
                trio.run(self._with_network(main), clock=_VirtualClock(self._sim), instruments=instruments)
            except trio.TrioInternalError as error:
                # Not if it was us: its traceback would keep all the coroutines alive.
                if not self._loop.stopped:
                    self.crash = error
            finally:
                self._world.open()
                self._loop.abandon_leftovers()
                self._serials.clear()
                self._woken_at.clear()
            if not self._loop.asked:
                self._sim.fail(f"trio {trio.__version__} no longer has its tasks ordered by trio._core._run._r")

    def _with_network(self, main: Callable[[Sim], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
        # With the name of ``main``, which trio gives to the task.
        @wraps(main)
        async def run() -> None:
            self._network.install()
            await main(self._sim)

        return run

    def start_thread(self, thread: threading.Thread, /) -> None:
        """Start a thread of the simulation's own."""
        self._world.start_thread(thread)

    def fail_io(self, operation: str, kind: type[OSError], number: int, /) -> OSError | None:
        """The error with which to fail a use of the network, or of a file; None if it is to succeed."""
        return self._sim.io_error(operation, kind, number)

    def refuse(self, facility: str, /) -> HarnessError:
        """Note that the scenario used ``facility``."""
        return self._sim.fail(f"it used {facility}, which a simulation has not got: give the scenario a fake instead")

    def __dir__(self) -> list[str]:
        # Trio looks through all our attributes for hooks, before every run: it takes as long as ten task steps.
        return ["before_run", "task_spawned", "task_scheduled", "after_task_step", "task_exited"]

    # ------------------------------------------------------------------ trio's hooks

    @_never_raises
    def before_run(self) -> None:
        """Take over the loop, and close the ways to the real world."""
        self._loop.attach()
        self._world.close()

    @_never_raises
    def task_spawned(self, task: Task) -> None:
        """Number the task."""
        if is_housekeeping(task):
            self._serials[task] = 0
        else:
            self._serials[task] = len(self._serials) + 1
            self._sim.trace.append(plain_name(task))

    def task_scheduled(self, task: Task) -> None:
        """Note the step at which the task became runnable."""
        self._woken_at[task] = self._sim.steps

    @_never_raises
    def after_task_step(self, task: Task) -> None:
        """Count the step, and inject the fault that is due after it."""
        serial = self._serials[task]
        if serial:
            sim = self._sim
            sim.steps += 1
            sim.trace.append(serial)
            if sim.watches_timeouts:
                self._watch_timeouts(task)
            if sim.steps == self._cancel_at:
                self._fire_cancel(task)
            used = sim.steps
        else:
            used = self._chores = self._chores + 1
        if self._condemned is not None:
            self._condemned.on_step()
        elif used >= self._max_steps:
            self._condemn("step budget")

    @_never_raises
    def task_exited(self, task: Task) -> None:
        """Look for leaks when the main task ends."""
        if self._loop.is_main(task):
            # Now, since trio closes those that still have an owner at the end of the run, without a word.
            self.left = [
                *(f"async generator {name} was begun, but not closed" for name in self._loop.unfinished_generators()),
                *(f"system task {plain_name(each)} is still running" for each in self._loop.system_tasks()),
                *self._network.left(),
            ]
            self._sim.channels_left = self._loop.channels_left()
            self._sim.close_timeouts()
            # The scenario is over after this step: the rest is trio's own cleanup.
            for target in self._sim.targets:
                target.last = self._sim.steps if target.last is None else target.last

    # ------------------------------------------------------------------ what trio's stand-ins ask

    @_never_raises
    def order(self, batch: list[Task], /) -> None:
        """Order a batch as the schedule says, last first; in step granularity, leave one task in it."""
        # A stable sort, of what trio has sorted by age.
        batch.sort(key=self._woken_at.__getitem__)
        chores = [task for task in batch if not self._serials[task]]
        tasks = [task for task in batch if self._serials[task]]
        if self._sim.granularity == "step":
            first = chores[0] if chores else tasks[self._choose(len(tasks))]
            self._loop.put_back(task for task in batch if task is not first)
            batch[:] = [first]
            return
        order = chores
        while tasks:
            order.append(tasks.pop(self._choose(len(tasks))))
        batch[:] = reversed(order)

    @_never_raises
    def on_idle(self, next_deadline: float, /) -> None:
        """Move the clock to the next deadline; without one, or past the budget, the run has to be ended."""
        if self._condemned is not None:
            self._condemned.on_idle()
        elif next_deadline == math.inf:
            self._condemn("deadlock")
        elif next_deadline > self._max_virtual:
            self._condemn("virtual-time budget")
        else:
            # A deadline in the past is about to be dealt with, and must not turn back the clock.
            self._sim.now = max(self._sim.now, next_deadline)
            self._sim.trace.append(self._sim.now)

    def _watch_timeouts(self, task: Task) -> None:
        sim = self._sim
        sim.close_timeouts()
        if not sim.calm:
            for scope in scopes_with_deadlines(task, self._scopes_seen):
                sim.watch_timeout(scope)

    def _choose(self, options: int) -> int:
        if options == 1 or self._condemned is not None:
            return 0
        sim = self._sim
        sim.options.append(options)
        if self.schedule_error is not None:
            return 0
        try:
            pick = self._schedule.choose(len(sim.options), options)
        except BaseException as error:  # noqa: BLE001, ASYNC103
            self.schedule_error, pick = error, 0
        if not 0 <= pick < options:
            sim.fail(f"the schedule {self._schedule} picked {pick} of {options}")
            return 0
        if pick:
            sim.picks[len(sim.options)] = pick
        return pick

    def _fire_cancel(self, task: Task) -> None:
        fault = self._sim.fault
        if isinstance(fault, Interrupt):
            self._interrupt(fault)
            return
        assert isinstance(fault, Cancel)
        injection = Injection(
            f"{fault.scope} cancelled after step {fault.step}", plain_name(task), chain_to_user(task, await_chain(task))
        )
        try:
            fired = self._sim.cancel(fault.scope)
        except Exception as error:  # noqa: BLE001
            self.action_error = error
            fired = True
        if fired:
            self._sim.injection, self._sim.fired_at = injection, self._sim.now

    def _interrupt(self, fault: Interrupt) -> None:
        task = self._loop.runner.main_task
        if task is None or self._sim.calm:
            return
        injection = Injection(f"Ctrl-C after step {fault.step}", plain_name(task), await_chain(task))
        if interrupt(task, InjectedInterrupt(f"injected: {fault}")):
            self._sim.injection, self._sim.fired_at = injection, self._sim.now

    def _condemn(self, reason: StuckReason) -> None:
        tasks = tuple(StuckTask(plain_name(task), is_blocked(task), await_chain(task)) for task in self._loop.tasks())
        self._sim.stuck = StuckReport(reason, self._sim.steps, self._sim.now, tasks)
        self._condemned = Condemned(self._loop)

    def hook_failed(self, error: Exception) -> None:
        """Note that we ourselves failed, and have the run end."""
        problem = self._sim.fail(f"the harness itself failed: {error!r}")
        problem.__cause__ = error
        self._loop.stop()


class _StepRaiser(trio.abc.Instrument):
    """Fires a `StepRaise`. By itself, because its hook takes time in every step of every run that has it."""

    def __init__(self, sim: Sim, fault: StepRaise, hook_failed: Callable[[Exception], None]) -> None:
        self._sim = sim
        self._fault = fault
        self.hook_failed = hook_failed

    @_never_raises
    def before_task_step(self, task: Task) -> None:
        sim, fault = self._sim, self._fault
        if sim.steps + 1 != fault.step or sim.injection is not None or is_housekeeping(task):
            return
        description = f"{fault.exc.__name__} raised in step {fault.step}"
        injection = Injection(description, plain_name(task), await_chain(task))
        if resume_with(task, fault.exc(f"injected: {fault}")):
            sim.injection = injection


def plain_name(task: Task) -> str:
    """The task's name without addresses, which would differ from run to run."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", task.name)
