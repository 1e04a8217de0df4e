"""Workers whose queue, retries and recovery are those of DBOS (https://docs.dbos.dev). Needs the extra ``dbos``.

Each segment is a workflow of DBOS. Its id is made of the session and the fencing token of the session's newest lease,
which every segment increases: so many workers that find the same session enqueue one workflow, and a worker that dies
leaves the session with another token, for which the others enqueue the next. A workflow that DBOS had given to a worker
before it died, which had not yet acquired the session, is given to another one after a lease.

So recovery needs neither a process with the executor id of the dead one nor DBOS's conductor: the lease of the session
says that its worker is dead.
"""

from __future__ import annotations

import os
import socket
import sqlite3
import sys
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial

import trio
from attrs import define

from agentloop._runtime.blocks import require_trio
from agentloop._runtime.logs import ENGINES
from agentloop.agent import Agent
from agentloop.engines._queued import Enqueued, Segments
from agentloop.engines._segment import DepsOf, agents_by_name
from agentloop.engines._worker import Driver, WorkerOptions, driving, look, look_until
from agentloop.errors import MissingExtraError, StoreError, UsageError
from agentloop.journal import OpenStore
from agentloop.stores.mailbox import WaitingWork, mailboxes_of

try:
    from dbos import DBOS, DBOSConfig, SetEnqueueOptions, SetWorkflowID
except ImportError as error:
    raise MissingExtraError(feature="agentloop.engines.dbos", extra="dbos", package="dbos") from error

__all__ = ["work"]

QUEUE = "agentloop"
SEGMENT = "agentloop_segment"
VERSION = "agentloop-1"
"""The application version for DBOS, which gives a workflow only to workers of its version. A segment continues in any
version of the program, as a session does."""

BACKLOG = 4
"""Workflows that are enqueued for each slot of a worker, so that the queue seldom runs empty between two looks."""

ATTEMPTS = 3

ENDED = ("SUCCESS", "ERROR", "CANCELLED")
"""States of a workflow that DBOS does not resume."""


async def work(
    store: OpenStore,
    agents: Agent | Mapping[str, Agent] | Sequence[Agent],
    *,
    database: str,
    options: WorkerOptions | None = None,
    deps: DepsOf | None = None,
    stop: trio.Event | None = None,
) -> None:
    """`agentloop.engines.work`, with the queue of DBOS. One worker per process.

    Args:
      store: an open store with mailboxes.
      agents: as for `agentloop.engines.work`; all workers of one database have the same.
      database: the URL of DBOS's system database, ``postgresql://...`` or ``sqlite:///...``. It may be the store's.
      options: how it works.
      deps: as for `Agent.stream`, by the session's id.
      stop: when it is set, the worker drains.

    Raises:
      UsageError: an argument is wrong.
    """
    require_trio("a worker works", in_asyncio="`await agentloop.asyncio.call(work, store, agents)`")
    url = _sqlalchemy_url(database)
    driver = Driver(mailboxes_of(store), agents_by_name(agents), options or WorkerOptions(), deps)
    async with _launched(driver, url) as engine:
        await look_until(stop, partial(look, driver, engine.submit, at_once=lambda: driver.options.at_once * BACKLOG))
        await driver.drain()


@asynccontextmanager
async def _launched(driver: Driver, url: str) -> AsyncGenerator[_Engine]:
    engine: _Engine | None = None
    try:
        async with driving(driver) as nursery:
            engine = _Engine(driver, Segments(driver, nursery), Enqueued(driver.options.lease_seconds))
            await trio.to_thread.run_sync(engine.launch, url)
            yield engine
    finally:
        if engine is not None:
            # Its threads wait for the segments, which have ended here.
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(engine.destroy)


@define(eq=False)
class _Engine:
    driver: Driver
    segments: Segments
    enqueued: Enqueued
    _segment: Callable[[str], str] | None = None

    # ------------------------------------------------------------------------- in threads of DBOS

    def launch(self, url: str) -> None:
        config: DBOSConfig = {
            "name": "agentloop",
            "system_database_url": url,
            "application_version": VERSION,
            "executor_id": f"{socket.gethostname()}-{os.getpid()}-{os.urandom(4).hex()}",
            "sys_db_pool_size": 8,
            "log_level": "ERROR",
        }
        DBOS(config=config)
        options = self.driver.options

        @DBOS.step(
            name="drive",
            retries_allowed=True,
            max_attempts=ATTEMPTS,
            interval_seconds=options.poll_seconds,
            should_retry=lambda error: isinstance(error, StoreError),
        )
        def drive(session: str) -> str:
            return self.drive_from_thread(session)

        @DBOS.workflow(name=SEGMENT, max_recovery_attempts=None)
        def segment(session: str) -> str:
            return drive(session)

        self._segment = segment
        DBOS.launch()
        DBOS.register_queue(
            QUEUE,
            worker_concurrency=options.at_once,
            polling_interval_sec=min(options.poll_seconds, 1.0),
            on_conflict="always_update",
        )

    def drive_from_thread(self, session: str) -> str:
        """Drive a segment in the worker's trio, and return the session's state."""
        segment = self.segments.begin(session).result()
        return "" if segment is None else segment.state

    def enqueue(self, work: WaitingWork, *, count: int) -> None:
        """Enqueue a segment that was enqueued ``count`` times before, a lease ago at least."""
        assert self._segment is not None
        workflow = f"{work.session}@{work.token}"
        status = DBOS.get_workflow_status(workflow) if count else None
        if status is not None and status.status in ENDED:
            # It found the session held: by a busy worker, which has renewed a lease that had ended, with its token.
            workflow = f"{workflow}+{count}"
            status = DBOS.get_workflow_status(workflow)
        if status is not None:
            if status.status not in ("ENQUEUED", "DELAYED"):
                # Its worker died, or gave up, before it acquired the session.
                DBOS.resume_workflow(workflow, queue_name=QUEUE)
            return
        # A smaller number goes first: a run that was cut off does not wait behind new prompts.
        with SetWorkflowID(workflow), SetEnqueueOptions(priority=1 if work.is_unfinished else 2):
            DBOS.enqueue_workflow(QUEUE, self._segment, work.session)

    @staticmethod
    def destroy() -> None:
        DBOS.destroy(destroy_registry=True)

    # ---------------------------------------------------------------------------------- in trio

    async def submit(self, work: WaitingWork) -> None:
        count = self.enqueued.count(work)
        if count is None:
            return
        try:
            await trio.to_thread.run_sync(partial(self.enqueue, work, count=count))
        except Exception as error:  # noqa: BLE001 - of SQLAlchemy, of psycopg or of DBOS, and tried again
            ENGINES.warning("session %r: DBOS cannot enqueue it, and is asked again: %s", work.session, error)
            self.enqueued.forget(work)


def _sqlalchemy_url(database: str) -> str:
    """The URL as SQLAlchemy spells it, for psycopg 3.

    Raises:
      UsageError: DBOS does not work with the SQLite of this Python.
    """
    if database.startswith("sqlite:") and sys.version_info >= (3, 12) and sqlite3.sqlite_version_info < (3, 42):
        # DBOS reads the time with `unixepoch('subsec')`, which gives NULL there.
        raise UsageError(f"DBOS needs SQLite 3.42, and this is {sqlite3.sqlite_version}: use PostgreSQL, or no engine")
    for scheme in ("postgresql://", "postgres://"):
        if database.startswith(scheme):
            return f"postgresql+psycopg://{database.removeprefix(scheme)}"
    return database
