"""The work that both sides do: what the model says in each turn, and the tools that it calls."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import trio

__all__ = ["NESTED", "PARALLEL", "SHORT", "TALK", "Call", "Plan", "Turn", "add", "nap", "turns"]


class Call(NamedTuple):
    """A tool call that the model asks for."""

    id: str
    name: str
    arguments: str


class Turn(NamedTuple):
    """One response of the model: its text in pieces, then its calls."""

    texts: Sequence[str] = ()
    calls: Sequence[Call] = ()


class Plan:
    """What a model says, turn by turn. Stateless, so that any number of runs share one."""

    def __init__(self, *turns: Turn, marks: list[float] | None = None) -> None:
        self._turns = turns
        self._messages_per_turn = 1 + len(turns[0].calls)
        self._marks = marks
        """Gets the CPU time at the start of each turn, if given."""

    def next(self, messages: int) -> Turn:
        """The response to a transcript of ``messages`` messages, of which the first is the prompt."""
        if self._marks is not None:
            self._marks.append(time.process_time())
        return self._turns[(messages - 1) // self._messages_per_turn]

    @property
    def texts(self) -> int:
        """How many pieces of text there are in all."""
        return sum(len(turn.texts) for turn in self._turns)


def _words(count: int) -> list[str]:
    return [f"word{index} " for index in range(count)]


def _call(index: int, name: str, /, **arguments: object) -> Call:
    return Call(f"call_{index}", name, msgspec.json.encode(arguments).decode())


def turns(count: int, *, tool: str = "add", marks: list[float] | None = None) -> Plan:
    """``count`` turns of one call of ``tool(a, b)``, then an answer in one piece."""
    called = (Turn(calls=[_call(index, tool, a=index, b=2)]) for index in range(count))
    return Plan(*called, Turn(["Done."]), marks=marks)


TALK = Plan(Turn(_words(1000)))
SHORT = turns(3)
PARALLEL = Plan(Turn(calls=[_call(index, "nap", index=index) for index in range(16)]), Turn(["Done."]))
# From the outermost agent to the innermost: each asks the next one, then says 30 words.
NESTED = (
    Plan(Turn(calls=[_call(0, "middle", prompt="go")]), Turn(_words(30))),
    Plan(Turn(calls=[_call(0, "inner", prompt="go")]), Turn(_words(30))),
    Plan(Turn(_words(30))),
)


async def add(a: int, b: int) -> int:  # noqa: ASYNC124  # a sync tool would run in a thread
    """Add two numbers."""
    return a + b


async def nap(index: int) -> str:
    """Sleep for 10 ms."""
    await trio.sleep(0.01)
    return f"slept {index}"
