"""Mixes: agents, people and readers put together at random, and what each run did when it was recorded.

A scenario is about one thing. A bug often needs two: a message that is sent while an output is refused, a value that a
child has saved and a run that was parked. A mix has a few of everything. No account says what a mix should do: it must
do what was recorded of it, and keep the promises that each run is watched for.

Each feature draws from a source of its own, by its name. So a feature that is added changes only the mixes that have
it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, Literal

import attrs
import msgspec
import trio

from agentloop import hooks
from agentloop.agent import Agent
from agentloop.context import ToolContext
from agentloop.errors import (
    ModelConnectionError,
    ModelContextOverflowError,
    ModelRateLimitError,
    Retry,
    ToolError,
)
from agentloop.events import Source, StreamEvent, ToolCallFinished, TurnFinished
from agentloop.handoffs import Handoff
from agentloop.hooks import Hook, HookWarning
from agentloop.limits import Compaction, Deadlines, Limits, Price, Retries
from agentloop.messages import Reasoning, Text, ToolResult, Usage, UserMessage
from agentloop.models import ModelRequest, ModelSettings
from agentloop.observers import Step
from agentloop.permissions import Exact, Permissions, Rule
from agentloop.questions import Deny
from agentloop.run_info import EachTurn, OutputInfo, RunInfo
from agentloop.team import Team
from agentloop.testing._lab import NO_ARGUMENTS, Lab, PlannedModel
from agentloop.testing.harness.agent_scenarios import FakeToolset
from agentloop.testing.harness.draw import Draw
from agentloop.testing.harness.mix_features import crowd
from agentloop.testing.scripted import Response, calls, fails, says, thinks
from agentloop.tools import Tool, tool

__all__ = ["make_agent", "make_team"]

# --------------------------------------------------------------------------------- tools

_CODE = "mixed"
"""Of the warning of a tool, which is no code of the runtime's own."""
_TAGS = ("red", "blue", "green")

Body = Callable[[ToolContext[Any]], Awaitable[object]]


class Answer(msgspec.Struct):
    """The output of some agents."""

    color: Literal["red", "blue", "green"]
    count: int = 0
    note: str = ""


def _bodies(draw: Draw, lab: Lab, inner: Sequence[Agent[Any, Any]]) -> dict[str, Body]:
    """What tools do."""
    kept: list[int] = []

    async def sleeps(_context: ToolContext[Any]) -> str:
        await trio.sleep(draw.on("sleeps").one((1, 3, 200)))
        return "slept"

    async def fails_plainly(_context: ToolContext[Any]) -> str:
        await trio.lowlevel.checkpoint()
        raise draw.on("fails").one((ToolError("no such order"), Retry("try a color"), ValueError("a bug")))

    async def writes(context: ToolContext[Any]) -> str:
        for number in range(draw.on("writes").one((2, 40))):
            await context.output(f"line {number}\n")
        await context.progress(0.5, total=1.0, message="half")
        return "written"

    async def remembers(context: ToolContext[Any]) -> str:
        times = (context.recall("times", int) or 0) + 1
        await context.remember("times", times)
        kept.append(times)
        await context.save_session_value("kept", kept, own=draw.on("own").chance(0.5))
        kept.append(100)
        return (
            f"{times} {context.session_value('kept', list[int])} {context.session_value('kept', list[int], own=True)}"
        )

    async def asks_twice(context: ToolContext[Any]) -> str:
        said: list[object] = []

        async def ask(name: str, seconds: float) -> None:
            with trio.move_on_after(seconds):
                message = f"{name} of {context.call_id} of {context.source.session}"
                lab.received[message] = await context.ask(message, _FORM)
                said.append(lab.received[message])

        if draw.on("at once").chance(0.5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask, "first", 1000.0)
                nursery.start_soon(ask, "second", draw.on("patience").one((2.0, 1000.0)))
        else:
            await ask("first", 1000.0)
            await ask("second", 1000.0)
        return " ".join(sorted(map(repr, said)))

    async def asks_a_model(context: ToolContext[Any]) -> str:
        message = await context.ask_model(ModelRequest((UserMessage((Text("Which color?"),)),)))
        return message.text

    async def is_long(_context: ToolContext[Any]) -> str:
        await trio.lowlevel.checkpoint()
        return "a long line of a result\n" * draw.on("long").one((30, 120))

    async def runs(context: ToolContext[Any]) -> str:
        texts: list[str] = []

        async def run(agent: Agent[Any, Any]) -> None:
            outcome = await context.run(agent, f"go, {agent.name}")
            texts.append(f"{agent.name}: {outcome.output} {outcome.detail}")

        if draw.on("runs at once").chance(0.5):
            async with trio.open_nursery() as nursery:
                for agent in inner:
                    nursery.start_soon(run, agent)
        else:
            for agent in inner:
                await run(agent)
        context.warn(_CODE, "it ran its agents")
        return "; ".join(sorted(texts))

    async def streams(context: ToolContext[Any]) -> str:
        ends, seen = draw.on("streams").one(("reads", "leaves", "stops", "waits")), 0
        async with context.stream(inner[0], "go, and tell") as stream:
            async for _event in stream:
                seen += 1
                if seen == 9 and ends == "stops":
                    stream.stop("enough of it")
                if seen == 9 and ends in ("leaves", "waits"):
                    break
            if ends == "waits":
                await stream.wait()
        return f"{seen} events, {stream.outcome.reason}"

    def plain(context: ToolContext[Any]) -> str:
        message = f"plain of {context.call_id} of {context.source.session}"
        lab.received[message] = trio.from_thread.run(context.ask, message, _FORM)
        trio.from_thread.run(context.output, "from a thread")
        return repr(lab.received[message])

    async def in_thread(context: ToolContext[Any]) -> str:
        return await trio.to_thread.run_sync(plain, context)

    async def waits_outside(context: ToolContext[Any]) -> str:
        with context.paused_deadline(parks=draw.on("parks").chance(0.5)):
            await trio.sleep(300)
        context.restart_deadline()
        await context.record_start()
        return "outside"

    bodies: dict[str, Body] = {
        "sleeps": sleeps,
        "fails": fails_plainly,
        "writes": writes,
        "remembers": remembers,
        "asks": asks_twice,
        "model": asks_a_model,
        "long": is_long,
        "outside": waits_outside,
        "thread": in_thread,
    }
    if inner:
        bodies |= {"runs": runs, "streams": streams}
    return bodies


_FORM = {
    "type": "object",
    "properties": {"tag": {"type": "string"}},
    "required": ["tag"],
}


def _approval(draw: Draw) -> Any:
    def is_blue(arguments: dict[str, Any]) -> bool:
        color = arguments.pop("color", None)
        return bool(color == "blue")

    return draw.one((False, False, True, is_blue))


def _tools(draw: Draw, lab: Lab, inner: Sequence[Agent[Any, Any]]) -> list[Tool]:
    made: list[Tool] = [lab.tool("one"), *(agent.as_tool() for agent in inner)]
    for name, body in _bodies(draw, lab, inner).items():
        own = draw.on(name)
        if not own.chance(0.8 if name in ("runs", "streams") else 0.45):
            continue
        options: dict[str, Any] = {
            "requires_approval": _approval(own.on("approval")),
            "timeout": own.on("timeout").one((None, None, 10.0)),
            "concurrency": own.on("slots").one((None, None, 1)),
            "max_result": own.on("max").one((None, None, 200)),
            "read_only": own.on("read only").chance(0.3),
            "idempotent": own.on("idempotent").chance(0.3),
            "if_interrupted": own.on("interrupted").one((None, "retry", "ask", "report")),
        }
        made.append(lab.bare(name, body, **options))

    @tool(requires_approval=_approval(draw.on("pay")), if_interrupted=draw.on("pay again").one((None, "ask")))
    async def pay(color: Literal["red", "blue", "green"], amount: int = 1) -> str:
        """Pay."""
        await lab.sim.seam("pay")
        return f"{color} {amount}"

    @tool
    async def poll(number: int = 0) -> str:  # noqa: ASYNC910, ASYNC124 - nothing waits
        """Look."""
        return f"looked {number}"

    if draw.on("plain").chance(0.35):
        made.append(_plain(draw.on("plain one"), lab))
    return [*made, pay, poll]


def _plain(draw: Draw, lab: Lab) -> Tool:
    """A plain function, which uses its context from its thread."""

    def plain(context: ToolContext[Any]) -> str:
        message = f"by a plain one in {context.call_id} of {context.source.session}"
        try:
            lab.received[message] = trio.from_thread.run(context.ask, message, _FORM)
            trio.from_thread.run(context.output, "from a thread")
        except (trio.Cancelled, trio.RunFinishedError):  # noqa: ASYNC103 - a thread is not cancelled
            return "nobody reads this"  # noqa: ASYNC104
        return repr(lab.received[message])

    return Tool(
        name="plain",
        description="Ask.",
        function=plain,
        arguments=NO_ARGUMENTS,
        kind="sync",
        context_name="context",
        timeout=draw.one((None, 10.0)),
    )


# --------------------------------------------------------------------------------- models


_WORDS = ("Done.", "Here it is.", "All done.")
_OUTPUTS = (
    '{"color": "pink"}',
    "no JSON",
    '{"color": "blue", "note": "<think>of</think> a tag"}',
    "<think>Hm.</think>```json\n{}\n```",
    '{"color": "red", "count": 2}',
)


def _script(draw: Draw, names: Sequence[str], *, has_output: bool) -> list[Response]:
    script: list[Response] = []
    for turn in range(1 + draw.on("turns").number(4)):
        own = draw.on(turn)
        response = says("Let me see. ") if own.chance(0.5) else Response()
        if own.on("thinks").chance(0.25):
            thought = Reasoning("First. ", signature="s1"), Reasoning("Then. ", signature="s2")
            response = Response(thought if own.chance(0.5) else thought[:1]) + response
        for call in range(own.on("calls").one((1, 1, 2, 3))):
            response += _call(own.on(call), names)
        script.append(_with_end(own, response))
    last = draw.on("last")
    answers = _OUTPUTS if has_output else _WORDS
    script += [says(last.on(number).one(answers)) for number in range(last.number(3))]
    script += [says(answers[-1])] * (4 if has_output else 1)
    if last.on("paused").chance(0.15):
        script.insert(-1, says("Half of it, ", stop="paused"))
    if last.on("thought").chance(0.15):
        script[-1] = thinks("Well. ") + script[-1]
    return script


def _call(draw: Draw, names: Sequence[str]) -> Response:
    name = draw.one(names)
    id = draw.on("id").one(("", "", "c1"))
    if name == "pay":
        return calls("pay", id=id, color=draw.on("color").one((*_TAGS, "pink")), amount=draw.on("amount").number(3))
    if name == "poll":
        return calls("poll", id=id, raw=draw.on("raw").one(("{}", '{"number": 2}', "[", '{"number": "x"}')))
    if name.startswith("inner"):
        return calls(name, id=id, prompt="go on")
    return calls(name, id=id)


def _with_end(draw: Draw, response: Response) -> Response:
    ends = draw.on("end")
    if draw.on("long").chance(0.06):
        response = says("word " * 150) + response
    if ends.chance(0.12):
        error = ends.one(
            (
                ModelConnectionError("gone"),
                ModelRateLimitError(model="model", status=429, body="later", retry_after=2.0),
                ModelContextOverflowError(model="model", status=400, body="too long"),
            )
        )
        return (
            fails(error) if ends.chance(0.5) else msgspec.structs.replace(response, error=error, reported=Usage(3, 2))
        )
    if ends.on("paused").chance(0.05):
        return says("Half of it, ", stop="paused")
    if ends.chance(0.06):
        return msgspec.structs.replace(response, stop="length")
    if ends.chance(0.04):
        return msgspec.structs.replace(response, hangs=True)
    return msgspec.structs.replace(response, usage=Usage(20 + draw.number(300), 5 + draw.number(40)))


# --------------------------------------------------------------------------------- hooks


def _hooks(draw: Draw, lab: Lab, models: Sequence[str]) -> list[Hook]:
    verdicts: dict[Any, tuple[object, ...]] = {
        hooks.session_start: (hooks.Context("It is Monday."),),
        hooks.user_prompt_submit: (hooks.Context("Be brief."), None, hooks.Block("not today")),
        hooks.user_steering_messages_submit: (hooks.Context("He means it."), hooks.Block("no more")),
        hooks.user_followup_submit: (hooks.Context("And soon."), None),
        hooks.turn_start: (hooks.Context("A turn begins."), None),
        hooks.before_llm_call: (
            None,
            hooks.ReplaceRequest(settings=ModelSettings(temperature=0.5)),
            hooks.ReplaceRequest(instructions="Other words."),
            hooks.ReplaceRequest(tools=["one"]),
            hooks.ReplaceRequest(model=lab.planned("From the other.", name="other")),
            hooks.Block("no model today"),
            *(hooks.ReplaceRequest(model=name) for name in models),
        ),
        hooks.after_llm_call: (None,),
        hooks.pre_tool_use: (
            None,
            hooks.Allow(),
            hooks.Ask("to be sure"),
            hooks.Ask(),
            Deny("not that"),
            hooks.ReplaceArguments({"color": "green", "amount": 7}),
            hooks.ReplaceArguments({"color": "red"}, hooks.Ask("of red")),
        ),
        hooks.on_tool_approval_decision: (None,),
        hooks.post_tool_use: (
            None,
            hooks.ReplaceResult(ToolResult("", "", (Text("replaced"),))),
            hooks.Block("enough"),
        ),
        hooks.pre_compact: (None, hooks.Summary("In short."), hooks.Block("keep it")),
        hooks.post_compact: (None,),
        hooks.notification: (None,),
        hooks.on_error: (None,),
        hooks.stop: (None, hooks.Continue("Go on.")),
        hooks.subagent_stop: (None,),
        hooks.turn_end: (None,),
        hooks.session_end: (None,),
    }
    return [
        _hook(draw.on(f"{point.name} {number}"), lab, point, verdicts[point])
        for point in verdicts
        for number in range(2)
        if draw.on(f"has {point.name} {number}").chance(0.12)
    ]


def _hook(draw: Draw, lab: Lab, point: Any, verdicts: Sequence[object]) -> Hook:
    verdict, every = draw.one(verdicts), draw.on("every").one((1, 2, 3))
    if isinstance(verdict, hooks.Block) and draw.on("spares").chance(0.7):
        verdict = None
    way = draw.on("way").one(("says", "says", "says", "waits", "warns", "raises"))
    tools = draw.on("tools").one((None, None, "pay", "*", "poll", "one"))
    count = 0

    async def look(_value: Any) -> Any:
        nonlocal count
        count += 1
        await lab.sim.seam(f"hook:{point.name}")
        if way == "waits":
            await trio.sleep(2)
        if way == "warns" and count == 1:
            raise HookWarning("take care")
        if way == "raises" and count == 2:
            raise ValueError("a bug of the hook")
        return verdict if count % every == 0 and not (isinstance(verdict, hooks.Continue) and count > 3) else None

    options: dict[str, Any] = {"tools": tools} if point in (hooks.pre_tool_use, hooks.post_tool_use) and tools else {}
    if point in (hooks.pre_tool_use, hooks.post_tool_use, hooks.on_tool_approval_decision):
        options["children"] = draw.on("children").chance(0.7)
    made: Hook = point(**options)(look)
    return made


# --------------------------------------------------------------------------------- agents


_FOUND: ContextVar[str] = ContextVar("_FOUND", default="nothing")


class _Steps:
    """An observer of steps, which sets a context variable in each, and sees what the one around it has set."""

    def __init__(self, lab: Lab, name: str) -> None:
        self._lab = lab
        self._name = name

    def observe(self, event: StreamEvent) -> None:
        """See nothing."""

    @contextmanager
    def around(self, step: Step) -> Generator[None]:
        """Note the step, and what is set there."""
        before = _FOUND.get()
        _FOUND.set(self._name)
        self._note(f"{type(step).__name__} begins in {before}")
        try:
            yield
        finally:
            self._note(f"{type(step).__name__} ends in {_FOUND.get()}")
            _FOUND.set(before)

    def leave(self, source: Source) -> None:
        """Note that a run is over."""
        self._note(f"{source.stream} is over")

    def _note(self, text: str) -> None:
        if self._lab.trace is not None:
            self._lab.trace.add(f"{self._name}: {text}")


class _Patient:
    """An observer that is woken for the ends of turns."""

    wakes_for = (TurnFinished,)

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._seen = 0

    def observe(self, event: StreamEvent) -> None:
        """Count, and note at each fifth event when that was."""
        self._seen += 1
        if self._seen % 5 == 0 and self._lab.trace is not None:
            self._lab.trace.add(f"the patient one has seen {self._seen} events, the last is {type(event).__name__}")


class _Opened(PlannedModel):
    """A model that is opened, or cannot be."""

    def __init__(self, lab: Lab, name: str, *script: Response, fails: bool) -> None:
        super().__init__(lab, name, *script)
        self._fails = fails

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Any]:
        """Hold a connection until the block ends."""
        await self._lab.sim.seam(f"open:{self.name}")
        if self._fails:
            raise OSError("no route")
        yield self


class _Sees:
    """An observer that raises at the end of a turn, or notes calls."""

    def __init__(self, lab: Lab, name: str, *, raises: bool) -> None:
        self._lab = lab
        self._name = name
        self._raises = raises

    def observe(self, event: StreamEvent) -> None:
        """Note the ends of calls and turns."""
        if isinstance(event, TurnFinished) and self._raises:
            raise ValueError(f"{self._name} has a bug")
        if isinstance(event, (ToolCallFinished, TurnFinished)) and self._lab.trace is not None:
            self._lab.trace.add(f"{self._name} sees {type(event).__name__} of {event.stream}")


def make_agent(draw: Draw, lab: Lab, *, name: str = "agent", depth: int = 0, crowded: bool = False) -> Agent[Any, Any]:
    """An agent with a few of everything, and up to two levels of agents inside."""
    inner: list[Agent[Any, Any]] = []
    if depth < 2 and draw.on("inner").chance(0.6 if depth == 0 else 0.35):
        for number in range(1 + draw.on("two").number(2)):
            child = f"inner{depth}{number}"
            inner.append(make_agent(draw.on(child), lab, name=child, depth=depth + 1, crowded=crowded))
    tools = _tools(draw.on("tools"), lab, inner)
    has_output = draw.on("output").chance(0.3)
    toolsets = [FakeToolset(lab)] if draw.on("toolset").chance(0.15) else []
    names = [each.name for each in tools] + (["listed"] if toolsets else [])
    names += [each.name for each in tools if each.name.startswith("inner") or each.name in ("runs", "streams")] * 2
    script = _script(draw.on("script"), names, has_output=has_output)
    model = _model(draw.on("opened"), lab, f"{name}-model", script)
    options: dict[str, Any] = {}
    if has_output:
        options |= {"output_type": Answer, "output_deltas": draw.on("deltas").chance(0.5)}
        if draw.on("validator").chance(0.5):
            options["output_validators"] = [partial(_is_not_red, draw.on("red").chance(0.5))]
    if draw.on("instructions").chance(0.3):
        options["instructions"] = EachTurn(_of_turn)
    if draw.on("fallbacks").chance(0.3):
        options["fallbacks"] = [
            lab.planned(*script, name=f"{name}-second"),
            lab.planned("Third.", name=f"{name}-third"),
        ]
    made = Agent(
        model,
        name=name,
        tools=tools,
        toolsets=toolsets,
        hooks=_hooks(draw.on("hooks"), lab, [each.name for each in options.get("fallbacks", ())]),
        observers=_observers(draw.on("observers"), lab, name),
        permissions=_permissions(draw.on("permissions")),
        limits=_limits(draw.on("limits"), depth),
        deadlines=Deadlines(tool=60, hook=draw.on("hook time").one((60.0, 1.0)), first_token=30, idle=30),
        retries=Retries(attempts=draw.on("attempts").one((2, 3)), cooldown=draw.on("cooldown").one((0.0, 60.0))),
        prices={f"{name}-model": Price(1.0, 2.0), f"{name}-second": Price(3.0, 4.0)},
        compaction=_compaction(draw.on("compaction")),
        max_result=draw.on("max result").one((100_000, 100_000, 300)),
        **options,
    )
    return crowd(draw.on("crowd"), lab, made, inner, depth) if crowded else made


def _model(draw: Draw, lab: Lab, name: str, script: Sequence[Response]) -> PlannedModel:
    if draw.chance(0.15):
        return _Opened(lab, name, *script, fails=draw.chance(0.5))
    return lab.planned(*script, name=name)


def _observers(draw: Draw, lab: Lab, name: str) -> list[Any]:
    made: list[Any] = []
    if draw.on("eyes").chance(0.2):
        made.append(_Sees(lab, f"{name}-eyes", raises=draw.on("raises").chance(0.4)))
        made.append(_Sees(lab, f"{name}-other-eyes", raises=False))
    if draw.on("steps").chance(0.15):
        made += [_Steps(lab, f"{name}-steps-{number}") for number in range(2)]
    if draw.on("patient").chance(0.15):
        made.append(_Patient(lab))
    return made


def make_team(draw: Draw, lab: Lab, *, crowded: bool = False) -> Any:
    """An agent; in some mixes, a team in which one hands the conversation to another."""
    if not draw.on("team").chance(0.15):
        return make_agent(draw, lab, crowded=crowded)
    history: Any = draw.on("history").one(("all", "last"))
    script = _script(draw.on("front"), ["one", "pay"], has_output=False)
    script.insert(draw.on("when").number(2), calls("handoff", agent="billing"))
    front = attrs.evolve(
        make_agent(draw, lab, crowded=crowded),
        model=lab.planned(*script, name="front-model"),
        handoffs=[Handoff("billing", history=history)],
        handoff_when_done="billing" if crowded and draw.on("when done").chance(0.4) else None,
    )
    return Team(front, make_agent(draw.on("billing"), lab, name="billing", crowded=crowded))


def _of_turn(info: RunInfo[Any]) -> str:
    return f"turn {info.turn} of {info.source.stream} on {info.model}, {info.usage.total_tokens} tokens"


def _is_not_red(changes: bool, output: Answer, info: OutputInfo[Any]) -> Answer:
    if output.color == "red" and info.attempt == 1:
        raise Retry("no red at first")
    return Answer("blue", output.count + 1) if changes else output


def _permissions(draw: Draw) -> Permissions | None:
    if not draw.chance(0.35):
        return None
    rules: list[Rule | str] = [Rule("pay", {"color": Exact(tag)}) for tag in _TAGS]
    rules += ["one", "remembers", "sleeps", Rule("inner*")]
    return Permissions(
        allow=draw.on("allow").some(rules, 0.3),
        ask=draw.on("ask").some(rules, 0.2),
        deny=draw.on("deny").some(rules, 0.1),
    )


def _limits(draw: Draw, depth: int) -> Limits:
    def maybe(name: str, *values: Any) -> Any:
        return draw.on(name).one((None, None, None, *values))

    return Limits(
        turns=draw.on("turns").one((50, 50, 2, 3)),
        requests=maybe("requests", 3),
        tokens=maybe("tokens", 600),
        cost=maybe("cost", 0.001),
        tool_calls=maybe("calls", 2, 4),
        seconds=maybe("seconds", 100.0),
        depth=draw.on("depth").one((8, 8, 1)) if depth == 0 else 8,
        output_attempts=draw.on("outputs").one((3, 2)),
    )


def _compaction(draw: Draw) -> Compaction | None:
    if not draw.chance(0.35):
        return None
    window, tokens = draw.on("window").one((450, 700, 1000, 1500, 2500)), draw.on("tokens").one((40, 40, 200))
    return Compaction(window=window, keep_recent=draw.on("recent").one((0.2, 0.05)), result_tokens=tokens)
