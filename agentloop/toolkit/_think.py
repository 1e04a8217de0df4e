"""The tool with which the model writes a thought down."""

from __future__ import annotations

from agentloop.tools import Tool, tool

__all__ = ["think"]


def think(*, name: str = "think") -> Tool:
    """A tool with which the model writes a thought down, and which does nothing.

    The thought is the argument of the call, so it is in the transcript and in the events. Models that do not reason
    before they answer plan better with it, above all between calls of other tools.

    Args:
      name: the tool's name for the model.
    """

    async def record(thought: str) -> str:  # noqa: ASYNC124 - it has nothing to wait for
        """Record a thought.

        Args:
          thought: the thought: what you know, what is missing, what you do next.
        """
        return "The thought is recorded."

    return tool(
        name=name,
        description="Think about something, and record the thought. Nothing else happens: no new information comes "
        "back. Use it before a decision with several steps, or to check results against what was asked.",
        read_only=True,
        idempotent=True,
    )(record)
