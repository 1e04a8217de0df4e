"""May this call run, and with which arguments? Permissions first, then hooks, then the tool's own rule, then a person.

Arguments that somebody replaces on the way are judged again, and the strictest judgement counts.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any, cast

import msgspec
import trio

from agentloop._core.answers import check_always, check_approval
from agentloop._core.json_text import decode_own
from agentloop._core.permissions import Call, Decision, combine, decide, is_granted
from agentloop._core.results import error_result
from agentloop._core.state import MAY_HAVE_RUN
from agentloop._runtime.asking import NOBODY, ask
from agentloop._runtime.foreign import ForeignError, call_foreign
from agentloop._runtime.hook_calls import HookFailedError
from agentloop._runtime.logs import TOOLS, log
from agentloop._runtime.run import Run
from agentloop.errors import ArgumentsError, InvalidAnswerError
from agentloop.events import ApprovalRequested, Source
from agentloop.hooks import Allow, Ask, PreToolUse, ReplaceArguments
from agentloop.messages import ToolCall, ToolResult
from agentloop.permissions import Grant, Permissions, Rule
from agentloop.questions import Answer, Approve, Deny
from agentloop.tools import Tool

__all__ = ["Judged", "is_free", "judge", "may_run_again"]


class Judged:
    """Arguments that a call may run with."""

    __slots__ = ("arguments", "text")

    def __init__(self, arguments: dict[str, Any], text: str) -> None:
        self.arguments = arguments
        """As the function gets them."""
        self.text = text
        """As JSON."""

    def plain(self) -> dict[str, Any]:
        """As JSON values, for hooks and people, and anew for each: one that changes them must not change the rest."""
        return decode_own(self.text, dict[str, Any]) if self.text.strip() else {}


def is_free(run: Run, tool: Tool) -> bool:
    """Whether nobody has a say in calls of ``tool``."""
    if tool.requires_approval or run.hooks.at("pre_tool_use"):
        return False
    # Asked for each call, and nearly always so: spelled out, since lists and generators would take longer than a call.
    if run.root.session.permissions is not None or run.config.permissions is not None:
        return False
    return run.parent is None or next(_around(run), None) is None


async def judge(run: Run, tool: Tool, call: ToolCall, judged: Judged) -> Judged | ToolResult:
    """The arguments that ``call`` may run with, or the result that says why it may not."""
    decided = await _Case(run, tool, call, judged).judge()
    verdict = "denied" if isinstance(decided, ToolResult) else "allowed"
    log(TOOLS, logging.DEBUG, "stream %r: call %r of tool %r %s", run.source.stream, call.id, call.name, verdict)
    return decided


async def may_run_again(run: Run, tool: Tool, call: ToolCall) -> bool:
    """Whether ``call`` is made again, of which nobody knows what came of it, since its process ended."""
    if tool.if_interrupted != "ask":
        return tool.may_run_again
    try:
        shown = Judged({}, call.arguments).plain()
    except msgspec.DecodeError:
        return False

    def build(source: Source, seq: int, id: str) -> ApprovalRequested:
        return ApprovalRequested(
            source, seq, id=id, call_id=call.id, name=tool.name, arguments=shown, reason=MAY_HAVE_RUN
        )

    def check(question: ApprovalRequested, answer: Answer) -> Answer:
        if isinstance(answer, Approve) and (answer.arguments is not None or answer.always):
            problem = "this is about one call, which may have run: approve it as it is, or deny it"
            raise InvalidAnswerError(question=question.id, problem=problem)
        return check_approval(question, lambda arguments: None, answer)

    return isinstance(await ask(run, run.patience, build, check), Approve)


def _own(run: Run) -> list[Permissions]:
    return [given for given in (run.root.session.permissions, run.config.permissions) if given is not None]


def _around(run: Run) -> Iterator[Permissions]:
    at = run.parent
    while at is not None:
        if at.config.permissions is not None:
            yield at.config.permissions
        at = at.parent


class _Case:
    """One call, and what was said of it so far."""

    __slots__ = ("_allowed", "_call", "_judged", "_must_ask", "_reasons", "_run", "_tool", "_tool_asked")

    def __init__(self, run: Run, tool: Tool, call: ToolCall, judged: Judged) -> None:
        self._run = run
        self._tool = tool
        self._call = call
        self._judged = judged
        self._must_ask = False
        self._reasons: dict[str, None] = {}
        """To ask, in order."""
        self._allowed = False
        """Whether a hook has allowed the call, with these arguments."""
        self._tool_asked = False
        """Whether the tool wanted to be asked about, with arguments that were replaced since."""

    async def judge(self) -> Judged | ToolResult:
        try:
            denied = self._hear_rules() or await self._hear_hooks()
            if denied is not None:
                return denied
            await self._hear_tool()
        except HookFailedError as error:
            return self._denied(f"Denied, since {error}.")
        except ArgumentsError as error:
            return self._denied(f"Denied, since a hook replaced the arguments, and {error}")
        if not self._must_ask or self._is_granted():
            return self._judged
        return await self._ask()

    # -------------------------------------------------------------------- without a person

    def _decide(self, judged: Judged) -> Decision:
        """What all permissions say together, and the hooks that have allowed the call."""
        by_hooks = [Decision("allow")] if self._allowed else []
        own, around = _own(self._run), list(_around(self._run))
        if not own and not around:
            # As for most agents: no need to look at the arguments.
            return combine(by_hooks, ())
        call = _call_of(self._tool, judged)
        return combine([*by_hooks, *(decide(one, call) for one in own)], [decide(one, call) for one in around])

    def _hear_rules(self) -> ToolResult | None:
        decision = self._decide(self._judged)
        if decision.effect == "deny":
            return self._denied(f"Denied by {decision.because}.")
        if decision.effect == "ask":
            self._must_ask = True
            self._reasons[f"{decision.because} asks"] = None
        return None

    async def _hear_hooks(self) -> ToolResult | None:
        run = self._run
        for hook in run.hooks.at("pre_tool_use"):
            if not hook.concerns(self._tool.name):
                continue
            verdict = await run.hooks.ask(hook, self._shown())
            if isinstance(verdict, ReplaceArguments):
                # Of the old arguments, while they are still there: to replace them must not make the call any freer.
                if self._decide(self._judged).effect == "tool" and await self._requires_approval():
                    self._tool_asked = True
                self._judged = _replaced(self._tool, verdict.arguments)
                self._allowed = False
                denied = self._hear_rules()
                if denied is not None:
                    return denied
                verdict = verdict.verdict
            match verdict:
                case Deny(reason=reason):
                    return self._denied(_with("Denied by a hook", reason))
                case Ask(reason=reason):
                    self._must_ask = True
                    if reason:
                        self._reasons[reason] = None
                case Allow():
                    self._allowed = True
                case _:
                    pass
        return None

    async def _hear_tool(self) -> None:
        if self._must_ask:
            return
        left_to_the_tool = self._decide(self._judged).effect == "tool"
        if self._tool_asked and not (self._allowed and not left_to_the_tool):
            self._must_ask = True
        elif left_to_the_tool:
            self._must_ask = await self._requires_approval()

    async def _requires_approval(self) -> bool:
        tool, run = self._tool, self._run
        if not callable(tool.requires_approval):
            return tool.requires_approval
        try:
            # Decoded anew: what the predicate does to them must not be what the function gets, unseen by the person.
            arguments = tool.arguments.decode(self._judged.text)
            scope = trio.move_on_after(run.config.deadlines.hook)
            return bool(await call_foreign(scope, tool.requires_approval, arguments))
        except ForeignError as error:
            # It was there to say no: where it cannot say anything, a person decides.
            short = f"requires_approval of tool {tool.name!r} failed"
            run.warn("predicate_failed", f"{short}: {error}", logged=short, error=error.__cause__)
            return True

    # ----------------------------------------------------------------------- with a person

    def _is_granted(self) -> bool:
        grants = self._run.root.session.grants
        return bool(grants) and is_granted(grants, self._run.source.agents, _call_of(self._tool, self._judged))

    async def _ask(self) -> Judged | ToolResult:
        run, tool, judged = self._run, self._tool, self._judged
        shown, reason = judged.plain(), "; ".join(self._reasons)
        # Kept from the check: what was checked is what is used, whatever becomes of the answer in between.
        revised = approved = judged

        def build(source: Source, seq: int, id: str) -> ApprovalRequested:
            return ApprovalRequested(
                source, seq, id=id, call_id=self._call.id, name=tool.name, arguments=shown, reason=reason
            )

        def revise(arguments: Mapping[str, Any]) -> None:
            nonlocal revised
            revised = _replaced(tool, arguments)

        def check(question: ApprovalRequested, answer: Answer) -> Answer:
            nonlocal approved
            answer = check_approval(question, revise, answer)
            if isinstance(answer, Approve):
                approved = judged if answer.arguments is None else revised
                decision = self._decide(approved)
                if decision.effect == "deny":
                    problem = f"{decision.because} denies these arguments"
                    raise InvalidAnswerError(question=question.id, problem=problem)
                check_always(question, answer.always, _call_of(tool, approved))
            return answer

        def accepted(answer: Answer) -> None:
            if not isinstance(answer, Approve) or answer.always is False:
                return
            rule = Rule.exactly(tool.name, approved.plain()) if answer.always is True else answer.always
            grant = Grant(run.source.agents, rule)
            if grant not in run.root.session.grants:
                run.root.session.grants.append(grant)
            run.root.tree.answer_granted(Approve())

        def is_granted_now() -> bool:
            # The permissions of the session may have changed since it was asked.
            return self._is_granted() and self._decide(judged).effect != "deny"

        answer = await ask(run, run.patience, build, check, accepted=accepted, is_granted=is_granted_now)
        match answer:
            case Approve():
                self._judged = approved
                return await self._hear_guards() if approved is not judged else approved
            case Deny(reason=why):
                return self._denied(_with("Denied by the user", why))
            case _:
                because = f" ({reason})" if reason else ""
                return self._denied(f"Denied: it needs approval{because}. {NOBODY}")

    async def _hear_guards(self) -> Judged | ToolResult:
        """Whether a hook denies what the person has made of the arguments. The person has the last word on all else."""
        for hook in self._run.hooks.at("pre_tool_use"):
            if not hook.concerns(self._tool.name):
                continue
            try:
                verdict = await self._run.hooks.ask(hook, self._shown())
            except HookFailedError as error:
                return self._denied(f"Denied, since {error}.")
            if isinstance(verdict, Deny):
                return self._denied(_with("Denied by a hook", verdict.reason))
        return self._judged

    def _shown(self) -> PreToolUse:
        return PreToolUse(self._run.source, self._call.id, self._tool.name, self._judged.plain())

    def _denied(self, text: str) -> ToolResult:
        return error_result(self._call, text, "denied")


def _call_of(tool: Tool, judged: Judged) -> Call:
    return Call(tool.name, judged.plain(), _defaults(tool), tool.read_only, tool.destructive)


def _defaults(tool: Tool) -> dict[str, Any]:
    """What the tool's schema has as defaults. It may come from elsewhere, so nothing about it is sure."""
    properties: object = tool.arguments.schema.get("properties")
    if not isinstance(properties, Mapping):
        return {}
    return {
        name: cast("Mapping[str, Any]", schema)["default"]
        for name, schema in cast("Mapping[str, object]", properties).items()
        if isinstance(schema, Mapping) and "default" in schema
    }


def _replaced(tool: Tool, arguments: Mapping[str, Any]) -> Judged:
    """Arguments that did not come from the model. Read from JSON like the model's own, so that what is shown is used.

    Raises:
      ArgumentsError: they have no JSON form, or do not fit the tool.
    """
    try:
        text = msgspec.json.encode(arguments).decode()
    except (TypeError, ValueError) as error:
        raise ArgumentsError(f"the arguments are not JSON: {error}") from error
    return Judged(tool.arguments.decode(text), text)


def _with(text: str, why: str) -> str:
    return f"{text}: {why}" if why else f"{text}."
