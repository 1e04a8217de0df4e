"""What several tests of MCP servers need."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio

from agentloop import Agent, Session, Stream
from agentloop.events import StreamEvent, ToolCallFinished
from agentloop.mcp import McpServer
from agentloop.messages import ToolResult
from agentloop.testing import Response, ScriptedModel
from agentloop.tools import Toolset
from agentloop.toolsets import Toolsets
from tests.mcp.servers.playground import make_server
from tests.support import Watched, assert_well_formed, of, watch

__all__ = ["ERAS", "agent_with", "alive", "playground", "raw", "results", "spoken", "until_gone", "watched"]

ERAS = ("legacy", "2026-07-28")
RAW = Path(__file__).parent / "servers" / "raw.py"
SPOKEN = Path(__file__).parent / "servers" / "spoken.py"


def playground(mode: str = "auto", **options: Any) -> McpServer:
    """The playground, in this process."""
    return McpServer.in_process(make_server(), mode=mode, **options)


def raw(*habits: str, **options: Any) -> McpServer:
    """The raw server, as a process that starts at once."""
    options.setdefault("name", "raw")
    return McpServer.stdio(sys.executable, "-I", "-S", str(RAW), *habits, **options)


def spoken(said: dict[str, Any], **options: Any) -> McpServer:
    """A server whose answers are written down in ``said``, as servers/spoken.py says."""
    options.setdefault("name", "spoken")
    # Else each start would begin with a message that it does not know.
    options.setdefault("mode", "legacy")
    return McpServer.stdio(sys.executable, "-I", "-S", str(SPOKEN), json.dumps(said), **options)


def agent_with(toolset: Toolset, *turns: Response | str, **options: Any) -> Agent:
    """An agent that makes the calls of ``turns``, and is then done."""
    return Agent(ScriptedModel(*turns, "done"), toolsets=[toolset], **options)


async def watched(
    toolset: Toolset,
    *turns: Response | str,
    on_event: Callable[[Stream, StreamEvent], object] | None = None,
    **options: Any,
) -> Watched:
    """A stream of `agent_with`, read to its end.

    That it leaves no task behind is checked unless the toolset is shared: a connection that lives on has tasks that
    come and go.
    """
    agent = agent_with(toolset, *turns, **options)
    if not isinstance(toolset, Toolsets):
        return await watch(agent, on_event=on_event)
    session = Session()
    events: list[StreamEvent] = []
    async with agent.stream("go", session=session) as stream:
        async for event in stream:
            events.append(event)
            if on_event is not None:
                on_event(stream, event)
    assert_well_formed(events)
    return Watched(stream, session, events, None, session.messages)


def results(watched: Watched) -> dict[str, ToolResult]:
    """The results of its tool calls by the tools' names; the last one where there are several."""
    return {event.name: event.result for event in of(watched.events, ToolCallFinished)}


def alive(pid: int) -> bool:
    """Whether there is such a process, other than as a zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"


async def until_gone(pid: int) -> None:
    """Wait for the end of a process that has been killed."""
    while alive(pid):  # noqa: ASYNC110 - nothing tells us
        await trio.sleep(0.01)
