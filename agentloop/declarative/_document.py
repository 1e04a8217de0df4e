"""A YAML file as a tree of values that know their lines.

Scalars follow YAML 1.2, as docker-agent reads them: only ``true`` and ``false`` are booleans, and ``yes``, ``on`` and
``12:30`` are texts. An alias is a copy of what it names, so the size of the tree has a limit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any, TypeAlias

from attrs import field, frozen

from agentloop._core.redaction import visible
from agentloop.declarative._problems import Place, TeamFileError
from agentloop.toolkit._front_matter import import_yaml

__all__ = ["Entry", "Node", "Scalar", "read_document"]

MAX_CHARS = 2_000_000
"""Characters of a file."""
MAX_DEPTH = 60
"""Levels of a file. A JSON Schema in it has more than a team."""
MAX_NODES = 100_000
"""Values of a file, with each alias counted as often as it is used."""

Scalar: TypeAlias = str | int | float | bool | None

_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+")
_OTHER_INT = re.compile(r"0(?:o[0-7]+|x[0-9a-fA-F]+)")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"(?P<sign>[-+]?)\.(?:inf|Inf|INF)|\.nan|\.NaN|\.NAN")


@frozen
class Entry:
    """A key of a mapping, and its value."""

    key: str
    place: Place
    """The place of the key."""
    value: Node


@frozen
class Node:
    """A value of the file: a scalar, a list or a mapping."""

    place: Place
    scalar: Scalar = None
    items: tuple[Node, ...] | None = None
    """The values of a list; ``None`` if it is none."""
    entries: tuple[Entry, ...] | None = None
    """The entries of a mapping, each key once; ``None`` if it is none."""
    raw: str = field(default="", eq=False)
    """A scalar as it is written: ``1.10`` for the number 1.1."""

    @property
    def kind(self) -> str:
        """What it is, in words for an error."""
        if self.entries is not None:
            return "a mapping"
        if self.items is not None:
            return "a list"
        match self.scalar:
            case None:
                return "nothing"
            case bool():
                return "true" if self.scalar else "false"
            case str():
                return f"the text {_short(self.scalar)!r}"
            case number:
                return f"the number {number}"

    def get(self, key: str) -> Node | None:
        """The value of ``key`` in a mapping; ``None`` if there is none."""
        return next((entry.value for entry in self.entries or () if entry.key == key), None)

    def plain(self) -> Any:
        """The value as dicts, lists and scalars."""
        if self.entries is not None:
            return {entry.key: entry.value.plain() for entry in self.entries}
        if self.items is not None:
            return [item.plain() for item in self.items]
        return self.scalar


def read_document(text: str, file: str) -> Node:
    """Read the one document of a file.

    Args:
      text: the file's text.
      file: its name in errors.

    Raises:
      TeamFileError: it is no YAML, has several documents, or is too large; a key comes twice, or is no text.
      MissingExtraError: PyYAML is not installed.
    """
    yaml = import_yaml()
    if len(text) > MAX_CHARS:
        raise TeamFileError(f"the file has {len(text)} characters, and at most {MAX_CHARS} are read", Place(file))
    try:
        root = yaml.compose(text, Loader=_loader(yaml))
    except _TooDeepError as error:
        raise TeamFileError(f"there are more than {MAX_DEPTH} levels here", _place(file, error.mark)) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        raise TeamFileError(f"this is no YAML: {_words(error)}", _place(file, mark)) from None
    # The scanner makes characters of escapes such as "\U00110000" without looking at them.
    except (ValueError, OverflowError) as error:
        raise TeamFileError(f"this is no YAML: {error}", Place(file)) from None
    if root is None:
        raise TeamFileError("the file is empty: it needs at least `agents:`", Place(file, 1, 1))
    return _Tree(yaml, file).node(root, 0)


class _TooDeepError(Exception):
    def __init__(self, mark: Any) -> None:
        super().__init__()
        self.mark = mark


def _loader(yaml: Any) -> Any:
    """A loader that composes nodes, and refuses a file that nests too deeply: the composer is recursive."""
    composed: Any = yaml.BaseLoader.compose_node

    class Loader(yaml.BaseLoader):  # type: ignore[misc]
        depth = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            self.depth += 1
            try:
                if self.depth > MAX_DEPTH:
                    raise _TooDeepError(self.peek_event().start_mark)
                return composed(self, parent, index)
            finally:
                self.depth -= 1

    return Loader


def _words(error: Any) -> str:
    """The problem, without the excerpt of the file, which could be a secret."""
    parts = [getattr(error, "context", None), getattr(error, "problem", None)]
    said = ", ".join(str(part) for part in parts if part)
    reason = getattr(error, "reason", None)
    return visible(said or (str(reason) if reason else "it cannot be read"))


def _place(file: str, mark: Any) -> Place:
    return Place(file) if mark is None else Place(file, mark.line + 1, mark.column + 1)


class _Tree:
    def __init__(self, yaml: Any, file: str) -> None:
        self._yaml = yaml
        self._file = file
        self._count = 0

    def node(self, node: Any, depth: int) -> Node:
        place = _place(self._file, node.start_mark)
        self._count += 1
        if self._count > MAX_NODES:
            raise TeamFileError(f"the file has more than {MAX_NODES} values, with its aliases", place)
        if depth > MAX_DEPTH:
            raise TeamFileError("an alias leads back to a value that it is in", place)
        if isinstance(node, self._yaml.ScalarNode):
            return Node(place, self._scalar(node, place), raw=node.value)
        if isinstance(node, self._yaml.SequenceNode):
            self._check_tag(node, "tag:yaml.org,2002:seq", place)
            return Node(place, items=tuple([self.node(item, depth + 1) for item in node.value]))
        self._check_tag(node, "tag:yaml.org,2002:map", place)
        return Node(place, entries=tuple(self._entries(node, depth)))

    def _entries(self, node: Any, depth: int) -> Iterator[Entry]:
        own = {key.value for key, _ in node.value if isinstance(key, self._yaml.ScalarNode)}
        seen: dict[str, Place] = {}
        for key, value in node.value:
            place = _place(self._file, key.start_mark)
            if not isinstance(key, self._yaml.ScalarNode):
                raise TeamFileError("a key is a text, and no list or mapping", place)
            if key.value == "<<" and key.style is None:
                yield from self._merged(self.node(value, depth + 1), own, seen)
                continue
            if key.value in seen:
                first = seen[key.value]
                raise TeamFileError(f"the key {_short(key.value)!r} is there twice, first in line {first.line}", place)
            seen[key.value] = place
            yield Entry(key.value, place, self.node(value, depth + 1))

    def _merged(self, node: Node, own: set[str], seen: dict[str, Place]) -> Iterator[Entry]:
        """The entries that ``<<`` brings, without those that the mapping has itself, or has from an earlier one."""
        for mapping in node.items if node.items is not None else (node,):
            if mapping.entries is None:
                raise TeamFileError(f"'<<' takes a mapping, or a list of them, not {mapping.kind}", mapping.place)
            for entry in mapping.entries:
                if entry.key not in own and entry.key not in seen:
                    seen[entry.key] = entry.place
                    yield entry

    def _check_tag(self, node: Any, usual: str, place: Place) -> None:
        if node.tag not in (usual, "!", None):
            raise TeamFileError(f"the tag {_short(str(node.tag))!r} is not read: leave it out", place)

    def _scalar(self, node: Any, place: Place) -> Scalar:
        text: str = node.value
        tag = str(node.tag).removeprefix("tag:yaml.org,2002:")
        if tag not in ("str", "!", "null", "bool", "int", "float"):
            raise TeamFileError(f"the tag {_short(str(node.tag))!r} is not read: leave it out", place)
        # The loader gives each plain scalar the tag of a text.
        return text if node.style is not None or tag == "!" else _resolved(text)


def _resolved(text: str) -> Scalar:
    """A plain scalar as YAML 1.2's core schema reads it."""
    if _NULL.fullmatch(text):
        return None
    if _BOOL.fullmatch(text):
        return text.lower() == "true"
    if _INT.fullmatch(text) and len(text) < 100:
        return int(text)
    if _OTHER_INT.fullmatch(text) and len(text) < 100:
        return int(text[2:], 8 if text[1] == "o" else 16)
    if _FLOAT.fullmatch(text):
        return float(text)
    if special := _SPECIAL.fullmatch(text):
        return math.nan if special["sign"] is None else float(f"{special['sign']}inf")
    return text


def _short(text: str) -> str:
    return visible(text if len(text) <= 60 else f"{text[:59]}\u2026")
