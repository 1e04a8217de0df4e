"""An MCP server that has been started: its tools, its calls, its restarts."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import trio
from pydantic import TypeAdapter, ValidationError

from agentloop.context import ToolContext
from agentloop.errors import McpError, McpStateError, ServerGoneError
from agentloop.mcp._asking import Asking, Round
from agentloop.mcp._calls import Call
from agentloop.mcp._questions import Questions
from agentloop.mcp._results import result_of, tool_name
from agentloop.mcp._sdk import types
from agentloop.mcp._session import Session
from agentloop.mcp.pending import PendingInput
from agentloop.mcp.server import McpServer
from agentloop.messages import ToolResult
from agentloop.tools import JsonArguments, Tool

__all__ = ["Serving", "open_server"]

CONTEXT = "the context"
"""Under which name a tool gets its context: one that no argument of a server's tool has."""

FORGOTTEN = 300.0
"""Seconds after which a crash does not count any more."""

FIRST_PAUSE, LONGEST_PAUSE = 0.25, 10.0
"""Seconds between a crash and the start after it."""

MOST_ROUNDS = 16
"""How often a call may come back with questions."""

ROUND = "mcp_round"
"""Under which name a call remembers the `Round` that it is in."""

LONGEST_INSTRUCTIONS = 16_384
"""Characters. What a server wants the model to know must not crowd out everything else."""

_REQUEST: TypeAdapter[types.InputRequest] = TypeAdapter(types.InputRequest)


@asynccontextmanager
async def open_server(server: McpServer) -> AsyncGenerator[Serving]:
    """Start ``server``, and stop it when the block ends.

    Raises:
      McpError: it does not start.
    """
    async with trio.open_nursery() as nursery:
        serving = Serving(server, nursery)
        try:
            await serving.start()
            yield serving
        finally:
            # Each owner leaves its connection by itself, in the time that it has for it.
            serving.stop()


class Serving:
    """What there is of a server: a connection, none for the moment, or several."""

    def __init__(self, server: McpServer, nursery: trio.Nursery) -> None:
        self.server = server
        self._nursery = nursery
        self._questions = Questions(server)
        self._sessions: list[Session] = []
        """Those that are not over."""
        self._starting: Session | None = None
        self._stopped = False
        self._crashes: deque[float] = deque()
        """When it crashed, on trio's clock, as far as it counts."""
        self._last_failure: McpError | None = None
        self._freed = trio.lowlevel.ParkingLot()
        """Calls that wait for a connection."""
        self._places = None if server.concurrency is None else trio.Semaphore(server.concurrency)
        self._tools: tuple[Tool, ...] = ()
        self._listed_by: Session | None = None
        self.instructions = ""

    # ---------------------------------------------------------------------- start and stop

    async def start(self) -> None:
        """Have a connection more; several who want one at once have the same started.

        Raises:
          McpError: it does not start, or has crashed too often.
        """
        session = self._starting
        if session is None:
            pause = self._pause()
            session = self._starting = Session(self.server, self._questions)
            self._sessions.append(session)
            self._nursery.start_soon(self._own, session, pause)
        await session.settled.wait()
        if self._starting is session:
            self._starting = None
        if not session.ready.is_set():
            raise session.gone()
        if session.instructions:
            told = session.instructions[:LONGEST_INSTRUCTIONS]
            self.instructions = f"From the MCP server {self.server.name!r}, about its tools:\n{told}"

    def _pause(self) -> float:
        """Seconds to wait before the next start."""
        if self._stopped:
            raise ServerGoneError(server=self.server.name, problem="was stopped")
        now = trio.current_time()
        while self._crashes and self._crashes[0] < now - FORGOTTEN:
            self._crashes.popleft()
        if not self._crashes:
            return 0.0
        if len(self._crashes) > self.server.max_restarts:
            last = f": it {_of(self._last_failure)}" if self._last_failure else ""
            raise ServerGoneError(
                server=self.server.name,
                problem=f"has crashed {len(self._crashes)} times, and is not started again for now{last}",
            )
        pause = min(FIRST_PAUSE * 2.0 ** (len(self._crashes) - 1), LONGEST_PAUSE)
        return max(0.0, self._crashes[-1] + pause - now)

    async def _own(self, session: Session, pause: float) -> None:
        """The one task of ``session``, from its start to its end."""
        try:
            with trio.move_on_after(pause):
                await session.stopping.wait()
            if not session.retired:
                await session.own()
        finally:
            session.over.set()
            session.settled.set()
            self._sessions.remove(session)
            if self._starting is session:
                # Everybody who waited for it has been cancelled: the next one is to start another.
                self._starting = None
            if session.failure is not None or session.lost:
                self._crashes.append(trio.current_time())
                self._last_failure = session.failure
            self._freed.unpark_all()

    def stop(self) -> None:
        """Stop all that there is, and start nothing more."""
        self._stopped = True
        for session in self._sessions:
            session.stop()
        self._freed.unpark_all()

    # ------------------------------------------------------------------------------- tools

    async def list_tools(self) -> Sequence[Tool]:
        """The tools there are now. Of a server that has died, those that there were: a call will start it again.

        Raises:
          McpError: it cannot list them.
        """
        session = next((session for session in self._sessions if session.is_usable), None)
        if session is not None and (session.tools_changed or session is not self._listed_by):
            listed = await self._list(session)
            if listed is not None:
                self._tools = tuple(
                    self._tool(one) for one in listed if self.server.offers(one.name) and not _is_task(one)
                )
                self._listed_by = session
        return self._tools

    async def _list(self, session: Session) -> list[types.Tool] | None:
        try:
            return await session.list_tools()
        except ServerGoneError:
            # It has died while it was asked. Unless it never listed any, the run can go on without it.
            if self._listed_by is None:
                raise
            return None

    def _tool(self, listed: types.Tool) -> Tool:
        said = listed.annotations or types.ToolAnnotations()
        hints = said if self.server.hints else types.ToolAnnotations()
        read_only = bool(hints.read_only_hint)
        return Tool(
            name=tool_name(listed.name, self.server.prefix),
            description=listed.description or listed.title or said.title or "",
            function=partial(self._call_as_tool, listed.name),
            arguments=JsonArguments(listed.input_schema),
            context_name=CONTEXT,
            timeout=self.server.timeout,
            requires_approval=self.server.requires_approval,
            read_only=read_only,
            # What it says of this counts only for a tool that does more than read.
            destructive=None if read_only else hints.destructive_hint,
            idempotent=read_only or bool(hints.idempotent_hint),
            if_interrupted=self.server.if_interrupted,
        )

    # ------------------------------------------------------------------------------- calls

    async def _call_as_tool(self, tool: str, /, **arguments: Any) -> ToolResult:
        context: ToolContext[Any] = arguments.pop(CONTEXT)
        return await self.call(tool, arguments, context)

    async def call(self, tool: str, arguments: Mapping[str, Any], context: ToolContext[Any]) -> ToolResult:
        """Call the server's ``tool``, and answer what it asks meanwhile.

        Raises:
          McpError: the server refused, answered with nonsense, or is gone.
        """
        asking = Asking(context)
        at = context.recall(ROUND, Round)
        if at is not None and at.is_of(self.server.name, tool, arguments):
            await asking.go_on_from(at)
        else:
            at = None
        rounds, asked_before = 0 if at is None else at.number, -1
        while True:
            try:
                if at is None:
                    came = await self._round(asking, tool, arguments, {}, None)
                else:
                    answers = await self._answer(at.pending, asking, at)
                    came = await self._round(asking, tool, arguments, answers, at.pending.state)
            except McpStateError:
                if at is None or len(asking.asked) == asked_before:
                    raise
                # Too much time has passed, or it has a new process, and with that a new key. What the person has
                # answered must not be lost for that; and it may be once more, if the next answer takes as long.
                at, asked_before = None, len(asking.asked)
                asking.begin_again()
                continue
            if isinstance(came, ToolResult):
                return came
            rounds += 1
            if rounds == MOST_ROUNDS:
                raise McpError(server=self.server.name, problem=f"came back with questions {MOST_ROUNDS} times")
            at = Round(came, rounds, asking.asked, asking.at)
            await context.remember(ROUND, at)

    async def begin(
        self, tool: str, arguments: Mapping[str, Any], context: ToolContext[Any]
    ) -> ToolResult | PendingInput:
        """The first round of a call: its result, or what the server wants to know first.

        Raises:
          McpError: as for `call`.
        """
        return await self._round(Asking(context), tool, arguments, {}, None)

    async def go_on(
        self, pending: PendingInput, answers: Mapping[str, Any], context: ToolContext[Any]
    ) -> ToolResult | PendingInput:
        """One more round of a call, from what there was of it, maybe in another process, and the answers.

        Args:
          answers: results for the ``requests``, by their keys, as `answer` gives them.

        Raises:
          McpStateError: the server does not know the state any more.
          McpError: as for `call`.
        """
        return await self._round(Asking(context), pending.tool, pending.arguments, answers, pending.state)

    async def answer(self, pending: PendingInput, context: ToolContext[Any]) -> dict[str, Any]:
        """Have the questions of ``pending`` answered, one after the other.

        Raises:
          McpError: the server asked what cannot be answered.
        """
        return await self._answer(pending, Asking(context), None)

    async def _answer(self, pending: PendingInput, asking: Asking, at: Round | None) -> dict[str, Any]:
        """As `answer`; with a round ``at``, what the model has answered is remembered with that."""
        answers: dict[str, Any] = {}
        call = self._call(asking)
        try:
            for key, request in pending.requests.items():
                if at is not None and key in at.answers:
                    answers[key] = at.answers[key]
                    continue
                try:
                    read = _REQUEST.validate_python(request)
                except ValidationError as error:
                    raise McpError(server=self.server.name, problem=f"asked what cannot be read: {error}") from error
                given = await self._questions.answer(call, read)
                if isinstance(given, types.ErrorData):
                    raise McpError(server=self.server.name, problem=f"asked in vain: {given.message}", code=given.code)
                answers[key] = given.model_dump(by_alias=True, mode="json", exclude_none=True)
                if at is not None and isinstance(read, types.CreateMessageRequest):
                    # The answers before it, too: they go with its place among what was asked.
                    at.answers, at.asked, at.at = dict(answers), asking.asked, asking.at
                    await asking.context.remember(ROUND, at)
        finally:
            await call.end()  # noqa: ASYNC102 - it shields itself where it must
        return answers

    async def _round(
        self,
        asking: Asking,
        tool: str,
        arguments: Mapping[str, Any],
        answers: Mapping[str, Any],
        state: str | None,
    ) -> ToolResult | PendingInput:
        call = self._call(asking)
        try:
            if self._places is None:
                came = await self._use(call, tool, arguments, answers, state)
            else:
                async with self._places:
                    came = await self._use(call, tool, arguments, answers, state)
        finally:
            await call.end()  # noqa: ASYNC102 - it shields itself where it must
        if isinstance(came, types.CallToolResult):
            return result_of(came)
        dumped = came.model_dump(by_alias=True, mode="json", exclude_none=True)
        requests: dict[str, dict[str, Any]] = dumped.get("inputRequests", {})
        return PendingInput(self.server.name, tool, dict(arguments), requests, came.request_state)

    def _call(self, asking: Asking) -> Call:
        return Call(asking, self._spawn)

    def _spawn(self, run: Callable[[], Awaitable[None]]) -> None:
        self._nursery.start_soon(run)

    async def _use(
        self,
        call: Call,
        tool: str,
        arguments: Mapping[str, Any],
        answers: Mapping[str, Any],
        state: str | None,
    ) -> types.CallToolResult | types.InputRequiredResult:
        session = await self._session_for(call.stream)
        try:
            return await session.call(call, tool, arguments, responses=answers, state=state)
        finally:
            self._freed.unpark_all()

    async def _session_for(self, stream: str) -> Session:
        """A connection for a call of ``stream``: one that there is, or a new one.

        Raises:
          ServerGoneError: there is none, and none can be started.
        """
        while True:
            session = self._find(stream)
            if session is not None:
                return session
            # Those that are being stopped count: the new process might trip over what the old one still holds. Not
            # so those that were lost, which can only be over HTTP: calls may hope for an answer there for long.
            counted = sum(not session.lost for session in self._sessions)
            if self._starting is not None or counted < max(1, self.server.sessions):
                await self.start()
            else:
                await self._freed.park()

    def _find(self, stream: str) -> Session | None:
        idle: Session | None = None
        for session in self._sessions:
            if not session.is_usable:
                continue
            if not session.serves_one_stream:
                return session
            tenant = session.tenant
            if tenant == stream:
                return session
            if tenant is not None:
                continue
            if session.has_asked and session.is_haunted(stream):
                # It may still ask on account of a call that is long gone: nobody else must be asked that.
                session.stop()
            else:
                idle = session
        return idle


def _is_task(tool: types.Tool) -> bool:
    """Whether it can only be called as a task (an experiment of protocol 2025-11-25), as we cannot."""
    return tool.execution is not None and tool.execution.task_support == "required"


def _of(error: McpError) -> str:
    return str(error).removeprefix(f"MCP server {error.server!r} ")
