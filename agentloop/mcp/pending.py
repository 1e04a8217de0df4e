"""A tool call that waits for input, as data."""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = ["PendingInput"]


class PendingInput(msgspec.Struct, frozen=True):
    """A call that an MCP server has interrupted with questions, as it does from protocol 2026-07-28 on.

    The server holds nothing for it: it can be kept as JSON, and go on at another time, in another process, with
    another connection. A server's tools do so by themselves, in the journal of their session; see `OpenServer` for
    doing it elsewhere.
    """

    server: str
    tool: str
    """What the server calls it."""
    arguments: dict[str, Any]
    requests: dict[str, dict[str, Any]]
    """Questions by the server's key, each a ``method`` and its ``params``, as JSON."""
    state: str | None = None
    """For the server to go on from: opaque, and to be given back as it is."""
