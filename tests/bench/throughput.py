"""Events a second: how fast runs save what happens in them, one run alone and many at once, by the wall's clock."""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path

import trio

from agentloop import Session
from agentloop.journal import OpenStore, Store
from agentloop.stores import SQLiteStore, stored_session
from tests.bench import ours
from tests.bench.figures import Measured, NotMeasuredError
from tests.bench.measure import Samples, median, ratio
from tests.bench.work import add, turns
from tests.stores.postgres import running_postgres

__all__ = ["on_postgres", "on_sqlite"]

AGENT = ours.agent_for(turns(20), add)


async def _run(store: OpenStore | None) -> int:
    """Run the agent in a session of its own, and read its events."""
    if store is None:
        return await _read(Session())
    async with stored_session(store) as session:
        return await _read(session)


async def _read(session: Session) -> int:
    async with AGENT.stream("go", session=session) as stream:
        return sum([1 async for _ in stream])


async def _seconds_per_event(store: OpenStore | None, runs: int) -> float:
    events = 0

    async def run() -> None:
        nonlocal events
        count = await _run(store)
        events += count

    gc.collect()
    began = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(runs):
            nursery.start_soon(run)
    return (time.perf_counter() - began) / events


async def _measure(store: Store, runs: int, rounds: int) -> Measured:
    saved: Samples = []
    unsaved: Samples = []
    async with store.open() as opened:
        await _seconds_per_event(opened, 1)
        for _ in range(rounds):
            saved.append(await _seconds_per_event(opened, runs))
            unsaved.append(await _seconds_per_event(None, runs))
    note = f"{1 / median(saved):,.0f} events a second; without a journal {1 / median(unsaved):,.0f}"
    return Measured(ours=median(saved) * 1e6, bare=median(unsaved) * 1e6, value=ratio(saved, unsaved), note=note)


def _rounds(runs: int, quick: bool) -> int:
    return 2 if quick else 5 if runs > 100 else 15


def on_sqlite(runs: int) -> Callable[[bool], Measured]:
    """So many runs at once, which save their events in one file."""

    def measure(quick: bool) -> Measured:
        with tempfile.TemporaryDirectory(prefix="agentloop-bench-") as folder:
            store = SQLiteStore(Path(folder) / "sessions.db")
            return trio.run(_measure, store, runs, _rounds(runs, quick))

    return measure


def on_postgres(runs: int) -> Callable[[bool], Measured]:
    """So many runs at once, which save their events on one server on this machine."""

    def measure(quick: bool) -> Measured:
        initdb = shutil.which("initdb")
        programs = os.environ.get("AGENTLOOP_POSTGRES") or (initdb and Path(initdb).resolve().parent)
        if not programs:
            raise NotMeasuredError("no PostgreSQL is installed here")
        with ExitStack() as stack:
            url = stack.enter_context(running_postgres(Path(programs)))
            store: Store = import_module("agentloop.stores.postgres").PostgresStore(url)
            return trio.run(_measure, store, runs, _rounds(runs, quick))

    return measure
