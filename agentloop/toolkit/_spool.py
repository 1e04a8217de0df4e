"""A folder for long results, as long-lived as a stream."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import trio
from attrs import frozen

from agentloop.tools import OpenToolset, Tool

__all__ = ["SpoolDirectory"]


class SpoolDirectory:
    """A toolset whose tools share a temporary folder. Each stream gets its own, removed when the stream ends.

    ::

        def tools(folder: Path) -> list[Tool]:
            return [shell(keep_in=folder), *file_tools(".", also_read=[folder])]

        Agent(model, toolsets=[SpoolDirectory(tools)])

    Args:
      make: called for each stream with the path of its folder; returns the tools.
      name: the toolset's name in errors.
    """

    def __init__(self, make: Callable[[Path], Iterable[Tool]], *, name: str = "scratch") -> None:
        self._make = make
        self._name = name

    @property
    def name(self) -> str:
        """The toolset's name in errors."""
        return self._name

    def open(self) -> AbstractAsyncContextManager[OpenToolset]:
        """Create the folder and the tools. The folder and its files are removed when the block ends."""
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[OpenToolset]:
        folder = Path(await trio.to_thread.run_sync(lambda: tempfile.mkdtemp(prefix="agentloop-")))
        try:
            yield _Tools(tuple(self._make(folder)))
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(shutil.rmtree, folder)


@frozen
class _Tools:
    tools: tuple[Tool, ...]

    async def list_tools(self) -> Sequence[Tool]:
        return self.tools
