"""The calls by which a run shows, and decides about, what the other agent does and asks for.

The other agent's turn is a response of a model to the run, so whatever it asks of its client is a tool call of that
response: permissions, hooks, approvals, parking, the journal, traces and pictures hold for it as for any other call.

- ``external_tool``: a call that the other agent makes of a tool of its own. The run does not run it; the function
  answers the request for permission, if there is one, and waits for the call's end.
- ``external_plan``: a plan of the other agent, to be seen.
- ``read_file``, ``write_file``, ``shell``: requests that this process carries out, in one folder. Their names are those
  of the tools of `agentloop.toolkit`, so that rules for these hold for the other agent, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol, cast

import trio
from attrs import define, field, frozen

from agentloop._core.json_text import decode_own, is_array
from agentloop._core.whole_json import json_of
from agentloop._sandbox import Confinement
from agentloop.acp._wording import MAX_TEXT, call_text, dictionary, shortened, text_of_field
from agentloop.context import ToolContext
from agentloop.errors import ToolError
from agentloop.messages import AssistantMessage, Message, Text, ToolResult
from agentloop.safety import Assessment
from agentloop.toolkit._assess_command import command_assessor
from agentloop.toolkit._root import Root
from agentloop.tools import JsonArguments, Tool

__all__ = [
    "APPROVED",
    "EXTERNAL_PLAN",
    "EXTERNAL_TOOL",
    "GOES_ON",
    "NOTHING",
    "READ_FILE",
    "SHELL",
    "WRITE_FILE",
    "OwnCall",
    "Pending",
    "Permission",
    "Workplace",
    "approved_requests",
    "grant_key",
    "make_tools",
    "result_text",
]

EXTERNAL_TOOL, EXTERNAL_PLAN = "external_tool", "external_plan"
READ_FILE, WRITE_FILE, SHELL = "read_file", "write_file", "shell"

MAX_FILE_BYTES = 2_000_000
"""Bytes of a file that the other agent may read or write. The transcript has them, too."""

APPROVED = "Approved, but the program that asked has ended. It will not be asked about again."
"""The result of a call that a person has approved after its process had ended."""
GOES_ON = "It goes on."
NOTHING = "[there is nothing in it]"
LOST = "The program that asked for this has ended."
CALL_SECONDS = 3600.0
"""Seconds for which a run waits for the end of a call that the other agent makes, since its last sign of life."""


_SHOWN = {"input": "", "paths": "array", "option": "string", "options": "array"}
"""Further arguments of ``external_tool``."""


class Pending(Protocol):
    """What waits for a tool call of the run."""

    async def run(self, context: ToolContext[Any], arguments: dict[str, Any]) -> ToolResult | str:
        """Carry the call out. Called once it is allowed."""
        ...

    def found_nothing(self) -> None:
        """The file that the call reads is empty, which no result can say: an empty one is shown as words."""
        ...


@define(eq=False)
class OwnCall:
    """A tool call that the other agent makes, and carries out itself."""

    id: str
    """The other agent's id."""
    title: str = ""
    """What it does, in words."""
    kind: str = "other"
    """Its kind, as ACP has it: ``read``, ``edit``, ``execute``, ..."""
    status: str = "pending"
    """``pending``, ``in_progress``, ``completed`` or ``failed``."""
    input: Any = None
    """The arguments."""
    text: str = ""
    """What it has given so far."""
    paths: list[str] = field(factory=list[str])
    """The files that it is about."""
    is_queued: bool = False
    """Whether it waits to be shown as a call of the run."""
    is_shown: bool = False
    """Whether it was shown as one that has begun. Its end is shown once more, unless a call of the run waits for it."""
    is_waited_for: bool = False
    """Whether a call of the run waits for its end, or will when it is allowed."""

    is_refused: bool = False
    """Whether permission for it was refused. That it failed is no news then."""

    @property
    def is_done(self) -> bool:
        """Whether it has ended."""
        return self.status in ("completed", "failed")

    @property
    def is_to_be_shown(self) -> bool:
        """Whether there is something about it that the run has not seen."""
        if self.is_refused and self.status == "failed":
            return False
        is_new = self.is_done or (self.status != "pending" and not self.is_shown)
        return is_new and not (self.is_queued or self.is_waited_for)

    def update(self, fields: Mapping[str, Any]) -> None:
        """Take what ``tool_call`` or ``tool_call_update`` says."""
        self.title = text_of_field(fields.get("title")) or self.title
        self.kind = text_of_field(fields.get("kind"), 40) or self.kind
        self.status = text_of_field(fields.get("status"), 40) or self.status
        if fields.get("rawInput") is not None:
            text = json_of(fields["rawInput"])
            self.input = fields["rawInput"] if len(text) <= MAX_TEXT else shortened(text)
        locations = fields.get("locations")
        if is_array(locations):
            self.paths = [path for item in locations[:50] if (path := text_of_field(dictionary(item).get("path")))]
        if fields.get("content") is not None or fields.get("rawOutput") is not None:
            self.text = call_text(fields.get("content"), fields.get("rawOutput"))

    def arguments(self) -> dict[str, Any]:
        """The arguments of the call of the run that shows it."""
        shown: dict[str, Any] = {"title": self.title, "kind": self.kind, "id": self.id}
        if self.input is not None:
            shown["input"] = self.input
        if self.paths:
            shown["paths"] = self.paths
        return shown


def grant_key(arguments: Mapping[str, Any]) -> str:
    """The key by which the same request for permission is known again in another process."""
    return json_of([arguments.get("kind"), arguments.get("input") or arguments.get("title"), arguments.get("paths")])


def approved_requests(messages: Sequence[Message]) -> set[str]:
    """The keys of the requests that a person has approved after the process that had asked had ended."""
    results = [message for message in messages if isinstance(message, ToolResult)]
    approved = {result.call_id for result in results if result.text == APPROVED}
    said = [message for message in messages if isinstance(message, AssistantMessage)]
    calls = [call for message in said for call in message.calls if call.id in approved]
    asked = [decode_own(call.arguments, dict[str, Any]) for call in calls]
    # A call without options was only shown: no person was asked about it.
    return {grant_key(arguments) for arguments in asked if "options" in arguments}


@frozen
class Permission:
    """A request for permission."""

    call: OwnCall
    """The call that it is about."""
    options: tuple[dict[str, str], ...]
    """The options: ``id``, ``name`` and ``kind`` of each."""

    def option(self, *kinds: str) -> str | None:
        """Id of the first option of the first of ``kinds`` that there is."""
        found = (option["id"] for kind in kinds for option in self.options if option["kind"] == kind)
        return next(found, None)

    def arguments(self) -> dict[str, Any]:
        """The arguments of the call of the run that asks a person."""
        choice = self.option("allow_once") or ""
        return {**self.call.arguments(), "option": choice, "options": list(self.options)}


@frozen
class Workplace:
    """The folder in which the other agent may have this process work for it."""

    folder: str
    """The folder for files and commands."""
    root: Root | None
    """The same, for files; ``None`` if this process reads and writes none."""
    has_terminal: bool
    """Whether this process runs commands."""
    confinement: Confinement | None
    """The sandbox for commands."""
    requires_approval: bool
    """Whether a person approves writing and commands."""


def make_tools(workplace: Workplace, pending: Mapping[str, Pending]) -> list[Tool]:
    """The tools of an external agent.

    Args:
      workplace: where files are read and commands run.
      pending: what waits for a call of the run, by the call's id.
    """

    def waits(function: Callable[[dict[str, Any]], str]) -> Callable[..., Any]:
        """A tool's function that finds what waits for its call."""

        async def run(context: ToolContext[Any], **arguments: Any) -> ToolResult | str:
            found = pending.get(context.call_id)
            return function(arguments) if found is None else await found.run(context, arguments)

        return run

    def without_asker(arguments: dict[str, Any]) -> str:
        return APPROVED if "options" in arguments else LOST

    tools = [
        Tool(
            name=EXTERNAL_TOOL,
            description="A call that the other agent makes of a tool of its own. It is shown here, and not run.",
            function=waits(without_asker),
            arguments=JsonArguments(_schema(_SHOWN, title="string", kind="string", id="string")),
            context_name="context",
            timeout=CALL_SECONDS,
            # The other agent does not wait for an answer unless it offers options.
            requires_approval=cast("Callable[[dict[str, Any]], bool]", _offers_options),
            metadata={"external": True},
            if_interrupted="retry",
            max_result=10 * MAX_TEXT,
            polling=True,
        ),
        Tool(
            name=EXTERNAL_PLAN,
            description="The plan of the other agent.",
            function=_see_plan,
            arguments=JsonArguments(_schema(entries="array")),
            read_only=True,
            metadata={"external": True},
            polling=True,
        ),
    ]
    root = workplace.root
    if root is not None:
        tools += _file_tools(root, pending, requires_approval=workplace.requires_approval)
    if workplace.has_terminal:
        tools.append(
            Tool(
                name=SHELL,
                description=f"A command that the other agent has this process run in {workplace.folder}.",
                function=waits(lambda _: _raise_lost()),
                arguments=JsonArguments(_schema({"cwd": "string", "env": "object"}, command="string")),
                context_name="context",
                timeout=CALL_SECONDS,
                requires_approval=workplace.requires_approval,
                destructive=True,
                assess=_assessor(workplace.folder),
                metadata={"external": True},
                max_result=10 * MAX_TEXT,
                polling=True,
            )
        )
    return tools


def _file_tools(root: Root, pending: Mapping[str, Pending], *, requires_approval: bool) -> list[Tool]:
    async def read_file(context: ToolContext[Any], path: str, line: Any = None, limit: Any = None) -> str:
        text = await read(path, line, limit)
        if not text and context.call_id in pending:
            pending[context.call_id].found_nothing()
        return text or NOTHING

    async def read(path: str, line: Any, limit: Any) -> str:
        data, _ = await trio.to_thread.run_sync(root.read, path, MAX_FILE_BYTES)
        if b"\0" in data[:8192]:
            raise ToolError(f"{path!r} is no text file")
        text = data.decode("utf-8", "replace")
        if not isinstance(line, int) and not isinstance(limit, int):
            return text
        begin = max(line - 1, 0) if isinstance(line, int) else 0
        end = begin + max(limit, 0) if isinstance(limit, int) else None
        return "".join(text.splitlines(keepends=True)[begin:end])

    async def write_file(path: str, content: str) -> str:
        try:
            data = content.encode()
        except UnicodeEncodeError as error:
            raise ToolError(f"this is no text that UTF-8 can spell: {error.reason}") from error
        if len(data) > MAX_FILE_BYTES:
            raise ToolError(f"{path!r} would have {len(data)} bytes, and at most {MAX_FILE_BYTES} are written")
        await trio.to_thread.run_sync(root.write, path, data)
        return f"Wrote {path}: {len(data)} bytes."

    return [
        Tool(
            name=READ_FILE,
            description=f"Read a text file in {root.path} for the other agent.",
            function=read_file,
            arguments=JsonArguments(_schema({"line": "number", "limit": "number"}, path="string")),
            context_name="context",
            read_only=True,
            idempotent=True,
            max_result=float("inf"),
            metadata={"external": True},
            polling=True,
        ),
        Tool(
            name=WRITE_FILE,
            description=f"Write a text file in {root.path} for the other agent.",
            function=write_file,
            arguments=JsonArguments(_schema(path="string", content="string")),
            idempotent=True,
            destructive=True,
            requires_approval=requires_approval,
            metadata={"external": True},
            polling=True,
        ),
    ]


def _assessor(folder: str) -> Callable[[dict[str, Any]], Assessment]:
    assess = command_assessor(folder=folder)

    def assess_call(arguments: dict[str, Any]) -> Assessment:
        # Harmless commands are so in this folder, and with the environment that they inherit.
        if arguments.get("env") or arguments.get("cwd"):
            return Assessment(why="it sets its environment or its folder")
        return assess(arguments)

    return assess_call


async def _offers_options(arguments: dict[str, Any]) -> bool:  # noqa: ASYNC124 - a plain one would run in a thread
    return "options" in arguments


async def _see_plan(entries: list[Any]) -> str:  # noqa: ASYNC124 - as above
    return "Seen."


def _raise_lost() -> str:
    raise ToolError(LOST)


def _schema(optional: Mapping[str, str] = MappingProxyType({}), **required: str) -> dict[str, Any]:
    """The schema of an object with fields of these types, or of any. The optional ones are there for rules."""
    fields = {name: {"type": kind} if kind else {} for name, kind in (required | dict(optional)).items()}
    return {"type": "object", "properties": fields, "required": list(required)}


def result_text(text: str, *, failed: bool) -> ToolResult | str:
    """The result of a call that the other agent has made."""
    text = text or ("It failed." if failed else "Done.")
    if text == APPROVED:
        # A grant is known by these words, so a program that writes them must not make one.
        text = f"It says: {text}"
    return ToolResult("", "", (Text(text),), "error") if failed else text
