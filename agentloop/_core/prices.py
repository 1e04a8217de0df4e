"""The cost of a response by prices that are not the agent's own: those of the catalogue, or of genai-prices."""

from __future__ import annotations

import sys
from typing import Any

from agentloop._core.catalogue import catalogue_date, known_model
from agentloop._core.usage import priced, with_cost
from agentloop.messages import Usage

__all__ = ["CATALOGUE_CURRENCY", "cost_by_catalogue", "reports_cost"]

CATALOGUE_CURRENCY = "USD"
"""The currency of the catalogue, and of genai-prices."""

_GENAI_PROVIDERS = {"openai-responses": "openai", "gemini": "google"}
"""The names that genai-prices has for some of our providers."""


def reports_cost(name: str) -> bool:
    """Whether the provider of the model ``name`` reports the cost of each response."""
    return name.startswith("openrouter:")


def cost_by_catalogue(usage: Usage, name: str, reported: str = "") -> Usage | None:
    """``usage`` of one response of the model ``name``, with its cost; ``None`` if its price is not known.

    genai-prices comes first if the program has imported it: its list may be newer. It is not imported here, since that
    takes a second.
    """
    library = sys.modules.get("genai_prices")
    if library is not None and ":" in name:
        cost = _by_genai_prices(library, usage, name, reported)
        if cost is not None:
            return cost
    known = known_model(name, reported=reported)
    if known is None or known.price is None:
        return None
    return priced(usage, known.price, currency=CATALOGUE_CURRENCY, price_list=f"catalogue {catalogue_date()}")


def _by_genai_prices(library: Any, usage: Usage, name: str, reported: str) -> Usage | None:
    provider, _, model = name.partition(":")
    tokens = library.Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cached_tokens,
        cache_write_tokens=usage.cache_written_tokens,
    )
    for called in (reported, model):
        try:
            found = library.calc_price(tokens, called, provider_id=_GENAI_PROVIDERS.get(provider, provider))
        except (LookupError, ValueError):
            continue
        version = getattr(library, "__version__", "")
        price_list = f"genai-prices {version}".strip()
        return with_cost(usage, float(found.total_price), currency=CATALOGUE_CURRENCY, price_list=price_list)
    return None
