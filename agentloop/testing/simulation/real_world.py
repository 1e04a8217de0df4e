"""Keep a simulation away from threads, sockets and processes.

The harness does not control their timing: two runs would differ, and a task that waits for one of them would count as
stuck. `trio_private` refuses those that go through trio; this module refuses the rest.
"""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Callable
from typing import Any

from agentloop.testing.simulation.errors import HarnessError
from agentloop.testing.simulation.threads import current_worker

__all__ = ["RealWorld"]

_ENTRANCES: tuple[tuple[Any, str, str], ...] = (
    (threading.Thread, "start", "a thread"),
    # `socketpair` by itself too: it would leave two half-made sockets behind when it meets `__init__`.
    (socket, "socketpair", "a socket"),
    (socket.socket, "__init__", "a socket"),
    (subprocess.Popen, "__init__", "a process"),
)


class RealWorld:
    """The entrances to the world outside, for this thread: open unless closed."""

    def __init__(self, refuse: Callable[[str], HarnessError]) -> None:
        self._refuse = refuse
        self._originals: list[tuple[Any, str, Any]] = []

    def close(self) -> None:
        """From now on, any use of a socket, thread or process raises the error that ``refuse("a socket")`` returns.

        In the simulated threads, too.
        """
        thread = threading.get_ident()
        for owner, name, facility in _ENTRANCES:
            original = _own(owner, name)
            self._originals.append((owner, name, original))
            setattr(owner, name, self._guard(thread, original, facility))

    def start_thread(self, thread: threading.Thread) -> None:
        """Start a thread of the simulation's own."""
        originals = [original for owner, _, original in self._originals if owner is threading.Thread]
        (originals[0] if originals else threading.Thread.start)(thread)

    def open(self) -> None:
        """Put everything back."""
        while self._originals:
            owner, name, original = self._originals.pop()
            setattr(owner, name, original)

    def _guard(self, thread: int, original: Callable[..., Any], facility: str) -> Callable[..., Any]:
        def guarded(*args: Any, **kwargs: Any) -> Any:
            if threading.get_ident() == thread or current_worker() is not None:
                raise self._refuse(facility)
            return original(*args, **kwargs)

        return guarded


def _own(owner: Any, name: str) -> Any:
    # Not `getattr`: were it inherited, putting it back would leave a copy on the subclass.
    return owner.__dict__[name]
