"""The slash commands of served agents, as prompts of the MCP server.

A client lists them beside those of other servers, and its user chooses one. The text asks the client's own model to
call the tool of the agent, since only that reaches the agent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mcp_types as types
import trio
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError

from agentloop._core.results import to_text
from agentloop.agent import Agent
from agentloop.serving.protocols.mcp import prompt_description, prompt_names, prompt_text

__all__ = ["AgentPrompts"]


class AgentPrompts:
    """The prompts of an MCP server.

    Args:
      agents: the served agents, by the names of their tools.
    """

    def __init__(self, agents: Mapping[str, Agent[Any, Any]]) -> None:
        self._agents = agents
        self._prompts = prompt_names(agents)

    @property
    def handlers(self) -> dict[str, Any]:
        """The handlers for the SDK's server; none if no agent has commands, so that it does not offer prompts."""
        return {"on_list_prompts": self._list, "on_get_prompt": self._get} if self._prompts else {}

    async def _list(
        self, context: ServerRequestContext[Any, Any], params: types.PaginatedRequestParams | None
    ) -> types.ListPromptsResult:
        await trio.lowlevel.checkpoint()
        described = [
            prompt_description(name, tool, self._agents[tool].commands[command])
            for name, (tool, command) in self._prompts.items()
        ]
        return types.ListPromptsResult(prompts=[types.Prompt.model_validate(prompt) for prompt in described])

    async def _get(
        self, context: ServerRequestContext[Any, Any], params: types.GetPromptRequestParams
    ) -> types.GetPromptResult:
        await trio.lowlevel.checkpoint()
        found = self._prompts.get(params.name)
        if found is None:
            raise MCPError(types.INVALID_PARAMS, f"there is no prompt {params.name[:100]!r} here")
        unknown = sorted((params.arguments or {}).keys() - {"arguments"})
        if unknown:
            raise MCPError(types.INVALID_PARAMS, f"the prompt has no argument {unknown[0][:100]!r}; it has arguments")
        tool, name = found
        command = self._agents[tool].commands[name]
        text = prompt_text(tool, command, to_text((params.arguments or {}).get("arguments", "")))
        message = types.PromptMessage(role="user", content=types.TextContent(type="text", text=text))
        return types.GetPromptResult(description=to_text(command.description) or None, messages=[message])
