"""The input of a hook's program: each hook point as JSON."""

from __future__ import annotations

from typing import Any

import msgspec

from agentloop import hooks
from agentloop.events import ApprovalRequested, ContinueRequested, Question
from agentloop.hooks import Point
from agentloop.wire import encode_event, encode_messages

__all__ = ["POINTS", "event_name", "told"]


def event_name(name: str) -> str:
    """Claude Code's name of a point: ``PreToolUse`` for ``pre_tool_use``."""
    return "".join("LLM" if word == "llm" else word.capitalize() for word in name.split("_"))


POINTS: dict[str, Point[Any, Any]] = {
    event_name(point.name): point for point in vars(hooks).values() if isinstance(point, Point)
}


_SOURCES: dict[hooks.Begins, str] = {"new": "startup", "continue": "resume", "resume": "resume", "handoff": "handoff"}
"""Claude Code's words for how a session starts."""


def told(value: Any) -> dict[str, Any]:
    """The fields that are particular to the point."""
    match value:
        case hooks.SessionStart():
            return {"source": _SOURCES[value.begins], "prompt": value.prompt.text}
        case hooks.UserPromptSubmit() | hooks.UserFollowupSubmit():
            return {"prompt": value.prompt.text}
        case hooks.UserSteeringMessagesSubmit(messages=messages):
            return {"steering_messages": [message.text for message in messages]}
        case hooks.BeforeLLMCall():
            conversation = msgspec.Raw(encode_messages(list(value.request.messages)))
            return {"turn": value.turn, "purpose": value.purpose, "call_id": value.call_id, "messages": conversation}
        case hooks.AfterLLMCall():
            return {
                "turn": value.turn,
                "purpose": value.purpose,
                "call_id": value.call_id,
                "message": value.message,
            }
        case hooks.PreToolUse():
            return _call(value)
        case hooks.OnToolApprovalDecision(decision=decision, by=by, detail=detail):
            return {**_call(value), "decision": decision, "decided_by": by, "reason": detail}
        case hooks.PostToolUse(result=result):
            return {**_call(value), "tool_response": {"status": result.status, "content": result.text}}
        case hooks.Notification(question=question):
            return {**_in_words(question), "question": msgspec.Raw(encode_event(question))}
        case hooks.OnError(error=error):
            return {"error": {"type": type(error).__name__, "message": str(error)}}
        case hooks.OnAgentSwitch(source=source, to=to, kind=kind):
            return {"from_agent": source.agents[-1], "to_agent": to, "kind": kind}
        case hooks.StopRequested():
            return {"stop_hook_active": value.continuations > 0, "last_assistant_message": value.message.text}
        case hooks.SubagentStop(child=child):
            return {"agent_id": child.stream, "agent_type": child.agents[-1], "reason": value.reason}
        case _:
            # Fields of plain data, such as ``turn`` and ``reason``, as they are.
            return {name: getattr(value, name) for name in value.__struct_fields__ if name not in ("source", "deps")}


def _call(value: hooks.PreToolUse | hooks.OnToolApprovalDecision | hooks.PostToolUse) -> dict[str, Any]:
    return {"tool_name": value.name, "tool_input": value.arguments, "tool_use_id": value.call_id}


def _in_words(question: Question) -> dict[str, str]:
    match question:
        case ApprovalRequested(name=name):
            return {"notification_type": "permission_prompt", "message": f"May {name} be called?"}
        case ContinueRequested(limit=limit):
            return {"notification_type": "limit_reached", "message": f"The limit of {limit} is reached."}
        case _:
            return {"notification_type": "elicitation_dialog", "message": question.message}
