"""What a turn did to the files of a folder: listed, shown as a diff, and put back."""

from __future__ import annotations

import difflib
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

import msgspec
import trio

from agentloop import hooks
from agentloop._data_folder import data_folder
from agentloop.errors import ToolError, UsageError
from agentloop.events import Source
from agentloop.hooks import Hook, PreToolUse, SessionEnd, SessionStart, TurnEnd, TurnStart
from agentloop.toolkit import _put_back
from agentloop.toolkit._files import IGNORED, MAX_FILE_BYTES
from agentloop.toolkit._root import Root
from agentloop.toolkit._snapshot_log import Began, Ended, Log, SnapshotLog, Undone
from agentloop.toolkit._trees import CopiedTrees, Entry, GitTrees, Trees, find_repository
from agentloop.toolkit._walk import spelled

__all__ = ["FileChange", "Snapshots", "TurnChanges"]

T = TypeVar("T")

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


class _Turn(msgspec.Struct):
    """A turn that goes on here."""

    source: Source
    number: int
    """Its number in the stream; 0 if another process began it."""
    id: int | None = None
    """Its number in the folder, as soon as a tool was called."""


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
      store: the folder in which snapshots are kept, outside of ``folder``; in this user's data folder by default.
      ignore: names, or patterns of names, of files and folders that are left out where there is no git repository.
      max_bytes: larger files are left out.

    Raises:
      UsageError: the folder is not there, the system cannot confine paths to it (Windows), there is no data folder,
        or the store lies in the folder.
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
        store = os.path.realpath(store)
        if store == self._root.path or store.startswith(self._root.path.rstrip("/") + "/"):
            raise UsageError(f"Snapshots({self._root.path!r}, store={store!r}): keep them outside of the folder")
        name = hashlib.sha256(os.fsencode(self._root.path)).hexdigest()[:16]
        self._log = SnapshotLog(Path(store) / name)
        self._ignore = tuple(ignore)
        self._max_bytes = max_bytes
        self._places: dict[str, Trees] = {}
        self._turns: dict[str, _Turn] = {}
        """The turns that go on here, by their streams."""
        self._taking = trio.Lock()
        self.hooks: Sequence[Hook] = self._make_hooks(tools)
        """The hooks that take the snapshots, for ``Agent(hooks=...)``."""

    def _make_hooks(self, tools: str | Sequence[str]) -> Sequence[Hook]:
        # Async, although some have nothing to wait for: a plain function gets a thread.
        async def snapshot_session_start(start: SessionStart) -> None:  # noqa: ASYNC124
            # A turn that another process began is resumed without a start of its own.
            self._turns[start.source.stream] = _Turn(start.source, 0)

        async def snapshot_turn_start(start: TurnStart) -> None:  # noqa: ASYNC124
            self._turns[start.source.stream] = _Turn(start.source, start.turn)

        async def snapshot_pre_tool_use(call: PreToolUse) -> None:
            await self._begin(call.source.stream)

        async def snapshot_turn_end(end: TurnEnd) -> None:
            await self._end(end.source.stream)

        async def snapshot_session_end(end: SessionEnd) -> None:
            await self._end(end.source.stream)

        return (
            hooks.session_start(snapshot_session_start),
            hooks.turn_start(snapshot_turn_start),
            hooks.pre_tool_use(tools=tools)(snapshot_pre_tool_use),
            hooks.turn_end(snapshot_turn_end),
            hooks.session_end(snapshot_session_end),
        )

    # ------------------------------------------------------------------------------ turns

    async def _begin(self, stream: str) -> None:
        """Take a snapshot before a tool of ``stream`` is called, unless the outermost turn around the call has one."""
        async with self._taking:
            # The id of a child's stream begins with that of the stream in which it was opened.
            around = [id for id in self._turns if stream == id or stream.startswith(f"{id}.")]
            turn = self._turns.get(min(around, key=len, default=""))
            if turn is not None and turn.id is None:
                await self._in_thread(self._write_began, turn)

    def _write_began(self, turn: _Turn) -> None:
        name, trees = self._place_now()
        tree = trees.capture()
        log = self._log.read()
        # The turns of processes that were killed have ended by now.
        gone = [began for began in log.began.values() if began.id not in log.ended and not self._goes_on(began)]
        ended = [Ended(began.id, tree if began.trees == name else self._place(began).capture()) for began in gone]
        self._log.hold()
        id = max(log.began, default=0) + 1
        began = Began(id, name, tree, turn.source, turn.number, time.time(), self._log.owner)
        try:
            self._log.append([*ended, began])
            turn.id = id
        finally:
            self._release_if_idle()

    async def _end(self, stream: str) -> None:
        turn = self._turns.pop(stream, None)
        if turn is None or turn.id is None:
            await trio.lowlevel.checkpoint()
            return
        # Should this be cancelled, the turn has ended all the same: the next snapshot says so in the log.
        async with self._taking:
            await self._in_thread(self._write_ended, turn.id)

    def _write_ended(self, id: int) -> None:
        try:
            began = self._log.read().began.get(id)
            if began is not None:
                self._log.append([Ended(id, self._place(began).capture())])
        finally:
            self._release_if_idle()

    def _release_if_idle(self) -> None:
        if all(turn.id is None for turn in self._turns.values()):
            self._log.release()

    def _goes_on(self, began: Began) -> bool:
        if began.owner == self._log.owner:
            return any(turn.id == began.id for turn in self._turns.values())
        return not self._log.is_gone(began.owner)

    # --------------------------------------------------------------------- what users call

    async def turns(self, *, limit: int = 50) -> list[TurnChanges]:
        """The turns that changed files, the latest first.

        Args:
          limit: at most this many turns.

        Raises:
          ToolError: the snapshots cannot be read.
        """
        return await self._in_thread(self._list, limit)

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

    def _list(self, limit: int) -> list[TurnChanges]:
        log = self._log.read()
        listed: list[TurnChanges] = []
        for began in reversed(log.began.values()):
            if len(listed) >= limit:
                break
            turn = self._described(log, began)
            if turn.files:
                listed.append(turn)
        return listed

    def _described(self, log: Log, began: Began) -> TurnChanges:
        changed = self._place(began).changed(began.tree, self._tree_after(log, began))
        return TurnChanges(
            began.id,
            began.source,
            began.turn,
            began.time,
            tuple(FileChange(spelled(path), _kind(*entries)) for path, entries in sorted(changed.items())),
            is_open=began.id not in log.ended,
            is_undone=began.id in log.undone,
        )

    def _tree_after(self, log: Log, began: Began) -> str:
        return log.ended.get(began.id) or self._place(began).capture()

    def _chosen(self, log: Log, id: int | None) -> tuple[Began, str]:
        """A turn, and the tree after it."""
        if id is not None and id in log.began:
            return log.began[id], self._tree_after(log, log.began[id])
        if id is None:
            for began in reversed(log.began.values()):
                if began.id not in log.undone and (after := self._tree_after(log, began)) != began.tree:
                    return began, after
        which = "turn that changed a file" if id is None else f"turn {id}"
        raise UsageError(f"there is no {which} in {self._root.path!r}: `turns()` lists those that there are")

    def _diff(self, id: int | None) -> str:
        began, after = self._chosen(self._log.read(), id)
        trees = self._place(began)
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
        log = self._log.read()
        began, after = self._chosen(log, id)
        if began.id in log.undone:
            raise UsageError(f"turn {began.id} was undone already")
        if began.id not in log.ended and self._goes_on(began):
            raise UsageError(f"turn {began.id} goes on: stop its run before it is undone")
        trees = self._place(began)
        now = trees.capture()
        changed, since = trees.changed(began.tree, after), trees.changed(after, now)
        # By path: the entry that the file has now, and the one that it gets.
        back = {path: (since[path][1] if path in since else new, old) for path, (old, new) in changed.items()}
        # What has come back to what it was before is put back already.
        back = {path: (present, old) for path, (present, old) in back.items() if present != old}
        again = [spelled(path) for path in back if path in since]
        if again and not force:
            names = ", ".join(again[:5]) + (", ..." if len(again) > 5 else "")
            raise UsageError(f"turn {began.id} is not undone, since files were changed again after it: {names}")
        contents = trees.contents(entry.id for _, entry in back.values() if entry is not None)
        # The deepest first, so that a folder is empty when a file gets its name.
        for path, (_, entry) in sorted(back.items(), reverse=True):
            if entry is None:
                _put_back.delete(self._root, path)
        for path, (_, entry) in sorted(back.items()):
            if entry is not None:
                _put_back.write(self._root, path, entry, contents[entry.id])
        self._log.append([*([] if began.id in log.ended else [Ended(began.id, now)]), Undone(began.id)])
        return [FileChange(spelled(path), _kind(*entries)) for path, entries in sorted(back.items())]

    def _clear(self) -> None:
        log = self._log.read()
        for id, began in log.began.items():
            if id not in log.ended and self._goes_on(began):
                raise UsageError(f"turn {id} goes on: stop its run before the snapshots are deleted")
        # The log first: without it, the rest is of no use.
        (self._log.home / "log").unlink(missing_ok=True)
        for entry in self._log.home.iterdir():
            # Not the locks: another process may wait for them.
            if entry.name not in ("lock", "owners"):
                shutil.rmtree(entry)

    # ---------------------------------------------------------------------------- the store

    async def _in_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        def locked() -> T:
            with self._log.locked():
                return function(*arguments)

        # Not abandoned when it is cancelled: the thread looks for a cancel itself where it can stop.
        return await trio.to_thread.run_sync(locked)

    def _place_now(self) -> tuple[str, Trees]:
        """The place for a new tree: the folder may have become a repository, or be one no more."""
        repository = find_repository(self._root.path)
        name = CopiedTrees.name if repository is None else GitTrees.name_for(repository)
        if name not in self._places:
            home = self._log.home / name
            self._places[name] = (
                CopiedTrees(self._root.path, home, self._ignore, self._max_bytes)
                if repository is None
                else GitTrees(self._root.path, home, repository, self._max_bytes)
            )
        return name, self._places[name]

    def _place(self, began: Began) -> Trees:
        """The place of the trees of a turn.

        Raises:
          ToolError: it was in a git repository that is not there any more.
        """
        if began.trees == CopiedTrees.name and began.trees not in self._places:
            home = self._log.home / CopiedTrees.name
            self._places[CopiedTrees.name] = CopiedTrees(self._root.path, home, self._ignore, self._max_bytes)
        if began.trees not in self._places:
            self._place_now()
        if began.trees not in self._places:
            raise ToolError(f"turn {began.id} was in a git repository that {self._root.path!r} is no part of any more")
        return self._places[began.trees]


def _kind(before: Entry | None, after: Entry | None) -> ChangeKind:
    if before is None:
        return "added"
    return "deleted" if after is None else "changed"


def _file_diff(path: str, old: Entry | None, new: Entry | None, contents: Mapping[str, bytes]) -> str:
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


def _lines(entry: Entry | None, contents: Mapping[str, bytes]) -> list[str] | None:
    """The lines of a file; ``None`` if it is no text."""
    if entry is None:
        return []
    try:
        text = contents[entry.id].decode()
    except UnicodeDecodeError:
        return None
    # Not `splitlines`, which knows ends of lines that no tool for diffs knows.
    *lines, last = text.split("\n")
    return None if "\0" in text else [*(f"{line}\n" for line in lines), *filter(None, [last])]
