"""Agents: the types of their deps and outputs, in trio and in asyncio."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Literal, assert_type

import agentloop.asyncio
from agentloop import Agent, Approve, Deny, Outcome, Session, Stream, ToolContext, run_sync, tool
from agentloop._runtime.stream import StreamedText
from agentloop.asyncio import TrioHost
from agentloop.events import ApprovalRequested, Question
from agentloop.testing import ScriptedModel


@dataclass
class Weather:
    sunny: bool


class Storage:
    pass


class Database(Storage):
    rows: int = 3


class Cache:
    pass


MODEL = ScriptedModel("Hello!")


@tool
async def count(context: ToolContext[Database], table: str) -> int:
    return context.deps.rows


@tool
def add(a: int, b: int) -> int:
    return a + b


def plain(a: int) -> int:
    return a


def outputs_follow_from_their_type() -> None:
    assert_type(Agent(MODEL), Agent[Any, str])
    assert_type(Agent(MODEL, output_type=Weather), Agent[Any, Weather])
    assert_type(Agent(MODEL, output_type=list[Weather]), Agent[Any, list[Weather]])
    assert_type(Agent(MODEL, output_type=Weather | None), Agent[Any, Weather | None])
    assert_type(Agent(MODEL, output_type=Literal["yes", "no"]), Agent[Any, Literal["yes", "no"]])
    Agent(MODEL, output_type=3)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def deps_follow_from_their_type_and_from_tools() -> None:
    assert_type(Agent(MODEL, deps_type=Database), Agent[Database, str])
    assert_type(Agent(MODEL, deps_type=Database, output_type=Weather), Agent[Database, Weather])
    assert_type(Agent(MODEL, deps_type=Database | None), Agent[Database | None, str])
    assert_type(Agent(MODEL, tools=[add, plain]), Agent[Any, str])
    assert_type(Agent(MODEL, tools=[count]), Agent[Database, str])


def a_tool_that_wants_other_deps_is_an_error() -> None:
    Agent(MODEL, deps_type=Database, tools=[add, count, plain])
    Agent(MODEL, deps_type=Cache, tools=[add, count, plain])  # type: ignore[list-item] # pyright: ignore[reportArgumentType]
    child = Agent(MODEL, deps_type=Database).as_tool()
    Agent(MODEL, deps_type=Database, tools=[child, Agent(MODEL).as_tool(), add])
    Agent(MODEL, deps_type=Cache, tools=[child])  # type: ignore[list-item] # pyright: ignore[reportArgumentType]


async def an_outcome_has_the_output_of_its_agent(session: Session) -> None:
    agent = Agent(MODEL, deps_type=Database, output_type=Weather)
    outcome = await agent.run("Hi", deps=Database())
    assert_type(outcome, Outcome[Weather])
    assert_type(outcome.output.sunny, bool)
    print(outcome.output.rain)  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownArgumentType]
    assert_type((await agent.resume(session)).output, Weather)
    assert_type(run_sync(agent, "Hi", deps=Database()).output, Weather)
    assert_type((await Agent(MODEL).run("Hi")).output, str)


async def a_stream_has_the_output_of_its_agent(session: Session) -> None:
    agent = Agent(MODEL, deps_type=Database, output_type=Weather)
    assert_type(agent.stream("Hi", deps=Database()), AbstractAsyncContextManager[Stream[Weather]])
    async with agent.stream("Hi", deps=Database()) as stream:
        assert_type(await stream.wait(), Outcome[Weather])
        assert_type(stream.outcome.output, Weather)
    assert_type(stream.result.output, Weather)
    async with agent.resume_stream(session) as stream:
        assert_type([piece async for piece in stream.text()], list[str])
    async with agent.stream_text("Hi") as text:
        assert_type(text, StreamedText[Weather])
        assert_type([piece async for piece in text], list[str])


async def other_deps_are_an_error(session: Session) -> None:
    agent = Agent(MODEL, deps_type=Storage)
    await agent.run("Hi", deps=Database())
    await agent.run("Hi", deps=3)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    agent.stream("Hi", deps=Cache())  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    agent.stream_text("Hi", deps=Cache())  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    await agent.resume(session, deps=Cache())  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    await session.compact(agent, deps=Cache())  # type: ignore[misc] # pyright: ignore[reportArgumentType]
    run_sync(agent, "Hi", deps=Cache())  # type: ignore[misc] # pyright: ignore[reportArgumentType]


def an_agent_takes_the_place_of_one_with_stricter_deps_and_a_wider_output(wide: Agent[Database, int]) -> None:
    of_storage = Agent(MODEL, deps_type=Storage, output_type=bool)
    fits: Agent[Database, int] = of_storage
    unfit: Agent[Storage, bool] = wide  # type: ignore[assignment] # pyright: ignore[reportAssignmentType]
    without_types: Agent = Agent(MODEL)
    structured: Agent = of_storage  # type: ignore[assignment] # pyright: ignore[reportAssignmentType]
    whatever: Agent[Any, Any] = of_storage
    print(fits, unfit, without_types, structured, whatever)


def a_copy_has_the_types_that_it_was_given() -> None:
    agent = Agent(MODEL, deps_type=Database, output_type=Weather)
    assert_type(agent.replace(name="other"), Agent[Database, Weather])
    assert_type(agent.replace(output_type=int), Agent[Database, int])
    assert_type(agent.replace(deps_type=Cache), Agent[Cache, Weather])
    assert_type(agent.replace(deps_type=Cache, output_type=int), Agent[Cache, int])


async def asyncio_has_the_same_types(session: Session) -> None:
    agent = Agent(MODEL, deps_type=Database, output_type=Weather)
    assert_type((await agentloop.asyncio.run(agent, "Hi", deps=Database())).output, Weather)
    assert_type((await agentloop.asyncio.resume(agent, session)).output, Weather)
    async with agentloop.asyncio.stream(agent, "Hi") as stream:
        assert_type((await stream.wait()).output, Weather)
    async with TrioHost() as host:
        assert_type((await host.run(agent, "Hi", deps=Database())).output, Weather)
        assert_type((await host.resume(agent, session)).output, Weather)
        async with host.stream(agent, "Hi") as stream:
            assert_type(stream.result, Outcome[Weather])
        async with host.resume_stream(agent, session) as stream:
            assert_type(stream.result, Outcome[Weather])
        async with host.stream_text(agent, "Hi") as text:
            assert_type(text.stream.result.output, Weather)
        await host.run(agent, "Hi", deps=Cache())  # type: ignore[misc] # pyright: ignore[reportArgumentType]
    await agentloop.asyncio.run(agent, "Hi", deps=3)  # type: ignore[misc] # pyright: ignore[reportArgumentType]


def plain_handler(question: Question) -> Approve | Deny | None:
    return Approve() if isinstance(question, ApprovalRequested) else None


async def async_handler(question: Question) -> Approve:
    return Approve()


def handlers_of_questions() -> None:
    run_sync(Agent(MODEL), "x", on_question=plain_handler)
    run_sync(Agent(MODEL), "x", on_question=async_handler)
