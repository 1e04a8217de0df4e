"""Tool search, where the provider has it: the tools of a request that the model loads by ``find_tools``.

The search itself is the runtime's: its result names the tools, and the adapter puts it into the form in which the
provider adds their definitions behind the conversation so far, which leaves the cached front of the request as it is.
"""

from __future__ import annotations

import re

from attrs import frozen

from agentloop._core.deferred import found_specs
from agentloop.deferred import FIND_TOOLS
from agentloop.messages import Message, ToolResult
from agentloop.models import ModelRequest, ToolSpec
from agentloop.providers._dialects import known_host

__all__ = ["ToolSearch", "claude_has_tool_search", "gpt_has_tool_search", "tool_search_in"]


@frozen
class ToolSearch:
    """The deferred tools of a request. Two are equal if a message has the same form with both."""

    deferred: frozenset[str]
    """Names of the tools that can be loaded."""
    loaded: frozenset[str]
    """Names of the tools that a result in the request has loaded."""

    def references(self, message: ToolResult) -> list[str]:
        """The names of the tools that ``message`` loads and that can still be called; none if it is no such result."""
        return [spec.name for spec in self.definitions(message) if spec.name in self.deferred]

    def definitions(self, message: ToolResult) -> list[ToolSpec]:
        """The tools that ``message`` loads, as they were when it was made: so they stay the same in each request."""
        return found_specs(message) if message.name == FIND_TOOLS else []


def tool_search_in(request: ModelRequest) -> ToolSearch | None:
    """The deferred tools of ``request``; ``None`` if it has none. They come last among its tools."""
    if not request.tools or not request.tools[-1].deferred:
        return None
    return ToolSearch(
        frozenset([spec.name for spec in request.tools if spec.deferred]),
        frozenset([name for message in request.messages for name in _loaded(message)]),
    )


def _loaded(message: Message) -> list[str]:
    if not isinstance(message, ToolResult) or message.name != FIND_TOOLS:
        return []
    return [spec.name for spec in found_specs(message)]


_GPT = re.compile(r"gpt-(\d+)(?:\.(\d+))?(?![\w.])")
_FIRST_GPT = (5, 4)
_CLAUDE = re.compile(r"claude-(?:[a-z]+-)?(\d{1,2})(?!\d)(?:[-.](\d{1,2})(?!\d))?")
_FIRST_CLAUDE = (4, 5)
"""The first versions that load tools."""


def gpt_has_tool_search(model: str, url: str) -> bool:
    """Whether ``model`` of OpenAI's at ``url`` loads tools. Other servers of the format may refuse the items."""
    return known_host(url) == "openai" and _is_from(_GPT, model, _FIRST_GPT)


def claude_has_tool_search(model: str, url: str) -> bool:
    """Whether ``model`` at ``url`` loads tools. Other servers of the format, and some clouds, may refuse the fields."""
    return re.match(r"https?://(?:[^/@]*@)?(?:[\w-]+\.)*anthropic\.com(?:[:/]|$)", url) is not None and _is_from(
        _CLAUDE, model, _FIRST_CLAUDE
    )


def _is_from(pattern: re.Pattern[str], model: str, first: tuple[int, int]) -> bool:
    match = pattern.match(model.rpartition("/")[2].lower())
    return match is not None and (int(match[1]), int(match[2] or 0)) >= first
