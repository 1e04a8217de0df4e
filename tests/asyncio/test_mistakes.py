"""What a newcomer to asyncio hosts writes by mistake: the error says what to write."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import trio

import agentloop.asyncio
from agentloop import Agent, UsageError, tool
from agentloop.asyncio import TrioHost
from agentloop.events import StreamStopped
from agentloop.stores import MemoryStore, stored_session
from agentloop.testing import ScriptedModel, calls
from tests.asyncio.support import in_asyncio


def agent() -> Agent:
    return Agent(ScriptedModel("Hello!"))


@in_asyncio
async def test_a_stream_that_is_not_entered_says_how_it_is() -> None:
    async with TrioHost() as host:
        for opening in (host.stream(agent(), "Hi"), agentloop.asyncio.stream(agent(), "Hi")):
            wrong: Any = opening
            with pytest.raises(UsageError, match="`async for event in stream:`"):
                async for _ in wrong:
                    pass
            with pytest.raises(UsageError, match="write `async with"):
                await wrong
            with pytest.raises(UsageError, match="with `async with`, not with `with`"), wrong:
                pass


@in_asyncio
async def test_a_block_of_the_module_is_entered_once() -> None:
    block = agentloop.asyncio.stream(agent(), "Hi")
    async with block:
        with pytest.raises(UsageError, match="entered once"):
            async with block:
                pass


@in_asyncio
async def test_a_host_names_what_its_methods_take() -> None:
    async with TrioHost() as host:
        untyped: Any = host
        with pytest.raises(UsageError, match="the first argument is an Agent"):
            await untyped.run("Hi", agent())
        with pytest.raises(UsageError, match="the first argument is an Agent"):
            untyped.stream("Hi", agent())
        with pytest.raises(UsageError, match=r"takes `block\(store\.open\(\)\)`"):
            untyped.block(MemoryStore())
        with pytest.raises(UsageError, match="after `async with`"):
            untyped.block(3)
        with pytest.raises(UsageError, match="after `async for`"):
            untyped.iterate(stored_session(untyped, "one"))
        with pytest.raises(UsageError, match=r"`call\(function, argument\)`"):
            await untyped.call(agent().run("Hi"))
        with pytest.raises(UsageError, match="a plain one"):
            await untyped.call(len, "Hi")
        with pytest.raises(UsageError, match="this is asyncio code, and it was called by trio"):
            await untyped.call(asyncio.sleep, 0)


@in_asyncio
async def test_a_host_in_a_thread_without_a_loop_says_where_it_is_used() -> None:
    """As in a route of FastAPI that is written with `def`."""
    async with TrioHost() as host:
        with pytest.raises(UsageError, match="in an `async def` function"):
            await asyncio.to_thread(host.stream, agent(), "Hi")


@in_asyncio
async def test_trio_code_needs_no_host() -> None:
    @tool
    async def ask() -> str:
        """Ask."""
        return str(await agentloop.asyncio.run(agent(), "Hi"))

    outcome = await agentloop.asyncio.run(Agent(ScriptedModel(calls("ask"), "Done."), tools=[ask]), "Hi")
    assert "`await context.run(agent, prompt)`" in repr(outcome.messages)


def test_a_program_on_trio_needs_no_host() -> None:
    with pytest.raises(UsageError, match=r"`await agent\.run\(prompt\)`"):
        trio.run(agentloop.asyncio.run, agent(), "Hi")


@in_asyncio
async def test_a_stream_that_any_block_opens_is_read_by_asyncio() -> None:
    async with agentloop.asyncio.block(agent().stream("Hi")) as stream:
        events = [event async for event in stream]
    assert isinstance(events[-1], StreamStopped)


@in_asyncio
async def test_a_stream_whose_host_was_left_still_has_its_outcome() -> None:
    async with agentloop.asyncio.stream(agent(), "Hi") as stream:
        async for _ in stream:
            pass
    assert (await stream.wait()).output == "Hello!"


@in_asyncio
async def test_a_trio_block_that_handles_an_error_has_handled_it() -> None:
    @asynccontextmanager
    async def lenient() -> AsyncGenerator[None]:
        with suppress(LookupError):
            yield

    async with agentloop.asyncio.block(lenient()):
        raise LookupError


@in_asyncio
async def test_a_trio_block_that_ends_by_itself_without_an_error_ends_the_code_inside() -> None:
    ends = asyncio.Event()

    @asynccontextmanager
    async def limited() -> AsyncGenerator[None]:
        with trio.CancelScope() as scope:
            asyncio.get_running_loop().call_soon(scope.cancel)
            yield

    async with agentloop.asyncio.block(limited()):
        await ends.wait()
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()
    await asyncio.sleep(0)
