"""Text in the files of others: of an unknown encoding, and with characters that a person does not see."""

from __future__ import annotations

import codecs
import re

__all__ = ["decoded", "is_binary", "on_one_line", "without_hidden"]

_ENCODINGS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""UTF-32 before UTF-16, whose mark is a part of the other's."""

_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e0fff]"
)
"""Control characters except tab and line feed; marks and overrides of the direction; characters without a shape, and
tags and selectors, by which a text can say to a model what no person sees. Joiners stay: some scripts need them."""


def is_binary(data: bytes) -> bool:
    """Whether ``data`` is no text in any encoding that `decoded` knows."""
    return b"\0" in data[:8192] and not data.startswith(tuple(mark for mark, _ in _ENCODINGS))


def decoded(data: bytes) -> str:
    """``data`` as text with line feeds: UTF-8, UTF-16 or UTF-32 by the byte order mark, otherwise Windows-1252."""
    encoding = next((name for mark, name in _ENCODINGS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        text = data.decode("cp1252" if encoding == "utf-8" else encoding, "replace")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def without_hidden(text: str) -> str:
    """``text`` without the characters that a person does not see, or that control a terminal."""
    return _HIDDEN.sub("", text)


def on_one_line(text: str) -> str:
    """``text`` with single spaces in the place of all white space."""
    return " ".join(without_hidden(text).split())
