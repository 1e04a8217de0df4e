"""``"provider:model"`` strings."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from agentloop import Agent
from agentloop.errors import ModelNotFoundError
from agentloop.providers import find_model, model_choices, providers
from tests.providers.chat import ask, said, whole
from tests.providers.server import answering, serving

LOCAL = ["llamacpp", "lmstudio", "ollama", "vllm"]
REMOTE = {"anthropic", "deepseek", "gemini", "openai", "openai-responses", "openrouter"}


def url_of(model: Any) -> str:
    return bytes(model._transport._url).decode()


def test_the_model_is_called_by_the_whole_string() -> None:
    assert find_model("openai:gpt-5", api_key="k").name == "openai:gpt-5"


def test_only_the_first_colon_counts() -> None:
    model: Any = find_model("ollama:qwen3:8b")

    assert model.name == "ollama:qwen3:8b"
    assert model._format.model == "qwen3:8b"


@pytest.mark.parametrize("provider", LOCAL)
def test_a_server_on_this_machine_needs_no_key(provider: str) -> None:
    assert url_of(find_model(f"{provider}:m")).startswith("http://localhost:")


@pytest.mark.parametrize("provider", sorted(REMOTE))
def test_a_server_elsewhere_needs_a_key(provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
    variable = f"{provider.removesuffix('-responses').upper()}_API_KEY"

    with pytest.raises(
        ModelNotFoundError,
        match=f"'{provider}:m' needs a key: set the environment variable {variable}, or give api_key=",
    ):
        find_model(f"{provider}:m")
    monkeypatch.setenv(variable, "k")
    assert url_of(find_model(f"{provider}:m")).startswith("https://")


def test_every_provider_is_named() -> None:
    assert set(providers()) == {"local", *LOCAL, *REMOTE}


@pytest.mark.parametrize("name", ["", "gpt-5", ":gpt-5", "openai:", "openai: "])
def test_a_string_that_names_no_model_is_refused_with_an_example(name: str) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        find_model(name)

    assert str(caught.value) == (
        f'{name!r} names no model: write "provider:model", such as "openai:gpt-5"; '
        "the providers are anthropic, deepseek, gemini, llamacpp, lmstudio, local, "
        "ollama, openai, openai-responses, openrouter, vllm"
    )


def test_an_unknown_provider_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        find_model("opnai:gpt-5")

    assert str(caught.value) == (
        "model 'opnai:gpt-5': there is no provider 'opnai'; did you mean 'openai:gpt-5'? "
        "the providers are anthropic, deepseek, gemini, llamacpp, lmstudio, local, "
        "ollama, openai, openai-responses, openrouter, vllm"
    )


def test_a_provider_like_no_other_gets_no_guess() -> None:
    with pytest.raises(ModelNotFoundError, match="there is no provider 'xyz'; the providers are"):
        find_model("xyz:m")


@pytest.mark.real_clock
async def test_the_environment_says_where_a_server_is_and_gives_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(answering(whole(said("Hi")))) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("OPENAI_API_KEY", "k")
        await ask(find_model("openai:gpt-5"))

    (request,) = server.requests
    assert request.headers["authorization"] == "Bearer k"
    assert request.json["model"] == "gpt-5"


def test_a_server_at_another_place_may_need_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    assert url_of(find_model("openai:m", base_url="http://localhost:1/v1")).startswith("http://localhost:1/")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:2/v1")
    assert url_of(find_model("openai:m")).startswith("http://localhost:2/")


def test_openai_is_found_behind_either_of_its_protocols() -> None:
    """Chat completions under the plain name: what all servers speak that ``OPENAI_BASE_URL`` may name."""
    assert url_of(find_model("openai:gpt-5", api_key="k")) == "https://api.openai.com/v1/chat/completions"
    assert url_of(find_model("openai-responses:gpt-5", api_key="k")) == "https://api.openai.com/v1/responses"
    assert find_model("openai-responses:gpt-5", api_key="k").name == "openai-responses:gpt-5"


@pytest.mark.real_clock
async def test_an_agent_finds_its_model_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(answering(whole(said("Hi")))) as server:
        monkeypatch.setenv("VLLM_BASE_URL", server.url)

        outcome = await Agent("vllm:m").run("Hello?")

    assert outcome.output == "Hi"


async def test_an_agent_whose_model_is_not_found_does_not_start() -> None:
    with pytest.raises(ModelNotFoundError, match="OPENAI_API_KEY"):
        async with Agent("openai:gpt-5").stream("Hello?"):
            pass


def run_python(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_no_adapter_is_imported_before_it_is_used() -> None:
    program = "import sys, agentloop.providers; print([name for name in sys.modules if name.startswith('http')])"

    assert "httpx2" not in run_python(program)
    assert "httpcore2" not in run_python(program)


def test_a_missing_package_is_one_sentence() -> None:
    program = """
import sys
sys.modules["httpx2"] = sys.modules["httpcore2"] = None
from agentloop.errors import MissingExtraError
from agentloop.providers import find_model
try:
    find_model("ollama:m")
except MissingExtraError as error:
    print(error)
"""
    assert run_python(program) == (
        "A model behind HTTP needs the package 'httpx2', which is not installed: pip install 'agentloop-trio[http]'"
    )


def test_what_can_be_chosen_is_each_provider_with_its_models_and_whether_its_key_is_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for provider in model_choices():
        if provider.key_variable:
            monkeypatch.delenv(provider.key_variable, raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.delenv("ANTHROPIC_BASE_URL", raising=False)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")

    choices = {provider.name: provider for provider in model_choices()}

    assert set(choices) == set(providers())
    assert choices["anthropic"].has_key
    assert not choices["openai"].has_key
    known = {model.name: model for model in choices["openai"].models}
    assert "high" in known["openai:gpt-5"].efforts
    assert known["openai:gpt-5"].window
    assert {provider.name for provider in model_choices(with_key=True)} == {"anthropic", *LOCAL, "local"}
    assert all(choices[name].is_local for name in (*LOCAL, "local"))
