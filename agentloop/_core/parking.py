"""When a tree of streams has nothing left to do but wait for people, so that it can end, to be resumed."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager

from agentloop.events import Question

__all__ = ["Parking", "Waits"]


class Waits:
    """What a stream is waiting for."""

    __slots__ = ("_calls", "_inside", "asked", "opened", "own")

    def __init__(self) -> None:
        self._calls: dict[str, int] = {}
        """For how much each call that has not ended waits: for people, or for other calls."""
        self._inside: dict[str, list[Waits]] = {}
        """By call, the streams that it has opened and that have not ended."""
        self.own = 0
        """How many questions the stream itself has open, and no call of it."""
        self.asked: dict[tuple[str, bool], int] = {}
        """How many questions each has asked so far, by `agentloop._core.state.asker`."""
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
        """A call, or with no call the stream itself, waits for somebody else while the block runs."""
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
        """Whether nothing of the stream goes on by itself."""
        return self.own > 0 or (bool(self._calls) and all(map(self._is_waiting, self._calls)))

    def _is_waiting(self, call_id: str) -> bool:
        inside = self._inside.get(call_id)
        if inside:
            return all(child.is_waiting for child in inside)
        return self._calls[call_id] > 0


class Parking:
    """The questions of a tree of streams that its root's next stream will have the answers to."""

    __slots__ = ("_look", "_park", "_root", "_stop", "is_parked", "questions")

    def __init__(self) -> None:
        self._park: dict[str, Callable[[], None]] = {}
        self._look: dict[str, Callable[[], None]] = {}
        self._root: Waits | None = None
        self._stop: Callable[[], None] = lambda: None
        self.is_parked = False
        """Whether the tree is ending, to be resumed."""
        self.questions: tuple[Question, ...] = ()
        """Those that it is parked with."""

    def allow(self, root: Waits, stop: Callable[[], None]) -> None:
        """Watch ``root``, and call ``stop`` when the tree is parked."""
        self._root, self._stop = root, stop

    @contextmanager
    def waiting(self, question: Question, park: Callable[[], None], look: Callable[[], None]) -> Generator[None]:
        """``question`` waits, while the block runs.

        Args:
          park: is called if the tree is parked meanwhile.
          look: is called when something has changed: then call `check`, as soon as everybody has had a chance to go on.
        """
        self._park[question.id], self._look[question.id] = park, look
        self.questions = (*self.questions, question)
        try:
            yield
        finally:
            del self._look[question.id]
            if not self.is_parked:
                self._forget(question.id)

    def _forget(self, id: str) -> None:
        self._park.pop(id, None)
        self.questions = tuple(each for each in self.questions if each.id != id)

    def answered(self, id: str) -> None:
        """A question has its answer; who asked is not going on yet."""
        self._forget(id)
        self.changed()

    def changed(self) -> None:
        """Something has ended, begun to wait, or been answered; who waited for that is not going on yet."""
        for look in self._look.values():
            look()

    def check(self) -> None:
        """Park, if nothing goes on by itself any more."""
        if self._park and not self.is_parked and self._root is not None and self._root.is_waiting:
            self.is_parked = True
            for park in self._park.values():
                park()
            self._stop()
