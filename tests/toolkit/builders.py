"""What the tests of the tools share: one call of one tool, by an agent, and its result."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from agentloop import Agent, Tool
from agentloop.messages import ToolResult
from agentloop.testing import ScriptedModel, calls
from tests.runtime.builders import only_result
from tests.support import Watched, watch

__all__ = ["call", "gone", "named", "names_in", "open_descriptors", "pids_in", "watch_call"]


async def call(tool: Tool, **arguments: Any) -> ToolResult:
    """The result of one call."""
    return await only_result(_agent(tool, arguments))


async def watch_call(tool: Tool, arguments: dict[str, Any], **options: Any) -> Watched:
    """All that there is to see of one call."""
    return await watch(_agent(tool, arguments), **options)


def _agent(tool: Tool, arguments: dict[str, Any]) -> Agent:
    return Agent(ScriptedModel(calls(tool.name, **arguments), "Done."), tools=[tool])


def named(tools: Iterable[Tool], name: str) -> Tool:
    """The tool of that name."""
    [found] = [tool for tool in tools if tool.name == name]
    return found


# ----------------------------------------------------------------------------- processes


def pids_in(path: Path) -> list[int]:
    """The process numbers that a command has written down."""
    return [int(word) for word in path.read_text().split()] if path.exists() else []


def gone(*pids: int) -> bool:
    """Whether the processes, and the groups and sessions they may have led, are gone."""
    assert pids
    return not any(_belongs(int(entry.name), pids) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def _belongs(pid: int, pids: Sequence[int]) -> bool:
    try:
        state, _, group, session = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:4]
    except OSError:
        return False
    # Not a zombie, which waits for its parent to look, and which is init for an orphan.
    return state not in "ZX" and not {pid, int(group), int(session)}.isdisjoint(pids)


def open_descriptors() -> set[str]:
    """The files and sockets that this process has open, by what they are."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found.add(f"{entry.name} {entry.readlink()}")
    return found


def names_in(folder: Path) -> list[str]:
    """The names of what is in a folder."""
    return sorted(path.name for path in folder.iterdir())
