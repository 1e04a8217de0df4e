"""The one fault that a run can have, as a value that prints and parses."""

from __future__ import annotations

import importlib
import re
from typing import Any, TypeAlias

from attrs import field, frozen, validators

from agentloop.testing.simulation.errors import HarnessError, InjectedFault, InjectedInterrupt

__all__ = ["Cancel", "ClockRaise", "Fault", "Interrupt", "IoRaise", "SeamRaise", "StepRaise", "parse_fault"]


def _printable(_instance: object, _attribute: object, exc: type[BaseException]) -> None:
    """An exception that cannot be imported by its name could not be read back from a token."""
    if "<locals>" in exc.__qualname__:
        raise HarnessError(f"cannot inject {exc.__qualname__}: define it at the top of a module")


@frozen
class Cancel:
    """Cancel the scope, or call the cancel action, named ``scope`` right after the ``step``-th task step.

    The task of that step has just blocked, so the cancellation lands in the checkpoint it blocks in.
    Steps count from 1. Prints as ``cancel:A@17``.
    """

    step: int = field(validator=validators.ge(1))
    scope: str = field(validator=validators.matches_re(r"\S+"))

    def __str__(self) -> str:
        return f"cancel:{self.scope}@{self.step}"


@frozen
class SeamRaise:
    """Raise ``exc`` from the ``call``-th call of `Sim.seam`: before its checkpoint, or ``after`` it.

    Calls count from 1, over all names. Prints as ``seam:12``, or ``seam:12+`` for after the checkpoint, with
    ``!module:Name`` behind it for another exception than `InjectedFault`.
    """

    call: int = field(validator=validators.ge(1))
    exc: type[Exception | InjectedInterrupt] = field(default=InjectedFault, validator=_printable)
    after: bool = False

    def __str__(self) -> str:
        return f"seam:{self.call}{'+' if self.after else ''}{_suffix(self.exc)}"


@frozen
class StepRaise:
    """Resume the task of the ``step``-th task step with ``exc`` instead of the value that it waits for.

    Trio promises most waits nothing but `trio.Cancelled`, so a finding is advice, not a bug. A task that has
    not started yet, or that waits in a nursery's exit, is left alone: there the fault does not fire.
    Prints as ``step:40``, with the same suffix as `SeamRaise`.
    """

    step: int = field(validator=validators.ge(1))
    exc: type[Exception] = field(default=InjectedFault, validator=_printable)

    def __str__(self) -> str:
        return f"step:{self.step}{_suffix(self.exc)}"


@frozen
class ClockRaise:
    """Raise ``exc`` from the ``read``-th reading of the clock by the code that `Sim.watch_clock` names.

    Readings count from 1. Prints as ``clock:12``, with the same suffix as `SeamRaise`.
    """

    read: int = field(validator=validators.ge(1))
    exc: type[Exception] = field(default=InjectedFault, validator=_printable)

    def __str__(self) -> str:
        return f"clock:{self.read}{_suffix(self.exc)}"


@frozen
class IoRaise:
    """Fail the ``call``-th use of the simulated network or of a file, with the `OSError` that it has for that.

    The error's ``__cause__`` is an `InjectedFault`. Uses count from 1. Prints as ``io:12``.
    """

    call: int = field(validator=validators.ge(1))

    def __str__(self) -> str:
        return f"io:{self.call}"


@frozen
class Interrupt:
    """Deliver Ctrl-C to the main task right after the ``step``-th task step, as trio does while that task waits.

    Where the main task does not wait, the fault does not fire. Ctrl-C in other code is a `SeamRaise` of
    `InjectedInterrupt`. Prints as ``interrupt:17``.
    """

    step: int = field(validator=validators.ge(1))

    def __str__(self) -> str:
        return f"interrupt:{self.step}"


Fault: TypeAlias = Cancel | SeamRaise | StepRaise | ClockRaise | Interrupt | IoRaise


def parse_fault(text: str) -> Fault:
    """Read back what ``str(fault)`` wrote.

    Raises:
      HarnessError: the text is not a fault, or it names an exception that cannot be imported.
    """
    if match := re.fullmatch(r"cancel:(\S+)@([1-9]\d*)", text):
        return Cancel(int(match[2]), match[1])
    if match := re.fullmatch(r"seam:([1-9]\d*)(\+?)(?:!(\S+))?", text):
        return SeamRaise(int(match[1]), _import(match[3], InjectedInterrupt), after=bool(match[2]))
    if match := re.fullmatch(r"step:([1-9]\d*)(?:!(\S+))?", text):
        return StepRaise(int(match[1]), _import(match[2]))
    if match := re.fullmatch(r"clock:([1-9]\d*)(?:!(\S+))?", text):
        return ClockRaise(int(match[1]), _import(match[2]))
    if match := re.fullmatch(r"interrupt:([1-9]\d*)", text):
        return Interrupt(int(match[1]))
    if match := re.fullmatch(r"io:([1-9]\d*)", text):
        return IoRaise(int(match[1]))
    raise HarnessError(
        f"cannot read the fault {text!r}: expected cancel:NAME@STEP, seam:CALL, seam:CALL+, io:CALL, clock:READ, "
        "interrupt:STEP or step:STEP"
    )


def _suffix(exc: type[BaseException]) -> str:
    return "" if exc is InjectedFault else f"!{exc.__module__}:{exc.__qualname__}"


def _import(path: str | None, *others: type[BaseException]) -> Any:
    if path is None:
        return InjectedFault
    module, _, name = path.partition(":")
    try:
        imported: object = importlib.import_module(module)
        for part in name.split("."):
            imported = getattr(imported, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise HarnessError(f"cannot import the exception {path!r}: {error}") from error
    if isinstance(imported, type) and issubclass(imported, (Exception, *others)):
        return imported
    raise HarnessError(f"cannot inject {path!r}: it is not an exception class")
