"""Code written for asyncio, in the places where an agent calls code: tools, hooks, handlers, toolsets and models."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from typing import Any

import pytest
import trio

import agentloop.asyncio
from agentloop import Agent, Tool, ToolContext, UsageError, hooks, run_sync, tool
from agentloop.asyncio import TrioHost, aio_as_trio, asyncio_tool
from agentloop.errors import ModelError, StreamStateError
from agentloop.events import ElicitationRequested, Question, StreamEvent, ToolCallFinished, ToolCallOutput
from agentloop.hooks import PreToolUse
from agentloop.messages import Usage
from agentloop.models import ModelRequest, Reply, Stop
from agentloop.questions import Accept, Answer, Approve
from agentloop.testing import ScriptedModel, calls
from tests.asyncio.support import Waiting, in_asyncio, run_in_loop, steps

request_id: ContextVar[str] = ContextVar("request_id")


async def events_of(agent: Agent) -> list[StreamEvent]:
    async with agentloop.asyncio.stream(agent, "Hi") as stream:
        return [event async for event in stream]


def results_of(events: Sequence[StreamEvent]) -> list[str]:
    return [event.result.text for event in events if isinstance(event, ToolCallFinished)]


@asyncio_tool
async def look_up(number: int) -> str:
    """Look a number up.

    Args:
      number: the number.
    """
    async with asyncio.timeout(60):
        await asyncio.sleep(0)
    return f"{number} {request_id.get('nobody')}"


@in_asyncio
async def test_a_tool_may_be_asyncio_code() -> None:
    request_id.set("request 7")
    agent = Agent(ScriptedModel(calls("look_up", number=3), "Done."), tools=[look_up])
    assert results_of(await events_of(agent)) == ["3 request 7"]


def test_an_asyncio_tool_has_the_schema_and_options_of_a_tool() -> None:
    slow = asyncio_tool(timeout=3, read_only=True)(look_up.function)
    assert (slow.timeout, slow.read_only) == (3, True)
    assert slow.description == "Look a number up."
    assert slow.arguments.schema["properties"]["number"]["description"] == "the number."


@in_asyncio
async def test_an_asyncio_tool_is_cancelled_and_awaited_with_its_run() -> None:
    started, said = asyncio.Event(), []

    @asyncio_tool
    async def wait() -> str:
        """Wait."""
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            await steps(20)
            said.append("cleaned up")
        raise AssertionError

    task = asyncio.create_task(agentloop.asyncio.run(Agent(ScriptedModel(calls("wait")), tools=[wait]), "Hi"))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert said == ["cleaned up"]


@in_asyncio
async def test_an_asyncio_tool_has_the_timeout_of_a_tool() -> None:
    @asyncio_tool(timeout=0.01)
    async def wait() -> str:
        """Wait."""
        await asyncio.Event().wait()
        raise AssertionError

    events = await events_of(Agent(ScriptedModel(calls("wait"), "Done."), tools=[wait]))
    assert "0.01" in results_of(events)[0]


@in_asyncio
async def test_the_error_of_an_asyncio_tool_is_the_result_of_its_call() -> None:
    @asyncio_tool
    async def fail() -> str:
        """Fail."""
        raise LookupError("no such row")

    @asyncio_tool
    async def cancel_itself() -> str:
        """Cancel."""
        raise asyncio.CancelledError

    agent = Agent(ScriptedModel(calls("fail"), calls("cancel_itself"), "Done."), tools=[fail, cancel_itself])
    first, second = results_of(await events_of(agent))
    assert "no such row" in first
    assert "cancelled from within asyncio" in second


@in_asyncio
async def test_an_asyncio_generator_streams_its_output_in_one_task() -> None:
    tasks = set()

    @asyncio_tool
    async def count() -> AsyncGenerator[str]:
        """Count."""
        async with asyncio.timeout(60):
            for number in range(3):
                tasks.add(asyncio.current_task())
                yield f"{number} "
                await asyncio.sleep(0)

    events = await events_of(Agent(ScriptedModel(calls("count"), "Done."), tools=[count]))
    assert results_of(events) == ["0 1 2 "]
    assert "".join(event.text for event in events if isinstance(event, ToolCallOutput)) == "0 1 2 "
    assert len(tasks) == 1


@in_asyncio
async def test_an_asyncio_generator_that_is_left_early_has_cleaned_up_when_its_run_ends() -> None:
    said: list[str] = []

    @asyncio_tool
    async def count() -> AsyncGenerator[str]:
        """Count."""
        try:
            for number in range(100):
                yield f"{number} "
        finally:
            await steps(50)
            said.append("cleaned up")

    async with agentloop.asyncio.stream(Agent(ScriptedModel(calls("count")), tools=[count]), "Hi") as stream:
        async for event in stream:
            if isinstance(event, ToolCallOutput):
                break
    assert said == ["cleaned up"]


@in_asyncio
async def test_asyncio_code_calls_a_tool_as_its_function() -> None:
    @asyncio_tool(name="fetch_page")
    async def fetch(url: str) -> str:
        """Fetch a page."""
        await asyncio.sleep(0)
        return f"page of {url}"

    @asyncio_tool
    async def count(to: int) -> AsyncGenerator[int]:
        """Count."""
        for number in range(to):
            await asyncio.sleep(0)
            yield number

    assert await fetch("here") == "page of here"
    assert [number async for number in count(3)] == [0, 1, 2]
    assert (fetch.__name__, fetch.name, fetch.__doc__) == ("fetch", "fetch_page", "Fetch a page.")


@in_asyncio
async def test_an_asyncio_tool_awaits_the_methods_of_its_context() -> None:
    inner = Agent(ScriptedModel("Hello!", "Hello again!", "And again!"), name="inner")

    @asyncio_tool
    async def work(context: ToolContext[None]) -> str:
        """Work."""
        await context.record_start()
        await context.output("begun ")
        await context.progress(0.5, message="half")
        await context.remember("receipt", 7)
        answer = await context.ask("Go on?")
        said = (await context.run(inner, "Hi")).output
        async with context.stream(inner, "Hi") as child:
            said += "".join([text async for text in child.text()])
            assert (await child.wait()).reason == "completed"
        # Trio code may use the context too.
        said += (await agentloop.asyncio.call(context.run, inner, "Hi")).output
        return f"{said} {type(answer).__name__} {context.recall('receipt', int)}"

    agent = Agent(ScriptedModel(calls("work"), "Done."), tools=[work])
    events: list[StreamEvent] = []
    async with agentloop.asyncio.stream(agent, "Hi") as stream:
        async for event in stream:
            events.append(event)
            if isinstance(event, ElicitationRequested):
                stream.answer(event.id, Accept({}))
    assert results_of(events)[-1] == "Hello!Hello again!And again! Accept 7"
    assert [event.text for event in events if isinstance(event, ToolCallOutput)] == ["begun "]


@in_asyncio
async def test_an_asyncio_tool_starts_a_background_run_and_waits_for_it() -> None:
    inner = Agent(ScriptedModel("Gold."), name="inner")

    @asyncio_tool
    async def start(context: ToolContext[Any]) -> str:
        run = await context.start(inner, "Hi")
        listed = [(each.id, each.agent, each.status, each.call_id == context.call_id) for each in context.background]
        outcome = await run.wait()
        run.stop()
        with pytest.raises(StreamStateError):
            run.steer("Too late.")
        return f"{listed} {outcome.output} {run.status} {run.text} {run.outcome.reason}"

    agent = Agent(ScriptedModel(calls("start"), "Done."), tools=[start])
    [result] = results_of(await events_of(agent))
    assert result == "[('inner-1', 'inner', 'running', True)] Gold. completed Gold. completed"


@in_asyncio
async def test_a_child_stream_that_an_asyncio_tool_reads_ends_with_its_run() -> None:
    waiting = Waiting(cleanup_steps=5)

    @asyncio_tool
    async def work(context: ToolContext[None]) -> str:
        """Work."""
        async with context.stream(waiting.agent, "Hi") as child:
            async for _ in child:
                pass
        raise AssertionError

    task = asyncio.create_task(agentloop.asyncio.run(Agent(ScriptedModel(calls("work")), tools=[work]), "Hi"))
    await waiting.started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert waiting.ends == 1


@in_asyncio
async def test_a_plain_function_is_no_asyncio_tool() -> None:
    @asyncio_tool
    def work() -> str:
        """Work."""
        return "done"

    [result] = results_of(await events_of(Agent(ScriptedModel(calls("work"), "Done."), tools=[work])))
    assert "work is a plain function: write it with `async def`" in result


@in_asyncio
async def test_a_hook_and_a_handler_may_be_asyncio_code() -> None:
    asked: list[str] = []

    async def look(call: PreToolUse) -> None:
        await asyncio.sleep(0)
        asked.append(call.name)

    async def approve(question: Question) -> Answer | None:
        await asyncio.sleep(0)
        asked.append(type(question).__name__)
        return Approve()

    guarded = asyncio_tool(requires_approval=True)(look_up.function)
    agent = Agent(
        ScriptedModel(calls("look_up", number=3), "Done."),
        tools=[guarded],
        hooks=[hooks.pre_tool_use(aio_as_trio(look))],
    )
    outcome = await agentloop.asyncio.run(agent, "Hi", on_question=aio_as_trio(approve))
    assert outcome.output == "Done."
    assert asked == ["look_up", "ApprovalRequested"]


class Numbers:
    """A toolset whose server is asyncio code."""

    name = "numbers"

    def __init__(self) -> None:
        self.log: list[str] = []

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Numbers]:
        await asyncio.sleep(0)
        self.log.append("open")
        try:
            yield self
        finally:
            await asyncio.sleep(0)
            self.log.append("closed")

    async def list_tools(self) -> Sequence[Tool]:
        await asyncio.sleep(0)
        return [look_up]


@in_asyncio
async def test_a_toolset_may_be_asyncio_code() -> None:
    numbers = Numbers()
    agent = Agent(ScriptedModel(calls("look_up", number=3), "Done."), toolsets=[aio_as_trio(numbers)])
    assert results_of(await events_of(agent)) == ["3 nobody"]
    assert numbers.log == ["open", "closed"]


class Echo:
    """A model whose client is asyncio code."""

    name = "echo"

    async def respond(self, request: ModelRequest, reply: Reply) -> Stop:
        for word in ("You ", "said: ", "hi"):
            await asyncio.sleep(0)
            await reply.text(word)
        return Stop(usage=Usage(input_tokens=1, output_tokens=3))


@in_asyncio
async def test_a_model_may_be_asyncio_code() -> None:
    outcome = await agentloop.asyncio.run(Agent(aio_as_trio(Echo())), "Hi")
    assert outcome.output == "You said: hi"
    assert outcome.usage.output_tokens == 3


class BreaksOff:
    """A model that reports its usage, and then fails."""

    name = "breaks off"

    async def respond(self, request: ModelRequest, reply: Reply) -> Stop:
        reply.report_usage(Usage(input_tokens=100))
        await reply.text("Well")
        raise ModelError("the model broke off")


@in_asyncio
async def test_the_usage_that_a_model_in_asyncio_reports_before_it_fails_counts() -> None:
    outcome = await agentloop.asyncio.run(Agent(aio_as_trio(BreaksOff()), fallbacks=[ScriptedModel("Hello.")]), "Hi")

    assert outcome.output == "Hello."
    assert outcome.usage.input_tokens == 110


@in_asyncio
async def test_an_asyncio_block_that_fails_cancels_the_trio_code_inside() -> None:
    @asynccontextmanager
    async def group() -> AsyncGenerator[None]:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(fail())
            yield

    async def fail() -> None:
        await asyncio.sleep(0)
        raise LookupError("the server died")

    async def use() -> None:
        async with aio_as_trio(group()):
            await trio.sleep_forever()

    with pytest.raises(ExceptionGroup) as raised:
        await agentloop.asyncio.call(use)
    assert raised.group_contains(LookupError)


@in_asyncio
async def test_an_error_in_an_asyncio_block_is_raised_inside_of_it() -> None:
    seen: list[BaseException] = []

    @asynccontextmanager
    async def look() -> AsyncGenerator[str]:
        try:
            yield "value"
        except ValueError as error:
            seen.append(error)
            raise

    async def use() -> None:
        async with aio_as_trio(look()) as value:
            assert value == "value"
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine") as raised:
        await agentloop.asyncio.call(use)
    assert seen == [raised.value]


@in_asyncio
async def test_an_asyncio_block_that_handles_an_error_has_handled_it() -> None:
    @asynccontextmanager
    async def lenient() -> AsyncGenerator[None]:
        with suppress(LookupError):
            yield

    async def use() -> str:
        async with aio_as_trio(lenient()):
            dict[str, str]().pop("nothing")
        return "went on"

    assert await agentloop.asyncio.call(use) == "went on"


@in_asyncio
async def test_an_asyncio_block_that_ends_by_itself_without_an_error_ends_the_code_inside() -> None:
    @asynccontextmanager
    async def limited() -> AsyncGenerator[None]:
        try:
            async with asyncio.timeout(0):
                yield
        except TimeoutError:
            pass

    async def use() -> str:
        async with aio_as_trio(limited()):
            await trio.Event().wait()
        return "went on"

    assert await agentloop.asyncio.call(use) == "went on"


def test_asyncio_code_says_what_it_needs_where_trio_has_no_host() -> None:
    agent = Agent(ScriptedModel(calls("look_up", number=3), "Done."), tools=[look_up])
    outcome = run_sync(agent, "Hi")
    assert "no asyncio loop hosts this run" in repr(outcome.messages)


def test_what_cannot_be_adapted_is_refused() -> None:
    thing: Any = 3
    with pytest.raises(UsageError, match="not 3"):
        aio_as_trio(thing)


@in_asyncio
async def test_an_eager_task_factory_does_not_confuse_asyncio_code() -> None:
    if not hasattr(asyncio, "eager_task_factory"):
        pytest.skip("Python 3.12 brings eager tasks")
    if os.environ.get("ASYNCIO_LOOP") == "uvloop":
        pytest.skip("uvloop 0.22 gives a task factory an argument that eager tasks take from Python 3.14 on")
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
    agent = Agent(ScriptedModel(calls("look_up", number=3), "Done."), tools=[look_up])
    assert results_of(await events_of(agent)) == ["3 nobody"]


@in_asyncio
async def test_a_task_factory_that_fails_is_the_result_of_the_call() -> None:
    def fail(*_: object, **__: object) -> Any:
        raise LookupError("no more tasks")

    @tool
    async def break_tasks() -> str:
        """Break tasks."""
        loop.set_task_factory(fail)
        return "done"

    loop = asyncio.get_running_loop()
    agent = Agent(
        ScriptedModel(calls("break_tasks"), calls("look_up", number=3), "Done."), tools=[break_tasks, look_up]
    )
    async with agentloop.asyncio.stream(agent, "Hi") as stream:
        events = [event async for event in stream]
        loop.set_task_factory(None)
    assert "no more tasks" in results_of(events)[-1]


@pytest.mark.parametrize("count", [100, pytest.param(10_000, marks=pytest.mark.nightly)])
def test_abandoned_runs_leave_nothing(count: int) -> None:
    async def abandon(host: TrioHost) -> None:
        started = asyncio.Event()

        @asyncio_tool
        async def wait() -> str:
            """Wait."""
            started.set()
            await asyncio.Event().wait()
            raise AssertionError

        task = asyncio.create_task(host.run(Agent(ScriptedModel(calls("wait")), tools=[wait]), "Hi"))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def main() -> None:
        async with TrioHost() as host:
            for _ in range(20):
                await abandon(host)
            gc.collect()
            threads, objects = threading.active_count(), len(gc.get_objects())
            for _ in range(count):
                await abandon(host)
            gc.collect()
            assert threading.active_count() <= threads + 2
            assert len(gc.get_objects()) - objects < count
            assert asyncio.all_tasks() == {asyncio.current_task()}

    run_in_loop(main)
