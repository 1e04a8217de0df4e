"""Questions come in call order, although trio starts the tasks of a nursery, and wakes them, in any order."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import trio

__all__ = ["Arrivals", "CallOrder"]


MOST_STEPS = 10
"""Steps of the scheduler that a question waits at most for others that keep arriving."""


class CallOrder:
    """The calls of one turn: a call asks only after each earlier call has been checked, or has asked.

    Approvals therefore come in call order, even if a hook takes longer for one call than for another. The wait is
    bounded by the deadline of hooks.
    """

    __slots__ = ("_first", "_positions", "_settled", "_turns")

    def __init__(self, call_ids: Iterable[str]) -> None:
        self._positions = {id: position for position, id in enumerate(call_ids)}
        self._settled: set[int] = set()
        """Calls at or behind `_first` that have been checked, or have asked."""
        self._first = 0
        """The first call that has not."""
        self._turns: dict[int, trio.Event] = {}
        """The calls that wait to ask."""

    def position_of(self, call_id: str) -> int:
        """The position of the call in its turn; -1 for the run itself."""
        return self._positions.get(call_id, -1)

    def settle(self, call_id: str) -> None:
        """The call has been checked, has asked, or has ended: it holds up no later call any more."""
        position = self._positions.get(call_id, -1)
        if position >= self._first:
            self._settled.add(position)
        while self._first in self._settled:
            self._settled.discard(self._first)
            self._first += 1
            turn = self._turns.pop(self._first, None)
            if turn is not None:
                turn.set()

    def is_turn_of(self, call_id: str) -> bool:
        """Whether no earlier call may still ask its first question."""
        return self.position_of(call_id) <= self._first

    async def wait_for_turn(self, call_id: str) -> None:
        """Return when no earlier call may still ask its first question."""
        if not self.is_turn_of(call_id):
            await self._turns.setdefault(self.position_of(call_id), trio.Event()).wait()


class Arrivals:
    """The questions of all runs of a tree that are asked at once: sorted, then opened."""

    __slots__ = ("_arrived", "_count")

    def __init__(self) -> None:
        self._arrived: dict[_Arrival, None] = {}
        self._count = 0
        """How many have arrived so far."""

    async def open(
        self, open_question: Callable[[], None], position: tuple[int, ...], order: CallOrder | None, call_id: str
    ) -> None:
        """Call ``open_question``, after those with a lower ``position`` that arrive at the same moment.

        Args:
          position: where the question's call stands in its turn, after the positions of the calls around it.
          order: of that turn; with ``call_id``, it says when the question may be opened.
        """
        arrival = _Arrival(open_question, position, order, call_id)
        # Before its turn: a question that waits for it comes before the later ones that need not wait.
        self._arrived[arrival] = None
        self._count += 1
        try:
            if order is not None:
                await order.wait_for_turn(call_id)
            # Tasks that are woken at one moment run in one step of the scheduler, in any order. A step in which no
            # question arrives shows that all of them have.
            for _ in range(MOST_STEPS):
                count = self._count
                await trio.lowlevel.checkpoint()
                if count == self._count:
                    break
        except BaseException:
            self._arrived.pop(arrival, None)
            raise
        if arrival in self._arrived:
            self._open_all()

    def _open_all(self) -> None:
        arrived, self._arrived = sorted(self._arrived, key=_position), {}
        for arrival in arrived:
            # Opening one may make it the turn of the next.
            if arrival.is_due:
                arrival.open()
            else:
                self._arrived[arrival] = None


class _Arrival:
    __slots__ = ("_call_id", "_order", "open", "position")

    def __init__(
        self, open_question: Callable[[], None], position: tuple[int, ...], order: CallOrder | None, call_id: str
    ) -> None:
        self.open = open_question
        self.position = position
        self._order = order
        self._call_id = call_id

    @property
    def is_due(self) -> bool:
        return self._order is None or self._order.is_turn_of(self._call_id)


def _position(arrival: _Arrival) -> tuple[int, ...]:
    return arrival.position
