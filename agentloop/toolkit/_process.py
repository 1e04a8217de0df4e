"""A process, and all that comes of it, as a block: when the block ends, none of them is left.

A child gets a session of its own, so that its process group can be signalled as one, and a mark in its environment.
What is found at the end, by group, session or mark, is asked to end (SIGTERM), and after a grace made to (SIGKILL).
The mark is for what has left the session, a daemon: it is found by it in ``/proc``, where there is one (Linux). Two
kinds of processes escape: one that left the session *and* cleared its environment, or runs as another user (``sudo``);
and, where there is no ``/proc`` (macOS), one that left the group.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import trio

__all__ = ["Family", "open_family"]

KILL_SECONDS = 5.0
"""How long to wait for processes that were killed. One that sits in the kernel, on a dead network disk, may not end."""
LINGER_SECONDS = 0.1
"""How long what is left may take to end by itself once the leader has: last words of a pipeline may be on the way."""
PROC = Path("/proc")
MARK = "AGENTLOOP_CALL"


class Family:
    """A running process, the leader, and what descends from it. Made by `open_family`."""

    __slots__ = (
        "_ended",
        "_exited",
        "_grace",
        "_group",
        "_mark",
        "_process",
        "_signalled",
        "_since",
        "leftovers",
        "stdout",
    )

    def __init__(self, process: trio.Process, mark: str, grace: float) -> None:
        assert process.stdout is not None
        self._process = process
        self._group = process.pid
        self._mark = mark.encode()
        self._grace = grace
        self._signalled: dict[int, int] = {}
        """By process, the signal it was sent last."""
        self._since = _start_of(process.pid)
        """No descendant is older than the leader: most processes need not be looked at closely."""
        self._exited = False
        self._ended = False
        self.stdout = process.stdout
        """What all of them write, on either output."""
        self.leftovers = 0
        """How many processes were still there when the family was ended."""

    async def leader_exited(self) -> None:
        """Wait until the leader has exited.

        It is not reaped yet, where that can be helped: until it is, nobody else can get its number, which is that of
        its group too. A signal to the group would hit them.
        """
        if not _has_proc():
            await self._process.wait()
            self._exited = True
            return
        descriptor = os.pidfd_open(self._group)
        try:
            await trio.lowlevel.wait_readable(descriptor)
        finally:
            trio.lowlevel.notify_closing(descriptor)
            os.close(descriptor)
        self._exited = True

    async def end(self) -> int | None:
        """End what is left.

        Returns:
          The leader's exit code, negative for a signal; ``None`` if it would not end even so.
        """
        with trio.CancelScope(shield=True):
            if not self._ended:
                self._ended = True
                await self._end_all()
            with trio.move_on_after(KILL_SECONDS):
                return await self._process.wait()
        return None

    async def _end_all(self) -> None:
        if self._exited and await self._gone_by_itself():
            return
        self.leftovers = len(await trio.to_thread.run_sync(self._members))
        stages = [(signal.SIGKILL, KILL_SECONDS)]
        if self._grace > 0:
            stages.insert(0, (signal.SIGTERM, self._grace))
        for number, seconds in stages:
            with trio.move_on_after(seconds):
                pause, first = 0.001, True
                while await trio.to_thread.run_sync(self._signal, number, first):
                    first = False
                    await trio.sleep(pause)
                    pause = min(2 * pause, 0.05)
                return

    async def _gone_by_itself(self) -> bool:
        with trio.move_on_after(LINGER_SECONDS):
            while await trio.to_thread.run_sync(self._members):  # noqa: ASYNC110  # nobody tells us
                await trio.sleep(0.01)
            return True
        return False

    def _signal(self, number: int, first: bool) -> bool:
        """Signal the members. Returns whether there were any."""
        if first or number == signal.SIGKILL:
            # The group at once: one by one, a process that forks could be ahead of us for ever.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._group, number)
        members = self._members()
        for pid, in_group in members.items():
            if not in_group and self._signalled.get(pid) != number:
                self._signalled[pid] = number
                self._send(pid, number)
        return bool(members)

    def _send(self, pid: int, number: int) -> None:
        # By descriptor: the process may have ended meanwhile, and its number be another's.
        with suppress(ProcessLookupError, PermissionError):
            descriptor = os.pidfd_open(pid)
            try:
                if self._member(pid) is not None:
                    signal.pidfd_send_signal(descriptor, number)
            finally:
                os.close(descriptor)

    def _members(self) -> dict[int, bool]:
        """The processes that live, each with whether it is in the group."""
        if not _has_proc():
            try:
                os.killpg(self._group, 0)
            except (ProcessLookupError, PermissionError):  # macOS refuses where there are only zombies
                return {}
            return {self._group: True}
        found = ((int(name), self._member(int(name))) for name in os.listdir(PROC) if name.isdigit())  # noqa: PTH208
        return {pid: in_group for pid, in_group in found if in_group is not None}

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
            if ours or self._mark in _read(f"{PROC}/{pid}/environ"):
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


def _has_proc() -> bool:
    return hasattr(os, "pidfd_open") and (PROC / "self/stat").exists()


@asynccontextmanager
async def open_family(
    command: Sequence[str],
    *,
    cwd: str | os.PathLike[str],
    env: Mapping[str, str],
    grace: float,
    pass_fds: Sequence[int] = (),
) -> AsyncGenerator[Family]:
    """Start ``command``, with nothing to read, and end it and all that comes of it when the block ends.

    Args:
      command: the program and its arguments.
      cwd: the folder it starts in.
      env: all of its environment.
      grace: seconds from SIGTERM to SIGKILL; 0 for SIGKILL at once.
      pass_fds: open files that it inherits.

    Raises:
      OSError: it cannot be started.
    """
    mark = secrets.token_hex(16)
    process = await trio.lowlevel.open_process(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=cwd,
        # Where we ourselves descend from such a process, what we start does too.
        env={**env, MARK: f"{os.environ.get(MARK, '')} {mark}".strip()},
        start_new_session=True,
        pass_fds=pass_fds,
    )
    family = Family(process, mark, grace)
    try:
        yield family
    finally:
        await family.end()  # noqa: ASYNC102  # it is shielded, and bounded
        with trio.CancelScope(shield=True):
            await family.stdout.aclose()
