"""The front matter of a Markdown file: YAML between two lines of three hyphens.

The YAML is read event by event: no alias is followed, no tag makes an object, a scalar is a text, and nesting has a
limit. So a hostile file costs no more than its length. Many files in use are not quite YAML, since a description has a
colon and a space in it. A field that is not YAML by itself is therefore read as text, and the file gets a problem with
the line.
"""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any, cast

from attrs import field, frozen

from agentloop.errors import MissingExtraError

__all__ = ["FrontMatter", "FrontMatterError", "import_yaml", "read_front_matter"]

MAX_CHARS = 64_000
"""Characters of a front matter."""
MAX_DEPTH = 16
MAX_FIELDS = 200
"""Fields of a front matter that are parsed one by one."""

_FIELD = re.compile(r"([A-Za-z_][\w.-]*)[ \t]*:(?:[ \t]+(.*))?$")
_NULL = frozenset({"", "~", "null", "Null", "NULL"})


class FrontMatterError(Exception):
    """A front matter cannot be read."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(f"line {line}: {problem}")
        self.line = line
        """Number of the line in the file, from 1."""
        self.problem = problem


@frozen
class FrontMatter:
    """A Markdown file, taken apart."""

    fields: dict[str, Any]
    """Values by name: texts, lists and dicts of them. Names are in lower case, with hyphens."""
    lines: dict[str, int]
    """The line of each field, from 1."""
    body: str
    """The text after the front matter."""
    problems: list[FrontMatterError] = field(factory=list[FrontMatterError])
    """The fields that are not YAML, and were read as text."""


def import_yaml() -> Any:
    """The module ``yaml``.

    Raises:
      MissingExtraError: PyYAML is not installed.
    """
    try:
        return import_module("yaml")
    except ImportError as error:
        raise MissingExtraError(feature="skills()", package="pyyaml", extra="yaml") from error


def read_front_matter(text: str) -> FrontMatter:
    """Take ``text`` apart. A text without a front matter is all body.

    Raises:
      FrontMatterError: the front matter has no end, is too long, or is no list of fields.
    """
    lines = text.split("\n")
    first = next((number for number, line in enumerate(lines) if line.strip()), 0)
    if lines[first].rstrip() != "---":
        return FrontMatter({}, {}, text)
    last = next((number for number in range(first + 1, len(lines)) if lines[number].rstrip() in ("---", "...")), None)
    if last is None:
        raise FrontMatterError(first + 1, "the front matter has no end: a line of three hyphens is missing")
    head, body = lines[first + 1 : last], "\n".join(lines[last + 1 :])
    if sum(map(len, head)) > MAX_CHARS:
        raise FrontMatterError(first + 1, f"the front matter is longer than {MAX_CHARS} characters")
    try:
        fields, places = _parse("\n".join(head), first + 2)
        problems: list[FrontMatterError] = []
    except FrontMatterError as error:
        fields, places, problems = _parse_each(head, first + 2, error)
    names = {name: name.lower().replace("_", "-") for name in fields}
    return FrontMatter(
        {names[name]: value for name, value in fields.items()},
        {names[name]: place for name, place in places.items()},
        body,
        problems,
    )


def _parse(text: str, offset: int) -> tuple[dict[str, Any], dict[str, int]]:
    """The fields of a YAML mapping, and their lines. ``offset`` is the line of the file where ``text`` begins."""
    yaml = import_yaml()
    loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
    builder = _Builder(offset)
    try:
        for event in yaml.parse(text, Loader=loader):
            if not builder.add(type(event).__name__, event):
                break
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = offset if mark is None else offset + int(mark.line)
        raise FrontMatterError(
            line, getattr(error, "problem", None) or "a character that YAML does not have"
        ) from error
    return builder.result()


class _Builder:
    """Makes values of the events of a YAML parser."""

    def __init__(self, offset: int) -> None:
        self._offset = offset
        self._open: list[list[Any] | dict[str, Any]] = []
        """The collections that have begun, the innermost last."""
        self._keys: list[str | None] = []
        """The key of each of them that waits for its value."""
        self._value: Any = None
        self._lines: dict[str, int] = {}

    def add(self, kind: str, event: Any) -> bool:
        """Take an event. Returns whether more are wanted."""
        line = self._offset + int(event.start_mark.line)
        if kind == "AliasEvent":
            raise FrontMatterError(line, "an alias, which is not followed")
        if kind == "ScalarEvent":
            is_null = not event.style and event.value in _NULL
            self._put("" if is_null else str(event.value), line)
        elif kind in ("MappingStartEvent", "SequenceStartEvent"):
            if len(self._open) >= MAX_DEPTH:
                raise FrontMatterError(line, f"more than {MAX_DEPTH} levels of nesting")
            collection: list[Any] | dict[str, Any] = {} if kind == "MappingStartEvent" else []
            self._put(collection, line)
            self._open.append(collection)
            self._keys.append(None)
        elif kind in ("MappingEndEvent", "SequenceEndEvent"):
            self._open.pop()
            self._keys.pop()
        return kind != "DocumentEndEvent"

    def _put(self, value: Any, line: int) -> None:
        if not self._open:
            self._value = value
            return
        around = self._open[-1]
        if isinstance(around, list):
            around.append(value)
        elif (key := self._keys[-1]) is not None:
            around[key] = value
            self._keys[-1] = None
        elif isinstance(value, str):
            self._keys[-1] = value
            if len(self._open) == 1:
                self._lines[value] = line
        else:
            raise FrontMatterError(line, "a key that is a collection")

    def result(self) -> tuple[dict[str, Any], dict[str, int]]:
        value: object = self._value
        if value is None or value == "":
            return {}, {}
        if not isinstance(value, dict):
            raise FrontMatterError(self._offset, "no list of fields, such as `name: pdf`")
        return cast("dict[str, Any]", value), self._lines


def _parse_each(
    head: list[str], offset: int, problem: FrontMatterError
) -> tuple[dict[str, Any], dict[str, int], list[FrontMatterError]]:
    """The fields, each parsed by itself; what is not YAML by itself is a text."""
    fields: dict[str, Any] = {}
    lines: dict[str, int] = {}
    problems: list[FrontMatterError] = []
    starts = [number for number, line in enumerate(head) if _FIELD.match(line)]
    # Other lines belong to the field before them: they are indented, items of a list, comments or empty.
    strays = [
        number for number, line in enumerate(head) if line[:1] not in (" ", "\t", "-", "#", "") and number not in starts
    ]
    if (
        not 0 < len(starts) <= MAX_FIELDS
        or strays
        or any(line.strip() and not line.startswith("#") for line in head[: starts[0]])
    ):
        raise problem
    for start, end in zip(starts, [*starts[1:], len(head)], strict=True):
        found = _FIELD.match(head[start])
        assert found is not None
        name, line = found[1], offset + start
        try:
            parsed, _ = _parse("\n".join(head[start:end]), line)
        except FrontMatterError as error:
            texts = [found[2] or "", *head[start + 1 : end]]
            parsed = {name: _unquoted(" ".join(text.strip() for text in texts if text.strip()))}
            problems.append(FrontMatterError(error.line, f"the field {name!r} is not YAML ({error.problem})"))
        fields.update(parsed)
        lines[name] = line
    return fields, lines, problems


def _unquoted(text: str) -> str:
    text = re.sub(r"^[|>][+-]?\d*\s+", "", text)
    is_quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "\"'"
    return text[1:-1] if is_quoted else text
