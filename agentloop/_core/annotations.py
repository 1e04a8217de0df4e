"""Read the parameters and annotations of user code, where annotations may run late.

From Python 3.14 on, an annotation is an expression that runs when somebody asks for its value, and asking for one value
runs all annotations of the function. A return type that only the type checker knows must not break a tool, so every
signature of user code is read here, and here only.
"""

from __future__ import annotations

import functools
import inspect
import sys
import typing
from collections.abc import Callable, Mapping
from typing import Any

if sys.version_info >= (3, 14):
    from annotationlib import Format

__all__ = ["ANNOTATIONS_RUN_LATE", "annotation_text", "field_types", "parameters_of", "scope_of", "underlying"]

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
    found: dict[str, Any] = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # it gets its value only later
            continue
    found.pop("__classdict__", None)
    return found


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
