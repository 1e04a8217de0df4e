"""Type hints in the words of msgspec, with a stand-in for each type that msgspec cannot read.

msgspec reads plain types, attrs classes, dataclasses, TypedDicts and Structs, also inside of each other. Three kinds of
types are read here:

- types of pydantic, which describe and read themselves;
- unions of classes without a tag: the alternatives are tried, see `_Union`;
- classes of msgspec's kinds that have one of these three in a field: see `_Mirror`.

A *stand-in* is a class that msgspec knows nothing about, and therefore leaves to `read_hook`. A hint without such types
is not changed, and costs what it did.
"""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from importlib import import_module
from typing import Annotated, Any, Literal, NamedTuple, Protocol, cast

import attrs
import msgspec

from agentloop._core.field_checks import plain_text
from agentloop._core.foreign_errors import describe, error_text
from agentloop._core.json_text import is_object, whole_numbers
from agentloop._core.on_first_use import is_dataclass
from agentloop._core.pydantic_types import (
    FieldProblemsError,
    PydanticType,
    adapted,
    description_in,
    is_pydantic_class,
    validates,
)

__all__ = [
    "Mirror",
    "PydanticType",
    "StandIn",
    "Union",
    "field_problems",
    "json_names",
    "lacks_integer",
    "read_as",
    "read_hook",
    "spelled_out",
    "words_in",
]


class Kind(Protocol):
    """What a stand-in stands for."""

    @property
    def name(self) -> str:
        """Its name, for a schema and for errors."""
        ...

    def read(self, value: object, /) -> Any:
        """Read a JSON value. Raises `FieldProblemsError`."""
        ...


class StandIn(type):
    """A class in the place of a type that msgspec cannot read."""

    kind: Kind

    def __new__(cls, kind: Kind) -> StandIn:
        """A stand-in for ``kind``."""
        return super().__new__(cls, kind.name, (), {"kind": kind})

    def __init__(cls, kind: Kind) -> None:
        super().__init__(kind.name, (), {})

    def __instancecheck__(cls, instance: object) -> bool:
        # msgspec asks this of what `read_hook` returns, which is a value of the type that the class stands for.
        return True


def read_hook(type_: Any, value: object) -> Any:
    """Read ``value`` as the type that a stand-in stands for: the ``dec_hook`` of every decoder."""
    if isinstance(type_, StandIn):
        return type_.kind.read(value)
    raise NotImplementedError


def read_as(hint: Any, value: object) -> Any:
    """A JSON value, or a value of the type, as ``hint``. 3.0 counts as 3 where an integer is due.

    Raises:
      msgspec.ValidationError: it does not fit.
    """
    try:
        return msgspec.convert(value, hint, dec_hook=read_hook, str_keys=True)
    except msgspec.ValidationError as error:
        if not lacks_integer(error):
            raise
    return msgspec.convert(whole_numbers(value), hint, dec_hook=read_hook, str_keys=True)


def lacks_integer(error: msgspec.ValidationError) -> bool:
    """Whether ``error`` is about a number with a point where an integer is due."""
    text = str(error)
    return "Expected `int" in text and "got `float`" in text


# ------------------------------------------------------------------------------------- errors


def field_problems(error: msgspec.ValidationError) -> list[tuple[str, str]]:
    """The path of each field that does not fit its type, and the reason."""
    text, cause = str(error), error.__cause__
    if isinstance(cause, FieldProblemsError):
        _, _, path = text.removeprefix(str(cause)).partition(" - at `$")
        outer = path[:-1].lstrip(".")
        return [(_joined(outer, inner), reason) for inner, reason in cause.problems]
    if cause is not None and cause.args:
        # attrs' validators put the attribute, the value and more into the exception: msgspec shows it all.
        text = text.replace(str(cause), str(cause.args[0]))
    problem, _, path = text.partition(" - at `$")
    for words in ("missing required", "unknown"):
        problem = problem.replace(f"Object contains {words}", words, 1).replace(f"Object {words}", words, 1)
    return [(path[:-1].lstrip("."), problem[:1].lower() + problem[1:])]


def _joined(outer: str, inner: str) -> str:
    return f"{outer}.{inner}" if outer and inner and not inner.startswith("[") else outer + inner


# -------------------------------------------------------------------------------- hints for msgspec


def spelled_out(hint: Any) -> Any:
    """``hint``, in words that msgspec has a schema for, with stand-ins for the types that it cannot read.

    ``object`` means any JSON value where it stands on its own, as in ``dict[str, object]``, a ``datetime`` shows the
    model its format, and the words of ``Annotated[int, "the count"]`` are a description.
    """
    hint = _in_words(hint)
    return _with_stand_ins(hint) if _has_foreign(hint, set()) else hint


def _in_words(hint: Any) -> Any:
    if hint is object:
        return Any
    if hint is datetime:
        return Annotated[hint, msgspec.Meta(extra_json_schema={"format": "date-time"})]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        words = words_in(arguments[1:])
        described = (msgspec.Meta(description=words),) if words else ()
        inner = arguments[0] if any(map(validates, arguments[1:])) else _in_words(arguments[0])
        return Annotated[(inner, *arguments[1:], *described)]
    if origin in (typing.Union, types.UnionType):
        return _union_of(map(_in_words, arguments))
    if arguments and getattr(origin, "__module__", "") in ("builtins", "collections.abc"):
        return origin[tuple(map(_in_words, arguments))]
    return hint


def _union_of(hints: Iterable[Any]) -> Any:
    return typing.Union[tuple(hints)]  # noqa: UP007


def words_in(metadata: Sequence[object]) -> str:
    """The description in the metadata of an `Annotated`: a text, a ``Doc`` of PEP 727, or a ``Field`` of pydantic.

    Empty if there is none.
    """
    if any(isinstance(item, msgspec.Meta) and item.description is not None for item in metadata):
        return ""
    for item in metadata:
        words = item if isinstance(item, str) else getattr(item, "documentation", None) or description_in(item)
        if isinstance(words, str) and words.strip():
            return plain_text(words)
    return ""


# ---------------------------------------------------------------------------------------- stand-ins


_PLAIN: frozenset[Any] = frozenset({bool, bytes, float, int, str, type(None)})


def _is_plain(hint: Any) -> bool:
    # A list is that of a callable's arguments. The metadata of an `Annotated` may have no hash.
    return hint is Any or isinstance(hint, list) or (isinstance(hint, type) and hint in _PLAIN)


def _has_foreign(hint: Any, seen: set[Any]) -> bool:
    """Whether ``hint``, or a field of a class in it, is of a type that msgspec cannot read."""
    if _is_plain(hint):
        return False
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return any(map(validates, arguments[1:])) or _has_foreign(arguments[0], seen)
    if origin in (typing.Union, types.UnionType) and _is_tried(arguments):
        return True
    if origin is not None:
        return origin is not Literal and any(_has_foreign(argument, seen) for argument in arguments)
    if (unnamed := _unnamed(hint)) is not None:
        # An alias may contain itself.
        if id(hint) in seen:
            return False
        seen.add(id(hint))
        return _has_foreign(unnamed, seen)
    if not isinstance(hint, type) or hint in seen:
        return False
    seen.add(hint)
    if is_pydantic_class(hint):
        return True
    return any(_has_foreign(field.hint, seen) for field in _fields(hint))


def _unnamed(hint: Any) -> Any:
    """The type that an alias or a ``NewType`` names; ``None`` for other hints."""
    if isinstance(hint, typing.NewType):
        return hint.__supertype__
    if type(hint).__name__ == "TypeAliasType":
        try:
            return hint.__value__
        except Exception:  # noqa: BLE001 - it runs an expression of the user's
            return None
    return None


def _is_tried(arguments: Sequence[Any]) -> bool:
    """Whether msgspec cannot tell the alternatives of a union apart, and one of them is a class or a container.

    Two kinds of plain text, say, nothing can tell apart.
    """
    if not any(map(_is_compound, arguments)):
        return False
    if any(is_pydantic_class(_bare(argument)) or isinstance(_bare(argument), StandIn) for argument in arguments):
        return len([argument for argument in arguments if argument is not type(None)]) > 1
    try:
        msgspec.inspect.type_info(_union_of(arguments))
    except TypeError as error:
        return "Type unions" in str(error)
    except Exception:  # noqa: BLE001 - an error about a field of a class: the check of the whole hint words it
        return False
    return False


def _is_compound(hint: Any) -> bool:
    bare = _bare(hint)
    origin = typing.get_origin(bare)
    if origin is not None:
        return origin is not Literal
    return isinstance(bare, type) and (bare in (list, dict, set, tuple, frozenset) or bool(_is_class(bare)))


def _is_class(cls: type) -> bool:
    return isinstance(cls, StandIn) or is_pydantic_class(cls) or _has_fields(cls)


def _bare(hint: Any) -> Any:
    """``hint`` without its metadata and its name."""
    while True:
        if typing.get_origin(hint) is Annotated:
            hint = typing.get_args(hint)[0]
        elif (unnamed := _unnamed(hint)) is not None:
            hint = unnamed
        else:
            return hint


def _with_stand_ins(hint: Any) -> Any:
    """``hint`` with a stand-in for each type that msgspec cannot read."""
    if not _has_foreign(hint, set()):
        return hint
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        metadata = arguments[1:]
        if not any(map(validates, metadata)):
            return Annotated[(_with_stand_ins(arguments[0]), *metadata)]
        described = [item for item in metadata if isinstance(item, msgspec.Meta)]
        stand_in = StandIn(cast("Kind", adapted(hint)))
        return Annotated[(stand_in, *described)] if described else stand_in
    if origin in (typing.Union, types.UnionType):
        members = [_with_stand_ins(argument) for argument in arguments]
        return StandIn(Union(members)) if _is_tried(members) else _union_of(members)
    if origin is not None:
        if getattr(origin, "__module__", "") in ("builtins", "collections.abc"):
            return origin[tuple(map(_with_stand_ins, arguments))]
        # With its text, since unions in another order are equal.
        return _generic_stand_in(hint, str(hint)) if _has_fields(origin) else hint
    if (unnamed := _unnamed(hint)) is not None:
        return _with_stand_ins(unnamed)
    return _stand_in(hint)


@functools.lru_cache(maxsize=1024)
def _stand_in(cls: type) -> StandIn:
    """The stand-in for a class: the same each time, since classes may refer to themselves."""
    return StandIn(cast("Kind", adapted(cls)) if is_pydantic_class(cls) else Mirror(cls))


@functools.lru_cache(maxsize=1024)
def _generic_stand_in(hint: Any, text: str) -> StandIn:
    """The stand-in for a generic class with its arguments."""
    return StandIn(Mirror(hint))


# ------------------------------------------------------------------------------------------- unions


class Union:
    """A union whose alternatives are tried until one fits.

    **The order.** Alternatives are tried in the order of the annotation. Where the value is an object, those that have
    a field for each of its members come first, in that order; then the others, which would drop a member. So of
    ``Circle | Labelled``, ``{"radius": 1, "label": "a"}`` is the one with a ``label``, wherever it stands.

    A value that fits several alternatives is ambiguous, and becomes the first of them. A field such as
    ``kind: Literal["circle"]`` in each class makes them unambiguous.
    """

    name = "output"

    def __init__(self, members: Sequence[Any]) -> None:
        self.members = tuple(members)

    def read(self, value: object) -> Any:
        """The value as the first alternative that fits.

        Raises:
          FieldProblemsError: none does. The reason has the problems of each.
        """
        problems: list[str] = []
        for member in self._ordered(value):
            try:
                return read_as(member, value)
            except msgspec.ValidationError as error:
                named = [f"`{path}`: {reason}" if path else reason for path, reason in field_problems(error)]
                problems.append(f"as {_shown(member)}, {', '.join(named)}")
        names = ", ".join(map(_shown, self.members))
        raise FieldProblemsError([("", f"expected one of {names}: {'; '.join(problems)}")])

    def _ordered(self, value: object) -> Iterator[Any]:
        if not is_object(value):
            yield from self.members
            return
        knowing = [names is None or value.keys() <= names for names in map(json_names, self.members)]
        for is_knowing in (True, False):
            yield from (member for member, knows in zip(self.members, knowing, strict=True) if knows is is_knowing)


def json_names(hint: Any) -> frozenset[str] | None:
    """The members that an object of the type ``hint`` has in JSON; ``None`` if it may have any."""
    bare = _bare(hint)
    if isinstance(bare, StandIn):
        kind = bare.kind
        if isinstance(kind, Mirror):
            return frozenset(field.key for field in kind.fields)
        if isinstance(kind, PydanticType):
            schema = kind.schema
            if reference := schema.get("$ref", ""):
                schema = schema["$defs"][reference.rpartition("/")[2]]
            if "properties" in schema and not schema.get("additionalProperties"):
                return frozenset(schema["properties"])
        return None
    fields = _fields(bare)
    return frozenset(field.key for field in fields) if fields else None


def _shown(hint: Any) -> str:
    bare = _bare(hint)
    if isinstance(bare, type):
        return "null" if bare is type(None) else f"`{bare.__name__}`"
    return f"`{str(bare).replace('typing.', '')}`"


# ---------------------------------------------------------------------------- classes with foreign fields


class _Field(NamedTuple):
    """A field of a class."""

    key: str
    """Its name in JSON."""
    argument: str
    """Its name in the constructor of the class."""
    hint: Any
    default: Any
    """Its default; ``msgspec.NODEFAULT`` if it is required, ``msgspec.UNSET`` if a factory makes the default."""


class Mirror:
    """A class of msgspec's kinds, read by a Struct with the same fields, whose types msgspec can read.

    The values go to the constructor of the class, so its validators run.
    """

    def __init__(self, hint: Any) -> None:
        cls = typing.get_origin(hint) or hint
        self.name = str(cls.__name__)
        self._cls = cls
        self.fields = _fields(hint)

    @functools.cached_property
    def struct(self) -> type[msgspec.Struct]:
        """The Struct. Made on first use, since the class may refer to itself."""
        names = [f"field_{number}" for number in range(len(self.fields))]
        fields: list[Any] = []
        for name, field in zip(names, self.fields, strict=True):
            is_required = field.default is msgspec.NODEFAULT
            default: Any = msgspec.NODEFAULT if is_required else msgspec.UNSET
            fields.append((name, spelled_out(field.hint), msgspec.field(name=field.key, default=default)))
        config: Any = getattr(self._cls, "__struct_config__", None)
        is_tuple = issubclass(self._cls, tuple)
        options: dict[str, Any] = {"kw_only": not is_tuple, "array_like": is_tuple}
        if config is not None:
            options = {
                "forbid_unknown_fields": config.forbid_unknown_fields,
                "kw_only": not config.array_like,
                "array_like": config.array_like,
                "tag": config.tag,
                "tag_field": config.tag_field,
            }
        # What msgspec takes for a docstring of one's own.
        return msgspec.defstruct(self.name, fields, namespace={"__doc__": _doc(self._cls)}, **options)

    def read(self, value: object) -> Any:
        """An instance of the class.

        Raises:
          FieldProblemsError: a field does not fit, or the constructor refuses the values.
        """
        if not _is_typed_dict(self._cls) and isinstance(value, self._cls):
            return value
        try:
            read = read_as(self.struct, value)
        except msgspec.ValidationError as error:
            raise FieldProblemsError(field_problems(error)) from error
        values = [getattr(read, name) for name in read.__struct_fields__]
        arguments = {
            field.argument: value
            for field, value in zip(self.fields, values, strict=True)
            if value is not msgspec.UNSET
        }
        try:
            return self._cls(**arguments)
        except (TypeError, ValueError) as error:
            # attrs' validators put the attribute, the value and more into the exception.
            raise FieldProblemsError([("", str(error.args[0]) if error.args else error_text(error))]) from error
        except Exception as error:
            raise FieldProblemsError([("", f"its constructor failed: {describe(error)}")]) from error


def _doc(cls: type) -> str | None:
    doc = cls.__doc__
    # A dataclass without a docstring has its signature.
    return None if doc is None or doc.startswith(f"{cls.__name__}(") else doc


def _has_fields(cls: Any) -> bool:
    return (
        hasattr(cls, "__attrs_attrs__")
        or is_dataclass(cls)
        or _is_typed_dict(cls)
        or (isinstance(cls, type) and issubclass(cls, msgspec.Struct))
        or _is_named_tuple(cls)
    )


def _is_named_tuple(cls: Any) -> bool:
    return hasattr(cls, "_field_defaults") and issubclass(cls, tuple)


def _is_typed_dict(cls: Any) -> bool:
    # That of `typing_extensions`, which pydantic asks for up to Python 3.11, is another class than Python's.
    return hasattr(cls, "__required_keys__") and issubclass(cls, dict)


def _fields(hint: Any) -> tuple[_Field, ...]:
    """The fields of a class of msgspec's kinds; none for other classes, and if an annotation cannot be evaluated."""
    cls: Any = typing.get_origin(hint) or hint
    if not _has_fields(cls):
        return ()
    try:
        hints = typing.get_type_hints(cls, include_extras=True)
        arguments = dict(zip(getattr(cls, "__parameters__", ()), typing.get_args(hint), strict=False))
        if arguments:
            hints = {name: _substituted(declared, arguments) for name, declared in hints.items()}
    except Exception:  # noqa: BLE001 - any expression may raise anything; msgspec words the error
        return ()
    if _is_named_tuple(cls):
        return tuple(
            _Field(name, name, hints.get(name, Any), cls._field_defaults.get(name, msgspec.NODEFAULT))
            for name in cls._fields
        )
    if _is_typed_dict(cls):
        return tuple(_typed_dict_fields(cls, hints))
    if hasattr(cls, "__attrs_attrs__"):
        return tuple(_attrs_fields(cls, hints))
    if is_dataclass(cls):
        return tuple(_dataclass_fields(cls, hints))
    return tuple(_struct_fields(cls, hints))


def _substituted(hint: Any, arguments: Mapping[Any, Any]) -> Any:
    """``hint`` with the arguments of a generic class in the place of its type variables."""
    if isinstance(hint, typing.TypeVar):
        return arguments.get(hint, Any)
    if parameters := getattr(hint, "__parameters__", ()):
        return hint[tuple(arguments.get(parameter, Any) for parameter in parameters)]
    return hint


def _typed_dict_fields(cls: Any, hints: Mapping[str, Any]) -> Iterator[_Field]:
    for name, qualified in hints.items():
        hint, is_required = qualified, name in cls.__required_keys__
        while (origin := typing.get_origin(hint)) in _QUALIFIERS:
            # The keys alone are not to be trusted: where annotations are text, Python does not see the qualifiers.
            is_required = is_required if (says := _QUALIFIERS[origin]) is None else says
            (hint,) = typing.get_args(hint)
        yield _Field(name, name, hint, msgspec.NODEFAULT if is_required else msgspec.UNSET)


_QUALIFIERS: dict[Any, bool | None] = {
    typing.Required: True,
    typing.NotRequired: False,
    # From 3.13 on.
    getattr(typing, "ReadOnly", typing.Required): None if hasattr(typing, "ReadOnly") else True,
}
"""Whether a field of a TypedDict with a qualifier is required; ``None`` if the qualifier does not say."""


_FACTORY: Any = attrs.Factory
"""The class of a default that a function makes. Its type says that it is a function."""


def _attrs_fields(cls: Any, hints: Mapping[str, Any]) -> Iterator[_Field]:
    for attribute in cls.__attrs_attrs__:
        if attribute.init:
            default = attribute.default
            if default is attrs.NOTHING:
                default = msgspec.NODEFAULT
            elif isinstance(default, _FACTORY):
                default = msgspec.UNSET
            yield _Field(attribute.name, attribute.alias, hints.get(attribute.name, Any), default)


def _dataclass_fields(cls: Any, hints: Mapping[str, Any]) -> Iterator[_Field]:
    dataclasses = import_module("dataclasses")
    for field in dataclasses.fields(cls):
        if field.init:
            default: Any = field.default
            if default is dataclasses.MISSING:
                made = field.default_factory is not dataclasses.MISSING
                default = msgspec.UNSET if made else msgspec.NODEFAULT
            yield _Field(field.name, field.name, hints.get(field.name, Any), default)


def _struct_fields(cls: Any, hints: Mapping[str, Any]) -> Iterator[_Field]:
    for field in msgspec.structs.fields(cls):
        default: Any = field.default
        if default is msgspec.NODEFAULT and not field.required:
            default = msgspec.UNSET
        yield _Field(field.encode_name, field.name, hints.get(field.name, Any), default)
