"""agentloop: an agent's run is a block, and when the block ends, everything it started has ended.

The layers, from values to the front door; each imports only from those before it::

    errors  messages  permissions  questions  events  outcome  models  limits  wire
                                                                            values
    _core/                                                                  decisions: no trio, no await
    context  run_info  tools  hooks  observers  config  journal                                what users write against
    _runtime/                                                               waiting: tasks, channels, deadlines
    session  agent  toolsets                                                the front door
    _process_tree  providers/  command_hooks/  toolkit/  mcp/  stores/      adapters, imported on first use
    testing/  demo/                                                         public, built on all the rest
"""

from __future__ import annotations

import agentloop._demo_interrupts  # noqa: F401  # pyright: ignore[reportUnusedImport] - changes a signal handler
from agentloop import errors, events, hooks
from agentloop._runtime.stream import Stream
from agentloop.agent import Agent, run_sync
from agentloop.context import ToolContext
from agentloop.errors import AgentLoopError, ModelError, Retry, ToolError, UsageError
from agentloop.limits import Compaction, Deadlines, Limits, Price, Retries
from agentloop.messages import File, Image, Text
from agentloop.models import Model, ModelSettings
from agentloop.observers import Observer, add_observer, remove_observer
from agentloop.outcome import Outcome
from agentloop.permissions import Permissions, Rule
from agentloop.questions import Accept, Approve, Cancel, Decline, Deny
from agentloop.run_info import OutputInfo, RunInfo, each_turn
from agentloop.session import Session
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
    "Deny",
    "File",
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
    "Retries",
    "Retry",
    "Rule",
    "RunInfo",
    "Session",
    "Stream",
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
