"""How a request differs from the nearest one that was recorded, in lines that a person can read."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from difflib import unified_diff
from typing import Any, cast

from agentloop.testing._tape import Exchange

__all__ = ["difference", "nearest"]

LINES = 60
"""Lines of a difference, at most."""
COLUMNS = 200

_SENTENCE = re.compile(r"(?<=[.!?;:])\s+|\n+")


def nearest(model: str, request: dict[str, Any], exchanges: Sequence[Exchange]) -> int | None:
    """The place of the exchange that has the most in common with ``request``; ``None`` if none has anything."""
    wanted = Counter(_lines(model, request))
    best, most = None, 0.0
    for index, exchange in enumerate(exchanges):
        theirs = Counter(_lines(exchange.model, exchange.request))
        alike = 2 * (wanted & theirs).total() / (wanted.total() + theirs.total())
        if alike > most:
            best, most = index, alike
    return best


def difference(model: str, request: dict[str, Any], exchange: Exchange) -> str:
    """The difference between the recorded request (``-``) and the present one (``+``); empty if they are equal."""
    recorded, now = _lines(exchange.model, exchange.request), _lines(model, request)
    lines = list(unified_diff(recorded, now, n=2, lineterm=""))[2:]
    if len(lines) > LINES:
        lines = [*lines[:LINES], f"... and {len(lines) - LINES} more lines"]
    return "\n".join(line[:COLUMNS] for line in lines)


def _lines(model: str, request: dict[str, Any]) -> list[str]:
    return [f"model: {model}", *_spelled("", request)]


def _spelled(indent: str, value: object) -> list[str]:
    """``value`` with a line for each scalar, and one for each sentence of a text."""
    lines: list[str] = []
    if isinstance(value, dict):
        for name, inner in cast("dict[str, object]", value).items():
            lines += _named(indent, f"{name}:", inner)
    elif isinstance(value, list):
        for inner in cast("list[object]", value):
            lines += _named(indent, "-", inner)
    return lines


def _named(indent: str, name: str, value: object) -> list[str]:
    if isinstance(value, (dict, list)):
        return [f"{indent}{name}", *_spelled(indent + "  ", cast("object", value))]
    if isinstance(value, str):
        parts = [part for part in _SENTENCE.split(value) if part] or [""]
        if len(parts) > 1:
            return [f"{indent}{name}", *(line for part in parts for line in _cut(indent + "  ", part))]
        return _cut(f"{indent}{name} ", parts[0])
    return [f"{indent}{name} {value}"]


def _cut(start: str, text: str) -> list[str]:
    """``text`` in lines that are not too long."""
    size = COLUMNS // 2
    return [start + text[offset : offset + size] for offset in range(0, len(text), size)] or [start]
