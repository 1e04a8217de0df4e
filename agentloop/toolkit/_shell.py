"""The tool that runs a command line."""

from __future__ import annotations

import codecs
import math
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any

import trio
from msgspec import Meta

from agentloop._initial_environment import inherited_environment
from agentloop._process_tree import signal_name
from agentloop._sandbox import Sandbox, confine
from agentloop._supervised import Tree, open_supervised_tree
from agentloop.context import ToolContext
from agentloop.errors import ToolError, UsageError
from agentloop.messages import ResultStatus, Text, ToolResult
from agentloop.toolkit._assess_command import command_assessor
from agentloop.toolkit._overwritten import OverwrittenLines
from agentloop.toolkit._truncated import MAX_CHARS, TruncatedText, open_truncated
from agentloop.tools import Tool, tool

__all__ = ["SAFE_ENV", "shell"]

SAFE_ENV = (
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "LC_*", "TZ", "TMPDIR", "XDG_*",
    "VIRTUAL_ENV", "SSL_CERT_FILE", "SSL_CERT_DIR",
)  # fmt: skip
"""Environment variables that a command inherits by default. Variables with keys and tokens are not among them."""

DRAIN_SECONDS = 0.25
"""Seconds to wait for the end of the output after all processes have ended. An escaped one may hold it open."""
DRAIN_BYTES = 1_000_000
"""Bytes to read then at most: more than a pipe holds."""


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
    sandbox: Sandbox | None = None,
) -> Tool:
    """A tool that runs a command line with ``/bin/sh -c``.

    Output and error output are emitted at once as `ToolCallOutput`, and together with the exit code they are the
    result. However the call ends, all processes that the command started end with it, also those in the background:
    they get SIGTERM, and after the grace SIGKILL. On Linux that includes daemons, whatever they do to their session,
    title or environment, except those of another user (``sudo``), and those without their environment if the command
    has killed its supervisor, which is its parent; elsewhere only the process group. On Linux the command also ends
    when this process is killed.

    Without ``sandbox``, the command runs with all rights of the user. Hence ``requires_approval``. The mode ``safer``
    of `agentloop.permissions.Permissions` runs commands that `assess_command` knows to be harmless without approval.

    On Linux, the first command makes this process overwrite its initial environment in memory, except for inherited
    variables: otherwise a command could read keys from ``/proc/<pid>/environ``. ``os.environ`` does not change.

    Args:
      cwd: the folder in which commands run.
      env: environment variables to set.
      inherit_env: names of variables, or patterns such as ``LC_*``, to pass on from this process's environment.
      timeout: seconds that a command may take, if the model asks for no other time. Time in which it waits for a slow
        reader does not count.
      max_timeout: seconds that the model may ask for at most.
      grace: seconds from SIGTERM to SIGKILL.
      max_chars: characters of output that the model gets at most.
      keep_in: a folder for files with longer outputs. Remove the files yourself, or see `SpoolDirectory`. Without a
        folder the omitted part is lost.
      requires_approval: whether the user must approve each call.
      name: the tool's name for the model.
      sandbox: what a command may reach; ``None`` for all that the user may. A sandbox that cannot be made here is an
        error at once. A command that a signal kills then has the exit code 128 and the number of the signal.

    Raises:
      UsageError: the system is not POSIX, a number is out of range, the current folder was removed, or the sandbox
        cannot be made.
    """
    if os.name != "posix":
        raise UsageError("shell() needs a POSIX system: it runs /bin/sh, and ends process groups")
    if not (timeout > 0 and max_timeout > 0 and grace >= 0 and max_chars > 0):
        raise UsageError("shell(): give a timeout, max_timeout and max_chars above 0, and a grace of 0 or more")
    try:
        folder = Path(cwd).absolute()
        spool = None if keep_in is None else Path(keep_in).absolute()
    except FileNotFoundError as error:
        raise UsageError(
            "shell(): the current folder was removed, so a relative cwd or keep_in leads nowhere: give absolute paths"
        ) from error
    variables, inherited = dict(env or {}), tuple(inherit_env)
    timeout = min(timeout, max_timeout)
    confinement = None if sandbox is None else confine(sandbox, folder)

    async def run(
        context: ToolContext[Any],
        command: str,
        timeout: Annotated[float, Meta(gt=0)] = timeout,  # noqa: ASYNC109
    ) -> ToolResult:
        """Run a command line.

        Args:
          command: the command line, for /bin/sh.
          timeout: seconds after which the command is ended.
        """
        if "\0" in command:
            raise ToolError("the command has a NUL character, which no command line can have")
        opening = open_supervised_tree(
            ["/bin/sh", "-c", command],
            cwd=folder,
            env={"TERM": "dumb", **inherited_environment(inherited), **variables},
            grace=grace,
            confinement=confinement,
        )
        timeout = min(timeout, max_timeout)
        async with open_truncated(max_chars, keep_in=spool, name=name) as output:
            try:
                async with opening as tree:
                    timed_out = await _Pump(tree, output, context).run(timeout)
                    code = await tree.end()
            except OSError as error:
                raise ToolError(f"the command cannot be run in {folder}: {error.strerror or error}") from error
            # The process that reaps in a sandbox outlives the command as long as there is something to reap.
            leftovers = tree.leftovers if confinement is None else max(0, tree.leftovers - 1)
            return _result(output.text(), code, timeout if timed_out else None, leftovers)

    return tool(
        name=name,
        description=(
            f"Run a command line with /bin/sh in {folder}. Returns what it writes, and its exit code. "
            "It has no input and no terminal. Processes that it leaves in the background are ended when it ends. "
            f"It is ended after {timeout:g} s; ask for up to {max_timeout:g} s if it needs longer."
            f"{'' if sandbox is None else _described(sandbox)}"
        ),
        requires_approval=requires_approval,
        destructive=True,
        assess=command_assessor(folder=folder),
        # The tool has a deadline of its own, so that the result has the output up to then.
        timeout=math.inf,
    )(run)


def _described(sandbox: Sandbox) -> str:
    """What the model should know about the sandbox, so that it does not try in vain."""
    changes = f"it can change files in {', '.join(sandbox.write)} only" if sandbox.write else "it can change no files"
    reads = f", it can read {', '.join(sandbox.read)}" if sandbox.read else ""
    sockets = " and Unix sockets" if sandbox.unix_sockets else ""
    return f" It runs in a sandbox: {changes}{reads}, and it has {'a' if sandbox.network else 'no'} network{sockets}."


class _Pump:
    """Reads the output of a process tree, and passes it to the stream and into the result."""

    def __init__(self, tree: Tree, output: TruncatedText, context: ToolContext[Any]) -> None:
        self._tree = tree
        self._output = output
        self._context = context
        self._lines = OverwrittenLines()
        self._running = trio.CancelScope()
        self._reading = trio.CancelScope()
        self._left: float = math.inf
        """Bytes that may still be read."""

    async def run(self, seconds: float) -> bool:
        """Read until all processes have ended. Returns whether ``seconds`` ran out and ended them."""
        async with trio.open_nursery() as nursery:
            self._running.deadline = trio.current_time() + seconds
            nursery.start_soon(self._read)
            with self._running:
                await self._tree.leader_exited()
            await self._tree.end()
            # All their output is in the pipe already.
            self._left = DRAIN_BYTES
            self._reading.deadline = trio.current_time() + DRAIN_SECONDS
        return self._running.cancelled_caught

    async def _read(self) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        while self._left > 0:
            seconds = math.inf if self._left == math.inf else DRAIN_SECONDS
            chunk = b""
            with trio.CancelScope(deadline=trio.current_time() + seconds) as self._reading:
                chunk = bytes(await self._tree.stdout.receive_some(65536))
            self._left -= len(chunk)
            await self._take(decoder.decode(chunk, final=not chunk))
            if not chunk:
                break
        await self._output.add(self._lines.end())

    async def _take(self, text: str) -> None:
        if not text:
            return
        # A slow reader makes the command wait at a full pipe. That time does not count.
        left = self._running.deadline - trio.current_time()
        self._running.deadline = math.inf
        try:
            await self._output.add(self._lines.add(text))
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
