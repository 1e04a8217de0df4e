"""Teams of files with one agent, and the result of one call of a tool of theirs."""

from __future__ import annotations

from typing import Any

import pytest

from agentloop import Agent
from agentloop.declarative import LoadedTeam, TeamFileError, load_team
from agentloop.messages import ToolResult
from agentloop.testing import ScriptedModel, calls
from tests.support import Watched, watch

__all__ = ["call", "problem", "reasons", "root_of", "team_of", "watch_call"]


def team_of(agent: str, rest: str = "", **options: Any) -> LoadedTeam:
    """The team of a file with one agent, whose further fields are ``agent``, a flow mapping without its braces."""
    return load_team(f"agents:\n  root: {{model: openai/gpt-5, {agent}}}\n{rest}\n", **options)


def root_of(agent: str, rest: str = "", **options: Any) -> Agent[Any, Any]:
    """The agent of that file."""
    return team_of(agent, rest, **options).agents[0]


def problem(text: str, **options: Any) -> str:
    """The error of a file."""
    with pytest.raises(TeamFileError) as caught:
        load_team(text, **options)
    return str(caught.value)


def reasons(team: LoadedTeam) -> dict[str, str]:
    """The fields that are named, each with its sentence."""
    return {one.field: one.reason for one in team.unsupported}


async def watch_call(agent: str, tool: str, *, rest: str = "", given: Any = None, **options: Any) -> Watched:
    """All that there is to see of one call, by the agent of a file that approves everything unless it says otherwise.

    Args:
      given: the arguments.
      options: those of `load_team`.
    """
    if "safety" not in agent:
        agent = f"{agent}, safety: autonomous"
    model = ScriptedModel(calls(tool, **(given or {})), "Done.")
    return await watch(team_of(agent, rest, models=model, **options))


async def call(agent: str, tool: str, **options: Any) -> ToolResult:
    """The result of one call."""
    watched = await watch_call(agent, tool, **options)
    [result] = [message for message in watched.messages if isinstance(message, ToolResult)]
    return result
