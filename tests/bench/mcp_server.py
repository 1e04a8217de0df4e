"""MCP servers to measure with: ``python -m tests.bench.mcp_server`` adds numbers; with ``slow`` it takes its time.

The slow one waits before its first answer and before its exit, and costs next to nothing else: no SDK is imported.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

__all__ = ["START", "STOP"]

START, STOP = 0.5, 0.25
"""Seconds that the slow one takes for each."""


def add() -> None:
    from mcp.server.mcpserver import MCPServer

    server = MCPServer("bench", log_level="CRITICAL")

    @server.tool()
    async def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    server.run("stdio")


def slow() -> None:
    tools: list[dict[str, Any]] = [{"name": "wait", "inputSchema": {"type": "object"}}]
    server = {
        "protocolVersion": "2025-11-25",
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "s", "version": "1"},
    }
    results = {"initialize": server, "tools/list": {"tools": tools}}
    time.sleep(START)
    for line in sys.stdin:
        message = json.loads(line)
        if "id" in message:
            known = results.get(message["method"])
            error = {"code": -32601, "message": "no such method"}
            answer = {"error": error} if known is None else {"result": known}
            print(json.dumps({"jsonrpc": "2.0", "id": message["id"], **answer}), flush=True)
    time.sleep(STOP)


if __name__ == "__main__":
    slow() if sys.argv[1:] == ["slow"] else add()
