"""The signature of a function as JSON Schema, and JSON as its arguments."""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Annotated, Any

import msgspec

from agentloop._core import docstrings
from agentloop._core.annotations import ANNOTATIONS_RUN_LATE, annotation_text, parameters_of, scope_of, underlying
from agentloop._core.json_text import JsonDecoder
from agentloop._core.json_types import (
    NOT_JSON,
    PLAIN,
    inspect_type,
    lifted,
    malformed,
    mismatch,
    shown_default,
    spelled_out,
)
from agentloop.errors import ArgumentsError, ToolDefinitionError

__all__ = ["Signature", "context_parameter", "signature_of"]

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
        descriptions = docstrings.parse(self._doc).parameters
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
            return self._keywords(self._decoder.decode(raw if raw.strip() else b"{}"))
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
    def _decoder(self) -> JsonDecoder[msgspec.Struct]:
        return JsonDecoder(self._struct)

    def _keywords(self, arguments: msgspec.Struct) -> dict[str, Any]:
        return {
            name: parameter.default if (value := getattr(arguments, name)) is msgspec.UNSET else value
            for name, parameter in self._parameters.items()
        }

    def _invalid(self, error: msgspec.ValidationError) -> ArgumentsError:
        problem = mismatch(error)
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
        hint = spelled_out(_resolved(function, parameter, names))
        if not (isinstance(hint, type) and hint in PLAIN):
            inspect_type(hint, what)
        parameters[parameter.name] = parameter.replace(annotation=hint)
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
    found: list[str] = []
    for parameter in _parameters_of(function):
        try:
            hint = _resolved(function, parameter, names)
        except ToolDefinitionError:
            continue
        if any(isinstance(each, type) and issubclass(each, kinds) for each in _alternatives(hint)):
            found.append(parameter.name)
    if len(found) > 1:
        several = ", ".join(f"`{name}`" for name in found)
        raise ToolDefinitionError(f"`{_name_of(function)}` takes more than one context: {several}")
    return next(iter(found), None)


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
        what = f"parameter `{parameter.name}` of `{_name_of(function)}`"
        text = annotation_text(function, parameter)
        if isinstance(error, NameError):
            problem = f"{what}: `{error.name}`, in its annotation {text!r}, cannot be found. {_way_out(annotation)}"
        else:
            problem = f"{what}: cannot evaluate its annotation {text!r}: {error}"
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
