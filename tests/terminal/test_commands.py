"""The commands that a person types at the terminal: of the agent, and of the terminal itself."""

from __future__ import annotations

import io

import pytest

from agentloop import Agent, Price, Session
from agentloop.commands import Command
from agentloop.messages import AssistantMessage
from agentloop.models import ModelChoice
from agentloop.providers import key_variables
from agentloop.terminal._commands import meant_by
from agentloop.terminal._plain import Plain
from agentloop.testing import ScriptedModel


@pytest.fixture(autouse=True)
def one_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only one provider has its key, and the terminal is wide."""
    for name in key_variables():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    monkeypatch.setenv("COLUMNS", "100")


class Chat:
    """An agent, its session, and what the terminal says to what is typed."""

    def __init__(self, agent: Agent, session: Session | None) -> None:
        self.agent = agent
        self.session = session
        self.prompt: str | None = None

    async def type(self, line: str) -> str:
        out = io.StringIO()
        self.prompt = await meant_by(self.agent, line, Plain(out), self.session)
        return " ".join(out.getvalue().split())


def chat(*script: str, **options: object) -> Chat:
    model = ScriptedModel(*script, name="slow")
    return Chat(Agent(model, models={"fast": "openai:gpt-5-mini"}, **options), Session())  # type: ignore[arg-type]


async def test_model_lists_the_names_of_the_agent_and_each_provider_with_its_key() -> None:
    shown = await chat().type("/model")
    assert "The model is slow (the agent's own)." in shown
    assert "fast 272,000 tokens, 0.25 / 2 USD a million, thinks" in shown
    assert "needs ANTHROPIC_API_KEY" in shown
    assert "has its key" in shown
    assert "ollama:NAME, on this machine" in shown


async def test_model_with_a_provider_lists_its_models_with_windows_and_prices() -> None:
    shown = await chat().type("/model openai")
    assert " models, has its key; prices are for a million tokens, read / written" in shown
    assert "openai:gpt-4o 128,000 tokens, 2.5 / 10 USD openai:" in shown
    own = chat(prices={"openai:gpt-4o": Price(7, 8)}, currency="EUR")
    assert "7 / 8 EUR" in await own.type("/model openai")


async def test_a_model_that_is_chosen_answers_from_the_next_prompt_on_until_the_default_is_chosen() -> None:
    talk = chat("Slow.")
    assert talk.session is not None
    agent = talk.agent.replace(models={"quick": ScriptedModel("Quick.", name="quick")})
    talk.agent = agent
    assert "From the next prompt on: quick" in await talk.type("/model quick")
    await agent.run("Go.", session=talk.session)
    assert "From the next prompt on: slow (the agent's own)." in await talk.type("/model default")
    assert talk.session.choice is None
    await agent.run("Go.", session=talk.session)
    models = [message.model for message in talk.session.messages if isinstance(message, AssistantMessage)]
    assert models == ["quick", "slow"]


async def test_in_eighty_columns_a_model_has_one_line_or_two_if_its_name_is_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    out = io.StringIO()
    await meant_by(chat().agent, "/model openai", Plain(out), Session())
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) < 80
    assert not [line for line in lines if line.strip() == "thinks"]


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("fsat", "did you mean fast?"),
        ("gpt-5-mini", "did you mean openai:gpt-5-mini"),
        ("opnai:gpt-5", "did you mean 'openai:gpt-5'?"),
        ("anthropic:claude-opus-4-1", "set the environment variable ANTHROPIC_API_KEY"),
        ("\x1b[2J", "there is no model"),
        (":", "names no model"),
    ],
)
async def test_a_model_that_is_not_there_is_refused_with_the_nearest_names(typed: str, hint: str) -> None:
    talk = chat()
    shown = await talk.type(f"/model {typed}")
    assert hint in shown
    assert "\x1b" not in shown
    assert talk.session is not None
    assert talk.session.choice is None


async def test_a_model_that_the_catalogue_does_not_have_is_chosen_with_a_note() -> None:
    talk = chat()
    shown = await talk.type("/model openai:gpt-5-mni")
    assert "The catalogue does not have openai:gpt-5-mni. Did you mean openai:gpt-5-mini" in shown
    assert talk.session is not None
    assert talk.session.choice == ModelChoice(model="openai:gpt-5-mni")


async def test_a_level_of_thinking_is_one_that_the_model_has_and_is_given_up_with_the_model() -> None:
    talk = chat()
    assert talk.session is not None
    await talk.type("/model fast")
    assert "did you mean high? it has minimal, low, medium, high" in await talk.type("/thinking hgih")
    assert "thinking high" in await talk.type("/thinking high")
    assert talk.session.choice == ModelChoice(model="fast", reasoning_effort="high")
    assert "It can be minimal, low, medium, high, default." in await talk.type("/thinking")
    assert "no level of thinking 'high'" in await talk.type("/model openai:gpt-4o")
    assert talk.session.choice == ModelChoice(model="openai:gpt-4o")
    assert "does not think" in await talk.type("/thinking low")
    assert "does not think" in await talk.type("/thinking")


async def test_usage_shows_what_the_session_has_used_and_cost_and_what_is_left_of_the_window() -> None:
    talk = chat("Yes.", prices={"slow": Price(1000, 1000)})
    await talk.agent.run("Hello.", session=talk.session)
    shown = await talk.type("/usage")
    assert "1 request: 10 tokens read, 5 written. Cost: 0.015 USD." in shown
    assert "the window of the model is not known" in shown
    await talk.type("/model fast")
    assert "tokens of a window of 272,000: 271," in await talk.type("/usage")


async def test_help_lists_the_commands_of_the_agent_and_those_of_the_terminal() -> None:
    fix = Command("Fix $1.", description="Fix an issue", hint="[issue]")
    talk = chat(commands={"fix": fix, "usage": "Tell me about your usage."})
    shown = await talk.type("/help")
    assert "/fix [issue] Fix an issue" in shown
    assert "/model [name]" in shown
    assert shown.count("/usage") == 1
    # The agent's command comes before the terminal's.
    await talk.type("/usage")
    assert talk.prompt == "Tell me about your usage."
    assert "did you mean /model?" in await talk.type("/modle fast")
    assert talk.prompt is None


async def test_what_is_no_command_is_sent_as_it_is() -> None:
    talk = chat()
    for line in ("/etc/hosts is empty", " /model", "// TODO", "hello"):
        await talk.type(line)
        assert talk.prompt == line
    without = Chat(talk.agent, None)
    await without.type("/model")
    assert without.prompt == "/model"


@pytest.mark.parametrize("columns", ["20", "40", "200"])
async def test_no_line_is_longer_than_the_terminal_is_wide(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    out = io.StringIO()
    talk = chat(commands={"a" * 60: Command("x", description="y" * 90 + " z", hint="h " * 30)})
    for line in ("/help", "/model", "/usage", "/thinking", "/model openai"):
        await meant_by(talk.agent, line, Plain(out), talk.session)
    assert max(map(len, out.getvalue().splitlines())) < int(columns)
