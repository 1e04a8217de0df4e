"""The endpoints of A2A 1.0: cards of agents, and JSON-RPC requests about tasks.

A task is named ``SESSION.SEQ``: its session, and the number of the first event of its run. So the id of a task has the
principal in it as the id of a session has, and no table of tasks is needed: the journal of the session is read from
that number on.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal, NamedTuple
from urllib.parse import quote

import trio
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from agentloop._runtime.logs import SERVING
from agentloop.agent import Agent
from agentloop.errors import StoreError
from agentloop.events import Question, StreamStarted, TurnStarted
from agentloop.questions import Answer
from agentloop.serving._connections import KEEP_ALIVE_SECONDS, Chunk, FrameResponse, JsonResponse, connected
from agentloop.serving._errors import refusal_of
from agentloop.serving._runs import Entry, LiveRun, SessionReader
from agentloop.serving._security import is_session_of, named_session, owner_prefix
from agentloop.serving._service import Service
from agentloop.serving.protocols._base import sse
from agentloop.serving.protocols.a2a import (
    A2aRefusal,
    Call,
    MessageRequest,
    RpcId,
    TaskListRequest,
    TaskRequest,
    agent_card,
    answers_of,
    check_version,
    error_response,
    prompt_of_message,
    read_call,
    read_request,
    response,
)
from agentloop.serving.protocols.a2a_tasks import (
    ENDED,
    TASK_KINDS,
    TaskEncoder,
    TaskRecord,
    tasks_of,
    timestamp,
)

__all__ = ["a2a_routes"]

CARD = "/.well-known/agent-card.json"

IDLE_SECONDS = 2.0
"""How long a task that another process runs is waited for, before it is shown as far as the store has it."""

CANCEL_SECONDS = 5.0
"""Seconds in which a run that is cancelled ends, or its task is shown as it is then."""

SESSIONS = 1000
"""The sessions whose tasks are listed: those that were used last."""


def a2a_routes(service: Service) -> list[Route]:
    """The endpoints: those of the first agent, and those of each agent by its name."""
    endpoint = _Endpoint(service)
    cards = (CARD, f"/a2a{CARD}", f"/a2a/{{agent}}{CARD}")
    return [
        *(Route(path, endpoint.card, methods=["GET"]) for path in cards),
        *(Route(path, endpoint.call, methods=["POST"]) for path in ("/a2a", "/a2a/{agent}")),
    ]


class _Task(NamedTuple):
    """A task that a request is about."""

    session: str
    record: TaskRecord
    is_last: bool
    """Whether it is the last one of its session: only then it can be live, or resumed."""

    @property
    def id(self) -> str:
        return f"{self.session}.{self.record.seq}"


class _Endpoint:
    """The endpoints of all agents."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def card(self, request: Request) -> Response:
        """The card of an agent, with the address under which the client knows the server."""
        await trio.lowlevel.checkpoint()
        name, _ = self._agent(request)
        # Another scheme would only mislead the client that sends the header: the card is not cached.
        is_https = request.headers.get("x-forwarded-proto", "") == "https"
        scheme = "https" if is_https else request.scope["scheme"]
        root = f"{scheme}://{request.headers.get('host', '')}{quote(request.scope.get('root_path', ''))}"
        return JsonResponse(agent_card(name, f"{root}/a2a/{quote(name, safe='')}", _version()))

    def _agent(self, request: Request) -> tuple[str, Agent]:
        """The agent that the path names, by the name that clients use. Raises `Refusal`."""
        name: str = request.path_params.get("agent") or next(iter(self._service.agents))
        return name, self._service.agent(name)

    async def call(self, request: Request) -> Response:
        """Answer a JSON-RPC request. An error is a response as well, for the client to read."""
        _, agent = self._agent(request)
        id: RpcId = None
        try:
            call = read_call(await self._service.body(request))
            id = call.id
            check_version(request.headers.get("a2a-version", "") or request.query_params.get("A2A-Version", ""))
            return await _Answering(self._service, request, agent, call).response()
        except Exception as error:  # noqa: BLE001 - the response says what it is, and the log the rest
            refusal = refusal_of(error)
            if isinstance(refusal, A2aRefusal) and refusal.id is not None:
                id = refusal.id
            # Limits of the body close the connection.
            status = refusal.status if refusal.status in (408, 413, 415) else 200
            return JsonResponse(error_response(id, refusal), status, refusal.headers)


def _version() -> str:
    try:
        return version("agentloop-trio")
    except PackageNotFoundError:
        # The package is used from a folder.
        return "0"


class _Answering:
    """Answers one JSON-RPC request to one agent."""

    def __init__(self, service: Service, request: Request, agent: Agent, call: Call) -> None:
        self._service = service
        self._runs = service.runs
        self._request = request
        self._principal = service.principal(request)
        self._agent = agent
        self._id = call.id
        self._sent = read_request(call)

    async def response(self) -> Response:
        """Do what the request asks for, and give its response. Raises `Refusal` and errors of the runtime."""
        sent = self._sent
        if isinstance(sent, TaskListRequest):
            return self._result(await self._list(sent))
        if isinstance(sent, MessageRequest):
            return await self._send(sent)
        task = await self._find(sent.task)
        if sent.method == "CancelTask":
            return self._result(await self._cancel(task, sent))
        task = await self._revived(task)
        if sent.method == "SubscribeToTask":
            return await self._subscription(task)
        encoder = await self._snapshot(task)
        return self._result(encoder.task(sent.history_length))

    def _result(self, result: Mapping[str, Any]) -> Response:
        return JsonResponse(response(self._id, result))

    # ------------------------------------------------------------------------------ tasks

    async def _tasks(self, session: str) -> list[_Task]:
        """The tasks of a session, oldest first."""
        records = tasks_of(await self._runs.store.read(session, kinds=TASK_KINDS))
        return [_Task(session, record, record is records[-1]) for record in records]

    async def _find(self, id: str) -> _Task:
        """The task ``id`` of the principal and of the agent. Raises `A2aRefusal`."""
        session, _, number = id.rpartition(".")
        if number.isascii() and number.isdigit() and len(number) < 16 and is_session_of(self._principal, session):
            for task in await self._tasks(session):
                if task.record.seq == int(number) and self._agent.answers_to(task.record.agent):
                    return task
        raise A2aRefusal("TASK_NOT_FOUND", "there is no task with this id")

    async def _live(self, task: _Task) -> LiveRun | None:
        """The run of the task, if it is live. It may have begun after the records were read."""
        if not task.is_last or task.record.state in ENDED:
            return None
        run = await self._runs.find(task.session)
        if run is None:
            return None
        return run if run.prompt is None or run.begin + 1 == task.record.seq else None

    async def _revived(self, task: _Task) -> _Task:
        """Resume the run of a task that was cut off: the client that asks for the task wants it to go on."""
        if not task.is_last or task.record.state != "TASK_STATE_WORKING" or await self._live(task) is not None:
            return task
        try:
            if (await self._runs.look(task.session)).state == "interrupted":
                await self._resume(task)
        except Exception as error:  # noqa: BLE001 - the task can be read all the same
            refusal = refusal_of(error)
            if refusal.status != 409:
                SERVING.warning("session %r: its run is not resumed: %s", task.session, refusal.message)
        return await self._find(task.id)

    async def _resume(
        self,
        task: _Task,
        sent: MessageRequest | None = None,
        *,
        on_question: Literal["reader", "park"] = "park",
    ) -> LiveRun:
        """Resume the run of a task, with the answers in a message if there is one."""

        def given(questions: Sequence[Question]) -> Mapping[str, Answer]:
            is_parked = task.record.state == "TASK_STATE_INPUT_REQUIRED"
            if is_parked and any(question.seq > task.record.last for question in questions):
                # Of a later task, or asked again: a text must not answer what its sender has not read.
                raise A2aRefusal("UNSUPPORTED_OPERATION", "the task has changed meanwhile: get it, and try again")
            return {} if sent is None else answers_of(sent.message, questions)

        return await self._service.start(
            self._request,
            task.session,
            self._agent,
            None,
            answers=given,
            on_question=on_question,
            on_disconnect="continue",
        )

    def _context(self, session: str, given: str = "") -> str:
        """The client's name for a session, in the words of the client if it has just used some."""
        if given:
            return given
        rest = session.removeprefix(owner_prefix(self._principal))
        return rest if named_session(self._principal, rest) == session else session

    def _reader(self, task: _Task, run: LiveRun | None = None, *, context: str = "") -> _TaskReader:
        return _TaskReader(self._service, self._id, task, self._context(task.session, context), run)

    async def _snapshot(self, task: _Task) -> TaskEncoder:
        """The task as it is now."""
        live = await self._live(task)
        reader = self._reader(task)
        await reader.read_to(task.record.end if live is None else live.last)
        return reader.encoder

    # --------------------------------------------------------------------------- messages

    async def _send(self, sent: MessageRequest) -> Response:
        run, task = await (self._answered(sent) if sent.task else self._begun(sent))
        reader = self._reader(task, run, context=sent.context)
        if sent.streams:
            return FrameResponse(partial(reader.write, run.begin + 1), block=run.reading())
        if sent.waits:
            return _WholeResponse(reader, run, sent.history_length)
        await reader.read_to(run.begin + 1)
        return self._result({"task": reader.encoder.task(sent.history_length)})

    async def _begun(self, sent: MessageRequest) -> tuple[LiveRun, _Task]:
        """Begin the task that a message asks for."""
        prompt = prompt_of_message(sent.message)
        session = self._service.named_session(self._request, sent.context)
        run = await self._service.start(
            self._request, session, self._agent, prompt, on_question="park", on_disconnect="continue"
        )
        record = TaskRecord(run.begin + 1, self._agent.name, "TASK_STATE_WORKING", time.time())
        return run, _Task(session, record, is_last=True)

    async def _answered(self, sent: MessageRequest) -> tuple[LiveRun, _Task]:
        """Resume a task with the answers in a message."""
        task = await self._revived(await self._find(sent.task))
        if sent.context and self._service.named_session(self._request, sent.context) != task.session:
            raise A2aRefusal("INVALID_PARAMS", "the task that the message names is of another context")
        if await self._live(task) is not None or task.record.state == "TASK_STATE_WORKING":
            raise A2aRefusal(
                "UNSUPPORTED_OPERATION", "the task is at work: wait for its end or for a question, or cancel it"
            )
        if task.record.state in ENDED:
            ended = "the task has ended: send the message without taskId, to begin another one in its context"
            raise A2aRefusal("UNSUPPORTED_OPERATION", ended)
        return await self._resume(task, sent), task

    async def _subscription(self, task: _Task) -> Response:
        """The updates of a task, after the task as it is now."""
        run = await self._live(task)
        if run is None and task.record.state in ENDED:
            raise A2aRefusal("UNSUPPORTED_OPERATION", "the task has ended, and has no more updates: get it")
        reader = self._reader(task, run)
        if run is not None:
            return FrameResponse(partial(reader.write, run.last), block=run.reading())

        async def revive() -> LiveRun | None:
            return await self._live(await self._revived(task))

        reader.revive = revive
        return FrameResponse(partial(reader.write, task.record.end))

    # ------------------------------------------------------------------------------ cancel

    async def _cancel(self, task: _Task, sent: TaskRequest) -> Mapping[str, Any]:
        run, detail = await self._live(task), "the client cancelled the task"
        if run is None:
            if task.record.state in ENDED:
                raise A2aRefusal("TASK_NOT_CANCELABLE", "the task has ended")
            run = await self._runs.stop_unfinished(task.session, detail) if task.is_last else None
            run = run or await self._resume_to_cancel(task)
        run.stop(detail)
        reader = self._reader(task, run)
        with trio.move_on_after(CANCEL_SECONDS):
            await reader.read_to(math.inf)
        if reader.encoder.state in ENDED - {"TASK_STATE_CANCELED"}:
            raise A2aRefusal("TASK_NOT_CANCELABLE", "the task ended before it could be cancelled")
        return reader.encoder.task(sent.history_length)

    async def _resume_to_cancel(self, task: _Task) -> LiveRun:
        """Resume a run that is parked or was cut off, up to its calls: they get results when it stops.

        Stopped any earlier, the run would stay as it was, and could be resumed.
        """
        run = await self._resume(task, on_question="reader")
        if not (await self._find(task.id)).is_last:
            raise A2aRefusal("TASK_NOT_CANCELABLE", "a later task of the context took the place of this one")
        reader = SessionReader(self._runs, task.session, run.begin)
        with trio.move_on_after(CANCEL_SECONDS):
            while entries := await reader.next(run):
                if not all(isinstance(entry.event, (StreamStarted, TurnStarted)) for entry in entries):
                    break
        return run

    # -------------------------------------------------------------------------------- list

    async def _list(self, sent: TaskListRequest) -> Mapping[str, Any]:
        """A page of the agent's tasks of the principal, those that have changed last first."""
        if sent.context:
            sessions = [self._service.named_session(self._request, sent.context)]
        else:
            prefix = owner_prefix(self._principal)
            sessions = [info.id for info in await self._runs.list(prefix, limit=SESSIONS)]
        tasks = [task for session in sessions for task in await self._tasks(session) if self._is_listed(task, sent)]
        tasks.sort(key=_order, reverse=True)
        start = 0
        if sent.page_token:
            at, _, id = sent.page_token.partition("~")
            try:
                last = float(at), id
            except ValueError as error:
                raise A2aRefusal("INVALID_PARAMS", "pageToken is the nextPageToken of another page") from error
            start = sum(_order(task) >= last for task in tasks)
        page = tasks[start : start + sent.page_size]
        length = 0 if sent.history_length is None else sent.history_length
        encoders = [await self._snapshot(task) for task in page]
        return {
            "tasks": [encoder.task(length, has_artifacts=sent.has_artifacts) for encoder in encoders],
            "nextPageToken": "{!r}~{}".format(*_order(page[-1])) if len(tasks) > start + len(page) else "",
            "pageSize": sent.page_size,
            "totalSize": len(tasks),
        }

    def _is_listed(self, task: _Task, sent: TaskListRequest) -> bool:
        record = task.record
        is_wanted = not sent.state or record.state == sent.state
        return is_wanted and self._agent.answers_to(record.agent) and record.at >= sent.after


def _order(task: _Task) -> tuple[float, str]:
    return task.record.at, task.id


def _number(entry: Entry) -> int:
    return entry.event.seq


class _TaskReader:
    """Reads the events of a task from its first one on, for an encoder.

    Args:
      id: the id of the request.
      run: the run to read to its end; ``None`` for what the session has.
    """

    def __init__(self, service: Service, id: RpcId, task: _Task, context: str, run: LiveRun | None) -> None:
        self.encoder = TaskEncoder(task.id, context)
        self._reader = SessionReader(service.runs, task.session, task.record.seq - 1)
        self._record = task.record
        self._rest: Sequence[Entry] = ()
        """Entries that are read, and whose events are not applied yet."""
        self._id = id
        self._run = run
        self.revive: Callable[[], Awaitable[LiveRun | None]] | None = None
        """Resumes the task, if the process that runs it has died; ``None`` not to resume it."""

    async def _next(self, upto: float = math.inf) -> list[dict[str, Any]] | None:
        """The next updates, those of events up to number ``upto``; ``None`` at the end."""
        entries = self._rest or await self._read()
        end = bisect_right(entries, upto, key=_number)
        self._rest = entries[end:]
        if not end or self.encoder.is_past:
            return None
        self.encoder.at = timestamp(time.time())
        return [update for entry in entries[:end] for update in self.encoder.apply(entry.event)]

    async def _read(self) -> Sequence[Entry]:
        try:
            return await self._reader.next(self._run)
        except StoreError:
            # The other process that ran it has died, perhaps. What is resumed may have ended by now.
            if self.revive is None:
                raise
            self._run = await self.revive()
        return await self._reader.next(self._run)

    async def read_to(self, seq: float) -> None:
        """Apply the events up to number ``seq``, as far as there are any."""
        updates: list[dict[str, Any]] | None = []
        is_elsewhere = self._run is None and seq == math.inf
        while updates is not None and not self._rest and self._reader.after < seq:
            updates = None
            with trio.move_on_after(IDLE_SECONDS if is_elsewhere else math.inf):
                updates = await self._next(seq)
        if self.encoder.state == self._record.state:
            self.encoder.at = timestamp(self._record.at)

    async def write(self, begin: float, chunk: Chunk) -> None:
        """Write the task as it was at event ``begin``, and its updates to the end of the run."""
        try:
            await self.read_to(begin)
            await chunk(self._frame({"task": self.encoder.task()}))
            is_at_work = self._run is not None or begin == math.inf
            while is_at_work:
                updates: list[dict[str, Any]] | None = []
                with trio.move_on_after(KEEP_ALIVE_SECONDS) as waiting:
                    updates = await self._next()
                if updates is None:
                    return
                is_idle = waiting.cancelled_caught
                await chunk(b": nothing new\n\n" if is_idle else b"".join(map(self._frame, updates)))
        except StoreError as error:
            await chunk(sse(error_response(self._id, refusal_of(error)), event="error"))

    def _frame(self, result: Mapping[str, Any]) -> bytes:
        return sse(response(self._id, result))

    async def whole(self, history_length: int | None) -> Mapping[str, Any]:
        """Read to the end of the run: the response to a message whose client does not read updates."""
        try:
            await self.read_to(math.inf)
        except StoreError as error:
            return error_response(self._id, refusal_of(error))
        return response(self._id, {"task": self.encoder.task(history_length)})


class _WholeResponse(Response):
    """A response that is sent when the run has ended or is parked. If the client goes away before, it is not."""

    def __init__(self, reader: _TaskReader, run: LiveRun, history_length: int | None) -> None:
        self._reader = reader
        self._run = run
        self._history_length = history_length

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with connected(receive):
            with self._run.reading():
                body = await self._reader.whole(self._history_length)
            await JsonResponse(body)(scope, receive, send)
