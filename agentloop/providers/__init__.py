"""Models behind a network or in a local process, found by name: ``find_model("openai:gpt-5")``.

Each adapter is a module of its own, behind an extra; importing this package imports none of them. A provider that
speaks a known format is one line in the table below.

The adapters share these files: `_wire_model` (a model is a wire format and a transport), the formats `_chat_format`,
`_responses_format` and `_messages_format`, the transports `_http` and `_sdk`, and the places for everything that
providers disagree about: `_dialects` (the table of servers), `_fitting` and `_media` (transcripts), `_tool_schema` and
`_structured_output` (schemas), and `_failures` (errors).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from attrs import field, frozen

from agentloop._core.catalogue import ModelInfo, catalogue_date, known_model, models_of
from agentloop.errors import ModelNotFoundError
from agentloop.models import Model
from agentloop.providers._network import check_network

__all__ = [
    "ModelInfo",
    "ProviderInfo",
    "catalogue_date",
    "check_network",
    "find_model",
    "key_variables",
    "model_choices",
    "model_for",
    "model_info",
    "providers",
]


@frozen
class _Provider:
    """A provider: the place of its models, and the adapter that reaches them."""

    url: str
    """The base URL, unless ``url_variable`` gives another."""
    key_variable: str
    """The environment variable with the key."""
    needs_key: bool = True
    """Whether a missing key is an error. A server of the user's own may need a key or not."""
    url_variable: str | None = None
    """The environment variable with another base URL; ``None`` if there is none."""
    options: Mapping[str, Any] = field(factory=dict[str, Any])
    """More arguments of the adapter."""
    adapter: str = "openai_chat:OpenAIChat"
    """A module of this package, and a class in it."""


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
    "gemini": _Provider(
        "https://generativelanguage.googleapis.com/v1beta/openai", "GEMINI_API_KEY", options={"dialect": "gemini"}
    ),
    "deepseek": _Provider(
        "https://api.deepseek.com",
        "DEEPSEEK_API_KEY",
        options={"send_reasoning": "reasoning_content", "dialect": "deepseek"},
    ),
    # Servers on the user's own machine, at the ports on which they listen by default.
    "ollama": _Provider("http://localhost:11434/v1", "OLLAMA_API_KEY", False, "OLLAMA_BASE_URL"),
    "lmstudio": _Provider("http://localhost:1234/v1", "LMSTUDIO_API_KEY", False, "LMSTUDIO_BASE_URL"),
    "vllm": _Provider("http://localhost:8000/v1", "VLLM_API_KEY", False, "VLLM_BASE_URL"),
    "llamacpp": _Provider("http://localhost:8080/v1", "LLAMACPP_API_KEY", False, "LLAMACPP_BASE_URL"),
}

EMBEDDED = "local"
"""The provider whose models run in a local process."""


def providers() -> tuple[str, ...]:
    """The names of all providers, which stand before the colon in ``"provider:model"``, sorted."""
    return tuple(sorted((*_PROVIDERS, EMBEDDED)))


def key_variables() -> dict[str, bool]:
    """The environment variables that hold keys, each with ``True`` if its server is on the user's own machine."""
    return {provider.key_variable: not provider.needs_key for provider in _PROVIDERS.values()}


def find_model(name: str, *, base_url: str | None = None, api_key: str | None = None) -> Model:
    """The model called ``name``, such as ``"openai:gpt-5"``, ``"ollama:qwen3:8b"`` or ``"local:smollm2"``.

    Opens no connection and starts no process: a model that does not exist fails at its first response.

    Args:
      name: the provider, a colon, and the provider's name for the model; or ``local:`` and the path of a file of
        weights (GGUF), for a model that runs in a local process.
      base_url: the provider's base URL, in place of the usual one.
      api_key: the key, in place of the one in the provider's environment variable.

    Raises:
      ModelNotFoundError: there is no such provider, or its key or weights are missing.
      MissingExtraError: the adapter needs a package that is not installed.
    """
    provider_name, colon, model = name.partition(":")
    if not colon or not provider_name or not model.strip():
        raise ModelNotFoundError(
            f'{name!r} names no model: write "provider:model", such as "openai:gpt-5"; '
            f"the providers are {', '.join(providers())}"
        )
    if provider_name == EMBEDDED:
        if base_url is not None or api_key is not None:
            raise ModelNotFoundError(f"model {name!r} runs in a local process: it has no URL, and no key")
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
    # A server at another URL than the provider's own may need no key.
    if not key and provider.needs_key and not base_url:
        raise ModelNotFoundError(
            f"model {name!r} needs a key: set the environment variable {provider.key_variable}, or give api_key="
        )
    module, _, adapter = provider.adapter.partition(":")
    found_model: Model = getattr(import_module(f"agentloop.providers.{module}"), adapter)(
        model, base_url=base_url or provider.url, api_key=key or None, name=name, **provider.options
    )
    return found_model


def model_info(name: str) -> ModelInfo | None:
    """What the catalogue says of the model ``name``: its window, price, output limit and abilities.

    ``None`` if the catalogue does not have it, which says nothing about whether there is such a model.

    Args:
      name: as for `find_model`.
    """
    return known_model(name)


@frozen
class ProviderInfo:
    """A provider, as a list of models to choose from shows it."""

    name: str
    """Its name, which stands before the colon: ``"openai"``."""
    has_key: bool
    """Whether its models can be asked with the environment as it is: its key is set, or it needs none."""
    key_variable: str
    """The environment variable with its key; empty for models in a local process."""
    is_local: bool
    """Whether its models run on this machine."""
    models: tuple[ModelInfo, ...]
    """Its models in the catalogue, by their names; none where any name may be a model, as on a server of one's own."""


def model_choices(*, with_key: bool = False) -> tuple[ProviderInfo, ...]:
    """The providers, and their models in the catalogue: what a person can choose from, for the list of a front end.

    ::

        for provider in model_choices(with_key=True):
            for model in provider.models:
                print(model.name, model.efforts)

    Opens no connection: a provider may serve models that the catalogue does not have, and some of these no more.

    Args:
      with_key: only the providers whose key is set, or that need none.
    """
    found: list[ProviderInfo] = []
    for name, provider in sorted(_PROVIDERS.items()):
        has_key = not provider.needs_key or bool(os.environ.get(provider.key_variable) or _own_url(provider))
        known = [known_model(f"{name}:{model}") for model in sorted(models_of(name))]
        models = tuple([model for model in known if model is not None])
        found.append(ProviderInfo(name, has_key, provider.key_variable, not provider.needs_key, models))
    found.append(ProviderInfo(EMBEDDED, True, "", True, ()))
    return tuple([provider for provider in found if provider.has_key or not with_key])


def model_for(agent: str, name: str) -> Model:
    """`find_model`, for an agent that is about to run.

    Args:
      agent: the agent's name, for errors.
      name: see `find_model`.

    Raises:
      NetworkForbiddenError: models behind a network are forbidden here, and ``name`` is one.
      ModelNotFoundError, MissingExtraError: see `find_model`.
    """
    provider = _PROVIDERS.get(name.partition(":")[0])
    if provider is not None:
        # Before the key is looked up: a test has no key, and an error that demands one would mislead its author.
        check_network(model=name, url=_own_url(provider) or provider.url, agent=agent)
    return find_model(name)


def _own_url(provider: _Provider) -> str | None:
    """The base URL that the user has set in the environment."""
    return None if provider.url_variable is None else os.environ.get(provider.url_variable)
