"""Check values that user code hands in, by the types that their fields declare.

msgspec writes what a field holds without a look at its type, and reads strictly. A message such as ``Text(None)`` would
be saved, and its session could never be opened again. So each door by which a value comes in (a prompt, a tool's
result, a verdict, an answer, a model's response) checks it here, once, before anything is emitted. Values that the
runtime makes are not checked: there are thousands of them, and their types are known.
"""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from functools import cache
from typing import Any, Literal, NamedTuple, cast

import msgspec

from agentloop._core.json_text import MAX_DEPTH, whole_text

__all__ = ["FieldError", "checked", "is_name", "json_value", "plain_number", "plain_text", "shown"]


class FieldError(ValueError):
    """A value is of the wrong type. The message names the field, the value, and what is due."""


def checked(kind: Any, value: object, name: str = "") -> Any:
    """Check ``value``, and everything in it, against the type ``kind``.

    Args:
      kind: a Struct, a plain type, a union, a `Literal`, or a tuple, sequence or dict of such.
      name: name of the value in the error; the name of its class by default.

    Returns:
      ``value`` itself, if all its parts can be written and read back as they are. Otherwise an equal copy that can:
      with plain texts in the place of subclasses of ``str`` and half characters, tuples in the place of lists,
      ``bytes`` in the place of a ``bytearray``.

    Raises:
      FieldError: a part of it is of another type.
    """
    declared = _declared(kind)
    name = name or type(value).__name__
    if not declared.fits(value):
        raise _misfit(name, value, declared.words)
    return declared.check(value, name)


def plain_text(text: str) -> str:
    """``text`` as a plain ``str`` of whole characters: what a journal and a provider can take."""
    return whole_text(str.__str__(text))


def plain_number(value: object) -> int | float | None:
    """``value`` as a plain number, infinity included; ``None`` if it is NaN, too large for a float, or no number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        is_number = not math.isnan(value)
    except OverflowError:
        return None
    if not is_number:
        return None
    return value if value.__class__ in (int, float) else int(value) if isinstance(value, int) else float(value)


def is_name(value: object) -> bool:
    """Whether ``value`` is some text that can be written and read back as it is. A subclass of ``str`` cannot."""
    is_plain = value.__class__ is str or (isinstance(value, str) and isinstance(value, Enum))
    return is_plain and plain_text(cast("str", value)) == value != ""


def shown(value: object) -> str:
    """``value`` in an error message. Never raises: the ``repr`` of a foreign object may."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - it runs user code
        return f"<{type(value).__name__}>"
    return whole_text(text if len(text) <= 100 else f"{text[:97]}...")


class _Declared(NamedTuple):
    """A type, as a field declares it."""

    words: str
    """What is due, for an error."""
    fits: Callable[[Any], bool]
    """Whether a value is of this type, without a look at its parts."""
    check: Callable[[Any, str], Any]
    """Checks the parts of a value that fits, under a name for errors."""


def _misfit(name: str, value: object, words: str) -> FieldError:
    return FieldError(f"`{name}` is {shown(value)}, where {words} is due")


@cache
def _declared(hint: Any) -> _Declared:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint in _PLAIN:
        return _PLAIN[hint]
    if origin in (typing.Union, types.UnionType):
        return _union(tuple(map(_declared, arguments)))
    if origin is Literal:
        words = _either([repr(choice) for choice in arguments])

        def is_choice(value: object) -> bool:
            return isinstance(value, str) and value in arguments

        return _Declared(words, is_choice, _text)
    if origin in (tuple, Sequence):
        return _items(_declared(arguments[0]))
    if origin is dict:
        return _members(_declared(arguments[1]))
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return _struct(hint)
    raise TypeError(f"there is no check for {hint!r}")


# ------------------------------------------------------------------------- plain types


def _instance_of(*classes: type) -> Callable[[object], bool]:
    def fits(value: object) -> bool:
        return isinstance(value, classes)

    return fits


def _same(value: Any, name: str) -> Any:
    return value


def _text(value: str, name: str) -> str:
    return value if value.__class__ is str and value.isascii() else plain_text(value)


def _bytes(value: Any, name: str) -> Any:
    return value if value.__class__ is bytes else bytes(value)


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _integer(value: int, name: str) -> int:
    return value if value.__class__ is int else int(value)


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer that no float has room for
        return False


def _number(value: float, name: str) -> float:
    return value if value.__class__ in (int, float) else float(value)


def json_value(value: object, name: str, levels: int = MAX_DEPTH) -> Any:
    """``value`` as JSON has it.

    Raises:
      FieldError: it, or a value in it, has no JSON form, as NaN; or it nests too deeply.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return _integer(value, name)
    if isinstance(value, str):
        return _text(value, name)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _misfit(name, value, "a JSON value")
        return _number(value, name)
    if levels == 0:
        raise FieldError(f"`{name}` is nested too deeply: at most {MAX_DEPTH} levels are allowed")
    if isinstance(value, (list, tuple)):
        items = cast("Sequence[object]", value)
        return [json_value(item, f"{name}[{index}]", levels - 1) for index, item in enumerate(items)]
    if isinstance(value, dict):
        members = cast("dict[object, object]", value)
        for key in members:
            if not isinstance(key, str):
                raise _misfit(name, members, "a dict with texts as keys")
        return {
            plain_text(str(key)): json_value(member, f"{name}[{shown(key)}]", levels - 1)
            for key, member in members.items()
        }
    try:
        # A date, an enum, an attrs class: what has a JSON form, besides JSON itself.
        plain = msgspec.to_builtins(value)
    except Exception as error:
        raise _misfit(name, value, "a JSON value") from error
    if plain is value or isinstance(plain, type(value)):
        raise _misfit(name, value, "a JSON value")
    return json_value(plain, name, levels - 1)


_PLAIN: Mapping[Any, _Declared] = {
    str: _Declared("text", _instance_of(str), _text),
    bytes: _Declared("bytes", _instance_of(bytes, bytearray, memoryview), _bytes),
    bool: _Declared("a bool", _instance_of(bool), _same),
    int: _Declared("an integer", _is_integer, _integer),
    float: _Declared("a finite number", _is_number, _number),
    type(None): _Declared("None", _instance_of(type(None)), _same),
    Any: _Declared("a JSON value", _instance_of(object), json_value),
}


# --------------------------------------------------------------------- composed types


def _either(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _union(alternatives: Sequence[_Declared]) -> _Declared:
    def check(value: Any, name: str) -> Any:
        return next(declared for declared in alternatives if declared.fits(value)).check(value, name)

    def fits(value: object) -> bool:
        return any(declared.fits(value) for declared in alternatives)

    return _Declared(_either([declared.words for declared in alternatives]), fits, check)


def _items(item: _Declared) -> _Declared:
    def check(value: Sequence[Any], name: str) -> tuple[Any, ...]:
        new: list[Any] = []
        for index, part in enumerate(value):
            if not item.fits(part):
                raise _misfit(f"{name}[{index}]", part, item.words)
            new.append(item.check(part, f"{name}[{index}]"))
        is_same = isinstance(value, tuple) and all(map(_is, new, value))
        return cast("tuple[Any, ...]", value) if is_same else tuple(new)

    return _Declared("a tuple", _instance_of(tuple, list), check)


def _members(member: _Declared) -> _Declared:
    def check(value: dict[Any, Any], name: str) -> dict[str, Any]:
        new: dict[str, Any] = {}
        for key, part in value.items():
            if not isinstance(key, str):
                raise _misfit(name, value, "a dict with texts as keys")
            if not member.fits(part):
                raise _misfit(f"{name}[{shown(key)}]", part, member.words)
            new[plain_text(key)] = member.check(part, f"{name}[{shown(key)}]")
        return new

    return _Declared("a dict", _instance_of(dict), check)


def _struct(cls: type[msgspec.Struct]) -> _Declared:
    hints = typing.get_type_hints(cls)
    fields = [(name, _declared(hints[name])) for name in cls.__struct_fields__]

    def check(value: msgspec.Struct, name: str) -> msgspec.Struct:
        new: dict[str, Any] = {}
        is_same = value.__class__ is cls
        for field, declared in fields:
            part: object = getattr(value, field)
            if not declared.fits(part):
                raise _misfit(f"{name}.{field}", part, declared.words)
            new[field] = declared.check(part, f"{name}.{field}")
            is_same = is_same and new[field] is part
        return value if is_same else cls(**new)

    article = "an" if cls.__name__[0] in "AEIO" else "a"
    return _Declared(f"{article} {cls.__name__}", _instance_of(cls), check)


def _is(new: object, old: object) -> bool:
    return new is old
