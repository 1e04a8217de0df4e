"""What a person may choose in a front end: the model of a session, how much it thinks, and the mode of permissions.

The terminal, the page's server and ACP show the same choices and refuse the same ones. Nothing here waits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any

from attrs import frozen

from agentloop._core.catalogue import EFFORTS, OWN_MACHINE, known_model, models_of
from agentloop._core.field_checks import shown
from agentloop._core.on_first_use import get_close_matches
from agentloop._core.prices import CATALOGUE_CURRENCY
from agentloop.config import AgentConfig
from agentloop.errors import ModelNotFoundError, UsageError
from agentloop.limits import Price
from agentloop.models import Model, ModelChoice, ReasoningEffort
from agentloop.permissions import Mode, Permissions
from agentloop.providers import model_choices

__all__ = [
    "DEFAULT",
    "MODES",
    "Chosen",
    "choose_level",
    "choose_model",
    "known_levels",
    "levels_of",
    "mode_of",
    "model_facts",
    "model_name",
    "modes_for",
    "named_model",
    "nearest",
    "price_of",
]

DEFAULT = "default"
"""The word for the agent's own model, or its own level, unless the agent has a model of that name."""

MODES: Mapping[Mode, str] = {
    "plan": "Tools that only read run, no others",
    "strict": "Every call needs approval",
    "safe": "Tools that only read run, all other calls need approval",
    "safer": "Calls that are known to be harmless run, all others need approval",
    "default": "Each tool decides whether it needs approval",
    "accept_edits": "Tools that destroy nothing run, the others decide for themselves",
    "autonomous": "No call needs approval",
}
"""The modes of permissions from the strictest on, each in words for the person who chooses."""

NEAREST = 3
"""Names that an error suggests, at most."""


@frozen
class Chosen:
    """What a person has chosen for a session."""

    choice: ModelChoice | None
    """For `Session.choice`."""
    note: str = ""
    """What the person should know of it; empty for nothing."""


def named_model(agent: AgentConfig[Any, Any], choice: ModelChoice | None) -> Model | str:
    """The model that answers in a session of ``agent`` with this choice: an object, or the whole name of one."""
    model = agent.model if choice is None or choice.model is None else choice.model
    return agent.models.get(model, model) if isinstance(model, str) else model


def model_name(model: Model | str) -> str:
    """The name of ``model`` in the catalogue and in events."""
    return model if isinstance(model, str) else model.name


def levels_of(name: str) -> tuple[ReasoningEffort, ...]:
    """The levels of thinking that can be chosen for the model ``name``; empty if it does not think.

    All of them where the catalogue does not say which.
    """
    known = known_model(name)
    if known is None or name.partition(":")[0] in OWN_MACHINE:
        return EFFORTS
    if "reasoning" not in known.abilities:
        return ()
    return known.efforts or EFFORTS


def known_levels(name: str) -> tuple[ReasoningEffort, ...]:
    """The levels of thinking of the model ``name``, as the catalogue has them; empty if it does not know."""
    known = known_model(name)
    return () if known is None or "reasoning" not in known.abilities else known.efforts


def model_facts(agent: AgentConfig[Any, Any], name: str, *, per: str = " a million") -> str:
    """The window and the price of the model ``name``, and whether it thinks, in words; empty if nothing is known.

    Args:
      per: how many tokens the price is for; empty in a list that says it once for all.
    """
    known = known_model(name)
    price, currency = price_of(agent, name)
    window = f"{known.window:,} tokens" if known is not None and known.window else ""
    thinks = "thinks" if known is not None and "reasoning" in known.abilities else ""
    return ", ".join(filter(None, (window, _price(price, currency, per), thinks)))


def price_of(agent: AgentConfig[Any, Any], name: str) -> tuple[Price | None, str]:
    """The price of the model ``name`` for ``agent``, and its currency: the agent's own, or that of the catalogue."""
    if (own := agent.prices.get(name)) is not None:
        return own, agent.currency
    known = known_model(name)
    return None if known is None else known.price, CATALOGUE_CURRENCY


def _price(price: Price | None, currency: str, per: str) -> str:
    if price is None:
        return ""
    if not price.input and not price.output:
        return "free"
    return f"{price.input:g} / {price.output:g} {currency}{per}"


def modes_for(agent: AgentConfig[Any, Any]) -> tuple[Mode, ...]:
    """The modes that a person may choose for a session of ``agent``: the agent's own, and those that are stricter.

    The stricter of the agent's and the session's mode counts, so that a looser one would change nothing.
    """
    modes = tuple(MODES)
    own = None if agent.permissions is None else agent.permissions.mode
    return modes if own is None or own == "default" else modes[: modes.index(own) + 1]


def mode_of(agent: AgentConfig[Any, Any], permissions: Permissions | None) -> Mode:
    """The mode in which calls are judged in a session of ``agent`` with these permissions."""
    offered = modes_for(agent)
    mode = "default" if permissions is None else permissions.mode
    if mode == "default" and agent.permissions is not None:
        mode = agent.permissions.mode
    return mode if mode in offered else offered[-1]


def choose_model(agent: AgentConfig[Any, Any], choice: ModelChoice | None, typed: str) -> Chosen:
    """Choose the model that a person calls ``typed``, after ``choice``. A level that it does not have is given up.

    Args:
      typed: a name in ``Agent(models={...})``, ``"provider:model"``, or `DEFAULT`.

    Raises:
      ModelNotFoundError: there is no such model, or its key is missing. The message has the nearest names.
      MissingExtraError: its adapter needs a package that is not installed.
    """
    note = ""
    model: str | None = typed
    if typed in agent.models:
        _check(agent, agent.models[typed])
    elif typed == DEFAULT:
        model = None
    elif ":" in typed:
        _check(agent, typed)
        note = _unknown(typed)
    else:
        raise ModelNotFoundError(_no_model(agent, typed))
    level = None if choice is None else choice.reasoning_effort
    name = model_name(named_model(agent, ModelChoice(model=model)))
    if level is not None and level not in levels_of(name):
        note = f"{note} {name} has no level of thinking {level!r}: it thinks as its settings say.".strip()
        level = None
    return Chosen(_choice(model, level), note)


def choose_level(agent: AgentConfig[Any, Any], choice: ModelChoice | None, typed: str) -> Chosen:
    """Choose how much the model of the session thinks.

    Args:
      typed: a level, or `DEFAULT`.

    Raises:
      UsageError: there is no such level, or the model does not have it. The message says which it has.
    """
    name = model_name(named_model(agent, choice))
    model = None if choice is None else choice.model
    if typed == DEFAULT:
        return Chosen(_choice(model, None))
    levels = levels_of(name)
    if not levels:
        raise UsageError(f"model {name!r} does not think before it answers: choose a model that does")
    for level in levels:
        if level == typed:
            return Chosen(_choice(model, level))
    close = nearest(typed, levels)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    raise UsageError(f"model {name!r} has no level of thinking {shown(typed)}: {hint}it has {', '.join(levels)}")


def nearest(typed: str, names: Iterable[str]) -> tuple[str, ...]:
    """The names that are most like what a person has typed, the nearest first."""
    folded = {name.casefold(): name for name in names}
    typed = typed.casefold()
    close = get_close_matches(typed, folded, NEAREST, 0.6)
    begin = [name for name in folded if typed and name.startswith(typed)]
    return tuple([folded[name] for name in dict.fromkeys([*close, *begin])][:NEAREST])


def _check(agent: AgentConfig[Any, Any], model: Model | str) -> None:
    """Check that ``model`` can be asked, as far as is known without asking it."""
    if isinstance(model, str):
        import_module("agentloop.providers").model_for(agent.name, model)


def _choice(model: Model | str | None, level: ReasoningEffort | None) -> ModelChoice | None:
    return None if model is None and level is None else ModelChoice(model=model, reasoning_effort=level)


def _no_model(agent: AgentConfig[Any, Any], typed: str) -> str:
    by_word = {name: name for name in agent.models}
    # A person leaves out the provider: those whose models can be asked come first.
    for provider in sorted(model_choices(), key=lambda one: not one.has_key):
        by_word.setdefault(f"{provider.name}:", f"{provider.name}:MODEL")
        for model in provider.models:
            by_word.setdefault(model.name.partition(":")[2], model.name)
    exact = [by_word[typed]] if typed in by_word else []
    close = [*dict.fromkeys([*exact, *[by_word[word] for word in nearest(typed, by_word)]])]
    hint = f"did you mean {' or '.join(close)}?" if close else 'write "provider:model", such as "openai:gpt-5"'
    return f"there is no model {shown(typed)}: {hint}"


def _unknown(name: str) -> str:
    """A doubt about a model that its provider may have, and the catalogue does not; empty where there is none."""
    provider, _, model = name.partition(":")
    names = models_of(provider)
    if known_model(name) is not None or not names:
        return ""
    close = nearest(model, names)
    hint = f" Did you mean {' or '.join(f'{provider}:{one}' for one in close)}?" if close else ""
    return f"The catalogue does not have {name}.{hint}"
