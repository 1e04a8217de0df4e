"""The part of the corpus in which a run is paused: and goes on, is left, stopped, parked, or killed while it holds."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import trio

from agentloop.agent import Agent
from agentloop.context import ToolContext
from agentloop.errors import StreamStateError
from agentloop.events import (
    ApprovalRequested,
    ChildStreamStarted,
    ElicitationRequested,
    Paused,
    Resumed,
    StreamEvent,
    StreamStarted,
    TextDelta,
    ToolCallFinished,
    ToolCallStarted,
    TurnFinished,
    TurnStarted,
)
from agentloop.limits import Deadlines, Limits
from agentloop.testing._lab import Lab, Recorded, echo
from agentloop.testing.harness.registry import ends, nested, scenario
from agentloop.testing.harness.session_scenarios import Story, _busy, _plain, story
from agentloop.testing.scripted import calls, fails, says

__all__: list[str] = []

WHILE = 5
"""Seconds that a pause lasts."""


async def _slow(_context: ToolContext[Any]) -> str:
    await trio.sleep(1)
    return "slow"


def _worker(lab: Lab, *, depth: int = 0, **options: Any) -> Agent[Any, Any]:
    """Calls two tools side by side, then another, then answers."""
    tools = [lab.tool("one"), lab.tool("slow", _slow)]
    script = says("Let me see. ") + calls("one") + calls("slow")
    return nested(lab, Agent(lab.model(script, calls("one"), "Done."), tools=tools, **options), depth)


async def _pause_at(stream: Recorded, *kinds: type[StreamEvent], depth: int = 0) -> None:
    """Read to the end, and pause for a while at each event of ``kinds`` at that depth."""
    async for event in stream:
        if isinstance(event, kinds) and event.depth == depth:
            stream.stream.pause()
            await trio.sleep(WHILE)
            stream.stream.resume()


# ------------------------------------------------------------------------- and goes on


@scenario(ends("completed"))
async def paused_before_its_first_request(lab: Lab) -> None:
    async with lab.stream(_worker(lab)) as stream:
        await _pause_at(stream, StreamStarted)


@scenario(ends("completed"))
async def paused_again_and_again(lab: Lab) -> None:
    async with lab.stream(_worker(lab)) as stream:
        await _pause_at(stream, TurnStarted, TextDelta, ToolCallStarted, ToolCallFinished, TurnFinished)


@scenario(ends("completed"))
async def paused_while_a_child_works(lab: Lab) -> None:
    async with lab.stream(_worker(lab, depth=2)) as stream:
        await _pause_at(stream, ChildStreamStarted, ToolCallStarted, ToolCallFinished, depth=2)


@scenario(ends("completed"))
async def paused_beyond_all_deadlines(lab: Lab) -> None:
    agent = _worker(lab, limits=Limits(seconds=8), deadlines=Deadlines(tool=4, first_token=4, idle=4))
    async with lab.stream(agent) as stream:
        await _pause_at(stream, StreamStarted, ToolCallStarted, ToolCallFinished)


@scenario(ends("completed"))
async def paused_between_two_requests_of_a_response(lab: Lab) -> None:
    agent = Agent(lab.model(says("Well") + fails(OSError("gone")), "Done."))
    async with lab.stream(agent) as stream:
        await _pause_at(stream, TextDelta)


@scenario(ends("completed"))
async def answered_while_paused(lab: Lab) -> None:
    tools = [lab.tool("guarded", requires_approval=True), lab.asker("ask")]
    agent = Agent(lab.model(calls("guarded") + calls("ask"), "Done."), tools=tools)
    async with lab.stream(agent) as stream:
        async for event in stream:
            if isinstance(event, (ApprovalRequested, ElicitationRequested)):
                stream.stream.pause()
                stream.reply(event, echo)
                await trio.sleep(WHILE)
                stream.stream.resume()


@scenario(ends("completed"))
async def steered_while_paused(lab: Lab) -> None:
    async with lab.stream(_worker(lab)) as stream:
        async for event in stream:
            if isinstance(event, TurnStarted):
                stream.stream.pause()
                await trio.sleep(WHILE)
                if event.turn == 1:
                    # If a fault struck, the run may have come to its end before its reader.
                    with suppress(StreamStateError):
                        stream.stream.steer("And be quick.")
                stream.stream.resume()


def _delegates(lab: Lab, *, leaves: bool) -> Agent[Any, Any]:
    inner = Agent(lab.model(calls("one"), "Inner.", name="inner"), name="inner", tools=[lab.tool("one")])

    async def delegate(context: ToolContext[Any]) -> str:
        async with context.stream(inner, "go") as child:
            child.pause()
            await trio.sleep(WHILE)
            if leaves:
                return "left it"
            child.resume()
            return str((await child.wait()).reason)

    tools = [lab.tool("delegate", delegate, timeout=8), lab.tool("one")]
    return Agent(lab.model(calls("delegate") + calls("one"), "Done."), tools=tools)


@scenario(ends("completed"))
async def a_tool_pauses_its_child(lab: Lab) -> None:
    async with lab.stream(_delegates(lab, leaves=False)) as stream:
        await stream.drain()


@scenario(ends("completed"))
async def a_tool_leaves_a_child_that_it_has_paused(lab: Lab) -> None:
    async with lab.stream(_delegates(lab, leaves=True)) as stream:
        await stream.drain()


@scenario(ends("completed"))
async def paused_around_a_child_that_is_paused(lab: Lab) -> None:
    async with lab.stream(_delegates(lab, leaves=False)) as stream:
        async for event in stream:
            if isinstance(event, Paused) and event.depth:
                stream.stream.pause()
                await trio.sleep(2 * WHILE)
                stream.stream.resume()


# --------------------------------------------------------------------- and does not go on


@scenario(ends("cancelled"))
async def paused_and_left(lab: Lab) -> None:
    async with lab.stream(_worker(lab, depth=1)) as stream:
        async for event in stream:
            if isinstance(event, ToolCallFinished):
                stream.stream.pause()
                await trio.sleep(WHILE)
                break


@scenario(ends("cancelled"))
async def paused_and_stopped(lab: Lab) -> None:
    async with lab.stream(_worker(lab, depth=1)) as stream:
        async for event in stream:
            if isinstance(event, ToolCallFinished):
                stream.stream.pause()
                await trio.sleep(WHILE)
                stream.stop("enough")


@scenario(ends("cancelled"))
async def paused_before_its_calls_and_stopped(lab: Lab) -> None:
    async with lab.stream(_worker(lab)) as stream:
        async for event in stream:
            if isinstance(event, TextDelta):
                stream.stream.pause()
                await trio.sleep(WHILE)
                stream.stop()


@scenario(ends("cancelled"))
async def stopped_and_then_paused(lab: Lab) -> None:
    async with lab.stream(_worker(lab)) as stream:
        async for event in stream:
            if isinstance(event, ToolCallStarted):
                stream.stop()
                stream.stream.pause()


# ------------------------------------------------------------------------- with a journal


@story(_busy, reasons=("completed",), effects={"one": 3, "slow": 1, "guarded": 1})
async def kept_and_paused(story: Story) -> None:
    async with story.process("P") as client, story.session(client) as session:
        paused: list[Recorded] = []

        def pause(stream: Recorded, event: StreamEvent) -> None:
            if isinstance(event, (ToolCallStarted, ToolCallFinished)) and not paused:
                stream.stream.pause()
                paused.append(stream)
            elif isinstance(event, Paused):
                nursery.start_soon(resume, stream)

        async def resume(stream: Recorded) -> None:
            await trio.sleep(WHILE)
            stream.stream.resume()

        async with trio.open_nursery() as nursery:
            await story.go_on(client, session, name="A", on_event=pause)


@story(_plain, reasons=("needs_input", "completed"), effects={"one": 2})
async def paused_and_parked(story: Story) -> None:
    """Without a question: the run ends where it holds, and is not paused when it is resumed."""
    async with story.process("P") as client, story.session(client) as session:

        def park(stream: Recorded, event: StreamEvent) -> None:
            if isinstance(event, StreamStarted) and not event.resumes:
                stream.stream.pause()
            if isinstance(event, Paused):
                stream.stream.park()

        await story.go_on(client, session, name="A", on_event=park)
    async with story.process("Q") as client, story.session(client) as session:
        await story.go_on(client, session, name="B")


@story(_busy, reasons=("needs_input", "completed"), effects={"one": 3, "slow": 1, "guarded": 1})
async def paused_among_questions_and_parked(story: Story) -> None:
    """One question is answered, and its call holds; the others are open when the run is parked."""
    async with story.process("P") as client, story.session(client) as session:

        def park(stream: Recorded, event: StreamEvent) -> None:
            if isinstance(event, ApprovalRequested):
                stream.stream.pause()
                stream.reply(event, echo)
            if isinstance(event, ToolCallFinished) and event.name == "slow":
                stream.stream.park()

        await story.go_on(client, session, name="A", answer=lambda question: None, on_event=park)
    async with story.process("Q") as client, story.session(client) as session:
        await story.go_on(client, session, name="B")


@story(_busy, reasons=("cancelled", "completed"), effects={"one": 3, "slow": 1, "guarded": 1})
async def paused_and_killed(story: Story) -> None:
    async with story.process("P") as client, story.session(client) as session:

        def kill(stream: Recorded, event: StreamEvent) -> None:
            if isinstance(event, ToolCallStarted) and event.depth:
                stream.stream.pause()
            if isinstance(event, Paused):
                client.kill()

        await story.go_on(client, session, name="A", on_event=kill)
    async with story.process("Q") as client, story.session(client) as session:
        await story.go_on(client, session, name="B")


@story(_busy, reasons=("needs_input", "completed"), effects={"one": 3, "slow": 1, "guarded": 1})
async def paused_while_it_parks_by_itself(story: Story) -> None:
    """A run whose questions are parked in any case is idle where it holds, too."""
    async with story.process("P") as client, story.session(client) as session:

        def pause(stream: Recorded, event: StreamEvent) -> None:
            if isinstance(event, ToolCallStarted) and event.depth:
                stream.stream.pause()
            if isinstance(event, Resumed):
                story.lab.watch.note("nobody has resumed it")

        await story.go_on(client, session, name="A", park=True, on_event=pause)
    async with story.process("Q") as client, story.session(client) as session:
        await story.go_on(client, session, name="B")
