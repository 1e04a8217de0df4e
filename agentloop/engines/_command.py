"""``python -m agentloop worker module:agents --database URL``."""

from __future__ import annotations

import argparse
import logging
import signal
from collections.abc import Sequence
from functools import partial
from importlib import import_module

import trio

from agentloop._command_line import are_agents, exit_code, find_by_name, prepare
from agentloop._runtime.exception_groups import raise_single
from agentloop.agent import Agent
from agentloop.engines._segment import agents_by_name
from agentloop.engines._worker import WorkerOptions, work
from agentloop.journal import Store
from agentloop.stores import SQLiteStore

__all__ = ["main", "store_at"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command, and return its exit code."""
    options = _parser().parse_args(arguments)
    prepare("agentloop.engines")

    def run() -> None:
        trio.run(_work, options)

    return exit_code(run)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m agentloop worker", description="Drive the sessions of a database that have work."
    )
    parser.add_argument(
        "agents",
        metavar="module:name",
        help="an Agent, several of them, or a dict of them by name; or the YAML file of a team",
    )
    parser.add_argument(
        "--database", required=True, metavar="URL", help="postgresql://user@host/database, or a file of SQLite"
    )
    parser.add_argument(
        "--engine",
        choices=("store", "dbos", "restate"),
        default="store",
        help="who has the queue (default: %(default)s)",
    )
    parser.add_argument("--dbos-database", metavar="URL", help="DBOS's system database; the database if not given")
    parser.add_argument(
        "--restate", metavar="URL", default="http://127.0.0.1:8080", help="where Restate takes calls (%(default)s)"
    )
    parser.add_argument(
        "--restate-admin", metavar="URL", default="http://127.0.0.1:9070", help="its admin interface (%(default)s)"
    )
    parser.add_argument(
        "--bind", metavar="HOST:PORT", default="127.0.0.1:9080", help="where Restate calls the worker (%(default)s)"
    )
    parser.add_argument("--address", metavar="URL", default="", help="that of the balancer before several workers")
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
    if options.engine == "restate":
        restate = import_module("agentloop.engines.restate")
        where = {"ingress": options.restate, "admin": options.restate_admin, "bind": options.bind}
        run = partial(restate.work, **where, address=options.address, options=worker_options)
    stop = trio.Event()
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        try:
            async with store_at(database).open() as store, trio.open_nursery() as nursery:

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


def store_at(database: str) -> Store:
    """The store of a database: a URL of PostgreSQL, or a file of SQLite."""
    if not _is_postgres(database):
        return SQLiteStore(database)
    # Only here: it needs an extra.
    store: Store = import_module("agentloop.stores.postgres").PostgresStore(database)
    return store


def _agents(place: str) -> dict[str, Agent]:
    """The agents at ``module:name``, or in a file. Raises `UsageError`."""
    return agents_by_name(find_by_name(place, are_agents, wanted="Agent, and no list or dict of them", from_file=_team))


def _team(path: str) -> Agent:
    # Only here: it needs an extra.
    team: Agent = import_module("agentloop.declarative._team").load_and_log(
        path, logging.getLogger("agentloop.engines")
    )
    return team
