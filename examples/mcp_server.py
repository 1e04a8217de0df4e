"""MCP: an agent uses a server in a process of its own, and the person answers what the server asks.

Prints::

    book asks: Whom is the table for?
      name: text
      guests: 1 to 8
    The table is booked: Ada, 4 guests, at the window.
"""

from __future__ import annotations

import sys
from typing import Any

import trio

from agentloop import Accept, Agent
from agentloop.events import ElicitationRequested, ToolCallStarted
from agentloop.mcp import McpServer
from agentloop.messages import ToolResult
from agentloop.models import Model, ModelRequest
from agentloop.testing import FunctionModel, Response, calls

PROMPT = "Book a table at the window."

SERVER = """
from typing import Annotated, Any
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.resolve import Elicit, Resolve
from pydantic import BaseModel, Field

server = MCPServer("restaurant", instructions="Ask for nothing that the guest can be asked by the server itself.")


class Guest(BaseModel):
    name: str
    guests: int = Field(default=2, ge=1, le=8)


async def ask() -> Elicit[Guest]:
    return Elicit("Whom is the table for?", Guest)


@server.tool()
async def book(place: str, guest: Annotated[Guest, Resolve(ask)]) -> str:
    "Book a table."
    return f"{guest.name}, {guest.guests} guests, {place}"


server.run("stdio")
"""
"""Any other would do: it is a program that speaks MCP, such as those that `npx` and `uvx` start."""


def offline(request: ModelRequest) -> Response | str:
    """What stands in for a model here: it knows one tool."""
    last = request.messages[-1]
    if isinstance(last, ToolResult):
        return f"The table is booked: {last.text}." if last.status == "ok" else f"That did not work: {last.text}"
    place = last.text.removeprefix("Book a table").strip(" .") if "Book a table" in last.text else "anywhere"
    return calls("book", place=place)


def make_agent(model: Model | str | None = None) -> Agent:
    restaurant = McpServer.stdio(sys.executable, "-c", SERVER, name="restaurant")
    return Agent(model or FunctionModel(offline), name="concierge", toolsets=[restaurant])


async def main() -> None:
    # The server is started with the stream, and has ended, with all that it started, when the block ends.
    async with make_agent().stream(PROMPT) as stream:
        asking = ""
        async for event in stream:
            match event:
                case ToolCallStarted():
                    asking = event.name
                case ElicitationRequested():
                    print(f"{asking} asks: {event.message}")
                    for name, field in event.form["properties"].items():
                        print(f"  {name}: {in_words(field)}")
                    # In a real program, when the person has typed.
                    stream.answer(event.id, Accept({"name": "Ada", "guests": 4}))
                case _:
                    pass
    print(stream.result.output)


def in_words(field: dict[str, Any]) -> str:
    """What a field of a form takes."""
    return f"{field['minimum']} to {field['maximum']}" if field["type"] == "integer" else "text"


if __name__ == "__main__":
    trio.run(main)
