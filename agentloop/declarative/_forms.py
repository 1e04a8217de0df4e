"""The forms that the fields of a file may have, and the check of a file against them.

`agentloop.declarative._table` says which fields there are. The loader, the JSON Schema and the page of the
documentation are made of the same table.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, TypeAlias

from attrs import field, frozen

from agentloop._core.redaction import visible
from agentloop.declarative._document import Entry, Node
from agentloop.declarative._problems import MAX_FIELD, Place, TeamFileError, Unsupported, nearest, shown

__all__ = [
    "ByType",
    "Does",
    "Duration",
    "Field",
    "Flag",
    "Form",
    "Json",
    "ListOf",
    "MapOf",
    "Number",
    "OneOf",
    "Record",
    "Ref",
    "Report",
    "Text",
    "seconds_of",
]

Does: TypeAlias = Literal["obeyed", "partly", "named"]
"""What happens with a field: it is obeyed; obeyed with a difference; or read and named in ``unsupported``."""


class Report:
    """What the check and the loader say about a file, besides errors."""

    def __init__(self, tables: Mapping[str, Record], *, is_newer: bool = False) -> None:
        self.tables = tables
        """The records by name."""
        self.is_newer = is_newer
        """Whether the file is of a later version of the format: fields that are not known are then named."""
        self.unsupported: list[Unsupported] = []
        """The fields without effect so far."""
        self.read: set[str] = set()
        """The fields that the loader has looked at."""

    def name(self, path: str, place: Place, reason: str) -> None:
        """Name a field that has no effect, or a different one. Once for each place."""
        entry = Unsupported(shown(path, MAX_FIELD), place, shown(reason, MAX_FIELD))
        if entry not in self.unsupported:
            self.unsupported.append(entry)


class Form(Protocol):
    """What a value may be."""

    def check(self, node: Node, path: str, report: Report) -> None:
        """Raise `TeamFileError` unless ``node`` fits. Fields in it without effect go to ``report``."""
        ...

    def schema(self) -> dict[str, Any]:
        """The form as JSON Schema."""
        ...

    @property
    def words(self) -> str:
        """The form in words, for errors and the documentation."""
        ...


def _shown(text: str) -> str:
    return repr(visible(text[:60]))


def _refuse(node: Node, path: str, form: Form, more: str = "") -> TeamFileError:
    return TeamFileError(f"give {form.words}, not {node.kind}{more}", node.place, path)


@frozen
class Text:
    """A text. A number or a boolean counts as the text that is written there."""

    choices: tuple[str, ...] = ()
    """The texts that it may be; none for any."""

    def check(self, node: Node, path: str, report: Report) -> None:
        """As `Form.check`."""
        if node.items is not None or node.entries is not None or node.scalar is None:
            raise _refuse(node, path, self)
        if self.choices and node.raw not in self.choices:
            meant = nearest(node.raw, self.choices)
            if meant:
                raise TeamFileError(f"there is no {_shown(node.raw)}: did you mean {meant!r}?", node.place, path)
            raise _refuse(node, path, self)

    def schema(self) -> dict[str, Any]:
        """As `Form.schema`."""
        return (
            {"type": "string", "enum": [*self.choices]} if self.choices else {"type": ["string", "number", "boolean"]}
        )

    @property
    def words(self) -> str:
        """As `Form.words`."""
        return f"one of {', '.join(self.choices)}" if self.choices else "a text"


@frozen
class Number:
    """A number."""

    least: float = -math.inf
    most: float = math.inf
    is_whole: bool = False
    is_open: bool = False
    """Whether ``least`` itself is too small."""

    def check(self, node: Node, path: str, report: Report) -> None:
        """As `Form.check`."""
        value = node.scalar
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise _refuse(node, path, self)
        is_off = self.is_whole and value != math.inf and (math.isnan(value) or value != math.floor(value))
        fits = self.least < value if self.is_open else self.least <= value
        # An infinite number is none that JSON or a provider has.
        if is_off or not fits or not value <= self.most or not abs(value) < 2**63:
            raise _refuse(node, path, self)

    def schema(self) -> dict[str, Any]:
        """As `Form.schema`."""
        made: dict[str, Any] = {"type": "integer" if self.is_whole else "number"}
        if self.least > -math.inf:
            made["exclusiveMinimum" if self.is_open else "minimum"] = self.least
        if self.most < math.inf:
            made["maximum"] = self.most
        return made

    @property
    def words(self) -> str:
        """As `Form.words`."""
        what = "a whole number" if self.is_whole else "a number"
        low = f"above {self.least:g}" if self.is_open else f"of {self.least:g} or more"
        high = f"up to {self.most:g}"
        match self.least > -math.inf, self.most < math.inf:
            case True, True:
                return f"{what} {low} and {high}" if self.is_open else f"{what} from {self.least:g} to {self.most:g}"
            case True, False:
                return f"{what} {low}"
            case False, True:
                return f"{what} {high}"
            case _:
                return what


@frozen
class Flag:
    """``true`` or ``false``."""

    def check(self, node: Node, path: str, report: Report) -> None:
        """As `Form.check`."""
        if not isinstance(node.scalar, bool):
            raise _refuse(node, path, self)

    def schema(self) -> dict[str, Any]:
        """As `Form.schema`."""
        return {"type": "boolean"}

    @property
    def words(self) -> str:
        """As `Form.words`."""
        return "true or false"


_UNITS = {"ns": 1e-9, "us": 1e-6, "\u00b5s": 1e-6, "\u03bcs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = r"(?:[0-9]+(?:\.[0-9]*)?(?:ns|us|\u00b5s|\u03bcs|ms|s|m|h))+"


@frozen
class Duration:
    """A duration as Go writes it, ``1m30s``; or seconds."""

    def check(self, node: Node, path: str, report: Report) -> None:
        """As `Form.check`."""
        if seconds_of(node) is None:
            raise _refuse(node, path, self)

    def schema(self) -> dict[str, Any]:
        """As `Form.schema`."""
        return {"type": ["string", "number"]}

    @property
    def words(self) -> str:
        """As `Form.words`."""
        return "a duration, such as 30s or 1m30s"


def seconds_of(node: Node) -> float | None:
    """The seconds of a duration; ``None`` if it is none."""
    value = node.scalar
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value) if 0 <= value < 1e12 else None
    if not isinstance(value, str) or len(value) > 100 or not re.fullmatch(_DURATION, value, re.ASCII):
        return None
    parts = re.findall(r"([0-9.]+)([a-z\u00b5\u03bc]+)", value)
    total = sum(float(number) * _UNITS[unit] for number, unit in parts)
    return total if total < 1e12 else None


@frozen
class Json:
    """Any value, or any mapping."""

    is_mapping: bool = True

    def check(self, node: Node, path: str, report: Report) -> None:
        """As `Form.check`."""
        if self.is_mapping and node.entries is None:
            raise _refuse(node, path, self)

    def schema(self) -> dict[str, Any]:
        """As `Form.schema`."""
        return {"type": "object"} if self.is_mapping else {}

    @property
    def words(self) -> str:
        """As `Form.words`."""
        return "a mapping" if self.is_mapping else "any value"


@frozen
class ListOf:
    """A list."""

    form: Form
    """The form of its items."""
    is_never_empty: bool = False

    def check(self, node: Node, path: str, report: Report) -> None:
        """As `Form.check`."""
        if node.items is None:
            raise _refuse(node, path, self)
        if self.is_never_empty and not node.items:
            raise TeamFileError("the list is empty", node.place, path)
        for index, item in enumerate(node.items):
            self.form.check(item, f"{path}[{index}]", report)

    def schema(self) -> dict[str, Any]:
        """As `Form.schema`."""
        made: dict[str, Any] = {"type": "array", "items": self.form.schema()}
        return made | {"minItems": 1} if self.is_never_empty else made

    @property
    def words(self) -> str:
        """As `Form.words`."""
        return f"a list of {_plural(self.form.words)}"


def _plural(words: str) -> str:
    singular = words.removeprefix("a ").removeprefix("an ")
    return f"{singular}s" if singular != words and " " not in singular else f"items, each {words}"


@frozen
class MapOf:
    """A mapping from names that the file chooses."""

    form: Form
    """The form of its values."""
    is_never_empty: bool = False

    def check(self, node: Node, path: str, report: Report) -> None:
        """As `Form.check`."""
        if node.entries is None:
            raise _refuse(node, path, self)
        if self.is_never_empty and not node.entries:
            raise TeamFileError("the mapping is empty", node.place, path)
        for entry in node.entries:
            if not entry.key.strip():
                raise TeamFileError("a name has some text", entry.place, path)
            self.form.check(entry.value, f"{path}.{entry.key}", report)

    def schema(self) -> dict[str, Any]:
        """As `Form.schema`."""
        made: dict[str, Any] = {"type": "object", "additionalProperties": self.form.schema()}
        return made | {"minProperties": 1} if self.is_never_empty else made

    @property
    def words(self) -> str:
        """As `Form.words`."""
        return f"a mapping from names to {_plural(self.form.words)}"


@frozen
class OneOf:
    """One of several forms, which differ in their kind: scalar, list or mapping."""

    forms: tuple[Form, ...]

    def check(self, node: Node, path: str, report: Report) -> None:
        """As `Form.check`."""
        fitting = [form for form in self.forms if _is_of_kind(form, node)]
        if not fitting:
            raise _refuse(node, path, self)
        for form in fitting[:-1]:
            try:
                return form.check(node, path, report)
            except TeamFileError:
                continue
        return fitting[-1].check(node, path, report)

    def schema(self) -> dict[str, Any]:
        """As `Form.schema`."""
        return {"anyOf": [form.schema() for form in self.forms]}

    @property
    def words(self) -> str:
        """As `Form.words`."""
        return ", or ".join(form.words for form in self.forms)


def _is_of_kind(form: Form, node: Node) -> bool:
    if isinstance(form, ListOf):
        return node.items is not None
    if isinstance(form, (MapOf, Ref, ByType, Json)):
        return node.entries is not None
    return node.items is None and node.entries is None


@frozen
class Ref:
    """A mapping with fixed fields: a record of the table."""

    record: str
    """The record's name."""

    def check(self, node: Node, path: str, report: Report) -> None:
        """As `Form.check`."""
        if node.entries is None:
            raise _refuse(node, path, self)
        report.tables[self.record].check(node, path, report)

    def schema(self) -> dict[str, Any]:
        """As `Form.schema`."""
        return {"$ref": f"#/$defs/{self.record}"}

    @property
    def words(self) -> str:
        """As `Form.words`."""
        return "a mapping"


@frozen
class ByType:
    """A mapping whose field ``type`` says which record it is: ``toolset`` and ``shell`` give ``toolset.shell``."""

    prefix: str
    types: tuple[str, ...]
    """The types."""

    def check(self, node: Node, path: str, report: Report) -> None:
        """As `Form.check`."""
        if node.entries is None:
            raise _refuse(node, path, self)
        kind = node.get("type")
        if kind is None or kind.scalar is None:
            raise TeamFileError(f"`type` is missing: give one of {', '.join(self.types)}", node.place, path)
        Text(self.types).check(kind, f"{path}.type", report)
        record = report.tables[f"{self.prefix}.{kind.raw}"]
        for entry in node.entries:
            if record.get(entry.key) is None:
                others = [name for name in self.types if report.tables[f"{self.prefix}.{name}"].get(entry.key)]
                if others:
                    raise TeamFileError(
                        f"a {self.prefix} of type {kind.raw} has no such field: it is one of {', '.join(others)}",
                        entry.place,
                        f"{path}.{entry.key}",
                    )
        record.check(node, path, report)

    def schema(self) -> dict[str, Any]:
        """As `Form.schema`."""
        return {"anyOf": [{"$ref": f"#/$defs/{self.prefix}.{name}"} for name in self.types]}

    @property
    def words(self) -> str:
        """As `Form.words`."""
        return "a mapping with a `type`"


@frozen
class Field:
    """A field of a record."""

    name: str
    form: Form
    does: Does
    """Whether the loader obeys it."""
    says: str
    """What it is for, for the documentation and an editor."""
    note: str = ""
    """What is different here; or why it has no effect, for ``unsupported``. One sentence."""
    is_required: bool = False


@frozen
class Record:
    """A mapping with fixed fields."""

    name: str
    title: str
    """What it is, for the documentation."""
    fields: tuple[Field, ...]
    note: str = ""
    """Why the whole mapping has no effect, in one sentence; empty if it has one."""
    _by_name: dict[str, Field] = field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_by_name", {field.name: field for field in self.fields})

    def get(self, name: str) -> Field | None:
        """The field of that name, if there is one."""
        return self._by_name.get(name)

    def check(self, node: Node, path: str, report: Report) -> None:
        """As `Form.check`."""
        entries: Sequence[Entry] = node.entries or ()
        if self.note:
            report.name(path, node.place, self.note)
            # Its fields are checked, and not named one by one.
            report = Report(report.tables, is_newer=report.is_newer)
        for entry in entries:
            inner = f"{path}.{entry.key}" if path else entry.key
            known = self.get(entry.key)
            if known is None:
                self._check_unknown(entry, inner, report)
                continue
            if _is_nothing(entry.value):
                # As in docker-agent: a field without a value is not there.
                continue
            if known.does != "named":
                known.form.check(entry.value, inner, report)
                continue
            # What is in it has no effect either, and is not named once more.
            known.form.check(entry.value, inner, Report(report.tables, is_newer=report.is_newer))
            if not _is_off(entry.value):
                report.name(inner, entry.place, known.note)
        present = {entry.key for entry in entries if not _is_nothing(entry.value)}
        for missing in self.fields:
            if missing.is_required and missing.name not in present:
                raise TeamFileError(f"`{missing.name}` is missing: give {missing.form.words}", node.place, path)

    def _check_unknown(self, entry: Entry, path: str, report: Report) -> None:
        if report.is_newer:
            report.name(path, entry.place, "This field is not known here.")
            return
        meant = nearest(entry.key, self._by_name)
        hint = f"did you mean {meant!r}?" if meant else f"there are {', '.join(self._by_name)}"
        raise TeamFileError(f"{self.title} has no such field: {hint}", entry.place, path)


def _is_nothing(node: Node) -> bool:
    return node.items is None and node.entries is None and node.scalar is None


def _is_off(node: Node) -> bool:
    """Whether a value asks for nothing, so that there is nothing to name."""
    if isinstance(node.scalar, int) and node.scalar in (0, -1):
        # ``false``, or a number that stands for no limit, or for the default.
        return True
    return node.items == () or node.entries == () or node.scalar == ""
