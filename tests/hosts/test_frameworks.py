"""The frameworks of asyncio, with their own servers and runners: a run in each, and its end with the request."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import aiohttp.web
import anyio
import httpx2
import nbclient
import nbformat
import pytest
import uvicorn

import agentloop.asyncio
from agentloop import Agent
from agentloop.asyncio import TrioHost
from agentloop.testing import ScriptedModel
from tests.asyncio.support import Waiting, in_asyncio


def hello() -> Agent:
    return Agent(ScriptedModel("Hello!"))


@asynccontextmanager
async def uvicorn_serves(app: Any) -> AsyncIterator[str]:
    """A real uvicorn in this loop."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", ws="none"))
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await task


async def leave_while_it_waits(url: str, waiting: Waiting) -> None:
    async with httpx2.AsyncClient() as client:
        request = asyncio.create_task(client.get(url))
        await waiting.started.wait()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
    while not waiting.ends:
        await asyncio.sleep(0.01)


@in_asyncio
async def test_starlette() -> None:
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    async def answer(request: Any) -> PlainTextResponse:
        outcome = await request.app.state.host.run(hello(), "Hi")
        return PlainTextResponse(outcome.output)

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        async with TrioHost() as app.state.host:
            yield

    app = Starlette(routes=[Route("/", answer)], lifespan=lifespan)
    async with uvicorn_serves(app) as url, httpx2.AsyncClient() as client:
        assert (await client.get(url)).text == "Hello!"


@in_asyncio
async def test_django() -> None:
    from django.conf import settings
    from django.core.asgi import get_asgi_application
    from django.http import HttpRequest, HttpResponse
    from django.urls import path

    waiting = Waiting()

    async def answer(request: HttpRequest) -> HttpResponse:
        outcome = await agentloop.asyncio.run(hello(), "Hi")
        return HttpResponse(outcome.output)

    async def wait(request: HttpRequest) -> HttpResponse:
        await agentloop.asyncio.run(waiting.agent, "Hi")
        raise AssertionError

    urls = type("urls", (), {"urlpatterns": [path("", answer), path("wait", wait)]})
    settings.configure(ROOT_URLCONF=urls, ALLOWED_HOSTS=["*"], SECRET_KEY="test", DEBUG=False)
    async with uvicorn_serves(get_asgi_application()) as url:
        async with httpx2.AsyncClient() as client:
            assert (await client.get(url)).text == "Hello!"
        await leave_while_it_waits(f"{url}/wait", waiting)


@in_asyncio
async def test_aiohttp() -> None:
    waiting = Waiting()

    async def answer(request: aiohttp.web.Request) -> aiohttp.web.Response:
        return aiohttp.web.Response(text=(await agentloop.asyncio.run(hello(), "Hi")).output)

    async def wait(request: aiohttp.web.Request) -> aiohttp.web.Response:
        await agentloop.asyncio.run(waiting.agent, "Hi")
        raise AssertionError

    app = aiohttp.web.Application()
    app.add_routes([aiohttp.web.get("/", answer), aiohttp.web.get("/wait", wait)])
    runner = aiohttp.web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    site = aiohttp.web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            assert await response.text() == "Hello!"
        await leave_while_it_waits(f"{url}/wait", waiting)
    finally:
        await runner.cleanup()


def test_anyio() -> None:
    async def main() -> None:
        waiting = Waiting(cleanup_steps=20)
        outcomes: list[str] = []

        async def answer() -> None:
            outcomes.append((await agentloop.asyncio.run(hello(), "Hi")).output)

        async def cancel(scope: anyio.CancelScope) -> None:
            await waiting.started.wait()
            scope.cancel()

        async with anyio.create_task_group() as group:
            group.start_soon(answer)
            with anyio.CancelScope() as scope:
                group.start_soon(cancel, scope)
                await agentloop.asyncio.run(waiting.agent, "Hi")
        assert scope.cancelled_caught
        assert waiting.ends == 1
        assert outcomes == ["Hello!"]

    anyio.run(main)


def test_a_notebook() -> None:
    cells = [
        (
            "import agentloop.asyncio\nfrom agentloop import Agent\nfrom agentloop.testing import ScriptedModel\n"
            "outcome = await agentloop.asyncio.run(Agent(ScriptedModel('Hello!')), 'Hi')\nprint(outcome.output)"
        ),
        (
            "async with agentloop.asyncio.stream(Agent(ScriptedModel('Hello!')), 'Hi') as stream:\n"
            "    async for text in stream.text():\n        print(text)"
        ),
        "import asyncio\nprint([task for task in asyncio.all_tasks() if 'agentloop' in repr(task)])",
    ]
    made: Any = nbformat.v4  # It has no types.
    notebook = made.new_notebook(cells=[made.new_code_cell(source) for source in cells])
    nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    printed = ["".join(output.text for output in cell.outputs) for cell in notebook.cells]
    assert printed == ["Hello!\n", "Hello!\n", "[]\n"]


def test_pytest_asyncio(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"
    )
    (tmp_path / "test_agent.py").write_text(
        "import agentloop.asyncio\nfrom agentloop import Agent\nfrom agentloop.testing import ScriptedModel\n"
        "async def test_hello():\n"
        "    outcome = await agentloop.asyncio.run(Agent(ScriptedModel('Hello!')), 'Hi')\n"
        "    assert outcome.output == 'Hello!'\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "pytest_asyncio.plugin", "."]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
