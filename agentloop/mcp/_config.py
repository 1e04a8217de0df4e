"""Configuration of an MCP server: where it is, and how it may be used. Does not import the SDK."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from attrs import field, frozen

from agentloop._core.redaction import (
    redacted_arguments,
    redacted_url,
    secrets_of_arguments,
    secrets_of_fields,
    secrets_of_url,
)
from agentloop._sandbox import Confinement
from agentloop.errors import UsageError
from agentloop.models import Model
from agentloop.tools import IfInterrupted

__all__ = ["Http", "InProcess", "ServerConfig", "Stdio"]


@frozen
class Stdio:
    """A server that is a program to start. It speaks over its standard input and output."""

    command: str
    """The program: a name on the ``PATH``, or a path."""
    args: tuple[str, ...] = field(default=(), repr=lambda arguments: repr(redacted_arguments(arguments)))
    """The arguments of the program. ``repr`` and errors show none of the secrets among them."""
    env: Mapping[str, str] | None = field(default=None, repr=False)
    """Added to the few variables that the program inherits: ``PATH``, ``HOME`` and the like."""
    cwd: str | os.PathLike[str] | None = None
    """The folder to start the program in; ``None`` for the current one."""
    confinement: Confinement | None = field(default=None, repr=False)
    """The sandbox that the program runs in; ``None`` for none."""

    @property
    def secrets(self) -> frozenset[str]:
        """The texts that no error may show."""
        return frozenset(secrets_of_arguments(self.args) | secrets_of_fields(self.env or {}))


_HARMLESS = ("accept", "accept-language", "content-type", "origin", "referer", "user-agent")
"""Headers whose values errors may show."""


@frozen
class Http:
    """A server at a URL, over the protocol's "streamable HTTP" transport."""

    url: str = field(repr=lambda url: repr(redacted_url(url)))
    """An ``http`` or ``https`` URL. ``repr`` and errors show no password, no value of the query, and no key in it."""
    headers: Mapping[str, str] | None = field(default=None, repr=False)
    """Sent with each request."""
    auth: Any = field(default=None, repr=False)
    """An ``httpx2.Auth``, such as the SDK's OAuth provider."""

    @property
    def secrets(self) -> frozenset[str]:
        """The texts that no error may show."""
        headers = {name: value for name, value in (self.headers or {}).items() if name.lower() not in _HARMLESS}
        # A header of a name that is not known may be a key too. A short value occurs in ordinary words.
        values = {value for value in headers.values() if len(value) >= 8}
        return frozenset(secrets_of_url(self.url) | secrets_of_fields(headers) | values)


@frozen
class InProcess:
    """A server object in this process. For tests."""

    server: Any
    """An object of the SDK, such as an ``MCPServer``."""

    @property
    def secrets(self) -> frozenset[str]:
        """The texts that no error may show."""
        return frozenset()


def _patterns(patterns: Sequence[str]) -> tuple[str, ...]:
    if isinstance(patterns, str):
        raise UsageError(f"allow= and deny= take a list of patterns, not {patterns!r}: put it in brackets")
    return tuple(patterns)


def _uris(folders: Sequence[str | os.PathLike[str]]) -> tuple[str, ...]:
    if isinstance(folders, (str, os.PathLike)):
        raise UsageError(f"roots= takes a list, not {folders!r}: put it in brackets")
    return tuple(
        folder if isinstance(folder, str) and folder.startswith("file://") else Path(folder).absolute().as_uri()
        for folder in folders
    )


@frozen(kw_only=True, eq=False)
class ServerConfig:
    """The fields of an `McpServer`. Separate from it, so that a connection need not import what opens connections."""

    target: Stdio | Http | InProcess
    """Where the server is."""
    name: str
    """The server's name in errors, and in the prompt that carries its instructions."""
    prefix: str = ""
    """Put before the name of each tool: ``"files_"`` makes ``files_read``."""
    allow: tuple[str, ...] = field(default=("*",), converter=_patterns)
    """Globs (`fnmatch`). Only tools whose name, without the prefix, matches one of them are offered to the model."""
    deny: tuple[str, ...] = field(default=(), converter=_patterns)
    """Globs. Tools whose name matches one of them are not offered, even if ``allow`` matches."""
    mode: str = "auto"
    """The protocol: ``"legacy"`` for versions up to 2025-11-25, ``"2026-07-28"`` for that version only, ``"auto"`` to
    negotiate."""
    timeout: float | None = None
    """Seconds that a call may take; ``None`` for the agent's ``Deadlines.tool``. Time in which a person thinks does not
    count."""
    max_timeout: float | None = None
    """Seconds that a call may take in all while it reports progress: each report then starts ``timeout`` anew. ``None``
    if progress changes nothing."""
    start_timeout: float = 30.0
    """Seconds for a start, from launching the program to the end of the protocol's handshake."""
    stop_timeout: float = 4.0
    """Seconds for an orderly stop. Then the connection is cut, and the server's processes are killed."""
    optional: bool = False
    """Whether a run goes on without the server if it does not start. A warning says why, and later turns try the server
    again; see `agentloop.toolsets.optional`."""
    concurrency: int | None = None
    """At most this many calls at once, over all streams; ``None`` for no limit."""
    max_restarts: int = 3
    """At most this many restarts after crashes within five minutes. A call causes a restart, after a pause that doubles
    each time from 0.25 to 10 seconds."""
    max_processes: int = 1
    """At most this many processes (or connections), where each can serve only one stream at a time; see
    ``elicitation``."""
    prompts: bool = False
    """Whether the model gets tools to list the server's prompts, and to get one filled in (``list_prompts`` and
    ``get_prompt``, with the ``prefix``), if the server has some. `McpServer.commands` makes slash commands of them."""
    resources: bool = False
    """Whether the model gets tools to list the server's resources, templates of such included, and to read one
    (``list_resources`` and ``read_resource``, with the ``prefix``), if the server has resources. Each reads what there
    is now, so announcements that a resource was updated are of no use, and none are subscribed to."""
    elicitation: bool = True
    """Whether the server may ask the user for input.

    A question of a server with an older protocol over stdio does not name the call that it belongs to. So that a
    question reaches the right stream, such a server serves one stream at a time: calls of other streams wait, or get a
    process of their own up to ``max_processes``. Without elicitation and ``sampling``, one process serves all streams
    at once.
    """
    ask_secrets: bool = False
    """Whether to show forms that ask for passwords, keys or tokens. The protocol forbids servers to send such forms."""
    roots: tuple[str, ...] = field(default=(), converter=_uris)
    """Folders that the server may work in, as the protocol's "roots": paths, or ``file://`` URIs."""
    sampling: Model | str | None = None
    """The model that answers the server's sampling requests; ``None`` refuses them. A string goes to `find_model`.

    The requests count for the limits of the stream whose call is running; its agent's retries, prices, deadlines and
    ``before_llm_call`` hooks apply. At a limit, the server gets an error.
    """
    sampling_tools: bool = False
    """Whether sampling requests may have tools, which the server calls itself: it may then run a loop of its own on the
    model, request by request, each under the limits of the run (`Limits.requests`) and with an approval of its own."""
    approve_sampling: bool = True
    """Whether the user must approve each sampling request."""
    requires_approval: bool | Callable[[dict[str, Any]], bool] = False
    """As for `Tool`, for all tools of the server."""
    if_interrupted: IfInterrupted | None = None
    """As for `Tool`, for all tools of the server; ``None`` decides by the tool's annotations. A call with an open
    question has a known state: it continues like a parked one."""
    trust_annotations: bool = True
    """Whether to believe the server's annotations that a tool only reads, or may be called twice. Permissions use them,
    and so does the decision whether to repeat an interrupted call. Set ``False`` for a server that you do not trust."""
    deferred: bool | None = None
    """As for `Tool`, for all tools of the server."""

    def __attrs_post_init__(self) -> None:
        if self.mode not in ("auto", "legacy") and not re.fullmatch(r"\d{4}-\d\d-\d\d", self.mode):
            raise UsageError(f"McpServer(mode={self.mode!r}): give 'auto', 'legacy', or a version such as '2026-07-28'")
        if self.if_interrupted not in (None, "retry", "ask", "report"):
            raise UsageError(f"McpServer(if_interrupted={self.if_interrupted!r}): say 'retry', 'ask' or 'report'")
        if not self.name:
            raise UsageError("an MCP server needs a name")
        for option in ("start_timeout", "stop_timeout", "max_processes"):
            if not getattr(self, option) > 0:
                raise UsageError(f"McpServer({option}={getattr(self, option)!r}): give a number above 0")
        if self.max_timeout is not None and not self.max_timeout > 0:
            raise UsageError(f"McpServer(max_timeout={self.max_timeout!r}): give a number above 0, or None")
        if self.concurrency is not None and self.concurrency < 1:
            raise UsageError(f"McpServer(concurrency={self.concurrency!r}): give a number above 0, or None")

    @property
    def identity(self) -> str:
        """Where the server is, as the same text in every process; without secrets."""
        place = "" if isinstance(self.target, InProcess) else repr(self.target)
        if isinstance(self.target, Stdio) and self.target.confinement is not None:
            # A person has approved calls of a server that is confined, and not of the same one without its sandbox.
            place += f" {self.target.confinement.sandbox!r}"
        return f"{self.name} {self.prefix} {place}"

    def offers(self, tool: str) -> bool:
        """Whether ``allow`` and ``deny`` let the model see the server's tool of that name (without the prefix)."""
        return any(fnmatchcase(tool, glob) for glob in self.allow) and not any(
            fnmatchcase(tool, glob) for glob in self.deny
        )
