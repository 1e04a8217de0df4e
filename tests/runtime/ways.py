"""Every way out of a stream that has a name: an agent that takes it, and how the stream then ends."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import trio
from attrs import field, frozen

from agentloop import (
    Accept,
    Agent,
    Approve,
    Deadlines,
    Decline,
    Deny,
    Limits,
    RunInfo,
    Tool,
    ToolContext,
    each_turn,
    errors,
    hooks,
    tool,
)
from agentloop._runtime.stream import Stream
from agentloop.events import (
    ApprovalRequested,
    ContinueRequested,
    ElicitationRequested,
    StreamEvent,
    StreamReason,
    TextDelta,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
)
from agentloop.models import ModelRequest, Reply, Stop
from agentloop.questions import Answer
from agentloop.testing import Response, ScriptedModel, calls, fails, hangs, says
from tests.support import OnEvent

__all__ = ["WAYS", "FakeToolset", "Misbehaving", "Way", "add", "answering", "stopping_at", "way_named"]

QUICK = Deadlines(first_token=1, idle=1, tool=1, toolset=1, hook=1, cleanup=1)
"""Shorter than a test may take."""


@frozen(kw_only=True)
class Way:
    """A way out."""

    name: str
    make: Callable[[], Agent]
    """Makes an agent, called ``inner``, that goes this way."""
    reason: StreamReason
    """Why its stream stops."""
    error: type[BaseException] | None = None
    """What it fails with."""
    detail: str = ""
    """A part of what the stream says of it."""
    on_event: OnEvent | None = None
    """What its reader does."""
    stops_all: bool = False
    """Whether the reader stops the root stream, and not only the agent its own."""
    warns: str = ""
    """The code of a warning that comes on the way, if one does."""
    options: Mapping[str, Any] = field(factory=dict)
    """Of `Agent.stream`."""

    def __str__(self) -> str:
        return self.name.replace(" ", "-")


# --------------------------------------------------------------------------------- fakes


@tool
async def add(a: int, b: int) -> int:
    """Add two numbers."""
    await trio.lowlevel.checkpoint()
    return a + b


@tool(requires_approval=True)
async def delete(path: str) -> str:
    """Delete a file."""
    return f"{path} is gone"


@tool
async def ask_name(context: ToolContext[None]) -> str:
    """Ask for a name."""
    form = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
    match await context.ask("Your name?", form):
        case Accept(content=content):
            return str(content["name"])
        case Decline(note=note):
            return f"declined: {note}"
        case other:
            return type(other).__name__


@tool
async def wait_forever() -> None:
    """Wait."""
    await trio.sleep_forever()


@tool
async def broken() -> str:
    """Fail."""
    await trio.lowlevel.checkpoint()
    raise ValueError("no such thing")


async def _nothing() -> None:
    await trio.lowlevel.checkpoint()


async def _raise() -> None:
    await trio.lowlevel.checkpoint()
    raise OSError("the server is gone")


class FakeToolset:
    """A toolset with one tool, ``add``.

    Args:
      start, stop: awaited then.
      listings: how often its tools can be listed before that fails.
      dies: an event upon which something in its background raises.
    """

    def __init__(
        self,
        *,
        name: str = "fake",
        start: Callable[[], Awaitable[object]] = _nothing,
        stop: Callable[[], Awaitable[object]] = _nothing,
        listings: int = 1000,
        dies: trio.Event | None = None,
        tools: Sequence[Tool] = (add,),
    ) -> None:
        self.name = name
        self.tools = tools
        self.is_open = False
        self.opened = 0
        """How often it was started."""
        self._start = start
        self._stop = stop
        self._listings = listings
        self._dies = dies

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[FakeToolset]:
        await self._start()
        self.is_open = True
        self.opened += 1
        try:
            async with trio.open_nursery() as nursery:
                if self._dies is not None:
                    nursery.start_soon(self._die, self._dies)
                yield self
                nursery.cancel_scope.cancel()
            await self._stop()
        finally:
            self.is_open = False

    async def _die(self, when: trio.Event) -> None:
        await when.wait()
        raise OSError("the server has crashed")

    async def list_tools(self) -> Sequence[Tool]:
        await trio.lowlevel.checkpoint()
        self._listings -= 1
        if self._listings < 0:
            raise OSError("the server is gone")
        return self.tools


class Misbehaving:
    """A model that breaks the protocol, as ``how`` says."""

    name = "misbehaving"

    def __init__(self, how: Callable[[Reply], Awaitable[Any]]) -> None:
        self._how = how

    async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
        stop: Stop = await self._how(reply)
        return stop


async def _nameless(reply: Reply) -> Stop:
    await reply.text("Let me see. ")
    await reply.tool_call(0, id="c1", arguments="{}")
    return Stop("tool_calls")


async def _wrong_return(reply: Reply) -> str:
    await reply.text("Hi")
    return "stop"


def answering(**answers: Answer) -> OnEvent:
    """Answers each question by its kind: ``continue_``, ``approval``, ``elicitation``."""
    kinds = {
        ContinueRequested: answers.get("continue_"),
        ApprovalRequested: answers.get("approval"),
        ElicitationRequested: answers.get("elicitation"),
    }

    def on_event(stream: Stream, event: StreamEvent) -> None:
        if isinstance(event, (ContinueRequested, ApprovalRequested, ElicitationRequested)):
            answer = kinds[type(event)]
            if answer is not None:
                stream.answer(event.id, answer)

    return on_event


def stopping_at(kind: type, *, agent: str = "inner") -> OnEvent:
    """Stops the stream at the first event of a kind."""

    def on_event(stream: Stream, event: StreamEvent) -> None:
        if isinstance(event, kind) and event.agent == agent:
            stream.stop("enough")

    return on_event


# ----------------------------------------------------------------------------- the hooks


def _verdict_at(point: hooks.Point[Any, Any], verdict: object, *, turn: int = 1) -> hooks.Hook:
    """A hook that gives ``verdict``, or raises it if it is an exception, from ``turn`` on."""

    def hook(value: Any) -> Any:
        if getattr(value, "turn", turn) < turn:
            return None
        if isinstance(verdict, Exception):
            raise verdict
        return verdict

    return point(name="planted")(hook)


def _hanging_at(point: hooks.Point[Any, Any]) -> hooks.Hook:
    async def hook(value: Any) -> None:
        await trio.sleep_forever()

    return point(name="planted")(hook)


def _raises(info: RunInfo[None]) -> Any:
    raise KeyError("x")


async def _hangs(info: RunInfo[None]) -> Any:
    await trio.sleep_forever()


OBSERVERS = (
    hooks.session_start,
    hooks.turn_start,
    hooks.after_llm_call,
    hooks.stop,
    hooks.turn_end,
    hooks.session_end,
)
"""Those that a run without questions and errors meets."""

# ------------------------------------------------------------------------------ the ways


def _agent(*script: Any, tools: Sequence[Tool] = (add,), **options: Any) -> Agent:
    options.setdefault("deadlines", QUICK)
    return Agent(ScriptedModel(*script), name="inner", tools=tools, **options)


def _adds(count: int) -> list[Any]:
    return [calls("add", a=number, b=1) for number in range(count)]


def _with_toolset(script: Sequence[Any], **options: Any) -> Callable[[], Agent]:
    return lambda: _agent(*script, tools=(), toolsets=[FakeToolset(**options)])


def _dying_toolset() -> Agent:
    dies = trio.Event()

    @tool
    async def crash() -> str:
        """Crash the server."""
        dies.set()
        await trio.testing.wait_all_tasks_blocked()
        return "crashed"

    toolset = FakeToolset(dies=dies, tools=(crash,))
    return _agent(calls("crash"), "never said", tools=(), toolsets=[toolset])


def _way(name: str, make: Callable[[], Agent], reason: StreamReason = "completed", **rest: Any) -> Way:
    return Way(name=name, make=make, reason=reason, **rest)


def _cut(name: str, make: Callable[[], Agent], at: type) -> Way:
    return _way(name, make, "cancelled", detail="enough", on_event=stopping_at(at), stops_all=True)


CUT_OFF_CALL = msgspec.structs.replace(calls("add", raw='{"a":'), stop="length")

WAYS: list[Way] = [
    # ------------------------------------------------------------------------ natural ends
    _way("natural end", lambda: _agent("All is well.")),
    _way("natural end after tools", lambda: _agent(calls("add", a=1, b=1) + calls("add", a=2, b=2), "2 and 4")),
    _way("a tool raises and the run goes on", lambda: _agent(calls("broken"), "Sorry.", tools=[broken])),
    _way("a tool times out and the run goes on", lambda: _agent(calls("wait_forever"), "Sorry.", tools=[wait_forever])),
    _way("an unknown tool is called", lambda: _agent(calls("nope"), "Sorry.")),
    _way("arguments that are no json", lambda: _agent(calls("add", raw='{"a":'), "Sorry.")),
    _way("the model says nothing, twice", lambda: _agent(Response(), says(" ")), warns="empty", detail="said nothing"),
    _way("the model says nothing at first", lambda: _agent(Response(), "All is well."), warns="empty"),
    _way("the model says nothing after its tools", lambda: _agent(calls("add", a=1, b=1), Response())),
    _way(
        "the answer is cut off at its limit",
        lambda: _agent(says("And so", stop="length")),
        warns="truncated",
        detail="cut off",
    ),
    _way("a tool call is cut off at the limit", lambda: _agent(CUT_OFF_CALL, "Done."), warns="truncated"),
    _way(
        "tool calls are cut off again and again",
        lambda: _agent(CUT_OFF_CALL, CUT_OFF_CALL, CUT_OFF_CALL),
        "failed",
        error=errors.ModelOutputLimitError,
        warns="truncated",
    ),
    _way("the provider pauses the response", lambda: _agent(says("Let me see. ", stop="paused"), "All is well.")),
    _way(
        "a stop hook sends it on",
        lambda: _agent(
            "Done?",
            "Done!",
            hooks=[hooks.stop(lambda value: None if value.continuations else hooks.Continue("Are you sure?"))],
        ),
    ),
    _way(
        "structured output after a reminder",
        lambda: _agent("five", "5", output_type=int),
    ),
    # ------------------------------------------------------------------------- toolsets
    _way("a toolset serves", _with_toolset([*_adds(1), "1"])),
    _way(
        "tool listing fails before the first turn",
        _with_toolset(["no"], listings=0),
        "failed",
        error=errors.ToolsetError,
    ),
    _way(
        "tool listing fails before a later turn",
        _with_toolset([*_adds(1), "no"], listings=2),
        "failed",
        error=errors.ToolsetError,
    ),
    _way(
        "two toolsets have a tool of one name",
        lambda: _agent("no", toolsets=[FakeToolset()]),
        "failed",
        error=errors.ToolsetError,
    ),
    _way("a toolset fails to start", _with_toolset(["no"], start=_raise), "failed", error=errors.ToolsetError),
    _way(
        "one of two toolsets fails to start",
        lambda: _agent("no", tools=(), toolsets=[FakeToolset(), FakeToolset(name="other", start=_raise)]),
        "failed",
        error=errors.ToolsetError,
    ),
    _way(
        "a toolset hangs at its start",
        _with_toolset(["no"], start=trio.sleep_forever),
        "failed",
        error=errors.ToolsetError,
        detail="within 1 s",
    ),
    _way("a toolset dies", _dying_toolset, "failed", error=errors.ToolsetError, warns="toolset_failed"),
    _way("a toolset hangs at its stop", _with_toolset(["fine"], stop=trio.sleep_forever), warns="toolset_failed"),
    _way("a toolset fails at its stop", _with_toolset(["fine"], stop=_raise), warns="toolset_failed"),
    _way(
        "a function gives the toolset", lambda: _agent(*_adds(1), "1", tools=(), toolsets=[lambda info: FakeToolset()])
    ),
    _way(
        "a function that is to give the toolset raises",
        lambda: _agent("no", toolsets=[_raises]),
        "failed",
        error=errors.ToolsetError,
        detail="failed to start: KeyError",
    ),
    _way(
        "a function that is to give the toolset hangs",
        lambda: _agent("no", toolsets=[_hangs]),
        "failed",
        error=errors.ToolsetError,
        detail="within 1 s",
    ),
    # -------------------------------------------------------- instructions and offered tools
    _way("instructions of each turn", lambda: _agent(*_adds(1), "1", instructions=each_turn(lambda info: "Be brief."))),
    _way("instructions raise", lambda: _agent("no", instructions=_raises), "failed", error=errors.UsageError),
    _way("instructions hang", lambda: _agent("no", instructions=_hangs), "failed", error=errors.UsageError),
    _way(
        "instructions of a later turn raise",
        lambda: _agent(*_adds(1), "no", instructions=each_turn(lambda info: _raises(info) if info.turn == 2 else "")),
        "failed",
        error=errors.UsageError,
    ),
    _way(
        "instructions of a turn hang",
        lambda: _agent("no", instructions=each_turn(_hangs)),
        "failed",
        error=errors.UsageError,
    ),
    _way(
        "a tool is called that is not offered",
        lambda: _agent(*_adds(1), "Sorry.", tools=[tool(offered=lambda info: info.turn == 2)(add.function)]),
    ),
    _way(
        "the function that offers a tool raises",
        lambda: _agent("Sorry.", tools=[tool(offered=_raises)(add.function)]),
        warns="predicate_failed",
    ),
    _way(
        "the function that offers a tool hangs",
        lambda: _agent("Sorry.", tools=[tool(offered=_hangs)(add.function)]),
        warns="predicate_failed",
    ),
    # ---------------------------------------------------------------------- prompt hooks
    _way(
        "a prompt hook refuses",
        lambda: _agent("no", hooks=[_verdict_at(hooks.user_prompt_submit, hooks.Block("not here"))]),
        "blocked",
        detail="not here",
    ),
    _way(
        "a prompt hook raises",
        lambda: _agent("no", hooks=[_verdict_at(hooks.user_prompt_submit, KeyError("x"))]),
        "blocked",
        detail="planted",
    ),
    _way(
        "a prompt hook hangs",
        lambda: _agent("no", hooks=[_hanging_at(hooks.user_prompt_submit)]),
        "blocked",
        detail="planted",
    ),
    # ----------------------------------------------------------------------- other hooks
    _way(
        "a hook refuses the first model call",
        lambda: _agent("no", hooks=[_verdict_at(hooks.before_llm_call, hooks.Block("not now"))]),
        "blocked",
        detail="not now",
    ),
    _way(
        "a hook refuses a later model call",
        lambda: _agent(*_adds(1), "no", hooks=[_verdict_at(hooks.before_llm_call, hooks.Block("not now"), turn=2)]),
        "blocked",
        detail="not now",
    ),
    _way(
        "a hook chooses another model",
        lambda: _agent(
            hooks=[_verdict_at(hooks.before_llm_call, hooks.ReplaceRequest(model=ScriptedModel("Hi."), tools=[]))]
        ),
    ),
    _way(
        "a hook chooses a model that fails",
        lambda: _agent(
            hooks=[
                _verdict_at(hooks.before_llm_call, hooks.ReplaceRequest(model=ScriptedModel(fails(ValueError("x")))))
            ]
        ),
        "failed",
        error=errors.ModelError,
    ),
    _way(
        "a hook chooses a model that there is not",
        lambda: _agent(hooks=[_verdict_at(hooks.before_llm_call, hooks.ReplaceRequest(model="none"))]),
        "failed",
        error=errors.ModelNotFoundError,
    ),
    _way(
        "a hook adds a tool to a request",
        lambda: _agent("no", hooks=[_verdict_at(hooks.before_llm_call, hooks.ReplaceRequest(tools=["shell"]))]),
        "blocked",
        detail="planted",
    ),
    _way(
        "a hook raises before the model call",
        lambda: _agent("no", hooks=[_verdict_at(hooks.before_llm_call, KeyError("x"))]),
        "blocked",
        detail="planted",
    ),
    _way(
        "a hook hangs before the model call",
        lambda: _agent("no", hooks=[_hanging_at(hooks.before_llm_call)]),
        "blocked",
        detail="planted",
    ),
    _way(
        "a hook stops the run after a tool",
        lambda: _agent(*_adds(1), "no", hooks=[_verdict_at(hooks.post_tool_use, hooks.Block("seen enough"))]),
        "blocked",
        detail="seen enough",
    ),
    _way(
        "a hook raises after a tool",
        lambda: _agent(*_adds(1), "no", hooks=[_verdict_at(hooks.post_tool_use, KeyError("x"))]),
        "blocked",
        detail="planted",
    ),
    _way(
        "a hook raises before a tool",
        lambda: _agent(*_adds(1), "Sorry.", hooks=[_verdict_at(hooks.pre_tool_use, KeyError("x"))]),
    ),
    _way(
        "all observers raise",
        lambda: _agent(*_adds(1), "fine", hooks=[_verdict_at(point, KeyError("x")) for point in OBSERVERS]),
        warns="hook_failed",
    ),
    _way(
        "all observers hang",
        lambda: _agent("fine", hooks=[_hanging_at(point) for point in OBSERVERS]),
        warns="hook_failed",
    ),
    _way(
        "an error observer raises",
        lambda: _agent(fails(errors.ModelConnectionError("gone")), hooks=[_verdict_at(hooks.on_error, KeyError("x"))]),
        "failed",
        error=errors.ModelConnectionError,
        warns="hook_failed",
    ),
    # ---------------------------------------------------------------------------- limits
    _way(
        "turn limit with nobody to ask",
        lambda: _agent(*_adds(2), "no", limits=Limits(turns=2)),
        "limit",
        detail="turns",
        options={"on_question": "decline"},
    ),
    _way(
        "turn limit refused",
        lambda: _agent(*_adds(2), "no", limits=Limits(turns=2)),
        "limit",
        detail="turns",
        on_event=answering(continue_=Deny()),
    ),
    _way(
        "turn limit continued",
        lambda: _agent(*_adds(2), "yes", limits=Limits(turns=1)),
        on_event=answering(continue_=Approve()),
    ),
    _cut(
        "turn limit cancelled while asking",
        lambda: _agent(*_adds(1), "no", limits=Limits(turns=1)),
        ContinueRequested,
    ),
    _way(
        "token budget used up",
        lambda: _agent(*_adds(1), "no", limits=Limits(tokens=10)),
        "limit",
        detail="tokens",
        on_event=answering(continue_=Deny()),
    ),
    _way(
        "request budget used up",
        lambda: _agent(*_adds(1), "no", limits=Limits(requests=1)),
        "limit",
        detail="requests",
        on_event=answering(continue_=Deny()),
    ),
    _way(
        "tool call budget used up",
        lambda: _agent(calls("add", a=1, b=1) + calls("add", a=1, b=2), "no", limits=Limits(tool_calls=1)),
        "limit",
        detail="tool_calls",
        on_event=answering(continue_=Deny()),
    ),
    _way(
        "tool call budget continued",
        lambda: _agent(calls("add", a=1, b=1) + calls("add", a=1, b=2), "yes", limits=Limits(tool_calls=1)),
        on_event=answering(continue_=Approve()),
    ),
    _cut(
        "tool call budget cancelled while asking",
        lambda: _agent(calls("add", a=1, b=1) + calls("add", a=1, b=2), "no", limits=Limits(tool_calls=1)),
        ContinueRequested,
    ),
    _way(
        "out of time in a tool",
        lambda: _agent(
            calls("wait_forever"), "no", tools=[wait_forever], limits=Limits(seconds=1), deadlines=Deadlines()
        ),
        "limit",
        detail="seconds",
    ),
    _way(
        "out of time in the model",
        lambda: _agent(says("Well, ") + hangs(), limits=Limits(seconds=1), deadlines=Deadlines()),
        "limit",
        detail="seconds",
    ),
    _way(
        "the same calls again and again",
        lambda: _agent(*[calls("add", a=1, b=1)] * 3, "no", limits=Limits(identical_turns=3)),
        "limit",
        detail="same calls",
    ),
    _way(
        "structured output never comes",
        lambda: _agent("five", "six", output_type=int, limits=Limits(output_attempts=2)),
        "failed",
        error=errors.OutputError,
    ),
    # ------------------------------------------------------------------------- the model
    _way(
        "the model fails before it speaks",
        lambda: _agent(fails(errors.ModelConnectionError("gone"))),
        "failed",
        error=errors.ModelConnectionError,
        detail="gone",
    ),
    _way(
        "the model fails after some text",
        lambda: _agent(says("Once upon a") + fails(errors.ModelConnectionError("gone"))),
        "failed",
        error=errors.ModelConnectionError,
    ),
    _way(
        "the model fails in a later turn",
        lambda: _agent(*_adds(1), says("So ") + fails(OSError("reset by peer"))),
        "failed",
        error=errors.ModelConnectionError,
        detail="reset by peer",
    ),
    _way(
        "the model fails within a tool call",
        lambda: _agent(calls("add", raw='{"a": 1') + fails(OSError("reset by peer"))),
        "failed",
        error=errors.ModelConnectionError,
    ),
    _way("the model never begins", lambda: _agent(hangs()), "failed", error=errors.ModelTimeoutError, detail="first"),
    _way(
        "the model falls silent",
        lambda: _agent(says("Well, ") + hangs()),
        "failed",
        error=errors.ModelTimeoutError,
        detail="next",
    ),
    _cut("the model is cancelled mid-delta", lambda: _agent(says("Well, you see, ") + hangs()), TextDelta),
    _cut("the model is cancelled within a tool call", lambda: _agent(calls("add", a=1) + hangs()), ToolCallDelta),
    _way(
        "the model calls a tool without a name",
        lambda: Agent(Misbehaving(_nameless), name="inner", tools=[add]),
        "failed",
        error=errors.ModelProtocolError,
        detail="without a tool's name",
    ),
    _way(
        "the model returns no stop",
        lambda: Agent(Misbehaving(_wrong_return), name="inner"),
        "failed",
        error=errors.ModelProtocolError,
    ),
    _way(
        "the model refuses",
        lambda: _agent(says("I will not.", stop="refusal")),
        "failed",
        error=errors.ModelRefusalError,
        detail="I will not.",
    ),
    _way(
        "the model refuses beside a tool call",
        lambda: _agent(msgspec.structs.replace(calls("add", a=1, b=1), stop="refusal")),
        "failed",
        error=errors.ModelRefusalError,
    ),
    _way(
        "the script ends too early",
        lambda: _agent(*_adds(1)),
        "failed",
        error=errors.ScriptError,
        detail="script",
    ),
    # ------------------------------------------------------------------------- questions
    _way(
        "an elicitation is answered",
        lambda: _agent(calls("ask_name"), "Hi.", tools=[ask_name]),
        on_event=answering(elicitation=Accept({"name": "Ada"})),
    ),
    _way(
        "an elicitation with nobody to ask",
        lambda: _agent(calls("ask_name"), "Hi.", tools=[ask_name]),
        options={"on_question": "decline"},
    ),
    _cut(
        "an elicitation is open at the stop",
        lambda: _agent(calls("ask_name"), "Hi.", tools=[ask_name]),
        ElicitationRequested,
    ),
    _way(
        "an approval is given",
        lambda: _agent(calls("delete", path="x"), "Gone.", tools=[delete]),
        on_event=answering(approval=Approve()),
    ),
    _way(
        "an approval is denied",
        lambda: _agent(calls("delete", path="x"), "Well.", tools=[delete]),
        on_event=answering(approval=Deny("no")),
    ),
    _cut(
        "an approval is open at the stop",
        lambda: _agent(calls("delete", path="x"), "Gone.", tools=[delete]),
        ApprovalRequested,
    ),
    # ------------------------------------------------------------------------------ stops
    _cut(
        "stopped while tools run",
        lambda: _agent(calls("wait_forever") + calls("add", a=1, b=1), "no", tools=[wait_forever, add]),
        ToolCallStarted,
    ),
    _cut("stopped after a tool", lambda: _agent(*_adds(1), hangs()), ToolCallFinished),
]


def way_named(name: str) -> Way:
    """One of `WAYS`."""
    [way] = [way for way in WAYS if way.name == name]
    return way
