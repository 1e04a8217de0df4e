"""Whether a run has nothing left to do but wait for people, so that it can be parked."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

__all__ = ["Waits"]


class Waits:
    """Tracks whether a run is idle: waits for nothing but people."""

    __slots__ = ("_calls", "_inside", "opened", "own")

    def __init__(self) -> None:
        self._calls: dict[str, int] = {}
        """For how much each call that has not ended waits: for people, or for other calls."""
        self._inside: dict[str, list[Waits]] = {}
        """By call, the streams that it has opened and that have not ended."""
        self.own = 0
        """How many questions the stream itself has open, and no call of it."""
        self.opened: dict[str, int] = {}
        """How many streams each call has opened so far."""

    def begin(self, call_id: str) -> None:
        """A call began."""
        self._calls[call_id] = 0

    def end(self, call_id: str) -> None:
        """A call ended."""
        del self._calls[call_id]
        self._inside.pop(call_id, None)

    @contextmanager
    def waiting(self, call_id: str) -> Generator[None]:
        """A call, or with no call the stream itself, waits for a person or another call while the block runs."""
        if call_id:
            self._calls[call_id] += 1
        else:
            self.own += 1
        try:
            yield
        finally:
            if not call_id:
                self.own -= 1
            elif call_id in self._calls:
                self._calls[call_id] -= 1

    @contextmanager
    def inside(self, call_id: str, child: Waits) -> Generator[None]:
        """A call has a stream inside while the block runs."""
        self._inside.setdefault(call_id, []).append(child)
        try:
            yield
        finally:
            if call_id in self._inside:
                self._inside[call_id].remove(child)

    @property
    def is_waiting(self) -> bool:
        """Whether the stream is idle: no part of it continues by itself."""
        return self.own > 0 or (bool(self._calls) and all(map(self._is_waiting, self._calls)))

    def _is_waiting(self, call_id: str) -> bool:
        inside = self._inside.get(call_id)
        if inside:
            return all(child.is_waiting for child in inside)
        return self._calls[call_id] > 0
