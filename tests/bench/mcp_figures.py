"""MCP servers over stdio: our toolset against the SDK's own client, and many servers against one."""

from __future__ import annotations

import math
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import trio
from mcp import Client, StdioServerParameters
from mcp_types import TextContent

from agentloop import Agent
from agentloop.context import ToolContext
from agentloop.mcp import McpServer
from agentloop.mcp._connection_pool import ConnectionPool, open_server
from agentloop.testing import ScriptedModel, calls
from agentloop.tools import tool
from agentloop.toolsets import Toolsets
from tests.bench.figures import Measured, _at_once, _measured
from tests.bench.mcp_server import START, STOP
from tests.bench.measure import Samples, Work, alternate_here, median, ratio

__all__ = ["call", "parallel", "ten_servers"]

ADD = ("-m", "tests.bench.mcp_server")
# The file itself, without the site packages: it is to start at once.
SLOW = ("-I", "-S", str(Path(__file__).with_name("mcp_server.py")), "slow")
ROOT = Path(__file__).parents[2]


def _call_ours(serving: ConnectionPool, context: ToolContext[Any]) -> Work:
    async def work() -> None:
        result = await serving.call("add", {"a": 2, "b": 3}, context)
        assert result.text == "5"

    return work


def _call_sdk(client: Client) -> Work:
    async def work() -> None:
        result = await client.call_tool("add", {"a": 2, "b": 3})
        assert isinstance(result.content[0], TextContent)
        assert result.content[0].text == "5"

    return work


async def _calls(at_once: int, rounds: int, repeat: int) -> dict[str, dict[str, Samples]]:
    """CPU time of this process, and time that passed, for calls of a server that each side has for itself."""
    found: dict[str, dict[str, Samples]] = {}

    async with open_server(McpServer.stdio(sys.executable, *ADD, cwd=ROOT, name="bench")) as serving:
        parameters = StdioServerParameters(command=sys.executable, args=list(ADD), cwd=ROOT)
        async with Client(parameters) as client:

            @tool(timeout=math.inf)
            async def measure(context: ToolContext[Any]) -> str:
                """Make the calls: this is where a tool gets the context that they are made with."""
                works = {"ours": _call_ours(serving, context), "bare": _call_sdk(client)}
                if at_once > 1:
                    works = {name: _at_once(at_once, work) for name, work in works.items()}
                for clock in (time.process_time, time.perf_counter):
                    found[clock.__name__] = await alternate_here(works, rounds=rounds, repeat=repeat, clock=clock)
                return "done"

            await Agent(ScriptedModel(calls("measure"), "done"), tools=[measure]).run("go")
    return found


def _compared(found: dict[str, dict[str, Samples]], scale: float) -> Measured:
    measured = _measured(found["process_time"], scale=scale)
    passed = found["perf_counter"]
    note = f"time that passed: {ratio(passed['ours'], passed['bare']):.2f}x of {median(passed['bare']) * scale:.0f}"
    return Measured(ours=measured.ours, bare=measured.bare, value=measured.value, note=note)


def call(quick: bool) -> Measured:
    """One call after the other."""
    return _compared(trio.run(_calls, 1, 5 if quick else 21, 20), 1e6)


def parallel(quick: bool) -> Measured:
    """50 calls at once."""
    return _compared(trio.run(_calls, 50, 5 if quick else 21, 1), 1e3)


def ten_servers(quick: bool) -> Measured:
    """Time that passes, from the start of servers that take their time to the end of the last of them."""

    def started_and_stopped(count: int) -> Work:
        servers = [McpServer.stdio(sys.executable, *SLOW, name=f"s{n}") for n in range(count)]

        async def work() -> None:
            async with Toolsets(*servers):
                pass

        return work

    works = {"ours": started_and_stopped(10), "bare": started_and_stopped(1)}
    samples = trio.run(partial(alternate_here, works, rounds=2 if quick else 7, repeat=1, clock=time.perf_counter))
    waited = f"time that passes; each takes {START + STOP:g} s of it by itself"
    return Measured(
        ours=median(samples["ours"]) * 1e3,
        bare=median(samples["bare"]) * 1e3,
        value=ratio(samples["ours"], samples["bare"]),
        note=waited,
    )
