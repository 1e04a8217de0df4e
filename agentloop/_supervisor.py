"""Start one command, and end all its descendants. A program of its own, which `_supervised` runs on Linux.

It is a subreaper: a descendant whose parent ends becomes a child of this program, whatever it has done to its session,
its environment or its title. So none can escape, neither a daemon nor a process that forks and exits again and again.

The first argument is the descriptor of a socket. From it come the request, then orders of one letter: ``T`` sends
SIGTERM to each descendant, ``K`` kills them all, and so does the end of the socket, when the program at the other end
has died. Onto it go lines: ``E`` and a wait status when the command has exited; ``L`` and the number of live
descendants, in reply to the first order; ``D`` when no descendant is left, which ends this program. The second argument
is the descriptor of a pipe, which is closed when the command has started. If it cannot be, it gets the error number.

It imports few modules, and `ctypes` without its Python part, to start within some 15 ms.
"""

# ruff: noqa: PTH208

from __future__ import annotations

import _ctypes
import errno
import os
import select
import signal
import sys
from contextlib import suppress

MARK = "AGENTLOOP_CALL"
PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36
SIGNALS_TO_IGNORE = ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM")
"""A command like ``pkill python`` may send them to this program."""
SIGNALS_OF_PYTHON = ("SIGPIPE", "SIGXFSZ")
"""Python ignores them, and a command must not inherit that."""
ENDING_PAUSE_MS = 5
"""Milliseconds between two scans while the descendants end."""
NEXT_IDS = 6
"""How many process ids behind the one of a process that has exited may be those of its children."""


class Supervisor:
    """A command and its descendants."""

    def __init__(self, channel: int, starting: int) -> None:
        self._channel = channel
        self._starting = starting
        self._me = os.getpid()
        self._leader = 0
        self._order = b""
        self._asked: set[tuple[int, bytes]] = set()
        """The processes that got SIGTERM, by process id and start."""

    def run(self) -> None:
        """Read the request, start the command, and obey orders until no descendant is left."""
        request = self._read_request()
        if request is None:
            return
        wakes = self._wake_at_exits()
        self._start(*request)
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        poll.register(wakes, select.POLLIN)
        has_exited = False
        while True:
            # While the command runs, this program sleeps until an order comes or a child exits.
            pause = 0 if self._order == b"K" else ENDING_PAUSE_MS if has_exited or self._order else None
            ready = [descriptor for descriptor, _ in poll.poll(pause)]
            if wakes in ready:
                os.read(wakes, 4096)
            if self._channel in ready:
                self._take_order()
            is_done, exited = self._reap()
            has_exited = has_exited or exited
            if is_done:
                break
            if self._order == b"T":
                self._ask_to_end()
            elif self._order == b"K" and not self._kill():
                break
        self._report(b"D", 0)

    # ------------------------------------------------------------------------------- starting

    def _wake_at_exits(self) -> int:
        """A descriptor that becomes readable when a child exits."""
        wakes, wake = os.pipe()
        for descriptor in (wakes, wake):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        # Without a handler, the signal is ignored and wakes nothing.
        signal.signal(signal.SIGCHLD, _do_nothing)
        return wakes

    def _read_request(self) -> tuple[list[bytes], dict[bytes, bytes]] | None:
        """The arguments and the environment of the command; ``None`` if the program at the other end has died."""
        data = b""
        while len(data) < 16 or len(data) < 16 + int(data[:16]):
            piece = os.read(self._channel, 1 << 16)
            if not piece:
                return None
            data += piece
        count, *parts = data[16:].split(b"\0")
        arguments, variables = parts[: int(count)], parts[int(count) :]
        environment = dict(zip(variables[::2], variables[1::2], strict=True))
        environment[MARK.encode()] = os.environb[MARK.encode()]
        return arguments, environment

    def _start(self, arguments: list[bytes], environment: dict[bytes, bytes]) -> None:
        os.set_inheritable(self._channel, False)
        os.set_inheritable(self._starting, False)
        # Before the command can send any.
        for name in SIGNALS_TO_IGNORE:
            signal.signal(getattr(signal, name), signal.SIG_IGN)
        waiting, closed = os.pipe()
        self._leader = os.fork()
        if not self._leader:
            number = errno.EIO
            try:
                os.setsid()
                for name in (*SIGNALS_TO_IGNORE, *SIGNALS_OF_PYTHON):
                    signal.signal(getattr(signal, name), signal.SIG_DFL)
                # Until this program has closed its end of the pipe: the command might stop it before it can.
                os.close(closed)
                os.read(waiting, 1)
                number = _execute(arguments, environment)
            finally:
                os.write(self._starting, b"%d" % number)
                os._exit(126)
        for descriptor in (self._starting, closed, waiting):
            os.close(descriptor)
        # The output ends when no descendant has it open any more.
        nothing = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nothing, descriptor)

    # ---------------------------------------------------------------------------------- ending

    def _take_order(self) -> None:
        orders = os.read(self._channel, 64)
        if not self._order:
            self._report(b"L", len(self._descendants()))
        self._order = orders[-1:] or b"K"

    def _report(self, kind: bytes, number: int) -> None:
        try:
            os.write(self._channel, b"%s%d\n" % (kind, number))
        except OSError:  # the program at the other end has died
            self._order = b"K"

    def _reap(self) -> tuple[bool, bool]:
        """Reap the children that have exited. Returns whether none is left, and whether the command was among them."""
        exited = False
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return True, exited
            if not pid:
                return False, exited
            if pid == self._leader:
                exited = True
                self._report(b"E", status)
            if self._order == b"K":
                # A process that forks and exits again and again is gone before any scan finds it. Its child is ours
                # by now, and its id is one of the next.
                for number in range(pid + 1, pid + 1 + NEXT_IDS):
                    if self._parent_of(number) == self._me:
                        self._send(number, signal.SIGKILL)

    def _ask_to_end(self) -> None:
        for pid, start in self._descendants():
            if (pid, start) not in self._asked:
                self._asked.add((pid, start))
                self._send_to_descendant(pid, start, signal.SIGTERM)

    def _kill(self) -> bool:
        """Kill all descendants. Returns whether this program may kill any of them."""
        found = self._descendants()
        killed = sum(self._send_to_descendant(pid, start, signal.SIGKILL) for pid, start in found)
        # One of another user (`sudo`) cannot be killed, and is not waited for.
        return not found or killed > 0

    def _send_to_descendant(self, pid: int, start: bytes, number: int) -> bool:
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:
            return True
        try:
            # Otherwise the process may have ended, and another one got its id.
            if self._fields(pid)[1:] == [start]:
                signal.pidfd_send_signal(descriptor, number)
        except OSError as error:
            return not isinstance(error, PermissionError)
        finally:
            os.close(descriptor)
        return True

    def _send(self, pid: int, number: int) -> None:
        with suppress(OSError):
            os.kill(pid, number)

    # ------------------------------------------------------------------------------- scanning

    def _descendants(self) -> list[tuple[int, bytes]]:
        """The live descendants, each with its start."""
        parents: dict[int, list[tuple[int, bytes]]] = {}
        for name in os.listdir("/proc"):
            if name.isdigit():
                found = self._fields(int(name))
                if found:
                    parents.setdefault(int(found[0]), []).append((int(name), found[1]))
        descendants: list[tuple[int, bytes]] = []
        todo = [self._me]
        while todo:
            children = parents.get(todo.pop(), [])
            descendants += children
            todo += [pid for pid, _ in children]
        return descendants

    def _parent_of(self, pid: int) -> int:
        fields = self._fields(pid)
        return int(fields[0]) if fields else 0

    def _fields(self, pid: int) -> list[bytes]:
        """The parent and the start of a process; empty if it has ended."""
        try:
            descriptor = os.open(f"/proc/{pid}/stat", os.O_RDONLY)
            try:
                # After the name, which may contain any character: state, parent, ..., threads, 0, start.
                fields = os.read(descriptor, 4096).rpartition(b")")[2].split()
            finally:
                os.close(descriptor)
            if fields[0] in b"ZX" and int(fields[17]) <= 1:
                return []
            return [fields[1], fields[19]]
        except (OSError, IndexError):
            return []


def _execute(arguments: list[bytes], environment: dict[bytes, bytes]) -> int:
    """Replace this program by another one, found on the ``PATH`` of its environment. Returns the error number."""
    # Not `os.execvpe`: it imports modules, and ignores why a program that is there cannot be run.
    program, number = arguments[0], errno.ENOENT
    folders = [b""] if b"/" in program else environment.get(b"PATH", os.defpath.encode()).split(b":")
    for folder in folders:
        try:
            os.execve(os.path.join(folder, program), arguments, environment)  # noqa: S606, PTH118
        except OSError as error:
            if number == errno.ENOENT and error.errno not in (None, errno.ENOTDIR):
                number = error.errno
    return number


def _do_nothing(number: int, frame: object) -> None:
    """Handle a signal."""


def _become_subreaper() -> None:
    prctl = _ctypes.dlsym(_ctypes.dlopen("", 0), "prctl")
    _ctypes.call_cdeclfunction(prctl, (PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
    # Not "python3": commands like `pkill python3` mean other programs.
    _ctypes.call_cdeclfunction(prctl, (PR_SET_NAME, b"agentloop-super", 0, 0, 0))


if __name__ == "__main__":
    _become_subreaper()
    Supervisor(int(sys.argv[1]), int(sys.argv[2])).run()
