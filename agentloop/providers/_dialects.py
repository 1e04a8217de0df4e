"""The tables of what servers of one wire format differ in: what they accept in a request, and what they refuse.

A server is known by its host; a model behind an unknown host, such as a gateway, by its name. Each entry is a rule that
the provider documents, or that its server was seen to enforce with status 400.
"""

from __future__ import annotations

import re
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

from attrs import evolve, frozen

from agentloop._core.catalogue import nearest_effort
from agentloop.errors import UsageError
from agentloop.models import ReasoningEffort
from agentloop.providers._fitting import WireRules
from agentloop.providers._media import BLIND, IMAGES, SOUNDS, MediaRules
from agentloop.providers._tool_schema import GEMINI, PLAIN, SchemaRules

__all__ = [
    "ChatDialect",
    "Dialect",
    "OutputBy",
    "chat_dialect",
    "fit_media",
    "is_openai",
    "known_host",
    "openai_effort",
    "reasons",
    "usual_effort",
]

ChatDialect: TypeAlias = Literal["openai", "gemini", "mistral", "deepseek", "groq", "openrouter", "compatible"]
"""The server whose rules for chat completions apply; ``"compatible"`` for any other one."""

OutputBy: TypeAlias = Literal["schema", "json", "words"]
"""How a server is asked for structured output.

- ``schema``: by a JSON Schema, which the server enforces.
- ``json``: by words, and the server enforces that the answer is JSON.
- ``words``: by words alone.
"""


@frozen(kw_only=True)
class Dialect:
    """The rules of one server for chat completions."""

    name: ChatDialect
    """The server's name."""
    rules: WireRules
    """The rules for the transcript."""
    schemas: SchemaRules = PLAIN
    """The rules for the schemas of tools and of the output."""
    output: OutputBy = "schema"
    """How to ask for structured output."""
    output_with_tools: OutputBy = "schema"
    """How to ask for structured output in a request with tools."""
    max_tokens_field: str = "max_tokens"
    """The field for `ModelSettings.max_tokens`. OpenAI refuses the old name for reasoning models, and most other
    servers do not know the new one, ``max_completion_tokens``."""
    seed_field: str | None = "seed"
    """The field for `ModelSettings.seed`; ``None`` if the server refuses it."""
    has_stream_options: bool = True
    """Whether the server knows ``stream_options``. One that does not sends the usage in any case."""
    has_reasoning_effort: bool = True
    """Whether the server knows ``reasoning_effort``."""
    has_parallel_calls: bool = True
    """Whether the model knows ``parallel_tool_calls``."""
    has_forced_choice: bool = True
    """Whether the model can be forced to call a tool."""
    forced_choice_excludes_reasoning: bool = False
    """Whether the server refuses ``reasoning_effort`` beside a forced call."""
    may_user_follow_result: bool = True
    """Whether a message of the user may follow a tool result. Some chat templates leave out calls and results where
    they check that user and model alternate, and then find two messages of the user in a row."""
    placeholder_signature: str | None = None
    """The signature for a call of another model, where the server demands one of each response with calls."""


# ---------------------------------------------------------------------------------- servers


_HTTP = frozenset({"http", "https"})
_IDS_OF_40 = re.compile(r"(?s:.{1,40})")
_IDS_OF_NINE = re.compile(r"[a-zA-Z0-9]{9}")

_DIALECTS: dict[ChatDialect, Dialect] = {
    "openai": Dialect(
        name="openai",
        rules=WireRules(
            call_id=_IDS_OF_40,
            media=MediaRules(files=frozenset({"application/pdf"}), sounds=SOUNDS, has_file_urls=False, schemes=_HTTP),
        ),
        max_tokens_field="max_completion_tokens",
    ),
    "gemini": Dialect(
        name="gemini",
        rules=WireRules(
            call_id=_IDS_OF_40,
            has_letter_first=True,
            media=MediaRules(sounds=SOUNDS, has_file_urls=False, schemes=_HTTP),
        ),
        schemas=GEMINI,
        seed_field=None,
        output_with_tools="words",
    ),
    "mistral": Dialect(
        name="mistral",
        rules=WireRules(call_id=_IDS_OF_NINE, made_call_id=9, media=MediaRules(has_file_urls=False, schemes=_HTTP)),
        output_with_tools="words",
        seed_field="random_seed",
        has_stream_options=False,
        has_reasoning_effort=False,
        may_user_follow_result=False,
    ),
    "deepseek": Dialect(
        name="deepseek",
        rules=WireRules(call_id=_IDS_OF_40, media=BLIND),
        output="json",
        output_with_tools="words",
    ),
    "groq": Dialect(
        name="groq",
        rules=WireRules(call_id=_IDS_OF_40, media=MediaRules(has_file_urls=False, schemes=_HTTP)),
        output="json",
        output_with_tools="words",
    ),
    "openrouter": Dialect(
        name="openrouter",
        rules=WireRules(
            call_id=_IDS_OF_40, media=MediaRules(files=frozenset({"application/pdf"}), sounds=SOUNDS, schemes=_HTTP)
        ),
    ),
    # A server of the user's own may accept files and schemes that no provider does.
    "compatible": Dialect(
        name="compatible",
        rules=WireRules(call_id=_IDS_OF_40, media=MediaRules(files=None, sounds=SOUNDS, schemes=None)),
        # The name of a model that a server has loaded may say nothing about the model, nor about its chat template.
        may_user_follow_result=False,
    ),
}

_HOSTS: dict[str, ChatDialect] = {
    "api.openai.com": "openai",
    "openai.azure.com": "openai",
    "cognitiveservices.azure.com": "openai",
    "generativelanguage.googleapis.com": "gemini",
    "aiplatform.googleapis.com": "gemini",
    "api.mistral.ai": "mistral",
    "api.deepseek.com": "deepseek",
    "api.groq.com": "groq",
    "openrouter.ai": "openrouter",
}
"""The hosts of each server. A regional host ends with one of them: ``eu.api.openai.com``."""

_MODELS: tuple[tuple[re.Pattern[str], ChatDialect], ...] = (
    (re.compile(r"gemini-"), "gemini"),
    (re.compile(r"(?:open-)?mi[sx]tral-|ministral-|codestral-|devstral-|magistral-|pixtral-"), "mistral"),
    (re.compile(r"deepseek-(?:chat|reasoner)$"), "deepseek"),
)
"""How the models of a server begin. Behind an unknown host, they are taken for models of that server."""

_SIGNING = re.compile(r"gemini-(?![12][.-])")
"""Gemini 3 and newer, which refuse calls without a signature."""
_PLACEHOLDER = "skip_thought_signature_validator"
"""The signature that Gemini documents for a call that another model has made."""


def known_host(url: str) -> ChatDialect | None:
    """The dialect of the server at ``url``; ``None`` if its host is unknown."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        # No URL: the endpoint says so, without the password that may be in it.
        host = ""
    return next((name for known, name in _HOSTS.items() if f".{host}".endswith((f".{known}", f"-{known}"))), None)


def is_openai(url: str) -> bool:
    """Whether the server at ``url`` is OpenAI's own. Azure has older versions of the API, which know fewer fields."""
    return known_host(url) == "openai" and "azure.com" not in url


def chat_dialect(model: str, *, url: str, name: ChatDialect | None = None, reads_media: bool | None = None) -> Dialect:
    """The rules for ``model`` at ``url``.

    Args:
      model: the server's name for the model.
      url: the server's base URL.
      name: the server whose rules apply, in place of the one that ``url`` and ``model`` suggest.
      reads_media: see `fit_media`.

    Raises:
      UsageError: there are no rules called ``name``.
    """
    if name is not None and name not in _DIALECTS:
        raise UsageError(f"there is no dialect {name!r}: give {', '.join(map(repr, _DIALECTS))}, or None")
    short = _short(model)
    by_model: ChatDialect | None = next((dialect for pattern, dialect in _MODELS if pattern.match(short)), None)
    by_host = known_host(url)
    server: ChatDialect = name or by_host or by_model or "compatible"
    dialect = _DIALECTS[server]
    if by_model is not None and by_model != server and name is None:
        # A gateway, which passes the transcript on to the model's own server.
        own = _DIALECTS[by_model]
        ids = evolve(own.rules, media=dialect.rules.media)
        dialect = evolve(dialect, rules=ids, may_user_follow_result=own.may_user_follow_result)
    if server == "gemini" and _SIGNING.match(short):
        dialect = evolve(dialect, placeholder_signature=_PLACEHOLDER, output_with_tools="schema")
    if server == "groq":
        has_schema = short.startswith(("gpt-oss", "kimi-k2", "llama-4"))
        has_effort = short.startswith("gpt-oss")
        dialect = evolve(dialect, output="schema" if has_schema else "json", has_reasoning_effort=has_effort)
    if server == "deepseek" and short == "deepseek-reasoner":
        dialect = evolve(dialect, has_forced_choice=False)
    if "claude" in short:
        dialect = evolve(dialect, forced_choice_excludes_reasoning=True)
    if server == "openai" and _FIRST_REASONING.match(short):
        dialect = evolve(dialect, has_parallel_calls=False)
    if server == "openai" and "audio" not in short and dialect.rules.media.sounds:
        dialect = evolve(dialect, rules=evolve(dialect.rules, media=evolve(dialect.rules.media, sounds=frozenset())))
    return evolve(dialect, rules=fit_media(dialect.rules, model, reads_media))


# ------------------------------------------------------------- models that read only text


_BLIND = re.compile(
    r"""
      gpt-3\.5 | gpt-4$ | gpt-4-(?:\d|32k) | gpt-oss | o1-mini | o1-preview | o3-mini
    | claude-(?:2|instant)
    | deepseek(?!.*(?:vl|ocr))
    | (?:open-)?mixtral | open-mistral | mistral-(?:7b|nemo|tiny|large-24) | codestral | mathstral
    | qwq | qwen-?[123]?(?:\.5)?(?:-coder|-turbo)?[:-](?!.*(?:vl|omni)) | qwen[123]?$ | qwen2\.5$
    | llama-?[23](?:\.[013])?(?![.\d]) | codellama | command-r | phi-?[34](?!.*(?:vision|multimodal))
    | kimi-k2(?![.]5) | glm-4(?!.*v) | grok-(?:[23](?!.*vision)|code) | smollm | granite | gemma-?[12](?!\d)
    """,
    re.VERBOSE,
)
"""How the names of models that read only text begin."""


_UNREASONING = ("gpt-3.5", "gpt-4", "chatgpt-", "gpt-5-chat")
"""How the names of OpenAI's models that do not reason begin. They are old, and known."""


def reasons(model: str) -> bool:
    """Whether ``model`` of OpenAI's reasons, by its name."""
    return not _short(model).startswith(_UNREASONING)


_FIRST_REASONING = re.compile(r"o\d")


def openai_effort(model: str, effort: ReasoningEffort | None) -> ReasoningEffort | None:
    """The effort to ask ``model`` of OpenAI's for: none that does not reason, and the least that it knows."""
    if not reasons(model):
        return None
    if effort is None:
        return None
    fitted = nearest_effort(f"openai:{_short(model)}", effort)
    if fitted is not None:
        return fitted
    if effort in ("none", "minimal"):
        # The first models of the fifth generation alone know the least effort.
        return "minimal" if _MINIMAL.match(_short(model)) else "low"
    return usual_effort(effort)


def usual_effort(effort: ReasoningEffort | None) -> ReasoningEffort | None:
    """The nearest of the efforts that all reasoning models take; ``None`` for none."""
    if effort in (None, "none"):
        return None
    return "low" if effort == "minimal" else "high" if effort in ("xhigh", "max") else effort


_MINIMAL = re.compile(r"gpt-5(?![.]|-codex|-pro)|(?!gpt-|o\d)")


def reads_media(model: str) -> bool:
    """Whether ``model`` can see pictures, by its name. Unknown models can."""
    return _BLIND.match(_short(model)) is None


def fit_media(rules: WireRules, model: str, reads: bool | None) -> WireRules:
    """``rules`` for ``model``.

    Args:
      rules: the rules of the wire.
      model: the server's name for the model.
      reads: whether the model can see pictures and read documents; ``None`` lets its name decide.
    """
    if reads is None:
        # A table of hosts knows more about the models there than their names say.
        return rules if reads_media(model) else evolve(rules, media=BLIND)
    if not reads:
        return evolve(rules, media=BLIND)
    return rules if rules.media.images else evolve(rules, media=MediaRules(images=IMAGES))


def _short(model: str) -> str:
    """The name of ``model`` without the names before it: ``mistralai/Mistral-7B`` is ``mistral-7b``."""
    return model.rpartition("/")[2].lower().removeprefix("ft:")
