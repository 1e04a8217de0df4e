"""An MCP server for tests: ``python -m tests.mcp.servers.playground [stdio | PORT]``. Also to be used in process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from typing import Annotated, Any, Literal

import anyio
from mcp.server.elicitation import AcceptedElicitation, CancelledElicitation, DeclinedElicitation
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.resolve import Elicit, ListRoots, Resolve, Sample
from mcp.shared.exceptions import UrlElicitationRequiredError
from mcp_types import (
    AudioContent,
    BlobResourceContents,
    CallToolResult,
    CreateMessageResult,
    ElicitRequestURLParams,
    EmbeddedResource,
    ImageContent,
    ListRootsResult,
    ResourceLink,
    SamplingMessage,
    TextContent,
    TextResourceContents,
    ToolAnnotations,
)
from pydantic import BaseModel, Field

Outcome = AcceptedElicitation[Any] | DeclinedElicitation | CancelledElicitation


class Guest(BaseModel):
    """A form."""

    name: str = Field(title="Who comes")
    day: Literal["Friday", "Saturday"] = "Saturday"
    seats: int = Field(default=2, ge=1, le=8)


class Login(BaseModel):
    user: str
    password: str


def said(outcome: Any) -> str:
    if isinstance(outcome, AcceptedElicitation):
        data = outcome.data
        return f"{data.name}, {data.day}, {data.seats}" if isinstance(data, Guest) else str(data)
    return type(outcome).__name__


async def ask_guest() -> Elicit[Guest]:
    return Elicit("Whom do you invite?", Guest)


async def ask_login() -> Elicit[Login]:
    return Elicit("Log in", Login)


async def ask_model() -> Sample:
    return Sample([SamplingMessage(role="user", content=TextContent(text="2 + 2?"))], max_tokens=10)


async def ask_roots() -> ListRoots:
    return ListRoots()


def make_server() -> MCPServer:
    server = MCPServer("playground", instructions="Play nicely.", log_level="CRITICAL")
    cancelled: list[str] = []
    visited: list[str] = []

    @server.tool(annotations=ToolAnnotations(read_only_hint=True, idempotent_hint=True))
    async def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    @server.tool(name="dotted.name")
    async def dotted() -> str:
        """A name that providers refuse."""
        return "fine"

    @server.tool()
    async def fail() -> str:
        """Fail."""
        raise ValueError("no such thing")

    @server.tool()
    async def show() -> CallToolResult:
        """Everything that a result may hold."""
        blob = BlobResourceContents(uri="file:///data/a.bin", blob="AAEC", mime_type="application/x-thing")
        return CallToolResult(
            content=[
                TextContent(text="text"),
                ImageContent(data="iVBORw==", mime_type="image/png"),
                AudioContent(data="UklGRg==", mime_type="audio/wav"),
                ResourceLink(uri="file:///data/b.txt", name="b", description="the second"),
                EmbeddedResource(resource=TextResourceContents(uri="file:///data/c.txt", text="inside")),
                EmbeddedResource(resource=blob),
                ImageContent(data="!!", mime_type="image/png"),
            ],
            structured_content={"n": 1},
        )

    @server.tool()
    async def work(steps: int, ctx: Context) -> str:
        """Report progress."""
        for step in range(steps):
            await ctx.report_progress(step + 1, steps, f"step {step + 1}")
        return "worked"

    @server.tool()
    async def hang() -> str:
        """Never answer, until it is cancelled."""
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.append("hang")
        return ""

    @server.tool()
    async def how_often_cancelled() -> int:
        """Tell how many calls of `hang` were cancelled."""
        return len(cancelled)

    @server.tool(annotations=ToolAnnotations(destructive_hint=True))
    async def die() -> str:
        """Die at once."""
        os.kill(os.getpid(), signal.SIGKILL)
        return ""

    @server.tool()
    async def fork() -> int:
        """Start a program that stays, and holds on to nothing of ours; give its process id."""
        null = subprocess.DEVNULL
        return subprocess.Popen(["sleep", "1000"], stdin=null, stdout=null, stderr=null).pid  # noqa: ASYNC220

    @server.tool()
    async def process() -> int:
        """Tell the process id."""
        return os.getpid()

    @server.tool()
    async def grow(ctx: Context) -> str:
        """Offer one more tool."""

        @server.tool()
        async def grown() -> str:
            """A tool that was not there before."""
            return "grown"

        await ctx.notify_tools_changed()
        if (ctx.protocol_version or "") < "2026":
            await ctx.session.send_tool_list_changed()
        return "there is more"

    # ------------------------------------------------------------- asking, in either era

    @server.tool()
    async def invite(guest: Annotated[Outcome, Resolve(ask_guest)]) -> str:
        """Ask for a guest."""
        return said(guest)

    @server.tool()
    async def login(login: Annotated[Outcome, Resolve(ask_login)]) -> str:
        """Ask for a password, which no server may."""
        return said(login)

    @server.tool()
    async def think(answer: Annotated[CreateMessageResult, Resolve(ask_model)]) -> str:
        """Ask the client's model."""
        assert isinstance(answer.content, TextContent)
        return f"{answer.model} says {answer.content.text}"

    @server.tool()
    async def folders(roots: Annotated[ListRootsResult, Resolve(ask_roots)]) -> str:
        """List the roots."""
        return " ".join(str(root.uri) for root in roots.roots)

    # ---------------------------------------------------------- asking, up to 2025-11-25

    @server.tool()
    async def ask(tag: str, ctx: Context) -> str:
        """Ask in the midst of a call."""
        return f"{tag}: {said(await ctx.elicit(f'Who is {tag}?', Guest))}"

    @server.tool()
    async def ask_later(tag: str, ctx: Context) -> str:
        """Ask once nobody wants to know any more: cancelling the call does not stop it."""
        with anyio.CancelScope(shield=True):
            await anyio.sleep(0.2)
            outcome = await ctx.elicit(f"Who is {tag}, later?", Guest)
        cancelled.append(f"{tag}: {said(outcome)}")
        return said(outcome)

    @server.tool()
    async def ask_to_visit(url: str, ctx: Context) -> str:
        """Ask to open a page."""
        return str((await ctx.elicit_url("Please log in there.", url, "e1")).action)

    @server.tool()
    async def read_mail(ctx: Context) -> str:
        """Want a page visited first."""
        if not visited:
            visited.append("page")
            page = ElicitRequestURLParams(message="Log in first.", url="https://example.org/in", elicitation_id="e2")
            raise UrlElicitationRequiredError([page])
        return "no mail"

    @server.tool()
    async def ask_nonsense(ctx: Context) -> str:
        """Ask with a form that MCP does not allow."""
        nested = {"type": "object", "properties": {"deep": {"type": "object", "properties": {}}}}
        return str((await ctx.session.elicit_form("Well?", nested)).action)

    @server.tool()
    async def remembered() -> str:
        """Tell what became of cancelled calls."""
        return "; ".join(cancelled)

    return server


def exit_with_parent() -> None:
    """Exit when the input ends, as it does when the process that started this one dies, in whatever way."""
    while os.read(0, 1024):
        pass
    os._exit(0)


if __name__ == "__main__":
    if sys.argv[1:] == ["stdio"]:
        make_server().run("stdio")
    else:
        threading.Thread(target=exit_with_parent, daemon=True).start()
        make_server().run("streamable-http", port=int(sys.argv[1]))
