"""One connection with a server, owned by one task from start to stop.

An SDK client must be entered and left by the same task, and a transport that fails raises in that task. So the owner
only waits: an error there is recorded, and fails the calls that are running.
"""

from __future__ import annotations

import logging
import math
import traceback
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from typing import Any, TypeVar, cast

import httpx2
import mcp_types as types
import trio
from mcp import Client, MCPError
from mcp.client.session import ClientRequestContext
from mcp.client.subscriptions import SubscriptionLost
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import TypeAdapter, ValidationError

from agentloop._core.redaction import redacted, redacted_url, visible
from agentloop._program_output import ProgramOutput
from agentloop._runtime.blocks import PausableDeadline
from agentloop._runtime.exception_groups import single, split_plain
from agentloop._runtime.logs import MCP, log
from agentloop._runtime.toolset_start import persons_time, say_what_it_waits_for
from agentloop._runtime.user_code import describe
from agentloop.errors import McpError, McpStateError, ServerGoneError, StreamStateError
from agentloop.mcp._call import Call
from agentloop.mcp._config import Http, InProcess, ServerConfig, Stdio
from agentloop.mcp._http import connect, is_session_expired
from agentloop.mcp._process import run_program
from agentloop.mcp._server_requests import ServerRequests, refused
from agentloop.mcp._sign_in import CALLER, SERVER
from agentloop.mcp._wire import Mender, mended

__all__ = ["LEEWAY", "Connection", "SessionExpiredError"]

T = TypeVar("T")

MAX_PAGES = 100
"""Pages of a list of tools. Ends a server that always has one more."""

_RESULT: TypeAdapter[types.CallToolResult | types.InputRequiredResult] = TypeAdapter(
    types.CallToolResult | types.InputRequiredResult
)

LEEWAY = 0.9
"""The part of the time that the runtime allows for a start or a listing after which the server is given up: before the
runtime does, so that the error says what the program wrote, or the run goes on with the tools that are known."""

BUSY_SECONDS = 5.0
"""Seconds for which a call beside an open question counts as busy. Then it is taken to wait for the same answer."""

RESUBSCRIBE_SECONDS = 1.0
"""Seconds before a lost subscription is renewed."""


class SessionExpiredError(ServerGoneError):
    """The server no longer knows the HTTP session, and has not run the call."""


class Connection:
    """A connection with a server.

    Args:
      server: its configuration.
      requests: answers the server's questions.
      mode: ``"legacy"`` or ``"auto"``, as for the SDK's client.
      time_left: seconds that the runtime allows for the start.
    """

    def __init__(self, server: ServerConfig, requests: ServerRequests, mode: str, time_left: float = math.inf) -> None:
        self.server = server
        self.mode = mode
        self.ready = trio.Event()
        """Set when calls can use the connection."""
        self.over = trio.Event()
        """Set when the connection is closed and the server's processes have ended."""
        self.settled = trio.Event()
        """Set with the first of ``ready`` and ``over``."""
        self.failure: McpError | None = None
        """Why the connection failed; ``None`` while it has not, or if `stop` ended it."""
        self.retired = False
        """Whether the connection refuses new calls."""
        self.lost = False
        """Whether the connection is retired because a call could not be sent over it."""
        self.is_expired = False
        """Whether it is lost because the server no longer knows the HTTP session, which is no crash."""
        self.has_asked = False
        """Whether the server has ever asked a question outside a call's result."""
        self.tools_changed = True
        """Whether the list of tools must be read (again)."""
        self.instructions = ""
        """The server's instructions for the model."""
        self.left_out: dict[str, str] = {}
        """The tools of the last listing that cannot be used, and why."""
        self.may_be_older = False
        """Whether the server ended the connection at the first message, which older ones do not know."""
        self._requests = requests
        self._client: Client | None = None
        self._secrets = server.target.secrets
        self._output = ProgramOutput()
        self.stopping = trio.Event()
        """Set when the connection begins to close."""
        self._start_timeout = min(server.start_timeout, time_left)
        self._start_seconds = min(server.start_timeout, LEEWAY * time_left)
        self._start_deadline = PausableDeadline(self._start_seconds, None)
        """The deadline of the start. A person who signs in has time."""
        self._scope = self._start_deadline.scope
        self._calls: dict[Call, trio.CancelScope] = {}
        """Running calls, oldest first, each with the scope to cancel it."""
        self._listings: set[trio.CancelScope] = set()
        self._abandoned: set[str] = set()
        """Streams that cancelled a call which the server may still work on. Two are enough to see others."""

    # -------------------------------------------------------------------- start and stop

    async def own(self) -> None:
        """Connect, stay connected, and disconnect. Raises nothing but `trio.Cancelled`."""
        # This task was started from the task of the first call, whose questions are not all that will arrive here.
        CALLER.set(None)
        try:
            self._scope.deadline = trio.current_time() + self._start_seconds
            with self._scope:
                async with self._connected() as client, trio.open_nursery() as nursery:
                    self._client = client
                    self._scope.deadline = math.inf
                    self.instructions = client.instructions or ""
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
                is_explained = isinstance(cause, (McpError, MCPError))
                # Servers that end the connection at a first message that they do not know.
                self._note_refusal(isinstance(cause, (httpx2.RemoteProtocolError, httpx2.ReadError)))
                self._fail(_describe(cause) if is_explained else f"failed: {_describe(cause)}", plain)
            if rest is error:
                raise
            if rest is not None:
                raise rest from error  # noqa: ASYNC104 - see above
        finally:
            if self._scope.cancelled_caught and not self.stopping.is_set():
                self._fail(f"did not start within {self._start_timeout:.3g} s{self._output}")
            self._client = None
            self._end_calls()
            log(MCP, logging.DEBUG, "server %r disconnected", self.server.name)
            self.over.set()
            self.settled.set()

    @asynccontextmanager
    async def _connected(self) -> AsyncGenerator[Client]:
        server, requests = self.server, self._requests
        target = server.target
        transport: Any
        say_what_it_waits_for(_whose_answer(target))
        mender = Mender(self._version, self.left_out.__setitem__)
        if isinstance(target, Stdio):
            transport = mended(run_program(target, self._output, self._program_failed), mender)
        elif isinstance(target, Http):
            transport = mended(connect(target, self._persons_time), mender)
        else:
            transport = target.server
        async with Client(
            transport,
            # Not the version itself: the SDK would skip the handshake, and with it instructions and capabilities.
            mode=self.mode,
            # `ConnectionPool` caches the list of tools; a second cache would hide changes.
            cache=None,
            message_handler=self._on_message,
            elicitation_callback=self._on_elicitation if server.elicitation else None,
            sampling_callback=self._on_sampling if requests.samples else None,
            sampling_capabilities=requests.sampling_capability,
            list_roots_callback=self._on_roots if server.roots else None,
        ) as client:
            if server.mode not in ("auto", "legacy", client.protocol_version):
                raise McpError(server=server.name, problem=f"speaks {client.protocol_version}, not {server.mode}")
            yield client

    def _version(self) -> str | None:
        return None if self._client is None else self._client.protocol_version

    @contextmanager
    def _persons_time(self) -> Generator[None]:
        """Pause all deadlines under which the current task waits for an answer of the server."""
        call = CALLER.get()
        SERVER.set(self.server.name)
        with ExitStack() as pauses:
            if not self.settled.is_set():
                pauses.enter_context(self._start_deadline.paused())
            pauses.enter_context(persons_time())
            if call is not None:
                with suppress(StreamStateError):
                    pauses.enter_context(call.context.paused_deadline(parks=False))
            yield

    def _program_failed(self, problem: str) -> None:
        self._note_refusal(True)
        self._fail(problem)

    def _note_refusal(self, ended: bool) -> None:
        if (
            ended
            and self.mode == self.server.mode == "auto"
            and not self.settled.is_set()
            and not self.stopping.is_set()
        ):
            self.may_be_older = True

    def stop(self) -> None:
        """Disconnect within `McpServer.stop_timeout`. Running calls end at once."""
        self.retired = True
        self.stopping.set()
        self._scope.deadline = trio.current_time() + self.server.stop_timeout
        if not self.ready.is_set():
            # The handshake may be waiting for an answer that never comes.
            self._scope.cancel()
        self._end_calls()

    def _leave_if_retired(self) -> None:
        if self.retired and not self._calls:
            self.stop()

    def _fail(self, problem: str, cause: BaseException | None = None) -> None:
        """Record that the connection is unusable, and end its calls."""
        if self.failure is None and not self.stopping.is_set():
            self.failure = ServerGoneError(server=self.server.name, problem=self._shown(problem))
            self.failure.__cause__ = self._without_secrets(cause)
            log(MCP, logging.WARNING, "server %r can no longer be used", self.server.name)
        # The SDK does not leave its client's block by itself when the program has died.
        self.retired = True
        self.stopping.set()
        self._end_calls()

    def _shown(self, problem: str) -> str:
        """``problem`` with the place of a server at a URL, and without keys."""
        target = self.server.target
        if isinstance(target, Http) and (url := redacted_url(target.url)) not in problem:
            problem = f"{problem} ({url})"
        return visible(redacted(problem, self._secrets))

    def _without_secrets(self, cause: BaseException | None) -> BaseException | None:
        """``cause``, unless its traceback would show a secret."""
        if cause is None or not self._secrets:
            return cause
        text = "".join(traceback.format_exception(cause))
        return None if any(secret in text for secret in self._secrets) else cause

    def _end_calls(self) -> None:
        for scope in (*self._calls.values(), *self._listings):
            scope.cancel()

    def gone(self) -> McpError:
        """The error for a call that cannot be made, or was cut off. A new one each time: raising adds a traceback."""
        if self.failure is None:
            return ServerGoneError(server=self.server.name, problem="was stopped")
        error = type(self.failure)(server=self.server.name, problem=_problem(self.failure))
        error.__cause__ = self.failure.__cause__
        return error

    # ---------------------------------------------------------------------------- state

    @property
    def _is_modern(self) -> bool:
        return self._client is not None and self._client.protocol_version in MODERN_PROTOCOL_VERSIONS

    @property
    def capabilities(self) -> types.ServerCapabilities:
        """What the server offers."""
        return types.ServerCapabilities() if self._client is None else self._client.server_capabilities

    @property
    def is_usable(self) -> bool:
        return self.ready.is_set() and not self.retired

    @property
    def serves_one_stream(self) -> bool:
        """Whether the server's questions do not name the call that they belong to."""
        if self._is_modern or isinstance(self.server.target, Http):
            return False
        return self.server.elicitation or self._requests.samples

    @property
    def tenant(self) -> str | None:
        """The stream of the running calls, for a connection that `serves_one_stream`."""
        return next((call.stream for call in self._calls), None)

    def may_ask_for_another_stream(self, stream: str) -> bool:
        """Whether the server may still ask on behalf of a cancelled call of a stream other than ``stream``."""
        return bool(self._abandoned - {stream})

    # ---------------------------------------------------------------------- calls and tools

    async def call(
        self,
        call: Call,
        name: str,
        arguments: Mapping[str, Any],
        *,
        responses: Mapping[str, Any] | None = None,
        state: str | None = None,
    ) -> types.CallToolResult | types.InputRequiredResult:
        """Run one round of a tool call, in the task of the caller.

        Args:
          call: receives the progress and the questions of the round.
          name: the server's name for the tool.
          arguments: its arguments.
          responses: answers to the questions of the round before, by their keys.
          state: the state that the round before returned.

        Raises:
          McpError: as for `agentloop.mcp.OpenServer.call`.
        """

        async def once(client: Client) -> types.CallToolResult | types.InputRequiredResult:
            # Not `session.call_tool()`: it raises an error in the place of a result that does not fit `outputSchema`.
            params = types.CallToolRequestParams(
                name=name,
                arguments=dict(arguments),
                input_responses=dict(responses) if responses else None,
                request_state=state,
            )
            return await client.session.send_request(
                types.CallToolRequest(params=params), _RESULT, progress_callback=call.progress.report
            )

        return await self.fetch(call, once)

    async def fetch(self, call: Call, once: Callable[[Client], Awaitable[T]]) -> T:
        """Send a request on behalf of ``call``, in the task of the caller.

        Args:
          call: as for `call`.
          once: sends it. Called again if the server wants something to be done first.

        Raises:
          McpError: as for `agentloop.mcp.OpenServer.call`.
        """
        client = self._client
        if client is None or self.retired:
            raise self.gone()
        token = CALLER.set(call)
        scope = self._calls[call] = trio.CancelScope()
        try:
            with scope:
                try:
                    return await once(client)
                except MCPError as error:
                    refusal = error
                if await self._can_satisfy(call, refusal):
                    return await once(client)
                raise refusal
        except Exception as error:  # noqa: BLE001 - raised as an error of ours
            raise self._error(error) from self._without_secrets(error)
        except BaseException:
            if len(self._abandoned) < 2:
                self._abandoned.add(call.stream)
            raise
        finally:
            CALLER.reset(token)
            del self._calls[call]
            self._leave_if_retired()
        # The scope was cancelled by `_end_calls`: the connection has ended.
        raise self.gone()

    async def _can_satisfy(self, call: Call, refusal: MCPError) -> bool:
        """Do what a refused call needs before it can be repeated. ``False`` if the refusal is final."""
        if refusal.code == types.HEADER_MISMATCH:
            # The server wants arguments as headers, by a newer schema than the listed one. The SDK learns it here.
            await self.list_tools()
            return True
        if refusal.code != types.URL_ELICITATION_REQUIRED or not self.server.elicitation:
            return False
        # Protocol 2025-11-25: pages that the user must visit first.
        for page in types.ElicitationRequiredErrorData.model_validate(refusal.data).elicitations:
            answer = await self._requests.elicit(call, page)
            if isinstance(answer, types.ErrorData) or answer.action != "accept":
                return False
        return True

    def _error(self, error: Exception) -> McpError:
        """The `McpError` to raise for ``error`` of the SDK."""
        if self.stopping.is_set():
            return self.gone()
        name = self.server.name
        if not isinstance(error, MCPError):
            return McpError(server=name, problem=self._shown(f"gave no usable answer: {_describe(single(error))}"))
        if isinstance(self.server.target, Http) and not self._is_modern and is_session_expired(error):
            # Calls that are running may still get an answer. New ones open another session.
            self.retired = self.lost = self.is_expired = True
            problem = self._shown(f"no longer knows the session: {error.message}")
            return SessionExpiredError(server=name, problem=problem)
        lost = error.code == types.CONNECTION_CLOSED and not isinstance(self.server.target, Stdio)
        if lost or (error.code == types.INVALID_REQUEST and error.message == "Session terminated"):
            # Running calls may still get an answer. New ones open another connection.
            self.retired = self.lost = True
            return ServerGoneError(server=name, problem=self._shown(f"cannot be reached any more: {error.message}"))
        kind = McpStateError if _is_about_state(error) else McpError
        problem = visible(redacted(f"answered with an error: {error.message}", self._secrets))
        return kind(server=name, problem=problem, code=error.code)

    async def list_tools(self) -> list[types.Tool]:
        """List the server's tools, over all pages.

        Raises:
          McpError: the server cannot list them.
        """
        client = self._client
        if client is None:
            raise self.gone()
        self.tools_changed = False
        self.left_out.clear()
        scope = trio.CancelScope()
        self._listings.add(scope)
        listed: list[types.Tool] | None = None
        try:
            with scope:
                listed = await self._pages(client)
        except McpError:
            raise
        except Exception as error:  # noqa: BLE001 - raised as an error of ours
            raise self._error(error) from self._without_secrets(error)
        finally:
            self._listings.discard(scope)
            if listed is None:
                self.tools_changed = True
        if listed is None:
            raise self.gone()
        return listed

    async def _pages(self, client: Client) -> list[types.Tool]:
        tools: list[types.Tool] = []
        cursors: set[str] = set()
        cursor: str | None = None
        for _ in range(MAX_PAGES):
            try:
                page = await client.list_tools(cursor=cursor)
            except MCPError as error:
                if error.code == types.METHOD_NOT_FOUND and not tools:
                    # A server without tools is valid: it may offer prompts or resources.
                    return []
                raise
            tools += page.tools
            cursor = page.next_cursor
            # A server that names a page again has no more of them.
            if not cursor or cursor in cursors:
                return tools
            cursors.add(cursor)
        raise McpError(server=self.server.name, problem=f"lists its tools on more than {MAX_PAGES} pages")

    async def list_prompts(self) -> list[types.Prompt]:
        """List the server's prompts, over all pages.

        Raises:
          McpError: the server cannot list them.
        """
        client = self._client
        if client is None:
            raise self.gone()
        prompts: list[types.Prompt] = []
        if client.server_capabilities.prompts is None:
            await trio.lowlevel.checkpoint()
            return prompts
        cursor: str | None = None
        try:
            for _ in range(MAX_PAGES):
                page = await client.list_prompts(cursor=cursor)
                prompts += page.prompts
                cursor = page.next_cursor
                if not cursor:
                    break
        except Exception as error:  # noqa: BLE001 - raised as an error of ours
            raise self._error(error) from self._without_secrets(error)
        return prompts

    # ---------------------------------------------------------- notifications of the server

    async def _on_message(self, message: types.ServerNotification | Exception) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            self.tools_changed = True

    async def _listen(self, client: Client) -> None:
        """Subscribe to changes of the list of tools. Protocol 2026-07-28 sends them to subscribers only."""
        while True:
            try:
                async with client.listen(tools_list_changed=True) as subscription:
                    # A change before the subscription was not announced.
                    self.tools_changed = True
                    async for _ in subscription:
                        self.tools_changed = True
            except SubscriptionLost:
                pass
            except Exception:  # noqa: BLE001 - a server that refuses keeps its tools as listed
                return
            await trio.sleep(RESUBSCRIBE_SECONDS)

    # -------------------------------------------------------------- questions of the server

    # Only up to protocol 2025-11-25; later, questions are the result of a call. These callbacks must not raise: the SDK
    # would take the exception for a failure of its own.

    async def _on_elicitation(
        self, context: ClientRequestContext, params: types.ElicitRequestParams
    ) -> types.ElicitResult | types.ErrorData:
        answer = await self._ask(lambda call: self._requests.elicit(call, params))
        return types.ElicitResult(action="cancel") if answer is None else answer

    async def _on_sampling(
        self, context: ClientRequestContext, params: types.CreateMessageRequestParams
    ) -> types.CreateMessageResult | types.CreateMessageResultWithTools | types.ErrorData:
        answer = await self._ask(lambda call: self._requests.sample(call, params))
        return refused("no call is running whose user could approve this") if answer is None else answer

    async def _on_roots(self, context: ClientRequestContext) -> types.ListRootsResult | types.ErrorData:
        return self._requests.roots()

    async def _ask(self, ask: Callable[[Call], Awaitable[T]]) -> T | types.ErrorData | None:
        """Call ``ask`` with the call that the question belongs to.

        Returns:
          The answer; ``None`` if no running call fits, or the call has ended meanwhile.
        """
        self.has_asked = True
        for call in self._candidates():
            try:
                with call.answering():
                    return await self._ask_for(call, ask)
            except StreamStateError:
                # The call has ended: the question belongs to another one, or no longer needs an answer.
                continue
            except Exception as error:  # noqa: BLE001 - callbacks must not raise
                return types.ErrorData(code=types.INTERNAL_ERROR, message=describe(single(error)))
        return None

    async def _ask_for(self, call: Call, ask: Callable[[Call], Awaitable[T]]) -> T:
        """Call ``ask`` with ``call``. If that is a guess, pause the deadlines of the stream's other calls meanwhile."""
        if CALLER.get() is not None:
            return await ask(call)
        answers: list[T] = []
        failed: list[Exception] = []
        with ExitStack() as pauses:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pause_others, call, pauses)
                try:
                    answers.append(await ask(call))
                except Exception as error:  # noqa: BLE001 - raised again, outside of the nursery
                    failed.append(error)
                nursery.cancel_scope.cancel()
        for failure in failed:
            raise failure
        return answers[0]

    async def _pause_others(self, call: Call, pauses: ExitStack) -> None:
        """Pause the deadlines of the calls that may be the ones waiting for the answer, until cancelled."""
        checks: dict[Call, int] = {}
        while True:
            for other in self._calls:
                if other is call or other.stream != call.stream:
                    continue
                count = checks[other] = checks.get(other, 0) + 1
                with suppress(StreamStateError):
                    if count == 1:
                        pauses.enter_context(other.context.paused_deadline(parks=False))
                    elif count == 2:
                        # The call has not ended, so it may wait for the answer too: let the run be parked.
                        pauses.enter_context(other.context.paused_deadline())
            await trio.sleep(BUSY_SECONDS)

    def _candidates(self) -> list[Call]:
        """The calls that a new question may belong to, all of one stream, the likeliest first."""
        caller = CALLER.get()
        if caller is not None:
            return [caller]
        # The likeliest call waits for no answer yet, and has asked least.
        calls = sorted(self._calls, key=lambda call: (call.is_answering, len(call.questions.asked)))
        streams = {call.stream for call in calls}
        if len(streams) == 1 and not self.may_ask_for_another_stream(calls[0].stream):
            return calls
        for call in calls:
            call.warn(
                "question_refused",
                f"MCP server {self.server.name!r} asked a question that could belong to calls of several streams; "
                "it was declined",
            )
        return []


def _whose_answer(target: Stdio | Http | InProcess) -> str:
    match target:
        case Stdio(command=command):
            return f"the answer of the program {command}"
        case Http(url=url):
            return f"the answer of {redacted_url(url)}"
        case InProcess():
            return ""


def _says_when_tools_change(client: Client) -> bool:
    tools = client.server_capabilities.tools
    return tools is not None and bool(tools.list_changed)


def _is_about_state(error: MCPError) -> bool:
    """Whether the server refuses the state of a call, by the reason that the SDKs give."""
    data: Any = error.data
    return isinstance(data, dict) and cast("dict[str, Any]", data).get("reason") == "invalid_request_state"


def _describe(error: BaseException) -> str:
    if isinstance(error, McpError):
        return _problem(error)
    if isinstance(error, MCPError):
        return f"answered with an error: {error.message}"
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(step) for step in first["loc"])
        return f"{error.title} is malformed: {place}: {first['msg']}"
    return describe(error)


def _problem(error: McpError) -> str:
    return str(error).removeprefix(f"MCP server {error.server!r} ")
