"""Staff: a background run that belongs to the whole chat, and not to one prompt: it ends with its block.

Prints::

    you: Have somebody count the words of the Divine Comedy.
    host: Counter-1 is at it. What else?
    you: What is the capital of Italy?
    host: Rome.
    you: And?
    host reads the answer of counter-1
    host: The counter says: 101,698 words.
"""

from __future__ import annotations

import trio

from agentloop import Agent, Session, Toolsets, tool
from agentloop.events import MessageCommitted
from agentloop.messages import AssistantMessage, ToolResult, UserMessage
from agentloop.models import Model, ModelRequest
from agentloop.testing import FunctionModel, Response, calls
from agentloop.toolkit import background

PROMPTS = (
    "Have somebody count the words of the Divine Comedy.",
    "What is the capital of Italy?",
    "And?",
)


@tool
async def count_words(book: str) -> str:
    """Count the words of a book."""
    # It takes longer than the answer to the next prompt.
    await trio.sleep(0.2)
    return "101,698 words"


def counter_offline(request: ModelRequest) -> str | Response:
    """The function in the place of the counter's model: it has the words counted."""
    last = request.messages[-1]
    return f"{last.text}." if isinstance(last, ToolResult) else calls("count_words", book=last.text)


def host_offline(request: ModelRequest) -> str | Response:
    """The function in the place of the host's model: it has the counter count, and answers meanwhile."""
    last = request.messages[-1]
    if isinstance(last, UserMessage) and last.reports:
        return f"The counter says: {last.text.splitlines()[-1]}"
    if isinstance(last, ToolResult):
        return f"{last.text.split()[0].capitalize()} is at it. What else?"
    if "capital" in last.text:
        return "Rome."
    return calls("run_background_agent", agent="counter", task="The Divine Comedy")


def make_counter(model: Model | str | None = None) -> Agent:
    return Agent(
        model or FunctionModel(counter_offline),
        name="counter",
        instructions="Count the words of the book.",
        description="Counts the words of a book.",
        tools=[count_words],
    )


def make_host(staff: Toolsets, model: Model | str | None = None) -> Agent:
    return Agent(
        model or FunctionModel(host_offline),
        name="host",
        instructions="Answer in one sentence. What takes long is for an agent in the background.",
        toolsets=[staff],
    )


async def main(model: Model | str | None = None) -> None:
    # Where this block ends, its background runs have ended.
    async with Toolsets(background(make_counter(model))) as staff:
        host, session = make_host(staff, model), Session()
        for prompt in PROMPTS:
            print(f"you: {prompt}")
            if prompt == "And?":
                await trio.sleep(0.4)
            async with host.stream(prompt, session=session) as stream:
                async for event in stream:
                    match event:
                        case MessageCommitted(message=UserMessage(reports=(id,))):
                            print(f"{event.agent} reads the answer of {id}")
                        case MessageCommitted(message=AssistantMessage(text=text)) if text:
                            print(f"{event.agent}: {text}")


if __name__ == "__main__":
    trio.run(main)
