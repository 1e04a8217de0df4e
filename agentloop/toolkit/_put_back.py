"""Writes and deletes files in a folder, without following a link on the way to one."""

# pathlib knows no folders that are open:
# ruff: noqa: PTH123

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Generator
from contextlib import contextmanager, suppress

from agentloop.errors import ToolError
from agentloop.toolkit._root import FOLDER, NEW_FILE, Root
from agentloop.toolkit._trees import Entry
from agentloop.toolkit._walk import spelled

__all__ = ["delete", "write"]


@contextmanager
def _open_above(root: Root, path: str, *, make_folders: bool = False) -> Generator[tuple[int, str]]:
    """The folder that has the file, open, and the file's name in it. No link on the way is followed."""
    *above, name = path.split("/")
    folder = os.open(root.path, FOLDER)
    try:
        for count, part in enumerate(above, start=1):
            if make_folders:
                with suppress(FileExistsError):
                    os.mkdir(part, dir_fd=folder)
            try:
                inner = os.open(part, FOLDER, dir_fd=folder)
            except OSError as error:
                if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                    raise
                where, file = spelled("/".join(above[:count])), spelled(path)
                raise ToolError(f"{where!r} in {root.path!r} is a link, or no folder: {file!r} stays") from error
            os.close(folder)
            folder = inner
        yield folder, name
    finally:
        os.close(folder)


def delete(root: Root, path: str) -> None:
    """Delete the file at ``path``, if it is there, and the folders above it that are empty then."""
    with suppress(FileNotFoundError), _open_above(root, path) as (folder, name):
        os.unlink(name, dir_fd=folder)
    # Folders that the file was the last in go with it.
    above = os.path.dirname(path)  # noqa: PTH120
    while above:
        try:
            with _open_above(root, above) as (folder, name):
                os.rmdir(name, dir_fd=folder)
        except (OSError, ToolError):
            return
        above = os.path.dirname(above)  # noqa: PTH120


def write(root: Root, path: str, entry: Entry, content: bytes) -> None:
    """Put the file or the link of ``entry`` at ``path``, all of it or nothing."""
    with _open_above(root, path, make_folders=True) as (folder, name):
        temporary = f".{secrets.token_hex(8)}.tmp"
        try:
            if stat.S_ISLNK(entry.mode):
                os.symlink(os.fsdecode(content), temporary, dir_fd=folder)
            else:
                with open(os.open(temporary, NEW_FILE, 0o600, dir_fd=folder), "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fchmod(file.fileno(), stat.S_IMODE(entry.mode))
                    os.fsync(file.fileno())
            os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=folder)
            raise
