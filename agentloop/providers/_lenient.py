"""Decode an event of a server, and leave out the fields whose values have another type than the format says.

Servers that imitate a format send numbers as text, ids as numbers and lists for objects, and newer versions send events
that have a known field of another type. Most fields do not matter enough to lose a response. Those that do are *vital*
to their object: a text of another type is a part of the answer that would be missing.
"""

from __future__ import annotations

import json
from collections.abc import Container
from typing import Any, TypeVar, cast, get_args, get_origin

import msgspec

from agentloop._core.json_text import MAX_DEPTH, JsonDecoder, NestingError, nesting_depth
from agentloop.errors import ModelProtocolError

__all__ = ["WireStruct", "count", "decode_event", "fit"]


class WireStruct(msgspec.Struct):
    """An object of a wire format."""

    @classmethod
    def known(cls, fields: dict[str, Any]) -> dict[str, Any]:
        """Those of ``fields`` that have a meaning in the format; the fields of an unknown kind of object have none."""
        return fields

    @classmethod
    def vital(cls, fields: dict[str, Any]) -> Container[str]:
        """The fields whose values must have the right type, of an object with these ``fields``."""
        return ()


T = TypeVar("T", bound=WireStruct)


class _VitalFieldError(ValueError):
    """An event, or a vital field of it, has a value of another type."""


def decode_event(decoder: JsonDecoder[T], kind: type[T], data: bytes | msgspec.Raw, *, model: str) -> T:
    """``data`` as an object of ``kind``.

    Args:
      decoder: decodes ``kind``. Nearly all events pass it.
      kind: the type of the object.
      data: the JSON text of the event.
      model: the model's name, for errors.

    Raises:
      ModelProtocolError: ``data`` is no JSON object, or a vital field has a value of another type.
    """
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        try:
            return fit(_plain_object(bytes(data)), kind)
        except ValueError:
            raise ModelProtocolError(f"model {model!r} sent {bytes(data)[:200]!r}: {error}") from error


def _plain_object(data: bytes) -> dict[str, Any]:
    """``data`` as a dict.

    Unlike msgspec's decoder, the one of Python accepts half of a surrogate pair, NaN, and raw control characters.

    Raises:
      ValueError: it is no JSON object, or nests too deeply.
    """
    if nesting_depth(data) > MAX_DEPTH:
        raise NestingError(MAX_DEPTH)
    value = json.loads(data, strict=False)
    if not isinstance(value, dict):
        raise _VitalFieldError("it is no object")
    return cast("dict[str, Any]", value)


def fit(fields: dict[str, Any], kind: type[T]) -> T:
    """An object of ``kind``, without those of ``fields`` whose values do not fit.

    Raises:
      ValueError: a vital field does not fit.
    """
    fields = kind.known(fields)
    vital = kind.vital(fields)
    fitting: dict[str, Any] = {}
    for field in msgspec.structs.fields(kind):
        if field.encode_name not in fields:
            continue
        try:
            fitting[field.name] = _converted(fields[field.encode_name], field.type)
        except msgspec.ValidationError as error:
            if field.encode_name in vital:
                raise _VitalFieldError(str(error)) from error
    return kind(**fitting)


def _converted(value: Any, hint: Any) -> Any:
    """``value`` as ``hint``. Raises `msgspec.ValidationError` if it does not fit, even without some of its fields."""
    if hint is msgspec.Raw:
        return msgspec.Raw(json.dumps(value).encode())
    try:
        # Not strict: "12" and 12.0 are the number 12.
        return msgspec.convert(value, hint, strict=False)
    except msgspec.ValidationError:
        for option in get_args(hint):
            if isinstance(value, dict) and isinstance(option, type) and issubclass(option, WireStruct):
                return fit(cast("dict[str, Any]", value), option)
            if isinstance(value, list) and get_origin(option) is list:
                (item_hint,) = get_args(option)
                items = cast("list[Any]", value)  # type: ignore[redundant-cast]
                return [_converted(item, item_hint | None) for item in items if item is not None]
        raise


def count(value: object) -> int:
    """A number of tokens, as a server reports it: 0 if it reports none, or a negative one."""
    return max(value, 0) if isinstance(value, int) else 0
