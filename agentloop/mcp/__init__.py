"""MCP servers as toolsets. Needs the extra ``mcp``, which is imported when a server is started.

::

    files = McpServer.stdio("npx", "-y", "@modelcontextprotocol/server-filesystem", "/tmp")
    agent = Agent(model, toolsets=[files])

Such a server is private to each stream: started with it, and stopped at its end. To share one among streams, put it
into `Toolsets`.
"""

from __future__ import annotations

from agentloop.mcp.pending import PendingInput
from agentloop.mcp.server import Http, InProcess, McpServer, OpenServer, Stdio

__all__ = ["Http", "InProcess", "McpServer", "OpenServer", "PendingInput", "Stdio"]
