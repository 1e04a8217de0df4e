"""Questions: a tool has a person fill in a form; another may run only if a person approves.

Prints::

    Whom is the invitation for?
      guest: text
      day: one of Friday, Saturday, Sunday
      seats: 1 to 8
    May I call save with {'text': 'Dear Ada, you are invited to ... Come on Sunday, 2 at most!...'}?
    The invitation is ready: saved 86 characters in invitation-....txt
"""

from __future__ import annotations

import os
import tempfile
from typing import Annotated, Any, Literal

import trio
from attrs import frozen
from msgspec import Meta

from agentloop import Accept, Agent, Approve, ToolContext, tool
from agentloop.events import ApprovalRequested, ElicitationRequested
from agentloop.messages import ToolResult, UserMessage
from agentloop.models import Model, ModelRequest
from agentloop.testing import FunctionModel, Response, calls

PROMPT = "Write an invitation to a summer party in the garden."


@frozen
class Guest:
    """The form. Its fields are those of the class."""

    guest: Annotated[str, Meta(min_length=1)] = "Ada"
    day: Literal["Friday", "Saturday", "Sunday"] = "Saturday"
    seats: Annotated[int, Meta(ge=1, le=8)] = 2


@tool
async def ask_for_guest(context: ToolContext[None]) -> str:
    """Ask the user whom the invitation is for."""
    answer = await context.ask_for("Whom is the invitation for?", Guest)
    # A person may also decline, or close the dialog; or there was nobody to ask.
    return f"{answer.guest}, {answer.day}, {answer.seats}" if isinstance(answer, Guest) else "The user did not say."


@tool(requires_approval=True)
async def save(text: str) -> str:
    """Save a text in a file of its own."""
    descriptor, path = tempfile.mkstemp(prefix="invitation-", suffix=".txt")
    async with await trio.open_file(descriptor, "w", encoding="utf-8") as file:
        await file.write(text)
    return f"saved {len(text)} characters in {os.path.basename(path)}"  # noqa: PTH119


def offline(request: ModelRequest) -> Response | str:
    """What stands in for a model here: it knows one way to write an invitation."""
    last = request.messages[-1]
    if isinstance(last, UserMessage):
        return calls("ask_for_guest")
    assert isinstance(last, ToolResult)
    if last.name == "save":
        return f"The invitation is ready: {last.text}" if last.status == "ok" else f"As you wish. ({last.text})"
    match last.text.split(", "):
        case [guest, day, seats]:
            occasion = request.messages[0].text.removeprefix("Write an invitation to ").rstrip(".")
            return calls("save", text=f"Dear {guest}, you are invited to {occasion}. Come on {day}, {seats} at most!\n")
        case _:
            return "Then I cannot write an invitation."


def make_agent(model: Model | str | None = None) -> Agent:
    return Agent(
        model or FunctionModel(offline),
        name="secretary",
        instructions="Ask for the guest first. Then write a short text, and save it.",
        tools=[ask_for_guest, save],
    )


async def main() -> None:
    async with make_agent().stream(PROMPT) as stream:
        async for event in stream:
            match event:
                case ElicitationRequested():
                    print(event.message)
                    for name, field in event.form["properties"].items():
                        print(f"  {name}: {in_words(field)}")
                    # By id, from any task, at any time; in a real program, when the person has typed.
                    stream.answer(event.id, Accept({"guest": "Ada", "day": "Sunday"}))
                case ApprovalRequested():
                    print(f"May I call {event.name} with {event.arguments}?")
                    stream.answer(event.id, Approve())
                case _:
                    pass
    print(stream.result.output)


def in_words(field: dict[str, Any]) -> str:
    """What a field of a form takes. Forms are JSON Schema, as in MCP."""
    match field:
        case {"enum": choices}:
            return f"one of {', '.join(choices)}"
        case {"type": "integer", "minimum": least, "maximum": most}:
            return f"{least} to {most}"
        case _:
            return "text"


if __name__ == "__main__":
    trio.run(main)
