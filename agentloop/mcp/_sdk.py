"""The SDK: here, so that there is one sentence for where it is missing."""

from __future__ import annotations

from agentloop.errors import MissingExtraError

try:
    import mcp
    import mcp_types as types
except ModuleNotFoundError as error:
    raise MissingExtraError(feature="An MCP server", extra="mcp", package="mcp") from error

__all__ = ["mcp", "types"]
