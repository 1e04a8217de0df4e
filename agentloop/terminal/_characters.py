"""Text from outside, as characters that a terminal shows and does not obey.

Models, tools, servers and stored sessions may send escape sequences, right-to-left overrides and invisible characters.
`printable` leaves them out. `exact` spells them out, so that an approval shows what will run, character by character.
"""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any

__all__ = ["exact", "exact_lines", "printable"]

_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""Characters that Unicode counts among letters, marks and symbols although they show nothing."""


def printable(text: str) -> str:
    """``text`` without control characters, overrides of the direction, and invisible characters."""
    if not text.isprintable():
        text = "".join(map(_visible, text.replace("\r\n", "\n")))
    return text if text.isascii() else _INVISIBLE.sub("", text)


def _visible(character: str) -> str:
    if character in "\n\t" or character.isprintable():
        return character
    match unicodedata.category(character):
        case "Zs":
            return " "
        case "Zl" | "Zp":
            return "\n"
        case _:
            return ""


def exact(value: Any) -> str:
    r"""``value`` on one line, so that two values that differ also look different.

    A text of visible characters stands as it is. Any other text stands in quotes, as JSON, with its invisible
    characters as ``\u`` escapes; so does a text that could be read as JSON, or has white space at an end. A text that
    Unicode could also spell in another way (an accent as a character of its own) has all but ASCII as escapes.
    """
    if isinstance(value, str) and value and value == value.strip() and _is_visible(value) and not _is_json(value):
        return value
    text = json.dumps(value, ensure_ascii=False, default=str)
    is_usual = unicodedata.is_normalized("NFC", text)
    return "".join(_escaped(character) if is_usual or character.isascii() else _code(character) for character in text)


def exact_lines(value: Any) -> list[str]:
    """``value`` as `exact` shows it, and a text of several lines as these lines, each behind a bar."""
    if isinstance(value, str) and "\n" in value:
        return ["", *(f"| {exact(line) if line else ''}" for line in value.split("\n"))]
    return [exact(value)]


def _is_json(text: str) -> bool:
    if text[0] not in '"{[-0123456789tfnNI':
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return text[0] == '"'
    return True


def _is_visible(text: str) -> bool:
    return text.isprintable() and not _INVISIBLE.search(text) and unicodedata.is_normalized("NFC", text)


def _escaped(character: str) -> str:
    return character if _is_visible(character) else _code(character)


def _code(character: str) -> str:
    code = ord(character)
    if code < 0x10000:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
