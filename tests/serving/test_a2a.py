"""A2A 1.0: requests and events as pure functions, and tasks over JSON-RPC."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, cast

import msgspec
import pytest
import trio
import trio.lowlevel
from starlette.routing import Mount, Router

from agentloop import Accept, Agent, Approve, Cancel, Decline, Deny, tool
from agentloop.errors import StoreError
from agentloop.events import (
    ContinueRequested,
    ElicitationRequested,
    ErrorInfo,
    MessageCommitted,
    QuestionAnswered,
    QuestionDeclined,
    QuestionParked,
    ResponseDiscarded,
    StreamEvent,
    StreamReason,
    StreamStarted,
    TextDelta,
)
from agentloop.journal import OpenStore, Record
from agentloop.messages import AssistantMessage, File, Image, Text, UserMessage
from agentloop.models import ModelRequest, Reply as ModelReply, Stop
from agentloop.questions import Answer
from agentloop.serving import BearerTokens, ServedApp, app
from agentloop.serving._errors import Refusal
from agentloop.serving._security import owner_prefix
from agentloop.serving.protocols.a2a import (
    A2aRefusal,
    MessageRequest,
    TaskListRequest,
    answers_of,
    check_version,
    error_response,
    prompt_of_message,
    read_call,
    read_request,
)
from agentloop.serving.protocols.a2a_tasks import TaskEncoder, tasks_of
from agentloop.stores import MemoryStore
from agentloop.stores._fence import Fence
from agentloop.testing import FunctionModel
from agentloop.wire import encode_event
from tests.serving.support import Client, Reply, make_agent, scripted
from tests.serving.test_protocols import APPROVAL, ASKED, CHILD, CONTINUE, ELICITATION, Script, approval

# ------------------------------------------------------------------------------- requests


def call_body(method: str, params: Any, id: Any = 1) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).encode()


def read(method: str, params: Any) -> Any:
    return read_request(read_call(call_body(method, params)))


def params_of(*parts: Any, configuration: Any = None, **fields: Any) -> dict[str, Any]:
    written = [{"text": part} if isinstance(part, str) else part for part in parts]
    message = {"messageId": "m", "role": "ROLE_USER", "parts": written, **fields}
    return {"message": message, "configuration": configuration}


def refused(method: str, params: Any) -> str:
    with pytest.raises(Refusal) as caught:
        read(method, params)
    assert isinstance(caught.value, A2aRefusal)
    return caught.value.reason


def test_a_message_is_a_prompt_of_texts_data_and_files() -> None:
    parts = [
        "hi",
        {"data": {"a": [1]}},
        {"raw": "aGk=", "mediaType": "image/png"},
        {"url": "https://x/y.pdf", "mediaType": "application/pdf", "filename": "y.pdf"},
    ]
    sent = read("SendMessage", params_of(*parts, role=1, contextId="c"))
    assert isinstance(sent, MessageRequest)
    assert (sent.context, sent.task, sent.streams, sent.waits) == ("c", "", False, True)
    assert prompt_of_message(sent.message).parts == (
        Text("hi"),
        Text('{"a":[1]}'),
        Image(data=b"hi"),
        File(url="https://x/y.pdf", media_type="application/pdf", name="y.pdf"),
    )
    sent = read("SendStreamingMessage", params_of("hi", configuration={"returnImmediately": True}))
    assert (sent.streams, sent.waits) == (True, False)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\0", b'{"id":"\xff"}', b"[" * 1000, b'{"jsonrpc":"2.0","id":' + b"9" * 9000 + b"}"],
    ids=["empty", "broken", "NUL", "not UTF-8", "too deep", "a number out of range"],
)
def test_what_is_not_json_is_a_parse_error(body: bytes) -> None:
    with pytest.raises(A2aRefusal) as caught:
        read_call(body)
    assert (caught.value.reason, caught.value.id) == ("PARSE_ERROR", None)


@pytest.mark.parametrize("id", [True, 1.5, {}, "x" * 201, 10**200])
def test_an_id_that_no_response_could_repeat_is_refused(id: Any) -> None:
    with pytest.raises(A2aRefusal) as caught:
        read_call(call_body("GetTask", {}, id))
    assert (caught.value.reason, caught.value.id) == ("INVALID_REQUEST", None)


def test_batches_and_notifications_and_requests_of_other_kinds_are_refused() -> None:
    for body, id in (
        (b"[]", None),
        (b'[{"jsonrpc":"2.0","id":1,"method":"GetTask"}]', None),
        (b'{"jsonrpc":"2.0","method":"GetTask"}', None),
        (b'{"jsonrpc":"1.0","id":1,"method":"GetTask"}', 1),
        (b'{"jsonrpc":"2.0","id":"a","method":1}', "a"),
    ):
        with pytest.raises(A2aRefusal) as caught:
            read_call(body)
        assert (caught.value.reason, caught.value.id) == ("INVALID_REQUEST", id)
    with pytest.raises(A2aRefusal, match="params is an object"):
        read_call(b'{"jsonrpc":"2.0","id":1,"method":"GetTask","params":[]}')


def test_each_kind_of_wrong_request_has_its_error() -> None:
    push = {"taskPushNotificationConfig": {"url": "https://x"}}
    cases = [
        ("Foo", {}, "METHOD_NOT_FOUND"),
        ("message/send", {}, "VERSION_NOT_SUPPORTED"),
        ("ListTaskPushNotificationConfigs", {}, "PUSH_NOTIFICATION_NOT_SUPPORTED"),
        ("SendMessage", params_of("hi", configuration=push), "PUSH_NOTIFICATION_NOT_SUPPORTED"),
        ("GetExtendedAgentCard", {}, "UNSUPPORTED_OPERATION"),
        ("GetTask", {"id": 5}, "INVALID_PARAMS"),
        ("GetTask", {"id": "a", "historyLength": -1}, "INVALID_PARAMS"),
        ("SendMessage", params_of(), "INVALID_PARAMS"),
        ("SendMessage", params_of("hi", role="ROLE_AGENT"), "INVALID_PARAMS"),
        ("SendMessage", params_of({"text": "a", "data": 1}), "INVALID_PARAMS"),
        ("SendMessage", params_of({}), "INVALID_PARAMS"),
        ("SendMessage", params_of("hi", contextId="x" * 201), "INVALID_PARAMS"),
        ("ListTasks", {"pageSize": 101}, "INVALID_PARAMS"),
        ("ListTasks", {"status": "done"}, "INVALID_PARAMS"),
        ("ListTasks", {"status": 99}, "INVALID_PARAMS"),
        ("ListTasks", {"statusTimestampAfter": "2026-01-01T00:00:00"}, "INVALID_PARAMS"),
    ]
    assert [refused(method, params) for method, params, _ in cases] == [reason for _, _, reason in cases]


def test_states_come_by_name_or_by_number() -> None:
    for state in ("TASK_STATE_INPUT_REQUIRED", 6):
        listed = read("ListTasks", {"status": state, "statusTimestampAfter": "1970-01-01T00:01:00Z"})
        assert isinstance(listed, TaskListRequest)
        assert (listed.state, listed.after, listed.page_size) == ("TASK_STATE_INPUT_REQUIRED", 60.0, 50)
    assert read("ListTasks", {"status": "TASK_STATE_UNSPECIFIED"}).state == ""


def test_other_versions_are_refused() -> None:
    for version in ("", "1.0", "1.1"):
        check_version(version)
    for version in ("0.3", "2.0", "10.0", "x"):
        with pytest.raises(A2aRefusal, match="speaks A2A 1"):
            check_version(version)


def test_errors_have_the_code_and_the_reason_of_the_protocol() -> None:
    error = error_response("a", A2aRefusal("TASK_NOT_FOUND", "none"))["error"]
    assert (error["code"], error["message"], error["data"][0]["reason"]) == (-32001, "none", "TASK_NOT_FOUND")
    codes = [error_response(1, Refusal(status, ""))["error"]["code"] for status in (400, 409, 413, 422, 503)]
    assert codes == [-32602, -32004, -32600, -32602, -32603]


# -------------------------------------------------------------------------------- answers


def answered(question: Any, *parts: Any) -> Answer:
    return answers_of(read("SendMessage", params_of(*parts)).message, [question])["q"]


def test_a_part_of_data_answers_the_question_that_it_names() -> None:
    def data(action: str, **fields: Any) -> Any:
        return {"data": {"question": "q", "action": action, **fields}}

    assert answered(APPROVAL, data("approve")) == answered(CONTINUE, data("approve")) == Approve()
    assert answered(APPROVAL, data("deny", reason="no")) == answered(APPROVAL, data("deny"), "no") == Deny("no")
    assert answered(ELICITATION, data("accept", content={"color": "red"})) == Accept({"color": "red"})
    assert answered(ELICITATION, data("decline", reason="no")) == Decline("no")
    # The only open question needs no id.
    assert answered(ELICITATION, {"data": {"action": "cancel"}}) == Cancel()
    for wrong in (
        [data("accept")],
        [data("approve"), data("deny")],
        [{"data": {"question": "other", "action": "approve"}}],
        [{"data": {"action": "yes"}}],
        [{"data": None}],
        [data("approve", unknown=1)],
    ):
        with pytest.raises(A2aRefusal) as caught:
            answered(APPROVAL, *wrong)
        assert caught.value.reason == "INVALID_PARAMS"


def test_a_text_answers_the_only_question_and_approves_by_an_explicit_yes_alone() -> None:
    assert [answered(APPROVAL, text) for text in ("yes", "Approve.", " YES ")] == [Approve()] * 3
    assert answered(CONTINUE, "No") == Deny("")
    assert answered(APPROVAL, "yes, but only 3") == Deny("yes, but only 3")
    assert answered(ELICITATION, "dark red") == Accept({"color": "dark red"})
    assert [answered(ELICITATION, text) for text in ("decline", "cancel")] == [Decline(), Cancel()]
    number = {"type": "object", "properties": {"age": {"type": "integer"}}}
    source = ELICITATION.source
    form = ElicitationRequested(source, 1, id="q", call_id="c", message="?", form=number)
    for question, part in (
        (form, "5"),
        (ElicitationRequested(source, 1, id="q", call_id="c", message="?", form={}), "5"),
    ):
        with pytest.raises(A2aRefusal, match="cannot fill in the form"):
            answered(question, part)
    for questions in ([], [APPROVAL, msgspec.structs.replace(APPROVAL, id="r")]):
        with pytest.raises(A2aRefusal, match="open questions"):
            answers_of(read("SendMessage", params_of("yes")).message, questions)


# --------------------------------------------------------------------------------- events


def encoded(*events: StreamEvent) -> tuple[TaskEncoder, list[dict[str, Any]]]:
    encoder = TaskEncoder("t", "c")
    updates = [update for event in events for update in encoder.apply(event)]
    for update in updates:
        assert [*update] in (["statusUpdate"], ["artifactUpdate"])
        [value] = update.values()
        assert (value["taskId"], value["contextId"]) == ("t", "c")
    return encoder, updates


def written(updates: list[dict[str, Any]]) -> list[tuple[str, str, bool]]:
    found = [update["artifactUpdate"] for update in updates if "artifactUpdate" in update]
    return [(one["artifact"]["artifactId"], one["artifact"]["parts"][0]["text"], one["append"]) for one in found]


def test_each_turn_with_text_is_an_artifact_that_grows() -> None:
    script = Script().start().text("a", "", "b").call().text("c").stop()
    encoder, updates = encoded(*script.events)
    assert written(updates) == [("1", "a", False), ("1", "b", True), ("2", "c", False)]
    task = encoder.task()
    assert [artifact["parts"] for artifact in task["artifacts"]] == [[{"text": "ab"}], [{"text": "c"}]]
    assert task["status"] == {"state": "TASK_STATE_COMPLETED"}
    assert [said["parts"] for said in task["history"]] == [[{"text": "hi"}]]
    assert {"artifacts", "history"}.isdisjoint(encoder.task(0, has_artifacts=False))


def test_a_response_that_broke_off_is_taken_back() -> None:
    error = ErrorInfo("ModelError", "broken")
    script = Script().start().add(TextDelta, "half")
    for _ in range(2):
        script.add(ResponseDiscarded, error=error, model="m", next_model="m", delay=0.0)
    encoder, updates = encoded(*script.text("whole").stop().events)
    assert written(updates) == [("1", "half", False), ("1", "", False), ("1", "whole", True)]
    assert len(encoder.task()["artifacts"]) == 1


def test_a_message_whose_deltas_were_others_replaces_them() -> None:
    script = Script().start().add(TextDelta, "se").add(TextDelta, "cret")
    for text in ("[hidden]", "without deltas"):
        script.add(MessageCommitted, message=AssistantMessage((Text(text),)), index=1)
    _, updates = encoded(*script.stop().events)
    assert written(updates)[2:] == [("1", "[hidden]", False), ("2", "without deltas", False)]


@pytest.mark.parametrize(
    ("reason", "state"),
    [
        ("completed", "COMPLETED"),
        ("cancelled", "CANCELED"),
        ("failed", "FAILED"),
        ("limit", "FAILED"),
        ("blocked", "REJECTED"),
        ("interrupted", "WORKING"),
    ],
)
def test_the_end_of_a_run_is_a_state_and_a_sentence(reason: StreamReason, state: str) -> None:
    encoder, updates = encoded(*Script().start().stop(reason, detail="why").events)
    status = updates[-1]["statusUpdate"]["status"]
    assert status["state"] == f"TASK_STATE_{state}" == encoder.state
    assert status["message"]["parts"] == [{"text": "why"}]


def test_questions_are_parts_of_the_status_and_answers_are_in_the_history() -> None:
    link = ElicitationRequested(
        ELICITATION.source, 1, id="link", call_id="c", message="Sign in", form={}, url="https://x"
    )
    script = Script().start().call(finished=None)
    script.add(type(APPROVAL), **approval(CHILD), reason="costs")
    script.events.extend(
        [msgspec.structs.replace(ELICITATION, id="e"), link, msgspec.structs.replace(CONTINUE, id="l")]
    )
    script.add(QuestionDeclined, id="l", note="").add(QuestionParked, id="q").stop("needs_input")
    encoder, updates = encoded(*script.events)
    asked = updates[-1]["statusUpdate"]["status"]
    assert asked["state"] == "TASK_STATE_INPUT_REQUIRED"
    assert [part.get("text") or part["data"] for part in asked["message"]["parts"]] == [
        'Run add({"a":1})?',
        {
            "question": "q",
            "type": "approval",
            "tool": "add",
            "arguments": {"a": 1},
            "reason": "costs",
            "actions": ["approve", "deny"],
        },
        "Which?",
        {
            "question": "e",
            "type": "form",
            "schema": ELICITATION.form,  # type: ignore[union-attr]
            "actions": ["accept", "decline", "cancel"],
        },
        "Sign in",
        {
            "question": "link",
            "type": "form",
            "schema": {},
            "url": "https://x",
            "actions": ["accept", "decline", "cancel"],
        },
    ]
    script.add(StreamStarted, message=UserMessage((Text("hi"),)), model="m", resumes="s/1")
    answers: list[Answer] = [Approve(), Accept({"color": "red"}), Decline("no"), Cancel(), Deny("no")]
    for answer in answers:
        script.add(QuestionAnswered, id="q", answer=answer, by="reader")
    encoder, _ = encoded(*script.events)
    roles = [said["role"] for said in encoder.task()["history"]]
    assert roles == ["ROLE_USER", "ROLE_AGENT", *["ROLE_USER"] * 5]
    given = [said["parts"][0]["data"] for said in encoder.task(5)["history"]]
    # An answer is written as a client would send it.
    sent = [
        answered(question, {"data": data})
        for question, data in zip([*ASKED[:1], *[ELICITATION] * 3, APPROVAL], given, strict=True)
    ]
    assert sent == answers
    assert encoder.task()["status"] == {"state": "TASK_STATE_WORKING"}


def test_a_question_about_a_limit_is_asked_in_words() -> None:
    script = Script().start().add(ContinueRequested, id="l", limit="turns", used=3, allowed=3).stop("needs_input")
    _, updates = encoded(*script.events)
    words, data = updates[-1]["statusUpdate"]["status"]["message"]["parts"]
    assert words["text"] == "The run has reached its limit of turns (3). Go on?"
    assert data["data"]["actions"] == ["approve", "deny"]


def test_a_later_run_takes_the_place_of_a_task_that_waits() -> None:
    script = Script().start().add(type(CONTINUE), id="l", limit="turns", used=3, allowed=3).stop("needs_input")
    encoder, updates = encoded(*script.start().text("of another task").stop().events)
    assert updates[-1]["statusUpdate"]["status"]["state"] == encoder.state == "TASK_STATE_CANCELED"
    assert encoder.is_past
    assert "artifacts" not in encoder.task()
    # One that has ended stays as it was.
    encoder, _ = encoded(*Script().start().stop().start().events)
    assert encoder.state == "TASK_STATE_COMPLETED"


def test_files_of_a_prompt_are_in_the_history() -> None:
    parts = (Text("look"), Image(data=b"hi"), File(url="https://x/y", media_type="text/plain"))
    encoder, _ = encoded(*Script().add(StreamStarted, message=UserMessage(parts), model="m").events)
    assert encoder.task()["history"][0]["parts"] == [
        {"text": "look"},
        {"raw": "aGk=", "mediaType": "image/png"},
        {"url": "https://x/y", "mediaType": "text/plain"},
    ]


def test_the_tasks_of_a_session_are_its_runs_with_what_resumes_them() -> None:
    script = Script().start().stop().start().stop("needs_input")
    script.add(StreamStarted, message=UserMessage((Text("hi"),)), model="m", resumes="s/2").stop("needs_input")
    # It shortens the conversation, and is no task.
    script.add(StreamStarted, message=UserMessage(()), model="m").stop()
    script.start().stop("interrupted").add(StreamStarted, message=UserMessage((Text("hi"),)), model="m", resumes="s/3")
    kinds = {"StreamStarted": "stream_started", "StreamStopped": "stream_stopped"}
    records = [
        Record(event.seq, kinds[type(event).__name__], encode_event(event), at=float(event.seq))
        for event in script.events
        if type(event).__name__ in kinds
    ]
    first, second, third = tasks_of(records)
    assert (first.seq, first.state, first.agent, first.end) == (1, "TASK_STATE_COMPLETED", "assistant", 4)
    superseding = next(
        event.seq for event in script.events if isinstance(event, StreamStarted) and not event.message.parts
    )
    assert (second.state, second.end, second.at) == ("TASK_STATE_CANCELED", superseding, superseding)
    assert (third.state, third.end) == ("TASK_STATE_WORKING", float("inf"))
    # A record that cannot be read is left out.
    broken = [*records[:2], Record(99, "stream_started", b"{"), Record(100, "stream_stopped", b"{}"), *records[2:4]]
    assert [task.seq for task in tasks_of(broken)] == [1, second.seq]


# --------------------------------------------------------------------------------- routes


@asynccontextmanager
async def serving(agents: Any = None, **options: Any) -> AsyncGenerator[tuple[ServedApp, Client]]:
    served = app(make_agent() if agents is None else agents, **options)
    async with served.running():
        yield served, Client(served)


async def post(client: Client, method: str, params: Any, path: str = "/a2a", **headers: str) -> Reply:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return await client.post(path, call_body(method, params), sent)


async def call(client: Client, method: str, params: Any, path: str = "/a2a") -> Any:
    reply = (await post(client, method, params, path)).json
    assert (reply["jsonrpc"], reply["id"]) == ("2.0", 1)
    return reply["result"] if "result" in reply else reply["error"]["data"][0]["reason"]


async def send(client: Client, *parts: Any, configuration: Any = None, **fields: Any) -> Any:
    result = await call(client, "SendMessage", params_of(*parts, configuration=configuration, **fields))
    return result if isinstance(result, str) else result["task"]


def state_of(task: Any) -> str:
    state: str = task["status"]["state"]
    return state.removeprefix("TASK_STATE_")


def text_of(task: Any) -> str:
    return "".join(part["text"] for artifact in task.get("artifacts", ()) for part in artifact["parts"])


async def test_each_agent_has_a_card_with_the_address_that_the_client_uses() -> None:
    async with serving({"first agent": make_agent(), "other": make_agent("other")}) as (served, client):
        card = (await client.get("/.well-known/agent-card.json")).json
        assert card["supportedInterfaces"][0]["url"] == "http://localhost:8000/a2a/first%20agent"
        assert card["capabilities"] == {"streaming": True, "pushNotifications": False, "extendedAgentCard": False}
        other = (await client.get("/a2a/other/.well-known/agent-card.json")).json
        assert (other["name"], other["supportedInterfaces"][0]["url"]) == ("other", "http://localhost:8000/a2a/other")
        assert (await client.get("/a2a/none/.well-known/agent-card.json")).status == 404
        mounted = Client(cast("ServedApp", Router([Mount("/agents", served)])))
        card = (await mounted.get("/agents/.well-known/agent-card.json")).json
        assert card["supportedInterfaces"][0]["url"] == "http://localhost:8000/agents/a2a/first%20agent"
        sent = call_body("SendMessage", params_of("hello"))
        assert text_of((await mounted.post("/agents/a2a/first agent", sent)).json["result"]["task"])
    async with serving(authenticate=lambda request: "ann", hosts=["x.example"]) as (served, _):
        client = Client(served, headers={"host": "x.example", "x-forwarded-proto": "https"})
        card = (await client.get("/a2a/.well-known/agent-card.json")).json
        assert card["supportedInterfaces"][0]["url"] == "https://x.example/a2a/assistant"


async def test_a_message_gives_a_task_with_its_result() -> None:
    async with serving() as (_, client):
        task = await send(client, "hello", contextId="chat one")
        assert (state_of(task), text_of(task), task["contextId"]) == ("COMPLETED", "You said: hello", "chat one")
        assert task["status"]["timestamp"].endswith("Z")
        # The context continues, in the words of the client or of the server.
        again = await call(client, "GetTask", {"id": task["id"], "historyLength": 0})
        assert (text_of(again), "history" in again) == ("You said: hello", False)
        more = await send(client, "hello", contextId=again["contextId"])
        assert more["id"].rpartition(".")[0] == task["id"].rpartition(".")[0]
        # A context without a name gets one that names it.
        new = await send(client, "hello")
        assert (await send(client, "more", contextId=new["contextId"]))["contextId"] == new["contextId"]
        assert await send(client, "more", taskId=new["id"]) == "UNSUPPORTED_OPERATION"


async def test_updates_stream_and_a_client_that_comes_back_reads_the_rest() -> None:
    async with serving() as (_, client):
        sent = call_body("SendStreamingMessage", params_of("please wait", contextId="c"))
        async with client.open("POST", "/a2a", sent) as reply:
            await reply.until(b"TASK_STATE_WORKING")
        [working] = (await call(client, "ListTasks", {"contextId": "c"}))["tasks"]
        assert state_of(working) == "WORKING"
        assert await send(client, "hello", taskId=working["id"]) == "UNSUPPORTED_OPERATION"
        assert await send(client, "hello", contextId="c") == "UNSUPPORTED_OPERATION"
        rest = await post(client, "SubscribeToTask", {"id": working["id"]})
        assert rest.headers["content-type"] == "text/event-stream"
        first, *updates, last = [data["result"] for data in rest.data]
        assert state_of(first["task"]) == "WORKING"
        assert "".join(text for _, text, _ in written(updates)) == "The result is waited."
        assert state_of(last["statusUpdate"]) == "COMPLETED"
        assert await call(client, "SubscribeToTask", {"id": working["id"]}) == "UNSUPPORTED_OPERATION"


@pytest.mark.seconds(120)
async def test_a_stream_without_news_gets_comments() -> None:
    @tool
    async def wait(seconds: float) -> str:
        """Wait."""
        await trio.sleep(8 * seconds)
        return "waited"

    agent = Agent(FunctionModel(scripted), name="assistant", tools=[wait])
    async with serving(agent) as (_, client):
        reply = await post(client, "SendStreamingMessage", params_of("wait"))
        assert reply.body.count(b": nothing new\n\n") >= 2
        assert b"TASK_STATE_COMPLETED" in reply.body


async def test_a_run_stops_without_a_reader_if_the_app_says_so() -> None:
    async with serving(on_disconnect="stop") as (_, client):
        for method in ("SendStreamingMessage", "SendMessage"):
            async with client.open("POST", "/a2a", call_body(method, params_of("please wait", contextId=method))):
                await trio.sleep(1)
            await trio.sleep(0.1)
            [task] = (await call(client, "ListTasks", {"contextId": method}))["tasks"]
            assert state_of(task) == "CANCELED"


async def test_a_question_is_answered_by_the_next_message_to_its_task() -> None:
    async with serving() as (_, client):
        asked = await send(client, "please both", contextId="c")
        assert state_of(asked) == "INPUT_REQUIRED"
        pay, survey = [part["data"] for part in asked["status"]["message"]["parts"] if "data" in part]
        reply = await post(client, "SubscribeToTask", {"id": asked["id"]})
        assert [[*data["result"]] for data in reply.data] == [["task"]]

        async def answer(*parts: Any, **fields: Any) -> Any:
            return await send(client, *parts, taskId=asked["id"], **fields)

        form = {"question": survey["question"], "action": "accept"}
        for wrong in ([{"data": {**form, "content": {"color": 5}}}], ["yes"]):
            assert await answer(*wrong) == "INVALID_PARAMS"
        assert await answer("yes", contextId="other") == "INVALID_PARAMS"
        half = await answer({"data": {**form, "content": {"color": "red"}}}, contextId="c")
        [open_question] = [part["data"] for part in half["status"]["message"]["parts"] if "data" in part]
        assert (state_of(half), open_question["question"]) == ("INPUT_REQUIRED", pay["question"])
        sent = params_of("yes", taskId=asked["id"])
        first, *_, last = [data["result"] for data in (await post(client, "SendStreamingMessage", sent)).data]
        assert (state_of(first["task"]), state_of(last["statusUpdate"])) == ("WORKING", "COMPLETED")
        assert len(first["task"]["history"]) >= 4


async def test_of_two_answers_at_once_one_counts() -> None:
    async with serving() as (_, client):
        asked = await send(client, "please pay", contextId="c")
        results: list[Any] = []

        async def answer(text: str, **fields: Any) -> None:
            results.append(await send(client, text, **fields))

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(lambda: answer("yes", taskId=asked["id"]))
        refusals = [result for result in results if isinstance(result, str)]
        assert refusals == ["UNSUPPORTED_OPERATION"] * 2
        [paid] = [result for result in results if not isinstance(result, str)]
        assert text_of(paid) == "The result is paid 5."


class Late(Fence):
    """A store that lets others go first when the tasks of a session are read, or fails after that."""

    before_read: Any = None
    fails = False

    async def read(self, session: str, /, **options: Any) -> Any:
        if self.fails and options.get("limit") is not None:
            raise StoreError("broken")
        records = await super().read(session, **options)
        if options.get("kinds") is not None and self.before_read is not None:
            step, self.before_read = self.before_read, None
            await step()
        return records


class LateStore:
    def __init__(self) -> None:
        self._store = MemoryStore()
        self.opened: Late | None = None

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[OpenStore]:
        async with self._store.open() as opened:
            self.opened = Late(opened)
            yield self.opened


async def test_an_answer_does_not_count_for_a_question_that_its_sender_has_not_read() -> None:
    store = LateStore()
    async with serving(store=store) as (_, client):
        asked = await send(client, "please survey", contextId="c")
        assert store.opened is not None

        async def another_task() -> None:
            assert state_of(await send(client, "please pay", contextId="c")) == "INPUT_REQUIRED"

        store.opened.before_read = another_task
        assert await send(client, "yes", taskId=asked["id"]) == "UNSUPPORTED_OPERATION"
        pending, superseded = (await call(client, "ListTasks", {"contextId": "c"}))["tasks"]
        assert (state_of(pending), state_of(superseded)) == ("INPUT_REQUIRED", "CANCELED")
        assert await send(client, "yes", taskId=asked["id"]) == "UNSUPPORTED_OPERATION"


async def test_a_cancellation_does_not_reach_a_task_that_begins_meanwhile() -> None:
    store = LateStore()
    async with serving(store=store) as (_, client):
        for first, then, reason in (
            ("please survey", "please pay", "UNSUPPORTED_OPERATION"),
            ("hello", "please wait", "TASK_NOT_CANCELABLE"),
        ):
            task = await send(client, first, contextId=first)
            assert store.opened is not None

            async def another_task(then: str = then, context: str = first) -> None:
                await send(client, then, contextId=context, configuration={"returnImmediately": True})
                await trio.sleep(1)

            store.opened.before_read = another_task
            assert await call(client, "CancelTask", {"id": task["id"]}) == reason
            later, _ = (await call(client, "ListTasks", {"contextId": first}))["tasks"]
            assert state_of(later) in ("INPUT_REQUIRED", "WORKING")


async def test_a_task_is_cancelled_while_it_works_and_while_it_waits() -> None:
    async with serving() as (_, client):
        for text in ("please wait", "please pay"):
            task = await send(client, text, configuration={"returnImmediately": True})
            await trio.sleep(1)
            cancelled = await call(client, "CancelTask", {"id": task["id"]})
            assert state_of(cancelled) == state_of(await call(client, "GetTask", {"id": task["id"]})) == "CANCELED"
            assert await call(client, "CancelTask", {"id": task["id"]}) == "TASK_NOT_CANCELABLE"
            assert await send(client, "yes", taskId=task["id"]) == "UNSUPPORTED_OPERATION"
            # Nothing of it is left to resume, for clients of other protocols either.
            session = task["id"].rpartition(".")[0]
            assert (await client.get(f"/sessions/{session}")).json["state"] == "idle"


@pytest.mark.seconds(60)
async def test_a_task_that_does_not_stop_in_time_is_shown_at_work() -> None:
    @tool
    async def wait(seconds: float) -> str:
        """Wait, whatever happens."""
        with trio.CancelScope(shield=True):
            await trio.sleep(4 * seconds)
        return "waited"

    agent = Agent(FunctionModel(scripted), name="assistant", tools=[wait])
    async with serving(agent) as (_, client):
        task = await send(client, "wait", configuration={"returnImmediately": True})
        await trio.sleep(1)
        assert state_of(await call(client, "CancelTask", {"id": task["id"]})) == "WORKING"


async def test_the_list_of_tasks_has_pages_and_filters() -> None:
    async with serving([make_agent(), make_agent("other")]) as (_, client):
        tasks = [await send(client, text, contextId=context) for context in "ab" for text in ("hello", "please pay")]
        await call(client, "SendMessage", params_of("hello", contextId="a"), "/a2a/other")
        names = [task["id"] for task in tasks]
        token, seen = "", list[str]()
        for _ in range(2):
            page = await call(client, "ListTasks", {"pageSize": 3, "pageToken": token})
            assert (page["totalSize"], page["pageSize"]) == (4, 3)
            token = page["nextPageToken"]
            seen += [task["id"] for task in page["tasks"]]
        assert (token, sorted(seen)) == ("", sorted(names))

        async def listed(**params: Any) -> list[Any]:
            found: list[Any] = (await call(client, "ListTasks", params))["tasks"]
            return found

        [pending] = await listed(status="TASK_STATE_INPUT_REQUIRED")
        assert (pending["id"], "artifacts" in pending, "history" in pending) == (names[3], False, False)
        [superseded] = await listed(contextId="a", status="TASK_STATE_CANCELED")
        assert superseded["id"] == names[1]
        with_artifacts = await listed(contextId="b", includeArtifacts=True, historyLength=1)
        assert [text_of(task) for task in with_artifacts] == ["", "You said: hello"]
        assert [len(task["history"]) for task in with_artifacts] == [1, 1]
        assert await listed(statusTimestampAfter="2999-01-01T00:00:00Z") == await listed(contextId="none") == []
        assert await call(client, "ListTasks", {"pageToken": "x"}) == "INVALID_PARAMS"
        # A task of one agent is none of another.
        assert await call(client, "GetTask", {"id": names[0]}, "/a2a/other") == "TASK_NOT_FOUND"


@pytest.mark.seconds(120)
async def test_a_task_that_was_cut_off_is_resumed_for_a_client_that_asks_for_it() -> None:
    store = MemoryStore()
    async with serving(store=store) as (_, client):
        task = await send(client, "please wait", configuration={"returnImmediately": True})
        await trio.sleep(1)
    async with serving(store=store) as (_, client):
        again = await call(client, "GetTask", {"id": task["id"]})
        assert state_of(again) in ("WORKING", "COMPLETED")
        await trio.sleep(10)
        assert state_of(await call(client, "GetTask", {"id": task["id"]})) == "COMPLETED"
    async with serving(store=store) as (_, client):
        cut = await send(client, "please wait", configuration={"returnImmediately": True})
        await trio.sleep(1)
    async with serving(store=store) as (served, client):
        await served.drain(0)
        # A server that leaves shows the task, and resumes nothing.
        assert state_of(await call(client, "GetTask", {"id": cut["id"]})) == "WORKING"
        assert (await post(client, "SendMessage", params_of("hi"))).json["error"]["code"] == -32603


class Slow:
    """A model that calls a tool, and takes its time."""

    name = "slow"

    async def respond(self, request: ModelRequest, reply: ModelReply) -> Stop:
        await trio.sleep(1)
        await reply.tool_call(0, id=f"c{len(request.messages)}", name="wait", arguments='{"seconds": 5}')
        return Stop("tool_calls")


async def test_a_task_that_was_cut_off_is_cancelled_and_not_resumed_later() -> None:
    store, agent = MemoryStore(), make_agent().replace(model=Slow())
    async with serving(agent, store=store) as (_, client):
        cut = await send(client, "go", configuration={"returnImmediately": True})
        await trio.sleep(2)
    async with serving(agent, store=store) as (_, client):
        assert state_of(await call(client, "CancelTask", {"id": cut["id"]})) == "CANCELED"
        assert (await client.get(f"/sessions/{cut['id'].rpartition('.')[0]}")).json["state"] == "idle"


async def test_a_task_that_another_process_runs_is_shown_and_followed() -> None:
    store = MemoryStore()
    async with serving(store=store) as (_, client), serving(store=store) as (_, other):
        task = await send(client, "please wait", configuration={"returnImmediately": True})
        await trio.sleep(0.5)
        assert state_of(await call(other, "GetTask", {"id": task["id"]})) == "WORKING"
        first, *_, last = [data["result"] for data in (await post(other, "SubscribeToTask", {"id": task["id"]})).data]
        assert (state_of(first["task"]), state_of(last["statusUpdate"])) == ("WORKING", "COMPLETED")


@pytest.mark.seconds(60)
async def test_the_updates_of_a_task_go_on_when_the_process_that_runs_it_has_died() -> None:
    store, replies = MemoryStore(), list[Reply]()

    async def follow(client: Client, id: str) -> None:
        replies.append(await post(client, "SubscribeToTask", {"id": id}))

    async with (
        serving(store=store) as (_, client),
        trio.open_nursery() as nursery,
        serving(store=store) as (_, dying),
    ):
        task = await send(dying, "please wait", configuration={"returnImmediately": True})
        nursery.start_soon(follow, client, task["id"])
        await trio.sleep(4)
    first, *_, last = [data["result"] for data in replies[0].data]
    assert (state_of(first["task"]), state_of(last["statusUpdate"])) == ("WORKING", "COMPLETED")


ANN, BOB = "token-of-ann-which-is-long", "token-of-bob-which-is-long"


async def test_no_method_lets_a_principal_at_the_task_of_another() -> None:
    async with serving(authenticate=BearerTokens({ANN: "ann", BOB: "bob"})) as (served, _):
        ann, bob = Client(served, token=ANN), Client(served, token=BOB)
        task = await send(ann, "the secret of ann pay", contextId="chat")
        session = task["id"].rpartition(".")[0]
        assert session.startswith(owner_prefix("ann"))
        for id in (task["id"], "chat.1", f"{owner_prefix('bob')}chat.1"):
            for method in ("GetTask", "CancelTask", "SubscribeToTask"):
                assert await call(bob, method, {"id": id}) == "TASK_NOT_FOUND"
            assert await send(bob, "yes", taskId=id) == "TASK_NOT_FOUND"
        for context in ("", "chat", session):
            assert (await call(bob, "ListTasks", {"contextId": context}))["tasks"] == []
            assert "secret" not in json.dumps(await send(bob, "hello", contextId=context))
        assert state_of(await call(ann, "GetTask", {"id": task["id"]})) == "INPUT_REQUIRED"


async def test_errors_of_the_request_are_json_rpc_errors_too() -> None:
    async with serving(max_body_bytes=500) as (_, client):
        reply = await client.post("/a2a", b"{", {"content-type": "text/plain"})
        assert (reply.status, reply.json["error"]["code"], reply.json["id"]) == (415, -32600, None)
        reply = await client.post("/a2a", call_body("GetTask", {"id": "x" * 500}))
        assert (reply.status, reply.headers["connection"]) == (413, "close")
        reply = await client.post("/a2a", b'{"jsonrpc":"1.0","id":"a","method":"GetTask"}')
        assert (reply.status, reply.json["id"], reply.json["error"]["code"]) == (200, "a", -32600)
        assert (await post(client, "GetTask", {"id": "x"}, a2a_version="0.3")).json["error"]["code"] == -32009
        assert (await post(client, "GetTask", {"id": "x"}, "/a2a?A2A-Version=2.0")).json["error"]["code"] == -32009
        assert (await post(client, "GetTask", {"id": "x"}, a2a_version="1.0")).json["error"]["code"] == -32001
        # NUL, and text that a database may refuse.
        assert state_of(await send(client, "a\0b", contextId="c\0d")) == "COMPLETED"


async def test_a_store_that_fails_in_the_middle_ends_the_response_with_an_error() -> None:
    store = LateStore()
    async with serving(store=store) as (_, client):
        asked = await send(client, "please pay")
        assert store.opened is not None
        store.opened.fails = True
        [failed] = (await post(client, "SubscribeToTask", {"id": asked["id"]})).data
        assert (failed["id"], failed["error"]["code"]) == (1, -32603)
        assert await call(client, "GetTask", {"id": asked["id"]}) == "INTERNAL_ERROR"
        assert await send(client, "yes", taskId=asked["id"]) == "INTERNAL_ERROR"
