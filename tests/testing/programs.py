"""Programs to simulate, for the tests of the simulation."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing
from attrs import define

from agentloop.testing.simulation import (
    Outcome,
    Sim,
    Violation,
    simulate,
)

Body = Callable[[Sim], Awaitable[object]]


@define
class Program:
    """A scenario made of one function, which has to end in the way it is told."""

    body: Body
    ends_with: type[BaseException] | None = None
    name: str = "program"

    async def run(self, sim: Sim, /) -> None:
        await self.body(sim)

    def check(self, sim: Sim, outcome: Outcome, /) -> None:
        if self.ends_with is None:
            assert outcome.returned, f"ended with {outcome.error!r}"
        else:
            assert isinstance(outcome.error, self.ends_with), f"ended with {outcome.error!r}"


@define
class AnyEnd(Program):
    """The same, but it may end in any way: what counts is that it ends."""

    def check(self, sim: Sim, outcome: Outcome, /) -> None:
        pass


async def three_tasks(sim: Sim) -> None:
    """A producer, a consumer and a bystander: some of each that a digest is made of."""
    send, receive = trio.open_memory_channel[int](1)

    async def produce() -> None:
        with send:
            for number in range(3):
                await sim.seam("produce")
                await send.send(number)

    async def consume() -> None:
        with receive:
            async for number in receive:
                await trio.sleep(number)

    async with trio.open_nursery() as nursery:
        with sim.scope("reader"):
            nursery.start_soon(produce)
            nursery.start_soon(consume)
            nursery.start_soon(trio.sleep, 1)


def stuck(body: Body, **options: Any) -> Sim:
    with pytest.raises(Violation) as caught:
        simulate(Program(body), **options)
    assert caught.value.sim.stuck is not None
    assert str(caught.value.sim.stuck) in str(caught.value)
    return caught.value.sim


forever = partial(itertools.repeat, None)


async def never() -> None:
    await trio.Event().wait()
