"""An MCP server of the new era, whose calls take several rounds: ``python -m tests.mcp.servers.rounds LOG [KEY]``.

It writes down each round that it is asked for, so that a test can count them, whichever process they came to.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.request_state import RequestStateSecurity
from mcp_types import (
    CreateMessageRequest,
    CreateMessageRequestParams,
    CreateMessageResult,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitRequestURLParams,
    ElicitResult,
    InputRequest,
    InputRequiredResult,
    ListRootsRequest,
    ListRootsResult,
    SamplingMessage,
    TextContent,
    ToolAnnotations,
)

KEY = "a key that every process of this server has, as one that runs for long must"
ODD = '{"so": "far", "it\'s": "\\u2028 \u00e4\U0001f600"}'
"""A state that does not survive unless it is given back as it was."""


def form(message: str, field: str) -> ElicitRequest:
    schema = {"type": "object", "properties": {field: {"type": "string"}}, "required": [field]}
    return ElicitRequest(params=ElicitRequestFormParams(message=message, requested_schema=schema))


def page(message: str, url: str) -> ElicitRequest:
    return ElicitRequest(params=ElicitRequestURLParams(message=message, url=url))


def model(text: str) -> CreateMessageRequest:
    said = SamplingMessage(role="user", content=TextContent(text=text))
    return CreateMessageRequest(params=CreateMessageRequestParams(messages=[said], max_tokens=10))


def ask(state: str, **requests: InputRequest) -> InputRequiredResult:
    return InputRequiredResult(input_requests=requests, request_state=state)


def told(answers: Mapping[str, Any] | None) -> str:
    """What came back, in one line."""
    words: list[str] = []
    for key, answer in (answers or {}).items():
        match answer:
            case ElicitResult(action="accept", content=content):
                words.append(f"{key}={'+'.join(map(str, (content or {'': 'yes'}).values()))}")
            case ElicitResult(action=action):
                words.append(f"{key}={action}")
            case CreateMessageResult(content=TextContent(text=text)):
                words.append(f"{key}={text}")
            case ListRootsResult(roots=roots):
                words.append(f"{key}={len(roots)} roots")
            case _:
                words.append(f"{key}?")
    return " ".join(words)


def make_server(log: Path, key: str = "") -> MCPServer:
    """A server, or the next process of one if it has the same ``key``; without one, it knows no other's state."""
    security = RequestStateSecurity(keys=[key]) if key else None
    server = MCPServer("rounds", log_level="CRITICAL", request_state_security=security)

    def note(tool: str, ctx: Context) -> str:
        """Write down that a round of ``tool`` was asked for; give the state that came with it."""
        state = ctx.request_state or ""
        with log.open("a") as file:
            file.write(f"{tool} {state.partition('|')[0] or 'begin'}\n")
        return state

    async def twice(tool: str, room: str, ctx: Context) -> str | InputRequiredResult:
        state = note(tool, ctx)
        if not state:
            return ask(f"named|{ODD}", name=form("Who comes?", "name"))
        step, _, before = state.partition("|")
        if step == "named":
            assert before == ODD
            return ask(f"seated|{told(ctx.input_responses)}", seats=form("Which seat?", "seat"))
        return f"{room}: {before} {told(ctx.input_responses)}"

    @server.tool()
    async def book(room: str, ctx: Context) -> str | InputRequiredResult:
        """Ask twice, one thing after the other."""
        return await twice("book", room, ctx)

    @server.tool(annotations=ToolAnnotations(read_only_hint=True))
    async def look(room: str, ctx: Context) -> str | InputRequiredResult:
        """The same, of which it is known that it may be called again."""
        return await twice("look", room, ctx)

    @server.tool()
    async def survey(ctx: Context) -> str | InputRequiredResult:
        """Ask several things at once."""
        if not note("survey", ctx):
            requests = {"first": form("First?", "a"), "page": page("Read this.", "https://example.org/terms")}
            return ask("asked", **requests, folders=ListRootsRequest(), last=form("Last?", "z"))
        return told(ctx.input_responses)

    @server.tool()
    async def consult(ctx: Context) -> str | InputRequiredResult:
        """Ask the model between two questions to the user, and then once more."""
        state = note("consult", ctx)
        if not state:
            return ask("consulted", may=form("May I?", "a"), idea=model("An idea?"), sure=form("Sure?", "z"))
        step, _, before = state.partition("|")
        if step == "consulted":
            return ask(f"done|{told(ctx.input_responses)}", then=form("And then?", "b"))
        return f"{before} {told(ctx.input_responses)}"

    @server.tool()
    async def stateless(room: str, ctx: Context) -> str | InputRequiredResult:
        """Ask once, and leave nothing to be given back."""
        with log.open("a") as file:
            file.write(f"stateless {room}{' answered' if ctx.input_responses else ''}\n")
        if not ctx.input_responses:
            return InputRequiredResult(input_requests={"name": form("Who comes?", "name")})
        return f"{room}: {told(ctx.input_responses)}"

    @server.tool()
    async def same(ctx: Context) -> str | InputRequiredResult:
        """Ask the same thing in each of two rounds."""
        state = note("same", ctx)
        if not state:
            return ask("once", q=form("Well?", "a"))
        step, _, before = state.partition("|")
        if step == "once":
            return ask(f"twice|{told(ctx.input_responses)}", q=form("Well?", "a"))
        return f"{before} {told(ctx.input_responses)}"

    return server


if __name__ == "__main__":
    make_server(Path(sys.argv[1]), *sys.argv[2:]).run("stdio")
