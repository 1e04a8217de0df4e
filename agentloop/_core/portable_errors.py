"""Errors that survive ``pickle``, `copy.copy` and `copy.deepcopy` with their attributes, their notes and their cause.

By default Python copies an exception by calling its class with ``args``, which is the message, and without its cause.
Most classes here take facts instead, and an error without its cause says half.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any, ClassVar, Self, TypeVar

from agentloop._core.on_first_use import pickled_copy

__all__ = ["PortableError"]

Error = TypeVar("Error", bound="PortableError")


class PortableError(Exception):
    """The base of the package's own exceptions. A copy has the message, the attributes, the notes and the cause.

    ``pickle`` leaves out a cause that cannot be pickled, or not read back; the copies in this process share it then.
    """

    _local: ClassVar[frozenset[str]] = frozenset()
    """Names of the attributes that belong to this process: they are ``None`` in an error that was pickled, and shared
    by copies."""

    def __reduce__(self) -> tuple[Any, ...]:
        attributes = {name: None if name in self._local else value for name, value in self.__dict__.items()}
        cause = self.__cause__ if _can_be_pickled(self.__cause__) else None
        return _rebuilt, (type(self), self.args), (attributes, cause, self.__suppress_context__)

    def __setstate__(self, state: Any) -> None:
        attributes, cause, suppresses = state
        self.__dict__.update(attributes)
        # In this order, since setting the cause sets the other one.
        self.__cause__ = cause
        self.__suppress_context__ = suppresses

    def __copy__(self) -> Self:
        twin = _rebuilt(type(self), self.args)
        twin.__setstate__((self.__dict__, self.__cause__, self.__suppress_context__))
        return twin

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        twin = _rebuilt(type(self), ())
        # Before its parts are copied: they may lead back to this error.
        memo[id(self)] = twin
        twin.args = deepcopy(self.args, memo)
        attributes = {
            name: value if name in self._local else deepcopy(value, memo) for name, value in self.__dict__.items()
        }
        twin.__setstate__((attributes, _deep_copy_or_same(self.__cause__, memo), self.__suppress_context__))
        return twin


def _rebuilt(kind: type[Error], args: tuple[Any, ...]) -> Error:
    """An error of class ``kind`` without its attributes, which are set afterwards: they may lead back to it."""
    error = kind.__new__(kind)
    error.args = args
    return error


def _can_be_pickled(cause: BaseException | None) -> bool:
    """Whether ``cause`` can be pickled and read back: many libraries have exceptions that fail only at the latter."""
    if cause is None or isinstance(cause, PortableError):
        return True
    try:
        pickled_copy(cause)
    # User code runs here, which may raise anything.
    except Exception:  # noqa: BLE001
        return False
    return True


def _deep_copy_or_same(cause: BaseException | None, memo: dict[int, Any]) -> BaseException | None:
    try:
        return deepcopy(cause, memo)
    except Exception:  # noqa: BLE001 - as above
        return cause
