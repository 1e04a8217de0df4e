"""The conversation of one stream with an external agent: a turn of ACP, told as responses of a model.

A ``session/prompt`` of ACP is one long turn, in which the other agent writes, uses tools of its own, and asks its
client for things. To the run it is a row of responses of a model: whatever needs the run (a call to show, a permission,
a file, a command) ends a response with a tool call, and the next response goes on where that one ended.

What the other agent sends goes into the inbox, in order. A response takes from there, and a call of the run that waits
for the other agent ends as soon as anything is in there, so neither ever waits for the other.
"""

from __future__ import annotations

import math
import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio

from agentloop._core.json_text import is_array
from agentloop._core.whole_json import json_of
from agentloop._runtime.exception_groups import raise_single
from agentloop.acp._calls import OwnCall, Permission, approved_requests
from agentloop.acp._connection import Connection, Program
from agentloop.acp._inbox import Asked, Chunk, Ended, Inbox, Plan, Request, Shown, may_join
from agentloop.acp._peer import INVALID_PARAMS, NO_METHOD, GoneError, RequestId, RpcError
from agentloop.acp._terminals import Terminal
from agentloop.acp._wording import (
    Mark,
    block_text,
    command_of,
    dictionary,
    mark_of,
    prompt_blocks,
    text_of_field,
    usage_of,
)
from agentloop.acp._work import Exchange, Work, work_of
from agentloop.errors import ModelError, ModelOutputLimitError, ModelProtocolError, UsageError
from agentloop.messages import Message, StopReason, ToolResult, UserMessage
from agentloop.models import Model, ModelRequest, Reply, Stop

__all__ = ["Conversation"]

MAX_CALLS = 1000
"""Calls of the other agent that may be open at once."""
MAX_TERMINALS = 50
"""Commands that may be open at once."""
CANCEL_SECONDS = 2.0
"""Seconds for the other agent to end its turn after it was cancelled, before its process is ended."""
QUIET_SECONDS = 0.5
"""Seconds of silence after which a call is shown that was announced: it may run by now."""
IN_A_TURN = ("session/request_permission", "fs/read_text_file", "fs/write_text_file", "terminal/create")
"""Requests that the other agent may make during its turn only."""

STOP_REASONS: Mapping[str, StopReason] = {"end_turn": "end", "max_tokens": "length", "refusal": "refusal"}


class Conversation:
    """The conversation of one stream. `open` makes it, and it ends with the block.

    Args:
      program: the external agent.
      nursery: runs its process, and the commands that it has this process run.
    """

    def __init__(self, program: Program, nursery: trio.Nursery) -> None:
        self.name = program.name
        """Name of the model."""
        inbox = Inbox()
        connection = Connection(program, nursery, self._take, inbox.has_room, self._on_end)
        self._program, self._nursery, self._inbox, self._connection = program, nursery, inbox, connection
        self._exchange = Exchange(program, nursery, inbox, connection)
        self._our_session = ""
        self._prompts = 0
        """Prompts of the other agent's session so far."""
        self._known = 0
        """How many messages of the transcript that session has, its own included."""
        self._last: Message | None = None
        """The last of them."""
        self._unsent: list[Message] = []
        """Messages that came while a turn of the other agent was open."""
        self._is_prompting = False
        """Whether a turn of the other agent is open."""
        self._is_responding = False
        """Whether the run waits for a response."""
        self._work: dict[str, Work] = {}
        """What waits for a tool call of the run, by the call's id."""
        self._fatal: ModelError | None = None
        """Why the run cannot go on: the agent has ended while the run decided about something for it."""

    @classmethod
    @asynccontextmanager
    async def open(cls, program: Program) -> AsyncGenerator[Conversation]:
        """A conversation, whose process starts with its first response, and has ended when the block ends.

        Raises:
          ModelConnectionError: the process ended while a person was asked on its behalf.
        """
        fatal: ModelError | None = None
        try:
            async with trio.open_nursery() as nursery:
                conversation = cls(program, nursery)
                try:
                    yield conversation
                finally:
                    await conversation._stop()  # noqa: ASYNC102 - it shields itself, and is bounded
                    fatal = conversation._fatal
                    conversation._connection.end()
                    nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            raise_single(group)
        if fatal is not None:
            raise fatal

    def for_session(self, id: str) -> Model:
        """This conversation, for the session of its stream."""
        self._our_session = id
        return self

    async def _stop(self) -> None:
        """Cancel the turn of the other agent, if one is open, and wait briefly for its end."""
        self._inbox.close()
        for call_id in self._work:
            self._program.pending.pop(call_id, None)
        if not self._connection.is_alive:
            return
        peer = self._connection.peer
        with trio.CancelScope(shield=True), trio.move_on_after(CANCEL_SECONDS):
            if self._is_prompting and self._connection.session:
                peer.notify("session/cancel", {"sessionId": self._connection.session})
                for work in self._work.values():
                    work.cancel()
                while not self._inbox and not peer.problem:
                    await self._inbox.changed.wait()
            await peer.flush()

    # ------------------------------------------------------------------------- a response

    async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
        """Go on with the turn of the other agent until it needs the run, or ends.

        Raises:
          ModelError: the other agent cannot be started, has ended, refuses, or breaks the protocol.
        """
        self._is_responding = True
        try:
            await self._prepare(request)
            mark = Mark(self._connection.session, self._our_session, self._prompts)
            await reply.reasoning("", signature=json_of(mark))
            return await self._respond(reply)
        except (GoneError, RpcError) as error:
            raise self._connection.error_for(error) from None
        finally:
            self._is_responding = False

    async def _respond(self, reply: Reply) -> Stop:
        calls, first = 0, None
        while True:
            if first is not None and not (self._inbox and may_join(self._inbox.items[0], first)):
                return Stop("tool_calls")
            await self._wait_for_item(reply)
            match item := self._inbox.take():
                case Chunk(text=text, is_thought=is_thought):
                    await (reply.reasoning(text) if is_thought else reply.text(text))
                case Ended():
                    stop = self._stop_of(item)
                    # Messages that people have sent meanwhile are the next prompt.
                    return Stop("paused", stop.usage) if self._unsent and stop.reason == "end" else stop
                case _ if (work := work_of(item, self._exchange)) is not None:
                    id = f"acp_{os.urandom(8).hex()}"
                    # Before the next await: the call may be known to the run even if that is cancelled.
                    self._work[id] = self._program.pending[id] = work
                    await reply.tool_call(calls, id=id, name=work.name, arguments=json_of(work.arguments))
                    calls, first = calls + 1, item
                case _:
                    pass

    async def _wait_for_item(self, reply: Reply) -> None:
        while not self._inbox:
            if not self._connection.is_alive:
                raise GoneError
            changed = self._inbox.changed
            announced = [call for call in self._exchange.calls.values() if not (call.is_queued or call.is_shown)]
            with trio.move_on_after(QUIET_SECONDS if announced else math.inf) as quiet:
                await changed.wait()
            if quiet.cancelled_caught:
                for call in announced:
                    self._show(call)
            else:
                # Whatever has come, the other agent lives.
                await reply.text("")

    def _stop_of(self, ended: Ended) -> Stop:
        """The end of a response with which the other agent's turn has ended."""
        self._is_prompting = False
        self._exchange.calls.clear()
        if isinstance(ended.result, Exception):
            raise ended.result
        result, described = dictionary(ended.result), self._connection.described
        match result.get("stopReason"):
            case str(reason) if reason in STOP_REASONS:
                return Stop(STOP_REASONS[reason], usage_of(result.get("usage")))
            case "max_turn_requests":
                problem = "has reached its own limit of requests in one turn: ask for less at a time"
                raise ModelOutputLimitError(model=self.name, problem=problem)
            case "cancelled":
                raise ModelError(f"{described} has cancelled its turn by itself")
            case other:
                raise ModelProtocolError(f"{described} ended its turn for the unknown reason {other!r:.100}")

    # --------------------------------------------------------------- what the other agent knows

    async def _prepare(self, request: ModelRequest) -> None:
        """Start the program, begin or load a session, and send it what it does not know; as far as need be."""
        messages, connection = request.messages, self._connection
        if not connection.is_alive and not self._is_prompting:
            self._exchange.calls.clear()
            self._exchange.terminals.clear()
            await connection.start()
        if connection.session and not self._goes_on(messages):
            if self._is_prompting:
                raise UsageError(
                    f"model {self.name!r} is in the middle of its turn, and can answer no other request: give the "
                    "judge or the tool that asks it another model"
                )
            connection.session = ""
        if not connection.session:
            await self._begin_session(messages)
        new = [message for message in messages[self._known :] if not self._has_said(message)]
        self._known, self._last = len(messages), messages[-1]
        self._settle(new)
        if self._is_prompting:
            self._unsent += [message for message in new if isinstance(message, UserMessage)]
        elif self._unsent or new or not self._prompts:
            # With results of calls alone, if a turn has ended with its process, in the middle.
            self._send_prompt([*self._unsent, *new], preface=self._preface(request))
        else:
            # The same request once more, since the answer was empty.
            self._inbox.put(Ended({"stopReason": "end_turn"}))

    def _goes_on(self, messages: Sequence[Message]) -> bool:
        """Whether ``messages`` begin with those that the other agent's session has."""
        return len(messages) >= self._known and (not self._known or messages[self._known - 1] == self._last)

    def _has_said(self, message: Message) -> bool:
        """Whether the other agent has said ``message`` in its present session."""
        mark = mark_of(message)
        return mark is not None and mark.acp == self._connection.session

    async def _begin_session(self, messages: Sequence[Message]) -> None:
        """Load the session that the transcript knows of, or begin a new one."""
        self._prompts, self._known = 0, 0
        marked = [(at, mark) for at, message in enumerate(messages) if (mark := mark_of(message)) is not None]
        if marked:
            at, mark = marked[-1]
            self._exchange.approved.update(approved_requests(messages[at:]))
            if mark.session == self._our_session and await self._connection.load_session(mark):
                self._prompts, self._known = mark.prompts, at + 1
                return
        await self._connection.begin_session()

    def _preface(self, request: ModelRequest) -> str:
        parts = [request.instructions] if request.instructions and not self._prompts else []
        if request.output is not None:
            schema = json_of(request.output.parameters)
            parts.append(f"Your last message is to be JSON alone, for this schema:\n{schema}")
        return "\n\n".join(parts)

    def _send_prompt(self, messages: Sequence[Message], *, preface: str = "") -> None:
        blocks = prompt_blocks(messages, self._connection.abilities, preface=preface)
        self._prompts += 1
        self._is_prompting, self._unsent = True, []
        params = {"sessionId": self._connection.session, "prompt": blocks}
        self._connection.peer.begin("session/prompt", params, lambda result: self._inbox.put(Ended(result)))

    def _settle(self, messages: Sequence[Message]) -> None:
        """Let the other agent know the results of the tool calls of the run."""
        for message in messages:
            if isinstance(message, ToolResult) and message.call_id in self._work:
                self._program.pending.pop(message.call_id, None)
                self._work.pop(message.call_id).settle(message)

    # ---------------------------------------------------------------------- its messages

    def _on_end(self) -> None:
        self._inbox.change()
        is_waited_for = any(work.waits_for_the_run for work in self._work.values())
        if is_waited_for and not self._inbox.is_closing and not self._is_responding:
            # The run may be asking a person on behalf of an agent that is no longer there: it would wait in vain.
            self._fatal = self._connection.how_it_ended()
            self._nursery.cancel_scope.cancel()

    def _take(self, id: RequestId | None, method: str, params: Mapping[str, Any]) -> None:
        """Take a request, or a notification."""
        is_of_session = params.get("sessionId") == self._connection.session and not self._inbox.is_closing
        if id is not None:
            try:
                if not is_of_session:
                    raise ValueError("there is no such session here")
                self._take_request(id, method, params)
            except ValueError as error:
                self._connection.peer.refuse(id, INVALID_PARAMS, str(error))
        elif method == "session/update" and is_of_session and self._is_prompting:
            self._take_update(dictionary(params.get("update")))
            self._inbox.change()

    def _take_request(self, id: RequestId, method: str, params: Mapping[str, Any]) -> None:
        """Take a request of the session. Raises `ValueError` if its parameters are wrong."""
        workplace = self._program.workplace
        if method in IN_A_TURN and not self._is_prompting:
            raise ValueError(f"{method} belongs to a turn, and the session has none now")
        if method == "session/request_permission":
            self._inbox.put(Asked(id, method, params, permission=self._permission_of(params)))
        elif method in ("fs/read_text_file", "fs/write_text_file") and workplace.root is not None:
            names = ("path",) if method == "fs/read_text_file" else ("path", "content")
            if not all(isinstance(params.get(name), str) for name in names):
                raise ValueError(f"{method} takes texts: {', '.join(names)}")
            self._inbox.put(Request(id, method, params))
        elif method == "terminal/create" and workplace.has_terminal:
            command_of(params)
            if len(self._exchange.terminals) >= MAX_TERMINALS:
                raise ValueError("too many terminals are open: release some")
            self._inbox.put(Request(id, method, params))
        elif method.startswith("terminal/") and workplace.has_terminal:
            self._take_terminal_request(id, method, params)
        else:
            self._connection.peer.refuse(id, NO_METHOD, f"there is no method {method[:100]!r} here")

    def _permission_of(self, params: Mapping[str, Any]) -> Permission:
        fields = dictionary(params.get("toolCall"))
        call = self._call_of(fields)
        if call is None:
            raise ValueError("toolCall.toolCallId is the id of a call, and not of one too many")
        call.update(fields)
        listed = params.get("options")
        options = [
            {"id": option["optionId"], **{name: text_of_field(option.get(name)) for name in ("name", "kind")}}
            for option in map(dictionary, listed if is_array(listed) else [])
            if isinstance(option.get("optionId"), str)
        ]
        if not options:
            raise ValueError("options are the answers from which the person chooses")
        return Permission(call, tuple(options))

    def _take_terminal_request(self, id: RequestId, method: str, params: Mapping[str, Any]) -> None:
        peer, name = self._connection.peer, text_of_field(params.get("terminalId"))
        terminal = self._exchange.terminals.get(name)
        if terminal is None:
            raise ValueError(f"there is no terminal {name!r}")
        match method:
            case "terminal/output":
                status = terminal.status()
                output = {"output": terminal.output, "truncated": terminal.is_truncated}
                peer.respond(id, output if status is None else {**output, "exitStatus": status})
            case "terminal/wait_for_exit":
                self._nursery.start_soon(self._wait_for_exit, id, terminal)
            case "terminal/kill" | "terminal/release":
                terminal.kill()
                if method == "terminal/release":
                    del self._exchange.terminals[name]
                peer.respond(id, {})
            case _:
                peer.refuse(id, NO_METHOD, f"there is no method {method[:100]!r} here")

    async def _wait_for_exit(self, id: RequestId, terminal: Terminal) -> None:
        await terminal.ended.wait()
        self._connection.peer.respond(id, terminal.status())

    def _take_update(self, update: Mapping[str, Any]) -> None:
        """Take what the other agent tells during its turn."""
        kind = update.get("sessionUpdate")
        match kind:
            case "agent_message_chunk" | "agent_thought_chunk":
                text = block_text(update.get("content"))
                if text:
                    self._inbox.put(Chunk(text, kind == "agent_thought_chunk"))
            case "tool_call" | "tool_call_update":
                call = self._call_of(update)
                if call is not None:
                    call.update(update)
                    if call.is_to_be_shown:
                        self._show(call)
            case "plan" if is_array(entries := update.get("entries")):
                self._inbox.put(Plan([_entry(entry) for entry in entries[:200]]))
            case _:
                pass

    def _call_of(self, fields: Mapping[str, Any]) -> OwnCall | None:
        """The call that ``fields`` are about, a new one perhaps; ``None`` if they name none, or too many are open."""
        id = fields.get("toolCallId")
        if not isinstance(id, str):
            return None
        if id not in self._exchange.calls and len(self._exchange.calls) < MAX_CALLS:
            self._exchange.calls[id] = OwnCall(id)
        return self._exchange.calls.get(id)

    def _show(self, call: OwnCall) -> None:
        call.is_queued = True
        self._inbox.put(Shown(call))


def _entry(entry: object) -> dict[str, Any]:
    fields = dictionary(entry)
    return {name: text_of_field(fields.get(name), 1000) for name in ("content", "priority", "status") if name in fields}
