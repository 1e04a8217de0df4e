"""Read the output of a hook's program: its JSON, and the verdict that it stands for."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from agentloop import hooks
from agentloop._core.json_text import decode_json
from agentloop.hooks import HookWarning, Point
from agentloop.messages import Text, ToolResult
from agentloop.questions import Deny

__all__ = ["Answer", "CommandFailedError", "read", "verdict"]


class CommandFailedError(Exception):
    """The hook's program failed, so its verdict is unknown."""


class _Specific(msgspec.Struct, rename="camel"):
    permission_decision: Literal["allow", "deny", "ask", "defer"] | None = None
    permission_decision_reason: str | None = None
    updated_input: dict[str, Any] | None = None
    additional_context: str | None = None
    updated_tool_output: Any = None


class Answer(msgspec.Struct, rename="camel"):
    """The JSON that a program may write. Unknown fields are ignored."""

    decision: Literal["approve", "allow", "block", "deny", "ask"] | None = None
    """``allow``, ``deny`` and ``ask`` are docker-agent's, ``approve`` and ``block`` Claude Code's."""
    reason: str | None = None
    going_on: bool = msgspec.field(name="continue", default=True)
    stop_reason: str | None = None
    hook_specific_output: _Specific = msgspec.field(default_factory=_Specific)

    @property
    def blocks(self) -> bool:
        """Whether it wants to block, in one of the ways there are."""
        return self.decision in ("block", "deny") or self.hook_specific_output.permission_decision == "deny"

    @property
    def why(self) -> str:
        """The reason for the decision; empty if it gives none."""
        return self.hook_specific_output.permission_decision_reason or self.reason or ""


def read(point: Point[Any, Any], stdout: str) -> Answer:
    """Read the output of a program that exited with 0.

    Raises:
      CommandFailedError: the output looks like JSON and is malformed, or a field has the wrong type.
    """
    stdout = stdout.strip()
    if not stdout.startswith("{"):
        return Answer(
            hook_specific_output=_Specific(additional_context=stdout if hooks.Context in point.verdicts else None)
        )
    try:
        return decode_json(stdout, Answer)
    except msgspec.DecodeError as error:
        raise CommandFailedError(f"it wrote what is no answer: {error}: {stdout[:200]}") from error


def verdict(point: Point[Any, Any], value: Any, answer: Answer) -> Any:
    """The verdict that ``answer`` stands for.

    Raises:
      HookWarning: there is nothing to block at this point.
    """
    more = answer.hook_specific_output
    stops, blocks = not answer.going_on, answer.blocks
    why = (answer.stop_reason or answer.why) if stops else answer.why
    match point.name:
        case "pre_tool_use":
            return Deny(why) if stops or blocks else _permission(answer, more)
        case "post_tool_use":
            return hooks.Block(why) if stops else _result(value.result, more, why if blocks else "")
        case "stop" if blocks and not stops:
            return hooks.Continue(why or "Go on.")
        case _ if not (stops or blocks):
            adds = hooks.Context in point.verdicts and more.additional_context
            return hooks.Context(more.additional_context or "") if adds else None
        case _ if hooks.Block in point.verdicts:
            return hooks.Block(why)
        case _:
            raise HookWarning(f"it wants to block what cannot be blocked here: {why}")


def _permission(answer: Answer, more: _Specific) -> Any:
    decided: hooks.Allow | hooks.Ask | None = None
    match more.permission_decision or answer.decision:
        case "allow" | "approve":
            decided = hooks.Allow()
        case "ask":
            decided = hooks.Ask(answer.why)
        case _:
            pass
    return decided if more.updated_input is None else hooks.ReplaceArguments(more.updated_input, decided)


def _result(result: ToolResult, more: _Specific, why: str) -> hooks.ReplaceResult | None:
    parts = result.parts
    if more.updated_tool_output is not None:
        new = more.updated_tool_output
        parts = (Text(new if isinstance(new, str) else msgspec.json.encode(new).decode()),)
    parts = (*parts, *(Text(text) for text in (why, more.additional_context) if text))
    return None if parts == result.parts else hooks.ReplaceResult(ToolResult("", "", parts, result.status))
