"""Slash commands over agentloop's own protocol, as the page uses it."""

from __future__ import annotations

from agentloop import Agent
from agentloop.commands import Command
from agentloop.testing import ScriptedModel
from tests.serving.support import make_agent
from tests.serving.test_detached_runs import events, new_session, serving


async def test_the_list_of_agents_has_their_commands_and_a_typed_text_may_be_one() -> None:
    model = ScriptedModel("Fixed.", "Seen.", "Taken.")
    fix = Command("Fix $1.", description="Fix an issue", hint="[issue]")
    agent = Agent(model, name="coder", commands={"fix": fix})
    async with serving([agent, make_agent("other")]) as (_, client):
        listed = (await client.get("/agents")).json["agents"]
        session = await new_session(client)
        place = f"/sessions/{session}/prompts"
        await client.post(place, {"text": "/fix 7", "commands": True})
        read = await events(client, session)
        refused = await client.post(place, {"text": "/fxi 7", "commands": True})
        await client.post(place, {"text": "/etc/hosts is empty", "commands": True})
        read = await events(client, session, read[-1]["seq"])
        # A program's prompt is no command.
        await client.post(place, {"text": "/fix 7"})
        await events(client, session, read[-1]["seq"])

    command = {"name": "fix", "description": "Fix an issue", "hint": "[issue]"}
    assert listed == [
        {"name": "coder", "members": ["coder"], "commands": [command]},
        {"name": "other", "members": ["other"]},
    ]
    assert refused.status == 400
    assert "did you mean /fix?" in refused.json["error"]["message"]
    assert [request.messages[-1].text for request in model.requests] == ["Fix 7.", "/etc/hosts is empty", "/fix 7"]
