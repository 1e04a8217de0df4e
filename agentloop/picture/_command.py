"""``python -m agentloop picture SESSION --store chats.db -o run.html``."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TypeVar

import trio

from agentloop._command_line import exit_code
from agentloop.errors import UsageError
from agentloop.journal import OpenStore, SessionInfo
from agentloop.picture._html import draw_html
from agentloop.picture._perfetto import draw_trace
from agentloop.picture._spans import Timeline
from agentloop.picture._text import draw_text
from agentloop.picture._timeline import timeline
from agentloop.stores import SQLiteStore

__all__ = ["main", "read_picture"]

T = TypeVar("T")

FORMATS = ("html", "perfetto", "text")
SHORT = 2000
"""A session with fewer records is drawn within some milliseconds."""

LISTED = 1000
"""How many sessions are looked at for a name that is like the one that was given."""


def main(arguments: Sequence[str]) -> int:
    """Run the command, and return its exit code."""
    options = _parser().parse_args(arguments)

    def draw() -> None:
        _write(options, trio.run(_read, Path(options.store), options.session))

    return exit_code(draw)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m agentloop picture",
        description="Draw the timeline of a session's runs: where the time went, and what waited for what.",
    )
    parser.add_argument("session", metavar="SESSION", help="the id of a session, or its title")
    parser.add_argument("--store", metavar="FILE", required=True, help="the file of SQLite that has the session")
    parser.add_argument("-o", "--output", metavar="FILE", help="the file to write; the standard output if not given")
    parser.add_argument(
        "--format",
        choices=FORMATS,
        help="html: one page for a browser; perfetto: a trace for ui.perfetto.dev; text: a tree for a terminal. If not "
        "given, the ending of the output decides: .html, .json or any other",
    )
    return parser


async def _read(file: Path, session: str) -> Timeline:
    path = trio.Path(file)
    if not await path.is_file():
        try:
            names = [found.name for found in await path.parent.iterdir()]
        except OSError:
            names = []
        raise UsageError(f"there is no file {str(file)!r}{_nearest(file.name, names)}")
    async with SQLiteStore(file).open() as store:
        return await read_picture(store, await _found(store, session, file), lambda drawn: drawn, now=time.time())


async def _found(store: OpenStore, session: str, file: Path) -> SessionInfo:
    info = await store.info(session)
    if info is not None:
        return info
    infos = await store.sessions(limit=LISTED)
    titled = [info for info in infos if info.title == session]
    if len(titled) == 1:
        return titled[0]
    if titled:
        ids = ", ".join(info.id for info in titled[:5])
        raise UsageError(f"{len(titled)} sessions have the title {session!r}: name one of them by its id: {ids}")
    if not infos:
        raise UsageError(f"{str(file)!r} has no sessions")
    names = [name for info in infos for name in (info.id, info.title) if name]
    newest = f"; its newest session is {infos[0].id!r}"
    raise UsageError(f"{str(file)!r} has no session {session!r}{_nearest(session, names) or newest}")


def _nearest(name: str, names: Sequence[str]) -> str:
    near = get_close_matches(name, names, n=1)
    return f": did you mean {near[0]!r}?" if near else ""


async def read_picture(store: OpenStore, info: SessionInfo, draw: Callable[[Timeline], T], *, now: float) -> T:
    """Read a session, and draw its timeline: in a thread if the session is long, since that takes up to a second.

    Raises:
      StoreError: the store cannot be read.
    """
    records = await store.read(info.id)
    # A run whose session no process holds is not running: it ended with its process.
    moment = now if info.holder else None

    def drawn() -> T:
        return draw(timeline(records, info=info, now=moment))

    return drawn() if len(records) < SHORT else await trio.to_thread.run_sync(drawn)


def _write(options: argparse.Namespace, drawn: Timeline) -> None:
    ending = Path(options.output or "").suffix.lower()
    form = options.format or {".html": "html", ".htm": "html", ".json": "perfetto"}.get(ending, "text")
    if form == "html":
        data = draw_html(drawn).encode()
    elif form == "perfetto":
        data = draw_trace(drawn)
    else:
        encoding = "utf-8" if options.output else sys.stdout.encoding or "ascii"
        columns = 100 if options.output else shutil.get_terminal_size((100, 24)).columns
        data = draw_text(drawn, width=columns, encoding=encoding).encode(encoding)
    if options.output:
        try:
            Path(options.output).write_bytes(data)
        except OSError as error:
            raise UsageError(f"{options.output!r} cannot be written: {error.strerror}") from error
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
