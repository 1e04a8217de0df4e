"""Programs that tests start, and kill: ``python -m tests.stores.program race|sweep|torn ...``."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import trio

from agentloop.errors import SequenceError
from agentloop.journal import Record, Store
from agentloop.stores import SQLiteStore, sqlite
from agentloop.stores.sqlite import connect

SESSIONS = ("a", "b", "c")
BATCHES = ((1, 2), (3, 3), (4, 6))
"""The numbers of the first and the last record of each addition to each session."""


async def race(store: Store, name: str, target: int) -> None:
    """Add to one session, as others do, until it has ``target`` records. Print the numbers that were ours."""
    async with store.open() as opened:
        print("ready", flush=True)
        sys.stdin.readline()
        seq = 0
        while seq < target:
            try:
                await opened.append("s", [Record(seq + 1, "by", json.dumps(name).encode())])
            except SequenceError:
                info = await opened.info("s")
                seq = info.records if info is not None else 0
            else:
                seq += 1
                print(seq, flush=True)


async def work(path: Path, tell: Callable[[str], object]) -> None:
    """Add to three sessions at once, answer, take leases; tell of each deed when it is done."""
    async with SQLiteStore(path).open() as store:

        async def add(session: str) -> None:
            lease = await store.acquire(session, "worker", seconds=60)
            for first, last in BATCHES:
                new = [Record(seq, "said", b'{"batch":[%d,%d]}' % (first, last)) for seq in range(first, last + 1)]
                await store.append(session, new, lease=lease)
                tell(f"added {session} {last}")
            if await store.answer(session, "q", b"true"):
                tell(f"answered {session}")
            await store.release(lease)

        async with trio.open_nursery() as nursery:
            for session in SESSIONS:
                nursery.start_soon(add, session)
        await store.fork("a", "d", upto=3)
        tell("added d 3")
        await store.delete("b")
        tell("deleted b")


def killed_at(path: Path, statement: int) -> tuple[list[str], bool]:
    """Run `work` in a process that kills itself before its n-th statement. What it told, and whether it was killed."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        left = [statement]

        def count(_: str) -> None:
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)

        def connect_and_count(*args: object, **kwargs: object) -> sqlite3.Connection:
            db = connect(*args, **kwargs)  # type: ignore[arg-type]
            db.set_trace_callback(count)
            return db

        sqlite.connect = connect_and_count
        try:
            trio.run(work, path, lambda line: os.write(writer, f"{line}\n".encode()))
        except Exception as error:  # noqa: BLE001 - this process has nobody else to tell it to
            os.write(writer, f"failed {error!r}\n".encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as lines:
        told = lines.read().splitlines()
    _, status = os.waitpid(pid, 0)
    return told, os.WIFSIGNALED(status)


def problems(path: Path, told: list[str]) -> list[str]:
    """What is wrong with the file, given what its writer has told."""
    found: list[str] = []
    with closing(sqlite3.connect(path)) as db:
        found += [row[0] for row in db.execute("PRAGMA integrity_check") if row[0] != "ok"]
        if not db.execute("SELECT 1 FROM sqlite_master").fetchone():
            return [*found, *(["no tables"] if told else [])]
        lasts = dict(db.execute("SELECT id, last FROM agentloop_sessions"))
        seqs: dict[str, list[int]] = {}
        for session, last, kinds in db.execute(
            "SELECT session, seq, kinds FROM agentloop_records ORDER BY session, seq"
        ):
            seqs.setdefault(session, []).extend(range(last - len(json.loads(kinds)) + 1, last + 1))
        answered = {row[0] for row in db.execute("SELECT session FROM agentloop_answers")}
    ends = {last for _, last in BATCHES}
    for session, last in lasts.items():
        if seqs.pop(session, []) != list(range(1, last + 1)):
            found.append(f"session {session} has gaps")
        if last not in ends:
            found.append(f"session {session} has part of an addition: it ends with {last}")
    found += [f"session {session} has records and is not there" for session in seqs]
    for line in told:
        match line.split():
            case ["added", session, last] if lasts.get(session, 0) < int(last):
                # It may have been deleted, as the last deed, and then it is gone whole.
                if session != "b" or lasts.get("d") is None or "b" in lasts:
                    found.append(f"{line}, but it ends with {lasts.get(session)}")
            case ["answered", session] if session not in answered and session in lasts:
                found.append(f"{line}, but it is not")
            case ["deleted", session] if session in lasts or session in answered:
                found.append(f"{line}, but it is there")
            case ["failed", *_]:
                found.append(line)
            case _:
                pass
    return found


def sweep(folder: Path) -> None:
    """Kill the worker before each statement, and look at what it left; print what there is to say."""
    found: list[str] = []
    statement, killed, lines = 0, True, 0
    while killed:
        path = folder / f"{statement}.db"
        told, killed = killed_at(path, statement)
        lines = len(told)
        found += [f"killed before statement {statement}: {problem}" for problem in problems(path, told)]
        statement += 1
    print(json.dumps({"points": statement - 1, "told": lines, "problems": found}))


def torn(folder: Path) -> None:
    """Cut what a dead writer left in its log at many places; print what there is to say."""
    path = folder / "whole.db"
    told, killed = killed_at(path, 70)
    assert killed, "the worker came to its end"
    log = (folder / "whole.db-wal").read_bytes()
    found: list[str] = []
    # A frame of the log is 24 bytes and a page; cuts fall into every part of one, sooner or later.
    cuts = range(0, len(log) + 1, 1009)
    for cut in cuts:
        copy = folder / f"cut{cut}.db"
        shutil.copyfile(path, copy)
        copy.with_name(f"{copy.name}-wal").write_bytes(log[:cut])
        found += [f"cut at {cut}: {problem}" for problem in problems(copy, [])]
    found += problems(path, told)
    print(json.dumps({"cuts": len(cuts), "problems": found}))


def main() -> None:
    what, place, *more = sys.argv[1:]
    if what == "race":
        store: Store
        if "://" in place:
            from agentloop.stores.postgres import PostgresStore

            store = PostgresStore(place)
        else:
            store = SQLiteStore(place)
        trio.run(partial(race, store, more[0], int(more[1])))
    else:
        {"sweep": sweep, "torn": torn}[what](Path(place))


if __name__ == "__main__":
    main()
