"""Servers over HTTP: sessions that expire, errors that say what to do, bodies with a bound, sign-ins that take long."""

from __future__ import annotations

import gzip
import logging
from collections.abc import AsyncGenerator
from typing import Any

import httpx2
import pytest
import trio

from agentloop import Accept, Deadlines, Decline
from agentloop.errors import ToolsetError
from agentloop.events import ElicitationRequested
from agentloop.mcp import McpServer, ask_to_sign_in
from agentloop.testing import calls
from agentloop.toolsets import Toolsets
from tests.mcp.servers.web import Answer, Request, serve
from tests.mcp.support import agent_with, results, watched
from tests.mcp.test_questions import answering
from tests.support import of

pytestmark = [
    pytest.mark.real_clock,
    pytest.mark.seconds(30),
    pytest.mark.filterwarnings("ignore:Async generator 'http:ResourceWarning"),
]


async def error_of(server: McpServer) -> str:
    with pytest.raises(ToolsetError) as caught:
        await agent_with(server).run("go")
    return str(caught.value)


# ------------------------------------------------------------------------------- sessions


@pytest.mark.parametrize(
    "refusal",
    [
        (404, {"jsonrpc": "2.0", "id": None, "error": {"code": -32001, "message": "Session not found"}}),
        (404, b"gone"),
        (400, {"jsonrpc": "2.0", "id": None, "error": {"code": -32000, "message": "Bad Request: No valid session ID"}}),
        (400, {"jsonrpc": "2.0", "id": 1, "error": {"code": -32600, "message": "Bad Request: Server not initialized"}}),
        (200, {"jsonrpc": "2.0", "id": None, "error": {"code": -32001, "message": "Session abc has expired"}}),
    ],
)
async def test_a_session_that_the_server_forgot_is_renewed_and_the_call_sent_again(refusal: tuple[int, Any]) -> None:
    session, called = ["s1"], list[str | None]()

    def answer(request: Request) -> Answer:
        if request.method == "initialize":
            status, body, _ = request.usual()
            return status, body, {"Mcp-Session-Id": session[0]}
        if request.id is not None and request.session not in (None, session[0]):
            status, body = refusal
            return status, ({**body, "id": request.id} if status == 200 else body), {}
        if request.method == "tools/call":
            called.append(request.session)
        return request.usual()

    with serve(answer) as url:
        async with Toolsets(McpServer.http(url, max_restarts=1)) as shared:
            for number in range(4):
                # More often than a server may crash.
                session[0] = f"s{number}"
                assert results(await watched(shared, calls("t")))["t"].text == "ok"
    assert called == ["s0", "s1", "s2", "s3"]


async def test_a_call_that_is_refused_in_a_new_session_too_is_an_error() -> None:
    called: list[str | None] = []

    def answer(request: Request) -> Answer:
        if request.method == "initialize":
            status, body, _ = request.usual()
            return status, body, {"Mcp-Session-Id": "s"}
        if request.method == "tools/call":
            called.append(request.session)
            return request.error(404, -32001, "Session not found")
        return request.usual()

    with serve(answer) as url:
        result = results(await watched(McpServer.http(url), calls("t")))["t"]
    assert result.status == "error"
    assert "no longer knows the session" in result.text
    assert len(called) == 2


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (200, -32602, "argument `session` is required"),
        (200, -32603, "Session is closed"),
        (500, -32603, "Session not found"),
        (200, -32000, "the query failed: database session has expired"),
        (404, -32601, "no such method"),
    ],
)
async def test_an_error_of_a_tool_that_has_sessions_itself_is_not_taken_for_an_expired_one(
    status: int, code: int, message: str
) -> None:
    called: list[int] = []

    def answer(request: Request) -> Answer:
        if request.method == "initialize":
            return *request.usual()[:2], {"Mcp-Session-Id": "s"}
        if request.method == "tools/call":
            called.append(1)
            return request.error(status, code, message)
        return request.usual()

    with serve(answer) as url:
        assert message in results(await watched(McpServer.http(url), calls("t")))["t"].text
    assert len(called) == 1


@pytest.mark.parametrize("kind", ["application/json", "text/event-stream"])
async def test_half_of_an_emoji_does_not_lose_the_result(kind: str) -> None:
    def answer(request: Request) -> Answer:
        if request.method != "tools/call":
            return request.usual()
        content = r'{"content": [{"type": "text", "text": "title \ud83d"}]}'
        body = f'{{"jsonrpc": "2.0", "id": {request.id}, "result": {content}}}'
        return 200, (f"data: {body}\n\n" if "stream" in kind else body).encode(), {"Content-Type": kind}

    with serve(answer) as url:
        assert results(await watched(McpServer.http(url), calls("t")))["t"].text == "title ?"


@pytest.mark.parametrize("body", [b"", b"null", b"{}", b'{"status": "ok"}', b'{"jsonrpc": "2.0", "id": 1, "result"'])
async def test_a_body_that_is_no_answer_is_an_error_with_its_words(body: bytes) -> None:
    with serve(lambda request: (200, body, {}) if request.method == "tools/call" else request.usual()) as url:
        result = results(await watched(McpServer.http(url), calls("t")))["t"]
    assert result.status == "error"
    assert "a body that is no answer" in result.text or "a line that is not JSON" in result.text
    assert "validation error" not in result.text


async def test_a_server_that_drops_the_connection_at_a_first_message_that_it_does_not_know_is_an_older_one() -> None:
    def answer(request: Request) -> Answer | None:
        return None if request.method == "server/discover" else request.usual()

    with serve(answer) as url:
        assert results(await watched(McpServer.http(url), calls("t")))["t"].text == "ok"


# --------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("status", "headers", "words"),
    [
        (401, {"WWW-Authenticate": "Bearer"}, "HTTP 401 Unauthorized from {url}: the server wants to know who asks"),
        (403, {}, "HTTP 403 Forbidden from {url}: the server does not allow it: check auth="),
        (404, {}, "HTTP 404 Not Found from {url}: no MCP endpoint is at this URL, or one that speaks only the legacy"),
        (405, {}, "HTTP 405 Method Not Allowed from {url}: no MCP endpoint is at this URL, or one that speaks only"),
        (429, {"Retry-After": "30"}, "HTTP 429 Too Many Requests from {url}: too many requests: try again after 30"),
        (500, {}, "HTTP 500 Internal Server Error from {url}; the body says: what the server wrote"),
        (200, {"Content-Type": "text/html"}, "HTTP 200 OK from {url}, with text/html in the place of a message"),
    ],
)  # fmt: skip
async def test_an_http_error_has_its_status_its_url_and_a_hint(
    status: int, headers: dict[str, str], words: str
) -> None:
    with serve(lambda request: (status, b"what the server wrote", {"Content-Type": "text/plain", **headers})) as url:
        assert words.format(url=url) in await error_of(McpServer.http(url))


async def test_a_json_rpc_error_keeps_its_words_beside_the_status() -> None:
    with serve(lambda request: request.error(401, -32001, "token has expired")) as url:
        error = await error_of(McpServer.http(url))
    assert "token has expired (HTTP 401 Unauthorized" in error


async def test_an_error_in_the_middle_of_a_run_fails_its_call_alone() -> None:
    def answer(request: Request) -> Answer:
        return (503, b"busy", {}) if request.method == "tools/call" else request.usual()

    with serve(answer) as url:
        seen = await watched(McpServer.http(url), calls("t"), calls("t"))
    assert "HTTP 503 Service Unavailable from http" in results(seen)["t"].text
    assert seen.outcome.reason == "completed"


async def test_an_address_where_nothing_listens_is_in_the_error() -> None:
    assert "(http://127.0.0.1:9/mcp)" in await error_of(McpServer.http("http://127.0.0.1:9/mcp"))


async def test_no_error_and_no_log_shows_a_key_that_a_server_repeats(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    def answer(request: Request) -> Answer:
        if request.method == "tools/call":
            return 500, f"denied: {request.headers}, hunter2, hunter3".encode(), {}
        return request.usual()

    with serve(answer) as url:
        place = url.removeprefix("http://")
        server = McpServer.http(f"http://ada:hunter2@{place}?api_key=hunter3", headers={"X-Api-Key": "hunter4"})
        seen = await watched(server, calls("t"))
        assert results(seen)["t"].status == "error"
        assert f"http://<redacted>@{place}?api_key=<redacted>" in results(seen)["t"].text
    assert "hunter" not in str(seen.events)
    shown = [record.getMessage() for record in caplog.records if not record.name.startswith("httpcore2")]
    assert "hunter" not in "".join(shown)
    assert any("HTTP Request: POST" in text for text in shown)
    error = await error_of(McpServer.http("http://ada:hunter2@127.0.0.1:9/mcp?api_key=hunter3"))
    assert "hunter" not in error


# --------------------------------------------------------------------------------- bodies


async def test_a_body_is_bounded_after_decompression(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentloop.mcp._http.MAX_LINE", 10**6)
    packed = gzip.compress(b'{"jsonrpc":"2.0","id":1,"result":{"x":"' + b"a" * 10**7)
    bodies = [
        (packed, "gzip"),
        (b"a" * 10**7, "identity"),
        (b"abc", "gzip"),
        (b"abc", "br"),
        (packed[:50], "gzip, gzip"),
    ]

    def answer(request: Request) -> Answer:
        if request.method == "tools/call":
            body, encoding = bodies[request.message["params"]["arguments"]["n"]]
            return 200, body, {"Content-Encoding": encoding}
        status, body, headers = request.usual()
        # An honest server may compress.
        return status, gzip.compress(repr(body).replace("'", '"').encode()), {**headers, "Content-Encoding": "gzip"}

    with serve(answer) as url:
        async with Toolsets(McpServer.http(url, mode="legacy", max_restarts=9)) as shared:
            told = [results(await watched(shared, calls("t", n=n)))["t"] for n in range(len(bodies))]
    assert {result.status for result in told} == {"error"}
    assert "the body has more than 1000000 bytes" in told[0].text
    assert "the body has more than 1000000 bytes" in told[1].text


# -------------------------------------------------------------------------------- sign-ins


class SignIn(httpx2.Auth):
    """Waits for a person where the server wants a token."""

    def __init__(self) -> None:
        self.token = "old"
        self.signed_in = 0

    async def async_auth_flow(self, request: httpx2.Request) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        request.headers["Authorization"] = f"Bearer {self.token}"
        response = yield request
        if response.status_code == 401:
            await trio.sleep(0.7)
            self.signed_in += 1
            self.token = response.headers["X-Token"]
            request.headers["Authorization"] = f"Bearer {self.token}"
            yield request


async def test_the_time_of_a_sign_in_is_the_persons() -> None:
    wanted = ["first"]

    def answer(request: Request) -> Answer:
        if request.headers["Authorization"] != f"Bearer {wanted[0]}":
            return 401, b"", {"X-Token": wanted[0]}
        if request.method == "tools/list":
            # The token expires before the first call.
            wanted[0] = "second"
        return request.usual()

    auth = SignIn()
    with serve(answer) as url:
        server = McpServer.http(url, auth=auth, start_timeout=0.5, timeout=0.5)
        seen = await watched(server, calls("t"), deadlines=Deadlines(toolset=0.5))
    assert results(seen)["t"].text == "ok"
    assert auth.signed_in == 2


class AskingSignIn(SignIn):
    async def async_auth_flow(self, request: httpx2.Request) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        request.headers["Authorization"] = f"Bearer {self.token}"
        response = yield request
        if response.status_code == 401:
            await ask_to_sign_in("https://h.example/sign-in")
            self.token = response.headers["X-Token"]
            request.headers["Authorization"] = f"Bearer {self.token}"
            yield request


def expiring(request: Request, wanted: list[str]) -> Answer:
    """A server whose first token expires after the listing."""
    if request.headers["Authorization"] != f"Bearer {wanted[0]}":
        return 401, b"", {"X-Token": wanted[0]}
    if request.method == "tools/list":
        wanted[0] = "second"
    return request.usual()


async def test_a_sign_in_is_a_question_at_the_start_and_during_a_call() -> None:
    wanted = ["first"]
    with serve(lambda request: expiring(request, wanted)) as url:
        server = McpServer.http(url, name="web", auth=AskingSignIn())
        seen = await watched(server, calls("t"), on_event=answering(Accept()))
    assert results(seen)["t"].text == "ok"
    at_start, in_call = of(seen.events, ElicitationRequested)
    assert (at_start.call_id, in_call.call_id) == ("", "call_1_1_0")
    assert at_start.url == in_call.url == "https://h.example/sign-in"
    assert at_start.message == in_call.message == "MCP server 'web' wants you to sign in on this page."


async def test_without_a_sign_in_the_start_or_the_call_fails_with_the_reason() -> None:
    wanted = ["first"]
    with serve(lambda request: expiring(request, wanted)) as url:
        server = McpServer.http(url, name="web", auth=AskingSignIn())
        with pytest.raises(ToolsetError, match="wants the user to sign in, who did not: Nobody is there to be asked"):
            await agent_with(server).run("go")
        wanted[0] = "old"
        seen = await watched(server, calls("t"), calls("t"), on_event=answering(Decline("not now")))
        assert "wants the user to sign in, who did not: not now" in results(seen)["t"].text
        assert seen.outcome.reason == "completed"


async def test_the_sign_in_of_a_shared_server_is_put_off_until_the_first_prompt_that_needs_its_tools() -> None:
    wanted = ["first"]
    with serve(lambda request: expiring(request, wanted)) as url:
        async with Toolsets(McpServer.http(url, name="web", auth=AskingSignIn())) as shared:
            assert [status.state for status in shared.statuses] == ["waiting"]
            with pytest.raises(ToolsetError, match="wants the user to sign in, who did not: Nobody is there"):
                await agent_with(shared).run("go")
            seen = await watched(shared, calls("t"), on_event=answering(Accept()))
            assert [status.state for status in shared.statuses] == ["ready"]
    assert results(seen)["t"].text == "ok"
    assert [event.call_id for event in of(seen.events, ElicitationRequested)] == ["", "call_1_1_0"]
