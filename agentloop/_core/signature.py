"""The signature of a function as JSON Schema, with the words of its docstring; and JSON as its arguments."""

from __future__ import annotations

import functools
import inspect
import re
import sys
import types
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Annotated, Any

import msgspec

from agentloop._core.json_text import JsonDecoder
from agentloop._core.json_types import (
    NOT_JSON,
    PLAIN,
    decode_leniently,
    inspect_type,
    lifted,
    malformed,
    mismatch,
    shown_default,
)
from agentloop._core.pydantic_types import field_default, is_field
from agentloop._core.type_hints import read_as, read_hook, spelled_out
from agentloop.errors import ArgumentsError, ToolDefinitionError

if sys.version_info >= (3, 14):
    from annotationlib import Format

__all__ = [
    "ANNOTATIONS_RUN_LATE",
    "Doc",
    "Signature",
    "annotation_text",
    "context_parameter",
    "field_types",
    "parameters_of",
    "parse_docstring",
    "scope_of",
    "signature_of",
    "underlying",
]

CONTEXTS = ("context", "ctx")
"""The usual names of the parameter for a call's context, which is known by its annotation."""

_Names = tuple[dict[str, Any], dict[str, Any]]
"""The global and the local names that an annotation can use."""


class Signature:
    """The arguments that a model must send to call a function. Made by `signature_of`."""

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
        schema = lifted(self._struct)
        descriptions = parse_docstring(self._doc).parameters
        for name, parameter in self._parameters.items():
            extra = {"description": descriptions.get(name), "default": shown_default(parameter.default)}
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
            return self._keywords(decode_leniently(self._decoder, raw if raw.strip() else b"{}"))
        except msgspec.ValidationError as error:
            raise self._invalid(error) from error
        except NOT_JSON as error:
            raise ArgumentsError(f"the arguments are not JSON: {malformed(error, raw)}") from error

    def convert(self, values: Mapping[str, Any], /) -> dict[str, Any]:
        """Like `decode`, for arguments that are Python values: those of JSON, or of the parameters' types.

        Raises:
          ArgumentsError: not what the schema asks for.
        """
        try:
            return self._keywords(read_as(self._struct, dict(values)))
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
    def _decoder(self) -> JsonDecoder[msgspec.Struct]:
        return JsonDecoder(self._struct, dec_hook=read_hook)

    def _keywords(self, arguments: msgspec.Struct) -> dict[str, Any]:
        return {
            name: parameter.default if (value := getattr(arguments, name)) is msgspec.UNSET else value
            for name, parameter in self._parameters.items()
        }

    def _invalid(self, error: msgspec.ValidationError) -> ArgumentsError:
        problem = mismatch(error, self._schema)
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
    """The arguments that a model must send to call ``function``.

    Args:
      function: anything with a signature. Arguments that a `functools.partial` has bound are not the model's to choose.
      skip: parameters that the model does not see.
      localns: names for annotations written as text, besides those that ``function`` can see.

    Raises:
      ToolDefinitionError: a parameter has no annotation, cannot be passed by keyword, or is of a type that
        cannot be read from JSON.
    """
    name, names = _name_of(function), _names_seen_by(function, localns)
    parameters: dict[str, inspect.Parameter] = {}
    for parameter in _parameters_of(function):
        subject = f"parameter `{parameter.name}` of `{name}`"
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise ToolDefinitionError(f"{subject} is positional-only, but tools get keywords: remove the `/`")
        if parameter.name in skip:
            continue
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise ToolDefinitionError(f"{subject} may be any number of arguments: name them, or take a list or dict")
        if parameter.annotation is parameter.empty:
            if parameter.name in ("self", "cls") and not parameters:
                raise ToolDefinitionError(
                    f"`{name}` is a method without its object: make a tool of the bound one, tool(thing.{name})"
                )
            hint = f"; or `{parameter.name}: ToolContext`, for that of the call" if parameter.name in CONTEXTS else ""
            raise ToolDefinitionError(f"{subject} has no annotation: the model has to know what to send{hint}")
        resolved = _resolved(function, parameter, names)
        if is_field(parameter.default):
            # `count: int = Field(3, ge=1)`
            resolved = Annotated[resolved, parameter.default]
        hint = spelled_out(resolved)
        if not (isinstance(hint, type) and hint in PLAIN):
            inspect_type(hint, subject)
        default = parameter.default
        if is_field(default):
            default = field_default(default, parameter.empty)
        parameters[parameter.name] = parameter.replace(annotation=hint, default=default)
    return Signature(parameters, inspect.getdoc(underlying(function)))


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
    contexts: list[str] = []
    for parameter in _parameters_of(function):
        try:
            hint = _resolved(function, parameter, names)
        except ToolDefinitionError:
            continue
        if any(isinstance(each, type) and issubclass(each, kinds) for each in _alternatives(hint)):
            contexts.append(parameter.name)
    if len(contexts) > 1:
        several = ", ".join(f"`{name}`" for name in contexts)
        raise ToolDefinitionError(f"`{_name_of(function)}` takes more than one context: {several}")
    return next(iter(contexts), None)


def _alternatives(hint: Any) -> Iterator[Any]:
    """The classes that ``hint`` allows, without their type arguments."""
    origin = typing.get_origin(hint)
    if origin in (Annotated, typing.Union, types.UnionType):
        for argument in typing.get_args(hint):
            yield from _alternatives(argument)
    else:
        yield origin or hint


def _parameters_of(function: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        parameters = parameters_of(function).values()
    except (TypeError, ValueError) as error:
        raise ToolDefinitionError(
            f"`{_name_of(function)}` has no signature that Python can read ({error}): wrap it in an annotated function"
        ) from error
    bound = function.keywords if isinstance(function, functools.partial) else {}
    return [parameter for parameter in parameters if parameter.name not in bound]


def _name_of(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__name__", None) or underlying(function).__qualname__)


def _resolved(function: Callable[..., Any], parameter: inspect.Parameter, names: _Names) -> Any:
    """The type that ``parameter`` is annotated with, after text and names that were missing are evaluated."""
    annotation = parameter.annotation
    if isinstance(annotation, type):
        return annotation

    # For one annotation at a time: a name that is missing in another one does no harm.
    def bearer() -> None: ...

    bearer.__annotations__ = {"it": annotation}
    try:
        return typing.get_type_hints(bearer, *names, include_extras=True)["it"]
    except Exception as error:
        # An annotation may be any expression, and raise anything.
        subject = f"parameter `{parameter.name}` of `{_name_of(function)}`"
        text = annotation_text(function, parameter)
        if isinstance(error, NameError):
            problem = f"{subject}: `{error.name}`, in its annotation {text!r}, cannot be found. {_way_out(annotation)}"
        else:
            problem = f"{subject}: cannot evaluate its annotation {text!r}: {error}"
        raise ToolDefinitionError(problem) from error


def _way_out(annotation: Any) -> str:
    if ANNOTATIONS_RUN_LATE and not isinstance(annotation, str):
        return (
            "Define or import it before the function is made a tool, and outside of `if TYPE_CHECKING:`; for a type "
            "that has to be local, drop the quotes"
        )
    return (
        "Define or import it at the top of the module, outside of functions and of `if TYPE_CHECKING:`; for a "
        "type that has to be local, drop `from __future__ import annotations` and the quotes"
    )


def _names_seen_by(function: Callable[..., Any], localns: Mapping[str, Any] | None) -> _Names:
    globals_, locals_ = scope_of(function)
    return globals_, {**locals_, **(localns or {})}


# ------------------------------------------- parameters and annotations of user code
#
# From Python 3.14 on, an annotation is an expression that runs when its value is read, and reading one value runs all
# annotations of the function. A return type that only the type checker knows must not break a tool, so every signature
# of user code is read here, and here only.


ANNOTATIONS_RUN_LATE = sys.version_info >= (3, 14)
"""Whether an annotation that is not text is evaluated only on access."""


def parameters_of(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """Read the parameters of ``function``. Its return type is not evaluated.

    An annotation that cannot be evaluated yet is left as it is: as text, or as a `typing.ForwardRef`.

    Raises:
      TypeError, ValueError: ``function`` has no signature that Python can read, or an annotation of it raises.
    """
    if sys.version_info >= (3, 14):
        try:
            parameters = inspect.signature(function, annotation_format=Format.FORWARDREF).parameters
        except (TypeError, ValueError):
            raise
        except Exception as error:
            # A name that is missing does not raise, but an annotation may be any expression.
            raise ValueError(f"an annotation raises {type(error).__name__}: {error}") from error
        return {name: _outside_of_class(function, parameter) for name, parameter in parameters.items()}
    return inspect.signature(function).parameters


def _outside_of_class(function: Callable[..., Any], parameter: inspect.Parameter) -> inspect.Parameter:
    """``parameter``, with its annotation as text if the annotation found a method where a type is meant."""
    # Late in the body of a class, `list` is its method `list`, also one that is defined further down. The text is
    # then evaluated outside of the class, as with `from __future__ import annotations`.
    value = parameter.annotation
    if inspect.isroutine(value) or isinstance(value, (property, functools.cached_property)):
        return parameter.replace(annotation=annotation_text(function, parameter))
    return parameter


def annotation_text(function: Callable[..., Any], parameter: inspect.Parameter) -> str:
    """The annotation of ``parameter`` as the source has it, for an error message."""
    if isinstance(parameter.annotation, str):
        return parameter.annotation
    if sys.version_info >= (3, 14):
        try:
            text = inspect.signature(function, annotation_format=Format.STRING).parameters[parameter.name].annotation
        except Exception:  # noqa: BLE001 - any expression may raise anything, and this is for a message
            text = None
        if isinstance(text, str):
            return text
    if isinstance(parameter.annotation, typing.ForwardRef):
        return parameter.annotation.__forward_arg__
    return inspect.formatannotation(parameter.annotation)


def scope_of(function: Callable[..., Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The names that an annotation of ``function`` can use: global ones, and those of the functions around it."""
    written = underlying(function)
    local = {parameter.__name__: parameter for parameter in getattr(written, "__type_params__", ())}
    if inspect.isfunction(written):
        # From 3.14 on, names that only annotations use are stored with the function that runs them.
        for holder in (getattr(written, "__annotate__", None), written):
            if inspect.isfunction(holder):
                local |= _closure_of(holder)
    return getattr(written, "__globals__", {}), local


def _closure_of(function: Any) -> dict[str, Any]:
    cells: dict[str, Any] = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            cells[name] = cell.cell_contents
        except ValueError:  # it gets its value only later
            continue
    cells.pop("__classdict__", None)
    return cells


def underlying(function: Any) -> Any:
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


def field_types(cls: Any) -> dict[str, Any]:
    """The types of the fields of ``cls``, as far as they can be evaluated."""
    options: dict[str, Any] = {}
    if sys.version_info >= (3, 14):
        options["format"] = Format.FORWARDREF
    try:
        return typing.get_type_hints(typing.get_origin(cls) or cls, **options)
    except Exception:  # noqa: BLE001 - any expression may raise anything
        return {}


# ------------------------------------------------------------------ docstrings


# Three styles are read: Google (``Args:``), NumPy (``Parameters``, underlined) and Sphinx (``:param x:``).

_PARAMETERS = frozenset(
    ["args", "arguments", "keyword args", "keyword arguments", "other parameters", "parameters", "params"]
)
# No admonitions ("Note:", "Warning:"): they address the function's caller.
_OTHER_TITLES = frozenset(["attributes", "example", "examples", "raises", "return", "returns", "see also", "yields"])

# Not compiled here: `re` does it once, on first use, and a program without docstrings to read imports faster.
_FIELD = r":(\w+)(?:\s+([^:`]*))?:(?:\s+(.*))?"
_GOOGLE_ENTRY = r"\*{0,2}(\w+)\s*(?:\(.*?\))?\s*:(?:\s+(.*))?"
_NUMPY_ENTRY = r"(\*{0,2}\w+(?:\s*,\s*\*{0,2}\w+)*)\s*(?::.*)?()"


class Doc(msgspec.Struct, frozen=True):
    """A docstring, read."""

    summary: str
    """Everything before the first section, dedented. Empty without a docstring."""

    parameters: dict[str, str]
    """Name to description, in the order of the docstring. A description is one line."""


def parse_docstring(doc: str | None) -> Doc:
    """Read ``doc``, whichever of the three styles it is written in.

    Never raises: text that is not understood counts as summary before the first section, and is left out after it.
    """
    lines = inspect.cleandoc(doc or "").splitlines()
    starts = [index for index in range(len(lines)) if _starts_section(lines[index:])]
    ends = [*starts, len(lines)]
    parameters: dict[str, str] = {}
    for start, end in zip(starts, ends[1:], strict=True):
        parameters.update(_descriptions(lines[start:end]))
    return Doc("\n".join(lines[: ends[0]]).strip(), parameters)


def _starts_section(lines: list[str]) -> bool:
    return _field(lines[0]) is not None or _is_underlined(lines) or _is_google_header(lines)


def _field(line: str) -> re.Match[str] | None:
    return re.fullmatch(_FIELD, line) if line.startswith(":") else None


def _is_underlined(lines: list[str]) -> bool:
    rule = "".join(lines[1:2]).rstrip()
    return len(rule) >= 3 and rule in ("-" * len(rule), "=" * len(rule)) and _is_title(lines[0])


def _is_google_header(lines: list[str]) -> bool:
    """A title with a colon, and indented text below: "Examples:" at the end of a paragraph is only text."""
    below = next((line for line in lines[1:] if line), "")
    return lines[0].rstrip().endswith(":") and _is_title(lines[0]) and below.startswith(" ")


def _is_title(line: str) -> bool:
    return _title(line) in _PARAMETERS or _title(line) in _OTHER_TITLES


def _title(line: str) -> str:
    return line.rstrip().removesuffix(":").lower()


def _descriptions(section: list[str]) -> dict[str, str]:
    """The parameters that a section describes; none, if it describes something else."""
    if field := _field(section[0]):
        return _field_description(field, section[1:])
    if _title(section[0]) not in _PARAMETERS:
        return {}
    if _is_underlined(section):
        return _entries(section[2:], _NUMPY_ENTRY)
    return _entries(inspect.cleandoc("\n".join(["", *_indented(section[1:])])).splitlines(), _GOOGLE_ENTRY)


def _field_description(field: re.Match[str], below: list[str]) -> dict[str, str]:
    kind, argument, first = field.groups("")
    words = argument.split()  # the name, with or without a type before it
    if kind not in ("param", "parameter", "arg", "argument", "key", "keyword") or not words:
        return {}
    return {words[-1].lstrip("\\*"): _joined([first, *_indented(below)])}


def _entries(lines: list[str], entry: str) -> dict[str, str]:
    """Read entries that begin in the first column; indented lines below one describe it."""
    descriptions: dict[str, str] = {}
    names: list[str] = []
    for line in lines:
        if match := re.fullmatch(entry, line):
            names = [name.strip().lstrip("*") for name in match[1].split(",")]
            descriptions.update(dict.fromkeys(names, match[2] or ""))
        else:
            descriptions.update({name: _joined([descriptions[name], line]) for name in names})
    return descriptions


def _indented(lines: list[str]) -> Iterator[str]:
    """Lines up to the first that is neither empty nor indented."""
    for line in lines:
        if line and not line.startswith(" "):
            return
        yield line


def _joined(lines: list[str]) -> str:
    return " ".join(" ".join(lines).split())
