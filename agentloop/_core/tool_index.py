"""A search among tools, by their names, descriptions and parameters."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from math import log
from typing import Any, cast

from agentloop.models import ToolSpec

__all__ = ["FOUND", "MOST_FOUND", "search"]

MOST_FOUND = 20
"""Tools that one search finds at most."""
FOUND = 5
"""Tools that a search finds, unless the model asks for another number."""

_NAME, _ABOUT, _PARAMETERS = 4.0, 1.0, 0.5
"""What a word counts for in the name of a tool, in its description, and in its parameters."""
_PART = 0.5
"""What a word counts for that only begins like the one in the query."""


def search(query: str, specs: Sequence[ToolSpec], limit: int = FOUND) -> list[ToolSpec]:
    """The tools that ``query`` is about, the best first.

    The tools that it names come first. The others are those that have its words, in their names most of all; a word
    that few tools have counts more.
    """
    by_name = {spec.name.casefold(): spec for spec in specs}
    named = [by_name[name] for part in re.split(r"[,\s]+", query) if (name := part.casefold()) in by_name]
    found = list({spec.name: spec for spec in named}.values())
    if [part for part in query.split(",") if part.strip().casefold() not in by_name]:
        words = set(_words(query))
        indexes = [_index(spec) for spec in specs]
        weights = {word: _weight(word, indexes) for word in words}
        scores = [sum(weights[word] * _score(word, index) for word in words) for index in indexes]
        ranked = sorted(zip(scores, range(len(specs)), strict=True), key=lambda scored: (-scored[0], scored[1]))
        found += [specs[index] for score, index in ranked if score > 0 and specs[index] not in found]
    return found[: min(max(limit, 1), MOST_FOUND)]


@cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    # Compiled when they are needed first: most programs defer nothing.
    return re.compile(r"[a-z]+|[0-9]+|[^\W\d_a-z]+"), re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def _words(text: str) -> list[str]:
    word, camel = _patterns()
    words = word.findall(camel.sub(" ", text).casefold())
    # A plural is found by its singular, and the other way round.
    return [word[:-1] if len(word) > 3 and word.endswith("s") else word for word in words]


def _index(spec: ToolSpec) -> dict[str, float]:
    """What each word of a tool counts for."""
    parameters: object = spec.parameters.get("properties")
    texts: list[str] = []
    if isinstance(parameters, Mapping):
        for name, schema in cast("Mapping[str, Any]", parameters).items():
            about: object = cast("Mapping[str, Any]", schema).get("description") if isinstance(schema, Mapping) else ""
            texts.append(f"{name} {about if isinstance(about, str) else ''}")
    index: dict[str, float] = {}
    for text, counts in ((" ".join(texts), _PARAMETERS), (spec.description, _ABOUT), (spec.name, _NAME)):
        for word in _words(text):
            index[word] = counts
    return index


def _score(word: str, index: Mapping[str, float]) -> float:
    if word in index:
        return index[word]
    if len(word) < 4:
        return 0.0
    return max((_PART * counts for other, counts in index.items() if other.startswith(word[:5])), default=0.0)


def _weight(word: str, indexes: Sequence[Mapping[str, float]]) -> float:
    return log(1 + len(indexes) / (1 + sum(word in index for index in indexes)))
