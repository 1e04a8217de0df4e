"""The endpoints of the protocols of other people's clients: a request runs an agent, and reads its events."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence

import trio
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from agentloop.errors import StoreError
from agentloop.events import Question, StreamEvent
from agentloop.questions import Answer
from agentloop.serving._connections import KEEP_ALIVE_SECONDS, Chunk, FrameResponse, JsonResponse, connected
from agentloop.serving._errors import Refusal, refusal_of
from agentloop.serving._runs import AnswersTo, Entry, LiveRun, SessionReader
from agentloop.serving._service import Service
from agentloop.serving.protocols._base import Encoder, RunRequest, WireProtocol, choice_of
from agentloop.serving.protocols._seams import Seams
from agentloop.serving.protocols.ag_ui import AgUi
from agentloop.serving.protocols.openai_chat import OpenAiChat
from agentloop.serving.protocols.openai_responses import OpenAiResponses
from agentloop.serving.protocols.vercel import Vercel

__all__ = ["PROTOCOLS", "protocol_routes"]

PROTOCOLS: Mapping[str, Sequence[type[WireProtocol]]] = {
    "ag-ui": (AgUi,),
    "openai": (OpenAiChat, OpenAiResponses),
    "vercel": (Vercel,),
}
"""The protocols by the word in ``protocols=``."""


def protocol_routes(service: Service, word: str) -> list[Route]:
    """The endpoints of the protocols that ``word`` stands for."""
    routes: list[Route] = []
    for kind in PROTOCOLS[word]:
        endpoint = _Endpoint(service, kind())
        routes += [Route(path, endpoint.run, methods=["POST"]) for path in kind.paths]
        if kind is Vercel:
            routes.append(Route("/vercel/{chat}/stream", endpoint.attach, methods=["GET"]))
    if word == "openai":
        routes.append(Route("/v1/models", _Models(service).list, methods=["GET"]))
    return routes


class _Models:
    """The agents, as a client of OpenAI lists models, each also with each of the models that are offered."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def list(self, request: Request) -> Response:
        await trio.lowlevel.checkpoint()
        agents, offered = self._service.agents, self._service.models
        names = [*agents, *[f"{agent}/{model}" for agent in agents for model in offered]]
        models = [{"id": name, "object": "model", "created": 0, "owned_by": "agentloop"} for name in names]
        return JsonResponse({"object": "list", "data": models})


class _Endpoint:
    """The endpoint of one protocol."""

    def __init__(self, service: Service, protocol: WireProtocol) -> None:
        self._service = service
        self._protocol = protocol

    async def run(self, request: Request) -> Response:
        """Begin the run that a client asks for, or resume it with the client's answers."""
        service, protocol = self._service, self._protocol
        sent = protocol.read(request.url.path, await service.body(request))
        session = service.named_session(request, sent.session)
        if sent.must_exist and await service.runs.store.info(session) is None:
            raise Refusal(404, "there is no response with the id that the request names as the previous one")
        # A client of OpenAI has one field for both.
        name, model = service.agent_and_model(request.path_params.get("agent") or sent.agent)
        if not name and sent.prompt is None and len(service.agents) > 1:
            name = service.name_of(await service.runs.last_agent(session))
        agent = service.agent(name)
        choice = choice_of(model or sent.model, sent.effort) if service.models else None
        service.check_choice(agent, choice)
        run = await service.start(
            request,
            session,
            agent,
            sent.prompt,
            choice=choice,
            answers=self._answers(sent),
            on_question=protocol.on_question,
            on_disconnect="stop",
        )
        encoder = protocol.encoder(request.url.path, sent, session=session, seq=run.begin + 1, created=int(time.time()))
        reading = _Reading(service, run, encoder)
        if not sent.streams:
            return _WholeResponse(reading)
        return FrameResponse(reading.write, protocol.headers, block=run.reading())

    def _answers(self, sent: RunRequest) -> AnswersTo:
        def answers(questions: Sequence[Question]) -> Mapping[str, Answer]:
            asked = {question.id: question for question in questions}
            unknown = [id for id in sent.answers if id not in asked]
            if unknown:
                open_ids = ", ".join(asked) or "none"
                raise Refusal(409, f"question {unknown[0][:200]!r} is not open; open questions: {open_ids}")
            return {id: self._protocol.answer(asked[id], given) for id, given in sent.answers.items()}

        return answers

    async def attach(self, request: Request) -> Response:
        """Read the run that is live on the client's session, from its beginning; nothing if there is none."""
        service = self._service
        session = service.named_session(request, request.path_params["chat"])
        run = await service.runs.find(session)
        if run is None or run.prompt is None:
            return Response(status_code=204)
        sent = RunRequest(prompt=run.prompt)
        encoder = self._protocol.encoder(request.url.path, sent, session=session, seq=run.begin + 1, created=0)
        return FrameResponse(_Reading(service, run, encoder).write, self._protocol.headers, block=run.reading())


class _Reading:
    """Reads one run to its end, for an encoder."""

    def __init__(self, service: Service, run: LiveRun, encoder: Encoder) -> None:
        self._reader = SessionReader(service.runs, run.session, run.begin)
        self._run = run
        self._encoder = encoder
        self._seams = Seams() if run.has_takeovers else None

    async def write(self, chunk: Chunk) -> None:
        """Write the frames of all events."""
        while True:
            entries: Sequence[Entry] | None = None
            try:
                with trio.move_on_after(KEEP_ALIVE_SECONDS):
                    entries = await self._reader.next(self._run)
            except StoreError as error:
                await chunk(b"".join(self._encoder.broken(refusal_of(error).message)))
                return
            frames = [b": nothing new\n\n"] if entries is None else self._encoded(entries)
            await chunk(b"".join(frames))
            if entries is not None and not entries:
                return

    def _encoded(self, entries: Sequence[Entry]) -> list[bytes]:
        """The frames of ``entries``; if there are none, the run has ended."""
        events: Iterable[StreamEvent] = [entry.event for entry in entries]
        if self._seams is not None:
            joined = [event for entry in entries for event in self._seams.join(entry.event)]
            events = joined if entries else self._seams.rest()
        return [frame for event in events for frame in self._encoder.encode(event)]

    async def whole(self) -> bytes:
        """Read all events, and return the response that stands for them."""
        with self._run.reading():
            while entries := await self._reader.next(self._run):
                self._encoded(entries)
            self._encoded(())
        return self._encoder.whole()


class _WholeResponse(Response):
    """A response that is sent when the run has ended. If the client goes away before, it is not."""

    def __init__(self, reading: _Reading) -> None:
        self._reading = reading

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, is_whole = b"", False
        async with connected(receive):
            body, is_whole = await self._reading.whole(), True
        if is_whole:
            # Outside of the block, as `FrameResponse` sends its end.
            await JsonResponse(body)(scope, receive, send)
