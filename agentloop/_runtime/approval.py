"""May this call run, and with which arguments? Hooks first, then the tool's own rule, then a person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import trio

from agentloop._core.answers import check_approval
from agentloop._core.results import error_result
from agentloop._runtime.asking import NOBODY, ask
from agentloop._runtime.foreign import ForeignError, call_foreign
from agentloop._runtime.hook_calls import HookFailedError
from agentloop._runtime.run import Run
from agentloop.errors import ArgumentsError
from agentloop.events import ApprovalRequested, Source
from agentloop.hooks import Allow, Ask, PreToolUse, ReplaceArguments
from agentloop.messages import ToolCall, ToolResult
from agentloop.questions import Answer, Approve, Deny
from agentloop.tools import Tool

__all__ = ["Judged", "judge"]


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
        return msgspec.json.decode(self.text, type=dict[str, Any]) if self.text.strip() else {}


async def judge(run: Run, tool: Tool, call: ToolCall, judged: Judged) -> Judged | ToolResult:
    """The arguments that ``call`` may run with, or the result that says why it may not."""
    asks: list[str] = []
    allowed = False
    try:
        for hook in run.hooks.at("pre_tool_use"):
            if not hook.concerns(tool.name):
                continue
            verdict = await run.hooks.ask(hook, PreToolUse(run.source, call.id, tool.name, judged.plain()))
            match verdict:
                case Deny(reason=reason):
                    return error_result(call, _denied("by a hook", reason), "denied")
                case Ask(reason=reason):
                    asks.append(reason)
                case Allow():
                    allowed = True
                case ReplaceArguments(arguments=replaced):
                    judged = _replaced(tool, replaced)
                case _:
                    pass
        needs_approval = bool(asks) or (not allowed and await _requires_approval(run, tool, judged))
    except HookFailedError as error:
        return error_result(call, f"Denied, since {error}.", "denied")
    except ArgumentsError as error:
        return error_result(call, f"Denied, since a hook replaced the arguments, and {error}", "denied")
    if not needs_approval or (run.source.agents, tool.name) in run.root.grants:
        return judged
    return await _ask_for_approval(run, tool, call, judged, "; ".join(reason for reason in asks if reason))


async def _requires_approval(run: Run, tool: Tool, judged: Judged) -> bool:
    if not callable(tool.requires_approval):
        return tool.requires_approval
    try:
        # Decoded anew: what the predicate does to them must not be what the function gets, unseen by the person.
        arguments = tool.arguments.decode(judged.text)
        scope = trio.move_on_after(run.config.deadlines.hook)
        return bool(await call_foreign(scope, tool.requires_approval, arguments))
    except ForeignError as error:
        # It was there to say no: where it cannot say anything, a person decides.
        run.emitter.warn("predicate_failed", f"requires_approval of tool {tool.name!r} failed: {error}")
        return True


async def _ask_for_approval(run: Run, tool: Tool, call: ToolCall, judged: Judged, reason: str) -> Judged | ToolResult:
    shown = judged.plain()

    def build(source: Source, seq: int, id: str) -> ApprovalRequested:
        return ApprovalRequested(source, seq, id=id, call_id=call.id, name=tool.name, arguments=shown, reason=reason)

    # Kept from the check: what was checked is what is used, whatever becomes of the answer in between.
    revised = judged

    def revise(arguments: Mapping[str, Any]) -> None:
        nonlocal revised
        revised = _replaced(tool, arguments)

    def check(question: ApprovalRequested, answer: Answer) -> Answer:
        return check_approval(question, revise, answer)

    answer = await ask(run, run.patience, build, check)
    match answer:
        case Approve(arguments=changed, always=always):
            if always:
                # With the agents above it: names are seldom unique, and most agents are called "agent".
                run.root.grants.add((run.source.agents, tool.name))
            return judged if changed is None else revised
        case Deny(reason=why):
            return error_result(call, _denied("by the user", why), "denied")
        case _:
            return error_result(call, _denied("", f"it needs approval. {NOBODY}"), "denied")


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


def _denied(by: str, why: str) -> str:
    text = f"Denied {by}".strip()
    return f"{text}: {why}" if why else f"{text}."
