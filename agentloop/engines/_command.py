"""``python -m agentloop worker module:agents --database URL``."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import trio

from agentloop._runtime.exception_groups import raise_single
from agentloop.agent import Agent
from agentloop.engines._segment import agents_by_name
from agentloop.engines._worker import WorkerOptions, work
from agentloop.errors import AgentLoopError, UsageError
from agentloop.journal import Store
from agentloop.stores import SQLiteStore

__all__ = ["main"]

MISUSED = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command, and return its exit code."""
    options = _parser().parse_args(arguments)
    # As `python module.py` would: the module is looked for where the command is.
    sys.path.insert(0, str(Path.cwd()))
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("agentloop.engines").setLevel(logging.INFO)
    try:
        trio.run(_work, options)
    except AgentLoopError as error:
        sys.stderr.write(f"agentloop: {error}\n")
        return MISUSED
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m agentloop worker", description="Drive the sessions of a database that have work."
    )
    parser.add_argument("agents", metavar="module:name", help="an Agent, several of them, or a dict of them by name")
    parser.add_argument(
        "--database", required=True, metavar="URL", help="postgresql://user@host/database, or a file of SQLite"
    )
    parser.add_argument(
        "--engine", choices=("store", "dbos"), default="store", help="who has the queue (default: %(default)s)"
    )
    parser.add_argument("--dbos-database", metavar="URL", help="DBOS's system database; the database if not given")
    parser.add_argument("--at-once", type=int, default=16, metavar="N", help="sessions that run at once (16)")
    parser.add_argument(
        "--lease", type=float, default=30.0, metavar="SECONDS", help="time after which others take over (30)"
    )
    parser.add_argument("--poll", type=float, default=0.5, metavar="SECONDS", help="between two looks for work (0.5)")
    parser.add_argument("--drain", type=float, default=30.0, metavar="SECONDS", help="time for runs at the end (30)")
    return parser


async def _work(options: argparse.Namespace) -> None:
    agents = _agents(options.agents)
    worker_options = WorkerOptions(
        at_once=options.at_once,
        lease_seconds=options.lease,
        poll_seconds=options.poll,
        drain_seconds=options.drain,
    )
    database: str = options.database
    run = partial(work, options=worker_options)
    if options.engine == "dbos":
        dbos = import_module("agentloop.engines.dbos")
        default = database if _is_postgres(database) else f"sqlite:///{database}.dbos"
        run = partial(dbos.work, database=options.dbos_database or default, options=worker_options)
    stop = trio.Event()
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        try:
            async with _store(database).open() as store, trio.open_nursery() as nursery:

                async def wait_for_signals() -> None:
                    async for _ in signals:
                        if stop.is_set():
                            # The second one: the runs are cut off at once.
                            nursery.cancel_scope.cancel()
                        stop.set()

                nursery.start_soon(wait_for_signals)
                await run(store, agents, stop=stop)
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            raise_single(group)


def _is_postgres(database: str) -> bool:
    return database.startswith(("postgresql://", "postgres://"))


def _store(database: str) -> Store:
    if not _is_postgres(database):
        return SQLiteStore(database)
    # Only here: it needs an extra.
    store: Store = import_module("agentloop.stores.postgres").PostgresStore(database)
    return store


def _agents(place: str) -> dict[str, Agent]:
    """The agents at ``module:name``.

    Raises:
      UsageError: there is no such module, or it has no agents of that name.
    """
    module_name, colon, name = place.partition(":")
    if not (module_name and colon and name):
        raise UsageError(f"say where the agents are, as in 'chat:agents' for `agents` in chat.py, and not {place!r}")
    try:
        found: Any = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            # The module is there, and imports one that is not.
            raise
        raise UsageError(f"there is no module {module_name!r} in {Path.cwd()} or in the environment") from None
    for part in name.split("."):
        if not hasattr(found, part):
            raise UsageError(f"module {module_name!r} has no {name!r}")
        found = getattr(found, part)
    if not isinstance(found, (Agent, dict, list, tuple)):
        raise UsageError(f"{place} is no Agent, and no list or dict of them: it is {type(found).__name__}")
    return agents_by_name(cast("list[Agent]", found))
