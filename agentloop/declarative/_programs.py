"""docker-agent's tools that run command lines, get pages and ask the user, by the names and arguments that it has."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from ipaddress import ip_address, ip_network
from typing import Annotated, Any, cast
from urllib.parse import urlsplit

import msgspec
import trio
from attrs import evolve
from msgspec import Meta

from agentloop.context import ToolContext
from agentloop.errors import ArgumentsError, ToolError
from agentloop.messages import ToolResult
from agentloop.toolkit import Sandbox, ask_user, shell
from agentloop.tools import JsonArguments, Tool, tool

__all__ = ["fetch_tool", "script_tool", "shell_tool", "user_prompt_tool"]

SECONDS = 30.0
"""Seconds of a command, as docker-agent has them, if the model asks for no other time."""
SCRIPT_SECONDS = 120.0
MAX_SECONDS = 600.0
MAX_URLS = 20


def shell_tool(folder: str, env: Mapping[str, str], sandbox: Sandbox | None) -> Tool:
    """The tool ``shell``, whose command line is ``cmd``.

    Raises:
      UsageError: the system has no shell, or the sandbox cannot be made here.
    """

    def shell_in(place: str) -> Tool:
        return shell(cwd=place, env=env, timeout=SECONDS, max_timeout=MAX_SECONDS, sandbox=sandbox)

    base = shell_in(folder)

    async def run(
        context: ToolContext[Any],
        cmd: str,
        cwd: str = ".",
        timeout: Annotated[float, Meta(gt=0)] = SECONDS,  # noqa: ASYNC109
    ) -> ToolResult:
        """Run a command line.

        Args:
          cmd: the command line, for /bin/sh.
          cwd: the folder to run it in.
          timeout: seconds after which it is ended.
        """
        if "\0" in cwd:
            raise ToolError("a path has no NUL character")
        place = _within(folder, cwd)
        inner = base
        if place != folder:
            if sandbox is not None:
                raise ToolError(f"in the sandbox, commands run in {folder}: leave cwd out")
            inner = shell_in(place)
        return cast("ToolResult", await inner.function(context, cmd, timeout))

    made = tool(name="shell", description=base.description)(run)
    return evolve(made, requires_approval=True, destructive=True, timeout=base.timeout)


def _within(folder: str, path: str) -> str:
    """An absolute path, as text: no file is looked at."""
    return os.path.normpath(os.path.join(folder, os.path.expanduser(path)))  # noqa: PTH111, PTH118


def script_tool(
    name: str,
    cmd: str,
    description: str,
    arguments: Mapping[str, Any],
    required: Sequence[str],
    folder: str,
    env: Mapping[str, str],
) -> Tool:
    """A tool that runs a command line, with its arguments as environment variables.

    Raises:
      UsageError: the system has no shell.
      ToolDefinitionError: the name is none that a tool may have.
    """
    # Made once, so that a folder or a system that does not fit is an error before a run.
    shell(cwd=folder, env=env)

    async def run(agentloop_context: ToolContext[Any], **values: Any) -> ToolResult:
        given = {key: _as_variable(key, value) for key, value in values.items()}
        inner = shell(cwd=folder, env={**env, **given}, timeout=SCRIPT_SECONDS, max_timeout=MAX_SECONDS)
        return cast("ToolResult", await inner.function(agentloop_context, cmd, SCRIPT_SECONDS))

    schema = {"type": "object", "properties": dict(arguments), "required": list(required)}
    return Tool(
        name=name,
        description=description or f"Run the command {name}.",
        function=run,
        arguments=_Declared(schema),
        context_name="agentloop_context",
        requires_approval=True,
        destructive=True,
        timeout=float("inf"),
    )


class _Declared(JsonArguments):
    """Arguments of a command: only those that the file declares, since each becomes an environment variable."""

    __slots__ = ()

    def convert(self, values: Mapping[str, Any], /) -> dict[str, Any]:
        """As `JsonArguments.convert`."""
        unknown = [name for name in values if name not in self.schema["properties"]]
        missing = [name for name in self.schema["required"] if name not in values]
        if unknown:
            raise ArgumentsError(f"the tool has no argument {', '.join(unknown)}")
        if missing:
            raise ArgumentsError(f"the argument {', '.join(missing)} is missing")
        return super().convert(values)


def _as_variable(name: str, value: Any) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    if "\0" in text:
        raise ToolError(f"the argument {name!r} has a NUL character, which no environment variable can have")
    return text


def user_prompt_tool() -> Tool:
    """The tool ``user_prompt``, which asks the user."""
    base = ask_user(name="user_prompt")

    async def ask(context: ToolContext[Any], message: str, choices: list[str] | None = None) -> str:
        """Ask the user.

        Args:
          message: the question.
          choices: the answers to choose from; without choices, the user writes one.
        """
        return str(await base.function(context, message, choices))

    return tool(name="user_prompt", description=base.description, read_only=True)(ask)


def fetch_tool(base: Tool, allowed: Sequence[str], blocked: Sequence[str]) -> Tool:
    """The tool ``fetch``, which gets several pages.

    Args:
      base: the tool that gets one page.
      allowed: the hosts that may be reached; all if there are none.
      blocked: the hosts that may not.
    """

    async def get(urls: Annotated[list[str], Meta(min_length=1, max_length=MAX_URLS)]) -> str:
        """Get pages.

        Args:
          urls: http or https URLs.
        """
        parts: list[str] = []
        for url in urls:
            try:
                _check_host(url, allowed, blocked)
                parts.append(str(await base.function(url)))
            except ToolError as error:
                if len(urls) == 1:
                    raise
                parts.append(f"{url}: {error}")
        await trio.lowlevel.checkpoint()
        return "\n\n".join(parts)

    where = f" Only these hosts can be reached: {', '.join(allowed)}." if allowed else ""
    made = tool(name="fetch", description=base.description + where)(get)
    return evolve(made, read_only=True, idempotent=True, timeout=base.timeout)


def _check_host(url: str, allowed: Sequence[str], blocked: Sequence[str]) -> None:
    try:
        host = (urlsplit(url.strip()).hostname or "").rstrip(".").lower()
    except ValueError:
        raise ToolError(f"{url!r} is no URL") from None
    if allowed and not any(_is_host(host, pattern) for pattern in allowed):
        raise ToolError(f"{host!r} is none of the hosts that may be reached: {', '.join(allowed)}")
    if any(_is_host(host, pattern) for pattern in blocked):
        raise ToolError(f"{host!r} is a host that must not be reached")


def _is_host(host: str, pattern: str) -> bool:
    pattern = pattern.strip().lower()
    try:
        return ip_address(host.strip("[]")) in ip_network(pattern, strict=False)
    except ValueError:
        pass
    if pattern.startswith(("*.", ".")):
        return host.endswith(pattern.removeprefix("*")) and re.fullmatch(r"\*?\.[^*]+", pattern) is not None
    return host == pattern or host.endswith(f".{pattern}") or ("*" in pattern and fnmatchcase(host, pattern))
