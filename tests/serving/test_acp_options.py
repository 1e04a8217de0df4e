"""The user of an editor chooses the mode of permissions, the model and its thinking, over ACP."""

from __future__ import annotations

from typing import Any

import pytest

from agentloop import Agent, Permissions, Price
from agentloop.messages import Usage
from agentloop.models import ModelRequest, Reply, Stop
from agentloop.serving._errors import Refusal
from agentloop.serving.protocols.acp_options import SessionOptions
from agentloop.stores import MemoryStore
from agentloop.testing import ScriptedModel, calls
from tests.serving.support import pay
from tests.serving.test_acp import Editor, editor_of

Option = dict[str, Any]


class Named:
    """A model with the name of a known one, which says who it is."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.efforts: list[str | None] = []

    async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
        self.efforts.append(request.settings.reasoning_effort)
        await reply.text(f"I am {self.name}.")
        return Stop(usage=Usage(input_tokens=1000, output_tokens=20))


def by_id(options: list[Option]) -> dict[str, Option]:
    return {option["id"]: option for option in options}


def values(option: Option) -> list[str]:
    return [one["value"] for one in option["options"]]


async def choose(editor: Editor, session: str, id: str, value: Any) -> dict[str, Any]:
    return await editor.call("session/set_config_option", sessionId=session, configId=id, value=value)


async def said(editor: Editor, session: str) -> str:
    editor.updates.clear()
    await editor.response(await editor.prompt(session, "Who are you?"))
    return editor.text()


async def test_a_model_and_its_thinking_are_chosen_for_a_session_which_keeps_them() -> None:
    own, deep = Named("openai:gpt-4o"), Named("openai:gpt-5")
    agent, store = Agent(own, models={"deep": deep}), MemoryStore()
    async with editor_of(store, agent) as editor:
        begun = (await editor.call("session/new", cwd="/", mcpServers=[]))["result"]
        session = begun["sessionId"]
        [model] = begun["configOptions"]
        assert (model["category"], model["currentValue"], values(model)) == ("model", "default", ["default", "deep"])
        assert "128,000 tokens" in model["options"][0]["description"]
        options = by_id((await choose(editor, session, "model", "deep"))["result"]["configOptions"])
        assert options["model"]["currentValue"] == "deep"
        # Only a model that thinks has levels.
        assert options["thinking"]["category"] == "thought_level"
        assert values(options["thinking"]) == ["default", "minimal", "low", "medium", "high"]
        options = by_id((await choose(editor, session, "thinking", "high"))["result"]["configOptions"])
        assert options["thinking"]["currentValue"] == "high"
        assert await said(editor, session) == "I am openai:gpt-5."
    async with editor_of(store, agent) as editor:
        loaded = (await editor.call("session/load", sessionId=session, cwd="/", mcpServers=[]))["result"]
        options = by_id(loaded["configOptions"])
        assert (options["model"]["currentValue"], options["thinking"]["currentValue"]) == ("deep", "high")
        assert await said(editor, session) == "I am openai:gpt-5."
        await choose(editor, session, "model", "default")
        assert await said(editor, session) == "I am openai:gpt-4o."
    assert deep.efforts == ["high", "high"]
    assert own.efforts == [None]


async def test_a_session_whose_model_is_not_offered_any_more_has_the_agents_own() -> None:
    store, deep = MemoryStore(), Named("openai:gpt-5")
    async with editor_of(store, Agent(Named("own"), models={"deep": deep})) as editor:
        session = await editor.new()
        await choose(editor, session, "model", "deep")
        await said(editor, session)
    async with editor_of(store, Agent(Named("own"), models={"other": deep})) as editor:
        loaded = (await editor.call("session/load", sessionId=session, cwd="/", mcpServers=[]))["result"]
        assert by_id(loaded["configOptions"])["model"]["currentValue"] == "default"
        assert await said(editor, session) == "I am own."


async def test_a_mode_is_chosen_in_the_middle_of_a_run_and_holds_from_the_next_call_on() -> None:
    agent = Agent(ScriptedModel(calls("pay", amount=5), calls("pay", amount=6), "Paid.", calls("pay", amount=7), "No."))
    agent, store = agent.replace(tools=[pay]), MemoryStore()
    async with editor_of(store, agent) as editor:
        begun = (await editor.call("session/new", cwd="/", mcpServers=[]))["result"]
        session = begun["sessionId"]
        assert begun["modes"]["currentModeId"] == "default"
        assert [mode["id"] for mode in begun["modes"]["availableModes"]][-1] == "autonomous"
        prompt = await editor.prompt(session, "Pay.")
        asked = await editor.request()
        assert (await editor.call("session/set_mode", sessionId=session, modeId="autonomous"))["result"] == {}
        await editor.write(id=asked["id"], result={"outcome": {"outcome": "selected", "optionId": "yes"}})
        # The second call is not asked about.
        assert (await editor.response(prompt))["result"] == {"stopReason": "end_turn"}
        [update] = [one for one in editor.updates if one["sessionUpdate"] == "config_option_update"]
        assert by_id(update["configOptions"])["mode"]["currentValue"] == "autonomous"
        changed = (await choose(editor, session, "mode", "plan"))["result"]["configOptions"]
        assert by_id(changed)["mode"]["currentValue"] == "plan"
        assert editor.updates[-1] == {"sessionUpdate": "current_mode_update", "currentModeId": "plan"}
        await editor.response(await editor.prompt(session, "Pay."))
        assert editor.requests == []
        denied = [one for one in editor.updates if one.get("status") == "failed"]
        assert len(denied) == 1
    async with editor_of(store, agent) as editor:
        loaded = (await editor.call("session/load", sessionId=session, cwd="/", mcpServers=[]))["result"]
        assert loaded["modes"]["currentModeId"] == "plan"


def test_no_mode_is_offered_that_is_looser_than_the_agents_own() -> None:
    agent = Agent(ScriptedModel(), tools=[pay], permissions=Permissions(mode="safe"))
    options = SessionOptions(agent, {})
    [mode] = options.listed()
    assert (mode["currentValue"], values(mode)) == ("safe", ["plan", "strict", "safe"])
    with pytest.raises(Refusal, match="has no value 'autonomous'"):
        options.set_mode("autonomous")
    stricter = SessionOptions(agent, {}, permissions=Permissions(mode="plan"))
    assert stricter.listed()[0]["currentValue"] == "plan"


def test_an_agent_without_tools_and_models_has_nothing_to_choose() -> None:
    assert SessionOptions(Agent(ScriptedModel()), {}).described() == {}


@pytest.mark.parametrize(
    ("id", "value", "words"),
    [
        ("model", "fsat", "did you mean fast"),
        ("model", 3, "has no value '3'"),
        ("model", None, "has no value"),
        ("color", "red", "there is no config option 'color'; there are: mode, model"),
        (["mode"], "plan", "there is no config option"),
        ("thinking", "high", "there is no config option 'thinking'"),
        ("mode", "x" * 10_000, "has no value"),
    ],
)
async def test_what_cannot_be_chosen_is_an_error_that_says_what_can(id: Any, value: Any, words: str) -> None:
    agent = Agent(ScriptedModel(), tools=[pay], models={"fast": Named("quick")})
    async with editor_of(agent=agent) as editor:
        session = await editor.new()
        refused = await choose(editor, session, id, value)
        assert words in refused["error"]["message"]
        assert len(refused["error"]["message"]) < 1000
        missing = await choose(editor, "another", "mode", "plan")
        assert "there is no such session" in missing["error"]["message"]


async def test_an_editor_hears_how_full_the_window_is_and_what_the_session_has_cost() -> None:
    agent = Agent(Named("openai:gpt-5"), prices={"openai:gpt-5": Price(1000, 0)})
    store = MemoryStore()
    async with editor_of(store, agent) as editor:
        session = await editor.new()
        for _ in range(2):
            await said(editor, session)
        [update] = [one for one in editor.updates if one["sessionUpdate"] == "usage_update"]
    cost = {"amount": 2.0, "currency": "USD"}
    assert update == {"sessionUpdate": "usage_update", "used": 1020, "size": 272_000, "cost": cost}
    async with editor_of(store, agent) as editor:
        await editor.call("session/load", sessionId=session, cwd="/", mcpServers=[])
        assert [one for one in editor.updates if one["sessionUpdate"] == "usage_update"][-1] == update


def test_a_model_called_default_is_not_the_agents_own() -> None:
    options = SessionOptions(Agent(Named("own")), {"default": Named("openai:gpt-5")})
    [model] = options.listed()
    assert model["currentValue"] not in ("default", "")
    options.set("model", "default")
    assert options.listed()[0]["currentValue"] == "default"
    assert options.chosen_model is not None
    assert options.chosen_model.model == "default"
