"""A fingerprint of an agent's definition: its instructions, its tools and its toolsets, without its model.

An approval for good belongs to the agent that asked. Names do not identify it: the default name of all agents is the
same, and a session may go on with another agent, or in another process. An agent that was changed so that its tools may
do something else has another fingerprint, and a person is asked again.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from hashlib import sha256
from typing import Any

import msgspec

from agentloop.config import AgentConfig
from agentloop.tools import Tool, Toolset

__all__ = ["agent_fingerprint", "identity_of"]


def agent_fingerprint(config: AgentConfig) -> str:
    """Compute the fingerprint, which is the same in each process that defines the agent in the same way."""
    instructions = config.instructions if isinstance(config.instructions, str) else _code_of(config.instructions)
    definition = [
        config.name,
        instructions,
        [_tool(tool) for tool in config.tools],
        # Not their tools: those of a server come and go, and it describes them as it likes.
        [identity_of(toolset) for toolset in config.toolsets],
    ]
    # A schema may have values of any class.
    encoded = msgspec.json.encode(definition, order="deterministic", enc_hook=_type_of)
    return sha256(encoded).hexdigest()[:16]


def identity_of(toolset: Toolset) -> str:
    """The class of ``toolset`` and its ``identity``, if it has one, or else its name."""
    identity = getattr(toolset, "identity", None)
    return f"{_type_of(toolset)} {identity if isinstance(identity, str) else toolset.name}"


def _tool(tool: Tool) -> list[Any]:
    return [tool.name, tool.description, tool.arguments.schema, _code_of(tool.function)]


def _code_of(function: Callable[..., Any]) -> str:
    while isinstance(function, partial):
        function = function.func
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    return f"{module}.{name}" if isinstance(module, str) and isinstance(name, str) else _type_of(function)


def _type_of(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"
