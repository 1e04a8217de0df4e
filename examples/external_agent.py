"""Another program as an agent: an editor gives it a task, and a person allows what it asks for.

Prints::

    editor gives a task to polisher
    polisher asks for permission: Polish the text
    polisher: It is a fine, bright day.
    editor: Here it is: It is a fine, bright day.
"""

from __future__ import annotations

import sys

import trio

from agentloop import Agent, Approve
from agentloop.acp import ExternalAgent
from agentloop.events import ApprovalRequested, ChildStreamStarted, MessageCommitted
from agentloop.messages import AssistantMessage, ToolResult
from agentloop.models import Model, ModelRequest
from agentloop.testing import FunctionModel, Response, calls
from agentloop.toolkit import transfer_task

PROMPT = "it is a bright day"

POLISHER = r"""
import json, sys

def send(**message):
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)

def update(**update):
    send(method="session/update", params={"sessionId": "1", "update": update})

for message in map(json.loads, sys.stdin):
    match message:
        case {"method": "initialize"}:
            send(id=message["id"], result={"protocolVersion": 1})
        case {"method": "session/new"}:
            send(id=message["id"], result={"sessionId": "1"})
        case {"method": "session/prompt", "params": {"prompt": [{"text": text}]}}:
            prompt = message["id"]
            call = {"toolCallId": "c", "title": "Polish the text", "kind": "edit", "rawInput": {"text": text}}
            options = [{"optionId": "yes", "name": "Allow", "kind": "allow_once"}]
            send(id="ask", method="session/request_permission",
                 params={"sessionId": "1", "toolCall": call, "options": options})
        case {"id": "ask", "result": {"outcome": outcome}}:
            allowed = outcome.get("optionId") == "yes"
            update(sessionUpdate="tool_call_update", toolCallId="c", status="completed" if allowed else "failed")
            said = text.strip().capitalize().replace("a bright", "a fine, bright") + "." if allowed else "I may not."
            update(sessionUpdate="agent_message_chunk", content={"type": "text", "text": said})
            send(id=prompt, result={"stopReason": "end_turn"})
"""
"""A program that speaks the Agent Client Protocol. Claude Code and Codex take its place in earnest."""


def editor_offline(request: ModelRequest) -> str | Response:
    """What stands in for a model here: it has the text polished."""
    last = request.messages[-1]
    if isinstance(last, ToolResult):
        return f"Here it is: {last.text}"
    return calls("transfer_task", agent="polisher", task=last.text)


def make_agent(model: Model | str | None = None) -> Agent:
    polisher = ExternalAgent(
        "polisher",
        [sys.executable, "-I", "-S", "-c", POLISHER],
        description="Polishes a text.",
        files=False,
        terminal=False,
    )
    return Agent(
        model or FunctionModel(editor_offline),
        name="editor",
        instructions="Have the text polished by the polisher, and tell the result.",
        tools=[transfer_task(polisher)],
    )


async def main() -> None:
    async with make_agent().stream(PROMPT) as stream:
        async for event in stream:
            match event:
                case ChildStreamStarted():
                    print(f"editor gives a task to {event.agent}")
                case ApprovalRequested(arguments=arguments):
                    print(f"{event.agent} asks for permission: {arguments['title']}")
                    stream.answer(event.id, Approve())
                case MessageCommitted(message=AssistantMessage(text=text)) if text:
                    print(f"{event.agent}: {text}")
                case _:
                    pass


if __name__ == "__main__":
    trio.run(main)
