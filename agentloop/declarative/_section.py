"""A mapping of the file, as the loader reads it once it is checked."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from attrs import frozen

from agentloop._core.redaction import SHAPES, names_a_secret, secrets_of_arguments
from agentloop.declarative._document import Node
from agentloop.declarative._forms import Report, seconds_of
from agentloop.declarative._problems import Place, TeamFileError

__all__ = ["Context", "Section", "check_no_secrets"]

_ENV = re.compile(r"\$\{env\.([A-Za-z_][A-Za-z0-9_]*)\}")
_ENV_OR_BARE = re.compile(r"\$\{(?:env\.)?([A-Za-z_][A-Za-z0-9_]*)\}")
_PATH_VARIABLE = re.compile(r"\$(?:\{(?:env\.)?([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))")
_WAY_OUT = "put it into the environment, and write ${env.NAME}"

# The shapes of headers match words of a prompt, such as "bearer authentication": fields with headers are looked at by
# their names.
_SECRET = re.compile("(?s)" + "|".join(f"(?:{shape})" for shape in SHAPES if not shape.startswith("(?i:(?<=")))


@frozen
class Context:
    """What a file is read in."""

    file: str
    """The file's name in errors."""
    home: str
    """The folder of the file: its data files are relative to it."""
    folder: str
    """The folder in which tools and hooks work."""
    env: Mapping[str, str]
    """The variables that ``${env.NAME}`` stands for."""
    report: Report

    def expand(self, text: str, place: Place, path: str, *, bare: bool = False) -> str:
        """``text`` with the values of its variables.

        Args:
          bare: whether ``${NAME}`` is one, too.

        Raises:
          TeamFileError: a variable is not set.
        """

        def value(match: re.Match[str]) -> str:
            name = match[1]
            if name not in self.env:
                raise TeamFileError(f"the environment has no variable {name}: set it, or give env={{...}}", place, path)
            return self.env[name]

        return (_ENV_OR_BARE if bare else _ENV).sub(value, text)

    def path(self, text: str, place: Place, path: str, *, base: str | None = None) -> str:
        """An absolute path: ``~`` and variables are expanded, and a relative path is relative to ``base``."""

        def value(match: re.Match[str]) -> str:
            name = match[1] or match[2]
            if name not in self.env:
                raise TeamFileError(f"the environment has no variable {name}: set it, or give env={{...}}", place, path)
            return self.env[name]

        expanded = _PATH_VARIABLE.sub(value, text)
        if "\0" in expanded:
            raise TeamFileError("a path has no NUL character", place, path)
        return os.path.normpath(os.path.join(base or self.folder, os.path.expanduser(expanded)))  # noqa: PTH111, PTH118


class Section:
    """A mapping of the file."""

    def __init__(self, node: Node, path: str, context: Context) -> None:
        self._node = node
        self.path = path
        self.context = context

    @property
    def place(self) -> Place:
        """Where it begins."""
        return self._node.place

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the fields that have a value."""
        return tuple(entry.key for entry in self._node.entries or () if self.node(entry.key) is not None)

    def node(self, name: str) -> Node | None:
        """The value of a field; ``None`` if it has none."""
        self.context.report.read.add(self.at(name))
        node = self._node.get(name)
        return None if node is None or (node.items is None and node.entries is None and node.scalar is None) else node

    def __contains__(self, name: str) -> bool:
        return self.node(name) is not None

    def at(self, name: str) -> str:
        """The path of a field."""
        return f"{self.path}.{name}" if self.path else name

    def error(self, problem: str, name: str = "") -> TeamFileError:
        """An error about a field, or about the whole mapping."""
        node = self._node.get(name) if name else None
        return TeamFileError(problem, self.place if node is None else node.place, self.at(name) if name else self.path)

    def unsupported(self, name: str, reason: str) -> None:
        """Name a field that has no effect."""
        node = self._node.get(name) if name else None
        place = self.place if node is None else node.place
        self.context.report.name(self.at(name) if name else self.path, place, reason)

    def text(self, name: str, default: str = "") -> str:
        """A text."""
        node = self.node(name)
        return default if node is None else node.raw

    def expanded(self, name: str, default: str = "", *, bare: bool = True) -> str:
        """A text, with the values of its variables."""
        node = self.node(name)
        return default if node is None else self.context.expand(node.raw, node.place, self.at(name), bare=bare)

    def url(self, name: str) -> str:
        """A URL, with the values of its variables. A secret in it is refused."""
        node = self.node(name)
        if node is None:
            return ""
        try:
            parts = urlsplit(node.raw)
            pairs = parse_qsl(parts.query)
        except ValueError:
            raise self.error("this is no URL", name) from None
        if any(names_a_secret(key, bare_key=True) and not _is_variable(value) for key, value in pairs):
            raise self.error(f"the URL has a secret: {_WAY_OUT}", name)
        return self.context.expand(node.raw, node.place, self.at(name), bare=True)

    def texts(self, name: str, *, expand: bool = False) -> list[str]:
        """A list of texts, or a single one as a list."""
        node = self.node(name)
        if node is None:
            return []
        nodes = (node,) if node.items is None else node.items
        return [
            self.context.expand(one.raw, one.place, self.at(name), bare=True) if expand else one.raw for one in nodes
        ]

    def arguments(self, name: str) -> list[str]:
        """The arguments of a program, with the values of their variables. A secret among them is refused."""
        plain = self.texts(name)
        secret = next((text for text in secrets_of_arguments(plain) if not _is_variable(text)), None)
        if secret is not None:
            raise self.error(f"an argument is a secret: {_WAY_OUT}", name)
        return self.texts(name, expand=True)

    def fields(self, name: str, *, bare: bool = True) -> dict[str, str]:
        """A mapping of texts, with the values of their variables. A secret in it is refused."""
        node = self.node(name)
        values: dict[str, str] = {}
        for entry in (node.entries if node is not None else None) or ():
            path = f"{self.at(name)}.{entry.key}"
            if (
                names_a_secret(entry.key, bare_key=True)
                and entry.value.raw.strip()
                and not _is_variable(entry.value.raw)
            ):
                raise TeamFileError(f"a file has no secrets: {_WAY_OUT}", entry.value.place, path)
            values[entry.key] = self.context.expand(entry.value.raw, entry.value.place, path, bare=bare)
        return values

    def number(self, name: str) -> Any:
        """A number; ``None`` if there is none."""
        node = self.node(name)
        return None if node is None else node.scalar

    def whole(self, name: str) -> int | None:
        """A whole number; ``None`` if there is none."""
        value = self.number(name)
        return None if value is None else int(value)

    def flag(self, name: str) -> bool | None:
        """``True`` or ``False``; ``None`` if there is neither."""
        node = self.node(name)
        return node.scalar if node is not None and isinstance(node.scalar, bool) else None

    def seconds(self, name: str) -> float | None:
        """A duration in seconds; ``None`` if there is none, or if it is 0."""
        node = self.node(name)
        return None if node is None else seconds_of(node) or None

    def file(self, name: str, *, base: str) -> str:
        """An absolute path."""
        node = self.node(name)
        assert node is not None
        return self.context.path(node.raw, node.place, self.at(name), base=base)

    def section(self, name: str) -> Section | None:
        """A mapping with fixed fields."""
        node = self.node(name)
        return None if node is None or node.entries is None else Section(node, self.at(name), self.context)

    def sections(self, name: str) -> list[Section]:
        """A list of mappings with fixed fields."""
        node = self.node(name)
        items = enumerate(node.items or ()) if node is not None else ()
        return [Section(item, f"{self.at(name)}[{index}]", self.context) for index, item in items]

    def named(self, name: str) -> dict[str, Section]:
        """A mapping from names to mappings with fixed fields."""
        node = self.node(name)
        return {
            entry.key: Section(entry.value, f"{self.at(name)}.{entry.key}", self.context)
            for entry in (node.entries if node is not None else None) or ()
        }

    def plain(self, name: str) -> Any:
        """The value as dicts, lists and scalars; ``None`` if there is none."""
        node = self.node(name)
        for entry in (node.entries if node is not None else None) or ():
            self.context.report.read.add(f"{self.at(name)}.{entry.key}")
        return None if node is None else node.plain()


def _is_variable(text: str) -> bool:
    return _ENV_OR_BARE.search(text) is not None


def check_no_secrets(root: Node) -> None:
    """Refuse a file with a text that looks like the key of a common service.

    Raises:
      TeamFileError: there is one. The message does not have it.
    """
    for node in _scalars(root):
        if isinstance(node.scalar, str) and _SECRET.search(node.scalar):
            raise TeamFileError(f"this looks like a secret, and a file has none: {_WAY_OUT}", node.place)


def _scalars(node: Node) -> Iterator[Node]:
    if node.items is not None:
        for item in node.items:
            yield from _scalars(item)
    elif node.entries is not None:
        for entry in node.entries:
            yield from _scalars(entry.value)
    else:
        yield node
