"""A process, and all that comes of it, as a block: when the block ends, none of them is left.

Whatever runs a program here does it this way: hooks, tools, local models, MCP servers.

A child gets a session of its own, so that its process group can be signalled as one, and a mark in its environment.
What is found at the end, by group, session or mark, is asked to end (SIGTERM), and after a grace made to (SIGKILL).
The mark is for what has left the session, a daemon: it is found by it in ``/proc``, where there is one (Linux). Two
kinds of processes escape: one that left the session *and* cleared its environment, or runs as another user (``sudo``);
and, where there is no ``/proc`` (macOS), one that left the group. On Windows only the leader itself is ended.
"""

from __future__ import annotations

import errno
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import IO, Any, Required, TypedDict, Unpack

import trio

__all__ = ["SIGKILL", "Family", "open_family", "signal_name", "start_family"]

KILL_SECONDS = 5.0
"""How long to wait for processes that were killed. One that sits in the kernel, on a dead network disk, may not end."""
LINGER_SECONDS = 0.1
"""How long what is left may take to end by itself once the leader has: last words of a pipeline may be on the way."""
PROC = Path("/proc")
MARK = "AGENTLOOP_CALL"
SIGKILL: int = getattr(signal, "SIGKILL", signal.SIGTERM)
"""Windows has only one way to end a process."""


class Family:
    """A running process, the leader, and what descends from it. Made by `open_family` and `start_family`."""

    __slots__ = (
        "_code",
        "_daemons",
        "_ended",
        "_ending",
        "_grace",
        "_grace_after",
        "_group",
        "_looking",
        "_mark",
        "_process",
        "_signalled",
        "_since",
        "leftovers",
    )

    def __init__(self, process: trio.Process, mark: str, daemons: bool, grace: float, grace_after: float) -> None:
        self._process = process
        self._group = process.pid
        self._mark = mark.encode()
        self._daemons = daemons
        self._grace = grace
        self._grace_after = grace_after
        self._signalled: dict[int, int] = {}
        """By process outside of the group, the signal it was sent last."""
        self._since = _start_of(process.pid)
        """No descendant is older than the leader: most processes need not be looked at closely."""
        self._looking = trio.CapacityLimiter(1)
        """Of our own: were all threads busy with something else, we would not even get to send a signal."""
        self._ending = trio.Lock()
        self._ended = False
        self._code: int | None = None
        """How the leader ended, once it is reaped."""
        self.leftovers = 0
        """How many processes outlived the leader, and had to be ended."""

    @property
    def pid(self) -> int:
        """Of the leader, and of the group."""
        return self._group

    @property
    def stdin(self) -> trio.abc.SendStream:
        """What the leader reads; only if it was started with a pipe there. As for `stdout` and `stderr`."""
        assert self._process.stdin is not None
        return self._process.stdin

    @property
    def stdout(self) -> trio.abc.ReceiveStream:
        """What all of them write."""
        assert self._process.stdout is not None
        return self._process.stdout

    @property
    def stderr(self) -> trio.abc.ReceiveStream:
        """What all of them write on their other output."""
        assert self._process.stderr is not None
        return self._process.stderr

    @property
    def exit_code(self) -> int | None:
        """The leader's exit code, negative for a signal; ``None`` while it runs. It is not reaped by looking."""
        if self._code is not None:
            return self._code
        if _has_proc():
            try:
                found = os.waitid(os.P_PID, self._group, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:  # somebody else has reaped it
                return self._process.returncode
            if found is None:
                return None
            return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status
        return self._process.returncode

    async def leader_exited(self) -> None:
        """Wait until the leader has exited.

        It is not reaped yet, where that can be helped: until it is, nobody else can get its number, which is that of
        its group too. A signal to the group would hit them.
        """
        if self.exit_code is not None:
            await trio.lowlevel.checkpoint()
            return
        if not _has_proc():
            await self._process.wait()
            return
        descriptor = os.pidfd_open(self._group)
        try:
            await trio.lowlevel.wait_readable(descriptor)
        finally:
            trio.lowlevel.notify_closing(descriptor)
            os.close(descriptor)

    async def end(self, *, grace: float | None = None) -> int | None:
        """End what is left. Whatever comes, this takes no longer than the grace and some 20 s; nothing cancels it.

        Args:
          grace: seconds from SIGTERM to SIGKILL, instead of those it was started with.

        Returns:
          The leader's exit code, negative for a signal; ``None`` if it would not end even so.
        """
        with trio.CancelScope(shield=True):
            # Who comes second must not reap the leader before the first is through with the group.
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
        """End what is left, and close our ends of the pipes."""
        await self.end()
        with trio.CancelScope(shield=True):
            for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
                if pipe is not None:
                    await pipe.aclose()

    # ----------------------------------------------------------------------------- ending

    async def _end_all(self, grace: float, grace_after: float) -> None:
        exited = self.exit_code is not None
        if exited and await self._gone_by_itself():
            return
        seconds = grace_after if exited else grace
        if seconds > 0 and await self._signal_all(signal.SIGTERM, seconds, grace_after):
            return
        await self._signal_all(SIGKILL, KILL_SECONDS, KILL_SECONDS)

    async def _gone_by_itself(self) -> bool:
        deadline = trio.current_time() + LINGER_SECONDS
        while count := await self._look():
            if trio.current_time() >= deadline:
                self.leftovers = count
                return False
            await trio.sleep(0.01)
        return True

    async def _signal_all(self, number: int, seconds: float, seconds_after: float) -> bool:
        """Signal all that there are.

        Returns:
          Whether they are gone, within ``seconds``, and within ``seconds_after`` of the leader's exit.
        """
        exited = self.exit_code is not None
        deadline, pause = trio.current_time() + seconds, 0.001
        self._signal_group(number)
        while await self._look(number):
            if number == SIGKILL:
                # The group at once: one by one, a process that forks could be ahead of us for ever.
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
        # macOS refuses where there are only zombies; Windows, where it is ending.
        with suppress(ProcessLookupError, PermissionError):
            if hasattr(os, "killpg"):
                os.killpg(self._group, number)
            else:
                self._process.send_signal(number)

    # ------------------------------------------------------------------------------ finding

    async def _look(self, number: int = 0) -> int:
        """How many live. To those outside of the group ``number`` is sent, once.

        In a thread, since a process's environment can be slow to read: of one that hangs in the kernel, for ever. What
        cannot be seen for that long is taken to live.
        """
        if _has_proc():
            # It is left to itself only if it hangs: else it would have files open when we say that all is over.
            with trio.move_on_after(KILL_SECONDS):
                return await trio.to_thread.run_sync(
                    self._look_in_proc, number, abandon_on_cancel=True, limiter=self._looking
                )
            return 1
        await trio.lowlevel.checkpoint()
        # A zombie, too, stands for its group: here it has to be reaped, or we would wait for it.
        if self._process.poll() is None:
            return 1
        if not hasattr(os, "killpg"):
            return 0
        try:
            os.killpg(self._group, 0)
        except (ProcessLookupError, PermissionError):
            return 0
        return 1

    def _look_in_proc(self, number: int) -> int:
        found = ((int(name), self._member(int(name))) for name in os.listdir(PROC) if name.isdigit())  # noqa: PTH208
        members = {pid: in_group for pid, in_group in found if in_group is not None}
        for pid, in_group in members.items():
            if number and not in_group and self._signalled.get(pid) != number:
                self._signalled[pid] = number
                self._send(pid, number)
        return len(members)

    def _send(self, pid: int, number: int) -> None:
        # By descriptor: the process may have ended meanwhile, and its number be another's.
        with suppress(ProcessLookupError, PermissionError):
            descriptor = os.pidfd_open(pid)
            try:
                if self._member(pid) is not None:
                    signal.pidfd_send_signal(descriptor, number)
            finally:
                os.close(descriptor)

    def _member(self, pid: int) -> bool | None:
        """Whether ``pid`` is in the group; ``None`` if it is none of ours, or dead."""
        try:
            # After the name, which may hold anything: state, parent, group, session, ..., number of threads, 0, start.
            fields = _read(f"{PROC}/{pid}/stat").rpartition(b")")[2].split()
            if int(fields[19]) < self._since:
                return None
            group, session = int(fields[2]), int(fields[3])
            ours = self._group in (group, session)
            if fields[0] in b"ZX" and int(fields[17]) <= 1:
                if int(fields[1]) == os.getpid() and pid != self._group and (ours or pid in self._signalled):
                    # We are what takes care of orphans here, as the first process of a container is.
                    os.waitpid(pid, os.WNOHANG)
                return None
            if ours or (self._daemons and self._mark in _read(f"{PROC}/{pid}/environ")):
                return group == self._group
        except (OSError, ValueError, IndexError):  # gone, or not ours to read
            pass
        return None


def _start_of(pid: int) -> int:
    """When a process was started, in ticks of the system; 0 if that is not known."""
    try:
        return int(_read(f"{PROC}/{pid}/stat").rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0


def _read(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123  # there are many, and it is twice as fast
        return file.read()


@cache
def _has_proc() -> bool:
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):  # another system, or an old kernel, or a container that forbids it
        return False
    return (PROC / "self/stat").exists()


# --------------------------------------------------------------------------------- starting


class _Options(TypedDict, total=False):
    env: Required[Mapping[str, str]]
    """All of its environment."""
    grace: Required[float]
    """Seconds from SIGTERM to SIGKILL; 0 for SIGKILL at once."""
    grace_after: float
    """The same for what is left once the leader has exited; by default as many."""
    cwd: str | os.PathLike[str] | None
    """The folder it starts in; that of this process by default."""
    stdin: int
    """Nothing to read by default; or ``subprocess.PIPE``."""
    stderr: int | IO[bytes]
    """Where it writes its errors: by default with all else; or ``subprocess.PIPE``, or a file."""
    pass_fds: Sequence[int]
    """Open files that it inherits."""
    daemons: bool
    """Whether what leaves the session is part of the family too; it is by default."""


async def start_family(command: str | Sequence[str], **options: Unpack[_Options]) -> Family:
    """Start ``command``. Whoever does must see to its end, by `Family.aclose`; better use `open_family`.

    If this is cancelled, nothing was started. There is no checkpoint between the start and the return.

    Args:
      command: the program and its arguments; or a line for the shell.
      options: what it finds, and how it is ended.

    Raises:
      OSError: it cannot be started.
    """
    mark = secrets.token_hex(16)
    apart: dict[str, Any] = {"start_new_session": True, "pass_fds": options.get("pass_fds", ())}
    if sys.platform == "win32":
        apart = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}  # Ctrl-C in a terminal is not for it
    start: Callable[..., Any] = partial(
        trio.lowlevel.open_process,
        stdin=options.get("stdin", subprocess.DEVNULL),
        stdout=subprocess.PIPE,
        stderr=options.get("stderr", subprocess.STDOUT),
        shell=isinstance(command, str),
        cwd=options.get("cwd"),
        # Where we ourselves descend from such a process, what we start does too.
        env={**options["env"], MARK: f"{os.environ.get(MARK, '')} {mark}".strip()},
        **apart,
    )
    try:
        process: trio.Process = await start(command)
    except ValueError as error:  # a NUL, or half of a character
        raise OSError(errno.EINVAL, f"no command line can have that: {error}") from error
    grace = options["grace"]
    return Family(process, mark, options.get("daemons", True), grace, options.get("grace_after", grace))


@asynccontextmanager
async def open_family(command: str | Sequence[str], **options: Unpack[_Options]) -> AsyncGenerator[Family]:
    """Start ``command``, as `start_family` does, and end it and all that comes of it when the block ends.

    Raises:
      OSError: it cannot be started.
    """
    family = await start_family(command, **options)
    # No checkpoint from the start to the `try`: a cancel would leave the program running.
    try:
        yield family
    finally:
        await family.aclose()  # noqa: ASYNC102  # it is shielded, and bounded


def signal_name(number: int) -> str:
    """Such as ``SIGTERM``, or its number where it has no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
