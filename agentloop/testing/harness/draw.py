"""Choices made at random, of which each feature has a source of its own."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TypeVar

__all__ = ["Draw"]

T = TypeVar("T")


class Draw:
    """Choices made at random, the same for each name on each Python."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._source = Random(name)

    def on(self, name: object) -> Draw:
        """The source of the choices of one feature."""
        return Draw(f"{self._name}/{name}")

    def chance(self, part: float) -> bool:
        """True in ``part`` of all cases."""
        return self._source.random() < part

    def number(self, below: int) -> int:
        """A whole number from 0."""
        return int(self._source.random() * below)

    def one(self, choices: Sequence[T]) -> T:
        """One of the choices."""
        return choices[self.number(len(choices))]

    def some(self, choices: Sequence[T], part: float) -> list[T]:
        """Each choice with a chance of ``part``, in their order."""
        return [choice for choice in choices if self.chance(part)]
