"""How far a run may go, how long it may wait, how often it tries again, and what it costs."""

from __future__ import annotations

import math

import attrs
import msgspec
from attrs import fields, fields_dict, frozen

from agentloop.errors import UsageError

__all__ = ["Compaction", "Deadlines", "Limits", "Price", "Retries"]


def _check_positive(limits: attrs.AttrsInstance) -> None:
    for each in fields(type(limits)):
        value = getattr(limits, each.name)
        if value is None and each.default is None:
            continue
        if not isinstance(value, (int, float)) or math.isnan(value) or value <= 0:
            unlimited = "None for no limit" if each.default is None else "math.inf for no limit"
            raise UsageError(f"{type(limits).__name__}({each.name}={value!r}): give a number above 0, or {unlimited}")


@frozen(kw_only=True)
class Limits:
    """How much a stream may use. Where somebody can be asked, reaching one is a question; else it ends the run.

    A child stream has its own limits *and* draws on those of every stream above it, so that no delegation
    can use more than its caller has left.
    """

    turns: int | float = 50
    """Turns of this stream alone; those of its children do not count."""
    requests: int | None = None
    """Model requests, children included."""
    tokens: int | None = None
    """Tokens in and out, children included. Checked before each request, so the last one may overshoot."""
    cost: float | None = None
    """In the currency of the agents' ``prices``, children included. Checked before each request, as ``tokens`` is."""
    tool_calls: int | None = None
    """Tool calls, children included. Checked before each turn's calls are run."""
    seconds: float | None = None
    """Seconds from start to end, without the time that people take to answer. Ends the run without a question."""
    depth: int | float = 8
    """How deep child streams may nest below this one."""
    identical_turns: int | float = 5
    """So many turns in a row with the very same tool calls end the run."""
    output_attempts: int | float = 3
    """How often the model may try to give its structured output."""

    def __attrs_post_init__(self) -> None:
        _check_positive(self)


@frozen(kw_only=True)
class Deadlines:
    """How many seconds to wait for what lies outside. None of them counts a person's thinking time.

    There is a deadline for everything by default; ``math.inf`` turns one off.
    """

    first_token: float = 120.0
    """From a model request to the first piece of the response."""
    idle: float = 120.0
    """Between two pieces of a response. A slow *reader* does not count."""
    tool: float = 120.0
    """For one tool call, unless the tool has a timeout of its own."""
    toolset: float = 30.0
    """For a toolset to start, and for it to list its tools."""
    hook: float = 60.0
    """For one hook, unless the hook has a timeout of its own."""
    cleanup: float = 5.0
    """For each single step of the cleanup: every hook that runs at the end, every toolset that stops."""

    def __attrs_post_init__(self) -> None:
        _check_positive(self)

    @classmethod
    def none(cls) -> Deadlines:
        """Wait for ever."""
        return cls(**dict.fromkeys(fields_dict(cls), math.inf))


def _check_numbers(values: msgspec.Struct) -> None:
    for name in values.__struct_fields__:
        value: object = getattr(values, name)
        if value is None or name == "instructions":
            continue
        if not isinstance(value, (int, float)) or math.isnan(value) or value < 0:
            raise UsageError(f"{type(values).__name__}({name}={value!r}): give a number of 0 or more")


# Structs, unlike those above: an attrs class takes a millisecond to make, at every start of every program.


class Retries(msgspec.Struct, frozen=True, kw_only=True):
    """How often a model is asked again for a response that failed. Only that request is made again, never a tool.

    Which errors are worth it is the table in ``agentloop/_core/retries.py``.
    """

    attempts: int | float = 3
    """Requests to one model for one response, the first included; 1 to never ask again."""
    delay: float = 0.5
    """Seconds before the second request; doubled before each one after it. Up to a quarter is left off at random."""
    max_delay: float = 8.0
    """Seconds that ``delay`` can grow to."""
    max_wait: float = 60.0
    """Seconds: the longest ``Retry-After`` of a server that is waited for. At a longer one the model is given up."""
    cooldown: float = 60.0
    """Seconds for which a model that another one had to replace is left alone, in the whole tree of streams."""

    def __post_init__(self) -> None:
        _check_numbers(self)
        if self.attempts < 1:
            raise UsageError(f"Retries(attempts={self.attempts!r}): the first request counts, so give 1 or more")


class Price(msgspec.Struct, frozen=True):
    """What a model costs, for a million tokens, in whatever currency the whole table is in."""

    input: float
    output: float
    cached: float | None = None
    """Of input that came from the provider's cache; ``None`` for ``input``."""
    cache_written: float | None = None
    """Of input that the provider put into its cache; ``None`` for ``input``."""

    def __post_init__(self) -> None:
        _check_numbers(self)


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
    """How to go on when a conversation gets too long for the model: the older part of it is summed up.

    Before each model request, also in child streams. The session keeps all messages; only what the model reads changes.
    Where a model refuses a request as too long, the same is done once, and the request made again.
    """

    window: int
    """Tokens of the model's context window: of the smallest, if there are ``fallbacks``."""
    threshold: float = 0.85
    """The part of the window from which on room is made."""
    keep_recent: float = 0.2
    """The part of the window that the latest messages may take; they are kept as they are."""
    result_tokens: int = 1_000
    """Results of tools that are older than those, and longer than this, are left out first."""
    instructions: str = SUMMARIZE
    """What the model is told, to have it sum up."""

    def __post_init__(self) -> None:
        _check_whole(self, "window", 100)
        _check_whole(self, "result_tokens", 1)
        if not 0 < self.keep_recent < self.threshold <= 1:
            raise UsageError(
                f"Compaction(keep_recent={self.keep_recent!r}, threshold={self.threshold!r}): give two parts of the "
                "window, the first smaller than the second"
            )

    @property
    def keep_recent_tokens(self) -> int:
        """Tokens that the latest messages may take."""
        return int(self.window * self.keep_recent)
