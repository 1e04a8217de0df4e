"""Types as JSON Schema, and JSON as values of those types.

What a model must send to call a function (`signature_of`), what it must write as structured output
(`output_type`), and what a tool returned, as the model gets to read it (`to_text`).
"""

from __future__ import annotations

import functools
import inspect
import re
import types
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import datetime
from typing import Annotated, Any

import msgspec
import msgspec.inspect

from agentloop._core import docstrings
from agentloop.errors import ArgumentsError, ToolDefinitionError

__all__ = [
    "OutputFormatError",
    "OutputType",
    "Signature",
    "context_parameter",
    "inspect_type",
    "output_type",
    "schema_of",
    "signature_of",
    "to_text",
]

# What evaluating an annotation raises if something is wrong with it, in Python or in msgspec.
_UNRESOLVABLE = (AttributeError, NameError, NotImplementedError, SyntaxError, TypeError, ValueError)

# What msgspec raises for text that is not JSON.
_NOT_JSON = (msgspec.DecodeError, RecursionError, UnicodeError)

# What msgspec raises for a value that has no JSON form. ValueError: a lone surrogate.
_UNENCODABLE = (RecursionError, TypeError, ValueError)

# What needs no looking into.
_PLAIN = frozenset({bool, float, int, str})


class OutputFormatError(ValueError):
    """A model's structured output is not JSON, or does not fit its type. The message is for the model."""


# ------------------------------------------------------------------- arguments of a function


class Signature:
    """What a model must send to call a function. Made by `signature_of`."""

    # The schema and the decoder are made on first use: they cost more than the rest of declaring a tool.

    def __init__(self, parameters: Mapping[str, inspect.Parameter], doc: str | None) -> None:
        self._parameters = parameters
        self._doc = doc

    @property
    def schema(self) -> dict[str, Any]:
        """JSON Schema (2020-12) of the arguments: always an object, never a bare ``$ref``.

        A parameter is described by its ``Annotated[..., msgspec.Meta(description=...)]``, or else by the
        docstring. All who ask share this dict: do not change it.
        """
        return self._schema

    @functools.cached_property
    def _schema(self) -> dict[str, Any]:
        schema = _lifted(self._struct)
        descriptions = docstrings.parse(self._doc).parameters
        for name, parameter in self._parameters.items():
            extra = {"description": descriptions.get(name), "default": _shown(parameter.default)}
            known = {key: value for key, value in extra.items() if value is not None}
            schema["properties"][name] = known | schema["properties"][name]
        return schema

    def decode(self, raw: str | bytes, /) -> dict[str, Any]:
        """Read the arguments of one call.

        Args:
          raw: a JSON object; or only white space, which some models send where ``{}`` is meant.

        Returns:
          A keyword argument for each parameter, converted to its type; its default if it was left out.

        Raises:
          ArgumentsError: not JSON, not an object, or not what the schema asks for.
        """
        try:
            return self._keywords(self._decoder.decode(raw if raw.strip() else b"{}"))
        except msgspec.ValidationError as error:
            raise self._invalid(error) from error
        except _NOT_JSON as error:
            raise ArgumentsError(f"the arguments are not JSON: {_malformed(error, raw)}") from error

    def convert(self, values: Mapping[str, Any], /) -> dict[str, Any]:
        """Like `decode`, for arguments that are Python values: those of JSON, or of the parameters' types.

        Raises:
          ArgumentsError: not what the schema asks for.
        """
        try:
            return self._keywords(msgspec.convert(dict(values), self._struct))
        except msgspec.ValidationError as error:
            raise self._invalid(error) from error

    @functools.cached_property
    def _struct(self) -> type[msgspec.Struct]:
        fields: list[Any] = []
        for name, parameter in self._parameters.items():
            # Not the default itself, which msgspec would refuse if it is mutable, or copy.
            default = msgspec.NODEFAULT if parameter.default is parameter.empty else msgspec.UNSET
            fields.append((name, parameter.annotation, msgspec.field(default=default)))
        return msgspec.defstruct("Arguments", fields, kw_only=True, forbid_unknown_fields=True)

    @functools.cached_property
    def _decoder(self) -> msgspec.json.Decoder[msgspec.Struct]:
        return msgspec.json.Decoder(self._struct)

    def _keywords(self, arguments: msgspec.Struct) -> dict[str, Any]:
        return {
            name: parameter.default if (value := getattr(arguments, name)) is msgspec.UNSET else value
            for name, parameter in self._parameters.items()
        }

    def _invalid(self, error: msgspec.ValidationError) -> ArgumentsError:
        problem = _mismatch(error)
        if problem.startswith("unknown field"):
            known = ", ".join(f"`{name}`" for name in self._parameters)
            problem += f"; the fields are {known}" if known else "; there are no fields"
        return ArgumentsError(f"invalid arguments: {problem}")


def signature_of(
    function: Callable[..., Any],
    *,
    skip: Collection[str] = (),
    localns: Mapping[str, Any] | None = None,
) -> Signature:
    """What a model must send to call ``function``.

    Args:
      function: anything with a signature. What a `functools.partial` has bound is not the model's to choose.
      skip: parameters that the model does not see.
      localns: names for annotations written as text, besides those that ``function`` can see.

    Raises:
      ToolDefinitionError: a parameter has no annotation, cannot be passed by keyword, or is of a type that
        cannot be read from JSON.
    """
    name, names = _name_of(function), _names_seen_by(function, localns)
    parameters: dict[str, inspect.Parameter] = {}
    for parameter in _parameters_of(function):
        what = f"parameter `{parameter.name}` of `{name}`"
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise ToolDefinitionError(f"{what} is positional-only, but tools get keywords: remove the `/`")
        if parameter.name in skip:
            continue
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise ToolDefinitionError(f"{what} may be any number of arguments: name them, or take a list or dict")
        if parameter.annotation is parameter.empty:
            raise ToolDefinitionError(f"{what} has no annotation: the model has to know what to send")
        hint = _spelled_out(_resolved(parameter.annotation, names, what))
        if not (isinstance(hint, type) and hint in _PLAIN):
            inspect_type(hint, what)
        parameters[parameter.name] = parameter.replace(annotation=hint)
    return Signature(parameters, inspect.getdoc(_underlying(function)))


def context_parameter(
    function: Callable[..., Any],
    kinds: tuple[type, ...],
    *,
    localns: Mapping[str, Any] | None = None,
) -> str | None:
    """The name of the parameter that is annotated with one of ``kinds``, if there is one.

    A subclass of one counts, as do ``Context[Deps]``, ``Context | None`` and ``Annotated[Context, ...]``. An
    annotation that cannot be evaluated does not: it is for `signature_of` to say so.

    Raises:
      ToolDefinitionError: there are several.
    """
    names = _names_seen_by(function, localns)
    found: list[str] = []
    for parameter in _parameters_of(function):
        try:
            hint = _resolved(parameter.annotation, names, parameter.name)
        except ToolDefinitionError:
            continue
        if any(isinstance(each, type) and issubclass(each, kinds) for each in _alternatives(hint)):
            found.append(parameter.name)
    if len(found) > 1:
        several = ", ".join(f"`{name}`" for name in found)
        raise ToolDefinitionError(f"`{_name_of(function)}` takes more than one context: {several}")
    return next(iter(found), None)


def _alternatives(hint: Any) -> Iterator[Any]:
    """The classes that ``hint`` allows, without what they are generic in."""
    origin = typing.get_origin(hint)
    if origin in (Annotated, typing.Union, types.UnionType):
        for argument in typing.get_args(hint):
            yield from _alternatives(argument)
    else:
        yield origin or hint


def _parameters_of(function: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError) as error:
        raise ToolDefinitionError(
            f"`{_name_of(function)}` has no signature that Python can read: wrap it in an annotated function"
        ) from error
    bound = function.keywords if isinstance(function, functools.partial) else {}
    return [parameter for parameter in parameters if parameter.name not in bound]


def _name_of(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__name__", None) or _underlying(function).__qualname__)


def _underlying(function: Any) -> Any:
    """The function as it was written, below `functools.partial`, `functools.wraps` and methods."""
    while True:
        if isinstance(function, functools.partial):
            function = function.func
        elif inspect.ismethod(function):
            function = function.__func__
        elif hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        elif inspect.isroutine(function) or isinstance(function, type):
            return function
        else:
            function = type(function).__call__


def _resolved(annotation: Any, names: tuple[dict[str, Any], dict[str, Any]], what: str) -> Any:
    """The annotation, with whatever of it is text evaluated."""
    if isinstance(annotation, type):
        return annotation

    # For one annotation at a time: an unknown name in another, say the return type, does no harm.
    def bearer() -> None: ...

    bearer.__annotations__ = {"it": annotation}
    try:
        return typing.get_type_hints(bearer, *names, include_extras=True)["it"]
    except NameError as error:
        raise ToolDefinitionError(
            f"{what}: `{error.name}`, in its annotation {annotation!r}, cannot be found. Define or import it "
            "at the top of the module, outside of functions and of `if TYPE_CHECKING:`; for a type that has "
            "to be local, drop `from __future__ import annotations` and the quotes"
        ) from error
    except _UNRESOLVABLE as error:
        raise ToolDefinitionError(f"{what}: cannot evaluate its annotation {annotation!r}: {error}") from error


def _names_seen_by(
    function: Callable[..., Any], localns: Mapping[str, Any] | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The names that an annotation can use: global ones, and those of the functions around it."""
    written = _underlying(function)
    local = {parameter.__name__: parameter for parameter in getattr(written, "__type_params__", ())}
    if inspect.isfunction(written):
        for name, cell in zip(written.__code__.co_freevars, written.__closure__ or (), strict=True):
            try:
                local[name] = cell.cell_contents
            except ValueError:  # it gets its value only later
                continue
    return getattr(written, "__globals__", {}), {**local, **(localns or {})}


# ------------------------------------------------------------------------- structured output


class OutputType:
    """What a model must write as its structured output. Made by `output_type`."""

    def __init__(self, hint: Any) -> None:
        self._hint = hint

    @property
    def name(self) -> str:
        """A name for the schema, as providers want one: 1 to 64 letters, digits, ``_`` and ``-``."""
        name = self._hint.__name__ if isinstance(self._hint, type) else ""
        return re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_")[:64] or "output"

    @functools.cached_property
    def schema(self) -> dict[str, Any] | None:
        """JSON Schema (2020-12), always an object; or ``None``, if the output is plain text.

        A type that is not an object is wrapped as ``{"value": ...}``. All who ask share this dict.
        """
        return None if self._hint is str else schema_of(self._hint)

    def decode(self, text: str, /) -> Any:
        """Read what the model wrote.

        Args:
          text: JSON, alone, in a fence of backticks, or in the midst of prose that holds no other JSON
            object or array. A value that `schema` wraps may also come bare.

        Returns:
          A value of the type; ``text`` itself, if that is ``str``.

        Raises:
          OutputFormatError: there is no JSON, more than one value, or one that does not fit.
        """
        if self._hint is str:
            return text
        raw = _only_json(text)
        problems: list[msgspec.ValidationError] = []
        for read in self._readers:
            try:
                return read(raw)
            except msgspec.ValidationError as error:
                problems.append(error)
        # The first is about the form that the model was asked for.
        raise OutputFormatError(f"the output does not fit: {_mismatch(problems[0])}") from problems[0]

    @functools.cached_property
    def _readers(self) -> tuple[Callable[[str], Any], ...]:
        bare = msgspec.json.Decoder(self._hint)
        if _is_object(_lifted(self._hint)):
            return (bare.decode,)
        wrapped: msgspec.json.Decoder[Any] = msgspec.json.Decoder(_wrapped(self._hint))
        return (lambda raw: wrapped.decode(raw).value, bare.decode)


def output_type(type_: Any, /) -> OutputType:
    """What a model must write to give an instance of ``type_``; with ``str``, any text.

    Raises:
      ToolDefinitionError: the type cannot be read from JSON.
    """
    hint = _spelled_out(type_)
    inspect_type(hint, "the output type")
    return OutputType(hint)


def schema_of(type_: Any, /) -> dict[str, Any]:
    """JSON Schema (2020-12) of ``type_``, always an object: anything else is wrapped as ``{"value": ...}``.

    Raises:
      ToolDefinitionError: the type cannot be read from JSON.
    """
    hint = _spelled_out(type_)
    inspect_type(hint, "the schema")
    schema = _lifted(hint)
    return schema if _is_object(schema) else _lifted(_wrapped(hint))


def _is_object(schema: Mapping[str, Any]) -> bool:
    return schema.get("type") == "object"


def _wrapped(hint: Any) -> type[msgspec.Struct]:
    return msgspec.defstruct("Output", [("value", hint)], forbid_unknown_fields=True)


def _only_json(text: str) -> str:
    """The one JSON value in ``text``: all of it, or what is fenced in it, or an object or array in it."""
    closest = text
    for candidates in ([text], _fenced(text), [*_bracketed(text)]):
        values = [candidate for candidate in candidates if _flaw(candidate) is None]
        if len(values) == 1:
            return values[0]
        if values:
            raise OutputFormatError(f"the output holds {len(values)} JSON values: give only the answer")
        closest = next(iter(candidates), closest)
    raise OutputFormatError(f"the output is not JSON: {_flaw(closest)}")


def _fenced(text: str) -> list[str]:
    return re.findall(r"```[^\n`]*\n(.*?)```", text, re.DOTALL)


def _bracketed(text: str) -> Iterator[str]:
    """Each stretch from an opening bracket to the one that closes it, or to the end; none inside another."""
    position = 0
    while opening := re.compile(r"[\[{]").search(text, position):
        position = _end_of_brackets(text, opening.start())
        yield text[opening.start() : position]


def _end_of_brackets(text: str, start: int) -> int:
    # A string that is never closed counts as one, too: tried again from each quote in it, it would take
    # quadratic time.
    tokens = re.compile(r'"(?:[^"\\]|\\.?)*"?|[\[\]{}]', re.DOTALL)
    depth = 0
    for token in tokens.finditer(text, start):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(token[0], 0)
        if depth == 0:
            return token.end()
    return len(text)


def _flaw(text: str) -> str | None:
    """What keeps ``text`` from being one JSON value, if anything."""
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
    except _NOT_JSON as error:
        return _malformed(error, text)
    return None


# ----------------------------------------------------------------------- what a tool returned


def to_text(value: object, /) -> str:
    """What a tool returned, as the model gets to read it.

    Text stays as it is, ``None`` is empty, and everything else that has a JSON form is compact JSON: attrs
    classes, dataclasses, Structs, dicts, lists, enums, dates.

    Raises:
      TypeError: bytes, or an object without a JSON form. The message names its type.
    """
    kind = type(value).__qualname__
    if value is None:
        return ""
    if isinstance(value, str):
        # Lone surrogates, as `os.listdir` makes them of odd file names, cannot be sent to anyone.
        return str.__str__(value) if value.isascii() else value.encode(errors="replace").decode()
    if isinstance(value, (bytes, bytearray, memoryview)):
        raise TypeError(f"a tool returned `{kind}`, which is not text: decode it first")
    try:
        return msgspec.json.encode(value).decode()
    except _UNENCODABLE as error:
        raise TypeError(f"a tool returned `{kind}` without a JSON form: {error}") from error


# ------------------------------------------------------------------------------ shared by all


def inspect_type(hint: Any, what: str) -> msgspec.inspect.Type:
    """What msgspec knows of a type.

    Args:
      what: the subject of the error message.

    Raises:
      ToolDefinitionError: the type, or one inside it, cannot be read from JSON.
    """
    try:
        info = msgspec.inspect.type_info(hint)
    except _UNRESOLVABLE as error:
        advice = "; what its fields name must be at the top of a module" if isinstance(error, NameError) else ""
        raise ToolDefinitionError(f"{what} is of a type that cannot be read from JSON: {error}{advice}") from error
    for part in _parts(info):
        if isinstance(part, msgspec.inspect.CustomType):
            raise ToolDefinitionError(f"{what} cannot be read from JSON: {_advice(part.cls)}")
    return info


def _advice(stranger: type) -> str:
    name = f"`{stranger.__qualname__}`"
    if hasattr(stranger, "model_json_schema"):
        return f"{name} is a pydantic model. Use an attrs class, a dataclass, a TypedDict or a msgspec.Struct"
    if stranger is object:
        return f"{name} says nothing about it. Use `typing.Any` for any JSON value"
    return f"{name} has no JSON form. Use a plain type, a list or dict of them, an attrs class or a dataclass"


def _parts(info: msgspec.inspect.Type) -> Iterator[object]:
    """``info`` and all that it is made of; each once, since types may be recursive."""
    seen: set[int] = set()
    waiting: list[Any] = [info]
    while waiting:
        part = waiting.pop()
        if isinstance(part, (msgspec.inspect.Type, msgspec.inspect.Field)) and id(part) not in seen:
            seen.add(id(part))
            yield part
            waiting += [getattr(part, name) for name in part.__struct_fields__]
        elif isinstance(part, tuple):
            waiting += part


def _spelled_out(hint: Any) -> Any:
    """``hint``, in words that msgspec has a schema for.

    ``object`` means any JSON value where it stands on its own, as in ``dict[str, object]``, and a
    ``datetime`` tells the model its format.
    """
    if hint is object:
        return Any
    if hint is datetime:
        return Annotated[hint, msgspec.Meta(extra_json_schema={"format": "date-time"})]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return Annotated[(_spelled_out(arguments[0]), *arguments[1:])]
    if origin in (typing.Union, types.UnionType):
        return typing.Union[tuple(_spelled_out(argument) for argument in arguments)]  # noqa: UP007
    if arguments and getattr(origin, "__module__", "") in ("builtins", "collections.abc"):
        return origin[tuple(_spelled_out(argument) for argument in arguments)]
    return hint


def _lifted(type_: Any) -> dict[str, Any]:
    """The schema of ``type_`` with its own definition on top, and below ``$defs`` those it refers to."""
    (top,), definitions = msgspec.json.schema_components([type_], ref_template="#/$defs/{name}")
    for definition in definitions.values():
        definition.pop("title", None)  # the class's name, which is that of the definition
        if not definition.get("required", True):
            del definition["required"]
    if reference := top.pop("$ref", None):
        name = reference.removeprefix("#/$defs/")
        top = definitions[name] | top
        if f'"{reference}"'.encode() not in msgspec.json.encode([top, definitions]):
            del definitions[name]
    schema = top | {"$defs": definitions} if definitions else top
    _complete(schema)
    return schema


def _complete(node: Any) -> None:
    """Add what goes without saying, but not with every provider: the type of choices, the items of a list."""
    match node:
        case {"enum": [*choices]} if all(isinstance(choice, str) for choice in choices):
            node.setdefault("type", "string")
        case {"type": "array"} if "items" not in node and "prefixItems" not in node:
            node["items"] = {}
        case {**members}:
            for key in members.keys() - {"default", "examples"}:
                _complete(members[key])
        case [*items]:
            for item in items:
                _complete(item)
        case _:
            pass


def _shown(default: Any) -> Any:
    """A default as the schema shows it; ``None`` if there is nothing to show."""
    if default is None or default is inspect.Parameter.empty:
        return None
    try:
        return msgspec.json.decode(msgspec.json.encode(default))
    except _UNENCODABLE:
        return None


def _mismatch(error: msgspec.ValidationError) -> str:
    """Where a value does not fit its type, and why: "`to.zip`: expected `str`, got `int`"."""
    text = str(error)
    if error.__cause__ is not None and error.__cause__.args:
        # attrs' validators put the attribute, the value and more into the exception: msgspec shows it all.
        text = text.replace(str(error.__cause__), str(error.__cause__.args[0]))
    what, _, path = text.partition(" - at `$")
    what = re.sub(r"^Object (contains )?(missing required|unknown)", r"\2", what)
    place = path[:-1].lstrip(".")
    return (f"`{place}`: " if place else "") + what[:1].lower() + what[1:]


def _malformed(error: Exception, raw: str | bytes) -> str:
    """What is wrong with ``raw``, and where."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    text = str(error).removeprefix("JSON is malformed: ")
    data = raw.encode(errors="replace") if isinstance(raw, str) else raw
    position = re.search(r" \(byte (\d+)\)$", text)
    at = int(position[1]) if position else len(data)
    return f"{text}, near `{data[max(at - 30, 0) : at + 10].decode(errors='replace')}`"
