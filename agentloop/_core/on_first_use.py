"""Functions of the standard library that few runs need, each imported when it is first called.

Of the time to import agentloop, `urllib.parse`, with `ipaddress`, would take 8 %, and `difflib` 1.5 %.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module

__all__ = ["get_close_matches", "unquote", "unquote_plus", "unquote_to_bytes", "urlsplit"]


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
