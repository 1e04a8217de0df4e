"""The traps of structured concurrency that a stream must not step into, each as the promise it would break."""

from __future__ import annotations

import ast
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given, settings, strategies as st

import agentloop
from agentloop import Agent, Session, ToolContext, tool
from agentloop.errors import ModelConnectionError, StreamStateError
from agentloop.events import (
    ChildStreamStarted,
    StreamStarted,
    StreamStopped,
    TextDelta,
    ToolCallFinished,
    ToolCallOutput,
    ToolCallStarted,
)
from agentloop.models import ModelRequest, Reply, Stop
from agentloop.testing import ScriptedModel, calls, fails, hangs, says
from tests.runtime.ways import FakeToolset, add
from tests.support import first, of, opened, watch


class OwnError(Exception):
    """Of the code that uses the library."""


# ------------------------------------------------------------- errors on their way out


@pytest.mark.parametrize("read", [0, 1, 4])
async def test_an_error_in_the_block_is_not_swallowed_when_its_scope_is_cancelled(read: int) -> None:
    """Were a channel left with ``async with``, the checkpoint in its `aclose` would raise Cancelled instead."""
    error = OwnError("mine")
    with pytest.raises(OwnError) as raised, trio.CancelScope() as scope:
        async with opened(Agent(ScriptedModel(says("Well, ") + hangs()))) as stream:
            for _ in range(read):
                await anext(stream)
            scope.cancel()
            raise error
    assert raised.value is error
    assert not scope.cancelled_caught


async def test_a_failed_run_does_not_look_finished_to_its_reader() -> None:
    agent = Agent(ScriptedModel(says("So far ") + fails(ModelConnectionError("gone"))))
    seen = []
    async with opened(agent) as stream:
        with pytest.raises(ModelConnectionError, match="gone"):
            async for event in stream:
                seen.append(event)  # noqa: PERF401 - kept also when the loop raises
        # Told once: a loop that is entered again finds the end.
        assert [event async for event in stream] == []
    assert isinstance(seen[-1], StreamStopped)


async def test_the_reader_gets_an_error_with_its_cause() -> None:
    cause = OSError("reset by peer")
    watched = await watch(Agent(ScriptedModel(fails(cause))))

    assert isinstance(watched.error, ModelConnectionError)
    assert watched.error.__cause__ is cause


async def test_the_cause_and_the_context_of_an_error_in_the_block_are_kept() -> None:
    """``raise ... from None``, where a group is unwrapped, would erase them."""
    cause, context, error = OwnError("cause"), OwnError("context"), OwnError("error")
    with pytest.raises(OwnError) as raised:
        async with opened(Agent(ScriptedModel(hangs()))) as stream:
            await anext(stream)
            try:
                raise context
            except OwnError:
                raise error from cause
    assert raised.value is error
    assert error.__cause__ is cause
    assert error.__context__ is context


async def test_an_error_of_two_toolsets_comes_as_one_error_and_no_group() -> None:
    async def fail() -> None:
        raise OSError("no such program")

    toolsets = [FakeToolset(name="one", start=fail), FakeToolset(name="two", start=fail)]
    watched = await watch(Agent(ScriptedModel("no"), toolsets=toolsets))

    assert isinstance(watched.error, agentloop.errors.ToolsetError)
    assert isinstance(watched.error.__cause__, OSError)


# ------------------------------------------------------------------ the reader has gone


@pytest.mark.parametrize("count", [0, 1, 10, 40, 60])
async def test_leaving_cancels_tasks_that_wait_to_emit_before_their_channel_closes(count: int) -> None:
    """Closed first, it would have met them with BrokenResourceError."""
    met: list[BaseException] = []

    @tool
    async def chatty(context: ToolContext[None]) -> None:
        """Talk."""
        try:
            while True:
                await context.output("bla")
                await trio.lowlevel.checkpoint()
        except BaseException as error:
            met.append(error)
            raise

    async with opened(Agent(ScriptedModel(calls("chatty")), tools=[chatty])) as stream:
        await first(stream, ToolCallStarted)
        for _ in range(count):
            await first(stream, ToolCallOutput)
        await trio.testing.wait_all_tasks_blocked()
    assert [type(error) for error in met] == [trio.Cancelled]


async def test_a_model_that_is_cut_off_has_cleaned_up_when_the_block_ends() -> None:
    """It is cancelled in its own task, and not left to the garbage collector."""
    log: list[str] = []

    class Pumping:
        name = "pumping"

        async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
            task = trio.lowlevel.current_task()
            try:
                while True:
                    await reply.text("bla ")
                    await trio.lowlevel.checkpoint()
            finally:
                assert trio.lowlevel.current_task() is task
                with trio.CancelScope(shield=True):
                    await trio.sleep(1)
                log.append("connection closed")

    async with opened(Agent(Pumping())) as stream:
        await first(stream, TextDelta)
    assert log == ["connection closed"]


async def test_a_generator_tool_that_is_cut_off_is_closed_by_the_task_that_ran_it() -> None:
    tasks: list[trio.lowlevel.Task] = []

    @tool
    async def count() -> AsyncGenerator[str]:
        """Count."""
        tasks.append(trio.lowlevel.current_task())
        try:
            while True:
                yield "one more "
                await trio.lowlevel.checkpoint()
        finally:
            tasks.append(trio.lowlevel.current_task())

    async with opened(Agent(ScriptedModel(calls("count")), tools=[count])) as stream:
        await first(stream, ToolCallOutput)
    assert len(tasks) == 2
    assert tasks[0] is tasks[1]


ASKED_FOR_BY_HTTP_CLIENTS = ("__aiter__", "async_auth_flow")
"""Generators in ``mcp/_http.py`` that the HTTP client defines, drives and closes. None holds a block across a yield."""


def test_only_context_managers_yield_in_the_async_code_of_the_package() -> None:
    """A nursery or cancel scope that is open across the ``yield`` of a bare async generator is left anywhere."""
    folder = Path(agentloop.__file__).parent
    bare = [
        f"{path.relative_to(folder).as_posix()} {node.name}"
        for path in folder.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.AsyncFunctionDef)
        if _yields(node)
        if not any("asynccontextmanager" in ast.unparse(decorator) for decorator in node.decorator_list)
    ]
    # Those are tools, which agentloop closes itself; `aio_as_trio` makes one of a tool of asyncio.
    others = sorted(name for name in bare if not name.startswith(("demo", "testing")))
    assert others == ["asyncio/_aio_code.py generator"] + [f"mcp/_http.py {name}" for name in ASKED_FOR_BY_HTTP_CLIENTS]


def _yields(function: ast.AsyncFunctionDef) -> bool:
    inside: list[ast.AST] = list(function.body)
    while inside:
        node = inside.pop()
        if isinstance(node, (ast.Yield, ast.YieldFrom)):
            return True
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            inside.extend(ast.iter_child_nodes(node))
    return False


# ------------------------------------------------------------------------- the last event


async def test_a_cancelled_run_still_emits_its_last_event() -> None:
    """A cancelled task cannot send: the last event goes out after the run's own scope has closed."""
    async with opened(Agent(ScriptedModel(says("Well, ") + hangs()))) as stream:
        await first(stream, TextDelta)
        stream.stop("enough")
        told = [event async for event in stream]
    assert isinstance(told[-1], StreamStopped)
    assert told[-1].reason == "cancelled"


async def test_no_buffer_is_too_full_for_the_last_event() -> None:
    agent = Agent(ScriptedModel(says("bla " * 1000)))
    async with opened(agent) as stream:
        await first(stream, StreamStarted)
        # The reader has stopped reading, and the run waits for it.
        await trio.testing.wait_all_tasks_blocked()
        stream.stop()
        await trio.testing.wait_all_tasks_blocked()
        assert stream.outcome.reason == "cancelled"
        told = [event async for event in stream]
    assert [isinstance(event, StreamStopped) for event in told[-2:]] == [False, True]


# --------------------------------------------------------------------------- many tasks


async def test_a_tool_that_raises_does_not_cancel_its_siblings() -> None:
    failed = trio.Event()

    @tool
    async def fail() -> None:
        """Fail."""
        failed.set()
        raise OwnError("oh")

    @tool
    async def go_on() -> str:
        """Go on."""
        await failed.wait()
        await trio.sleep(1)
        return "done"

    agent = Agent(ScriptedModel(calls("go_on") + calls("fail") + calls("go_on"), "Well."), tools=[fail, go_on])
    watched = await watch(agent)

    results = {event.call_id: event.result for event in of(watched.events, ToolCallFinished)}
    assert sorted((one.name, one.status) for one in results.values()) == [
        ("fail", "error"),
        ("go_on", "ok"),
        ("go_on", "ok"),
    ]


@pytest.mark.parametrize("way", ["end", "stop", "break", "cancel", "error"])
async def test_a_toolset_is_entered_used_as_owner_and_left_by_one_task(way: str) -> None:
    """An MCP client holds a nursery open across its block: left by another task, it would take the program along."""
    tasks: list[trio.lowlevel.Task] = []

    class Owned(FakeToolset):
        @asynccontextmanager
        async def open(self) -> AsyncGenerator[FakeToolset]:
            tasks.append(trio.lowlevel.current_task())
            async with super().open() as opened:
                yield opened
            tasks.append(trio.lowlevel.current_task())

    toolset = Owned()
    agent = Agent(ScriptedModel(calls("add", a=1, b=1), "2"), toolsets=[toolset])
    scope = trio.CancelScope()
    try:
        with scope:
            async with opened(agent) as stream:
                await first(stream, ToolCallFinished)
                if way == "error":
                    raise OwnError
                if way == "cancel":
                    scope.cancel()
                    await trio.sleep_forever()
                if way == "stop":
                    stream.stop()
                if way != "break":
                    async for _ in stream:
                        pass
    except OwnError:
        pass
    assert len(tasks) == 2
    assert tasks[0] is tasks[1]
    assert not toolset.is_open


async def test_a_context_that_was_handed_to_a_task_elsewhere_does_not_outlive_its_call() -> None:
    """That task is not the stream's: it is told, instead of asking or talking in a stream that has ended."""
    met: list[str] = []

    async def use(what: Callable[[], Awaitable[object]]) -> None:
        try:
            while True:
                await what()
        except StreamStateError as error:
            met.append(str(error))

    async with trio.open_nursery() as elsewhere:

        @tool
        async def hand_over(context: ToolContext[None]) -> None:
            """Hand the context over."""
            elsewhere.start_soon(use, partial(context.ask, "Sure?"))
            elsewhere.start_soon(use, partial(context.output, "bla"))
            elsewhere.start_soon(use, partial(context.run, Agent(ScriptedModel(hangs()), name="child"), "go"))
            await trio.sleep_forever()

        agent = Agent(ScriptedModel(calls("hand_over")), tools=[hand_over])
        async with agent.stream("go") as stream:
            await first(stream, ChildStreamStarted)
            await trio.testing.wait_all_tasks_blocked()
        assert stream.pending == ()
        assert stream._run.root.questions.scopes == {}
    assert len(met) == 3
    assert all("has ended, and its context with it" in text for text in met)


# --------------------------------------------------------------------- the tests themselves


@given(number=st.integers())
@settings(max_examples=20)
async def test_each_example_of_a_property_has_a_clock_of_its_own(number: int) -> None:
    assert trio.current_time() == 0
    await trio.sleep(5)


async def test_a_session_is_free_in_the_very_moment_the_block_ends() -> None:
    session = Session()
    for _ in range(3):
        async with Agent(ScriptedModel(hangs()), tools=[add]).stream("go", session=session) as stream:
            await first(stream, StreamStarted)
        assert not session.is_busy
