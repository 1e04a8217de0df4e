"""Sweep any program of trio, or of anyio on trio: a plain async function is enough.

::

    async def main():
        queue = JobQueue()
        async with queue.workers(2):
            await queue.run_all(["a", "b", "c"])
        assert queue.lost() == []

    def test_no_job_is_lost():
        sweep(main)

`sweep` runs ``main`` once for each place where a fault can strike. An assertion that fails, an error that gets out, a
task that hangs and a resource that is left open are violations: the error says which, where the fault was injected, and
how to run that one case again.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from types import TracebackType
from typing import Any, TypeAlias, cast, overload

import trio
from attrs import define, field

from agentloop.testing.simulation.errors import HarnessError, InjectedFault
from agentloop.testing.simulation.faults import Cancel
from agentloop.testing.simulation.scenario import Outcome
from agentloop.testing.simulation.sim import Sim
from agentloop.testing.simulation.stuck import position, user_position
from agentloop.testing.simulation.sweep import Kind, SweepReport, replay_token, sweep_scenario

__all__ = [
    "MAIN",
    "Program",
    "check_async",
    "function_name",
    "is_injected",
    "makes_test",
    "report_of_one",
    "sweep",
    "swept",
    "takes",
    "where_raised",
]

Program: TypeAlias = Callable[[], Awaitable[object]] | Callable[[Sim], Awaitable[object]]
"""An async function of nothing, or of the `Sim` of its run."""

MAIN = "main"
"""The name of the scope around the whole program, for `Cancel`."""

GRACE = 60.0
"""Virtual seconds within which a program that is cancelled has to end."""


@define(eq=False)
class _ProgramScenario:
    name: str
    function: Callable[..., Awaitable[object]]
    allowed: tuple[type[BaseException], ...]
    grace: float
    _late: float = field(default=0.0, init=False)

    async def run(self, sim: Sim, /) -> None:
        sim.replays_with = f"sweep({self.function_name()}, only={{token!r}})"
        sim.watches_timeouts = True
        trio.lowlevel.current_task().name = self.name
        cancelled: list[float] = []
        with trio.CancelScope() as scope:

            def cancel() -> bool:
                cancelled.append(sim.now)
                scope.cancel()
                return True

            sim.on_cancel(MAIN, cancel)
            try:
                await (self.function(sim) if takes(self.function, "sim") else self.function())
            finally:
                self._late = sim.now - cancelled[0] if cancelled else 0.0

    def check(self, sim: Sim, outcome: Outcome, /) -> None:
        if self._late > self.grace:
            raise AssertionError(
                f"the program took {self._late:g} virtual seconds to end after it was cancelled; "
                f"it may take {self.grace:g} (grace=...)"
            )
        error = outcome.error
        if error is None or (sim.fired and sim.fault is not None and self._is_excused(error, sim)):
            return
        hint = ""
        if sim.fault is not None and not isinstance(sim.fault, Cancel):
            hint = (
                "\n(if the program means to translate the injected error, write `raise ... from error`, or name the "
                "class in allowed=...)"
            )
        where = where_raised(error)
        raise AssertionError(f"{type(error).__name__} got out of the program: {error}{where}{hint}") from error

    def function_name(self) -> str:
        return function_name(self.function)

    def _is_excused(self, error: BaseException, sim: Sim) -> bool:
        excused = self.allowed
        if isinstance(sim.fault, Cancel) and sim.fault.scope.startswith("timeout:"):
            excused = (*excused, trio.TooSlowError, TimeoutError)
        return is_injected(error, (InjectedFault, *excused))


def sweep(
    program: Program,
    *,
    only: str | Iterable[str] | None = None,
    kinds: Iterable[Kind] | None = None,
    limit: int | None = None,
    allowed: type[BaseException] | tuple[type[BaseException], ...] = (),
    grace: float = GRACE,
    jobs: int = 1,
    seed: int = 0,
    max_steps: int = 20_000,
    max_virtual: float = 1e6,
) -> SweepReport:
    """Run a program once for each place where a fault can strike, and raise the first violation.

    By default the faults are: ``cancel``, the whole program (``main``), each timeout of `trio.move_on_after`,
    `trio.fail_after` and the like (``timeout:1``, ...) and each scope of `Sim.scope` is cancelled after each step in
    which it is open; ``io``, each use of the simulated network or of a file fails; ``seam``, each call of `Sim.seam`
    fails; and ``schedule``, each choice of the scheduler is made differently.

    A violation is: an `AssertionError`; an error that gets out, unless it is the injected one, or has it as its
    ``__cause__``; a program that hangs, loops, or takes longer than ``grace`` to end once it is cancelled; and an async
    generator, a system task, a socket, a file or the end of a memory channel that is left open. Channels that are left
    open without a fault, too, do not count.

    Args:
      program: an async function. It makes everything anew: what one run leaves in a global variable is seen by the
        next. It runs on a virtual clock, with a simulated network and simulated threads, in which `trio.to_thread` and
        trio's files work; it may use no real sockets, processes or threads of its own.
      only: one token, or several, as a violation shows them: just these runs, in the place of all others.
      kinds: what to try. Each kind that is named must find a place.
      limit: at most so many places of each kind, spread evenly over all; all of them by default.
      allowed: errors that may get out where a fault was injected.
      grace: virtual seconds that the program may take to end after it was cancelled.
      jobs: how many processes to use.
      seed: of the order of tasks in which the faults are tried; 0 for first come, first served.
      max_steps: steps of tasks after which a run counts as one that loops.
      max_virtual: virtual seconds after which a run counts as one that sets timers without end.

    Returns:
      How many runs were made, and in how many a fault was injected.

    Raises:
      Violation: the program does something wrong. The note of the error lists the tokens of all runs that do.
      HarnessError: the sweep proves nothing: the program fails without a fault (the ``__cause__`` says how), is not the
        same twice, uses something that is not simulated, or gives no fault a place.
    """
    scenario = _maker(program, allowed, grace)
    if only is not None:
        return report_of_one(scenario, only, max_steps=max_steps, max_virtual=max_virtual)
    report = sweep_scenario(
        scenario, kinds=kinds, limit=limit, jobs=jobs, seed=seed, max_steps=max_steps, max_virtual=max_virtual
    )
    report.raise_if_violated()
    return report


@overload
def swept(program: Callable[..., Awaitable[object]], /) -> Callable[..., None]: ...
@overload
def swept(**options: Any) -> Callable[[Callable[..., Awaitable[object]]], Callable[..., None]]: ...
def swept(program: Callable[..., Awaitable[object]] | None = None, /, **options: Any) -> Any:
    """Make a test of an async function, for pytest or any other runner: the test sweeps the function.

    ``@swept`` and ``@swept(limit=20)`` both work; the options are those of `sweep`. A parameter named ``sim`` gets the
    `Sim` of each run; all others are fixtures, made once for the whole sweep.
    """
    if program is None:
        return partial(makes_test, run=sweep, given="sim", options=options)
    return makes_test(program, run=sweep, given="sim", options=options)


# --------------------------------------------------------------------------------- what agentloop.testing shares


def makes_test(
    function: Callable[..., Awaitable[object]], /, *, run: Callable[..., object], given: str, options: dict[str, Any]
) -> Callable[..., None]:
    """A plain function that sweeps ``function``, with its parameters but for the one named ``given``."""
    check_async(function)

    def test(*args: object, **fixtures: object) -> None:
        run(partial(function, *args, **fixtures) if args or fixtures else function, **options)

    for name in ("__name__", "__qualname__", "__module__", "__doc__"):
        setattr(test, name, getattr(function, name))
    test.__dict__.update(getattr(function, "__dict__", {}))
    signature = inspect.signature(function)
    parameters = [parameter for parameter in signature.parameters.values() if parameter.name != given]
    cast("Any", test).__signature__ = signature.replace(parameters=parameters, return_annotation=None)
    return test


def report_of_one(
    make_scenario: Callable[[], Any],
    tokens: str | Iterable[str],
    *,
    max_steps: int = 20_000,
    max_virtual: float = 1e6,
) -> SweepReport:
    """Run just the cases that tokens name: without the name of the program, too. Raises the first violation."""
    name = make_scenario().name
    runs, fired = 0, 0
    for token in [tokens] if isinstance(tokens, str) else tokens:
        words = token.split()
        whole = token if words and words[0] == name else f"{name} {token}"
        sim = replay_token(make_scenario, whole, max_steps=max_steps, max_virtual=max_virtual)
        runs, fired = runs + 1, fired + sim.fired
    return SweepReport(runs=runs, fired=fired, violations=[], by_kind={})


def takes(function: Callable[..., object], given: str) -> bool:
    """Whether a program wants to be called with something: it has a parameter that has no value yet."""
    parameters = inspect.signature(function).parameters
    if given in parameters:
        return True
    return any(
        parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        for parameter in parameters.values()
    )


def function_name(function: Callable[..., object]) -> str:
    """A name for the tokens of a program."""
    while isinstance(function, partial):
        function = function.func
    name = str(getattr(function, "__name__", type(function).__name__))
    return name.replace("<", "").replace(">", "") or "program"


def is_injected(error: BaseException, kinds: tuple[type[BaseException], ...] = (InjectedFault,)) -> bool:
    """Whether an error is of one of ``kinds``, or has one of them as a cause. Of a group, all must be."""
    if isinstance(error, BaseExceptionGroup):
        inner: tuple[BaseException, ...] = cast("BaseExceptionGroup[BaseException]", error).exceptions
        return all(is_injected(each, kinds) for each in inner)
    return isinstance(error, kinds) or (error.__cause__ is not None and is_injected(error.__cause__, kinds))


def where_raised(error: BaseException) -> str:
    """The innermost line, of no installed package, of each error's traceback, for a message."""
    if isinstance(error, BaseExceptionGroup):
        inner: tuple[BaseException, ...] = cast("BaseExceptionGroup[BaseException]", error).exceptions
        return "".join(f"\n  {type(each).__name__}: {each}{where_raised(each)}" for each in inner)
    place = user_position(tuple(_positions(error.__traceback__)))
    return f"\n  raised at {place}" if place else ""


def _positions(traceback: TracebackType | None) -> Iterable[str]:
    while traceback is not None:
        # Not this module, and the rest of the simulation, which call the program.
        if not traceback.tb_frame.f_globals.get("__name__", "").startswith("agentloop.testing."):
            yield position(traceback.tb_frame.f_code, traceback.tb_lineno)
        traceback = traceback.tb_next


def _maker(
    program: Program, allowed: type[BaseException] | tuple[type[BaseException], ...], grace: float
) -> Callable[[], _ProgramScenario]:
    check_async(program)
    classes = allowed if isinstance(allowed, tuple) else (allowed,)
    return partial(_ProgramScenario, function_name(program), program, classes, grace)


def check_async(program: Callable[..., object]) -> None:
    """Raise `HarnessError` unless this is an async function, or an object that is called like one."""
    function = program
    while isinstance(function, partial):
        function = function.func
    if not inspect.iscoroutinefunction(function) and not inspect.iscoroutinefunction(
        getattr(type(function), "__call__", None)  # noqa: B004 - whether it is async, not whether it is there
    ):
        raise HarnessError(
            f"cannot sweep {program!r}: give an async function, not its call, a class or a plain function "
            "(for a class with `run` and `check`, use sweep_scenario)"
        )
