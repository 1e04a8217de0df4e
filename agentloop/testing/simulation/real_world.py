"""Keep a simulation away from threads, sockets and processes.

Their timing is not the harness's to decide: a run would not be the same twice, and a task that waits for one of
them would be taken for stuck. What goes through trio is refused in `trio_private`; this is for the rest.
"""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Callable
from typing import Any

from agentloop.testing.simulation.errors import HarnessError

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
        """From now on, raise what ``refuse("a socket")`` and its like return, at whoever tries to use one."""
        thread = threading.get_ident()
        for owner, name, what in _ENTRANCES:
            original = _own(owner, name)
            self._originals.append((owner, name, original))
            setattr(owner, name, self._guard(thread, original, what))

    def open(self) -> None:
        """Put everything back."""
        while self._originals:
            owner, name, original = self._originals.pop()
            setattr(owner, name, original)

    def _guard(self, thread: int, original: Callable[..., Any], what: str) -> Callable[..., Any]:
        def guarded(*args: Any, **kwargs: Any) -> Any:
            if threading.get_ident() == thread:
                raise self._refuse(what)
            return original(*args, **kwargs)

        return guarded


def _own(owner: Any, name: str) -> Any:
    # Not `getattr`: were it inherited, putting it back would leave a copy on the subclass.
    return owner.__dict__[name]
