"""A folder that is there as long as a stream."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import trio
from attrs import frozen

from agentloop.tools import OpenToolset, Tool

__all__ = ["Scratch"]


class Scratch:
    """A toolset whose tools share a temporary folder, which each stream has of its own, and which ends with it.

    ::

        Agent(model, toolsets=[Scratch(lambda folder: [shell(keep_in=folder), *file_tools(".", also_read=[folder])])])

    Args:
      make: makes the tools. Called with the folder, for each stream.
      name: what errors call it.
    """

    def __init__(self, make: Callable[[Path], Iterable[Tool]], *, name: str = "scratch") -> None:
        self._make = make
        self._name = name

    @property
    def name(self) -> str:
        """What errors call it."""
        return self._name

    def open(self) -> AbstractAsyncContextManager[OpenToolset]:
        """Make the folder and the tools; remove the folder, with all that is in it, when the block ends."""
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
