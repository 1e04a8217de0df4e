"""Nested agents: an editor has two others read a text at the same time. One stream tells of all three.

Prints::

    editor calls counter
    editor calls critic
    editor > counter calls count_words
    editor > critic calls longest_sentence
    editor: The counter says: 21 words. The critic says: This is too long: "It was ..."
    6 requests to models, those of the helpers included
"""

from __future__ import annotations

import re

import trio

from agentloop import Agent, tool
from agentloop.events import MessageCommitted, StreamStopped, ToolCallStarted
from agentloop.messages import AssistantMessage, ToolResult
from agentloop.models import Model, ModelRequest
from agentloop.testing import FunctionModel, Response, calls

PROMPT = (
    "It was a bright cold day in April, and the clocks were striking thirteen. Nobody wondered. That was how one lived."
)


@tool
def count_words(text: str) -> str:
    """Count the words of a text."""
    return f"{len(text.split())} words"


@tool
def longest_sentence(text: str) -> str:
    """Find the longest sentence of a text."""
    sentences: list[str] = re.findall(r"[^.!?]+[.!?]?", text)
    return max(sentences, key=len).strip()


def offline_counter(request: ModelRequest) -> Response | str:
    last = request.messages[-1]
    return f"{last.text}." if isinstance(last, ToolResult) else calls("count_words", text=last.text)


def offline_critic(request: ModelRequest) -> Response | str:
    last = request.messages[-1]
    if isinstance(last, ToolResult):
        return f'This is too long: "{last.text}"'
    return calls("longest_sentence", text=last.text)


def offline_editor(request: ModelRequest) -> Response | str:
    last = request.messages[-1]
    if isinstance(last, ToolResult):
        results = [message for message in request.messages if isinstance(message, ToolResult)]
        return " ".join(f"The {result.name} says: {result.text}" for result in results)
    return calls("counter", prompt=last.text) + calls("critic", prompt=last.text)


def make_agent(model: Model | str | None = None) -> Agent:
    counter = Agent(
        model or FunctionModel(offline_counter),
        name="counter",
        instructions="Say how many words the text has.",
        tools=[count_words],
    )
    critic = Agent(
        model or FunctionModel(offline_critic),
        name="critic",
        instructions="Say which sentence of the text is too long.",
        tools=[longest_sentence],
    )
    return Agent(
        model or FunctionModel(offline_editor),
        name="editor",
        instructions="Give the whole text to the counter and to the critic, at once. Then sum up what they say.",
        tools=[counter.as_tool(), critic.as_tool()],
    )


async def main() -> None:
    async with make_agent().stream(PROMPT) as stream:
        async for event in stream:
            match event:
                case ToolCallStarted():
                    print(" > ".join(event.path), "calls", event.name)
                case MessageCommitted(message=AssistantMessage(text=text)) if text and event.depth == 0:
                    print(f"{event.agent}: {text}")
                case StreamStopped():
                    print(event.usage.requests, "requests to models, those of the helpers included")
                case _:
                    pass


if __name__ == "__main__":
    trio.run(main)
