"""MCP clients call agents as tools: the pure functions of the protocol, and connections in memory."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import trio
from attrs import frozen
from trio.testing import MemoryReceiveStream, MemorySendStream, memory_stream_one_way_pair

from agentloop import Accept, Agent, Approve, Cancel, Decline, Deny, ToolContext, tool
from agentloop.commands import Command
from agentloop.errors import MissingExtraError
from agentloop.events import (
    ElicitationRequested,
    ErrorInfo,
    QuestionDeclined,
    StreamStopped,
    TextDelta,
)
from agentloop.journal import Store
from agentloop.messages import ToolResult
from agentloop.models import ModelRequest
from agentloop.outcome import Outcome
from agentloop.serving import BearerTokens, ServedApp, _app, _stdio, app
from agentloop.serving._command import main
from agentloop.serving._errors import Refusal
from agentloop.serving._mcp_stdio import serve_client, serve_stdio
from agentloop.serving._security import named_session
from agentloop.serving.protocols.mcp import (
    AskableForms,
    Declined,
    Progress,
    State,
    answer_of,
    parked_result,
    prompt_names,
    read_call,
    request_for,
    result_of,
    tool_names,
    tool_of,
)
from agentloop.stores import MemoryStore
from agentloop.testing import FunctionModel, Response, ScriptedModel, calls
from tests.serving.support import Client, Reply, make_agent
from tests.serving.test_protocols import APPROVAL, CHILD, CONTINUE, ELICITATION, FORM, ROOT, Script
from tests.serving.test_server import asyncio_request, in_asyncio

BOTH = AskableForms(form=True, url=True)

# --------------------------------------------------------------------------- pure functions


def test_names_of_tools_have_only_letters_that_clients_accept_and_differ() -> None:
    assert tool_names(["plain", "Ann's agent", "Ann s agent", "ü", "x" * 300]) == {
        "plain": "plain",
        "Ann_s_agent": "Ann's agent",
        "Ann_s_agent_2": "Ann s agent",
        "_": "ü",
        "x" * 120: "x" * 300,
    }


@frozen
class Order:
    amount: int


@pytest.mark.parametrize(("kind", "output", "value"), [(Order, Order(5), {"amount": 5}), (int, 5, {"value": 5})])
def test_an_agent_with_an_output_type_has_its_schema_and_its_structured_content(
    kind: Any, output: Any, value: Any
) -> None:
    agent = Agent(ScriptedModel(), output_type=kind)
    assert tool_of("a", "a", agent)["outputSchema"]["required"] == list(value)
    assert "outputSchema" not in tool_of("a", "a", make_agent())
    stopped = StreamStopped(ROOT, 1, reason="completed")
    result = result_of(agent, stopped, Outcome(reason="completed", output=output), "s", [])
    assert result["structuredContent"] == value
    assert json.loads(result["content"][0]["text"]) in (value, value.get("value"))


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"prompt": 3},
        {"prompt": ""},
        {"prompt": "x", "session": 3},
        {"prompt": "x", "session": "s" * 201},
        {"prompt": "x", "other": 1},
    ],
)
def test_arguments_of_another_form_are_refused(arguments: Mapping[str, Any]) -> None:
    with pytest.raises(Refusal) as caught:
        read_call(arguments)
    assert caught.value.status == 400


def test_half_an_emoji_in_a_prompt_or_a_form_becomes_a_question_mark() -> None:
    call = read_call({"prompt": "a\ud83d", "session": "s\ud83d"})
    assert (call.prompt.text, call.session) == ("a?", "s?")
    question = ElicitationRequested(ROOT, 1, id="q", call_id="c", message="\ud83d", form={"title": "\ud83d"})
    assert request_for(question, BOTH) == {"mode": "form", "message": "?", "requestedSchema": {"title": "?"}}


def test_progress_has_calls_and_the_text_between_them_and_not_the_text_of_children() -> None:
    progress = Progress()
    for event in Script().add(TextDelta, "I ").add(TextDelta, "add").add(TextDelta, "secret", source=CHILD).events:
        progress.add(event)
    before = progress.is_urgent
    for event in Script().call().call(finished="error").events:
        progress.add(event)
    assert (before, progress.is_urgent) == (False, True)
    assert progress.take() == 'I add\nadd({"a":1})\nadd: 1\nadd({"a":1})\nadd (error): 1'
    assert progress.is_empty
    progress.add(TextDelta(ROOT, 1, "x" * 10_000))
    assert len(progress.take()) < 5000


@pytest.mark.parametrize(
    ("capabilities", "forms"),
    [
        ({}, AskableForms()),
        ({"elicitation": {}}, AskableForms(form=True)),
        ({"elicitation": {"form": {}}}, AskableForms(form=True)),
        ({"elicitation": {"url": {}}}, AskableForms(url=True)),
        ({"elicitation": {"form": {}, "url": {}}}, BOTH),
        ({"elicitation": 3}, AskableForms()),
    ],
)
def test_a_client_says_what_it_can_show(capabilities: Any, forms: AskableForms) -> None:
    assert AskableForms.of(capabilities) == forms


def test_questions_become_elicitations_that_the_client_can_show() -> None:
    url = ElicitationRequested(ROOT, 1, id="q", call_id="c", message="Sign in", form={}, url="https://example.org")
    assert request_for(ELICITATION, BOTH) == {"mode": "form", "message": "Which?", "requestedSchema": FORM}
    assert request_for(url, BOTH) == {"mode": "url", "message": "Sign in", "url": "https://example.org"}
    approval, limit = request_for(APPROVAL, BOTH), request_for(CONTINUE, BOTH, note="Again.")
    assert approval is not None
    assert limit is not None
    assert approval["message"] == "Run add({})?"
    assert limit["message"] == "Again.\n\nThe run has reached its limit of turns (3). Go on?"
    assert approval["requestedSchema"]["properties"] == {}
    assert request_for(ELICITATION, AskableForms(url=True)) is None
    assert request_for(url, AskableForms(form=True)) is None


@pytest.mark.parametrize(
    ("result", "answers"),
    [
        ({"action": "accept", "content": {"a": 1}}, (Accept({"a": 1}), Approve(), Approve())),
        ({"action": "accept", "content": 3}, (Accept({}), Approve(), Approve())),
        ({"action": "decline"}, (Decline(), Deny(), Deny())),
        ({"action": "cancel"}, (Cancel(), Deny(), Deny())),
        ({"action": "yes"}, (Cancel(), Deny(), Deny())),
        (None, (Cancel(), Deny(), Deny())),
    ],
)
def test_only_accepting_approves(result: Any, answers: Any) -> None:
    assert tuple(answer_of(question, result) for question in (ELICITATION, APPROVAL, CONTINUE)) == answers


def test_a_state_is_read_as_it_was_written_and_another_text_is_refused() -> None:
    state = State("s", 3, is_earlier=True)
    assert State.decode(state.encode()) == state
    for text in ("", "{}", "\ud800", state.encode() + "-TAMPERED", "[" * 100_000):
        with pytest.raises(Refusal):
            State.decode(text)


def test_results_say_why_there_is_none_and_which_questions_were_declined() -> None:
    stopped = StreamStopped(ROOT, 1, reason="failed", error=ErrorInfo("AuthError", "no key"))
    failed = result_of(make_agent(), stopped, Outcome(reason="failed"), "s", [])
    assert (failed["isError"], failed["content"][0]["text"]) == (True, "no key")
    declined = Declined()
    for event in (APPROVAL, QuestionDeclined(ROOT, 2, id="q", note=""), QuestionDeclined(ROOT, 3, id="other", note="")):
        declined.add(event)
    done = StreamStopped(ROOT, 1, reason="completed")
    result = result_of(make_agent(), done, Outcome(reason="completed", output="Hi"), "s", declined.words)
    assert result["content"][0]["text"] == "Hi"
    assert "declined: Run add({})?; a question. A client that supports" in result["content"][1]["text"]
    assert "again with session 's'" in parked_result([APPROVAL], "s")["content"][0]["text"]


# --------------------------------------------------------------------- connections in memory

FORMS: dict[str, Any] = {"elicitation": {"form": {}, "url": {}}}
KEY = "io.modelcontextprotocol/"


class McpClient:
    """A client on two streams, which answers elicitations with ``answers``, in order."""

    def __init__(self, send: MemorySendStream, receive: MemoryReceiveStream, *, modern: bool) -> None:
        self.send_stream = send
        self._receive = receive
        self._is_modern = modern
        self._rest = b""
        self.capabilities: dict[str, Any] = FORMS
        self.answers: list[Any] = []
        self.asked: list[Any] = []
        self.progress: list[str] = []
        self.received: list[Any] = []

    async def send(self, message: Any) -> None:
        await self.send_stream.send_all(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")

    async def line(self) -> Any:
        while b"\n" not in self._rest:
            data = await self._receive.receive_some()
            assert data, "the server has closed its stream"
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        self.received.append(json.loads(line))
        return self.received[-1]

    async def response(self, id: Any) -> Any:
        """Handle messages until the response to request ``id`` has come."""
        while True:
            message = await self.line()
            match message:
                case {"method": "elicitation/create", "id": asked}:
                    self.asked.append(message["params"])
                    await self.send({"id": asked, **self.answers.pop(0)})
                case {"method": "notifications/progress"}:
                    self.progress.append(message["params"].get("message"))
                case {"id": got} if got == id and "method" not in message:
                    return message
                case _:
                    pass

    def params(self, params: Any) -> Any:
        if not self._is_modern:
            return params
        meta = {f"{KEY}protocolVersion": "2026-07-28", f"{KEY}clientCapabilities": self.capabilities}
        return {**params, "_meta": {**meta, **params.get("_meta", {})}}

    async def begin(self, id: Any, prompt: str, **params: Any) -> None:
        arguments = {"prompt": prompt, **params.pop("arguments", {})}
        sent = {"name": "assistant", "arguments": arguments, "_meta": {"progressToken": id}, **params}
        await self.send({"id": id, "method": "tools/call", "params": self.params(sent)})

    async def call(self, id: Any, prompt: str, **params: Any) -> Any:
        """Call the tool, and have its questions answered until the result is there."""
        await self.begin(id, prompt, **params)
        result = (await self.response(id))["result"]
        if result.get("resultType") != "input_required":
            return result
        responses: dict[str, Any] = {}
        for key, request in result["inputRequests"].items():
            self.asked.append(request["params"])
            responses[key] = self.answers.pop(0)["result"]
        return await self.call(
            id, prompt, **{**params, "inputResponses": responses, "requestState": result["requestState"]}
        )

    async def text(self, id: Any, prompt: str, **params: Any) -> str:
        [block] = (await self.call(id, prompt, **params))["content"]
        text: str = block["text"]
        return text


def accept(**content: Any) -> Any:
    return {"result": {"action": "accept", "content": content}}


@asynccontextmanager
async def connected(
    *, modern: bool, agent: Agent | None = None, store: Store | None = None, capabilities: Any = FORMS
) -> AsyncGenerator[McpClient]:
    to_server, from_client = memory_stream_one_way_pair()
    to_client, from_server = memory_stream_one_way_pair()
    agents = {"assistant": agent or make_agent()}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_client, agents, store or MemoryStore(), from_client, to_client)
        client = McpClient(to_server, from_server, modern=modern)
        client.capabilities = capabilities
        if not modern:
            info = {"protocolVersion": "2025-11-25", "clientInfo": {"name": "test", "version": "1"}}
            await client.send({"id": "i", "method": "initialize", "params": {**info, "capabilities": capabilities}})
            assert (await client.response("i"))["result"]["serverInfo"]["name"] == "assistant"
            await client.send({"method": "notifications/initialized"})
        yield client
        to_server.close()


REVISIONS = pytest.mark.parametrize("modern", [False, True], ids=["2025-11-25", "2026-07-28"])


@REVISIONS
async def test_the_commands_of_an_agent_are_prompts_that_call_its_tool(modern: bool) -> None:
    fix = Command("Fix $1.", description="Fix an issue", hint="[issue]")
    commands: dict[str, Command | str] = {"fix": fix, "look": "Look."}
    async with connected(modern=modern, agent=Agent(ScriptedModel(), commands=commands)) as client:
        await client.send({"id": "l", "method": "prompts/list", "params": client.params({})})
        listed = (await client.response("l"))["result"]["prompts"]
        asked = {"name": "fix", "arguments": {"arguments": "7 now"}}
        await client.send({"id": "g", "method": "prompts/get", "params": client.params(asked)})
        [message] = (await client.response("g"))["result"]["messages"]
        for number, wrong in enumerate(({"name": "fxi"}, {"name": "fix", "arguments": {"issue": "7"}})):
            await client.send({"id": f"w{number}", "method": "prompts/get", "params": client.params(wrong)})
            assert (await client.response(f"w{number}"))["error"]["code"] == -32602

    assert [prompt["name"] for prompt in listed] == ["fix", "look"]
    assert listed[0]["description"] == "Fix an issue"
    assert listed[0]["arguments"] == [{"name": "arguments", "description": "[issue]", "required": False}]
    assert "arguments" not in listed[1]
    assert message["role"] == "user"
    text = "Call the tool 'assistant' with this prompt, word for word:\n\nFix 7."
    assert message["content"] == {"type": "text", "text": text}


@REVISIONS
async def test_a_server_of_agents_without_commands_offers_no_prompts(modern: bool) -> None:
    async with connected(modern=modern) as client:
        await client.send({"id": "l", "method": "prompts/list", "params": client.params({})})
        assert (await client.response("l"))["error"]["code"] == -32601


def test_commands_of_one_name_of_two_agents_are_prompts_of_two_names() -> None:
    one, two = (Agent(ScriptedModel(), commands={"fix": "Fix.", name: "x"}) for name in ("a", "b"))

    assert prompt_names({"one": one, "two": two}) == {
        "one/fix": ("one", "fix"),
        "a": ("one", "a"),
        "two/fix": ("two", "fix"),
        "b": ("two", "b"),
    }


@REVISIONS
async def test_a_call_runs_the_agent_with_progress_and_questions_in_one_conversation(modern: bool) -> None:
    async with connected(modern=modern) as client:
        await client.send({"id": "l", "method": "tools/list", "params": client.params({})})
        [described] = (await client.response("l"))["result"]["tools"]
        assert (described["name"], described["inputSchema"]["required"]) == ("assistant", ["prompt"])
        assert await client.text(1, "add", arguments={"session": "mine"}) == "The result is 5."
        assert "\n".join(client.progress) == 'add({"a":2,"b":3})\nadd: 5\nThe result is 5.'
        client.answers = [accept(), accept(color="red")]
        text = await client.text(2, "pay", arguments={"session": "mine"})
        assert (text, client.asked[0]["message"]) == ("The result is paid 5.", 'Run pay({"amount":5})?')
        assert await client.text(3, "survey", arguments={"session": "mine"}) == (
            "The result is answered: Accept(content={'color': 'red'})."
        )
        client.answers = [{"result": {"action": "decline"}}]
        assert "paid" not in await client.text(4, "pay")


@REVISIONS
async def test_an_answer_that_does_not_fit_is_asked_for_again_with_the_reason(modern: bool) -> None:
    async with connected(modern=modern) as client:
        client.answers = [accept(color=3), accept(color="red")]
        assert "red" in await client.text(1, "survey")
        first, second = client.asked
        assert first["message"] == "Which color?"
        assert second["message"].endswith("\n\nWhich color?")
        assert "color" in second["message"].partition("\n")[0]


async def test_a_client_that_answers_with_nonsense_gets_no_endless_dialog() -> None:
    async with connected(modern=False) as client:
        client.answers = [accept(color=3)] * 3
        assert "Cancel()" in await client.text(1, "survey")
        client.answers = [{"error": {"code": -1, "message": "no \x1b[2J"}}, {"result": {"action": [1]}}]
        client.answers += [{"error": {"code": -32000, "message": "the code of a closed connection"}}]
        assert "Cancel()" in await client.text(2, "survey")
        assert "paid" not in await client.text(3, "pay", _meta={})
        assert "paid" not in await client.text(4, "pay")


@REVISIONS
async def test_a_question_that_the_client_cannot_show_is_declined_and_the_result_says_so(modern: bool) -> None:
    async with connected(modern=modern, capabilities={}) as client:
        result = await client.call(1, "pay")
        assert not result.get("isError")
        assert "declined: Run pay" in result["content"][1]["text"]
    async with connected(modern=modern, capabilities={"elicitation": {"url": {}}}) as client:
        assert "paid" not in await client.text(1, "pay")
        assert client.asked == []


async def test_a_url_is_an_elicitation_of_its_own_mode() -> None:
    @tool
    async def sign_in(context: ToolContext[Any]) -> str:
        """Sign in."""
        return str(await context.ask_url("Sign in, please", "https://example.org"))

    def respond(request: ModelRequest) -> Response | str:
        last = request.messages[-1]
        return last.text if isinstance(last, ToolResult) else calls("sign_in")

    async with connected(
        modern=False, agent=Agent(FunctionModel(respond), name="assistant", tools=[sign_in])
    ) as client:
        client.answers = [accept()]
        assert "Accept" in await client.text(1, "go")
        assert (client.asked[0]["mode"], client.asked[0]["url"]) == ("url", "https://example.org")


@REVISIONS
async def test_a_cancelled_call_stops_its_run_and_the_connection_goes_on(modern: bool) -> None:
    async with connected(modern=modern) as client:
        await client.begin("slow", "wait")
        while not client.progress:
            message = await client.line()
            client.progress.append(message["params"]["message"])
        await client.send({"method": "notifications/cancelled", "params": {"requestId": "slow"}})
        start = trio.current_time()
        assert await client.text(2, "hello") == "You said: hello"
        assert trio.current_time() - start < 1


@pytest.mark.parametrize("prompt", ["wait", "survey"])
async def test_a_client_that_closes_its_stream_in_the_middle_of_a_call_leaves_nothing_running(prompt: str) -> None:
    start = trio.current_time()
    async with connected(modern=False) as client:
        await client.begin(1, prompt)
        while not any(prompt in str(message) for message in client.received):
            await client.line()
    assert trio.current_time() - start < 4


async def test_a_client_that_reads_no_more_ends_the_connection() -> None:
    to_server, from_client = memory_stream_one_way_pair()
    to_client, from_server = memory_stream_one_way_pair()
    from_server.close()
    await to_server.send_all(b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n')
    await serve_client({"assistant": make_agent()}, MemoryStore(), from_client, to_client)


async def test_questions_outlive_the_process_and_another_one_resumes_with_the_answers(tmp_path: Path) -> None:
    store = MemoryStore()
    async with connected(modern=True, store=store) as client:
        await client.begin(1, "pay")
        asked = (await client.response(1))["result"]
    async with connected(modern=True, store=store) as client:
        [key] = asked["inputRequests"]
        await client.begin(0, "pay", inputResponses={key: {"roots": []}}, requestState=asked["requestState"])
        assert [*(await client.response(0))["result"]["inputRequests"]] == [key]
        answered: dict[str, Any] = {
            "inputResponses": {key: {"action": "accept"}},
            "requestState": asked["requestState"],
        }
        assert await client.text(1, "pay", **answered) == "The result is paid 5."
        assert "not open any more" in await client.text(2, "pay", **answered)
        await client.begin(3, "pay", inputResponses={}, requestState=asked["requestState"] + "x")
        assert (await client.response(3))["error"]["code"] == -32602
        other = State("another", 1).encode()
        await client.begin(4, "pay", inputResponses={}, requestState=other)
        assert (await client.response(4))["error"]["code"] == -32602


@REVISIONS
async def test_what_a_call_left_open_in_a_session_comes_before_the_next_prompt(modern: bool) -> None:
    store = MemoryStore()
    async with connected(modern=True, store=store) as client:
        await client.begin(1, "pay", arguments={"session": "mine"})
        assert (await client.response(1))["result"]["resultType"] == "input_required"
    async with connected(modern=modern, store=store) as client:
        client.answers = [accept()]
        assert await client.text(1, "hello", arguments={"session": "mine"}) == "You said: hello"
        assert client.asked[0]["message"] == 'Run pay({"amount":5})?'
    async with connected(modern=True, store=store) as client:
        await client.begin(1, "pay", arguments={"session": "mine"})
        await client.response(1)
    async with connected(modern=modern, store=store, agent=make_agent("another")) as client:
        refused = await client.call(1, "hello", arguments={"session": "mine"})
        assert "open run of the agent 'assistant'" in refused["content"][0]["text"]


@pytest.mark.seconds(60)
async def test_a_long_silence_is_broken_by_progress_without_a_text() -> None:
    def respond(request: ModelRequest) -> Response | str:
        return "Done." if isinstance(request.messages[-1], ToolResult) else calls("wait", seconds=40)

    agent = make_agent().replace(model=FunctionModel(respond))
    async with connected(modern=True, agent=agent) as client:
        await client.text(1, "go")
        assert client.progress == ['wait({"seconds":40})', None, None, "wait: waited\nDone."]


async def test_junk_lines_get_errors_and_the_next_call_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentloop.serving._mcp_stdio.REQUESTS", 2)
    async with connected(modern=False) as client:
        junk = (
            b"{",
            b"[]",
            b"null",
            b"[" * 100_000,
            b'"\\ud83d"',
            b"\xff",
            b'{"jsonrpc":"2.0","id":{},"method":"ping"}',
        )
        for line in junk[:-1]:
            await client.send_stream.send_all(line + b"\n")
            assert (await client.line())["error"]["code"] == -32700
        await client.send({"id": 7, "result": {}})
        await client.send({"id": "u", "method": "tools/call", "params": {"name": "nothing"}})
        assert (await client.response("u"))["error"]["code"] == -32602
        await client.begin("a", "wait")
        await client.begin("b", "wait")
        await client.begin("c", "hello")
        assert "too many requests" in (await client.response("c"))["error"]["message"]
        for id in ("a", "b"):
            await client.send({"method": "notifications/cancelled", "params": {"requestId": id}})
        # The runs of the two calls need a moment to stop, and there may be two.
        await trio.sleep(0.1)
        assert await client.text("d", "hello") == "You said: hello"
        assert (await client.call("e", ""))["isError"]
        monkeypatch.setattr(_stdio, "LINE_BYTES", 1000)
        await client.send_stream.send_all(b"x" * 5000)
        assert "more than 1,000 bytes" in (await client.line())["error"]["message"]


# ------------------------------------------------------------------------------- over HTTP

ACCEPT = {"accept": "application/json, text/event-stream"}


async def legacy_session(client: Client) -> dict[str, str]:
    info = {"protocolVersion": "2025-11-25", "clientInfo": {"name": "test", "version": "1"}, "capabilities": FORMS}
    reply = await client.post("/mcp", {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": info})
    assert reply.status == 200
    return {"mcp-session-id": reply.headers["mcp-session-id"]}


def legacy_call(id: Any, prompt: str, name: str = "assistant") -> Any:
    params = {"name": name, "arguments": {"prompt": prompt}, "_meta": {"progressToken": 1}}
    return {"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params}


def last_message(reply: Reply) -> Any:
    lines = [line for line in reply.body.decode().splitlines() if line.startswith("data: ")]
    return json.loads(lines[-1].removeprefix("data: "))


@pytest.mark.parametrize(("prompt", "part"), [("wait", b"wait("), ("survey", b"Which color")])
async def test_a_client_that_goes_away_over_http_stops_the_run_of_its_call(prompt: str, part: bytes) -> None:
    served = app(make_agent())
    client = Client(served, headers=ACCEPT)
    async with served.running() as runs:
        session = await legacy_session(client)
        async with client.open("POST", "/mcp", legacy_call(1, prompt), session) as reply:
            await reply.until(part)
            assert len(runs._live) == 1
        await trio.sleep(0.1)
        assert not runs._live
        # The protocol session lives on.
        reply = await client.post("/mcp", legacy_call(2, "hello"), session)
        assert last_message(reply)["result"]["content"][0]["text"] == "You said: hello"


async def test_a_cancelled_call_over_http_stops_its_run_and_its_response_ends() -> None:
    served = app(make_agent())
    client = Client(served, headers=ACCEPT)
    async with served.running() as runs:
        session = await legacy_session(client)
        async with client.open("POST", "/mcp", legacy_call("c", "wait"), session) as reply:
            await reply.until(b"wait(")
            cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "c"}}
            assert (await client.post("/mcp", cancel, session)).status == 202
            await reply.until(b"Request cancelled")
        assert not runs._live


async def test_a_question_that_the_client_cannot_show_is_parked_where_other_clients_can_answer_it() -> None:
    served = app(make_agent())
    client = Client(served, headers=ACCEPT)
    async with served.running():
        session = await legacy_session(client)
        info = {"protocolVersion": "2025-11-25", "clientInfo": {"name": "test", "version": "1"}, "capabilities": {}}
        reply = await client.post("/mcp", {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": info})
        session = {"mcp-session-id": reply.headers["mcp-session-id"]}
        result = last_message(await client.post("/mcp", legacy_call(1, "pay"), session))["result"]
        assert result["isError"]
        assert "Its run is parked" in result["content"][0]["text"]
        id = result["_meta"]["agentloop/session"]
        [question] = (await client.get(f"/sessions/{id}")).json["questions"]
        answers = {"answers": {question["id"]: {"type": "approve"}}}
        assert (await client.post(f"/sessions/{id}/answers", answers)).status in (200, 202)
        await trio.sleep(0.1)
        again = legacy_call(2, "hello")
        again["params"]["arguments"]["session"] = id
        result = last_message(await client.post("/mcp", again, session))["result"]
        assert result["content"][0]["text"] == "You said: hello"


async def test_a_protocol_session_is_of_its_principal_and_each_agent_has_a_path() -> None:
    tokens = {"token-of-ann-which-is-long": "ann", "token-of-bob-which-is-long": "bob"}
    served = app([make_agent(), make_agent("helper")], authenticate=BearerTokens(tokens))
    ann, bob = (Client(served, token=token, headers=ACCEPT) for token in tokens)
    async with served.running():
        session = await legacy_session(ann)
        listed = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        names = [tool["name"] for tool in last_message(await ann.post("/mcp", listed, session))["result"]["tools"]]
        assert names == ["assistant", "helper"]
        assert (await bob.post("/mcp", listed, session)).status == 404
        assert (await ann.post("/mcp/helper", listed, session)).status == 404
        assert (await ann.post("/mcp/nobody", listed, session)).status == 404
        modern = {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/list"}
        meta = {f"{KEY}protocolVersion": "2026-07-28", f"{KEY}clientCapabilities": {}}
        reply = await bob.post("/mcp/helper", {**listed, "params": {"_meta": meta}}, modern)
        assert [tool["name"] for tool in reply.json["result"]["tools"]] == ["helper"]
        assert (await ann.request("DELETE", "/mcp", None, session)).status == 200


async def test_a_server_that_leaves_waits_for_no_stream_without_requests() -> None:
    served, ended = app(make_agent()), trio.Event()

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        await served(scope, receive, send)
        if scope["method"] == "GET":
            ended.set()

    client = Client(cast("ServedApp", asgi), headers=ACCEPT)
    async with served.running() as runs:
        session = await legacy_session(client)
        async with client.open("GET", "/mcp", None, session) as reply:
            while not reply.status:
                await trio.sleep(0.01)
            assert not ended.is_set()
            await runs.drain(10)
            with trio.fail_after(1):
                await ended.wait()
        result = last_message(await client.post("/mcp", legacy_call(1, "hello"), session))["result"]
        assert "begins no more runs" in result["content"][0]["text"]


async def test_a_question_that_another_client_answers_is_withdrawn() -> None:
    served = app(make_agent())
    client = Client(served, headers=ACCEPT)
    async with served.running():
        session = await legacy_session(client)
        call = legacy_call(1, "both")
        call["params"]["arguments"]["session"] = "mine"
        async with client.open("POST", "/mcp", call, session) as reply:
            await reply.until(b"Which color")
            id = named_session("local", "mine")
            for question in (await client.get(f"/sessions/{id}")).json["questions"]:
                if question["type"] == "approval_requested":
                    answers = {"answers": {question["id"]: {"type": "approve"}}}
                    await client.post(f"/sessions/{id}/answers", answers, {"accept": "application/json"})
            await reply.until(b"pay: paid 5")
            await reply.until(b"notifications/cancelled")
            assert reply.body.count(b"notifications/cancelled") == 1


@pytest.mark.seconds(60)
async def test_a_question_whose_run_is_parked_is_withdrawn_and_the_result_says_how_to_go_on() -> None:
    served = app(make_agent(), park_after=20)
    client = Client(served, headers=ACCEPT)
    async with served.running() as runs:
        session = await legacy_session(client)
        async with client.open("POST", "/mcp", legacy_call(1, "survey"), session) as reply:
            await reply.until(b"Which color")
            await reply.until(b"notifications/cancelled")
            while not reply.is_whole:
                await trio.sleep(1)
        assert not runs._live
        assert "Its run is parked" in last_message(reply)["result"]["content"][0]["text"]


async def test_a_server_that_ends_in_the_middle_of_a_question_ends_at_once() -> None:
    served = app(make_agent())
    client = Client(served, headers=ACCEPT)

    async def ask(session: Mapping[str, str], *, task_status: trio.TaskStatus[Reply]) -> None:  # noqa: ASYNC114
        async with client.open("POST", "/mcp", legacy_call(1, "survey"), session) as reply:
            task_status.started(reply)
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        async with served.running():
            reply: Reply = await nursery.start(ask, await legacy_session(client))
            await reply.until(b"Which color")
            start = trio.current_time()
        assert trio.current_time() - start < 1
        # Not more than once. The response may have ended before it: the client knows then that the question is gone.
        assert reply.body.count(b"notifications/cancelled") <= 1
        nursery.cancel_scope.cancel()


async def test_an_error_in_the_block_of_an_app_is_no_group() -> None:
    with pytest.raises(KeyError):
        async with app(make_agent(), protocols=["mcp"]).running():
            raise KeyError


async def test_a_body_that_is_too_long_is_refused_before_the_protocol_reads_it() -> None:
    served = app(make_agent(), max_body_bytes=1000)
    async with served.running():
        assert (await Client(served).post("/mcp", b"x" * 2000)).status == 413
        assert (await Client(served).post("/mcp", b"{}", {"content-type": "text/plain"})).status == 415


def test_calls_are_served_on_asyncio_and_stop_when_the_client_goes_away() -> None:
    served = app(make_agent())
    modern = {**ACCEPT, "mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": "assistant"}
    meta = {f"{KEY}protocolVersion": "2026-07-28", f"{KEY}clientCapabilities": {}, "progressToken": 1}

    async def program() -> None:
        async with served.hosted():
            call = legacy_call(1, "add")
            call["params"]["_meta"] = meta
            status, body = await asyncio_request(served, "POST", "/mcp", call, sending=modern)
            assert status == 200
            assert b"The result is 5." in body
            call["params"]["arguments"]["prompt"] = "wait"
            await asyncio_request(served, "POST", "/mcp", call, sending=modern, until=b"wait(")
            while served._service.runs._live:
                await asyncio.sleep(0.01)

    in_asyncio(program)


@pytest.mark.real_clock
async def test_lines_go_through_the_standard_streams_and_prints_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[tuple[int, int]] = []
    (reader, to_server), (to_client, writer) = os.pipe(), os.pipe()
    dup = {0: reader, 1: writer}
    monkeypatch.setattr(os, "dup", dup.__getitem__)
    monkeypatch.setattr(os, "dup2", lambda old, new: moved.append((old, new)))
    os.write(to_server, b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n')
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_stdio, {"assistant": make_agent()}, MemoryStore())
        response = await trio.to_thread.run_sync(os.read, to_client, 1000)
        os.close(to_server)
    assert json.loads(response)["id"] == 1
    # Standard input is empty from then on, and standard output is standard error.
    assert [new for _, new in moved] == [0, 1]
    assert moved[1][0] == 2
    for number in (reader, writer, to_client):
        os.close(number)


def test_without_the_extra_an_app_has_the_other_protocols(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_app, "find_spec", lambda name: None)
    assert "/mcp" not in [route.path for route in app(make_agent()).routes]
    with pytest.raises(MissingExtraError, match="agentloop-trio\\[mcp\\]"):
        app(make_agent(), protocols=["mcp"])


def test_the_command_wants_agents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    (tmp_path / "served_by_mcp.py").write_text(
        "from agentloop import Agent, serving\nfrom agentloop.testing import ScriptedModel\n"
        "served = serving.app(Agent(ScriptedModel()))\n",
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert main(["mcp", "served_by_mcp:served"]) == 2
    assert "is an app" in capsys.readouterr().err
