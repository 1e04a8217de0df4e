"""The process in which a local model runs: started when it is first needed, gone when its block has ended.

A process, and not a thread of this one: the engine holds Python's lock while it loads a model, its threads cannot be
stopped in the midst of what they do, and if it crashes it crashes alone. Killing it takes milliseconds at any moment.
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
"""For a process whose connections dropped to be gone as well."""
LAST_WORDS_BYTES = 2000


@frozen(kw_only=True)
class Serving:
    """What the process is to serve, and how."""

    model: str
    """What errors call the model."""
    weights: Path
    context_tokens: int
    slots: int
    """How many responses there can be at once. More wait for their turn."""
    threads: int


class _Told(msgspec.Struct):
    url: str = ""
    error: str = ""


class LocalProcess:
    """Made by `open_process`."""

    __slots__ = ("_closed", "_key", "_lock", "_log", "_process", "_serving", "_told")

    def __init__(self, serving: Serving, log: IO[bytes]) -> None:
        self._serving = serving
        self._log = log
        self._key = secrets.token_urlsafe()
        self._lock = trio.Lock()
        """Held while the process is started: by the first that needs it, in whose deadline that is."""
        self._process: ProcessTree | None = None
        self._closed = False
        self._told = b""
        """What the process has told of how it started, so far."""

    @property
    def key(self) -> str:
        """The bearer token that the server wants."""
        return self._key

    @property
    def pid(self) -> int | None:
        """Of the process; ``None`` if there is none yet, or no more."""
        return None if self._process is None or self._process.exit_code is not None else self._process.pid

    async def url(self) -> str:
        """Where the server is. Waits until it is there; one that has died is started again.

        Cancelling frees the caller at once: the process goes on loading, for whoever asks next, until the end of
        the block.

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
        # In the environment, which others cannot see, unlike the command line.
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
        """What ``process`` tells of how it started; nothing, if it died before."""
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
        """What is to be said of the process after a connection to it dropped; ``None`` if it is still there."""
        process = self._process
        if self._closed:
            return None  # noqa: ASYNC910  # that is no death
        if process is not None:
            # Its connections drop a moment before it is gone.
            with trio.move_on_after(DEATH_SECONDS):
                await process.leader_exited()
            if process.exit_code is None:
                return None
        return f"its process died{self._last_words()}"  # noqa: ASYNC910  # it was not there

    def _last_words(self) -> str:
        """The end of what it has printed."""
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - LAST_WORDS_BYTES))
        words = self._log.read().decode("utf-8", "replace").strip()
        return f"; its last words were: {words}" if words else ""

    async def close(self) -> None:
        """End the process, for good."""
        self._closed = True
        await self.end()
        # Somebody may be about to start it.
        async with self._lock:
            await self.end()

    async def end(self) -> None:
        """Kill the process, if there is one, and wait until it is gone."""
        process, self._process = self._process, None
        if process is not None:
            await process.aclose()


@asynccontextmanager
async def open_process(serving: Serving) -> AsyncGenerator[LocalProcess]:
    """A process that serves a model, for the length of the block. It is started when `LocalProcess.url` is needed."""
    # A file without a name, which is gone with the last that has it open. A pipe would have to be read all the time.
    with tempfile.TemporaryFile() as log:
        process = LocalProcess(serving, log)
        try:
            yield process
        finally:
            with trio.CancelScope(shield=True):
                await process.close()
