"""An editor talks ACP to an agent: the pure functions of the protocol, and a connection in memory."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MemoryReceiveStream, MemorySendStream, memory_stream_one_way_pair

from agentloop import Accept, Agent, Approve, Cancel, Decline, Deny
from agentloop.commands import Command
from agentloop.events import (
    ErrorInfo,
    ReasoningDelta,
    ResponseDiscarded,
    StreamReason,
    StreamStopped,
    TextDelta,
    ToolCallDelta,
)
from agentloop.journal import Store
from agentloop.messages import File, Image, ResultStatus, Text
from agentloop.serving import _stdio
from agentloop.serving._acp import serve_editor
from agentloop.serving._command import main
from agentloop.serving._errors import Refusal
from agentloop.serving._security import LOCAL, new_session
from agentloop.serving.protocols.acp import AcpEncoder, ClientForms, answer_of, read_prompt, request_for, result_of
from agentloop.stores import MemoryStore, stored_session
from agentloop.testing import ScriptedModel
from tests.serving.support import make_agent
from tests.serving.test_protocols import APPROVAL, CHILD, CONTINUE, ELICITATION, FORM, ROOT, Script

ALL_FORMS = ClientForms(form=True, url=True)

# --------------------------------------------------------------------------- pure functions


def updates(script: Script, *, is_replay: bool = False) -> list[dict[str, Any]]:
    encoder = AcpEncoder(is_replay=is_replay)
    return [update for event in script.events for update in encoder.encode(event)]


def test_blocks_of_a_prompt_become_parts_and_no_other_address_is_read() -> None:
    blocks = [
        {"type": "text", "text": "Look:"},
        {"type": "image", "data": "aGk=", "mimeType": "image/png"},
        {"type": "resource_link", "uri": "file:///a.py", "name": "a.py"},
        {"type": "resource", "resource": {"uri": "file:///b.py", "text": "b = 1"}},
        {"type": "resource", "resource": {"uri": "file:///c.pdf", "blob": "aGk=", "mimeType": "application/pdf"}},
    ]
    assert read_prompt(blocks).parts == (
        Text("Look:"),
        Image(b"hi", media_type="image/png"),
        Text("file:///a.py"),
        Text("file:///b.py:\nb = 1"),
        File(b"hi", media_type="application/pdf", name="c.pdf"),
    )


@pytest.mark.parametrize(
    "blocks", [None, [], "hello", [{}], [3], [{"type": "audio", "data": "aGk="}], [{"type": "image", "data": 3}]]
)
def test_a_prompt_of_another_form_is_refused(blocks: Any) -> None:
    with pytest.raises(Refusal) as caught:
        read_prompt(blocks)
    assert caught.value.status == 400


@pytest.mark.parametrize(("status", "shown"), [("ok", "completed"), ("error", "failed"), ("denied", "failed")])
def test_a_call_is_pending_then_in_progress_and_then_completed_or_failed(status: ResultStatus, shown: str) -> None:
    first, second, third = updates(Script().start().call(finished=status))
    assert (first["sessionUpdate"], first["title"], first["status"]) == ("tool_call", "add", "pending")
    assert (second["status"], second["rawInput"]) == ("in_progress", {"a": 1})
    assert (third["status"], third["content"][0]["content"]["text"]) == (shown, "1")
    assert {first["toolCallId"], second["toolCallId"], third["toolCallId"]} == {"c"}


def test_a_response_that_broke_off_ends_its_calls_and_the_next_is_another_message() -> None:
    script = Script().start().add(TextDelta, "You")
    script.add(ToolCallDelta, call_id="c", name="add", arguments="{")
    error = ErrorInfo("ConnectionError", "gone")
    script.add(ResponseDiscarded, error=error, model="m", next_model="m", delay=1.0)
    script.text("You said").stop()
    broken, begun, failed, whole = updates(script)
    assert (begun["sessionUpdate"], failed["status"]) == ("tool_call", "failed")
    assert whole["content"]["text"] == "You said"
    assert broken["messageId"] != whole["messageId"]


def test_a_call_whose_id_a_model_uses_again_is_another_call_of_the_editor() -> None:
    shown = [update["toolCallId"] for update in updates(Script().start().call().call())]
    assert shown == ["c"] * 3 + ["c#2"] * 3


def test_events_of_child_streams_have_no_updates() -> None:
    script = Script().add(TextDelta, "secret", source=CHILD).add(ReasoningDelta, "secret", source=CHILD)
    assert updates(script) == []


@pytest.mark.parametrize(
    ("reason", "shown"),
    [("completed", "end_turn"), ("cancelled", "cancelled"), ("limit", "max_turn_requests"), ("blocked", "refusal")],
)
def test_a_run_that_stops_has_the_stop_reason_of_the_protocol(reason: StreamReason, shown: str) -> None:
    assert result_of(StreamStopped(ROOT, 1, reason=reason)) == {"stopReason": shown}


def test_a_run_that_failed_is_an_error_with_its_sentence() -> None:
    with pytest.raises(Refusal, match="no key"):
        result_of(StreamStopped(ROOT, 1, reason="failed", error=ErrorInfo("AuthError", "no key")))


def test_only_the_option_that_approves_approves() -> None:
    def selected(option: Any) -> Any:
        return {"outcome": {"outcome": "selected", "optionId": option}}

    for question in (APPROVAL, CONTINUE):
        assert answer_of(question, selected("yes")) == Approve()
        others = [selected("no"), selected("YES"), selected(True), {"outcome": {"outcome": "cancelled"}}]
        for result in [*others, None, 3, {}, {"action": "accept"}, {"outcome": {"optionId": "yes"}}]:
            assert answer_of(question, result) == Deny("")


def test_a_form_is_accepted_declined_or_left() -> None:
    assert answer_of(ELICITATION, {"action": "accept", "content": {"color": "red"}}) == Accept({"color": "red"})
    assert answer_of(ELICITATION, {"action": "decline"}) == Decline("")
    for result in ({"action": "cancel"}, None, {}, {"outcome": {"outcome": "selected", "optionId": "yes"}}):
        assert answer_of(ELICITATION, result) == Cancel()


def test_a_form_goes_only_to_an_editor_that_shows_forms() -> None:
    assert request_for(ELICITATION, "s", ClientForms(), AcpEncoder()) is None
    request = request_for(ELICITATION, "s", ALL_FORMS, AcpEncoder())
    assert request is not None
    method, params = request
    assert (method, params["mode"], params["requestedSchema"]) == ("elicitation/create", "form", FORM)
    for question in (APPROVAL, CONTINUE):
        asked = request_for(question, "s", ClientForms(), AcpEncoder())
        assert asked is not None
        assert asked[0] == "session/request_permission"
        assert [option["kind"] for option in asked[1]["options"]] == ["allow_once", "reject_once"]


# -------------------------------------------------------------------------------- connection


class Editor:
    """Sends messages, and sorts those that come."""

    def __init__(self, send: MemorySendStream, receive: MemoryReceiveStream) -> None:
        self.send, self._receive = send, receive
        self.updates: list[dict[str, Any]] = []
        self.requests: list[dict[str, Any]] = []
        self.responses: dict[Any, dict[str, Any]] = {}
        self._last_id = 0
        self._changed = trio.lowlevel.ParkingLot()

    async def read(self) -> None:
        rest = b""
        while data := await self._receive.receive_some():
            *lines, rest = (rest + data).split(b"\n")
            for message in map(json.loads, lines):
                if message.get("method") == "session/update":
                    self.updates.append(message["params"]["update"])
                elif "method" in message:
                    self.requests.append(message)
                else:
                    self.responses[message["id"]] = message
            self._changed.unpark_all()

    async def write(self, **message: Any) -> None:
        await self.send.send_all(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")

    async def begin(self, method: str, **params: Any) -> int:
        self._last_id += 1
        await self.write(id=self._last_id, method=method, params=params)
        return self._last_id

    async def response(self, id: int | None) -> dict[str, Any]:
        while id not in self.responses:
            await self._changed.park()
        return self.responses.pop(id)

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        return await self.response(await self.begin(method, **params))

    async def new(self) -> str:
        session: str = (await self.call("session/new", cwd="/", mcpServers=[]))["result"]["sessionId"]
        return session

    async def prompt(self, session: str, text: str) -> int:
        return await self.begin("session/prompt", sessionId=session, prompt=[{"type": "text", "text": text}])

    async def request(self) -> dict[str, Any]:
        while not self.requests:
            await self._changed.park()
        return self.requests.pop(0)

    def text(self, kind: str = "agent_message_chunk") -> str:
        return "".join(update["content"]["text"] for update in self.updates if update["sessionUpdate"] == kind)


@asynccontextmanager
async def editor_of(store: Store | None = None, agent: Agent | None = None) -> AsyncGenerator[Editor]:
    """An editor, which closes its stream at the end of the block; the server then ends."""
    to_agent, from_editor = memory_stream_one_way_pair()
    to_editor, from_agent = memory_stream_one_way_pair()
    async with trio.open_nursery() as nursery:
        editor = Editor(to_agent, from_agent)
        nursery.start_soon(editor.read)
        async with trio.open_nursery() as serving:
            serving.start_soon(serve_editor, agent or make_agent(), store or MemoryStore(), from_editor, to_editor)
            yield editor
            await to_agent.aclose()
        nursery.cancel_scope.cancel()


async def test_an_editor_gets_the_commands_of_the_agent_and_sends_them_as_prompts() -> None:
    model = ScriptedModel("Fixed.", "Seen.")
    fix = Command("Fix $1.", description="Fix an issue", hint="[issue]")
    agent = Agent(model, commands={"fix": fix, "look": "Look."})
    store = MemoryStore()
    async with editor_of(store, agent) as editor:
        session = await editor.new()
        done = await editor.response(await editor.prompt(session, "/fix 7"))
        refused = await editor.response(await editor.prompt(session, "/fxi 7"))
        await editor.response(await editor.prompt(session, "/etc/hosts is empty"))
        listed = [update for update in editor.updates if update["sessionUpdate"] == "available_commands_update"]
        assert (await editor.call("session/load", sessionId=session, cwd="/", mcpServers=[]))["result"] == {}
        await trio.testing.wait_all_tasks_blocked()
        again = [update for update in editor.updates if update["sessionUpdate"] == "available_commands_update"]

    commands = [
        {"name": "fix", "description": "Fix an issue", "input": {"hint": "[issue]"}},
        {"name": "look", "description": ""},
    ]
    assert [update["availableCommands"] for update in listed] == [commands]
    assert [update["availableCommands"] for update in again] == [commands] * 2
    assert done["result"]["stopReason"] == "end_turn"
    assert "did you mean /fix" in refused["error"]["message"]
    assert [request.messages[-1].text for request in model.requests] == ["Fix 7.", "/etc/hosts is empty"]


async def test_an_approval_is_asked_of_the_editor_and_its_answer_goes_to_the_run() -> None:
    for option, said in (("yes", "paid 5"), ("no", "denied")):
        async with editor_of() as editor:
            session = await editor.new()
            prompt = await editor.prompt(session, "pay")
            asked = await editor.request()
            assert asked["params"]["toolCall"]["rawInput"] == {"amount": 5}
            assert asked["params"]["toolCall"]["toolCallId"] == editor.updates[0]["toolCallId"]
            await editor.write(id=asked["id"], result={"outcome": {"outcome": "selected", "optionId": option}})
            assert (await editor.response(prompt))["result"] == {"stopReason": "end_turn"}
            assert said in editor.text().lower()


async def test_an_editor_that_shows_forms_fills_in_a_form() -> None:
    async with editor_of() as editor:
        await editor.call("initialize", protocolVersion=1, clientCapabilities={"elicitation": {"form": {}}})
        prompt = await editor.prompt(await editor.new(), "survey")
        asked = await editor.request()
        assert asked["method"] == "elicitation/create"
        await editor.write(id=asked["id"], result={"action": "accept", "content": {"color": "red"}})
        await editor.response(prompt)
        assert "red" in editor.text()


async def test_a_form_that_is_not_valid_or_cannot_be_shown_does_not_hang_the_run() -> None:
    kinds: list[dict[str, Any]] = [{}, {"form": {}}]
    for forms in kinds:
        async with editor_of() as editor:
            await editor.call("initialize", protocolVersion=1, clientCapabilities={"elicitation": forms})
            prompt = await editor.prompt(await editor.new(), "survey")
            if forms:
                asked = await editor.request()
                await editor.write(id=asked["id"], result={"action": "accept", "content": {"color": 3}})
            assert (await editor.response(prompt))["result"]["stopReason"] == "end_turn"


async def test_a_prompt_that_is_cancelled_at_any_moment_ends_as_cancelled() -> None:
    for seconds in (0.0, 1.0):
        for text in ("wait", "pay"):
            async with editor_of() as editor:
                session = await editor.new()
                prompt = await editor.prompt(session, text)
                await trio.sleep(seconds)
                await editor.write(method="session/cancel", params={"sessionId": session})
                assert (await editor.response(prompt))["result"] == {"stopReason": "cancelled"}
                # The session goes on.
                after = await editor.prompt(session, "hello")
                assert (await editor.response(after))["result"] == {"stopReason": "end_turn"}


async def test_a_session_is_loaded_by_a_later_process_with_all_its_messages() -> None:
    store = MemoryStore()
    async with editor_of(store) as editor:
        session = await editor.new()
        await editor.response(await editor.prompt(session, "please add"))
    async with editor_of(store) as editor:
        assert "error" in await editor.call("session/load", sessionId=session + "x", cwd="/", mcpServers=[])
        refused = await editor.response(await editor.prompt(session, "hello"))
        assert refused["error"]["code"] == -32002
        assert (await editor.call("session/load", sessionId=session, cwd="/", mcpServers=[]))["result"].keys() == {
            "configOptions",
            "modes",
        }
        kinds = [update["sessionUpdate"] for update in editor.updates]
        assert kinds == ["user_message_chunk", "tool_call", *["tool_call_update"] * 2, "agent_message_chunk"]
        assert editor.text("user_message_chunk") == "please add"
        assert (await editor.response(await editor.prompt(session, "hello")))["result"]["stopReason"] == "end_turn"


async def test_a_session_of_another_principal_cannot_be_loaded_or_prompted() -> None:
    store = MemoryStore()
    theirs = new_session("ann")
    async with store.open() as opened, stored_session(opened, theirs) as session:
        await make_agent().run("the secret of ann", session=session)
    async with editor_of(store) as editor:
        assert (await editor.call("session/load", sessionId=theirs))["error"]["code"] == -32002
        assert (await editor.response(await editor.prompt(theirs, "hello")))["error"]["code"] == -32002
        assert editor.updates == []


async def test_an_approval_that_another_process_has_left_open_is_asked_before_the_next_prompt_runs() -> None:
    store, session = MemoryStore(), new_session(LOCAL)
    async with store.open() as opened, stored_session(opened, session) as stored:
        outcome = await make_agent().run("pay", session=stored, on_question="park")
        assert outcome.reason == "needs_input"
    async with editor_of(store) as editor:
        await editor.call("session/load", sessionId=session)
        prompt = await editor.prompt(session, "hello")
        asked = await editor.request()
        await editor.write(id=asked["id"], result={"outcome": {"outcome": "selected", "optionId": "yes"}})
        assert (await editor.response(prompt))["result"]["stopReason"] == "end_turn"
        assert editor.text() == "The result is paid 5.You said: hello"


async def test_a_run_stops_when_the_editor_goes_away_and_its_session_can_go_on() -> None:
    store = MemoryStore()
    async with editor_of(store) as editor:
        session = await editor.new()
        await editor.prompt(session, "pay")
        await editor.request()
    async with editor_of(store) as editor:
        await editor.call("session/load", sessionId=session)
        assert (await editor.response(await editor.prompt(session, "hello")))["result"]["stopReason"] == "end_turn"
        assert editor.requests == []


async def test_a_message_that_is_none_gets_an_error_of_json_rpc_and_ends_nothing() -> None:
    async with editor_of() as editor:
        for line, code in ((b"{", -32700), (b"\xff", -32700), (b"[]", -32600), (b'{"id":{},"method":"x"}', -32600)):
            await editor.send.send_all(line + b"\n\n")
            assert (await editor.response(None))["error"]["code"] == code
        assert (await editor.call("no/such/method"))["error"]["code"] == -32601
        session = await editor.new()
        assert (await editor.call("session/prompt", sessionId=session))["error"]["code"] == -32602
        await editor.write(id=99, result={})
        await editor.write(method="no/such/notification")
        first = await editor.prompt(session, "wait")
        second = await editor.prompt(session, "hello")
        assert (await editor.response(second))["error"]["code"] == -32600
        assert (await editor.response(first))["result"]["stopReason"] == "end_turn"


async def test_a_message_without_an_end_is_not_gathered_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_stdio, "LINE_BYTES", 1000)
    async with editor_of() as editor:
        await editor.send.send_all(b"x" * 1001)
        assert "1,000 bytes" in (await editor.response(None))["error"]["message"]


def test_the_command_serves_one_agent_to_an_editor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", ["", *sys.path])
    assert main(["acp", "tests.serving.test_acp:AGENTS"]) == 2
    assert "an editor talks to one Agent" in capsys.readouterr().err


AGENTS = [make_agent("one"), make_agent("two")]
