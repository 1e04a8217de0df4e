"""Hooks: your functions, called at named points of every run.

::

    @hooks.pre_tool_use(tools="delete_*")
    async def no_deletes(call: PreToolUse) -> Deny:
        return Deny("deleting is off in this workspace")

    agent = Agent(model, hooks=[no_deletes])

A hook is async or plain. A plain one runs in a thread, so that one that blocks stops no other stream, and its timeout
works; it must not touch objects of trio or of a stream, except by `trio.from_thread`, and two calls may run it at once.
An async one runs in the run's own task, which is the fast way for a hook that only looks at its input. A hook gets one
frozen value and returns a verdict, or ``None`` for no verdict. The hooks of a
point run one after another, in the order of ``Agent(hooks=...)``; each gets its input as the earlier ones changed it.

There are two kinds. A *guard* decides: if it raises or times out, that counts as a refusal (it fails closed). An
*observer* decides nothing: if it fails, the run goes on and a `WarningIssued` event reports it. Either kind raises
`HookWarning` to warn without refusing. ``turn_end`` and ``session_end`` hooks run on every path out of a run, also when
it is cancelled: shielded, each within ``Deadlines.cleanup``.

**Children.** The hooks around a tool call (`pre_tool_use`, `post_tool_use`, `on_tool_approval_decision`) are called for
the calls of child streams, too: those of the child's own agent first, then those of the agents around it, from the
inside out. A guard against deleting would be none if a sub-agent could delete. As with permissions, the outer ones only
make the child stricter: their `Allow` counts for nothing there. ``children=False`` keeps a hook to its agent's own
calls. All other points belong to their agent alone: a child's prompts, requests and answers are a conversation of its
own, and not one with the user.

The points have the names that Claude Code's and docker-agent's hooks have.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any, Generic, Literal, Protocol, TypeAlias, TypeVar, cast, overload

import msgspec

from agentloop._core.portable_errors import PortableError
from agentloop._core.typevars import Output
from agentloop.context import AgentBase
from agentloop.errors import UsageError
from agentloop.events import CompactionReason, Question, RequestPurpose, Source, StreamReason, TurnReason
from agentloop.messages import AssistantMessage, Message, Prompt, ToolResult, UserMessage
from agentloop.models import Model, ModelRequest, ModelSettings, ToolSpec
from agentloop.outcome import Outcome, QuestionHandler
from agentloop.permissions import check_tool_glob
from agentloop.questions import Deny

__all__ = [
    "AfterLLMCall",
    "Allow",
    "Ask",
    "Asking",
    "BeforeLLMCall",
    "Begins",
    "Block",
    "Context",
    "Continue",
    "DecidedBy",
    "Hook",
    "HookInput",
    "HookWarning",
    "Notification",
    "OnAgentSwitch",
    "OnError",
    "OnMaxIterations",
    "OnSessionResume",
    "OnToolApprovalDecision",
    "Point",
    "PostCompact",
    "PostToolUse",
    "PreCompact",
    "PreToolUse",
    "ReplaceArguments",
    "ReplaceMessages",
    "ReplaceRequest",
    "ReplaceResult",
    "RunsAgents",
    "SessionEnd",
    "SessionStart",
    "StopRequested",
    "SubagentStop",
    "Summary",
    "TurnEnd",
    "TurnStart",
    "UserFollowupSubmit",
    "UserPromptSubmit",
    "UserSteeringMessagesSubmit",
    "after_llm_call",
    "before_llm_call",
    "notification",
    "on_agent_switch",
    "on_error",
    "on_max_iterations",
    "on_session_resume",
    "on_tool_approval_decision",
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


class HookWarning(PortableError):  # noqa: N818 - it is no failure
    """Raised by any hook to let the run go on and emit its text as a `WarningIssued` event (code ``hook_warning``)."""


# ----------------------------------------------------------------------------- verdicts


class Block(msgspec.Struct, frozen=True):
    """End the run, with reason ``blocked``."""

    reason: str
    """Why, for a person: it becomes `StreamStopped.detail`."""


class Context(msgspec.Struct, frozen=True):
    """Add text for the model. Each hook point says where the text goes."""

    text: str
    """The text to add."""


class Allow(msgspec.Struct, frozen=True):
    """Run the tool without approval, even if the tool itself requires it. Permissions may still ask, or deny."""


class Ask(msgspec.Struct, frozen=True):
    """Run the tool only if a person approves."""

    reason: str = ""
    """Why, for that person: it becomes part of `ApprovalRequested.reason`."""
    metadata: dict[str, Any] = {}
    """JSON values by name, for that person: they become part of `ApprovalRequested.metadata`."""


class ReplaceArguments(msgspec.Struct, frozen=True):
    """Call the tool with other arguments. Permissions, and hooks that come later, judge the new ones."""

    arguments: dict[str, Any]
    """JSON values by name; they must fit the tool's schema."""
    verdict: Allow | Ask | None = None
    """The hook's verdict on the call with these arguments; ``None`` for none."""


class ReplaceMessages(msgspec.Struct, frozen=True):
    """Send other messages with this one request. The transcript keeps its own.

    A call must stay with its result: the hook has failed otherwise, since providers refuse such messages.
    """

    messages: Sequence[Message]
    """The messages to send."""


class ReplaceRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Send this one request in another way. A field that is ``None`` leaves its part as it is.

    ::

        @hooks.before_llm_call
        async def cheap_at_first(call: BeforeLLMCall) -> ReplaceRequest | None:
            return ReplaceRequest(model="openai:gpt-5-mini") if call.turn == 1 else None
    """

    messages: Sequence[Message] | None = None
    """The messages to send, as in `ReplaceMessages`."""
    instructions: str | None = None
    """The system prompt; an empty text for none."""
    tools: Sequence[str | ToolSpec] | None = None
    """The tools to offer, in this order: names of tools of the request, or their specs as they are there. Others cannot
    be added. A call of a tool that was left out is answered as one of an unknown tool."""
    settings: ModelSettings | None = None
    """The settings, all of them: `msgspec.structs.replace` makes some of ``call.request.settings`` anew."""
    model: Model | str | None = None
    """The model to ask in the place of the agent's; the agent's fallbacks stay. Its price counts and its name is in
    events. It is opened for this request, unless it is one of the run's models."""


class ReplaceResult(msgspec.Struct, frozen=True):
    """Record another result for the call."""

    result: ToolResult
    """The result that the model reads; its ``call_id`` and ``name`` are set to those of the call."""


class Summary(msgspec.Struct, frozen=True):
    """Replace the messages by this summary; no model is asked for one."""

    text: str
    """The summary, for the model. It must be shorter than the messages."""


class Continue(msgspec.Struct, frozen=True):
    """Continue the run with this message, as if the user had sent it."""

    text: str
    """The message."""


# ------------------------------------------------------------------------ hook inputs


class Asking(Protocol):
    """What a hook that asks a model gets: the conversation, and the way to the model."""

    @property
    def messages(self) -> Sequence[Message]:
        """The conversation so far, as the model of the run reads it."""
        ...

    async def ask(self, request: ModelRequest, model: Model | str, /) -> AssistantMessage:
        """The response to ``request``. It counts as a request of the run, for its limits and its usage.

        Raises:
          ModelError: the model failed.
          LimitReachedError: a limit leaves no request for it.
          UsageError: there is no such model, or it was used wrongly.
        """
        ...

    def warn(self, code: str, message: str, /) -> None:
        """Emit a warning of the run."""
        ...


_OUTSIDE = ("deps", "asking", "runs")
"""The fields of an input that are outside of its equality."""

_EXAMPLE = "stop"


class RunsAgents(Protocol):
    """What a hook that names agents gets: the way to run them inside the stream."""

    async def run(
        self, agent: AgentBase[Any, Output], prompt: Prompt, /, *, on_question: QuestionHandler | None = None
    ) -> Outcome[Output]:
        """See `HookInput.run`."""
        ...


class HookInput(msgspec.Struct, frozen=True, kw_only=True):
    """The base of the inputs of hooks."""

    deps: Any = None
    """The ``deps=`` argument of the root stream. Outside of equality and of ``repr``, since it may hold secrets."""
    asking: Asking | None = None
    """Asks a model; ``None`` for hooks that are no judges. Outside of equality and of ``repr`` as well."""
    runs: RunsAgents | None = None
    """Runs the agents that the hook names; ``None`` if it names none. Outside of equality and of ``repr`` as well."""

    async def run(
        self, agent: AgentBase[Any, Output], prompt: Prompt, /, *, on_question: QuestionHandler | None = None
    ) -> Outcome[Output]:
        """Run an agent that the hook names, as a child of this stream, to its end.

        ::

            @hooks.stop(agents=[critic])
            async def review(value: StopRequested) -> Continue | None:
                verdict = await value.run(critic, f"Is this right? {value.message.text}")
                return None if "yes" in verdict.output.lower() else Continue(verdict.output)

        The child's events come in this stream, its usage and its requests count in this stream's limits, and the rules
        and hooks of this stream hold for its calls; the hook itself is not called for them. It ends with the hook's
        deadline, in which the time of a person does not count. Its questions go outwards, unless ``on_question``
        answers them. A stream that is parked until somebody answers declines them: its hooks are not resumed.

        Raises:
          UsageError: the hook does not name the agent: ``@hooks.stop(agents=[critic])``.
          ChildLimitError: the child would be nested too deep, or the agent would run inside itself.
          StreamStateError: the hook has returned.
          AgentLoopError: the child ended without a result.
        """
        if self.runs is None:
            name = getattr(agent, "name", agent)
            raise UsageError(f"the hook names no agents: add {name!r} to its options, @hooks.{_EXAMPLE}(agents=[...])")
        return await self.runs.run(agent, prompt, on_question=on_question)

    def _facts(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__struct_fields__ if name not in _OUTSIDE}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HookInput) and type(self) is type(other) and self._facts() == other._facts()

    def __hash__(self) -> int:
        return hash((type(self), *self._facts().values()))

    def __repr__(self) -> str:
        facts = ", ".join([f"{name}={value!r}" for name, value in self._facts().items()])
        return f"{type(self).__name__}({facts})"


Begins: TypeAlias = Literal["new", "continue", "resume", "handoff"]
"""How a stream starts.

- ``new``: the session has no message yet.
- ``continue``: a new prompt on a session with messages.
- ``resume``: the unfinished run of a session, which was parked, or whose process died.
- ``handoff``: the agent gets the conversation from another agent of its team, within the stream.
"""


SwitchKind: TypeAlias = Literal["handoff", "transfer", "return"]
"""How another agent comes to act.

- ``handoff``: it got the conversation, by a handoff of its team.
- ``transfer``: it got a task, and runs it in a child stream while the agent waits.
- ``return``: that child stream has ended, and the agent acts again.
"""


class SessionStart(HookInput, frozen=True):
    """Input of `session_start`: a stream starts, or another agent of a team continues it."""

    source: Source
    """The stream."""
    prompt: UserMessage
    """Its prompt."""
    begins: Begins = "new"
    """How it starts."""


class UserPromptSubmit(HookInput, frozen=True):
    """Input of `user_prompt_submit`: a prompt is about to enter the transcript."""

    source: Source
    """The stream."""
    prompt: UserMessage
    """The prompt, with the text that earlier hooks added."""


class UserSteeringMessagesSubmit(HookInput, frozen=True):
    """Input of `user_steering_messages_submit`: messages from `Stream.steer` are about to enter the transcript."""

    source: Source
    """The stream."""
    messages: tuple[UserMessage, ...]
    """All messages that wait, oldest first, with the text that earlier hooks added."""


class UserFollowupSubmit(HookInput, frozen=True):
    """Input of `user_followup_submit`: a message from `Stream.follow_up` is about to enter the transcript."""

    source: Source
    """The stream."""
    prompt: UserMessage
    """The message, with the text that earlier hooks added."""


class TurnStart(HookInput, frozen=True):
    """Input of `turn_start`: a turn starts."""

    source: Source
    """The stream."""
    turn: int
    """Number of the turn within its stream, from 1."""


class BeforeLLMCall(HookInput, frozen=True):
    """Input of `before_llm_call`: a request is about to go to the model."""

    source: Source
    """The stream."""
    turn: int
    """Number of the turn within its stream, from 1."""
    request: ModelRequest
    """The request, as earlier hooks changed it."""
    purpose: RequestPurpose = "turn"
    """What the model is asked for: the response of the turn, a summary, or a response for a tool."""
    call_id: str = ""
    """Id of the tool call that asks, if the purpose is ``tool``."""
    model: str = ""
    """Name of the model that is asked first, as earlier hooks chose it."""


class AfterLLMCall(HookInput, frozen=True):
    """Input of `after_llm_call`: the model has responded."""

    source: Source
    """The stream."""
    turn: int
    """Number of the turn within its stream, from 1."""
    message: AssistantMessage
    """The response; not in the transcript yet. Only a response with the purpose ``turn`` becomes part of it."""
    purpose: RequestPurpose = "turn"
    """What the model was asked for: the response of the turn, a summary, or a response for a tool."""
    call_id: str = ""
    """Id of the tool call that asked, if the purpose is ``tool``."""


class PreCompact(HookInput, frozen=True):
    """Input of `pre_compact`: compaction is about to shorten the conversation."""

    source: Source
    """The stream."""
    reason: CompactionReason
    """As in `CompactionStarted.reason`."""
    tokens: int
    """Tokens that the next request would take, estimated."""
    messages: tuple[Message, ...] = ()
    """The messages to be replaced by a summary; empty if only old tool results are to be left out."""


class PostCompact(HookInput, frozen=True):
    """Input of `post_compact`: compaction has shortened the conversation."""

    source: Source
    """The stream."""
    reason: CompactionReason
    """As in `CompactionStarted.reason`."""
    summary: str
    """The summary that replaces the older messages; empty if there is none, as only old tool results were left out."""
    tokens_before: int = 0
    """Tokens that the next request would have taken, estimated."""
    tokens_after: int = 0
    """Tokens that it takes now, estimated."""


class PreToolUse(HookInput, frozen=True):
    """Input of `pre_tool_use`: a tool is about to be called."""

    source: Source
    """The stream."""
    call_id: str
    """Id of the call; unique within its session."""
    name: str
    """Name of the tool."""
    arguments: dict[str, Any]
    """The arguments as JSON values, with earlier hooks' replacements; they fit the tool's schema."""


DecidedBy: TypeAlias = Literal["rule", "mode", "hook", "person", "tool", "nobody"]
"""The source of a decision about a call: a rule of permissions, or a call that a person has approved for good; the mode
of permissions; a `pre_tool_use` hook; a person, or the handler that answers in a person's place; the tool itself, which
requires no approval; or nobody, where approval was needed and there was no one to ask."""


class OnToolApprovalDecision(HookInput, frozen=True):
    """Input of `on_tool_approval_decision`: it is decided whether a tool is called."""

    source: Source
    """The stream."""
    call_id: str
    """Id of the call; unique within its session."""
    name: str
    """Name of the tool."""
    arguments: dict[str, Any]
    """The arguments that the decision is about, as JSON values: with the replacements of hooks and of a person."""
    decision: Literal["allow", "deny"]
    """Whether the tool is called."""
    by: DecidedBy
    """The source of the decision."""
    detail: str
    """The rule, the mode, the hook or the reason, in words; empty if there is nothing to add."""


class PostToolUse(HookInput, frozen=True):
    """Input of `post_tool_use`: a tool call has ended."""

    source: Source
    """The stream."""
    call_id: str
    """Id of the call; unique within its session."""
    name: str
    """Name of the tool."""
    arguments: dict[str, Any]
    """The arguments that the tool was called with, as JSON values."""
    result: ToolResult
    """The result, as earlier hooks replaced it."""


class Notification(HookInput, frozen=True):
    """Input of `notification`: the run is waiting for a person's answer."""

    source: Source
    """The stream."""
    question: Question
    """The question."""


class OnMaxIterations(HookInput, frozen=True):
    """Input of `on_max_iterations`: the run has reached a limit, of turns or of anything else."""

    source: Source
    """The stream whose next step would go past the limit. The limit may be that of a run around it."""
    limit: str
    """The limit: name of a field of `Limits`."""
    used: float
    """Amount used, in the unit of that limit."""
    allowed: float
    """Amount allowed so far."""


class OnSessionResume(HookInput, frozen=True):
    """Input of `on_session_resume`: a person has raised the limit that the run had reached."""

    source: Source
    """The stream that had reached it, and goes on."""
    limit: str
    """The limit: name of a field of `Limits`."""
    previous: float
    """Amount that was allowed, in the unit of that limit."""
    allowed: float
    """Amount that is allowed now. It is the same if the question was about the unknown price of a model."""


class OnAgentSwitch(HookInput, frozen=True):
    """Input of `on_agent_switch`: another agent acts from here on."""

    source: Source
    """The stream of the agent whose hooks are called: the one that acted, or that waits for its child stream."""
    to: str
    """Name of the agent that acts next."""
    kind: SwitchKind
    """Why it does."""
    child: Source | None = None
    """The child stream, if the kind is ``transfer`` or ``return``."""


class OnError(HookInput, frozen=True):
    """Input of `on_error`: the run is about to fail."""

    source: Source
    """The stream."""
    error: Exception
    """The error that ends it."""


class StopRequested(HookInput, frozen=True):
    """Input of the ``stop`` hook: the model has given its final answer."""

    source: Source
    """The stream."""
    message: AssistantMessage
    """The answer."""
    continuations: int
    """How often ``stop`` hooks have continued this run so far. Use it to end an endless loop."""


class SubagentStop(HookInput, frozen=True):
    """Input of `subagent_stop`: a child stream has ended."""

    source: Source
    """The stream that opened the child. Its agent's hooks are called."""
    child: Source
    """The child stream."""
    reason: StreamReason
    """Why the child ended."""


class TurnEnd(HookInput, frozen=True):
    """Input of `turn_end`: a turn has ended."""

    source: Source
    """The stream."""
    turn: int
    """Number of the turn within its stream, from 1."""
    reason: TurnReason
    """Why it ended."""


class SessionEnd(HookInput, frozen=True):
    """Input of `session_end`: a stream is ending, or its agent has handed the conversation to another agent."""

    source: Source
    """The stream."""
    reason: StreamReason | Literal["handed_off"]
    """Why it ends; ``handed_off`` if the stream goes on with another agent, whose `session_start` hooks are called."""


# -------------------------------------------------------------------------------- points

I = TypeVar("I")  # noqa: E741
"""Input of a hook."""
V = TypeVar("V")
"""Verdict of a hook."""

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
    "on_tool_approval_decision",
    "post_tool_use",
    "notification",
    "on_max_iterations",
    "on_session_resume",
    "on_agent_switch",
    "on_error",
    "stop",
    "subagent_stop",
    "turn_end",
    "session_end",
]


TOOL_POINTS: frozenset[PointName] = frozenset({"pre_tool_use", "on_tool_approval_decision", "post_tool_use"})
"""The points around a tool call. Their hooks may be for some tools only, and are called for child streams, too."""


class Hook(msgspec.Struct, frozen=True):
    """A function at a hook point. Made by a `Point`, as a decorator or called with a function."""

    point: PointName
    """Name of the hook point."""
    function: Callable[[Any], Any]
    """The function, async or plain; called with the point's input."""
    name: str
    """The hook's name in warnings and refusals."""
    guard: bool
    """Whether its failure counts as a refusal."""
    verdicts: tuple[type, ...]
    """Classes of verdict that it may return, besides ``None``."""
    tools: tuple[str, ...] = ("*",)
    """Globs on the tool's name, as in a `Rule`, any of which may match; for the points around a tool call."""
    timeout: float | None = None
    """Seconds; ``None`` for the agent's ``Deadlines.hook``."""
    children: bool = True
    """Whether the hook is called for the calls of child streams, too; for the points around a tool call."""
    asks: bool = False
    """Whether its input has a way to ask a model: see `agentloop.judges`."""
    agents: tuple[AgentBase[Any, Any], ...] = ()
    """The agents that it may run inside the stream: see `HookInput.run`."""

    def concerns(self, tool: str) -> bool:
        """Whether the hook is called for calls of ``tool``."""
        return any(fnmatchcase(tool, glob) for glob in self.tools)


_ENDING: tuple[PointName, ...] = ("turn_end", "on_error", "subagent_stop", "on_agent_switch", "session_end")
"""The points that are called on every way out, also of a run that is stopped. The end of each child run is one."""


def _agents_of(point: PointName, name: str, agents: Sequence[AgentBase[Any, Any]]) -> tuple[AgentBase[Any, Any], ...]:
    """The ``agents=`` of a hook, checked."""
    if agents and point in _ENDING:
        raise UsageError(
            f"agents= of the {point} hook {name!r}: that point is called while a run ends, when nothing may begin; "
            "use the point stop, or post_tool_use"
        )
    for agent in agents:
        if not isinstance(cast("object", agent), AgentBase):
            raise UsageError(f"agents= of the {point} hook {name!r}: give a list of agents, not {agent!r}")
    return tuple(agents)


class Point(Generic[I, V]):
    """A named point of a run where hooks are called.

    Use it as a decorator, bare or with options::

        @hooks.pre_tool_use
        async def check(call: PreToolUse) -> Deny | None: ...

        @hooks.pre_tool_use(tools="delete_*", timeout=5, name="no-deletes")
        async def no_deletes(call: PreToolUse) -> Deny: ...

    ``help(hooks.pre_tool_use)`` explains each one.

    Args:
      tools: a glob on the tool's name, with ``*`` and ``?``, or several; for the points around a tool call only.
      timeout: seconds that the hook may take; ``None`` for the agent's ``Deadlines.hook``.
      name: the hook's name in warnings and refusals; the function's own by default.
      children: whether the hook is called for the calls of child streams, too; for the points around a tool call only.
      agents: the agents that the hook may run inside the stream, by `HookInput.run`. A hook that is called while a run
        ends, or a part of it, whatever the reason, cannot have any: ``turn_end``, ``on_error``, ``subagent_stop`` and
        ``session_end``.
    """

    def __init__(self, name: PointName, *verdicts: type, guard: bool = False, doc: str) -> None:
        self.name: PointName = name
        """Name of the point."""
        self.verdicts = verdicts
        """Classes of verdict that a hook may return, besides ``None``."""
        self.guard = guard
        """Whether a hook's failure counts as a refusal."""
        accepted = ", ".join(f"`{verdict.__name__}`" for verdict in verdicts)
        kind = "A guard: its failure counts as a refusal" if guard else "An observer: its failure is a warning"
        # On the instance, so that `help()` and Sphinx show it rather than the text of the class.
        self.__doc__ = f"{doc}\n\n{kind}. It may return {accepted + ' or ' if accepted else ''}``None``."

    @overload
    def __call__(self, function: Callable[[I], V | Awaitable[V]], /) -> Hook: ...
    @overload
    def __call__(
        self,
        /,
        *,
        tools: str | Sequence[str] = "*",
        timeout: float | None = None,
        name: str | None = None,
        children: bool = True,
        agents: Sequence[AgentBase[Any, Any]] = (),
    ) -> Callable[[Callable[[I], V | Awaitable[V]]], Hook]: ...
    def __call__(
        self,
        function: Callable[[I], V | Awaitable[V]] | None = None,
        /,
        *,
        tools: str | Sequence[str] = "*",
        timeout: float | None = None,
        name: str | None = None,
        children: bool = True,
        agents: Sequence[AgentBase[Any, Any]] = (),
    ) -> Hook | Callable[[Callable[[I], V | Awaitable[V]]], Hook]:
        """Make a hook of ``function``, or, without one, give a decorator that does."""

        def hook(function: Callable[[I], V | Awaitable[V]]) -> Hook:
            if not callable(function):
                raise UsageError(f"a {self.name} hook is a function, not {function!r}: options go by name, tools=...")
            globs = (tools,) if isinstance(tools, str) else tuple(tools)
            if globs != ("*",) and self.name not in TOOL_POINTS:
                raise UsageError(f"tools={tools!r} of a {self.name} hook: only those around a tool call have it")
            if not isinstance(cast("object", children), bool) or (not children and self.name not in TOOL_POINTS):
                raise UsageError(
                    f"children={children!r} of a {self.name} hook: True or False, for those around a tool call; "
                    "the others are called for their own agent only"
                )
            if not globs:
                raise UsageError(f"tools={tools!r} of a {self.name} hook matches no tool: leave it out, for all tools")
            for glob in globs:
                check_tool_glob(f"tools of a {self.name} hook", glob)
            if timeout is not None and not timeout > 0:
                raise UsageError(f"timeout={timeout!r} of a {self.name} hook: give seconds above 0, or None")
            called = str(getattr(function, "__name__", type(function).__name__))
            named = name or called
            known = _agents_of(self.name, named, agents)
            return Hook(self.name, function, named, self.guard, self.verdicts, globs, timeout, children, agents=known)

        return hook if function is None else hook(function)

    def __repr__(self) -> str:
        return f"<hook point {self.name}>"


session_start: Point[SessionStart, Context | None] = Point(
    "session_start",
    Context,
    doc="A stream starts. `Context` is added to the instructions for the whole stream.",
)

user_prompt_submit: Point[UserPromptSubmit, Context | Block | None] = Point(
    "user_prompt_submit",
    Context,
    Block,
    guard=True,
    doc="A prompt comes in. `Context` is added to it; `Block` ends the run before the model reads it.",
)

user_steering_messages_submit: Point[UserSteeringMessagesSubmit, Context | Block | None] = Point(
    "user_steering_messages_submit",
    Context,
    Block,
    guard=True,
    doc="Steering messages come in, all that wait. `Context` is added to the last of them; `Block` ends the run.",
)

user_followup_submit: Point[UserFollowupSubmit, Context | Block | None] = Point(
    "user_followup_submit",
    Context,
    Block,
    guard=True,
    doc="A follow-up message comes in. `Context` is added to it; `Block` ends the run.",
)

turn_start: Point[TurnStart, Context | None] = Point(
    "turn_start",
    Context,
    doc="A turn starts. `Context` is added to the instructions for this turn.",
)

before_llm_call: Point[BeforeLLMCall, ReplaceMessages | ReplaceRequest | Block | None] = Point(
    "before_llm_call",
    ReplaceMessages,
    ReplaceRequest,
    Block,
    guard=True,
    doc="A request is about to go to a model: for the turn, a summary or a tool. The hook may replace parts of it, "
    "choose another model, or refuse the request: `Block` ends the run, or leaves out the summary, or is an error for "
    "the tool.",
)

after_llm_call: Point[AfterLLMCall, None] = Point(
    "after_llm_call",
    doc="A model has responded, for the turn, a summary or a tool. The message is not in the transcript yet.",
)

pre_tool_use: Point[PreToolUse, Allow | Ask | Deny | ReplaceArguments | None] = Point(
    "pre_tool_use",
    Allow,
    Ask,
    Deny,
    ReplaceArguments,
    guard=True,
    doc="A tool is about to be called, by the agent or by one inside it. The strictest verdict counts: `Deny` over "
    "`Ask` over `Allow`, which counts for calls of the agent itself only.",
)

on_tool_approval_decision: Point[OnToolApprovalDecision, None] = Point(
    "on_tool_approval_decision",
    doc="It is decided whether a tool is called, by the agent or by one inside it. Called for each decision, "
    "denials included, with its source; the tool runs when the hook has returned. A call whose outcome is unknown, "
    "since its process died, has a decision about the second attempt as well.",
)

post_tool_use: Point[PostToolUse, ReplaceResult | Block | None] = Point(
    "post_tool_use",
    ReplaceResult,
    Block,
    guard=True,
    doc="A tool call of the agent, or of one inside it, has ended; calls that were denied have not begun. The hook may "
    "replace its result; `Block` ends the run that made the call, after this turn's calls.",
)

pre_compact: Point[PreCompact, Summary | Block | None] = Point(
    "pre_compact",
    Summary,
    Block,
    guard=True,
    doc="Compaction is about to shorten the conversation. `Summary` replaces the messages, and no model is asked; "
    "`Block` prevents it, and the run goes on with all messages.",
)

post_compact: Point[PostCompact, None] = Point("post_compact", doc="Compaction has shortened the conversation.")

notification: Point[Notification, None] = Point("notification", doc="The run is waiting for a person's answer.")

on_max_iterations: Point[OnMaxIterations, None] = Point(
    "on_max_iterations",
    doc="The run has reached a limit, of turns or of anything else that is counted. A person may be asked to raise it.",
)

on_session_resume: Point[OnSessionResume, None] = Point(
    "on_session_resume",
    doc="A person has raised the limit that the run had reached, and the run goes on.",
)

on_agent_switch: Point[OnAgentSwitch, None] = Point(
    "on_agent_switch",
    doc="Another agent acts from here on: one that gets the conversation by a handoff, one that gets a task in a child "
    "stream, or the agent itself when that child stream has ended. Background runs are no switch: the agent goes on.",
)

on_error: Point[OnError, None] = Point("on_error", doc="The run is about to fail.")

stop: Point[StopRequested, Continue | Block | None] = Point(
    "stop",
    Continue,
    Block,
    doc="The model has given its final answer. `Continue` makes the run go on; the turn limit still counts. `Block` "
    "ends the run without that answer as its output.",
)

subagent_stop: Point[SubagentStop, None] = Point("subagent_stop", doc="A child stream has ended.")

turn_end: Point[TurnEnd, None] = Point("turn_end", doc="A turn has ended, on any path. Shielded from cancellation.")

session_end: Point[SessionEnd, None] = Point(
    "session_end",
    doc="A stream is ending, on any path, right before its last event. Shielded from cancellation.",
)
