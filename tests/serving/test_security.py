"""Nobody gets at what is not theirs: principals, hosts and origins, limits of requests, and errors that say little."""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Mapping
from typing import Any, cast

import pytest
import trio

from agentloop import Agent, UsageError
from agentloop.journal import OpenStore
from agentloop.serving import BearerTokens, ClientRequest, ServedApp, app, run
from agentloop.serving._errors import Refusal
from agentloop.serving._security import (
    FORWARDED,
    Sites,
    check_site,
    is_loopback,
    named_session,
    new_session,
    owner_prefix,
)
from agentloop.serving.protocols.mcp import State
from agentloop.stores import MemoryStore
from agentloop.testing import ScriptedModel
from tests.serving.support import Client, Reply, make_agent

ANN, BOB = "token-of-ann-which-is-long", "token-of-bob-which-is-long"
TOKENS = {ANN: "ann", BOB: "bob"}


def served_to_two(**options: Any) -> ServedApp:
    return app(make_agent(), authenticate=BearerTokens(TOKENS), **options)


# ----------------------------------------------------------------- access across principals

TEXT = "the secret of ann"

MCP_HEADERS = {
    "accept": "application/json, text/event-stream",
    "mcp-protocol-version": "2026-07-28",
    "mcp-method": "tools/call",
    "mcp-name": "assistant",
}


def mcp_call(session: str, **params: Any) -> Any:
    meta = {"protocolVersion": "2026-07-28", "clientCapabilities": {"elicitation": {}}}
    sent = {
        "name": "assistant",
        "arguments": {"prompt": "hello", "session": session},
        "_meta": {f"io.modelcontextprotocol/{key}": value for key, value in meta.items()},
        **params,
    }
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": sent}


def body_for(path: str, session: str, question: str) -> Any:
    """A body that is valid at ``path``, and names Ann's session and question wherever one can be named."""
    ending = path.rpartition("/")[2]
    message = {"id": "1", "role": "user", "content": "hello"}
    by_path: Mapping[str, Any] = {
        "/sessions": {},
        "/ag-ui": {"threadId": session, "runId": "r", "messages": [message]},
        "/ag-ui/{agent}": {
            "threadId": session,
            "runId": "r",
            "messages": [],
            "resume": [{"interruptId": question, "status": "resolved", "payload": {"approved": True}}],
        },
        "/v1/chat/completions": {"model": "assistant", "messages": [message]},
        "/v1/responses": {"model": "assistant", "input": "hello", "previous_response_id": f"resp_{session}.1"},
        "/a2a": {"jsonrpc": "2.0", "id": 1, "method": "CancelTask", "params": {"id": f"{session}.1"}},
        "/a2a/{agent}": {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "SendMessage",
            "params": {
                "message": {
                    "messageId": "1",
                    "role": "ROLE_USER",
                    "parts": [{"data": {"question": question, "action": "approve"}}],
                    "taskId": f"{session}.1",
                }
            },
        },
        "/vercel": {"id": session, "messages": [{"role": "user", "parts": [{"type": "text", "text": "hello"}]}]},
        "/vercel/{agent}": {"id": session, "messages": [], "answers": {question: {"type": "approve"}}},
        "/mcp": mcp_call(session),
        "/mcp/{agent}": mcp_call(
            session, requestState=State(session, 1).encode(), inputResponses={question: {"action": "accept"}}
        ),
    }
    by_ending: Mapping[str, Any] = {
        "prompts": {"text": "hello"},
        "answers": {"answers": {question: {"type": "approve"}}},
        "messages": {"text": "hello"},
        "forks": {},
        "stop": {},
        "pause": {},
        "resume": {},
        "{session}": {"title": "mine now"},
    }
    # A new endpoint without a line here fails, so that it is tried.
    return by_path[path] if path in by_path else by_ending[ending]


async def state_of(store: OpenStore) -> dict[str, Any]:
    """All that is saved of Ann."""
    prefix = owner_prefix("ann")
    infos = [info for info in await store.sessions(limit=1000) if info.id.startswith(prefix)]
    return {info.id: (info.title, await store.read(info.id), await store.answers(info.id)) for info in infos}


@pytest.mark.parametrize("by", ["whole id", "the name that ann gave it"])
async def test_no_endpoint_lets_a_principal_at_the_session_of_another(by: str) -> None:
    store = MemoryStore()
    served = served_to_two(store=store)
    async with served.running() as runs, store.open() as saved:
        ann = Client(served, token=ANN)
        session = f"{owner_prefix('ann')}chat"
        await ann.post(f"/sessions/{session}/prompts", {"text": f"{TEXT} pay"})
        await trio.sleep(1)
        [question] = (await ann.get(f"/sessions/{session}")).json["questions"]
        await runs.drain(1)
        runs.is_draining = False
        before = await state_of(saved)
        assert TEXT in str(before)

        bob = Client(served, token=BOB)
        tried = 0
        for route in served.routes:
            for method in sorted(route.methods or ()):
                name = session if by == "whole id" else "chat"
                path = route.path.replace("{session}", name).replace("{chat}", name).replace("{agent}", "assistant")
                body = None if method in ("GET", "DELETE") else body_for(route.path, name, question["id"])
                headers = MCP_HEADERS if "mcp" in path else None
                query = f"?follow=0&before={session}" if "sessions" in path else ""
                for target in {path, path + query}:
                    reply = await bob.request(method, target, body, headers)
                    assert TEXT not in reply.body.decode(), f"{method} {target}"
                    assert question["id"] not in reply.body.decode() or reply.status == 409, f"{method} {target}"
                    if "{session}" in route.path:
                        assert reply.status == 404, f"{method} {target}"
                    tried += 1
        await trio.sleep(5)
        assert tried >= 20
        assert await state_of(saved) == before
        # Nothing was taken from Ann either.
        assert (await ann.get(f"/sessions/{session}")).json["state"] == "parked"


async def test_no_endpoint_answers_a_request_without_credentials() -> None:
    served = served_to_two()
    async with served.running():
        for client in (Client(served), Client(served, token="token-of-nobody-whatsoever")):
            for route in served.routes:
                for method in route.methods or ():
                    path = route.path.replace("{session}", "s").replace("{chat}", "c").replace("{agent}", "a")
                    reply = await client.request(method, path, None if method == "GET" else {})
                    if path == "/" or path.startswith("/page/"):
                        # The files of the page are the same for all principals: tests/serving/test_page.py.
                        assert reply.status == 200
                        continue
                    assert (reply.status, reply.headers["www-authenticate"]) == (401, "Bearer"), f"{method} {path}"


async def test_a_response_continues_none_that_is_not_of_its_principal() -> None:
    served = served_to_two()
    async with served.running():
        ann, bob = Client(served, token=ANN), Client(served, token=BOB)
        first = (await ann.post("/v1/responses", {"model": "assistant", "input": "hello"})).json["id"]
        sent = {"model": "assistant", "input": "hello", "previous_response_id": first}
        assert (await bob.post("/v1/responses", sent)).status == 404
        assert (await ann.post("/v1/responses", sent)).json["previous_response_id"] == first
        [listed] = (await ann.get("/sessions")).json["sessions"]
        assert listed["id"] in first


async def test_the_same_name_means_another_session_for_each_principal() -> None:
    served = served_to_two()
    message = {"id": "1", "role": "user", "content": "hello"}
    async with served.running() as runs:
        for token in (ANN, BOB):
            sent = {"threadId": "thread", "runId": "r", "messages": [message]}
            assert (await Client(served, token=token).post("/ag-ui", sent)).status == 200
        sessions = {info.id for info in await runs.store.sessions()}
    assert sessions == {named_session("ann", "thread"), named_session("bob", "thread")}


async def test_the_deps_of_a_run_are_those_of_its_principal() -> None:
    seen: list[Any] = []

    def deps(principal: str) -> str:
        seen.append(principal)
        return principal

    served = served_to_two(deps=deps)
    async with served.running():
        client = Client(served, token=BOB)
        session = (await client.post("/sessions")).json["id"]
        await client.post(f"/sessions/{session}/prompts", {"text": "hello"})
    assert seen == ["bob"]


def test_ids_of_sessions_are_of_their_principal_and_cannot_be_guessed() -> None:
    ids = {new_session("ann") for _ in range(100)}
    assert len(ids) == 100
    prefix = owner_prefix("ann")
    assert all(id.startswith(prefix) and len(id) - len(prefix) >= 22 for id in ids)
    assert not prefix.startswith(owner_prefix("an")[:-1])
    # A name of any form makes an id that fits a path and a file.
    for name in ("thread", "a/b", "../x", "\ud800", "ü" * 500):
        id = named_session("ann", name)
        assert id.isascii()
        assert "/" not in id
        assert len(id) < 150


# ------------------------------------------------------------------------------ principals


def request_with(authorization: str) -> ClientRequest:
    return ClientRequest(method="GET", path="/", headers={"authorization": authorization})


@pytest.mark.parametrize(
    ("header", "principal"),
    [
        (f"Bearer {ANN}", "ann"),
        (f"bearer  {BOB} ", "bob"),
        ("", None),
        ("Bearer ", None),
        (f"Basic {ANN}", None),
        (f"Bearer {ANN}x", None),
        (f"Bearer {ANN[:-1]}", None),
        ("Bearer \ud800", None),
    ],
)
def test_a_bearer_token_names_its_principal(header: str, principal: str | None) -> None:
    assert BearerTokens(TOKENS)(request_with(header)) == principal


def test_tokens_appear_in_no_repr_and_in_no_pickle() -> None:
    tokens = BearerTokens(TOKENS)
    assert ANN not in repr(tokens)
    assert ANN.encode() not in pickle.dumps(tokens)
    assert ANN not in repr(request_with(f"Bearer {ANN}"))


@pytest.mark.parametrize("tokens", [{}, {"short": "ann"}, {ANN: ""}])
def test_tokens_that_protect_nothing_are_refused(tokens: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        BearerTokens(tokens)


@pytest.mark.seconds(100)
async def test_an_authenticator_may_wait_and_its_failure_lets_no_request_in(caplog: pytest.LogCaptureFixture) -> None:
    async def asks(request: ClientRequest) -> str | None:
        await trio.sleep(1)
        return request.headers.get("x-user")

    def fails(request: ClientRequest) -> str | None:
        raise ValueError("the database of users is at db.internal")

    async def hangs(request: ClientRequest) -> str | None:
        await trio.sleep_forever()

    def gives_no_name(request: ClientRequest) -> Any:
        return 7

    for authenticate, header, status in (
        (asks, "ann", 200),
        (asks, "", 401),
        (fails, "ann", 500),
        (gives_no_name, "ann", 500),
    ):
        served = app(make_agent(), authenticate=authenticate)
        async with served.running():
            reply = await Client(served, headers={"x-user": header}).get("/agents")
            assert reply.status == status
            assert "db.internal" not in reply.body.decode()
    assert "db.internal" in caplog.text
    served = app(make_agent(), authenticate=hangs)
    with trio.fail_after(11):
        async with served.running():
            assert (await Client(served).get("/agents")).status == 500


async def test_without_an_authenticator_only_this_machine_is_answered() -> None:
    served = app(make_agent())
    async with served.running():
        for address in (("127.0.0.1", 1), ("::1", 1), ("::ffff:127.0.0.1", 1), ("127.8.9.10", 1)):
            assert (await Client(served, address=address).get("/agents")).status == 200
        for elsewhere in (("10.0.0.7", 1), ("::ffff:10.0.0.7", 1), ("0.0.0.0", 1), ("", 1), None):
            assert (await Client(served, address=elsewhere).get("/agents")).status == 403
        for header in FORWARDED:
            assert (await Client(served, headers={header: "10.0.0.7"}).get("/agents")).status == 403
        # A proxy of this machine that passes the host of its clients on.
        for host in ("203.0.113.5", "203.0.113.5:8000", "[2001:db8::1]:8000", "0.0.0.0"):
            assert (await Client(served, headers={"host": host}).get("/agents")).status == 403
        for host in ("localhost:8000", "127.0.0.1", "[::1]:8000"):
            assert (await Client(served, headers={"host": host}).get("/agents")).status == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com", ""])
async def test_a_server_that_others_can_reach_has_an_authenticator(host: str) -> None:
    with pytest.raises(UsageError, match=r"can be reached from other machines.*authenticator"):
        await run(app(make_agent()), host=host, port=0)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("LOCALHOST", True),
        ("chat.localhost", True),
        ("127.0.0.1", True),
        ("[::1]", True),
        ("127.0.0.1.example.com", False),
        ("localhost.example.com", False),
        ("0.0.0.0", False),
        ("", False),
    ],
)
def test_loopback_is_what_no_other_machine_reaches(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


# ------------------------------------------------------------------------ hosts and origins

SITES = Sites.of(["chat.example.com"], ["https://app.example.com"])


@pytest.mark.parametrize(
    ("headers", "outcome"),
    [
        ({"host": "localhost:8000"}, ""),
        ({"host": "127.0.0.1:8000"}, ""),
        ({"host": "[::1]:8000"}, ""),
        ({"host": "10.0.0.7:8000"}, ""),
        ({"host": "Chat.Example.com"}, ""),
        ({"host": "evil.example"}, 421),
        ({"host": "chat.example.com.evil.example"}, 421),
        ({"host": ""}, 421),
        ({}, 421),
        ({"host": "localhost.:8000"}, ""),
        ({"host": "chat.example.com."}, ""),
        ({"host": "[::ffff:127.0.0.1]"}, ""),
        # Each would be a known host, if a part of it could count.
        ({"host": "localhost:8000, evil.example"}, 421),
        ({"host": "localhost:8000@evil.example"}, 421),
        ({"host": "user@localhost:8000"}, 421),
        ({"host": "[::1].evil.example"}, 421),
        ({"host": "[::1]evil.example:80"}, 421),
        ({"host": "[evil.example]"}, 421),
        ({"host": "localhost/evil.example"}, 421),
        ({"host": "localhost:evil.example"}, 421),
        ({"host": "localhost..evil.example"}, 421),
        ({"host": "127.0.0.1.evil.example"}, 421),
        ({"host": "\uff4cocalhost"}, 421),
        # Spellings that some resolvers take for an address.
        ({"host": "127.1"}, 421),
        ({"host": "0x7f.1"}, 421),
        ({"host": "2130706433"}, 421),
        ({"host": "::1"}, 421),
        ({"host": "localhost:8000", "origin": "http://localhost:8000"}, ""),
        ({"host": "chat.example.com", "origin": "https://chat.example.com"}, ""),
        ({"host": "chat.example.com", "origin": "https://APP.example.com"}, "https://app.example.com"),
        ({"host": "localhost:8000", "origin": "http://localhost:3000"}, 403),
        ({"host": "localhost:8000", "origin": "http://localhost"}, 403),
        ({"host": "localhost:8000", "origin": "http://127.0.0.1:8000"}, 403),
        ({"host": "localhost:8000", "origin": "chrome-extension://localhost:8000"}, 403),
        ({"host": "localhost:8000", "origin": "localhost:8000"}, 403),
        ({"host": "localhost:8000", "origin": "http://evil.example"}, 403),
        ({"host": "localhost:8000", "origin": "null"}, 403),
        ({"host": "localhost:8000", "sec-fetch-site": "cross-site"}, 403),
        ({"host": "localhost:8000", "sec-fetch-site": "same-origin"}, ""),
        ({"host": "localhost:8000", "sec-fetch-site": "none"}, ""),
    ],
)
def test_a_request_comes_for_a_known_host_and_from_a_known_page(headers: dict[str, str], outcome: str | int) -> None:
    if isinstance(outcome, str):
        assert check_site(SITES, headers) == outcome
    else:
        with pytest.raises(Refusal) as caught:
            check_site(SITES, headers)
        assert caught.value.status == outcome


@pytest.mark.parametrize(("hosts", "origins"), [(["*"], []), (["a:80"], []), ([], ["*"]), ([], ["a.example"])])
def test_no_wildcard_opens_the_server(hosts: list[str], origins: list[str]) -> None:
    with pytest.raises(UsageError, match="and not"):
        Sites.of(hosts, origins)


async def test_cors_is_closed_but_for_the_origins_that_are_listed() -> None:
    served = served_to_two(origins=["https://app.example.com"])
    async with served.running():
        ask = {"origin": "https://app.example.com", "access-control-request-method": "POST"}
        # A browser asks without credentials.
        allowed = await Client(served).request("OPTIONS", "/sessions", None, ask)
        assert allowed.status == 204
        assert allowed.headers["access-control-allow-origin"] == "https://app.example.com"
        assert "authorization" in allowed.headers["access-control-allow-headers"]
        refused = await Client(served).request("OPTIONS", "/sessions", None, {"origin": "https://evil.example"})
        assert refused.status == 403
        reply = await Client(served, token=ANN).get("/agents", {"origin": "https://app.example.com"})
        assert reply.headers["access-control-allow-origin"] == "https://app.example.com"
        plain = await Client(served, token=ANN).get("/agents")
        assert not [name for name in plain.headers if name.startswith("access-control")]


# ---------------------------------------------------------------------------------- limits


@pytest.mark.seconds(100)
async def test_a_body_is_json_within_limits_of_length_and_time() -> None:
    served = app(make_agent(), max_body_bytes=1000, body_seconds=5)
    async with served.running():
        client = Client(served)
        session = (await client.post("/sessions")).json["id"]
        path = f"/sessions/{session}/prompts"

        async def sent(body: bytes, headers: Mapping[str, str] | None = None) -> Reply:
            return await client.request("POST", path, body, headers)

        assert (await sent(json.dumps({"text": "x" * 1000}).encode())).status == 413
        assert (await sent(b"{}", {"content-length": "1001"})).status == 413
        assert (await sent(b"{}", {"content-length": "many"})).status == 413
        assert (await sent(b'{"text": "hello"}', {"content-type": "text/plain"})).status == 415
        for wrong in (b"", b"{", b"[]", b'{"text": 7}', b'{"text": "\xff"}', b'{"text": ""}', b'{"a":' * 150, b"{}"):
            reply = await sent(wrong)
            assert reply.status == 400, wrong
            assert reply.message

        async def never() -> Any:
            await trio.sleep_forever()

        began, replies = trio.current_time(), Reply()
        scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "client": ("127.0.0.1", 1)}
        scope["headers"] = [(b"host", b"localhost"), (b"content-type", b"application/json")]

        async def take(message: Any) -> None:
            replies.take(message)
            await trio.lowlevel.checkpoint()

        await served(scope, never, take)
        assert replies.status == 408
        assert trio.current_time() - began == pytest.approx(5)


async def test_a_server_has_a_limit_of_runs() -> None:
    served = app(make_agent(), max_runs=2)
    async with served.running():
        client = Client(served)
        statuses = []
        for _ in range(3):
            session = (await client.post("/sessions")).json["id"]
            statuses.append((await client.post(f"/sessions/{session}/prompts", {"text": "please wait"})).status)
        assert statuses == [202, 202, 503]


async def test_an_error_of_the_server_is_told_to_its_log_and_not_to_the_client(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = app(make_agent())

    async def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError("a detail in /srv/secret.db")

    async with served.running() as runs:
        monkeypatch.setattr(runs, "list", broken)
        with caplog.at_level(logging.ERROR):
            reply = await Client(served).get("/sessions")
    assert (reply.status, reply.message) == (500, "the server failed to do this; its log says why")
    assert "secret" not in reply.body.decode()
    assert "secret" in caplog.text


async def test_what_is_not_there_is_refused_with_a_sentence() -> None:
    served = app(make_agent())
    async with served.running():
        client = Client(served)
        assert (await client.get("/nowhere")).message == "there is nothing at '/nowhere'"
        # No redirects, no path within a path, and no other spelling of a path.
        for path in ("/agents/", "//agents", "/../agents", "/sessions/../agents", "/agents\0", "/AGENTS", "*"):
            assert (await client.get(path)).message == f"there is nothing at {path!r}"
        session = (await client.post("/sessions")).json["id"]
        unknown = await client.post(f"/sessions/{session}/prompts", {"text": "hello", "agent": "other"})
        assert (unknown.status, unknown.message) == (404, "there is no agent 'other' here; there are: assistant")
        for query in ("after=x", "after=-1", "after=" + "9" * 30):
            assert (await client.get(f"/sessions/{session}/events?{query}")).status == 400
        for limit in ("0", "201", "-1", "1e3", "9" * 5000):
            assert (await client.get(f"/sessions?limit={limit}")).status == 400
    assert (await Client(served).post("/sessions/x/prompts", {"text": "hello"})).status == 404
    assert (await Client(served).get("/sessions")).status == 503


async def test_ids_and_titles_that_no_store_can_save_are_the_fault_of_the_client() -> None:
    served = app(make_agent())
    prefix = owner_prefix("local")
    async with served.running():
        client = Client(served)
        for id in (prefix, f"{prefix}\0", f"{prefix}a\0b", f"{prefix}a b", f"{prefix}\u2028", prefix + "x" * 200):
            assert (await client.get(f"/sessions/{id}")).status == 404
            assert (await client.post(f"/sessions/{id}/prompts", {"text": "hello"})).status == 404
            # A thread may have any name.
            sent = {"threadId": id, "runId": "r", "messages": [{"id": "1", "role": "user", "content": "hello"}]}
            assert (await client.post("/ag-ui", sent)).status == 200
        session = (await client.post("/sessions")).json["id"]
        await client.post(f"/sessions/{session}/prompts", {"text": "hello"})
        refused = await client.request("PATCH", f"/sessions/{session}", {"title": "a\0b"})
        assert (refused.status, refused.message) == (400, "a title has no NUL character: databases refuse it")
        assert (await client.get("/sessions?search=a%00b")).json == {"sessions": []}


@pytest.mark.parametrize("around", [{}, {"app": object()}], ids=["alone", "mounted"])
async def test_a_method_that_a_path_does_not_have_is_refused_with_the_methods_that_it_has(around: Any) -> None:
    served = app(make_agent())

    async def mounted(scope: Any, receive: Any, send: Any) -> None:
        # Starlette and FastAPI put themselves into the scope.
        await served({**scope, **around}, receive, send)

    async with served.running():
        client = Client(cast("ServedApp", mounted))
        for method, path, allowed in (
            ("PUT", "/sessions", "GET, POST"),
            ("HEAD", "/agents", "GET"),
            ("OPTIONS", "/sessions", "GET, POST"),
            ("GET", "/vercel", "POST"),
        ):
            refused = await client.request(method, path)
            assert (refused.status, refused.headers["allow"]) == (405, allowed)
        refused = await client.request("GET", "/vercel")
        assert refused.message == "there is no GET of '/vercel'; there is POST"
        own = await client.request("OPTIONS", "/sessions", None, {"origin": "http://localhost:8000"})
        assert own.status == 405
        assert (await client.request("OPTIONS", "/nowhere")).status == 404


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"protocols": ["gopher"]}, "protocols="),
        ({"protocols": "events"}, "protocols="),
        ({"protocols": []}, "protocols="),
        ({"on_disconnect": "park"}, "on_disconnect"),
        ({"hosts": ["*"], "authenticate": lambda request: "ann"}, "hosts="),
        ({"hosts": ["chat.example.com"]}, "authenticate="),
    ],
)
def test_wrong_options_are_refused_where_the_app_is_made(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        app(make_agent(), **options)


@pytest.mark.parametrize("agents", [[], {}, ["agent"], [make_agent(), make_agent()], 7])
def test_a_server_serves_agents_whose_names_differ(agents: Any) -> None:
    with pytest.raises(UsageError):
        app(agents)


async def test_agents_are_served_by_the_names_that_the_program_gives() -> None:
    agents = {"one": Agent(ScriptedModel("1")), "two": Agent(ScriptedModel("2"))}
    served = app(agents)
    async with served.running():
        client = Client(served)
        reply = (await client.get("/agents")).json
        assert [agent["name"] for agent in reply["agents"]] == ["one", "two"]
        session = (await client.post("/sessions")).json["id"]
        accept = {"accept": "text/event-stream"}
        stream = await client.post(f"/sessions/{session}/prompts", {"text": "go", "agent": "two"}, accept)
        assert [event["text"] for event in stream.data if event["type"] == "text_delta"] == ["2"]
