"""`examples/fastapi_chat.py` under a real uvicorn, on both of its loops: answers, clients that leave, and SIGKILL."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trio

pytestmark = [
    pytest.mark.real_clock,
    pytest.mark.seconds(120),
    # The client's own generators, of responses that a test leaves half-read.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

every_loop = pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
ROOT = Path(__file__).parents[2]


@asynccontextmanager
async def serving(loop: str, folder: Path, **variables: str) -> AsyncIterator[tuple[httpx2.AsyncClient, trio.Process]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "examples.fastapi_chat:app", f"--loop={loop}", f"--port={port}"]
    environment = {**os.environ, "CHATS": str(folder / "chats.db"), **variables}
    log = (folder / "log").open("ab")
    process = await trio.lowlevel.open_process(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            for _ in range(200):
                try:
                    await client.get("/")
                    break
                except httpx2.TransportError:
                    await trio.sleep(0.1)
            yield client, process
    finally:
        if process.returncode is None:
            process.terminate()
        with trio.CancelScope(shield=True):
            await process.wait()
        log.close()
    text = (folder / "log").read_text()
    assert "Traceback" not in text, text


@asynccontextmanager
async def events(client: httpx2.AsyncClient, method: str, path: str, **options: Any) -> AsyncIterator[Any]:
    async with client.stream(method, path, **options) as response:
        assert response.status_code == 200

        class Events:
            def __init__(self) -> None:
                self.lines = response.aiter_lines()

            async def read(self, until: str | None) -> list[dict[str, Any]]:
                found: list[dict[str, Any]] = []
                async for line in self.lines:
                    if line.startswith("data: "):
                        text = line.removeprefix("data: ")
                        assert text.startswith("{"), text
                        found.append(json.loads(text))
                        if found[-1]["type"] == until:
                            break
                return found

        yield Events()


async def follow(client: httpx2.AsyncClient) -> list[dict[str, Any]]:
    async with events(client, "GET", "/chats/ann/events") as reader:
        return list(await reader.read(None))


@every_loop
async def test_a_chat_streams_and_asks_a_person(loop: str, tmp_path: Path) -> None:
    async with serving(loop, tmp_path) as (client, _):
        async with events(client, "POST", "/chats/ann/messages", json={"text": "Send it"}) as reader:
            question = (await reader.read("approval_requested"))[-1]
            answer = {"question": question["id"], "approve": True}
            assert (await client.post("/chats/ann/answers", json=answer)).status_code == 200
            rest = await reader.read(None)
        assert rest[-1]["type"] == "stream_stopped"
        assert rest[-1]["reason"] == "completed"
        assert "on its way" in "".join(event["text"] for event in rest if event["type"] == "text_delta")
        assert (await client.post("/chats/ann/answers", json=answer)).status_code == 404


@every_loop
async def test_a_client_that_goes_away_ends_its_run(loop: str, tmp_path: Path) -> None:
    async with serving(loop, tmp_path) as (client, _):
        async with events(client, "POST", "/chats/ann/messages", json={"text": "Send it"}) as reader:
            await reader.read("approval_requested")
        saved = await follow(client)
        assert saved[-1]["type"] == "stream_stopped"
        assert saved[-1]["reason"] == "cancelled"


@every_loop
async def test_a_server_that_is_killed_loses_nothing(loop: str, tmp_path: Path) -> None:
    async with (
        serving(loop, tmp_path, MAIL_SECONDS="600") as (client, process),
        events(client, "POST", "/chats/ann/messages", json={"text": "Send it"}) as reader,
    ):
        seen = await reader.read("approval_requested")
        answer = {"question": seen[-1]["id"], "approve": True}
        await client.post("/chats/ann/answers", json=answer)
        await reader.read("question_answered")
        process.send_signal(signal.SIGKILL)
        await process.wait()
    async with serving(loop, tmp_path) as (client, _):
        async with events(client, "POST", "/chats/ann/resume") as reader:
            resumed = await reader.read(None)
        assert resumed[-1]["reason"] == "completed"
        saved = await follow(client)
        # Consecutive deltas are saved as one.
        whole = {event["seq"] for event in seen if not event["type"].endswith("_delta")}
        assert whole <= {event["seq"] for event in saved}
