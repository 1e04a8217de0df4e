"""Scenarios of tool calls, toolsets, hooks and models: several waits at once, slots, and starts that fail."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import trio

from agentloop import hooks
from agentloop.agent import Agent
from agentloop.context import ToolContext
from agentloop.errors import AgentLoopError, ModelConnectionError, ModelRateLimitError, ToolError
from agentloop.events import (
    ApprovalRequested,
    ContinueRequested,
    ElicitationRequested,
    Question,
    ToolCallFinished,
    ToolCallStarted,
)
from agentloop.hooks import Allow, Ask, Context, Hook, ReplaceResult
from agentloop.limits import Deadlines, Limits, Price, Retries
from agentloop.messages import Text, ToolResult, Usage, UserMessage
from agentloop.models import ModelRequest
from agentloop.questions import Accept, Answer, Approve, Deny
from agentloop.testing._lab import Lab, Recorded, echo
from agentloop.testing.harness.registry import ends, on_depths, scenario
from agentloop.testing.scripted import Response, calls, fails, says, thinks
from agentloop.testing.simulation import ClockRaise
from agentloop.tools import OpenToolset, Tool, tool

__all__: list[str] = []

FORM: dict[str, Any] = {"type": "object", "properties": {"tag": {"type": "string"}}, "required": ["tag"]}


# ------------------------------------------------------------------- several waits in one call


def _asks_several(lab: Lab, *names: str) -> Tool:
    """A tool that asks several questions at once."""

    async def several(context: ToolContext[Any]) -> str:
        async def ask(name: str) -> None:
            message = f"{name} of {context.source.session}"
            answer = await context.ask(message, FORM)
            lab.received[message] = answer

        async with trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(ask, name)
        return "asked"

    return lab.tool("several", several)


@on_depths("completed")
def two_questions_in_one_call(lab: Lab) -> Agent:
    return Agent(lab.model(calls("several"), "Done."), tools=[_asks_several(lab, "first", "second")])


async def _answer_youngest_first(stream: Recorded, scope: trio.CancelScope) -> None:
    with scope:
        while True:
            await trio.sleep(1)
            for question in reversed(stream.stream.pending):
                stream.answer(question.id, echo(question))
                await trio.sleep(1)


@scenario(ends("completed"))
async def the_younger_of_two_questions_in_one_call_is_answered_first(lab: Lab) -> None:
    agent = Agent(lab.model(calls("several"), "Done."), tools=[_asks_several(lab, "first", "second", "third")])
    answering = trio.CancelScope()
    async with trio.open_nursery() as nursery, lab.stream(agent) as stream:
        nursery.start_soon(_answer_youngest_first, stream, answering)  # noqa: ASYNC111 - it ends before the stream
        try:
            await stream.drain()
        finally:
            answering.cancel()


def _runs_several(lab: Lab, *agents: Agent) -> Tool:
    """A tool that runs several agents at once."""

    async def several(context: ToolContext[Any]) -> str:
        outputs: dict[str, object] = {}

        async def run(agent: Agent) -> None:
            try:
                outputs[agent.name] = (await context.run(agent, f"go, {agent.name}")).output
            except AgentLoopError as error:
                outputs[agent.name] = type(error).__name__

        async with trio.open_nursery() as nursery:
            for agent in agents:
                nursery.start_soon(run, agent)
        return repr(sorted(outputs.items()))

    return lab.tool("several", several)


@scenario(ends("completed"))
async def several_children_in_one_call(lab: Lab) -> None:
    """One that asks, one that works, and one that fails."""
    asks = Agent(lab.model(calls("ask"), "Asked.", name="asks"), name="asks", tools=[lab.asker("ask")])
    works = Agent(lab.model(calls("one"), "Worked.", name="works"), name="works", tools=[lab.tool("one")])
    broken = Agent(lab.model(fails(OSError("down")), name="broken"), name="broken")
    agent = Agent(lab.model(calls("several"), "Done."), tools=[_runs_several(lab, asks, works, broken)])
    async with lab.stream(agent) as stream:
        await stream.drain(answer=echo)


def _asked_in_call_order(lab: Lab) -> None:
    ends("completed")(lab)
    asked = [event.path[-1] for event in lab.recorded[0].events if isinstance(event, ElicitationRequested)]
    assert asked == ["left", "right"], asked


@scenario(_asked_in_call_order)
async def questions_of_children_come_in_the_order_of_their_calls(lab: Lab) -> None:
    """Both ask at one moment: the second call of the first child, and the first call of the second child."""
    left = Agent(
        lab.model(calls("one") + calls("ask"), "Left.", name="left"),
        name="left",
        tools=[lab.bare("one", _does_nothing), lab.asker("ask")],
    )
    right = Agent(lab.model(calls("ask"), "Right.", name="right"), name="right", tools=[lab.asker("ask")])
    script = calls("left", prompt="x") + calls("right", prompt="y")
    async with lab.stream(Agent(lab.model(script, "Done."), tools=[left.as_tool(), right.as_tool()])) as stream:
        await stream.drain(answer=echo)


async def _does_nothing(_context: ToolContext[Any]) -> str:  # noqa: ASYNC124 - a tool is async
    return "done"


@on_depths("completed", answer=None)
def a_question_that_nobody_answers_in_time(lab: Lab) -> Agent:
    return Agent(lab.model(calls("ask"), "Done."), tools=[lab.asker("ask", patience=5)])


@scenario(ends("completed"))
async def a_reader_that_only_waits_from_now_on_answers_nothing(lab: Lab) -> None:
    """The question that is open then is declined."""
    inner = Agent(lab.model(calls("ask"), "Inner.", name="inner"), name="inner", tools=[lab.asker("ask")])
    script = calls("ask") + calls("inner", prompt="x")
    async with lab.stream(Agent(lab.model(script, "Done."), tools=[lab.asker("ask"), inner.as_tool()])) as stream:
        async for event in stream:
            if isinstance(event, ElicitationRequested):
                await trio.sleep(1)
                break
        await stream.stream.wait()


# ------------------------------------------------------------------------------- slots


def _no_hang(lab: Lab) -> None:
    assert lab.recorded[0].stream.outcome.reason == "completed"


@scenario(_no_hang)
async def a_slot_is_held_two_levels_up(lab: Lab) -> None:
    """The call that waits for its own ancestor's slot gets a result, and does not wait for ever."""
    lowest = Agent(lab.model(calls("slot"), "Lowest.", name="lowest"), name="lowest")
    middle = Agent(lab.model(calls("lowest", prompt="x"), "Middle.", name="middle"), name="middle")
    runs: list[Agent] = []

    async def body(context: ToolContext[Any]) -> str:
        if len(context.source.agents) > 1:
            return "run twice"
        return str((await context.run(runs[0], "go")).output)

    slot = lab.tool("slot", body, concurrency=1, timeout=float("inf"))
    lowest = Agent(lowest.model, name="lowest", tools=[slot])
    middle = Agent(middle.model, name="middle", tools=[lowest.as_tool()])
    runs.append(middle)
    async with lab.stream(Agent(lab.model(calls("slot"), "Done."), tools=[slot])) as stream:
        await stream.drain(answer=echo)


@scenario(_no_hang)
async def a_slot_is_waited_for_by_a_call_beside(lab: Lab) -> None:
    """Three calls of two agents share one slot, and one of them asks while it has the slot."""
    tools = [lab.asker("ask", concurrency=1), lab.tool("one", concurrency=2)]
    left = Agent(lab.model(calls("ask") + calls("one"), "Left.", name="left"), name="left", tools=tools)
    script = calls("left", prompt="x") + calls("ask") + calls("one") + calls("one")
    async with lab.stream(Agent(lab.model(script, "Done."), tools=[*tools, left.as_tool()])) as stream:
        running = 0
        async for event in stream:
            running = len([question for question in stream.stream.pending if "ask" in getattr(question, "message", "")])
            if running > 1:
                lab.watch.note("two calls of a tool with one slot ask at once")
            stream.reply(event, echo)


@scenario(_no_hang)
async def two_tools_of_one_name_have_slots_of_their_own(lab: Lab) -> None:
    inner = Agent(
        lab.model(calls("slot"), "Inner.", name="inner"), name="inner", tools=[lab.tool("slot", concurrency=1)]
    )

    async def body(context: ToolContext[Any]) -> str:
        return str((await context.run(inner, "go")).output)

    slot = lab.tool("slot", body, concurrency=1, timeout=float("inf"))
    async with lab.stream(Agent(lab.model(calls("slot"), "Done."), tools=[slot])) as stream:
        await stream.drain()


@scenario(_no_hang)
async def a_slot_is_free_again_after_its_call_was_cut_off(lab: Lab) -> None:
    async def hang(context: ToolContext[Any]) -> str:
        if len(context.source.agents) > 1:
            await trio.sleep_forever()
        return "done"

    slot = lab.tool("slot", hang, concurrency=1, timeout=float("inf"))
    inner = Agent(lab.model(calls("slot"), "never", name="inner"), name="inner", tools=[slot])

    async def leave(context: ToolContext[Any]) -> str:
        async with context.stream(inner, "go"):
            await trio.sleep(1)
        return "left"

    tools = [slot, lab.tool("leave", leave)]
    async with lab.stream(Agent(lab.model(calls("leave"), calls("slot"), "Done."), tools=tools)) as stream:
        await stream.drain()


def _all_interrupted(lab: Lab) -> None:
    ends("cancelled")(lab)
    finished = [event for event in lab.recorded[0].events if isinstance(event, ToolCallFinished)]
    assert [event.result.status for event in finished] == ["interrupted"] * 3, finished


@scenario(_all_interrupted)
async def plain_tools_are_stopped_together(lab: Lab) -> None:
    @tool
    async def wait(seconds: int) -> str:
        """Wait."""
        await trio.sleep(seconds)
        return "waited"

    script = calls("wait", seconds=50) + calls("wait", seconds=60) + calls("wait", seconds=70)
    async with lab.stream(Agent(lab.model(script, "never"), tools=[wait])) as stream:
        async for event in stream:
            if isinstance(event, ToolCallStarted):
                await trio.sleep(1)
                stream.stop()


@on_depths("completed")
def plain_tools_time_out_together(lab: Lab) -> Agent:
    @tool
    async def wait(seconds: int) -> str:
        """Wait."""
        await trio.sleep(seconds)
        return "waited"

    script = calls("wait", seconds=5) + calls("wait", seconds=600)
    return Agent(lab.model(script, "Done."), tools=[wait], deadlines=Deadlines(tool=50))


# ---------------------------------------------------------------------------- the context


class _Row(msgspec.Struct):
    """A form."""

    tag: str


@on_depths("completed")
def a_tool_uses_all_of_its_context(lab: Lab) -> Agent:
    async def all_of_it(context: ToolContext[Any]) -> str:
        await context.progress(1, total=3, message="one of three")
        await context.output("some output")
        if context.recall("step", int) is None:
            await context.remember("step", 1)
        if context.recall("step", int) != 1:
            lab.watch.note("what was remembered is not recalled")
        with context.paused_deadline():
            await trio.sleep(1000)
        context.restart_deadline(at_most=30)
        code = "of_a_tool"
        context.warn(code, "this took its time")
        await context.record_start()
        message = f"row of {context.source.session}"
        answer = await context.ask_for(message, _Row)
        if isinstance(answer, _Row):
            lab.received[message] = Accept({"tag": answer.tag})
        message = f"page of {context.source.session}"
        lab.received[message] = await context.ask_url(message, "https://example.org/sign-in")
        said = await context.ask_model(ModelRequest((UserMessage((Text("Sum it up."),)),)))
        return said.text

    return Agent(lab.model(calls("all"), "A summary.", "Done."), tools=[lab.tool("all", all_of_it)])


@on_depths("completed")
def a_generator_tool_and_a_tool_that_polls(lab: Lab) -> Agent:
    @tool
    async def pieces(count: int) -> AsyncGenerator[str]:  # noqa: ASYNC900, ASYNC911 - as users write them
        """Give some pieces."""
        for number in range(count):
            await lab.sim.seam("pieces")
            yield f"{number}"

    script: list[Response | str] = [calls("pieces", count=3), *[calls("poll")] * 6, "Done."]
    return Agent(lab.model(*script), tools=[pieces, lab.tool("poll", polling=True)])


@on_depths("completed")
def a_tool_of_many_parameters(lab: Lab) -> Agent:
    @tool
    async def book(
        name: str,
        seats: int = 1,
        price: float | None = None,
        tags: list[str] | None = None,
        row: _Row | None = None,
        extra: dict[str, int] | None = None,
    ) -> dict[str, Any]:
        """Book seats.

        Args:
          name: whose.
          seats: how many.
        """
        await lab.sim.seam("book")
        return {"name": name, "seats": seats, "row": row and row.tag}

    script = calls("book", name="Ann", seats=2, tags=["a"], row={"tag": "x"}, extra={"n": 1}, price=1.5)
    wrong = calls("book") + calls("book", name=3) + calls("book", name="Bo", more=1) + calls("book", raw="[1]")
    return Agent(lab.model(script, wrong, "Done."), tools=[book])


@on_depths("completed")
def a_long_result_is_read_in_parts(lab: Lab) -> Agent:
    async def long(_context: ToolContext[Any]) -> str:
        await trio.lowlevel.checkpoint()
        return "line\n" * 400

    script: list[Response | str] = [calls("long", id="c1"), calls("read_result", call_id="c1"), "Done."]
    return Agent(lab.model(*script), tools=[lab.bare("long", long)], max_result=200)


@on_depths("completed")
def tools_report_errors_of_every_kind(lab: Lab) -> Agent:
    async def refuses(_context: ToolContext[Any]) -> object:
        await lab.sim.seam("refuses")
        raise ToolError("there is no such order")

    async def strange(_context: ToolContext[Any]) -> object:
        await lab.sim.seam("strange")
        return object()

    async def group(_context: ToolContext[Any]) -> object:
        await lab.sim.seam("group")
        raise ExceptionGroup("several", [ValueError("one"), OSError("two")])

    tools = [lab.bare("refuses", refuses), lab.bare("strange", strange), lab.bare("group", group), lab.tool("one")]
    script = calls("refuses") + calls("strange") + calls("group") + calls("one")
    return Agent(lab.model(script, "Done."), tools=tools)


# ---------------------------------------------------------------------------------- hooks


@on_depths("completed")
def hooks_that_take_their_time(lab: Lab) -> Agent:
    def slow(point: Any) -> Hook:
        async def run(_value: object) -> None:
            await lab.sim.seam(f"hook:{point.name}")
            await trio.sleep(25)

        made: Hook = point()(run)
        return made

    points = (hooks.session_start, hooks.user_prompt_submit, hooks.turn_start, hooks.pre_tool_use, hooks.post_tool_use)
    return Agent(lab.model(calls("one"), "Done."), tools=[lab.tool("one")], hooks=[slow(point) for point in points])


@on_depths("completed")
def hooks_that_add_and_change(lab: Lab) -> Agent:
    @hooks.post_tool_use
    async def replace(used: hooks.PostToolUse) -> ReplaceResult:
        await lab.sim.seam("hook:replace")
        return ReplaceResult(ToolResult(used.call_id, used.name, (Text("replaced"),)))

    made = [
        lab.hook(hooks.session_start, Context("Be brief.")),
        lab.hook(hooks.user_prompt_submit, Context("It is Monday.")),
        lab.hook(hooks.turn_start, Context("A turn.")),
        lab.hook(hooks.pre_tool_use, Ask("is that so?")),
        lab.hook(hooks.on_tool_approval_decision),
        replace,
    ]
    return Agent(lab.model(calls("one"), "Done."), tools=[lab.tool("one")], hooks=made, instructions="Help.")


def _as_the_hook_said(lab: Lab) -> None:
    ends("completed")(lab)
    results = [event.result for event in lab.recorded[0].events if isinstance(event, ToolCallFinished)]
    assert [(result.status, result.text) for result in results] == [("error", "hidden"), ("ok", "shown")], results


@scenario(_as_the_hook_said)
async def a_hook_replaces_results_and_how_they_ended(lab: Lab) -> None:
    @hooks.post_tool_use
    async def replace(used: hooks.PostToolUse) -> ReplaceResult:
        await lab.sim.seam("hook:replace")
        if used.name == "one":
            return ReplaceResult(ToolResult(used.call_id, used.name, (Text("hidden"),), "error"))
        return ReplaceResult(ToolResult(used.call_id, used.name, (Text("shown"),)))

    async def fail(_context: ToolContext[Any]) -> object:
        await lab.sim.seam("fail")
        raise ValueError("no")

    tools = [lab.tool("one"), lab.bare("two", fail)]
    agent = Agent(lab.model(calls("one"), calls("two"), "Done."), tools=tools, hooks=[replace])
    async with lab.stream(agent) as stream:
        await stream.drain()


@on_depths("completed")
def a_hook_allows_and_an_observing_hook_fails(lab: Lab) -> Agent:
    @hooks.turn_end
    async def broken(_ended: hooks.TurnEnd) -> None:
        await lab.sim.seam("hook:broken")
        raise ValueError("the hook is broken")

    @hooks.session_end
    async def hangs_on(_ended: hooks.SessionEnd) -> None:
        await trio.sleep_forever()

    guard = lab.hook(hooks.pre_tool_use, Allow())
    tools = [lab.tool("guarded", requires_approval=True)]
    return Agent(lab.model(calls("guarded"), "Done."), tools=tools, hooks=[guard, broken, hangs_on])


@scenario(ends("completed"))
async def a_hook_hears_of_each_child_that_stops(lab: Lab) -> None:
    stopped: list[object] = []

    @hooks.subagent_stop
    def note(child: hooks.SubagentStop) -> None:
        stopped.append(child.child)

    hook = hooks.subagent_stop()(_as_async(note.function))
    well = Agent(lab.model("Inner.", name="well"), name="well")
    ill = Agent(lab.model(fails(OSError("down")), name="ill"), name="ill")
    script = calls("well", prompt="x") + calls("ill", prompt="y")
    agent = Agent(lab.model(script, "Done."), tools=[well.as_tool(), ill.as_tool()], hooks=[hook])
    try:
        async with lab.stream(agent) as stream:
            await stream.drain()
    finally:
        children = [run for run in lab.watch.runs if run.parent is not None]
        if len(stopped) != len(children) and not lab.sim.injection:
            lab.watch.note(f"{len(children)} children stopped, and a hook heard of {len(stopped)}")


def _as_async(function: Callable[[Any], object]) -> Callable[[Any], Any]:
    async def run(value: Any) -> None:
        await trio.lowlevel.checkpoint()
        function(value)

    return run


@on_depths("failed")
def a_start_hook_hangs(lab: Lab) -> Agent:
    @hooks.session_start
    async def hang(_start: hooks.SessionStart) -> None:
        await trio.sleep_forever()

    async def broken(_source: Any) -> Any:
        await lab.sim.seam("instructions")
        raise ValueError("no instructions today")

    instructions: Any = broken
    return Agent(lab.model("never"), hooks=[hang], instructions=instructions, deadlines=Deadlines(hook=5))


# -------------------------------------------------------------------------------- toolsets


class _Orderly:
    """A toolset that needs a second to start and a second to stop, and notes when it is used out of order."""

    def __init__(self, lab: Lab, name: str, *, fails: bool = False, tools: tuple[str, ...] = ()) -> None:
        self.name = name
        self._lab = lab
        self._fails = fails
        self._tools = tools or (f"{name}_tool",)
        self.is_open = False
        self.running = 0
        self.instructions = f"{name} is there."
        self.problems = [f"{name} has a tool without a name"]

    def open(self) -> Any:
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[OpenToolset]:
        await self._lab.sim.seam(f"toolset:{self.name}")
        await trio.sleep(1)
        if self._fails:
            raise OSError("the server did not start")
        self.is_open = True
        try:
            yield self
        finally:
            if self.running:
                self._lab.watch.note(f"toolset {self.name} stops while {self.running} of its calls run")
            try:
                await trio.sleep(1)  # noqa: ASYNC102 - that the runtime lets it is the point
            except trio.Cancelled:
                if not isinstance(self._lab.sim.fault, ClockRaise):
                    self._lab.watch.note(f"toolset {self.name} was cut off while it stopped in order")
                raise
            finally:
                self.is_open = False

    async def list_tools(self) -> list[Tool]:
        if not self.is_open:
            self._lab.watch.note(f"toolset {self.name} lists its tools, and is not open")
        await self._lab.sim.seam(f"toolset:{self.name}:list")
        return [self._lab.tool(name, self._call) for name in self._tools]

    async def _call(self, _context: ToolContext[Any]) -> str:
        if not self.is_open:
            self._lab.watch.note(f"a tool of toolset {self.name} runs, and the toolset is not open")
        self.running += 1
        try:
            await trio.sleep(1)
        finally:
            self.running -= 1
        return "done"


@on_depths("completed")
def toolsets_stop_in_order(lab: Lab) -> Agent:
    script = calls("a_tool") + calls("b_tool")
    toolsets = [_Orderly(lab, "a"), _Orderly(lab, "b")]
    return Agent(lab.model(script, "Done."), toolsets=toolsets, tools=[lab.tool("own")])


@on_depths("failed")
def one_toolset_of_two_fails_to_start(lab: Lab) -> Agent:
    return Agent(lab.model("never"), toolsets=[_Orderly(lab, "a"), _Orderly(lab, "b", fails=True)])


@on_depths("failed")
def two_toolsets_have_a_tool_of_one_name(lab: Lab) -> Agent:
    return Agent(lab.model("never"), toolsets=[_Orderly(lab, "a", tools=("x",)), _Orderly(lab, "b", tools=("x",))])


@scenario(ends("cancelled"))
async def stopped_while_a_toolset_works(lab: Lab) -> None:
    agent = Agent(lab.model(calls("a_tool"), "never"), toolsets=[_Orderly(lab, "a")])
    async with lab.stream(agent) as stream:
        async for event in stream:
            if type(event).__name__ == "ToolCallStarted":
                stream.stop("enough")


class _Dying(_Orderly):
    """A toolset that dies while the run is under way."""

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[OpenToolset]:
        await self._lab.sim.seam(f"toolset:{self.name}")
        async with trio.open_nursery() as nursery:
            self.is_open = True

            async def die() -> None:
                await trio.sleep(5)
                raise OSError("the server has died")

            nursery.start_soon(die)
            yield self
            nursery.cancel_scope.cancel()


@on_depths("failed")
def a_toolset_dies_under_way(lab: Lab) -> Agent:
    async def long(_context: ToolContext[Any]) -> str:
        await trio.sleep(10)
        return "done"

    return Agent(lab.model(calls("long"), "never"), toolsets=[_Dying(lab, "a")], tools=[lab.tool("long", long)])


# ---------------------------------------------------------------------------------- models


class _Opened:
    """A model that holds a connection while a run uses it."""

    def __init__(self, lab: Lab, name: str, *script: Response | str, fails: str = "") -> None:
        self._lab = lab
        self._model = lab.model(*script, name=name)
        self._fails = fails
        self.name = name
        self.is_open = 0

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Any]:
        await self._lab.sim.seam(f"open:{self.name}")
        if self._fails == "open":
            raise OSError("no route")
        self.is_open += 1
        try:
            yield self
        finally:
            self.is_open -= 1
        await self._lab.sim.seam(f"close:{self.name}")
        if self._fails == "close":
            raise OSError("closed already")

    async def respond(self, request: ModelRequest, reply: Any, /) -> Any:
        if not self.is_open:
            self._lab.watch.note(f"model {self.name} is asked, and is not open")
        return await self._model.respond(request, reply)


@on_depths("completed")
def models_are_opened_and_closed(lab: Lab) -> Agent:
    first = _Opened(lab, "first", "never", fails="open")
    second = _Opened(lab, "second", calls("one"), "Done.", fails="close")
    return Agent(first, fallbacks=[second], tools=[lab.tool("one")])


@on_depths("failed")
def no_model_can_be_opened(lab: Lab) -> Agent:
    return Agent(_Opened(lab, "first", fails="open"))


def _with_usage(response: Response, *, reported: int = 0, used: int = 0) -> Response:
    return msgspec.structs.replace(
        response, reported=Usage(input_tokens=reported), usage=Usage(input_tokens=used, output_tokens=used)
    )


@on_depths("completed")
def usage_of_failed_responses_counts(lab: Lab) -> Agent:
    broken = says("I was") + fails(ModelConnectionError("the connection dropped"))
    inner = Agent(
        lab.model(_with_usage(broken, reported=3), _with_usage(says("Inner."), reported=4, used=7), name="inner"),
        name="inner",
    )
    script = _with_usage(thinks("Hm. ") + calls("inner", prompt="x"), reported=2, used=11)
    return Agent(
        lab.model(_with_usage(broken, reported=5), script, "Done."),
        tools=[inner.as_tool()],
        prices={"model": Price(1.0, 2.0)},
        limits=Limits(cost=10),
    )


@on_depths("completed")
def usage_is_estimated_for_a_limit(lab: Lab) -> Agent:
    broken = says("I was about to say") + fails(ModelConnectionError("the connection dropped"))
    silent = _with_usage(calls("one"))
    return Agent(lab.model(broken, silent, "Done."), tools=[lab.tool("one")], limits=Limits(tokens=100_000))


@on_depths("completed", answer=lambda question: Approve())
def tool_calls_and_requests_past_their_limits(lab: Lab) -> Agent:
    limits = Limits(tool_calls=1, requests=2, turns=2)
    script = calls("one") + calls("one") + calls("one")
    return Agent(lab.model(script, calls("one"), "Done."), tools=[lab.tool("one")], limits=limits)


@on_depths("limit", answer=lambda question: Deny("enough") if isinstance(question, ContinueRequested) else None)
def too_many_tool_calls_are_refused(lab: Lab) -> Agent:
    limits = Limits(tool_calls=2)
    return Agent(lab.model(calls("one"), calls("one") + calls("one"), "never"), tools=[lab.tool("one")], limits=limits)


@on_depths("completed")
def empty_and_cut_off_responses(lab: Lab) -> Agent:
    script: list[Response | str] = [
        calls("one"),
        says("  "),
        says("I was cut", stop="length"),
        thinks("only thoughts"),
        "Done.",
    ]
    return Agent(lab.model(*script), tools=[lab.tool("one")])


@scenario(ends("completed"))
async def a_model_that_failed_is_left_alone_by_the_next_run(lab: Lab) -> None:
    overloaded = fails(ModelRateLimitError(model="first", status=429, body="later", retry_after=90))
    first = lab.model(overloaded, "First.", name="first")
    second = lab.model("Second.", "Third.", name="second")
    agent = Agent(first, fallbacks=[second], retries=Retries(attempts=1))
    for name in ("A", "B"):
        async with lab.stream(agent, name=name) as stream:
            await stream.drain()
        await trio.sleep(100)


# ------------------------------------------------------------------------------ two levels


@scenario(ends("completed"))
async def every_child_of_a_child_is_asked_in_its_own_name(lab: Lab) -> None:
    lowest = [
        Agent(lab.model(calls("ask"), "Lowest.", name=name), name=name, tools=[lab.asker("ask")])
        for name in ("left", "right")
    ]
    script = calls("left", prompt="x") + calls("right", prompt="y")
    tools = [agent.as_tool() for agent in lowest]
    middle = Agent(lab.model(script, "Middle.", name="middle"), name="middle", tools=tools)
    agent = Agent(lab.model(calls("middle", prompt="z"), "Done."), tools=[middle.as_tool()])
    async with lab.stream(agent) as stream:
        paths: list[tuple[str, ...]] = []

        def answer(question: Question) -> Answer:
            if isinstance(question, ElicitationRequested):
                paths.append(question.path)
            return echo(question)

        await stream.drain(answer=answer)
        if not lab.sim.injection and sorted(paths) != [("agent", "middle", "left"), ("agent", "middle", "right")]:
            lab.watch.note(f"the questions came from {paths}")


# ------------------------------------------------------------------------ approvals and hooks


def _asked_once(lab: Lab) -> None:
    ends("completed")(lab)
    asked = [event for event in lab.recorded[0].events if isinstance(event, ContinueRequested)]
    assert len(asked) == 1, asked


@scenario(_asked_once)
async def many_calls_past_a_limit_are_one_question(lab: Lab) -> None:
    script = calls("one") + calls("one") + calls("one") + calls("one") + calls("one")
    agent = Agent(lab.model(script, "Done."), tools=[lab.tool("one")], limits=Limits(tool_calls=1))
    async with lab.stream(agent) as stream:
        await stream.drain(answer=lambda question: Approve())


def _asked_for_approval(lab: Lab) -> None:
    ends("completed")(lab)
    asked = [event for event in lab.recorded[0].events if isinstance(event, ApprovalRequested)]
    assert [event.arguments for event in asked] == [{"tag": "new"}], asked


@scenario(_asked_for_approval)
async def what_a_hook_allowed_is_asked_about_when_another_replaces_it(lab: Lab) -> None:
    allow = lab.hook(hooks.pre_tool_use, Allow())
    replace = lab.hook(hooks.pre_tool_use, hooks.ReplaceArguments({"tag": "new"}))
    tools = [lab.tool("guarded", requires_approval=True)]
    agent = Agent(lab.model(calls("guarded", tag="old"), "Done."), tools=tools, hooks=[allow, replace])
    async with lab.stream(agent) as stream:
        await stream.drain(answer=echo)


@scenario(ends("completed"))
async def a_tool_gets_the_arguments_that_a_person_approved(lab: Lab) -> None:
    got: list[str] = []

    @tool(requires_approval=True)
    async def pay(to: str) -> str:
        """Pay."""
        await lab.sim.seam("pay")
        got.append(to)
        return to

    agent = Agent(lab.model(calls("pay", to="Bob"), "Done."), tools=[pay])
    async with lab.stream(agent) as stream:
        await stream.drain(answer=lambda question: Approve(arguments={"to": "Ann"}))
    if "Bob" in got:
        lab.watch.note("a tool ran with arguments that no person had approved")


@scenario(ends("completed"))
async def each_hook_at_the_end_has_its_own_time(lab: Lab) -> None:
    called: list[str] = []

    @hooks.session_end
    async def hangs_on(_ended: hooks.SessionEnd) -> None:
        await trio.sleep_forever()

    @hooks.session_end
    async def writes(_ended: hooks.SessionEnd) -> None:
        await trio.sleep(1)
        called.append("writes")

    agent = Agent(lab.model("Done."), hooks=[hangs_on, writes])
    async with lab.stream(agent) as stream:
        await stream.drain()
    if not called and lab.sim.injection is None:
        lab.watch.note("a hook at the end was not called after one that hangs")


@scenario(ends("completed"))
async def hooks_around_children_are_called_as_they_say(lab: Lab) -> None:
    called: list[tuple[str, str]] = []

    def hook(name: str, *, children: bool) -> Hook:
        async def run(used: hooks.PreToolUse) -> None:
            await lab.sim.seam(f"hook:{name}")
            called.append((name, used.name))

        return hooks.pre_tool_use(children=children)(run)

    inner = Agent(lab.model(calls("one"), "Inner.", name="inner"), name="inner", tools=[lab.tool("one")])
    own, both = hook("own", children=False), hook("both", children=True)
    agent = Agent(lab.model(calls("inner", prompt="x"), "Done."), tools=[inner.as_tool()], hooks=[own, both])
    async with lab.stream(agent) as stream:
        await stream.drain()
    if lab.sim.injection is None and called != [("own", "inner"), ("both", "inner"), ("both", "one")]:
        lab.watch.note(f"the hooks were called for {called}")
