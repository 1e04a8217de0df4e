"""Tools that read, write and search the files of one folder."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Sequence
from typing import Annotated

import msgspec
import trio
from msgspec import Meta

from agentloop._core.json_text import decode_own
from agentloop._interpreter import loader_environment, python_command, script_arguments
from agentloop._process_tree import open_process_tree
from agentloop.errors import ToolError, UsageError
from agentloop.toolkit import _walk
from agentloop.toolkit._root import Root, find_root, identity
from agentloop.toolkit._truncated import MAX_CHARS
from agentloop.tools import Tool, tool

__all__ = ["IGNORED", "file_tools"]

IGNORED = (".git", ".hg", ".svn", ".venv", "node_modules", "__pycache__", ".*_cache")
"""Names, or patterns of names, that are neither listed nor searched by default."""

MAX_FILE_BYTES = 10_000_000
MAX_LINE_CHARS = 2000
MAX_ENTRIES = 1000
MAX_REMEMBERED = 10_000
MAX_MATCHES = 200
MAX_ANSWER_BYTES = 20_000_000
SEARCH_SECONDS = 30.0
CONTEXT_LINES = 3

PROGRAM = "_walk.py"

_LINE_END = re.compile("\r?\n")


def file_tools(
    root: str | os.PathLike[str],
    *,
    write: bool = False,
    also_read: Sequence[str | os.PathLike[str]] = (),
    ignore: Sequence[str] = IGNORED,
    max_chars: int = MAX_CHARS,
    max_bytes: int = MAX_FILE_BYTES,
    requires_approval: bool = True,
) -> tuple[Tool, ...]:
    """Tools for the files in ``root``: ``read_file``, ``list_files``, ``search_files``; ``write_file``, ``edit_file``.

    No path leads out of ``root``: not by ``..``, not as an absolute one, not through a link, not even one that is put
    there meanwhile. Links inside are followed when a file is named, and not in a listing or search. Hard links, and
    what is mounted inside, cannot be told from what belongs there. Writing replaces a file as a whole, or not at
    all; its owner, mode, line ends and byte order mark stay, its hard links and extended attributes do not. A file that
    these tools have not read, or that has changed since, is edited but not written over. Only ordinary files of UTF-8
    text are edited.

    Args:
      root: the folder.
      write: whether there are tools that write.
      also_read: further folders, which may be read, by absolute paths.
      ignore: names, or patterns of names, that are not listed or searched. They can be read.
      max_chars: characters that one call may tell the model.
      max_bytes: the size of a file that can be read or written.
      requires_approval: whether a person must approve each call that writes. Reading needs no approval.

    Raises:
      UsageError: one of the folders is none, or the system cannot confine paths (Windows).
    """
    if max_chars < 1 or max_bytes < 1:
        raise UsageError(f"file_tools(max_chars={max_chars}, max_bytes={max_bytes}): give numbers above 0")
    files = _Files(Root(root), [Root(one) for one in also_read], list(ignore), max_chars, max_bytes)
    where = " or ".join([files.root.path, *(f"{one.path} (absolute paths)" for one in files.roots[1:])])
    tools = [
        tool(
            description=f"Read a text file in {where}. Returns its lines, each with its number and a tab before it.",
            read_only=True,
            idempotent=True,
        )(files.read_file),
        tool(
            description=f"List files and folders in {where}, at any depth, without what is usually ignored.",
            read_only=True,
            idempotent=True,
            timeout=SEARCH_SECONDS,
        )(files.list_files),
        tool(
            description=f"Find the lines that match a regular expression, in the text files in {where}. "
            "Returns path:line number:line.",
            read_only=True,
            idempotent=True,
            timeout=SEARCH_SECONDS,
        )(files.search_files),
    ]
    if write:
        tools += [
            tool(
                description=f"Write a text file in {files.root.path}, a new one or in place of what is there. "
                "Folders are made as needed. To change a part of a file, use edit_file.",
                idempotent=True,
                destructive=True,
                requires_approval=requires_approval,
            )(files.write_file),
            tool(
                description=f"Replace a text in a file in {files.root.path} by another. The old text must be there "
                "exactly as given, with its white space, and only once, unless all are to be replaced.",
                destructive=True,
                requires_approval=requires_approval,
            )(files.edit_file),
        ]
    return tuple(tools)


class _Files:
    """The functions of the tools."""

    def __init__(
        self, root: Root, also_read: Sequence[Root], ignore: list[str], max_chars: int, max_bytes: int
    ) -> None:
        self.root = root
        self.roots = [root, *also_read]
        self._ignore = ignore
        self._max_chars = max_chars
        self._max_bytes = max_bytes
        # A lock for threads: two calls of one turn must not both change the text that they read, and lose one change.
        self._writing = threading.Lock()
        self._seen: dict[tuple[int, ...], None] = {}
        """The files as they were when the model read or wrote them, by identity, the latest last."""

    async def read_file(
        self,
        path: str,
        offset: Annotated[int, Meta(ge=1)] = 1,
        limit: Annotated[int, Meta(ge=1)] = 2000,
        column: Annotated[int, Meta(ge=1)] = 1,
    ) -> str:
        """Read a file.

        Args:
          path: the file.
          offset: the first line to read, from 1.
          limit: how many lines to read at most.
          column: the first character to read of each line, from 1, for lines that are too long to be read at once.
        """
        return await trio.to_thread.run_sync(self._read, path, offset, limit, column)

    def _read(self, path: str, offset: int, limit: int, column: int) -> str:
        data, status = find_root(self.roots, path).read(path, self._max_bytes)
        _check_text(path, data)
        self._remember(status)
        if not data:
            return "[the file is empty]"
        text = data.decode("utf-8", "replace").removeprefix("\ufeff")
        lines = text.removesuffix("\n").split("\n")
        if offset > len(lines):
            raise ToolError(f"{path!r} has {len(lines)} lines: there is no line {offset}")
        told: list[str] = []
        size = 0
        for number, line in enumerate(lines[offset - 1 : offset - 1 + limit], offset):
            numbered = f"{number}\t{_short(line, column)}"
            size += len(numbered) + 1
            if told and size > self._max_chars:
                break
            told.append(numbered[: self._max_chars])
        last = offset - 1 + len(told)
        if last < len(lines):
            told.append(f"[the file has {len(lines)} lines: read on with offset={last + 1}]")
        if not _is_utf8(data):
            told.append("[it is not UTF-8: what could not be read is shown as \ufffd]")
        return "\n".join(told)

    async def list_files(self, glob: str = "*", path: str = ".") -> str:
        """List files.

        Args:
          glob: such as `*.py` for names at any depth, or `src/**/*.{c,h}` for paths; `**` is for any folders.
          path: the folder to look in.
        """
        return await self._find(path, glob, None, ignore_case=False, max_hits=MAX_ENTRIES)

    async def search_files(self, pattern: str, glob: str = "*", path: str = ".", ignore_case: bool = False) -> str:
        """Search files.

        Args:
          pattern: a regular expression, of Python's kind, for a part of a line.
          glob: which files: such as `*.py` for names at any depth, or `src/**/*.{c,h}` for paths.
          path: the folder to look in.
          ignore_case: whether upper and lower case are the same.
        """
        return await self._find(path, glob, pattern, ignore_case=ignore_case, max_hits=MAX_MATCHES)

    async def _find(self, path: str, glob: str, regex: str | None, *, ignore_case: bool, max_hits: int) -> str:
        if len(glob) + len(regex or "") > 10_000:
            raise ToolError("the pattern is too long: 10000 characters at most")
        root = find_root(self.roots, path)
        folder = await trio.to_thread.run_sync(root.open_folder, path)
        try:
            query: _walk.Query = {
                "folder": folder,
                "glob": glob,
                "regex": regex,
                "ignore_case": ignore_case,
                "ignore": self._ignore,
                "max_hits": max_hits,
                "max_bytes": self._max_bytes,
            }
            found = await _run_walk(query)
        finally:
            os.close(folder)
        at = "" if path in {"", ".", root.path} else f" in {path!r}"
        if not found["hits"]:
            what = "no file or folder" if regex is None else "no line"
            told = f"[{what}{at} matches{_passed_over(found)}]"
        else:
            told = "\n".join(found["hits"])
            if len(told) > self._max_chars:
                told = told[: self._max_chars].rpartition("\n")[0] or told[: self._max_chars]
                found["more"] = True
            if found["more"]:
                told += f"\n[there are more{_passed_over(found)}: narrow the search down]"
            elif found["passed_over"]:
                told += f"\n[that is all{_passed_over(found)}]"
        return told

    async def write_file(self, path: str, content: str) -> str:
        """Write a file.

        Args:
          path: the file.
          content: all that is to be in it.
        """
        return await trio.to_thread.run_sync(self._write, path, content)

    def _write(self, path: str, content: str) -> str:
        data = self._encoded(path, content)
        with self._writing:
            before = self._before(path)
            if before is not None:
                old, status = before
                data = self._encoded(path, _in_style(content, old))
                self._remember(self.root.write(path, data, unchanged=status))
            else:
                self._remember(self.root.write(path, data))
        return f"{'Wrote' if before is None else 'Replaced'} {path}: {_lines_of(content)} lines, {len(data)} bytes."

    def _before(self, path: str) -> tuple[bytes, os.stat_result] | None:
        """The file that is to be written over; ``None`` if there is none.

        Raises:
          ToolError: the model has not read it, or it has changed since.
        """
        if not self.root.is_there(path):
            return None
        old, status = self.root.read(path, self._max_bytes)
        _check_text(path, old)
        if old and identity(status) not in self._seen:
            raise ToolError(
                f"{path!r} is there, and it has changed since it was last read, or was never read: "
                "read it first, so that nothing in it is lost"
            )
        return old, status

    def _remember(self, status: os.stat_result) -> None:
        self._seen.pop(identity(status), None)
        self._seen[identity(status)] = None
        while len(self._seen) > MAX_REMEMBERED:
            self._seen.pop(next(iter(self._seen)), None)

    async def edit_file(self, path: str, old_text: str, new_text: str, replace_all: bool = False) -> str:
        """Edit a file.

        Args:
          path: the file.
          old_text: what to replace, without line numbers.
          new_text: what to put in its place.
          replace_all: whether to replace it wherever it is.
        """
        return await trio.to_thread.run_sync(self._edit, path, old_text, new_text, replace_all)

    def _edit(self, path: str, old: str, new: str, replace_all: bool) -> str:
        if not old:
            raise ToolError("old_text is empty: give the text to replace, or make a new file with write_file")
        if old == new:
            raise ToolError("old_text and new_text are the same: there is nothing to do")
        with self._writing:
            data, status = self.root.read(path, self._max_bytes)
            _check_text(path, data)
            if not _is_utf8(data):
                raise ToolError(f"{path!r} is not UTF-8: editing it as text would damage it")
            text = data.decode()
            places = _places(text, old)
            if not places:
                raise ToolError(
                    f"old_text is not in {path!r}: read the file, and give the text exactly as it is there, "
                    "with its white space and without line numbers"
                )
            lines = [text.count("\n", 0, place.start) + 1 for place in places]
            if len(places) > 1 and not replace_all:
                raise ToolError(
                    f"old_text is in {path!r} {len(places)} times, at lines {_few(lines)}: "
                    "give more of what is around the one you mean, or replace_all"
                )
            changed, first = _replaced(text, places, new)
            self._remember(self.root.write(path, self._encoded(path, changed), unchanged=status))
        what = f"at line {lines[0]}" if len(lines) == 1 else f"{len(lines)} times, at lines {_few(lines)}"
        return f"Changed {path} {what}. It reads now:\n{_around(changed, places[0].start, len(first))}"

    def _encoded(self, path: str, text: str) -> bytes:
        try:
            data = text.encode()
        except UnicodeEncodeError as error:
            raise ToolError(f"this is no text that UTF-8 can spell: {error.reason}") from error
        if len(data) > self._max_bytes:
            raise ToolError(f"{path!r} would have {len(data)} bytes, and at most {self._max_bytes} are written")
        return data


async def _run_walk(query: _walk.Query) -> _walk.Found:
    """Run `_walk` as a program of its own, which ends with us."""
    try:
        command = python_command("Searching files")
    except UsageError as error:
        raise ToolError(str(error)) from error
    argument = msgspec.json.encode(query).decode()
    answer = bytearray()
    async with open_process_tree(
        # Without site-packages, and without what the environment and the folder could put in its way.
        [command, "-I", "-S", "-B", *script_arguments("agentloop.toolkit", PROGRAM), argument],
        cwd="/",
        env=loader_environment(),
        grace=0.0,
        pass_fds=[query["folder"]],
    ) as tree:
        while len(answer) < MAX_ANSWER_BYTES and (chunk := await tree.stdout.receive_some(65536)):
            answer += chunk
    try:
        found = decode_own(bytes(answer), _walk.Found)
    except msgspec.DecodeError as error:
        raise ToolError(f"the search failed: {answer[-500:].decode('utf-8', 'replace')}") from error
    if found["error"]:
        raise ToolError(found["error"])
    return found


def _check_text(path: str, data: bytes) -> None:
    if b"\0" in data[:8192]:
        raise ToolError(f"{path!r} is no text file ({len(data)} bytes): this tool reads only text, in UTF-8")


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _places(text: str, part: str) -> list[slice]:
    """Where ``part`` is in ``text``. The model reads every line end as a line feed, so one stands for both kinds."""
    is_exact = "\r" in part or "\r\n" not in text
    pattern = re.escape(part) if is_exact else "\r?\n".join(map(re.escape, part.split("\n")))
    return [slice(*found.span()) for found in re.finditer(pattern, text)]


def _replaced(text: str, places: Sequence[slice], new: str) -> tuple[str, str]:
    """``text`` with ``new`` at each of ``places``, in the line ends that are there; and the first of these parts."""
    pieces: list[str] = []
    position = 0
    for place in places:
        pieces += [text[position : place.start], _with_line_ends(new, text[place], text)]
        position = place.stop
    return "".join([*pieces, text[position:]]), pieces[1]


def _with_line_ends(new: str, old: str, text: str) -> str:
    """``new`` with the line ends of ``old``, one by one, and further ones as most are in ``text``."""
    if "\r" in new or "\r\n" not in text:
        return new
    ends = _LINE_END.findall(old)
    usual = _usual_end(old) if ends else _usual_end(text)
    first, *lines = new.split("\n")
    return first + "".join(f"{ends[index] if index < len(ends) else usual}{line}" for index, line in enumerate(lines))


def _usual_end(text: str) -> str:
    return "\r\n" if 2 * text.count("\r\n") >= text.count("\n") > 0 else "\n"


def _in_style(content: str, old: bytes) -> str:
    """``content`` with the byte order mark and the line ends of the file that it replaces."""
    text = old.decode("utf-8", "replace")
    if "\r" not in content and _usual_end(text) == "\r\n":
        content = content.replace("\n", "\r\n")
    return f"\ufeff{content}" if text.startswith("\ufeff") and not content.startswith("\ufeff") else content


def _around(text: str, place: int, size: int) -> str:
    """The lines that were changed, some before and some after, with their numbers."""
    lines = text.removeprefix("\ufeff").removesuffix("\n").split("\n")
    first = text.count("\n", 0, place)
    last = text.count("\n", 0, place + size)
    numbers = range(max(0, first - CONTEXT_LINES), min(len(lines), last + CONTEXT_LINES + 1))
    told = [f"{number + 1}\t{_short(lines[number])}" for number in numbers]
    if len(told) > 10 * CONTEXT_LINES:
        told[5 * CONTEXT_LINES : -5 * CONTEXT_LINES] = ["..."]
    return "\n".join(told)


def _short(line: str, column: int = 1) -> str:
    line = line.removesuffix("\r")
    begin = column - 1
    end = begin + MAX_LINE_CHARS
    if end >= len(line):
        return line[begin:]
    return f"{line[begin:end]} [... {len(line) - end} characters left out: read on with column={end + 1}]"


def _few(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:10])) + (", ..." if len(numbers) > 10 else "")


def _lines_of(text: str) -> int:
    return text.count("\n") + (not text.endswith("\n") and bool(text))


def _passed_over(found: _walk.Found) -> str:
    return f"; {found['passed_over']} files were passed over: no text, or too large" if found["passed_over"] else ""
