"""One connection with a server, owned by one task from its start to its stop.

An SDK client must be entered and left by the same task; and a transport that fails raises in that task. So the owner
does nothing but wait. What goes wrong in it is written down, and fails the calls that are on the way.
"""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, suppress
from contextvars import ContextVar
from typing import Any, TypeVar, cast

import httpx2
import trio
from mcp import Client, MCPError
from mcp.client.session import ClientRequestContext
from mcp.client.streamable_http import streamable_http_client
from mcp.client.subscriptions import SubscriptionLost
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from agentloop._runtime.foreign import describe
from agentloop._runtime.groups import single, split_plain
from agentloop._runtime.logs import MCP, log
from agentloop.errors import McpError, McpStateError, ServerGoneError, StreamStateError
from agentloop.mcp._calls import Call
from agentloop.mcp._process import LONGEST_LINE, run_program
from agentloop.mcp._questions import Questions, refused
from agentloop.mcp._sdk import types
from agentloop.mcp.server import Http, McpServer, Stdio

__all__ = ["Session"]

T = TypeVar("T")

CALLER: ContextVar[Call | None] = ContextVar("agentloop.mcp.caller", default=None)
"""The call in whose task we are. The SDK's HTTP transport hands it on from a request to what its response brings."""

MOST_PAGES = 100
"""Of a list of tools: a server that always has one more must not keep us for ever."""

HTTP_CONNECT, HTTP_READ = 30.0, 3600.0
"""Seconds. While a person thinks about a question, nothing may come for long: that is what calls have deadlines for."""

FINISHING = 5.0
"""Seconds that calls have for coming to an end, before they are taken to wait for what another one has asked."""

LISTEN_AGAIN = 1.0
"""Seconds until a subscription that was lost is taken out again."""


class Session:
    """A connection.

    Args:
      server: with what, and how.
      questions: answers what it asks.
    """

    def __init__(self, server: McpServer, questions: Questions) -> None:
        self.server = server
        self.ready = trio.Event()
        """Set once it can be used."""
        self.over = trio.Event()
        """Set once it is closed, with nothing of it left."""
        self.settled = trio.Event()
        """Set with the first of the two."""
        self.failure: McpError | None = None
        """Why it is not usable, if it was not us who stopped it."""
        self.retired = False
        """Whether no new call may use it."""
        self.lost = False
        """Whether it is retired because a call could not be made with it."""
        self.has_asked = False
        self.tools_changed = True
        """Whether the tools have to be listed (again)."""
        self.instructions = ""
        self.began = math.inf
        self._questions = questions
        self._client: Client | None = None
        self.stopping = trio.Event()
        """Set once it is to end, or has."""
        self._scope = trio.CancelScope()
        self._calls: dict[Call, trio.CancelScope] = {}
        """On the way now, oldest first."""
        self._listings: set[trio.CancelScope] = set()
        self._abandoned: set[str] = set()
        """Two at most of the streams that have cancelled a call, which the server may still be busy with."""

    # -------------------------------------------------------------------- start and stop

    async def own(self) -> None:
        """Connect, stay connected, and disconnect. Raises nothing but cancellation."""
        # Whoever needs the connection first has it started: its context is not what questions come from.
        CALLER.set(None)
        try:
            self._scope.deadline = trio.current_time() + self.server.start_timeout
            with self._scope:
                async with self._connected() as client, trio.open_nursery() as nursery:
                    self._client = client
                    self._scope.deadline = math.inf
                    self.instructions = client.instructions or ""
                    self.began = trio.current_time()
                    if self._is_modern and _says_when_tools_change(client):
                        nursery.start_soon(self._listen, client)
                    self.ready.set()
                    self.settled.set()
                    log(MCP, logging.DEBUG, "server %r connected: %s", self.server.name, client.protocol_version)
                    await self.stopping.wait()
                    nursery.cancel_scope.cancel()
        except BaseException as error:  # noqa: ASYNC103 - raised again, without the plain errors in it
            plain, rest = split_plain(error)
            if plain is not None:
                cause = single(plain)
                said = isinstance(cause, (McpError, MCPError))
                self._fail(_words(cause) if said else f"failed: {_words(cause)}", plain)
            if rest is error:
                raise
            if rest is not None:
                raise rest from error  # noqa: ASYNC104 - see above
        finally:
            if self._scope.cancelled_caught and not self.stopping.is_set():
                self._fail(f"did not start within {self.server.start_timeout:g} s")
            self._client = None
            self._end_calls()
            log(MCP, logging.DEBUG, "server %r disconnected", self.server.name)
            self.over.set()
            self.settled.set()

    @asynccontextmanager
    async def _connected(self) -> AsyncGenerator[Client]:
        server, questions = self.server, self._questions
        target = server.target
        to: Any
        if isinstance(target, Stdio):
            to = run_program(target, self._fail)
        elif isinstance(target, Http):
            to = _http(target)
        else:
            to = target.server
        async with Client(
            to,
            # A version given to the SDK would be taken for granted, unasked: without instructions and capabilities.
            mode="legacy" if server.mode == "legacy" else "auto",
            # Ours is in the toolset; and a cached list would hide what has changed.
            cache=None,
            message_handler=self._on_message,
            elicitation_callback=self._on_elicitation if server.asks else None,
            sampling_callback=self._on_sampling if questions.samples else None,
            list_roots_callback=self._on_roots if server.roots else None,
        ) as client:
            if server.mode not in ("auto", "legacy", client.protocol_version):
                raise McpError(server=server.name, problem=f"speaks {client.protocol_version}, not {server.mode}")
            yield client

    def stop(self) -> None:
        """Disconnect in order, within the time for it. Calls on the way end at once."""
        self.retired = True
        self.stopping.set()
        self._scope.deadline = trio.current_time() + self.server.stop_timeout
        if not self.ready.is_set():
            # It may be waiting for an answer that never comes.
            self._scope.cancel()
        self._end_calls()

    def _leave_if_retired(self) -> None:
        if self.retired and not self._calls:
            self.stop()

    def _fail(self, problem: str, cause: BaseException | None = None) -> None:
        """It is not usable any more, or never was."""
        if self.failure is None and not self.stopping.is_set():
            self.failure = ServerGoneError(server=self.server.name, problem=problem)
            self.failure.__cause__ = cause
            log(MCP, logging.WARNING, "server %r is not usable any more", self.server.name)
        # A program that has died does not end the block of its client by itself.
        self.retired = True
        self.stopping.set()
        self._end_calls()

    def _end_calls(self) -> None:
        for scope in (*self._calls.values(), *self._listings):
            scope.cancel()

    def gone(self) -> McpError:
        """The error for a call that cannot be made, or was cut off: a new one each time, as it gets a traceback."""
        if self.failure is None:
            return ServerGoneError(server=self.server.name, problem="was stopped")
        error = type(self.failure)(server=self.server.name, problem=_problem(self.failure))
        error.__cause__ = self.failure.__cause__
        return error

    # ------------------------------------------------------------------------ what it is

    @property
    def _is_modern(self) -> bool:
        return self._client is not None and self._client.protocol_version in MODERN_PROTOCOL_VERSIONS

    @property
    def is_usable(self) -> bool:
        return self.ready.is_set() and not self.retired

    @property
    def serves_one_stream(self) -> bool:
        """Whether its questions do not say which call they belong to."""
        if self._is_modern or isinstance(self.server.target, Http):
            return False
        return self.server.asks or self._questions.samples

    @property
    def tenant(self) -> str | None:
        """The stream of the calls on the way, where there is only one."""
        return next((call.stream for call in self._calls), None)

    def is_haunted(self, stream: str) -> bool:
        """Whether a question could belong to a call of another stream than ``stream``, which has been cancelled."""
        return bool(self._abandoned - {stream})

    # --------------------------------------------------------------------------- using it

    async def call(
        self,
        call: Call,
        name: str,
        arguments: Mapping[str, Any],
        *,
        responses: Mapping[str, Any] | None = None,
        state: str | None = None,
    ) -> types.CallToolResult | types.InputRequiredResult:
        """One round of a tool call, in the task of the caller.

        Raises:
          McpError: the server refused, answered with nonsense, or is gone.
        """
        client = self._client
        if client is None or self.retired:
            raise self.gone()

        async def once() -> types.CallToolResult | types.InputRequiredResult:
            return await client.session.call_tool(
                name,
                dict(arguments),
                progress_callback=call.progress.tell,
                input_responses=dict(responses) if responses else None,
                request_state=state,
                allow_input_required=True,
            )

        token = CALLER.set(call)
        scope = self._calls[call] = trio.CancelScope()
        try:
            with scope:
                try:
                    return await once()
                except MCPError as error:
                    refusal = error
                if await self._can_be_met(call, refusal):
                    return await once()
                raise refusal
        except Exception as error:
            raise self._error(error) from error
        except BaseException:
            if len(self._abandoned) < 2:
                self._abandoned.add(call.stream)
            raise
        finally:
            CALLER.reset(token)
            del self._calls[call]
            self._leave_if_retired()
        # Our own scope, cancelled: the connection has ended.
        raise self.gone()

    async def _can_be_met(self, call: Call, refusal: MCPError) -> bool:
        """Do what the server wants done before it takes the call, if that is something that we can do."""
        if refusal.code == types.HEADER_MISMATCH:
            # It wants arguments as headers, by a schema that is not the one that we have seen.
            await self.list_tools()
            return True
        if refusal.code != types.URL_ELICITATION_REQUIRED or not self.server.asks:
            return False
        # As protocol 2025-11-25 had it: pages that the user is to visit first.
        for page in types.ElicitationRequiredErrorData.model_validate(refusal.data).elicitations:
            answer = await self._questions.elicit(call, page)
            if isinstance(answer, types.ErrorData) or answer.action != "accept":
                return False
        return True

    def _error(self, error: Exception) -> McpError:
        """What the caller is told."""
        if self.stopping.is_set():
            return self.gone()
        name = self.server.name
        if not isinstance(error, MCPError):
            return McpError(server=name, problem=f"gave no usable answer: {_words(single(error))}")
        lost = error.code == types.CONNECTION_CLOSED and not isinstance(self.server.target, Stdio)
        if lost or (error.code == types.INVALID_REQUEST and error.message == "Session terminated"):
            # Calls on the way may yet be answered. New ones connect anew.
            self.retired = self.lost = True
            return ServerGoneError(server=name, problem=f"cannot be reached any more: {error.message}")
        kind = McpStateError if _is_about_state(error) else McpError
        return kind(server=name, problem=f"answered with an error: {error.message}", code=error.code)

    async def list_tools(self) -> list[types.Tool]:
        """The tools that there are now, on however many pages.

        Raises:
          McpError: they cannot be listed.
        """
        client = self._client
        if client is None:
            raise self.gone()
        self.tools_changed = False
        scope = trio.CancelScope()
        self._listings.add(scope)
        listed: list[types.Tool] | None = None
        try:
            with scope:
                listed = await self._pages(client)
        except McpError:
            raise
        except Exception as error:
            raise self._error(error) from error
        finally:
            self._listings.discard(scope)
            if listed is None:
                self.tools_changed = True
        if listed is None:
            raise self.gone()
        return listed

    async def _pages(self, client: Client) -> list[types.Tool]:
        found: list[types.Tool] = []
        cursor: str | None = None
        for _ in range(MOST_PAGES):
            try:
                page = await client.list_tools(cursor=cursor)
            except MCPError as error:
                if error.code == types.METHOD_NOT_FOUND and not found:
                    # A server may be there for other things.
                    return []
                raise
            found += page.tools
            cursor = page.next_cursor
            if cursor is None:
                return found
        raise McpError(server=self.server.name, problem=f"lists its tools on more than {MOST_PAGES} pages")

    # -------------------------------------------------------------------- what it tells us

    async def _on_message(self, message: types.ServerNotification | Exception) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            self.tools_changed = True

    async def _listen(self, client: Client) -> None:
        """Since 2026-07-28, one is told of new tools only if one asks to be."""
        while True:
            try:
                async with client.listen(tools_list_changed=True) as subscription:
                    # What changed before may not have been told.
                    self.tools_changed = True
                    async for _ in subscription:
                        self.tools_changed = True
            except SubscriptionLost:
                pass
            except Exception:  # noqa: BLE001 - it cannot, or does not want to: then its tools stay as they are
                return
            await trio.sleep(LISTEN_AGAIN)

    # --------------------------------------------------------------------- what it asks us

    # Only up to 2025-11-25; from then on, what it asks is the result of a call. Nothing may leave these callbacks but
    # an answer: the SDK would take it for its own failure.

    async def _on_elicitation(
        self, context: ClientRequestContext, params: types.ElicitRequestParams
    ) -> types.ElicitResult | types.ErrorData:
        answer = await self._ask(lambda call: self._questions.elicit(call, params))
        return types.ElicitResult(action="cancel") if answer is None else answer

    async def _on_sampling(
        self, context: ClientRequestContext, params: types.CreateMessageRequestParams
    ) -> types.CreateMessageResult | types.ErrorData:
        answer = await self._ask(lambda call: self._questions.sample(call, params))
        return refused("nobody can be asked whether the model may answer") if answer is None else answer

    async def _on_roots(self, context: ClientRequestContext) -> types.ListRootsResult | types.ErrorData:
        return self._questions.roots()

    async def _ask(self, ask: Callable[[Call], Awaitable[T]]) -> T | types.ErrorData | None:
        """Have ``ask`` answer for the call that the question belongs to.

        Returns:
          The answer; ``None`` if there is no such call, or it has ended meanwhile.
        """
        self.has_asked = True
        for call in self._askers():
            try:
                with call.answering():
                    return await self._ask_for(call, ask)
            except StreamStateError:
                # The call has ended, so it was not the one, or nobody waits for the answer any more.
                continue
            except Exception as error:  # noqa: BLE001 - see above
                return types.ErrorData(code=types.INTERNAL_ERROR, message=describe(single(error)))
        return None

    async def _ask_for(self, call: Call, ask: Callable[[Call], Awaitable[T]]) -> T:
        """Have ``ask`` answer for ``call``. If that is a guess, the others of its stream do not run out of time."""
        if CALLER.get() is not None:
            return await ask(call)
        given: list[T] = []
        failed: list[Exception] = []
        with ExitStack() as held:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._hold_others, call, held)
                try:
                    given.append(await ask(call))
                except Exception as error:  # noqa: BLE001 - raised again, outside of the nursery
                    failed.append(error)
                nursery.cancel_scope.cancel()
        for failure in failed:
            raise failure
        return given[0]

    async def _hold_others(self, call: Call, held: ExitStack) -> None:
        """Those that the server may be busy with instead of ``call``, as long as this runs."""
        known: dict[Call, int] = {}
        while True:
            for other in self._calls:
                if other is call or other.stream != call.stream:
                    continue
                since = known[other] = known.get(other, 0) + 1
                with suppress(StreamStateError):
                    if since == 1:
                        held.enter_context(other.context.paused_deadline(parks=False))
                    elif since == 2:
                        # It may wait for the answer as well: then it must not keep the run from being parked.
                        held.enter_context(other.context.paused_deadline())
            await trio.sleep(FINISHING)

    def _askers(self) -> list[Call]:
        """The calls to which a question that has just come may belong: of one stream, the likeliest first."""
        known = CALLER.get()
        if known is not None:
            return [known]
        # The likeliest: one that waits for no answer yet, and has had the fewest.
        calls = sorted(self._calls, key=lambda call: (call.is_answering, len(call.asking.asked)))
        streams = {call.stream for call in calls}
        if len(streams) == 1 and not self.is_haunted(calls[0].stream):
            return calls
        for call in calls:
            call.warn(
                "question_refused",
                f"MCP server {self.server.name!r} asked something, but not for which call; nobody was asked",
            )
        return []


def _says_when_tools_change(client: Client) -> bool:
    tools = client.server_capabilities.tools
    return tools is not None and bool(tools.list_changed)


def _is_about_state(error: MCPError) -> bool:
    """Whether the server refuses the state that it gave us, in the words that the SDKs have for it."""
    data: Any = error.data
    return isinstance(data, dict) and cast("dict[str, Any]", data).get("reason") == "invalid_request_state"


def _words(error: BaseException) -> str:
    if isinstance(error, McpError):
        return _problem(error)
    if isinstance(error, MCPError):
        return f"answered with an error: {error.message}"
    return describe(error)


def _problem(error: McpError) -> str:
    return str(error).removeprefix(f"MCP server {error.server!r} ")


@asynccontextmanager
async def _http(target: Http) -> AsyncGenerator[Any]:
    timeout = httpx2.Timeout(HTTP_CONNECT, read=HTTP_READ)
    headers = None if target.headers is None else dict(target.headers)
    async with httpx2.AsyncClient(headers=headers, auth=target.auth, timeout=timeout) as client:
        connection: AbstractAsyncContextManager[Any] = streamable_http_client(
            target.url, http_client=client, max_sse_event_size=LONGEST_LINE
        )
        async with connection as streams:
            yield streams
