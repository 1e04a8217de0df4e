"""Agents that depend on their run: instructions, tools and toolsets as functions, with the deps of the run."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio

from agentloop import Agent, Approve, Deadlines, RunInfo, Tool, UsageError, each_turn, tool
from agentloop.errors import ToolDefinitionError, ToolsetError
from agentloop.events import Source, UsageReported, WarningIssued
from agentloop.messages import Usage
from agentloop.models import ModelRequest
from agentloop.stores import MemoryStore, stored_session
from agentloop.testing import ScriptedModel, calls
from tests.runtime.builders import agent_with, results
from tests.support import of, watch


@tool
async def look() -> str:
    """Look."""
    return "blue"


def requests(agent: Agent) -> list[ModelRequest]:
    assert isinstance(agent.model, ScriptedModel)
    return agent.model.requests


def offered_in(agent: Agent) -> list[list[str]]:
    """The names of the tools that each request offers."""
    return [[spec.name for spec in request.tools] for request in requests(agent)]


# ------------------------------------------------------------------------------ instructions


@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_instructions_of_a_run_are_given_once_by_a_function_that_knows_its_deps_and_its_model(kind: str) -> None:
    infos: list[RunInfo[str]] = []

    def plain(info: RunInfo[str]) -> str:
        infos.append(info)
        return f"You help {info.deps}."

    async def awaited(info: RunInfo[str]) -> str:
        return plain(info)

    agent = agent_with(look, instructions=plain if kind == "plain" else awaited)

    watched = await watch(agent, deps="Ada")

    assert [request.instructions for request in requests(agent)] == ["You help Ada."] * 2
    [info] = infos
    assert (info.source, info.deps, info.turn, info.usage) == (watched.stream.source, "Ada", 1, Usage())
    assert isinstance(agent.model, ScriptedModel)
    assert info.model == agent.model.name


async def test_instructions_of_each_turn_know_its_number_and_the_usage_so_far() -> None:
    infos: list[RunInfo[None]] = []

    @each_turn
    def instructions(info: RunInfo[None]) -> str:
        infos.append(info)
        return f"This is turn {info.turn}."

    agent = agent_with(look, instructions=instructions)

    watched = await watch(agent)

    assert [request.instructions for request in requests(agent)] == ["This is turn 1.", "This is turn 2."]
    assert [info.turn for info in infos] == [1, 2]
    [first, _] = of(watched.events, UsageReported)
    assert [info.usage for info in infos] == [Usage(), first.total]


async def test_the_instructions_of_a_turn_come_after_those_that_stay() -> None:
    class Server:
        name = "server"

        @asynccontextmanager
        async def open(self) -> AsyncGenerator[Server]:
            yield self

        instructions = "Of the server."

        async def list_tools(self) -> list[Tool]:
            return []

    agent = Agent(ScriptedModel("Hi."), toolsets=[Server()], instructions=each_turn(lambda info: "Of the turn."))

    await agent.run("go")

    assert requests(agent)[0].instructions == "Of the server.\n\nOf the turn."


@pytest.mark.parametrize("wrapped", [lambda function: function, each_turn], ids=["run", "turn"])
@pytest.mark.parametrize(
    "function",
    [lambda: "Be brief.", lambda *args: "Be brief.", partial(lambda text, info: text, "Be brief.")],
    ids=["none", "any", "bound"],
)
async def test_a_function_may_leave_out_the_parameter_or_have_bound_ones(
    function: Callable[..., str], wrapped: Callable[[Any], Any]
) -> None:
    agent = Agent(ScriptedModel("Hi."), instructions=wrapped(function))

    await agent.run("go")

    assert requests(agent)[0].instructions == "Be brief."


async def test_a_plain_function_of_instructions_runs_in_a_thread_on_the_real_clock() -> None:
    threads: list[int] = []

    def instructions(info: RunInfo[None]) -> str:
        threads.append(threading.get_ident())
        return ""

    # A run of trio of its own, since the clock of this test is not the real one.
    def run_it(wrapped: Any) -> None:
        trio.run(Agent(ScriptedModel("Hi."), instructions=wrapped).run, "go")

    for wrapped in (instructions, each_turn(instructions)):
        thread = threading.Thread(target=run_it, args=(wrapped,))
        thread.start()
        thread.join()
        assert threads.pop() != thread.ident


async def test_instructions_of_a_turn_that_fail_end_the_run_with_what_they_raised() -> None:
    @each_turn
    def broken(info: RunInfo[None]) -> str:
        if info.turn == 2:
            raise KeyError("city")
        return ""

    watched = await watch(agent_with(look, name="guide", instructions=broken))

    assert isinstance(watched.error, UsageError)
    assert str(watched.error) == "the instructions of agent 'guide' failed: KeyError: 'city'"
    assert isinstance(watched.error.__cause__, KeyError)
    assert [result.text for result in results(watched)] == ["blue"]


async def test_instructions_of_a_turn_have_a_deadline() -> None:
    @each_turn
    async def slow(info: RunInfo[None]) -> str:
        await trio.sleep_forever()

    watched = await watch(Agent(ScriptedModel("Hi."), instructions=slow, deadlines=Deadlines(hook=3)))

    assert "took too long" in str(watched.error)


async def test_half_a_character_in_instructions_is_replaced_before_a_provider_reads_it() -> None:
    agent = Agent(ScriptedModel("Hi."), instructions=lambda info: "caf\udce9")

    await agent.run("go")

    assert requests(agent)[0].instructions.encode()


@pytest.mark.parametrize(
    ("instructions", "problem"),
    [
        (lambda info, user: "", r"instructions= takes a function of one RunInfo, not of \(info, user\)"),
        (lambda *, user: "", r"instructions= takes a function of one RunInfo, not of \(user\)"),
        (["Be brief.", "Be kind."], "instructions are one text"),
        (7, "instructions are text, or a function that gives it, not 7"),
    ],
    ids=["two", "by name", "a list", "a number"],
)
def test_instructions_that_cannot_be_called_with_a_run_are_refused(instructions: Any, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        Agent(ScriptedModel(), instructions=instructions)


def test_each_turn_takes_a_function_and_can_be_called_as_it() -> None:
    @each_turn
    def instructions(info: RunInfo[str]) -> str:
        """Of the turn."""
        return info.deps

    info = RunInfo(source=Source("s", "s/1", ("a",)), deps="x", turn=1, model="m", usage=Usage())
    assert (instructions(info), instructions.__doc__) == ("x", "Of the turn.")
    with pytest.raises(UsageError, match="@each_turn takes a function of a RunInfo, not 'text'"):
        each_turn("text")  # type: ignore[arg-type]


def test_deps_are_no_part_of_the_equality_and_the_repr_of_a_run_info() -> None:
    infos = [RunInfo(source=Source("s", "s/1", ("a",)), deps=d, turn=1, model="m", usage=Usage()) for d in ("x", "y")]

    assert infos[0] == infos[1]
    assert "deps" not in repr(infos[0])


# -------------------------------------------------------------------------------------- tools


async def test_a_tool_is_offered_in_the_turns_that_its_function_says() -> None:
    infos: list[RunInfo[str]] = []

    def second_turn(info: RunInfo[str]) -> bool:
        infos.append(info)
        return info.turn == 2

    @tool(offered=second_turn)
    async def act() -> str:
        return "acted"

    model = ScriptedModel(calls("look"), calls("act"), "Done.")
    agent = Agent(model, tools=[look, act])

    watched = await watch(agent, deps="Ada")

    assert offered_in(agent) == [["look"], ["look", "act"], ["look"]]
    assert [result.text for result in results(watched)] == ["blue", "acted"]
    assert [(info.turn, info.deps) for info in infos] == [(1, "Ada"), (2, "Ada"), (3, "Ada")]


async def test_a_call_of_a_tool_that_is_not_offered_is_answered_as_one_of_an_unknown_tool() -> None:
    @tool(offered=lambda info: False)
    async def act() -> str:
        raise AssertionError("it is not called")

    agent = Agent(ScriptedModel(calls("act"), calls("acct"), "Done."), tools=[look, act])

    watched = await watch(agent)

    [withheld, unknown] = results(watched)
    assert withheld.status == unknown.status
    assert withheld.text.replace("act", "acct") == unknown.text


async def test_tools_that_share_a_function_have_one_verdict_in_a_turn() -> None:
    turns: list[int] = []

    def is_admin(info: RunInfo[bool]) -> bool:
        turns.append(info.turn)
        return info.deps

    tools = [tool(name=name, offered=is_admin)(look.function) for name in ("a", "b", "c")]
    agent = Agent(ScriptedModel("Hi."), tools=tools)

    await agent.run("go", deps=True)

    assert (offered_in(agent), turns) == ([["a", "b", "c"]], [1])


@pytest.mark.parametrize("failure", ["raises", "hangs"])
async def test_a_tool_whose_function_fails_is_not_offered_and_the_run_warns(failure: str) -> None:
    async def offered(info: RunInfo[None]) -> bool:
        if failure == "hangs":
            await trio.sleep_forever()
        raise KeyError("role")

    agent = Agent(ScriptedModel("Hi."), tools=[look, tool(name="act", offered=offered)(look.function)])
    agent = agent.replace(deadlines=Deadlines(hook=3))

    watched = await watch(agent)

    assert offered_in(agent) == [["look"]]
    [warning] = of(watched.events, WarningIssued)
    words = "KeyError: 'role'" if failure == "raises" else "it took too long"
    assert (warning.code, warning.message) == ("predicate_failed", f"offered of tool 'act' failed: {words}")


async def test_a_tool_of_a_toolset_and_an_agent_as_a_tool_may_be_offered_in_some_turns_only() -> None:
    helper = Agent(ScriptedModel(), name="helper").as_tool(offered=lambda info: info.turn == 1)

    class Server:
        name = "server"

        @asynccontextmanager
        async def open(self) -> AsyncGenerator[Server]:
            yield self

        async def list_tools(self) -> list[Tool]:
            return [tool(name="served", offered=lambda info: info.turn == 2)(look.function)]

    agent = Agent(ScriptedModel(calls("look"), "Done."), tools=[look, helper], toolsets=[Server()])

    await agent.run("go")

    assert offered_in(agent) == [["look", "helper"], ["look", "served"]]


async def test_a_call_that_was_parked_is_finished_even_if_its_tool_is_not_offered_any_more() -> None:
    @tool(offered=lambda info: info.deps, requires_approval=True)
    async def act() -> str:
        return "acted"

    @tool(offered=lambda info: info.deps)
    async def other() -> str:
        raise AssertionError("it is not called")

    agent = Agent(ScriptedModel(calls("act"), calls("other"), "Done."), tools=[act, other])
    async with MemoryStore().open() as store, stored_session(store, "s") as session:
        parked = await agent.run("go", session=session, on_question="park", deps=True)
        [question] = parked.questions

        outcome = await agent.resume(session, {question.id: Approve()}, deps=False)

    assert outcome.reason == "completed"
    texts = [message.text for message in outcome.messages if type(message).__name__ == "ToolResult"]
    assert texts[0] == "acted"
    assert "other" in texts[1]
    assert offered_in(agent) == [["act", "other"], [], []]


@pytest.mark.parametrize("offered", [True, "admin", lambda info, user: True], ids=["bool", "text", "two"])
def test_what_is_no_function_of_a_run_info_is_refused_as_offered(offered: Any) -> None:
    with pytest.raises(ToolDefinitionError, match="tool 'act': offered= takes a function of"):
        tool(name="act", offered=offered)(look.function)


# ----------------------------------------------------------------------------------- toolsets


class Files:
    """A toolset for one user."""

    name = "files"

    def __init__(self, user: str, log: list[str]) -> None:
        self.user = user
        self.log = log

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Files]:
        self.log.append(f"open for {self.user}")
        try:
            yield self
        finally:
            self.log.append(f"close for {self.user}")

    async def list_tools(self) -> list[Tool]:
        @tool
        async def list_files() -> str:
            return f"files of {self.user}"

        return [list_files]


@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_a_toolset_is_given_by_a_function_that_knows_the_deps_of_the_run(kind: str) -> None:
    log: list[str] = []

    def files(info: RunInfo[str]) -> Files:
        return Files(info.deps, log)

    async def awaited(info: RunInfo[str]) -> Files:
        return files(info)

    model = ScriptedModel(calls("list_files"), "Done.", calls("list_files"), "Done.")
    agent = Agent(model, toolsets=[files if kind == "plain" else awaited])

    for user in ("Ada", "Bob"):
        watched = await watch(agent, deps=user)
        assert [result.text for result in results(watched)] == [f"files of {user}"]

    assert log == ["open for Ada", "close for Ada", "open for Bob", "close for Bob"]


async def test_a_function_may_give_no_toolset_for_a_run() -> None:
    agent = Agent(ScriptedModel("Hi."), tools=[look], toolsets=[lambda info: None])

    await agent.run("go")

    assert offered_in(agent) == [["look"]]


def raises(info: RunInfo[None]) -> Any:
    raise KeyError("token")


def gives_a_number(info: RunInfo[None]) -> Any:
    return 7


async def hangs(info: RunInfo[None]) -> Any:
    await trio.sleep_forever()


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (raises, "toolset 'raises' failed to start: KeyError: 'token'"),
        (gives_a_number, "toolset 'gives_a_number' failed to start: gives_a_number() returned 7, which is no toolset"),
        (hangs, "toolset 'hangs' did not start within 3 s"),
    ],
)
async def test_a_function_that_gives_no_toolset_fails_as_a_toolset_that_does_not_start(
    function: Any, problem: str
) -> None:
    agent = Agent(ScriptedModel("Hi."), toolsets=[function], deadlines=Deadlines(toolset=3))

    watched = await watch(agent)

    assert isinstance(watched.error, ToolsetError)
    assert str(watched.error).startswith(problem)


@pytest.mark.parametrize(
    ("toolset", "problem"),
    [
        (look, "'look' is a tool: give it to tools="),
        (Files, r"Files is a class: give an instance of it, Files\(\.\.\.\)"),
        (7, r"toolsets= takes toolsets, which have open\(\), or functions of a RunInfo, not 7"),
    ],
)
def test_what_is_no_toolset_is_refused(toolset: Any, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        Agent(ScriptedModel(), toolsets=[toolset])
