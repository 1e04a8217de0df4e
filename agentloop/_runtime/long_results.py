"""The tool with which a model reads the rest of a long result. Offered once there is such a result."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from agentloop._core.kept import READ_RESULT
from agentloop._runtime.run import Run
from agentloop.tools import Tool, tool

__all__ = ["with_reader"]


def with_reader(run: Run, tools: dict[str, Tool]) -> dict[str, Tool]:
    """``tools``, and `READ_RESULT` where a result of the session was too long. A tool of that name stays as it is."""
    if not run.transcript.kept or READ_RESULT in tools:
        return tools
    if run.reader is None:
        run.reader = _reader(run)
    return {**tools, READ_RESULT: run.reader}


def _reader(run: Run) -> Tool:
    # A page, with its heading, is not to be too long itself.
    page = max(int(min(run.config.max_result, 100_000) * 0.9) - 100, 100)

    @tool(name=READ_RESULT, read_only=True, idempotent=True)
    async def read_result(  # noqa: ASYNC124 - it is in memory, and a plain function would run in a thread
        call_id: str,
        offset: Annotated[int, Meta(ge=0)] = 0,
        limit: Annotated[int, Meta(ge=1)] = 100_000,
        find: str = "",
    ) -> str:
        """Read a part of a tool result that was too long to be shown whole.

        Args:
          call_id: of the tool call, as the result says.
          offset: the first character to read.
          limit: how many characters to read at most.
          find: begin where this text stands next, at or after offset.
        """
        return run.transcript.kept.read(call_id, offset, min(limit, page), find)  # noqa: ASYNC910

    return read_result
