"""Usage against limits. Meters form a tree, as streams do."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise

import msgspec

from agentloop._core.json_text import same_json
from agentloop.limits import Limits, Price
from agentloop.messages import Usage

__all__ = ["UNPRICED", "Exceeded", "Meter", "RepeatDetector", "in_words", "priced", "with_cost"]


_NONE_RAISED: Mapping[str, float] = {}

UNPRICED = "unpriced"
"""Among the limits that a person has raised: models without a known price may be asked under a limit on cost."""


class Exceeded(msgspec.Struct, frozen=True):
    """A limit that is reached."""

    meter: Meter
    """Whose: the stream's own, or that of one above it."""
    limit: str
    """A field of `Limits`."""
    used: float
    allowed: float
    asked: int = 0
    """Tool calls that the model asks for at once, and that would go past the limit together."""
    unpriced: str = ""
    """Name of a model whose price is not known, so that its cost cannot be held against the limit."""


def in_words(reached: Exceeded) -> str:
    """The limit and its numbers, for a person."""
    used = f"{reached.limit}: {reached.used:.10g} of {reached.allowed:.10g} used"
    if reached.unpriced:
        return f"{used}, and the price of model {reached.unpriced!r} is not known: give it in prices="
    return used + (f", and the model asked for {reached.asked} more" if reached.asked else "")


class Meter:
    """Counts what a stream and its children use.

    The usage of a child run counts in every meter above it, and each of those is asked before the child continues: a
    child's limits are thus carved out of its parent's without being split up beforehand.

    A guest is a run that draws on the limits of a stream, and is no part of it: its usage counts for those limits, and
    not as usage of the stream. See `for_guests`.
    """

    __slots__ = (
        "_guests",
        "_host",
        "allowed",
        "limits",
        "parent",
        "requests",
        "tool_calls",
        "turns",
        "unpriced",
        "usage",
    )

    def __init__(self, limits: Limits, parent: Meter | None = None) -> None:
        self.limits = limits
        self.parent = parent
        self.turns = 0
        self.requests = 0
        self.tool_calls = 0
        self.usage = Usage()
        self.allowed: Mapping[str, float] = _NONE_RAISED
        """Limits that a person has raised; `UNPRICED`, if one lets models be asked whose price is not known."""
        self.unpriced = ""
        """Name of a model whose price is not known, and which was asked, or is about to be."""
        self._host: Meter | None = None
        """The meter whose guests it counts, if it counts guests."""
        self._guests: Meter | None = None
        """Counts the guests, once there was one."""

    def for_guests(self) -> Meter:
        """The meter that stands above those of guests. It has the limits of this one, and counts for them."""
        if self._guests is None:
            above = None if self.parent is None else self.parent.for_guests()
            guests = self._guests = Meter(self.limits, above)
            guests._host = self
        return self._guests

    def restore(
        self, *, turns: int, requests: int, usage: Usage, tool_calls: int, allowed: Mapping[str, float]
    ) -> None:
        """Start from the usage of the stream that this one resumes. The meters above have counted it already.

        Args:
          requests: the requests that went out, failed ones included.
          allowed: limits that a person has raised, and to what.
        """
        for limit, most in allowed.items():
            now = getattr(self.limits, limit, None)
            if limit == UNPRICED:
                self.allowed = {**self.allowed, limit: most}
            elif now is not None:
                # The resumed run may have higher limits.
                self.allowed = {**self.allowed, limit: max(now, most)}
        self.turns, self.requests, self.usage, self.tool_calls = turns, requests, usage, tool_calls

    def count_request(self) -> None:
        """A model request of this stream is about to go out."""
        self.turns += 1
        meter: Meter | None = self
        while meter is not None:
            meter.requests += 1
            meter = meter.parent

    def count_retry(self) -> None:
        """The request is about to go out once more: no new turn, but a request."""
        meter: Meter | None = self
        while meter is not None:
            meter.requests += 1
            meter = meter.parent

    @property
    def counts_cost(self) -> bool:
        """Whether there is a limit on cost, here or above."""
        return self.limits.cost is not None or (self.parent is not None and self.parent.counts_cost)

    @property
    def counts_tokens(self) -> bool:
        """Whether there is a limit on tokens or cost, here or above."""
        has_limit = self.limits.tokens is not None or self.limits.cost is not None
        return has_limit or (self.parent is not None and self.parent.counts_tokens)

    def count_usage(self, usage: Usage) -> None:
        """Count the usage of a response."""
        meter: Meter | None = self
        while meter is not None:
            meter.usage += usage
            meter = meter.parent

    def count_tool_calls(self, calls: int) -> None:
        """This stream is about to run ``calls`` tool calls."""
        meter: Meter | None = self
        while meter is not None:
            meter.tool_calls += calls
            meter = meter.parent

    def before_request(self) -> Exceeded | None:
        """The first limit, inside out, that another model request would break."""
        return self._over("turns", self.limits.turns, self.turns) or self.before_retry()

    def before_retry(self) -> Exceeded | None:
        """The first limit, inside out, that a request which is no new turn would break: those that children draw on."""
        reached: Exceeded | None = None
        meter: Meter | None = self
        while reached is None and meter is not None:
            owner = meter if meter._host is None else meter._host
            limits, guests, requests, usage = owner.limits, owner._guests, owner.requests, owner.usage
            if guests is not None:
                requests, usage = requests + guests.requests, usage + guests.usage
            reached = owner._over("requests", limits.requests, requests)
            if reached is None and limits.tokens is not None:
                reached = owner._over("tokens", limits.tokens, usage.total_tokens)
            if reached is None and limits.cost is not None:
                reached = owner._over("cost", limits.cost, usage.cost)
                if reached is None and owner.unpriced and UNPRICED not in owner.allowed:
                    allowed = owner.allowed.get("cost", limits.cost)
                    reached = Exceeded(owner, "cost", usage.cost, allowed, unpriced=owner.unpriced)
            meter = meter.parent
        return reached

    def before_tool_calls(self, calls: int) -> Exceeded | None:
        """The first limit, inside out, that ``calls`` more tool calls would break."""
        meter: Meter | None = self
        while meter is not None:
            limit = meter.limits.tool_calls
            if limit is not None:
                owner = meter if meter._host is None else meter._host
                used = owner.tool_calls + (0 if owner._guests is None else owner._guests.tool_calls)
                allowed = owner.allowed.get("tool_calls", limit)
                if used + calls > allowed:
                    return Exceeded(owner, "tool_calls", used, allowed, calls)
            meter = meter.parent
        return None

    def _over(self, limit: str, allowed: float | None, used: float) -> Exceeded | None:
        if allowed is None:
            return None
        allowed = self.allowed.get(limit, allowed)
        return Exceeded(self, limit, used, allowed) if used >= allowed else None

    def mark_unpriced(self, model: str) -> None:
        """The price of ``model`` is not known: a limit on cost lets it be asked only if a person does."""
        meter: Meter | None = self
        while meter is not None:
            owner = meter if meter._host is None else meter._host
            owner.unpriced = model
            meter = meter.parent

    def extend(self, reached: Exceeded) -> None:
        """Allow the same amount once more, counted from the present usage; or models without a known price."""
        if reached.unpriced:
            self.allowed = {**self.allowed, UNPRICED: 1}
            return
        step = getattr(self.limits, reached.limit)
        # Many calls at once are one question, not several.
        needed = reached.used + max(reached.asked - 1, 0)
        self.allowed = {**self.allowed, reached.limit: max(needed, reached.allowed) + step}


class RepeatDetector:
    """Notices that turn after turn asks for the very same calls.

    To compare two turns takes 20 thousand instructions, 4 % of a turn. So turns are compared only when there have been
    enough since two that differed, from the last one back: mostly one pair in four turns.
    """

    __slots__ = ("_limit", "_recent", "times")

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._recent: tuple[tuple[tuple[str, str], ...], ...] = ()
        """The calls of the last turns, up to the limit, the last ones first."""
        self.times = 0
        """How many times in a row the last calls came, at most; exactly if they came too often."""

    def is_stuck(self, calls: tuple[tuple[str, str], ...]) -> bool:
        """Whether ``calls``, as (tool name, arguments), came ``limit`` times in a row now."""
        if self._limit == math.inf:
            return False
        self._recent = (calls, *self._recent[: max(math.ceil(self._limit) - 1, 0)])
        self.times += 1
        if self.times < self._limit:
            return False
        for number, (later, earlier) in enumerate(pairwise(self._recent), 1):
            if not _are_same(later, earlier):
                self.times = number
                return False
        return True


def _are_same(calls: tuple[tuple[str, str], ...], others: tuple[tuple[str, str], ...]) -> bool:
    """Whether both are the same calls. Arguments are compared as JSON: models change the order of keys."""
    if calls == others:
        return True
    return len(calls) == len(others) and all(
        name == other_name and same_json(arguments, other_arguments)
        for (name, arguments), (other_name, other_arguments) in zip(calls, others, strict=True)
    )


# ----------------------------------------------------------------------------- prices


def priced(usage: Usage, prices: Price, *, currency: str, price_list: str) -> Usage:
    """``usage`` of one response, with its cost. Tokens read from the cache, or written to it, have their own prices."""
    cached, written = usage.cached_tokens, usage.cache_written_tokens
    fresh = max(usage.input_tokens - cached - written, 0)
    price = prices.of(usage.input_tokens) if prices.tiers else prices
    cost = (
        fresh * price.input
        + cached * (price.input if price.cached is None else price.cached)
        + written * (price.input if price.cache_written is None else price.cache_written)
        + usage.output_tokens * price.output
    )
    return with_cost(usage, cost / 1_000_000, currency=currency, price_list=price_list)


def with_cost(usage: Usage, cost: float, *, currency: str, price_list: str) -> Usage:
    """``usage`` of one response, with its ``cost`` by ``price_list``."""
    by = (currency, (price_list,)) if cost else ("", ())
    return msgspec.structs.replace(usage, cost=cost, priced_requests=1, currency=by[0], price_lists=by[1])
