"""JSON text of any value that a schema of another program may have in it: with whole characters only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import msgspec

__all__ = ["json_of"]

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
