"""Functions of a `RunInfo`: the types of the deps that they want are those of their agent."""

from __future__ import annotations

from typing import Any, assert_type

from agentloop import Agent, RunInfo, each_turn, tool
from agentloop.run_info import EachTurn
from agentloop.testing import ScriptedModel


class Database:
    rows: int = 3


class Cache:
    pass


MODEL = ScriptedModel("Hello!")


def instructions(info: RunInfo[Database]) -> str:
    return f"There are {info.deps.rows} rows."


async def awaited(info: RunInfo[Database]) -> str:
    return instructions(info)


def any_deps(info: RunInfo) -> str:
    assert_type(info.deps, Any)
    return info.model


def instructions_follow_the_deps_of_the_agent() -> None:
    assert_type(Agent(MODEL, instructions=instructions), Agent[Database, str])
    Agent(MODEL, deps_type=Database, instructions=instructions)
    Agent(MODEL, deps_type=Database, instructions=awaited)
    Agent(MODEL, deps_type=Database, instructions=any_deps)
    Agent(MODEL, deps_type=Database, instructions=lambda info: f"{info.turn}")
    Agent(MODEL, deps_type=Cache, instructions=instructions)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def instructions_of_each_turn_do_so_too() -> None:
    assert_type(each_turn(instructions), EachTurn[Database])
    Agent(MODEL, deps_type=Database, instructions=each_turn(awaited))
    Agent(MODEL, deps_type=Cache, instructions=each_turn(instructions))  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


@tool(offered=lambda info: info.turn > 1)
async def act() -> str:
    return "acted"


def tools_that_are_offered_keep_their_types() -> None:
    Agent(MODEL, tools=[act])
    assert_type(act.offered is None, bool)
