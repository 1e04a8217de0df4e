"""The part of the corpus in which background runs belong to a block, and outlive the streams that start them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Any

import trio

from agentloop.agent import Agent
from agentloop.context import ToolContext
from agentloop.errors import ModelConnectionError
from agentloop.events import ElicitationRequested, StreamEvent, ToolCallFinished
from agentloop.limits import Limits
from agentloop.permissions import Permissions, Rule
from agentloop.run_info import RunInfo
from agentloop.session import Session
from agentloop.testing._lab import AgentScenario, Lab, Recorded, echo
from agentloop.testing.harness.agent_scenarios import FakeToolset
from agentloop.testing.harness.registry import GROUPS, SCENARIOS, nested
from agentloop.testing.harness.session_scenarios import Story, story
from agentloop.testing.scripted import Response, calls, fails, hangs, says
from agentloop.toolkit._background import background
from agentloop.toolsets import Toolsets

__all__: list[str] = []


def _run(agent: str = "helper", task: str = "x") -> Response:
    return calls("run_background_agent", agent=agent, task=task)


def _sleeps(seconds: float) -> Any:
    async def sleep(_context: ToolContext[Any]) -> str:
        await trio.sleep(seconds)
        return f"slept {seconds:g}"

    return sleep


def _helper(lab: Lab, *script: Any, name: str = "helper", **options: Any) -> Agent[Any, Any]:
    return Agent(lab.model(*script, name=name), name=name, **options)


# ------------------------------------------------------------------------ without a journal


def _chats(**expected: str) -> Callable[[Any], Any]:
    """Add a chat of several streams with one block, at depth 0 to 2.

    Args:
      expected: the reason of the end of each stream, by its name.
    """

    def add(play: Any) -> Any:
        for depth in range(3):
            name = f"{play.__name__.replace('_', '-')}-{depth}"

            async def at_depth(lab: Lab, depth: int = depth) -> None:
                def nest(agent: Agent[Any, Any]) -> Agent[Any, Any]:
                    return nested(lab, agent, depth)

                await play(lab, nest)

            def expect(lab: Lab) -> None:
                reasons = {one.name: one.stream.outcome.reason for one in lab.recorded}
                assert reasons == expected, reasons

            SCENARIOS[name] = partial(AgentScenario, name, at_depth, expect)
            GROUPS[name] = play.__module__
        return play

    return add


Nest = Callable[[Agent[Any, Any]], Agent[Any, Any]]


def _lead(lab: Lab, staff: Toolsets, *script: Any, name: str = "lead", **options: Any) -> Agent[Any, Any]:
    return Agent(lab.model(*script, name=name), name=name, toolsets=[staff], **options)


@_chats(A="completed", B="completed", C="completed")
async def a_run_of_a_block_outlives_its_stream(lab: Lab, nest: Nest) -> None:
    """It works while no stream is open, and is looked after, asks, and is reported in later ones."""
    tools = [lab.tool("slow", _sleeps(10)), lab.asker("ask"), lab.tool("guarded", requires_approval=True)]
    helper = _helper(lab, calls("slow"), calls("ask"), calls("guarded"), "Found.", tools=tools)
    session = Session("chat")
    async with Toolsets(background(helper)) as staff:
        async with lab.stream(nest(_lead(lab, staff, _run(), "It runs.")), name="A", session=session) as stream:
            await stream.drain(answer=echo)
        await trio.sleep(20)
        care = calls("list_background_agents") + calls("view_background_agent", run_id="helper-1") + calls("long")
        agent = _lead(lab, staff, care, "Two.", name="second", tools=[lab.tool("long", _sleeps(5))])
        async with lab.stream(nest(agent), name="B", session=session) as stream:
            await stream.drain(answer=echo)
        await trio.sleep(20)
        async with lab.stream(nest(_lead(lab, staff, "Three.", name="third")), name="C", session=session) as stream:
            await stream.drain(answer=echo)


@_chats(A="completed", B="cancelled", C="completed")
async def a_question_of_a_run_of_a_block_outlives_the_stream_that_asks_it(lab: Lab, nest: Nest) -> None:
    helper = _helper(lab, calls("ask"), "Found.", tools=[lab.asker("ask")])
    session = Session("chat")
    async with Toolsets(background(helper)) as staff:
        short = lab.tool("short", _sleeps(5))
        agent = _lead(lab, staff, _run(), calls("short"), "It runs.", tools=[short])
        async with lab.stream(nest(agent), name="A", session=session) as stream:
            await stream.drain(answer=lambda _question: None)
        agent = _lead(lab, staff, calls("short"), "Two.", name="second", tools=[short])
        async with lab.stream(nest(agent), name="B", session=session) as stream:
            async for event in stream:
                if isinstance(event, ElicitationRequested):
                    break
        agent = _lead(lab, staff, calls("short"), "Three.", name="third", tools=[short])
        async with lab.stream(nest(agent), name="C", session=session) as stream:
            await stream.drain(answer=echo)


@_chats(A="completed")
async def a_block_ends_while_its_runs_work(lab: Lab, nest: Nest) -> None:
    """One has a toolset that stops, one asks, one has failed, and one has a run of its own."""
    works = _helper(lab, says("Well, ") + hangs(), name="works", toolsets=[FakeToolset(lab)])
    asks = _helper(lab, calls("ask"), "Never.", name="asks", tools=[lab.asker("ask")])
    broken = _helper(lab, fails(ModelConnectionError("gone")), name="broken")
    inner = _helper(lab, hangs(), name="inner")
    outer = Agent(lab.model(_run("inner"), "Waiting.", name="outer"), name="outer", toolsets=[background(inner)])
    async with Toolsets(background(works, asks, broken, outer)) as staff:
        batch = _run("works") + _run("asks") + _run("broken") + _run("outer")
        async with lab.stream(nest(_lead(lab, staff, batch, "They run.", "Told."))) as stream:
            await stream.drain(answer=lambda _question: None)
        await trio.sleep(5)


@_chats(A="completed", B="completed")
async def a_run_of_a_block_is_steered_and_stopped_by_a_later_stream(lab: Lab, nest: Nest) -> None:
    helper = _helper(lab, calls("slow"), says("Well, ") + hangs(), tools=[lab.tool("slow", _sleeps(5))])
    session = Session("chat")
    async with Toolsets(background(helper)) as staff:
        async with lab.stream(nest(_lead(lab, staff, _run(), "It runs.")), name="A", session=session) as stream:
            await stream.drain(answer=echo)
        agent = _lead(
            lab,
            staff,
            calls("steer_background_agent", run_id="helper-1", message="Be quick."),
            calls("wait_for_background_agents", seconds=8),
            calls("stop_background_agent", run_id="helper-1"),
            "Done.",
            name="second",
        )
        async with lab.stream(nest(agent), name="B", session=session) as stream:
            await stream.drain(answer=echo)


@_chats(A="completed", B="completed")
async def the_limits_and_rules_of_the_stream_that_starts_a_run_of_a_block(lab: Lab, nest: Nest) -> None:
    """Its limit is asked about while it is open; its rules hold when it has ended."""
    tools = [lab.tool("slow", _sleeps(5)), lab.tool("guarded")]
    helper = _helper(lab, calls("slow"), calls("slow"), calls("guarded"), "Found.", tools=tools)
    session = Session("chat")
    rules = Permissions(deny=[Rule("guarded")])
    async with Toolsets(background(helper)) as staff:
        agent = _lead(
            lab,
            staff,
            _run(),
            calls("long"),
            "It runs.",
            tools=[lab.tool("long", _sleeps(7))],
            permissions=rules,
            limits=Limits(requests=3),
        )
        async with lab.stream(nest(agent), name="A", session=session) as stream:
            await stream.drain(answer=echo)
        await trio.sleep(20)
        async with lab.stream(nest(_lead(lab, staff, "Done.", name="second")), name="B", session=session) as stream:
            await stream.drain(answer=echo)


@_chats(A="completed", B="completed")
async def two_streams_share_a_block(lab: Lab, nest: Nest) -> None:
    one = _helper(lab, calls("ask"), "One.", name="one", tools=[lab.asker("ask")])
    two = _helper(lab, calls("ask"), "Two.", name="two", tools=[lab.asker("ask")])

    async def chat(staff: Toolsets, agent: str, name: str) -> None:
        long = lab.tool("long", _sleeps(5))
        lead = _lead(lab, staff, _run(agent), calls("long"), "Done.", "More.", name=f"lead-{agent}", tools=[long])
        async with lab.stream(nest(lead), name=name) as stream:
            await stream.drain(answer=echo)

    async with Toolsets(background(one, two)) as staff, trio.open_nursery() as nursery:
        nursery.start_soon(chat, staff, "one", "A")
        nursery.start_soon(chat, staff, "two", "B")


# --------------------------------------------------------------------------- with a journal


class _Staff:
    """The block of the process that runs now, for agents that are made before it is opened."""

    def __init__(self) -> None:
        self.block: Toolsets | None = None

    def __call__(self) -> Toolsets | None:
        return self.block


_STAFF: dict[int, _Staff] = {}


def _agent_of_block(lab: Lab) -> Agent[Any, Any]:
    """An agent whose toolset is the block, if one is open in the process, and none otherwise."""
    staff = _Staff()
    tools = [lab.asker("ask"), lab.tool("long", _sleeps(20), if_interrupted="retry")]
    lead_model = lab.planned(_run() + calls("ask"), "It runs.", "Done.", name="lead")

    def of_process(_info: RunInfo[Any]) -> Toolsets | None:
        return staff.block

    agent: Agent[Any, Any] = Agent(lead_model, name="lead", tools=tools, toolsets=[of_process])
    _STAFF[id(agent)] = staff
    return agent


class _block:  # noqa: N801 - as the context managers of the standard library
    """While it is open, the agent of the story has a block."""

    def __init__(self, story: Story, *script: Any) -> None:
        lab = story.lab
        self._staff = _STAFF[id(story.agent)]
        tools = [lab.tool("one", _sleeps(5)), lab.asker("ask")]
        helper = Agent(lab.planned(*script, name="helper"), name="helper", tools=tools)
        self._toolsets = Toolsets(background(helper))

    async def __aenter__(self) -> None:
        self._staff.block = await self._toolsets.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._staff.block = None
        await self._toolsets.__aexit__(kind, error, traceback)  # noqa: ASYNC102 - it shields what has to be


@story(_agent_of_block, reasons=("needs_input", "completed", "completed"), effects={"one": 1})
async def parked_while_a_run_of_its_block_works(story: Story) -> None:
    """The run works on, asks nothing in the stream that parks, and is reported when its end is there."""
    block = _block(story, calls("one"), calls("ask"), "Found.")
    async with story.process("P") as client, block, story.session(client) as session:
        await story.go_on(client, session, name="A", park=True)
        await trio.sleep(10)
        await story.go_on(client, session, name="B")
        await trio.sleep(10)
        await story.go_on(client, session, name="C")


@story(_agent_of_block, reasons=("needs_input", "completed"), effects={})
async def resumed_where_the_run_of_its_block_is_lost(story: Story) -> None:
    block = _block(story, says("Well, ") + hangs())
    async with story.process("P") as client, block, story.session(client) as session:
        await story.go_on(client, session, name="A", park=True)
    async with story.process("Q") as client, story.session(client) as session:
        await story.go_on(client, session, name="B")


@story(_agent_of_block, reasons=("cancelled", "completed"), effects={})
async def killed_while_a_run_of_its_block_works(story: Story) -> None:
    def on_event(_stream: Recorded, event: StreamEvent) -> None:
        if isinstance(event, ToolCallFinished):
            began.set()

    began = trio.Event()
    async with story.process("P") as client, trio.open_nursery() as nursery:

        async def kill() -> None:
            await began.wait()
            client.kill()

        nursery.start_soon(kill)
        async with _block(story, hangs()), story.session(client) as session:
            await story.go_on(client, session, name="A", answer=lambda _question: None, on_event=on_event)
        nursery.cancel_scope.cancel()
    async with story.process("Q") as client, story.session(client) as session:
        await story.go_on(client, session, name="B")
