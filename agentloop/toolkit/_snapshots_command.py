"""``python -m agentloop snapshots FOLDER``: lists what turns changed, shows it, and undoes it."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

import trio

from agentloop._command_line import exit_code
from agentloop.toolkit._snapshots import FileChange, Snapshots, TurnChanges

__all__ = ["main"]

SHOWN_FILES = 5


def main(arguments: Sequence[str]) -> int:
    """Run the command, and return its exit code."""
    options = _parser().parse_args(arguments)

    def run() -> None:
        sys.stdout.write(trio.run(_run, options))

    return exit_code(run)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m agentloop snapshots",
        description="List the turns that changed the files of a folder, show a turn as a diff, or undo it.",
    )
    parser.add_argument("folder", metavar="FOLDER", help="the folder of the agent's `Snapshots`")
    parser.add_argument("action", nargs="?", choices=("list", "diff", "undo"), default="list")
    parser.add_argument("turn", nargs="?", type=int, metavar="TURN", help="its number; the latest one if not given")
    parser.add_argument("--force", action="store_true", help="undo files that were changed again since then, too")
    parser.add_argument("--store", metavar="FOLDER", help="where the snapshots are, if not in the user's data folder")
    return parser


async def _run(options: argparse.Namespace) -> str:
    files = Snapshots(options.folder, store=options.store)
    if options.action == "diff":
        return await files.diff(options.turn)
    if options.action == "undo":
        done = await files.undo(options.turn, force=options.force)
        return "".join(f"{_words(change)}\n" for change in done) or "The files are as they were before the turn.\n"
    lines = [_line(turn) for turn in await files.turns()]
    return "".join(lines) or f"No turn has changed files in {options.folder}.\n"


def _line(turn: TurnChanges) -> str:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(turn.time))
    names = ", ".join(_words(change) for change in turn.files[:SHOWN_FILES])
    more = f", and {len(turn.files) - SHOWN_FILES} more" if len(turn.files) > SHOWN_FILES else ""
    state = " (undone)" if turn.is_undone else " (goes on, or was cut off)" if turn.is_open else ""
    return f"{turn.id}  {when}  {turn.source.agents[0]}: {names}{more}{state}\n"


def _words(change: FileChange) -> str:
    return f"{change.kind} {change.path}"
