"""Taking secrets out of text before it is written anywhere."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast
from urllib.parse import quote

from agentloop._core.redaction import REDACTED, SHAPES
from agentloop.errors import UsageError
from agentloop.providers import key_variables

__all__ = ["REDACTED", "Redaction"]

SHORTEST = 8
"""Characters of a value that counts as a provider's key. Shorter texts are found in ordinary words, too."""
SHORTEST_OTHER = 16
"""The same for other variables, and for a server of the user's own: their keys are often words, as ``lm-studio``."""


class Redaction:
    """Puts `REDACTED` in the place of keys: those in the environment now, what looks like one, and what the user names.

    Args:
      patterns: regular expressions of further secrets; all that one matches is taken out.

    Raises:
      UsageError: a pattern is no regular expression, or matches where there is nothing.
    """

    def __init__(self, patterns: Iterable[str | re.Pattern[str]] = ()) -> None:
        # The longest first, so that no part of a key is left when another one is the beginning of it.
        literals = sorted({form for value in _values() for form in _forms(value)}, key=len, reverse=True)
        self._patterns = [
            *(re.compile(re.escape(literal)) for literal in literals),
            *(re.compile(shape, re.DOTALL) for shape in SHAPES),
            *(_checked(pattern) for pattern in patterns),
        ]

    def text(self, text: str) -> str:
        """``text`` without secrets."""
        [clean] = self.pieces([text])
        return clean

    def pieces(self, pieces: Sequence[str]) -> list[str]:
        """The same for a text in pieces, where a secret may begin in one and end in another: as many pieces again."""
        whole = "".join(pieces)
        spans = self._spans(whole)
        if not spans:
            return list(pieces)
        clean: list[str] = []
        start = 0
        for piece in pieces:
            clean.append(_without(whole, start, start + len(piece), spans))
            start += len(piece)
        return clean

    def data(self, data: bytes) -> bytes:
        """The same for the bytes of a file."""
        text = data.decode("latin-1")
        clean = self.text(text)
        return data if clean == text else clean.encode("latin-1")

    def value(self, value: object) -> Any:
        """The same for all text and bytes in ``value``, which is made of what JSON is made of, and bytes."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, (bytes, bytearray)):
            return self.data(bytes(value))
        if isinstance(value, dict):
            items = cast("Mapping[object, object]", value).items()
            return {self.value(key): self.value(inner) for key, inner in items}
        if isinstance(value, (list, tuple)):
            return [self.value(inner) for inner in cast("Sequence[object]", value)]
        return value

    def _spans(self, text: str) -> list[tuple[int, int]]:
        """The spans of secrets in ``text``, in order; those that touch are joined."""
        matches = sorted(match.span() for pattern in self._patterns for match in pattern.finditer(text))
        joined: list[tuple[int, int]] = []
        for start, end in matches:
            if joined and start <= joined[-1][1]:
                joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
            elif end > start:
                joined.append((start, end))
        return joined


def _without(whole: str, start: int, end: int, spans: Sequence[tuple[int, int]]) -> str:
    """``whole[start:end]`` without ``spans``; the mark of each stands where the span begins."""
    parts: list[str] = []
    copied_to = start
    for first, last in spans:
        if last <= start or first >= end:
            continue
        parts.append(whole[copied_to : max(first, copied_to)])
        if first >= start:
            parts.append(REDACTED)
        copied_to = min(last, end)
    return "".join((*parts, whole[copied_to:end]))


def _values() -> set[str]:
    """The keys that are in the environment."""
    local = key_variables()
    keys: set[str] = set()
    for name, value in os.environ.items():
        if name in local or name.endswith("_API_KEY"):
            stripped = value.strip()
            if len(stripped) >= (SHORTEST_OTHER if local.get(name, True) else SHORTEST):
                keys.add(stripped)
    return keys


def _forms(value: str) -> set[str]:
    """How ``value`` is spelled in JSON, in a URL, and in bytes that are read as Latin-1."""
    return {
        value,
        json.dumps(value)[1:-1],
        json.dumps(value, ensure_ascii=False)[1:-1],
        quote(value, safe=""),
        value.encode("utf-8", "surrogateescape").decode("latin-1"),
    }


def _checked(pattern: str | re.Pattern[str]) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"redact= takes regular expressions, which {pattern!r} is not: {error}") from error
    if compiled.search("") is not None:
        raise UsageError(f"redact={pattern!r} matches also where there is nothing: say what the secret looks like")
    return compiled
