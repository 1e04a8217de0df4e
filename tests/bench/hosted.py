"""What a run costs in asyncio, where trio is a guest: against the same run on trio, and beside others' native runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import trio

from agentloop.asyncio import TrioHost
from tests.bench import ours
from tests.bench.figures import Measured
from tests.bench.measure import Samples, median, ratio
from tests.bench.work import add, turns

__all__ = ["runs", "tick"]

PLAN = turns(1)
"""A tool call, then an answer."""

Run = Callable[[], Awaitable[object]]


async def _timed(run: Run, count: int, *, at_once: bool) -> float:
    """CPU seconds of a run, of ``count`` in asyncio."""
    await run()
    began = time.process_time()
    if at_once:
        await asyncio.gather(*(run() for _ in range(count)))
    else:
        for _ in range(count):
            await run()
    return (time.process_time() - began) / count


async def _hosted(count: int, at_once: bool) -> float:
    agent = ours.agent_for(PLAN, add)
    async with TrioHost() as host:

        async def run() -> None:
            outcome = await host.run(agent, "go")
            assert outcome.reason == "completed"

        return await _timed(run, count, at_once=at_once)


async def _on_trio(count: int, at_once: bool) -> float:
    agent = ours.agent_for(PLAN, add)
    await agent.run("go")
    began = time.process_time()
    if at_once:
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(agent.run, "go")
    else:
        for _ in range(count):
            await agent.run("go")
    return (time.process_time() - began) / count


async def _in_pydantic_ai(count: int, at_once: bool) -> float:
    other: Any = import_module("pydantic_ai")
    messages_of: Any = import_module("pydantic_ai.messages")
    model_of: Any = import_module("pydantic_ai.models.function").FunctionModel

    def respond(messages: Any, info: Any) -> Any:
        if len(messages) == 1:
            return messages_of.ModelResponse(parts=[messages_of.ToolCallPart("add", {"a": 1, "b": 2})])
        return messages_of.ModelResponse(parts=[messages_of.TextPart("Done.")])

    agent = other.Agent(model_of(respond), tools=[add])
    return await _timed(partial(agent.run, "go"), count, at_once=at_once)


async def _in_agent_framework(count: int, at_once: bool) -> float:
    other: Any = import_module("agent_framework")

    class Client(other.FunctionInvocationLayer, other.BaseChatClient):  # type: ignore[misc]
        def _inner_get_response(self, *, messages: Any, stream: bool, options: Any, **kwargs: Any) -> Any:
            async def response() -> Any:
                if len(messages) == 1:
                    call = other.Content.from_function_call(call_id="1", name="add", arguments={"a": 1, "b": 2})
                    return other.ChatResponse(messages=[other.Message(role="assistant", contents=[call])])
                return other.ChatResponse(messages=[other.Message(role="assistant", contents=["Done."])])

            return response()

    agent = other.Agent(client=Client(), tools=[add])
    return await _timed(partial(agent.run, "go"), count, at_once=at_once)


PEERS = {"pydantic_ai": _in_pydantic_ai, "agent_framework": _in_agent_framework}
"""Others' native loops, if they are installed: their time is a note."""


def runs(count: int, at_once: bool) -> Callable[[bool], Measured]:
    """A run in asyncio, of so many: one after another, or all at once."""

    def measure(quick: bool) -> Measured:
        hosted: Samples = []
        native: Samples = []
        for _ in range(3 if quick else 15):
            hosted.append(asyncio.run(_hosted(count, at_once)))
            native.append(trio.run(_on_trio, count, at_once))
        notes = ["by hand: the same under trio.run"]
        for name, peer in PEERS.items():
            if find_spec(name) is None:
                notes.append(f"{name}: not installed")
            else:
                others = [asyncio.run(peer(min(count, 200), at_once)) for _ in range(3)]
                notes.append(f"{name} in asyncio: {median(others) * 1e6:,.0f} us")
        return Measured(
            ours=median(hosted) * 1e6, bare=median(native) * 1e6, value=ratio(hosted, native), note="; ".join(notes)
        )

    return measure


def tick(quick: bool) -> Measured:
    """How late a timer of asyncio is, in a loop with an idle host, and in one without."""

    async def lateness() -> float:
        found: Samples = []
        for _ in range(50 if quick else 500):
            began = time.perf_counter()
            await asyncio.sleep(0.001)
            found.append(time.perf_counter() - began - 0.001)
        return median(found)

    async def with_host() -> float:
        async with TrioHost():
            return await lateness()

    hosted, bare = asyncio.run(with_host()) * 1e3, asyncio.run(lateness()) * 1e3
    return Measured(ours=hosted, bare=bare, value=max(0.0, hosted - bare), note="milliseconds that a timer is late")
