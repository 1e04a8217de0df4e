"""A team behind a server: after a handoff, the session is of the agent that has the conversation, for each protocol."""

from __future__ import annotations

from typing import Any

import trio

from agentloop import Agent, Team, tool
from agentloop.stores import MemoryStore
from agentloop.testing import ScriptedModel, calls
from tests.serving.support import make_agent, of_type
from tests.serving.test_a2a import call, send, state_of, text_of
from tests.serving.test_detached_runs import events, new_session, serving
from tests.serving.test_mcp import accept, connected


@tool(requires_approval=True)
async def refund() -> str:
    """Give money back."""
    return "refunded"


def team(*billing: Any) -> Team[Any, Any]:
    front = Agent(ScriptedModel(calls("handoff", agent="billing")), name="front", handoffs=["billing"])
    return Team(front, Agent(ScriptedModel(*billing), name="billing", tools=[refund]))


async def test_the_next_prompt_goes_to_the_agent_that_has_the_conversation() -> None:
    async with serving([make_agent("first"), team("It is billing.", "Still billing.", "Bye.")]) as (_, client):
        listed = (await client.get("/agents")).json["agents"]
        assert listed == [
            {"name": "first", "members": ["first"]},
            {"name": "front", "members": ["front", "billing"]},
        ]
        session = await new_session(client)
        await client.post(f"/sessions/{session}/prompts", {"text": "I was charged twice.", "agent": "front"})
        read = await events(client, session)
        [handed_off] = of_type(read, "handed_off")
        assert (handed_off["to"], handed_off["source"]["agents"]) == ("billing", ["front"])
        await client.post(f"/sessions/{session}/prompts", {"text": "Thank you."})
        more = await events(client, session, read[-1]["seq"])
        assert not of_type(more, "handed_off")
        assert more[-1]["source"]["agents"] == ["billing"]
        # The page names the agent that it shows.
        body = {"text": "Bye.", "agent": "billing"}
        assert (await client.post(f"/sessions/{session}/prompts", body)).status == 202
        assert (await events(client, session))[-1]["source"]["agents"] == ["billing"]


async def test_a_question_that_was_asked_after_a_handoff_is_answered_in_another_process() -> None:
    store = MemoryStore()
    async with serving(team(calls("refund")), store=store) as (served, client):
        session = await new_session(client)
        await client.post(f"/sessions/{session}/prompts", {"text": "Give it back."})
        while not (await client.get(f"/sessions/{session}")).json["questions"]:
            await trio.sleep(1)
        await served.drain(1)
    async with serving(team("Done."), store=store) as (_, client):
        found = (await client.get(f"/sessions/{session}")).json
        assert (found["state"], found["agent"]) == ("parked", "billing")
        answers = {found["questions"][0]["id"]: {"type": "approve"}}
        await client.post(f"/sessions/{session}/answers", {"answers": answers})
        assert (await events(client, session))[-1]["reason"] == "completed"


async def test_a_task_of_a2a_is_the_teams_after_a_handoff() -> None:
    async with serving(team("It is billing.", calls("refund"), "Done.")) as (_, client):
        first = await send(client, "I was charged twice.", contextId="c")
        asked = await send(client, "Give it back.", contextId="c")
        assert (text_of(first), state_of(asked)) == ("It is billing.", "INPUT_REQUIRED")
        listed = await call(client, "ListTasks", {"contextId": "c"})
        assert {task["id"] for task in listed["tasks"]} == {first["id"], asked["id"]}
        done = await send(client, "yes", taskId=asked["id"])
        assert (state_of(done), text_of(done)) == ("COMPLETED", "Done.")


async def test_a_tool_of_mcp_continues_what_its_team_left_open_after_a_handoff() -> None:
    store = MemoryStore()
    async with connected(modern=True, store=store, agent=team(calls("refund"))) as client:
        await client.begin(1, "pay", arguments={"session": "mine"})
        assert (await client.response(1))["result"]["resultType"] == "input_required"
    async with connected(modern=True, store=store, agent=team("Refunded.", "Hello.")) as client:
        client.answers = [accept()]
        assert await client.text(1, "hello", arguments={"session": "mine"}) == "Hello."
