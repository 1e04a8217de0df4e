"""A chat in FastAPI: answers stream over server-sent events, and a person approves what a tool does.

Start it, and talk to it::

    pip install "agentloop-trio[http,testing]" fastapi uvicorn sse-starlette
    uvicorn examples.fastapi_chat:app

    curl -N localhost:8000/chats/ann/messages --json '{"text": "Send Bob the report."}'
    curl localhost:8000/chats/ann/answers --json '{"question": "ann/1?1", "approve": true}'

- A client that goes away ends its run, and the tools that it started.
- The server may be killed at any moment: ``POST /chats/ann/resume`` continues the run where it was.
- ``GET /chats/ann/events`` replays a chat, from the event after ``Last-Event-ID``, and follows it while it runs.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Annotated

import trio
from fastapi import FastAPI, Header, HTTPException, Request
from pydantic import BaseModel
from sse_starlette import EventSourceResponse, ServerSentEvent

from agentloop import Agent, AgentLoopError, Approve, Deny, Session, Stream, tool
from agentloop.asyncio import TrioHost
from agentloop.errors import AnswerError
from agentloop.events import StreamEvent
from agentloop.messages import ToolResult
from agentloop.models import ModelRequest
from agentloop.stores import SQLiteStore, follow_session, stored_session
from agentloop.testing import FunctionModel, Response, calls
from agentloop.wire import encode_event, event_type


@tool(requires_approval=True, if_interrupted="retry")
async def send_mail(to: str, text: str) -> str:
    """Send a mail."""
    await trio.sleep(float(os.environ.get("MAIL_SECONDS", "0")))
    return f"The mail to {to} is on its way: {text}"


def offline(request: ModelRequest) -> Response | str:
    """What stands in for a model, unless the variable MODEL names one."""
    last = request.messages[-1]
    if isinstance(last, ToolResult):
        return last.text
    if "send" in last.text.lower():
        return calls("send_mail", to="Bob", text=last.text)
    return f"You said: {last.text}"


agent = Agent(os.environ.get("MODEL") or FunctionModel(offline), name="assistant", tools=[send_mail])


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    path = os.environ.get("CHATS", "chats.db")
    async with TrioHost() as host, host.block(SQLiteStore(path).open()) as store:
        app.state.host, app.state.store = host, store
        # The streams that run now, by chat.
        app.state.streams = {}
        yield


app = FastAPI(lifespan=lifespan)

Opening = Callable[[Session], AbstractAsyncContextManager[Stream]]


class Message(BaseModel):
    text: str


class Verdict(BaseModel):
    question: str
    approve: bool


@app.post("/chats/{chat}/messages")
async def send(chat: str, message: Message, request: Request) -> EventSourceResponse:
    """Send a message, and read the events of the answer."""
    host: TrioHost = request.app.state.host
    return EventSourceResponse(
        respond(request, chat, lambda session: host.stream(agent, message.text, session=session))
    )


@app.post("/chats/{chat}/resume")
async def resume(chat: str, request: Request) -> EventSourceResponse:
    """Continue the run that was cut off when the server died."""
    host: TrioHost = request.app.state.host
    return EventSourceResponse(respond(request, chat, lambda session: host.resume_stream(agent, session)))


@app.post("/chats/{chat}/answers")
async def answer(chat: str, verdict: Verdict, request: Request) -> dict[str, str]:
    """Answer a question of the run."""
    stream: Stream | None = request.app.state.streams.get(chat)
    if stream is None:
        raise HTTPException(404, f"nothing runs in chat {chat!r}")
    try:
        stream.answer(verdict.question, Approve() if verdict.approve else Deny("no"))
    except AnswerError as error:
        raise HTTPException(409, str(error)) from error
    return {"answered": verdict.question}


@app.get("/chats/{chat}/events")
async def events(chat: str, request: Request, last_event_id: Annotated[int, Header()] = 0) -> EventSourceResponse:
    """The events of a chat, past and future."""

    async def follow() -> AsyncIterator[ServerSentEvent]:
        state = request.app.state
        try:
            async for event in state.host.iterate(follow_session(state.store, chat, after=last_event_id)):
                yield as_sent(event)
        except AgentLoopError as error:
            yield ServerSentEvent(str(error), event="error")

    return EventSourceResponse(follow())


async def respond(request: Request, chat: str, opening: Opening) -> AsyncIterator[ServerSentEvent]:
    """The events of one run. When the client goes away, the server closes this generator, which ends the run."""
    state = request.app.state
    try:
        async with (
            state.host.block(stored_session(state.store, chat, if_busy="wait")) as session,
            opening(session) as stream,
        ):
            state.streams[chat] = stream
            try:
                async for event in stream:
                    yield as_sent(event)  # noqa: ASYNC119  # the server closes it
            finally:
                del state.streams[chat]
    except AgentLoopError as error:
        yield ServerSentEvent(str(error), event="error")


def as_sent(event: StreamEvent) -> ServerSentEvent:
    return ServerSentEvent(encode_event(event).decode(), event=event_type(event), id=str(event.seq))
