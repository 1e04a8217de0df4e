"""The loop that a competent engineer writes by hand on trio for the same work: the least that it can cost.

It streams, runs the tools of a turn in parallel, reports their errors to the model, passes the events of nested
agents up, and ends what it started when its reader leaves. It has no deadlines, limits, hooks, questions, sessions
or validation. Every event goes over a channel of capacity 0, unless `stream` is told to be ``tuned``.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec
import trio

from tests.bench.work import NESTED, Call, Plan

__all__ = ["Message", "Model", "Text", "model_of", "read", "read_nested", "stream"]


@dataclass(slots=True)
class Text:
    agent: str
    text: str


@dataclass(slots=True)
class Started:
    agent: str
    call: Call


@dataclass(slots=True)
class Finished:
    agent: str
    call: Call
    result: str


@dataclass(slots=True)
class Answered:
    agent: str
    text: str


Event: TypeAlias = Text | Started | Finished | Answered
Emit: TypeAlias = Callable[[Event], Awaitable[None]]
Message: TypeAlias = dict[str, Any]
Model: TypeAlias = Callable[[list[Message]], AsyncGenerator[str | Call]]
Tool: TypeAlias = Callable[..., Awaitable[object]]
ToolsFor: TypeAlias = Callable[[Emit], Mapping[str, Tool]]
"""The tools of a run, which may pass events of their own to its reader."""


def model_of(plan: Plan) -> Model:
    """A model that goes by ``plan``."""

    async def model(messages: list[Message]) -> AsyncGenerator[str | Call]:  # noqa: ASYNC124  # others wait
        turn = plan.next(len(messages))
        for text in turn.texts:
            yield text
        for call in turn.calls:
            yield call

    return model


async def loop(name: str, model: Model, tools: Mapping[str, Tool], prompt: str, emit: Emit) -> str:
    """Ask the model, run the tools it asks for, until it has answered."""
    messages: list[Message] = [{"role": "user", "content": prompt}]
    while True:
        texts: list[str] = []
        calls: list[Call] = []
        async with aclosing(model(messages)) as deltas:
            async for delta in deltas:
                if isinstance(delta, str):
                    texts.append(delta)
                    await emit(Text(name, delta))
                else:
                    calls.append(delta)
        text = "".join(texts)
        messages.append({"role": "assistant", "content": text, "tool_calls": [_sent(call) for call in calls]})
        if not calls:
            await emit(Answered(name, text))
            return text
        results: dict[str, str] = {}

        async def run(call: Call, results: dict[str, str] = results) -> None:
            await emit(Started(name, call))
            try:
                result = str(await tools[call.name](**msgspec.json.decode(call.arguments)))
            except Exception as error:  # noqa: BLE001  # a tool's error is for the model to read
                result = f"error: {error!r}"
            results[call.id] = result
            await emit(Finished(name, call, result))

        async with trio.open_nursery() as nursery:
            for call in calls:
                nursery.start_soon(run, call)
        messages.extend({"role": "tool", "tool_call_id": call.id, "content": results[call.id]} for call in calls)


def _sent(call: Call) -> dict[str, Any]:
    """``call`` as it is sent back to a model server."""
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


@asynccontextmanager
async def stream(model: Model, tools: ToolsFor, *, tuned: bool = False) -> AsyncGenerator[AsyncIterator[Event]]:
    """The events of a run, which ends with the block.

    Args:
      tuned: hand out waiting events without a switch between tasks. Fast, but the run is cancelled only where
        something really waits.
    """
    send, receive = trio.open_memory_channel[Event](64 if tuned else 0)

    async def emit_eagerly(event: Event) -> None:
        try:
            send.send_nowait(event)
        except trio.WouldBlock:
            await send.send(event)

    async def produce() -> None:
        with send:
            emit = emit_eagerly if tuned else send.send
            await loop("agent", model, tools(emit), "go", emit)

    with receive:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(produce)
            yield _Eager(receive) if tuned else receive
            nursery.cancel_scope.cancel()


class _Eager:
    def __init__(self, receive: trio.MemoryReceiveChannel[Event]) -> None:
        self._receive = receive

    def __aiter__(self) -> _Eager:
        return self

    async def __anext__(self) -> Event:
        try:
            return self._receive.receive_nowait()
        except trio.WouldBlock:
            pass
        except trio.EndOfChannel:
            raise StopAsyncIteration from None
        try:
            return await self._receive.receive()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None


async def read(model: Model, tools: Mapping[str, Tool], *, tuned: bool = False) -> int:
    """Run to the end, and count the pieces of text."""
    return await _read(model, lambda emit: tools, tuned=tuned)


async def _read(model: Model, tools: ToolsFor, *, tuned: bool = False) -> int:
    texts = 0
    async with stream(model, tools, tuned=tuned) as events:
        async for event in events:
            if isinstance(event, Text):
                texts += 1
    return texts


async def read_nested(*, tuned: bool = False) -> int:
    """Run an agent whose tool is an agent whose tool is an agent; all of them tell the one reader."""
    outer, middle, inner = (model_of(plan) for plan in NESTED)

    def tools(emit: Emit) -> Mapping[str, Tool]:
        async def ask_inner(prompt: str) -> str:
            return await loop("inner", inner, {}, prompt, emit)

        async def ask_middle(prompt: str) -> str:
            return await loop("middle", middle, {"inner": ask_inner}, prompt, emit)

        return {"middle": ask_middle}

    return await _read(outer, tools, tuned=tuned)
