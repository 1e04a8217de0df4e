"""An agent that is another program, as a file names it: ``harness``."""

from __future__ import annotations

from typing import Any

from agentloop.acp import ExternalAgent
from agentloop.declarative._section import Section

__all__ = ["HARNESSES", "external_agent"]

HARNESSES = {
    "claude-code": ("npx", "-y", "@agentclientprotocol/claude-agent-acp"),
    "codex": ("npx", "-y", "@agentclientprotocol/codex-acp"),
    "opencode": ("opencode", "acp"),
}
"""The commands of the programs that speak ACP, by type."""

_OBEYED = frozenset(
    {
        "budgets",
        "commands",
        "description",
        "force_handoff",
        "harness",
        "hooks",
        "instruction",
        "instruction_file",
        "max_consecutive_tool_calls",
        "max_iterations",
        "name",
        "redact_secrets",
        "safety",
        "use_commands",
        "welcome_message",
    }
)
"""The fields of an agent that have an effect on one that is a program."""


def external_agent(name: str, section: Section, harness: Section, **options: Any) -> ExternalAgent:
    """The agent of a section with ``harness``.

    Args:
      name: its name.
      section: the agent.
      harness: its ``harness``.
      options: further options of `ExternalAgent`.
    """
    context = section.context
    named = {one.field for one in context.report.unsupported}
    for field in section.names:
        if field not in _OBEYED and section.at(field) not in named:
            section.unsupported(field, "The program of `harness` has its own way.")
    folder = harness.file("working_dir", base=context.folder) if "working_dir" in harness else context.folder
    config = {"model": harness.text("model")} if "model" in harness else {}
    return ExternalAgent(
        name,
        HARNESSES[harness.text("type")],
        folder=folder,
        env=harness.fields("env", bare=False),
        config=config,
        **options,
    )
