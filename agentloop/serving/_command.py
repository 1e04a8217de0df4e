"""``python -m agentloop serve module:agent``, and the commands ``acp`` and ``mcp`` for the standard streams."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import trio

from agentloop._command_line import are_agents, exit_code, find_by_name, is_file, prepare
from agentloop._data_folder import data_folder
from agentloop._runtime.logs import SERVING
from agentloop.agent import Agent
from agentloop.engines._command import store_at
from agentloop.errors import MissingExtraError, UsageError
from agentloop.journal import Store
from agentloop.serving import ALL_PROTOCOLS, BearerTokens, ServedApp, app, run
from agentloop.serving._acp import serve_stdio
from agentloop.serving._service import agents_by_name, checked_offers
from agentloop.stores import MemoryStore, SQLiteStore

__all__ = ["find_served", "main"]

MEMORY = "memory"
"""The word for no file, in the place of one."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command, and return its exit code."""
    options = _parser().parse_args(arguments)
    run_command: Callable[[argparse.Namespace], None] = options.run_command
    prepare(SERVING.name)
    return exit_code(partial(run_command, options))


def _serve(options: argparse.Namespace) -> None:
    served = find_served(options.served)
    if not isinstance(served, ServedApp):
        served = _app(served, options)
    trio.run(partial(run, served, host=options.host, port=options.port, drain_seconds=options.drain))


def _acp(options: argparse.Namespace) -> None:
    agent = find_served(options.served)
    if not isinstance(agent, Agent):
        raise UsageError(f"an editor talks to one Agent, and {options.served} is {type(agent).__name__}")
    store = SQLiteStore(options.store) if options.store else MemoryStore()
    served = cast("Agent[Any, Any]", cast("object", agent))
    trio.run(serve_stdio, served, store, checked_offers([served], options.model or ()))


def _mcp(options: argparse.Namespace) -> None:
    served = find_served(options.served)
    if isinstance(served, ServedApp):
        raise UsageError(f"an MCP client that starts a command talks to agents, and {options.served} is an app")
    try:
        stdio: Any = import_module("agentloop.serving._mcp_stdio")
    except ModuleNotFoundError as error:  # pragma: no cover - the tests have the extra
        if (error.name or "").partition(".")[0] not in ("mcp", "mcp_types"):
            raise
        raise MissingExtraError(feature="python -m agentloop mcp", extra="mcp", package="mcp") from error
    store = SQLiteStore(options.store) if options.store else MemoryStore()
    trio.run(stdio.serve_stdio, agents_by_name(served), store)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m agentloop", description="An agent runtime on trio.")
    offered: dict[str, Any] = {
        "metavar": "NAME",
        "action": "append",
        "help": "a model that users may choose: provider:model, or a name of the agent's own; may come several times",
    }
    commands = parser.add_subparsers(required=True, metavar="command")
    serve = commands.add_parser("serve", help="serve agents over HTTP")
    serve.set_defaults(run_command=_serve)
    serve.add_argument(
        "served",
        metavar="module:name",
        help="an Agent, several of them, or an app of serving.app(); or the YAML file of a team",
    )
    serve.add_argument("--host", default="127.0.0.1", help="the address to listen at (default: %(default)s)")
    serve.add_argument("--port", type=int, default=8000, help="the port (default: %(default)s)")
    serve.add_argument(
        "--store",
        metavar="FILE",
        help="a file of SQLite for the sessions; if not given, one of this user's for module:name; 'memory' for none",
    )
    serve.add_argument(
        "--enqueue",
        metavar="DATABASE",
        help="run no agent here: workers do, on this database (postgresql://user@host/database, or a file of SQLite)",
    )
    serve.add_argument(
        "--protocol", action="append", choices=ALL_PROTOCOLS, help="serve only this protocol; may come several times"
    )
    serve.add_argument("--model", **offered)
    serve.add_argument("--no-page", action="store_true", help="serve no page at /")
    serve.add_argument(
        "--token-variable",
        metavar="NAME",
        action="append",
        help="the environment variable NAME has a bearer token, whose principal is called NAME; may come several times",
    )
    serve.add_argument(
        "--allow-host", metavar="NAME", action="append", help="a name under which clients know the server"
    )
    serve.add_argument(
        "--allow-origin", metavar="ORIGIN", action="append", help="a site whose pages may use the server"
    )
    serve.add_argument(
        "--drain", type=float, default=30.0, metavar="SECONDS", help="time for runs to finish at the end (30)"
    )
    # `agentloop.__main__` runs these, without the extra `serve`. Here they stand in the list of commands.
    commands.add_parser("picture", help="draw the timeline of a session's runs", add_help=False)
    commands.add_parser("snapshots", help="show and undo what turns did to a folder", add_help=False)
    acp = commands.add_parser("acp", help="serve an agent to an editor, over the standard streams (ACP)")
    acp.set_defaults(run_command=_acp)
    acp.add_argument("served", metavar="module:name", help="an Agent, or the YAML file of a team")
    acp.add_argument("--store", metavar="FILE", help="a file of SQLite for the sessions; in memory if not given")
    acp.add_argument("--model", **offered)
    mcp = commands.add_parser("mcp", help="serve agents as tools to an MCP client, over the standard streams")
    mcp.set_defaults(run_command=_mcp)
    mcp.add_argument("served", metavar="module:name", help="an Agent, or several of them; or the YAML file of a team")
    mcp.add_argument("--store", metavar="FILE", help="a file of SQLite for the sessions; in memory if not given")
    # `agentloop.__main__` runs these, without the packages of a server. Here, they are listed.
    commands.add_parser("run", help="talk to an agent, or to the team of a YAML file", add_help=False)
    commands.add_parser("schema", help="print the JSON Schema of the files of teams", add_help=False)
    commands.add_parser("worker", help="drive the sessions of a database that have work", add_help=False)
    return parser


def _app(agents: Any, options: argparse.Namespace) -> ServedApp:
    if options.enqueue and options.store:
        raise UsageError("--enqueue names the database that has the sessions: leave --store out")
    return app(
        agents,
        store=store_at(options.enqueue) if options.enqueue else _store(options.store, options.served),
        enqueue=bool(options.enqueue),
        protocols=options.protocol,
        page=not options.no_page,
        authenticate=_tokens(options.token_variable) if options.token_variable else None,
        hosts=options.allow_host or (),
        origins=options.allow_origin or (),
        models=options.model or (),
    )


def _store(given: str | None, served: str) -> Store:
    """The store of a server: the one that the arguments name, or a file of this user's for what is served."""
    if given == MEMORY:
        SERVING.info("sessions are in memory, and end with the server")
        return MemoryStore()
    path = Path(given) if given else _own_file(served)
    if path is None:
        SERVING.warning("this user has no folder for data: sessions are in memory, and end with the server")
        return MemoryStore()
    SERVING.info("sessions are in %s", path)
    return SQLiteStore(path)


def _own_file(served: str) -> Path | None:
    """The file of the sessions of ``served``, a ``module:name``, in a folder that only this user may read."""
    folder = data_folder()
    if folder is None:
        return None
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return None
    # Of files, there is one of each name in each folder.
    name = str(Path(served).absolute()) if is_file(served) else served
    return folder / f"{re.sub(r'[^A-Za-z0-9_.]+', '-', name)[-200:]}.db"


def _tokens(variables: Sequence[str]) -> BearerTokens:
    missing = [name for name in variables if not os.environ.get(name)]
    if missing:
        raise UsageError(f"the environment variable {missing[0]} has no token")
    return BearerTokens({os.environ[name]: name for name in variables})


def find_served(place: str) -> Any:
    """The agent, the agents or the app at ``module:name``, or the team of a YAML file.

    Raises:
      UsageError: there is no such module, or it has nothing of that name that can be served.
    """
    return find_by_name(place, _is_served, wanted="Agent, and no app of serving.app()", from_file=_team)


def _team(path: str) -> Any:
    # Only here: it needs an extra.
    return import_module("agentloop.declarative._team").load_and_log(path, SERVING)


def _is_served(value: object) -> bool:
    return isinstance(value, ServedApp) or are_agents(value)
