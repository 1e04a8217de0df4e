"""The official MCP client calls agents of ``python -m agentloop serve`` and of ``python -m agentloop mcp``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, TypeAlias

import mcp_types as types
import pytest
import trio
from mcp import Client, StdioServerParameters

pytestmark = [
    pytest.mark.real_clock,
    pytest.mark.seconds(60),
    # The SDK leaves the generators of each response to the garbage collector, after having closed what they read.
    pytest.mark.filterwarnings("ignore:Async generator 'http:ResourceWarning"),
]

ROOT = Path(__file__).parents[2]

Server: TypeAlias = str | StdioServerParameters


@pytest.fixture(params=["http", "stdio"])
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Server:
    if request.param == "http":
        return f"{request.getfixturevalue('server')}/mcp"
    arguments = ["-m", "agentloop", "mcp", "tests.clients.served:agent", "--store", str(tmp_path / "chats.db")]
    return StdioServerParameters(command=sys.executable, args=arguments, cwd=ROOT, env=dict(os.environ))


@pytest.fixture(params=["legacy", "auto"], ids=["2025-11-25", "2026-07-28"])
def mode(request: pytest.FixtureRequest) -> Any:
    return request.param


async def text_of(client: Client, prompt: str, **options: Any) -> str:
    result = await client.call_tool("assistant", {"prompt": prompt}, **options)
    [block] = result.content
    assert isinstance(block, types.TextContent)
    return block.text


async def test_the_official_client_calls_approves_declines_and_cancels(served: Server, mode: Any) -> None:
    asked: list[Any] = []
    answers: list[Any] = ["accept", "decline"]

    async def elicit(context: Any, params: Any) -> types.ElicitResult:
        asked.append(params)
        return types.ElicitResult(action=answers.pop(0))

    reported: list[str | None] = []
    counts: list[float] = []

    async def progress(count: float, total: float | None, message: str | None) -> None:
        counts.append(count)
        reported.append(message)

    async with Client(served, mode=mode, elicitation_callback=elicit) as client:
        [described] = (await client.list_tools()).tools
        assert described.name == "assistant"
        assert await text_of(client, "please add", progress_callback=progress) == "The result is 5."
        assert "\n".join(map(str, reported)).startswith('add({"a":2,"b":3})\nadd: 5')
        assert counts == sorted(set(counts))

        assert await text_of(client, "pay") == "The result is paid 5."
        assert asked[0].message == 'Run pay({"amount":5})?'
        assert "paid 5" not in await text_of(client, "pay")

        before = await text_of(client, "cancelled")
        with trio.move_on_after(1) as scope:
            await text_of(client, "slow")
        assert scope.cancelled_caught
        await trio.sleep(0.3)
        after = await text_of(client, "cancelled")
        assert int(after.split()[3]) == int(before.split()[3]) + 1


async def test_calls_of_one_client_run_at_once(served: Server, mode: Any) -> None:
    results: list[str] = []

    async def call(client: Client, prompt: str) -> None:
        results.append(await text_of(client, prompt))

    async with Client(served, mode=mode) as client, trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(call, client, f"hello {number}")
    assert sorted(results) == [f"You said: hello {number}" for number in range(10)]


async def test_a_client_without_elicitation_is_told_how_to_go_on(served: Server, mode: Any) -> None:
    async with Client(served, mode=mode) as client:
        result = await client.call_tool("assistant", {"prompt": "pay"})
    words = " ".join(block.text for block in result.content if isinstance(block, types.TextContent))
    assert "paid 5" not in words
    assert 'Run pay({"amount":5})?' in words
    # Over HTTP, another client of the server may answer.
    assert ("Its run is parked" if isinstance(served, str) else "they were declined") in words
