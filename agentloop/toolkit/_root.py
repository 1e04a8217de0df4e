"""A folder that paths cannot leave.

A path is walked here, one name at a time, each opened relative to the folder before it (``openat``) and never through
a symlink by the system: a link is read, and its target walked in the same way. So what was checked is what is used,
also when somebody swaps a folder for a link meanwhile. ``..`` goes back to the folder that was opened before, and
links may lead anywhere inside. What cannot be told is a hard link, or a mount: such a file *is* inside.

Where the system has no ``openat`` (Windows), a `Root` is refused.
"""

# pathlib knows no folders that are open:
# ruff: noqa: PTH100, PTH112, PTH117, PTH123

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
from collections import deque
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress

from agentloop.errors import ToolError, UsageError

__all__ = ["Root", "find_root", "identity"]

CONFINES = {os.open, os.stat, os.readlink, os.mkdir, os.rename, os.unlink} <= os.supports_dir_fd
"""Whether the system can open files relative to an open folder."""
MAX_LINKS = 40
"""As many as Linux follows."""
# Windows has none of these flags, and a `Root` is refused there.
_CLOEXEC = getattr(os, "O_CLOEXEC", 0)
FOLDER = os.O_RDONLY | _CLOEXEC | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)
# `O_NONBLOCK`: opening a FIFO would wait for a writer.
FILE = os.O_RDONLY | _CLOEXEC | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _CLOEXEC | getattr(os, "O_NOFOLLOW", 0)

_ESCAPE = re.compile(r"\\x([0189a-f][0-9a-f]|7f)")
"""A byte that is not UTF-8, or a control character, as listings spell it."""

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a link",
    stat.S_IFIFO: "a pipe (FIFO)",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_WORDS = {
    errno.ENOENT: "does not exist",
    errno.ENOTDIR: "goes through something that is not a folder",
    errno.ELOOP: "has too many links in it, or was changed meanwhile",
    errno.EACCES: "may not be accessed by this user",
    errno.EPERM: "may not be accessed by this user",
    errno.ENAMETOOLONG: "has a name that is too long",
}


class Root:
    """A folder, and access to the files in it.

    Args:
      path: the folder.
      inside: another root that holds the folder; ``path`` is relative to it, and looked up in it at each access.

    Raises:
      UsageError: it is no folder, or the system cannot confine paths.
    """

    __slots__ = ("_given", "_inside", "path")

    _given: str
    _inside: tuple[Root, str] | None
    path: str
    """As the system knows it, without links."""

    def __init__(self, path: str | os.PathLike[str], *, inside: Root | None = None) -> None:
        self._inside = None
        if inside is not None:
            path = os.fspath(path)
            self._inside = (inside, path)
            self._given = self.path = os.path.normpath(os.path.join(inside.path, path))  # noqa: PTH118
            return
        if not CONFINES:
            raise UsageError(
                "file_tools() needs a system that opens files relative to an open folder, as POSIX systems do: without "
                "that, paths cannot be confined to a folder, and this system cannot"
            )
        self._given = os.path.abspath(path)
        self.path = os.path.realpath(self._given)
        if not os.path.isdir(self.path):
            raise UsageError(f"{self._given!r} is no folder: make it first")

    def holds(self, path: str) -> bool:
        """Whether ``path`` is relative to this folder, or begins with it. It may escape all the same."""
        return not os.path.isabs(path) or self._relative(path) is not None

    def _relative(self, absolute: str) -> str | None:
        for prefix in (self.path, self._given):
            if absolute == prefix or absolute.startswith(prefix.rstrip("/") + "/"):
                return absolute[len(prefix) :]
        return None

    @contextmanager
    def place(self, path: str, *, make_folders: bool = False) -> Generator[tuple[int, str]]:
        """Where ``path`` is: an open folder, and the name in it, which may not be there yet, and is no link.

        Args:
          path: relative to the root, or absolute and in it.
          make_folders: make the folders that are missing on the way.

        Raises:
          ToolError: it leads out of the root, or through what is no folder. So is any `OSError` in the block.
        """
        with _as_tool_errors(path):
            path = self._without_tilde(path)
            opened = [self._open()]
            try:
                name = self._walk(path, opened, make_folders)
                yield opened[-1], name
            finally:
                for descriptor in opened:
                    os.close(descriptor)

    def _open(self) -> int:
        if self._inside is not None:
            root, path = self._inside
            return root.open_folder(path)
        return os.open(self.path, FOLDER & ~getattr(os, "O_NOFOLLOW", 0))

    def _without_tilde(self, path: str) -> str:
        """A folder called ``~`` would be removed by ``rm -rf ~`` one day, so no path makes one."""
        first = path.partition("/")[0]
        if not first.startswith("~") or os.path.lexists(os.path.join(self.path, first)):  # noqa: PTH118
            return path
        expanded = os.path.expanduser(path)  # noqa: PTH111
        if os.path.isabs(expanded) and self._relative(expanded) is not None:
            return expanded
        raise self._tilde(path)

    def _tilde(self, path: str) -> ToolError:
        return ToolError(f"{path!r} is not in {self.path}: give a path in there, relative to it and without '~'")

    def _walk(self, path: str, opened: list[int], make_folders: bool) -> str:
        """Open the folders that lead to ``path``, on top of the root. Returns its name in the last one."""
        todo = deque(self._parts(path, path))
        links = 0
        while todo:
            name = todo.popleft()
            if name in {"", "."}:
                continue
            if name == "..":
                if len(opened) == 1:
                    raise self._escape(path)
                os.close(opened.pop())
                continue
            try:
                name, mode = _look_up(name, opened[-1])
            except FileNotFoundError:
                if name == "~" and (make_folders or not todo):
                    raise self._tilde(path) from None
                if not todo:
                    return name
                if not make_folders:
                    raise
                os.mkdir(name, dir_fd=opened[-1])
                mode = stat.S_IFDIR
            if stat.S_ISLNK(mode):
                links += 1
                if links > MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                target = os.readlink(name, dir_fd=opened[-1])
                parts = self._parts(target, path)
                if os.path.isabs(target):
                    while len(opened) > 1:
                        os.close(opened.pop())
                todo.extendleft(reversed(parts))
            elif not todo:
                return name
            else:
                opened.append(os.open(name, FOLDER, dir_fd=opened[-1]))
        return "."

    def _parts(self, target: str, path: str) -> list[str]:
        if not os.path.isabs(target):
            return target.split("/")
        relative = self._relative(target)
        if relative is None:
            raise self._escape(path)
        return relative.split("/")

    def _escape(self, path: str) -> ToolError:
        # The link's target is not shown: it may lie outside.
        return ToolError(f"{path!r} is outside of {self.path}: give a path in there, relative to it")

    def is_there(self, path: str) -> bool:
        """Whether there is anything at ``path``.

        Raises:
          ToolError: it leads out of the root, or through something that is no folder.
        """
        try:
            with self.place(path) as (folder, name):
                os.stat(name, dir_fd=folder, follow_symlinks=False)
        except ToolError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return False
            raise
        return True

    def open_folder(self, path: str) -> int:
        """Open a folder. The descriptor is the caller's to close.

        Raises:
          ToolError: it is no folder, or not to be had.
        """
        with self.place(path) as (folder, name):
            _check_kind(path, os.stat(name, dir_fd=folder, follow_symlinks=False), stat.S_IFDIR)
            return os.open(name, FOLDER, dir_fd=folder)

    def read(self, path: str, max_bytes: int) -> tuple[bytes, os.stat_result]:
        """The bytes of a file, and its `os.stat_result`.

        Raises:
          ToolError: it is no ordinary file, is larger than ``max_bytes``, or cannot be read.
        """
        with self.place(path) as (folder, name):
            # Before it is opened, since opening a device may do something; and after, since it may be another by then.
            _check_kind(path, os.stat(name, dir_fd=folder, follow_symlinks=False), stat.S_IFREG)
            with open(os.open(name, FILE, dir_fd=folder), "rb") as file:
                status = os.fstat(file.fileno())
                _check_kind(path, status, stat.S_IFREG)
                # One byte more, because the file may grow meanwhile; some files, such as those of /proc, report no
                # size.
                data = b"" if status.st_size > max_bytes else file.read(max_bytes + 1)
                if status.st_size > max_bytes or len(data) > max_bytes:
                    size = max(status.st_size, len(data))
                    raise ToolError(
                        f"{path!r} is too large: {size} bytes, and at most {max_bytes} are read. "
                        "Take what you need of it with another tool"
                    )
                return data, status

    def write(self, path: str, data: bytes, *, unchanged: os.stat_result | None = None) -> os.stat_result:
        """Put ``data`` in a file: all of it or, if anything goes wrong, nothing. The file's owner and mode stay.

        A file that cannot be replaced (one that is mounted by itself), or whose owner this user cannot give to another
        file, is overwritten in place.

        Args:
          unchanged: the file as it was when it was read; it must be the same still.

        Returns:
          The `os.stat_result` of the file that is there now.

        Raises:
          ToolError: there is something else than an ordinary file, it may not be written, or has changed.
        """
        if path.endswith("/"):
            raise ToolError(f"{path!r} is the path of a folder, not of a file")
        with self.place(path, make_folders=True) as (folder, name):
            before: os.stat_result | None = None
            with suppress(FileNotFoundError):
                before = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if before is not None:
                _check_kind(path, before, stat.S_IFREG)
                if not before.st_mode & 0o222:
                    # Replacing it would only need the folder to be writable.
                    raise ToolError(f"{path!r} is read-only")
            temporary = f".{secrets.token_hex(8)}.tmp"
            descriptor = os.open(temporary, NEW_FILE, 0o666, dir_fd=folder)
            try:
                in_place = False
                with open(descriptor, "wb") as file:
                    file.write(data)
                    if before is not None:
                        in_place = not _give_to_owner(file.fileno(), before)
                    file.flush()
                    # Otherwise a crash may leave an empty file under the name.
                    os.fsync(file.fileno())
                    written = os.fstat(file.fileno())
                if unchanged is not None:
                    now = os.stat(name, dir_fd=folder, follow_symlinks=False)
                    if identity(now) != identity(unchanged):
                        raise ToolError(f"{path!r} was changed by somebody else meanwhile: read it again")
                try:
                    if not in_place:
                        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
                        return written
                except OSError as error:
                    if error.errno not in (errno.EBUSY, errno.EXDEV) or before is None:
                        raise
                assert before is not None
                written = _overwrite(path, name, folder, data, before)
                os.unlink(temporary, dir_fd=folder)
            except BaseException:
                with suppress(FileNotFoundError):
                    os.unlink(temporary, dir_fd=folder)
                raise
            return written


def _give_to_owner(descriptor: int, before: os.stat_result) -> bool:
    """Give a new file the owner and the mode of the one ``before``. Returns whether that was possible."""
    now = os.fstat(descriptor)
    if (now.st_uid, now.st_gid) != (before.st_uid, before.st_gid):
        try:
            os.chown(descriptor, before.st_uid, before.st_gid)
        except PermissionError:
            return False
    # After the owner, since a change of the owner clears some bits.
    os.chmod(descriptor, stat.S_IMODE(before.st_mode))
    return True


def _overwrite(path: str, name: str, folder: int, data: bytes, before: os.stat_result) -> os.stat_result:
    flags = os.O_WRONLY | _CLOEXEC | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    with open(os.open(name, flags, dir_fd=folder), "wb") as file:
        now = os.fstat(file.fileno())
        if identity(now) != identity(before):
            raise ToolError(f"{path!r} was changed by somebody else meanwhile: read it again")
        file.write(data)
        file.truncate()
        file.flush()
        os.fsync(file.fileno())
        return os.fstat(file.fileno())


def find_root(roots: Sequence[Root], path: str) -> Root:
    """The one of ``roots`` that ``path`` is meant for: the first, unless it is spelled out with another."""
    return next((root for root in roots if root.holds(path)), roots[0])


def _unescaped(found: re.Match[str]) -> str:
    byte = int(found[1], 16)
    return chr(byte if byte < 0x80 else 0xDC00 + byte)


def _look_up(name: str, folder: int) -> tuple[str, int]:
    """The name of an entry as the system has it, and its mode. Names that are not UTF-8 may be spelled with escapes."""
    try:
        return name, os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
    except FileNotFoundError:
        unescaped = _ESCAPE.sub(_unescaped, name)
        if unescaped == name:
            raise
        return unescaped, os.stat(unescaped, dir_fd=folder, follow_symlinks=False).st_mode


def identity(status: os.stat_result) -> tuple[int, ...]:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def _check_kind(path: str, status: os.stat_result, wanted: int) -> None:
    kind = stat.S_IFMT(status.st_mode)
    if kind != wanted:
        what = "a folder" if wanted == stat.S_IFDIR else "a file"
        raise ToolError(f"{path!r} is {_KINDS.get(kind, 'a file')}, not {what}")


@contextmanager
def _as_tool_errors(path: str) -> Generator[None]:
    try:
        yield
    except OSError as error:
        word = _WORDS.get(error.errno or 0) or f"cannot be used: {error.strerror or error}"
        raise ToolError(f"{path!r} {word}") from error
    except ValueError as error:  # NUL, or what no file name can be written with
        raise ToolError(f"{path!r} is no path") from error
