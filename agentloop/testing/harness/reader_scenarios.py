"""Scenarios of readers: of the whole and of children, fast and slow; and of messages that people send meanwhile."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import trio

from agentloop.agent import Agent
from agentloop.context import ToolContext
from agentloop.errors import StreamStateError
from agentloop.events import (
    ElicitationRequested,
    ResponseDiscarded,
    StreamEvent,
    TextDelta,
    ToolCallStarted,
    TurnStarted,
)
from agentloop.limits import Deadlines, Limits
from agentloop.models import ModelRequest, Reply, Stop
from agentloop.testing._lab import Lab, SeamModel, echo
from agentloop.testing.harness.registry import ends, scenario
from agentloop.testing.scripted import Response, calls, fails, says
from agentloop.tools import Tool

__all__: list[str] = []


def _talker(lab: Lab, name: str = "talker", words: int = 150) -> Agent:
    """An agent that says much, a piece at a time."""
    return Agent(lab.model(says("x" * words, piece=1) + calls("one"), "Done.", name=name), name=name, tools=[_one(lab)])


def _one(lab: Lab) -> Tool:
    return lab.tool("one")


def _reads(lab: Lab, inner: Agent, *, pause: float = 0, leave_after: int | None = None) -> Tool:
    """A tool that reads the events of ``inner``."""

    async def delegate(context: ToolContext[Any]) -> str:
        count = 0
        async with context.stream(inner, "go") as child:
            async for _event in child:
                count += 1
                if count == leave_after:
                    return "left it"
                if pause and count % 16 == 0:
                    await trio.sleep(pause)
            return str(child.result.output)

    return lab.tool("delegate", delegate, timeout=float("inf"))


@scenario(ends("completed"))
async def the_whole_is_read_slowly_and_a_child_at_once(lab: Lab) -> None:
    agent = Agent(lab.model(calls("delegate"), "Done."), tools=[_reads(lab, _talker(lab))])
    async with lab.stream(agent) as stream:
        async for event in stream:
            if isinstance(event, TextDelta) and event.seq % 16 == 0:
                await trio.sleep(5)


@scenario(ends("completed"))
async def the_whole_is_read_at_once_and_a_child_slowly(lab: Lab) -> None:
    agent = Agent(lab.model(calls("delegate"), "Done."), tools=[_reads(lab, _talker(lab), pause=5)])
    async with lab.stream(agent) as stream:
        await stream.drain()


@scenario(ends("completed"))
async def a_child_of_a_child_is_read_at_each_level(lab: Lab) -> None:
    lowest = _talker(lab, "lowest", 60)
    middle = Agent(
        lab.model(calls("delegate"), "Middle.", name="middle"), name="middle", tools=[_reads(lab, lowest, pause=3)]
    )
    agent = Agent(lab.model(calls("delegate"), "Done."), tools=[_reads(lab, middle, pause=1)])
    async with lab.stream(agent) as stream:
        await stream.drain()


@scenario(ends("completed"))
async def a_child_is_left_in_the_middle_of_its_text(lab: Lab) -> None:
    agent = Agent(lab.model(calls("delegate"), "Done."), tools=[_reads(lab, _talker(lab), leave_after=20)])
    async with lab.stream(agent) as stream:
        await stream.drain()


@scenario(ends("completed"))
async def two_children_are_read_at_different_speeds(lab: Lab) -> None:
    async def both(context: ToolContext[Any]) -> str:
        async def read(agent: Agent, pause: float) -> None:
            async with context.stream(agent, "go") as child:
                async for _event in child:
                    await trio.sleep(pause)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, _talker(lab, "quick", 60), 0)
            nursery.start_soon(read, _talker(lab, "slow", 60), 1)
        return "both"

    agent = Agent(lab.model(calls("both"), "Done."), tools=[lab.tool("both", both, timeout=float("inf"))])
    async with lab.stream(agent) as stream:
        await stream.drain()


@scenario(ends("failed"))
async def a_failure_reaches_each_reader(lab: Lab) -> None:
    broken = Agent(lab.model(says("Well, ") + fails(ValueError("no")), name="broken"), name="broken")

    async def delegate(context: ToolContext[Any]) -> str:
        try:
            async with context.stream(broken, "go") as child:
                async for _event in child:
                    pass
        except Exception as error:  # noqa: BLE001 - whatever it is, it is not an end
            return type(error).__name__
        if not lab.sim.injection:
            lab.watch.note("a child failed, and its reader's loop ended as if all were well")
        return "it ended"

    agent = Agent(lab.model(calls("delegate"), fails(OSError("down"))), tools=[lab.tool("delegate", delegate)])
    async with lab.stream(agent) as stream:
        await stream.drain()


class _Eyes:
    """An observer that is slow to leave, or broken."""

    def __init__(self, lab: Lab, *, fails: bool = False) -> None:
        self._lab = lab
        self._fails = fails
        self.seen: list[StreamEvent] = []

    def observe(self, event: StreamEvent, /) -> None:
        self.seen.append(event)
        if self._fails:
            raise ValueError("the observer is broken")


@scenario(ends("completed"))
async def observers_see_each_event_once(lab: Lab) -> None:
    whole, part, broken = _Eyes(lab), _Eyes(lab), _Eyes(lab, fails=True)
    inner = Agent(lab.model("Inner.", name="inner"), name="inner", observers=[part, whole])
    agent = Agent(lab.model(calls("inner", prompt="x"), "Done."), tools=[inner.as_tool()], observers=[whole, broken])
    async with lab.stream(agent) as stream:
        await stream.drain()
    if lab.sim.injection is None:
        if whole.seen != stream.events:
            lab.watch.note(f"an observer saw {whole.seen}")
        if broken.seen != stream.events[:1]:
            lab.watch.note(f"an observer that fails saw {broken.seen}")
        inside = [event.seq for event in stream.events if len(event.path) > 1]
        if [event.seq for event in part.seen] != inside:
            lab.watch.note(f"the observer of a child saw {[event.seq for event in part.seen]}, not {inside}")


# ------------------------------------------------------------------------------- messages


@scenario(ends("completed"))
async def steered_at_every_moment(lab: Lab) -> None:
    """Before the first request, while a tool runs, in the last turn, and too late."""
    script: list[Response | str] = [calls("one"), "First.", "Second.", "Third.", "Fourth.", "Fifth.", "Sixth."]
    agent = Agent(lab.model(*script), tools=[lab.tool("one")])
    async with lab.stream(agent) as stream:
        stream.stream.steer("At once.")
        stream.stream.follow_up("And then?")
        stream.stream.follow_up("And after that?")
        async for event in stream:
            with suppress(StreamStateError):
                if isinstance(event, ToolCallStarted):
                    stream.stream.steer("While it runs.")
                    stream.stream.steer("Twice.")
                if isinstance(event, TurnStarted) and event.turn == 3:
                    stream.stream.steer("Late.")
    with suppress(StreamStateError):
        stream.stream.steer("Too late.")
        lab.watch.note("a run that has ended takes a message")


@scenario(ends("cancelled"))
async def steered_and_stopped(lab: Lab) -> None:
    agent = Agent(lab.model(calls("ask"), "never"), tools=[lab.asker("ask")])
    async with lab.stream(agent) as stream:
        async for event in stream:
            if isinstance(event, ElicitationRequested):
                with suppress(StreamStateError):
                    stream.stream.steer("Never read.")
                    stream.stream.follow_up("Nor this.")
                stream.stop()


@scenario(ends("completed"))
async def a_child_is_steered(lab: Lab) -> None:
    inner = Agent(lab.model(calls("ask"), "Inner.", "Steered.", name="inner"), name="inner", tools=[lab.asker("ask")])

    async def delegate(context: ToolContext[Any]) -> str:
        async with context.stream(inner, "go") as child:
            with suppress(StreamStateError):
                child.steer("Be quick.")
                child.follow_up("And then?")
            return str((await child.wait()).output)

    agent = Agent(lab.model(calls("delegate"), "Done."), tools=[lab.tool("delegate", delegate)])
    async with lab.stream(agent) as stream:
        await stream.drain(answer=echo)


@scenario(ends("completed"))
async def steered_while_the_model_gives_its_answer(lab: Lab) -> None:
    """The answer is not the last one: the run goes on with the message."""
    agent = Agent(lab.model("A long answer, word by word.", "Another answer."))
    async with lab.stream(agent) as stream:
        steered = False
        async for event in stream:
            if isinstance(event, TextDelta) and not steered:
                steered = True
                with suppress(StreamStateError):
                    stream.stream.steer("By the way.")


@scenario(ends("completed"))
async def a_child_is_steered_while_it_gives_its_answer(lab: Lab) -> None:
    inner = Agent(lab.model("Inner answer, word by word.", "Another.", name="inner"), name="inner")

    async def delegate(context: ToolContext[Any]) -> str:
        async with context.stream(inner, "go") as child:
            steered = False
            async for event in child:
                if isinstance(event, TextDelta) and not steered:
                    steered = True
                    with suppress(StreamStateError):
                        child.steer("By the way.")
            return str(child.result.output)

    agent = Agent(lab.model(calls("delegate"), "Done."), tools=[lab.tool("delegate", delegate)])
    async with lab.stream(agent) as stream:
        await stream.drain()


# -------------------------------------------------------------- trouble while a run is stopped


class _Stubborn(SeamModel):
    """A model that raises an error of its own when it is cancelled."""

    async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
        """Wait, and fail when that is cut off."""
        await reply.text("Well, ")
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            raise OSError("the connection was closed") from None  # noqa: ASYNC104 - as bad libraries do
        raise AssertionError


def _stubborn(lab: Lab) -> Agent:
    async def tool(_context: ToolContext[Any]) -> str:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            raise ValueError("cut off") from None  # noqa: ASYNC104 - as bad tools do
        raise AssertionError

    inner = Agent(_Stubborn(lab, "stubborn"), name="stubborn")
    script = calls("stubborn", prompt="x") + calls("tool")
    return Agent(lab.model(script, "never"), tools=[inner.as_tool(), lab.tool("tool", tool)])


def _stubborn_alone(lab: Lab) -> Agent:
    return Agent(_Stubborn(lab, "stubborn"), name="stubborn")


def _all_cancelled(lab: Lab) -> None:
    reasons = [run.outcome.reason for run in lab.watch.runs if run.outcome is not None]
    assert set(reasons) == {"cancelled"}, reasons


@scenario(_all_cancelled)
async def left_while_everything_raises_when_it_is_cancelled(lab: Lab) -> None:
    async with lab.stream(_stubborn(lab)) as stream:
        async for event in stream:
            if isinstance(event, TextDelta):
                break


@scenario(_all_cancelled)
async def cancelled_from_around_while_the_model_raises(lab: Lab) -> None:
    with trio.move_on_after(5):
        async with lab.stream(_stubborn_alone(lab)) as stream:
            await stream.drain()


@scenario(_all_cancelled)
async def stopped_while_the_model_raises(lab: Lab) -> None:
    async with lab.stream(_stubborn_alone(lab)) as stream:
        async for event in stream:
            if isinstance(event, TextDelta):
                stream.stop()


@scenario(_all_cancelled)
async def stopped_when_its_time_is_over_already(lab: Lab) -> None:
    """The stop comes while the run is cleaned up, and is the reason all the same."""

    async def slow_to_leave(_context: ToolContext[Any]) -> str:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(3)
        raise AssertionError

    agent = Agent(lab.model(calls("slow"), "never"), tools=[lab.tool("slow", slow_to_leave)], limits=Limits(seconds=5))
    async with trio.open_nursery() as nursery, lab.stream(agent) as stream:

        async def stop() -> None:
            await trio.sleep(6)
            stream.stop("enough")

        nursery.start_soon(stop)
        await stream.drain()


def _answered_at_once(lab: Lab) -> None:
    ends("completed")(lab)
    assert not any(isinstance(event, ResponseDiscarded) for event in lab.recorded[0].events)


@scenario(_answered_at_once)
async def a_reader_that_rests_is_not_the_fault_of_the_model(lab: Lab) -> None:
    agent = Agent(lab.model(says("x" * 100, piece=1)), deadlines=Deadlines(idle=10, first_token=10))
    async with lab.stream(agent) as stream:
        async for event in stream:
            if isinstance(event, TextDelta) and event.seq == 10:
                await trio.sleep(1000)
