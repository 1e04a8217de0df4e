"""Tools: their signatures, options and contexts."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from functools import partial
from typing import Any, assert_type

from agentloop import Agent, Cancel, Decline, Tool, ToolContext, tool
from agentloop.asyncio import asyncio_tool
from agentloop.testing import ScriptedModel


class Database:
    rows: int = 3


class Cache:
    pass


@tool
def add(a: int, b: int = 1) -> int:
    return a + b


@tool(name="look_up", timeout=3, requires_approval=lambda arguments: "city" in arguments)
async def look(city: str) -> str:
    return city


@tool
async def numbers(to: int) -> AsyncGenerator[int]:
    yield to


@tool(read_only=True)
async def count(context: ToolContext[Database], table: str) -> int:
    assert_type(context.deps, Database)
    return context.deps.rows


@tool
async def count_later(table: str, context: ToolContext[Database]) -> int:
    return context.deps.rows


@tool
async def ask(context: ToolContext) -> str:
    assert_type(context.deps, Any)
    answer = await context.ask_for("Which?", Database)
    assert_type(answer, Database | Decline | Cancel)
    assert_type(context.recall("seen", list[str]), list[str] | None)
    return "asked"


@asyncio_tool(name="fetch")
async def fetch(url: str) -> bytes:
    return url.encode()


async def calling_a_tool_is_calling_its_function(context: ToolContext[Database]) -> None:
    assert_type(add(1, b=2), int)
    assert_type(await look("Porto"), str)
    assert_type([number async for number in numbers(3)], list[int])
    assert_type(await count(context, table="people"), int)
    assert_type(await count_later("people", context=context), int)
    assert_type(await fetch("https://example.org"), bytes)
    assert_type(add.__name__, str)
    add("1")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    add(1, c=2)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    await look()  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]


def a_tool_is_a_tool_with_any_signature(context: ToolContext[Cache]) -> None:
    add_it: Tool[Callable[[int, int], int]] = add
    some: list[Tool] = [add, look, numbers, count, ask, fetch]
    function: Callable[[int], int] = add
    print(add_it, some, function)
    print(count(context, table="people"))  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def options_are_parameters() -> None:
    tool(timeuot=3)  # type: ignore[call-overload] # pyright: ignore[reportCallIssue]
    tool(timeout="soon")  # type: ignore[call-overload] # pyright: ignore[reportArgumentType]
    asyncio_tool(if_interrupted="never")  # type: ignore[call-overload] # pyright: ignore[reportArgumentType]
    Agent(ScriptedModel("Hi")).as_tool(timeuot=3)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]


class Shop:
    def price(self, name: str) -> int:
        return len(name)


def an_agent_takes_tools_functions_methods_and_partials() -> None:
    def plain(a: int) -> int:
        return a

    tools = [add, look, count, ask]
    Agent(ScriptedModel("Hi"), tools=[add, plain, Shop().price, partial(plain, 3), lambda: 3])
    Agent(ScriptedModel("Hi"), tools=tools)
    Agent(ScriptedModel("Hi"), tools=tools, deps_type=Database)
    Agent(ScriptedModel("Hi"), tools=(add, look))
    Agent(ScriptedModel("Hi"), tools=[3])  # type: ignore[list-item] # pyright: ignore[reportArgumentType]


async def a_child_has_its_output_and_takes_the_deps_of_its_context(
    of_database: ToolContext[Database], of_cache: ToolContext[Cache]
) -> None:
    child = Agent(ScriptedModel("Hi"), deps_type=Database, output_type=int)
    assert_type((await of_database.run(child, "Go.")).output, int)
    async with of_database.stream(child, "Go.") as stream:
        assert_type((await stream.wait()).output, int)
    await of_cache.run(child, "Go.")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
