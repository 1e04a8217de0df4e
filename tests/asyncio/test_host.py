"""Agents in asyncio: runs, streams, stores and errors."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
import trio

import agentloop.asyncio
from agentloop import Agent, Limits, Tool, UsageError, run_sync, tool
from agentloop.asyncio import TrioHost
from agentloop.errors import LimitReachedError, ModelError
from agentloop.events import (
    ApprovalRequested,
    Paused,
    Resumed,
    StreamStopped,
    TextDelta,
    ToolCallFinished,
    ToolCallStarted,
    ToolsetChanged,
)
from agentloop.models import ModelRequest, Reply, Stop
from agentloop.questions import Approve
from agentloop.stores import MemoryStore, SQLiteStore, follow_session, stored_session
from agentloop.testing import ScriptedModel, calls, fails, hangs, says
from tests.asyncio.support import Waiting, in_asyncio, run_in_loop


@in_asyncio
async def test_an_agent_runs_where_no_host_was_entered() -> None:
    outcome = await agentloop.asyncio.run(Agent(ScriptedModel("Hello!")), "Hi")
    assert outcome.output == "Hello!"


@in_asyncio
async def test_a_host_runs_many_agents_at_once() -> None:
    agent = Agent(ScriptedModel(*["Hello!"] * 50))
    async with TrioHost() as host:
        outcomes = await asyncio.gather(*(host.run(agent, str(number)) for number in range(50)))
    assert [outcome.output for outcome in outcomes] == ["Hello!"] * 50


@in_asyncio
async def test_a_stream_gives_asyncio_the_events_that_trio_gets() -> None:
    async with TrioHost() as host, host.stream(Agent(ScriptedModel("Hello!")), "Hi") as stream:
        hosted = [type(event) for event in [event async for event in stream]]
    assert stream.result.output == "Hello!"
    native = run_sync_events(Agent(ScriptedModel("Hello!")))
    assert hosted == native


def run_sync_events(agent: Agent) -> list[type]:
    events: list[type] = []

    async def main() -> None:
        async with agent.stream("Hi") as stream:
            events.extend([type(event) async for event in stream])

    # A thread of its own: asyncio runs in this one.
    thread = threading.Thread(target=trio.run, args=(main,))
    thread.start()
    thread.join()
    return events


@in_asyncio
async def test_questions_are_answered_from_asyncio() -> None:
    @tool(requires_approval=True)
    async def delete(name: str) -> str:
        """Delete a file."""
        return f"{name} is gone"

    agent = Agent(ScriptedModel(calls("delete", name="a.txt"), "Done."), tools=[delete])
    results: list[str] = []
    async with agentloop.asyncio.stream(agent, "Delete it") as stream:
        async for event in stream:
            if isinstance(event, ApprovalRequested):
                stream.answer(event.id, Approve())
            elif isinstance(event, ToolCallFinished):
                results.append(event.result.text)
    assert results == ["a.txt is gone"]


@in_asyncio
async def test_a_stream_is_paused_and_resumed_from_asyncio() -> None:
    seen: list[type] = []
    agent = Agent(ScriptedModel(calls("look"), "Done."), tools=[tool(look)])
    async with agentloop.asyncio.stream(agent, "Hi") as stream:
        async for event in stream:
            seen.append(type(event))
            if isinstance(event, ToolCallStarted):
                stream.pause()
                asyncio.get_running_loop().call_later(0.05, stream.resume)
    assert stream.result.output == "Done."
    assert seen.index(Paused) < seen.index(ToolCallFinished) < seen.index(Resumed) < len(seen) - 1


class Looking:
    """A toolset."""

    name = "looking"

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Looking]:
        yield self

    async def list_tools(self) -> list[Tool]:
        return [tool(look)]


@in_asyncio
async def test_a_toolset_is_restarted_from_asyncio() -> None:
    states: list[str] = []
    agent = Agent(ScriptedModel(calls("look"), calls("look"), "Done."), toolsets=[Looking()])
    async with agentloop.asyncio.stream(agent, "Hi") as stream:
        async for event in stream:
            if isinstance(event, ToolCallStarted) and not states:
                stream.pause()
                await stream.restart_toolset("looking")
                stream.resume()
            elif isinstance(event, ToolsetChanged):
                states.append(event.toolset.state)
    assert states[:2] == ["starting", "ready"]
    assert stream.result.output == "Done."


async def look() -> str:
    """Look around."""
    await trio.sleep(0.01)
    return "nothing there"


@in_asyncio
async def test_a_stream_is_steered_stopped_and_awaited_from_asyncio() -> None:
    waiting = Waiting()
    async with TrioHost() as host, host.stream(waiting.agent, "Hi") as stream:
        await waiting.started.wait()
        stream.steer("Hurry.")
        stream.stop("enough")
        outcome = await stream.wait()
    assert (outcome.reason, outcome.detail) == ("cancelled", "enough")
    assert len(outcome.undelivered) == 1
    assert waiting.ends == 1


@in_asyncio
async def test_a_parked_run_is_resumed_from_asyncio(tmp_path: Path) -> None:
    @tool(requires_approval=True)
    async def delete() -> str:
        """Delete."""
        return "gone"

    agent = Agent(ScriptedModel(calls("delete"), "Done."), tools=[delete])
    async with (
        TrioHost() as host,
        host.block(SQLiteStore(tmp_path / "chats.db").open()) as store,
        host.block(stored_session(store, "one")) as session,
    ):
        parked = await host.run(agent, "Delete it", session=session, on_question="park")
        assert parked.reason == "needs_input"
        answers = {question.id: Approve() for question in parked.questions}
        outcome = await host.resume(agent, session, answers)
    assert outcome.output == "Done."


@in_asyncio
async def test_the_error_of_a_run_is_raised_in_asyncio_as_it_is_in_trio() -> None:
    agent = Agent(ScriptedModel(fails(ModelError("the model is on holiday"))))
    with pytest.raises(ModelError, match="on holiday"):
        await agentloop.asyncio.run(agent, "Hi")
    with pytest.raises(ModelError, match="on holiday"):
        async with agentloop.asyncio.stream(agent, "Hi") as stream:
            async for _ in stream:
                pass


@in_asyncio
async def test_context_variables_of_asyncio_reach_a_tool() -> None:
    request_id: ContextVar[str] = ContextVar("request_id")

    @tool
    async def read() -> str:
        """Read."""
        return request_id.get()

    @tool
    def read_in_a_thread() -> str:
        """Read."""
        return request_id.get()

    async def results(name: str) -> list[str]:
        request_id.set(name)
        agent = Agent(ScriptedModel(calls("read"), calls("read_in_a_thread"), "Done."), tools=[read, read_in_a_thread])
        async with host.stream(agent, "Hi") as stream:
            return [event.result.text async for event in stream if isinstance(event, ToolCallFinished)]

    async with TrioHost() as host:
        both = await asyncio.gather(asyncio.create_task(results("a")), asyncio.create_task(results("b")))
    assert list(both) == [["a", "a"], ["b", "b"]]


@in_asyncio
async def test_a_slow_reader_in_asyncio_holds_the_model_back() -> None:
    written = 0

    class Talkative:
        name = "talkative"

        async def respond(self, request: ModelRequest, reply: Reply) -> Stop:
            nonlocal written
            for _ in range(10_000):
                await reply.text("word ")
                written += 1
            return Stop()

    async with agentloop.asyncio.stream(Agent(Talkative()), "Hi") as stream:
        async for event in stream:
            if isinstance(event, TextDelta):
                break
        for _ in range(1_000):
            await asyncio.sleep(0)
        assert written < 200
        count = 1
        async for event in stream:
            count += isinstance(event, TextDelta)
    assert count == 10_000


@in_asyncio
async def test_a_session_is_followed_from_asyncio(tmp_path: Path) -> None:
    async with TrioHost() as host, host.block(SQLiteStore(tmp_path / "chats.db").open()) as store:
        async with host.block(stored_session(store, "one")) as session:
            await host.run(Agent(ScriptedModel("Hello!")), "Hi", session=session)
        events = [event async for event in host.iterate(follow_session(store, "one"))]
    assert isinstance(events[-1], StreamStopped)


# ------------------------------------------------------------------- what is refused


@in_asyncio
async def test_the_trio_api_says_in_asyncio_what_to_write() -> None:
    agent = Agent(ScriptedModel("Hello!"))
    with pytest.raises(UsageError, match=r"await agentloop\.asyncio\.run\(agent, prompt\)"):
        await agent.run("Hi")
    with pytest.raises(UsageError, match=r"agentloop\.asyncio\.run"):
        async with agent.stream("Hi"):
            pass
    with pytest.raises(UsageError, match=r"agentloop\.asyncio\.block"):
        async with MemoryStore().open():
            pass


@in_asyncio
async def test_run_sync_refuses_to_block_the_loop() -> None:
    with pytest.raises(UsageError, match=r"await agentloop\.asyncio\.run\(agent, prompt\)"):
        run_sync(Agent(ScriptedModel("Hello!")), "Hi")


@in_asyncio
async def test_a_host_is_used_in_its_block_and_entered_once() -> None:
    host = TrioHost()
    agent = Agent(ScriptedModel("Hello!"))
    with pytest.raises(UsageError, match="async with TrioHost"):
        await host.run(agent, "Hi")
    async with host:
        pass
    with pytest.raises(UsageError, match="async with TrioHost"):
        await host.run(agent, "Hi")
    with pytest.raises(UsageError, match="entered once"):
        async with host:
            pass


def test_a_host_refuses_the_loop_of_another_thread() -> None:
    async def main() -> None:
        async with TrioHost() as host:

            async def elsewhere() -> None:
                with pytest.raises(UsageError, match="another asyncio loop"):
                    await host.run(Agent(ScriptedModel("Hello!")), "Hi")

            await asyncio.to_thread(asyncio.run, elsewhere())

    run_in_loop(main)


@pytest.mark.parametrize("name", ["run", "stream", "stream_text", "resume", "resume_stream"])
def test_a_host_takes_the_arguments_that_an_agent_takes(name: str) -> None:
    def parameters(function: Callable[..., Any], first: int) -> list[inspect.Parameter]:
        listed = list(inspect.signature(function).parameters.values())[first:]
        # The same type is another type variable for a function than for a class.
        return [each.replace(annotation="Deps") if each.name == "deps" else each for each in listed]

    of_agent = parameters(getattr(Agent, name), 1)
    of_host = parameters(getattr(TrioHost, name), 2)
    of_module = parameters(getattr(agentloop.asyncio, name), 1)
    assert of_agent == of_host == of_module


async def _words(text: Any) -> list[str]:
    return [piece async for piece in text]


def test_asyncio_code_reads_the_words_of_a_run() -> None:
    agent = Agent(ScriptedModel("One two", "One two", says("One ") + hangs(), calls("nothing")), limits=Limits(turns=1))

    async def main() -> None:
        async with agentloop.asyncio.stream_text(agent, "Hi") as text:
            assert await _words(text) == ["One ", "two"]
            assert (await text.stream.wait()).output == "One two"
        async with TrioHost() as host:
            async with host.stream_text(agent, "Hi") as text:
                assert await _words(text) == ["One ", "two"]
            async with host.stream_text(agent, "Hi") as text:
                async for piece in text:
                    assert piece == "One "
                    break
            assert text.stream.outcome.reason == "cancelled"
            async with host.stream_text(agent, "Hi") as text:
                with pytest.raises(LimitReachedError):
                    await _words(text)

    run_in_loop(main)
