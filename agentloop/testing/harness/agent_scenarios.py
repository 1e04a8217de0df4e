"""Scenarios of agents: every way out of the loop, at depth 0, 1 and 2, and every situation that once was a bug.

A scenario is a function of a `Lab`. `on_depths` plays it for an agent that is run directly, as the tool of another
agent, and as the tool of a tool. Without a fault, ``expect`` says how it must end; with one, only the guarantees hold,
and `AgentScenario.check` checks them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager, suppress
from functools import partial
from typing import Any

import msgspec
import trio

from agentloop import hooks
from agentloop.agent import Agent
from agentloop.context import ToolContext
from agentloop.errors import (
    AgentLoopError,
    ModelConnectionError,
    ModelContextOverflowError,
    ModelProtocolError,
    ModelRateLimitError,
    StreamStateError,
)
from agentloop.events import (
    ApprovalRequested,
    CompactionFinished,
    ContinueRequested,
    ElicitationRequested,
    Question,
    ResponseDiscarded,
    TextDelta,
    ToolCallStarted,
    TurnStarted,
    WarningIssued,
)
from agentloop.hooks import Block, Continue, Hook
from agentloop.limits import Compaction, Deadlines, Limits, Retries
from agentloop.messages import Usage
from agentloop.models import ModelChoice
from agentloop.outcome import Outcome
from agentloop.permissions import Exact, Permissions, Rule
from agentloop.questions import Accept, Answer, Approve, Cancel, Decline, Deny
from agentloop.run_info import RunInfo
from agentloop.session import Session
from agentloop.testing._lab import AgentScenario, Lab, Recorded, echo
from agentloop.testing.harness.registry import SCENARIOS, ends, on_depths, scenario
from agentloop.testing.scripted import Response, calls, fails, hangs, says
from agentloop.tools import OpenToolset, Tool

__all__ = ["FakeToolset"]

# ------------------------------------------------------------------------- natural ends


@on_depths("completed")
def only_text(lab: Lab) -> Agent[Any, Any]:
    return Agent(lab.model("Hello there."))


@on_depths("completed")
def parallel_tools(lab: Lab) -> Agent[Any, Any]:
    async def slow(_context: ToolContext[Any]) -> str:
        await trio.sleep(1)
        return "slow"

    tools = [lab.tool("one"), lab.tool("two", slow), lab.tool("three", concurrency=1)]
    script = calls("one") + calls("two") + calls("three") + calls("three") + calls("nope") + calls("one", raw="{]")
    return Agent(lab.model(script, "Done."), tools=tools)


@on_depths("completed")
def streaming_tool(lab: Lab) -> Agent[Any, Any]:
    async def output(context: ToolContext[Any]) -> str:
        async def pieces() -> AsyncGenerator[str]:  # noqa: ASYNC900, ASYNC911 - as users write them
            for piece in ("a", "b", "c"):
                await trio.lowlevel.checkpoint()
                yield piece

        async with aclosing(pieces()) as opened:
            async for piece in opened:
                await context.output(piece)
        await context.progress(1.0, total=1.0)
        return "streamed"

    return Agent(lab.model(calls("stream"), "Done."), tools=[lab.tool("stream", output)])


@on_depths("completed")
def structured_output(lab: Lab) -> Agent[Any, Any]:
    return Agent(lab.model("no JSON", '{"value": 7}'), output_type=int)


@on_depths("completed")
def every_hook(lab: Lab) -> Agent[Any, Any]:
    points = (
        hooks.session_start,
        hooks.user_prompt_submit,
        hooks.turn_start,
        hooks.before_llm_call,
        hooks.after_llm_call,
        hooks.pre_tool_use,
        hooks.post_tool_use,
        hooks.notification,
        hooks.on_error,
        hooks.stop,
        hooks.subagent_stop,
        hooks.on_max_iterations,
        hooks.on_session_resume,
        hooks.on_agent_switch,
        hooks.turn_end,
        hooks.session_end,
    )
    made = [lab.hook(point) for point in points]
    return Agent(lab.model(calls("ask"), "Done."), tools=[lab.asker("ask")], hooks=made)


@on_depths("completed")
def sent_on_by_a_stop_hook(lab: Lab) -> Agent[Any, Any]:
    sent: list[object] = []

    @hooks.stop
    def once_more(stopping: hooks.StopRequested) -> Continue | None:
        sent.append(stopping)
        return Continue("One more thing.") if stopping.continuations == 0 else None

    return Agent(lab.model("First.", "Second."), hooks=[once_more])


# ---------------------------------------------------------------------- early ways out


class FakeToolset:
    """A toolset that fails at the given place."""

    def __init__(self, lab: Lab, *, fail_at: int = 0, start: str = "", stop: str = "") -> None:
        self.name = "fake"
        self._lab = lab
        self._fail_at = fail_at
        self._start = start
        self._stop = stop
        self._listed = 0

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[OpenToolset]:
        """Start it, with the trouble that it has."""
        await self._lab.sim.seam("toolset:start")
        await self._trouble(self._start)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                try:
                    yield self
                finally:
                    nursery.cancel_scope.cancel()
        finally:
            # Out here: a nursery that is cancelled lets nothing hang.
            await self._trouble(self._stop)  # noqa: ASYNC102 - that it hangs is the point

    async def _trouble(self, kind: str) -> None:
        if kind == "fail":
            raise OSError("the server did not start")
        if kind == "hang":
            await trio.sleep_forever()

    async def list_tools(self) -> list[Tool]:
        """List its only tool, or fail."""
        self._listed += 1
        await self._lab.sim.seam("toolset:list")
        if self._listed == self._fail_at:
            raise OSError("the server does not answer")
        return [self._lab.tool("listed")]


@on_depths("completed")
def a_toolset(lab: Lab) -> Agent[Any, Any]:
    return Agent(lab.model(calls("listed"), "Done."), toolsets=[FakeToolset(lab)])


@on_depths("failed")
def listing_fails_at_first(lab: Lab) -> Agent[Any, Any]:
    """An early return, of the two in docker-agent#3073."""
    return Agent(lab.model("never"), toolsets=[FakeToolset(lab, fail_at=1)])


@on_depths("failed")
def listing_fails_later(lab: Lab) -> Agent[Any, Any]:
    return Agent(lab.model(calls("listed"), "never"), toolsets=[FakeToolset(lab, fail_at=3)])


@on_depths("failed")
def toolset_fails_to_start(lab: Lab) -> Agent[Any, Any]:
    return Agent(lab.model("never"), toolsets=[FakeToolset(lab), FakeToolset(lab, start="fail")])


@on_depths("failed")
def toolset_hangs_at_start(lab: Lab) -> Agent[Any, Any]:
    return Agent(lab.model("never"), toolsets=[FakeToolset(lab, start="hang")])


@on_depths("completed")
def toolset_hangs_at_stop(lab: Lab) -> Agent[Any, Any]:
    return Agent(lab.model("Done."), toolsets=[FakeToolset(lab, stop="hang")])


@on_depths("blocked")
def prompt_hook_refuses(lab: Lab) -> Agent[Any, Any]:
    """The other early return of docker-agent#3073."""
    return Agent(lab.model("never"), hooks=[lab.hook(hooks.user_prompt_submit, Block("not this"))])


@on_depths("blocked")
def a_guard_that_fails_refuses(lab: Lab) -> Agent[Any, Any]:
    @hooks.before_llm_call
    async def broken(_call: hooks.BeforeLLMCall) -> None:
        await lab.sim.seam("hook:broken")
        raise ValueError("the guard is broken")

    return Agent(lab.model("never"), hooks=[broken])


@on_depths("blocked")
def hook_refuses_the_model_call(lab: Lab) -> Agent[Any, Any]:
    return Agent(lab.model("never"), hooks=[lab.hook(hooks.before_llm_call, Block("not now"))])


@on_depths("blocked")
def hook_stops_after_a_tool(lab: Lab) -> Agent[Any, Any]:
    tools = [lab.tool("one"), lab.tool("two")]
    stop = lab.hook(hooks.post_tool_use, Block("enough"), tools="one")
    return Agent(lab.model(calls("one") + calls("two"), "never"), tools=tools, hooks=[stop])


@on_depths("completed")
def hook_denies_a_tool(lab: Lab) -> Agent[Any, Any]:
    deny = lab.hook(hooks.pre_tool_use, Deny("no"))
    return Agent(lab.model(calls("one"), "Done."), tools=[lab.tool("one")], hooks=[deny])


@on_depths("failed")
def model_fails_at_once(lab: Lab) -> Agent[Any, Any]:
    return Agent(lab.model(fails(OSError("connection refused"))))


@on_depths("failed")
def model_fails_half_way(lab: Lab) -> Agent[Any, Any]:
    return Agent(lab.model(calls("one"), says("I was about to") + fails(OSError("gone"))), tools=[lab.tool("one")])


@on_depths("failed")
def model_hangs(lab: Lab) -> Agent[Any, Any]:
    """Once more at each further request."""
    return Agent(lab.model(says("I was about to") + hangs()), deadlines=Deadlines(idle=10))


@on_depths("failed")
def model_breaks_the_protocol(lab: Lab) -> Agent[Any, Any]:
    return Agent(lab.model(calls("")), retries=Retries(attempts=1))


@on_depths("completed", tells=ResponseDiscarded)
def model_fails_and_is_asked_again(lab: Lab) -> Agent[Any, Any]:
    broken = says("I was about") + calls("one") + fails(ModelConnectionError("the connection dropped"))
    return Agent(lab.model(broken, calls("one"), broken, broken, "Done."), tools=[lab.tool("one")])


@on_depths("completed", tells=ResponseDiscarded)
def fallback_takes_over(lab: Lab) -> Agent[Any, Any]:
    overloaded = fails(ModelRateLimitError(model="first", status=429, body="later", retry_after=7))
    first = lab.model(says("I was") + overloaded, name="first")
    second = lab.model(calls("one"), says("Or") + fails(ModelProtocolError("no JSON")), "Done.", name="second")
    return Agent(first, fallbacks=[second], tools=[lab.tool("one")])


@on_depths("failed")
def every_model_fails(lab: Lab) -> Agent[Any, Any]:
    broken = fails(ModelConnectionError("refused"))
    return Agent(lab.model(broken, name="first"), fallbacks=[lab.model(says("I") + broken, name="second")])


@on_depths("limit")
def same_calls_again_and_again(lab: Lab) -> Agent[Any, Any]:
    script: list[Response] = [calls("one")] * 3
    return Agent(lab.model(*script), tools=[lab.tool("one")], limits=Limits(identical_turns=3))


@on_depths("failed")
def output_never_comes(lab: Lab) -> Agent[Any, Any]:
    return Agent(lab.model("no", "no"), output_type=int, limits=Limits(output_attempts=2))


@on_depths("completed")
def tool_times_out(lab: Lab) -> Agent[Any, Any]:
    async def for_ever(_context: ToolContext[Any]) -> None:
        await trio.sleep_forever()

    return Agent(lab.model(calls("hang"), "Done."), tools=[lab.tool("hang", for_ever, timeout=3)])


@on_depths("completed")
def tool_raises(lab: Lab) -> Agent[Any, Any]:
    async def fail(_context: ToolContext[Any]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            raise ValueError("no such thing")

    return Agent(lab.model(calls("fail") + calls("one"), "Done."), tools=[lab.tool("fail", fail), lab.tool("one")])


@on_depths("limit")
def time_is_over(lab: Lab) -> Agent[Any, Any]:
    async def long(_context: ToolContext[Any]) -> None:
        await trio.sleep(100)

    return Agent(lab.model(calls("long"), "never"), tools=[lab.tool("long", long)], limits=Limits(seconds=50))


# ------------------------------------------------------------------------------- limits


def _at_the_limit(lab: Lab) -> Agent[Any, Any]:
    return Agent(lab.model(calls("one"), "Done."), tools=[lab.tool("one")], limits=Limits(turns=1))


@on_depths("completed")
def turn_limit_continued(lab: Lab) -> Agent[Any, Any]:
    return _at_the_limit(lab)


@on_depths("completed")
def hooks_hear_of_a_limit_and_its_raise(lab: Lab) -> Agent[Any, Any]:
    told = [lab.hook(hooks.on_max_iterations), lab.hook(hooks.on_session_resume)]
    return _at_the_limit(lab).replace(hooks=told)


@on_depths("completed")
def hooks_hear_that_a_child_acts(lab: Lab) -> Agent[Any, Any]:
    inner = Agent(lab.model(calls("ask"), "Done.", name="inner"), name="inner", tools=[lab.asker("ask")])
    script = lab.model(calls("inner", prompt="a"), "Done.")
    return Agent(script, tools=[inner.as_tool()], hooks=[lab.hook(hooks.on_agent_switch)])


@on_depths("limit", answer=lambda question: Deny("enough"))
def turn_limit_refused(lab: Lab) -> Agent[Any, Any]:
    return _at_the_limit(lab)


@scenario(ends("completed"))
async def budget_of_a_child(lab: Lab) -> None:
    refuse = lab.handler(lambda question: Deny() if isinstance(question, ContinueRequested) else None)

    async def delegate(context: ToolContext[Any]) -> object:
        inner = Agent(lab.model(calls("one"), "never", name="inner"), tools=[lab.tool("one")], limits=Limits(tokens=5))
        async with context.stream(inner, "go", on_question=refuse) as child:
            return (await child.wait()).reason

    agent = Agent(lab.model(calls("delegate"), "Done."), tools=[lab.tool("delegate", delegate)])
    async with lab.stream(agent) as stream:
        await stream.drain(answer=echo)


@scenario(ends("limit"))
async def turn_limit_with_nobody_to_ask(lab: Lab) -> None:
    async with lab.stream(_at_the_limit(lab), on_question="decline") as stream:
        await stream.drain()


@scenario(ends("limit"))
async def budget_of_the_root_counts_for_its_children(lab: Lab) -> None:
    inner = Agent(lab.model("Inner.", name="inner"), name="inner")
    agent = Agent(
        lab.model(calls("inner", prompt="a"), "never"), tools=[inner.as_tool()], limits=Limits(tokens=20, tool_calls=5)
    )
    async with lab.stream(agent, on_question="decline") as stream:
        await stream.drain()


@scenario(ends("cancelled"))
async def stopped_while_asked_about_a_limit(lab: Lab) -> None:
    async with lab.stream(_at_the_limit(lab)) as stream:
        async for event in stream:
            if isinstance(event, ContinueRequested):
                stream.stream.stop("no time")


# ---------------------------------------------------------------------------- questions


@on_depths("completed")
def asks_and_approvals(lab: Lab) -> Agent[Any, Any]:
    tools = [lab.asker("ask"), lab.tool("guarded", requires_approval=True)]
    return Agent(lab.model(calls("ask") + calls("guarded"), calls("guarded"), "Done."), tools=tools)


@on_depths("completed", answer=lambda question: Deny("no") if isinstance(question, ApprovalRequested) else Decline())
def declined_and_denied(lab: Lab) -> Agent[Any, Any]:
    tools = [lab.asker("ask"), lab.tool("guarded", requires_approval=True)]
    return Agent(lab.model(calls("ask") + calls("guarded"), "Done."), tools=tools)


@on_depths("completed", answer=lambda question: Approve())
def rules_allow_ask_and_deny(lab: Lab) -> Agent[Any, Any]:
    rules = Permissions(
        allow=[Rule("guarded", {"tag": Exact("harmless")})], ask=[Rule("open", {"tag": Exact("big")})], deny=["never"]
    )
    tools = [lab.tool("guarded", requires_approval=True), lab.tool("open"), lab.tool("never")]
    script = (
        calls("guarded", tag="harmless") + calls("guarded", tag="other") + calls("open", tag="big") + calls("never")
    )
    return Agent(lab.model(script, "Done."), tools=tools, permissions=rules)


def _for_good(question: Question) -> Answer:
    """The first of several questions is answered for all of them."""
    assert isinstance(question, ApprovalRequested)
    return Approve(always=Rule("guarded")) if question.arguments["tag"] == "first" else Approve()


@on_depths("completed", answer=_for_good)
def approved_for_good_while_others_are_open(lab: Lab) -> Agent[Any, Any]:
    """The reader has not read the other questions when they are answered, and answers them, too."""
    several = calls("guarded", tag="first") + calls("guarded", tag="second") + calls("guarded", tag="third")
    later = calls("guarded", tag="fourth")
    return Agent(lab.model(several, later, "Done."), tools=[lab.tool("guarded", requires_approval=True)])


@on_depths("completed")
def a_rewritten_call_is_judged_again(lab: Lab) -> Agent[Any, Any]:
    rewrite = lab.hook(hooks.pre_tool_use, hooks.ReplaceArguments({"tag": "b"}, hooks.Allow()))
    rules = Permissions(deny=[Rule("denied", {"tag": Exact("b")})], ask=[Rule("asked", {"tag": Exact("b")})])
    tools = [lab.tool("denied"), lab.tool("asked"), lab.tool("guarded", requires_approval=True)]
    script = calls("denied", tag="a") + calls("asked", tag="a") + calls("guarded", tag="a")
    return Agent(lab.model(script, "Done."), tools=tools, hooks=[rewrite], permissions=rules)


def _only_the_read_one_ran(lab: Lab) -> None:
    ends("completed")(lab)
    assert [effect for _, _, effect in lab.effects] == ["inner", "read"], lab.effects


@scenario(_only_the_read_one_ran)
async def a_child_is_denied_what_the_agent_around_it_is_not_allowed(lab: Lab) -> None:
    inner = Agent(
        lab.model(calls("read") + calls("write"), "Inner.", name="inner"),
        name="inner",
        tools=[lab.tool("read", read_only=True), lab.tool("write")],
        permissions=Permissions(mode="autonomous"),
    )

    async def delegate(context: ToolContext[Any]) -> object:
        return (await context.run(inner, "go")).output

    tools = [lab.tool("inner", delegate)]
    rules = Permissions(mode="plan", allow=["inner"])
    async with lab.stream(Agent(lab.model(calls("inner"), "Done."), tools=tools, permissions=rules)) as stream:
        await stream.drain()


@scenario(ends("completed"))
async def nobody_to_ask(lab: Lab) -> None:
    inner = Agent(lab.model(calls("ask"), "Inner.", name="inner"), name="inner", tools=[lab.asker("ask")])
    agent = Agent(lab.model(calls("inner", prompt="x"), "Done."), tools=[inner.as_tool()])
    async with lab.stream(agent, on_question="decline") as stream:
        await stream.drain()


def _parallel_askers(lab: Lab) -> Agent[Any, Any]:
    """An agent that runs two agents at once, each of which asks twice."""
    inner = [
        Agent(
            lab.model(calls("ask") + calls("also"), "Inner.", name=name),
            name=name,
            tools=[lab.asker("ask"), lab.asker("also")],
        )
        for name in ("left", "right")
    ]
    script = calls("left", prompt="x") + calls("right", prompt="y")
    return Agent(lab.model(script, "Done."), tools=[agent.as_tool() for agent in inner])


@scenario(ends("completed"))
async def parallel_children_are_answered_crosswise(lab: Lab) -> None:
    answering = trio.CancelScope()

    async def answer_the_youngest_first(stream: Recorded) -> None:
        with answering:
            while True:
                # All that can be asked has been asked by then.
                await trio.sleep(1)
                for question in reversed(stream.stream.pending):
                    stream.answer(question.id, echo(question))

    async with trio.open_nursery() as nursery, lab.stream(_parallel_askers(lab)) as stream:
        nursery.start_soon(answer_the_youngest_first, stream)  # noqa: ASYNC111 - it ends before the stream
        try:
            await stream.drain()
        finally:
            answering.cancel()


@scenario(ends("completed"))
async def a_handler_answers_or_passes_on(lab: Lab) -> None:
    handler = lab.handler(lambda question: None if "ask" in getattr(question, "message", "") else echo(question))

    async def delegate(context: ToolContext[Any]) -> object:
        inner = Agent(
            lab.model(calls("ask") + calls("also"), "Inner.", name="inner"),
            name="inner",
            tools=[lab.asker("ask"), lab.asker("also")],
        )
        return (await context.run(inner, "go", on_question=handler)).output

    agent = Agent(lab.model(calls("delegate"), "Done."), tools=[lab.tool("delegate", delegate)])
    async with lab.stream(agent) as stream:
        await stream.drain(answer=echo)


@scenario(ends("completed"))
async def each_handler_hears_its_own_children(lab: Lab) -> None:
    """Two children ask at once; with one slot for all, the later one's handler would hear them both."""

    async def delegate(context: ToolContext[Any]) -> object:
        async def run(name: str) -> None:
            async def handler(question: Any) -> Any:
                await lab.sim.seam("handler")
                if name not in question.path:
                    lab.watch.note(f"a question of {question.agent} reached the handler of {name}")
                return echo(question)

            inner = Agent(lab.model(calls("ask"), "Inner.", name=name), name=name, tools=[lab.asker("ask")])
            with suppress(AgentLoopError):
                await context.run(inner, "go", on_question=handler)

        async with trio.open_nursery() as nursery:
            for name in ("left", "right"):
                nursery.start_soon(run, name)
        return "both"

    agent = Agent(lab.model(calls("delegate"), "Done."), tools=[lab.tool("delegate", delegate)])
    async with lab.stream(agent) as stream:
        async for event in stream:
            # Not at once, or the handlers would not be asked; but if they fail, the reader has to answer.
            if isinstance(event, WarningIssued):
                for question in stream.stream.pending:
                    stream.answer(question.id, echo(question))


@scenario(ends("completed"))
async def late_second_and_wrong_answers(lab: Lab) -> None:
    agent = Agent(lab.model(calls("ask"), "Done."), tools=[lab.asker("ask")])
    async with lab.stream(agent) as stream:
        seen: list[ElicitationRequested] = []
        async for event in stream:
            if isinstance(event, ElicitationRequested):
                seen.append(event)
                for wrong in (Approve(), Accept({"tag": 1}), Accept({"tag": "x", "more": 1})):
                    assert not stream.answer(event.id, wrong)
                assert not stream.answer("nobody", Cancel())
                pending = stream.stream.pending
                if stream.answer(event.id, echo(event)):
                    assert pending == (event,)
                assert not stream.answer(event.id, Decline("second"))
        assert all(not stream.answer(question.id, Decline("late")) for question in seen)


@scenario(ends("cancelled"))
async def answered_at_the_moment_of_a_stop(lab: Lab) -> None:
    agent = Agent(lab.model(calls("ask") + calls("also"), "never"), tools=[lab.asker("ask"), lab.asker("also")])
    async with lab.stream(agent) as stream:
        async for event in stream:
            if isinstance(event, ElicitationRequested):
                if event.message.startswith("ask"):
                    stream.answer(event.id, echo(event))
                    stream.stream.stop()
                else:
                    stream.stream.stop()
                    stream.answer(event.id, echo(event))


def _both_were_told(lab: Lab) -> None:
    ends("completed")(lab)
    assert list(lab.received) == ["ask of session-A"], lab.received
    assert [effect for _, _, effect in lab.effects] == ["guarded"], lab.effects


@scenario(_both_were_told)
async def answered_by_another_task(lab: Lab) -> None:
    agent = Agent(lab.model(calls("ask") + calls("guarded"), "Done."), tools=_asking_tools(lab))
    async with trio.open_nursery() as nursery, lab.stream(agent) as stream:

        async def answer_later(question: Any) -> None:
            await trio.sleep(100)
            stream.answer(question.id, echo(question))

        async for event in stream:
            if isinstance(event, (ElicitationRequested, ApprovalRequested)):
                nursery.start_soon(answer_later, event)


def _asking_tools(lab: Lab) -> list[Tool]:
    return [lab.asker("ask", timeout=50), lab.tool("guarded", requires_approval=True)]


# ------------------------------------------------------------------------------- readers


def _busy(lab: Lab) -> Agent[Any, Any]:
    """An agent that does a bit of everything, with a child in the middle."""
    inner = Agent(
        lab.model(says("Thinking. ") + calls("ask"), "Inner.", name="inner"), name="inner", tools=[lab.asker("ask")]
    )
    script = says("Let me see. ") + calls("inner", prompt="x") + calls("one")
    return Agent(lab.model(script, "All done."), tools=[inner.as_tool(), lab.tool("one")])


def _leaves_after(count: int) -> None:
    async def play(lab: Lab) -> None:
        async with lab.stream(_busy(lab)) as stream:
            if count:
                async for event in stream:
                    if isinstance(event, ElicitationRequested):
                        stream.answer(event.id, echo(event))
                    if len(stream.events) == count:
                        break

    name = f"reader-leaves-after-{count}"
    SCENARIOS[name] = partial(AgentScenario, name, play, ends("cancelled"))


for _count in (0, 1, 2, 4, 7, 11, 15, 20):
    _leaves_after(_count)


@scenario(ends("cancelled"))
async def reader_raises(lab: Lab) -> None:
    try:
        async with lab.stream(_busy(lab)) as stream:
            async for event in stream:
                if isinstance(event, ToolCallStarted):
                    raise KeyError("the reader's own")
    except KeyError:
        pass


@scenario(ends("cancelled"))
async def reader_runs_out_of_time(lab: Lab) -> None:
    agent = Agent(lab.model(says("One ") + hangs()))
    with trio.move_on_after(5):
        async with lab.stream(agent) as stream:
            await stream.drain()


@scenario(ends("completed"))
async def slow_reader(lab: Lab) -> None:
    agent = Agent(lab.model(says("x" * 200, piece=1), calls("one"), "Done."), tools=[lab.tool("one")])
    async with lab.stream(agent) as stream:
        async for event in stream:
            if isinstance(event, TextDelta) and event.seq % 16 == 0:
                await trio.sleep(1)


@scenario(ends("cancelled"))
async def reader_stalls_and_stops(lab: Lab) -> None:
    agent = Agent(lab.model(says("x" * 100, piece=1)), deadlines=Deadlines(idle=10))
    async with lab.stream(agent) as stream:
        await stream.__anext__()
        await trio.sleep(1000)
        stream.stop()
        # The buffer is full, and stays full until the stream has ended.
        await trio.sleep(1)
        await stream.drain()


@scenario(ends("cancelled"))
async def stopped_in_a_later_turn(lab: Lab) -> None:
    agent = Agent(lab.model(calls("one"), calls("one"), "never"), tools=[lab.tool("one")])
    async with lab.stream(agent) as stream:
        async for event in stream:
            if isinstance(event, TurnStarted) and event.turn == 3:
                stream.stop("two turns are enough")


@scenario(ends("completed"))
async def waits_instead_of_reading(lab: Lab) -> None:
    agent = Agent(lab.model(says("x" * 100, piece=1), calls("one"), "Done."), tools=[lab.tool("one")])
    async with lab.stream(agent) as stream:
        await stream.__anext__()
        await stream.stream.wait()


# -------------------------------------------------------------------- several at a time


@scenario(ends("completed"))
async def overlapping_streams_end_in_the_order_they_began(lab: Lab) -> None:
    """A starts, B starts, A ends, B ends: what a save-and-restore slot gets wrong."""
    first_ended, second_asked = trio.Event(), trio.Event()
    first = Agent(lab.model(calls("ask"), "First.", name="first"), name="first", tools=[lab.asker("ask")])
    second = Agent(lab.model(calls("ask"), "Second.", name="second"), name="second", tools=[lab.asker("ask")])

    async def run_first() -> None:
        try:
            async with lab.stream(first, name="A") as stream:
                async for event in stream:
                    if isinstance(event, ElicitationRequested):
                        await second_asked.wait()
                        stream.answer(event.id, echo(event))
        finally:
            first_ended.set()

    async def run_second() -> None:
        try:
            async with lab.stream(second, name="B") as stream:
                async for event in stream:
                    if isinstance(event, ElicitationRequested):
                        second_asked.set()
                        await first_ended.wait()
                        stream.answer(event.id, echo(event))
        finally:
            second_asked.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_first)
        nursery.start_soon(run_second)


@scenario(ends("completed"))
async def a_tool_reads_its_child(lab: Lab) -> None:
    inner = Agent(
        lab.model(says("One two three. ") + calls("ask"), "Inner.", name="inner"),
        name="inner",
        tools=[lab.asker("ask")],
    )

    async def delegate(context: ToolContext[Any]) -> object:
        async with context.stream(inner, "go") as child:
            async for _event in child:
                await trio.lowlevel.checkpoint()
            return child.result.output

    agent = Agent(lab.model(calls("delegate"), "Done."), tools=[lab.tool("delegate", delegate)])
    async with lab.stream(agent) as stream:
        await stream.drain(answer=echo)


@scenario(ends("completed"))
async def a_tool_leaves_its_child(lab: Lab) -> None:
    """The early return in a nested stream; the outer asker must still be answered afterwards."""
    inner = Agent(lab.model(calls("ask"), "never", name="inner"), name="inner", tools=[lab.asker("ask")])

    async def delegate(context: ToolContext[Any]) -> object:
        async with context.stream(inner, "go") as child:
            async for event in child:
                if isinstance(event, ElicitationRequested):
                    break
        return "left it"

    tools = [lab.tool("delegate", delegate), lab.asker("after")]
    agent = Agent(lab.model(calls("delegate"), calls("after"), "Done."), tools=tools)
    async with lab.stream(agent) as stream:
        async for event in stream:
            if isinstance(event, ElicitationRequested) and event.message.startswith("after"):
                stream.answer(event.id, echo(event))


@scenario(ends("completed"))
async def a_tool_stops_one_child_of_two(lab: Lab) -> None:
    inner = [
        Agent(lab.model(says("Go. ") + hangs(), name=name), name=name, deadlines=Deadlines(idle=10))
        for name in ("left", "right")
    ]

    async def delegate(context: ToolContext[Any]) -> object:
        outcomes: list[Outcome] = []

        async def run(agent: Agent, *, stop: bool) -> None:
            try:
                async with context.stream(agent, "go") as child:
                    async for event in child:
                        if stop and isinstance(event, TextDelta):
                            child.stop("that is enough")
                    outcomes.append(child.outcome)
            except AgentLoopError:
                pass

        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(run, inner[0], stop=True))
            nursery.start_soon(partial(run, inner[1], stop=False))
        return repr([outcome.reason for outcome in outcomes])

    agent = Agent(lab.model(calls("delegate"), "Done."), tools=[lab.tool("delegate", delegate)])
    async with lab.stream(agent) as stream:
        await stream.drain()


@scenario(ends("completed"))
async def an_agent_inside_itself(lab: Lab) -> None:
    async def delegate(context: ToolContext[Any]) -> object:
        return (await context.run(agent, "go")).output

    agent = Agent(lab.model(calls("delegate"), "Done."), tools=[lab.tool("delegate", delegate)])
    async with lab.stream(agent) as stream:
        await stream.drain()


# ------------------------------------------------------------------- stores and sessions


@scenario(ends("completed"))
async def two_streams_on_one_session(lab: Lab) -> None:
    session = Session("kept")
    inner = Agent(lab.model("Inner.", name="inner"), name="inner")
    agent = Agent(lab.model(calls("inner", prompt="x"), "One.", "Two."), tools=[inner.as_tool()])
    for name in ("A", "B"):
        async with lab.stream(agent, name=name, session=session) as stream:
            await stream.drain()


@scenario(ends("completed"))
async def a_busy_session_is_refused(lab: Lab) -> None:
    session = Session("busy")
    agent = Agent(lab.model("One.", "Two."))
    async with lab.stream(agent, session=session) as stream:
        try:
            async with lab.stream(agent, name="B", session=session):
                lab.watch.note("two streams run on one session")
        except AgentLoopError:
            pass
        await stream.drain()
    async with lab.stream(agent, name="C", session=session) as stream:
        await stream.drain()


# ---------------------------------------------------------------------------- compaction


def _long(lab: Lab, *script: Response | str) -> Agent[Any, Any]:
    """An agent whose conversation gets too long after its first turn."""
    long = says("bla " * 500, piece=2000) + calls("one")
    long = msgspec.structs.replace(long, usage=Usage(input_tokens=10, output_tokens=450))
    return Agent(
        lab.model(long, *script),
        tools=[lab.tool("one")],
        hooks=[lab.hook(hooks.pre_compact), lab.hook(hooks.post_compact)],
        compaction=Compaction(window=500, keep_recent=0.01),
    )


@on_depths("completed", tells=CompactionFinished)
def compaction(lab: Lab) -> Agent[Any, Any]:
    return _long(lab, "They said bla.", "Done.")


@on_depths("completed", tells=CompactionFinished)
def compaction_fails(lab: Lab) -> Agent[Any, Any]:
    return _long(lab, says("They") + fails(ModelConnectionError("gone")), "Done.")


@on_depths("completed", tells=CompactionFinished)
def overflow_is_recovered(lab: Lab) -> Agent[Any, Any]:
    overflow = ModelContextOverflowError(model="model", status=400, body="too long")
    # The first turn is long, and is summed up; the second one stays.
    turns = (says("bla " * 500, piece=2000) + calls("one"), calls("one"))
    model = lab.model(*turns, fails(overflow), "They said bla.", "Done.")
    return Agent(model, tools=[lab.tool("one")], compaction=Compaction(window=100_000))


# ------------------------------------------------------------- going on without a prompt


@scenario(ends("limit"))
async def gone_on_without_a_prompt_after_a_limit(lab: Lab) -> None:
    """A run ends at its limit; a person says something to the session; the next run goes on without a prompt."""
    session = Session()
    tools = [lab.tool("one")]
    model = lab.model(calls("one"), calls("one"), "Done.")
    limited = Agent(model, tools=tools, limits=Limits(turns=1))
    async with lab.stream(limited, session=session, on_question="decline") as stream:
        await stream.drain()
    # If a fault struck, the run may have ended with its answer, or before its prompt.
    if session.may_continue:
        session.steer("And be quick.")
        async with lab.stream(Agent(model, tools=tools), None, name="B", session=session) as stream:
            await stream.drain()


# ------------------------------------------------------------------- the model of a turn


def _ruled(lab: Lab, *choices: Any) -> Agent[Any, Any]:
    """An agent whose rule passes a seam, and gives one choice after another."""

    async def rule(info: RunInfo[Any]) -> Any:
        await lab.sim.seam("rule")
        return choices[min(info.turn, len(choices)) - 1]

    tools = [lab.tool("one"), lab.tool("two", model="fast")]
    return Agent(
        lab.model(calls("one"), "Done.", name="main"),
        tools=tools,
        models={"fast": lab.model(calls("one"), name="quick")},
        choose_model=rule,
        fallbacks=[lab.model("Spared.", name="spare")],
        retries=Retries(attempts=1),
    )


@on_depths("completed")
def models_by_tool_and_by_rule(lab: Lab) -> Agent[Any, Any]:
    return _ruled(lab, lab.model(calls("two"), name="first"), None, ModelChoice(reasoning_effort="low"))


@on_depths("completed")
def a_chosen_model_fails_and_the_fallback_answers(lab: Lab) -> Agent[Any, Any]:
    return _ruled(lab, None, lab.model(fails(ModelConnectionError("gone")), name="broken"))


@on_depths("failed")
def a_rule_gives_no_model(lab: Lab) -> Agent[Any, Any]:
    return _ruled(lab, None, 7)


# ------------------------------------------------------------------------------ steering


def _steered(lab: Lab, *guards: Hook) -> Agent[Any, Any]:
    tools = [lab.tool("one")]
    return Agent(lab.model(calls("one"), "First.", "Second.", "Third."), tools=tools, hooks=guards)


@scenario(ends("completed"))
async def steered_and_followed_up(lab: Lab) -> None:
    hooked = [lab.hook(hooks.user_steering_messages_submit), lab.hook(hooks.user_followup_submit)]
    async with lab.stream(_steered(lab, *hooked)) as stream:
        stream.stream.follow_up("And then?")
        async for event in stream:
            if isinstance(event, ToolCallStarted):
                # If a fault struck, the run may have come to its end before its reader.
                with suppress(StreamStateError):
                    stream.stream.steer("Quick.")


@scenario(ends("blocked"))
async def steering_hook_refuses(lab: Lab) -> None:
    refuse = lab.hook(hooks.user_steering_messages_submit, Block("not now"))
    async with lab.stream(_steered(lab, refuse)) as stream:
        stream.stream.steer("Quick.")
        await stream.drain()


@scenario(ends("blocked"))
async def follow_up_hook_refuses(lab: Lab) -> None:
    refuse = lab.hook(hooks.user_followup_submit, Block("not now"))
    async with lab.stream(_steered(lab, refuse)) as stream:
        stream.stream.follow_up("And then?")
        await stream.drain()
