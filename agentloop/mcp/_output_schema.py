"""Check a tool's structured result against its ``outputSchema``, for a note to the model.

The SDK would refuse a result that does not fit, and the model would never learn that, say, the payment was made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any, cast

import msgspec

__all__ = ["misfit"]

MAX_STEPS = 20_000
"""Keywords to evaluate. A small schema of a hostile server can take for ever: its references double at each level."""

MAX_SCHEMA = 256 * 1024
"""Bytes of a schema. A larger one is not checked."""

MAX_SHOWN = 200
"""Characters of the reason."""


class _TooLongError(Exception):
    """The check took too many steps."""


def misfit(schema: Mapping[str, Any], structured: Any, *, is_missing: bool) -> str | None:
    """Why a result does not fit ``schema``.

    Args:
      schema: a tool's ``outputSchema``.
      structured: the ``structuredContent``.
      is_missing: whether the result has none.

    Returns:
      The reason; ``None`` if the result fits, or if that cannot be found out with a reasonable effort.
    """
    if is_missing:
        return "it has no structuredContent"
    try:
        encoded = msgspec.json.encode(schema)
        # A regular expression can take for ever as well: `pattern` is not evaluated, and whoever names fields by
        # patterns is believed.
        if len(encoded) > MAX_SCHEMA or b'"patternProperties"' in encoded:
            return None
        error = next(_errors(schema, structured), None)
    except Exception:  # noqa: BLE001 - a schema that cannot be used says nothing about the result
        return None
    if error is None:
        return None
    place = "/".join(str(step) for step in error.absolute_path)
    reason = str(error.message)
    if len(reason) > MAX_SHOWN:
        reason = reason[:MAX_SHOWN] + "..."
    return f"{place}: {reason}" if place else reason


def _errors(schema: Mapping[str, Any], structured: Any) -> Iterator[Any]:
    # Imported here: it takes a tenth of a second, and many servers have no such schemas.
    validators: Any = import_module("jsonschema.validators")
    registry: Any = import_module("referencing").Registry()
    steps = 0

    def counted(keyword: Any) -> Any:
        def evaluate(*args: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps > MAX_STEPS:
                raise _TooLongError
            return keyword(*args)

        return evaluate

    plain = validators.validator_for(dict(schema))
    keywords = {name: counted(keyword) for name, keyword in plain.VALIDATORS.items() if name not in _UNBOUNDED}
    ignored: dict[str, Callable[..., Any]] = dict.fromkeys(_UNBOUNDED, lambda *_: iter(()))
    checker = validators.extend(plain, {**keywords, **ignored})
    # An empty registry: references to other documents are not fetched.
    return cast("Iterator[Any]", checker(dict(schema), registry=registry).iter_errors(structured))


_UNBOUNDED = ("pattern", "uniqueItems")
"""Keywords whose evaluation can take much longer than their number of steps says."""
