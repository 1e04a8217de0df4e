"""Whether a provider's cache still had the beginning of a request, and if it had not, what the requests tell of why.

A provider reads the tools, the instructions and the messages, in this order, and its cache has the beginning that two
requests share. A response reports how many tokens came from there. If there were some at one request and none at the
next one, the whole conversation is paid for once more.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from agentloop.messages import Message, Usage
from agentloop.models import ModelRequest, ModelSettings, ToolSpec

__all__ = ["CachedRequest", "is_lost", "reasons_of_loss"]

LEAST_TOKENS = 1_024
"""Tokens below which providers cache nothing."""
PAUSE = 270.0
"""Seconds after which a provider may have dropped a prompt: most keep it for five minutes."""
MOST_NAMES = 5
"""Tools that the reason names."""


class CachedRequest(msgspec.Struct, frozen=True):
    """A request of a turn, and what its response told of the cache."""

    model: str
    """Name of the model that answered. Each has a cache of its own."""
    agent: str
    """The agent that asked: after a handoff, another one has another beginning."""
    instructions: str
    tools: tuple[ToolSpec, ...]
    """Those that are in front of the conversation."""
    messages: Sequence[Message]
    settings: ModelSettings
    output: ToolSpec | None
    view: object
    """Changes whenever the run itself shortens what the model reads."""
    tokens: int
    """Tokens that the cache had, or that were written to it."""
    at: float
    """Time of the response, in seconds."""

    @classmethod
    def of(
        cls, request: ModelRequest, usage: Usage, *, model: str, agent: str, view: object, at: float
    ) -> CachedRequest:
        """The account of ``request``, whose response reported ``usage``."""
        tools = tuple([spec for spec in request.tools if not spec.deferred])
        tokens = usage.cached_tokens + usage.cache_written_tokens
        parts = (request.instructions, tools, request.messages, request.settings, request.output)
        return cls(model, agent, *parts, view, tokens, at)


def is_lost(before: CachedRequest, after: CachedRequest, usage: Usage) -> bool:
    """Whether the cache had nothing of the request ``after``, and could have had something.

    Args:
      before: the request of the session before it.
      after: the request.
      usage: what its response reported.
    """
    return (
        usage.cached_tokens == 0
        and before.tokens >= LEAST_TOKENS
        and usage.input_tokens >= LEAST_TOKENS
        and before.model == after.model
        and before.agent == after.agent
        # Otherwise the run has shortened the conversation itself, and says so.
        and before.view == after.view
    )


def reasons_of_loss(before: CachedRequest, after: CachedRequest) -> str:
    """What the two requests tell of why the cache has nothing of the second, in words; empty if they tell nothing."""
    reasons: list[str] = []
    if before.tools != after.tools:
        reasons.append(_changed_tools(before.tools, after.tools))
    if before.instructions != after.instructions:
        same = _common(before.instructions, after.instructions)
        reasons.append(f"the instructions changed, from character {same} on")
    if before.settings != after.settings or before.output != after.output:
        reasons.append("the settings or the output type changed")
    known = len(before.messages)
    if tuple(after.messages[:known]) != tuple(before.messages):
        same = _common(before.messages, after.messages)
        reasons.append(f"the messages were rewritten, from number {same} of {known} on")
    pause = after.at - before.at
    if pause > PAUSE:
        reasons.append(f"{pause:.0f} s had passed, and providers keep a prompt for some minutes")
    return "; ".join(reasons)


def _changed_tools(before: Sequence[ToolSpec], after: Sequence[ToolSpec]) -> str:
    old, new = {spec.name: spec for spec in before}, {spec.name: spec for spec in after}
    parts: list[str] = []
    for word, names in (
        ("new", [name for name in new if name not in old]),
        ("gone", [name for name in old if name not in new]),
        ("changed", [name for name, spec in new.items() if name in old and old[name] != spec]),
    ):
        if names:
            rest = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
            parts.append(f"{word}: {', '.join(names[:MOST_NAMES])}{rest}")
    return f"the tools changed ({'; '.join(parts) or 'another order'})"


def _common(one: Sequence[object], other: Sequence[object]) -> int:
    """How many items at the beginning of both are the same."""
    length = min(len(one), len(other))
    return next((index for index in range(length) if one[index] != other[index]), length)
