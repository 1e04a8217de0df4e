"""The cost of a response."""

from __future__ import annotations

import msgspec

from agentloop.limits import Price
from agentloop.messages import Usage

__all__ = ["priced"]


def priced(usage: Usage, price: Price) -> Usage:
    """``usage`` with its cost. Tokens that were read from the cache, or written to it, have prices of their own."""
    cached, written = usage.cached_tokens, usage.cache_written_tokens
    fresh = max(usage.input_tokens - cached - written, 0)
    cost = (
        fresh * price.input
        + cached * (price.input if price.cached is None else price.cached)
        + written * (price.input if price.cache_written is None else price.cache_written)
        + usage.output_tokens * price.output
    )
    return msgspec.structs.replace(usage, cost=cost / 1_000_000)
