"""What is known of other people's models: their windows, prices and abilities, by name.

The table is `catalogue.json` beside this file: a program of the developers' makes it, and it has its date. It is read
when a model of one of its providers is looked up for the first time (0.4 ms).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import msgspec

from agentloop._core.json_text import decode_own
from agentloop.errors import UsageError
from agentloop.limits import Price, PriceTier
from agentloop.models import ReasoningEffort

__all__ = [
    "OWN_MACHINE",
    "Ability",
    "ModelInfo",
    "catalogue_date",
    "check_effort",
    "known_model",
    "models_of",
    "nearest_effort",
]

Ability: TypeAlias = Literal["tools", "images", "documents", "schema", "reasoning"]
"""What a model can do: call tools, read pictures, read documents, write JSON by a schema, think before it answers."""

EFFORTS: tuple[ReasoningEffort, ...] = get_args(ReasoningEffort)
"""In their order."""

OWN_MACHINE = frozenset({"ollama", "lmstudio", "vllm", "llamacpp", "local"})
"""The providers whose models run on a machine of the user's own: a response costs nothing."""


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What the catalogue says of a model."""

    name: str
    """Its name, with the provider: ``"openai:gpt-5"``."""
    window: int | None = None
    """Tokens that a request may have; ``None`` if that is not known."""
    max_output: int | None = None
    """Tokens that a response may have, reasoning included; ``None`` if that is not known."""
    price: Price | None = None
    """Its price in US dollars; ``None`` if it has none in the catalogue."""
    abilities: frozenset[Ability] = frozenset()
    """What it can do."""
    efforts: tuple[ReasoningEffort, ...] = ()
    """The values of ``ModelSettings.reasoning_effort`` that it takes; empty if that is not known."""


class _Row(msgspec.Struct, frozen=True):
    window: int | None = None
    output: int | None = None
    price: tuple[float, float, float | None, float | None] | None = None
    tiers: tuple[tuple[int, float | None, float | None, float | None, float | None], ...] = ()
    abilities: frozenset[Ability] = frozenset()
    efforts: tuple[ReasoningEffort, ...] = ()


class _Table(msgspec.Struct, frozen=True):
    date: str
    currency: str
    models: Mapping[str, Mapping[str, _Row]]


_PROVIDERS = frozenset({"openai", "openai-responses", "anthropic", "gemini", "deepseek", "openrouter"})
"""The providers whose models may be in the table."""

_SAME_MODELS = {"openai-responses": "openai"}
_VENDORS = {"google": "gemini"}
"""The table's names for the vendors that OpenRouter names before a slash."""

_DATE = re.compile(r"[-@](\d{8}|\d{4}-\d{2}-\d{2}|latest)$")


@cache
def _table() -> _Table:
    return decode_own((Path(__file__).parent / "catalogue.json").read_bytes(), _Table)


def catalogue_date() -> str:
    """The day on which the catalogue was made, as in ``"2026-11-29"``."""
    return _table().date


def known_model(name: str, *, reported: str = "") -> ModelInfo | None:
    """What the catalogue says of the model ``name``; ``None`` if it does not have it.

    Args:
      name: with the provider, as in ``"openai:gpt-5"``. A dated name stands for the model without the date.
      reported: the name that the provider itself reports, which is looked up first.
    """
    provider, colon, model = name.partition(":")
    if not colon:
        return None
    if provider in OWN_MACHINE:
        return ModelInfo(name=name, price=Price(0, 0))
    return _known(provider, model, reported) if provider in _PROVIDERS else None


@cache
def _known(provider: str, model: str, reported: str) -> ModelInfo | None:
    for called in (reported, model):
        row = _row(provider, called) if called else None
        if row is not None:
            # OpenRouter has prices of its own, and reports what a response costs.
            price = None if provider == "openrouter" else _price_of(row)
            return ModelInfo(
                name=f"{provider}:{model}",
                window=row.window,
                max_output=row.output,
                price=price,
                abilities=row.abilities,
                efforts=row.efforts,
            )
    return None


def _row(provider: str, model: str) -> _Row | None:
    if provider == "openrouter":
        vendor, slash, model = model.partition("/")
        if not slash:
            return None
        provider, model = _VENDORS.get(vendor, vendor), model.partition(":")[0]
    rows = _table().models.get(_SAME_MODELS.get(provider, provider), {})
    for called in (model, _DATE.sub("", model), model.replace(".", "-")):
        if called in rows:
            return rows[called]
    return None


def _price_of(row: _Row) -> Price | None:
    if row.price is None:
        return None
    # A tier without a price of its own for something has the usual one.
    tiers = tuple(
        [
            PriceTier(
                above,
                row.price[0] if read is None else read,
                row.price[1] if written is None else written,
                row.price[2] if cached is None else cached,
                row.price[3] if kept is None else kept,
            )
            for above, read, written, cached, kept in row.tiers
        ]
    )
    return Price(*row.price, tiers=tiers)


def nearest_effort(name: str, effort: ReasoningEffort) -> ReasoningEffort | None:
    """The value of ``reasoning_effort`` that the model ``name`` takes and that is nearest to ``effort``.

    ``None`` if the catalogue does not say which values it takes.
    """
    known = known_model(name)
    if known is None or not known.efforts:
        return None
    wanted = EFFORTS.index(effort)
    # Who wants a little thinking does not want none.
    taken = [EFFORTS.index(value) for value in known.efforts if value != "none" or effort == "none"]
    return EFFORTS[min(taken, key=lambda place: (abs(place - wanted), place))]


def check_effort(name: str, effort: ReasoningEffort | None) -> None:
    """Check that the model ``name`` takes ``effort``, as far as the catalogue knows the model.

    Raises:
      UsageError: it does not; the message says which it takes.
    """
    known = None if effort is None else known_model(name)
    if known is None or name.partition(":")[0] in OWN_MACHINE:
        return
    if "reasoning" not in known.abilities:
        if effort != "none":
            raise UsageError(
                f"model {name!r} does not think before it answers, so it has no reasoning_effort={effort!r}: leave it "
                "out, or choose a model that does"
            )
    elif known.efforts and effort not in known.efforts:
        raise UsageError(f"model {name!r} has no reasoning_effort={effort!r}: choose one of {', '.join(known.efforts)}")


def models_of(provider: str) -> tuple[str, ...]:
    """The models of ``provider`` in the catalogue, as the provider calls them."""
    return tuple(_table().models.get(_SAME_MODELS.get(provider, provider), ())) if provider in _PROVIDERS else ()
