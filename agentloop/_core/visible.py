"""Text from outside as errors and logs show it: with nothing that a terminal obeys, or that no file can have."""

from __future__ import annotations

import re

__all__ = ["visible"]

_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, overrides of the direction, and halves of a character."""


def visible(text: str) -> str:
    r"""``text`` with escapes such as ``\x1b`` in the place of those characters."""
    return _OBEYED.sub(lambda character: ascii(character[0])[1:-1], text)
