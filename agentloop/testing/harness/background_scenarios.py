"""The part of the corpus in which agents run in the background: they outlive their call, and end with their run."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import trio

from agentloop import hooks
from agentloop.agent import Agent
from agentloop.context import ToolContext
from agentloop.errors import ModelConnectionError, StreamStateError
from agentloop.events import ChildStreamStarted, ElicitationRequested, StreamEvent, ToolCallFinished, ToolCallStarted
from agentloop.hooks import Context, Continue
from agentloop.limits import Deadlines, Limits
from agentloop.team import Team
from agentloop.testing._lab import Lab, Recorded
from agentloop.testing.harness.agent_scenarios import FakeToolset
from agentloop.testing.harness.registry import ends, on_depths, scenario
from agentloop.testing.harness.session_scenarios import Story, story
from agentloop.testing.scripted import Response, calls, fails, hangs, says
from agentloop.toolkit._background import background
from agentloop.tools import Tool, tool

__all__: list[str] = []


def _run(agent: str = "helper", task: str = "x") -> Response:
    return calls("run_background_agent", agent=agent, task=task)


def _helper(lab: Lab, *script: Any, name: str = "helper", **options: Any) -> Agent[Any, Any]:
    return Agent(lab.model(*script, name=name), name=name, **options)


def _lead(lab: Lab, *script: Any, helpers: Any, **options: Any) -> Agent[Any, Any]:
    return Agent(lab.model(*script, name="lead"), name="lead", toolsets=[background(*helpers)], **options)


# ------------------------------------------------------------------------ without a journal


@on_depths("completed", tells=ChildStreamStarted)
def a_background_run(lab: Lab) -> Agent[Any, Any]:
    helper = _helper(lab, calls("one"), "Found.", tools=[lab.tool("one")])
    return _lead(lab, _run(), "Waiting.", "Done.", helpers=[helper])


@on_depths("completed", tells=ChildStreamStarted)
def background_runs_beside_calls(lab: Lab) -> Agent[Any, Any]:
    """Three runs, one of which fails, beside calls, a child run and a background run of a background run."""
    quick = _helper(lab, "Quick.", name="quick")
    broken = _helper(lab, fails(ModelConnectionError("gone")), name="broken")
    inner = _helper(lab, calls("one"), "Inner.", name="inner", tools=[lab.tool("one")])
    outer = Agent(
        lab.model(_run("inner"), "Waiting.", "Outer.", name="outer"), name="outer", toolsets=[background(inner)]
    )
    child = _helper(lab, "Child.", name="child")
    batch = _run("quick") + _run("broken") + _run("outer") + calls("one") + calls("child", prompt="x")
    return _lead(
        lab,
        batch,
        calls("list_background_agents") + calls("view_background_agent", run_id="outer-1"),
        calls("wait_for_background_agents", seconds=30),
        *["Done."] * 4,
        helpers=[quick, broken, outer],
        tools=[lab.tool("one"), child.as_tool()],
    )


@on_depths("completed", tells=ElicitationRequested)
def a_background_run_asks_when_its_call_has_ended(lab: Lab) -> Agent[Any, Any]:
    async def slow(_context: ToolContext[Any]) -> str:
        await trio.sleep(1)
        return "slow"

    helper = _helper(lab, calls("slow"), calls("ask") + calls("guarded"), "Found.", tools=[
        lab.tool("slow", slow),
        lab.asker("ask"),
        lab.tool("guarded", requires_approval=True),
    ])  # fmt: skip
    return _lead(lab, _run(), calls("ask"), "Waiting.", "Done.", helpers=[helper], tools=[lab.asker("ask")])


@on_depths("completed", tells=ChildStreamStarted)
def a_background_run_is_steered_and_stopped(lab: Lab) -> Agent[Any, Any]:
    async def slow(_context: ToolContext[Any]) -> str:
        await trio.sleep(1)
        return "slow"

    helper = _helper(lab, calls("slow"), calls("slow"), says("Well, ") + hangs(), tools=[lab.tool("slow", slow)])
    return _lead(
        lab,
        _run(),
        calls("steer_background_agent", run_id="helper-1", message="Be quick."),
        calls("wait_for_background_agents", run_ids=["helper-1"], seconds=5),
        calls("stop_background_agent", run_id="helper-1"),
        *["Done."] * 2,
        helpers=[helper],
    )


@on_depths("completed", tells=ChildStreamStarted)
def hooks_around_background_runs(lab: Lab) -> Agent[Any, Any]:
    """The stop hook is called when all ends are reported; what it adds keeps the run going once more."""
    asked: list[int] = []

    @hooks.stop
    async def once(_value: hooks.StopRequested) -> Continue | None:
        asked.append(1)
        await trio.lowlevel.checkpoint()
        return Continue("And then?") if len(asked) == 1 else None

    helper = _helper(lab, "Found.", hooks=[lab.hook(hooks.user_prompt_submit, Context("Background."))])
    return _lead(lab, _run(), "Waiting.", "Told.", "Done.", helpers=[helper], hooks=[once])


@on_depths("completed", tells=ChildStreamStarted)
def a_long_answer_of_a_background_run(lab: Lab) -> Agent[Any, Any]:
    helper = _helper(lab, "x" * 9000)
    return _lead(
        lab, _run(), "Waiting.", calls("read_result", call_id="helper-1", offset=8000), "Done.", helpers=[helper]
    )


@on_depths("completed", tells=ChildStreamStarted)
def an_output_with_a_schema_beside_a_background_run(lab: Lab) -> Agent[Any, Any]:
    helper = _helper(lab, '{"found": 1}', output_type=dict[str, int])
    return _lead(lab, _run(), '{"ok": 1}', '{"ok": 2}', helpers=[helper], output_type=dict[str, int])


@on_depths("completed", tells=ChildStreamStarted)
def a_team_hands_off_while_a_background_run_works(lab: Lab) -> Agent[Any, Any]:
    async def slow(_context: ToolContext[Any]) -> str:
        await trio.sleep(1)
        return "slow"

    helper = _helper(lab, calls("slow"), "Found.", tools=[lab.tool("slow", slow)])
    front = _lead(lab, _run() + calls("handoff", agent="billing"), helpers=[helper], handoffs=["billing"])
    return Team(front, Agent(lab.model("Waiting.", "Done.", name="billing"), name="billing"))


@on_depths("limit", tells=ChildStreamStarted)
def a_limit_ends_a_background_run(lab: Lab) -> Agent[Any, Any]:
    helper = _helper(lab, says("Well, ") + hangs(), toolsets=[FakeToolset(lab)])
    return _lead(lab, _run(), "Waiting.", helpers=[helper], limits=Limits(seconds=5))


@on_depths("failed", tells=ChildStreamStarted)
def a_run_fails_while_a_background_run_works(lab: Lab) -> Agent[Any, Any]:
    helper = _helper(lab, says("Well, ") + hangs(), toolsets=[FakeToolset(lab)])
    return _lead(lab, _run(), fails(ModelConnectionError("gone")), helpers=[helper])


@on_depths("completed", tells=ChildStreamStarted)
def a_tool_waits_for_the_background_run_that_it_has_started(lab: Lab) -> Agent[Any, Any]:
    helper = _helper(lab, calls("ask"), "Found.", tools=[lab.asker("ask")])

    @tool(agents=(helper,), if_interrupted="retry")
    async def delegate(context: ToolContext[Any]) -> str:
        run = await context.start(helper, "x")
        with suppress(StreamStateError):
            return str(run.outcome)
        outcome = await run.wait()
        return f"{outcome.reason} {run.status} {run.text}"

    return Agent(lab.model(calls("delegate"), "Waiting.", "Done.", name="lead"), name="lead", tools=[delegate])


@on_depths("completed", tells=ToolCallFinished)
def a_call_runs_out_of_time_that_has_started_a_background_run(lab: Lab) -> Agent[Any, Any]:
    helper = _helper(lab, "Found.")

    async def delegate(context: ToolContext[Any]) -> str:
        await context.start(helper, "x")
        await trio.sleep_forever()
        raise AssertionError("it sleeps for ever")

    return Agent(
        lab.model(calls("delegate"), "Waiting.", "Done.", name="lead"),
        name="lead",
        tools=[lab.tool("delegate", delegate)],
        deadlines=Deadlines(tool=3),
    )


@scenario(ends("cancelled"))
async def stopped_while_a_background_run_works(lab: Lab) -> None:
    helper = _helper(lab, says("Well, ") + hangs(), toolsets=[FakeToolset(lab)])
    async with lab.stream(_lead(lab, _run(), "Waiting.", helpers=[helper])) as stream:
        async for event in stream:
            if isinstance(event, ChildStreamStarted):
                stream.stop()


@scenario()
async def left_while_a_background_run_works(lab: Lab) -> None:
    helper = _helper(lab, says("Well, ") + hangs(), toolsets=[FakeToolset(lab)])
    async with lab.stream(_lead(lab, _run(), "Waiting.", helpers=[helper])) as stream:
        async for event in stream:
            if isinstance(event, ToolCallFinished):
                break


@scenario(ends("completed"))
async def steered_while_only_a_background_run_works(lab: Lab) -> None:
    async def slow(_context: ToolContext[Any]) -> str:
        await trio.sleep(10)
        return "slow"

    helper = _helper(lab, calls("slow"), "Found.", tools=[lab.tool("slow", slow)])
    lead = _lead(lab, _run(), "Waiting.", "Steered.", "Done.", helpers=[helper])
    async with lab.stream(lead) as stream:
        async for event in stream:
            if isinstance(event, ToolCallStarted) and event.name == "slow":
                stream.stream.steer("How far are you?")


@scenario(ends("completed"))
async def paused_while_a_background_run_works(lab: Lab) -> None:
    """The pause of a run holds its background runs; its model reads the report when both go on."""
    helper = _helper(lab, calls("one"), calls("two"), "Found.", tools=[lab.tool("one"), lab.tool("two")])
    async with lab.stream(_lead(lab, _run(), "Waiting.", "Done.", helpers=[helper])) as stream:
        async for event in stream:
            if isinstance(event, ToolCallFinished) and event.name == "one":
                stream.stream.pause()
                await trio.sleep(5)
                stream.stream.resume()


@on_depths("completed", tells=ChildStreamStarted)
def a_background_run_is_told_a_secret(lab: Lab) -> Agent[Any, Any]:
    """It works with a placeholder, and its report has one, too."""
    secret = "AKIAIOSFODNN7EXAMPLE"  # noqa: S105 - the documentation of AWS has it

    async def read(_context: ToolContext[Any]) -> str:  # noqa: ASYNC124 - a tool is async
        return f"the key is {secret}"

    helper = _helper(lab, calls("read"), "Found [secret:1:aws-key].", tools=[lab.bare("read", read)])
    return _lead(lab, _run(task=f"use {secret}"), "Waiting.", "Done.", helpers=[helper], redact=True)


# --------------------------------------------------------------------------- with a journal


async def _slow(_context: ToolContext[Any]) -> str:
    await trio.sleep(20)
    return "done"


async def _shorter(_context: ToolContext[Any]) -> str:
    await trio.sleep(5)
    return "done"


def _asks(lab: Lab) -> Agent[Any, Any]:
    """A background run asks, and is asked about an approval, when the run around it has nothing else to do."""
    tools = [lab.asker("ask"), lab.tool("one"), lab.tool("guarded", requires_approval=True)]
    helper_model = lab.planned(calls("ask") + calls("one"), calls("guarded"), "Found.", name="helper")
    helper = Agent(helper_model, name="helper", tools=tools)
    lead_model = lab.planned(_run(), "Waiting.", "Done.", name="lead")
    return Agent(lead_model, name="lead", toolsets=[background(helper)])


def _both_ask(lab: Lab) -> Agent[Any, Any]:
    """A run and its background run ask, each on its own; the inner one of a background run asks, too."""
    tools = [lab.asker("ask"), lab.tool("one")]
    inner = Agent(lab.planned(calls("ask"), calls("one"), "Inner.", name="inner"), name="inner", tools=tools)
    outer = Agent(
        lab.planned(_run("inner"), "Waiting.", "Outer.", name="outer"), name="outer", toolsets=[background(inner)]
    )
    lead_model = lab.planned(_run("outer") + calls("ask"), "Waiting.", "Done.", name="lead")
    return Agent(lead_model, name="lead", tools=tools, toolsets=[background(outer)])


def _works(lab: Lab) -> Agent[Any, Any]:
    """A background run works for long, beside a call of the run around it that is shorter."""
    long: Tool = lab.tool("long", _slow, if_interrupted="retry")
    helper = Agent(lab.planned(calls("long"), "Found.", name="helper"), name="helper", tools=[long])
    lead_model = lab.planned(_run() + calls("one"), "Waiting.", "Done.", name="lead")
    return Agent(lead_model, name="lead", tools=[lab.tool("one", _shorter)], toolsets=[background(helper)])


def _waits(lab: Lab) -> Agent[Any, Any]:
    """A call waits for a background run that asks."""
    helper_model = lab.planned(calls("ask") + calls("one"), "Found.", name="helper")
    helper = Agent(helper_model, name="helper", tools=[lab.asker("ask"), lab.tool("one")])
    lead_model = lab.planned(_run(), calls("wait_for_background_agents"), "Told.", "Done.", name="lead")
    return Agent(lead_model, name="lead", toolsets=[background(helper)])


def _unnamed(lab: Lab) -> Agent[Any, Any]:
    """A tool that does not name its agent starts it: a process that resumes the run cannot resume the agent."""
    helper = Agent(lab.planned(calls("ask"), "Found.", name="helper"), name="helper", tools=[lab.asker("ask")])

    async def delegate(context: ToolContext[Any]) -> str:
        return (await context.start(helper, "x")).id

    lead_model = lab.planned(calls("delegate"), "Waiting.", "Done.", name="lead")
    return Agent(lead_model, name="lead", tools=[lab.tool("delegate", delegate, if_interrupted="retry")])


@story(_asks, reasons=("needs_input", "needs_input", "completed"), effects={"one": 1, "guarded": 1})
async def a_background_run_parked_twice(story: Story) -> None:
    for number in range(3):
        async with story.process(f"P{number}") as client, story.session(client) as session:
            await story.go_on(client, session, name=f"A{number}", park=True)


@story(_both_ask, reasons=("needs_input", "completed"), effects={"one": 1})
async def parked_with_its_background_run(story: Story) -> None:
    async with story.process("P") as client, story.session(client) as session:
        await story.go_on(client, session, name="A", park=True)
    async with story.process("Q") as client, story.session(client) as session:
        await story.go_on(client, session, name="B")


@story(_waits, reasons=("needs_input", "completed"), effects={"one": 1})
async def parked_in_a_call_that_waits_for_a_background_run(story: Story) -> None:
    async with story.process("P") as client, story.session(client) as session:
        await story.go_on(client, session, name="A", park=True)
    async with story.process("Q") as client, story.session(client) as session:
        await story.go_on(client, session, name="B")


@story(_unnamed, reasons=("needs_input", "completed"), effects={"delegate": 1})
async def a_background_run_whose_agent_is_not_found_again(story: Story) -> None:
    async with story.process("P") as client, story.session(client) as session:
        await story.go_on(client, session, name="A", park=True)
    async with story.process("Q") as client, story.session(client) as session:
        await story.go_on(client, session, name="B")


@story(_works, reasons=("cancelled", "completed"), effects={"one": 1, "long": 2})
async def killed_while_a_background_run_works(story: Story) -> None:
    async with story.process("P") as client, trio.open_nursery() as nursery, story.session(client) as session:

        async def kill() -> None:
            await trio.sleep(10)
            client.kill()

        nursery.start_soon(kill)
        await story.go_on(client, session, name="A")
        nursery.cancel_scope.cancel()
    async with story.process("Q") as client, story.session(client) as session:
        await story.go_on(client, session, name="B")


@story(_works, reasons=("cancelled", "completed"), effects={"one": 1, "long": 1})
async def stopped_with_its_background_run_and_prompted_again(story: Story) -> None:
    def stop(stream: Recorded, event: StreamEvent) -> None:
        if isinstance(event, ToolCallFinished) and event.name == "one":
            stream.stop()

    async with story.process("P") as client, story.session(client) as session:
        await story.go_on(client, session, name="A", on_event=stop)
    async with story.process("Q") as client, story.session(client) as session:
        await story.go_on(client, session, name="B")


@story(_asks, reasons=("needs_input", "needs_input", "completed"), effects={"one": 1, "guarded": 1})
async def paused_and_parked_while_a_background_run_asks(story: Story) -> None:
    async with story.process("P") as client, story.session(client) as session:

        def park(stream: Recorded, event: StreamEvent) -> None:
            if isinstance(event, ElicitationRequested):
                stream.stream.pause()
                stream.stream.park()

        await story.go_on(client, session, name="A", answer=lambda _question: None, on_event=park)
    for number in range(2):
        async with story.process(f"Q{number}") as client, story.session(client) as session:
            await story.go_on(client, session, name=f"B{number}", park=not number)
