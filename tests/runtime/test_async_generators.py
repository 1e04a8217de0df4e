"""A stream inside an async generator that may be abandoned is refused: it would take the whole program down."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Any

import pytest
import trio

from agentloop import Agent, ToolContext, Toolsets, UsageError, tool
from agentloop.events import TextDelta, ToolCallOutput
from agentloop.stores import MemoryStore, stored_session
from agentloop.testing import ScriptedModel, calls, says

REFUSAL = r"inside the async generator \w+\(\).*as_safe_channel.*asynccontextmanager.*stream\.text\(\)"


def an_agent() -> Agent:
    return Agent(ScriptedModel(says("a b c"), says("a b c")))


async def words(agent: Agent) -> AsyncGenerator[str]:
    async with agent.stream("Hi") as stream:
        async for event in stream:
            if isinstance(event, TextDelta):
                yield event.text  # noqa: ASYNC119


async def pieces(agent: Agent) -> AsyncGenerator[str]:
    async with agent.stream("Hi") as stream:
        async for text in stream.text():
            yield text  # noqa: ASYNC119


async def through_a_generator(agent: Agent) -> AsyncGenerator[str]:
    async with aclosing(words(agent)) as inner:
        async for word in inner:
            yield word  # noqa: ASYNC119


async def through_a_function(agent: Agent) -> AsyncGenerator[str]:
    @asynccontextmanager
    async def opened() -> AsyncGenerator[Any]:
        async with agent.stream("Hi") as stream:
            yield stream

    async with opened() as stream:
        async for text in stream.text():
            yield text  # noqa: ASYNC119


@pytest.mark.parametrize("generator", [words, pieces, through_a_generator, through_a_function])
async def test_a_stream_in_a_bare_async_generator_is_refused(generator: Callable[[Agent], AsyncIterator[str]]) -> None:
    agent = an_agent()
    with pytest.raises(UsageError, match=REFUSAL):
        async for _ in generator(agent):
            break
    # The program goes on undisturbed, and so does the agent.
    assert (await agent.run("Hi")).output == "a b c"


async def test_a_session_and_toolsets_in_a_bare_async_generator_are_refused() -> None:
    async def session() -> AsyncGenerator[Any]:
        async with MemoryStore().open() as store, stored_session(store, "s") as session:
            yield session  # noqa: ASYNC119

    async def toolsets() -> AsyncGenerator[Any]:
        async with Toolsets() as shared:
            yield shared  # noqa: ASYNC119

    async def resumed() -> AsyncGenerator[Any]:
        async with MemoryStore().open() as store, stored_session(store, "s") as session:
            yield session  # noqa: ASYNC119

    for generator in (session, toolsets, resumed):
        with pytest.raises(UsageError, match=REFUSAL):
            async for _ in generator():
                break


async def test_a_run_in_an_async_generator_is_not_refused() -> None:
    async def answers() -> AsyncGenerator[str]:
        agent = an_agent()
        for prompt in ("Hi", "And now?"):
            yield (await agent.run(prompt)).output

    assert [answer async for answer in answers()] == ["a b c", "a b c"]


async def test_a_stream_in_a_safe_channel_can_be_left_at_any_word() -> None:
    safe = trio.as_safe_channel(words)
    async with safe(an_agent()) as channel:
        async for word in channel:
            assert word == "a "
            break


async def test_a_stream_in_an_async_context_manager_is_not_refused() -> None:
    @asynccontextmanager
    async def opened(agent: Agent) -> AsyncGenerator[Any]:
        async with agent.stream("Hi") as stream:
            yield stream

    opening: AbstractAsyncContextManager[Any] = opened(an_agent())
    async with opening as stream:
        assert "".join([text async for text in stream.text()]) == "a b c"


async def test_a_tool_that_is_an_async_generator_may_open_child_streams() -> None:
    child = an_agent()

    @tool
    async def delegate(context: ToolContext[None]) -> AsyncGenerator[str]:
        """Ask another agent."""
        async with context.stream(child, "Hi") as stream:
            async for text in stream.text():
                yield text  # noqa: ASYNC119

    agent = Agent(ScriptedModel(calls("delegate"), "Done."), tools=[delegate])
    async with agent.stream("Hi") as stream:
        shown = [event.text async for event in stream if isinstance(event, ToolCallOutput)]
    assert shown == ["a ", "b ", "c"]


@pytest.fixture
async def fixture_stream() -> AsyncGenerator[Any]:
    async with an_agent().stream("Hi") as stream:
        yield stream


async def test_a_fixture_of_pytest_trio_may_hold_a_stream(fixture_stream: Any) -> None:
    assert [text async for text in fixture_stream.text()] == ["a ", "b ", "c"]


async def test_text_has_the_answer_and_nothing_else() -> None:
    child = Agent(ScriptedModel("inner words"), name="child")

    @tool
    async def delegate(context: ToolContext[None]) -> str:
        """Ask another agent."""
        return str((await context.run(child, "Hi")).output)

    agent = Agent(ScriptedModel(calls("delegate"), "outer words"), tools=[delegate])
    async with agent.stream("Hi") as stream:
        assert "".join([text async for text in stream.text()]) == "outer words"
    assert stream.outcome.output == "outer words"
