"""Functions of the standard library that few runs need, each imported when it is first called.

Of the time to import agentloop, `urllib.parse`, with `ipaddress`, would take 8 %, `pickle` 2 %, `difflib` 1.5 % and
`dataclasses` 1 %.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib import import_module

__all__ = [
    "get_close_matches",
    "is_dataclass",
    "pickled_copy",
    "unquote",
    "unquote_plus",
    "unquote_to_bytes",
    "urlsplit",
]


def is_dataclass(value: object) -> bool:
    """`dataclasses.is_dataclass`. Nothing is one in a program that has not imported that module."""
    dataclasses = sys.modules.get("dataclasses")
    return dataclasses is not None and bool(dataclasses.is_dataclass(value))


def pickled_copy(value: object) -> object:
    """``value`` as `pickle` writes and reads it. Raises whatever its class raises then."""
    pickle = import_module("pickle")
    return pickle.loads(pickle.dumps(value))


def get_close_matches(word: str, possibilities: Iterable[str], n: int, cutoff: float) -> list[str]:
    """`difflib.get_close_matches`."""
    matches: list[str] = import_module("difflib").get_close_matches(word, possibilities, n, cutoff)
    return matches


def unquote(text: str) -> str:
    """`urllib.parse.unquote`."""
    return str(import_module("urllib.parse").unquote(text))


def unquote_plus(text: str) -> str:
    """`urllib.parse.unquote_plus`."""
    return str(import_module("urllib.parse").unquote_plus(text))


def unquote_to_bytes(text: str) -> bytes:
    """`urllib.parse.unquote_to_bytes`."""
    return bytes(import_module("urllib.parse").unquote_to_bytes(text))


def urlsplit(url: str) -> tuple[str, str, str, str, str]:
    """`urllib.parse.urlsplit`: scheme, network location, path, query and fragment."""
    scheme, location, path, query, fragment = import_module("urllib.parse").urlsplit(url)
    return scheme, location, path, query, fragment
