"""The state of a folder's files at a moment, kept so that any of them can be read again.

A *tree* is the list of a folder's files, each with its mode and the id of its content; its own id is that of this list.
There are two places that keep trees. `GitTrees` has a repository of its own, which nothing but this module writes to,
and takes the objects that the folder's repository has already from there. `CopiedTrees` copies each file under the hash
of its content. Both write beside the folder, and never into it.

Plain functions of threads: they look for a cancel between two files, and between two commands of git.
"""

# pathlib knows no folders that are open:
# ruff: noqa: PTH123

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import stat
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import ClassVar, NamedTuple, Protocol

import trio

from agentloop.errors import ToolError

__all__ = ["CopiedTrees", "Entry", "GitTrees", "Trees", "find_repository"]

GIT_SECONDS = 120.0
"""Seconds that one command of git may take."""
LOOK_SECONDS = 0.1
"""Seconds between two looks for a cancel, while a command of git runs."""
RACY_NS = 2_000_000_000
"""A file that changed so shortly before it was read may change again at the same time: FAT has steps of two seconds."""
DEPTH = 64
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
FILE = os.O_RDONLY | _NO_FOLLOW | getattr(os, "O_NONBLOCK", 0)

# What the user's configuration says about files (line ends, filters, a monitor of the file system) would change their
# bytes, or run programs.
_CONFIG = {
    "core.attributesFile": os.devnull,
    "core.autocrlf": "false",
    "core.excludesFile": os.devnull,
    "core.fileMode": "true",
    "core.fsmonitor": "false",
    "core.hooksPath": os.devnull,
    "core.ignoreCase": "false",
    "core.precomposeUnicode": "false",
    "core.safecrlf": "false",
    "core.splitIndex": "false",
    "core.symlinks": "true",
    "core.untrackedCache": "false",
    "gc.auto": "0",
}
_ATTRIBUTES = "* -text -eol -filter -ident -working-tree-encoding\n"


class Entry(NamedTuple):
    """A file of a tree."""

    mode: int
    """The kind and the permissions, as in `os.stat_result.st_mode`: an ordinary file or a link."""
    id: str
    """The id of its content; that of a link is its target."""


class Trees(Protocol):
    """A place that keeps trees of one folder."""

    def capture(self) -> str:
        """Keep the folder's files as they are now, and return the id of their tree."""
        ...

    def changed(self, before: str, after: str) -> Mapping[str, tuple[Entry | None, Entry | None]]:
        """The paths that differ between two trees, relative to the folder, each with its entries."""
        ...

    def contents(self, ids: Iterable[str]) -> Mapping[str, bytes]:
        """The contents with these ids."""
        ...


# ------------------------------------------------------------------------------------ git


class Repository(NamedTuple):
    """The repository that a folder belongs to."""

    top: str
    """The folder of its working tree."""
    objects: str
    """The folder of its objects."""
    excluded: str
    """The file of patterns that only this clone ignores; it may be missing."""
    format: str
    """The hash of its ids."""


def find_repository(folder: str) -> Repository | None:
    """The repository that ``folder`` belongs to; ``None`` if there is none, or no git that reads it."""
    asked = ("--show-toplevel", "--git-path", "objects", "--git-path", "info/exclude", "--show-object-format")
    try:
        found = _run(["git", "-C", folder, "rev-parse", *asked], {}, folder)
        top, objects, excluded, format = os.fsdecode(found).removesuffix("\n").split("\n")
    except (ToolError, ValueError):  # no repository, or one with a line end in its path
        return None
    return Repository(top, os.path.join(folder, objects), os.path.join(folder, excluded), format)  # noqa: PTH118


class GitTrees:
    """Keeps trees in a git repository of its own, in the folder ``home``."""

    @staticmethod
    def name_for(repository: Repository) -> str:
        """The name of this place. Trees are those of a whole repository, so each repository has its own."""
        return f"git-{hashlib.sha256(os.fsencode(repository.top)).hexdigest()[:8]}"

    def __init__(self, folder: str, home: Path, repository: Repository, max_bytes: int) -> None:
        self._folder = folder
        self._home = home
        self._repository = repository
        self._max_bytes = max_bytes

    def _git(self, *arguments: str, given: bytes = b"") -> bytes:
        settings = [part for name, value in _CONFIG.items() for part in ("-c", f"{name}={value}")]
        where = {"GIT_DIR": str(self._home), "GIT_WORK_TREE": self._repository.top}
        return _run(["git", *settings, *arguments], where, self._folder, given)

    def _begin(self) -> None:
        if (self._home / "ready").exists():
            return
        # A beginning that was cut off is begun again.
        shutil.rmtree(self._home, ignore_errors=True)
        self._home.mkdir(parents=True)
        self._git("init", "--quiet", "--template=", f"--object-format={self._repository.format}")
        info = self._home / "info"
        info.mkdir(exist_ok=True)
        (info / "attributes").write_text(_ATTRIBUTES, encoding="utf-8")
        # What the folder's repository has already is not copied.
        alternates = self._home / "objects" / "info" / "alternates"
        alternates.parent.mkdir(exist_ok=True)
        alternates.write_bytes(os.fsencode(self._repository.objects) + b"\n")
        with suppress(ToolError):  # a repository without a commit
            head = _run(["git", "-C", self._folder, "rev-parse", "--verify", "HEAD^{tree}"], {}, self._folder)
            # So that files which are ignored, and committed all the same, belong to the tree.
            self._git("read-tree", head.decode().strip())
        (self._home / "ready").touch()

    def capture(self) -> str:
        """Keep the folder's files as they are now, and return the id of their tree."""
        self._begin()
        for lock in self._home.glob("index.lock"):
            # Of a capture whose process was killed: no other one runs, since the caller has the lock on this folder.
            lock.unlink()
        standard = ["--exclude-standard"]
        if os.path.isfile(self._repository.excluded):  # noqa: PTH113
            standard.append(f"--exclude-from={self._repository.excluded}")
        listed = self._git("ls-files", "-z", "--others", "--modified", "--deleted", *standard, "--", ".")
        paths = dict.fromkeys(filter(None, listed.split(b"\0")))
        kept = {path for path in paths if self._is_kept(path)}
        # What is too large, or unreadable, is left out as what is gone is: an older content must not stand in for it.
        self._update("--remove", "--force-remove", [path for path in paths if path not in kept])
        self._update("--add", "--replace", [path for path in paths if path in kept])
        return self._git("write-tree").decode().strip()

    def _update(self, first: str, second: str, paths: Sequence[bytes]) -> None:
        if paths:
            self._git("update-index", first, second, "-z", "--stdin", given=b"".join(path + b"\0" for path in paths))

    def _is_kept(self, path: bytes) -> bool:
        """Whether there is a file that belongs to the tree, without a link on the way to it."""
        folder = os.fsencode(self._folder)
        *above, _ = path.split(b"/")
        try:
            for count in range(1, len(above) + 1):
                if not stat.S_ISDIR(os.lstat(os.path.join(folder, *above[:count])).st_mode):  # noqa: PTH118
                    return False
            path = os.path.join(folder, path)  # noqa: PTH118
            status = os.lstat(path)
        except OSError:
            return False
        if stat.S_ISLNK(status.st_mode):
            return True
        # A folder is another repository inside of this one.
        return stat.S_ISREG(status.st_mode) and status.st_size <= self._max_bytes and os.access(path, os.R_OK)

    def changed(self, before: str, after: str) -> Mapping[str, tuple[Entry | None, Entry | None]]:
        """The paths that differ between two trees, relative to the folder, each with its entries."""
        arguments = ("diff-tree", "-r", "-z", "--no-renames", "--no-abbrev", "--relative", before, after, "--", ".")
        fields = self._git(*arguments).split(b"\0")
        changes: dict[str, tuple[Entry | None, Entry | None]] = {}
        for facts, path in zip(fields[0::2], fields[1::2], strict=False):
            old_mode, new_mode, old_id, new_id, _ = facts.decode().removeprefix(":").split(" ")
            changes[os.fsdecode(path)] = (_git_entry(old_mode, old_id), _git_entry(new_mode, new_id))
        return changes

    def contents(self, ids: Iterable[str]) -> Mapping[str, bytes]:
        """The contents with these ids."""
        wanted = list(dict.fromkeys(ids))
        if not wanted:
            return {}
        answer = self._git("cat-file", "--batch", given="".join(f"{id}\n" for id in wanted).encode())
        contents: dict[str, bytes] = {}
        at = 0
        for id in wanted:
            end = answer.index(b"\n", at)
            head = answer[at:end].decode().split(" ")
            if head[1:2] != ["blob"]:
                raise ToolError(f"the content {id} is gone: git removed it from {self._repository.objects!r}")
            at = end + 1 + int(head[2]) + 1
            contents[id] = answer[end + 1 : at - 1]
        return contents


def _git_entry(mode: str, id: str) -> Entry | None:
    number = int(mode, 8)
    # Neither a missing one nor the commit of a repository inside of this one.
    return Entry(number, id) if stat.S_IFMT(number) in (stat.S_IFREG, stat.S_IFLNK) else None


def _run(command: Sequence[str], variables: Mapping[str, str], folder: str, given: bytes = b"") -> bytes:
    """The output of a command of git.

    Raises:
      ToolError: there is no git, or it failed.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C",
        **variables,
    }
    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdin=pipe, stdout=pipe, stderr=pipe)  # noqa: S603
    except OSError as error:
        raise ToolError(f"git cannot be started: {error.strerror or error}") from error
    began = time.monotonic()
    output = problem = b""
    to_send: bytes | None = given
    try:
        while process.returncode is None:
            try:
                output, problem = process.communicate(to_send, timeout=LOOK_SECONDS)
            except subprocess.TimeoutExpired:
                to_send = None  # the next call goes on with it
                trio.from_thread.check_cancelled()
                if time.monotonic() - began > GIT_SECONDS:
                    raise ToolError(f"git took longer than {GIT_SECONDS:.0f} seconds in {folder!r}") from None
    except BaseException:
        process.kill()
        process.communicate()
        raise
    trio.from_thread.check_cancelled()
    if process.returncode:
        raise ToolError(f"git failed in {folder!r}: {problem.decode('utf-8', 'replace').strip()[:500]}")
    return output


# --------------------------------------------------------------------------------- copies


class CopiedTrees:
    """Keeps copies of files in the folder ``home``, each content once."""

    name: ClassVar[str] = "copies"
    """The name of this place."""

    def __init__(self, folder: str, home: Path, ignore: Sequence[str], max_bytes: int) -> None:
        self._folder = folder
        self._home = home
        self._ignore = ignore
        self._max_bytes = max_bytes
        self._known: dict[str, tuple[tuple[int, ...], str]] = {}
        """By path: the facts about a file that was read, and the id of its content."""

    def capture(self) -> str:
        """Keep the folder's files as they are now, and return the id of their tree."""
        entries: dict[str, Entry] = {}
        folder = os.open(self._folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
        try:
            self._collect(folder, "", entries, DEPTH)
        finally:
            os.close(folder)
        self._known = {path: known for path, known in self._known.items() if path in entries}
        # Escaped, since a name may not be UTF-8.
        return self._keep(json.dumps(sorted(entries.items()), separators=(",", ":")).encode("ascii"))

    def _collect(self, folder: int, above: str, entries: dict[str, Entry], depth: int) -> None:
        # One folder after another, by descriptor: a folder that is swapped for a link is not followed.
        with os.scandir(folder) as found:
            names = sorted(entry.name for entry in found)
        for name in names:
            trio.from_thread.check_cancelled()
            if any(fnmatchcase(name, glob) for glob in self._ignore):
                continue
            path = above + name
            with suppress(FileNotFoundError, PermissionError, NotADirectoryError):
                status = os.stat(name, dir_fd=folder, follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode) and depth:
                    inner = os.open(name, FILE | getattr(os, "O_DIRECTORY", 0), dir_fd=folder)
                    try:
                        self._collect(inner, f"{path}/", entries, depth - 1)
                    finally:
                        os.close(inner)
                elif stat.S_ISLNK(status.st_mode):
                    target = os.fsencode(os.readlink(name, dir_fd=folder))
                    entries[path] = Entry(status.st_mode, self._keep(target))
                elif stat.S_ISREG(status.st_mode) and status.st_size <= self._max_bytes:
                    content = self._content(path, name, folder, status)
                    if content is not None:
                        entries[path] = Entry(status.st_mode, content)

    def _content(self, path: str, name: str, folder: int, status: os.stat_result) -> str | None:
        """The id of a file's content; ``None`` if it has become too large."""
        facts = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        known = self._known.get(path)
        if known is not None and known[0] == facts:
            return known[1]
        now = time.time_ns()
        with open(os.open(name, FILE, dir_fd=folder), "rb") as file:
            content = file.read(self._max_bytes + 1)
        if len(content) > self._max_bytes:
            return None
        id = self._keep(content)
        if now - status.st_ctime_ns > RACY_NS:
            self._known[path] = (facts, id)
        return id

    def _keep(self, content: bytes) -> str:
        id = hashlib.sha256(content).hexdigest()
        kept = self._home / id[:2] / id[2:]
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            # Under another name first: what has its name is whole.
            temporary = kept.parent / f".{secrets.token_hex(8)}.tmp"
            try:
                temporary.write_bytes(content)
                temporary.replace(kept)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
        return id

    def _read(self, id: str) -> bytes:
        try:
            return (self._home / id[:2] / id[2:]).read_bytes()
        except FileNotFoundError:
            raise ToolError(f"the content {id} is gone from {str(self._home)!r}") from None

    def _entries(self, tree: str) -> dict[str, Entry]:
        return {path: Entry(*entry) for path, entry in json.loads(self._read(tree))}

    def changed(self, before: str, after: str) -> Mapping[str, tuple[Entry | None, Entry | None]]:
        """The paths that differ between two trees, relative to the folder, each with its entries."""
        if before == after:
            return {}
        old, new = self._entries(before), self._entries(after)
        paths = sorted(old.keys() | new.keys())
        return {path: (old.get(path), new.get(path)) for path in paths if old.get(path) != new.get(path)}

    def contents(self, ids: Iterable[str]) -> Mapping[str, bytes]:
        """The contents with these ids."""
        return {id: self._read(id) for id in ids}
