"""MCP servers as toolsets. Does not import the SDK before a server is opened."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, TypedDict, Unpack, cast
from urllib.parse import urlsplit

from attrs import frozen

from agentloop._core.redaction import redacted_url
from agentloop._sandbox import Sandbox, confine
from agentloop.commands import Command
from agentloop.context import ToolContext
from agentloop.errors import MissingExtraError, UsageError
from agentloop.mcp._config import Http, InProcess, ServerConfig, Stdio
from agentloop.mcp._rounds import PendingInput
from agentloop.messages import ToolResult
from agentloop.models import Model
from agentloop.tools import IfInterrupted, OpenToolset

__all__ = ["McpServer", "OpenServer"]


class OpenServer(OpenToolset, Protocol):
    """A server that has been started.

    The server's tools call it by themselves. `begin`, `answer` and `go_on` are for a tool of yours that calls the
    server round by round, and saves the server's questions in a place of its own.
    """

    async def call(self, tool: str, arguments: Mapping[str, Any], context: ToolContext[Any], /) -> ToolResult:
        """Call the server's ``tool``, and have the user answer the server's questions.

        Args:
          tool: the server's name for it, without the prefix.
          arguments: as the tool's JSON Schema has them.
          context: of the tool call on whose behalf this call is made; questions and progress go to its stream.

        Raises:
          McpError: the server refused the call, or gave no usable answer; the message says which.
          ServerGoneError: the server died or was stopped. The next call starts it again.
        """
        ...

    async def begin(
        self, tool: str, arguments: Mapping[str, Any], context: ToolContext[Any], /
    ) -> ToolResult | PendingInput:
        """Run the first round of a call. Arguments and errors as for `call`.

        Returns:
          The result, or the questions that the server wants answered first.
        """
        ...

    async def answer(self, pending: PendingInput, context: ToolContext[Any], /) -> dict[str, Any]:
        """Have the user answer the questions of ``pending``, one after the other.

        Returns:
          The protocol's result for each question, as JSON, by the question's key.

        Raises:
          McpError: the server asked a question of a kind that its configuration does not allow.
        """
        ...

    async def go_on(
        self, pending: PendingInput, answers: Mapping[str, Any], context: ToolContext[Any], /
    ) -> ToolResult | PendingInput:
        """Run one more round of a call, which may have begun in another process.

        Args:
          pending: the last round.
          answers: the return value of `answer`.
          context: as for `call`.

        Returns:
          As for `begin`.

        Raises:
          McpStateError: the server no longer knows the state of the call. Begin it again.
          McpError: as for `call`.
        """
        ...


class _Options(TypedDict, total=False):
    name: str
    prefix: str
    allow: Sequence[str]
    deny: Sequence[str]
    mode: str
    timeout: float | None
    max_timeout: float | None
    start_timeout: float
    stop_timeout: float
    optional: bool
    concurrency: int | None
    max_restarts: int
    max_processes: int
    prompts: bool
    resources: bool
    elicitation: bool
    ask_secrets: bool
    roots: Sequence[str | os.PathLike[str]]
    sampling: Model | str | None
    sampling_tools: bool
    approve_sampling: bool
    requires_approval: bool | Callable[[dict[str, Any]], bool]
    if_interrupted: IfInterrupted | None
    trust_annotations: bool
    deferred: bool | None


@frozen(kw_only=True, eq=False)
class McpServer(ServerConfig):
    """An MCP server, as a toolset for agents: its tools, its instructions, its questions.

    One task owns the connection from start to stop; calls run in the tasks that make them. When a server dies, its
    running calls fail, and the next call starts it again. The server's questions go to the stream whose call
    caused them.

    A run on a stored session can be parked while the server asks, and resumed in another process. From protocol
    2026-07-28 on, the resumed call continues in the round that it was in. With an older server, or one that no longer
    knows the call's state (a server of the Python SDK remembers it for ten minutes and one process by default), the
    tool is **called again from its beginning**, and a question that it repeats gets the same answer. So, as with a tool
    of your own, side effects before the question happen twice; ``elicitation=False`` rules that out.

    The fields are those of `ServerConfig`. Make one with `stdio` or `http`.

    Raises:
      UsageError: a field has a value that its line does not allow.
    """

    @classmethod
    def stdio(
        cls,
        command: str | os.PathLike[str],
        *args: str,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        sandbox: Sandbox | None = None,
        **options: Unpack[_Options],
    ) -> McpServer:
        """A program to start, in a process tree of its own: ``McpServer.stdio("uvx", "mcp-server-git")``.

        Args:
          command: the program: a name on the ``PATH``, or a path. Its stem is the default ``name``. On Windows, a
            script needs its ending: ``"npx.cmd"``.
          *args: the program's arguments.
          env: added to the few variables that the program inherits: ``PATH``, ``HOME`` and the like.
          cwd: the folder to start the program in.
          sandbox: what the program may reach, see `agentloop.toolkit.Sandbox`; ``None`` for all that the user may. Its
            ``read=`` must have the program, if that is not below ``/usr``.
          **options: the other fields of `ServerConfig`.

        Raises:
          UsageError: the sandbox cannot be made here.
        """
        command = os.fspath(command)
        options.setdefault("name", Path(command).stem)
        confinement = None if sandbox is None else confine(sandbox, cwd)
        return cls(target=Stdio(command, args, env, cwd, confinement), **cast("Any", options))

    @classmethod
    def http(
        cls, url: str, *, headers: Mapping[str, str] | None = None, auth: Any = None, **options: Unpack[_Options]
    ) -> McpServer:
        """A server at ``url``, such as ``"https://example.org/mcp"``.

        Args:
          url: an ``http`` or ``https`` URL. Its host is the default ``name``.
          headers: sent with each request.
          auth: an ``httpx2.Auth``, such as the SDK's OAuth provider.
          **options: the other fields of `ServerConfig`.
        """
        try:
            parts = urlsplit(url)
            _ = parts.port
        except ValueError:
            # Without the cause: its message may quote a password.
            parts = None
        if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"McpServer.http() takes an http or https URL, not {redacted_url(url)!r}")
        options.setdefault("name", parts.hostname)
        return cls(target=Http(url, headers, auth), **cast("Any", options))

    @classmethod
    def in_process(cls, server: Any, **options: Unpack[_Options]) -> McpServer:
        """A server object of the SDK, such as an ``MCPServer``. For tests.

        Args:
          server: the object. Its ``name`` is the default ``name``.
          **options: the other fields of `ServerConfig`.
        """
        options.setdefault("name", str(getattr(server, "name", None) or "mcp"))
        return cls(target=InProcess(server), **cast("Any", options))

    def open(self) -> AbstractAsyncContextManager[OpenServer]:
        """Start the server, and stop it when the block ends. Agents do this for each stream.

        Raises:
          MissingExtraError: the SDK is not installed.
          McpError: on entering: the server does not start; the message says why.
        """
        opened: AbstractAsyncContextManager[OpenServer] = _pool_module().open_server(self)
        return opened

    async def commands(self) -> dict[str, Command]:
        """Slash commands for the server's prompts, by name: ``server:prompt``. Starts the server, and stops it again.

        ::

            github = McpServer.stdio("github-mcp", prompts=True)
            agent = Agent(model, toolsets=[github], commands={**mine, **await github.commands()})

        A command has the model call ``get_prompt`` with what was typed after the name, and do what the prompt says: a
        prompt that takes one argument gets all of it, others a part each. A prompt whose name cannot be that of a
        command is left out.

        Raises:
          UsageError: the server has not ``prompts=True``, without which the model could not get a prompt.
          MissingExtraError: the SDK is not installed.
          McpError: the server does not start, or cannot list its prompts.
        """
        if not self.prompts:
            raise UsageError(f"McpServer {self.name!r} gives the model no prompts: make it with prompts=True")
        commands: dict[str, Command] = await _pool_module().list_commands(self)
        return commands


def _pool_module() -> Any:
    try:
        return import_module("agentloop.mcp._connection_pool")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("agentloop"):
            raise
        raise MissingExtraError(feature="An MCP server", extra="mcp", package="mcp") from error
