"""Scenarios whose outcome has one right value: results of calls that were held back, instructions, costs, limits."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import msgspec
import trio

from agentloop import hooks
from agentloop.agent import Agent
from agentloop.events import (
    ApprovalRequested,
    ContinueRequested,
    MessageCommitted,
    QuestionAnswered,
    ToolCallFinished,
    ToolCallStarted,
)
from agentloop.hooks import Context, Continue
from agentloop.limits import Limits, Price
from agentloop.messages import Text, ToolResult, Usage, UserMessage
from agentloop.permissions import Permissions
from agentloop.questions import Approve, Deny
from agentloop.run_info import RunInfo, each_turn
from agentloop.testing._lab import Lab, Recorded, echo
from agentloop.testing.harness.registry import ends, scenario
from agentloop.testing.scripted import calls, says
from agentloop.tools import tool

__all__: list[str] = []


def _result(stream: Recorded, tool_name: str) -> ToolResult:
    """The result of the only call of a tool."""
    (result,) = [
        event.result for event in stream.events if isinstance(event, ToolCallFinished) and event.name == tool_name
    ]
    return result


@scenario(ends("completed"))
async def a_hook_refuses_what_a_person_has_revised(lab: Lab) -> None:
    @hooks.pre_tool_use
    async def refuse(call: hooks.PreToolUse) -> Deny | None:
        await lab.sim.seam("hook:refuse")
        return Deny("not that") if call.arguments.get("tag") == "revised" else None

    agent = Agent(
        lab.model(calls("pay", tag="first"), "Done."), tools=[lab.tool("pay", requires_approval=True)], hooks=[refuse]
    )
    async with lab.stream(agent) as stream:
        await stream.drain(answer=lambda question: Approve(arguments={"tag": "revised"}))
        if lab.sim.injection is None and _result(stream, "pay").status != "denied":
            lab.watch.note(f"a hook refuses the revised call, and it ends as {_result(stream, 'pay')}")


@scenario(ends("blocked"))
async def a_guard_of_results_fails(lab: Lab) -> None:
    @hooks.post_tool_use
    async def broken(_used: hooks.PostToolUse) -> None:
        await lab.sim.seam("hook:broken")
        raise ValueError("the guard is broken")

    agent = Agent(lab.model(calls("one"), "Done."), tools=[lab.tool("one")], hooks=[broken])
    async with lab.stream(agent) as stream:
        await stream.drain()


@scenario(ends("cancelled"))
async def a_call_that_waits_for_approval_is_stopped(lab: Lab) -> None:
    tools = [lab.tool("one"), lab.tool("held", requires_approval=True)]
    agent = Agent(lab.model(calls("one") + calls("held"), "Done."), tools=tools)
    async with lab.stream(agent) as stream:
        async for event in stream:
            if isinstance(event, ApprovalRequested):
                stream.stream.stop()
        if lab.sim.injection is None and "did not run" not in _result(stream, "held").text:
            lab.watch.note(f"the call that waited for its approval ends as {_result(stream, 'held').text!r}")


@scenario(ends("completed"))
async def values_are_yielded_a_line_each(lab: Lab) -> None:
    @tool
    async def several() -> AsyncGenerator[object]:  # noqa: ASYNC900, ASYNC911 - as users write them
        """Give several values."""
        for value in ({"n": 1}, 2, "text ", "in pieces"):
            await lab.sim.seam("several")
            yield value

    agent = Agent(lab.model(calls("several"), "Done."), tools=[several])
    async with lab.stream(agent) as stream:
        await stream.drain()
        if lab.sim.injection is None and _result(stream, "several").text != '{"n":1}\n2\ntext in pieces':
            lab.watch.note(f"the yielded values are {_result(stream, 'several').text!r}")


@scenario(ends("completed"))
async def answers_name_their_giver(lab: Lab) -> None:
    handler = lab.handler(lambda question: echo(question) if "by-handler" in str(question) else None)
    tools = [lab.asker("by-handler"), lab.asker("by-reader")]
    agent = Agent(lab.model(calls("by-handler"), calls("by-reader"), "Done."), tools=tools)
    async with lab.stream(agent, on_question=handler) as stream:
        await stream.drain()
        givers = [event.by for event in stream.events if isinstance(event, QuestionAnswered)]
        if lab.sim.injection is None and givers != ["handler"]:
            lab.watch.note(f"the answers of a handler are given by {givers}")


def _from_the_second_turn(run: RunInfo) -> bool:
    return run.turn > 1


@scenario(ends("completed"))
async def one_tool_of_two_is_offered_in_the_second_turn(lab: Lab) -> None:
    late = lab.tool("late", offered=_from_the_second_turn)
    agent = Agent(lab.model(calls("late"), calls("late"), "Done."), tools=[lab.tool("always"), late])
    async with lab.stream(agent) as stream:
        await stream.drain()
        statuses = [event.result.status for event in stream.events if isinstance(event, ToolCallFinished)]
        if lab.sim.injection is None and statuses != ["error", "ok"]:
            lab.watch.note(f"a tool that is offered from the second turn on gives {statuses}")


@scenario(ends("completed"))
async def a_hook_adds_to_several_messages_at_once(lab: Lab) -> None:
    add = lab.hook(hooks.user_steering_messages_submit, Context("It is late."))
    agent = Agent(lab.model("Done."), hooks=[add])
    async with lab.stream(agent) as stream:
        stream.stream.steer("Quick.")
        stream.stream.steer("And short.")
        await stream.drain()
        committed = [event.message for event in stream.events if isinstance(event, MessageCommitted)]
        read = [
            [part.text for part in each.parts if isinstance(part, Text)]
            for each in committed
            if isinstance(each, UserMessage)
        ]
        if lab.sim.injection is None and read[1:] != [["Quick."], ["And short.", "It is late."]]:
            lab.watch.note(f"the messages with what a hook adds are {read[1:]}")


@scenario(ends("completed"))
async def instructions_of_a_turn_come_last(lab: Lab) -> None:
    @each_turn
    def instructions(run: RunInfo) -> str:
        return f"This is turn {run.turn}."

    start, turn = (
        lab.hook(hooks.session_start, Context("It is Monday.")),
        lab.hook(hooks.turn_start, Context("Be brief.")),
    )
    model = lab.model(calls("one"), "Done.")
    agent = Agent(model, instructions=instructions, tools=[lab.tool("one")], hooks=[start, turn])
    async with lab.stream(agent) as stream:
        await stream.drain()
        read = [request.instructions.split("\n\n") for request in model.requests]
        due = [["It is Monday.", f"This is turn {number}.", "Be brief."] for number in (1, 2)]
        if lab.sim.injection is None and read != due:
            lab.watch.note(f"the instructions are {read}, and not {due}")


@scenario(ends("completed"))
async def a_child_costs_what_the_agents_above_pay(lab: Lab) -> None:
    words = says("Inner.")
    words = msgspec.structs.replace(words, usage=Usage(input_tokens=1_000_000, output_tokens=1_000_000))
    inner = Agent(lab.model(words, name="inner"), name="inner")
    middle = Agent(
        lab.model(calls("inner", prompt="x"), "Middle.", name="middle"), name="middle", tools=[inner.as_tool()]
    )
    agent = Agent(
        lab.model(calls("middle", prompt="x"), "Done."),
        tools=[middle.as_tool()],
        prices={"inner": Price(1.0, 2.0), "middle": Price(0.0, 0.0), "model": Price(0.0, 0.0)},
    )
    async with lab.stream(agent) as stream:
        await stream.drain()
        if lab.sim.injection is None and stream.stream.outcome.usage.cost != 3.0:
            lab.watch.note(f"a child of 3 costs {stream.stream.outcome.usage.cost}")


@scenario(ends("completed"))
async def usage_is_reported_on_the_way_only(lab: Lab) -> None:
    words = msgspec.structs.replace(says("Done."), reported=Usage(input_tokens=7, output_tokens=3), usage=Usage())
    async with lab.stream(Agent(lab.model(words))) as stream:
        await stream.drain()
        usage = stream.stream.outcome.usage
        if lab.sim.injection is None and (usage.input_tokens, usage.output_tokens) != (7, 3):
            lab.watch.note(f"of a response whose usage was reported on the way, {usage} is counted")


@scenario(ends("completed"))
async def children_as_deep_as_the_limit(lab: Lab) -> None:
    deepest = Agent(lab.model("Deepest.", name="deepest"), name="deepest")
    inner = Agent(
        lab.model(calls("deepest", prompt="x"), "Inner.", name="inner"), name="inner", tools=[deepest.as_tool()]
    )
    agent = Agent(lab.model(calls("inner", prompt="x"), "Done."), tools=[inner.as_tool()], limits=Limits(depth=2))
    async with lab.stream(agent) as stream:
        await stream.drain()
        if lab.sim.injection is None and len(lab.watch.runs) != 3:
            lab.watch.note(f"of three runs that the limit on depth allows, {len(lab.watch.runs)} were opened")


@scenario(ends("completed"))
async def two_limits_on_calls_are_two_questions(lab: Lab) -> None:
    inner = Agent(
        lab.model(calls("one") + calls("one") + calls("one"), "Inner.", name="inner"),
        name="inner",
        tools=[lab.tool("one")],
        limits=Limits(tool_calls=1),
    )
    agent = Agent(lab.model(calls("inner", prompt="x"), "Done."), tools=[inner.as_tool()], limits=Limits(tool_calls=2))
    async with lab.stream(agent) as stream:
        await stream.drain(answer=lambda question: Approve())
        asked = [(event.allowed, event.used) for event in stream.events if isinstance(event, ContinueRequested)]
        if lab.sim.injection is None and asked != [(1, 0), (2, 1)]:
            lab.watch.note(f"about two limits on tool calls a person is asked {asked}")


@scenario(ends("completed"))
async def a_stop_hook_gives_all_attempts_again(lab: Lab) -> None:
    sent_on: list[object] = []

    @hooks.stop
    async def go_on(_stop: hooks.StopRequested) -> Continue | None:
        await lab.sim.seam("hook:go_on")
        sent_on.append(None)
        return Continue("Once more.") if len(sent_on) == 1 else None

    script = ("no number", "1", "no number", "2")
    agent = Agent(lab.model(*script), output_type=int, hooks=[go_on], limits=Limits(output_attempts=2))
    async with lab.stream(agent) as stream:
        await stream.drain()


@scenario(ends("cancelled"))
async def the_first_stop_says_why(lab: Lab) -> None:
    agent = Agent(lab.model(calls("one"), "Done."), tools=[lab.tool("one")])
    async with lab.stream(agent) as stream:
        async for event in stream:
            if isinstance(event, ToolCallStarted):
                stream.stream.stop("first")
                stream.stream.stop("second")
        if lab.sim.injection is None and stream.stream.outcome.detail != "first":
            lab.watch.note(f"two stops end a stream with the detail {stream.stream.outcome.detail!r}")


@scenario(ends("completed"))
async def the_permissions_of_all_agents_above_hold(lab: Lab) -> None:
    inner = Agent(lab.model(calls("pay"), "Inner.", name="inner"), name="inner", tools=[lab.tool("pay")])
    middle = Agent(
        lab.model(calls("inner", prompt="x"), "Middle.", name="middle"),
        name="middle",
        tools=[inner.as_tool()],
        permissions=Permissions(allow=["*"]),
    )
    agent = Agent(
        lab.model(calls("middle", prompt="x"), "Done."),
        tools=[middle.as_tool()],
        permissions=Permissions(deny=["pay"]),
    )
    async with lab.stream(agent) as stream:
        await stream.drain()
        if lab.sim.injection is None and _result(stream, "pay").status != "denied":
            lab.watch.note(f"an agent two levels up denies a call, and it ends as {_result(stream, 'pay')}")


@scenario(ends("completed"))
async def an_approval_for_good_holds_in_a_child(lab: Lab) -> None:
    inner = Agent(
        lab.model(calls("pay"), calls("pay"), "Inner.", name="inner"),
        name="inner",
        tools=[lab.tool("pay", requires_approval=True)],
    )
    agent = Agent(lab.model(calls("inner", prompt="x"), "Done."), tools=[inner.as_tool()])
    async with lab.stream(agent) as stream:
        await stream.drain(answer=lambda question: Approve(always=True))
        asked = sum(isinstance(event, ApprovalRequested) for event in stream.events)
        if lab.sim.injection is None and asked != 1:
            lab.watch.note(f"about a call that was approved for good a person is asked {asked} times")


@scenario(ends("completed"))
async def calls_side_by_side_have_timeouts_of_their_own(lab: Lab) -> None:
    async def wait() -> str:
        await trio.sleep(5)
        return "done"

    tools = [tool(name="short", timeout=2)(wait), tool(name="long", timeout=8)(wait)]
    agent = Agent(lab.model(calls("short") + calls("long"), calls("long") + calls("short"), "Done."), tools=tools)
    async with lab.stream(agent) as stream:
        await stream.drain()
        ended = [(event.name, event.result.status) for event in stream.events if isinstance(event, ToolCallFinished)]
        if lab.sim.injection is None and set(ended) != {("short", "timeout"), ("long", "ok")}:
            lab.watch.note(f"calls with timeouts of 2 s and 8 s that take 5 s end as {ended}")
