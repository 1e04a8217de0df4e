"""Write the catalogue of models, `agentloop/_core/catalogue.json`, from the table that the package litellm carries.

::

    python -m tests.catalogue.make model_prices_and_context_window_backup.json

The table (MIT licence) is in each of litellm's wheels, which need not be installed. Its numbers are facts of the
providers' price pages. What is taken over: chat models of the providers that `agentloop.providers` names, with their
prices in US dollars per million tokens, their windows, output limits and abilities.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

TARGET = Path(__file__).parents[2] / "agentloop" / "_core" / "catalogue.json"

PROVIDERS = {
    "openai": "openai",
    "anthropic": "anthropic",
    "gemini": "gemini",
    "deepseek": "deepseek",
}
"""litellm's names of providers, and ours."""

ABILITIES = {
    "supports_function_calling": "tools",
    "supports_vision": "images",
    "supports_pdf_input": "documents",
    "supports_response_schema": "schema",
    "supports_reasoning": "reasoning",
}

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")

TIER = re.compile(r"input_cost_per_token_above_(\d+)k_tokens")


def price(row: Mapping[str, Any], suffix: str = "") -> list[float | None]:
    """Input, output, cached and cache-written price per million tokens."""
    names = ("input_cost_per_token", "output_cost_per_token", "cache_read_input_token_cost")
    prices: list[float | None] = []
    for name in (*names, "cache_creation_input_token_cost"):
        value = row.get(name + suffix)
        prices.append(None if value is None else round(value * 1_000_000, 6))
    # No provider writes to its cache for nothing: a zero says that it has no price of its own.
    if not prices[3]:
        prices[3] = None
    return prices


def entry(row: Mapping[str, Any]) -> dict[str, Any]:
    """A model as the catalogue has it. Fields without a value are left out."""
    efforts = efforts_of(row) if row.get("supports_reasoning") else []
    tiers: list[list[float | None]] = []
    for name in row:
        match = TIER.fullmatch(name)
        if match:
            above = int(match[1])
            # Windows of powers of ten are counted in thousands, and OpenAI's in the same.
            tiers.append([above * 1000, *price(row, f"_above_{above}k_tokens")])
    fields = {
        "window": row.get("max_input_tokens") or row.get("max_tokens"),
        "output": row.get("max_output_tokens"),
        "price": price(row),
        "tiers": sorted(tiers, key=lambda tier: tier[0] or 0),
        "abilities": [ours for theirs, ours in ABILITIES.items() if row.get(theirs)],
        "efforts": efforts,
    }
    return {name: value for name, value in fields.items() if value not in (None, [])}


def efforts_of(row: Mapping[str, Any]) -> list[str]:
    """The values of ``reasoning_effort`` that the model is known to take, if it says so of any."""
    says = {effort: row.get(f"supports_{effort}_reasoning_effort") for effort in EFFORTS}
    if not any(value is not None for value in says.values()):
        return []
    # Where the table speaks of the others, it does not say what all have.
    usual = {"low": True, "medium": True, "high": True}
    return [effort for effort in EFFORTS if (says[effort] if says[effort] is not None else usual.get(effort))]


def catalogue(table: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The catalogue of ``table``, whose keys are names of models, some with the name of their provider before them."""
    models: dict[str, dict[str, Any]] = {ours: {} for ours in PROVIDERS.values()}
    for name, row in table.items():
        provider = PROVIDERS.get(row.get("litellm_provider", ""))
        if provider is None or row.get("mode") not in ("chat", "responses") or row.get("input_cost_per_token") is None:
            continue
        short = name.removeprefix(f"{row['litellm_provider']}/")
        if short.startswith(("ft:", "azure/")) or row.get("output_cost_per_token") is None:
            continue
        models[provider].setdefault(short, entry(row))
    ordered = {provider: dict(sorted(rows.items())) for provider, rows in models.items()}
    return {"date": f"{datetime.now(UTC):%Y-%m-%d}", "currency": "USD", "models": ordered}


def write(source: Path) -> None:
    """Write the catalogue, a line for each model, so that a change shows what has changed."""
    made = catalogue(json.loads(source.read_text(encoding="utf-8")))
    lines = [f'{{"date": {json.dumps(made["date"])}, "currency": "USD", "models": {{']
    for provider, rows in made["models"].items():
        lines.append(f"{json.dumps(provider)}: {{")
        lines += [f"{json.dumps(name)}: {json.dumps(row)}," for name, row in rows.items()]
        lines[-1] = lines[-1].removesuffix(",")
        lines.append("},")
    lines[-1] = "}"
    lines.append("}}")
    TARGET.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
