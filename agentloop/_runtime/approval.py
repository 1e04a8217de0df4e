"""May this call run, and with which arguments? Permissions first, then hooks, then the tool's own rule, then a person.

Arguments that a hook or a person replaces are checked again, and the strictest verdict counts. When a run begins, rules
and hooks that can decide about no call of it are reported as misspelt.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from hashlib import sha256
from typing import Any, Literal, cast

import msgspec
import trio

from agentloop._core.blast_radius import blast_radius_of
from agentloop._core.context_window import READ_RESULT
from agentloop._core.json_text import decode_own, whole_numbers
from agentloop._core.on_first_use import get_close_matches
from agentloop._core.permissions import Call, Decision, combine, decide, is_granted, is_level_granted, is_like
from agentloop._core.questions import AskedQuestion, check_always
from agentloop._core.results import error_result
from agentloop._core.state import MAY_HAVE_RUN
from agentloop._runtime.assessment import assess_call
from agentloop._runtime.hooks import HookFailedError
from agentloop._runtime.logs import TOOLS, log
from agentloop._runtime.questions import ask
from agentloop._runtime.run import Run
from agentloop._runtime.toolsets import identity_of
from agentloop._runtime.user_code import UserCodeError, call_user_code, in_thread_if_plain
from agentloop.config import AgentConfig
from agentloop.deferred import FIND_TOOLS
from agentloop.errors import ArgumentsError, InvalidAnswerError
from agentloop.events import ApprovalRequested
from agentloop.handoffs import HANDOFF
from agentloop.hooks import (
    TOOL_POINTS,
    Allow,
    Ask,
    DecidedBy,
    Hook,
    OnToolApprovalDecision,
    PreToolUse,
    ReplaceArguments,
)
from agentloop.messages import ToolCall, ToolResult
from agentloop.permissions import Grant, Permissions, Rule
from agentloop.questions import Answer, Approve, Deny
from agentloop.safety import Assessment, SafetyLevel
from agentloop.tools import Tool

__all__ = [
    "CheckedArguments",
    "agent_fingerprint",
    "check_call",
    "is_free",
    "may_run_again",
    "real_arguments",
    "warn_of_unmatched",
]


class CheckedArguments:
    """Arguments that fit the tool."""

    __slots__ = ("text", "values")

    def __init__(self, values: dict[str, Any], text: str) -> None:
        self.values = values
        """As the tool's function gets them."""
        self.text = text
        """As JSON. A run that redacts has placeholders here, where ``values`` has the secrets."""

    def plain(self) -> dict[str, Any]:
        """As JSON values, for hooks and people, and anew for each: one that changes them must not change the rest."""
        # A model may write 3.0 where the function gets 3: rules, hooks and people see what the function gets.
        return cast("dict[str, Any]", whole_numbers(decode_own(self.text, dict[str, Any]))) if self.text.strip() else {}


def real_arguments(run: Run, tool: Tool, text: str) -> str:
    """The arguments ``text`` of a call, as JSON, with the secrets that ``tool`` needs in the place of placeholders.

    Raises:
      ArgumentsError: this process does not know a secret.
    """
    redactor = run.redactor
    # An agent shares the table: its own tools get the secrets.
    if redactor is None or tool.agents or tool.name == HANDOFF or not redactor.gives_back_to(tool.name):
        return text
    return redactor.put_back_json(text)


def is_free(run: Run, tool: Tool) -> bool:
    """Whether calls of ``tool`` need no check."""
    hooks = run.hooks
    if tool.requires_approval or hooks.at("pre_tool_use") or hooks.at("on_tool_approval_decision"):
        return False
    # Called for each tool call, and nearly always true: written out, since lists and generators cost more than a call.
    if run.root.session.permissions is not None or run.config.permissions is not None:
        return False
    return run.above is None or next(_permissions_around(run), None) is None


async def check_call(
    run: Run, tool: Tool, call: ToolCall, arguments: CheckedArguments
) -> CheckedArguments | ToolResult:
    """The arguments that ``call`` may run with, or the result that says why it may not run."""
    check = ApprovalCheck(run, tool, call, arguments)
    checked = await check.check()
    decision: Literal["allow", "deny"] = "deny" if isinstance(checked, ToolResult) else "allow"
    await _report(run, call, check.arguments, decision, *check.source)
    verdict = "denied" if isinstance(checked, ToolResult) else "allowed"
    log(TOOLS, logging.DEBUG, "stream %r: call %r of tool %r %s", run.source.stream, call.id, call.name, verdict)
    return checked


async def may_run_again(run: Run, tool: Tool, call: ToolCall) -> bool:
    """Whether a call whose outcome is unknown, since its process died while it ran, is made again."""
    if tool.if_interrupted != "ask":
        return tool.may_run_again
    try:
        arguments = CheckedArguments({}, call.arguments).plain()
    except msgspec.DecodeError:
        return False
    event = _approval_event(run, tool, call, arguments, MAY_HAVE_RUN, None, tool.metadata)
    answer = await ask(run, RetryApproval(event))
    decision: Literal["allow", "deny"] = "allow" if isinstance(answer, Approve) else "deny"
    by: DecidedBy = "nobody" if answer is None else "person"
    await _report(run, call, CheckedArguments({}, call.arguments), decision, by, MAY_HAVE_RUN)
    return decision == "allow"


async def _report(
    run: Run,
    call: ToolCall,
    arguments: CheckedArguments,
    decision: Literal["allow", "deny"],
    by: DecidedBy,
    detail: str,
) -> None:
    """Call the hooks that hear of each decision about a call."""
    for hook in run.hooks.at("on_tool_approval_decision"):
        if hook.concerns(call.name):
            shown = arguments.plain()
            value = OnToolApprovalDecision(run.source, call.id, call.name, shown, decision, by, detail)
            await run.hooks.ask(hook, value)


class RetryApproval(AskedQuestion):
    """Whether a call that may have run already is made again."""

    __slots__ = ()

    def check(self, answer: Answer) -> Answer:
        if isinstance(answer, Approve) and (answer.arguments is not None or answer.always):
            problem = "this is about one call, which may have run: approve it as it is, or deny it"
            raise InvalidAnswerError(question=self.id, problem=problem)
        return super().check(answer)


class CallApproval(AskedQuestion):
    """Whether a call may run. Approving it may replace its arguments, and may approve other calls for good."""

    __slots__ = ("_check", "_reviewed", "approved")

    def __init__(self, event: ApprovalRequested, check: ApprovalCheck) -> None:
        super().__init__(event)
        self._check = check
        self._reviewed = check.arguments
        """The arguments that the person was shown."""
        self.approved = check.arguments
        """The arguments that the accepted answer approves. Never read from the answer again: it may change later."""

    def check(self, answer: Answer) -> Answer:
        answer = super().check(answer)
        if not isinstance(answer, Approve):
            return answer
        check = self._check
        try:
            approved = self._reviewed if answer.arguments is None else check.replacement(answer.arguments)
        except ArgumentsError as error:
            raise InvalidAnswerError(question=self.id, problem=str(error)) from error
        decision = check.decide(approved)
        if decision.effect == "deny":
            raise InvalidAnswerError(question=self.id, problem=f"{decision.because} denies these arguments")
        check_always(self.id, answer.always, check.call_with(approved))
        self.approved = approved
        return answer

    def accept(self) -> None:
        answer = self.answer
        if isinstance(answer, Approve) and answer.always is not False:
            self._check.grant(self.approved, answer.always)

    def is_granted(self) -> bool:
        # The permissions of the session may have changed since it was asked.
        return self._check.is_granted() and self._check.decide(self._reviewed).effect != "deny"


class ApprovalCheck:
    """The check of one call: its steps, in order, and their findings so far."""

    __slots__ = (
        "_allowed_by",
        "_assessed",
        "_assessment",
        "_call",
        "_is_asked_about",
        "_level",
        "_metadata",
        "_must_ask",
        "_reasons",
        "_run",
        "_tool",
        "_tool_asked",
        "_tool_requires",
        "arguments",
        "source",
    )

    def __init__(self, run: Run, tool: Tool, call: ToolCall, arguments: CheckedArguments) -> None:
        self._run = run
        self._tool = tool
        self._call = call
        self.arguments = arguments
        """The arguments that the call would run with: the model's, or the replacements of a hook or a person."""
        self._must_ask = False
        self._reasons: dict[str, None] = {}
        """Why a person is asked, in order."""
        self._is_asked_about = False
        """Whether a rule or a hook demands that a person is asked about this call, and not only a mode or the tool."""
        self._metadata: dict[str, Any] = {}
        """What the hooks that asked add for the person."""
        self._tool_requires: bool | None = None
        """Whether the tool requires approval of the arguments; ``None`` if it was not asked yet."""
        self._assessed: CheckedArguments | None = None
        """The arguments that the tool has assessed."""
        self._assessment: Assessment | None = None
        """What the tool says of them."""
        self._level: SafetyLevel | None = None
        """The lowest level of safety that would let the call run; ``None`` if none does. Known before a person is
        asked."""
        self._allowed_by: Hook | None = None
        """The hook that has allowed the call, with these arguments."""
        self._tool_asked = False
        """Whether the tool required approval of arguments that were replaced since."""
        self.source: tuple[DecidedBy, str] = ("tool", "")
        """The source of the decision, and its detail in words."""

    async def check(self) -> CheckedArguments | ToolResult:
        try:
            # The first to deny ends the check; each step may also demand that a person is asked.
            if self._needs_assessment():
                await self.assess()
            denied = self.apply_rules() or await self.run_hooks()
            if denied is not None:
                return denied
            await self.ask_tool()
        except HookFailedError as error:
            return self._denied(f"Denied, since {error}.", "hook", str(error))
        except ArgumentsError as error:
            text = f"a hook replaced the arguments, and {error}"
            return self._denied(f"Denied, since {text}", "hook", text)
        if not self._must_ask:
            decision = self.decide(self.arguments)
            self.source = decision.by, decision.because
            return self.arguments
        await self.find_level()
        if self.is_granted():
            self.source = "rule", GRANTED
            return self.arguments
        return await self.ask_person()

    # --------------------------------------------------------------------------- the steps

    def apply_rules(self) -> ToolResult | None:
        """Apply the permissions. Returns the result of a call that they deny."""
        decision = self.decide(self.arguments)
        if decision.effect == "deny":
            return self._denied(f"Denied by {decision.because}.", decision.by, decision.because)
        if decision.effect == "ask":
            self._must_ask = True
            self._is_asked_about |= decision.by == "rule"
            detail = f": {decision.detail}" if decision.detail else ""
            self._reasons[f"{decision.because} asks{detail}"] = None
        return None

    async def run_hooks(self) -> ToolResult | None:
        """Run the ``pre_tool_use`` hooks. Returns the result of a call that one of them denies."""
        run = self._run
        for hook in run.hooks.at("pre_tool_use"):
            if not hook.concerns(self._tool.name):
                continue
            verdict = await run.hooks.ask(hook, self._hook_value())
            if isinstance(verdict, ReplaceArguments):
                # About the old arguments, while they are still there: replacing them must not make the call any freer.
                if self.decide(self.arguments).effect == "tool" and await self._requires_approval():
                    self._tool_asked = True
                self.arguments = self.replacement(verdict.arguments)
                self._tool_requires = None
                if self._needs_assessment():
                    await self.assess()
                self._allowed_by = None
                denied = self.apply_rules()
                if denied is not None:
                    return denied
                verdict = verdict.verdict
            match verdict:
                case Deny(reason=reason):
                    return self._denied_by(hook, reason)
                case Ask(reason=reason, metadata=metadata):
                    self._must_ask = self._is_asked_about = True
                    self._metadata.update(metadata)
                    if reason:
                        self._reasons[reason] = None
                case Allow() if not run.hooks.is_inherited(hook):
                    self._allowed_by = hook
                case _:
                    pass
        return None

    async def ask_tool(self) -> None:
        """Apply the tool's ``requires_approval``, where permissions and hooks leave the decision to it."""
        if self._must_ask:
            return
        left_to_the_tool = self.decide(self.arguments).effect == "tool"
        if self._tool_asked and not (self._allowed_by is not None and not left_to_the_tool):
            self._must_ask = True
        elif left_to_the_tool:
            self._must_ask = await self._requires_approval()

    async def assess(self) -> None:
        """Let the tool assess the call with its present arguments, once."""
        if self._assessed is not self.arguments:
            arguments = self._tool.arguments.decode(self.arguments.text)
            self._assessment = await assess_call(self._run, self._tool, arguments)
            self._assessed = self.arguments

    async def find_level(self) -> None:
        """Find the level of safety that the call has, and what else a person is to know of it."""
        await self.assess()
        if self._is_asked_about:
            return
        if self._assessment is not None and self._assessment.is_harmless:
            self._level = "safer"
        # As in the modes: what a tool says of itself does not override what it requires.
        if self._tool.read_only and not self._tool_asked and not await self._requires_approval():
            self._level = "safe"

    async def ask_person(self) -> CheckedArguments | ToolResult:
        """Ask for approval of the call."""
        reason = "; ".join(self._reasons)
        question = CallApproval(self._event(reason), self)
        answer = await ask(self._run, question)
        match answer:
            case Approve():
                self.source = ("rule", GRANTED) if question.by == "rule" else ("person", reason)
                if question.approved is self.arguments:
                    return self.arguments
                self.arguments = question.approved
                return await self.run_hooks_on_revision()
            case Deny(reason=why):
                return self._denied(_with_reason("Denied by the user", why), "person", why)
            case _:
                because = f" ({reason})" if reason else ""
                return self._denied(f"Denied: it needs approval{because}. {question.refusal}", "nobody", reason)

    async def run_hooks_on_revision(self) -> CheckedArguments | ToolResult:
        """Run the hooks on arguments that a person has revised: they may deny; all else the person has decided."""
        for hook in self._run.hooks.at("pre_tool_use"):
            if not hook.concerns(self._tool.name):
                continue
            try:
                verdict = await self._run.hooks.ask(hook, self._hook_value())
            except HookFailedError as error:
                return self._denied(f"Denied, since {error}.", "hook", str(error))
            if isinstance(verdict, Deny):
                return self._denied_by(hook, verdict.reason)
        return self.arguments

    # --------------------------------------------------------------- what the steps look at

    def decide(self, arguments: CheckedArguments) -> Decision:
        """The decision of all permissions together, and of the hooks that have allowed the call."""
        hook = self._allowed_by
        by_hooks = [] if hook is None else [Decision("allow", _named(hook), "hook")]
        own, around = _own_permissions(self._run), list(_permissions_around(self._run))
        if not own and not around:
            # As for most agents: no need to look at the arguments.
            return combine(by_hooks, ())
        call = self.call_with(arguments)
        own_decisions = [decide(permissions, call) for permissions in own]
        return combine([*by_hooks, *own_decisions], [decide(permissions, call) for permissions in around])

    def call_with(self, arguments: CheckedArguments) -> Call:
        """The call with ``arguments``, as rules match it."""
        tool = self._tool
        assessment = self._assessment if arguments is self._assessed else None
        return Call(
            tool.name,
            arguments.plain(),
            _defaults(tool),
            tool.read_only,
            tool.destructive,
            assessment is not None and assessment.is_harmless,
            "" if assessment is None else assessment.why,
        )

    def _needs_assessment(self) -> bool:
        """Whether the decision depends on what the tool says of the call."""
        if self._tool.assess is None:
            return False
        own = _own_permissions(self._run)
        return any(permissions.mode == "safer" for permissions in (*own, *_permissions_around(self._run)))

    def _event(self, reason: str) -> ApprovalRequested:
        assessment = self._assessment
        metadata = {**self._tool.metadata, **({} if assessment is None else assessment.metadata), **self._metadata}
        return _approval_event(self._run, self._tool, self._call, self.arguments.plain(), reason, assessment, metadata)

    def replacement(self, arguments: Mapping[str, Any]) -> CheckedArguments:
        """Check arguments that replace the model's, read from JSON like those: the shown ones are the used ones.

        Raises:
          ArgumentsError: they have no JSON form, or do not fit the tool.
        """
        try:
            text = msgspec.json.encode(arguments).decode()
        except (TypeError, ValueError) as error:
            raise ArgumentsError(f"the arguments are not JSON: {error}") from error
        values = self._tool.arguments.decode(real_arguments(self._run, self._tool, text))
        return CheckedArguments(values, text if self._run.redactor is None else self._run.redactor.json(text))

    def is_granted(self) -> bool:
        """Whether a person has approved the call for good."""
        run, grants = self._run, self._run.root.session.grants
        if not grants:
            return False
        agents, fingerprint = run.source.agents, agent_fingerprint(run.config)
        if is_granted(grants, agents, fingerprint, self.call_with(self.arguments)):
            return True
        return is_level_granted(grants, agents, fingerprint, self._level) and not self._is_ruled()

    def _is_ruled(self) -> bool:
        """Whether a rule asks about the call by now: the permissions of the session may have changed."""
        decision = self.decide(self.arguments)
        return decision.effect == "ask" and decision.by == "rule"

    def grant(self, approved: CheckedArguments, always: bool | Rule | SafetyLevel) -> None:
        """Approve for good: the call with these arguments, all calls that a rule matches, or all of a level."""
        session = self._run.root.session
        rule = always if isinstance(always, Rule) else Rule.exactly(self._tool.name, approved.plain())
        level = always if isinstance(always, str) else None
        grant = Grant(self._run.source.agents, rule, agent_fingerprint(self._run.config), level)
        if grant not in session.grants:
            session.grants.append(grant)
        self._run.root.questions.answer_granted(Approve())

    async def _requires_approval(self) -> bool:
        if self._tool_requires is None:
            self._tool_requires = await self._ask_requires_approval()
        return self._tool_requires

    async def _ask_requires_approval(self) -> bool:
        tool, run = self._tool, self._run
        if not callable(tool.requires_approval):
            return tool.requires_approval
        try:
            # Decoded anew: a predicate that changes them must not change what the function gets, unseen by the person.
            arguments = tool.arguments.decode(self.arguments.text)
            scope = trio.move_on_after(run.config.deadlines.hook)
            return bool(await call_user_code(scope, in_thread_if_plain(tool.requires_approval), arguments))
        except UserCodeError as error:
            # The predicate is there to hold calls back: if it fails, a person decides.
            short = f"requires_approval of tool {tool.name!r} failed"
            run.warn("predicate_failed", f"{short}: {error}", logged=short, error=error.__cause__)
            return True

    def _hook_value(self) -> PreToolUse:
        return PreToolUse(self._run.source, self._call.id, self._tool.name, self.arguments.plain())

    def _denied_by(self, hook: Hook, reason: str) -> ToolResult:
        detail = f"{_named(hook)}: {reason}" if reason else _named(hook)
        return self._denied(_with_reason("Denied by a hook", reason), "hook", detail)

    def _denied(self, text: str, by: DecidedBy, detail: str) -> ToolResult:
        self.source = by, detail
        return error_result(self._call, text, "denied")


GRANTED = "a person has approved it for good"


def _named(hook: Hook) -> str:
    return f"the hook {hook.name!r}"


def _own_permissions(run: Run) -> list[Permissions]:
    return [
        permissions for permissions in (run.root.session.permissions, run.config.permissions) if permissions is not None
    ]


def _permissions_around(run: Run) -> Iterator[Permissions]:
    root = run
    while root.parent is not None:
        opener, root = root.opened_by, root.parent
        if root.config.permissions is not None:
            yield root.config.permissions
        if opener is not None and opener is not root.config and opener.permissions is not None:
            yield opener.permissions
    if root.apart is not None:
        yield from root.apart.permissions
        for session in root.apart.sessions:
            if session.permissions is not None:
                yield session.permissions


def _approval_event(
    run: Run,
    tool: Tool,
    call: ToolCall,
    arguments: dict[str, Any],
    reason: str,
    assessment: Assessment | None,
    metadata: Mapping[str, Any],
) -> ApprovalRequested:
    is_harmless = assessment is not None and assessment.is_harmless
    said = None if assessment is None else assessment.destructive
    return ApprovalRequested(
        run.source,
        0,
        id="",
        call_id=call.id,
        name=call.name,
        arguments=arguments,
        reason=reason,
        read_only=tool.read_only or is_harmless,
        destructive=False if is_harmless else tool.destructive if said is None else said,
        assessment="" if assessment is None else assessment.why,
        blast_radius=blast_radius_of(arguments) if assessment is None else assessment.blast_radius,
        metadata=dict(metadata),
    )


def _defaults(tool: Tool) -> dict[str, Any]:
    """The defaults in the tool's schema. The schema may come from another program, so every type is checked."""
    properties: object = tool.arguments.schema.get("properties")
    if not isinstance(properties, Mapping):
        return {}
    return {
        name: cast("Mapping[str, Any]", schema)["default"]
        for name, schema in cast("Mapping[str, object]", properties).items()
        if isinstance(schema, Mapping) and "default" in schema
    }


def _with_reason(text: str, reason: str) -> str:
    return f"{text}: {reason}" if reason else f"{text}."


# ------------------------------------------------- whom an approval for good belongs to


def agent_fingerprint(config: AgentConfig) -> str:
    """A fingerprint of an agent's definition: its instructions, its tools and its toolsets, without its model.

    It is the same in each process that defines the agent in the same way. An approval for good belongs to the agent
    that asked, and names do not identify it: the default name of all agents is the same, and a session may go on with
    another agent, or in another process. An agent that was changed so that its tools may do something else has another
    fingerprint, and a person is asked again.
    """
    instructions = config.instructions if isinstance(config.instructions, str) else _code_of(config.instructions)
    definition = [
        config.name,
        instructions,
        [[tool.name, tool.description, tool.arguments.schema, _code_of(tool.function)] for tool in config.tools],
        # Not their tools: those of a server come and go, and it describes them as it likes.
        [identity_of(toolset) for toolset in config.toolsets],
    ]
    # A schema may have values of any class.
    encoded = msgspec.json.encode(definition, order="deterministic", enc_hook=_type_of)
    return sha256(encoded).hexdigest()[:16]


def _code_of(function: Callable[..., Any]) -> str:
    while isinstance(function, partial):
        function = function.func
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    return f"{module}.{name}" if isinstance(module, str) and isinstance(name, str) else _type_of(function)


def _type_of(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


# ------------------------------------------ rules and hooks that can decide about no call


def warn_of_unmatched(run: Run, listed: Mapping[str, Tool]) -> None:
    """Emit a warning for each rule, and each hook, of the run that names a tool, or an argument, which is not there.

    Such a rule is most likely misspelt, and a guard that never speaks looks like one that has nothing to say. A name
    with wildcards is a policy about whatever tools there may be, and no reason to warn.

    Args:
      listed: the tools of the run's agent, by name.
    """
    config, session = run.config, run.root.session.permissions if run.parent is None else None
    hooks = [hook for hook in config.hooks if hook.point in TOOL_POINTS and hook.tools != ("*",)]
    if not hooks and config.permissions is None and session is None:
        return
    tools = _Tools(config, listed)
    problems: dict[str, None] = {}
    for owner, permissions in ((f"agent {config.name!r}", config.permissions), ("the session", session)):
        for rule in () if permissions is None else _rules(permissions):
            # A session has rules for whatever agents may run on it: there, only a name that is nearly right is wrong.
            problem = tools.problem_of(rule.tool, only_misspelt=permissions is session) or tools.misfit(rule)
            if problem:
                problems[f"the rule {rule} of {owner} {problem}"] = None
    for hook in hooks:
        for glob in hook.tools:
            if problem := tools.problem_of(glob):
                problems[f"the {hook.point} hook {hook.name!r} of agent {config.name!r} {problem}"] = None
    for text in problems:
        run.warn("rule_matches_nothing", text)


def _rules(permissions: Permissions) -> Iterable[Rule]:
    return (*permissions.deny, *permissions.ask, *permissions.allow)


OWN_TOOLS = frozenset({READ_RESULT, FIND_TOOLS})
"""The tools that the runtime adds where an agent needs them."""


class _Tools:
    """The tools that rules and hooks of an agent may be about: its own, and those of the agents inside it."""

    def __init__(self, config: AgentConfig, listed: Mapping[str, Tool]) -> None:
        self._tools: dict[str, list[Tool]] = {}
        self._is_complete = True
        """Whether there are no other tools."""
        self._add(listed.values())
        agents: list[AgentConfig] = [config]
        for agent in agents:
            if agent is not config:
                self._add(agent.tools)
                self._is_complete = self._is_complete and not agent.toolsets
            inside = [inner for tool in agent.tools for inner in tool.agents]
            inside += [inner for hook in agent.hooks for inner in hook.agents]
            for inner in inside:
                if isinstance(inner, AgentConfig):
                    members = inner.members.values() or (inner,)
                    agents.extend(each for each in members if all(each is not other for other in agents))
            for tool in agent.tools:
                if not tool.agents and tool.context_name is not None and not _is_ours(tool):
                    # It may open a child stream of any agent.
                    self._is_complete = False

    def _add(self, tools: Iterable[Tool]) -> None:
        for tool in tools:
            self._tools.setdefault(tool.name, []).append(tool)

    def problem_of(self, glob: str, *, only_misspelt: bool = False) -> str:
        """What is wrong with the name of a tool in a rule or a hook; empty if nothing is."""
        if not self._is_complete or "*" in glob or "?" in glob or glob in self._tools or glob in OWN_TOOLS:
            return ""
        meant = _closest(glob, self._tools)
        if only_misspelt and not meant:
            return ""
        return f"is about a tool {glob!r} that is not there{meant or _among(self._tools)}"

    def misfit(self, rule: Rule) -> str:
        """The argument in ``rule`` that none of its tools has, in words; empty if there is none."""
        tools = [tool for name, those in self._tools.items() if is_like(rule.tool, name) for tool in those]
        if not rule.where or not tools:
            return ""
        arguments: dict[str, None] = {}
        for tool in tools:
            properties: object = tool.arguments.schema.get("properties")
            if not isinstance(properties, Mapping):
                return ""
            arguments.update(dict.fromkeys(cast("Mapping[str, Any]", properties)))
        for name in rule.where:
            if name not in arguments:
                meant = _closest(name, arguments) or _among(arguments)
                return f"has a condition on an argument {name!r} that is not there{meant}"
        return ""


def _is_ours(tool: Tool) -> bool:
    return str(getattr(tool.function, "__module__", "")).startswith("agentloop.")


def _closest(name: str, known: Iterable[str]) -> str:
    folded = {other.casefold(): other for other in known}
    near = get_close_matches(name.casefold(), folded, 1, 0.7)
    return f": did you mean {folded[near[0]]!r}?" if near else ""


def _among(known: Iterable[str]) -> str:
    return f": there are {', '.join(map(repr, known))}"[:300] if known else ""
