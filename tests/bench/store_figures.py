"""What keeping a session in a file costs, next to sqlite3 used by hand.

Commits by the wall's clock, since most of it is waiting.

``python -m tests.bench.store_figures memory|bare-memory COUNT`` is a program of its own, for a fresh process.
"""

from __future__ import annotations

import gc
import json
import sqlite3
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from unittest.mock import patch

import trio

from agentloop import Agent, ToolContext, tool
from agentloop.journal import OpenStore, Record
from agentloop.stores import MemoryStore, SQLiteStore, stored_session
from agentloop.stores._group_commit import Outcome, Write
from agentloop.stores.sqlite import _Connection
from agentloop.testing import Response, ScriptedModel, calls
from tests.bench import ours as our_side
from tests.bench.figures import Measured
from tests.bench.measure import alternate_here, in_fresh_process, median, ratio, rss_kb
from tests.bench.work import add, turns as turns_of

__all__ = ["commits", "memory", "opening", "turns"]

SYNC_SECONDS = 0.0025
"""What a common disk takes to make a write durable. Those of rented machines often say that it is, and it is not."""

DATA = json.dumps({"type": "message_committed", "text": "word " * 60}).encode()


@contextmanager
def _file() -> Generator[Path]:
    with tempfile.TemporaryDirectory(prefix="agentloop-bench-") as folder:
        yield Path(folder) / "sessions.db"


def _records(first: int, last: int) -> list[Record]:
    return [Record(seq, "message_committed", DATA, stream="st1") for seq in range(first, last + 1)]


@contextmanager
def _slow_disk() -> Generator[None]:
    """Make each transaction take as long as on a disk of `SYNC_SECONDS`, while the block runs."""
    commit = _Connection.commit

    def slow(connection: _Connection, works: Sequence[Write]) -> Sequence[Outcome]:
        done = commit(connection, works)
        time.sleep(SYNC_SECONDS)
        return done

    with patch.object(_Connection, "commit", slow):
        yield


async def _seconds_per_commit(store: SQLiteStore, name: str, sessions: int, each: int) -> float:
    async def run(session: str) -> None:
        for seq in range(1, each + 1):
            await opened.append(session, _records(seq, seq), lease=leases[session])

    async with store.open() as opened:
        names = [f"{name}-{number}" for number in range(sessions)]
        leases = {session: await opened.acquire(session, "bench", seconds=600) for session in names}
        began = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for session in names:
                nursery.start_soon(run, session)
        return (time.perf_counter() - began) / (sessions * each)


async def _one_and_many(store: SQLiteStore, quick: bool) -> tuple[float, float]:
    """Seconds per commit: of a session alone, and of 64 at once."""
    one, many = list[float](), list[float]()
    for number in range(1 if quick else 5):
        one.append(await _seconds_per_commit(store, f"one{number}", 1, 50 if quick else 200))
        many.append(await _seconds_per_commit(store, f"many{number}", 64, 10 if quick else 50))
    return median(one), median(many)


def commits(quick: bool) -> Measured:
    """A commit of 64 sessions at once, against one of a session alone. On a slow disk; the real one is noted."""
    with _file() as path:
        real_one, real_many = trio.run(_one_and_many, SQLiteStore(path, synchronous="full"), quick)
    with _file() as path, _slow_disk():
        one, many = trio.run(_one_and_many, SQLiteStore(path), quick)
    note = (
        f"{1 / many:,.0f} against {1 / one:,.0f} a second on a disk of {SYNC_SECONDS * 1e3:g} ms; this machine's says "
        f"that it takes {real_one * 1e3:.1f} ms: {1 / real_many:,.0f} against {1 / real_one:,.0f}"
    )
    return Measured(ours=many * 1e6, bare=one * 1e6, value=many / one, note=note)


def turns(quick: bool) -> Measured:
    """20 turns with one tool call each, in a session whose journal is in a file, against a run without a session.

    By the wall's clock, since some of it is waiting. Noted: a session whose journal is in memory.
    """
    plan = turns_of(20)
    agent = our_side.agent_for(plan, add)

    async def in_store(store: OpenStore) -> None:
        async with stored_session(store) as session:
            outcome = await agent.run("Go.", session=session)
        assert outcome.output == "Done."

    async def run(path: Path) -> dict[str, list[float]]:
        async with SQLiteStore(path).open() as file, MemoryStore().open() as memory:
            works = {
                "ours": lambda: in_store(file),
                "bare": lambda: agent.run("Go."),
                "memory": lambda: in_store(memory),
            }
            return await alternate_here(works, rounds=5 if quick else 41, repeat=3, clock=time.perf_counter)

    with _file() as path:
        samples = trio.run(run, path)
    return Measured(
        ours=median(samples["ours"]) * 1e3,
        bare=median(samples["bare"]) * 1e3,
        value=ratio(samples["ours"], samples["bare"]),
        note=f"with the journal in memory {ratio(samples['memory'], samples['bare']):.1f}x",
    )


def opening(quick: bool) -> Measured:
    """To open a file, and in it a session of 10,000 messages, as runs of 20 turns have written it."""
    count = 10_000

    async def fill(path: Path) -> int:
        async with SQLiteStore(path).open() as store, stored_session(store, "s") as session:
            while len(session.messages) < count:
                await agent.run("Go.", session=session)
            return len(await store.read("s"))

    async def ours(path: Path) -> float:
        began = time.process_time()
        async with SQLiteStore(path).open() as store, stored_session(store, "s") as session:
            seconds = time.process_time() - began
            assert len(session.messages) >= count
        return seconds

    def bare(path: Path) -> float:
        began = time.process_time()
        with closing(sqlite3.connect(path)) as db:
            db.execute("SELECT * FROM agentloop_records WHERE session = 's' ORDER BY seq").fetchall()
        return time.process_time() - began

    script: list[Response | str] = [*(calls("add", a=number, b=2) for number in range(20)), "Done."]
    agent = Agent(ScriptedModel(*script, repeat=True), tools=[add])
    samples: dict[str, list[float]] = {"ours": [], "bare": []}
    with _file() as path:
        records = trio.run(fill, path)
        for _ in range(3 if quick else 21):
            gc.collect()
            samples["ours"].append(trio.run(ours, path) * 1e3)
            samples["bare"].append(bare(path) * 1e3)
    note = f"{records:,} records; by hand: all of them read, and none decoded"
    return Measured(
        ours=median(samples["ours"]), bare=median(samples["bare"]), value=median(samples["ours"]), note=note
    )


def memory(quick: bool) -> Measured:
    """What a process grows by while a run tells, and keeps, so many events, beyond what the first tenth took."""
    count = 20_000 if quick else 100_000
    sides = ("memory", "bare-memory")
    ours, bare = (in_fresh_process("-m", "tests.bench.store_figures", side, str(count)) for side in sides)
    return Measured(ours=ours, bare=bare, value=ours, note=f"{count:,} events")


async def _memory(path: Path, count: int) -> float:
    grown = 0.0

    @tool(timeout=float("inf"))
    async def work(context: ToolContext[None]) -> str:
        """Tell how far it is."""
        nonlocal grown
        before = 0.0
        for number in range(count):
            await context.progress(number, message="word " * 60)
            if number == count // 10:
                gc.collect()
                before = rss_kb()
        gc.collect()
        grown = rss_kb() - before
        return "Done."

    async with SQLiteStore(path).open() as store, stored_session(store, "s") as session:
        agent = Agent(ScriptedModel(calls("work"), "Done."), tools=[work])
        async with agent.stream("Go.", session=session) as stream:
            told = sum([1 async for _ in stream])
        assert told >= count
        assert len(await store.read("s")) >= count
    return grown


def _bare_memory(path: Path, count: int) -> float:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        db.execute("CREATE TABLE records (seq INTEGER PRIMARY KEY, data BLOB)")
        before = 0.0
        for seq in range(1, count + 1):
            db.execute("INSERT INTO records VALUES (?, ?)", (seq, DATA))
            if seq == count // 10:
                before = rss_kb()
        return rss_kb() - before


def main() -> None:
    side, count = sys.argv[1], int(sys.argv[2])
    with _file() as path:
        print(trio.run(_memory, path, count) if side == "memory" else _bare_memory(path, count))


if __name__ == "__main__":
    main()
