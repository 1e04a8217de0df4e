"""Programs of their own, for a fresh process each: what many runs, a stalled reader, a long response cost in memory."""

from __future__ import annotations

import gc
import json
import sys
import time
import tracemalloc
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

import trio
import trio.testing

from agentloop import Agent
from agentloop.events import TextDelta
from agentloop.models import ModelRequest, Reply, Stop
from agentloop.providers.openai_chat import OpenAIChat
from tests.bench import bare, ours
from tests.bench.bare_http import open_model
from tests.bench.measure import rss_kb
from tests.bench.work import turns


class Gate:
    """A tool in which all runs wait for the last one; it then notes how much memory they hold."""

    def __init__(self) -> None:
        self._opened = trio.Event()
        self._missing = 0
        self.rss_kb = 0.0

    def expect(self, runs: int) -> None:
        self._missing = runs
        self._opened = trio.Event()

    async def gate(self, a: int, b: int) -> int:
        """Add two numbers, when everybody is here."""
        if a < 2:
            return a + b
        self._missing -= 1
        if self._missing == 0:
            gc.collect()
            self.rss_kb = rss_kb()
            self._opened.set()
        await self._opened.wait()
        return a + b


async def many(side: str, count: int) -> dict[str, float]:
    """``count`` runs that stand in a tool call of their third turn at the same moment, then finish."""
    gate = Gate()
    plan = turns(3, tool="gate")
    agent = ours.agent_for(plan, gate.gate)
    model = bare.model_of(plan)

    async def one() -> None:
        texts = await (ours.read(agent) if side == "ours" else bare.read(model, {"gate": gate.gate}))
        assert texts == 1, texts

    gate.expect(1)
    await one()
    gc.collect()
    before = rss_kb()
    gate.expect(count)
    began = time.process_time()
    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(one)
    return {"kb_per_run": (gate.rss_kb - before) / count, "seconds_per_run": (time.process_time() - began) / count}


class Chatterbox:
    """A model with more to say than anybody wants to read."""

    name = "chatterbox"

    def __init__(self, pieces: int) -> None:
        self._pieces = pieces
        self.told = 0

    async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
        for index in range(self._pieces):
            await reply.text(f"word{index} ")
            self.told += 1
        return Stop()

    async def generate(self, messages: list[bare.Message]) -> AsyncGenerator[str]:
        for index in range(self._pieces):
            yield f"word{index} "
            self.told += 1


async def stalled(side: str, pieces: int) -> dict[str, float]:
    """A reader that stops after the first piece, while the model offers ``pieces``."""
    model = Chatterbox(pieces)

    async def stall(events: AsyncIterator[object]) -> dict[str, float]:
        async for event in events:
            if isinstance(event, (TextDelta, bare.Text)):
                break
        tracemalloc.start()
        # Returns when the model has to wait, or when it has said everything.
        await trio.testing.wait_all_tasks_blocked()
        return {"peak_kb": tracemalloc.get_traced_memory()[1] / 1024, "taken": model.told}

    if side == "ours":
        async with Agent(model).stream("go") as stream:
            return await stall(stream)
    async with bare.stream(model.generate, lambda emit: {}) as events:
        return await stall(events)


async def flood(side: str, letters: int, url: str) -> dict[str, float]:
    """A reader that is slow, of a response that has very many pieces."""
    rss: list[float] = []

    async def read(events: AsyncIterator[object]) -> None:
        seen = 0
        async for event in events:
            if isinstance(event, (TextDelta, bare.Text)):
                seen += len(event.text)
                if seen >= len(rss) * letters // 100:
                    # Meanwhile the server goes on, until there is no more room on the way.
                    await trio.sleep(0.01)
                    rss.append(rss_kb())
        assert seen == letters, seen

    if side == "ours":
        async with Agent(OpenAIChat("bench", base_url=url, api_key="key")).stream("go") as stream:
            await read(stream)
    else:
        async with open_model(url, []) as model, bare.stream(model, lambda emit: {}) as events:
            await read(events)
    tenth = len(rss) // 10
    return {"grown_kb": max(rss[tenth:]) - rss[tenth]}


def main() -> None:
    programs: dict[str, Callable[..., Awaitable[dict[str, float]]]] = {"many": many, "stalled": stalled, "flood": flood}
    program, side, count, *more = sys.argv[1:]
    print(json.dumps(trio.run(programs[program], side, int(count), *more)))


if __name__ == "__main__":
    main()
