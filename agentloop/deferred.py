"""Deferred tools: a model gets their names with a line each, and loads the schemas of those that it needs.

::

    Agent(model, toolsets=[McpServer.stdio("server")], deferred=Deferred(over=20_000, always=["shell"]))

A tool may say so itself, with ``@tool(deferred=True)``, and all tools of a server with ``McpServer(deferred=True)``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from attrs import field, frozen

from agentloop._core.field_checks import shown
from agentloop.errors import UsageError

__all__ = ["CALL_TOOL", "FIND_TOOLS", "Deferred"]

FIND_TOOLS = "find_tools"
"""Name of the tool by which a model loads deferred tools."""

CALL_TOOL = "call_tool"
"""Name of the tool by which a model calls a deferred tool, where its provider has no tool search of its own."""


def _check_over(instance: object, attribute: object, over: object) -> None:
    if not isinstance(over, (int, float)) or isinstance(over, bool) or not over >= 0:
        raise UsageError(f"Deferred(over={shown(over)}): give a number of tokens, 0 to defer all tools")


def _names(always: Iterable[str]) -> tuple[str, ...]:
    if isinstance(always, str) or not isinstance(cast("object", always), Iterable):
        raise UsageError(f"Deferred(always=) takes a list of names of tools, not {shown(always)}")
    names = tuple(always)
    for name in names:
        if not isinstance(cast("object", name), str):
            raise UsageError(f"Deferred(always=) takes names of tools, not {shown(name)}: give tool.name")
    return names


@frozen
class Deferred:
    """When an agent defers tools.

    Tools that say ``deferred=True`` are deferred in any case, those that say ``deferred=False`` never.

    Raises:
      UsageError: a field is wrong.
    """

    over: int | float = field(default=20_000, validator=_check_over)
    """Tokens of the schemas and descriptions of all tools, as agentloop estimates them, above which tools are deferred;
    0 to defer them in any case."""
    always: tuple[str, ...] = field(default=(), kw_only=True, converter=_names)
    """The tools that the model gets whole in any case: names, in which ``*`` and ``?`` stand for others."""
