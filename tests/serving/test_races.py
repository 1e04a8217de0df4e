"""Requests that meet: two answers, a prompt on a parked run, a deletion, and two servers on one store."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from agentloop.stores import MemoryStore
from tests.serving.support import Client, Reply, of_type
from tests.serving.test_detached_runs import events, new_session, serving


async def at_once(*requests: tuple[Client, str, str, Any]) -> list[Reply]:
    """The replies to requests that are sent at the same time, in their order."""
    replies: dict[int, Reply] = {}

    async def send(number: int, client: Client, method: str, path: str, body: Any) -> None:
        replies[number] = await client.request(method, path, body)

    async with trio.open_nursery() as nursery:
        for number, request in enumerate(requests):
            nursery.start_soon(send, number, *request)
    return [replies[number] for number in range(len(requests))]


async def asked(client: Client, text: str = "please pay") -> tuple[str, str]:
    """A session whose run waits for an approval, and the id of its question."""
    session = await new_session(client)
    await client.post(f"/sessions/{session}/prompts", {"text": text})
    while not (questions := (await client.get(f"/sessions/{session}")).json["questions"]):
        await trio.sleep(0.01)
    return session, questions[0]["id"]


@pytest.mark.seconds(100)
@pytest.mark.parametrize("state", ["running", "parked"])
async def test_of_two_answers_at_once_one_counts(state: str) -> None:
    async with serving(park_after=1) as (_, client):
        session, question = await asked(client)
        if state == "parked":
            await trio.sleep(5)
        path = f"/sessions/{session}/answers"
        approve, deny = ({"answers": {question: {"type": kind}}} for kind in ("approve", "deny"))
        replies = await at_once((client, "POST", path, approve), (client, "POST", path, deny))
        assert sorted(reply.status for reply in replies) == [202, 409]
        read = await events(client, session)
        [finished] = of_type(read, "tool_call_finished")
        assert finished["result"].get("status", "ok") == ("ok" if replies[0].status == 202 else "denied")
        assert read[-1]["reason"] == "completed"
        assert (await client.post(path, approve)).status == 409


@pytest.mark.seconds(100)
async def test_of_several_prompts_at_once_one_begins_a_run() -> None:
    async with serving() as (_, client):
        session = await new_session(client)
        path = f"/sessions/{session}/prompts"
        prompts = [(client, "POST", path, {"text": f"please wait {number}"}) for number in range(5)]
        statuses = [reply.status for reply in await at_once(*prompts)]
        assert sorted(statuses) == [202, 409, 409, 409, 409]
        assert len(of_type(await events(client, session), "stream_started")) == 1


@pytest.mark.seconds(100)
async def test_a_prompt_on_a_parked_run_begins_a_run_and_no_answer_reaches_the_old_one() -> None:
    async with serving(park_after=1) as (_, client):
        session, question = await asked(client)
        await trio.sleep(5)
        assert (await client.get(f"/sessions/{session}")).json["state"] == "parked"
        begun = await client.post(f"/sessions/{session}/prompts", {"text": "hello"})
        assert begun.status == 202
        read = await events(client, session)
        assert read[-1]["reason"] == "completed"
        late = await client.post(f"/sessions/{session}/answers", {"answers": {question: {"type": "approve"}}})
        assert late.status == 409
        paid = [event for event in of_type(read, "tool_call_finished") if event["result"].get("status", "ok") == "ok"]
        assert not paid


@pytest.mark.seconds(100)
async def test_a_session_is_deleted_only_when_no_server_runs_it() -> None:
    store = MemoryStore()
    async with serving(store=store) as (_, client), serving(store=store) as (_, other):
        session, question = await asked(client)
        path = f"/sessions/{session}"
        assert (await client.request("DELETE", path)).status == 409
        assert (await other.request("DELETE", path)).status == 409
        assert (await client.get(path)).json["state"] == "running"
        await client.post(f"{path}/answers", {"answers": {question: {"type": "deny"}}})
        await events(client, session)
        deleted, prompted = await at_once(
            (client, "DELETE", path, None), (client, "POST", f"{path}/prompts", {"text": "hello"})
        )
        assert {deleted.status, prompted.status} <= {202, 204, 409}
        assert 409 in (deleted.status, prompted.status) or (await events(client, session))[0]["seq"] == 1


@pytest.mark.seconds(1000)
async def test_two_servers_on_one_store_run_a_session_one_at_a_time() -> None:
    store = MemoryStore()
    async with serving(store=store, park_after=10) as (_, ann), serving(store=store, park_after=10) as (_, bob):
        session, question = await asked(ann)
        path, answers = f"/sessions/{session}", {"answers": {question: {"type": "approve"}}}
        assert (await bob.get(path)).json["state"] == "elsewhere"
        for target, body in (
            ("prompts", {"text": "hello"}),
            ("answers", answers),
            ("resume", {}),
            ("messages", {"text": "hi"}),
        ):
            refused = await bob.post(f"{path}/{target}", body)
            assert refused.status == 409, target
        assert (await bob.post(f"{path}/stop")).json["stopped"] is False
        async with bob.open("GET", f"{path}/events") as reply:
            await reply.until(b"approval_requested")
            # Ann's server parks the run, and both servers get its answer at the same time.
            await reply.until(b"needs_input")
            replies = await at_once(
                (ann, "POST", f"{path}/answers", answers), (bob, "POST", f"{path}/answers", answers)
            )
            assert sorted(reply.status for reply in replies) == [202, 409]
            await reply.until(b'"reason":"completed"')
            assert len(of_type(reply.data, "tool_call_finished")) == 1
        numbers = [event["seq"] for event in reply.data]
        assert numbers == sorted(set(numbers))
