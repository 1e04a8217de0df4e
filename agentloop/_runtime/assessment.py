"""Ask a tool what one call of it may do, by its ``assess=``."""

from __future__ import annotations

from typing import Any

import trio

from agentloop._core.field_checks import FieldError, checked
from agentloop._runtime.run import Run
from agentloop._runtime.user_code import UserCodeError, call_user_code, in_thread_if_plain
from agentloop.safety import Assessment
from agentloop.tools import Tool

__all__ = ["assess_call"]


async def assess_call(run: Run, tool: Tool, arguments: dict[str, Any]) -> Assessment | None:
    """The tool's assessment of a call with these ``arguments``, as its function gets them.

    Returns:
      ``None`` for a tool without ``assess=``. If that fails, takes longer than ``Deadlines.hook`` or returns something
      else, the run warns, and the call is not known to be harmless.
    """
    if tool.assess is None:
        return None
    short = f"assess of tool {tool.name!r} failed"
    try:
        scope = trio.move_on_after(run.config.deadlines.hook)
        assessment: object = await call_user_code(scope, in_thread_if_plain(tool.assess), arguments)
        assessment = checked(Assessment, assessment, "assess()")
        assert isinstance(assessment, Assessment)
        return assessment
    except UserCodeError as error:
        run.warn("predicate_failed", f"{short}: {error}", logged=short, error=error.__cause__)
    except FieldError as error:
        run.warn("predicate_failed", f"{short}: {error}", logged=short, error=error)
    return Assessment(why=f"what {tool.name} would do is not known, since its assess= failed")
