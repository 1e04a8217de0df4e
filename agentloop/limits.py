"""Limits, deadlines, retries, prices and compaction: how far a run may go, how long it waits, what it costs."""

from __future__ import annotations

import math
from typing import Any, ClassVar, cast

import msgspec

from agentloop._core.attrs_fields import AttrsFields
from agentloop._core.field_checks import plain_number, shown
from agentloop.errors import UsageError

__all__ = ["Compaction", "Deadlines", "Limits", "Price", "PriceTier", "Retries"]


def _check_positive(limits: Limits | Deadlines) -> None:
    # Each field has a default.
    for name, default in zip(limits.__struct_fields__, limits.__struct_defaults__, strict=True):
        value = getattr(limits, name)
        if value is None and default is None:
            continue
        number = plain_number(value)
        if number is None or number <= 0:
            unlimited = "None for no limit" if default is None else "math.inf for no limit"
            raise UsageError(f"{type(limits).__name__}({name}={shown(value)}): give a number above 0, or {unlimited}")
        # An annotation is a text here: one with `int` is of a limit that counts things.
        if "int" in str(type(limits).__annotations__[name]) and number != math.inf and number != int(number):
            raise UsageError(
                f"{type(limits).__name__}({name}={shown(value)}): {name} are counted, so give a whole number"
            )
        if number is not value:
            msgspec.structs.force_setattr(limits, name, number)


# Structs: an attrs class takes a millisecond to make, at every start of every program.


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How much a stream may use.

    At a limit, the run asks whether to continue (`ContinueRequested`). If nobody can be asked, it ends, with reason
    ``limit``.

    A child stream has its own limits *and* draws on those of every stream above it, so no delegation uses more than its
    caller has left.
    """

    __attrs_attrs__: ClassVar[Any] = AttrsFields()
    """For `attrs.evolve`, `attrs.fields`, `attrs.asdict` and `attrs.has`."""

    turns: int | float = 50
    """Turns of this stream alone, without those of its children."""
    requests: int | None = None
    """Model requests, children included."""
    tokens: int | None = None
    """Tokens in and out, children included. Checked before each request, so the last one may overshoot. A model that
    reports no usage counts by an estimate, with a warning."""
    cost: float | None = None
    """Cost in the agent's ``currency``, children included. Checked before each request, as ``tokens``. A model whose
    price is not known, neither from ``prices`` nor from the catalogue, is not asked at all, unless a person lets it."""
    tool_calls: int | None = None
    """Tool calls, children included. Checked before each turn's calls are run."""
    seconds: float | None = None
    """Seconds from start to end, without the time that people take to answer, or for which a pause holds the run. Then
    the run ends without a question."""
    depth: int | float = 8
    """Levels of child streams below this one."""
    identical_turns: int | float = 5
    """Turns in a row with the same tool calls: the run ends at this number. The order of keys in arguments makes no
    difference."""
    output_attempts: int | float = 3
    """Attempts that the model has to give an output that fits its type, and that no output validator refuses."""

    def __post_init__(self) -> None:
        _check_positive(self)


class Deadlines(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds to wait for models, tools, hooks and servers. A person's thinking time never counts.

    Everything has a deadline by default; ``math.inf`` turns one off.
    """

    __attrs_attrs__: ClassVar[Any] = AttrsFields()
    """For `attrs.evolve`, `attrs.fields`, `attrs.asdict` and `attrs.has`."""

    first_token: float = 120.0
    """From a model request to the first delta of the response. A sign of life of its server (a keep-alive event, a
    comment, a ping) starts it again, for ten times its length at most."""
    idle: float = 120.0
    """Between two deltas of a response, with signs of life as for ``first_token``. Time spent waiting for a slow
    *reader* does not count."""
    tool: float = 120.0
    """For one tool call, unless the tool has its own ``timeout``."""
    toolset: float = 30.0
    """For a toolset to start, and for it to list its tools."""
    hook: float = 60.0
    """For one hook, unless the hook has its own ``timeout``."""
    cleanup: float = 5.0
    """For each step of the cleanup: every hook at the end of a run, every toolset that stops."""

    def __post_init__(self) -> None:
        _check_positive(self)

    @classmethod
    def none(cls) -> Deadlines:
        """No deadlines at all."""
        return cls(**dict.fromkeys(cls.__struct_fields__, math.inf))


def _check_numbers(values: msgspec.Struct) -> None:
    for name in values.__struct_fields__:
        value: object = getattr(values, name)
        if value is None or name in ("instructions", "tiers"):
            continue
        is_price, number = isinstance(values, (Price, PriceTier)), plain_number(value)
        if number is None or number < 0 or (is_price and number > MAX_PRICE):
            most = f" and at most {MAX_PRICE:g}" if is_price else ""
            raise UsageError(f"{type(values).__name__}({name}={shown(value)}): give a number of 0 or more{most}")
        if number is not value:
            msgspec.structs.force_setattr(values, name, number)


MAX_PRICE = 1e12
"""Per million tokens. JSON has no infinite cost, with which a journal could not be read again."""


class Retries(msgspec.Struct, frozen=True, kw_only=True):
    """How often a failed model request is retried. Only the request is repeated, never a tool call.

    The table in ``agentloop/_core/retries.py`` lists the errors that are retried.
    """

    attempts: int | float = 3
    """Requests to one model for one response, the first included; 1 to never ask again."""
    delay: float = 0.5
    """Seconds before the second request; doubled before each later one. A random quarter at most is subtracted."""
    max_delay: float = 8.0
    """Upper bound of the doubled ``delay``, in seconds."""
    max_wait: float = 60.0
    """The longest ``Retry-After`` to wait for, in seconds. At a longer one, the next fallback is asked instead."""
    cooldown: float = 60.0
    """Seconds during which a model that failed, and was replaced by a fallback, is not asked again while there is
    another: by any run of the process, or only by this one, if its request did not suit the model."""

    def __post_init__(self) -> None:
        _check_numbers(self)
        if self.attempts < 1:
            raise UsageError(f"Retries(attempts={self.attempts!r}): the first request counts, so give 1 or more")


class PriceTier(msgspec.Struct, frozen=True):
    """The price of a model for the requests that are longer than so many tokens. The fields are those of `Price`."""

    above: int | float
    """Input tokens. All tokens of a request with more than these have the prices of the tier."""
    input: float
    """Price of a million input tokens."""
    output: float
    """Price of a million output tokens."""
    cached: float | None = None
    """Price of a million input tokens read from the provider's cache; ``None`` for the price of ``input``."""
    cache_written: float | None = None
    """Price of a million input tokens written to the provider's cache; ``None`` for the price of ``input``."""

    def __post_init__(self) -> None:
        _check_numbers(self)


class Price(msgspec.Struct, frozen=True):
    """Price of a model per million tokens, in the agent's ``currency``."""

    input: float
    """Price of a million input tokens."""
    output: float
    """Price of a million output tokens, reasoning included."""
    cached: float | None = None
    """Price of a million input tokens read from the provider's cache; ``None`` for the price of ``input``."""
    cache_written: float | None = None
    """Price of a million input tokens written to the provider's cache; ``None`` for the price of ``input``."""
    tiers: tuple[PriceTier, ...] = ()
    """The prices of long requests, the lowest limit first."""

    def __post_init__(self) -> None:
        _check_numbers(self)
        tiers: object = self.tiers
        if isinstance(tiers, list):
            msgspec.structs.force_setattr(self, "tiers", tuple(cast("list[object]", tiers)))
        limits = [tier.above if isinstance(cast("object", tier), PriceTier) else math.nan for tier in self.tiers]
        if any(not low < high for low, high in zip([-1.0, *limits], limits, strict=False)):
            raise UsageError(f"Price(tiers={shown(tiers)}): give PriceTier(above, ...), the lowest limit first")

    def of(self, input_tokens: int) -> Price | PriceTier:
        """The price of a request with ``input_tokens``: the usual one, or that of the tier that it is in."""
        price: Price | PriceTier = self
        for tier in self.tiers:
            if input_tokens > tier.above:
                price = tier
        return price


SUMMARIZE = """\
The conversation above has to be cut short, and what you write now takes its place. Sum it up for yourself, so that you
can go on as if you remembered it: what the user wants, in their own words where they matter; what was decided, done and
found out, with names, paths, numbers and ids as they are; what went wrong; what is still to be done, and the next step.
Do not answer the user, and call no tool."""


def _check_whole(values: Compaction, name: str, least: int) -> None:
    value: object = getattr(values, name)
    if not isinstance(value, int) or value < least:
        raise UsageError(f"{type(values).__name__}({name}={value!r}): give tokens, a whole number of {least} or more")


class Compaction(msgspec.Struct, frozen=True, kw_only=True):
    """Compaction: when a conversation outgrows the model's window, its older part is replaced by a summary.

    Checked before each model request, also in child streams. The session keeps all messages; only the model's view of
    them changes. If a model refuses a request as too long, the conversation is compacted and the request repeated, up
    to four times. If no summary can be had then, the oldest messages are left out, and a warning says so.
    """

    window: int | None = None
    """Size of the model's context window, in tokens: the smallest one, if the agent has ``fallbacks``. ``None`` for
    what the catalogue says of the models. Where it does not know them all, the conversation is compacted only after a
    model has refused a request as too long."""
    threshold: float = 0.85
    """Compact when a request would fill more than this part of the window."""
    keep_recent: float = 0.2
    """Part of the window reserved for the latest messages, which stay as they are."""
    result_tokens: int = 1_000
    """Older tool results longer than this, in tokens, are left out before anything is summed up."""
    instructions: str = SUMMARIZE
    """The prompt that asks the model for the summary."""

    def __post_init__(self) -> None:
        if self.window is not None:
            _check_whole(self, "window", 100)
        _check_whole(self, "result_tokens", 1)
        if not 0 < self.keep_recent < self.threshold <= 1:
            raise UsageError(
                f"Compaction(keep_recent={self.keep_recent!r}, threshold={self.threshold!r}): give two parts of the "
                "window, the first smaller than the second"
            )

    @property
    def size(self) -> int:
        """``window``, where it is known."""
        assert self.window is not None
        return self.window

    @property
    def keep_recent_tokens(self) -> int:
        """``keep_recent`` in tokens, where the window is known."""
        return int(self.size * self.keep_recent)
