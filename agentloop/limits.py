"""How far a run may go, how long it may wait, how often it tries again, and what it costs."""

from __future__ import annotations

import math

import attrs
from attrs import field, fields, fields_dict, frozen

from agentloop.errors import UsageError

__all__ = ["Deadlines", "Limits"]


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
    repeats: int | float = 5
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
