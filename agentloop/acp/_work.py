"""What waits for a tool call of the run: the request of the other agent behind it, and the answer that it gets."""

from __future__ import annotations

import os
from typing import Any

import trio
from attrs import field, frozen

from agentloop.acp._calls import (
    EXTERNAL_PLAN,
    EXTERNAL_TOOL,
    GOES_ON,
    NOTHING,
    READ_FILE,
    SHELL,
    WRITE_FILE,
    OwnCall,
    Permission,
    grant_key,
    result_text,
)
from agentloop.acp._connection import Connection, Program
from agentloop.acp._inbox import Asked, Inbox, Item, Plan, Request, Shown
from agentloop.acp._peer import INTERNAL_ERROR
from agentloop.acp._terminals import MAX_OUTPUT, Terminal
from agentloop.acp._wording import command_of, dictionary
from agentloop.context import ToolContext
from agentloop.errors import ModelError, ToolError
from agentloop.messages import ToolResult

__all__ = ["Exchange", "Work", "work_of"]

CANCELLED = -32800
"""The code for a request that is not answered, since its turn was cancelled."""


@frozen
class Exchange:
    """What a conversation and the calls of its run share."""

    program: Program
    """The external agent."""
    nursery: trio.Nursery
    """Ends with the conversation."""
    inbox: Inbox
    """What the other agent has sent, and the run has not taken."""
    connection: Connection
    """The connection to the other agent."""
    calls: dict[str, OwnCall] = field(factory=dict[str, OwnCall])
    """The calls of the other agent that have not ended, or are to be shown, by its id."""
    terminals: dict[str, Terminal] = field(factory=dict[str, Terminal])
    """The commands that it has this process run, by their ids."""
    approved: set[str] = field(factory=set[str])
    """Requests that a person has approved when the process that asked had ended: see `grant_key`."""

    @property
    def has_news(self) -> bool:
        """Whether the other agent has gone on with something else, or has ended."""
        return bool(self.inbox) or not self.connection.is_alive


def work_of(item: Item, exchange: Exchange) -> Work | None:
    """The work that ``item`` makes for the run; ``None`` if it makes none, or no longer."""
    match item:
        case Shown(call=call):
            call.is_queued = False
            if call.is_done:
                exchange.calls.pop(call.id, None)
            elif call.is_shown:
                return None
            return ShownWork(exchange, EXTERNAL_TOOL, call.arguments(), call)
        case Plan(entries=entries):
            return Work(exchange, EXTERNAL_PLAN, {"entries": entries})
        case Asked():
            return PermissionWork(exchange, EXTERNAL_TOOL, _asking_arguments(item.permission, exchange), item)
        case Request(method="fs/read_text_file", params=params):
            shown = {name: params[name] for name in ("path", "line", "limit") if params.get(name) is not None}
            return FileWork(exchange, READ_FILE, shown, item)
        case Request(method="fs/write_text_file", params=params):
            return FileWork(exchange, WRITE_FILE, {"path": params["path"], "content": params["content"]}, item)
        case Request(method="terminal/create", params=params):
            return TerminalWork(exchange, SHELL, command_of(params), item)
        case _:
            return None


def _asking_arguments(permission: Permission, exchange: Exchange) -> dict[str, Any]:
    arguments = permission.arguments()
    key = grant_key(arguments)
    if key in exchange.approved:
        # Without options, a person is not asked. Rules still decide.
        exchange.approved.discard(key)
        del arguments["options"]
    return arguments


class Work:
    """What waits for a tool call of the run.

    Args:
      exchange: where the other agent gets its answer.
      name: the tool of the call.
      arguments: the arguments of the call.
    """

    def __init__(self, exchange: Exchange, name: str, arguments: dict[str, Any]) -> None:
        self._exchange = exchange
        self.name = name
        self.arguments = arguments

    @property
    def waits_for_the_run(self) -> bool:
        """Whether the other agent waits for the run."""
        return False

    async def run(self, context: ToolContext[Any], arguments: dict[str, Any]) -> ToolResult | str:
        """Carry the call out, once it is allowed."""
        await trio.lowlevel.checkpoint()
        return "Seen."

    def found_nothing(self) -> None:
        """The file that the call reads is empty."""

    def settle(self, result: ToolResult) -> None:
        """The call has ended with ``result``."""

    def cancel(self) -> None:
        """The other agent's turn is cancelled."""


class ShownWork(Work):
    """A call of the other agent, which it carries out itself."""

    def __init__(self, exchange: Exchange, name: str, arguments: dict[str, Any], call: OwnCall) -> None:
        super().__init__(exchange, name, arguments)
        self._call = call
        call.is_shown = call.is_waited_for = True

    async def run(self, context: ToolContext[Any], arguments: dict[str, Any]) -> ToolResult | str:
        return await _wait_for_call(self._exchange, context, self._call)

    def settle(self, result: ToolResult) -> None:
        self._call.is_waited_for = False
        if result.status != "denied":
            return
        connection = self._exchange.connection
        connection.peer.notify("session/cancel", {"sessionId": connection.session})
        raise ModelError(
            f"the permissions of this run deny {self._call.title!r}, which {connection.described} does without asking: "
            f"its turn was cancelled. Allow it with Rule({EXTERNAL_TOOL!r}), or have the other agent ask"
        )


class RequestWork(Work):
    """A request of the other agent, which gets one answer."""

    def __init__(self, exchange: Exchange, name: str, arguments: dict[str, Any], request: Request) -> None:
        super().__init__(exchange, name, arguments)
        self._request = request

    @property
    def waits_for_the_run(self) -> bool:
        return not self._request.is_answered

    def settle(self, result: ToolResult) -> None:
        self._refuse(INTERNAL_ERROR, result.text[:2000])

    def cancel(self) -> None:
        self._refuse(CANCELLED, "the turn was cancelled")

    def _answer(self, result: Any) -> None:
        if not self._request.is_answered:
            self._request.is_answered = True
            self._exchange.connection.peer.respond(self._request.id, result)

    def _refuse(self, code: int, message: str) -> None:
        if not self._request.is_answered:
            self._request.is_answered = True
            self._exchange.connection.peer.refuse(self._request.id, code, message)


class FileWork(RequestWork):
    """A file to read or to write. The tool does it, and its result is the answer."""

    _is_empty = False

    def found_nothing(self) -> None:
        self._is_empty = True

    def settle(self, result: ToolResult) -> None:
        if result.status == "ok":
            # A hook may have put something else in the place of the result.
            content = "" if self._is_empty and result.text == NOTHING else result.text
            self._answer({"content": content} if self.name == READ_FILE else {})
        else:
            super().settle(result)


class PermissionWork(RequestWork):
    """A request for permission. Running it grants the permission, and then waits for the end of the call."""

    def __init__(self, exchange: Exchange, name: str, arguments: dict[str, Any], request: Asked) -> None:
        super().__init__(exchange, name, arguments, request)
        self._permission = request.permission
        request.permission.call.is_shown = request.permission.call.is_waited_for = True

    async def run(self, context: ToolContext[Any], arguments: dict[str, Any]) -> ToolResult | str:
        if {**arguments, "option": ""} != {**self.arguments, "option": ""}:
            raise ToolError("what another agent does cannot be changed here: approve it as it is, or deny it")
        option = arguments.get("option")
        if option not in [known["id"] for known in self._permission.options]:
            raise ToolError(f"there is no option {option!r}: choose one of the ids in options")
        self._select(str(option))
        return await _wait_for_call(self._exchange, context, self._permission.call)

    def settle(self, result: ToolResult) -> None:
        self._permission.call.is_waited_for = False
        self._permission.call.is_refused = not self._request.is_answered
        self._select(self._permission.option("reject_once", "reject_always"))

    def cancel(self) -> None:
        self._select(None)

    def _select(self, option: str | None) -> None:
        outcome = {"outcome": "cancelled"} if option is None else {"outcome": "selected", "optionId": option}
        self._answer({"outcome": outcome})


class TerminalWork(RequestWork):
    """A command to run. The call ends with it, or as soon as the other agent goes on with something else."""

    async def run(self, context: ToolContext[Any], arguments: dict[str, Any]) -> ToolResult | str:
        exchange, limit = self._exchange, self._request.params.get("outputByteLimit")
        terminal = Terminal(limit if type(limit) is int and limit >= 0 else MAX_OUTPUT, exchange.inbox.change)
        cwd, env = arguments.get("cwd"), dictionary(arguments.get("env"))
        folder = cwd if isinstance(cwd, str) else None
        await exchange.nursery.start(terminal.run, exchange.program.workplace, str(arguments["command"]), folder, env)
        name = f"terminal_{os.urandom(4).hex()}"
        exchange.terminals[name] = terminal
        self._answer({"terminalId": name})
        await _wait_for_terminal(exchange, context, terminal)
        return terminal.summary() if terminal.ended.is_set() else f"{terminal.output}\n{GOES_ON}".lstrip()


async def _wait_for_call(exchange: Exchange, context: ToolContext[Any], call: OwnCall) -> ToolResult | str:
    """Wait until ``call`` has ended, or the other agent goes on with something else. Returns its result so far."""
    shown = ""
    while True:
        changed = exchange.inbox.changed
        if call.text != shown:
            # Each update has the whole text.
            new = call.text.removeprefix(shown)
            shown = call.text
            await context.output(new)
            context.restart_deadline()
        if call.is_done or exchange.has_news:
            break
        await changed.wait()
    if not call.is_done:
        return f"{call.text}\n{GOES_ON}".lstrip()
    exchange.calls.pop(call.id, None)
    return result_text(call.text, failed=call.status == "failed")


async def _wait_for_terminal(exchange: Exchange, context: ToolContext[Any], terminal: Terminal) -> None:
    shown = 0
    while True:
        changed = exchange.inbox.changed
        if terminal.written > shown:
            new = terminal.output[-(terminal.written - shown) :]
            shown = terminal.written
            await context.output(new)
            context.restart_deadline()
        if terminal.ended.is_set() or exchange.has_news:
            return
        await changed.wait()
