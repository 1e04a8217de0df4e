"""The process of a local model: the first response starts it, and it has ended when its block has ended.

A process, and not a thread: the engine holds Python's lock while it loads a model, its threads cannot be stopped while
they compute, and a crash of the engine ends only its own process. Killing the process takes milliseconds at any moment.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO

import msgspec
import trio
from attrs import frozen

from agentloop._core.json_text import decode_own
from agentloop._interpreter import python_command, script_arguments
from agentloop._process_tree import ProcessTree, start_process_tree
from agentloop.errors import ModelConnectionError, ModelNotFoundError, UsageError
from agentloop.providers import _local_server

__all__ = ["LocalProcess", "Serving", "open_process"]

DEATH_SECONDS = 0.5
"""Seconds to wait for the end of a process whose connections dropped."""
LAST_WORDS_BYTES = 2000
"""Bytes of the process's output that an error shows."""


@frozen(kw_only=True)
class Serving:
    """The parameters of the process."""

    model: str
    """The model's name, for errors."""
    weights: Path
    """The file of the weights (GGUF)."""
    context_tokens: int
    """Upper bound of the tokens of all requests and responses that run at once."""
    slots: int
    """How many responses run at once. More wait for a slot."""
    threads: int
    """Threads that compute."""


class _Told(msgspec.Struct):
    url: str = ""
    error: str = ""


class LocalProcess:
    """A process that serves one model. `open_process` makes it."""

    __slots__ = ("_closed", "_key", "_lock", "_log", "_process", "_serving", "_told")

    def __init__(self, serving: Serving, log: IO[bytes]) -> None:
        self._serving = serving
        self._log = log
        self._key = secrets.token_urlsafe()
        self._lock = trio.Lock()
        """Held by the response that starts the process; the start counts against its deadline."""
        self._process: ProcessTree | None = None
        self._closed = False
        self._told = b""
        """The beginning of the line in which the process reports its start."""

    @property
    def key(self) -> str:
        """The bearer token that the server demands."""
        return self._key

    @property
    def pid(self) -> int | None:
        """The id of the process; ``None`` before its start and after its end."""
        return None if self._process is None or self._process.exit_code is not None else self._process.pid

    async def url(self) -> str:
        """The server's URL. Starts the process if it does not run, and waits until the server listens.

        Cancelling releases the caller at once; the process continues to load, for the next caller, until the block
        ends.

        Raises:
          ModelNotFoundError: the weights cannot be loaded.
          ModelConnectionError: the process cannot be started, or died.
          UsageError: the block has ended, or there is no Python interpreter to start.
        """
        name = self._serving.model
        async with self._lock:
            if self._process is not None and self._process.exit_code is not None:
                await self.end()
            if self._process is None and not self._closed:
                self._process = await self._start()
            told = _Told() if self._process is None else await self._first_line(self._process)
            if not told.url:
                await self.end()
        if self._closed:
            raise UsageError(f"model {name!r} is closed: the block that opened it has ended")
        if told.error:
            raise ModelNotFoundError(
                f"model {name!r}: {self._serving.weights} cannot be loaded: {told.error}{self._last_words()}"
            )
        if not told.url:
            raise ModelConnectionError(f"model {name!r}: its process died while it started{self._last_words()}")
        return told.url

    async def _start(self) -> ProcessTree:
        given = {
            "weights": str(self._serving.weights),
            "context_tokens": self._serving.context_tokens,
            "slots": self._serving.slots,
            "threads": self._serving.threads,
            "key": self._key,
            "path": sys.path,
        }
        # In the environment, which other users cannot read, unlike the command line.
        environment = {**os.environ, _local_server.VARIABLE: msgspec.json.encode(given).decode()}
        self._told = b""
        self._log.seek(0)
        self._log.truncate()
        command = python_command(f"model {self._serving.model!r}")
        try:
            return await start_process_tree(
                # Isolated: not even the folder of the program is a place to import from.
                [command, "-I", *script_arguments("agentloop.providers", "_local_server.py")],
                env=environment,
                # Not asked to go: it has nothing to lose, and might not listen.
                grace=0.0,
                stdin=subprocess.PIPE,
                stderr=self._log,
            )
        except OSError as error:
            raise ModelConnectionError(
                f"model {self._serving.model!r}: its process cannot be started: {error}"
            ) from error

    async def _first_line(self, process: ProcessTree) -> _Told:
        """The line in which ``process`` reports its start; empty if it died before."""
        while not self._told.endswith(b"\n"):
            if self._closed:
                return _Told()  # noqa: ASYNC910  # the block ended while it was started
            try:
                more = await process.stdout.receive_some()
            except trio.ClosedResourceError:
                more = b""  # the block ended meanwhile
            if not more:
                return _Told()
            self._told += more
        return decode_own(self._told, _Told)  # noqa: ASYNC910  # what has been told is there

    async def how_it_died(self) -> str | None:
        """How the process died, for an error, after a connection to it dropped; ``None`` if the process still runs."""
        process = self._process
        if self._closed:
            return None  # noqa: ASYNC910  # the block ended it
        if process is not None:
            # The connections of a dying process drop a moment before its end.
            with trio.move_on_after(DEATH_SECONDS):
                await process.leader_exited()
            if process.exit_code is None:
                return None
        return f"its process died{self._last_words()}"  # noqa: ASYNC910  # there was no process

    def _last_words(self) -> str:
        """The end of its output, as part of an error message."""
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - LAST_WORDS_BYTES))
        words = self._log.read().decode("utf-8", "replace").strip()
        return f"; its last words were: {words}" if words else ""

    async def close(self) -> None:
        """End the process, and start none any more."""
        self._closed = True
        await self.end()
        # A response may be about to start it.
        async with self._lock:
            await self.end()

    async def end(self) -> None:
        """Kill the process, if it runs, and wait for its end."""
        process, self._process = self._process, None
        if process is not None:
            await process.aclose()


@asynccontextmanager
async def open_process(serving: Serving) -> AsyncGenerator[LocalProcess]:
    """A process that serves a model until the block ends. The first call of `LocalProcess.url` starts it."""
    # A file without a name, deleted when the last process closes it. A pipe would need a task that reads it.
    with tempfile.TemporaryFile() as log:
        process = LocalProcess(serving, log)
        try:
            yield process
        finally:
            with trio.CancelScope(shield=True):
                await process.close()
