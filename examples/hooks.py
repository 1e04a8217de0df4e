"""Hooks: functions of yours at named points of every run. They let pass, add to, replace or refuse.

Prints::

    ok: LANG is ...
    denied: Denied by a hook: secrets stay here
    scribe: You wrote: My card is [card number]. What are LANG and OPENAI_API_KEY? (It is 20...)
    scribe: Have a nice day!
    session_end: completed
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from datetime import datetime

import msgspec
import trio

from agentloop import Agent, Deny, hooks, tool
from agentloop.events import MessageCommitted
from agentloop.messages import AssistantMessage, Message, Text, ToolResult, UserMessage
from agentloop.models import Model, ModelRequest
from agentloop.testing import FunctionModel, Response, calls

PROMPT = "My card is 4000 0012 3456 7899. What are LANG and OPENAI_API_KEY?"

ended: list[str] = []


@tool
def read_setting(name: str) -> str:
    """Read a variable of the environment."""
    return f"{name} is {os.environ.get(name, 'not set')}"


@hooks.user_prompt_submit
def tell_the_time(submitted: hooks.UserPromptSubmit) -> hooks.Context:
    return hooks.Context(f" (It is {datetime.now().astimezone():%Y-%m-%d %H:%M}.)")


@hooks.before_llm_call
def hide_card_numbers(call: hooks.BeforeLLMCall) -> hooks.ReplaceMessages:
    """The model gets to read other messages; the transcript stays as it is."""
    return hooks.ReplaceMessages([without_card_numbers(message) for message in call.request.messages])


@hooks.pre_tool_use(tools="read_*")
def keep_secrets(call: hooks.PreToolUse) -> Deny | None:
    return Deny("secrets stay here") if "KEY" in call.arguments["name"] else None


@hooks.stop
def send_on_once(stopping: hooks.StopRequested) -> hooks.Continue | None:
    return hooks.Continue("Say goodbye, too.") if stopping.continuations == 0 else None


@hooks.session_end
def note_the_end(end: hooks.SessionEnd) -> None:
    """Runs on every way out, cancelled or not."""
    ended.append(f"session_end: {end.reason}")


def without_card_numbers(message: Message) -> Message:
    if not isinstance(message, UserMessage):
        return message
    parts = [
        Text(re.sub(r"\d{4}( ?\d{4}){3}", "[card number]", part.text)) if isinstance(part, Text) else part
        for part in message.parts
    ]
    return msgspec.structs.replace(message, parts=tuple(parts))


def offline(request: ModelRequest) -> Response | str:
    """What stands in for a model here: it looks up all that is written in capitals."""
    first, last = request.messages[0], request.messages[-1]
    if isinstance(last, ToolResult):
        return f"You wrote: {first.text}"
    names: Sequence[str] = re.findall(r"\b[A-Z_]{4,}\b", last.text)
    return sum((calls("read_setting", name=name) for name in names), start=Response()) if names else "Have a nice day!"


def make_agent(model: Model | str | None = None) -> Agent:
    return Agent(
        model or FunctionModel(offline),
        name="scribe",
        instructions="Look up the settings that the user names.",
        tools=[read_setting],
        hooks=[tell_the_time, hide_card_numbers, keep_secrets, send_on_once, note_the_end],
    )


async def main() -> None:
    async with make_agent().stream(PROMPT) as stream:
        async for event in stream:
            match event:
                case MessageCommitted(message=ToolResult(status=status, text=text)):
                    print(f"{status}: {text}")
                case MessageCommitted(message=AssistantMessage(text=text)) if text:
                    print(f"{event.agent}: {text}")
                case _:
                    pass
    print(*ended)


if __name__ == "__main__":
    trio.run(main)
