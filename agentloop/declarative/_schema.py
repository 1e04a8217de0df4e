"""The table as JSON Schema, for editors."""

from __future__ import annotations

from typing import Any

from agentloop.declarative._forms import Field, Record
from agentloop.declarative._table import LATEST, TABLE

__all__ = ["json_schema"]


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of the files that `load_team` reads.

    A field without effect is marked as deprecated, with the reason.
    """
    top = _record(TABLE["file"])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A team for agentloop",
        "description": f"docker-agent's format, versions 1 to {LATEST}.",
        **top,
        "$defs": {name: _record(record) for name, record in TABLE.items() if name != "file"},
    }


def _record(record: Record) -> dict[str, Any]:
    made: dict[str, Any] = {"type": "object"}
    if record.note:
        made |= {"description": record.note, "deprecated": True}
    made["properties"] = {field.name: _field(record, field) for field in record.fields}
    made["additionalProperties"] = False
    required = [field.name for field in record.fields if field.is_required]
    return made | {"required": required} if required else made


def _field(record: Record, field: Field) -> dict[str, Any]:
    schema = {"const": record.name.partition(".")[2]} if _is_type(record, field) else field.form.schema()
    # A field without a value counts as one that is not there.
    if not _is_type(record, field) and not field.is_required:
        schema = {"anyOf": [schema, {"type": "null"}]}
    made: dict[str, Any] = {**schema, "description": f"{field.says} {field.note}".strip()}
    if field.does == "named":
        made["deprecated"] = True
    return made


def _is_type(record: Record, field: Field) -> bool:
    return field.name == "type" and "." in record.name
