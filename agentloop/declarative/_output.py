"""Structured output by a JSON Schema of the file."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, cast

import msgspec

from agentloop._core.json_text import decode_json, is_array, is_object
from agentloop.declarative._section import Section

__all__ = ["JsonOutput", "output_of"]

MAX_PROBLEMS = 10
MAX_DEPTH = 50


class JsonOutput(dict[str, Any]):
    """The JSON object that an agent of a file answered with. It fits the schema of the file."""

    _schema: Mapping[str, Any] = {}

    @classmethod
    def model_json_schema(cls, **_: Any) -> dict[str, Any]:
        """The JSON Schema."""
        return dict(cls._schema)

    @classmethod
    def model_validate(cls, value: Any) -> JsonOutput:
        """Check a value against the schema.

        Raises:
          ValueError: it does not fit.
        """
        problems = list(_problems(value, cls._schema, "", cls._schema, 0))
        if problems:
            raise ValueError("; ".join(problems[:MAX_PROBLEMS]))
        return cls(value)

    @classmethod
    def model_validate_json(cls, raw: bytes | str) -> JsonOutput:
        """As `model_validate`, for JSON text."""
        return cls.model_validate(decode_json(raw, Any))

    def model_dump_json(self, **_: Any) -> str:
        """The object as JSON text."""
        return msgspec.json.encode(dict(self)).decode()


def output_of(section: Section) -> type[JsonOutput]:
    """The type of output that ``structured_output`` describes.

    Raises:
      TeamFileError: its schema is of no object.
    """
    schema: dict[str, Any] = section.plain("schema")
    if schema.get("type", "object") != "object" or not isinstance(schema.get("properties", {}), dict):
        raise section.error("give the schema of an object: `type: object`, with `properties`", "schema")
    schema = {"type": "object", "properties": {}, **schema}
    if section.text("description"):
        schema.setdefault("description", section.text("description"))
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", section.text("name")).strip("_")[:64] or "output"
    return type(name, (JsonOutput,), {"_schema": schema, "__module__": __name__, "__doc__": schema.get("description")})


_TYPES: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "null": type(None),
}


def _problems(value: Any, schema: Any, path: str, root: Mapping[str, Any], depth: int) -> list[str]:
    """What is wrong with a value, by the keywords that models break. Others are left to the provider."""
    if schema is False:
        return [f"`{path}`: it must not be there"]
    if not isinstance(schema, Mapping) or depth > MAX_DEPTH:
        return []
    schema = cast("Mapping[str, Any]", schema)
    if isinstance(reference := schema.get("$ref"), str):
        return _problems(value, _referred(reference, root), path, root, depth + 1)
    at = f"`{path}`: " if path else ""
    enum = _list(schema.get("enum"))
    if enum and value not in enum:
        return [f"{at}give one of {', '.join(map(repr, enum))}"]
    if "const" in schema and value != schema["const"]:
        return [f"{at}give {schema['const']!r}"]
    if "type" in schema and not _is_of_type(value, schema["type"]):
        return [f"{at}give {_type_words(schema['type'])}"]
    for keyword in ("anyOf", "oneOf"):
        tried = [_problems(value, option, path, root, depth + 1) for option in _list(schema.get(keyword))]
        if tried and all(tried):
            return min(tried, key=len)
    found: list[str] = []
    for option in _list(schema.get("allOf")):
        found += _problems(value, option, path, root, depth + 1)
    if is_object(value):
        found += _of_object(value, schema, path, root, depth)
    if is_array(value) and "items" in schema:
        for index, item in enumerate(value):
            found += _problems(item, schema["items"], f"{path}[{index}]", root, depth + 1)
    return found + _of_bounds(value, schema, at)


def _list(value: object) -> list[Any]:
    return value if is_array(value) else []


def _dict(value: object) -> dict[str, Any]:
    return value if is_object(value) else {}


def _of_object(
    value: dict[str, Any], schema: Mapping[str, Any], path: str, root: Mapping[str, Any], depth: int
) -> list[str]:
    properties = _dict(schema.get("properties"))
    required = _list(schema.get("required"))
    prefix = f"{path}." if path else ""
    found = [f"`{prefix}{name}`: it is missing" for name in required if isinstance(name, str) and name not in value]
    others = schema.get("additionalProperties", True)
    for name, inner in value.items():
        if name in properties:
            found += _problems(inner, properties[name], f"{prefix}{name}", root, depth + 1)
        elif others is not True:
            found += _problems(inner, others, f"{prefix}{name}", root, depth + 1)
    return found


def _of_bounds(value: Any, schema: Mapping[str, Any], at: str) -> list[str]:
    found: list[str] = []
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    size = value if is_number else len(value) if isinstance(value, str) or is_array(value) else math.nan
    kind = "number" if is_number else "text" if isinstance(value, str) else "list"
    low, high = {
        "number": ("minimum", "maximum"),
        "text": ("minLength", "maxLength"),
        "list": ("minItems", "maxItems"),
    }[kind]
    least, most = schema.get(low), schema.get(high)
    if isinstance(least, (int, float)) and size < least:
        found.append(f"{at}{low} is {least}")
    if isinstance(most, (int, float)) and size > most:
        found.append(f"{at}{high} is {most}")
    return found


def _is_of_type(value: Any, declared: Any) -> bool:
    kinds = _list(declared) or [declared]
    return any(_is_of(value, kind) for kind in kinds)


def _is_of(value: Any, kind: Any) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind == "number":
        return is_number
    if kind == "integer":
        return is_number and float(value).is_integer()
    known = _TYPES.get(kind) if isinstance(kind, str) else None
    return known is None or isinstance(value, known)


def _type_words(declared: Any) -> str:
    kinds = _list(declared) or [declared]
    return f"a value of type {' or '.join(map(str, kinds))}"


def _referred(reference: str, root: Mapping[str, Any]) -> Any:
    node: Any = root
    for part in reference.removeprefix("#").strip("/").split("/"):
        if not part:
            continue
        node = cast("Mapping[str, Any]", node).get(part) if isinstance(node, Mapping) else None
    return node
