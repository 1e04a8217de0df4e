"""JSON text from and for other programs: with whole characters only."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, cast

import msgspec

__all__ = ["json_of", "without_lone_surrogates"]

_encode = msgspec.json.Encoder(enc_hook=str).encode


def json_of(value: object) -> str:
    """``value`` as JSON text. A schema of another program may have anything in it, half a character too."""
    try:
        return _encode(value).decode()
    except UnicodeEncodeError:
        return _encode(_whole(msgspec.to_builtins(value, enc_hook=str))).decode()


def _whole(value: Any) -> Any:
    """``value`` with whole characters only."""
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, dict):
        return {_whole(key): _whole(inner) for key, inner in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [_whole(inner) for inner in cast("Sequence[Any]", value)]
    return value


_ESCAPE = rb"\\\\|\\u[dD][89abAB]\w\w\\u[dD][c-fC-F]\w\w|(\\u[dD][89a-fA-F]\w\w)"
# No compiled pattern, which would make the import of the package slower: `re` keeps it from the first use on.


def without_lone_surrogates(text: bytes) -> bytes:
    """JSON ``text`` with a question mark in the place of each half of an emoji, as JavaScript cuts texts."""
    if b"\\ud" not in text and b"\\uD" not in text:
        return text
    return re.sub(_ESCAPE, lambda match: b"?" if match[1] else match[0], text)
