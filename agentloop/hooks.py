"""Hooks: functions of yours that are called at named points of every run.

::

    @hooks.pre_tool_use(tools="delete_*")
    async def no_deletes(call: PreToolUse) -> Deny:
        return Deny("deleting is off in this workspace")

    agent = Agent(model, hooks=[no_deletes])

A hook is async or plain; it gets one frozen value and returns a verdict, or ``None`` to let pass. Hooks of a point run
one after another, in the order in which the agent lists them, each seeing what the one before it replaced.

There are two kinds. A *guard* decides: if it raises or takes too long, it counts as a refusal (it fails closed). An
*observer* looks on: if it fails, a `WarningIssued` event says so and the run goes on. To let pass with a warning,
either kind raises `HookWarning`. ``turn_end`` and ``session_end`` run on every way out of a run, cancelled or not,
shielded, each within ``Deadlines.cleanup``.

The names are those of Claude Code's and docker-agent's hooks.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any, Generic, Literal, TypeAlias, TypeVar, overload

import msgspec

from agentloop.errors import UsageError
from agentloop.events import Question, Source, StreamReason, TurnReason
from agentloop.messages import AssistantMessage, Message, ToolResult, UserMessage
from agentloop.models import ModelRequest
from agentloop.questions import Deny

__all__ = [
    "AfterLLMCall",
    "Allow",
    "Ask",
    "BeforeLLMCall",
    "Block",
    "Context",
    "Continue",
    "Hook",
    "HookWarning",
    "Notification",
    "OnError",
    "Point",
    "PostCompact",
    "PostToolUse",
    "PreCompact",
    "PreToolUse",
    "ReplaceArguments",
    "ReplaceMessages",
    "ReplaceResult",
    "SessionEnd",
    "SessionStart",
    "StopRequested",
    "SubagentStop",
    "TurnEnd",
    "TurnStart",
    "UserFollowupSubmit",
    "UserPromptSubmit",
    "UserSteeringMessagesSubmit",
    "after_llm_call",
    "before_llm_call",
    "notification",
    "on_error",
    "post_compact",
    "post_tool_use",
    "pre_compact",
    "pre_tool_use",
    "session_end",
    "session_start",
    "stop",
    "subagent_stop",
    "turn_end",
    "turn_start",
    "user_followup_submit",
    "user_prompt_submit",
    "user_steering_messages_submit",
]


class HookWarning(Exception):  # noqa: N818 - it is no failure
    """Raised by a hook of whatever kind: let pass, and tell a warning with this text."""


# ----------------------------------------------------------------------------- verdicts


class Block(msgspec.Struct, frozen=True):
    """End the run, with reason ``blocked``."""

    reason: str


class Context(msgspec.Struct, frozen=True):
    """Tell the model this, too."""

    text: str


class Allow(msgspec.Struct, frozen=True):
    """Run the tool without asking anybody, whatever the tool itself wants. Permissions may still ask, or deny."""


class Ask(msgspec.Struct, frozen=True):
    """Run the tool only if a person approves."""

    reason: str = ""


class ReplaceArguments(msgspec.Struct, frozen=True):
    """Call the tool with these arguments. They must fit its schema.

    They are judged anew: what was allowed before were others.
    """

    arguments: dict[str, Any]
    verdict: Allow | Ask | None = None
    """What the hook says of the call with these arguments."""


class ReplaceMessages(msgspec.Struct, frozen=True):
    """Send these messages instead, this once. The transcript stays as it is."""

    messages: Sequence[Message]


class ReplaceResult(msgspec.Struct, frozen=True):
    """Record this result instead."""

    result: ToolResult


class Continue(msgspec.Struct, frozen=True):
    """Do not stop: go on with this message, as if the user had said it."""

    text: str


# ------------------------------------------------------------------------ what hooks get


class SessionStart(msgspec.Struct, frozen=True):
    """A stream starts."""

    source: Source
    prompt: UserMessage


class UserPromptSubmit(msgspec.Struct, frozen=True):
    """A prompt is about to become part of the transcript."""

    source: Source
    prompt: UserMessage


class UserSteeringMessagesSubmit(msgspec.Struct, frozen=True):
    """What was said by `Stream.steer` is about to become part of the transcript."""

    source: Source
    messages: tuple[UserMessage, ...]


class UserFollowupSubmit(msgspec.Struct, frozen=True):
    """What was said by `Stream.follow_up` is about to become part of the transcript."""

    source: Source
    prompt: UserMessage


class TurnStart(msgspec.Struct, frozen=True):
    """A turn starts."""

    source: Source
    turn: int


class BeforeLLMCall(msgspec.Struct, frozen=True):
    """A request is about to go to the model."""

    source: Source
    turn: int
    request: ModelRequest


class AfterLLMCall(msgspec.Struct, frozen=True):
    """The model has answered."""

    source: Source
    turn: int
    message: AssistantMessage


class PreCompact(msgspec.Struct, frozen=True):
    """Room is about to be made in what the model reads."""

    source: Source
    reason: Literal["threshold", "overflow"]
    tokens: int
    """That the next request would take, about."""


class PostCompact(msgspec.Struct, frozen=True):
    """Room was made."""

    source: Source
    reason: Literal["threshold", "overflow"]
    summary: str
    """What the model reads in the place of what came before; empty if only old results were left out."""


class PreToolUse(msgspec.Struct, frozen=True):
    """A tool is about to be called."""

    source: Source
    call_id: str
    name: str
    arguments: dict[str, Any]
    """As JSON values; they fit the tool's schema."""


class PostToolUse(msgspec.Struct, frozen=True):
    """A tool call has ended."""

    source: Source
    call_id: str
    name: str
    arguments: dict[str, Any]
    result: ToolResult


class Notification(msgspec.Struct, frozen=True):
    """A person is waited for."""

    source: Source
    question: Question


class OnError(msgspec.Struct, frozen=True):
    """The run is about to fail."""

    source: Source
    error: Exception


class StopRequested(msgspec.Struct, frozen=True):
    """The model has given its final answer."""

    source: Source
    message: AssistantMessage
    continuations: int
    """How often stop hooks have sent this run on already."""


class SubagentStop(msgspec.Struct, frozen=True):
    """A child stream has ended. Called for the hooks of the agent that opened it."""

    source: Source
    child: Source
    reason: StreamReason


class TurnEnd(msgspec.Struct, frozen=True):
    """A turn has ended."""

    source: Source
    turn: int
    reason: TurnReason


class SessionEnd(msgspec.Struct, frozen=True):
    """A stream has ended."""

    source: Source
    reason: StreamReason


# -------------------------------------------------------------------------------- points

I = TypeVar("I")  # noqa: E741 - the input of a hook
V = TypeVar("V")
PointName: TypeAlias = Literal[
    "session_start",
    "user_prompt_submit",
    "user_steering_messages_submit",
    "user_followup_submit",
    "turn_start",
    "before_llm_call",
    "after_llm_call",
    "pre_compact",
    "post_compact",
    "pre_tool_use",
    "post_tool_use",
    "notification",
    "on_error",
    "stop",
    "subagent_stop",
    "turn_end",
    "session_end",
]


class Hook(msgspec.Struct, frozen=True):
    """A function at a point. Made by calling, or decorating with, one of the points below."""

    point: PointName
    function: Callable[[Any], Any]
    name: str
    """What warnings and refusals call it."""
    guard: bool
    """Whether its failure counts as a refusal."""
    verdicts: tuple[type, ...]
    """What it may return, beside ``None``."""
    tools: str = "*"
    """Glob on the tool's name (`fnmatch`); for the two points around a tool call."""
    timeout: float | None = None
    """Seconds; ``None`` for the agent's ``Deadlines.hook``."""

    def concerns(self, tool: str) -> bool:
        """Whether the hook wants to know of calls of ``tool``."""
        return fnmatchcase(tool, self.tools)


class Point(Generic[I, V]):
    """A place in the run where hooks are called. Use it as a decorator, with or without options."""

    __slots__ = ("guard", "name", "verdicts")

    def __init__(self, name: PointName, *verdicts: type, guard: bool = False) -> None:
        self.name: PointName = name
        self.verdicts = verdicts
        self.guard = guard

    @overload
    def __call__(self, function: Callable[[I], V | Awaitable[V]], /) -> Hook: ...
    @overload
    def __call__(
        self, /, *, tools: str = "*", timeout: float | None = None, name: str | None = None
    ) -> Callable[[Callable[[I], V | Awaitable[V]]], Hook]: ...
    def __call__(
        self,
        function: Callable[[I], V | Awaitable[V]] | None = None,
        /,
        *,
        tools: str = "*",
        timeout: float | None = None,
        name: str | None = None,
    ) -> Hook | Callable[[Callable[[I], V | Awaitable[V]]], Hook]:
        """Make a hook of ``function``, or, without one, give a decorator that does."""

        def hook(function: Callable[[I], V | Awaitable[V]]) -> Hook:
            if not callable(function):
                raise UsageError(f"a {self.name} hook is a function, not {function!r}: options go by name, tools=...")
            if tools != "*" and self.name not in ("pre_tool_use", "post_tool_use"):
                raise UsageError(f"tools={tools!r} of a {self.name} hook: only those around a tool call have it")
            if timeout is not None and not timeout > 0:
                raise UsageError(f"timeout={timeout!r} of a {self.name} hook: give seconds above 0, or None")
            called = str(getattr(function, "__name__", type(function).__name__))
            return Hook(self.name, function, name or called, self.guard, self.verdicts, tools, timeout)

        return hook if function is None else hook(function)

    def __repr__(self) -> str:
        return f"<hook point {self.name}>"


session_start: Point[SessionStart, Context | None] = Point("session_start", Context)
"""A stream starts. `Context` is added to the instructions for the whole stream."""

user_prompt_submit: Point[UserPromptSubmit, Context | Block | None] = Point(
    "user_prompt_submit", Context, Block, guard=True
)
"""A prompt comes in. `Context` is added to it; `Block` ends the run before the model sees it."""

user_steering_messages_submit: Point[UserSteeringMessagesSubmit, Context | Block | None] = Point(
    "user_steering_messages_submit", Context, Block, guard=True
)
"""Steering messages come in, all that wait at once. `Context` is added to the last of them; `Block` ends the run."""

user_followup_submit: Point[UserFollowupSubmit, Context | Block | None] = Point(
    "user_followup_submit", Context, Block, guard=True
)
"""A follow-up comes in. `Context` is added to it; `Block` ends the run."""

turn_start: Point[TurnStart, Context | None] = Point("turn_start", Context)
"""A turn starts. `Context` is added to the instructions for this turn."""

before_llm_call: Point[BeforeLLMCall, ReplaceMessages | Block | None] = Point(
    "before_llm_call", ReplaceMessages, Block, guard=True
)
"""A request is about to go out. The messages may be replaced, or the run blocked."""

after_llm_call: Point[AfterLLMCall, None] = Point("after_llm_call")
"""The model has answered; the message is not in the transcript yet."""

pre_tool_use: Point[PreToolUse, Allow | Ask | Deny | ReplaceArguments | None] = Point(
    "pre_tool_use", Allow, Ask, Deny, ReplaceArguments, guard=True
)
"""A tool is about to be called. The strictest verdict counts: `Deny` over `Ask` over `Allow`."""

post_tool_use: Point[PostToolUse, ReplaceResult | Block | None] = Point(
    "post_tool_use", ReplaceResult, Block, guard=True
)
"""A tool call has ended. Its result may be replaced; `Block` ends the run after this turn's calls."""

pre_compact: Point[PreCompact, Block | None] = Point("pre_compact", Block, guard=True)
"""Room is about to be made in what the model reads. `Block` leaves everything as it is; the run goes on."""

post_compact: Point[PostCompact, None] = Point("post_compact")
"""Room was made."""

notification: Point[Notification, None] = Point("notification")
"""A person is waited for."""

on_error: Point[OnError, None] = Point("on_error")
"""The run is about to fail."""

stop: Point[StopRequested, Continue | None] = Point("stop", Continue)
"""The model has given its final answer. `Continue` makes it go on; the turn limit still counts."""

subagent_stop: Point[SubagentStop, None] = Point("subagent_stop")
"""A child stream has ended."""

turn_end: Point[TurnEnd, None] = Point("turn_end")
"""A turn has ended, in whatever way. Shielded."""

session_end: Point[SessionEnd, None] = Point("session_end")
"""A stream has ended, in whatever way. Shielded; the last thing before its last event."""
