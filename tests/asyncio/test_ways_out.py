"""Each way out of a run in asyncio ends everything that it started, as it does in trio."""

from __future__ import annotations

import asyncio
import gc
import signal
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

import agentloop.asyncio
from agentloop import Agent, UsageError, tool
from agentloop.asyncio import TrioHost
from agentloop.asyncio._guest import Guest, settled
from agentloop.events import StreamEvent, ToolCallStarted
from agentloop.testing import ScriptedModel, calls
from tests.asyncio.support import Waiting, assert_nothing_is_left, in_asyncio, run_in_loop, steps


@in_asyncio
async def test_a_reader_that_breaks_ends_the_tool() -> None:
    waiting = Waiting(cleanup_steps=5)
    async with agentloop.asyncio.stream(waiting.agent, "Hi") as stream:
        async for event in stream:
            if isinstance(event, ToolCallStarted):
                break
        await waiting.started.wait()
    assert waiting.ends == 1
    assert stream.outcome.reason == "cancelled"


@in_asyncio
async def test_an_exception_in_the_block_ends_the_tool_and_passes() -> None:
    waiting = Waiting(cleanup_steps=5)
    with pytest.raises(ValueError, match="mine") as raised:
        async with agentloop.asyncio.stream(waiting.agent, "Hi"):
            await waiting.started.wait()
            raise ValueError("mine")
    assert waiting.ends == 1
    assert raised.value.__cause__ is None


@in_asyncio
async def test_a_timeout_ends_the_tool_before_it_is_raised() -> None:
    waiting = Waiting(cleanup_steps=5)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(None) as timeout:
            running = asyncio.ensure_future(waiting.started.wait())
            running.add_done_callback(lambda _: timeout.reschedule(asyncio.get_running_loop().time()))
            await agentloop.asyncio.run(waiting.agent, "Hi")
    assert waiting.ends == 1


@in_asyncio
async def test_a_cancelled_task_ends_when_the_tool_has_cleaned_up() -> None:
    waiting = Waiting(cleanup_steps=20)
    task = asyncio.create_task(agentloop.asyncio.run(waiting.agent, "Hi"))
    await waiting.started.wait()
    task.cancel("first")
    await steps(3)
    assert waiting.ends < 1
    task.cancel("second")
    with pytest.raises(asyncio.CancelledError):
        await task
    assert waiting.ends == 1


@in_asyncio
async def test_a_task_group_that_fails_ends_the_tools_of_its_tasks() -> None:
    waiting = Waiting()

    async def fail() -> None:
        await waiting.started.wait()
        raise ValueError("mine")

    with pytest.raises(ExceptionGroup) as raised:
        async with asyncio.TaskGroup() as group:
            group.create_task(agentloop.asyncio.run(waiting.agent, "Hi"))
            group.create_task(fail())
    assert [type(error) for error in raised.value.exceptions] == [ValueError]
    assert waiting.ends == 1


@in_asyncio
async def test_wait_for_ends_the_tool() -> None:
    waiting = Waiting()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(agentloop.asyncio.run(waiting.agent, "Hi"), 0.05)
    assert waiting.ends == waiting.started.is_set()


@in_asyncio
async def test_a_task_that_awaits_in_its_own_cleanup_is_served() -> None:
    waiting = Waiting()

    async def work() -> str:
        try:
            await agentloop.asyncio.run(waiting.agent, "Hi")
        finally:
            # An asyncio task may go on after its cancellation; a run in it is a run like others.
            outcome = await agentloop.asyncio.run(Agent(ScriptedModel("Bye.")), "Sum up")
            said.append(outcome.output)
        raise AssertionError

    said: list[str] = []
    task = asyncio.create_task(work())
    await waiting.started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert said == ["Bye."]
    assert waiting.ends == 1


@in_asyncio
async def test_an_abandoned_iteration_ends_the_run() -> None:
    waiting = Waiting()

    async def events() -> AsyncGenerator[StreamEvent]:
        async with agentloop.asyncio.stream(waiting.agent, "Hi") as stream:
            async for event in stream:
                yield event

    async for event in events():
        if isinstance(event, ToolCallStarted):
            break
    del event
    gc.collect()
    while len(asyncio.all_tasks()) > 1 or trio.lowlevel.in_trio_run():
        await asyncio.sleep(0)
    assert waiting.ends == waiting.started.is_set()


@in_asyncio
async def test_a_block_that_cannot_be_entered_leaves_its_task_uncancelled() -> None:
    @asynccontextmanager
    async def broken() -> AsyncGenerator[None]:
        await trio.lowlevel.checkpoint()
        await fail()
        yield

    with pytest.raises(ValueError, match="mine"):
        async with agentloop.asyncio.block(broken()):
            pass
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()
    # asyncio counts a cancellation that was not taken back as one of the group's parent.
    with pytest.raises(ExceptionGroup):
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())


async def fail() -> None:
    raise ValueError("mine")


@in_asyncio
async def test_a_guest_that_is_ended_before_its_first_step_ends() -> None:
    guest = Guest(asyncio.get_running_loop())
    guest.start()
    guest.end()
    async with asyncio.timeout(10):
        await settled(guest.ended)


@in_asyncio
async def test_leaving_a_host_ends_its_runs_and_says_so() -> None:
    waiting = Waiting(cleanup_steps=5)
    async with TrioHost() as host:
        task = asyncio.create_task(host.run(waiting.agent, "Hi"))
        await waiting.started.wait()
    assert waiting.ends == 1
    with pytest.raises(UsageError, match="TrioHost was left"):
        await task


@in_asyncio
async def test_leaving_a_host_ends_the_block_of_another_task() -> None:
    waiting = Waiting()
    entered = asyncio.Event()

    async def read() -> None:
        async with host.stream(waiting.agent, "Hi"):
            entered.set()
            await asyncio.Event().wait()

    async with TrioHost() as host:
        task = asyncio.create_task(read())
        await entered.wait()
        await waiting.started.wait()
    with pytest.raises(UsageError, match="TrioHost was left"):
        await task
    assert waiting.ends == 1


@in_asyncio
async def test_a_host_that_is_left_does_not_end_the_runs_of_another_host() -> None:
    waiting = Waiting()
    async with TrioHost() as one:
        async with TrioHost():
            task = asyncio.create_task(one.run(waiting.agent, "Hi"))
            await waiting.started.wait()
        await steps(10)
        assert not waiting.ends
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


def test_ctrl_c_ends_the_tool() -> None:
    waiting: list[Waiting] = []

    async def main() -> None:
        waiting.append(Waiting(cleanup_steps=5))
        task = asyncio.create_task(interrupt())
        await agentloop.asyncio.run(waiting[0].agent, "Hi")
        await task

    async def interrupt() -> None:
        await waiting[0].started.wait()
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run_in_loop(main)
    assert waiting[0].ends == 1
    assert not trio.lowlevel.in_trio_run()


def test_a_loop_that_is_closed_early_ends_the_tool() -> None:
    waiting: list[Waiting] = []
    tasks: list[asyncio.Task[object]] = []

    async def main() -> None:
        waiting.append(Waiting(cleanup_steps=5))
        tasks.append(asyncio.create_task(agentloop.asyncio.run(waiting[0].agent, "Hi")))
        await waiting[0].started.wait()

    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    loop.close()
    assert waiting[0].ends == 1
    assert not trio.lowlevel.in_trio_run()
    assert loop.is_closed()


def test_two_loops_in_two_threads_have_a_guest_each() -> None:
    meet = threading.Barrier(2, timeout=60)
    outputs: list[str] = []

    async def main() -> None:
        @tool
        def join() -> str:
            """Wait for the other thread's tool."""
            meet.wait()
            return "met"

        outcome = await agentloop.asyncio.run(Agent(ScriptedModel(calls("join"), "Done."), tools=[join]), "Hi")
        outputs.append(outcome.output)
        assert_nothing_is_left()

    threads = [threading.Thread(target=asyncio.run, args=(main(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outputs == ["Done.", "Done."]


@in_asyncio
async def test_a_run_is_ended_at_each_of_its_steps() -> None:
    """The sweep: the asyncio task is cancelled after 0, 1, 2, ... steps of the loop, until the run is faster."""
    count = 0
    while True:
        ends = starts = 0

        @tool
        async def work() -> str:
            """Work."""
            nonlocal ends, starts
            starts += 1
            try:
                await trio.lowlevel.checkpoint()
            finally:
                ends += 1
            return "done"

        model = ScriptedModel(calls("work"), "Done.")
        task = asyncio.create_task(read(Agent(model, tools=[work])))
        await steps(count)
        was_over = task.done()
        task.cancel()
        await asyncio.wait([task])
        assert starts == ends
        assert_nothing_is_left()
        if was_over:
            assert not task.cancelled()
            break
        assert task.cancelled() or task.result() == "completed"
        count += 1
    assert count > 20


async def read(agent: Agent[Any, Any]) -> str:
    async with agentloop.asyncio.stream(agent, "Hi") as stream:
        async for _ in stream:
            pass
    return stream.outcome.reason
