"""The SDK's MCP server, with agents as its tools.

The SDK speaks the protocol: JSON-RPC, both revisions, transports, cancellation. This module has the tools: a call
begins a run, reads it as any other client of the server does, and has the MCP client's user answer its questions.

- Revision 2025-11-25: the server asks the client while the call runs (``elicitation/create``).
- Revision 2026-07-28: the result of the call is its questions (``input_required``). Its run is parked, and the client
  sends the call again with the answers, which resume the run: also after a restart, and in another process.

A call that is cancelled stops reading its run, and so the run stops. Over HTTP that is also what happens when the
client goes away: see `Calls`.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import mcp_types as types
import trio
from mcp.server.caching import CacheHint
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel.server import Server
from mcp.shared.exceptions import MCPError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import ValidationError

from agentloop._runtime.exception_groups import raise_single
from agentloop._runtime.logs import SERVING
from agentloop.agent import Agent
from agentloop.errors import AgentLoopError, InvalidAnswerError
from agentloop.events import (
    ApprovalRequested,
    ContinueRequested,
    ElicitationRequested,
    Question,
    QuestionAnswered,
    QuestionDeclined,
    QuestionParked,
    QuestionWithdrawn,
    StreamEvent,
    StreamStopped,
)
from agentloop.messages import UserMessage
from agentloop.outcome import Outcome
from agentloop.questions import Answer
from agentloop.serving._errors import FAILED, Refusal, refusal_of
from agentloop.serving._mcp_prompts import AgentPrompts
from agentloop.serving._runs import LiveRun, SessionReader
from agentloop.serving._security import LOCAL, is_session_of
from agentloop.serving._service import PRINCIPAL, Service, package_version
from agentloop.serving.protocols.mcp import (
    DELTA_SECONDS,
    AskableForms,
    Declined,
    Progress,
    State,
    ToolCall,
    answer_of,
    error_result,
    input_required,
    parked_result,
    read_call,
    request_for,
    result_of,
    tool_names,
    tool_of,
)

__all__ = ["CALLS", "AgentTool", "AgentTools", "Calls", "Context", "ServedTool"]

Context = ServerRequestContext[Any, Any]
"""A request of a client, as the SDK hands it to a handler."""

CALLS = "agentloop.mcp.calls"
"""The key in the scope of an HTTP request that has its `Calls`."""

LIST_MILLISECONDS = 60_000
"""How long a client may take the list of tools for the newest one."""

SILENT_SECONDS = 15.0
"""The longest time between two progress notifications."""

CLOSED_SECONDS = 1.0
"""How long a call waits for its cancellation when its connection seems to have ended."""

ATTEMPTS = 3
"""Forms that a person gets for one question, if the answers are not valid."""


class Calls:
    """The calls of one HTTP request, or of a server. They are cancelled when it ends.

    The SDK goes on with a call of revision 2025-11-25 whose client has gone, though nothing can send the result.

    Args:
      others: all calls of the server, to which these belong as well.
    """

    def __init__(self, others: Calls | None = None) -> None:
        self._others = others
        self._scopes: set[trio.CancelScope] = set()
        self._changed = trio.lowlevel.ParkingLot()

    @contextmanager
    def call(self) -> Generator[None]:
        """Cancel the block if its request, or the server, ends before it."""
        with trio.CancelScope() as scope:
            self._add(scope)
            try:
                yield
            finally:
                self._discard(scope)

    def _add(self, scope: trio.CancelScope) -> None:
        self._scopes.add(scope)
        if self._others is not None:
            self._others._add(scope)

    def _discard(self, scope: trio.CancelScope) -> None:
        self._scopes.discard(scope)
        self._changed.unpark_all()
        if self._others is not None:
            self._others._discard(scope)

    def cancel(self) -> None:
        """Cancel the calls."""
        for scope in self._scopes:
            scope.cancel()

    async def ended(self) -> None:
        """Return when there are none."""
        while self._scopes:
            await self._changed.park()


class ServedTool(Protocol):
    """A tool of the server."""

    @property
    def description(self) -> Mapping[str, Any]:
        """The tool, as ``tools/list`` describes it."""
        ...

    async def call(self, context: Context, params: types.CallToolRequestParams) -> Mapping[str, Any]:
        """Call the tool. The result is plain JSON data."""
        ...


class AgentTools:
    """The SDK's server, whose tools are agents.

    Args:
      service: the agents, and their runs.
      agents: those of them that the server offers, by the names that clients use.
      is_answered_elsewhere: whether clients of another protocol can answer the questions of a parked run. Where none
        can, a question that the MCP client cannot show is declined.
    """

    def __init__(self, service: Service, agents: Mapping[str, Agent], *, is_answered_elsewhere: bool) -> None:
        self.tools: dict[str, ServedTool] = {
            name: AgentTool(service, name, agent, agents[agent], is_answered_elsewhere=is_answered_elsewhere)
            for name, agent in tool_names(agents).items()
        }
        """The tools by name."""
        prompts = AgentPrompts({name: agents[agent] for name, agent in tool_names(agents).items()})
        self.server: Server[Any] = Server(
            next(iter(agents)) if len(agents) == 1 else "agentloop",
            version=package_version(),
            on_list_tools=self._list,
            on_call_tool=self._call,
            cache_hints={"tools/list": CacheHint(ttl_ms=LIST_MILLISECONDS, scope="public")},
            get_tool_input_schema=self._schema,
            **prompts.handlers,
        )
        """The server. Handlers of other methods may be added to it."""

    def _schema(self, name: str) -> Mapping[str, Any] | None:
        tool = self.tools.get(name)
        return None if tool is None else tool.description["inputSchema"]

    async def _list(self, context: Context, params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        await trio.lowlevel.checkpoint()
        tools = [types.Tool.model_validate(tool.description) for tool in self.tools.values()]
        return types.ListToolsResult(tools=tools)

    async def _call(self, context: Context, params: types.CallToolRequestParams) -> Any:
        tool = self.tools.get(params.name)
        if tool is None:
            raise MCPError(types.INVALID_PARAMS, f"there is no tool {params.name[:100]!r} here")
        calls = None if context.request is None else context.request.scope.get(CALLS)
        try:
            if calls is None:
                return await tool.call(context, params)
            with calls.call():
                return await tool.call(context, params)
        except MCPError:
            raise
        except Exception as error:
            # The SDK would send the words of any error to the client.
            SERVING.error("tool %r failed", params.name, exc_info=error)
            raise MCPError(types.INTERNAL_ERROR, FAILED) from error
        raise MCPError(types.INTERNAL_ERROR, "the client went away")


class AgentTool:
    """An agent as a tool."""

    def __init__(
        self, service: Service, name: str, agent_name: str, agent: Agent, *, is_answered_elsewhere: bool
    ) -> None:
        self.service = service
        self.agent = agent
        self.is_answered_elsewhere = is_answered_elsewhere
        self._description = tool_of(name, agent_name, agent)

    @property
    def description(self) -> Mapping[str, Any]:
        """The tool, as ``tools/list`` describes it."""
        return self._description

    def read(self, arguments: Mapping[str, Any]) -> ToolCall:
        """Read the arguments of a call. Raises `Refusal`."""
        return read_call(arguments)

    async def call(self, context: Context, params: types.CallToolRequestParams) -> Mapping[str, Any]:
        """Run the agent on the prompt, or go on with the run that the client's answers are for."""
        session = ""
        try:
            asked = self.read(params.arguments or {})
            principal = LOCAL if context.request is None else context.request.scope[PRINCIPAL]
            state: State | None = None
            if params.request_state is None:
                session = self.service.session_named(principal, asked.session)
            else:
                state = await self._state(principal, params.request_state)
                session = state.session
            call = _Call(self, context, principal, session)
            return await call.result(asked.prompt, state, params.input_responses or {})
        except MCPError:
            raise
        except Exception as error:  # noqa: BLE001 - the reason is the result of the call
            return error_result(refusal_of(error).message, session)

    async def _state(self, principal: str, text: str) -> State:
        """Read the ``requestState`` of a call. Raises `MCPError`."""
        try:
            state = State.decode(text)
        except Refusal as refusal:
            raise MCPError(types.INVALID_PARAMS, refusal.message) from refusal
        is_own = is_session_of(principal, state.session)
        if not is_own or await self.service.runs.store.info(state.session) is None:
            raise MCPError(types.INVALID_PARAMS, "the requestState is not one that this server has made")
        return state


class _End(NamedTuple):
    """The end of a run, as one request of the client has it."""

    result: dict[str, Any]
    is_completed: bool


class _Call:
    """One ``tools/call``."""

    def __init__(self, tool: AgentTool, context: Context, principal: str, session: str) -> None:
        self._tool = tool
        self._context = context
        self._principal = principal
        self._session = session
        self._is_modern = context.protocol_version in MODERN_PROTOCOL_VERSIONS
        capabilities = context.session.client_capabilities
        can_ask = self._is_modern or context.session.can_send_request
        self._forms = (
            AskableForms.of(capabilities.model_dump(mode="json", by_alias=True, exclude_none=True))
            if can_ask and capabilities is not None
            else AskableForms()
        )
        meta: Mapping[str, Any] = (context.params or {}).get("_meta") or {}
        self._wants_progress = "progressToken" in meta
        self._sent = 0

    async def result(self, prompt: UserMessage, state: State | None, responses: Mapping[str, Any]) -> dict[str, Any]:
        """Run the agent, and return the result of the call: the agent's, or the questions for the client."""
        found = await self._tool.service.runs.look(self._session)
        is_open = found.state in ("parked", "interrupted")
        if is_open and not self._tool.agent.answers_to(found.agent):
            sentence = f"the session has an open run of the agent {found.agent!r}: call that agent's tool first"
            raise Refusal(409, sentence)
        if state is not None and found.state == "idle":
            raise Refusal(409, "the questions of this requestState are not open any more: call the tool without it")
        is_earlier = is_open if state is None else state.is_earlier
        if state is not None or is_earlier:
            # What an earlier request has left open comes first.
            end = await self._resume(state, responses, is_earlier=is_earlier)
            if not (is_earlier and end.is_completed):
                return end.result
        return (await self._run(prompt)).result

    async def _resume(self, state: State | None, responses: Mapping[str, Any], *, is_earlier: bool) -> _End:
        # The answer to another kind of request is none: the question is asked again.
        answers = {
            id: {"action": response.action, "content": response.content or {}}
            for id, response in responses.items()
            if isinstance(response, types.ElicitResult)
        }
        try:
            return await self._run(None, answers, is_earlier=is_earlier)
        except InvalidAnswerError as error:
            found = await self._tool.service.runs.look(self._session)
            requests = self._requests(found.questions, note=str(error))
            number = 0 if state is None else state.number + 1
            return _End(input_required(requests, State(self._session, number, is_earlier)), is_completed=False)

    def _requests(self, questions: tuple[Question, ...], *, note: str = "") -> dict[str, dict[str, Any]]:
        asked = {question.id: request_for(question, self._forms, note=note) for question in questions}
        return {id: request for id, request in asked.items() if request is not None}

    async def _run(
        self, prompt: UserMessage | None, answers: Mapping[str, Any] | None = None, *, is_earlier: bool = False
    ) -> _End:
        """Run the agent until it ends, or until its questions are the client's to answer."""
        while True:
            stopped, outcome, declined = await self._read(prompt, answers or {})
            if outcome.reason != "needs_input":
                result = result_of(self._tool.agent, stopped, outcome, self._session, declined)
                return _End(result, is_completed=outcome.reason == "completed")
            requests = self._requests(outcome.questions) if self._is_modern else {}
            if requests:
                state = State(self._session, stopped.seq, is_earlier)
                return _End(input_required(requests, state), is_completed=False)
            if not (self._is_modern and self._forms.any and outcome.questions):
                return _End(parked_result(outcome.questions, self._session), is_completed=False)
            # None of the questions can be shown: the run goes on with refusals.
            prompt, answers = None, {}

    async def _read(
        self, prompt: UserMessage | None, answers: Mapping[str, Any]
    ) -> tuple[StreamStopped, Outcome[Any], list[str]]:
        """Begin a run, or resume it, and read it to its end."""

        def given(questions: Any) -> Mapping[str, Answer]:
            chosen: dict[str, Answer] = {}
            for question in questions:
                if question.id in answers:
                    chosen[question.id] = answer_of(question, answers[question.id])
                elif self._is_modern and self._forms.any and request_for(question, self._forms) is None:
                    chosen[question.id] = answer_of(question, None)
            return chosen

        service = self._tool.service
        run = await service.start_for(
            self._principal,
            self._session,
            self._tool.agent,
            prompt,
            answers=given,
            on_question=self._on_question(),
            on_disconnect="stop",
        )
        reading = _Reading(run, SessionReader(service.runs, self._session, run.begin))
        try:
            with run.reading():
                async with trio.open_nursery() as nursery:
                    await self._follow(reading, nursery)
                    nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            raise_single(group)
        if reading.stopped is None:
            raise Refusal(500, "the run ended without its last event; the log of the agent says why")
        return reading.stopped, run.outcome, reading.declined.words

    def _on_question(self) -> Any:
        if self._forms.any:
            return "park" if self._is_modern else "reader"
        return "park" if self._tool.is_answered_elsewhere else "decline"

    async def _follow(self, reading: _Reading, nursery: trio.Nursery) -> None:
        """Read the run to its end, report progress, and ask its questions."""
        progress, report_at = reading.progress, trio.current_time() + SILENT_SECONDS
        while True:
            entries = None
            with trio.move_on_at(report_at if self._wants_progress else math.inf):
                entries = await reading.reader.next(reading.run)
            if entries is not None and not entries:
                return
            for entry in entries or ():
                reading.add(entry.event)
                if self._forms.any and not self._is_modern and not reading.run.has_takeovers:
                    self._ask_or_withdraw(reading, entry.event, nursery)
            if not self._wants_progress:
                progress.take()
            elif entries is None or progress.is_urgent:
                await self._report(progress.take())
                report_at = trio.current_time() + SILENT_SECONDS
            elif not progress.is_empty:
                report_at = min(report_at, trio.current_time() + DELTA_SECONDS)

    async def _report(self, text: str) -> None:
        self._sent += 1
        # Without a text, it says that the call is still running: clients give up on one that is silent.
        await self._context.session.report_progress(self._sent, None, text or None)

    # ------------------------------------------------------------- questions, while the call runs

    def _ask_or_withdraw(self, reading: _Reading, event: StreamEvent, nursery: trio.Nursery) -> None:
        match event:
            case QuestionAnswered() | QuestionDeclined() | QuestionWithdrawn() | QuestionParked():
                if event.id in reading.asking:
                    reading.asking.pop(event.id).cancel()
            case ApprovalRequested() | ContinueRequested() | ElicitationRequested():
                scope = reading.asking[event.id] = trio.CancelScope()
                nursery.start_soon(self._ask, reading.run, event, scope)
            case _:
                pass

    async def _ask(self, run: LiveRun, question: Question, scope: trio.CancelScope) -> None:
        """Ask the client's user a question of a run, until it is answered or no longer open."""
        with scope:
            note = ""
            for _ in range(ATTEMPTS):
                request = request_for(question, self._forms, note=note)
                result = None if request is None else await self._elicit(question, request)
                try:
                    await _answer(run, question, result)
                except InvalidAnswerError as error:
                    note = str(error)
                else:
                    return
            await _answer(run, question, None)

    async def _elicit(self, question: Question, request: Mapping[str, Any]) -> Any:
        """The client's answer; ``None`` if it is an error, or no answer."""
        session, related = self._context.session, self._context.request_id
        try:
            if request["mode"] == "url":
                asked = await session.elicit_url(request["message"], request["url"], question.id, related)
            else:
                asked = await session.elicit_form(request["message"], request["requestedSchema"], related)
        except MCPError as error:
            if error.error.code == types.CONNECTION_CLOSED:
                # If the connection has ended, this call is cancelled now, and the question stays open. A client may
                # also answer with this code.
                await trio.sleep(CLOSED_SECONDS)
            SERVING.warning("the client could not show question %r: %.200r", question.id, error.error.message)
            return None
        except ValidationError:
            SERVING.warning("the client's answer to question %r is none of the protocol", question.id)
            return None
        return {"action": asked.action, "content": asked.content or {}}


class _Reading:
    """A run that is read by one call."""

    def __init__(self, run: LiveRun, reader: SessionReader) -> None:
        self.run = run
        self.reader = reader
        self.progress = Progress()
        self.declined = Declined()
        self.asking: dict[str, trio.CancelScope] = {}
        """Questions that the client's user sees now."""
        self.stopped: StreamStopped | None = None

    def add(self, event: StreamEvent) -> None:
        self.progress.add(event)
        self.declined.add(event)
        if isinstance(event, StreamStopped) and not event.depth:
            self.stopped = event


async def _answer(run: LiveRun, question: Question, result: Any) -> None:
    """Answer a question of a run, if it is still open.

    Raises:
      InvalidAnswerError: the answer does not fit the question.
    """
    if run.is_closed:
        return
    try:
        await run.answer({question.id: answer_of(question, result)})
    except InvalidAnswerError:
        raise
    except AgentLoopError as error:
        SERVING.debug("question %r is not open any more: %s", question.id, error)
