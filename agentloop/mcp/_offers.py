"""A server's prompts and resources as tools: for a model that looks for them, reads them, and fills them in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar, cast

import mcp_types as types
from mcp import Client, MCPError

from agentloop._core.results import to_text
from agentloop.commands import Command, is_command_name
from agentloop.context import ToolContext
from agentloop.errors import ToolError
from agentloop.mcp._config import ServerConfig
from agentloop.mcp._results import parts_of, tool_name
from agentloop.messages import Text, ToolResult, UserPart
from agentloop.tools import JsonArguments, Tool

__all__ = ["CONTEXT", "commands_of_prompts", "offered_tools"]

T = TypeVar("T")

CONTEXT = "the context"
"""The parameter in which a tool gets its context. The space keeps it apart from the arguments of a server's tool."""

MAX_ENTRIES = 500
"""Prompts, resources or templates of one page that the model gets. Most servers have a hundred on a page at most."""

MAX_BLOB = 10_000_000
"""Characters of base64 of one resource that the model gets: some 7 MB. Providers refuse larger files."""

_PAGE = {
    "type": "object",
    "properties": {"cursor": {"type": "string", "description": "The cursor of the next page; none for the first one."}},
}
_READ = {
    "type": "object",
    "properties": {"uri": {"type": "string", "description": "The URI, or a template with its places filled in."}},
    "required": ["uri"],
}
_GET = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "description": "The name of the prompt."},
        "arguments": {
            "type": "object",
            "additionalProperties": {"type": "string"},
            "description": "Its arguments, each a text.",
        },
    },
    "required": ["name"],
}


class Fetch(Protocol):
    """Sends a request to the server, on behalf of a tool call."""

    async def __call__(self, context: ToolContext[Any], send: Callable[[Client], Awaitable[T]], /) -> T:
        """Raises `McpError` as a call of a tool does."""
        ...


def offered_tools(server: ServerConfig, capabilities: types.ServerCapabilities, fetch: Fetch) -> list[Tool]:
    """The tools for those of the prompts and resources that the configuration asks for, and that the server has."""
    offers = _Offers(fetch)
    whose = f"the MCP server {server.name!r}"
    tools: list[Tool] = []

    def add(name: str, description: str, schema: Mapping[str, Any], function: Callable[..., Awaitable[Any]]) -> None:
        tools.append(
            Tool(
                name=tool_name(name, server.prefix),
                description=to_text(description),
                function=function,
                arguments=JsonArguments(schema),
                context_name=CONTEXT,
                timeout=server.timeout,
                requires_approval=server.requires_approval,
                # The protocol: these requests read.
                read_only=server.trust_annotations,
                idempotent=True,
                deferred=server.deferred,
                records_start=True,
            )
        )

    if server.resources and capabilities.resources is not None:
        add("list_resources", f"List the resources of {whose}: their URIs, and templates.", _PAGE, offers.resources)
        add("read_resource", f"Read a resource of {whose}.", _READ, offers.read)
    if server.prompts and capabilities.prompts is not None:
        add("list_prompts", f"List the prompts of {whose}, with their arguments.", _PAGE, offers.prompts)
        add("get_prompt", f"Get a prompt of {whose}, filled in.", _GET, offers.prompt)
    return tools


class _Offers:
    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch

    async def resources(self, **given: Any) -> str:
        context, cursor = given[CONTEXT], _text(given, "cursor")
        page = await self._fetch(context, lambda client: client.list_resources(cursor=cursor or None))
        lines = [_line(each.uri, each, each.mime_type) for each in page.resources[:MAX_ENTRIES]]
        if not cursor:
            lines += await self._templates(context)
        return _page(lines, "resources", page.next_cursor)

    async def _templates(self, context: ToolContext[Any]) -> list[str]:
        async def send(client: Client) -> Sequence[types.ResourceTemplate]:
            try:
                return (await client.list_resource_templates()).resource_templates
            except MCPError as error:
                if error.code == types.METHOD_NOT_FOUND:
                    return ()
                raise

        templates = await self._fetch(context, send)
        return [_line(f"template {each.uri_template}", each, each.mime_type) for each in templates[:MAX_ENTRIES]]

    async def read(self, **given: Any) -> ToolResult:
        uri = _text(given, "uri")
        if not uri:
            raise ToolError('read_resource takes {"uri": "..."}, with a URI of list_resources.')
        result = await self._fetch(given[CONTEXT], lambda client: client.read_resource(uri))
        parts = parts_of([types.EmbeddedResource(resource=_bounded(content)) for content in result.contents])
        return ToolResult("", "", tuple(parts) or (Text("(the resource is empty)"),))

    async def prompts(self, **given: Any) -> str:
        cursor = _text(given, "cursor")
        page = await self._fetch(given[CONTEXT], lambda client: client.list_prompts(cursor=cursor or None))
        lines = [_prompt_line(prompt) for prompt in page.prompts[:MAX_ENTRIES]]
        return _page(lines, "prompts", page.next_cursor)

    async def prompt(self, **given: Any) -> ToolResult:
        name, arguments = _text(given, "name"), cast("object", given.get("arguments") or {})
        if not name or not isinstance(arguments, dict):
            raise ToolError('get_prompt takes {"name": "...", "arguments": {"...": "..."}}: see list_prompts.')
        values = cast("dict[str, Any]", arguments).items()
        texts = {key: value if isinstance(value, str) else to_text(value) for key, value in values}
        result = await self._fetch(given[CONTEXT], lambda client: client.get_prompt(name, texts))
        parts: list[UserPart] = []
        for message in result.messages:
            if message.role != "user" or len(result.messages) > 1:
                parts.append(Text(f"[{message.role}]"))
            parts += parts_of([message.content])
        return ToolResult("", "", tuple(parts) or (Text("(the prompt is empty)"),))


def _text(given: Mapping[str, Any], name: str) -> str:
    value = given.get(name)
    return value if isinstance(value, str) else ""


def _bounded(
    content: types.TextResourceContents | types.BlobResourceContents,
) -> types.TextResourceContents | types.BlobResourceContents:
    if isinstance(content, types.BlobResourceContents) and len(content.blob) > MAX_BLOB:
        size = len(content.blob) * 3 // 4
        text = f"(a file of {size:,} bytes, which is too large to be read at once)"
        return types.TextResourceContents(uri=content.uri, text=text)
    return content


def _line(place: str, each: types.Resource | types.ResourceTemplate, media_type: str | None) -> str:
    details = [each.title or each.name, media_type or "", each.description or ""]
    return _one_line(f"{place}: " + "; ".join(detail for detail in details if detail))


def _prompt_line(prompt: types.Prompt) -> str:
    arguments = ", ".join(_argument(argument) for argument in prompt.arguments or ())
    return _one_line(f"{prompt.name}({arguments}): {prompt.description or prompt.title or ''}".rstrip(": "))


def _argument(argument: types.PromptArgument) -> str:
    described = f" - {argument.description}" if argument.description else ""
    return f"{argument.name}{'' if argument.required else '?'}{described}"


def _one_line(text: str) -> str:
    return to_text(" ".join(text.split()))


def _page(lines: Sequence[str], what: str, cursor: str | None) -> str:
    more = [to_text(f"(more: call this again with the cursor {cursor!r})")] if cursor else []
    return "\n".join([*lines, *more]) or f"(no {what})"


def commands_of_prompts(server: ServerConfig, prompts: Iterable[types.Prompt]) -> dict[str, Command]:
    """A command for each of ``prompts``, named ``server:prompt``, which has the model get the prompt and do it."""
    commands: dict[str, Command] = {}
    tool = tool_name("get_prompt", server.prefix)
    for prompt in prompts:
        name = f"{server.name}:{prompt.name}"
        if not is_command_name(name) or name in commands:
            continue
        arguments = prompt.arguments or ()
        given = "".join(
            f"\n- {_plain(argument.name)}: ${number if len(arguments) > 1 else 'ARGUMENTS'}"
            for number, argument in enumerate(arguments, 1)
            if number <= 99
        )
        text = f"Call the tool {tool} for the prompt {_plain(prompt.name)!r}"
        text += f", with these arguments, without those that are empty:{given}\n" if given else ". "
        text += "Then do what the prompt says."
        hint = " ".join(f"[{argument.name}]" for argument in arguments)
        description = " ".join(to_text(prompt.description or prompt.title or "").split())
        commands[name] = Command(text, description=description, hint=hint)
    return commands


def _plain(name: str) -> str:
    """``name`` in the text of a command, which has no place for arguments in it."""
    return _one_line(name).replace("$", r"\$")
