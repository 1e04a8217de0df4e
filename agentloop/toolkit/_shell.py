"""The tool that runs a command line."""

from __future__ import annotations

import codecs
import math
import os
from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

import trio
from msgspec import Meta

from agentloop._processes import Family, open_family, signal_name
from agentloop.context import ToolContext
from agentloop.errors import ToolError, UsageError
from agentloop.messages import ResultStatus, Text, ToolResult
from agentloop.toolkit._capped import MAX_CHARS, Capped, open_capped
from agentloop.tools import Tool, tool

__all__ = ["SAFE_ENV", "shell"]

SAFE_ENV = (
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "LC_*", "TZ", "TMPDIR", "XDG_*",
    "VIRTUAL_ENV", "SSL_CERT_FILE", "SSL_CERT_DIR",
)  # fmt: skip
"""Variables of the environment that a command gets unless told otherwise. Keys and tokens are not among them."""

DRAIN_SECONDS = 0.25
"""How long to wait for the end of the output when all processes have ended. One that escaped may hold it open."""
DRAIN_BYTES = 1_000_000
"""How much to read then: more than a pipe holds."""


def shell(
    *,
    cwd: str | os.PathLike[str] = ".",
    env: Mapping[str, str] | None = None,
    inherit_env: Collection[str] = SAFE_ENV,
    timeout: float = 120.0,
    max_timeout: float = 600.0,
    grace: float = 2.0,
    max_chars: int = MAX_CHARS,
    keep_in: str | os.PathLike[str] | None = None,
    requires_approval: bool = True,
    name: str = "shell",
) -> Tool:
    """A tool that runs a command line with ``/bin/sh -c``.

    What the command writes, on either output, is shown at once, and is the result, with the exit code. When the call
    ends, in whatever way, everything that the command started is ended too, also what it left in the background:
    processes get SIGTERM, and after the grace SIGKILL. On Linux that includes daemons, which have left the process
    group, except one that has cleared its environment or runs as another user; elsewhere it is the process group.

    This confines nothing: a command may do whatever the user may. Hence ``requires_approval``.

    Args:
      cwd: the folder that commands run in.
      env: variables to set.
      inherit_env: names of variables, or patterns such as ``LC_*``, to pass on from this process's environment.
      timeout: seconds that a command may take if the model does not say. A slow reader's time does not count.
      max_timeout: seconds that the model may ask for.
      grace: seconds from SIGTERM to SIGKILL.
      max_chars: characters of output that the model gets to read.
      keep_in: a folder for the whole output where that is longer. The files are yours to remove; see also `Scratch`.
        Without one, what is left out is gone.
      requires_approval: whether a person must approve each call.
      name: what the model calls it.

    Raises:
      UsageError: this is no POSIX system, a number makes no sense, or the current folder was removed.
    """
    if os.name != "posix":
        raise UsageError("shell() needs a POSIX system: it runs /bin/sh, and ends process groups")
    if not (timeout > 0 and max_timeout > 0 and grace >= 0 and max_chars > 0):
        raise UsageError("shell(): give a timeout, max_timeout and max_chars above 0, and a grace of 0 or more")
    try:
        folder = Path(cwd).absolute()
        kept = None if keep_in is None else Path(keep_in).absolute()
    except FileNotFoundError as error:
        raise UsageError(
            "shell(): the current folder was removed, so a relative cwd or keep_in leads nowhere: give absolute paths"
        ) from error
    given, inherited = dict(env or {}), tuple(inherit_env)
    timeout = min(timeout, max_timeout)

    async def run(
        context: ToolContext[Any],
        command: str,
        timeout: Annotated[float, Meta(gt=0)] = timeout,  # noqa: ASYNC109
    ) -> ToolResult:
        """Run a command line.

        Args:
          command: the command line, for /bin/sh.
          timeout: seconds after which it is ended.
        """
        if "\0" in command:
            raise ToolError("the command has a NUL character, which no command line can have")
        environment = {
            key: value for key, value in os.environ.items() if any(fnmatchcase(key, each) for each in inherited)
        }
        opening = open_family(
            ["/bin/sh", "-c", command], cwd=folder, env={"TERM": "dumb", **environment, **given}, grace=grace
        )
        timeout = min(timeout, max_timeout)
        async with open_capped(max_chars, keep_in=kept, name=name) as output:
            try:
                async with opening as family:
                    timed_out = await _Pump(family, output, context).run(timeout)
                    code = await family.end()
            except OSError as error:
                raise ToolError(f"the command cannot be run in {folder}: {error.strerror or error}") from error
            return _result(output.text(), code, timeout if timed_out else None, family.leftovers)

    return tool(
        name=name,
        description=(
            f"Run a command line with /bin/sh in {folder}. Returns what it writes, and its exit code. "
            "It has no input and no terminal. Processes that it leaves in the background are ended when it ends. "
            f"It is ended after {timeout:g} s; ask for up to {max_timeout:g} s if it needs longer."
        ),
        requires_approval=requires_approval,
        destructive=True,
        # Its own deadline, so that what a command wrote until then is told.
        timeout=math.inf,
    )(run)


class _Pump:
    """Reads what a family of processes writes: to the reader of the stream, and into the result."""

    def __init__(self, family: Family, output: Capped, context: ToolContext[Any]) -> None:
        self._family = family
        self._output = output
        self._context = context
        self._running = trio.CancelScope()
        self._reading = trio.CancelScope()
        self._left: float = math.inf
        """How many bytes may still come."""

    async def run(self, seconds: float) -> bool:
        """Read until the processes have ended, by themselves or when the time is up. Returns whether it was."""
        async with trio.open_nursery() as nursery:
            self._running.deadline = trio.current_time() + seconds
            nursery.start_soon(self._read)
            with self._running:
                await self._family.leader_exited()
            await self._family.end()
            # All that they wrote is in the pipe already.
            self._left = DRAIN_BYTES
            self._reading.deadline = trio.current_time() + DRAIN_SECONDS
        return self._running.cancelled_caught

    async def _read(self) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        while self._left > 0:
            seconds = math.inf if self._left == math.inf else DRAIN_SECONDS
            chunk = b""
            with trio.CancelScope(deadline=trio.current_time() + seconds) as self._reading:
                chunk = bytes(await self._family.stdout.receive_some(65536))
            self._left -= len(chunk)
            await self._take(decoder.decode(chunk, final=not chunk))
            if not chunk:
                break

    async def _take(self, text: str) -> None:
        if not text:
            return
        await self._output.add(text)
        # Whoever reads slowly makes the command wait, in a full pipe: that is not time it takes.
        left = self._running.deadline - trio.current_time()
        self._running.deadline = math.inf
        try:
            await self._context.output(text)
        finally:
            self._running.deadline = trio.current_time() + left


def _result(text: str, code: int | None, timed_out: float | None, leftovers: int) -> ToolResult:
    status: ResultStatus = "ok"
    if timed_out is not None:
        status, word = "timeout", f"ended after {timed_out:g} s, the time it had, with all that it had started"
    elif code is None:
        status, word = "error", "killed, but it has not ended: it hangs in the kernel"
    elif code < 0:
        status, word = "error", f"killed by {signal_name(-code)}"
    else:
        word = f"exit code {code}"
        if leftovers:
            word += f"; processes that it left in the background were ended: {leftovers}"
    text = f"{text}\n" if text and not text.endswith("\n") else text
    return ToolResult("", "", (Text(f"{text}[{word}]"),), status)
