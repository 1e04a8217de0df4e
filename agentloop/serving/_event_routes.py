"""The endpoints of agentloop's own protocol: sessions, prompts, answers, and the events of a session."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import msgspec
import trio
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agentloop._choosing import known_levels, model_name, named_model, price_of
from agentloop._core.catalogue import known_model
from agentloop._runtime.context_window import window_for
from agentloop._runtime.logs import SERVING
from agentloop._runtime.stream import Stream
from agentloop.agent import Agent
from agentloop.errors import StoreError, UsageError
from agentloop.events import Question, StreamEvent, StreamStopped
from agentloop.journal import SessionInfo
from agentloop.questions import Answer
from agentloop.serving._connections import KEEP_ALIVE_SECONDS, Chunk, FrameResponse, JsonResponse
from agentloop.serving._errors import Refusal, refusal_of
from agentloop.serving._picture_routes import picture_routes
from agentloop.serving._runs import Entry, LiveRun, SessionReader
from agentloop.serving._security import new_session, owner_prefix
from agentloop.serving._service import Service
from agentloop.serving.protocols._base import commands_of, decoded, typed_prompt
from agentloop.serving.protocols.events import read_answers, read_number, read_prompt, read_steer
from agentloop.stores import fork_session
from agentloop.wire import encode_event

__all__ = ["EventRoutes"]

RETRY = b"retry: 1000\n\n"
"""Milliseconds after which a browser connects again."""


class _Title(msgspec.Struct):
    title: str


class _Fork(msgspec.Struct):
    messages: int | None = None
    """The number of messages to copy; all of them, if it is not given."""


class _Stop(msgspec.Struct):
    detail: str = ""
    background: str = ""
    """The id of the background run to stop; empty for the run itself."""


class EventRoutes:
    """The endpoints, on the sessions of one service."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Route]:
        """The endpoints, each with its path and its method."""
        table: list[tuple[str, str, Callable[[Request], Awaitable[Response]]]] = [
            ("GET", "/agents", self.agents),
            ("GET", "/models", self.models),
            ("GET", "/sessions", self.list),
            ("POST", "/sessions", self.create),
            ("GET", "/sessions/{session}", self.look),
            ("PATCH", "/sessions/{session}", self.rename),
            ("DELETE", "/sessions/{session}", self.delete),
            ("POST", "/sessions/{session}/forks", self.fork),
            ("GET", "/sessions/{session}/events", self.events),
            ("POST", "/sessions/{session}/prompts", self.prompt),
            ("POST", "/sessions/{session}/answers", self.answer),
            ("POST", "/sessions/{session}/messages", self.steer),
            ("POST", "/sessions/{session}/stop", self.stop),
            ("POST", "/sessions/{session}/pause", self.pause),
            ("POST", "/sessions/{session}/resume", self.resume),
        ]
        routes = [Route(path, endpoint, methods=[method]) for method, path, endpoint in table]
        return [*routes, *picture_routes(self._service)]

    # --------------------------------------------------------------------------- sessions

    async def agents(self, request: Request) -> Response:
        """The agents: the name of each, the names that it and its team have in events, its commands, and its model."""
        await trio.lowlevel.checkpoint()
        agents = self._service.agents.items()
        described = [
            {
                "name": name,
                "members": [*(agent.members or (agent.name,))],
                **({"commands": commands_of(agent)} if agent.commands else {}),
                **_facts_of(agent),
            }
            for name, agent in agents
        ]
        return JsonResponse({"agents": described})

    async def models(self, request: Request) -> Response:
        """The models that clients may choose, with what the catalogue says of each."""
        await trio.lowlevel.checkpoint()
        service = self._service
        return JsonResponse({"models": [_described(service, name) for name in service.models]})

    async def create(self, request: Request) -> Response:
        """Give an id for a new session. Nothing is saved before its first prompt."""
        await trio.lowlevel.checkpoint()
        return JsonResponse({"id": new_session(self._service.principal(request))}, status_code=201)

    async def list(self, request: Request) -> Response:
        """A page of the principal's sessions."""
        query = request.query_params
        limit = query.get("limit", "50")
        if not (limit.isascii() and limit.isdigit() and len(limit) <= 3 and 0 < int(limit) <= 200):
            raise Refusal(400, "limit= is a number from 1 to 200")
        prefix = owner_prefix(self._service.principal(request))
        before: SessionInfo | None = None
        if last := query.get("before"):
            before = await self._service.runs.store.info(last) if last.startswith(prefix) else None
            if before is None:
                raise Refusal(404, "there is no session with the id that before= names")
        infos = await self._service.runs.list(prefix, search=query.get("search", ""), limit=int(limit), before=before)
        return JsonResponse({"sessions": [self._info(info) for info in infos]})

    def _info(self, info: SessionInfo) -> dict[str, Any]:
        running = self._service.runs.is_running(info)
        times = {"created": info.created, "updated": info.updated}
        return {"id": info.id, "title": info.title, **times, "running": running}

    async def look(self, request: Request) -> Response:
        """A session, the state of its run, and the questions that are open."""
        session = self._service.session(request)
        state = await self._service.runs.look(session)
        info = await self._service.runs.store.info(session)
        questions = [msgspec.Raw(encode_event(question)) for question in state.questions]
        described = {"id": session} if info is None else self._info(info)
        facts = {"state": state.state, "paused": state.is_paused, "agent": state.agent}
        choice = await self._service.runs.choice(session)
        chosen = {"model": choice.model or "", "reasoning_effort": choice.reasoning_effort}
        return JsonResponse({**described, **facts, **chosen, "questions": questions})

    async def rename(self, request: Request) -> Response:
        """Give a session a title."""
        session = self._service.session(request)
        title = decoded(await self._service.body(request), _Title).title
        if "\0" in title:
            raise Refusal(400, "a title has no NUL character: databases refuse it")
        if await self._service.runs.store.info(session) is None:
            raise Refusal(404, "there is no such session, before its first prompt")
        await self._service.runs.store.rename(session, title[:1000])
        return JsonResponse({"id": session, "title": title[:1000]})

    async def delete(self, request: Request) -> Response:
        """Delete a session, with all that was said in it."""
        session = self._service.session(request)
        await self._service.runs.delete(session)
        return Response(status_code=204)

    async def fork(self, request: Request) -> Response:
        """Copy a session, or its first messages, to a new one of the same principal."""
        session = self._service.session(request)
        messages = decoded(await self._service.body(request), _Fork).messages
        store = self._service.runs.store
        if await store.info(session) is None:
            raise Refusal(404, "there is no such session, before its first prompt")
        try:
            new = await fork_session(
                store, session, new_session(self._service.principal(request)), messages=messages, number_title=True
            )
        except UsageError as error:
            raise Refusal(400, str(error)) from error
        return JsonResponse({"id": new}, status_code=201)

    # ------------------------------------------------------------------------------- runs

    async def prompt(self, request: Request) -> Response:
        """Begin a run. Its events come with this response if the client accepts an event stream."""
        session = self._service.session(request)
        prompt, sent, choice = read_prompt(await self._service.body(request))
        name = sent.agent
        if not name and len(self._service.agents) > 1:
            name = self._service.name_of(await self._service.runs.last_agent(session))
        agent = self._service.agent(name)
        self._service.check_choice(agent, choice)
        if sent.commands:
            prompt = typed_prompt(agent, prompt)
        run = await self._service.start(
            request, session, agent, prompt, choice=choice, on_question="reader", on_disconnect="continue"
        )
        return self._begun(request, run)

    async def answer(self, request: Request) -> Response:
        """Answer questions of the run that is live here; or resume the run that was parked, with the answers."""
        session = self._service.session(request)
        answers = read_answers(await self._service.body(request))
        run = await self._service.runs.find(session)
        if run is not None:
            await run.answer(answers)
            return self._begun(request, run)
        return await self._resumed(request, session, answers)

    async def pause(self, request: Request) -> Response:
        """Pause the run that is live here."""
        session = self._service.session(request)
        stream = await self._live_stream(session, "pause")
        stream.pause()
        return JsonResponse({"session": session, "paused": stream.is_paused}, status_code=202)

    async def _live_stream(self, session: str, verb: str) -> Stream:
        """The stream of the run that is live here. Raises `Refusal`."""
        run = await self._service.runs.find(session)
        if run is None:
            raise Refusal(409, f"session {session} has no run now: send a prompt")
        if run.stream is None:
            words = "pause it" if verb == "pause" else "stop what runs in its background"
            raise Refusal(409, f"a worker runs session {session}, and only its own process can {words}: stop it")
        return run.stream

    async def resume(self, request: Request) -> Response:
        """Resume a run that is paused here; or one that was cut off, or parked: then its questions are asked again."""
        session = self._service.session(request)
        run = self._service.runs.live(session)
        if run is not None and run.stream is not None and run.stream.is_paused:
            run.stream.resume()
            return self._begun(request, run)
        return await self._resumed(request, session, {})

    async def _resumed(self, request: Request, session: str, answers: Mapping[str, Answer]) -> Response:
        state = await self._service.runs.look(session)
        if state.state == "elsewhere":
            raise Refusal(409, f"session {session} is in use by another process of the server: try again later")
        if state.state not in ("parked", "interrupted"):
            raise Refusal(409, f"session {session} has no run that waits for answers, or was cut off")

        def given(questions: Sequence[Question]) -> Mapping[str, Answer]:
            return answers

        run = await self._service.start(
            request,
            session,
            self._service.agent_that_ran(state.agent),
            None,
            answers=given,
            on_question="reader",
            on_disconnect="continue",
        )
        return self._begun(request, run)

    async def steer(self, request: Request) -> Response:
        """Send a message to the run that is live here."""
        session = self._service.session(request)
        message = read_steer(await self._service.body(request))
        run = await self._service.runs.find(session)
        if run is None:
            raise Refusal(409, f"session {session} has no run now: send a prompt")
        run.steer(message.text, message.when)
        return JsonResponse({"session": session}, status_code=202)

    async def stop(self, request: Request) -> Response:
        """Stop the run that is live here, if there is one; or one of its background runs."""
        session = self._service.session(request)
        sent = decoded(await self._service.body(request), _Stop)
        detail = sent.detail or "stopped by the user"
        if sent.background:
            stream = await self._live_stream(session, "stop")
            stream.stop_background(sent.background, detail)
            return JsonResponse({"session": session, "stopped": True}, status_code=202)
        stopped = await self._service.runs.stop(session, detail)
        return JsonResponse({"session": session, "stopped": stopped}, status_code=202)

    def _begun(self, request: Request, run: LiveRun) -> Response:
        if "text/event-stream" in request.headers.get("accept", ""):
            return FrameResponse(_OneRun(self._service, run).write, block=run.reading())
        head = {"session": run.session, "stream": run.stream_id, "after": run.begin}
        return JsonResponse(head, status_code=202)

    # ----------------------------------------------------------------------------- events

    async def events(self, request: Request) -> Response:
        """The events of a session, from any number on, and those that are still to come."""
        session = self._service.session(request)
        after = read_number(request.query_params, request.headers)
        follows = request.query_params.get("follow", "1") != "0"
        await trio.lowlevel.checkpoint()
        return FrameResponse(_Followed(self._service, request, session, after, follows=follows).write)


def _facts_of(agent: Agent) -> dict[str, Any]:
    """The window of the agent's own model and the levels of thinking that it has, as far as they are known."""
    levels, window = known_levels(model_name(named_model(agent, None))), window_for(agent, None)
    return {**({"efforts": [*levels]} if levels else {}), **({} if window is None else {"window": window})}


def _described(service: Service, name: str) -> dict[str, Any]:
    model = service.model_behind(name)
    known = known_model(model)
    prices = [price_of(agent, model) for agent in service.agents.values()]
    price, currency = next((found for found in prices if found[0] is not None), (None, ""))
    cost = None if price is None else {"input": price.input, "output": price.output, "currency": currency}
    if known is None:
        return {"name": name, "efforts": [], "abilities": [], "window": None, "price": cost}
    abilities = sorted(known.abilities)
    facts = {"efforts": [*known.efforts], "abilities": abilities, "window": known.window}
    return {"name": name, **facts, "price": cost}


class _OneRun:
    """Writes the events of one run, to its end."""

    def __init__(self, service: Service, run: LiveRun) -> None:
        self._reader = SessionReader(service.runs, run.session, run.begin)
        self._run = run

    async def write(self, chunk: Chunk) -> None:
        while True:
            entries: Sequence[Entry] | None = None
            with trio.move_on_after(KEEP_ALIVE_SECONDS):
                entries = await self._reader.next(self._run)
            if entries is not None and not entries:
                return
            await chunk(_frames(entries))


class _Followed:
    """Writes the events of a session: past ones, those of the run that is live, and those of the next ones.

    A run that was cut off with its process, or with another one, is resumed: the client that reads wants it to go on.
    """

    def __init__(self, service: Service, request: Request, session: str, after: int, *, follows: bool) -> None:
        self._service = service
        self._request = request
        self._session = session
        self._follows = follows
        self._reader = SessionReader(service.runs, session, after)
        self._is_looked_at = False
        """Whether the state of the session is known since the last event."""
        self._may_change = False
        """Whether that state may change without an event: another request, or another process, has the session."""

    async def write(self, chunk: Chunk) -> None:
        await chunk(RETRY)
        with ExitStack() as stack:
            counted: LiveRun | None = None
            while True:
                live = self._service.runs.live(self._session)
                if live is not counted:
                    stack.close()
                    counted = live
                    if live is not None:
                        stack.enter_context(live.reading())
                entries: Sequence[Entry] | None = None
                with trio.move_on_after(KEEP_ALIVE_SECONDS):
                    entries = await self._next()
                if entries is not None and not entries:
                    return
                await chunk(_frames(entries))

    async def _next(self) -> Sequence[Entry]:
        """The next events; nothing if the response is to end."""
        while True:
            try:
                entries = await self._reader.next()
            except StoreError as error:
                if self._is_looked_at:
                    SERVING.error("session %r cannot be read: %s", self._session, error)
                    return ()
                entries = ()
            if entries:
                # Without a look at the end of a run, which reads the whole session, for each of its readers.
                self._is_looked_at = _is_end(entries[-1].event)
                return entries
            if not self._is_looked_at:
                self._is_looked_at = True
                await self._resume()
                continue
            if not self._follows or self._service.runs.is_draining:
                return ()
            await self._reader.wait()
            self._is_looked_at = self._service.runs.live(self._session) is None and not self._may_change

    async def _resume(self) -> None:
        """Resume the run of the session if it was cut off. What prevents that is left to those who ask for it."""
        self._may_change = False
        try:
            state = await self._service.runs.look(self._session)
            self._may_change = state.state in ("running", "elsewhere")
            if state.state == "interrupted":
                agent = self._service.agent_that_ran(state.agent)
                await self._service.start(
                    self._request, self._session, agent, None, on_question="reader", on_disconnect="continue"
                )
        except Exception as error:  # noqa: BLE001 - the events that there are can be read all the same
            refusal = refusal_of(error)
            if refusal.status != 409:
                SERVING.warning("session %r: its run is not resumed: %s", self._session, refusal.message)


def _is_end(event: StreamEvent) -> bool:
    """Whether ``event`` is the last one of a run that nothing is left to do for."""
    return isinstance(event, StreamStopped) and not event.depth and event.reason == "completed"


def _frames(entries: Sequence[Entry] | None) -> bytes:
    """The frames of ``entries``; a comment if nothing has come for some time."""
    if entries is None:
        return b": nothing new\n\n"
    return b"".join([entry.frame for entry in entries])
