"""A server's prompts and resources: as tools for the model, and as slash commands for a person."""

from __future__ import annotations

import pytest
from mcp.server.mcpserver import MCPServer

from agentloop import Agent, UsageError
from agentloop.commands import Command
from agentloop.events import ToolCallFinished, WarningIssued
from agentloop.mcp import McpServer
from agentloop.messages import File, Image, Text
from agentloop.permissions import Permissions
from agentloop.testing import ScriptedModel, calls
from tests.mcp.support import ERAS, results, spoken
from tests.support import Watched, of, watch

pytestmark = [pytest.mark.real_clock, pytest.mark.seconds(30)]

both_eras = pytest.mark.parametrize("mode", ERAS)


def library() -> MCPServer:
    server = MCPServer("library")

    @server.resource("text://readme", description="What this\nis.", mime_type="text/plain")
    def readme() -> str:
        return "Read me."

    @server.resource("image://dot", mime_type="image/png")
    def dot() -> bytes:
        return b"\x89PNG"

    @server.resource("blob://huge", mime_type="application/pdf")
    def huge() -> bytes:
        return b"x" * 8_000_000

    @server.resource("blob://small", mime_type="application/pdf")
    def small() -> bytes:
        return b"%PDF"

    @server.resource("book://{title}")
    def book(title: str) -> str:
        return f"The book {title}."

    @server.prompt()
    def review(change: str, focus: str = "bugs") -> str:
        """Review a change."""
        return f"Review {change} for {focus}."

    @server.prompt()
    def explain(what: str) -> str:
        """Explain something. It costs $1."""
        return f"Explain {what}."

    @server.prompt(name="not a command")
    def other() -> str:
        return "Hello."

    return server


def served(mode: str = "auto", **options: object) -> McpServer:
    return McpServer.in_process(library(), mode=mode, **options)  # type: ignore[arg-type]


async def asked(server: McpServer, *turns: object) -> tuple[Watched, ScriptedModel]:
    model = ScriptedModel(*turns, "done")  # type: ignore[arg-type]
    return await watch(Agent(model, toolsets=[server], permissions=Permissions(mode="safe"))), model


def offered(model: ScriptedModel) -> list[str]:
    return [spec.name for spec in model.requests[0].tools]


async def test_neither_is_offered_unless_it_is_asked_for() -> None:
    _, model = await asked(served())
    assert offered(model) == []


@both_eras
async def test_resources_are_listed_with_their_templates_and_read_in_safe_mode(mode: str) -> None:
    seen, model = await asked(
        served(mode, resources=True, prefix="lib_"),
        calls("lib_list_resources"),
        calls("lib_read_resource", uri="text://readme"),
        calls("lib_read_resource", uri="image://dot"),
        calls("lib_read_resource", uri="blob://small"),
        calls("lib_read_resource", uri="blob://huge"),
        calls("lib_read_resource", uri="book://Emma"),
        calls("lib_read_resource", uri="text://nothing"),
        calls("lib_read_resource"),
    )
    assert offered(model) == ["lib_list_resources", "lib_read_resource"]
    listed, readme, dot, small, huge, book, nothing, none = [
        event.result for event in of(seen.events, ToolCallFinished)
    ]
    assert "text://readme: readme; text/plain; What this is." in listed.text.splitlines()
    assert any(line.startswith("template book://{title}: book") for line in listed.text.splitlines())
    assert readme.text == "[text://readme]\nRead me."
    assert dot.parts == (Image(data=b"\x89PNG", media_type="image/png"),)
    assert small.parts == (File(data=b"%PDF", media_type="application/pdf", name="file"),)
    assert "(a file of 8,000,001 bytes, which is too large to be read at once)" in huge.text
    assert book.text == "[book://Emma]\nThe book Emma."
    assert (nothing.status, none.status) == ("error", "error")
    assert "text://nothing" in nothing.text
    assert 'takes {"uri": "..."}' in none.text


@both_eras
async def test_prompts_are_listed_with_their_arguments_and_filled_in(mode: str) -> None:
    seen, model = await asked(
        served(mode, prompts=True),
        calls("list_prompts"),
        calls("get_prompt", name="review", arguments={"change": "12"}),
        calls("get_prompt", name="review"),
        calls("get_prompt", name="review", arguments="12"),
    )
    assert offered(model) == ["list_prompts", "get_prompt"]
    listed, review, missing, wrong = [event.result for event in of(seen.events, ToolCallFinished)]
    assert "review(change, focus?): Review a change." in listed.text.splitlines()
    assert review.parts == (Text("Review 12 for bugs."),)
    assert (missing.status, wrong.status) == ("error", "error")
    assert 'takes {"name": "..."' in wrong.text


async def test_a_server_without_them_offers_no_tools_for_them() -> None:
    _, model = await asked(spoken({}, prompts=True, resources=True))
    assert offered(model) == ["t"]


async def test_a_tool_of_the_server_with_such_a_name_stays() -> None:
    server = library()

    @server.tool()
    def read_resource() -> str:
        return "the server's own"

    own = McpServer.in_process(server, resources=True)
    model = ScriptedModel(calls("read_resource"), "done")
    seen = await watch(Agent(model, toolsets=[own]))
    assert results(seen)["read_resource"].text == "the server's own"
    [warning] = of(seen.events, WarningIssued)
    assert "tool 'read_resource' of MCP server 'library' is left out" in warning.message


@both_eras
async def test_prompts_become_commands_that_have_the_model_get_them(mode: str) -> None:
    server = served(mode, prompts=True)
    commands = await server.commands()
    assert list(commands) == ["library:review", "library:explain"]
    assert commands["library:review"] == Command(
        "Call the tool get_prompt for the prompt 'review', with these arguments, without those that are empty:\n"
        "- change: $1\n- focus: $2\nThen do what the prompt says.",
        description="Review a change.",
        hint="[change] [focus]",
    )
    agent = Agent(ScriptedModel("done"), toolsets=[server], commands=commands)
    [text] = agent.expand("/library:explain the whole thing").parts
    assert isinstance(text, Text)
    assert "\n- what: the whole thing\n" in text.text


async def test_commands_need_a_server_whose_prompts_the_model_can_get() -> None:
    with pytest.raises(UsageError, match="make it with prompts=True"):
        await served().commands()
    assert await spoken({}, prompts=True).commands() == {}
