"""The agent that is a program of its own."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import trio

from agentloop._core.field_checks import shown
from agentloop._sandbox import Sandbox, confine
from agentloop.acp._calls import Pending, Workplace, make_tools
from agentloop.acp._connection import Program
from agentloop.acp._conversation import Conversation
from agentloop.acp._program import Command, Pipes, StreamPipes, open_program
from agentloop.agent import Agent
from agentloop.errors import UsageError
from agentloop.limits import Deadlines, Limits, Retries
from agentloop.models import Model, ModelRequest, Reply, Stop
from agentloop.toolkit._root import Root
from agentloop.toolkit._shell import SAFE_ENV

__all__ = ["ExternalAgent"]

_NOT_ITS_OWN = ("tools", "toolsets", "model", "fallbacks", "models", "choose_model", "handoffs")
"""Options of `Agent` that a program of its own cannot have."""
SILENCE_SECONDS = 1800.0
"""Seconds for which the program may say nothing at all before the run gives it up."""

Connect = Callable[[], AbstractAsyncContextManager[trio.abc.Stream]]


class ExternalAgent(Agent[Any, str]):
    """An agent that is a program of its own, and speaks ACP: Claude Code, Codex, Gemini CLI, or another agentloop.

    ::

        codex = ExternalAgent("codex", ["npx", "-y", "@agentclientprotocol/codex-acp"], folder="/srv/project")
        async with codex.stream("Mend the failing test.") as stream:
            async for event in stream:
                ...

    It is an agent in every other way: `Agent.run`, `Agent.as_tool`, `agentloop.toolkit.transfer_task`, background runs.
    Its words and thoughts are the run's deltas. What it does and asks for are tool calls of the run, marked with
    ``metadata={"external": True}``:

    - ``external_tool`` is a call that it makes of a tool of its own, and ``external_plan`` its plan. If it asks for
      permission, the run's permissions decide first, then a person: the arguments have its ``options``, and approving
      chooses ``option``, which is "allow once" unless the answer replaces it.
    - ``read_file``, ``write_file`` and ``shell`` are requests that this process carries out, in ``folder`` alone.
      Writing and commands need approval.

    agentloop cannot hold back what the program does without asking. Where the permissions deny such a call, or would
    ask about it, and nobody approves, the program's turn is cancelled, and the run fails.

    A session goes on in the program's own session, also in another process, if the program can load sessions;
    otherwise it is told the conversation so far.

    Args:
      name: its name in events, and for other agents.
      command: the program and its arguments.
      connect: in the place of a command, a function that opens a stream to an agent that runs already, as an async
        context manager: a container, a socket.
      folder: the folder that it works in; it must be there.
      env: environment variables to set, such as its key.
      inherit_env: names of variables, or patterns such as ``LC_*``, that it inherits.
      program_sandbox: what the program itself may reach; ``None`` for all that the user may.
      files: whether this process reads and writes files for it.
      terminal: whether this process runs commands for it.
      sandbox: what these commands may reach; ``None`` for all that the user may.
      requires_approval: whether a person approves each file that it has this process write, and each command.
      mcp_servers: servers of MCP that it is to start and use, in ACP's form: ``{"name": "docs", "command": "npx",
        "args": [...]}``, or ``{"name": "docs", "type": "http", "url": "https://..."}``. ``env`` and ``headers`` may be
        plain dicts.
      config: options of its session, by their ids or categories: ``{"mode": "plan", "model": "opus"}``.
      sign_in: id of the way to sign in that the program is told to take when it starts, such as one that reads a key
        from ``env``; ``None`` if it signs in by itself. The error of a program that needs one names the ids.
      start_timeout: seconds for it to start, and to begin a session.
      options: further options of `Agent`, such as ``permissions``, ``hooks`` or ``limits``; none of tools and models.
        By default it has no limit of turns, and ends after half an hour of silence.

    Raises:
      UsageError: an argument is wrong.
    """

    __slots__ = ()

    def __init__(
        self,
        name: str = "agent",
        command: Sequence[str] = (),
        *,
        connect: Connect | None = None,
        folder: str | os.PathLike[str] = ".",
        env: Mapping[str, str] | None = None,
        inherit_env: Collection[str] = SAFE_ENV,
        program_sandbox: Sandbox | None = None,
        files: bool = True,
        terminal: bool = True,
        sandbox: Sandbox | None = None,
        requires_approval: bool = True,
        mcp_servers: Sequence[Mapping[str, Any]] = (),
        config: Mapping[str, str] | None = None,
        sign_in: str | None = None,
        start_timeout: float = 60.0,
        **options: Any,
    ) -> None:
        if not command and connect is None and "model" in options:
            # A copy, as `replace` makes it, with all fields of an agent.
            super().__init__(name=name, **options)
            return
        _check(name, command, connect, options, start_timeout)
        place = str(Path(folder).absolute())
        root = Root(place) if files or terminal else None
        workplace = Workplace(
            folder=place,
            root=root if files else None,
            has_terminal=terminal,
            confinement=None if sandbox is None else confine(sandbox, place),
            requires_approval=requires_approval,
        )
        if connect is None:
            confinement = None if program_sandbox is None else confine(program_sandbox, place)
            line = tuple(command)
            started = Command(
                line=line, folder=place, env=dict(env or {}), inherit_env=tuple(inherit_env), confinement=confinement
            )
            opening: Callable[[], AbstractAsyncContextManager[Pipes]] = partial(open_program, started)
            described, secrets = f"{name!r} (the command {started})", started.secrets
        else:
            opening, described, secrets = partial(_open_stream, connect), repr(name), frozenset[str]()
        pending: dict[str, Pending] = {}
        program = Program(
            name=f"acp:{name}",
            described=described,
            secrets=secrets,
            connect=opening,
            workplace=workplace,
            mcp_servers=[_server(server) for server in mcp_servers],
            config=dict(config or {}),
            sign_in=sign_in,
            start_seconds=start_timeout,
            pending=pending,
        )
        options.setdefault("description", f"The agent {name}, a program of its own that works in {place}.")
        options.setdefault("limits", Limits(turns=float("inf"), identical_turns=float("inf")))
        options.setdefault("deadlines", Deadlines(first_token=SILENCE_SECONDS, idle=SILENCE_SECONDS))
        # A prompt that is sent again would be carried out again.
        options.setdefault("retries", Retries(attempts=1))
        # The program shortens its own conversation.
        options.setdefault("compaction", False)
        super().__init__(_Program(program), name=name, tools=make_tools(workplace, pending), **options)


class _Program:
    """The model of an external agent. Each stream opens it, and has a process of its own."""

    __slots__ = ("_program", "name")

    def __init__(self, program: Program) -> None:
        self._program = program
        self.name = program.name

    def open(self) -> AbstractAsyncContextManager[Model]:
        """Begin a conversation."""
        return Conversation.open(self._program)

    async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
        """Begin a conversation of one response: for a tool or a judge that asks this model."""
        async with Conversation.open(self._program) as conversation:
            return await conversation.respond(request, reply)

    def __repr__(self) -> str:
        return f"<{self.name}>"


@asynccontextmanager
async def _open_stream(connect: Connect) -> AsyncGenerator[Pipes]:
    async with connect() as stream:
        yield StreamPipes(stream)


def _check(name: object, command: object, connect: object, options: Mapping[str, Any], start_timeout: object) -> None:
    if isinstance(command, str):
        raise UsageError(f"ExternalAgent(command={command!r}): give the program and its arguments as a list of texts")
    parts = list(cast("Sequence[object]", command))
    if bool(parts) == (connect is not None):
        raise UsageError(f"ExternalAgent({shown(name)}): give either a command, or connect=")
    for part in parts:
        if not isinstance(part, str) or not part or "\0" in part:
            raise UsageError(f"ExternalAgent(command=...): a part of the command is some text, not {shown(part)}")
    if not isinstance(start_timeout, (int, float)) or not start_timeout > 0:
        raise UsageError(f"ExternalAgent(start_timeout={shown(start_timeout)}): give seconds above 0")
    for option in _NOT_ITS_OWN:
        if option in options:
            raise UsageError(
                f"ExternalAgent({option}=...): the program has its own. Give config={{...}} for its model and mode, "
                "and mcp_servers= for tools"
            )


def _server(server: Mapping[str, Any]) -> dict[str, Any]:
    """A server of MCP in the form of ACP, in which variables and headers are lists."""
    if not isinstance(cast("object", server), Mapping) or not isinstance(server.get("name"), str):
        raise UsageError(f"ExternalAgent(mcp_servers=...): a server is a dict with a name, not {shown(server)}")
    if ("command" in server) == ("url" in server):
        raise UsageError(f"ExternalAgent(mcp_servers=...): server {server['name']!r} has a command or a url")
    is_program = "command" in server
    plain: dict[str, Any] = {"args": [], "env": {}} if is_program else {"type": "http", "headers": {}}
    made: dict[str, Any] = {**plain, **server}
    listed = "env" if is_program else "headers"
    if isinstance(made[listed], Mapping):
        pairs: Mapping[str, str] = made[listed]
        made[listed] = [{"name": key, "value": value} for key, value in pairs.items()]
    return made
