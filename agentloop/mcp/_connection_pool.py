"""A started MCP server: its connections, its tools, its calls, its restarts."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from typing import Any, TypeVar

import mcp_types as types
import trio
from mcp import Client
from pydantic import TypeAdapter, ValidationError

from agentloop._core.context_window import READ_RESULT
from agentloop._runtime.exception_groups import raise_single
from agentloop._runtime.toolset_start import time_left
from agentloop.commands import Command
from agentloop.context import ToolContext
from agentloop.errors import AgentLoopError, McpError, McpStateError, ServerGoneError
from agentloop.mcp._call import Call
from agentloop.mcp._config import ServerConfig
from agentloop.mcp._connection import LEEWAY, Connection, SessionExpiredError
from agentloop.mcp._offers import CONTEXT, commands_of_prompts, offered_tools
from agentloop.mcp._output_schema import misfit
from agentloop.mcp._results import result_of, tool_name
from agentloop.mcp._rounds import PendingInput, QuestionReplay, Round
from agentloop.mcp._server_requests import MAX_QUESTIONS, ServerRequests
from agentloop.messages import ToolResult
from agentloop.tools import JsonArguments, Tool

__all__ = ["ConnectionPool", "list_commands", "open_server"]

CRASH_WINDOW = 300.0
"""Seconds for which a crash counts towards `McpServer.max_restarts`."""

FIRST_PAUSE, LONGEST_PAUSE = 0.25, 10.0
"""Seconds between a crash and the next start. Doubles with each crash in the window."""

T = TypeVar("T")

MAX_ROUNDS = 16
"""Rounds of a call that may end in questions. Ends a server that asks for ever."""

ROUND = "mcp_round"
"""The key under which a call saves its `Round` in the journal."""

MAX_INSTRUCTIONS = 16_384
"""Characters of a server's instructions in the prompt. Longer ones would crowd out the rest of it."""

_REQUEST: TypeAdapter[types.InputRequest] = TypeAdapter(types.InputRequest)


RUNTIMES_OWN = frozenset({READ_RESULT})
"""Names of tools that the runtime offers itself. The model would take a server's words for those of the runtime."""


@asynccontextmanager
async def open_server(server: ServerConfig) -> AsyncGenerator[ConnectionPool]:
    """Start ``server``, and stop it when the block ends.

    Raises:
      McpError: the server does not start.
    """
    try:
        async with trio.open_nursery() as nursery:
            pool = ConnectionPool(server, nursery)
            try:
                await pool.start()
                yield pool
            finally:
                # The nursery waits for the tasks that own connections; each disconnects within `stop_timeout`.
                pool.stop()
    except BaseExceptionGroup as group:
        raise_single(group)


async def list_commands(server: ServerConfig) -> dict[str, Command]:
    """See `agentloop.mcp.McpServer.commands`."""
    async with open_server(server) as pool:
        return commands_of_prompts(server, await pool.list_prompts())


class ConnectionPool:
    """The connections with a server: one, none at the moment, or several. Implements `agentloop.mcp.OpenServer`.

    Args:
      server: its configuration.
      nursery: runs the tasks that own connections, and those that emit progress.
    """

    def __init__(self, server: ServerConfig, nursery: trio.Nursery) -> None:
        self.server = server
        self._nursery = nursery
        self._requests = ServerRequests(server)
        self._connections: list[Connection] = []
        """Connections that are not closed yet."""
        self._starting: Connection | None = None
        self._stopped = False
        self._crashes: deque[float] = deque()
        """The times of the crashes in the window, on trio's clock."""
        self._last_failure: McpError | None = None
        self._freed = trio.lowlevel.ParkingLot()
        """Unparks calls that wait for a connection."""
        self._slots = None if server.concurrency is None else trio.Semaphore(server.concurrency)
        self._tools: tuple[Tool, ...] = ()
        self._listed_by: Connection | None = None
        """The connection that listed ``_tools``."""
        self._output_schemas: dict[str, dict[str, Any]] = {}
        """By the server's name of the tool."""
        self._mode = "legacy" if server.mode == "legacy" else "auto"
        """How the next connection negotiates the version of the protocol."""
        self._problems_of_tools: list[str] = []
        self._problem_of_listing: list[str] = []
        self.instructions = ""

    @property
    def problems(self) -> Sequence[str]:
        """The problems that the server's part in the run works around; see `agentloop.tools.OpenToolset`."""
        return [*self._problems_of_tools, *self._problem_of_listing]

    # ---------------------------------------------------------------------- start and stop

    async def start(self) -> None:
        """Open one more connection. Calls that need one at the same time share the start.

        Raises:
          McpError: the server does not start, or has crashed too often.
        """
        while True:
            connection = self._starting
            if connection is None:
                pause = self._pause()
                connection = self._starting = Connection(self.server, self._requests, self._mode, time_left())
                self._connections.append(connection)
                self._nursery.start_soon(self._own, connection, pause)
            await connection.settled.wait()
            if self._starting is connection:
                self._starting = None
            if connection.ready.is_set():
                break
            if not connection.may_be_older or self._stopped:
                raise connection.gone()
            # The protocol allows a client to begin with a message that servers of older versions do not know. Some of
            # them exit: start the server once more, and begin as those versions do.
            self._mode = "legacy"
            await connection.over.wait()
        if connection.instructions:
            instructions = connection.instructions[:MAX_INSTRUCTIONS]
            self.instructions = f"From the MCP server {self.server.name!r}, about its tools:\n{instructions}"

    def _pause(self) -> float:
        """Seconds to wait before the next start."""
        if self._stopped:
            raise ServerGoneError(server=self.server.name, problem="was stopped")
        now = trio.current_time()
        while self._crashes and self._crashes[0] < now - CRASH_WINDOW:
            self._crashes.popleft()
        if not self._crashes:
            return 0.0
        if len(self._crashes) > self.server.max_restarts:
            last = f": it {_problem(self._last_failure)}" if self._last_failure else ""
            raise ServerGoneError(
                server=self.server.name,
                problem=f"has crashed {len(self._crashes)} times, and will not be restarted for now{last}",
            )
        pause = min(FIRST_PAUSE * 2.0 ** (len(self._crashes) - 1), LONGEST_PAUSE)
        return max(0.0, self._crashes[-1] + pause - now)

    async def _own(self, connection: Connection, pause: float) -> None:
        """The task that owns ``connection`` from start to end."""
        try:
            with trio.move_on_after(pause):
                await connection.stopping.wait()
            if not connection.retired:
                await connection.own()
        finally:
            connection.over.set()
            connection.settled.set()
            self._connections.remove(connection)
            if self._starting is connection:
                # Every call that waited for the start was cancelled: the next call must start another connection.
                self._starting = None
            has_crashed = (connection.failure is not None or connection.lost) and not connection.is_expired
            if has_crashed and not connection.may_be_older:
                self._crashes.append(trio.current_time())
                self._last_failure = connection.failure
            self._freed.unpark_all()

    def stop(self) -> None:
        """Stop all connections, and refuse to start more."""
        self._stopped = True
        for connection in self._connections:
            connection.stop()
        self._freed.unpark_all()

    # ------------------------------------------------------------------------------- tools

    async def list_tools(self) -> Sequence[Tool]:
        """The tools that the server offers now; of a dead server, the last known ones, since a call restarts it.

        Raises:
          McpError: the server cannot list its tools.
        """
        for _ in range(2):
            connection = next((connection for connection in self._connections if connection.is_usable), None)
            if connection is None or not (connection.tools_changed or connection is not self._listed_by):
                break
            try:
                listed = await self._list(connection)
            except SessionExpiredError:
                if self._listed_by is None:
                    # The server has restarted since the handshake.
                    await self.start()
                continue
            except McpError as error:
                # A run that has begun with a list goes on with it: the model may not even need this server.
                if self._listed_by is None:
                    raise
                self._problem_of_listing = [f"{error}; the tools stay as they were listed before"]
                break
            self._problem_of_listing = []
            self._tools = self._usable(listed, connection)
            self._listed_by = connection
        return self._tools

    async def list_prompts(self) -> Sequence[types.Prompt]:
        """The prompts of the server, over all pages; none if it has none.

        Raises:
          McpError: the server cannot list them.
        """
        connection = next((connection for connection in self._connections if connection.is_usable), None)
        if connection is None:
            raise ServerGoneError(server=self.server.name, problem="was stopped")
        return await connection.list_prompts()

    async def _list(self, connection: Connection) -> list[types.Tool]:
        seconds = LEEWAY * time_left()
        with trio.move_on_after(seconds):
            return await connection.list_tools()
        raise McpError(server=self.server.name, problem=f"did not list its tools within {seconds:g} s")

    def _usable(self, listed: Sequence[types.Tool], connection: Connection) -> tuple[Tool, ...]:
        """The tools of a listing that can be offered, and those for prompts and resources. Others are problems."""
        left_out = connection.left_out.items()
        reasons = {name: f"it is malformed: {reason}" for name, reason in left_out if self.server.offers(name)}
        tools: dict[str, tuple[types.Tool, Tool]] = {}
        self._output_schemas.clear()
        for tool in listed:
            if not self.server.offers(tool.name) or _needs_task(tool):
                continue
            if not tool.name:
                reasons[tool.name] = "it has no name"
                continue
            try:
                made = self._tool(tool)
            except AgentLoopError as error:
                reasons[tool.name] = str(error)
                continue
            same = tools.get(made.name)
            if made.name in RUNTIMES_OWN:
                reasons[tool.name] = "agentloop has a tool of that name itself; give the server a prefix="
            elif same is None:
                tools[made.name] = (tool, made)
                if tool.output_schema is not None:
                    self._output_schemas[tool.name] = tool.output_schema
            elif same[0] != tool:
                reasons[tool.name] = (
                    f"the tool {same[0].name!r} is called {made.name!r} already, without the letters "
                    + ("that providers refuse" if same[0].name != tool.name else "of its second listing")
                )
        offers: list[Tool] = []
        for offer in offered_tools(self.server, connection.capabilities, self._fetch):
            if offer.name in tools:
                reasons[offer.name] = "it is for prompts or resources, and the server has a tool of that name itself"
            else:
                offers.append(offer)
        self._problems_of_tools = [
            f"tool {name!r} of MCP server {self.server.name!r} is left out: {reason}"
            for name, reason in reasons.items()
        ]
        return (*[made for _, made in tools.values()], *offers)

    def _tool(self, listed: types.Tool) -> Tool:
        annotations = listed.annotations or types.ToolAnnotations()
        trusted = annotations if self.server.trust_annotations else types.ToolAnnotations()
        read_only = bool(trusted.read_only_hint)
        return Tool(
            name=tool_name(listed.name, self.server.prefix),
            description=listed.description or listed.title or annotations.title or "",
            function=partial(self._call_as_tool, listed.name),
            arguments=JsonArguments(listed.input_schema),
            context_name=CONTEXT,
            timeout=self.server.timeout,
            requires_approval=self.server.requires_approval,
            read_only=read_only,
            # The protocol: this annotation means something only for a tool that does more than read.
            destructive=None if read_only else trusted.destructive_hint,
            idempotent=read_only or bool(trusted.idempotent_hint),
            if_interrupted=self.server.if_interrupted,
            deferred=self.server.deferred,
            records_start=True,
        )

    # ------------------------------------------------------------------------------- calls

    async def _call_as_tool(self, tool: str, /, **arguments: Any) -> ToolResult:
        context: ToolContext[Any] = arguments.pop(CONTEXT)
        return await self.call(tool, arguments, context)

    async def call(self, tool: str, arguments: Mapping[str, Any], context: ToolContext[Any]) -> ToolResult:
        """See `agentloop.mcp.OpenServer.call`."""
        questions = QuestionReplay(context)
        # An earlier attempt at this call may have saved its round: continue there.
        current = context.recall(ROUND, Round)
        if current is not None and current.is_of(self.server.name, tool, arguments):
            await questions.replay(current)
        else:
            current = None
        rounds, asked_before = 0 if current is None else current.number, -1
        while True:
            try:
                if current is None:
                    result = await self._round(questions, tool, arguments, {}, None)
                else:
                    answers = await self._answer(current.pending, questions, current)
                    result = await self._round(questions, tool, arguments, answers, current.pending.state)
            except McpStateError:
                if current is None or len(questions.asked) == asked_before:
                    raise
                # The state has expired, or the server has a new process with a new key. Begin again, so that the user's
                # answers are not lost. This may happen repeatedly, as long as each attempt asks a new question.
                current, asked_before = None, len(questions.asked)
                questions.begin_again()
                continue
            if isinstance(result, ToolResult):
                return result
            # The server has questions: save the round before asking them, so that a resumed run continues here.
            rounds += 1
            if rounds == MAX_ROUNDS:
                raise McpError(server=self.server.name, problem=f"answered a call with questions {MAX_ROUNDS} times")
            current = Round(result, rounds, questions.asked, questions.next_question)
            await context.remember(ROUND, current)

    async def begin(
        self, tool: str, arguments: Mapping[str, Any], context: ToolContext[Any]
    ) -> ToolResult | PendingInput:
        """See `agentloop.mcp.OpenServer.begin`."""
        return await self._round(QuestionReplay(context), tool, arguments, {}, None)

    async def go_on(
        self, pending: PendingInput, answers: Mapping[str, Any], context: ToolContext[Any]
    ) -> ToolResult | PendingInput:
        """See `agentloop.mcp.OpenServer.go_on`."""
        return await self._round(QuestionReplay(context), pending.tool, pending.arguments, answers, pending.state)

    async def answer(self, pending: PendingInput, context: ToolContext[Any]) -> dict[str, Any]:
        """See `agentloop.mcp.OpenServer.answer`."""
        return await self._answer(pending, QuestionReplay(context), None)

    async def _answer(self, pending: PendingInput, questions: QuestionReplay, current: Round | None) -> dict[str, Any]:
        """As `answer`. With a ``current`` round, answers of the sampling model are saved in it."""
        answers: dict[str, Any] = {}
        if len(pending.requests) > MAX_QUESTIONS:
            problem = f"asked {len(pending.requests)} questions at once, of which at most {MAX_QUESTIONS} are put"
            raise McpError(server=self.server.name, problem=problem)
        call = Call(questions, self._spawn, self.server.max_timeout)
        try:
            for key, request in pending.requests.items():
                if current is not None and key in current.answers:
                    answers[key] = current.answers[key]
                    continue
                try:
                    parsed = _REQUEST.validate_python(request)
                except ValidationError as error:
                    raise McpError(server=self.server.name, problem=f"asked a malformed question: {error}") from error
                answer = await self._requests.answer(call, parsed)
                if isinstance(answer, types.ErrorData):
                    problem = f"asked a question that was refused: {answer.message}"
                    raise McpError(server=self.server.name, problem=problem, code=answer.code)
                answers[key] = answer.model_dump(by_alias=True, mode="json", exclude_none=True)
                if current is not None and isinstance(parsed, types.CreateMessageRequest):
                    # With the answers before it: `next_question` counts their questions.
                    current.answers, current.asked = dict(answers), questions.asked
                    current.next_question = questions.next_question
                    await questions.context.remember(ROUND, current)
        finally:
            await call.end()  # noqa: ASYNC102 - it shields itself where it must
        return answers

    async def _round(
        self,
        questions: QuestionReplay,
        tool: str,
        arguments: Mapping[str, Any],
        answers: Mapping[str, Any],
        state: str | None,
    ) -> ToolResult | PendingInput:
        call = Call(questions, self._spawn, self.server.max_timeout)
        try:
            async with nullcontext() if self._slots is None else self._slot(call):
                result = await self._use(
                    call, partial(_call_tool, call, tool, arguments, responses=answers, state=state)
                )
        finally:
            await call.end()  # noqa: ASYNC102 - it shields itself where it must
        if isinstance(result, types.CallToolResult):
            return result_of(result, note=self._note(tool, result))
        dumped = result.model_dump(by_alias=True, mode="json", exclude_none=True)
        requests: dict[str, dict[str, Any]] = dumped.get("inputRequests", {})
        return PendingInput(self.server.name, tool, dict(arguments), requests, result.request_state)

    def _note(self, tool: str, result: types.CallToolResult) -> str:
        """A note to the model on a result that does not fit the tool's schema; empty if it does."""
        schema = self._output_schemas.get(tool)
        if schema is None or result.is_error:
            return ""
        is_missing = "structured_content" not in result.model_fields_set
        reason = misfit(schema, result.structured_content, is_missing=is_missing)
        return f"[This result does not fit the outputSchema of the tool: {reason}]" if reason else ""

    def _spawn(self, run: Callable[[], Awaitable[None]]) -> None:
        self._nursery.start_soon(run)

    async def _fetch(self, context: ToolContext[Any], send: Callable[[Client], Awaitable[T]]) -> T:
        """Send a request that is no call of a tool, on behalf of one. Raises as `call` does."""
        call = Call(QuestionReplay(context), self._spawn, self.server.max_timeout)
        try:
            async with nullcontext() if self._slots is None else self._slot(call):
                return await self._use(call, lambda connection: connection.fetch(call, send))
        finally:
            await call.end()  # noqa: ASYNC102 - it shields itself where it must

    async def _use(self, call: Call, send: Callable[[Connection], Awaitable[T]]) -> T:
        for is_last in (False, True):
            # So far, the call only waits: for the start of the server, or for a connection.
            await self._connection_for(call)
            await call.context.record_start()
            # Found again: another stream may have taken that connection while the start was saved.
            connection = await self._connection_for(call)
            try:
                return await send(connection)
            except SessionExpiredError:
                # The server refused the call before it ran it: send it once more, in a new session.
                if is_last:
                    raise
            finally:
                self._freed.unpark_all()
        raise AssertionError("unreachable")

    @asynccontextmanager
    async def _slot(self, call: Call) -> AsyncGenerator[None]:
        assert self._slots is not None
        # Time in the queue is not the call's. The call before it may wait for a person, so the run may be parked.
        with call.context.paused_deadline():
            await self._slots.acquire()
        try:
            yield
        finally:
            self._slots.release()

    async def _connection_for(self, call: Call) -> Connection:
        """An open connection for ``call``, or a new one. Waits where `McpServer.max_processes` are in use.

        Raises:
          ServerGoneError: no connection is open, and none can be.
        """
        while True:
            connection = self._find(call.stream)
            if connection is not None:
                return connection
            # Connections that are stopping count: a new process might clash with files or ports that the old one still
            # holds. Lost ones do not count: they exist over HTTP only, where their calls may wait long for an answer.
            counted = sum(not connection.lost for connection in self._connections)
            if self._starting is not None or counted < max(1, self.server.max_processes):
                # A start has a deadline of its own.
                with call.context.paused_deadline(parks=False):
                    await self.start()
            else:
                # Time in the queue is not the call's.
                with call.context.paused_deadline():
                    await self._freed.park()

    def _find(self, stream: str) -> Connection | None:
        idle: Connection | None = None
        for connection in self._connections:
            if not connection.is_usable:
                continue
            if not connection.serves_one_stream:
                return connection
            tenant = connection.tenant
            if tenant == stream:
                return connection
            if tenant is not None:
                continue
            if connection.has_asked and connection.may_ask_for_another_stream(stream):
                # The server may still ask on behalf of a cancelled call: its question must not reach this stream.
                connection.stop()
            else:
                idle = connection
        return idle


async def _call_tool(
    call: Call, tool: str, arguments: Mapping[str, Any], connection: Connection, /, **more: Any
) -> types.CallToolResult | types.InputRequiredResult:
    return await connection.call(call, tool, arguments, **more)


def _needs_task(tool: types.Tool) -> bool:
    """Whether the tool can only be called as a "task" (an experiment of protocol 2025-11-25), unsupported here."""
    return tool.execution is not None and tool.execution.task_support == "required"


def _problem(error: McpError) -> str:
    return str(error).removeprefix(f"MCP server {error.server!r} ")
