"""The errors of the simulation itself: the harness is unreliable, or a fault was injected."""

from __future__ import annotations

from agentloop._core.portable_errors import PortableError

__all__ = ["Abandoned", "HarnessError", "InjectedFault", "InjectedInterrupt"]


class HarnessError(PortableError):
    """The simulation could not be carried out as asked, so its result says nothing about the code under test.

    Among others: the scenario fails without any fault, it uses a thread or a socket, or a sweep fired nothing.
    """


class InjectedFault(PortableError):  # noqa: N818 - it is not an error, it is a test
    """The exception of a `SeamRaise` or a `StepRaise`, unless it names another one. Its text names the place."""


class Abandoned(BaseException):
    """Raised in each task of a run that is being ended from outside, under shields too. Not an `Exception`."""


class InjectedInterrupt(KeyboardInterrupt):
    """The Ctrl-C of an `Interrupt`. A real one ends the sweep."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message)
