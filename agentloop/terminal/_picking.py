"""What the terminal's own commands show and do: models, levels of thinking, usage."""

from __future__ import annotations

import shutil
import textwrap
from typing import Any

from agentloop._choosing import (
    DEFAULT,
    Chosen,
    choose_level,
    choose_model,
    levels_of,
    model_facts,
    model_name,
    named_model,
)
from agentloop.config import AgentConfig
from agentloop.messages import Usage
from agentloop.outcome import Cost
from agentloop.providers import ProviderInfo, model_choices
from agentloop.session import Session

__all__ = ["model_lines", "pick_level", "pick_model", "usage_lines", "wrapped_entry"]

INDENT = "  "
FEW = 12
"""Models of a provider that are listed without a question for them."""

NARROW = 60
"""Columns below which facts stand on lines of their own."""

MOST_COLUMNS = 100


def wrapped_entry(head: str, facts: str, column: int) -> list[str]:
    """``head`` and ``facts`` side by side; on a narrow terminal, or behind a long head, one below the other."""
    width = _width()
    if not facts:
        return textwrap.wrap(head, width - 2, initial_indent=INDENT, subsequent_indent=INDENT)
    place = INDENT + " " * (column + 2)
    if width >= NARROW and len(head) <= column and width - len(place) >= NARROW // 3:
        return textwrap.wrap(facts, width, initial_indent=f"{INDENT}{head:{column}}  ", subsequent_indent=place)
    heads = textwrap.wrap(head, width - 2, initial_indent=INDENT, subsequent_indent=INDENT)
    return [*heads, *textwrap.wrap(facts, width - 2, initial_indent=INDENT * 3, subsequent_indent=INDENT * 3)]


def _width() -> int:
    return max(20, min(shutil.get_terminal_size().columns - 1, MOST_COLUMNS))


def _sentence(text: str) -> list[str]:
    return textwrap.wrap(text, _width() - 2, initial_indent=INDENT, subsequent_indent=INDENT)


# -------------------------------------------------------------------------------- models


def model_lines(agent: AgentConfig[Any, Any], session: Session) -> list[str]:
    """The models that can be chosen: those of the agent, and those of each provider, with its key."""
    lines = _sentence(f"The model is {_described(agent, session)}.")
    rows = [(name, model_facts(agent, model_name(model))) for name, model in agent.models.items()]
    providers = model_choices()
    for provider in providers:
        if provider.has_key and 0 < len(provider.models) <= FEW:
            rows += _rows_of(agent, provider)
    lines += _table(rows)
    lines += _table([(provider.name, _provider_facts(provider)) for provider in providers])
    lines += _sentence(
        f"/model NAME chooses one, /model PROVIDER lists its models, and /model {DEFAULT} is the agent's."
    )
    return lines


def pick_model(agent: AgentConfig[Any, Any], session: Session, typed: str) -> list[str]:
    """Choose the model that is called ``typed``, or list the models of the provider of this name.

    Raises:
      UsageError: there is no such model, or it cannot be asked.
    """
    if typed not in agent.models:
        for provider in model_choices():
            if typed in (provider.name, f"{provider.name}:"):
                return _models_of(agent, provider)
    return _choose(agent, session, choose_model(agent, session.choice, typed))


def pick_level(agent: AgentConfig[Any, Any], session: Session, typed: str) -> list[str]:
    """Choose the level of thinking ``typed``; show those that there are, if it is empty.

    Raises:
      UsageError: the model does not have it.
    """
    if typed:
        return _choose(agent, session, choose_level(agent, session.choice, typed))
    name = model_name(named_model(agent, session.choice))
    levels = levels_of(name)
    can = f"It can be {', '.join((*levels, DEFAULT))}" if levels else f"{name} does not think before it answers"
    return [*_sentence(f"The model is {_described(agent, session)}."), *_sentence(f"{can}.")]


def _choose(agent: AgentConfig[Any, Any], session: Session, chosen: Chosen) -> list[str]:
    session.choice = chosen.choice
    said = _sentence(f"From the next prompt on: {_described(agent, session)}.")
    return said + (_sentence(chosen.note) if chosen.note else [])


def _described(agent: AgentConfig[Any, Any], session: Session) -> str:
    choice = session.choice
    name = model_name(named_model(agent, choice))
    called = "" if choice is None or not isinstance(choice.model, str) or choice.model == name else choice.model
    whose = "the agent's own" if choice is None or choice.model is None else f"chosen as {called}" if called else ""
    level = None if choice is None else choice.reasoning_effort
    words = [word for word in (whose, f"thinking {level}" if level else "") if word]
    return f"{name} ({', '.join(words)})" if words else name


def _models_of(agent: AgentConfig[Any, Any], provider: ProviderInfo) -> list[str]:
    head = f"{provider.name}: {_provider_facts(provider)}"
    if not provider.models:
        return _sentence(head)
    # The unit of the prices stands once above them, so that a row fits into the 80 columns of most terminals.
    rows = [(model.name, model_facts(agent, model.name, per="")) for model in provider.models]
    return [*_sentence(f"{head}; prices are for a million tokens, read / written"), *_table(rows)]


def _rows_of(agent: AgentConfig[Any, Any], provider: ProviderInfo) -> list[tuple[str, str]]:
    return [(model.name, model_facts(agent, model.name)) for model in provider.models]


def _table(rows: list[tuple[str, str]]) -> list[str]:
    width = _width()
    names = max((len(name) for name, _ in rows), default=0)
    facts = max((len(facts) for _, facts in rows), default=0)
    # A few long names stand on lines of their own, rather than that all facts are wrapped.
    column = min(names, width // 2, max(width - facts - 2 * len(INDENT), width // 3))
    return [line for name, facts in rows for line in wrapped_entry(name, facts, column)]


def _provider_facts(provider: ProviderInfo) -> str:
    count = len(provider.models)
    what = f"{count} models" if count > 1 else f"{provider.name}:NAME"
    if provider.key_variable and not provider.has_key:
        return f"{what}, needs {provider.key_variable}"
    return f"{what}, on this machine" if provider.is_local or not provider.key_variable else f"{what}, has its key"


# --------------------------------------------------------------------------------- usage


def usage_lines(agent: AgentConfig[Any, Any], session: Session, usage: Usage) -> list[str]:
    """What the session has used and cost, and what is left of the window of its next request."""
    plural = "" if usage.requests == 1 else "s"
    cached = f", {usage.cached_tokens:,} of them from the cache" if usage.cached_tokens else ""
    lines = _sentence(
        f"{usage.requests:,} request{plural}: {usage.input_tokens:,} tokens read{cached}, "
        f"{usage.output_tokens:,} written. Cost: {Cost.of(usage)}."
    )
    context = session.context(agent)
    if context.window is None:
        window = f"The next request has about {context.tokens:,} tokens; the window of the model is not known."
    else:
        window = (
            f"The next request has about {context.tokens:,} tokens of a window of {context.window:,}: "
            f"{context.left:,} are left."
        )
    return [*lines, *_sentence(window), *_sentence(f"The model is {_described(agent, session)}.")]
