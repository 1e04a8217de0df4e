"""JSON text that is still being written, as the value that it stands for so far.

`PartialJson` takes the text piece by piece and keeps its place in it, so a piece costs the same wherever it stands.
It looks for the first object or array, passes over text around it, and begins anew with each further one: a model may
put prose, a fence or a draft before its answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec

from agentloop._core.json_text import MAX_DEPTH, decode_json, whole_text

__all__ = ["Change", "PartialJson", "Path"]

Path: TypeAlias = tuple[str | int, ...]
"""The names of members and the indexes of items that lead from the whole value to a part of it."""


class Change(NamedTuple):
    """A change of the value: a part of it is new, or a text in it is longer."""

    path: Path
    value: Any
    """The part: a number, ``true``, ``false`` or ``null``; or an empty text, object or array that begins."""
    is_piece: bool = False
    """Whether ``value`` is a piece that the text at ``path`` is longer by."""


class _Open:
    """An object or array that is not closed yet."""

    __slots__ = ("is_object", "key", "value")

    def __init__(self, *, is_object: bool) -> None:
        self.value: Any = {} if is_object else []
        self.is_object = is_object
        self.key: str | int = "" if is_object else -1
        """The member or item that is being written."""


_Expect: TypeAlias = Literal["value", "first", "key", "first key", "colon", "comma"]

_SPACE = re.compile(r"[ \t\r\n]*")
_START = re.compile(r"[\[{]")
_SCALAR = re.compile(r"[-+.0-9A-Za-z]*")
_STRING = re.compile(r'[^"\\]*')
_HEX = re.compile("[0-9a-fA-F]{4}")
_ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_MAX_SCALAR = 400
"""Characters of a number. A longer one is no number of JSON that any value has."""


class PartialJson:
    """Reads JSON text piece by piece.

    Args:
      on_change: called with each change of the value, in order.
    """

    __slots__ = ("_escape", "_expect", "_held", "_is_key", "_on_change", "_open", "_pieces", "_scalar", "_value")

    def __init__(self, on_change: Callable[[Change], None] | None = None) -> None:
        self._on_change = on_change
        self._value: Any = None
        """The last whole value, or the value that is being written."""
        self._open: list[_Open] = []
        self._expect: _Expect = "value"
        self._pieces: list[str] | None = None
        """The pieces of the text that is being written, if one is."""
        self._is_key = False
        """Whether that text is the name of a member."""
        self._escape = ""
        """An escape that is not complete."""
        self._held = ""
        """Half of a surrogate pair, whose other half may follow."""
        self._scalar = ""
        """The beginning of a number or a word."""

    # ------------------------------------------------------------------------------- the value

    @property
    def value(self) -> Any:
        """The value so far; ``None`` before it begins. What is returned does not change later.

        Parts that are complete are shared between the values. The rest, one object or array on each level, is copied.
        """
        value = self._value
        if not self._open:
            return value
        inner: Any = None
        if self._pieces is not None and not self._is_key:
            # Joined once: a value that is read at each delta would otherwise join all of them each time.
            inner = "".join(self._pieces)
            self._pieces = [inner]
        has_inner = inner is not None
        for container in reversed(self._open):
            copy = container.value.copy()
            if has_inner:
                if container.is_object:
                    copy[container.key] = inner
                else:
                    copy.append(inner)
            inner, has_inner = copy, True
        return inner

    # -------------------------------------------------------------------------------- the text

    def feed(self, text: str) -> None:
        """Take in the next piece of the text."""
        position = 0
        while position < len(text):
            if self._pieces is not None:
                position = self._in_string(text, position)
            elif self._scalar:
                position = self._in_scalar(text, position)
            elif not self._open:
                start = _START.search(text, position)
                if start is None:
                    return
                self._begin(is_object=start[0] == "{")
                position = start.end()
            else:
                position = self._between(text, position)

    def _between(self, text: str, position: int) -> int:
        """Read white space and punctuation, up to the beginning of a value or name."""
        space = _SPACE.match(text, position)
        assert space is not None
        position = space.end()
        if position == len(text):
            return position
        character, expect, container = text[position], self._expect, self._open[-1]
        if character == '"' and expect in ("value", "first", "key", "first key"):
            self._begin_string(is_key=expect in ("key", "first key"))
        elif character in "[{" and expect in ("value", "first"):
            self._begin(is_object=character == "{")
        elif character in "]}" and expect in ("comma", "first", "first key"):
            if (character == "}") is not container.is_object:
                return self._give_up(position)
            self._close()
        elif character == ":" and expect == "colon":
            self._expect = "value"
        elif character == "," and expect == "comma":
            self._expect = "key" if container.is_object else "value"
        elif expect in ("value", "first") and _SCALAR.match(character):
            self._next_item()
            return self._in_scalar(text, position)
        else:
            return self._give_up(position)
        return position + 1

    def _give_up(self, position: int) -> int:
        """The text is not JSON after all: look for the next object or array from here."""
        self._open.clear()
        self._expect = "value"
        self._escape = self._held = self._scalar = ""
        self._pieces = self._value = None
        return position

    # -------------------------------------------------------------------------- objects and arrays

    def _next_item(self) -> None:
        container = self._open[-1]
        if isinstance(container.key, int):
            container.key += 1

    def _begin(self, *, is_object: bool) -> None:
        if self._open:
            self._next_item()
        if len(self._open) == MAX_DEPTH:
            self._give_up(0)
            return
        if not self._open:
            self._value = None
        self._report({} if is_object else [])
        self._open.append(_Open(is_object=is_object))
        self._expect = "first key" if is_object else "first"

    def _close(self) -> None:
        self._put(self._open.pop().value)

    def _put(self, value: Any) -> None:
        """A part is complete: put it into the object or array around it."""
        self._expect = "comma"
        if not self._open:
            self._value = value
            self._expect = "value"
            return
        container = self._open[-1]
        if container.is_object:
            container.value[container.key] = value
        else:
            container.value.append(value)

    # ------------------------------------------------------------------------------------ strings

    def _begin_string(self, *, is_key: bool) -> None:
        self._pieces, self._is_key = [], is_key
        if not is_key:
            self._next_item()
            self._report("")

    def _in_string(self, text: str, position: int) -> int:
        if self._escape:
            return self._in_escape(text, position)
        run = _STRING.match(text, position)
        assert run is not None
        if run[0]:
            self._add(run[0])
        position = run.end()
        if position == len(text):
            return position
        if text[position] == "\\":
            self._escape = "\\"
        else:
            self._end_string()
        return position + 1

    def _in_escape(self, text: str, position: int) -> int:
        escape = self._escape = self._escape + text[position]
        if escape[1] == "u":
            if len(escape) < 6:
                return position + 1
            if _HEX.fullmatch(escape[2:]) is None:
                return self._give_up(position)
            character = chr(int.from_bytes(bytes.fromhex(escape[2:])))
        elif escape[1] in _ESCAPES:
            character = _ESCAPES[escape[1]]
        else:
            return self._give_up(position)
        self._escape = ""
        self._add(character)
        return position + 1

    def _add(self, text: str) -> None:
        """Add decoded text. Half of a surrogate pair waits for the other half."""
        assert self._pieces is not None
        text = self._held + text
        self._held = ""
        if "\ud800" <= text[-1] <= "\udbff":
            text, self._held = text[:-1], text[-1]
        if text:
            self._append(whole_text(text))

    def _append(self, text: str) -> None:
        assert self._pieces is not None
        self._pieces.append(text)
        if not self._is_key and self._on_change is not None:
            self._on_change(Change(self._path(), text, is_piece=True))

    def _end_string(self) -> None:
        if self._held:
            held, self._held = self._held, ""
            self._append(whole_text(held))
        assert self._pieces is not None
        text, self._pieces = "".join(self._pieces), None
        if self._is_key:
            self._open[-1].key = text
            self._expect = "colon"
        else:
            self._put(text)

    # ------------------------------------------------------------------------------------ scalars

    def _in_scalar(self, text: str, position: int) -> int:
        """Read a number, or ``true``, ``false`` or ``null``. It is complete when something else follows."""
        run = _SCALAR.match(text, position)
        assert run is not None
        self._scalar += run[0]
        if len(self._scalar) > _MAX_SCALAR:
            return self._give_up(run.end())
        if run.end() == len(text):
            return run.end()
        scalar, self._scalar = self._scalar, ""
        try:
            value = decode_json(scalar)
        except msgspec.DecodeError:
            return self._give_up(run.end())
        self._put(value)
        self._report(value)
        return run.end()

    # ------------------------------------------------------------------------------------ changes

    def _path(self) -> Path:
        return tuple([container.key for container in self._open])

    def _report(self, value: Any) -> None:
        if self._on_change is not None:
            self._on_change(Change(self._path(), value))
