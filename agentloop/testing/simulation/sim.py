"""A run of a scenario: the scenario's view of it, and its record afterwards."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager

import trio
from attrs import define, frozen

from agentloop.testing.simulation.errors import HarnessError, InjectedFault
from agentloop.testing.simulation.faults import ClockRaise, Fault, IoRaise, SeamRaise
from agentloop.testing.simulation.schedule import Granularity, replay
from agentloop.testing.simulation.stuck import StuckReport, call_chain, chain_to_user, user_position
from agentloop.testing.simulation.tokens import Token
from agentloop.testing.simulation.trio_private import scope_has_ended, who_asks_for_time

__all__ = ["Injection", "Sim", "Target"]


@frozen
class Injection:
    """A fault that was injected into the run, and its place."""

    description: str
    task: str
    chain: tuple[str, ...]
    """``file:line function``, from the task's outermost function to the innermost; empty if it has just ended."""

    @property
    def place(self) -> str:
        """The innermost position that is in no installed package, with its line of code; empty if there is none."""
        return user_position(self.chain)

    def __str__(self) -> str:
        place = self.place and f", at {self.place}"
        first = f"{self.description}, in task {self.task}{place}:"
        return "\n".join([first, *(f"  {position}" for position in self.chain)])


@define(eq=False)
class Target:
    """Something that `Cancel` can name, and the task steps after which there is something to cancel."""

    name: str
    cancel: Callable[[], bool]
    """Do it. Returns False, and does nothing, if it is too late."""
    first: int
    last: int | None = None
    """None for the last step of the scenario."""


class Sim:
    """A run of a scenario: handed to it while it runs, and its record when it is over.

    Attributes:
      fault: the fault to inject into this run, if there is one.
      granularity: how often the schedule was asked.
      steps: task steps so far. In one step a task runs from a checkpoint to the next.
      seams: calls of `seam` so far.
      io_calls: uses of the simulated network, and of files, so far.
      clock_reads: how often the code that `watch_clock` names has read the clock so far.
      now: seconds on the virtual clock, which starts at 0.
      picks: the choices not answered in FIFO order so far, as ``{choice: pick}``.
      options: how many tasks could run, for each choice so far.
      injection: the fault that fired, and its place; None as long as none has.
      fired_at: the virtual time at which a cancel or an interrupt fired; None as long as none has.
      stuck: why the run was ended from outside; None if it ended by itself.
      targets: everything that a `Cancel` could have named so far.
      trace: what happened, in order: the equality of two runs. Task numbers, names, times.
      problem: why nothing can be concluded from this run; None if all is well.
      ways: what `seam` may raise besides `InjectedFault`, for those calls of it where that is something.
      replays_with: what to call to run this again, with ``{token!r}`` in the place of its token.
      channels_left: the ends of memory channels that were still open at the end, by the line that opened them.
      watches_timeouts: set by a scenario that lets each timeout of its own strike early.
      calm: set by a scenario that wants to see how things are afterwards: nothing more is a place for a fault.
    """

    def __init__(self, name: str, *, fault: Fault | None = None, granularity: Granularity = "batch") -> None:
        if name.split() != [name]:
            raise HarnessError(f"{name!r} cannot be part of a token: a scenario's name is one word")
        self.name = name
        self.fault = fault
        self.granularity: Granularity = granularity
        self.steps = 0
        self.seams = 0
        self.io_calls = 0
        self.clock_reads = 0
        self.now = 0.0
        self.picks: dict[int, int] = {}
        self.options: list[int] = []
        self.injection: Injection | None = None
        self.fired_at: float | None = None
        self.stuck: StuckReport | None = None
        self.targets: list[Target] = []
        self.trace: list[object] = []
        self.problem: HarnessError | None = None
        self.ways: dict[int, tuple[type[Exception], ...]] = {}
        self.replays_with = "replay_token(make_scenario, {token!r})"
        self.channels_left: list[str] = []
        self.calm = False
        self._live: dict[str, Target] = {}
        self._scopes: dict[str, trio.CancelScope] = {}
        self._io_fault = fault if isinstance(fault, IoRaise) else None
        self._seam_fault = fault if isinstance(fault, SeamRaise) else None
        self._clock_fault = fault if isinstance(fault, ClockRaise) else None
        self.watches_timeouts = False
        self._timeouts = 0
        self._timeout_targets: list[tuple[trio.CancelScope, Target]] = []
        self._reads_clock: Callable[[str], bool] | None = None

    @property
    def choices(self) -> int:
        """How often, so far, there was more than one task to run next."""
        return len(self.options)

    @property
    def fired(self) -> bool:
        """Whether the fault took place; without a fault, whether the schedule left FIFO order."""
        return bool(self.picks) if self.fault is None else self.injection is not None

    @property
    def token(self) -> str:
        """The token with which `replay_token` repeats exactly this run."""
        plain = self.granularity == "batch" and not self.picks
        return str(Token(self.name, self.fault, None if plain else replay(self.picks, self.granularity)))

    @property
    def trace_digest(self) -> str:
        """The same for two runs in which the same happened in the same order, in any process."""
        return hashlib.blake2b(repr(self.trace).encode(), digest_size=16).hexdigest()

    # ------------------------------------------------------------------ what a scenario calls

    @contextmanager
    def scope(self, name: str) -> Generator[trio.CancelScope]:
        """Open a cancel scope that a `Cancel` can name for as long as it is open.

        Scopes may have the same name: while one of them is open, a second one is named ``name#2``.
        """
        with trio.CancelScope() as scope:
            if self.calm:
                yield scope
                return
            target = self.register_scope(name, scope)
            try:
                yield scope
            finally:
                target.last = self.steps
                self._scopes.pop(target.name, None)
                self._live.pop(target.name, None)

    def register_scope(self, name: str, scope: trio.CancelScope) -> Target:
        """Let a `Cancel` name a scope that other code opens: ``name#2`` while another scope of the name is open."""
        plain, number = name, 1
        while name in self._scopes and not scope_has_ended(self._scopes[name]):
            number += 1
            name = f"{plain}#{number}"
        self._scopes[name] = scope

        def cancel() -> bool:
            if scope.cancel_called or scope_has_ended(scope):
                return False
            scope.cancel()
            return True

        return self._register(name, cancel)

    def on_cancel(self, name: str, callback: Callable[[], object]) -> None:
        """Let a `Cancel` with this name call ``callback``, which must not wait: ``stream.stop``, say.

        A later callback of the same name takes the place of this one.
        """

        def cancel() -> bool:
            callback()
            return True

        if not self.calm:
            self._register(name, cancel)

    async def seam(self, name: str, *ways: type[Exception]) -> None:
        """Be a place where the outside world can fail: a checkpoint, before or after which a fault may raise.

        Args:
          ways: exceptions that a sweep has raised here besides `InjectedFault`. The caller may take one as the name of
            a failure, and hang, say.
        """
        if self.calm:
            await trio.lowlevel.checkpoint()
            return
        self.seams += 1
        if ways:
            self.ways[self.seams] = ways
        self.trace.append(name)
        fault = self._seam_fault
        if fault is None or fault.call != self.seams:
            await trio.lowlevel.checkpoint()
            return
        if fault.after:
            await trio.lowlevel.checkpoint()
        when = "after" if fault.after else "before"
        self.injection = Injection(
            f"{fault.exc.__name__} raised by seam {fault.call} ({name}) {when} its checkpoint",
            trio.lowlevel.current_task().name,
            call_chain(),
        )
        raise fault.exc(f"injected: {fault} ({name})")

    def watch_clock(self, reads: Callable[[str], bool]) -> None:
        """Let a `ClockRaise` strike where a module for whose name ``reads`` is true asks trio for the time.

        By itself, or by entering a scope with a time limit. Readings for trio's own purposes always succeed.
        """
        self._reads_clock = reads

    # ------------------------------------------------------------------ what the simulated world calls

    def io_error(self, operation: str, kind: type[OSError], number: int) -> OSError | None:
        """The error with which this use of the network, or of a file, is to fail; None if it is to succeed."""
        if self.calm:
            return None
        self.io_calls += 1
        self.trace.append(operation)
        fault = self._io_fault
        if fault is None or fault.call != self.io_calls:
            return None
        task = trio.lowlevel.current_task()
        self.injection = Injection(
            f"{kind.__name__} raised by use {fault.call} of network and files ({operation})",
            task.name,
            chain_to_user(task, call_chain()),
        )
        error = kind(number, f"injected: {fault} ({operation})")
        error.__cause__ = InjectedFault(f"injected: {fault} ({operation})")
        return error

    def watch_timeout(self, scope: trio.CancelScope) -> None:
        """Let a `Cancel` named ``timeout:N`` have the deadline of a scope come at once."""
        self._timeouts += 1

        def strike() -> bool:
            if scope.cancel_called or scope_has_ended(scope):
                return False
            # Not only the cancel: anyio compares the deadline with the clock.
            scope.deadline = self.now
            scope.cancel()
            return True

        name = f"timeout:{self._timeouts}"
        target = self._register(name, strike)
        # The step in which the scope was entered has just ended, and a fault that is due after it has yet to strike.
        target.first = self.steps
        self._timeout_targets.append((scope, target))

    def close_timeouts(self) -> None:
        """Note which of the watched scopes have been left by now."""
        for scope, target in self._timeout_targets:
            if scope_has_ended(scope):
                target.last = self.steps
                self._live.pop(target.name, None)
        self._timeout_targets = [pair for pair in self._timeout_targets if pair[1].last is None]

    # ------------------------------------------------------------------ what the engine calls

    def clock_read(self) -> None:
        """The clock is about to be read."""
        reads = self._reads_clock
        if reads is None:
            return
        frame = who_asks_for_time(sys._getframe(1))
        if frame is None or self.calm or not reads(frame.f_globals["__name__"]):
            return
        self.clock_reads += 1
        fault = self._clock_fault
        if fault is not None and fault.read == self.clock_reads:
            self.injection = Injection(
                f"{fault.exc.__name__} raised by the clock, read for the {fault.read}. time",
                trio.lowlevel.current_task().name,
                call_chain(frame),
            )
            raise fault.exc(f"injected: {fault}")

    def fail(self, why: str) -> HarnessError:
        """Make a note that this run proves nothing. The first reason counts; raise what this returns."""
        error = HarnessError(f"{self.name}: {why}")
        if self.problem is None:
            self.problem = error
        return error

    def cancel(self, name: str) -> bool:
        """Cancel the scope of this name, if one is open and it is not too late."""
        target = self._live.get(name)
        return target is not None and not self.calm and target.cancel()

    def _register(self, name: str, cancel: Callable[[], bool]) -> Target:
        if name.split() != [name]:
            raise self.fail(f"{name!r} cannot be part of a token: a name is one word")
        if name in self._live:
            self._live[name].last = self.steps
        # Registered in the middle of a step: the end of this step is the first chance.
        target = Target(name, cancel, first=self.steps + 1)
        self.targets.append(target)
        self._live[name] = target
        return target
