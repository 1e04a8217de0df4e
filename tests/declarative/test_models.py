"""The models of a file: what is asked for, of whom, and with what settings."""

from __future__ import annotations

import json
import re
from importlib.util import find_spec
from typing import Any

import pytest

from agentloop import Agent, Session
from agentloop.declarative import load_team
from agentloop.declarative._models import COMPATIBLE, ConfiguredModel
from agentloop.errors import ModelError, ModelNotFoundError, UsageError
from agentloop.limits import Compaction, Price
from agentloop.messages import AssistantMessage, Text, UserMessage
from agentloop.models import ModelChoice, ModelSettings
from agentloop.testing import FunctionModel, ScriptedModel, calls, fails
from tests.declarative.builders import problem, reasons, root_of
from tests.providers.server import answering, event, serving, until_close

NO_KEYS: dict[str, str] = {}


def agent_of(model: str, rest: str = "", **options: Any) -> Agent[Any, Any]:
    return load_team(f"agents: {{root: {{model: {model}}}}}\n{rest}\n", **options).agents[0]


def settings(fields: str, provider: str = "openai") -> ModelSettings:
    model: Any = agent_of("m", f"models: {{m: {{provider: {provider}, model: x, {fields}}}}}").model
    found: ModelSettings = model.settings
    return found


def test_a_model_is_a_name_of_the_file_or_a_provider_and_its_name() -> None:
    assert agent_of("openai/gpt-5").model == "openai:gpt-5"
    assert agent_of("anthropic/claude-sonnet-4-5").model == "anthropic:claude-sonnet-4-5"
    assert agent_of("m", "models: {m: {provider: openai, model: gpt-5}}").model == "openai:gpt-5"
    assert agent_of("m", "models: {m: {model: openai/gpt-5}}").model == "openai:gpt-5"
    assert agent_of("local/smollm2").model == "local:smollm2"


@pytest.mark.parametrize("provider", [*COMPATIBLE, "google", "amazon-bedrock"])
def test_every_provider_of_the_table_has_a_model_that_is_made_when_it_is_asked(provider: str) -> None:
    model: Any = agent_of(f"{provider}/x", env=NO_KEYS).model
    assert model.name == f"{provider}:x"


@pytest.mark.parametrize(
    ("reference", "rest", "message"),
    [
        ("gtp-5", "models: {gpt-5: {provider: openai, model: x}}", "there is no model 'gtp-5': did you mean 'gpt-5'?"),
        ("gpt", "", "there is no model 'gpt': write provider/model"),
        ("opnai/x", "", "there is no provider 'opnai': did you mean 'openai'?"),
        ("zzz/x", "", "define it in `providers`"),
        ("/x", "", "there is no model"),
        ("m", "models: {m: {model: x}}", "models.m: `provider` is missing"),
        ("m", "models: {m: {provider: openai}}", "models.m: `model` is missing"),
        ("m", "models: {m: {provider: openai, model: x, temperature: 3}}", "give a number from 0 to 2"),
        ("m", "models: {m: {provider: openai, model: x, thinking_budget: hihg}}", "did you mean 'high'?"),
        ("m", "models: {m: {first_available: [m]}}", "name each other"),
        ("m", "models: {m: {first_available: [n]}, n: {first_available: [m]}}", "name each other"),
        ("m", "models: {m: {first_available: [openai/x], temperature: 1}}", "has no other fields"),
        ("m", "models: {m: {first_available: []}}", "the list is empty"),
        ("p/x", "providers: {p: {provider: nope}}", "providers.p.provider: there is no provider 'nope'"),
    ],
)
def test_a_model_that_is_not_there_is_an_error_with_the_way_out(reference: str, rest: str, message: str) -> None:
    assert message in problem(f"agents: {{root: {{model: {reference}}}}}\n{rest}\n")


def test_settings_are_those_of_the_model_over_those_of_its_provider() -> None:
    found = settings("temperature: 0.5, max_tokens: 100, top_p: 0.9, parallel_tool_calls: false, frequency_penalty: 1")
    assert found == ModelSettings(
        temperature=0.5, max_tokens=100, top_p=0.9, parallel_tool_calls=False, extra={"frequency_penalty": 1}
    )
    rest = "providers: {p: {temperature: 1, max_tokens: 9}}\nmodels: {m: {provider: p, model: x, temperature: 0.5}}"
    model: Any = agent_of("m", rest).model
    assert model.settings == ModelSettings(temperature=0.5, max_tokens=9)


@pytest.mark.parametrize(
    ("budget", "effort"),
    [
        ("none", "none"), ("0", "none"), ("-1", None), ("1024", "low"), ("8192", "medium"), ("32768", "high"),
        ("minimal", "minimal"), ("xhigh", "xhigh"), ("adaptive", "high"), ("adaptive/max", "max"),
    ],
)  # fmt: skip
def test_a_thinking_budget_is_an_effort(budget: str, effort: str | None) -> None:
    assert settings(f"temperature: 1, thinking_budget: {budget}").reasoning_effort == effort


def test_options_of_a_provider_are_sent_or_named() -> None:
    options = "provider_opts: {seed: 3, top_k: 5, extra_body: {a: [1]}, transport: websocket}"
    assert settings(options) == ModelSettings(seed=3, extra={"top_k": 5, "a": [1]})
    team = load_team(f"agents: {{root: {{model: m}}}}\nmodels: {{m: {{provider: openai, model: x, {options}}}}}\n")
    assert [*reasons(team)] == ["models.m.provider_opts.transport"]


def test_the_first_model_whose_key_is_set_is_taken() -> None:
    rest = "models: {m: {first_available: [anthropic/a, n, dmr/d]}, n: {provider: openai, model: o, token_key: MY_KEY}}"
    assert agent_of("m", rest, env={"ANTHROPIC_API_KEY": "x"}).model == "anthropic:a"
    named: Any = agent_of("m", rest, env={"MY_KEY": "x"}).model
    assert named.name == "openai:o"
    local: Any = agent_of("m", rest, env=NO_KEYS).model
    assert local.name == "dmr:d"
    assert agent_of("auto", env={"OPENAI_API_KEY": "x"}).model == "openai:gpt-5-mini"
    auto: Any = agent_of("auto", env=NO_KEYS).model
    assert auto.name == "dmr:ai/qwen3"


async def test_models_of_the_program_stand_in_for_those_of_the_file() -> None:
    one, all_models = ScriptedModel("One."), ScriptedModel("All.", repeat=True)
    text = "agents: {root: {model: m}}\nmodels: {m: {provider: openai, model: x}}\n"
    assert (await load_team(text, models={"m": one}).run("Hi!")).output == "One."
    assert (await load_team(text, models=all_models).run("Hi!")).output == "All."
    assert load_team(text, models="local:smollm2").agents[0].model == "local:smollm2"


@pytest.mark.parametrize(
    ("name", "hint"),
    [("bgi", "did you mean 'big'?"), ("a/smal", "did you mean 'a/small'?"), ("other", "it has big, spare, a/small")],
)
def test_a_model_of_the_program_that_the_file_does_not_name_is_refused(name: str, hint: str) -> None:
    text = "agents: {root: {model: big, fallback: {models: [a/small]}}}\n"
    text += "models: {big: {first_available: [a/x]}, spare: {}}\n"
    with pytest.raises(UsageError, match=re.escape(f"the file has no model {name!r}: {hint}")):
        load_team(text, models={"big": ScriptedModel(), "a/small": ScriptedModel(), name: ScriptedModel()})


async def test_a_model_without_its_key_fails_when_it_is_asked_and_its_fallback_answers() -> None:
    with pytest.raises(ModelError, match="set the environment variable GROQ_API_KEY"):
        await load_team("agents: {root: {model: groq/x}}\n", env=NO_KEYS).run("Hi!")
    text = "agents: {root: {model: groq/x, fallback: {models: [b]}}}\nmodels: {b: {provider: openai, model: y}}\n"
    team = load_team(text, env=NO_KEYS, models={"b": ScriptedModel("From b.")})
    assert (await team.run("Hi!")).output == "From b."


async def test_a_fallback_is_asked_when_the_model_fails() -> None:
    text = "agents: {root: {model: a/a, fallback: {models: [a/b], retries: -1}}}\n"
    models = {"a/a": ScriptedModel(fails(ModelError("gone"))), "a/b": ScriptedModel("From b.")}
    assert (await load_team(text, models=models).run("Hi!")).output == "From b."


async def test_several_models_take_turns() -> None:
    one = ScriptedModel(calls("think", thought="1"), calls("think", thought="3"))
    other = ScriptedModel(calls("think", thought="2"), "Done.")
    text = "agents: {root: {model: 'a/one, a/two', toolsets: [{type: think}]}}\n"
    outcome = await load_team(text, models={"a/one": one, "a/two": other}).run("Hi!")
    assert outcome.output == "Done."
    assert (len(one.requests), len(other.requests)) == (2, 2)


async def test_a_prompt_goes_to_the_model_whose_examples_it_resembles() -> None:
    text = """\
agents: {root: {model: m}}
models:
  m:
    provider: openai
    model: x
    routing:
      - {model: code, examples: ["Fix the failing test", "Write a function"]}
      - {model: chat, examples: ["Tell me a joke"]}
  code: {provider: openai, model: c}
  chat: {provider: openai, model: d}
"""

    def named(name: str) -> FunctionModel:
        return FunctionModel(lambda request: name)

    team = load_team(text, models={"code": named("code"), "chat": named("chat")})
    assert [hook.name for hook in team.hooks] == ["routing"]
    for prompt, name in (("Please fix this failing test!", "code"), ("tell me another joke", "chat")):
        assert (await team.replace(model=named("usual")).run(prompt)).output == name
    assert (await team.replace(model=named("usual")).run("What is the weather?")).output == "usual"


async def test_another_model_sums_up() -> None:
    main, small = FunctionModel(lambda request: "main"), ScriptedModel("A summary.", repeat=True)
    agent = root_of("compaction_model: a/small", models={"openai/gpt-5": main, "a/small": small})
    agent = agent.replace(compaction=Compaction(window=500, threshold=0.5, keep_recent=0.1))
    session = Session(messages=[UserMessage((Text("word " * 400),)), AssistantMessage((Text("Noted."),))])
    assert (await agent.run("Go on.", session=session)).output == "main"
    assert len(small.requests) == 1


KEYS = {server.key: "key" for server in COMPATIBLE.values() if server.key}
KEYS |= {"GEMINI_API_KEY": "key", "OPENAI_API_KEY": "key", "ANTHROPIC_API_KEY": "key"}
KEYS |= {"CLOUDFLARE_ACCOUNT_ID": "me", "CLOUDFLARE_GATEWAY_ID": "gate"}


@pytest.mark.parametrize("provider", [*COMPATIBLE, "google", "openai", "anthropic"])
async def test_every_provider_makes_a_model_with_its_key(provider: str) -> None:
    url = ", base_url: 'https://x.example/v1'" if provider == "azure" else ""
    rest = f"models: {{m: {{provider: {provider}, model: x, temperature: 1{url}}}}}"
    model: Any = agent_of("m", rest, env=KEYS).model
    async with model.open() as opened:
        assert opened.name == f"{provider}:x"


@pytest.mark.parametrize(
    ("provider", "env", "message"),
    [
        ("azure", {"AZURE_API_KEY": "x"}, "give `base_url`"),
        ("cloudflare-workers-ai", {"CLOUDFLARE_API_TOKEN": "x"}, "set the environment variable CLOUDFLARE_ACCOUNT_ID"),
        ("google", {}, "GEMINI_API_KEY or GOOGLE_API_KEY"),
        ("amazon-bedrock", {}, "of Bedrock's models, those of Anthropic can be used"),
    ],
)
async def test_a_model_that_cannot_be_made_says_what_is_missing(
    provider: str, env: dict[str, str], message: str
) -> None:
    model: Any = agent_of(f"{provider}/x", env=env).model
    with pytest.raises(ModelNotFoundError, match=message):
        async with model.open():
            pass


async def test_a_model_on_bedrock_says_what_to_install() -> None:
    if find_spec("botocore") is not None:
        pytest.skip("botocore is installed")
    model: Any = agent_of("amazon-bedrock/anthropic.claude-x", env=NO_KEYS).model
    with pytest.raises(ModelNotFoundError, match="pip install 'anthropic"):
        async with model.open():
            pass


def test_an_api_of_responses_is_asked_as_such() -> None:
    model: Any = agent_of("p/x", "providers: {p: {api_type: openai_responses}}", env=KEYS).model
    assert type(model._make()).__name__ == "OpenAIResponses"


async def test_a_model_may_be_asked_outside_of_its_block_and_the_settings_of_a_request_come_first() -> None:
    asked = ScriptedModel("Hi.")
    model = ConfiguredModel("x", lambda: asked, ModelSettings(temperature=1, seed=2))
    assert (await Agent(model, settings=ModelSettings(seed=3)).run("Hello!")).output == "Hi."
    assert asked.requests[0].settings == ModelSettings(temperature=1, seed=3)
    assert repr(model) == "<model x>"


# ---------------------------------------------------------------------------------------- choosing

CHOICES = """
agents:
  root: {model: big, sub_agents: [helper]}
  helper: {model: openai/gpt-5-mini, description: Helps}
models:
  big: {provider: anthropic, model: claude-sonnet-4-5}
  small: {provider: openai, model: gpt-5-mini, temperature: 0.5, cost: {input: 7, output: 8}}
  "with:colon": {provider: openai, model: gpt-5}
  broken: {provider: nowhere, model: x}
"""


async def test_the_models_of_a_file_can_be_chosen_between_by_their_names() -> None:
    big, small = ScriptedModel("Big.", name="big"), ScriptedModel("Small.", name="small")
    team = load_team(CHOICES, models={"big": big, "small": small})
    assert [*team.models] == ["big", "small"]
    assert [*team.agents[0].models] == ["big", "small"]
    session = Session()
    session.choice = ModelChoice(model="small")
    assert (await team.run("Hello!", session=session)).output == "Small."
    session.choice = None
    assert (await team.run("Hello!", session=session)).output == "Big."


def test_a_model_that_can_be_chosen_has_the_settings_and_the_price_of_the_file() -> None:
    team = load_team(CHOICES)
    small: Any = team.models["small"]
    assert (small.name, small.settings.temperature) == ("openai:gpt-5-mini", 0.5)
    assert team.prices["openai:gpt-5-mini"] == Price(7, 8)


def test_nothing_can_be_chosen_where_one_model_takes_the_place_of_all() -> None:
    assert load_team(CHOICES, models=ScriptedModel("Hi.")).models == {}


# ------------------------------------------------------------------------------------- on the wire

DONE = until_close(
    event({"choices": [{"delta": {"content": "Hi."}, "finish_reason": "stop", "index": 0}], "model": "x"})
    + b"data: [DONE]\n\n"
)


@pytest.mark.real_clock
async def test_a_provider_of_the_file_is_asked_at_its_url_with_its_key_and_settings() -> None:
    async with serving(answering(DONE)) as server:
        rest = (
            f"providers: {{mine: {{base_url: '{server.url}/${{PART}}', token_key: MY_KEY, headers: {{X-Team: a}}}}}}\n"
            "models: {m: {provider: mine, model: big, temperature: 0.5, "
            "provider_opts: {top_k: 3, http_headers: {X-More: b}}}}"
        )
        text = f"agents: {{root: {{model: m}}}}\n{rest}\n"
        team = load_team(text, env={"MY_KEY": "abc", "PART": "deep"})
        assert (await team.run("Hi!")).output == "Hi."
        [request] = server.requests
    assert "/v1/deep/chat/completions" in request.line
    assert request.headers["authorization"] == "Bearer abc"
    assert (request.headers["x-team"], request.headers["x-more"]) == ("a", "b")
    body = json.loads(request.body)
    assert (body["model"], body["temperature"], body["top_k"]) == ("big", 0.5, 3)
