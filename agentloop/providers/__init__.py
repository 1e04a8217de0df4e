"""Models behind a network, and in a process. Each adapter is a module of its own, with an extra; none is imported."""

from __future__ import annotations

import os
from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from attrs import field, frozen

from agentloop.errors import ModelNotFoundError
from agentloop.models import Model
from agentloop.providers._network import check_network

__all__ = ["check_network", "find_model", "key_variables", "model_for", "providers"]


@frozen
class _Provider:
    """Where a provider's models are, and what they need."""

    url: str
    """The base URL, unless ``url_variable`` gives another."""
    key_variable: str
    needs_key: bool = True
    """Whether it is an error if there is no key. A server of the user's own may need one or not."""
    url_variable: str | None = None
    options: Mapping[str, Any] = field(factory=dict[str, Any])
    """Further arguments of the adapter."""
    adapter: str = "openai_chat:OpenAIChat"
    """The module in this package, and the class in it."""


_PROVIDERS: Mapping[str, _Provider] = {
    "openai": _Provider("https://api.openai.com/v1", "OPENAI_API_KEY", url_variable="OPENAI_BASE_URL"),
    "openai-responses": _Provider(
        "https://api.openai.com/v1",
        "OPENAI_API_KEY",
        url_variable="OPENAI_BASE_URL",
        adapter="openai_responses:OpenAIResponses",
    ),
    "anthropic": _Provider(
        "https://api.anthropic.com",
        "ANTHROPIC_API_KEY",
        url_variable="ANTHROPIC_BASE_URL",
        adapter="anthropic:Anthropic",
    ),
    "openrouter": _Provider(
        "https://openrouter.ai/api/v1", "OPENROUTER_API_KEY", options={"send_reasoning": "reasoning_details"}
    ),
    "gemini": _Provider("https://generativelanguage.googleapis.com/v1beta/openai", "GEMINI_API_KEY"),
    "deepseek": _Provider(
        "https://api.deepseek.com", "DEEPSEEK_API_KEY", options={"send_reasoning": "reasoning_content"}
    ),
    # Servers on the user's own machine, where they listen unless told otherwise.
    "ollama": _Provider("http://localhost:11434/v1", "OLLAMA_API_KEY", False, "OLLAMA_BASE_URL"),
    "lmstudio": _Provider("http://localhost:1234/v1", "LMSTUDIO_API_KEY", False, "LMSTUDIO_BASE_URL"),
    "vllm": _Provider("http://localhost:8000/v1", "VLLM_API_KEY", False, "VLLM_BASE_URL"),
    "llamacpp": _Provider("http://localhost:8080/v1", "LLAMACPP_API_KEY", False, "LLAMACPP_BASE_URL"),
}

EMBEDDED = "local"
"""The provider whose models run in a process of ours."""


def providers() -> tuple[str, ...]:
    """The names that may stand before the colon in ``"provider:model"``."""
    return tuple(sorted((*_PROVIDERS, EMBEDDED)))


def key_variables() -> dict[str, bool]:
    """The environment variables that hold keys; ``True`` for those of servers on the user's own machine."""
    return {provider.key_variable: not provider.needs_key for provider in _PROVIDERS.values()}


def find_model(name: str, *, base_url: str | None = None, api_key: str | None = None) -> Model:
    """The model that ``name`` stands for, such as ``"openai:gpt-5"``, ``"ollama:qwen3:8b"`` or ``"local:smollm2"``.

    Connects to nothing and starts nothing: whether the model exists shows with its first response.

    Args:
      name: the provider, a colon, and what the provider calls the model; ``local:`` and the path of a file of weights
        (GGUF), for one that runs in a process of its own on this machine.
      base_url: where the provider is, instead of where it usually is.
      api_key: the key, instead of the one in the provider's environment variable.

    Raises:
      ModelNotFoundError: there is no such provider, or what it needs is missing: a key, or weights.
      MissingExtraError: its adapter needs a package that is not installed.
    """
    provider_name, colon, model = name.partition(":")
    if not colon or not provider_name or not model.strip():
        raise ModelNotFoundError(
            f'{name!r} names no model: say "provider:model", such as "openai:gpt-5"; '
            f"the providers are {', '.join(providers())}"
        )
    if provider_name == EMBEDDED:
        if base_url is not None or api_key is not None:
            raise ModelNotFoundError(f"model {name!r} runs in a process of its own: it has no URL, and no key")
        embedded: Model = import_module("agentloop.providers.local").LocalModel(model, name=name)
        return embedded
    provider = _PROVIDERS.get(provider_name)
    if provider is None:
        close = get_close_matches(provider_name, providers(), n=1)
        hint = f"did you mean {close[0] + ':' + model!r}? " if close else ""
        raise ModelNotFoundError(
            f"model {name!r}: there is no provider {provider_name!r}; {hint}the providers are {', '.join(providers())}"
        )
    if base_url is None:
        base_url = _own_url(provider)
    key = api_key or os.environ.get(provider.key_variable)
    # Elsewhere than at the provider's own place there may be a server that needs none.
    if not key and provider.needs_key and not base_url:
        raise ModelNotFoundError(
            f"model {name!r} needs a key: set the environment variable {provider.key_variable}, or give api_key="
        )
    module, _, adapter = provider.adapter.partition(":")
    found: Model = getattr(import_module(f"agentloop.providers.{module}"), adapter)(
        model, base_url=base_url or provider.url, api_key=key or None, name=name, **provider.options
    )
    return found


def model_for(agent: str, name: str) -> Model:
    """`find_model`, for the agent of that name, which is about to run with it.

    Raises:
      NetworkForbiddenError: models behind a network are forbidden here, and this is one.
    """
    provider = _PROVIDERS.get(name.partition(":")[0])
    if provider is not None:
        # Before a key is looked for: in a test there is none, and one that is told to set it is misled.
        check_network(model=name, url=_own_url(provider) or provider.url, agent=agent)
    return find_model(name)


def _own_url(provider: _Provider) -> str | None:
    """Where the user says that the provider is."""
    return None if provider.url_variable is None else os.environ.get(provider.url_variable)
