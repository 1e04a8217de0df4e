"""docker-agent's tools for files, by the names and arguments that its hooks and rules know, over `file_tools`."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from typing import Annotated, Any

import msgspec
import trio
from attrs import frozen
from msgspec import Meta

from agentloop.errors import ToolError
from agentloop.toolkit import file_tools
from agentloop.toolkit._root import Root
from agentloop.tools import Tool, tool

__all__ = ["filesystem_tools"]

MAX_BYTES = 10_000_000
"""The size of a file that several edits are tried on."""
MAX_ENTRIES = 1000
MAX_FILES = 50
"""Files that one call reads."""


class Edit(msgspec.Struct, rename="camel"):
    """A text to replace by another."""

    old_text: str
    """The text that is there, exactly, and once."""
    new_text: str
    """The text to put in its place."""


@frozen
class _Place:
    """A folder that may be reached."""

    root: Root
    tools: dict[str, Tool]


def filesystem_tools(folder: str, allowed: Sequence[str], denied: Sequence[str]) -> list[Tool]:
    """The tools.

    Args:
      folder: the folder that relative paths are relative to.
      allowed: the folders that may be reached, by absolute paths.
      denied: folders in them that may not.

    Raises:
      UsageError: a folder is none, or the system cannot confine paths.
    """
    places = [_Place(Root(path), {made.name: made for made in file_tools(path, write=True)}) for path in allowed]
    files = _Files(folder, places, [os.path.realpath(path) for path in denied])
    where = ", ".join(place.root.path for place in places)
    reads: list[tuple[str, Callable[..., Any]]] = [
        ("Read a text file. Returns its lines, each with its number and a tab before it.", files.read_file),
        ("Read several text files.", files.read_multiple_files),
        ("List the files and folders in a folder.", files.list_directory),
        ("List the files in a folder, at any depth.", files.directory_tree),
        ("Find lines in the text files of a folder.", files.search_files_content),
    ]
    changes: list[tuple[str, Callable[..., Any], bool]] = [
        ("Write a text file, a new one or in place of what is there.", files.write_file, True),
        ("Replace texts in a text file by others. All edits are made, or none.", files.edit_file, True),
        ("Make folders.", files.create_directory, False),
        ("Remove empty folders.", files.remove_directory, True),
    ]
    note = f"Paths are relative to {folder}; {where} can be reached."
    return [
        *(tool(description=f"{says} {note}", read_only=True, idempotent=True)(function) for says, function in reads),
        *(
            tool(description=f"{says} {note}", destructive=destroys, requires_approval=True)(function)
            for says, function, destroys in changes
        ),
    ]


class _Files:
    def __init__(self, folder: str, places: Sequence[_Place], denied: Sequence[str]) -> None:
        self._folder = folder
        self._places = places
        self._denied = denied

    def _locate(self, path: str) -> tuple[_Place, str]:
        """The folder that ``path`` is in, and its path there."""
        if "\0" in path:
            raise ToolError("a path has no NUL character")
        absolute = os.path.normpath(os.path.join(self._folder, os.path.expanduser(path)))  # noqa: PTH111, PTH118
        for candidate in (absolute, os.path.realpath(absolute)):
            if any(_is_in(candidate, denied) for denied in self._denied):
                raise ToolError(f"{path!r} is in a folder that must not be reached")
        fitting = [place for place in self._places if place.root.holds(absolute)]
        if not fitting:
            where = ", ".join(place.root.path for place in self._places)
            raise ToolError(f"{path!r} is outside of the folders that can be reached: {where}")
        place = max(fitting, key=lambda place: len(place.root.path))
        return place, absolute

    def _without_denied(self, text: str, place: _Place) -> str:
        """The lines of a listing or a search, without those of files that must not be reached."""
        hidden = [
            os.path.relpath(denied, place.root.path) for denied in self._denied if _is_in(denied, place.root.path)
        ]
        if not hidden:
            return text
        lines = [line for line in text.split("\n") if not any(_begins(line, path) for path in hidden)]
        return "\n".join(lines) or "[nothing that may be shown]"

    async def read_file(
        self, path: str, offset: Annotated[int, Meta(ge=1)] = 1, limit: Annotated[int, Meta(ge=1)] = 2000
    ) -> str:
        """Read a file.

        Args:
          path: the file.
          offset: the first line to read, from 1.
          limit: how many lines to read at most.
        """
        place, inner = self._locate(path)
        return str(await place.tools["read_file"].function(inner, offset, limit))

    async def read_multiple_files(self, paths: Annotated[list[str], Meta(max_length=MAX_FILES)]) -> str:
        """Read files.

        Args:
          paths: the files.
        """
        parts: list[str] = []
        for path in paths:
            try:
                parts.append(f"=== {path} ===\n{await self.read_file(path)}")
            except ToolError as error:
                parts.append(f"=== {path} ===\n[{error}]")
        await trio.lowlevel.checkpoint()
        return "\n\n".join(parts) or "[no files]"

    async def list_directory(self, path: str = ".") -> str:
        """List a folder.

        Args:
          path: the folder.
        """
        place, inner = self._locate(path)
        names = await trio.to_thread.run_sync(_list, place.root, inner)
        shown = [name for name in names if not self._is_denied(inner, name)]
        more = [f"[{len(shown) - MAX_ENTRIES} more]"] if len(shown) > MAX_ENTRIES else []
        return "\n".join(shown[:MAX_ENTRIES] + more) or "[the folder is empty]"

    def _is_denied(self, folder: str, entry: str) -> bool:
        name = entry.partition(" ")[2]
        return os.path.normpath(f"{os.path.realpath(folder)}/{name}") in self._denied

    async def directory_tree(self, path: str = ".") -> str:
        """List a folder, and those in it.

        Args:
          path: the folder.
        """
        place, inner = self._locate(path)
        return self._without_denied(str(await place.tools["list_files"].function("*", inner)), place)

    async def search_files_content(
        self, path: str, query: str, is_regex: bool = False, exclude_patterns: list[str] | None = None
    ) -> str:
        """Search files.

        Args:
          path: the folder to look in.
          query: a part of a line.
          is_regex: whether the query is a regular expression, of Python's kind.
          exclude_patterns: globs on the paths of files to leave out.
        """
        place, inner = self._locate(path)
        pattern = query if is_regex else re.escape(query)
        found = self._without_denied(str(await place.tools["search_files"].function(pattern, "*", inner)), place)
        for glob in exclude_patterns or ():
            found = "\n".join(line for line in found.split("\n") if not fnmatch(line.partition(":")[0], glob))
        return found or "[no line matches]"

    async def write_file(self, path: str, content: str) -> str:
        """Write a file.

        Args:
          path: the file.
          content: all that is to be in it.
        """
        place, inner = self._locate(path)
        return str(await place.tools["write_file"].function(inner, content))

    async def edit_file(self, path: str, edits: Annotated[list[Edit], Meta(min_length=1)]) -> str:
        """Edit a file.

        Args:
          path: the file.
          edits: the replacements, one after the other.
        """
        place, inner = self._locate(path)
        if len(edits) > 1:
            # They are tried first, so that a later one that does not fit leaves the file as it was.
            await trio.to_thread.run_sync(_try_edits, place.root, inner, edits)
        parts = [str(await place.tools["edit_file"].function(inner, edit.old_text, edit.new_text)) for edit in edits]
        await trio.lowlevel.checkpoint()
        return "\n".join(parts)

    async def create_directory(self, paths: list[str]) -> str:
        """Make folders, with those above them.

        Args:
          paths: the folders.
        """
        for path in paths:
            place, inner = self._locate(path)
            await trio.to_thread.run_sync(_make_folder, place.root, inner)
        await trio.lowlevel.checkpoint()
        return f"made: {', '.join(paths)}"

    async def remove_directory(self, paths: list[str]) -> str:
        """Remove empty folders.

        Args:
          paths: the folders.
        """
        for path in paths:
            place, inner = self._locate(path)
            await trio.to_thread.run_sync(_remove_folder, place.root, inner)
        await trio.lowlevel.checkpoint()
        return f"removed: {', '.join(paths)}"


def _is_in(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder.rstrip('/')}/")


def _begins(line: str, path: str) -> bool:
    return line == path or line.startswith((f"{path}/", f"{path}:"))


def _list(root: Root, path: str) -> list[str]:
    folder = root.open_folder(path)
    try:
        with os.scandir(folder) as entries:
            found = [("DIR" if entry.is_dir(follow_symlinks=False) else "FILE", entry.name) for entry in entries]
    finally:
        os.close(folder)
    return [f"{kind} {name.encode('utf-8', 'backslashreplace').decode()}" for kind, name in sorted(found)]


def _try_edits(root: Root, path: str, edits: Sequence[Edit]) -> None:
    data, _ = root.read(path, MAX_BYTES)
    text = data.decode("utf-8", "replace").replace("\r\n", "\n")
    for number, edit in enumerate(edits, 1):
        old = edit.old_text.replace("\r\n", "\n")
        count = text.count(old) if old else 0
        if count != 1:
            raise ToolError(
                f"nothing was changed: the old text of edit {number} is {count} times in the file, not once"
            )
        text = text.replace(old, edit.new_text)


def _make_folder(root: Root, path: str) -> None:
    with root.place(path, make_folders=True) as (folder, name):
        if name != "." and not _is_folder(name, folder):
            os.mkdir(name, dir_fd=folder)


def _is_folder(name: str, folder: int) -> bool:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode & 0o170000 == 0o040000
    except FileNotFoundError:
        return False


def _remove_folder(root: Root, path: str) -> None:
    with root.place(path) as (folder, name):
        if name == ".":
            raise ToolError("the folder that can be reached is not removed itself")
        os.rmdir(name, dir_fd=folder)
