"""Make the JSON Schema of a tool's arguments fit for a provider.

Schemas come from everywhere: from typed functions, from MCP servers in any language, from drafts of JSON Schema that
are ten years old. One keyword that a provider does not accept costs every request of the agent, whatever the request is
about. So the keywords are put into the form that all providers accept, and a constraint that a provider refuses moves
into the description; the tool, or its server, checks the arguments in any case.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias, cast

from attrs import frozen

from agentloop.models import ToolSpec
from agentloop.providers._fitting import encode_body

__all__ = ["GEMINI", "PLAIN", "SchemaRules", "fit_parameters", "fit_schema", "has_look_around", "references"]

_Schema: TypeAlias = dict[str, Any]

MAX_DEPTH = 32
"""Levels of schemas inside a schema. A deeper one accepts any value."""
MAX_SCHEMAS = 10_000
"""Schemas inside a schema, references put in place included. A further one accepts any value."""


@frozen(kw_only=True)
class SchemaRules:
    """What a provider accepts in the schema of a tool."""

    is_gemini: bool = False
    """Whether the schema must keep to Gemini's subset: no references, no unions of types, no empty objects."""
    property_name: re.Pattern[str] | None = None
    """What the whole name of an argument must match; ``None`` for any name."""


PLAIN = SchemaRules()
"""The rules that all providers share."""
GEMINI = SchemaRules(is_gemini=True)
"""The rules of Gemini."""


def fit_parameters(spec: ToolSpec, rules: SchemaRules) -> _Schema | None:
    """The parameters of ``spec``, as the provider accepts them; ``None`` to leave them out."""
    schema = _with_nameable_properties(fit_schema(spec.parameters, rules), rules)
    return None if rules.is_gemini and not schema.get("properties") else schema


def fit_schema(schema: _Schema, rules: SchemaRules) -> _Schema:
    """``schema``, always an object with properties, as the provider accepts it."""
    fitted = _Fitter(schema, is_gemini=rules.is_gemini, is_inline=rules.is_gemini).fit(_as_object(schema, schema))
    if all(_target(reference, fitted) is not None for reference in references(fitted)):
        return fitted
    # A reference points into a branch that the top has lost.
    return _Fitter(schema, is_inline=True).fit(_as_object(schema, schema))


# ------------------------------------------------------------------------------- the top


def _as_object(schema: _Schema, root: _Schema, depth: int = 0) -> _Schema:
    """``schema`` as an object: providers refuse a union, a reference or another type at the top.

    The object has the properties of all branches. It requires what all branches of a union require.
    """
    if depth == 0 and schema.get("type") == "object" and not _TOP_REFUSED & schema.keys():
        return schema
    top = {key: value for key, value in schema.items() if key not in _TOP_REFUSED}
    properties: dict[str, Any] = dict(_mapping(top.get("properties")))
    required = _names(top.pop("required", None))
    for keyword in ("allOf", "anyOf", "oneOf"):
        branches = [
            _as_object(cast("_Schema", branch), root, depth + 1)
            for branch in _sequence(schema.get(keyword))
            if isinstance(branch, dict) and depth < _MAX_BRANCHES
        ]
        for branch in branches:
            for name, inner in branch["properties"].items():
                properties.setdefault(name, inner)
        needed = [frozenset[str](branch.get("required", ())) for branch in branches]
        if needed:
            all_of = frozenset[str]().union(*needed)
            required += sorted(all_of if keyword == "allOf" else all_of.intersection(*needed))
    target = _target(schema.get("$ref"), root)
    if isinstance(target, dict) and depth < _MAX_BRANCHES:
        branch = _as_object(cast("_Schema", target), root, depth + 1)
        properties = {**branch["properties"], **properties}
        required += branch.get("required", ())
    fitted = {**top, "type": "object", "properties": properties}
    return {**fitted, "required": list(dict.fromkeys(required))} if required else fitted


_TOP_REFUSED = frozenset({"$ref", "allOf", "anyOf", "oneOf", "not", "if", "then", "else", "enum", "const"})
_MAX_BRANCHES = 4
"""How deep unions at the top may nest."""


def _with_nameable_properties(schema: _Schema, rules: SchemaRules) -> _Schema:
    """``schema`` without the arguments whose names the provider refuses. The description names them."""
    if rules.property_name is None:
        return schema
    refused = [name for name in schema["properties"] if not rules.property_name.fullmatch(name)]
    if not refused:
        return schema
    properties = {name: inner for name, inner in schema["properties"].items() if name not in refused}
    required = [name for name in schema.get("required", ()) if name not in refused]
    note = f"not available here: {', '.join(refused)}"
    return {**_described(schema, [note]), "properties": properties, "required": required}


# -------------------------------------------------------------------------------- inside


_ONE = frozenset({"contains", "not", "if", "then", "else", "propertyNames"})
"""Keywords whose value is a schema."""
_ONE_OR_BOOL = frozenset({"additionalProperties", "unevaluatedItems", "unevaluatedProperties", "additionalItems"})
"""Keywords whose value is a schema, or commonly a boolean."""
_LISTS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
"""Keywords whose value is a list of schemas."""
_MAPPINGS = frozenset({"$defs", "definitions", "dependentSchemas", "properties"})
"""Keywords whose value maps names to schemas."""
_COUNTS = frozenset(
    {"minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties", "minContains", "maxContains"}
)
_NUMBERS = frozenset({"minimum", "maximum", "multipleOf"})
_DROPPED = frozenset(
    {"$schema", "$id", "id", "$anchor", "$dynamicAnchor", "$dynamicRef", "$vocabulary", "dependencies"}
)
"""Keywords of other drafts, or ones that change what a reference means."""
_TEXTS = frozenset({"title", "description", "format", "$comment", "contentEncoding", "contentMediaType"})

_TYPES = frozenset({"object", "array", "string", "integer", "number", "boolean", "null"})
_OTHER_TYPES = {
    "int": "integer",
    "long": "integer",
    "float": "number",
    "double": "number",
    "decimal": "number",
    "str": "string",
    "text": "string",
    "date": "string",
    "datetime": "string",
    "bool": "boolean",
    "dict": "object",
    "map": "object",
    "list": "array",
    "tuple": "array",
    "none": "null",
}
"""Names of types that are not JSON Schema's, but that servers were seen to use."""


class _Fitter:
    """Fits one schema.

    Args:
      root: the schema in which references are looked up.
      is_gemini: whether the result must keep to Gemini's subset.
      is_inline: whether to put the schema in the place of each reference to it.
    """

    def __init__(self, root: _Schema, *, is_gemini: bool = False, is_inline: bool = False) -> None:
        self._root = root
        self._is_gemini = is_gemini
        self._is_inline = is_inline
        self._open: list[str] = []
        """The references that are being put in place."""
        self._depth = 0
        self._count = 0

    def fit(self, schema: object) -> _Schema:
        """``schema``, as the provider accepts it."""
        if not isinstance(schema, dict):
            # `true` and `false` are schemas, too. Not all servers know that.
            return _ANY if self._is_gemini else {"not": {}} if schema is False else {}
        self._count += 1
        if self._depth >= MAX_DEPTH or self._count > MAX_SCHEMAS:
            return _ANY if self._is_gemini else {}
        self._depth += 1
        fitted = self._fit(cast("_Schema", schema))
        self._depth -= 1
        return fitted

    def _fit(self, schema: _Schema) -> _Schema:
        if "$ref" in schema:
            return self._reference(schema)
        notes: list[str] = []
        fitted: _Schema = {}
        for keyword, value in schema.items():
            self._keyword(keyword, value, fitted, notes)
        _draft_4(schema, fitted)
        types = fitted.get("type")
        kinds = {types} if isinstance(types, str) else set(types or ())
        if "object" in kinds:
            fitted.setdefault("properties", {})
        if "array" in kinds:
            fitted.setdefault("items", {})
        if "properties" in fitted and "required" in fitted:
            fitted["required"] = [name for name in fitted["required"] if name in fitted["properties"]]
        fitted = _described(fitted, notes)
        return _gemini(fitted) if self._is_gemini else fitted

    def _keyword(self, keyword: str, value: Any, fitted: _Schema, notes: list[str]) -> None:
        """Put ``keyword`` into ``fitted``, or its constraint into ``notes``, unless it has no meaning."""
        if keyword == "type":
            type_ = _type(value)
            if type_ is not None:
                fitted["type"] = type_
        elif keyword == "required":
            fitted["required"] = _names(value)
        elif keyword == "items":
            # Drafts before 2020-12 have a list here, one schema for each place.
            schemas = [self.fit(inner) for inner in _sequence(value)]
            fitted["items"] = {"anyOf": schemas} if schemas else self.fit(value)
        elif keyword == "enum":
            if _sequence(value):
                fitted["enum"] = list(_sequence(value))
        elif keyword == "pattern":
            if isinstance(value, str) and _is_accepted(value):
                fitted["pattern"] = value
            elif isinstance(value, str) and not has_look_around(value):
                notes.append(f"pattern: {value}")
        elif keyword == "patternProperties":
            accepted = {name: self.fit(inner) for name, inner in _mapping(value).items() if _is_accepted(name)}
            if accepted:
                fitted[keyword] = accepted
        elif keyword in _ONE:
            fitted[keyword] = self.fit(value)
        elif keyword in _ONE_OR_BOOL:
            fitted[keyword] = value if isinstance(value, bool) else self.fit(value)
        elif keyword in _LISTS:
            branches = _sequence(value)
            if self._is_gemini and keyword != "allOf":
                others = [branch for branch in branches if _mapping(branch).get("type") != "null"]
                if len(others) < len(branches):
                    fitted["nullable"] = True
                branches = others
            if branches:
                fitted[keyword] = [self.fit(inner) for inner in branches]
        elif keyword in _MAPPINGS:
            fitted[keyword] = {name: self.fit(inner) for name, inner in _mapping(value).items()}
        elif keyword in _COUNTS:
            if _is_number(value) and value >= 0 and value == int(value):
                fitted[keyword] = int(value)
        elif keyword in _NUMBERS or keyword in ("exclusiveMinimum", "exclusiveMaximum"):
            if _is_number(value) and (keyword != "multipleOf" or value > 0):
                fitted[keyword] = value
        elif keyword in _TEXTS:
            if isinstance(value, str):
                fitted[keyword] = value
        elif keyword == "examples":
            fitted[keyword] = value if isinstance(value, list) else [value]
        elif keyword == "uniqueItems" or keyword in ("deprecated", "readOnly", "writeOnly"):
            if isinstance(value, bool):
                fitted[keyword] = value
        elif keyword not in _DROPPED:
            fitted[keyword] = value

    def _reference(self, schema: _Schema) -> _Schema:
        reference = schema["$ref"]
        beside = {key: value for key, value in schema.items() if key != "$ref"}
        target = _target(reference, self._root)
        if target is None:
            # Such as the address of another document, which no provider fetches.
            return self.fit(_described(beside, [f"as {reference}"]))
        if not self._is_inline:
            # Some providers refuse a reference that has keywords beside it.
            own = self.fit(beside) if beside else {}
            return {**own, "allOf": [*own.get("allOf", ()), {"$ref": reference}]} if own else {"$ref": reference}
        if reference in self._open:
            return self.fit(_described({"type": "object"}, [f"again as {reference.rpartition('/')[2]}"]))
        self._open.append(reference)
        fitted = self.fit({**cast("_Schema", target), **beside} if isinstance(target, dict) else beside)
        self._open.pop()
        return fitted


def _draft_4(schema: _Schema, fitted: _Schema) -> None:
    """Express the booleans of draft 4: ``exclusiveMinimum: true`` makes ``minimum`` exclusive."""
    for keyword, limit in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if schema.get(keyword) is True and limit in fitted:
            fitted[keyword] = fitted.pop(limit)


def _described(schema: _Schema, notes: Iterable[str]) -> _Schema:
    """``schema`` with ``notes`` in its description."""
    note = ", ".join(notes)
    if not note:
        return schema
    description = schema.get("description")
    described = f"{description} ({note})" if description and isinstance(description, str) else f"({note})"
    return {**schema, "description": described}


def _type(value: object) -> str | list[str] | None:
    if isinstance(value, str):
        name = value.strip().lower()
        return name if name in _TYPES else _OTHER_TYPES.get(name)
    types = [_type(inner) for inner in _sequence(value) if isinstance(inner, str)]
    unique = list(dict.fromkeys(name for name in types if isinstance(name, str)))
    return unique[0] if len(unique) == 1 else unique or None


def _target(reference: object, root: _Schema) -> object:
    """The schema that ``reference`` points to inside ``root``; ``None`` if there is none."""
    if not isinstance(reference, str) or not reference.startswith("#"):
        return None
    target: Any = root
    for step in reference[1:].split("/")[1:]:
        key = step.replace("~1", "/").replace("~0", "~")
        inner = {str(index): branch for index, branch in enumerate(_sequence(target))} or _mapping(target)
        if key not in inner:
            return None
        target = inner[key]
    return cast("object", target) if isinstance(target, (dict, bool)) else None


def _mapping(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, dict) else {}


def _sequence(value: object) -> list[Any]:
    return list(cast("Iterable[Any]", value)) if isinstance(value, list) else []


def _names(value: object) -> list[str]:
    return list(dict.fromkeys(name for name in _sequence(value) if isinstance(name, str)))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < float("inf")


# ------------------------------------------------------------------------------ patterns


_GROUP = re.compile(r"\(\?(?!:|P?<[A-Za-z_])")
_BACKWARDS = re.compile(r"\\[1-9]|\\k<|\(\?P=")


def has_look_around(pattern: str) -> bool:
    """Whether ``pattern`` looks ahead, looks behind, or refers to a group: what linear-time engines refuse."""
    bare = re.sub(r"\\\\", "", pattern)
    # An escaped parenthesis begins no group.
    return _GROUP.search(re.sub(r"\\\(", "", bare)) is not None or _BACKWARDS.search(bare) is not None


def _is_accepted(pattern: str) -> bool:
    if has_look_around(pattern):
        return False
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError):
        # Of another dialect, such as `\p{L}`: some providers check patterns with Python's.
        return False
    return True


# --------------------------------------------------------------------------------- Gemini


_GEMINI_KEYWORDS = frozenset(
    {
        "anyOf",
        "description",
        "enum",
        "format",
        "items",
        "maxItems",
        "maximum",
        "minItems",
        "minimum",
        "nullable",
        "properties",
        "required",
        "title",
        "type",
    }
)
_GEMINI_FORMATS = frozenset({"date-time", "enum", "float", "double", "int32", "int64"})
_LOST = frozenset(
    {"$comment", "$defs", "additionalProperties", "default", "definitions", "deprecated", "examples", "not"}
    | {"readOnly", "writeOnly"}
)
"""Keywords that Gemini refuses, and that would not help in a description."""


_ANY: _Schema = {"type": "string"}
"""The schema of any value: Gemini has none."""


def _gemini(schema: _Schema) -> _Schema:
    """``schema``, whose inner schemas are in Gemini's subset, in Gemini's subset."""
    rest = dict(schema)
    for keyword in ("oneOf", "allOf"):
        if keyword in rest:
            rest.setdefault("anyOf", rest.pop(keyword))
    if "const" in rest:
        rest.setdefault("enum", [rest.pop("const")])
    types = rest.get("type")
    kinds = [types] if isinstance(types, str) else list(types or ())
    if isinstance(types, list):
        others = [kind for kind in kinds if kind != "null"]
        del rest["type"]
        if "null" in kinds:
            rest["nullable"] = True
        if len(others) == 1:
            rest["type"] = others[0]
        elif not others:
            rest["type"] = "null"
        elif "anyOf" not in rest:
            rest["anyOf"] = [_gemini({"type": kind, **_inside(kind, rest)}) for kind in others]
    notes: list[str] = []
    fitted: _Schema = {}
    for keyword, value in rest.items():
        if keyword == "format" and value not in _GEMINI_FORMATS:
            notes.append(f"format: {value}")
        elif keyword == "enum" and not all(isinstance(one, str) and one for one in value):
            notes.append(f"one of {_json(value)}")
        elif keyword in _GEMINI_KEYWORDS:
            fitted[keyword] = value
        elif keyword not in _LOST:
            notes.append(f"{keyword}: {_json(value)}")
    _unwrap(fitted)
    if "anyOf" in fitted:
        # Gemini accepts nothing but annotations beside a union.
        fitted = {key: value for key, value in fitted.items() if key in ("anyOf", "description", "nullable", "title")}
    elif "type" not in fitted:
        fitted["type"] = "object" if "properties" in fitted else "array" if "items" in fitted else "string"
    if fitted.get("type") == "null":
        fitted.update(type="string", nullable=True)
    kind = fitted.get("type")
    if kind == "object" and not fitted.get("properties"):
        fitted.pop("properties", None)
        fitted.pop("required", None)
    if kind == "array" and not fitted.get("items"):
        fitted["items"] = {"type": "string"}
    if kind != "string":
        fitted.pop("enum", None)
    for keyword, owner in (("properties", "object"), ("required", "object"), ("items", "array")):
        if keyword in fitted and kind != owner:
            del fitted[keyword]
    return _described(fitted, notes)


def _inside(kind: str, schema: _Schema) -> _Schema:
    keywords = {"object": ("properties", "required"), "array": ("items",)}.get(kind, ())
    return {keyword: schema[keyword] for keyword in keywords if keyword in schema}


def _unwrap(schema: _Schema) -> None:
    """Put the only branch of a union in its place."""
    branches = schema.get("anyOf", ())
    if len(branches) == 1:
        del schema["anyOf"]
        schema.update({**branches[0], **{key: schema[key] for key in ("description", "nullable") if key in schema}})


def _json(value: object) -> str:
    return encode_body(value).decode()[:200]


def references(schema: object) -> Iterator[str]:
    """The references in ``schema``."""
    if isinstance(schema, dict):
        for key, inner in cast("_Schema", schema).items():
            if key == "$ref" and isinstance(inner, str):
                yield inner
            yield from references(inner)
    elif isinstance(schema, list):
        for inner in cast("Iterable[Any]", schema):
            yield from references(inner)
