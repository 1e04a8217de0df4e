"""A server that runs no agent: it enqueues, workers run, and clients of any server read."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from agentloop import Agent
from agentloop.engines import WorkerOptions, work
from agentloop.errors import StoreError, UsageError
from agentloop.events import (
    Source,
    StreamEvent,
    StreamStarted,
    StreamStopped,
    TextDelta,
    ToolCallStarted,
    TurnFinished,
    TurnStarted,
)
from agentloop.journal import OpenStore
from agentloop.messages import user_message
from agentloop.models import ModelRequest, Reply as ModelReply, Stop
from agentloop.serving import ServedApp, app
from agentloop.serving._command import main
from agentloop.serving._enqueued import EnqueuedRuns
from agentloop.serving.protocols._seams import Seams
from agentloop.stores import MemoryStore, follow_session
from agentloop.stores._fence import Fence
from agentloop.testing import FunctionModel, ScriptedModel
from tests.serving.support import Client, Reply, make_agent, of_type
from tests.serving.test_mcp import ACCEPT, last_message, legacy_call, legacy_session

OPTIONS = WorkerOptions(at_once=8, lease_seconds=3, poll_seconds=0.25, drain_seconds=1)
STREAM = {"accept": "text/event-stream"}


class Worker:
    """A worker that can be killed: nothing that it writes is saved any more."""

    def __init__(self, store: OpenStore, agent: Agent) -> None:
        self._store = store
        self._agent = agent
        self._is_dead = False
        self._scope = trio.CancelScope()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        return method if not self._is_dead else self._fail

    async def _fail(self, *args: Any, **kwargs: Any) -> Any:
        await trio.lowlevel.checkpoint()
        raise StoreError("this process is dead")

    async def run(self) -> None:
        with self._scope:
            store: Any = self
            await work(store, self._agent, options=OPTIONS)

    def kill(self) -> None:
        self._is_dead = True
        self._scope.cancel()


class Site:
    """Two servers of one store, and workers."""

    def __init__(self, store: OpenStore, nursery: trio.Nursery, clients: list[Client], mcp: Client) -> None:
        self.store = store
        self.mcp = mcp
        self.nursery = nursery
        self.client, self.other = clients

    def work(self, agent: Agent | None = None) -> Worker:
        worker = Worker(self.store, make_agent() if agent is None else agent)
        self.nursery.start_soon(worker.run)
        return worker


@asynccontextmanager
async def site(agent: Agent | None = None, **options: Any) -> AsyncGenerator[Site]:
    memory = MemoryStore()
    servers = [app(agent or make_agent(), store=memory, enqueue=True, **options) for _ in range(2)]
    async with (
        servers[0].running(),
        servers[1].running(),
        memory.open() as store,
        trio.open_nursery() as nursery,
    ):
        clients = [Client(server) for server in servers]
        yield Site(store, nursery, clients, Client(servers[0], headers=ACCEPT))
        nursery.cancel_scope.cancel()


async def new_session(client: Client) -> str:
    session: str = (await client.post("/sessions")).json["id"]
    return session


def read_from(client: Client, session: str) -> Any:
    return client.open("GET", f"/sessions/{session}/events")


class Hesitant:
    """A model whose first response breaks off with its worker."""

    name = "hesitant"

    def __init__(self) -> None:
        self.is_writing = trio.Event()

    async def respond(self, request: ModelRequest, reply: ModelReply) -> Stop:
        if not self.is_writing.is_set():
            await reply.text("The answer is for")
            # By then it is saved.
            await trio.sleep(1)
            self.is_writing.set()
            await trio.sleep_forever()
        return await ScriptedModel("The answer is 42.").respond(request, reply)


def hesitant() -> tuple[Agent, trio.Event]:
    model = Hesitant()
    return Agent(model, name="assistant"), model.is_writing


# ------------------------------------------------------------------------------- own events


async def test_a_worker_runs_a_prompt_and_clients_of_both_servers_read_it() -> None:
    async with site() as it:
        it.work()
        session = await new_session(it.client)
        async with read_from(it.other, session) as followed:
            begun = await it.client.post(f"/sessions/{session}/prompts", {"text": "please add"})
            assert (begun.status, begun.json["after"]) == (202, 0)
            await followed.until(b'"reason":"completed"')
            assert begun.json["stream"] == followed.data[0]["source"]["stream"]
            streamed = await it.other.post(f"/sessions/{session}/prompts", {"text": "hello"}, STREAM)
            await followed.until(b"You said: hello")
        assert streamed.data[0]["message"]["parts"][0]["text"] == "hello"
        assert streamed.data[-1]["reason"] == "completed"
        looked = (await it.client.get(f"/sessions/{session}")).json
        assert (looked["state"], looked["running"]) == ("idle", False)


async def test_the_reader_of_a_run_whose_worker_died_reads_on_when_another_worker_has_it() -> None:
    agent, is_writing = hesitant()
    async with site(agent) as it:
        first = it.work(agent)
        session = await new_session(it.client)
        path = f"/sessions/{session}/prompts"
        async with it.client.open("POST", path, {"text": "What is it?"}, STREAM) as reply:
            await is_writing.wait()
            first.kill()
            looked = (await it.other.get(f"/sessions/{session}")).json
            assert (looked["state"], looked["running"]) == ("running", True)
            assert (await it.other.post(path, {"text": "Well?"})).status == 409
            it.work(agent)
            await reply.until(b'"reason":"completed"')
        stops = of_type(reply.data, "stream_stopped")
        assert [event["reason"] for event in stops] == ["interrupted", "completed"]
        assert of_type(reply.data, "message_committed")[-1]["message"]["parts"][0]["text"] == "The answer is 42."


async def test_an_approval_that_a_worker_asks_for_is_answered_through_any_server() -> None:
    async with site() as it:
        it.work()
        session = await new_session(it.client)
        asked = await it.client.post(f"/sessions/{session}/prompts", {"text": "please pay"}, STREAM)
        assert asked.data[-1]["reason"] == "needs_input"
        looked = (await it.other.get(f"/sessions/{session}")).json
        assert looked["state"] == "parked"
        (question,) = looked["questions"]
        path = f"/sessions/{session}/answers"
        wrong = {"answers": {question["id"]: {"type": "decline"}}}
        assert (await it.other.post(path, wrong)).status == 422
        unknown = {"answers": {"another": {"type": "approve"}}}
        assert (await it.other.post(path, unknown)).status == 409
        right = {"answers": {question["id"]: {"type": "approve"}}}
        resumed = await it.other.post(path, right, STREAM)
        assert resumed.data[0]["resumes"] == asked.data[0]["source"]["stream"]
        assert resumed.data[-1]["reason"] == "completed"
        assert resumed.data[0]["seq"] == asked.data[-1]["seq"] + 1
        assert (await it.client.post(path, right)).status == 409


async def test_an_answer_that_comes_before_the_run_is_parked_is_read_on_with_it() -> None:
    async with site() as it:
        it.work()
        session = await new_session(it.client)
        path = f"/sessions/{session}/prompts"
        async with it.client.open("POST", path, {"text": "please pay"}, STREAM) as reply:
            await reply.until(b"approval_requested")
            (question,) = of_type(reply.data, "approval_requested")
            answers = {"answers": {question["id"]: {"type": "approve"}}}
            answered = await it.client.post(f"/sessions/{session}/answers", answers)
            assert answered.status == 202
            if b"needs_input" not in reply.body:
                await reply.until(b'"reason":"completed"')


async def test_a_stop_through_another_server_ends_the_run_in_its_worker() -> None:
    async with site() as it:
        it.work()
        session = await new_session(it.client)
        path = f"/sessions/{session}/prompts"
        async with it.client.open("POST", path, {"text": "please wait"}, STREAM) as reply:
            await reply.until(b"tool_call_started")
            began = trio.current_time()
            stopped = await it.other.post(f"/sessions/{session}/stop", {"detail": "Ann has changed her mind."})
            assert stopped.json["stopped"]
            await reply.until(b'"reason":"cancelled"')
            assert trio.current_time() - began < 2
        assert reply.data[-1]["detail"] == "Ann has changed her mind."
        assert not (await it.client.post(f"/sessions/{session}/stop", {})).json["stopped"]


@pytest.mark.parametrize("text", ["a\0b", "\u2028\x1b[31m", "x" * 100_000])
async def test_any_text_of_a_client_gets_through_the_mailbox(text: str) -> None:
    async with site() as it:
        it.work()
        session = await new_session(it.client)
        path = f"/sessions/{session}/prompts"
        read = await it.client.post(path, {"text": f"{text} hello"}, STREAM)
        assert read.data[-1]["reason"] == "completed"
        async with it.client.open("POST", path, {"text": "please wait"}, STREAM) as reply:
            await reply.until(b"tool_call_started")
            assert (await it.other.post(f"/sessions/{session}/stop", {"detail": text})).status == 202
            await reply.until(b'"reason":"cancelled"')
        assert reply.data[-1]["detail"] == text


async def test_a_prompt_in_the_place_of_answers_stops_the_run_that_waits_for_them() -> None:
    async with site() as it:
        it.work()
        session = await new_session(it.client)
        path = f"/sessions/{session}/prompts"
        assert (await it.client.post(path, {"text": "please pay"}, STREAM)).data[-1]["reason"] == "needs_input"
        again = await it.client.post(path, {"text": "hello"}, STREAM)
        assert again.data[-1]["reason"] == "completed"
        whole = (await it.client.get(f"/sessions/{session}/events?follow=0")).data
        reasons = [event["reason"] for event in of_type(whole, "stream_stopped")]
        assert reasons == ["needs_input", "cancelled", "completed"]


@pytest.mark.seconds(120)
async def test_a_prompt_that_no_worker_begins_is_withdrawn() -> None:
    async with site() as it:
        session = await new_session(it.client)
        path = f"/sessions/{session}/prompts"
        replies: list[Reply] = []

        async def send() -> None:
            replies.append(await it.client.post(path, {"text": "hello"}))

        it.nursery.start_soon(send)
        await trio.sleep(1)
        assert (await it.other.get(f"/sessions/{session}")).json["state"] == "running"
        assert (await it.other.post(path, {"text": "hello"})).status == 409
        await trio.sleep(30)
        assert [reply.status for reply in replies] == [503]
        assert "no worker" in replies[0].message
        it.work()
        await trio.sleep(2)
        assert await it.store.info(session) is None


async def test_a_prompt_that_is_stopped_while_it_waits_for_a_worker_runs_nothing() -> None:
    async with site() as it:
        session = await new_session(it.client)
        replies: list[Reply] = []

        async def send() -> None:
            replies.append(await it.client.post(f"/sessions/{session}/prompts", {"text": "hello"}))

        it.nursery.start_soon(send)
        await trio.sleep(1)
        assert (await it.other.post(f"/sessions/{session}/stop", {})).json["stopped"]
        it.work()
        await trio.sleep(2)
        assert [reply.status for reply in replies] == [503]
        assert await it.store.info(session) is None


async def test_a_run_has_no_steering_and_a_server_without_workers_says_so() -> None:
    async with site() as it:
        it.work()
        session = await new_session(it.client)
        async with it.client.open("POST", f"/sessions/{session}/prompts", {"text": "please wait"}, STREAM) as reply:
            await reply.until(b"tool_call_started")
            refused = await it.client.post(f"/sessions/{session}/messages", {"text": "hurry"})
            assert refused.status == 409
            assert "workers run the agents" in refused.message


async def test_a_server_that_leaves_ends_no_run() -> None:
    memory = MemoryStore()
    async with memory.open() as store, trio.open_nursery() as nursery:
        nursery.start_soon(Worker(store, make_agent()).run)
        served = app(make_agent(), store=memory, enqueue=True)
        async with served.running():
            client = Client(served)
            session = await new_session(client)
            assert (await client.post(f"/sessions/{session}/prompts", {"text": "please wait"})).status == 202
            await served.drain(0.5)
            assert (await client.post(f"/sessions/{session}/prompts", {"text": "please wait"})).status == 503
        read = [event async for event in follow_session(store, session, if_cut_off="wait")]
        assert getattr(read[-1], "reason", "") == "completed"
        nursery.cancel_scope.cancel()


async def test_a_session_that_is_deleted_while_it_is_read_ends_the_reading(caplog: pytest.LogCaptureFixture) -> None:
    agent, is_writing = hesitant()
    async with site(agent) as it:
        worker = it.work(agent)
        session = await new_session(it.client)
        path = f"/sessions/{session}/prompts"
        async with it.client.open("POST", path, {"text": "What is it?"}, STREAM) as reply:
            await is_writing.wait()
            worker.kill()
            await trio.sleep(4)
            await it.store.delete(session)
            while not reply.is_whole:
                await trio.sleep(0.1)
        assert "cannot be read" in caplog.text


def test_a_server_that_enqueues_needs_a_store_and_gives_no_deps() -> None:
    with pytest.raises(UsageError, match="give it store="):
        app(make_agent(), enqueue=True)
    with pytest.raises(UsageError, match="give deps= to the workers"):
        app(make_agent(), store=MemoryStore(), enqueue=True, deps=lambda principal: principal)


class _WithoutMailboxes:
    """A store of somebody's own."""

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[OpenStore]:
        async with MemoryStore().open() as store:
            yield Fence(store)


async def test_a_store_without_mailboxes_is_refused() -> None:
    served = app(make_agent(), store=_WithoutMailboxes(), enqueue=True)
    with pytest.raises(UsageError, match="no mailboxes"):
        async with served.running():
            pass


# ----------------------------------------------------------------------------- protocols


AG_UI = {"threadId": "t", "runId": "r", "messages": [{"id": "1", "role": "user", "content": "What is it?"}]}
VERCEL = {"id": "t", "messages": [{"id": "1", "role": "user", "parts": [{"type": "text", "text": "What is it?"}]}]}
CHAT = {"model": "assistant", "messages": [{"role": "user", "content": "What is it?"}], "stream": True}
RESPONSES = {"model": "assistant", "input": "What is it?", "stream": True}


@pytest.mark.parametrize(
    ("path", "body", "begin", "end", "whole"),
    [
        ("/ag-ui", AG_UI, "RUN_STARTED", "RUN_FINISHED", "The answer is 42."),
        ("/vercel", VERCEL, "start", "finish", "The answer is 42."),
        ("/v1/chat/completions", CHAT, None, None, "The answer is 42."),
        ("/v1/responses", RESPONSES, "response.created", "response.completed", "The answer is 42."),
    ],
)
async def test_a_client_sees_one_run_though_another_worker_takes_it_over(
    path: str, body: Any, begin: str | None, end: str | None, whole: str
) -> None:
    agent, is_writing = hesitant()
    async with site(agent) as it:
        first = it.work(agent)
        async with it.client.open("POST", path, body) as reply:
            await is_writing.wait()
            await trio.sleep(0.5)
            first.kill()
            it.work(agent)
            while not reply.is_whole:
                await trio.sleep(0.1)
        types = [event.get("type") for event in reply.data]
        if begin is not None:
            assert types.count(begin) == 1, types
            assert types.count(end) == 1, types
            assert types[-1] == end
        assert whole.rsplit(maxsplit=1)[-1] in reply.body.decode().replace('","', "")
        assert b"interrupted" not in reply.body, reply.body


async def test_a_protocol_without_questions_gets_an_answer_though_the_tool_was_refused() -> None:
    async with site() as it:
        it.work()
        body = {**CHAT, "messages": [{"role": "user", "content": "please pay"}], "stream": False}
        reply = await it.client.post("/v1/chat/completions", body)
        assert reply.status == 200, reply.body
        assert "The result is" in reply.json["choices"][0]["message"]["content"]
        assert "paid" not in reply.body.decode()


async def test_a_run_whose_client_goes_away_is_stopped_in_its_worker() -> None:
    async with site() as it:
        it.work()
        body = {**VERCEL, "messages": [{"id": "1", "role": "user", "parts": [{"type": "text", "text": "wait"}]}]}
        async with it.client.open("POST", "/vercel", body) as reply:
            await reply.until(b"tool-input-available")
            async with it.other.open("GET", "/vercel/t/stream") as attached:
                await attached.until(b"tool-input-available")
        await trio.sleep(2)
        (info,) = await it.store.sessions()
        (stopped,) = await it.store.read(info.id, kinds=["stream_stopped"])
        assert b"cancelled" in stopped.data
        assert (await it.client.get("/vercel/t/stream")).status == 204


async def test_an_approval_of_ag_ui_ends_the_run_and_the_next_request_resumes_it_elsewhere() -> None:
    async with site() as it:
        it.work()
        body = {**AG_UI, "messages": [{"id": "1", "role": "user", "content": "please pay"}]}
        asked = await it.client.post("/ag-ui", body)
        (interrupt,) = asked.data[-1]["outcome"]["interrupts"]
        answers = [{"interruptId": interrupt["id"], "status": "resolved", "payload": {"approved": True}}]
        resumed = await it.other.post("/ag-ui", {**AG_UI, "runId": "r2", "messages": [], "resume": answers})
        assert resumed.data[-1]["outcome"] == {"type": "success"}
        assert "paid 5" in resumed.body.decode()


def a2a(method: str, params: Any) -> Any:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


def message(text: str, **fields: Any) -> Any:
    return {"message": {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": text}], **fields}}


async def call_a2a(client: Client, method: str, params: Any) -> Any:
    reply = await client.post("/a2a", a2a(method, params), {"a2a-version": "1.0"})
    assert "result" in reply.json, reply.json
    return reply.json["result"]


async def test_a_task_of_a2a_is_read_answered_and_cancelled_through_any_server() -> None:
    async with site() as it:
        it.work()
        task = (await call_a2a(it.client, "SendMessage", message("please pay")))["task"]
        assert task["status"]["state"] == "TASK_STATE_INPUT_REQUIRED"
        answered = await call_a2a(it.other, "SendMessage", message("approve", taskId=task["id"]))
        assert answered["task"]["status"]["state"] == "TASK_STATE_COMPLETED"
        params = {**message("please wait"), "configuration": {"returnImmediately": True}}
        task = (await call_a2a(it.client, "SendMessage", params))["task"]
        assert task["status"]["state"] == "TASK_STATE_WORKING"
        cancelled = await call_a2a(it.other, "CancelTask", {"id": task["id"]})
        assert cancelled["status"]["state"] == "TASK_STATE_CANCELED"
        task = (await call_a2a(it.client, "SendMessage", message("please pay")))["task"]
        cancelled = await call_a2a(it.other, "CancelTask", {"id": task["id"]})
        assert cancelled["status"]["state"] == "TASK_STATE_CANCELED"
        read = await call_a2a(it.client, "GetTask", {"id": task["id"]})
        assert read["status"]["state"] == "TASK_STATE_CANCELED"


async def test_a_tool_of_mcp_runs_in_a_worker_and_says_that_its_run_waits() -> None:
    pytest.importorskip("mcp")
    async with site() as it:
        it.work()
        mcp = it.mcp
        session = await legacy_session(mcp)
        called = await mcp.post("/mcp", legacy_call(1, "please add"), session)
        assert last_message(called)["result"]["content"][0]["text"] == "The result is 5."
        called = await mcp.post("/mcp", legacy_call(2, "please pay"), session)
        result = last_message(called)["result"]
        assert result["isError"]
        assert "Its run is parked" in result["content"][0]["text"]


class Order(msgspec.Struct):
    item: str
    count: int


async def test_structured_output_of_a_worker_comes_as_a_value() -> None:
    pytest.importorskip("mcp")
    agent: Agent[Any, Any] = Agent(
        FunctionModel(lambda request: '{"item": "tea", "count": 2}'), name="assistant", output_type=Order
    )
    async with site(agent) as it:
        it.work(agent)
        mcp = it.mcp
        session = await legacy_session(mcp)
        called = await mcp.post("/mcp", legacy_call(1, "Order tea."), session)
        assert last_message(called)["result"]["structuredContent"] == {"item": "tea", "count": 2}


# ---------------------------------------------------------------------------- the command


def test_the_command_serves_an_app_that_enqueues(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    ran: list[ServedApp] = []

    async def run(served: ServedApp, **options: object) -> None:
        async with served.running() as runs:
            assert isinstance(runs, EnqueuedRuns)
        ran.append(served)

    monkeypatch.setattr("agentloop.serving._command.run", run)
    database = str(tmp_path / "chats.db")
    assert main(["serve", "agentloop.demo:agents", "--enqueue", database]) == 0
    assert len(ran) == 1
    assert main(["serve", "agentloop.demo:agents", "--enqueue", database, "--store", database]) == 2
    assert "leave --store out" in capsys.readouterr().err


# ------------------------------------------------------------------------------- the seams

ROOT = Source("s", "s/1", ("assistant",))
CHILD = Source("s", "s/2", ("assistant", "helper"), "s/1")


def join(*events: StreamEvent) -> list[str]:
    """The kinds of the events that an encoder gets."""
    seams = Seams()
    joined = [event for each in events for event in seams.join(each)]
    return [type(event).__name__ for event in [*joined, *seams.rest()]]


def begin(resumes: str = "") -> StreamEvent:
    return StreamStarted(ROOT, 1, message=user_message("Hi."), model="m", resumes=resumes)


def turn(number: int) -> StreamEvent:
    return TurnStarted(ROOT, 2, turn=number)


def cut(number: int) -> tuple[StreamEvent, StreamEvent]:
    stopped = StreamStopped(ROOT, 5, reason="interrupted")
    return TurnFinished(ROOT, 4, turn=number, reason="interrupted"), stopped


WORDS = TextDelta(ROOT, 3, text="Hel")
CALL = ToolCallStarted(ROOT, 3, call_id="c", name="look", arguments="{}")
DONE = StreamStopped(ROOT, 9, reason="completed")


def test_a_response_that_broke_off_with_its_worker_is_taken_back() -> None:
    joined = join(begin(), turn(1), WORDS, *cut(1), begin("s/1"), turn(2), WORDS, DONE)
    assert joined == [
        "StreamStarted",
        "TurnStarted",
        "TextDelta",
        "ResponseDiscarded",
        "TurnFinished",
        "TurnStarted",
        "TextDelta",
        "StreamStopped",
    ]
    # The next worker died before it had anything of the response.
    joined = join(begin(), turn(1), WORDS, *cut(1), begin("s/1"), turn(2), *cut(2), begin("s/2"), turn(3), DONE)
    assert joined.count("ResponseDiscarded") == 1


def test_a_turn_whose_tools_were_cut_off_continues() -> None:
    joined = join(begin(), turn(1), WORDS, CALL, *cut(1), begin("s/1"), turn(1), CALL, DONE)
    assert joined == ["StreamStarted", "TurnStarted", "TextDelta", "ToolCallStarted", "StreamStopped"]


def test_a_run_that_no_worker_resumes_ends_as_it_was_cut_off() -> None:
    assert join(begin(), turn(1), *cut(1)) == ["StreamStarted", "TurnStarted", "TurnFinished", "StreamStopped"]
    child = TextDelta(CHILD, 6, text="Hel")
    assert join(begin("s/0"), child, DONE) == ["StreamStarted", "TextDelta", "StreamStopped"]
