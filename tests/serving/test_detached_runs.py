"""A run belongs to the server, and a connection is a reader of it."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, cast

import pytest
import trio

from agentloop import Agent, tool
from agentloop.journal import OpenStore, Record, Store
from agentloop.serving import ServedApp, _runs, app
from agentloop.serving._runs import LiveRun, SessionReader
from agentloop.stores import MemoryStore, SQLiteStore
from agentloop.stores._fence import Fence
from agentloop.testing import ScriptedModel, calls, hangs
from tests.serving.support import Client, make_agent, of_type, sse_data


@asynccontextmanager
async def serving(
    agents: Agent | Sequence[Agent] | None = None, **options: Any
) -> AsyncGenerator[tuple[ServedApp, Client]]:
    served = app(make_agent() if agents is None else agents, **options)
    async with served.running():
        yield served, Client(served)


async def new_session(client: Client) -> str:
    session: str = (await client.post("/sessions")).json["id"]
    return session


async def events(client: Client, session: str, after: int = 0) -> list[Any]:
    """The events that there are; if a run goes on, up to its end."""
    return (await client.get(f"/sessions/{session}/events?follow=0&after={after}")).data


def joined(events: list[Any]) -> list[Any]:
    """The events, with consecutive deltas of one text as one: a client that comes back may get them so."""
    whole: list[Any] = []
    for event in events:
        field = {"text_delta": "text", "reasoning_delta": "text", "tool_call_delta": "arguments"}.get(event["type"])
        last = whole[-1] if whole else {}
        if field and last.get("type") == event["type"] and last.get("call_id") == event.get("call_id"):
            whole[-1] = {**event, field: last[field] + event[field]}
        else:
            whole.append(event)
    return whole


async def test_a_prompt_begins_a_run_whose_events_any_client_reads() -> None:
    async with serving() as (_, client):
        session = await new_session(client)
        begun = await client.post(f"/sessions/{session}/prompts", {"text": "please add"})
        assert begun.status == 202
        assert begun.json["session"] == session
        assert begun.json["after"] == 0
        read = await events(client, session)
        assert [event["seq"] for event in read] == list(range(1, len(read) + 1))
        assert read[0]["type"] == "stream_started"
        assert read[-1]["reason"] == "completed"
        [listed] = (await client.get("/sessions")).json["sessions"]
        assert (listed["id"], listed["running"]) == (session, False)


async def test_a_prompt_streams_its_events_to_a_client_that_accepts_them() -> None:
    async with serving() as (_, client):
        session = await new_session(client)
        accept = {"accept": "text/event-stream"}
        first = await client.post(f"/sessions/{session}/prompts", {"text": "please add"}, accept)
        second = await client.post(f"/sessions/{session}/prompts", {"text": "hello"}, accept)
        assert first.headers["content-type"] == "text/event-stream"
        assert second.data[0]["seq"] == first.data[-1]["seq"] + 1
        assert second.data[-1]["type"] == "stream_stopped"


async def test_a_session_has_one_run_at_a_time() -> None:
    async with serving() as (_, client):
        session = await new_session(client)
        await client.post(f"/sessions/{session}/prompts", {"text": "please wait"})
        refused = await client.post(f"/sessions/{session}/prompts", {"text": "hello"})
        assert refused.status == 409
        assert refused.message.endswith("has a run already: read it, answer its questions, stop it, or wait")
        assert (await client.request("DELETE", f"/sessions/{session}")).status == 409
        assert (await client.get(f"/sessions/{session}")).json["state"] == "running"
        await events(client, session)
        assert (await client.post(f"/sessions/{session}/prompts", {"text": "hello"})).status == 202


async def test_a_run_continues_when_its_client_goes_away_and_another_reads_it_from_event_n() -> None:
    async with serving() as (_, client):
        session = await new_session(client)
        await client.post(f"/sessions/{session}/prompts", {"text": "please wait"})
        async with client.open("GET", f"/sessions/{session}/events") as reply:
            await reply.until(b"tool_call_started")
            seen = reply.data
        rest = await events(client, session, seen[-1]["seq"])
        assert joined([*seen, *rest]) == joined(await events(client, session))
        assert of_type(rest, "tool_call_finished")[0]["result"]["parts"][0]["text"] == "waited"


@pytest.mark.parametrize("policy", ["stop", "continue"])
async def test_a_run_ends_with_its_last_reader_only_if_the_policy_is_to_stop(policy: Any) -> None:
    async with serving(on_disconnect=policy) as (_, client):
        session = await new_session(client)
        await client.post(f"/sessions/{session}/prompts", {"text": "please wait"})
        async with client.open("GET", f"/sessions/{session}/events") as first:
            async with client.open("GET", f"/sessions/{session}/events") as second:
                await first.until(b"tool_call_started")
                await second.until(b"tool_call_started")
            await trio.sleep(1)
            assert b"stream_stopped" not in first.body
        last = (await events(client, session))[-1]
        assert (last["reason"], last["detail"]) == (
            ("cancelled", "the client went away") if policy == "stop" else ("completed", "")
        )


async def test_a_run_is_stopped_whose_client_went_away_before_the_head_of_the_response() -> None:
    async with serving() as (served, _):

        async def headless(scope: Any, receive: Any, send: Any) -> None:
            async def cut(message: Any) -> None:
                raise OSError("the client has closed its connection")

            with suppress(OSError):
                await served(scope, receive, cut)

        message = {"role": "user", "parts": [{"type": "text", "text": "please wait"}]}
        async with Client(cast("ServedApp", headless)).open("POST", "/vercel", {"id": "chat", "messages": [message]}):
            await trio.sleep(1)
            assert not served._service.runs._live
        [info] = await served._service.runs.store.sessions()
        last = (await events(Client(served), info.id))[-1]
        assert (last["reason"], last["detail"]) == ("cancelled", "the client went away")


async def test_an_open_connection_gets_the_events_of_the_next_run_too() -> None:
    async with serving() as (_, client):
        session = await new_session(client)
        async with client.open("GET", f"/sessions/{session}/events") as reply:
            for number in (1, 2):
                await trio.sleep(1)
                await client.post(f"/sessions/{session}/prompts", {"text": f"number {number}"})
                await reply.until(b"number %d" % number)
            await trio.sleep(1)
            assert len(of_type(reply.data, "stream_stopped")) == 2


@pytest.mark.seconds(100)
async def test_a_connection_on_which_nothing_comes_gets_a_comment() -> None:
    async with serving() as (_, client):
        session = await new_session(client)
        async with client.open("GET", f"/sessions/{session}/events") as reply:
            await trio.sleep(31)
            assert reply.body.count(b": nothing new\n\n") == 2


async def test_a_question_is_answered_while_its_run_waits() -> None:
    async with serving() as (_, client):
        session = await new_session(client)
        await client.post(f"/sessions/{session}/prompts", {"text": "please pay"})
        async with client.open("GET", f"/sessions/{session}/events") as reply:
            await reply.until(b"approval_requested")
            [question] = of_type(reply.data, "approval_requested")
            assert (await client.get(f"/sessions/{session}")).json["questions"] == [question]
            answers = {question["id"]: {"type": "approve"}}
            assert (await client.post(f"/sessions/{session}/answers", {"answers": answers})).status == 202
            await reply.until(b"stream_stopped")
            # A question is answered once.
            assert (await client.post(f"/sessions/{session}/answers", {"answers": answers})).status == 409
            assert of_type(reply.data, "tool_call_finished")[0]["result"]["parts"][0]["text"] == "paid 5"


async def test_an_answer_that_does_not_fit_is_refused_and_the_question_stays_open() -> None:
    async with serving() as (_, client):
        session = await new_session(client)
        await client.post(f"/sessions/{session}/prompts", {"text": "please survey"})
        async with client.open("GET", f"/sessions/{session}/events") as reply:
            await reply.until(b"elicitation_requested")
            [question] = of_type(reply.data, "elicitation_requested")
            path = f"/sessions/{session}/answers"
            wrong = await client.post(path, {"answers": {question["id"]: {"type": "accept", "content": {"color": 3}}}})
            assert wrong.status == 422
            assert (await client.post(path, {"answers": {}})).status == 400
            right = {question["id"]: {"type": "accept", "content": {"color": "red"}}}
            assert (await client.post(path, {"answers": right})).status == 202
            await reply.until(b"stream_stopped")


async def test_of_several_answers_none_counts_if_one_is_refused() -> None:
    async with serving() as (_, client):
        session = await new_session(client)
        await client.post(f"/sessions/{session}/prompts", {"text": "please do both"})
        async with client.open("GET", f"/sessions/{session}/events") as reply:
            await reply.until(b"elicitation_requested")
            await reply.until(b"approval_requested")
            [payment], [survey] = (of_type(reply.data, f"{kind}_requested") for kind in ("approval", "elicitation"))
            path, approve = f"/sessions/{session}/answers", {payment["id"]: {"type": "approve"}}
            for wrong, status in (
                ({survey["id"]: {"type": "accept", "content": {"color": 3}}}, 422),
                ({"other": {"type": "deny"}}, 409),
            ):
                assert (await client.post(path, {"answers": approve | wrong})).status == status
                assert len((await client.get(f"/sessions/{session}")).json["questions"]) == 2
            right = {survey["id"]: {"type": "accept", "content": {"color": "red"}}}
            assert (await client.post(path, {"answers": approve | right})).status == 202
            await reply.until(b"stream_stopped")


@pytest.mark.seconds(100)
async def test_a_run_whose_question_is_not_answered_in_time_is_parked_and_resumed_by_the_answer() -> None:
    async with serving(park_after=20) as (_, client):
        session = await new_session(client)
        await client.post(f"/sessions/{session}/prompts", {"text": "please pay"})
        await trio.sleep(30)
        found = (await client.get(f"/sessions/{session}")).json
        assert found["state"] == "parked"
        [question] = found["questions"]
        answers = {question["id"]: {"type": "deny", "reason": "too much"}}
        resumed = await client.post(f"/sessions/{session}/answers", {"answers": answers})
        assert resumed.status == 202
        read = await events(client, session)
        assert [event["reason"] for event in of_type(read, "stream_stopped")] == ["needs_input", "completed"]
        assert of_type(read, "tool_call_finished")[0]["result"]["status"] == "denied"


@pytest.mark.seconds(100)
async def test_a_parked_run_is_resumed_by_the_agent_that_ran_whatever_clients_call_it() -> None:
    served = app({"first": Agent(ScriptedModel("I am another one.")), "clerk": make_agent()}, park_after=20)
    async with served.running():
        client = Client(served)
        session = await new_session(client)
        await client.post(f"/sessions/{session}/prompts", {"text": "please pay", "agent": "clerk"})
        await trio.sleep(30)
        [question] = (await client.get(f"/sessions/{session}")).json["questions"]
        answers = {question["id"]: {"type": "approve"}}
        assert (await client.post(f"/sessions/{session}/answers", {"answers": answers})).status == 202
        # The prompt that names no agent goes to the one that ran last.
        await trio.sleep(1)
        assert (await client.post(f"/sessions/{session}/prompts", {"text": "hello"})).status == 202
        agents = {event["source"]["agents"][0] for event in await events(client, session)}
        assert agents == {make_agent().name}


async def test_a_live_run_is_steered_and_stopped() -> None:
    async with serving() as (_, client):
        session = await new_session(client)
        assert (await client.post(f"/sessions/{session}/messages", {"text": "more"})).status == 409
        assert (await client.post(f"/sessions/{session}/stop")).json["stopped"] is False
        await client.post(f"/sessions/{session}/prompts", {"text": "please wait"})
        await trio.sleep(1)
        assert (await client.post(f"/sessions/{session}/messages", {"text": "more"})).status == 202
        assert (await client.post(f"/sessions/{session}/messages", {"text": "later", "when": "end"})).status == 202
        await trio.sleep(5)
        await client.post(f"/sessions/{session}/prompts", {"text": "please wait"})
        await trio.sleep(1)
        stopped = await client.post(f"/sessions/{session}/stop", {"detail": "enough"})
        assert stopped.json["stopped"] is True
        read = await events(client, session)
        prompts = [event["message"] for event in of_type(read, "message_committed")]
        texts = [prompt["parts"][0]["text"] for prompt in prompts if prompt["type"] == "user"]
        assert texts == ["please wait", "more", "later", "please wait"]
        assert (read[-1]["reason"], read[-1]["detail"]) == ("cancelled", "enough")


@pytest.mark.seconds(2000)
async def test_a_live_run_is_paused_and_resumed() -> None:
    async with serving() as (_, client):
        session = await new_session(client)
        assert (await client.post(f"/sessions/{session}/pause")).status == 409
        await client.post(f"/sessions/{session}/prompts", {"text": "please wait"})
        await trio.sleep(1)
        assert (await client.post(f"/sessions/{session}/pause")).json["paused"] is True
        await trio.sleep(60)
        looked = (await client.get(f"/sessions/{session}")).json
        assert (looked["state"], looked["paused"]) == ("running", True)
        assert (await client.post(f"/sessions/{session}/resume")).status == 202
        await trio.sleep(60)
        looked = (await client.get(f"/sessions/{session}")).json
        assert (looked["state"], looked["paused"]) == ("idle", False)
        kinds = [event["type"] for event in await events(client, session)]
        assert kinds.index("paused") < kinds.index("resumed") < kinds.index("stream_stopped")


@pytest.mark.seconds(2000)
async def test_a_run_that_is_paused_for_long_is_parked_and_can_be_resumed() -> None:
    async with serving() as (_, client):
        session = await new_session(client)
        await client.post(f"/sessions/{session}/prompts", {"text": "please wait"})
        await trio.sleep(1)
        await client.post(f"/sessions/{session}/pause")
        await trio.sleep(1000)
        # Whoever follows the session resumes a run that was cut off, and not this one.
        async with client.open("GET", f"/sessions/{session}/events"):
            await trio.sleep(100)
            assert (await client.get(f"/sessions/{session}")).json["state"] == "parked"
        assert (await client.post(f"/sessions/{session}/resume")).status == 202
        await trio.sleep(60)
        assert (await client.get(f"/sessions/{session}")).json["state"] == "idle"
        assert (await events(client, session))[-1]["reason"] == "completed"


async def test_a_client_chooses_a_model_that_the_server_offers_and_the_session_keeps_it() -> None:
    quick = ScriptedModel("Quick.", "Quick again.")
    quick.name = "quick"
    async with serving(models={"fast": quick, "plain": "openai:gpt-4o", "deep": "openai:gpt-5"}) as (_, client):
        offered = {model["name"]: model for model in (await client.get("/models")).json["models"]}
        assert list(offered) == ["fast", "plain", "deep"]
        assert offered["plain"]["efforts"] == []
        assert "high" in offered["deep"]["efforts"]
        session = await new_session(client)
        path = f"/sessions/{session}/prompts"
        assert (await client.post(path, {"text": "hello", "model": "other"})).status == 404
        refused = await client.post(path, {"text": "hello", "model": "plain", "reasoning_effort": "high"})
        assert (refused.status, "does not think" in refused.message) == (400, True)
        assert (await client.post(path, {"text": "hello", "reasoning_effort": "high"})).status == 400
        await client.post(path, {"text": "hello", "model": "fast"})
        await trio.sleep(1)
        await client.post(path, {"text": "hello"})
        await trio.sleep(1)
        await client.post(path, {"text": "hello", "model": ""})
        await trio.sleep(1)
        read = await events(client, session)
        models = [event["model"] for event in of_type(read, "usage_reported")]
        assert models[:2] == ["quick", "quick"]
        assert models[2] != "quick"


async def test_a_server_offers_no_models_by_itself() -> None:
    async with serving() as (_, client):
        assert (await client.get("/models")).json == {"models": []}
        session = await new_session(client)
        refused = await client.post(f"/sessions/{session}/prompts", {"text": "hello", "model": "openai:gpt-5"})
        assert refused.status == 404


async def test_sessions_are_named_listed_in_pages_and_deleted() -> None:
    async with serving() as (_, client):
        sessions = []
        for number in range(3):
            sessions.append(await new_session(client))
            await client.post(f"/sessions/{sessions[-1]}/prompts", {"text": f"number {number}"})
            await trio.sleep(1)
        assert (await client.request("PATCH", f"/sessions/{sessions[0]}", {"title": "First"})).status == 200
        first = (await client.get("/sessions?limit=2")).json["sessions"]
        rest = (await client.get(f"/sessions?limit=2&before={first[-1]['id']}")).json["sessions"]
        assert [info["id"] for info in first + rest] == sessions[::-1]
        assert rest[0]["title"] == "First"
        assert (await client.get("/sessions?search=NUMBER+1")).json["sessions"][0]["id"] == sessions[1]
        assert (await client.request("DELETE", f"/sessions/{sessions[0]}")).status == 204
        assert len((await client.get("/sessions")).json["sessions"]) == 2


# --------------------------------------------------------------------- what lasts for long


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MemoryStore() if request.param == "memory" else SQLiteStore(str(tmp_path / "chats.db"))


@pytest.mark.real_clock
async def test_after_a_restart_the_stream_continues_from_event_n_and_the_question_is_open(tmp_path: Path) -> None:
    path = str(tmp_path / "chats.db")
    async with serving(store=SQLiteStore(path)) as (served, client):
        session = await new_session(client)
        await client.post(f"/sessions/{session}/prompts", {"text": "please pay"})
        async with client.open("GET", f"/sessions/{session}/events") as reply:
            await reply.until(b"approval_requested")
            seen = reply.data
            await served.drain(5)
    assert seen[-1]["type"] == "approval_requested"
    async with serving(store=SQLiteStore(path)) as (_, client):
        found = (await client.get(f"/sessions/{session}")).json
        assert (found["state"], found["questions"]) == ("parked", [seen[-1]])
        async with client.open(
            "GET", f"/sessions/{session}/events", headers={"last-event-id": str(seen[-1]["seq"])}
        ) as reply:
            await reply.until(b"needs_input")
            answers = {seen[-1]["id"]: {"type": "approve"}}
            assert (await client.post(f"/sessions/{session}/answers", {"answers": answers})).status == 202
            await reply.until(b'"reason":"completed"')
            assert joined([*seen, *reply.data]) == joined(await events(client, session))


@pytest.mark.real_clock
async def test_a_run_that_was_cut_off_is_resumed_for_the_client_that_reads_it(store: Store) -> None:
    effects = []

    @tool
    async def transfer() -> str:
        """Transfer."""
        effects.append("transfer")
        return "transferred"

    first = Agent(ScriptedModel(calls("transfer"), hangs()), name="assistant", tools=[transfer])
    second = Agent(ScriptedModel("All done."), name="assistant", tools=[transfer])
    async with serving(first, store=store) as (_, client):
        session = await new_session(client)
        await client.post(f"/sessions/{session}/prompts", {"text": "go"})
        async with client.open("GET", f"/sessions/{session}/events") as reply:
            await reply.until(b'"turn":2')
            seen = reply.data
        # The server leaves without a drain.
    path = f"/sessions/{session}/events?after={seen[-1]['seq']}"
    async with serving(second, store=store) as (_, client), client.open("GET", path) as reply:
        await reply.until(b'"reason":"completed"')
        reasons = [event["reason"] for event in of_type(reply.data, "stream_stopped")]
        assert reasons == ["interrupted", "completed"]
        assert of_type(reply.data, "stream_started")[0]["resumes"] == seen[0]["source"]["stream"]
    assert effects == ["transfer"]


@pytest.mark.seconds(100)
async def test_a_server_that_drains_begins_no_run_and_lets_the_others_finish() -> None:
    async with serving() as (served, client):
        session, other = await new_session(client), await new_session(client)
        await client.post(f"/sessions/{session}/prompts", {"text": "please wait"})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(served.drain, 20)
            await trio.sleep(1)
            refused = await client.post(f"/sessions/{other}/prompts", {"text": "hello"})
            assert (refused.status, refused.headers["retry-after"]) == (503, "5")
            assert (await events(client, session))[-1]["reason"] == "completed"
        assert 4 < trio.current_time() < 20


@pytest.mark.seconds(100)
async def test_a_drain_ends_at_its_deadline_and_the_run_can_be_resumed() -> None:
    store = MemoryStore()
    async with serving(Agent(ScriptedModel(hangs()), name="assistant"), store=store) as (served, client):
        session = await new_session(client)
        await client.post(f"/sessions/{session}/prompts", {"text": "go"})
        began = trio.current_time()
        await served.drain(20)
        assert trio.current_time() - began == pytest.approx(20)
    async with serving(Agent(ScriptedModel("Done."), name="assistant"), store=store) as (_, client):
        assert (await client.get(f"/sessions/{session}")).json["state"] == "interrupted"
        assert (await client.post(f"/sessions/{session}/resume")).status == 202
        assert (await events(client, session))[-1]["reason"] == "completed"


@pytest.mark.parametrize("step", [101, pytest.param(1, marks=[pytest.mark.nightly, pytest.mark.seconds(1000)])])
async def test_a_client_that_is_cut_off_at_any_byte_gets_every_event_once(step: int) -> None:
    async with serving() as (_, client):
        session = await new_session(client)
        await client.post(f"/sessions/{session}/prompts", {"text": "please add"})
        await events(client, session)
        path = f"/sessions/{session}/events?follow=0"
        whole = await client.get(path)
        rests: dict[str, list[Any]] = {}
        frames = -1
        for cut in range(1, len(whole.body)):
            seen = whole.body[:cut]
            if cut % step == 0:
                async with client.open("GET", path, cut_after=cut) as reply:
                    while not reply.is_whole:
                        await trio.lowlevel.checkpoint()
                assert reply.body == seen
            if seen.count(b"\n\n") == frames:
                # The client knows no more than it did one byte before.
                continue
            frames = seen.count(b"\n\n")
            # As a browser does: a frame without its end does not count.
            ids = [line for line in seen.rpartition(b"\n\n")[0].split(b"\n") if line.startswith(b"id: ")]
            last = ids[-1].removeprefix(b"id: ").decode() if ids else "0"
            if last not in rests:
                rests[last] = (await client.get(path, {"last-event-id": last})).data
            events_of_prefix = [json.loads(text) for text in sse_data(seen)]
            assert joined([*events_of_prefix, *rests[last]]) == joined(whole.data), f"cut after byte {cut}"


@pytest.mark.seconds(100)
async def test_a_run_that_ignores_its_cancellation_is_named_in_the_log_of_a_server_that_leaves(
    caplog: pytest.LogCaptureFixture,
) -> None:
    effects: list[str] = []

    @tool
    async def stubborn() -> str:
        """Ignore that the run is cancelled."""
        with trio.CancelScope(shield=True):
            await trio.sleep(30)
        effects.append("late")
        return "late"

    store = MemoryStore()
    agent = Agent(ScriptedModel(calls("stubborn"), "Done."), name="assistant", tools=[stubborn])
    async with serving(agent, store=store) as (served, client):
        session = await new_session(client)
        await client.post(f"/sessions/{session}/prompts", {"text": "go"})
        await trio.sleep(1)
        await served.drain(5)
        left = trio.current_time()
    assert trio.current_time() - left > 20
    assert caplog.text.count("its run ignores its cancellation, and the server waits for it") == 1
    # The next server does not know whether the call took effect, and does not repeat it.
    async with serving(Agent(ScriptedModel("Done."), name="assistant", tools=[stubborn]), store=store) as (_, client):
        read = await events(client, session)
        assert read[-1]["reason"] == "completed"
        assert of_type(read, "tool_call_finished")[0]["result"]["status"] != "ok"
    assert effects == ["late"]


async def test_a_client_that_is_cut_off_again_and_again_in_a_live_run_gets_every_event_once() -> None:
    async with serving() as (_, client):
        # Long enough for any one event, so that each connection brings something new.
        for cut in range(1_000, 2_000, 151):
            session = await new_session(client)
            await client.post(f"/sessions/{session}/prompts", {"text": "please add"})
            seen: list[Any] = []
            while not of_type(seen, "stream_stopped"):
                path = f"/sessions/{session}/events?after={seen[-1]['seq'] if seen else 0}"
                async with client.open("GET", path, cut_after=cut) as reply:
                    while not reply.is_whole:
                        await trio.sleep(0.01)
                        if b"stream_stopped" in reply.body and reply.body.endswith(b"\n\n"):
                            break
                assert reply.data
                seen += reply.data
            assert joined(seen) == joined(await events(client, session)), f"cut after {cut} bytes"


async def test_a_reader_takes_the_events_of_the_store_in_batches_of_limited_length(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serving() as (served, client):
        session = await new_session(client)
        await client.post(f"/sessions/{session}/prompts", {"text": "please add"})
        await events(client, session)
        # As the store has them: deltas that follow each other are one event there.
        whole = await events(client, session)
        reader = SessionReader(served._service.runs, session, 0)
        entries = await reader.next()
        assert [entry.event.seq for entry in entries] == [event["seq"] for event in whole]
        assert not await reader.next()
        monkeypatch.setattr(_runs, "BATCH_BYTES", 600)
        reader, batches = SessionReader(served._service.runs, session, 0), list[Sequence[_runs.Entry]]()
        while entries := await reader.next():
            batches.append(entries)
        assert 2 < len(batches) < len(whole)
        assert [entry.event.seq for batch in batches for entry in batch] == [event["seq"] for event in whole]


async def test_a_reader_that_lags_far_behind_gets_the_rest_of_its_own_run_and_nothing_of_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_runs, "KEPT_EVENTS", 4)
    async with serving() as (served, client):
        runs = served._service.runs
        session = await new_session(client)
        await client.post(f"/sessions/{session}/prompts", {"text": "please add"})
        run = runs.live(session)
        assert run is not None
        lagging = SessionReader(runs, session, run.begin)
        while not run.is_closed:
            await run.news()
        assert run.dropped > run.begin
        await client.post(f"/sessions/{session}/prompts", {"text": "please wait"})
        read: list[Any] = []
        while entries := await lagging.next(run):
            read += [json.loads(entry.frame.partition(b"data: ")[2]) for entry in entries]
        assert len(of_type(read, "stream_started")) == 1
        assert read[-1]["type"] == "stream_stopped"
        # Those who read the whole session get both runs.
        assert joined(await events(client, session))[: len(joined(read))] == joined(read)


async def test_many_runs_keep_no_more_events_together_than_memory_allows_and_their_readers_get_every_event(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_runs, "ALL_KEPT_BYTES", 60_000)
    async with serving() as (served, client), AsyncExitStack() as stack:
        runs = served._service.runs
        kept: list[LiveRun] = []
        for number in range(10):
            session = await new_session(client)
            await client.post(f"/sessions/{session}/prompts", {"text": "please add" if number % 2 else "please wait"})
            run = runs.live(session)
            assert run is not None
            stack.enter_context(run.reading())
            kept.append(run)
            while not (run.is_closed or run.stream is None or run.last > 5):
                await run.news()
            assert sum(run.size for run in kept) <= 60_000
        for run in kept:
            while not run.is_closed:
                await run.news()
            # Runs that have ended count, as long as they have readers.
            assert sum(run.size for run in kept) <= 60_000
        assert sum(run.dropped > run.begin for run in kept) >= 5
        for run in kept:
            reader, numbers = SessionReader(runs, run.session, run.begin), list[int]()
            while entries := await reader.next(run):
                numbers += [entry.event.seq for entry in entries]
            assert numbers == sorted(set(numbers))
            whole = await events(client, run.session)
            assert (numbers[0], numbers[-1]) == (1, whole[-1]["seq"])
    assert not runs._budget._runs
    assert not runs._budget._size


@pytest.mark.seconds(100)
async def test_the_end_of_a_run_costs_its_readers_no_look_at_the_whole_session(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[str] = []
    async with serving() as (served, client), AsyncExitStack() as stack:
        runs = served._service.runs
        session = await new_session(client)
        look = runs.look

        async def counted(session: str) -> Any:
            looks.append(session)
            return await look(session)

        monkeypatch.setattr(runs, "look", counted)
        await client.post(f"/sessions/{session}/prompts", {"text": "please wait"})
        path = f"/sessions/{session}/events"
        replies = [await stack.enter_async_context(client.open("GET", path)) for _ in range(5)]
        for reply in replies:
            await reply.until(b"stream_stopped")
        await trio.sleep(10)
        assert not looks


class SlowStore:
    """A store that reads only when it may."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.reads, self.may_read = trio.Event(), trio.Event()

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[OpenStore]:
        async with self._store.open() as opened:
            fence = Fence(opened)
            read = fence.read

            async def slow_read(session: str, /, **options: Any) -> Sequence[Record]:
                self.reads.set()
                await self.may_read.wait()
                return await read(session, **options)

            fence.read = slow_read  # type: ignore[method-assign]
            yield fence


@pytest.mark.parametrize(("text", "state"), [("hello", "idle"), ("please pay", "parked")])
async def test_a_look_at_a_session_keeps_no_other_process_from_its_next_run(text: str, state: str) -> None:
    memory = MemoryStore()
    slow = SlowStore(memory)
    async with serving(store=memory, park_after=1) as (_, client), serving(store=slow) as (_, onlooker):
        session = await new_session(client)
        await client.post(f"/sessions/{session}/prompts", {"text": text})
        await events(client, session)
        assert (await client.get(f"/sessions/{session}")).json["state"] == state
        async with onlooker.open("GET", f"/sessions/{session}") as reply:
            await slow.reads.wait()
            begun = await client.post(f"/sessions/{session}/prompts", {"text": "hello"})
            assert begun.status == 202
            await events(client, session)
            slow.may_read.set()
            while not reply.is_whole:
                await trio.sleep(0.01)
        assert reply.json["state"] == "idle"


async def test_a_fork_begins_with_the_messages_of_its_session_and_goes_another_way() -> None:
    async with serving() as (_, client):
        session = await new_session(client)
        for text in ("please add", "hello"):
            await client.post(f"/sessions/{session}/prompts", {"text": text}, {"accept": "text/event-stream"})
        whole = await client.post(f"/sessions/{session}/forks")
        assert whole.status == 201
        assert len(await events(client, whole.json["id"])) == len(await events(client, session))
        part = (await client.post(f"/sessions/{session}/forks", {"messages": 4})).json["id"]
        await client.post(f"/sessions/{part}/prompts", {"text": "bye"}, {"accept": "text/event-stream"})
        prompts = [
            event["message"]["parts"][0]["text"] for event in of_type(await events(client, part), "stream_started")
        ]
        assert prompts == ["please add", "bye"]
        kept = [
            event["message"]["parts"][0]["text"] for event in of_type(await events(client, session), "stream_started")
        ]
        assert kept == ["please add", "hello"]
        listed = (await client.get("/sessions")).json["sessions"]
        assert {info["id"] for info in listed} == {session, part, whole.json["id"]}


async def test_a_fork_is_refused_where_there_is_nothing_to_copy_or_a_transcript_would_be_cut_off() -> None:
    async with serving() as (_, client):
        session = await new_session(client)
        assert (await client.post(f"/sessions/{session}/forks")).status == 404
        await client.post(f"/sessions/{session}/prompts", {"text": "please add"}, {"accept": "text/event-stream"})
        assert (await client.post(f"/sessions/{session}/forks", {"messages": 2})).status == 400
        assert (await client.post(f"/sessions/{session}/forks", {"messages": 99})).status == 400
        assert (await client.post("/sessions/another-persons/forks")).status == 404
