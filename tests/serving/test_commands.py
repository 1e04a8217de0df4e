"""What the pickers of the page ask agentloop's own protocol for: commands, models, what runs in the background."""

from __future__ import annotations

import pytest
import trio

from agentloop import Agent, Price, UsageError
from agentloop.commands import Command
from agentloop.messages import Usage
from agentloop.models import ModelRequest, Reply, Stop
from agentloop.serving import app
from agentloop.testing import FunctionModel, ScriptedModel, calls
from agentloop.toolkit import background
from tests.serving.support import make_agent, wait
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


# ------------------------------------------------------------------- what a picker shows


class Named:
    """A model with the name of a known one, which waits a little."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.efforts: list[str | None] = []

    async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
        self.efforts.append(request.settings.reasoning_effort)
        await trio.sleep(1)
        await reply.text("Yes.")
        return Stop(usage=Usage(input_tokens=10, output_tokens=5))


async def test_a_picker_gets_levels_windows_and_prices_of_the_agents_models_and_of_those_that_are_offered() -> None:
    deep, plain = Named("openai:gpt-5"), Named("plain")
    agent = Agent(deep, name="deep", models={"fast": "openai:gpt-5-mini"}, prices={"plain": Price(7, 8)})
    agent = agent.replace(currency="EUR")
    async with serving([agent, Agent(plain, name="plain")], models=["fast", "openai:gpt-4o"]) as (_, client):
        first, second = (await client.get("/agents")).json["agents"]
        fast, old = (await client.get("/models")).json["models"]
    assert (first["window"], first["efforts"]) == (272_000, ["minimal", "low", "medium", "high"])
    assert second == {"name": "plain", "members": ["plain"]}
    # The name is the agent's own, for a model of the catalogue.
    assert (fast["name"], fast["window"], "high" in fast["efforts"]) == ("fast", 272_000, True)
    assert fast["price"] == {"input": 0.25, "output": 2.0, "currency": "USD"}
    assert (old["efforts"], old["price"]["input"]) == ([], 2.5)


def test_a_model_that_no_agent_knows_is_refused_before_the_server_starts() -> None:
    agent = Agent(Named("a"), models={"fast": "openai:gpt-5-mini"})
    with pytest.raises(UsageError, match=r"model 'fsat' is neither .* did you mean fast"):
        app(agent, models=["fsat"])


async def test_a_session_says_what_was_chosen_for_it_while_it_runs_and_afterwards() -> None:
    own, deep = Named("openai:gpt-5"), Named("openai:gpt-5-mini")
    async with serving(Agent(own), models={"deep": deep}) as (_, client):
        session = await new_session(client)
        place = f"/sessions/{session}/prompts"
        assert (await client.post(place, {"text": "a", "model": "deep", "reasoning_effort": "high"})).status == 202
        seen = [(await client.get(f"/sessions/{session}")).json]
        await trio.sleep(2)
        seen.append((await client.get(f"/sessions/{session}")).json)
        assert [(one["model"], one["reasoning_effort"]) for one in seen] == [("deep", "high")] * 2
        # The agent's own model thinks more or less, too.
        assert (await client.post(place, {"text": "b", "model": "", "reasoning_effort": "low"})).status == 202
        await trio.sleep(2)
        looked = (await client.get(f"/sessions/{session}")).json
        assert (looked["model"], looked["reasoning_effort"]) == ("", "low")
        refused = await client.post(place, {"text": "c", "model": "", "reasoning_effort": "max"})
        assert (refused.status, "choose one of" in refused.message) == (400, True)
    assert (deep.efforts, own.efforts) == (["high"], ["low"])


async def test_a_level_of_thinking_is_given_up_where_another_agent_has_the_conversation() -> None:
    deep, plain = Named("openai:gpt-5"), Named("openai:gpt-4o")
    async with serving([Agent(deep, name="deep"), Agent(plain, name="plain")]) as (_, client):
        session = await new_session(client)
        place = f"/sessions/{session}/prompts"
        for body in ({"agent": "deep", "model": "", "reasoning_effort": "high"}, {"agent": "plain"}, {"agent": "deep"}):
            assert (await client.post(place, {"text": "a", **body})).status == 202
            await trio.sleep(2)
        assert (await client.get(f"/sessions/{session}")).json["reasoning_effort"] is None
    assert (deep.efforts, plain.efforts) == (["high", None], [None])


async def test_a_background_run_is_stopped_and_the_run_goes_on() -> None:
    helper = Agent(FunctionModel(lambda request: calls("wait", seconds=1000)), name="helper", tools=[wait])
    start = calls("run_background_agent", agent="helper", task="look")
    lead = Agent(ScriptedModel(start, "I wait.", "It was stopped."), name="lead", toolsets=[background(helper)])
    async with serving(lead) as (_, client):
        session = await new_session(client)
        stop = f"/sessions/{session}/stop"
        assert (await client.post(stop, {"background": "helper-1"})).status == 409
        await client.post(f"/sessions/{session}/prompts", {"text": "Go."})
        await trio.sleep(5)
        wrong = await client.post(stop, {"background": "hepler-1"})
        assert (wrong.status, "running: helper-1" in wrong.message) == (409, True)
        assert (await client.post(stop, {"background": "helper-1"})).json["stopped"] is True
        read = await events(client, session)
    child, root = [event for event in read if event["type"].endswith("stream_stopped")]
    assert (child["reason"], child["detail"]) == ("cancelled", "stopped by the user")
    assert root["reason"] == "completed"


# ---------------------------------------------------------- protocols of other people's clients


MESSAGE = {"id": "1", "role": "user", "content": "Who are you?"}
PARTS = {"id": "1", "role": "user", "parts": [{"type": "text", "text": "Who are you?"}]}


async def test_the_model_of_a_client_of_openai_may_name_the_agent_and_one_of_the_offered_models() -> None:
    own, deep = Named("own"), Named("openai:gpt-5")
    async with serving(Agent(own, name="ann"), models={"deep": deep}) as (_, client):
        listed = (await client.get("/v1/models")).json["data"]
        assert [model["id"] for model in listed] == ["ann", "ann/deep"]
        whole = await client.post("/v1/chat/completions", {"model": "ann/deep", "messages": [MESSAGE]})
        assert (whole.json["model"], len(deep.efforts), len(own.efforts)) == ("ann/deep", 1, 0)
        first = (await client.post("/v1/responses", {"model": "ann/deep", "input": "Hi."})).json
        # Each request of a conversation names its own.
        next_one = {"model": "ann", "input": "And now?", "previous_response_id": first["id"]}
        assert (await client.post("/v1/responses", next_one)).status == 200
        assert (len(deep.efforts), len(own.efforts)) == (2, 1)
        refused = await client.post("/v1/chat/completions", {"model": "ann/depe", "messages": [MESSAGE]})
        assert (refused.status, "ann/depe" in refused.message) == (404, True)


async def test_a_client_of_ag_ui_or_of_the_ai_sdk_may_choose_a_model_and_its_thinking() -> None:
    own, deep = Named("own"), Named("openai:gpt-5")
    async with serving(Agent(own), models={"deep": deep}) as (_, client):
        run = {"threadId": "t", "runId": "r", "messages": [MESSAGE]}
        chosen = {"model": "deep", "reasoningEffort": "high"}
        for path, body in (
            ("/ag-ui", {**run, "forwardedProps": chosen}),
            # The thread keeps it.
            ("/ag-ui", run),
            ("/vercel", {"id": "c", "messages": [PARTS], **chosen}),
            ("/vercel", {"id": "c", "messages": [PARTS], "model": ""}),
        ):
            assert (await client.post(path, body)).status == 200
        assert (deep.efforts, own.efforts) == (["high"] * 3, [None])
        for wrong, status in (({"model": "depe"}, 404), ({"model": 3}, 400), ({"reasoningEffort": "hgih"}, 400)):
            assert (await client.post("/ag-ui", {**run, "forwardedProps": wrong})).status == status
            assert (await client.post("/vercel", {"id": "c", "messages": [PARTS], **wrong})).status == status


async def test_what_clients_send_for_other_servers_counts_for_nothing_where_no_model_is_offered() -> None:
    async with serving(Agent(Named("own"))) as (_, client):
        wrong = {"model": "gpt-4o", "reasoningEffort": {"a": 1}}
        run = {"threadId": "t", "runId": "r", "messages": [MESSAGE], "forwardedProps": wrong}
        assert (await client.post("/ag-ui", run)).status == 200
        assert (await client.post("/ag-ui", {**run, "forwardedProps": "text"})).status == 200
        assert (await client.post("/vercel", {"id": "c", "messages": [PARTS], **wrong})).status == 200
