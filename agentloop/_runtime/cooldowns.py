"""The models that failed a short while ago, and are left alone until their cooldowns end.

A cooldown belongs to a model: to its object, or to its name, address and key, if it has an ``identity``. All runs of
the process share the cooldowns, since a server that is busy for one prompt is busy for the next.
"""

from __future__ import annotations

import math
import time
from collections.abc import Hashable
from typing import Any
from weakref import WeakKeyDictionary

import trio
from attrs import frozen

from agentloop.models import Model

__all__ = ["Cooldowns"]


@frozen(eq=False)
class _Same:
    """A model without an identity of its own, as a key. The key holds the model, so that no other can get its id."""

    model: Model

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.model is self.model

    def __hash__(self) -> int:
        return id(self.model)


_on_real_time: dict[Hashable, float] = {}
"""The end of each cooldown, on the clock of `time.monotonic`."""
_on_other_clocks: WeakKeyDictionary[Any, dict[Hashable, float]] = WeakKeyDictionary()
"""The same for runs on a clock of their own, such as a test's, which know nothing of one another."""


class Cooldowns:
    """The cooldowns of all models, in the time of the trio run in which they are made."""

    __slots__ = ("_ends", "_is_real")

    def __init__(self) -> None:
        clock = trio.lowlevel.current_clock()
        # Each run of trio counts its real time from another number.
        self._is_real = type(clock).__name__ == "SystemClock"
        try:
            self._ends = _on_real_time if self._is_real else _on_other_clocks.setdefault(clock, {})
        except TypeError:
            # A clock that cannot be such a key: its runs share no cooldowns.
            self._ends = {}

    def __len__(self) -> int:
        return len(self._ends)

    def end(self, model: Model) -> float:
        """The time at which the cooldown of ``model`` ends; minus infinity if it has none."""
        return self._ends.get(_key(model), -math.inf) - self._ahead()

    def begin(self, model: Model, end: float, now: float) -> None:
        """Leave ``model`` alone from ``now`` to ``end``."""
        ahead = self._ahead()
        # A list, since runs in other threads add to it.
        for key, other_end in list(self._ends.items()):
            if other_end <= now + ahead:
                self._ends.pop(key, None)
        key = _key(model)
        self._ends[key] = max(end + ahead, self._ends.get(key, -math.inf))

    def _ahead(self) -> float:
        """Seconds by which the clock of the cooldowns is ahead of the run's."""
        return time.monotonic() - trio.current_time() if self._is_real else 0.0


def _key(model: Model) -> Hashable:
    identity: object = getattr(model, "identity", None)
    if identity is None:
        return _Same(model)
    try:
        hash(identity)
    except TypeError:
        return _Same(model)
    return (model.name, identity)
