"""agentloop: an agent's run is a block, and when the block ends, everything it started has ended.

The layers, from values to the front door; each imports only from those before it::

    errors  messages  permissions  questions  events  outcome  models  limits  wire
                                                                            values
    _core/                                                                  decisions: no trio, no await
    context  run_info  context_sources  commands  tools  hooks  observers  handoffs  config  journal
                                                                            what users write against
    _runtime/                                                               waiting: tasks, channels, deadlines
    session  agent  team  toolsets                                          the front door
    _process_tree  providers/  command_hooks/  toolkit/  mcp/  stores/      adapters, imported on first use
    testing/  demo/                                                         public, built on all the rest
"""

from __future__ import annotations

import agentloop._demo_interrupts  # noqa: F401  # pyright: ignore[reportUnusedImport] - changes a signal handler
from agentloop import errors, events, hooks
from agentloop._core.first_guesses import explain_names
from agentloop._runtime.stream import Stream
from agentloop.agent import Agent, run_sync
from agentloop.context import ToolContext
from agentloop.deferred import Deferred
from agentloop.errors import AgentLoopError, ModelError, Retry, ToolError, UsageError
from agentloop.handoffs import Handoff
from agentloop.limits import Compaction, Deadlines, Limits, Price, PriceTier, Retries
from agentloop.messages import File, Image, Text
from agentloop.models import Model, ModelSettings
from agentloop.observers import Observer, add_observer, remove_observer
from agentloop.outcome import Outcome
from agentloop.permissions import Permissions, Rule
from agentloop.questions import Accept, Approve, Cancel, Decline, Deny
from agentloop.run_info import OutputInfo, RunInfo, each_turn
from agentloop.session import Session
from agentloop.team import Team
from agentloop.tools import Tool, tool
from agentloop.toolsets import Toolsets

__all__ = [
    "Accept",
    "Agent",
    "AgentLoopError",
    "Approve",
    "Cancel",
    "Compaction",
    "Deadlines",
    "Decline",
    "Deferred",
    "Deny",
    "File",
    "Handoff",
    "Image",
    "Limits",
    "Model",
    "ModelError",
    "ModelSettings",
    "Observer",
    "Outcome",
    "OutputInfo",
    "Permissions",
    "Price",
    "PriceTier",
    "Retries",
    "Retry",
    "Rule",
    "RunInfo",
    "Session",
    "Stream",
    "Team",
    "Text",
    "Tool",
    "ToolContext",
    "ToolError",
    "Toolsets",
    "UsageError",
    "add_observer",
    "each_turn",
    "errors",
    "events",
    "hooks",
    "remove_observer",
    "run_sync",
    "tool",
]

explain_names(
    "agentloop",
    {
        "RunContext": "write ToolContext for a tool, and RunInfo for instructions and other functions",
        "RunContextWrapper": "write ToolContext for a tool, and RunInfo for instructions and other functions",
        "ToolRuntime": "it is called ToolContext here",
        "ModelRetry": "it is called Retry here",
        "Runner": "write run_sync(agent, prompt), or `await agent.run(prompt)`",
        "function_tool": "it is called tool here",
        "create_agent": "it is called Agent here",
        "UsageLimits": "it is called Limits here",
        "ToolApproved": "it is called Approve here",
        "ToolDenied": "it is called Deny here",
        "interrupt": "a tool asks with `await context.ask(...)`, and @tool(requires_approval=True) asks before a call",
        "TestModel": "write `from agentloop.testing import ScriptedModel`",
    },
    elsewhere={
        "agentloop.events": events.__all__,
        "agentloop.testing": ("FunctionModel", "ScriptedModel", "calls", "fails", "says"),
        "agentloop.stores": ("MemoryStore", "PostgresStore", "SQLiteStore", "stored_session"),
        "agentloop.mcp": ("McpServer",),
        "agentloop.asyncio": ("TrioHost",),
        "agentloop.toolkit": ("file_tools", "shell"),
    },
)
