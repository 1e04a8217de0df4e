"""A process and all its descendants as a block: when the block ends, none of them is left.

All programs that agentloop runs are started here: hooks, tools, local models, MCP servers.

A child gets a session of its own, so that its process group can be signalled at once, and a mark in its environment.
At the end, the processes that the group, the session or the mark identifies get SIGTERM, and after a grace SIGKILL. The
mark identifies daemons, which have left the session; it is read from ``/proc``, so on Linux only. Two kinds of
processes escape: one that left the session *and* cleared its environment or runs as another user (``sudo``); and,
without ``/proc`` (macOS), one that left the group. On Windows only the leader itself is ended.
"""

from __future__ import annotations

import errno
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import IO, Any, Required, TypedDict, Unpack

import trio

__all__ = ["SIGKILL", "ProcessTree", "has_proc", "open_process_tree", "signal_name", "start_process_tree"]

KILL_SECONDS = 5.0
"""Seconds to wait for killed processes. A process in the kernel, on a dead network disk, may never end."""
LINGER_SECONDS = 0.1
"""Seconds for descendants to end by themselves after the leader: the end of a pipeline may still be writing."""
PROC = Path("/proc")
MARK = "AGENTLOOP_CALL"
"""The environment variable with the marks of the process trees that a process belongs to."""
KERNEL_THREADS = b"2"
"""The parent of all kernel threads, which have no environment."""
EXEC_SECONDS = 0.001
EXEC_LOOKS = 20
"""How often to look again at an empty environment: its process may be in the middle of execve()."""
SIGKILL: int = getattr(signal, "SIGKILL", signal.SIGTERM)
"""Windows has only one way to end a process."""


class ProcessTree:
    """A running process (the leader) and its descendants. Made by `open_process_tree` and `start_process_tree`."""

    __slots__ = (
        "_bare",
        "_code",
        "_ended",
        "_ending",
        "_grace",
        "_grace_after",
        "_group",
        "_mark",
        "_process",
        "_scan_limiter",
        "_signalled",
        "_since",
        "leftovers",
    )

    def __init__(self, process: trio.Process, mark: str, grace: float, grace_after: float) -> None:
        self._process = process
        self._group = process.pid
        self._mark = mark.encode()
        self._grace = grace
        self._grace_after = grace_after
        self._signalled: dict[int, int] = {}
        """The last signal sent to each process outside the group, by process id."""
        self._since = _start_of(process.pid)
        """The start of the leader. Descendants are younger, so that most processes can be skipped at a glance."""
        self._scan_limiter = trio.CapacityLimiter(1)
        """For this tree alone: with all of trio's threads busy, the scan, and so the signals, would have to wait."""
        self._bare: set[tuple[int, bytes]] = set()
        """The processes that have no environment at all, by process id and start."""
        self._ending = trio.Lock()
        self._ended = False
        self._code: int | None = None
        """The leader's exit code after it was reaped."""
        self.leftovers = 0
        """How many processes outlived the leader and were ended by `end`."""

    @property
    def pid(self) -> int:
        """The id of the leader, and of its process group."""
        return self._group

    @property
    def stdin(self) -> trio.abc.SendStream:
        """The leader's input; only if it was started with ``stdin=subprocess.PIPE``."""
        assert self._process.stdin is not None
        return self._process.stdin

    @property
    def stdout(self) -> trio.abc.ReceiveStream:
        """The output of all processes in the tree."""
        assert self._process.stdout is not None
        return self._process.stdout

    @property
    def stderr(self) -> trio.abc.ReceiveStream:
        """The error output of all processes in the tree; only if started with ``stderr=subprocess.PIPE``."""
        assert self._process.stderr is not None
        return self._process.stderr

    @property
    def exit_code(self) -> int | None:
        """The leader's exit code, negative for a signal; ``None`` while it runs. Reading this does not reap it."""
        if self._code is not None:
            return self._code
        if has_proc():
            try:
                status = os.waitid(os.P_PID, self._group, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:  # reaped elsewhere in this program
                return self._process.returncode
            if status is None:
                return None
            return status.si_status if status.si_code == os.CLD_EXITED else -status.si_status
        return self._process.returncode

    async def leader_exited(self) -> None:
        """Wait until the leader has exited.

        On Linux this does not reap the leader: until it is reaped, the kernel gives its id, which is also the id of its
        group, to no other process. Otherwise a signal to the group could hit an unrelated process.
        """
        if self.exit_code is not None:
            await trio.lowlevel.checkpoint()
            return
        if not has_proc():
            await self._process.wait()
            return
        descriptor = os.pidfd_open(self._group)
        try:
            await trio.lowlevel.wait_readable(descriptor)
        finally:
            trio.lowlevel.notify_closing(descriptor)
            os.close(descriptor)

    async def end(self, *, grace: float | None = None) -> int | None:
        """End all processes that are left. Takes at most the grace and some 20 s, and cannot be cancelled.

        Args:
          grace: seconds from SIGTERM to SIGKILL, instead of the value given at the start.

        Returns:
          The leader's exit code, negative for a signal; ``None`` if it survived SIGKILL for `KILL_SECONDS`.
        """
        with trio.CancelScope(shield=True):
            # A second caller must not reap the leader while the first still signals its group.
            async with self._ending:
                if not self._ended:
                    self._ended = True
                    if grace is None:
                        await self._end_all(self._grace, self._grace_after)
                    else:
                        await self._end_all(grace, grace)
                if self._code is None:
                    with trio.move_on_after(KILL_SECONDS):
                        self._code = await self._process.wait()
        return self._code

    async def aclose(self) -> None:
        """End all processes that are left, and close this program's ends of the pipes."""
        await self.end()
        with trio.CancelScope(shield=True):
            for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
                if pipe is not None:
                    await pipe.aclose()

    # ----------------------------------------------------------------------------- ending

    async def _end_all(self, grace: float, grace_after: float) -> None:
        exited = self.exit_code is not None
        if exited and await self._ended_by_themselves():
            return
        seconds = grace_after if exited else grace
        if seconds > 0 and await self._signal_all(signal.SIGTERM, seconds, grace_after):
            return
        await self._signal_all(SIGKILL, KILL_SECONDS, KILL_SECONDS)

    async def _ended_by_themselves(self) -> bool:
        deadline = trio.current_time() + LINGER_SECONDS
        while count := await self._count():
            if trio.current_time() >= deadline:
                self.leftovers = count
                return False
            await trio.sleep(0.01)
        return True

    async def _signal_all(self, number: int, seconds: float, seconds_after: float) -> bool:
        """Signal all live processes of the tree, and wait for their end.

        Returns:
          Whether all ended within ``seconds``, and within ``seconds_after`` of the leader's exit.
        """
        exited = self.exit_code is not None
        deadline, pause = trio.current_time() + seconds, 0.001
        self._signal_group(number)
        while await self._count(number):
            if number == SIGKILL:
                # The group at once: one by one, a process that keeps forking could stay ahead for ever.
                self._signal_group(number)
            if not exited and self.exit_code is not None:
                exited = True
                deadline = min(deadline, trio.current_time() + seconds_after)
            left = deadline - trio.current_time()
            if left <= 0:
                return False
            await trio.sleep(min(pause, left))
            pause = min(2 * pause, 0.05)
        return True

    def _signal_group(self, number: int) -> None:
        # macOS refuses for a group of zombies, and Windows for a process that is ending.
        with suppress(ProcessLookupError, PermissionError):
            if hasattr(os, "killpg"):
                os.killpg(self._group, number)
            else:
                self._process.send_signal(number)

    # ------------------------------------------------------------------------------ scanning

    async def _count(self, number: int = 0) -> int:
        """Count the live processes of the tree. Sends signal ``number`` to those outside the group, once each.

        Runs in a thread, since reading the environment of a process that hangs in the kernel may block for ever. A scan
        that blocks for `KILL_SECONDS` counts as one live process.
        """
        if has_proc():
            # Abandon the thread only when it hangs: otherwise it would have files open after the end of the block.
            with trio.move_on_after(KILL_SECONDS):
                return await trio.to_thread.run_sync(
                    self._scan_proc, number, abandon_on_cancel=True, limiter=self._scan_limiter
                )
            return 1
        await trio.lowlevel.checkpoint()
        # Without /proc a zombie counts as alive in its group, so the leader must be reaped here.
        if self._process.poll() is None:
            return 1
        if not hasattr(os, "killpg"):
            return 0
        try:
            os.killpg(self._group, 0)
        except (ProcessLookupError, PermissionError):
            return 0
        return 1

    def _scan_proc(self, number: int) -> int:
        scanned = ((int(name), self._member(int(name))) for name in os.listdir(PROC) if name.isdigit())  # noqa: PTH208
        members = {pid: in_group for pid, in_group in scanned if in_group is not None}
        for pid, in_group in members.items():
            if number and not in_group and self._signalled.get(pid) != number:
                self._signalled[pid] = number
                self._send(pid, number)
        return len(members)

    def _send(self, pid: int, number: int) -> None:
        # By descriptor: the process may have ended meanwhile, and another one got its id.
        with suppress(ProcessLookupError, PermissionError):
            descriptor = os.pidfd_open(pid)
            try:
                if self._member(pid) is not None:
                    signal.pidfd_send_signal(descriptor, number)
            finally:
                os.close(descriptor)

    def _member(self, pid: int) -> bool | None:
        """Whether ``pid`` is in the group; ``None`` if it is outside the tree, or dead."""
        try:
            # After the name, which may contain any character: state, parent, group, session, ..., threads, 0, start.
            fields = _read(f"{PROC}/{pid}/stat").rpartition(b")")[2].split()
            if int(fields[19]) < self._since:
                return None
            group, session = int(fields[2]), int(fields[3])
            in_session = self._group in (group, session)
            if fields[0] in b"ZX" and int(fields[17]) <= 1:
                if int(fields[1]) == os.getpid() and pid != self._group and (in_session or pid in self._signalled):
                    # Orphans become children of this process if it is the first one of a container.
                    os.waitpid(pid, os.WNOHANG)
                return None
            if in_session or self._has_mark(pid, fields):
                return group == self._group
        except (OSError, ValueError, IndexError):  # ended, or not readable by this user
            pass
        return None

    def _has_mark(self, pid: int, fields: list[bytes]) -> bool:
        environment = _read(f"{PROC}/{pid}/environ")
        process = (pid, fields[19])
        if environment or fields[1] == KERNEL_THREADS or process in self._bare:
            return self._mark in environment
        # In the middle of execve() the environment is empty, and a daemon would be taken for an unrelated process.
        for _ in range(EXEC_LOOKS):
            time.sleep(EXEC_SECONDS)
            environment = _read(f"{PROC}/{pid}/environ")
            if environment:
                return self._mark in environment
        self._bare.add(process)
        return False


def _start_of(pid: int) -> int:
    """The start of a process in clock ticks since boot; 0 if unknown."""
    try:
        return int(_read(f"{PROC}/{pid}/stat").rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0


def _read(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123  # twice as fast, and called for every process
        return file.read()


@cache
def has_proc() -> bool:
    """Whether this system shows its processes in ``/proc`` and has descriptors for them, as Linux does."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):  # not Linux, an old kernel, or a container that forbids it
        return False
    return (PROC / "self/stat").exists()


# --------------------------------------------------------------------------------- starting


class _Options(TypedDict, total=False):
    env: Required[Mapping[str, str]]
    """The complete environment."""
    grace: Required[float]
    """Seconds from SIGTERM to SIGKILL; 0 for SIGKILL at once."""
    grace_after: float
    """The same for descendants after the leader has exited; by default equal to ``grace``."""
    cwd: str | os.PathLike[str] | None
    """The folder to start in; by default the current one."""
    stdin: int
    """Empty by default; or ``subprocess.PIPE``."""
    stderr: int | IO[bytes]
    """By default the same pipe as the output; or ``subprocess.PIPE``, or a file."""
    pass_fds: Sequence[int]
    """File descriptors to inherit."""


async def start_process_tree(command: str | Sequence[str], **options: Unpack[_Options]) -> ProcessTree:
    """Start ``command``. The caller must call `ProcessTree.aclose`; prefer `open_process_tree`.

    A cancelled call has started nothing: there is no checkpoint between the start and the return.

    Args:
      command: the program and its arguments; or a line for the shell.
      **options: environment, files and grace; see `_Options`.

    Raises:
      OSError: the program cannot be started.
    """
    mark = secrets.token_hex(16)
    isolation: dict[str, Any] = {"start_new_session": True, "pass_fds": options.get("pass_fds", ())}
    if sys.platform == "win32":
        isolation = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}  # a Ctrl-C in the terminal does not reach it
    start: Callable[..., Any] = partial(
        trio.lowlevel.open_process,
        stdin=options.get("stdin", subprocess.DEVNULL),
        stdout=subprocess.PIPE,
        stderr=options.get("stderr", subprocess.STDOUT),
        shell=isinstance(command, str),
        cwd=options.get("cwd"),
        # A process of a nested agentloop belongs to the outer trees as well, so it carries their marks too.
        env={**options["env"], MARK: f"{os.environ.get(MARK, '')} {mark}".strip()},
        **isolation,
    )
    try:
        process: trio.Process = await start(command)
    except ValueError as error:  # a NUL, or a lone surrogate
        raise OSError(errno.EINVAL, f"not a possible command line: {error}") from error
    grace = options["grace"]
    return ProcessTree(process, mark, grace, options.get("grace_after", grace))


@asynccontextmanager
async def open_process_tree(command: str | Sequence[str], **options: Unpack[_Options]) -> AsyncGenerator[ProcessTree]:
    """Start ``command``, as `start_process_tree` does, and end it and its descendants when the block ends.

    Raises:
      OSError: the program cannot be started.
    """
    tree = await start_process_tree(command, **options)
    # No checkpoint from the start to the `try`: a cancel would leave the program running.
    try:
        yield tree
    finally:
        await tree.aclose()  # noqa: ASYNC102  # shielded, and bounded in time


def signal_name(number: int) -> str:
    """The name of a signal, such as ``SIGTERM``, or its number if it has none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
