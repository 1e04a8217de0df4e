"""Background runs: an editor has a text read by another agent, goes on meanwhile, and reads the answer.

Prints::

    reader begins in the background, as reader-1
    editor: The title is "A cold day in April".
    editor reads the answer of reader-1
    editor: Done. The reader says: It has 21 words.
"""

from __future__ import annotations

import trio

from agentloop import Agent, tool
from agentloop.events import ChildStreamStarted, MessageCommitted
from agentloop.messages import AssistantMessage, ToolResult, UserMessage
from agentloop.models import Model, ModelRequest
from agentloop.testing import FunctionModel, Response, calls
from agentloop.toolkit import background

PROMPT = (
    "It was a bright cold day in April, and the clocks were striking thirteen. Nobody wondered. That was how one lived."
)


@tool
async def count_words(text: str) -> str:
    """Count the words of a text."""
    # A person would take longer.
    await trio.sleep(0.1)
    return f"{len(text.split())} words"


def reader_offline(request: ModelRequest) -> str | Response:
    """What stands in for a model here: it has the words counted."""
    last = request.messages[-1]
    return f"It has {last.text}." if isinstance(last, ToolResult) else calls("count_words", text=last.text)


def editor_offline(request: ModelRequest) -> str | Response:
    """What stands in for a model here: it starts the reader, finds a title, and waits for what the reader says."""
    last = request.messages[-1]
    if isinstance(last, UserMessage) and last.reports:
        return f"Done. The reader says: {last.text.splitlines()[-1]}"
    if isinstance(last, ToolResult):
        return 'The title is "A cold day in April".'
    return calls("run_background_agent", agent="reader", task=last.text)


def make_agent(model: Model | str | None = None) -> Agent:
    reader = Agent(
        model or FunctionModel(reader_offline),
        name="reader",
        instructions="Say how many words the text has, in one sentence.",
        description="Reads a text, and says how long it is.",
        tools=[count_words],
    )
    return Agent(
        model or FunctionModel(editor_offline),
        name="editor",
        instructions="Have the reader read the text in the background, find a title meanwhile, and tell what it says.",
        toolsets=[background(reader)],
    )


async def main() -> None:
    async with make_agent().stream(PROMPT) as stream:
        async for event in stream:
            match event:
                case ChildStreamStarted(background=id):
                    print(f"{event.agent} begins in the background, as {id}")
                case MessageCommitted(message=UserMessage(reports=(id,))):
                    print(f"{event.agent} reads the answer of {id}")
                case MessageCommitted(message=AssistantMessage(text=text)) if text and not event.depth:
                    print(f"{event.agent}: {text}")


if __name__ == "__main__":
    trio.run(main)
