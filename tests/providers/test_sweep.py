"""The adapters in the simulation: cancelled, stopped, left and cut off at every step, in other orders of tasks.

Here an adapter is swept evenly, within a few seconds. All places::

    python -m tests.providers.test_sweep [--jobs N] [--seeds N] [WORD...]
    python -m tests.providers.test_sweep --token TOKEN

where ``--seeds`` does it in so many orders of tasks, and only scenarios are swept whose names contain the words.
``--token`` runs again what a sweep has found.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import product
from typing import Any

import pytest
import trio
from attrs import frozen

from agentloop import Agent, Deadlines, Retries, ToolContext
from agentloop.errors import ClockError, ModelConnectionError, ModelError, ModelTimeoutError
from agentloop.events import ResponseDiscarded, StreamReason, TextDelta
from agentloop.models import Model
from agentloop.testing import Lab, simulation
from agentloop.testing._lab import AgentScenario
from tests.providers.chat import ASK, Heard
from tests.providers.conformance import (
    OVER_HTTP,
    Argued,
    Called,
    OverHttp,
    Piece,
    Said,
    Thought,
    check_cuts,
    cut_off,
    cutting,
)
from tests.providers.memory import URL, Network, network
from tests.providers.server import HEAD, Handler, Peer, chunk, chunked

LIMIT = 16
"""Places of each kind that are tried in each scenario."""


@asynccontextmanager
async def serving(lab: Lab, handler: Handler, **options: Any) -> AsyncGenerator[Network]:
    """A network in memory, where each use of it by the client may fail."""
    async with network(handler, seam=lab.sim.seam, **options) as net:
        yield net


def check_outcomes(
    lab: Lab,
    *outputs: str | None,
    undisturbed: StreamReason = "completed",
    failure: type[ModelError] = ModelConnectionError,
) -> None:
    """A run is whole, or it failed as models fail, or it was cancelled: never something in between.

    Args:
      outputs: what each run answers if it is whole; ``None`` if it cannot be.
      undisturbed: how they end in whatever order of tasks, where nothing is injected.
      failure: what they may fail with besides a connection, which may drop anywhere.
    """
    for recorded, output in zip(lab.recorded, outputs, strict=True):
        outcome = recorded.stream._run.outcome
        assert outcome is not None
        if outcome.reason == "completed":
            assert outcome.output == output, f"{recorded.name} answered {outcome.output!r}, where {output!r} was sent"
        elif outcome.reason == "failed":
            expected: tuple[type[Exception], ...] = (ModelConnectionError, failure)
            if str(lab.sim.fault).startswith("clock"):
                # Some read it in the runtime, some in the adapter.
                expected = (ClockError, ModelError)
            assert isinstance(outcome.error, expected), f"{recorded.name} failed with {outcome.error!r}"
        else:
            assert outcome.reason == "cancelled", f"{recorded.name} ended as {outcome.reason}"
        assert lab.sim.fault is not None or outcome.reason == undisturbed, f"{recorded.name} ended as {outcome.reason}"


def each(*answers: Sequence[bytes]) -> Handler:
    """Gives the answers in turn, on each connection from the first one, event by event; then waits for the end."""

    async def handler(peer: Peer) -> None:
        for events in answers:
            if await peer.request() is None:
                return
            await peer.send(HEAD, *map(chunk, events), chunk(b""))
        await peer.until_closed()

    return handler


# ---------------------------------------------------------------------------- scenarios


async def text(lab: Lab, adapter: OverHttp) -> None:
    """A response, from its first to its last event."""
    answer = adapter.wire.whole(Thought("Hm"), Said("Grüße, "), Said("Welt"))
    async with serving(lab, each(answer)), lab.stream(Agent(adapter.make(URL))) as stream:
        await stream.drain()
    check_outcomes(lab, "Grüße, Welt")


CALLS: tuple[Piece, ...] = (Said("Let me see."), Called(0, "c1", "look"), Argued(0, "{"), Argued(0, "}"))


async def tool_turn(lab: Lab, adapter: OverHttp) -> None:
    """Two requests, over one connection."""
    answers = [adapter.wire.whole(*CALLS, stop="tool_calls"), adapter.wire.whole(Said("Found."))]

    async def handler(peer: Peer) -> None:
        while (request := await peer.request()) is not None:
            # Which turn it is shows in the request: a connection may have been lost in between.
            await peer.send(chunked(*answers["c1" in request.body.decode()]))

    agent = Agent(adapter.make(URL), tools=[lab.tool("look")])
    async with serving(lab, handler) as net, lab.stream(agent) as stream:
        await stream.drain()
    assert lab.sim.fired or len(net.opened) == 1, "the connection was not kept"
    check_outcomes(lab, "Found.")


async def hung_up_between_turns(lab: Lab, adapter: OverHttp) -> None:
    """The server closes the connection while the tool runs: it is seen, and another one opened."""
    answers = [adapter.wire.whole(*CALLS, stop="tool_calls"), adapter.wire.whole(Said("Found."))]

    async def handler(peer: Peer) -> None:
        request = await peer.request()
        if request is not None:
            await peer.send(chunked(*answers["c1" in request.body.decode()]))

    async def look(context: ToolContext[Any]) -> str:
        await trio.sleep(1)
        return "there"

    agent = Agent(adapter.make(URL), tools=[lab.tool("look", look)])
    async with serving(lab, handler), lab.stream(agent) as stream:
        await stream.drain()
    discarded = [event for event in stream.events if isinstance(event, ResponseDiscarded)]
    assert lab.sim.fault is not None or not discarded, "a request was sent over a connection that was closed already"
    check_outcomes(lab, "Found.")


async def cut(lab: Lab, adapter: OverHttp) -> None:
    """The server hangs up in the middle of an event."""
    wire = HEAD + b"".join(map(chunk, adapter.wire.begun(Said("Once "), Said("upon"))))

    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(wire[: len(wire) // 2], wire[len(wire) // 2 : -9])

    async with serving(lab, handler), lab.stream(Agent(adapter.make(URL))) as stream:
        await stream.drain()
    check_outcomes(lab, None, undisturbed="failed")


async def stalled(lab: Lab, adapter: OverHttp) -> None:
    """The server falls silent; the deadline ends it."""

    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD, *map(chunk, adapter.wire.begun(Said("Once upon"))))
        await peer.until_closed()

    async with serving(lab, handler):
        deadlines = Deadlines(first_token=20, idle=10)
        agent = Agent(adapter.make(URL), deadlines=deadlines, retries=Retries(attempts=1))
        async with lab.stream(agent) as stream:
            await stream.drain()
    check_outcomes(lab, None, undisturbed="failed", failure=ModelTimeoutError)


async def mute(lab: Lab, adapter: OverHttp) -> None:
    """The server takes the request, as slowly as it can, and says nothing at all."""

    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.until_closed()

    async with serving(lab, handler, capacity=64):
        deadlines = Deadlines(first_token=20, idle=10)
        agent = Agent(adapter.make(URL), deadlines=deadlines, retries=Retries(attempts=1))
        async with lab.stream(agent) as stream:
            await stream.drain()
    check_outcomes(lab, None, undisturbed="failed", failure=ModelTimeoutError)


async def left(lab: Lab, adapter: OverHttp) -> None:
    """The reader leaves at the first piece, while more of them are coming through a narrow pipe."""

    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD, *map(chunk, adapter.wire.begun(*(Said(f"word{index} ") for index in range(5)))))
        await peer.until_closed()

    async with serving(lab, handler, capacity=128), lab.stream(Agent(adapter.make(URL))) as stream:
        async for event in stream:
            if isinstance(event, TextDelta):
                break
    check_outcomes(lab, None, undisturbed="cancelled")


async def unended(lab: Lab, adapter: OverHttp) -> None:
    """The server never ends an answer, though all of it has come: it is not waited for, nor its connection kept."""
    answers = [adapter.wire.whole(*CALLS, stop="tool_calls"), adapter.wire.whole(Said("Found."))]

    async def handler(peer: Peer) -> None:
        request = await peer.request()
        if request is not None:
            await peer.send(HEAD, *map(chunk, answers["c1" in request.body.decode()]))
            await peer.until_closed()

    async with serving(lab, handler), lab.stream(Agent(adapter.make(URL), tools=[lab.tool("look")])) as stream:
        await stream.drain()
    check_outcomes(lab, "Found.")


async def slow_reader(lab: Lab, adapter: OverHttp) -> None:
    """The reader takes its time, so the model waits, and the server too: time that counts against nobody."""
    answer = adapter.wire.whole(*(Said(f"{index % 10}") for index in range(40)))
    agent = Agent(adapter.make(URL), deadlines=Deadlines(first_token=20, idle=10))
    async with serving(lab, each(answer), capacity=512), lab.stream(agent) as stream:
        async for event in stream:
            if isinstance(event, TextDelta):
                await trio.sleep(15)
    check_outcomes(lab, "0123456789" * 4)


async def alone(lab: Lab, adapter: OverHttp) -> None:
    """A response without an agent, on a connection of its own."""
    heard = Heard()
    async with serving(lab, each(adapter.wire.whole(Said("Hi")))):
        with lab.sim.scope("A"):
            try:
                stop = await adapter.make(URL).respond(ASK, heard)
            except ModelConnectionError:
                pass
            else:
                assert heard.message(stop).text == "Hi"


async def at_once(lab: Lab, adapter: OverHttp) -> None:
    """Two streams of one model that is open around them, of which each gets its own answer."""

    async def handler(peer: Peer) -> None:
        while (request := await peer.request()) is not None:
            (name,) = (name for name in "AB" if f"I am {name}" in request.body.decode())
            await peer.send(HEAD, *map(chunk, adapter.wire.whole(Said(name), Said(name))), chunk(b""))

    async def play(model: Model, name: str) -> None:
        async with lab.stream(Agent(model), f"I am {name}", name=name) as stream:
            await stream.drain()

    async with serving(lab, handler):
        with lab.sim.scope("both"):
            async with adapter.at(URL) as model:
                async with trio.open_nursery() as nursery:
                    for name in "AB":
                        nursery.start_soon(play, model, name)
                # Now the model holds the connections of both.
                await trio.sleep(1)
    check_outcomes(lab, *(recorded.name * 2 for recorded in lab.recorded))


SCENARIOS = (text, tool_turn, hung_up_between_turns, cut, stalled, mute, left, unended, slow_reader, alone, at_once)


@frozen
class Play:
    """A scenario with an adapter."""

    adapter: OverHttp
    scenario: Callable[[Lab, OverHttp], Awaitable[None]]

    @property
    def __name__(self) -> str:
        return f"{self.adapter}-{self.scenario.__name__}".replace("_", "-")

    async def __call__(self, lab: Lab) -> None:
        # The lab keeps an account of the requests of its own models; these are real ones.
        lab.watch.requests.is_kept = False
        await self.scenario(lab, self.adapter)


PLAYS = {str(play.__name__): play for play in (Play(adapter, one) for adapter, one in product(OVER_HTTP, SCENARIOS))}


# -------------------------------------------------------------------------------- tests


@pytest.mark.parametrize("name", PLAYS)
def test_nothing_breaks_it(name: str) -> None:
    # As a scenario of our own: what a play checks after its streams holds for those that failed, too.
    make = partial(AgentScenario, name, PLAYS[name])
    report = simulation.sweep_scenario(make, kinds=["cancel", "seam", "schedule"], limit=LIMIT)
    report.raise_if_violated()
    assert report.fired > LIMIT


@pytest.mark.seconds(60)
@pytest.mark.parametrize("framing", ["chunked", "until_close"])
@pytest.mark.parametrize("adapter", OVER_HTTP, ids=str)
async def test_a_response_that_is_cut_off_at_any_byte_is_an_error_or_whole(adapter: OverHttp, framing: str) -> None:
    """Never a part of a response that passes for all of it, and none that is mixed with the one before it."""
    wire, pieces = cut_off(adapter.wire, framing)
    # Where nothing but the connection's end ends it, a few places of each event are enough, but for those at its end.
    step = 1 if framing == "chunked" else 7
    places = [*range(0, len(wire) - 300, step), *range(len(wire) - 300, len(wire) + 1)]
    async with network(cutting(wire, places)), adapter.at(URL) as model:
        first = await check_cuts(model, len(places), pieces)

    # It takes nearly all of it: what may be missing is the end of the end.
    assert len(b"".join(adapter.wire.begun(*pieces))) < places[first]


def main() -> None:
    """Sweep everything."""
    parser = argparse.ArgumentParser(prog="python -m tests.providers.test_sweep", description=main.__doc__)
    parser.add_argument("word", nargs="*")
    parser.add_argument("--jobs", type=int, default=1, metavar="N")
    parser.add_argument("--seeds", type=int, default=1, metavar="N")
    parser.add_argument("--token", metavar="TOKEN")
    given = parser.parse_args()
    if given.token is not None:
        name = given.token.split()[0]
        simulation.replay_token(partial(AgentScenario, name, PLAYS[name]), given.token)
        return
    for (name, play), seed in product(PLAYS.items(), range(given.seeds)):
        if all(word in name for word in given.word):
            began = time.monotonic()
            report = simulation.sweep_scenario(partial(AgentScenario, name, play), jobs=given.jobs, seed=seed)
            print(f"{name}, order {seed}: {report} in {time.monotonic() - began:.1f} s", flush=True)


if __name__ == "__main__":
    main()
