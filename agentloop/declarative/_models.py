"""The models that a file names: its ``models``, its ``providers``, and ``provider/model``.

No model is made before a run asks it: a file with models whose keys are not set here can be loaded, looked at, and run
with another model.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from importlib import import_module
from importlib.util import find_spec
from typing import Any, cast

import msgspec
from attrs import evolve, field, frozen

from agentloop.declarative._problems import TeamFileError, nearest
from agentloop.declarative._section import Context, Section
from agentloop.errors import ModelNotFoundError, UsageError
from agentloop.limits import Price
from agentloop.models import Model, ModelRequest, ModelSettings, OpenableModel, Reply, Stop, merged_settings
from agentloop.providers import find_model

__all__ = ["COMPATIBLE", "Choice", "ConfiguredModel", "Models"]


@frozen
class _Server:
    """A provider with an OpenAI-compatible API."""

    url: str
    key: str = ""
    """The environment variable with the key; empty for a server that needs none."""


COMPATIBLE: Mapping[str, _Server] = {
    "atlascloud": _Server("https://api.atlascloud.ai/v1", "ATLASCLOUD_API_KEY"),
    "azure": _Server("", "AZURE_API_KEY"),
    "baseten": _Server("https://inference.baseten.co/v1", "BASETEN_API_KEY"),
    "cerebras": _Server("https://api.cerebras.ai/v1", "CEREBRAS_API_KEY"),
    "cloudflare-ai-gateway": _Server(
        "https://gateway.ai.cloudflare.com/v1/${CLOUDFLARE_ACCOUNT_ID}/${CLOUDFLARE_GATEWAY_ID}/compat",
        "CLOUDFLARE_API_TOKEN",
    ),
    "cloudflare-workers-ai": _Server(
        "https://api.cloudflare.com/client/v4/accounts/${CLOUDFLARE_ACCOUNT_ID}/ai/v1", "CLOUDFLARE_API_TOKEN"
    ),
    "deepseek": _Server("https://api.deepseek.com/v1", "DEEPSEEK_API_KEY"),
    "dmr": _Server("http://localhost:12434/engines/v1"),
    "fireworks": _Server("https://api.fireworks.ai/inference/v1", "FIREWORKS_API_KEY"),
    "github-copilot": _Server("https://api.githubcopilot.com", "GITHUB_TOKEN"),
    "groq": _Server("https://api.groq.com/openai/v1", "GROQ_API_KEY"),
    "huggingface": _Server("https://router.huggingface.co/v1", "HF_TOKEN"),
    "minimax": _Server("https://api.minimax.io/v1", "MINIMAX_API_KEY"),
    "mistral": _Server("https://api.mistral.ai/v1", "MISTRAL_API_KEY"),
    "moonshot": _Server("https://api.moonshot.ai/v1", "MOONSHOT_API_KEY"),
    "nebius": _Server("https://api.studio.nebius.com/v1", "NEBIUS_API_KEY"),
    "nvidia": _Server("https://integrate.api.nvidia.com/v1", "NVIDIA_API_KEY"),
    "ollama": _Server("http://localhost:11434/v1"),
    "opencode-go": _Server("https://opencode.ai/zen/go/v1", "OPENCODE_API_KEY"),
    "opencode-zen": _Server("https://opencode.ai/zen/v1", "OPENCODE_API_KEY"),
    "openrouter": _Server("https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
    "ovhcloud": _Server("https://oai.endpoints.kepler.ai.cloud.ovh.net/v1", "OVH_AI_ENDPOINTS_ACCESS_TOKEN"),
    "requesty": _Server("https://router.requesty.ai/v1", "REQUESTY_API_KEY"),
    "together": _Server("https://api.together.xyz/v1", "TOGETHER_API_KEY"),
    "vercel": _Server("https://ai-gateway.vercel.sh/v1", "AI_GATEWAY_API_KEY"),
    "xai": _Server("https://api.x.ai/v1", "XAI_API_KEY"),
}
"""Providers with an OpenAI-compatible API, by docker-agent's names for them."""

_OTHER_NAMES = {
    "fireworks-ai": "fireworks",
    "togetherai": "together",
    "moonshotai": "moonshot",
    "opencode": "opencode-zen",
}
_NATIVE = {
    "openai": ("OPENAI_API_KEY",),
    "anthropic": ("ANTHROPIC_API_KEY",),
    "google": ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
}
_BEDROCK = "amazon-bedrock"
_LOCAL = "local"
"""A provider of this package: a model in a process of this machine."""

_AUTO = (
    ("anthropic", "claude-sonnet-4-5"),
    ("openai", "gpt-5-mini"),
    ("google", "gemini-2.5-flash"),
    ("mistral", "mistral-small-latest"),
    ("dmr", "ai/qwen3"),
)
"""The models of which ``auto`` is the first whose key is set."""

_SENT = ("top_k", "min_p", "repetition_penalty", "service_tier", "top_a")
"""Options of a provider that are fields of its request."""


class ConfiguredModel:
    """A model with settings of its own, made when a run asks it.

    Args:
      name: its name in events.
      make: makes the model.
      settings: its settings. Those of a request come before them.
    """

    def __init__(self, name: str, make: Callable[[], Model], settings: ModelSettings) -> None:
        self.name = name
        self.settings = settings
        self._make = make

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Model]:
        """Open the model for a run."""
        model = self._make()
        if not isinstance(model, OpenableModel):
            yield _Configured(self.name, model, self.settings)
            return
        async with model.open() as opened:
            yield _Configured(self.name, opened, self.settings)

    async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
        """Respond to a request outside of an `open` block."""
        async with self.open() as model:
            return await model.respond(request, reply)

    def __repr__(self) -> str:
        return f"<model {self.name}>"


class _Configured:
    def __init__(self, name: str, model: Model, settings: ModelSettings) -> None:
        self.name = name
        self._model = model
        self._settings = settings

    async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
        settings = merged_settings(self._settings, request.settings)
        return await self._model.respond(msgspec.structs.replace(request, settings=settings), reply)


@frozen
class Choice:
    """A model that an agent has, and what the file says beside it."""

    model: Model | str
    prices: dict[str, Price] = field(factory=dict[str, Price])
    threshold: float | None = None
    """The part of the window at which the conversation is shortened."""
    compaction_model: str = ""
    """A reference to the model that sums up."""
    rules: tuple[tuple[Model | str, tuple[str, ...]], ...] = ()
    """Other models, each with prompts that it is for."""


class Models:
    """The models of a file."""

    def __init__(self, top: Section, override: Mapping[str, Model | str] | Model | str | None) -> None:
        self._context: Context = top.context
        self._models = top.named("models")
        self._providers = top.named("providers")
        self._override = override
        self._made: dict[str, Choice] = {}

    def choice(self, reference: str, section: Section, field: str, path: tuple[str, ...] = ()) -> Choice:
        """The model that a field of ``section`` names.

        Args:
          reference: the name of an entry of ``models``, or ``provider/model``.
          path: the entries that lead to this one.

        Raises:
          TeamFileError: there is no such model, or entries lead back to themselves.
        """
        reference = reference.strip()
        if reference in self._made:
            return self._made[reference]
        if reference in path:
            raise section.error(f"the models {', '.join(path)} name each other", field)
        replaced = self._replacement(reference)
        if replaced is not None:
            made = Choice(replaced)
        elif reference in self._models:
            made = self._entry(reference, (*path, reference))
        elif reference == "auto":
            made = self._auto()
        else:
            made = self._inline(reference, section, field)
        self._made[reference] = made
        return made

    def named(self) -> dict[str, Choice]:
        """The entries of ``models``, by name: what a person may choose. None, if one model takes the place of all.

        Entries that cannot be made are left out. Only an agent that uses one is refused for it.
        """
        if self._override is not None and not isinstance(self._override, Mapping):
            return {}
        found: dict[str, Choice] = {}
        for name, section in self._models.items():
            # The name of a model with its provider could not be told from it.
            if ":" not in name:
                with suppress(TeamFileError):
                    found[name] = self.choice(name, section, "model")
        return found

    def check_override(self) -> None:
        """Check the names of ``load_team(models={...})``, when all models have been looked up.

        Raises:
          UsageError: the file has no model of such a name, and another model would be asked in its place.
        """
        if not isinstance(self._override, Mapping):
            return
        known = dict.fromkeys((*self._models, *self._made))
        for name in self._override:
            if name not in known:
                meant = nearest(name, known)
                hint = f"did you mean {meant!r}?" if meant else f"it has {', '.join(known) or 'none'}"
                raise UsageError(f"load_team(models=...): the file has no model {name!r}: {hint}")

    def _replacement(self, reference: str) -> Model | str | None:
        if isinstance(self._override, Mapping):
            return self._override.get(reference)
        return self._override

    def _inline(self, reference: str, section: Section, field: str) -> Choice:
        provider, slash, model = reference.partition("/")
        if not slash or not provider or not model.strip():
            known = [*self._models]
            meant = nearest(reference, known)
            hint = f"did you mean {meant!r}?" if meant else "write provider/model, or a name of `models`"
            raise section.error(f"there is no model {reference!r}: {hint}", field)
        return self._of_provider(provider, model, section, field, None)

    def _auto(self) -> Choice:
        for provider, model in _AUTO:
            if self._has_key(provider, None):
                return Choice(self._made_of(provider, model, ModelSettings(), "", "", {}, "", None))
        raise AssertionError("the last one needs no key")  # pragma: no cover

    def _entry(self, name: str, path: tuple[str, ...]) -> Choice:
        section = self._models[name]
        if "first_available" in section:
            return self._first_available(section, path)
        provider, model = section.text("provider"), section.text("model")
        if not provider and "/" in model:
            provider, _, model = model.partition("/")
        if not provider or not model:
            raise section.error(f"`{'model' if provider else 'provider'}` is missing")
        choice = self._of_provider(provider, model, section, "provider", section)
        rules = [
            (self.choice(rule.text("model"), rule, "model", path).model, tuple(rule.texts("examples")))
            for rule in section.sections("routing")
        ]
        return evolve(choice, rules=tuple(rules))

    def _first_available(self, section: Section, path: tuple[str, ...]) -> Choice:
        others = [name for name in section.names if name not in ("first_available", "description")]
        if others:
            raise section.error(
                "an entry with `first_available` has no other fields: give them to its models", others[0]
            )
        candidates = section.texts("first_available")
        for reference in candidates:
            if self._is_available(reference.strip()):
                return self.choice(reference, section, "first_available", path)
        # Nothing is asked before a run: the run then says which key is missing.
        return self.choice(candidates[-1], section, "first_available", path)

    def _is_available(self, reference: str, path: tuple[str, ...] = ()) -> bool:
        if reference in path:
            return False
        section = self._models.get(reference)
        if section is None:
            return self._has_key(reference.partition("/")[0], None)
        if "first_available" in section:
            candidates = section.texts("first_available")
            return any(self._is_available(inner.strip(), (*path, reference)) for inner in candidates)
        return self._has_key(section.text("provider") or section.text("model").partition("/")[0], section)

    def _has_key(self, provider: str, section: Section | None) -> bool:
        own = self._providers.get(provider)
        key = (section and section.text("token_key")) or (own and own.text("token_key"))
        if key:
            return bool(self._context.env.get(key))
        kind = _kind(own.text("provider", "openai") if own else provider)
        if kind in _NATIVE:
            return any(self._context.env.get(name) for name in _NATIVE[kind])
        if kind == _BEDROCK:
            return any(
                self._context.env.get(name) for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_BEARER_TOKEN_BEDROCK")
            )
        server = COMPATIBLE.get(kind)
        return server is not None and (not server.key or bool(self._context.env.get(server.key)))

    def _of_provider(self, provider: str, model: str, at: Section, field: str, entry: Section | None) -> Choice:
        own = self._providers.get(provider)
        kind = _kind(own.text("provider", "openai") if own else provider)
        if kind not in _NATIVE and kind not in COMPATIBLE and kind not in (_BEDROCK, _LOCAL):
            known = (*self._providers, *_NATIVE, _BEDROCK, _LOCAL, *COMPATIBLE)
            meant = nearest(provider, known)
            hint = f"did you mean {meant!r}?" if meant else "define it in `providers`, with a `base_url`"
            at = own or at
            raise at.error(f"there is no provider {kind!r}: {hint}", "provider" if own else field)
        sections = [section for section in (own, entry) if section is not None]
        settings = ModelSettings()
        headers: dict[str, str] = {}
        for section in sections:
            settings = merged_settings(settings, self._settings(section, kind))
            headers |= section.fields("headers")
            options = section.section("provider_opts")
            if options is not None and "http_headers" in options:
                headers |= options.fields("http_headers")
        url = next((section.url("base_url") for section in reversed(sections) if "base_url" in section), "")
        key = next((_key_name(section) for section in reversed(sections) if "token_key" in section), "")
        api = own.text("api_type") if own else ""
        name = f"{provider}:{model}"
        reads = self._reads_media(entry)
        made = self._made_of(kind, model, settings, url, key, headers, api, reads, name)
        prices = {name: _price(entry)} if entry is not None and "cost" in entry else {}
        threshold = entry.number("compaction_threshold") if entry is not None else None
        compaction = next((s.text("compaction_model") for s in reversed(sections) if "compaction_model" in s), "")
        return Choice(made, prices, threshold, compaction)

    def _settings(self, section: Section, kind: str) -> ModelSettings:
        extra: dict[str, Any] = {
            name: section.number(name) for name in ("frequency_penalty", "presence_penalty") if name in section
        }
        seed = None
        options = section.section("provider_opts")
        for name in options.names if options is not None else ():
            assert options is not None
            value = options.plain(name)
            if name == "seed" and isinstance(value, int):
                seed = value
            elif name in _SENT:
                extra[name] = value
            elif name == "extra_body" and isinstance(value, dict):
                extra |= cast("dict[str, Any]", value)
            elif name != "http_headers":
                options.unsupported(name, "This option of the provider is not sent.")
        try:
            return ModelSettings(
                temperature=section.number("temperature"),
                top_p=section.number("top_p") or None,
                max_tokens=section.whole("max_tokens") or None,
                parallel_tool_calls=section.flag("parallel_tool_calls"),
                reasoning_effort=_effort(section),
                seed=seed,
                extra=extra,
            )
        except UsageError as error:
            raise section.error(str(error)) from error

    def _reads_media(self, entry: Section | None) -> bool | None:
        capabilities = entry.section("capabilities") if entry is not None else None
        if capabilities is None:
            return None
        image, pdf = capabilities.flag("image"), capabilities.flag("pdf")
        return bool(image or pdf)

    def _made_of(
        self,
        kind: str,
        model: str,
        settings: ModelSettings,
        url: str,
        key: str,
        headers: dict[str, str],
        api: str,
        reads_media: bool | None,
        name: str = "",
    ) -> Model | str:
        name = name or f"{kind}:{model}"
        if kind == _LOCAL:
            return ConfiguredModel(name, lambda: find_model(name), settings) if settings != ModelSettings() else name
        is_plain = settings == ModelSettings() and not (url or key or headers or api) and reads_media is None
        if is_plain and kind in ("openai", "anthropic") and name == f"{kind}:{model}":
            # By its name alone, so that the run looks for the key, and the catalogue knows it.
            return name
        env = self._context.env

        def make() -> Model:
            return _make(kind, model, name, url, key, headers, api, reads_media, env)

        return ConfiguredModel(name, make, settings)


def _kind(provider: str) -> str:
    lower = provider.strip().lower()
    return _OTHER_NAMES.get(lower, lower)


def _key_name(section: Section) -> str:
    name = section.text("token_key")
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise section.error("`token_key` is the name of an environment variable, and not the key itself", "token_key")
    return name


def _price(entry: Section) -> Price:
    cost = entry.section("cost")
    assert cost is not None
    return Price(
        float(cost.number("input") or 0),
        float(cost.number("output") or 0),
        cost.number("cache_read"),
        cost.number("cache_write"),
    )


_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


def _effort(section: Section) -> Any:
    value = section.number("thinking_budget")
    if value is None:
        return None
    if isinstance(value, (int, float)):
        if value == 0:
            return "none"
        # -1 lets Gemini decide.
        return None if value < 0 else "low" if value <= 4096 else "medium" if value <= 16384 else "high"
    text = str(value).strip().lower()
    text = text.removeprefix("adaptive/") if text.startswith("adaptive/") else "high" if text == "adaptive" else text
    if text not in _EFFORTS:
        meant = nearest(text, (*_EFFORTS, "adaptive"))
        hint = f"did you mean {meant!r}?" if meant else f"give one of {', '.join(_EFFORTS)}, adaptive, or tokens"
        raise section.error(hint, "thinking_budget")
    return text


def _make(
    kind: str,
    model: str,
    name: str,
    url: str,
    key: str,
    headers: dict[str, str],
    api: str,
    reads_media: bool | None,
    env: Mapping[str, str],
) -> Model:
    """The model itself.

    Raises:
      ModelNotFoundError: its key is not set, or its provider has no URL.
      MissingExtraError: its adapter needs a package that is not installed.
    """
    if kind == _BEDROCK:
        return _bedrock(model, name, env)
    variables = (key,) if key else _NATIVE.get(kind) or ((COMPATIBLE[kind].key,) if COMPATIBLE[kind].key else ())
    token = next((env[variable] for variable in variables if env.get(variable)), None)
    if token is None and variables and (key or not url):
        raise ModelNotFoundError(f"model {name!r} needs a key: set the environment variable {' or '.join(variables)}")
    options: dict[str, Any] = {"api_key": token, "headers": headers or None, "name": name, "reads_media": reads_media}
    if kind == "anthropic":
        place = {"base_url": url} if url else {}
        anthropic: Model = import_module("agentloop.providers.anthropic").Anthropic(model, **place, **options)
        return anthropic
    url = url or _url_of(kind, name, env)
    if api == "openai_responses":
        responses: Model = import_module("agentloop.providers.openai_responses").OpenAIResponses(
            model, base_url=url, **options
        )
        return responses
    if kind == "google":
        options["dialect"] = "gemini"
    if kind == "openrouter":
        options["send_reasoning"] = "reasoning_details"
    if kind == "deepseek":
        options |= {"send_reasoning": "reasoning_content", "dialect": "deepseek"}
    chat: Model = import_module("agentloop.providers.openai_chat").OpenAIChat(model, base_url=url, **options)
    return chat


def _url_of(kind: str, name: str, env: Mapping[str, str]) -> str:
    if kind == "openai":
        return env.get("OPENAI_BASE_URL") or "https://api.openai.com/v1"
    if kind == "google":
        return "https://generativelanguage.googleapis.com/v1beta/openai"
    if kind in ("ollama", "dmr"):
        variable = f"{kind.upper()}_BASE_URL"
        return env.get(variable) or COMPATIBLE[kind].url
    url = COMPATIBLE[kind].url
    if not url:
        raise ModelNotFoundError(f"model {name!r}: the provider {kind!r} has no URL of its own: give `base_url`")
    for variable in re.findall(r"\$\{(\w+)\}", url):
        if not env.get(variable):
            raise ModelNotFoundError(f"model {name!r}: set the environment variable {variable}")
        url = url.replace(f"${{{variable}}}", env[variable])
    return url


def _bedrock(model: str, name: str, env: Mapping[str, str]) -> Model:
    """A Claude model on Bedrock, through Anthropic's SDK, which knows how AWS signs requests."""
    if "anthropic" not in model and "claude" not in model:
        raise ModelNotFoundError(f"model {name!r}: of Bedrock's models, those of Anthropic can be used")
    # Its import says which extra is missing.
    adapter = import_module("agentloop.providers.anthropic_client")
    sdk: Any = import_module("anthropic")
    if find_spec("botocore") is None:
        raise ModelNotFoundError(
            f"model {name!r} needs botocore, which signs requests: pip install 'anthropic[bedrock]'"
        )
    region = env.get("AWS_REGION") or env.get("AWS_DEFAULT_REGION") or "us-east-1"
    return _Bedrock(name, model, lambda: sdk.AsyncAnthropicBedrock(aws_region=region), adapter.AnthropicClient)


class _Bedrock:
    """A model whose client is opened and closed with the run."""

    def __init__(self, name: str, model: str, client: Callable[[], Any], adapter: Callable[..., Model]) -> None:
        self.name = name
        self._model = model
        self._client = client
        self._adapter = adapter

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Model]:
        async with self._client() as client:
            yield self._adapter(client, self._model, name=self.name)

    async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
        async with self.open() as model:
            return await model.respond(request, reply)
