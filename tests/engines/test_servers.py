"""Servers that enqueue, and workers, each in a process of its own: one that is killed takes no run with it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trio

from agentloop.journal import OpenStore
from tests.engines.program import CALLS, open_store
from tests.stores.places import POSTGRES
from tests.stores.postgres import running_postgres

# Most of it is the time in which processes start, on a busy machine ten seconds each.
pytestmark = [pytest.mark.real_clock, pytest.mark.seconds(240)]

LEASE = 2.0
SECONDS = 1.0
"""How long each call of a tool and each response take."""


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield str(tmp_path / "sessions.db")
        return
    if not POSTGRES:
        pytest.skip("AGENTLOOP_POSTGRES names no folder of PostgreSQL's programs: use `nox -s postgres`")
    with running_postgres(Path(POSTGRES)) as found:
        yield found


class Place:
    """Processes on one database."""

    def __init__(self, url: str, folder: Path, stack: ExitStack) -> None:
        self.url = url
        self.effects = folder / "effects"
        self._stack = stack
        self._log = stack.enter_context((folder / "log").open("ab"))

    def _start(self, *command: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([sys.executable, "-m", *command], stdout=subprocess.PIPE, stderr=self._log)
        self._stack.enter_context(process)
        self._stack.callback(process.kill)
        return process

    async def worker(self) -> subprocess.Popen[bytes]:
        command = ("tests.engines.program", self.url, str(self.effects), "none", str(LEASE), "8", str(SECONDS))
        process = self._start(*command)
        assert process.stdout is not None
        assert (await trio.to_thread.run_sync(process.stdout.readline)).startswith(b"ready")
        return process

    async def server(self) -> str:
        process = self._start("tests.engines.server", self.url)
        assert process.stdout is not None
        line: bytes = await trio.to_thread.run_sync(process.stdout.readline)
        return line.decode().strip()

    def keys(self, session: str, name: str) -> list[str]:
        lines = [line.split() for line in self.effects.read_text().splitlines()]
        return [key for owner, called, key, _ in lines if (owner, called) == (session, name)]


@asynccontextmanager
async def place(url: str, folder: Path) -> AsyncGenerator[tuple[Place, OpenStore]]:
    async with AsyncExitStack() as stack:
        processes = stack.enter_context(ExitStack())
        yield Place(url, folder, processes), await stack.enter_async_context(open_store(url).open())


class Reading:
    """The server-sent events of one response."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._rest = b""
        self.events: list[Any] = []

    async def until(self, kind: str) -> Any:
        """Read up to the next event whose type, or whose reason, is ``kind``."""
        while True:
            line, newline, rest = self._rest.partition(b"\n")
            if not newline:
                data = await self._stream.receive_some()
                assert data, f"the response ended without {kind!r}: {self._rest!r}, after {self.events}"
                self._rest += data
                continue
            self._rest = rest
            if line.startswith(b"data: {"):
                event = json.loads(line[6:])
                self.events.append(event)
                if kind in (event["type"], event.get("reason")):
                    return event


@asynccontextmanager
async def posted(client: httpx2.AsyncClient, path: str, body: Any) -> AsyncGenerator[Reading]:
    """Send a request, and read its response as it comes. At the end of the block, the client is gone."""
    sent = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.0\r\nhost: localhost\r\naccept: text/event-stream\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(sent)}\r\n\r\n"
    async with await trio.open_tcp_stream("127.0.0.1", client.base_url.port or 0) as stream:
        await stream.send_all(head.encode() + sent)
        yield Reading(stream)


async def kill_holder(store: OpenStore, session: str) -> None:
    """Kill the worker that has the session."""
    info = await store.info(session)
    assert info is not None
    os.kill(int(info.holder.split()[1]), signal.SIGKILL)


async def test_a_client_reads_and_answers_on_though_the_worker_was_killed(url: str, tmp_path: Path) -> None:
    async with place(url, tmp_path) as (it, store):
        addresses = [await it.server(), await it.server()]
        for _ in range(2):
            await it.worker()
        async with (
            httpx2.AsyncClient(base_url=addresses[0], timeout=60) as client,
            httpx2.AsyncClient(base_url=addresses[1], timeout=60) as other,
        ):
            session = (await client.post("/sessions", json={})).json()["id"]
            path = f"/sessions/{session}"
            async with posted(client, f"{path}/prompts", {"text": "Pay."}) as reading:
                started = await reading.until("tool_call_started")
                assert started["name"] == "look"
                await kill_holder(store, session)
                await reading.until("interrupted")
                await reading.until("needs_input")
            looked = (await other.get(path)).json()
            assert looked["state"] == "parked"
            answers = {looked["questions"][0]["id"]: {"type": "approve"}}
            # The only worker that is left dies, too; the next one finds the answer in the mailbox.
            async with posted(other, f"{path}/answers", {"answers": answers}) as reading:
                started = await reading.until("tool_call_started")
                assert started["name"] == "pay"
                await kill_holder(store, session)
                await it.worker()
                await reading.until("completed")
            assert [len(set(it.keys(session, name))) for name in CALLS] == [1, 1, 1]
            assert len(it.keys(session, "charge")) == 1
            numbers = [event["seq"] for event in reading.events]
            assert numbers == sorted(set(numbers))


@pytest.mark.nightly
async def test_a_stop_and_a_lost_client_end_the_run_in_its_worker(url: str, tmp_path: Path) -> None:
    async with place(url, tmp_path) as (it, store):
        addresses = [await it.server(), await it.server()]
        await it.worker()
        async with (
            httpx2.AsyncClient(base_url=addresses[0], timeout=60) as client,
            httpx2.AsyncClient(base_url=addresses[1], timeout=60) as other,
        ):
            session = (await client.post("/sessions", json={})).json()["id"]
            async with posted(client, f"/sessions/{session}/prompts", {"text": "Pay."}) as reading:
                await reading.until("tool_call_started")
                stopped = await other.post(f"/sessions/{session}/stop", json={})
                assert stopped.json()["stopped"]
                await reading.until("cancelled")
            body = {"threadId": "t", "runId": "r", "messages": [{"id": "1", "role": "user", "content": "Pay."}]}
            async with posted(client, "/ag-ui", body) as reading:
                await reading.until("TOOL_CALL_END")
            with trio.fail_after(30):
                while [info.state for info in await store.sessions()] != ["ready", "ready"]:
                    await trio.sleep(0.2)
            assert it.keys(session, "charge") == []


@pytest.mark.nightly
async def test_ag_ui_sees_one_run_though_its_worker_was_killed(url: str, tmp_path: Path) -> None:
    async with place(url, tmp_path) as (it, store):
        address = await it.server()
        await it.worker()
        async with httpx2.AsyncClient(base_url=address, timeout=60) as client:
            body = {"threadId": "t", "runId": "r", "messages": [{"id": "1", "role": "user", "content": "Pay."}]}
            async with posted(client, "/ag-ui", body) as reading:
                await reading.until("TOOL_CALL_END")
                (info,) = await store.sessions()
                await kill_holder(store, info.id)
                await it.worker()
                finished = await reading.until("RUN_FINISHED")
        assert finished["outcome"]["type"] == "interrupt"
        kinds = [event["type"] for event in reading.events]
        assert kinds.count("RUN_STARTED") == 1
        assert "RUN_ERROR" not in kinds
        steps = [event["stepName"] for event in reading.events if event["type"] == "STEP_STARTED"]
        assert len(steps) == len(set(steps)), steps
