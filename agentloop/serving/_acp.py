"""Serves an agent to one editor over a pair of byte streams: JSON-RPC messages of ACP, one a line.

The editor is on the other side of the pipes of this process, so there is one principal, and no authenticator. Runs are
those of `agentloop.serving._runs`, on the sessions of a store. When the editor's stream ends, what it asked for is
cancelled, and the runs stop.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import msgspec
import trio

from agentloop._core.json_text import decode_json, is_object
from agentloop._runtime.exception_groups import raise_single
from agentloop._runtime.logs import SERVING
from agentloop.agent import Agent
from agentloop.errors import AgentLoopError
from agentloop.events import (
    ApprovalRequested,
    ContinueRequested,
    ElicitationRequested,
    Question,
    QuestionAnswered,
    QuestionDeclined,
    QuestionWithdrawn,
    StreamStopped,
)
from agentloop.journal import Store
from agentloop.messages import UserMessage
from agentloop.models import Model, ModelChoice
from agentloop.serving._errors import Refusal, refusal_of
from agentloop.serving._runs import LiveRun, RunLimits, Runs, SessionReader
from agentloop.serving._security import LOCAL, is_session_of, new_session
from agentloop.serving._service import package_version
from agentloop.serving._stdio import STOP_SECONDS, Lines, standard_streams
from agentloop.serving.protocols._base import json_of, typed_prompt
from agentloop.serving.protocols.acp import (
    INVALID_REQUEST,
    NO_METHOD,
    PARSE_ERROR,
    AcpEncoder,
    ClientForms,
    answer_of,
    commands_update,
    error_code,
    initialized,
    read_prompt,
    request_for,
    result_of,
)
from agentloop.serving.protocols.acp_options import SessionOptions

__all__ = ["serve_editor", "serve_stdio"]

REQUESTS = 1000
"""Requests of an editor that may be open at once."""


async def serve_stdio(agent: Agent, store: Store, models: Sequence[str] = ()) -> None:
    """Serve ``agent`` over the standard streams of this process until standard input ends."""
    await serve_editor(agent, store, *standard_streams(), models=models)


async def serve_editor(
    agent: Agent,
    store: Store,
    receive: trio.abc.ReceiveStream,
    send: trio.abc.SendStream,
    *,
    models: Sequence[str] = (),
) -> None:
    """Serve ``agent`` to the editor on the other side of two streams until ``receive`` ends.

    Args:
      models: names of models that the editor's user may choose, besides those of ``Agent(models={...})``.
    """
    offered: dict[str, Model | str] = {**agent.models, **{name: agent.models.get(name, name) for name in models}}
    limits = RunLimits(runs=REQUESTS, park_after=math.inf, lease_seconds=30.0)
    async with store.open() as opened, Runs.open(opened, limits) as runs:
        try:
            async with trio.open_nursery() as nursery:
                await _Editor(agent, offered, runs, send, nursery).read(receive)
                # Readers leave, and their runs stop.
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            raise_single(group)
        finally:
            with trio.CancelScope(shield=True):
                await runs.drain(STOP_SECONDS)


class _Prompt:
    """A ``session/prompt`` that is not answered yet."""

    def __init__(self) -> None:
        self.run: LiveRun | None = None
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True
        if self.run is not None:
            self.run.stop("the editor cancelled it")


class _Session:
    """A session that the editor has begun or loaded."""

    def __init__(self, encoder: AcpEncoder, options: SessionOptions) -> None:
        self.encoder = encoder
        """What the editor has seen of it."""
        self.options = options
        """What its user has chosen for it."""


class _Asked:
    """A request to the editor that waits for its response."""

    def __init__(self) -> None:
        self.responded = trio.Event()
        self.result: Any = None


class _Editor:
    """The connection of an editor."""

    def __init__(
        self,
        agent: Agent,
        models: Mapping[str, Model | str],
        runs: Runs,
        send: trio.abc.SendStream,
        nursery: trio.Nursery,
    ) -> None:
        self._agent = agent
        self._models = models
        self._runs = runs
        self._stream = send
        self._sending = trio.Lock()
        self._nursery = nursery
        self._forms = ClientForms()
        self._sessions: dict[str, _Session] = {}
        self._prompts: dict[str, _Prompt] = {}
        """The prompts that are not answered, by session."""
        self._asked: dict[int, _Asked] = {}
        self._last_id = 0
        self._open_requests = 0

    # --------------------------------------------------------------------------- messages

    async def read(self, receive: trio.abc.ReceiveStream) -> None:
        """Read messages to the end of ``receive``."""
        lines = Lines()
        try:
            while data := await receive.receive_some():
                for line in lines.add(data):
                    await self._message(line)
        except Refusal as refusal:
            await self._fail(None, INVALID_REQUEST, refusal.message)

    async def _message(self, line: bytes) -> None:
        try:
            message: Any = decode_json(line, Any)
        except (msgspec.DecodeError, UnicodeError) as error:
            await self._fail(None, PARSE_ERROR, f"the line is not JSON: {error}")
            return
        id, method = (message.get("id"), message.get("method")) if is_object(message) else (None, None)
        if not is_object(message) or not isinstance(id, (int, str, type(None))):
            await self._fail(None, INVALID_REQUEST, "a message is a JSON-RPC object")
        elif method is None:
            self._respond(id, message)
        elif not isinstance(method, str):
            await self._fail(id, INVALID_REQUEST, "the method of a message is a text")
        else:
            params = message.get("params", {})
            await self._begin(id, method, params if is_object(params) else {}, is_request="id" in message)

    def _respond(self, id: Any, message: Mapping[str, Any]) -> None:
        asked = self._asked.get(id) if isinstance(id, int) else None
        if asked is not None:
            # An error is no answer: see `answer_of`.
            asked.result = message.get("result")
            asked.responded.set()

    async def _begin(self, id: int | str | None, method: str, params: Mapping[str, Any], *, is_request: bool) -> None:
        if not is_request:
            session = params.get("sessionId")
            if method == "session/cancel" and isinstance(session, str) and session in self._prompts:
                self._prompts[session].cancel()
            return
        if self._open_requests >= REQUESTS:
            await self._fail(id, INVALID_REQUEST, "too many requests are open: wait for their responses")
            return
        prompt: _Prompt | None = None
        if method == "session/prompt":
            # Known before the next message is read, which may cancel it.
            session = params.get("sessionId")
            if not isinstance(session, str) or session not in self._sessions:
                await self._fail(id, error_code(404), "there is no such session: begin it, or load it")
                return
            if session in self._prompts:
                await self._fail(
                    id, error_code(409), "the session has a prompt already: wait for its end, or cancel it"
                )
                return
            prompt = self._prompts[session] = _Prompt()
        self._open_requests += 1
        self._nursery.start_soon(self._answer, id, method, params, prompt)

    async def _answer(
        self, id: int | str | None, method: str, params: Mapping[str, Any], prompt: _Prompt | None
    ) -> None:
        try:
            if prompt is not None:
                result = await self._prompt(params, prompt)
            elif method == "initialize":
                result, self._forms = initialized(params, self._agent.name, package_version())
            elif method == "session/new":
                session = new_session(LOCAL)
                options = SessionOptions(self._agent, self._models)
                self._sessions[session] = _Session(AcpEncoder(), options)
                result = {"sessionId": session, **options.described()}
            elif method == "session/load":
                result = await self._load(params)
            elif method in ("session/set_config_option", "session/set_mode"):
                result = await self._set(method, params)
            else:
                await self._fail(id, NO_METHOD, f"there is no method {method[:100]!r} here")
                return
        except Exception as error:  # noqa: BLE001 - a request that fails must not end the connection
            refusal = refusal_of(error)
            await self._fail(id, error_code(refusal.status), refusal.message)  # noqa: ASYNC120
            return
        finally:
            self._open_requests -= 1
            if prompt is not None:
                del self._prompts[params["sessionId"]]
        await self._send({"id": id, "result": result})
        if method in ("session/new", "session/load") and self._agent.commands:
            # After the response, so that the editor knows the session.
            session = params["sessionId"] if method == "session/load" else result["sessionId"]
            await self._update(session, commands_update(self._agent))

    async def _send(self, message: dict[str, Any]) -> None:
        async with self._sending:
            try:
                await self._stream.send_all(json_of({"jsonrpc": "2.0", **message}) + b"\n")
            except (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
                # The editor reads no more. Nothing is left to do for it.
                self._nursery.cancel_scope.cancel()

    async def _fail(self, id: int | str | None, code: int, message: str) -> None:
        await self._send({"id": id, "error": {"code": code, "message": message}})

    async def _update(self, session: str, update: dict[str, Any]) -> None:
        await self._send({"method": "session/update", "params": {"sessionId": session, "update": update}})

    # --------------------------------------------------------------------------- sessions

    async def _load(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Send all past events of a session."""
        session = params.get("sessionId")
        is_own = isinstance(session, str) and is_session_of(LOCAL, session)
        if not isinstance(session, str) or not is_own or await self._runs.store.info(session) is None:
            raise Refusal(404, "there is no such session")
        state = (await self._runs.look(session)).state
        if state in ("running", "elsewhere"):
            raise Refusal(409, "the session has a run now: wait for its end")
        settings = await self._runs.settings(session)
        choice = ModelChoice(model=settings.model or None, reasoning_effort=settings.reasoning_effort)
        options = SessionOptions(self._agent, self._models, choice, settings.permissions)
        reader, encoder = SessionReader(self._runs, session, 0), AcpEncoder(is_replay=True)
        encoder.window = options.window
        while entries := await reader.next():
            for entry in entries:
                for update in encoder.encode(entry.event):
                    await self._update(session, update)
        encoder.is_replay = False
        self._sessions[session] = _Session(encoder, options)
        return options.described()

    async def _set(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Set what the user has chosen. A mode holds from the next call on, a model from the next prompt on."""
        id = params.get("sessionId")
        session = self._sessions.get(id) if isinstance(id, str) else None
        if session is None:
            raise Refusal(404, "there is no such session: begin it, or load it")
        before, options = session.options.mode, session.options
        is_mode = method == "session/set_mode"
        if is_mode:
            options.set_mode(params.get("modeId"))
        else:
            options.set(params.get("configId"), params.get("value"))
        await trio.lowlevel.checkpoint()
        if options.mode != before:
            prompt = self._prompts.get(str(id))
            if prompt is not None and prompt.run is not None:
                prompt.run.set_mode(options.mode)
            # Each of the two pickers of an editor hears of what was chosen in the other one.
            update: dict[str, Any] = {"sessionUpdate": "current_mode_update", "currentModeId": options.mode}
            if is_mode:
                update = {"sessionUpdate": "config_option_update", "configOptions": options.listed()}
            await self._update(str(id), update)
        return {} if is_mode else {"configOptions": options.listed()}

    async def _prompt(self, params: Mapping[str, Any], prompt: _Prompt) -> dict[str, Any]:
        session: str = params["sessionId"]
        message = typed_prompt(self._agent, read_prompt(params.get("prompt")))
        if (await self._runs.look(session)).state in ("parked", "interrupted"):
            # What an earlier process has left open comes first.
            stopped = await self._run(session, None, prompt)
            if stopped.reason != "completed":
                return result_of(stopped)
        return result_of(await self._run(session, message, prompt))

    async def _run(self, session: str, message: UserMessage | None, prompt: _Prompt) -> StreamStopped:
        """Run the agent to the end of a run, with the editor as its reader."""
        known = self._sessions[session]
        options, encoder = known.options, known.encoder
        run = await self._runs.start(
            session,
            self._agent,
            message,
            on_question="reader",
            on_disconnect="stop",
            choice=options.chosen_model,
            models=self._models,
            mode=options.chosen_mode,
        )
        prompt.run = run
        if options.chosen_mode is not None:
            # It may have been chosen while the run began.
            run.set_mode(options.chosen_mode)
        encoder.window = options.window
        reader = SessionReader(self._runs, session, run.begin)
        asking: dict[str, trio.CancelScope] = {}
        last: StreamStopped | None = None
        with run.reading(), ExitStack() as stack:
            if prompt.is_cancelled:
                prompt.cancel()
            nursery = self._nursery
            stack.callback(lambda: [scope.cancel() for scope in asking.values()])
            while entries := await reader.next(run):
                for entry in entries:
                    event = entry.event
                    for update in encoder.encode(event):
                        await self._update(session, update)
                    match event:
                        case ApprovalRequested() | ElicitationRequested() | ContinueRequested():
                            asking[event.id] = trio.CancelScope()
                            nursery.start_soon(self._ask, run, event, asking[event.id])
                        case QuestionAnswered() | QuestionDeclined() | QuestionWithdrawn():
                            if event.id in asking:
                                asking.pop(event.id).cancel()
                        case StreamStopped() if not event.depth:
                            last = event
                        case _:
                            pass
        if last is None:
            raise Refusal(500, "the run ended without its last event; the log of the agent says why")
        return last

    async def _ask(self, run: LiveRun, question: Question, scope: trio.CancelScope) -> None:
        """Ask the editor a question of a run, until it is answered or no longer open."""
        with scope:
            request = request_for(question, run.session, self._forms, self._sessions[run.session].encoder)
            result = None if request is None else await self._request(*request)
            self._answer_question(run, question, result)

    @staticmethod
    def _answer_question(run: LiveRun, question: Question, result: Any) -> None:
        if run.stream is None or run.is_closed:
            return
        try:
            run.stream.answer(question.id, answer_of(question, result))
        except AgentLoopError as error:
            SERVING.warning("the editor's answer to question %r is not valid: %s", question.id, error)
            if any(open.id == question.id for open in run.stream.pending):
                # The form has no second try in ACP; the tool learns that there is no answer.
                run.stream.answer(question.id, answer_of(question, None))

    async def _request(self, method: str, params: dict[str, Any]) -> Any:
        """Send a request to the editor, and return its result; ``None`` if it fails."""
        self._last_id += 1
        id = self._last_id
        asked = self._asked[id] = _Asked()
        try:
            await self._send({"id": id, "method": method, "params": params})
            await asked.responded.wait()
        finally:
            del self._asked[id]
        return asked.result
