"""The server with real sockets, its command, and the app inside of an asyncio program."""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trio
from starlette.applications import Starlette
from starlette.routing import Mount

from agentloop import Agent, UsageError
from agentloop.errors import StoreError
from agentloop.serving import ServedApp, _server, app, run
from agentloop.serving._command import find_served, main
from agentloop.stores import SQLiteStore
from agentloop.testing import ScriptedModel, hangs
from tests.serving.support import make_agent, of_type, sse_data

real_clock = pytest.mark.real_clock


@asynccontextmanager
async def server(served: ServedApp | None = None, **options: Any) -> AsyncGenerator[str]:
    """A server at a free port, which is cancelled at the end."""
    async with trio.open_nursery() as nursery:
        address: str = await nursery.start(partial(run, served or app(make_agent()), port=0, **options))
        yield address
        nursery.cancel_scope.cancel()


async def exchange(address: str, *pieces: bytes) -> bytes:
    """Send raw bytes, and read what the server answers until it closes."""
    host, _, port = address.removeprefix("http://").rpartition(":")
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        for piece in pieces:
            await stream.send_all(piece)
        answer = bytearray()
        try:
            async for data in stream:
                answer += data
        except trio.BrokenResourceError:
            pass
        return bytes(answer)


@real_clock
async def test_a_client_of_http_prompts_reads_and_comes_back() -> None:
    async with server() as address, httpx2.AsyncClient(base_url=address) as client:
        session = (await client.post("/sessions", json={})).json()["id"]
        begun = await client.post(f"/sessions/{session}/prompts", json={"text": "please add"})
        assert begun.status_code == 202
        assert "server" not in begun.headers
        async with await trio.open_tcp_stream("127.0.0.1", int(address.rpartition(":")[2])) as stream:
            await stream.send_all(f"GET /sessions/{session}/events HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
            answer = b""
            while b"\nid: 5\n" not in answer:
                answer += await stream.receive_some()
        rest = await client.get(f"/sessions/{session}/events?follow=0", headers={"last-event-id": "5"})
        assert "\nid: 6\n" in rest.text
        assert "\nid: 5\n" not in rest.text
        assert '"type":"stream_stopped"' in rest.text


@real_clock
@pytest.mark.parametrize("protocol", ["events", "openai"])
async def test_a_connection_ends_or_is_used_again_after_a_response_that_streams(protocol: str) -> None:
    async with server() as address, httpx2.AsyncClient(base_url=address) as client:
        if protocol == "events":
            session = (await client.post("/sessions", json={})).json()["id"]
            head, body = f"GET /sessions/{session}/events?follow=0 HTTP/1.1\r\n", b""
        else:
            body = json.dumps({"model": "assistant", "messages": [{"role": "user", "content": "hello"}]}).encode()
            head = f"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: {len(body)}\r\n"
        sent = f"{head}host: localhost\r\ncontent-type: application/json\r\n".encode()
        request, last = sent + b"\r\n" + body, sent + b"connection: close\r\n\r\n" + body
        with trio.fail_after(5):
            # The second request comes on the connection of the first, which closes after it.
            assert (await exchange(address, request, last)).count(b"HTTP/1.1 200") == 2


@real_clock
async def test_a_connection_that_is_idle_after_a_response_that_streams_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_server, "HEADER_SECONDS", 0.2)
    async with server() as address, httpx2.AsyncClient(base_url=address) as client:
        session = (await client.post("/sessions", json={})).json()["id"]
        with trio.fail_after(5):
            path = f"/sessions/{session}/events?follow=0"
            answer = await exchange(address, f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
        assert answer.endswith(b"\r\n0\r\n\r\n")


UPGRADE = b"GET /agents HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade, http2-settings\r\n"


@real_clock
@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"", b""),
        (b"GET /agents HTTP/1.1\r\nhost: loc", b""),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", b"421"),
        (UPGRADE + b"upgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n\r\n", b"200"),
        (UPGRADE + b"upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: AAAA\r\n\r\n", b"200"),
        (UPGRADE + b"upgrade: websocket\r\nsec-websocket-version: 12\r\n\r\n", b"200"),
    ],
    ids=["nothing", "part of a head", "HTTP/2", "upgrade to HTTP/2", "websocket", "old websocket"],
)
async def test_a_connection_speaks_http_1_and_is_closed_when_it_is_idle(
    sent: bytes, status: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_server, "HEADER_SECONDS", 0.2)
    async with server() as address:
        with trio.fail_after(5):
            answer = await exchange(address, sent)
    assert answer.startswith(b"HTTP/1.1 " + status if status else b"")
    assert bool(answer) is bool(status)


@real_clock
async def test_a_server_takes_no_more_connections_than_leave_descriptors_for_its_runs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_server, "_max_connections", lambda: 2)
    async with server() as address, AsyncExitStack() as stack:
        host, _, port = address.removeprefix("http://").rpartition(":")
        held = [await stack.enter_async_context(await trio.open_tcp_stream(host, int(port))) for _ in range(2)]
        for _ in range(3):
            assert await exchange(address) == b""
        await held[0].aclose()
        async with httpx2.AsyncClient(base_url=address) as client:
            while True:
                with suppress(httpx2.TransportError):
                    assert (await client.get("/agents")).status_code == 200
                    break
    assert caplog.messages.count("the server has 2 connections, and closes new ones at once") == 1


@real_clock
async def test_what_is_not_http_ends_its_own_connection_and_no_other() -> None:
    async with server() as address, httpx2.AsyncClient(base_url=address) as client:
        for pieces in (
            [b"\x00\xff\xfe garbage\r\n\r\n"],
            [b"GET / HTTP/1.1\r\nhost: localhost\r\n" + b"x: " + b"y" * 20_000 + b"\r\n\r\n"],
            [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x00" * 100],
            [b"GET / HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\ntrailing"],
            [b"POST /sessions HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n"],
        ):
            with trio.move_on_after(0.3):
                answer = await exchange(address, *pieces)
                assert b" 200 " not in answer.partition(b"\r\n")[0]
        assert (await client.get("/agents")).status_code == 200


@real_clock
@pytest.mark.parametrize("by", ["signal", "cancel"])
async def test_the_server_leaves_although_a_client_does_not_read(by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_server, "CLOSE_SECONDS", 0.2)
    big = Agent(ScriptedModel("x" * 3_000_000), name="big")
    with socket.socket() as deaf:
        async with trio.open_nursery() as nursery:
            address: str = await nursery.start(partial(run, app(big), port=0, drain_seconds=2))
            async with httpx2.AsyncClient(base_url=address) as client:
                session = (await client.post("/sessions", json={})).json()["id"]
                await client.post(f"/sessions/{session}/prompts", json={"text": "go"})
                await client.get(f"/sessions/{session}/events?follow=0")
            deaf.connect(("127.0.0.1", int(address.rpartition(":")[2])))
            deaf.sendall(f"GET /sessions/{session}/events HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
            await trio.sleep(0.3)
            if by == "signal":
                signal.raise_signal(signal.SIGTERM)
            else:
                nursery.cancel_scope.cancel()
            # The nursery ends while the client's socket is open still.


@real_clock
async def test_at_sigterm_a_run_that_waits_for_a_person_is_parked_and_the_next_server_has_its_question(
    tmp_path: Path,
) -> None:
    path = str(tmp_path / "chats.db")
    async with trio.open_nursery() as nursery:
        served = app(make_agent(), store=SQLiteStore(path))
        address: str = await nursery.start(partial(run, served, port=0))
        async with httpx2.AsyncClient(base_url=address) as client:
            session = (await client.post("/sessions", json={})).json()["id"]
            await client.post(f"/sessions/{session}/prompts", json={"text": "please pay"})
            while not (await client.get(f"/sessions/{session}")).json()["questions"]:
                await trio.sleep(0.01)
        signal.raise_signal(signal.SIGTERM)
    async with (
        server(app(make_agent(), store=SQLiteStore(path))) as address,
        httpx2.AsyncClient(base_url=address) as client,
    ):
        found = (await client.get(f"/sessions/{session}")).json()
        assert found["state"] == "parked"
        answers = {found["questions"][0]["id"]: {"type": "approve"}}
        headers = {"accept": "text/event-stream"}
        path = f"/sessions/{session}/answers"
        resumed = await client.post(path, json={"answers": answers}, headers=headers)
        assert "paid 5" in resumed.text


@real_clock
async def test_a_second_sigterm_ends_the_wait_for_runs_and_the_run_can_be_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_server, "CLOSE_SECONDS", 0.2)
    path = str(tmp_path / "chats.db")
    async with trio.open_nursery() as nursery:
        served = app(Agent(ScriptedModel(hangs()), name="assistant"), store=SQLiteStore(path))
        address: str = await nursery.start(partial(run, served, port=0, drain_seconds=1000))
        async with httpx2.AsyncClient(base_url=address) as client:
            session = (await client.post("/sessions", json={})).json()["id"]
            await client.post(f"/sessions/{session}/prompts", json={"text": "go"})
            signal.raise_signal(signal.SIGTERM)
            refused = 0
            while refused != 503:
                other = (await client.post("/sessions", json={})).json()["id"]
                refused = (await client.post(f"/sessions/{other}/prompts", json={"text": "go"})).status_code
            # The server answers while it waits.
            assert (await client.get(f"/sessions/{session}")).json()["state"] == "running"
        signal.raise_signal(signal.SIGTERM)
    served = app(Agent(ScriptedModel("Done."), name="assistant"), store=SQLiteStore(path))
    async with server(served) as address, httpx2.AsyncClient(base_url=address) as client:
        assert (await client.get(f"/sessions/{session}")).json()["state"] == "interrupted"


SERVES = """
import sys
from functools import partial

import trio

from agentloop.serving import app, run
from agentloop.stores import SQLiteStore
from tests.serving.support import make_agent

async def main():
    served = app(make_agent(), store=SQLiteStore(sys.argv[1]), lease_seconds=1)
    async with trio.open_nursery() as nursery:
        print(await nursery.start(partial(run, served, port=0)), flush=True)

trio.run(main)
"""


@real_clock
async def test_a_question_outlives_a_server_that_is_killed_and_a_reader_gets_every_event_once(tmp_path: Path) -> None:
    path = str(tmp_path / "chats.db")
    killed = await trio.lowlevel.open_process(
        [sys.executable, "-c", SERVES, path], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    output = killed.stdout
    assert output is not None
    try:
        address = (await output.receive_some()).decode().strip()
        async with httpx2.AsyncClient(base_url=address) as client:
            session = (await client.post("/sessions", json={})).json()["id"]
            await client.post(f"/sessions/{session}/prompts", json={"text": "please pay"})
            while not (await client.get(f"/sessions/{session}")).json()["questions"]:
                await trio.sleep(0.01)
    finally:
        killed.kill()
        with trio.CancelScope(shield=True):
            await killed.wait()
            await output.aclose()
    served = app(make_agent(), store=SQLiteStore(path), lease_seconds=1)
    async with server(served) as address, httpx2.AsyncClient(base_url=address) as client:
        events = f"/sessions/{session}/events?follow=0"
        # The lease of the killed process is over when the response ends.
        cut_off = sse_data((await client.get(events)).content)
        found = (await client.get(f"/sessions/{session}")).json()
        assert (found["state"], len(found["questions"])) == ("parked", 1)
        answers = {found["questions"][0]["id"]: {"type": "approve"}}
        headers = {"accept": "text/event-stream"}
        resumed = await client.post(f"/sessions/{session}/answers", json={"answers": answers}, headers=headers)
        whole = [json.loads(text) for text in sse_data((await client.get(events)).content)]
    read = [json.loads(text) for text in [*cut_off, *sse_data(resumed.content)]]
    # Deltas that follow each other are one event in the store.
    assert [event for event in read if event["type"] != "text_delta"] == [
        event for event in whole if event["type"] != "text_delta"
    ]
    numbers = [event["seq"] for event in read]
    assert numbers == sorted(set(numbers))
    assert [event["reason"] for event in of_type(read, "stream_stopped")] == ["interrupted", "completed"]
    [paid] = of_type(read, "tool_call_finished")
    assert paid["result"]["parts"][0]["text"] == "paid 5"


@real_clock
async def test_a_port_that_is_taken_is_said_in_a_sentence() -> None:
    async with server() as address:
        port = int(address.rpartition(":")[2])
        with pytest.raises(UsageError, match=f"cannot listen at 127.0.0.1, port {port}: Address already in use"):
            await run(app(make_agent()), port=port)
    with pytest.raises(UsageError, match=r"run\(\) serves what serving.app\(agent\) makes"):
        await run(make_agent(), port=0)  # type: ignore[arg-type]


async def test_an_app_runs_once_at_a_time() -> None:
    served = app(make_agent())
    async with served.running():
        with pytest.raises(UsageError, match="this app runs already"):
            async with served.running():
                pass
    async with served.running():
        pass


# -------------------------------------------------------------------------------- command


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    tmp_path.joinpath("my_chat.py").write_text(
        "from agentloop import Agent, serving\n"
        "from agentloop.testing import ScriptedModel\n"
        "agent = Agent(ScriptedModel('Hello.'))\n"
        "team = {'lead': agent}\n"
        "served = __import__('agentloop.serving').serving.app(agent)\n"
        "number = 7\n".replace(", serving", "")
    )
    tmp_path.joinpath("my_broken.py").write_text("import no_such_package_at_all\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("name", ["agent", "team", "served"])
def test_the_command_finds_what_it_serves(folder: Path, name: str) -> None:
    assert find_served(f"my_chat:{name}")


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        ("my_chat", "say where the agent is, as in 'chat:agent' for `agent` in chat.py, and not 'my_chat'"),
        ("my_chat:", "say where the agent is"),
        ("no_such_chat:agent", "there is no module 'no_such_chat' in "),
        ("my_chat:agnet", "module 'my_chat' has no 'agnet'; of use here are: agent, served, team"),
        ("my_chat:number", "my_chat:number is no Agent, and no app of serving.app(): it is int"),
    ],
)
def test_the_command_says_in_a_sentence_what_is_not_there(
    folder: Path, capsys: pytest.CaptureFixture[str], place: str, sentence: str
) -> None:
    assert main(["serve", place]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"agentloop: {sentence}")
    assert error.count("\n") == 1


def test_the_command_shows_the_error_of_a_module_that_cannot_be_imported(folder: Path) -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_package_at_all"):
        main(["serve", "my_broken:agent"])


def test_the_command_serves_nothing_beyond_this_machine_without_tokens(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["serve", "my_chat:agent", "--host", "0.0.0.0", "--port", "0"]) == 2
    assert "authenticator" in capsys.readouterr().err
    assert main(["serve", "my_chat:agent", "--token-variable", "NO_SUCH_TOKEN"]) == 2
    assert "the environment variable NO_SUCH_TOKEN has no token" in capsys.readouterr().err


# -------------------------------------------------------------------------------- asyncio


async def asyncio_request(
    asgi: Any,
    method: str,
    path: str,
    body: Any = None,
    *,
    until: bytes = b"",
    sending: Mapping[str, str] | None = None,
) -> tuple[int, bytes]:
    """Send a request to an app in asyncio, and go away after ``until`` has come, or at the end."""
    sent = json.dumps(body).encode() if body is not None else b""
    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    headers += [(name.encode(), value.encode()) for name, value in (sending or {}).items()]
    path, _, query = path.partition("?")
    scope = {"type": "http", "method": method, "path": path, "query_string": query.encode(), "headers": headers}
    scope |= {"client": ("127.0.0.1", 1), "root_path": "", "http_version": "1.1"}
    gone, messages = asyncio.Event(), [{"type": "http.request", "body": sent, "more_body": False}]
    status, answer = 0, bytearray()

    async def receive() -> Any:
        if messages:
            return messages.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        nonlocal status
        status = message.get("status", status)
        answer.extend(message.get("body", b""))
        if until and until in answer:
            gone.set()

    await asgi(scope, receive, send)
    return status, bytes(answer)


def in_asyncio(function: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await function()

    asyncio.run(bounded())
    gc.collect()


def test_the_app_is_a_part_of_an_app_on_asyncio() -> None:
    served = app(make_agent())
    around = Starlette(routes=[Mount("/agents", served)])

    async def program() -> None:
        status, body = await asyncio_request(around, "GET", "/agents/sessions")
        assert status == 503
        async with served.hosted():
            _, body = await asyncio_request(around, "POST", "/agents/sessions", {})
            path = f"/agents/sessions/{json.loads(body)['id']}"
            status, _ = await asyncio_request(around, "POST", f"{path}/prompts", {"text": "please pay"})
            assert status == 202
            _, body = await asyncio_request(around, "GET", f"{path}/events", until=b"approval_requested")
            _, body = await asyncio_request(around, "GET", path)
            answers = {json.loads(body)["questions"][0]["id"]: {"type": "approve"}}
            await asyncio_request(around, "POST", f"{path}/answers", {"answers": answers})
            _, body = await asyncio_request(around, "GET", f"{path}/events?follow=0")
            assert b"paid 5" in body
            prompt = {"model": "assistant", "messages": [{"role": "user", "content": "please add"}]}
            _, body = await asyncio_request(around, "POST", "/agents/v1/chat/completions", prompt)
            assert json.loads(body)["choices"][0]["message"]["content"] == "The result is 5."

    in_asyncio(program)


def test_a_server_on_asyncio_starts_and_ends_the_app_by_its_lifespan() -> None:
    served = app(make_agent())

    async def program() -> None:
        to_app: asyncio.Queue[Any] = asyncio.Queue()
        from_app: asyncio.Queue[Any] = asyncio.Queue()
        lifespan = asyncio.create_task(served({"type": "lifespan"}, to_app.get, from_app.put))
        await to_app.put({"type": "lifespan.startup"})
        assert (await from_app.get())["type"] == "lifespan.startup.complete"
        assert (await asyncio_request(served, "GET", "/agents"))[0] == 200
        await to_app.put({"type": "lifespan.shutdown"})
        assert (await from_app.get())["type"] == "lifespan.shutdown.complete"
        await lifespan
        assert (await asyncio_request(served, "GET", "/agents"))[0] == 503

    in_asyncio(program)


@real_clock
async def test_a_lifespan_that_cannot_begin_says_so(tmp_path: Path) -> None:
    served = app(make_agent(), store=SQLiteStore(str(tmp_path / "no" / "such" / "folder" / "chats.db")))
    messages: list[Any] = []

    async def receive() -> Any:
        await trio.lowlevel.checkpoint()
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        await trio.lowlevel.checkpoint()
        messages.append(message)

    with pytest.raises(StoreError, match="chats"):
        await served({"type": "lifespan"}, receive, send)
    assert [message["type"] for message in messages] == ["lifespan.startup.failed"]
