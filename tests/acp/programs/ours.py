"""An agent of agentloop, for `agentloop acp`."""

from __future__ import annotations

from agentloop import Agent, tool
from agentloop.testing import ScriptedModel, calls


@tool(requires_approval=True)
async def pay(amount: int) -> str:
    """Pay."""
    return f"paid {amount}"


agent = Agent(ScriptedModel(calls("pay", amount=5), "I have paid 5."), tools=[pay])
