"""MCP servers as toolsets. Needs the extra ``mcp``, which is imported when a server is opened.

::

    files = McpServer.stdio("npx", "-y", "@modelcontextprotocol/server-filesystem", "/tmp")
    agent = Agent(model, toolsets=[files])

Each stream of the agent starts the server for itself and stops it at its end. To share one server among streams, put it
into `Toolsets`.
"""

from __future__ import annotations

from agentloop.mcp._config import Http, InProcess, ServerConfig, Stdio
from agentloop.mcp._rounds import PendingInput
from agentloop.mcp._sign_in import ask_to_sign_in
from agentloop.mcp.server import McpServer, OpenServer

__all__ = [
    "Http",
    "InProcess",
    "McpServer",
    "OpenServer",
    "PendingInput",
    "ServerConfig",
    "Stdio",
    "ask_to_sign_in",
]
