"""How many sessions workers drive in a second: ``python -m tests.engines.bench --workers 1 3 --engine none``.

Each session is one prompt with a run of four turns and three tool calls, one of them approved by this program, so two
segments, with a model and tools that take no time. The figures are of the machine and of the database together; the
report has what each of them was busy with.

    AGENTLOOP_POSTGRES=/usr/lib/postgresql/16/bin python -m tests.engines.bench
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psycopg
import trio

from agentloop import Approve
from agentloop.engines import answer, enqueue
from agentloop.journal import READY, WAITING
from tests.engines.killing import empty
from tests.engines.program import open_store
from tests.stores.postgres import running_postgres


async def measure(url: str, workers: int, engine: str, sessions: int, at_once: int, model_seconds: float) -> str:
    """Drive ``sessions`` sessions, and say how fast it was."""
    empty(url)
    used = _used()
    async with open_store(url).open() as store:
        async with trio.open_nursery() as nursery:
            for number in range(sessions):
                nursery.start_soon(enqueue, store, f"s{number}", "Pay.")
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "tests.engines.program", url, str(Path(folder) / "effects"), engine]
            command += ["30", str(at_once), str(model_seconds)]
            processes = _start(command, workers)
            try:
                for process in processes:
                    assert process.stdout is not None
                    await trio.to_thread.run_sync(process.stdout.readline)
                before = _busy(url)
                first, done, answered = 0.0, set[str](), set[str]()
                while len(done) < sessions:
                    await trio.sleep(0.25)
                    for info in await store.sessions(limit=sessions):
                        if info.state == WAITING and info.id not in answered:
                            answered.add(info.id)
                            for record in await store.read(info.id, kinds=["approval_requested"]):
                                await answer(store, info.id, record.key, Approve())
                        elif info.state == READY:
                            done.add(info.id)
                    first = first or (time.monotonic() if done or answered else 0.0)
                took = time.monotonic() - first
                commits = _busy(url) - before
            finally:
                for process in processes:
                    process.terminate()
                    process.wait()
    used = _used() - used
    return (
        f"{engine}, {workers} workers, {at_once} at once, model and tools {model_seconds:g} s: {sessions / took:.1f} "
        f"sessions/s ({2 * sessions / took:.1f} segments/s), {commits / sessions:.0f} transactions per session, "
        f"{used / sessions * 1000:.0f} ms of the workers' processors per session"
    )


def _start(command: list[str], workers: int) -> list[subprocess.Popen[bytes]]:
    return [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(workers)]


def _used() -> float:
    """Seconds of processors that the workers have used which have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _busy(url: str) -> int:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SELECT pg_stat_clear_snapshot()")
        row = connection.execute(
            "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
        ).fetchone()
    assert row is not None
    count: int = row[0]
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--engine", nargs="+", default=["none", "dbos"])
    parser.add_argument("--sessions", type=int, default=300)
    parser.add_argument("--at-once", type=int, default=16)
    parser.add_argument("--model-seconds", type=float, default=0.0)
    options = parser.parse_args()
    with running_postgres(Path(os.environ["AGENTLOOP_POSTGRES"])) as url:
        for engine in options.engine:
            for workers in options.workers:
                arguments = (workers, engine, options.sessions, options.at_once, options.model_seconds)
                print(trio.run(measure, url, *arguments), flush=True)


if __name__ == "__main__":
    main()
