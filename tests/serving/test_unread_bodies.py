"""A connection is used for the next request only after the body of the last one, which nothing may read."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
import trio

from agentloop.serving import app
from tests.serving.support import make_agent
from tests.serving.test_server import real_clock, server

SCOPE = {
    "type": "http",
    "asgi": {"version": "3.0", "spec_version": "2.3"},
    "http_version": "1.1",
    "method": "POST",
    "scheme": "http",
    "query_string": b"",
    "root_path": "",
    "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
    "client": ("127.0.0.1", 5000),
    "server": ("127.0.0.1", 8000),
}


async def answer(path: str, pieces: list[bytes], *, is_whole: bool = True, version: str = "1.1") -> tuple[Any, float]:
    """The head of the response, and the seconds that it took. Each piece of the body takes a tenth of a second."""
    to_send = list(pieces)
    heads: list[Any] = []

    async def receive() -> Any:
        if not to_send:
            await trio.sleep_forever()
        await trio.sleep(0.1)
        return {"type": "http.request", "body": to_send.pop(0), "more_body": bool(to_send) or not is_whole}

    async def send(message: Any) -> None:
        await trio.lowlevel.checkpoint()
        if message["type"] == "http.response.start":
            heads.append(message)

    served = app(make_agent())
    async with served.running():
        began = trio.current_time()
        await served({**SCOPE, "http_version": version, "path": path, "raw_path": path.encode()}, receive, send)
        [head] = heads
        return head, trio.current_time() - began


@pytest.mark.parametrize(("path", "status"), [("/sessions", 201), ("/nothing", 404)])
async def test_a_response_waits_for_a_body_that_its_endpoint_does_not_read(path: str, status: int) -> None:
    head, seconds = await answer(path, [b"{", b"}"])
    assert (head["status"], round(seconds, 3)) == (status, 0.2)
    assert b"connection" not in dict(head["headers"])


async def test_a_body_that_does_not_come_ends_the_connection_with_the_response() -> None:
    head, seconds = await answer("/sessions", [b"{"], is_whole=False)
    assert round(seconds, 3) == 1
    assert dict(head["headers"])[b"connection"] == b"close"


async def test_a_body_that_is_too_long_to_wait_for_ends_the_connection_with_the_response() -> None:
    head, seconds = await answer("/nothing", [bytes(600_000)] * 3)
    assert round(seconds, 3) == 0.2
    assert dict(head["headers"])[b"connection"] == b"close"
    head, _ = await answer("/nothing", [bytes(600_000)] * 3, version="2")
    assert b"connection" not in dict(head["headers"])


@real_clock
async def test_a_client_that_sends_head_and_body_apart_uses_its_connection_again() -> None:
    async with server() as address, await trio.open_tcp_stream("127.0.0.1", httpx2.URL(address).port or 0) as stream:
        head = (
            b"POST /sessions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n"
        )
        for _ in range(2):
            await stream.send_all(head)
            # The server has the head when another client has its response.
            async with httpx2.AsyncClient(base_url=address) as other:
                await other.get("/agents")
            await stream.send_all(b"{}")
            received = b""
            while not received.endswith(b"}"):
                piece = await stream.receive_some()
                assert piece, "the server closed the connection"
                received += piece
            assert received.startswith(b"HTTP/1.1 201")
