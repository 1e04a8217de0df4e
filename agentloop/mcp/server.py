"""What there is to say of an MCP server: where it is, and how it may be used. Imports no SDK."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from fnmatch import fnmatchcase
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, TypedDict, Unpack, cast
from urllib.parse import urlsplit

from attrs import field, frozen

from agentloop.context import ToolContext
from agentloop.errors import UsageError
from agentloop.mcp.pending import PendingInput
from agentloop.messages import ToolResult
from agentloop.models import Model
from agentloop.tools import IfInterrupted, OpenToolset

__all__ = ["Http", "InProcess", "McpServer", "OpenServer", "Stdio"]


@frozen
class Stdio:
    """A program that is started, and spoken to over its standard input and output."""

    command: str
    args: tuple[str, ...] = ()
    env: Mapping[str, str] | None = field(default=None, repr=False)
    """Added to the few variables that are passed on: ``PATH``, ``HOME`` and the like."""
    cwd: str | os.PathLike[str] | None = None


@frozen
class Http:
    """A server at a URL (streamable HTTP)."""

    url: str
    headers: Mapping[str, str] | None = field(default=None, repr=False)
    auth: Any = field(default=None, repr=False)
    """An ``httpx2.Auth``, such as the SDK's OAuth provider."""


@frozen
class InProcess:
    """A server object of the SDK, in this very process. For tests."""

    server: Any


class OpenServer(OpenToolset, Protocol):
    """A server that has been started.

    Its tools do all of this by themselves. The rounds of a call are here for a tool of yours that makes one, and keeps
    its questions in a place of its own.
    """

    async def call(self, tool: str, arguments: Mapping[str, Any], context: ToolContext[Any], /) -> ToolResult:
        """Call the server's ``tool``, and answer what it asks meanwhile.

        Raises:
          McpError: the server refused, answered with nonsense, or is gone.
        """
        ...

    async def begin(
        self, tool: str, arguments: Mapping[str, Any], context: ToolContext[Any], /
    ) -> ToolResult | PendingInput:
        """The first round of a call: its result, or what the server wants to know first.

        Raises:
          McpError: as for `call`.
        """
        ...

    async def answer(self, pending: PendingInput, context: ToolContext[Any], /) -> dict[str, Any]:
        """Have the questions of ``pending`` answered, one after the other.

        Raises:
          McpError: the server asked what cannot be answered.
        """
        ...

    async def go_on(
        self, pending: PendingInput, answers: Mapping[str, Any], context: ToolContext[Any], /
    ) -> ToolResult | PendingInput:
        """One more round of a call, from what there was of it, maybe in another process, and the answers.

        Args:
          answers: results for the ``requests``, by their keys, as `answer` gives them.

        Raises:
          McpStateError: the server does not know the state any more.
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
    start_timeout: float
    stop_timeout: float
    concurrency: int | None
    max_restarts: int
    sessions: int
    asks: bool
    ask_secrets: bool
    roots: Sequence[str | os.PathLike[str]]
    sampling: Model | str | None
    approve_sampling: bool
    requires_approval: bool | Callable[[dict[str, Any]], bool]
    if_interrupted: IfInterrupted | None
    hints: bool


def _patterns(given: Sequence[str]) -> tuple[str, ...]:
    if isinstance(given, str):
        raise UsageError(f"allow= and deny= take a list of patterns, not {given!r}: put it in brackets")
    return tuple(given)


def _uris(given: Sequence[str | os.PathLike[str]]) -> tuple[str, ...]:
    if isinstance(given, (str, os.PathLike)):
        raise UsageError(f"roots= takes a list, not {given!r}: put it in brackets")
    return tuple(
        one if isinstance(one, str) and one.startswith("file://") else Path(one).absolute().as_uri() for one in given
    )


@frozen(kw_only=True, eq=False)
class McpServer:
    """An MCP server, as a toolset for agents: its tools, its instructions, its questions.

    One task owns the connection from its start to its stop; calls run in the tasks that make them. A server that
    dies fails the calls that it was busy with, and is started again by the next call. Its questions go to the
    stream whose call made it ask.

    A run on a stored session can be parked while the server asks, and resumed when it runs in another process. From
    protocol 2026-07-28 on, the call goes on in the round in which it was. With an older server, or one that does not
    know its state any more (a server of the Python SDK keeps it for ten minutes, and for one process, unless told
    otherwise), the tool is **called once more, from its beginning**, and what it asks again is answered as it was: like
    a tool of your own, so what it does before it asks is done twice. Where that must not be, say ``asks=False``.
    """

    target: Stdio | Http | InProcess
    name: str
    """What errors and the model call it."""
    prefix: str = ""
    """Put before the name of each tool: ``"files_"`` for ``files_read``."""
    allow: tuple[str, ...] = field(default=("*",), converter=_patterns)
    """Globs: only tools whose name, without the prefix, matches one of them are there."""
    deny: tuple[str, ...] = field(default=(), converter=_patterns)
    """Globs: tools whose name matches one of them are not there, whatever ``allow`` says."""
    mode: str = "auto"
    """``"legacy"`` for protocols up to 2025-11-25, ``"2026-07-28"`` for that one, ``"auto"`` to find out."""
    timeout: float | None = None
    """Seconds that a call may take; ``None`` for the agent's ``Deadlines.tool``. A person's thinking time is free."""
    start_timeout: float = 30.0
    """Seconds for a start, from the program to its first answer."""
    stop_timeout: float = 4.0
    """Seconds to stop in order. Then it is cut off, and its processes are killed."""
    concurrency: int | None = None
    """How many calls it may have at once, from all streams; ``None`` for any number."""
    max_restarts: int = 3
    """How often it may be started again within five minutes, each time by a call, and after a pause that doubles."""
    sessions: int = 1
    """How many processes to start at most, where each can serve only one stream at a time; see ``asks``."""
    asks: bool = True
    """Whether it may ask: the user for input, or ``sampling`` for an answer.

    A question of an older server over stdio does not say which call it belongs to. So that it goes to the right
    stream, such a server serves one stream at a time: the calls of others wait, or have a process of their own if
    there may be more ``sessions``. With ``asks=False`` it cannot ask, and serves all at once.
    """
    ask_secrets: bool = False
    """Whether to show forms that ask for passwords, keys or tokens. Servers must not send such forms."""
    roots: tuple[str, ...] = field(default=(), converter=_uris)
    """Folders that the server is told it may work in: paths, or ``file://`` URIs."""
    sampling: Model | str | None = None
    """The model that answers when the server asks for one; ``None``, and it cannot."""
    approve_sampling: bool = True
    """Whether a person must agree each time that the server asks for the model."""
    requires_approval: bool | Callable[[dict[str, Any]], bool] = False
    """As for `Tool`, for all of its tools."""
    if_interrupted: IfInterrupted | None = None
    """As for `Tool`, for all of its tools; ``None`` goes by their ``hints``. A call that has an open question is not
    in doubt: it goes on, as one that was parked."""
    hints: bool = True
    """Whether to believe it that a tool only reads, or may be called twice. Permissions go by it, and whether a call
    that was interrupted is made again: ``False`` for a server that you do not trust."""

    def __attrs_post_init__(self) -> None:
        if self.mode not in ("auto", "legacy") and not re.fullmatch(r"\d{4}-\d\d-\d\d", self.mode):
            raise UsageError(f"McpServer(mode={self.mode!r}): give 'auto', 'legacy', or a version such as '2026-07-28'")
        if self.if_interrupted not in (None, "retry", "ask", "report"):
            raise UsageError(f"McpServer(if_interrupted={self.if_interrupted!r}): say 'retry', 'ask' or 'report'")
        if not self.name:
            raise UsageError("an MCP server needs a name")
        for option in ("start_timeout", "stop_timeout", "sessions"):
            if not getattr(self, option) > 0:
                raise UsageError(f"McpServer({option}={getattr(self, option)!r}): give a number above 0")
        if self.concurrency is not None and self.concurrency < 1:
            raise UsageError(f"McpServer(concurrency={self.concurrency!r}): give a number above 0, or None")

    @classmethod
    def stdio(
        cls,
        command: str | os.PathLike[str],
        *args: str,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        **options: Unpack[_Options],
    ) -> McpServer:
        """A program to start, in a process group of its own: ``McpServer.stdio("uvx", "mcp-server-git")``.

        Args:
          env: added to the few variables that are passed on: ``PATH``, ``HOME`` and the like.
          cwd: the folder to start it in.
          options: those of `McpServer`.
        """
        command = os.fspath(command)
        options.setdefault("name", Path(command).stem)
        return cls(target=Stdio(command, args, env, cwd), **cast("Any", options))

    @classmethod
    def http(
        cls, url: str, *, headers: Mapping[str, str] | None = None, auth: Any = None, **options: Unpack[_Options]
    ) -> McpServer:
        """A server at ``url``, such as ``"https://example.org/mcp"``.

        Args:
          headers: sent with each request.
          auth: an ``httpx2.Auth``, such as the SDK's OAuth provider.
          options: those of `McpServer`.
        """
        if urlsplit(url).scheme not in ("http", "https"):
            raise UsageError(f"McpServer.http() takes an http or https URL, not {url!r}")
        options.setdefault("name", urlsplit(url).hostname or "mcp")
        return cls(target=Http(url, headers, auth), **cast("Any", options))

    @classmethod
    def in_process(cls, server: Any, **options: Unpack[_Options]) -> McpServer:
        """A server object of the SDK, such as an ``MCPServer``. For tests."""
        options.setdefault("name", str(getattr(server, "name", None) or "mcp"))
        return cls(target=InProcess(server), **cast("Any", options))

    def open(self) -> AbstractAsyncContextManager[OpenServer]:
        """Start it, and stop it when the block ends. Agents do this for each stream.

        Raises:
          MissingExtraError: the SDK is not installed.
          McpError: on entering: it does not start.
        """
        # First, since it is the one that says what to install: what it needs itself is not there either.
        import_module("agentloop.mcp._sdk")
        opened: AbstractAsyncContextManager[OpenServer] = import_module("agentloop.mcp._serving").open_server(self)
        return opened

    def offers(self, tool: str) -> bool:
        """Whether the server's tool of that name is one to offer."""
        return any(fnmatchcase(tool, glob) for glob in self.allow) and not any(
            fnmatchcase(tool, glob) for glob in self.deny
        )
