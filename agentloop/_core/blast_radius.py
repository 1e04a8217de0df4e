"""What a call may touch, read from the names of its arguments: for tools that do not say it themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from agentloop._core.on_first_use import urlsplit
from agentloop.safety import BlastRadius

__all__ = ["blast_radius_of", "host_of"]

_PATHS = frozenset(
    {"path", "paths", "file", "files", "file_path", "filename", "folder", "directory", "dir", "cwd"}
    | {"source", "destination", "target"}
)
_URLS = frozenset({"url", "urls", "uri", "host", "hostname", "server"})
_COMMANDS = frozenset({"command", "commands", "cmd"})

MOST = 20
"""Texts of each kind. A person reads them, and the call's arguments are shown in full beside them."""
LONGEST = 500
"""Characters of a text."""


def blast_radius_of(arguments: Mapping[str, Any]) -> BlastRadius:
    """What a call with these ``arguments`` may touch; never complete, since a tool may do what no argument says."""
    return BlastRadius(
        paths=_texts(arguments, _PATHS),
        hosts=tuple(dict.fromkeys(host for text in _texts(arguments, _URLS) if (host := host_of(text)))),
        commands=_texts(arguments, _COMMANDS),
    )


def host_of(text: str) -> str:
    """The host that ``text``, a URL or a name, names; empty if it names none."""
    try:
        location = urlsplit(text)[1] if "://" in text else text.partition("/")[0]
    except ValueError:
        return ""
    # Whatever stands before it is a name and a password.
    return location.rpartition("@")[2]


def _texts(arguments: Mapping[str, Any], names: frozenset[str]) -> tuple[str, ...]:
    texts = (text[:LONGEST] for name, value in arguments.items() if name.lower() in names for text in _in(value))
    return tuple(dict.fromkeys(text for text, _ in zip(texts, range(MOST), strict=False)))


def _in(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        yield from (item for item in cast("list[object]", value) if isinstance(item, str))
