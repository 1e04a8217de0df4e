"""What a turn did to the files of a folder: listed, shown as a diff, and put back."""

# pathlib knows no folders that are open:
# ruff: noqa: PTH123

from __future__ import annotations

import difflib
import hashlib
import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias, TypeVar

import msgspec
import trio

from agentloop import hooks
from agentloop._core.json_text import decode_own
from agentloop._data_folder import data_folder
from agentloop.errors import ToolError, UsageError
from agentloop.events import Source
from agentloop.hooks import Hook, PreToolUse, SessionEnd, TurnEnd, TurnStart
from agentloop.toolkit._files import IGNORED, MAX_FILE_BYTES
from agentloop.toolkit._root import FOLDER, NEW_FILE, Root
from agentloop.toolkit._trees import CopiedTrees, Entry, GitTrees, Trees, find_repository
from agentloop.toolkit._walk import spelled

__all__ = ["FileChange", "Snapshots", "TurnChanges"]

T = TypeVar("T")

LOOK_SECONDS = 0.02
"""Seconds between two looks for the lock, while another process has it."""
MAX_DIFF_CHARS = 200_000
MAX_DIFF_LINES = 20_000
"""Lines of a file: the time that difflib takes grows with their square."""

ChangeKind: TypeAlias = Literal["added", "changed", "deleted"]


class FileChange(msgspec.Struct, frozen=True):
    """A file that differs."""

    path: str
    """Its path in the folder; bytes that are not UTF-8, and control characters, are escapes such as ``\\xe9``."""
    kind: ChangeKind
    """Whether it was added, changed or deleted."""


class TurnChanges(msgspec.Struct, frozen=True):
    """The changes that a turn made to the folder, with the calls of its tools and of the agents inside of them."""

    id: int
    """Its number in the folder, from 1."""
    source: Source
    """The stream of the turn."""
    turn: int
    """Number of the turn within its stream, from 1; 0 for the rest of a turn that another process began."""
    time: float
    """The time of the first call of a tool, in seconds since 1970 (UTC)."""
    files: tuple[FileChange, ...]
    """The files, by their paths."""
    is_open: bool
    """Whether the turn has not ended. Its changes are those until now."""
    is_undone: bool
    """Whether the changes were put back."""


class _Began(msgspec.Struct, frozen=True, tag="began", tag_field="type"):
    """A line of the log: the first tool of a turn is about to be called."""

    id: int
    tree: str
    source: Source
    turn: int
    time: float
    owner: str
    """The name of the object that keeps the log, in its process."""


class _Ended(msgspec.Struct, frozen=True, tag="ended", tag_field="type"):
    id: int
    tree: str


class _Undone(msgspec.Struct, frozen=True, tag="undone", tag_field="type"):
    id: int


_Line: TypeAlias = _Began | _Ended | _Undone


class _Log(msgspec.Struct):
    """The turns of a folder, as the log has them."""

    began: dict[int, _Began] = {}
    ended: dict[int, str] = {}
    undone: set[int] = set()

    def add(self, line: _Line) -> None:
        match line:
            case _Began():
                self.began[line.id] = line
            case _Ended():
                self.ended[line.id] = line.tree
            case _Undone():
                self.undone.add(line.id)


class Snapshots:
    """Keeps the files of a folder as they were before each turn of an agent, so that its changes can be undone.

    ::

        files = Snapshots("project")
        agent = Agent(model, tools=file_tools("project", write=True), hooks=files.hooks)
        await agent.run("Rename the module.")

        for turn in await files.turns():
            print(turn.id, [change.path for change in turn.files])
        print(await files.diff())
        await files.undo()

    A snapshot is taken before the first tool of a turn is called, and another one when the turn ends; a turn without a
    tool, or whose tools change nothing, leaves no entry. If the snapshot cannot be taken, the tool is not called. What
    a child does belongs to the turn that called it. Changes that others make during a turn count as changes of the
    turn. ``python -m agentloop snapshots FOLDER`` lists, shows and undoes from a terminal.

    In a folder of a git repository, files that git ignores are left out, as are those of repositories inside of it;
    the contents go into a repository of agentloop's own, and the folder's repository, its index and its branches stay
    as they are. Content that this repository has already is read from there, where git keeps it for two weeks, if
    nothing refers to it any more. Elsewhere, files are copied, and ``ignore`` says which are left out. Empty folders
    are no part of a snapshot, nor are the owners of files.

    A process that is killed loses nothing: its turn is in the list, and can be undone by another process.

    Args:
      folder: the folder; nothing outside of it is ever changed.
      tools: globs on the names of the tools that may change files, as in ``hooks.pre_tool_use(tools=...)``.
      store: the folder in which snapshots are kept; in this user's data folder by default.
      ignore: names, or patterns of names, of files and folders that are left out where there is no git repository.
      max_bytes: larger files are left out.

    Raises:
      UsageError: the folder is not there, the system cannot confine paths to it (Windows), or there is no data folder.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        tools: str | Sequence[str] = "*",
        store: str | os.PathLike[str] | None = None,
        ignore: Sequence[str] = IGNORED,
        max_bytes: int = MAX_FILE_BYTES,
    ) -> None:
        self._root = Root(folder)
        if store is None:
            found = data_folder()
            if found is None:
                raise UsageError("Snapshots(): this user has no home folder: say where to keep them, by store=")
            store = found / "snapshots"
        name = hashlib.sha256(os.fsencode(self._root.path)).hexdigest()[:16]
        self._home = Path(store).absolute() / name
        self._ignore = tuple(ignore)
        self._max_bytes = max_bytes
        self._trees: Trees | None = None
        self._owner = secrets.token_hex(8)
        self._alive: IO[bytes] | None = None
        # By stream: the number of a turn that goes on, and its id as soon as a tool was called.
        self._turns: dict[str, tuple[Source, int, int | None]] = {}
        self._taking = trio.Lock()
        self.hooks: Sequence[Hook] = self._make_hooks(tools)
        """The hooks that take the snapshots, for ``Agent(hooks=...)``."""

    def _make_hooks(self, tools: str | Sequence[str]) -> Sequence[Hook]:
        async def snapshot_turn_start(turn: TurnStart) -> None:  # noqa: ASYNC124 - a plain function gets a thread
            self._turns[turn.source.stream] = (turn.source, turn.turn, None)

        async def snapshot_before(call: PreToolUse) -> None:
            await self._begin(call.source)

        async def snapshot_turn_end(turn: TurnEnd) -> None:
            await self._end(turn.source.stream)

        async def snapshot_session_end(end: SessionEnd) -> None:
            # A turn that another process began has no end of its own here.
            await self._end(end.source.stream)

        return (
            hooks.turn_start(snapshot_turn_start),
            hooks.pre_tool_use(tools=tools)(snapshot_before),
            hooks.turn_end(snapshot_turn_end),
            hooks.session_end(snapshot_session_end),
        )

    # ------------------------------------------------------------------------------ turns

    async def _begin(self, source: Source) -> None:
        async with self._taking:
            if not self._turns:
                # Resumed: the process that began this turn is gone.
                self._turns[source.stream] = (source, 0, None)
            # A call of a child: the snapshot is for the turn around it, which has the hook.
            new = [stream for stream, (_, _, id) in self._turns.items() if id is None]
            if not new:
                return
            ids = await self._in_thread(self._write_begun, [self._turns[stream][:2] for stream in new])
            for stream, id in zip(new, ids, strict=True):
                if stream in self._turns:
                    self._turns[stream] = (*self._turns[stream][:2], id)

    def _write_begun(self, turns: Sequence[tuple[Source, int]]) -> list[int]:
        tree = self._place().capture()
        log = self._read_log()
        # What a killed process did not end has ended by now.
        lines: list[_Line] = [
            _Ended(id, tree) for id, began in log.began.items() if id not in log.ended and self._is_gone(began.owner)
        ]
        self._hold_owner()
        last = max(log.began, default=0)
        ids = list(range(last + 1, last + 1 + len(turns)))
        for id, (source, turn) in zip(ids, turns, strict=True):
            lines.append(_Began(id, tree, source, turn, time.time(), self._owner))
        self._append(lines)
        return ids

    async def _end(self, stream: str) -> None:
        _, _, id = self._turns.pop(stream, (None, 0, None))
        if id is None:
            await trio.lowlevel.checkpoint()
            return
        async with self._taking:
            is_last = all(open is None for _, _, open in self._turns.values())
            await self._in_thread(self._write_ended, id, is_last)

    def _write_ended(self, id: int, is_last: bool) -> None:
        try:
            if id not in self._read_log().ended:
                self._append([_Ended(id, self._place().capture())])
        finally:
            if is_last and self._alive is not None:
                Path(self._alive.name).unlink(missing_ok=True)
                self._alive.close()
                self._alive = None

    # --------------------------------------------------------------------- what users call

    async def turns(self) -> list[TurnChanges]:
        """The turns that changed files, the latest first.

        Raises:
          ToolError: the snapshots cannot be read.
        """
        return await self._in_thread(self._list)

    async def diff(self, id: int | None = None) -> str:
        """The changes of a turn as a unified diff. Of files that are no text in UTF-8, only the names are shown.

        Args:
          id: the turn; the latest one that was not undone if not given.

        Raises:
          UsageError: there is no such turn.
          ToolError: the snapshots cannot be read.
        """
        return await self._in_thread(self._diff, id)

    async def undo(self, id: int | None = None, *, force: bool = False) -> list[FileChange]:
        """Put the files that a turn changed back to what they were before it.

        Files that were changed again since then keep that change: the call raises, and puts nothing back. After a
        failure in the middle, the same call goes on.

        Args:
          id: the turn; the latest one that was not undone if not given.
          force: put back files that were changed again since then, too.

        Returns:
          What was done to the folder.

        Raises:
          UsageError: there is no such turn, or files were changed again since then; the message names them.
          ToolError: a file cannot be written, or the snapshots cannot be read.
        """
        return await self._in_thread(partial(self._undo, force=force), id)

    async def clear(self) -> None:
        """Delete all snapshots of the folder.

        Raises:
          UsageError: a turn goes on, here or in another process.
        """
        await self._in_thread(self._clear)

    def _list(self) -> list[TurnChanges]:
        log = self._read_log()
        turns = [self._described(log, began) for began in log.began.values()]
        return [turn for turn in reversed(turns) if turn.files]

    def _described(self, log: _Log, began: _Began) -> TurnChanges:
        after = log.ended.get(began.id)
        changed = self._place().changed(began.tree, self._place().capture() if after is None else after)
        return TurnChanges(
            began.id,
            began.source,
            began.turn,
            began.time,
            tuple(FileChange(spelled(path), _kind(*entries)) for path, entries in sorted(changed.items())),
            is_open=after is None,
            is_undone=began.id in log.undone,
        )

    def _chosen(self, log: _Log, id: int | None) -> tuple[_Began, str]:
        """A turn, and the tree after it."""
        for began in [log.began[id]] if id in log.began else reversed(log.began.values()):
            after = log.ended.get(began.id) or self._place().capture()
            if id == began.id or (id is None and began.id not in log.undone and after != began.tree):
                return began, after
        which = "turn that changed a file" if id is None else f"turn {id}"
        raise UsageError(f"there is no {which} in {self._root.path!r}: `turns()` lists those that there are")

    def _diff(self, id: int | None) -> str:
        began, after = self._chosen(self._read_log(), id)
        trees = self._place()
        pieces: list[str] = []
        size = 0
        for path, (old, new) in sorted(trees.changed(began.tree, after).items()):
            contents = trees.contents(entry.id for entry in (old, new) if entry is not None)
            piece = _file_diff(spelled(path), old, new, contents)
            size += len(piece)
            if size > MAX_DIFF_CHARS:
                pieces.append(f"... and more: {MAX_DIFF_CHARS} characters are shown\n")
                break
            pieces.append(piece)
        return "".join(pieces)

    def _undo(self, id: int | None, *, force: bool) -> list[FileChange]:
        log = self._read_log()
        began, after = self._chosen(log, id)
        if began.id in log.undone:
            raise UsageError(f"turn {began.id} was undone already")
        if began.id not in log.ended and not self._is_gone(began.owner):
            raise UsageError(f"turn {began.id} goes on: stop its run before it is undone")
        trees = self._place()
        now = trees.capture()
        changed, since = trees.changed(began.tree, after), trees.changed(after, now)
        # What has come back to what it was before is put back already.
        again = [path for path in changed if path in since and since[path][1] != changed[path][0]]
        if again and not force:
            names = ", ".join(spelled(path) for path in again[:5]) + (", ..." if len(again) > 5 else "")
            raise UsageError(f"turn {began.id} is not undone, since files were changed again after it: {names}")
        back = {
            path: (since[path][1] if path in since else new, old)
            for path, (old, new) in changed.items()
            if (since[path][1] if path in since else new) != old
        }
        contents = trees.contents(entry.id for _, entry in back.values() if entry is not None)
        # The deepest first, so that a folder is empty when a file gets its name.
        for path, (_, entry) in sorted(back.items(), reverse=True):
            if entry is None:
                _delete(self._root, path)
        for path, (_, entry) in sorted(back.items()):
            if entry is not None:
                _write(self._root, path, entry, contents[entry.id])
        lines: list[_Line] = [] if began.id in log.ended else [_Ended(began.id, now)]
        self._append([*lines, _Undone(began.id)])
        return [FileChange(spelled(path), _kind(*entries)) for path, entries in sorted(back.items())]

    def _clear(self) -> None:
        log = self._read_log()
        for id, began in log.began.items():
            if id not in log.ended and not self._is_gone(began.owner):
                raise UsageError(f"turn {id} goes on: stop its run before the snapshots are deleted")
        for entry in self._home.iterdir():
            # Not the locks: another process may wait for them.
            if entry.name not in ("lock", "owners"):
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        self._trees = None

    # ---------------------------------------------------------------------------- the store

    async def _in_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        def locked() -> T:
            with self._locked():
                return function(*arguments)

        return await trio.to_thread.run_sync(locked)

    @contextmanager
    def _locked(self) -> Generator[None]:
        """The folder's lock, which one thread of all processes has."""
        try:
            self._home.mkdir(parents=True, exist_ok=True, mode=0o700)
            with (self._home / "lock").open("ab") as file:
                while not _try_lock(file):
                    trio.from_thread.check_cancelled()
                    time.sleep(LOOK_SECONDS)  # in a thread
                yield
        except OSError as error:
            raise ToolError(f"snapshots of {self._root.path!r}: {error}") from error

    def _place(self) -> Trees:
        if self._trees is None:
            repository = find_repository(self._root.path)
            if repository is None:
                self._trees = CopiedTrees(self._root.path, self._home, self._ignore, self._max_bytes)
            else:
                self._trees = GitTrees(self._root.path, self._home, repository, self._max_bytes)
        return self._trees

    def _read_log(self) -> _Log:
        log = _Log()
        with suppress(FileNotFoundError):
            for line in (self._home / "log").read_bytes().split(b"\n")[:-1]:
                # A line that was cut off by the end of its process, and ended by the next one, is no line.
                with suppress(msgspec.DecodeError):
                    log.add(decode_own(line, _Line))
        return log

    def _append(self, lines: Iterable[_Line]) -> None:
        data = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
        with (self._home / "log").open("ab") as file:
            file.seek(0, os.SEEK_END)
            if file.tell() and not self._ends_whole():
                data = b"\n" + data
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def _ends_whole(self) -> bool:
        with (self._home / "log").open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"

    def _hold_owner(self) -> None:
        """Lock a file for as long as a turn goes on here: the system frees it if the process is killed."""
        if self._alive is None:
            owners = self._home / "owners"
            owners.mkdir(exist_ok=True)
            for path in owners.iterdir():
                if self._is_gone(path.name):
                    path.unlink(missing_ok=True)
            self._alive = (owners / self._owner).open("ab")
            _try_lock(self._alive)

    def _is_gone(self, owner: str) -> bool:
        if owner == self._owner:
            return self._alive is None
        try:
            with (self._home / "owners" / owner).open("rb") as file:
                return _try_lock(file)
        except OSError:
            return True


def _try_lock(file: IO[bytes]) -> bool:
    # Imported here, since Windows lacks it. A `Root` is refused there.
    fcntl: Any = import_module("fcntl")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _kind(before: Entry | None, after: Entry | None) -> ChangeKind:
    if before is None:
        return "added"
    return "deleted" if after is None else "changed"


def _file_diff(path: str, old: Entry | None, new: Entry | None, contents: Any) -> str:
    before, after = (_lines(entry, contents) for entry in (old, new))
    head = f"{path}: {_kind(old, new)}"
    if before is None or after is None:
        return f"{head}, no text\n"
    if old is not None and new is not None and old.id == new.id:
        return f"{head}, the mode from {old.mode:o} to {new.mode:o}\n"
    if len(before) + len(after) > MAX_DIFF_LINES:
        return f"{head}, {len(before)} lines before and {len(after)} after\n"
    names = (f"a/{path}" if old else os.devnull, f"b/{path}" if new else os.devnull)
    lines = difflib.unified_diff(before, after, *names)
    text = "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)
    return text or f"{head}, empty\n"


def _lines(entry: Entry | None, contents: Any) -> list[str] | None:
    """The lines of a file; ``None`` if it is no text."""
    if entry is None:
        return []
    data: bytes = contents[entry.id]
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    # Not `splitlines`, which knows ends of lines that no tool for diffs knows.
    *lines, last = text.split("\n")
    return None if "\0" in text else [*(f"{line}\n" for line in lines), *filter(None, [last])]


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
                if isinstance(error, FileNotFoundError):
                    raise
                where = spelled("/".join(above[:count]))
                raise ToolError(
                    f"{where!r} in {root.path!r} is a link, or no folder: {spelled(path)!r} stays"
                ) from error
            os.close(folder)
            folder = inner
        yield folder, name
    finally:
        os.close(folder)


def _delete(root: Root, path: str) -> None:
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


def _write(root: Root, path: str, entry: Entry, content: bytes) -> None:
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
