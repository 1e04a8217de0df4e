"""The tools with which agents write and read one plan."""

from __future__ import annotations

from typing import Any

import msgspec

from agentloop._core.field_checks import plain_text
from agentloop.context import ToolContext
from agentloop.errors import ToolError, UsageError
from agentloop.toolkit._shared_state import Place, StateToolset, check_revision
from agentloop.tools import Tool, Toolset, tool

__all__ = ["plan"]

INSTRUCTIONS = """\
There is one plan, which other agents may read and write, too. Read it before you begin. write_plan replaces the \
whole plan, and names the revision that you have read; if the plan has changed meanwhile, merge your change into the \
new one."""


class Plan(msgspec.Struct, frozen=True):
    """A plan, as a text."""

    revision: int = 0
    content: str = ""

    def __str__(self) -> str:
        """The plan for the model."""
        if not self.content:
            return f"There is no plan yet (revision {self.revision})."
        return f"The plan, revision {self.revision}:\n{self.content}"


def plan(*, shared: bool = True, name: str = "plan", max_chars: int = 20_000) -> Toolset:
    """A toolset for one plan, a text: ``write_plan``, ``read_plan``.

    The plan belongs to the session: the agent and all agents inside its calls have it, if they have this toolset, and
    so do later runs. ``Toolsets(plan())`` is one plan for all runs of its block. If the session has a journal, the plan
    survives parking and ``kill -9``.

    Writing names the revision that the model has read. If another agent has written meanwhile, nothing is changed, and
    the model reads the present plan.

    Args:
      shared: all streams of a session with a shared plan of this name have the same plan. Without it, each stream has
        its own.
      name: the name of the plan.
      max_chars: characters of the plan.

    Raises:
      UsageError: ``max_chars`` is below 1.
    """
    if max_chars < 1:
        raise UsageError(f"plan(max_chars={max_chars}): give a number above 0")

    def make(place: Place[Plan]) -> tuple[Tool, ...]:
        async def write_plan(context: ToolContext[Any], content: str, revision: int = 0) -> str:
            """Write the plan, in place of the one that there is.

            Args:
              content: the whole plan, as Markdown.
              revision: the revision of the plan that you have read; 0 if there was none.
            """
            present = place.read(context)
            if place.has_saved(context):
                return f"The plan is saved. The present revision is {present.revision}."
            check_revision(present.revision, revision, str(present))
            if len(content) > max_chars:
                problem = f"the plan has {len(content)} characters, and at most {max_chars} fit: write it shorter"
                raise ToolError(f"Nothing was changed: {problem}")
            written = Plan(present.revision + 1, plain_text(content))
            await place.save(context, written)
            return f"The plan is saved as revision {written.revision}."

        async def read_plan(context: ToolContext[Any]) -> str:  # noqa: ASYNC124 - a plain function gets a thread
            """Read the plan, with its revision."""
            return str(place.read(context))

        # Read-only, although it changes the plan: see `todo`.
        note = tool(read_only=True, idempotent=True)
        return note(write_plan), note(read_plan)

    return StateToolset(name, Plan, make, shared=shared, instructions=INSTRUCTIONS)
