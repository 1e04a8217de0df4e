"""Commands that an external agent has this process run: ``terminal/*`` of ACP."""

from __future__ import annotations

import codecs
import os
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import trio

from agentloop._initial_environment import inherited_environment
from agentloop._process_tree import signal_name
from agentloop._supervised import Tree, open_supervised_tree
from agentloop.acp._calls import Workplace
from agentloop.acp._wording import shortened
from agentloop.errors import ToolError
from agentloop.toolkit._root import Root
from agentloop.toolkit._shell import SAFE_ENV

__all__ = ["Terminal"]

MAX_OUTPUT = 1_000_000
"""Characters of output that are kept for the other agent, the last ones."""
DRAIN_SECONDS = 0.25
"""Seconds to wait for the end of the output after the command has ended."""


class Terminal:
    """A command that runs, or has run.

    Args:
      limit: characters of its output to keep.
      changed: called when it has written something, and when it has ended.
    """

    def __init__(self, limit: int, changed: Callable[[], None]) -> None:
        self._limit = min(limit, MAX_OUTPUT)
        self._changed = changed
        self._scope = trio.CancelScope()
        self._output = ""
        self.is_truncated = False
        """Whether the beginning of the output is lost."""
        self.written = 0
        """Characters of output in all."""
        self.exit_code: int | None = None
        """The exit code, negative for a signal; ``None`` while the command runs, or if it is not known."""
        self.ended = trio.Event()
        """Set when the command and all its descendants have ended."""

    @property
    def output(self) -> str:
        """The output that is kept."""
        return self._output

    def status(self) -> dict[str, Any] | None:
        """How the command ended, as ACP says it; ``None`` while it runs."""
        if not self.ended.is_set():
            return None
        code = self.exit_code
        if code is None or code >= 0:
            return {"exitCode": code, "signal": None}
        return {"exitCode": None, "signal": signal_name(-code)}

    def summary(self) -> str:
        """Its output and how it ended, for the transcript."""
        code = self.exit_code
        ending = "killed" if code is None else f"killed by {signal_name(-code)}" if code < 0 else f"exit code {code}"
        return "\n".join(filter(None, [shortened(self._output.rstrip("\n")), f"[{ending}]"]))

    def kill(self) -> None:
        """End the command."""
        self._scope.cancel()

    async def run(  # noqa: ASYNC114 - only `start` is used
        self,
        workplace: Workplace,
        line: str,
        cwd: str | None,
        env: Mapping[str, str],
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Run the command to its end.

        Raises:
          ToolError: it cannot be started. Only before the task is reported to have started.
        """
        is_started = False
        try:
            folder = _folder_in(workplace, cwd)
            opening = open_supervised_tree(
                ["/bin/sh", "-c", line],
                cwd=folder,
                env={"TERM": "dumb", **inherited_environment(SAFE_ENV), **env},
                grace=1.0,
                stdin=subprocess.DEVNULL,
                confinement=workplace.confinement,
            )
            with self._scope:
                async with opening as tree:
                    is_started = True
                    task_status.started()
                    await self._read_to_the_end(tree)
        except OSError as error:
            if is_started:
                return
            raise ToolError(f"the command cannot be run: {error.strerror or error}") from error
        finally:
            self.ended.set()
            self._changed()

    async def _read_to_the_end(self, tree: Tree) -> None:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read, tree)
                await tree.leader_exited()
                self.exit_code = await tree.end()
                nursery.cancel_scope.deadline = trio.current_time() + DRAIN_SECONDS
        finally:
            self.exit_code = await tree.end()  # noqa: ASYNC102 - it shields itself

    async def _read(self, tree: Tree) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while chunk := bytes(await tree.stdout.receive_some(65536)):
                self._take(decoder.decode(chunk))
        self._take(decoder.decode(b"", final=True))

    def _take(self, text: str) -> None:
        if not text:
            return
        self.written += len(text)
        self._output += text
        if len(self._output) > self._limit:
            self._output, self.is_truncated = self._output[len(self._output) - self._limit :], True
        self._changed()


def _folder_in(workplace: Workplace, cwd: str | None) -> str:
    if not cwd or cwd == workplace.folder:
        return workplace.folder
    # Raises if it leads out of the folder.
    os.close((workplace.root or Root(workplace.folder)).open_folder(cwd))
    return os.path.join(workplace.folder, cwd)  # noqa: PTH118 - an absolute one stays as it is
