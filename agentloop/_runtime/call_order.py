"""Questions come in call order, although trio starts the tasks of a nursery, and wakes them, in any order."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import trio

__all__ = ["Arrivals", "CallOrder"]


MOST_STEPS = 10
"""How long a question waits for others, where they go on to arrive."""


class CallOrder:
    """The calls of one turn: none asks a question before each earlier call has been checked, or has asked one itself.

    So approvals come in call order, also where a hook looks longer at one call than at another. The wait is bounded by
    the time limit of hooks.
    """

    __slots__ = ("_first", "_places", "_settled", "_turns")

    def __init__(self, call_ids: Iterable[str]) -> None:
        self._places = {id: place for place, id in enumerate(call_ids)}
        self._settled: set[int] = set()
        """Calls at or behind `_first` that have been checked, or have asked."""
        self._first = 0
        """The first call that has not."""
        self._turns: dict[int, trio.Event] = {}
        """The calls that wait to ask."""

    def place_of(self, call_id: str) -> int:
        """Where the call stands; -1 for the run itself."""
        return self._places.get(call_id, -1)

    def settle(self, call_id: str) -> None:
        """The call has been checked, has asked, or has ended: it holds up no later call any more."""
        place = self._places.get(call_id, -1)
        if place >= self._first:
            self._settled.add(place)
        while self._first in self._settled:
            self._settled.discard(self._first)
            self._first += 1
            turn = self._turns.pop(self._first, None)
            if turn is not None:
                turn.set()

    async def wait_for_turn(self, call_id: str) -> None:
        """Return when no earlier call may still ask its first question."""
        place = self.place_of(call_id)
        if place > self._first:
            await self._turns.setdefault(place, trio.Event()).wait()


class Arrivals:
    """The questions of all runs of a tree that are asked at once: sorted, then opened."""

    __slots__ = ("_arrived", "_count", "expected")

    def __init__(self) -> None:
        self._arrived: list[_Arrival] = []
        self._count = 0
        """How many have arrived so far."""
        self.expected = 0
        """Questions that wait for the turn of their call: woken at this moment, they arrive in the next step."""

    async def open(self, place: tuple[int, ...], open_question: Callable[[], None]) -> None:
        """Call ``open_question``, after those with a lower ``place`` that arrive at the same moment."""
        arrival = _Arrival(place, open_question)
        self._arrived.append(arrival)
        self._count += 1
        try:
            # Tasks that are woken at one moment run in one step of the scheduler, in any order. A step in which no
            # question arrives shows that all of them have.
            for _ in range(MOST_STEPS):
                count = self._count
                await trio.lowlevel.checkpoint()
                if count == self._count and not self.expected:
                    break
        except BaseException:
            if arrival in self._arrived:
                self._arrived.remove(arrival)
            raise
        if arrival in self._arrived:
            arrived, self._arrived = sorted(self._arrived, key=_place), []
            for each in arrived:
                each.open()


class _Arrival:
    __slots__ = ("open", "place")

    def __init__(self, place: tuple[int, ...], open_question: Callable[[], None]) -> None:
        self.place = place
        self.open = open_question


def _place(arrival: _Arrival) -> tuple[int, ...]:
    return arrival.place
