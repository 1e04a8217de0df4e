"""Decode JSON text, with a limit on how deep arrays and objects may nest.

Every JSON text is decoded here. Without a limit of its own, agentloop would depend on Python's: some 1,000 levels up to
3.11, and from 3.14 on whatever fits on the stack of the thread. In between, a small stack means a crash of the process.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from typing import Any, Generic, TypeAlias, TypeGuard, TypeVar, overload

import msgspec

from agentloop._core.portable_errors import PortableError

__all__ = [
    "MAX_DEPTH",
    "MAX_OWN_DEPTH",
    "JsonDecoder",
    "NestingError",
    "decode_json",
    "decode_own",
    "is_array",
    "is_object",
    "nesting_depth",
    "opening_brackets",
    "same_json",
    "whole_numbers",
    "whole_text",
]

T = TypeVar("T")

_DecodeHook: TypeAlias = Callable[[type, Any], Any]

MAX_DEPTH = 128
"""Levels in a text from outside: from a model, a server, a hook's program."""

MAX_OWN_DEPTH = 256
"""Levels in a text that agentloop has written: a record of a journal, an event. The text may hold a value from outside.
"""

_STRUCTURE = b'"[]{}'
_REST = bytes(set(range(256)) - set(_STRUCTURE))
_STEP = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}


class NestingError(PortableError, msgspec.DecodeError):
    """A JSON text nests deeper than ``limit`` levels."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"it is nested too deeply: at most {limit} levels of arrays and objects are allowed")
        self.limit = limit


class JsonDecoder(Generic[T]):
    """A `msgspec.json.Decoder` with a limit on nesting. Worth making for a type that is decoded often.

    Args:
      dec_hook: reads the types that msgspec does not know, as for `msgspec.json.Decoder`.
    """

    __slots__ = ("_limit", "decode_shallow")

    @overload
    def __init__(self: JsonDecoder[Any], /, *, max_depth: int = ...) -> None: ...

    @overload
    def __init__(self, type: type[T], /, *, max_depth: int = ..., dec_hook: _DecodeHook | None = ...) -> None: ...

    @overload
    def __init__(
        self: JsonDecoder[Any], type: Any, /, *, max_depth: int = ..., dec_hook: _DecodeHook | None = ...
    ) -> None: ...

    def __init__(self, type: Any = Any, /, *, max_depth: int = MAX_DEPTH, dec_hook: _DecodeHook | None = None) -> None:
        self.decode_shallow: Callable[[str | bytes | msgspec.Raw], T] = msgspec.json.Decoder(
            type, dec_hook=dec_hook
        ).decode
        """`decode`, for a text of which it is known that it nests no deeper: see `opening_brackets`."""
        self._limit = max_depth

    def decode(self, text: str | bytes | msgspec.Raw, /) -> T:
        """Decode one JSON value.

        Raises:
          NestingError: it nests deeper than ``max_depth``.
          msgspec.ValidationError: it does not fit the type.
          msgspec.DecodeError: it is not JSON. `NestingError` and `msgspec.ValidationError` are kinds of it.
          UnicodeError: it is not UTF-8, or has a lone surrogate.
        """
        # Most texts, asked here: two calls less make the decoding of a long session 15 % faster.
        if not isinstance(text, bytes) or (len(text) > self._limit and opening_brackets(text) > self._limit):
            _check_depth(text, self._limit)
        return self.decode_shallow(text)


@overload
def decode_json(text: str | bytes | msgspec.Raw, /, *, max_depth: int = ...) -> Any: ...


@overload
def decode_json(text: str | bytes | msgspec.Raw, type: type[T], /, *, max_depth: int = ...) -> T: ...


@overload
def decode_json(text: str | bytes | msgspec.Raw, type: Any, /, *, max_depth: int = ...) -> Any: ...


def decode_json(text: str | bytes | msgspec.Raw, type: Any = Any, /, *, max_depth: int = MAX_DEPTH) -> Any:
    """Decode one JSON value as ``type``. Raises what `JsonDecoder.decode` raises."""
    _check_depth(text, max_depth)
    return msgspec.json.decode(text, type=type)


@overload
def decode_own(text: str | bytes | msgspec.Raw, /) -> Any: ...


@overload
def decode_own(text: str | bytes | msgspec.Raw, type: type[T], /) -> T: ...


@overload
def decode_own(text: str | bytes | msgspec.Raw, type: Any, /) -> Any: ...


def decode_own(text: str | bytes | msgspec.Raw, type: Any = Any, /) -> Any:
    """Decode one JSON value that agentloop has written. Raises what `JsonDecoder.decode` raises."""
    return decode_json(text, type, max_depth=MAX_OWN_DEPTH)


def whole_numbers(value: Any) -> Any:
    """A copy of a JSON value with 3 in the place of 3.0: to JSON Schema, a number without a fraction is an integer."""
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < 2**63 else value
    if is_array(value):
        return list(map(whole_numbers, value))
    if is_object(value):
        return {name: whole_numbers(member) for name, member in value.items()}
    return value


def is_array(value: object) -> TypeGuard[list[Any]]:
    """Whether ``value``, a JSON value, is an array."""
    return isinstance(value, list)


def is_object(value: object) -> TypeGuard[dict[str, Any]]:
    """Whether ``value``, a JSON value, is an object."""
    return isinstance(value, dict)


def same_json(text: str, other: str) -> bool:
    """Whether two JSON texts say the same. The order of keys, white space and ``.0`` make no difference."""
    if text == other:
        return True
    try:
        value, other_value = _decoded(text), _decoded(other)
    except (msgspec.DecodeError, UnicodeError):
        return False
    # Asked of each turn, and nearly always no. Python, to which 3.0 is 3, and the order of keys nothing, says so in a
    # quarter of the time; but to it 1 is also true.
    return bool(value == other_value) and _canonical(value) == _canonical(other_value)


def _decoded(text: str) -> Any:
    return decode_json(text if text.strip() else "{}")


def _canonical(value: Any) -> bytes:
    return msgspec.json.encode(whole_numbers(value), order="deterministic")


def whole_text(text: str) -> str:
    """``text`` with whole characters only: half of a surrogate pair has no form in UTF-8, and becomes U+FFFD.

    Such halves come from the names of files, the arguments of a command line, and texts that were cut in the middle of
    an emoji. Two halves that belong together become one character.
    """
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _check_depth(text: str | bytes | msgspec.Raw, limit: int) -> None:
    if nesting_depth(text, enough=limit) > limit:
        raise NestingError(limit)


def nesting_depth(text: str | bytes | msgspec.Raw, *, enough: int = 0) -> int:
    """Count the levels of arrays and objects in a JSON text; brackets inside strings do not count.

    Takes linear time and no recursion. For a text that is not JSON, the number says only how far a decoder might go.

    Args:
      enough: where the depth cannot be above this, a number that is not above it will do, and is found faster.
    """
    if isinstance(text, msgspec.Raw):
        text = bytes(text)
    # So few characters, or so few opening brackets, in strings or not, cannot nest any deeper. Nearly every text ends
    # here.
    if len(text) <= enough:
        return len(text)
    if isinstance(text, str):
        most = opening_brackets(text)
        data = b"" if most <= enough else text.encode("utf-8", "replace")
    else:
        most = opening_brackets(text)
        data = text
    if most <= enough:
        return most
    # Without escapes, each quotation mark opens or closes a string. Backslashes first: `\\"` ends a string.
    data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    brackets = b"".join(data.translate(None, _REST).split(b'"')[::2])
    return max(accumulate(map(_STEP.__getitem__, brackets)), default=0)


def opening_brackets(data: str | bytes) -> int:
    """How many arrays and objects begin in JSON texts; those inside strings count, too. None nests deeper than that."""
    if isinstance(data, str):
        return data.count("[") + data.count("{")
    # Up to Python 3.13, `count` of bytes looks at each, and `replace` leaps from one bracket to the next: in a message
    # of 3 KB, a sixth of the instructions; there, `count` takes twice as many as the decoder.
    return 2 * len(data) - len(data.replace(b"[", b"")) - len(data.replace(b"{", b""))
