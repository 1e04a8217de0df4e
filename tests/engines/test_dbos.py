"""Workers whose queue is that of DBOS, on a file of SQLite."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import trio

pytest.importorskip("dbos")

import sqlalchemy
import sqlalchemy.event

from agentloop import Agent, Approve, ToolContext, tool
from agentloop.engines import WorkerOptions, answer, dbos as engine, enqueue
from agentloop.errors import UsageError
from agentloop.journal import OpenStore
from agentloop.stores import MemoryStore
from agentloop.testing import FunctionModel, Response, calls
from tests.engines.test_workers import wait_for

pytestmark = [pytest.mark.real_clock, pytest.mark.filterwarnings("ignore::ResourceWarning")]

OPTIONS = WorkerOptions(at_once=4, lease_seconds=1, poll_seconds=0.05, drain_seconds=0.2)


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    # This Python may have an SQLite that DBOS does not work with: see `agentloop.engines.dbos`.
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 99, 0))
    sqlalchemy.event.listen(sqlalchemy.Engine, "connect", _add_unixepoch)
    yield f"sqlite:///{tmp_path}/dbos.db"
    sqlalchemy.event.remove(sqlalchemy.Engine, "connect", _add_unixepoch)


def _add_unixepoch(connection: sqlite3.Connection, record: object) -> None:
    connection.create_function("unixepoch", -1, lambda *modifiers: time.time())


@pytest.fixture
async def store() -> AsyncGenerator[OpenStore]:
    async with MemoryStore().open() as opened:
        yield opened


KEYS: list[str] = []


@tool(idempotent=True)
async def look(context: ToolContext) -> str:
    """Look."""
    KEYS.append(context.idempotency_key)
    await trio.sleep(30 if len(KEYS) == 1 else 0)
    return "seen"


@tool(requires_approval=True)
async def pay() -> str:
    """Pay."""
    await trio.lowlevel.checkpoint()
    return "paid"


def payer(*names: str) -> Agent:
    def respond(request: object) -> Response | str:
        done = (len(request.messages) - 1) // 2  # type: ignore[attr-defined]
        return calls(names[done]) if done < len(names) else "Done."

    return Agent(FunctionModel(respond), name="payer", tools=[look, pay])


async def test_sessions_are_driven_and_a_dead_worker_is_replaced_under_another_name(
    database: str, store: OpenStore
) -> None:
    KEYS.clear()
    path = database.removeprefix("sqlite:///")
    stop = trio.Event()
    await enqueue(store, "cut off", "Look.")
    async with trio.open_nursery() as nursery:

        async def first() -> None:
            await engine.work(store, payer("look"), database=database, options=OPTIONS, stop=stop)

        nursery.start_soon(first)
        while not KEYS:
            await trio.sleep(0.05)
        # It drains, and the tool takes longer.
        stop.set()
    info = await store.info("cut off")
    assert info is not None
    assert (info.state, info.holder) == ("unfinished", "")

    # A worker that died after DBOS had given it this workflow, and before it acquired the session.
    await enqueue(store, "given away", "Pay.")
    with closing(sqlite3.connect(path)) as db, db:
        columns = [row[1] for row in db.execute("PRAGMA table_info(workflow_status)")]
        copied = ", ".join(f'"{name}"' for name in columns if name not in ("workflow_uuid", "status", "inputs"))
        db.execute(
            f"INSERT INTO workflow_status (workflow_uuid, status, inputs, {copied}) "
            f"SELECT 'given away@0', 'PENDING', replace(inputs, 'cut off', 'given away'), {copied} "
            "FROM workflow_status WHERE workflow_uuid = 'cut off@0'"
        )
        db.execute("UPDATE workflow_status SET executor_id = 'dead' WHERE workflow_uuid = 'given away@0'")
    # A worker that found the session held, by one that has renewed its lease after its end.
    await enqueue(store, "held", "Pay.")
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(
            f"INSERT INTO workflow_status (workflow_uuid, status, inputs, {copied}) "
            f"SELECT 'held@0', 'SUCCESS', replace(inputs, 'cut off', 'held'), {copied} "
            "FROM workflow_status WHERE workflow_uuid = 'cut off@0'"
        )
    async with trio.open_nursery() as nursery:
        agents = {"payer": payer("pay")}

        async def second() -> None:
            await engine.work(store, agents, database=database, options=OPTIONS)

        nursery.start_soon(second)
        await wait_for(store, "cut off", "ready")
        await wait_for(store, "given away", "waiting")
        (asked,) = await store.read("given away", kinds=["approval_requested"])
        await answer(store, "given away", asked.key, Approve())
        await wait_for(store, "given away", "ready")
        await wait_for(store, "held", "waiting")
        nursery.cancel_scope.cancel()
    assert len(KEYS) == 2
    assert len(set(KEYS)) == 1


async def test_an_sqlite_that_dbos_does_not_work_with_is_refused(
    database: str, store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 40, 1))
    monkeypatch.setattr("sys.version_info", (3, 13, 0))
    with pytest.raises(UsageError, match=r"DBOS needs SQLite 3\.42"):
        await engine.work(store, payer(), database=database)
