"""Code of asyncio that trio calls, and code of trio that asyncio awaits: the error says what to write."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path

import pytest
import trio

import agentloop.asyncio
from agentloop import Agent, UsageError, hooks, run_sync, tool
from agentloop._core.foreign_errors import wrong_loop
from agentloop.asyncio import TrioHost, asyncio_tool
from agentloop.errors import ModelError
from agentloop.hooks import PreToolUse
from agentloop.models import ModelRequest, Reply, Stop
from agentloop.stores import MemoryStore, SQLiteStore, follow_session, fork_session, stored_session
from agentloop.testing import ScriptedModel, calls
from agentloop.toolsets import Toolsets
from tests.asyncio.support import in_asyncio


async def in_a_timeout() -> None:
    async with asyncio.timeout(60):
        await asyncio.sleep(0)


async def in_a_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(0))


async def of_a_future() -> None:
    await asyncio.get_running_loop().create_future()


ASYNCIO_CODE = [of_a_future, in_a_timeout, in_a_group, lambda: asyncio.sleep(0)]


def agent_with(body: Callable[[], Awaitable[object]]) -> Agent:
    @tool
    async def work() -> str:
        """Work."""
        return str(await body())

    return Agent(ScriptedModel(calls("work"), "Done."), tools=[work])


@pytest.mark.filterwarnings("ignore:coroutine 'sleep' was never awaited")
@pytest.mark.parametrize("body", ASYNCIO_CODE)
def test_a_tool_of_trio_that_is_asyncio_code_names_asyncio_tool(body: Callable[[], Awaitable[object]]) -> None:
    @in_asyncio
    async def hosted() -> None:
        outcome = await agentloop.asyncio.run(agent_with(body), "Hi")
        assert "decorate a tool of asyncio code with @asyncio_tool" in repr(outcome.messages)
        assert "Error: " not in repr(outcome.messages)

    hosted()


def test_a_tool_that_is_asyncio_code_names_asyncio_tool_without_a_host() -> None:
    outcome = run_sync(agent_with(lambda: asyncio.sleep(3)), "Hi")
    assert "decorate a tool of asyncio code with @asyncio_tool" in repr(outcome.messages)


@in_asyncio
async def test_a_generator_of_trio_that_is_asyncio_code_names_asyncio_tool() -> None:
    @tool
    async def count() -> AsyncGenerator[str]:
        """Count."""
        yield "1"
        await asyncio.sleep(0)

    outcome = await agentloop.asyncio.run(Agent(ScriptedModel(calls("count"), "Done."), tools=[count]), "Hi")
    assert "@asyncio_tool" in repr(outcome.messages)


@in_asyncio
async def test_a_hook_and_a_model_that_are_asyncio_code_name_aio_as_trio() -> None:
    async def check(call: PreToolUse) -> None:
        await asyncio.sleep(0)

    class Client:
        name = "client"

        async def respond(self, request: ModelRequest, reply: Reply) -> Stop:
            await asyncio.sleep(0)
            return Stop()

    @tool
    async def work() -> str:
        """Work."""
        return "done"

    agent = Agent(ScriptedModel(calls("work"), "Done."), tools=[work], hooks=[hooks.pre_tool_use(check)])
    outcome = await agentloop.asyncio.run(agent, "Hi")
    assert "as aio_as_trio(...)" in repr(outcome.messages)
    with pytest.raises(ModelError, match=r"as aio_as_trio\(\.\.\.\)"):
        await agentloop.asyncio.run(Agent(Client()), "Hi")


@in_asyncio
async def test_an_asyncio_tool_that_is_trio_code_names_the_call() -> None:
    @asyncio_tool
    async def sleep() -> str:
        """Sleep."""
        await trio.sleep(0.1)
        return "done"

    @asyncio_tool
    async def checkpoint() -> str:
        """Sleep."""
        await trio.lowlevel.cancel_shielded_checkpoint()
        return "done"

    for wrong in (sleep, checkpoint):
        outcome = await agentloop.asyncio.run(Agent(ScriptedModel(calls(wrong.name), "Done."), tools=[wrong]), "Hi")
        assert "`await agentloop.asyncio.call(function, ...)`" in repr(outcome.messages)


def test_an_error_of_user_code_with_its_own_class_is_left_as_it_is() -> None:
    class OwnError(RuntimeError):
        def __str__(self) -> str:
            raise AssertionError

    assert not wrong_loop(OwnError())
    assert not wrong_loop(RuntimeError("no such loop"))
    assert not wrong_loop(TypeError("no such type"))


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_the_functions_of_trio_say_in_asyncio_what_to_write(kind: str, tmp_path: Path) -> None:
    store_of_kind = MemoryStore() if kind == "memory" else SQLiteStore(tmp_path / "chats.db")

    @in_asyncio
    async def hosted() -> None:
        async with (
            TrioHost() as host,
            host.block(store_of_kind.open()) as store,
            host.block(stored_session(store, "one")) as session,
        ):
            with pytest.raises(UsageError, match=r"agentloop\.asyncio\.call\(function, \.\.\.\)"):
                await store.sessions()
            with pytest.raises(UsageError, match=r"agentloop\.asyncio\.call\(function, \.\.\.\)"):
                await fork_session(store, "one")
            with pytest.raises(UsageError, match=r"host\.iterate"):
                await anext(follow_session(store, "one"))
            with pytest.raises(UsageError, match=r"agentloop\.asyncio\.call\(session\.compact, agent\)"):
                await session.compact(Agent(ScriptedModel("Hello!")))

    hosted()


@in_asyncio
async def test_toolsets_say_in_asyncio_what_to_write() -> None:
    with pytest.raises(UsageError, match=r"agentloop\.asyncio\.block\(toolsets\)"):
        async with Toolsets():
            pass
