"""`examples/fastapi_mount.py` under a real uvicorn: a served app inside of a FastAPI app, on asyncio."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
import trio

pytestmark = [pytest.mark.real_clock, pytest.mark.seconds(120)]

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_a_served_app_answers_inside_of_fastapi_and_ends_with_it(loop: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        # uvicorn listens on the socket that it inherits, so its port is not taken meanwhile.
        port = listener.getsockname()[1]
        command = [sys.executable, "-m", "uvicorn", "examples.fastapi_mount:app", f"--loop={loop}"]
        log = (tmp_path / "log").open("wb")
        process = subprocess.Popen(  # noqa: ASYNC220 - it takes a moment, and nothing else runs
            [*command, f"--fd={listener.fileno()}"],
            cwd=ROOT,
            env=dict(os.environ),
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=[listener.fileno()],
        )
    try:
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}/agents", timeout=30) as client:
            session = (await client.post("/sessions", json={})).json()["id"]
            path = f"/sessions/{session}"
            await client.post(f"{path}/prompts", json={"text": "Send the report."})
            while not (questions := (await client.get(path)).json()["questions"]):
                await trio.sleep(0.05)
            answers = {questions[0]["id"]: {"type": "approve"}}
            await client.post(f"{path}/answers", json={"answers": answers})
            read = await client.get(f"{path}/events?follow=0")
            assert "The mail to Bob is on its way" in read.text
        process.send_signal(signal.SIGTERM)
        assert await trio.to_thread.run_sync(process.wait, 30) in (0, -signal.SIGTERM)
    finally:
        process.kill()
        process.wait()
        log.close()
    text = (tmp_path / "log").read_text()
    assert "Traceback" not in text, text
