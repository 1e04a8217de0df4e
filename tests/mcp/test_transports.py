"""The same, over real transports, with a server of the SDK in another process, in both eras of the protocol."""

from __future__ import annotations

import sys

import pytest
import trio

from agentloop import Accept, Stream
from agentloop.errors import ToolsetError
from agentloop.events import ElicitationRequested, StreamEvent, ToolCallFinished, ToolCallProgress, ToolCallStarted
from agentloop.mcp import McpServer, Stdio
from agentloop.testing import calls
from agentloop.toolsets import Toolsets
from tests.mcp.conftest import start_playground, wait_for
from tests.mcp.support import ERAS, agent_with, results, watched
from tests.mcp.test_questions import ask_at_once
from tests.support import first, of

pytestmark = [
    pytest.mark.real_clock,
    pytest.mark.seconds(60),
    # The SDK leaves the generators of each response to the garbage collector, after having closed what they read.
    pytest.mark.filterwarnings("ignore:Async generator 'http:ResourceWarning"),
]

both_eras = pytest.mark.parametrize("mode", ERAS)


def accept(stream: Stream, event: StreamEvent) -> None:
    if isinstance(event, ElicitationRequested):
        stream.answer(event.id, Accept({"name": "Bo"}))


async def all_of_it(server: McpServer) -> None:
    """Tools, progress, questions, cancelling: what the in-process tests look at one by one."""
    async with Toolsets(server) as shared:
        first_turn = calls("add", a=1, b=2) + calls("fail") + calls("work", steps=50) + calls("show")
        seen = await watched(shared, first_turn, calls("invite"), on_event=accept)
        assert results(seen)["add"].text == "3"
        assert results(seen)["fail"].status == "error"
        assert results(seen)["invite"].text == "Bo, Saturday, 2"
        assert len(results(seen)["show"].parts) == 8
        assert [step.progress for step in of(seen.events, ToolCallProgress)] == [n + 1 for n in range(50)]
        await watched(shared, calls("grow"), calls("add", a=1, b=1))
        seen = await watched(shared, calls("grown"))
        assert results(seen)["grown"].text == "grown"
        if isinstance(server.target, Stdio) and server.mode == "legacy":
            # It could ask on account of the call that is cancelled now, so another stream would get another process.
            return
        async with agent_with(shared, calls("hang")).stream("go") as stream:
            await first(stream, ToolCallStarted)
            await trio.sleep(0.2)
        # The server hears of it when it does.
        text = "0"
        while text == "0":
            text = results(await watched(shared, calls("how_often_cancelled")))["how_often_cancelled"].text


@both_eras
async def test_a_server_over_stdio(mode: str) -> None:
    command = (sys.executable, "-m", "tests.mcp.servers.playground", "stdio")
    await all_of_it(McpServer.stdio(*command, name="playground", mode=mode))


@both_eras
async def test_a_server_over_http(mode: str, playground_url: str) -> None:
    await all_of_it(McpServer.http(playground_url, mode=mode))


@pytest.mark.parametrize(("mode", "name"), [("legacy", "ask"), ("legacy", "invite"), ("2026-07-28", "invite")])
async def test_streams_that_share_a_server_over_http_are_each_asked_their_own_question(
    mode: str, name: str, playground_url: str
) -> None:
    async with Toolsets(McpServer.http(playground_url, mode=mode)) as shared:
        if name == "ask":
            told = await ask_at_once(shared, "abcd", name)
            assert told == {tag: f"{tag}: {tag}'s friend, Saturday, 2" for tag in "abcd"}
        else:
            # These questions all read alike: whose they are shows in the answers.
            async with trio.open_nursery() as nursery:
                for tag in "abcd":
                    nursery.start_soon(_invite, shared, tag)


async def _invite(shared: Toolsets, tag: str) -> None:
    async with agent_with(shared, calls("invite")).stream("go") as stream:
        async for event in stream:
            if isinstance(event, ElicitationRequested):
                await trio.sleep(0.05)
                stream.answer(event.id, Accept({"name": tag}))
            if isinstance(event, ToolCallFinished):
                assert event.result.text == f"{tag}, Saturday, 2"


async def test_a_question_over_http_that_comes_after_its_call_was_cancelled_reaches_nobody(playground_url: str) -> None:
    async with Toolsets(McpServer.http(playground_url, mode="legacy")) as shared:
        async with agent_with(shared, calls("ask_later", tag="ghost")).stream("go"):
            await trio.sleep(0.1)
        # Long enough for the ghost to ask, while another stream waits for an answer of its own.
        seen = await watched(shared, calls("ask_later", tag="b"), on_event=accept)
        assert [event.message for event in of(seen.events, ElicitationRequested)] == ["Who is b, later?"]
        assert results(seen)["ask_later"].text == "Bo, Saturday, 2"


@both_eras
async def test_an_http_server_that_dies_fails_the_calls_on_the_way_and_others_go_on(mode: str) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    server = McpServer.http(f"http://127.0.0.1:{port}/mcp", mode=mode, name="web", max_restarts=5)
    with start_playground(port):
        wait_for(port)
        first_turn = calls("hang") + calls("die") + calls("hang")
        seen = await watched(server, first_turn, calls("add", a=1, b=1))
    told = [event.result for event in of(seen.events, ToolCallFinished)]
    assert [result.status for result in told] == ["error"] * 4
    assert all("MCP server 'web'" in result.text for result in told)
    assert seen.outcome.reason == "completed"


async def test_an_address_where_nobody_listens_is_a_plain_error() -> None:
    with pytest.raises(ToolsetError, match=r"toolset '127.0.0.1' failed to start"):
        await agent_with(McpServer.http("http://127.0.0.1:9/mcp")).run("go")
