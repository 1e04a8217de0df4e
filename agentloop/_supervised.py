"""A command whose descendants cannot escape: `_supervisor` runs between this program and the command, on Linux.

Where there is no supervisor (other systems, applications without an interpreter) or a command has killed it, the marks
and groups of `_process_tree` find the processes that are left.
"""

from __future__ import annotations

import errno
import os
import platform
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from typing import TypeAlias

import trio

from agentloop import _process_tree
from agentloop._interpreter import loader_environment, python_command, script_arguments
from agentloop._process_tree import ProcessTree, open_process_tree, start_process_tree
from agentloop._sandbox import Confinement, confined
from agentloop.errors import UsageError

__all__ = ["SupervisedTree", "Tree", "open_supervised_tree"]


class SupervisedTree:
    """A running command (the leader) and its descendants. Made by `open_supervised_tree`."""

    __slots__ = (
        "_begun",
        "_channel",
        "_code",
        "_ended",
        "_ending",
        "_grace",
        "_has_reported",
        "_is_closed",
        "_received",
        "_started",
        "_supervisor",
        "_waiting",
        "leftovers",
    )

    def __init__(
        self, supervisor: ProcessTree, channel: socket.socket, started: trio.lowlevel.FdStream, grace: float
    ) -> None:
        self._supervisor = supervisor
        self._channel = channel
        self._started = started
        """Ends when the command has started; holds the error number if it cannot be."""
        self._grace = grace
        self._begun = False
        self._received = b""
        self._has_reported = False
        """Whether the supervisor has reported that no descendant is left."""
        self._is_closed = False
        """Whether the supervisor has ended."""
        self._code: int | None = None
        self._ending = trio.Lock()
        self._ended = False
        self._waiting = trio.Lock()
        self.leftovers = 0
        """How many processes outlived the leader and were ended by `end`."""

    async def begin(self, command: Sequence[str], env: Mapping[str, str]) -> None:
        """Have the supervisor start the command.

        Raises:
          OSError: the command cannot be started.
        """
        data = memoryview(_request(command, env))
        while data:
            await trio.lowlevel.wait_writable(self._channel)
            try:
                data = data[self._channel.send(data) :]
            except BlockingIOError:
                continue
            except OSError:  # the supervisor could not start: its error output is the output
                break
        self._begun = True
        digits = b"".join([bytes(piece) async for piece in self._started])
        if digits:
            raise OSError(int(digits), os.strerror(int(digits)), command[0])

    @property
    def stdin(self) -> trio.abc.SendStream:
        """The leader's input; only if it was started with ``stdin=subprocess.PIPE``."""
        return self._supervisor.stdin

    @property
    def stdout(self) -> trio.abc.ReceiveStream:
        """The output of all processes, and their error output unless that has a pipe of its own."""
        return self._supervisor.stdout

    @property
    def stderr(self) -> trio.abc.ReceiveStream:
        """The error output of all processes; only if started with ``stderr=subprocess.PIPE``."""
        return self._supervisor.stderr

    @property
    def exit_code(self) -> int | None:
        """The leader's exit code, negative for a signal; ``None`` while it runs, or if it is unknown."""
        return self._code

    async def leader_exited(self) -> None:
        """Wait until the leader has exited."""
        async with self._waiting:
            while self._code is None and not self._is_done:
                await self._receive()

    async def end(self, *, grace: float | None = None) -> int | None:
        """End all processes that are left. Takes at most the grace and some 20 s, and cannot be cancelled.

        Args:
          grace: seconds from SIGTERM to SIGKILL, instead of the value given at the start.

        Returns:
          The leader's exit code, negative for a signal; ``None`` if it is unknown or the leader survived SIGKILL.
        """
        with trio.CancelScope(shield=True):
            async with self._ending:
                if not self._ended:
                    self._ended = True
                    if self._begun:
                        await self._end_all(self._grace if grace is None else grace)
                    is_complete = self._has_reported
                    await self._supervisor.end(grace=0)
                    if self._begun and self._is_closed and not is_complete and self._code is None:
                        # The command has killed its supervisor, and was killed with all that is left.
                        self._code = -signal.SIGKILL
                    if self._begun and not is_complete:
                        self.leftovers = max(self.leftovers, self._supervisor.leftovers)
        return self._code

    async def aclose(self) -> None:
        """End all processes that are left, and close the pipes."""
        await self.end()
        self._channel.close()
        self._started.close()
        await self._supervisor.aclose()

    async def _end_all(self, grace: float) -> None:
        if self._code is not None and await self._is_done_within(_process_tree.LINGER_SECONDS):
            return None
        had_exited = self._code is not None
        if grace > 0:
            self._send(b"T")
            if await self._is_done_within(grace):
                return self._count_leftovers(had_exited)
        self._send(b"K")
        await self._is_done_within(_process_tree.KILL_SECONDS)
        return self._count_leftovers(had_exited)

    def _count_leftovers(self, had_exited: bool) -> None:
        if not had_exited:
            self.leftovers = 0

    @property
    def _is_done(self) -> bool:
        return self._has_reported or self._is_closed

    async def _is_done_within(self, seconds: float) -> bool:
        with trio.move_on_after(seconds):
            async with self._waiting:
                while not self._is_done:
                    await self._receive()
        return self._is_done

    def _send(self, order: bytes) -> None:
        with suppress(OSError):  # the supervisor has ended
            self._channel.send(order)

    async def _receive(self) -> None:
        await trio.lowlevel.wait_readable(self._channel)
        try:
            data = self._channel.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._is_closed = not data
        *lines, self._received = (self._received + data).split(b"\n")
        for line in lines:
            kind, number = line[:1], int(line[1:])
            if kind == b"E":
                self._code = os.waitstatus_to_exitcode(number)
            elif kind == b"L":
                self.leftovers = number
            elif kind == b"D":
                self._has_reported = True


Tree: TypeAlias = ProcessTree | SupervisedTree
"""The two kinds of trees, which a caller uses alike."""


@asynccontextmanager
async def open_supervised_tree(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    grace: float,
    cwd: str | os.PathLike[str] | None = None,
    stdin: int = subprocess.DEVNULL,
    stderr: int = subprocess.STDOUT,
    confinement: Confinement | None = None,
) -> AsyncGenerator[Tree]:
    """Start ``command``, and end it and all its descendants when the block ends.

    Args:
      command: the program, a path or a name on the ``PATH`` of ``env``, and its arguments.
      env: the complete environment.
      grace: seconds from SIGTERM to SIGKILL; 0 for SIGKILL at once.
      cwd: the folder to start in; by default the current one.
      stdin: empty by default; or ``subprocess.PIPE``.
      stderr: by default the same pipe as the output; or ``subprocess.PIPE``.
      confinement: the sandbox for the command; ``None`` for none.

    Raises:
      OSError: the program cannot be started.
    """
    with confined(confinement, command, env) as (line, descriptors):
        opening = _open(line, descriptors, env=env, grace=grace, cwd=cwd, stdin=stdin, stderr=stderr)
        async with opening as tree:
            yield tree


@asynccontextmanager
async def _open(
    command: Sequence[str],
    pass_fds: Sequence[int],
    *,
    env: Mapping[str, str],
    grace: float,
    cwd: str | os.PathLike[str] | None,
    stdin: int,
    stderr: int,
) -> AsyncGenerator[Tree]:
    supervisor = _supervisor_command()
    if supervisor is None:
        opening = open_process_tree(
            command, env=env, grace=grace, cwd=cwd, stdin=stdin, stderr=stderr, pass_fds=pass_fds
        )
        async with opening as tree:
            yield tree
        return
    with ExitStack() as closing:
        # Closed here in any case: those of the supervisor. If it cannot be started: ours too.
        ours, theirs = socket.socketpair()
        with theirs:
            closing.callback(ours.close)
            ours.setblocking(False)
            read_end, write_end = os.pipe()
            try:
                closing.callback(os.close, read_end)
                process = await start_process_tree(
                    [*supervisor, str(theirs.fileno()), str(write_end)],
                    env=loader_environment(),
                    grace=grace,
                    cwd=cwd,
                    stdin=stdin,
                    stderr=stderr,
                    pass_fds=[theirs.fileno(), write_end, *pass_fds],
                )
            finally:
                os.close(write_end)
        closing.pop_all()
    supervised = SupervisedTree(process, ours, trio.lowlevel.FdStream(read_end), grace)
    # No checkpoint from the start to the `try`: a cancel would leave the supervisor running.
    try:
        await supervised.begin(command, env)
        yield supervised
    finally:
        await supervised.aclose()  # noqa: ASYNC102  # shielded, and bounded in time


def _request(command: Sequence[str], env: Mapping[str, str]) -> bytes:
    """The message that asks the supervisor to start a command.

    Raises:
      OSError: the system takes no such command line or environment.
    """
    parts = [*command, *(part for item in env.items() for part in item)]
    try:
        encoded = [os.fsencode(part) for part in parts]
    except ValueError as error:  # a lone surrogate
        raise OSError(errno.EINVAL, f"not a possible command line: {error}") from error
    if any(b"\0" in part for part in encoded):
        raise OSError(errno.EINVAL, "not a possible command line: it has a NUL character")
    if any(not name or "=" in name for name in env):
        raise OSError(errno.EINVAL, "not a possible environment: a name is empty or has an equals sign")
    request = b"\0".join([b"%d" % len(command), *encoded])
    return b"%016d" % len(request) + request


def _supervisor_command() -> list[str] | None:
    """The command that starts the supervisor; ``None`` where there cannot be one."""
    if sys.platform != "linux" or platform.python_implementation() != "CPython" or not _process_tree.has_proc():
        return None
    try:
        interpreter = python_command("The supervisor of a program")
    except UsageError:
        return None
    return [interpreter, "-I", "-S", "-B", *script_arguments("agentloop", "_supervisor.py")]
