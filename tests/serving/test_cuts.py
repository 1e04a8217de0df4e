"""The wire is cut at every byte, and the server dies at every write: the client has every event once all the same.

`Reader` is a client of our own protocol that comes back as a browser does: with the number of the last whole event. The
list of events that it has in the end is the list of a reader whose connection was never cut.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal

import httpx2
import pytest
import trio

from agentloop import Agent, tool
from agentloop.errors import StoreError
from agentloop.journal import OpenStore
from agentloop.messages import ToolResult
from agentloop.models import ModelRequest
from agentloop.stores import MemoryStore
from agentloop.testing import FunctionModel, calls
from tests.serving.support import Client, of_type, sse_data
from tests.serving.test_detached_runs import events, joined, new_session, serving
from tests.serving.test_server import server

Cut = Literal["before", "after"]


def cuts(step: int, *, seconds: float) -> pytest.MarkDecorator:
    """A sample of the bytes after which a response is cut off, and, each night, all of them in parts."""
    marks = [pytest.mark.nightly, pytest.mark.seconds(seconds)]
    parts = [pytest.param(begin, PARTS, marks=marks) for begin in range(1, PARTS + 1)]
    return pytest.mark.parametrize(("begin", "step"), [(1, step), *parts])


PARTS = 12


class Reader:
    """Reads the events of a session over any number of connections, and answers its questions."""

    def __init__(self, session: str) -> None:
        self.session = session
        self.events: list[Any] = []

    @property
    def headers(self) -> dict[str, str]:
        return {"last-event-id": str(self.events[-1]["seq"])} if self.events else {}

    @property
    def is_done(self) -> bool:
        return bool(self.events) and self.events[-1].get("reason") == "completed"

    def take(self, body: bytes) -> None:
        """Take the frames that are whole, as a browser does."""
        whole, mark, _ = body.rpartition(b"\n\n")
        self.events += [json.loads(text) for text in sse_data(whole + mark)]

    @property
    def answers(self) -> dict[str, Any]:
        """Answers to all questions that it has read. Those to questions that are answered are refused."""
        return {event["id"]: {"type": "approve"} for event in of_type(self.events, "approval_requested")}


def types(read: Sequence[Any]) -> list[str]:
    return [event["type"] for event in joined(list(read))]


# ------------------------------------------------------------------------------- the wire


async def read_with_cut(client: Client, cut: int) -> tuple[list[Any], list[Any]]:
    """The events of a reader whose first connection brings ``cut`` bytes, and those that the session has."""
    session = await new_session(client)
    reader = Reader(session)
    await client.post(f"/sessions/{session}/prompts", {"text": "please pay"})
    room: int | None = cut
    while not reader.is_done:
        path = f"/sessions/{session}/events"
        async with client.open("GET", path, headers=reader.headers, cut_after=room) as reply:
            while not reply.is_whole and b"stream_stopped" not in reply.body:
                if b"approval_requested" in reply.body and reply.body.endswith(b"\n\n"):
                    break
                await trio.sleep(0.02)
            reader.take(reply.body)
        room = None
        if reader.answers:
            await client.post(f"/sessions/{session}/answers", {"answers": reader.answers})
    return reader.events, await events(client, session)


@pytest.mark.seconds(1000)
@cuts(211, seconds=100_000)
async def test_a_reader_of_a_live_run_that_is_cut_off_at_any_byte_gets_every_event_once(begin: int, step: int) -> None:
    async with serving() as (_, client):
        uncut, whole = await read_with_cut(client, 1_000_000)
        assert joined(uncut) == joined(whole)
        async with client.open("GET", f"/sessions/{whole[0]['source']['session']}/events?follow=0") as reply:
            while not reply.is_whole:
                await trio.sleep(0.001)
        for cut in range(begin, len(reply.body), step):
            read, stored = await read_with_cut(client, cut)
            assert joined(read) == joined(stored), f"cut after byte {cut}"
            assert types(read) == types(uncut), f"cut after byte {cut}"


@pytest.mark.seconds(1000)
@cuts(151, seconds=100_000)
async def test_a_page_that_is_cut_off_at_any_byte_attaches_to_its_run_and_reads_all_of_it(
    begin: int, step: int
) -> None:
    async def read(cut: int) -> tuple[bytes, bytes, bool]:
        async with serving(on_disconnect="continue") as (served, client):
            message = {"role": "user", "parts": [{"type": "text", "text": "please wait"}]}
            sent = {"id": "chat", "messages": [message]}
            async with client.open("POST", "/vercel", sent, cut_after=cut) as reply:
                while not reply.is_whole:
                    await trio.sleep(0.1)
            is_live = bool(served._service.runs._live)
            attached = await client.get("/vercel/chat/stream")
            assert attached.status == (200 if is_live else 204)
            return reply.body, attached.body, is_live

    uncut, _, _ = await read(1_000_000)
    assert uncut.endswith(b"data: [DONE]\n\n")
    was_live = 0
    for cut in range(begin, len(uncut), step):
        first, attached, is_live = await read(cut)
        assert first == uncut[:cut]
        assert attached == (uncut if is_live else b""), f"cut after byte {cut}"
        was_live += is_live
    assert was_live >= 3


@pytest.mark.real_clock
@cuts(401, seconds=3000)
async def test_a_connection_that_a_client_closes_at_any_byte_costs_no_event(begin: int, step: int) -> None:
    async with server() as address, httpx2.AsyncClient(base_url=address) as http:
        host, _, port = address.removeprefix("http://").rpartition(":")
        session = (await http.post("/sessions", json={})).json()["id"]
        accept = {"accept": "text/event-stream"}
        await http.post(f"/sessions/{session}/prompts", json={"text": "please add"}, headers=accept)
        path = f"/sessions/{session}/events?follow=0"
        whole = Reader(session)
        whole.take((await http.get(path)).content)
        request = f"GET {path} HTTP/1.0\r\nhost: localhost\r\n\r\n".encode()
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            await stream.send_all(request)
            length = 0
            async for data in stream:
                length += len(data)
        for cut in range(begin, length, step):
            received = bytearray()
            async with await trio.open_tcp_stream(host, int(port)) as stream:
                await stream.send_all(request)
                while len(received) < cut:
                    received += await stream.receive_some(cut - len(received))
            reader = Reader(session)
            reader.take(bytes(received).partition(b"\r\n\r\n")[2])
            reader.take((await http.get(path, headers=reader.headers)).content)
            assert joined(reader.events) == joined(whole.events), f"cut after byte {cut}"


# ------------------------------------------------------------------------------ the store

WRITES = ("append", "answer", "acquire", "renew", "release")


class DyingProcess:
    """A store whose process dies before or after write ``number``: no later call of it reaches the store."""

    def __init__(self, store: MemoryStore, number: int, cut: Cut) -> None:
        self._store = store
        self._left = number
        self._cut = cut
        self.is_dead = trio.Event()
        self.dies: Callable[[], None] = lambda: None
        """Called at the moment of the death."""

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[OpenStore]:
        async with self._store.open() as opened:
            yield _Dying(opened, self)

    async def call(self, name: str, method: Callable[..., Any], *args: Any, **options: Any) -> Any:
        if self.is_dead.is_set():
            await trio.lowlevel.checkpoint()
            raise StoreError("the process is dead")
        if name not in WRITES:
            return await method(*args, **options)
        self._left -= 1
        if self._left >= 0:
            return await method(*args, **options)
        if self._cut == "after":
            await method(*args, **options)
        self.is_dead.set()
        self.dies()
        raise StoreError("the process is dead")


class _Dying:
    def __init__(self, store: OpenStore, process: DyingProcess) -> None:
        self._store = store
        self._process = process

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        async def call(*args: Any, **options: Any) -> Any:
            return await self._process.call(name, method, *args, **options)

        return call


@pytest.mark.seconds(100_000)
@pytest.mark.parametrize("cut", ["before", "after"])
async def test_a_server_that_dies_at_any_write_costs_no_event_and_no_effect_happens_twice(cut: Cut) -> None:
    effects: list[str] = []

    @tool
    async def transfer(to: str) -> str:
        """Transfer."""
        effects.append(to)
        return f"transferred to {to}"

    @tool(requires_approval=True)
    async def sign() -> str:
        """Sign."""
        effects.append("sign")
        return "signed"

    def respond(request: ModelRequest) -> Any:
        done = sum(isinstance(message, ToolResult) for message in request.messages)
        return [calls("transfer", to="ann"), calls("sign"), calls("transfer", to="bob"), "All is done."][done]

    agent = Agent(FunctionModel(respond), name="assistant", tools=[transfer, sign])
    number = 0
    while True:
        effects.clear()
        memory = MemoryStore()
        process = DyingProcess(memory, number, cut)
        when = f"died {cut} write {number}"
        async with serving(agent, store=process) as (_, client):
            session = await new_session(client)
            reader = Reader(session)
            if await _read_until_death(client, reader, process) and not process.is_dead.is_set():
                break
        async with serving(agent, store=memory) as (_, client):
            # The dead process holds its lease until the lease ends.
            await trio.sleep(31)
            if (await client.get(f"/sessions/{session}")).json["state"] == "idle" and not reader.events:
                assert not effects, when
                assert (await client.post(f"/sessions/{session}/prompts", {"text": "go"})).status == 202
            await _read_to_the_end(client, reader, when)
            stored = await events(client, session)
        # A delta that was read may not have been saved. Everything else was, before it was read.
        received = [event for event in reader.events if not event["type"].endswith("_delta")]
        assert received == [event for event in stored if not event["type"].endswith("_delta")], when
        numbers = [event["seq"] for event in reader.events]
        assert numbers == sorted(set(numbers)), when
        assert stored[-1]["reason"] == "completed", when
        assert sorted(set(effects)) == sorted(effects), when
        number += 1
    assert number >= 8


async def _read_until_death(client: Client, reader: Reader, process: DyingProcess) -> bool:
    """Prompt, read and answer until the process dies. Returns whether the run came to its end."""
    path = f"/sessions/{reader.session}"
    await client.post(f"{path}/prompts", {"text": "go"})
    async with client.open("GET", f"{path}/events") as reply:
        at_death: list[bytes] = []
        process.dies = lambda: at_death.append(reply.body)
        while not process.is_dead.is_set() and b'"reason":"completed"' not in reply.body:
            seen = Reader(reader.session)
            seen.take(reply.body)
            if seen.answers:
                await client.post(f"{path}/answers", {"answers": seen.answers})
            await trio.sleep(0.05)
        reader.take(at_death[0] if at_death else b"" if process.is_dead.is_set() else reply.body)
    return reader.is_done


async def _read_to_the_end(client: Client, reader: Reader, when: str) -> None:
    path = f"/sessions/{reader.session}"
    async with client.open("GET", f"{path}/events", headers=reader.headers) as reply:
        known = list(reader.events)
        for _ in range(2000):
            reader.events = list(known)
            reader.take(reply.body)
            if reader.is_done:
                return
            if reader.answers:
                await client.post(f"{path}/answers", {"answers": reader.answers})
            await trio.sleep(0.1)
    pytest.fail(f"{when}: the run did not end: {types(reader.events)}")
