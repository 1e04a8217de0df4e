"""Types of pydantic 2: found by their methods, described by their own schema, read by their own validators.

The package never imports pydantic. A program that has a pydantic type has imported pydantic already, so its
`TypeAdapter` is in `sys.modules`.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import msgspec

from agentloop._core.foreign_errors import describe, error_text
from agentloop._core.json_text import decode_json, is_array, is_object
from agentloop._core.on_first_use import is_dataclass
from agentloop.errors import ToolDefinitionError

__all__ = [
    "FieldProblemsError",
    "PydanticType",
    "adapted",
    "description_in",
    "encode_json",
    "field_default",
    "is_field",
    "is_imported",
    "is_pydantic_class",
    "validates",
]

_MODULES = frozenset({"pydantic", "pydantic_core", "pydantic_extra_types", "annotated_types"})
"""The top-level packages whose objects, in an `Annotated`, are pydantic's to interpret."""
_MAX_PROBLEMS = 10
"""Problems of one value that the model reads."""


class FieldProblemsError(ValueError):
    """A value does not fit its type. Each problem has the path of its field, and the reason."""

    def __init__(self, problems: Sequence[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"`{path}`: {reason}" if path else reason for path, reason in problems))
        self.problems = tuple(problems)

    def __reduce__(self) -> tuple[type[FieldProblemsError], tuple[object, ...]]:
        return type(self), (self.problems,)


# -------------------------------------------------------------------------- which types are pydantic's


def is_imported() -> bool:
    """Whether the program has imported pydantic. Without it, no type can be pydantic's."""
    return "pydantic" in sys.modules


def _root(value: object) -> str:
    return str(getattr(value, "__module__", "")).partition(".")[0]


def is_pydantic_class(hint: object) -> bool:
    """Whether ``hint`` is a class that pydantic reads: a model, a dataclass of pydantic, or one such as `SecretStr`."""
    if not isinstance(hint, type):
        return False
    cls = cast("type[Any]", hint)
    if _is_model(cls) or "__pydantic_validator__" in vars(cls):
        return True
    # A class that msgspec reads as well, and that only tells pydantic how to, stays msgspec's.
    is_common = hasattr(cls, "__attrs_attrs__") or is_dataclass(cls) or issubclass(cls, msgspec.Struct)
    return is_imported() and hasattr(cls, "__get_pydantic_core_schema__") and not is_common


def _is_model(cls: type) -> bool:
    return callable(getattr(cls, "model_json_schema", None)) and callable(getattr(cls, "model_validate", None))


def is_field(value: object) -> bool:
    """Whether ``value`` is what ``pydantic.Field(...)`` returns."""
    return type(value).__module__ == "pydantic.fields" and hasattr(value, "metadata")


def validates(item: object) -> bool:
    """Whether ``item``, in an `Annotated`, changes what pydantic reads. A ``Field`` that only describes does not."""
    if is_field(item):
        field = cast("Any", item)
        return bool(field.metadata) or field.discriminator is not None
    if _root(type(item)) in _MODULES or _root(item) in _MODULES:
        return is_imported()
    return is_imported() and hasattr(item, "__get_pydantic_core_schema__")


def description_in(item: object) -> str | None:
    """The description of a ``Field``; ``None`` for any other object."""
    return cast("Any", item).description if is_field(item) else None


def field_default(field: Any, otherwise: object) -> Any:
    """The default of a ``Field``, made anew by its factory; ``otherwise`` if it has none."""
    return otherwise if field.is_required() else field.get_default(call_default_factory=True)


# --------------------------------------------------------------------------------- reading and describing


class PydanticType:
    """A type that pydantic describes and reads.

    Args:
      name: its name in the schema.
      type_: the class; ``None`` for an annotation.
      make_schema: makes its JSON Schema.
      validate: reads JSON text.
    """

    def __init__(
        self,
        name: str,
        type_: type | None,
        make_schema: Callable[[], dict[str, Any]],
        validate: Callable[[bytes], Any],
    ) -> None:
        self.name = name
        self.type = type_
        self._make_schema = make_schema
        self._validate = validate

    @functools.cached_property
    def schema(self) -> dict[str, Any]:
        """JSON Schema with references into its own ``$defs``. Shared: do not change it.

        Raises:
          ToolDefinitionError: pydantic cannot make one.
        """
        try:
            return cast("dict[str, Any]", _simplified(self._make_schema()))
        except Exception as error:
            problem = " ".join(error_text(error).partition("\n\nFor further")[0].split())
            what = f"`{self.name}` is a pydantic type" if self.type else "it is annotated with objects of pydantic"
            raise ToolDefinitionError(f"{what}, and pydantic can make no JSON Schema of it: {problem}") from error

    def read(self, value: object) -> Any:
        """A JSON value as a value of the type. A value that is one already stays as it is.

        Raises:
          FieldProblemsError: pydantic refuses it, or a validator raises.
        """
        if self.type is not None and isinstance(value, self.type):
            return value
        try:
            # As JSON text: a strict model takes a date from a text in JSON, and not from a Python string.
            return self._validate(encode_json(value, by_alias=True))
        except Exception as error:
            raise FieldProblemsError(_problems(error)) from error


def adapted(type_: Any) -> PydanticType:
    """A pydantic class, or an `Annotated` with objects of pydantic in it, as a type that can be described and read."""
    if isinstance(type_, type):
        return _adapted_class(type_)
    return _by_adapter("output", None, type_)


@functools.lru_cache(maxsize=1024)
def _adapted_class(cls: type) -> PydanticType:
    if _is_model(cls):
        model: Any = cls

        def validate(raw: bytes) -> Any:
            if hasattr(model, "model_validate_json"):
                return model.model_validate_json(raw)
            return model.model_validate(decode_json(raw))

        return PydanticType(
            cls.__name__, cls, functools.partial(model.model_json_schema, ref_template="#/$defs/{model}"), validate
        )
    return _by_adapter(cls.__name__, cls, cls)


def _by_adapter(name: str, cls: type | None, type_: Any) -> PydanticType:
    @functools.cache
    def adapter() -> Any:
        # Made late: an error is to name the parameter or the field that has the type.
        adapter_class = getattr(sys.modules.get("pydantic"), "TypeAdapter", None)
        if adapter_class is None:
            raise TypeError("reading it takes pydantic 2, which is not imported")
        return adapter_class(type_)

    return PydanticType(
        name,
        cls,
        lambda: adapter().json_schema(ref_template="#/$defs/{model}"),
        lambda raw: adapter().validate_json(raw),
    )


def _problems(error: Exception) -> list[tuple[str, str]]:
    """The fields that a ``ValidationError`` of pydantic names, with the reasons."""
    if not callable(list_errors := getattr(error, "errors", None)):
        # A validator may raise anything. pydantic hands on all but ValueError and AssertionError.
        return [("", f"its validator failed: {describe(error)}")]
    # Without the inputs, which may be secrets.
    listed = cast("list[dict[str, Any]]", list_errors(include_url=False, include_context=False, include_input=False))
    problems = [(_path(each["loc"]), _reason(each["type"], each["msg"])) for each in listed[:_MAX_PROBLEMS]]
    if len(listed) > _MAX_PROBLEMS:
        problems.append(("", f"and {len(listed) - _MAX_PROBLEMS} more"))
    return problems


def _path(location: Sequence[str | int]) -> str:
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in location)
    return "".join(steps).removeprefix(".")


def _reason(kind: str, message: str) -> str:
    if kind in ("value_error", "assertion_error"):
        # The words of a validator, which stay as they are.
        return message.removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return message[:1].lower() + message[1:]


def _simplified(node: Any, name: str = "") -> Any:
    """A schema of pydantic without words that every provider would read as noise, in JSON Schema's own keywords.

    Args:
      name: the name of the property or definition that the schema is of.
    """
    if is_array(node):
        return [_simplified(item) for item in node]
    if not is_object(node):
        return node
    schema: dict[str, Any] = {}
    for keyword, value in node.items():
        if keyword in ("properties", "$defs") and is_object(value):
            schema[keyword] = {key: _simplified(inner, key) for key, inner in value.items()}
        elif keyword in ("default", "examples", "const", "enum"):
            schema[keyword] = value
        elif keyword == "title" and _is_derived(value, name or str(value)):
            # pydantic makes a title of each name. One of the user's own stays.
            continue
        elif keyword == "discriminator" and "oneOf" in node:
            # Of OpenAPI. The `const` of each alternative says the same.
            continue
        elif keyword == "oneOf" and "discriminator" in node:
            schema["anyOf"] = _simplified(value)
        elif keyword == "allOf" and is_array(value) and len(value) == 1 and is_object(value[0]):
            # Releases before 2.9 put a reference with a description beside it so.
            schema |= _simplified(value[0])
        else:
            schema[keyword] = _simplified(value)
    return schema


def _is_derived(title: object, name: str) -> bool:
    return isinstance(title, str) and title.replace(" ", "").lower() == name.replace("_", "").replace(" ", "").lower()


# ---------------------------------------------------------------------------------------------- writing


def encode_json(value: object, *, by_alias: bool = False) -> bytes:
    """``value`` as JSON. A pydantic model is written by its own ``model_dump_json``.

    Args:
      by_alias: whether fields of models go by the names under which they are read.

    Raises:
      TypeError, ValueError, RecursionError: it has no JSON form.
    """
    # Without an argument for the rest: a class may have a method of its own, with pydantic's defaults.
    options = {"by_alias": True} if by_alias else {}

    def encode_foreign(value: object) -> Any:
        cls = type(value)
        if callable(dump := getattr(value, "model_dump_json", None)):
            return msgspec.Raw(str(dump(**options)).encode())
        if _root(cls) in _MODULES:
            # A secret shows as asterisks, a URL as its text.
            return str(value)
        raise TypeError(f"Encoding objects of type {cls.__qualname__} is unsupported")

    if is_imported():
        value = _written_by_pydantic(value, options, 0)
    return msgspec.json.encode(value, enc_hook=encode_foreign)


def _written_by_pydantic(value: object, options: dict[str, Any], depth: int) -> object:
    """``value`` with JSON in the place of dataclasses of pydantic, which msgspec would write by rules of its own."""
    if depth == _MAX_DEPTH:
        return value
    if type(value) is dict:
        members = cast("Mapping[Any, object]", value)
        return {key: _written_by_pydantic(member, options, depth + 1) for key, member in members.items()}
    if type(value) in (list, tuple):
        return [_written_by_pydantic(item, options, depth + 1) for item in cast("Sequence[object]", value)]
    if is_dataclass(value) and not isinstance(value, type):
        serializer = getattr(type(value), "__pydantic_serializer__", None)
        if serializer is not None:
            return msgspec.Raw(serializer.to_json(value, **options))
    return value


_MAX_DEPTH = 64
"""Levels in which dataclasses of pydantic are looked for. A value that contains itself must not go on for ever."""
