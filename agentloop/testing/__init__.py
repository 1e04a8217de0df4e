"""What you need to test agents, tools, hooks and models, and what agentloop itself is tested with."""

from __future__ import annotations

from agentloop.testing.scripted import (
    FunctionModel,
    Response,
    ScriptedModel,
    calls,
    fails,
    hangs,
    says,
    thinks,
)

__all__ = ["FunctionModel", "Response", "ScriptedModel", "calls", "fails", "hangs", "says", "thinks"]
