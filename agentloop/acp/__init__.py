"""Other agents as agents: Claude Code, Codex, or any program that speaks ACP, the Agent Client Protocol.

::

    claude = ExternalAgent("claude", ["npx", "-y", "@agentclientprotocol/claude-agent-acp"], folder="/srv/project")
    lead = Agent(model, tools=[transfer_task(claude, researcher)])

An `ExternalAgent` is an agent like any other: it can be run by itself, be a tool, get tasks, and run in the background.
Its program starts with the first response of each run, and has ended when the run's block ends.
"""

from __future__ import annotations

from agentloop.acp._agent import ExternalAgent

__all__ = ["ExternalAgent"]
