"""Built-in tools: files and a shell, here in a folder that each stream has of its own, and which ends with it.

Prints::

    May I call write_file with {'path': 'note.txt', 'content': 'Buy apples, pears and plums.'}?
    May I call shell with {'command': 'wc -w < note.txt'}?
    shell shows 5
    read_file: '../secret.txt' is outside of ...: give a path in there, relative to it
    There are 5 words in the note.
"""

from __future__ import annotations

from pathlib import Path

import trio

from agentloop import Agent, Approve, Tool
from agentloop.events import ApprovalRequested, ToolCallFinished, ToolCallOutput
from agentloop.messages import ToolResult, UserMessage
from agentloop.models import Model, ModelRequest
from agentloop.testing import FunctionModel, Response, calls
from agentloop.toolkit import SpoolDirectory, ask_user, file_tools, shell

PROMPT = "Buy apples, pears and plums."


def tools(folder: Path) -> list[Tool]:
    # What changes something asks for approval, unless one says `requires_approval=False`. A command may do whatever
    # the user may; the file tools cannot leave the folder.
    return [shell(cwd=folder), *file_tools(folder, write=True), ask_user()]


def offline(request: ModelRequest) -> Response | str:
    """What stands in for a model here: it notes what it is told, and counts the words."""
    last = request.messages[-1]
    if isinstance(last, UserMessage):
        return calls("write_file", path="note.txt", content=last.text)
    assert isinstance(last, ToolResult)
    if last.name == "write_file" and last.status == "ok":
        return calls("shell", command="wc -w < note.txt")
    if last.name == "shell" and last.status == "ok":
        return calls("read_file", path="../secret.txt")
    counts = [
        message.text for message in request.messages if isinstance(message, ToolResult) and message.name == "shell"
    ]
    return f"There are {counts[-1].split()[0]} words in the note." if counts else f"As you wish. ({last.text})"


def make_agent(model: Model | str | None = None) -> Agent:
    return Agent(model or FunctionModel(offline), name="clerk", toolsets=[SpoolDirectory(tools)])


async def main() -> None:
    async with make_agent().stream(PROMPT) as stream:
        async for event in stream:
            match event:
                case ApprovalRequested():
                    print(f"May I call {event.name} with {event.arguments}?")
                    stream.answer(event.id, Approve())
                case ToolCallOutput():
                    print("shell shows", event.text.strip())
                case ToolCallFinished(name="read_file"):
                    print(f"read_file: {event.result.text}")
                case _:
                    pass
    print(stream.result.output)


if __name__ == "__main__":
    trio.run(main)
