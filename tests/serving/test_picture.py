"""The picture of a session that a server gives: for its principal alone, and live."""

from __future__ import annotations

import re

import pytest

from agentloop import Agent, serving
from agentloop.picture import SCRIPT_HASH
from agentloop.serving import BearerTokens
from agentloop.testing import ScriptedModel, calls
from tests.serving.support import Client, wait

ANN, BOB = "a" * 20, "b" * 20


@pytest.mark.seconds(100)
async def test_a_principal_sees_the_picture_of_a_session_while_it_runs_and_afterwards() -> None:
    agent = Agent(ScriptedModel(calls("wait", seconds=1), "Done."), name="clerk", tools=[wait])
    app = serving.app(agent, authenticate=BearerTokens({ANN: "ann", BOB: "bob"}))
    async with app.running():
        ann, bob = Client(app, token=ANN), Client(app, token=BOB)
        session = (await ann.post("/sessions")).json["id"]
        path = f"/sessions/{session}/picture"
        assert "before its first prompt" in (await ann.get(path)).message
        async with ann.open("GET", f"/sessions/{session}/events") as events:
            await ann.post(f"/sessions/{session}/prompts", {"text": "Wait"})
            await events.until(b"tool_call_started")
            data = (await ann.get(f"{path}?format=json")).json
            assert (data["live"], data["picture"]["running"]) == (True, True)
            assert [span["k"] for span in data["picture"]["spans"]] == ["run", "turn", "request", "tool"]
            await events.until(b"stream_stopped")
        data = (await ann.get(f"{path}?format=json")).json
        assert (data["live"], data["picture"]["running"]) == (False, False)
        assert (await ann.get(f"{path}?format=json&records={data['records']}")).status == 204
        page = await ann.get(path)
        assert (await bob.get(path)).status == 404
        assert (await Client(app).get(path)).status == 401
        assert "html or json" in (await ann.get(f"{path}?format=svg")).message
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert f"script-src {SCRIPT_HASH};" in page.headers["content-security-policy"]
    assert "connect-src 'self'" in page.headers["content-security-policy"]
    assert re.search(rb'id="settings">{"live":true}<', page.body)
