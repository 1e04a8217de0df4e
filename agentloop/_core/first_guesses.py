"""First guesses of newcomers: what they write before they have read how it is done, and the sentence that says it.

Type checkers refuse most of these programs. The methods here are therefore set at run time, where no checker sees them:
``await stream`` stays an error for a checker, and a running program gets a sentence in the place of Python's words.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, NoReturn

from agentloop.errors import UsageError

__all__ = ["explain_options", "is_refused", "name_the_way", "refuse"]


def refuse(cls: type, **sentences: str) -> None:
    """Have special methods of ``cls`` raise `UsageError`: ``refuse(Stream, iter="write `async for`...")``.

    Args:
      sentences: the sentences by the names of the methods, without underscores. Fields in braces are attributes of the
        object.
    """
    for name, sentence in sentences.items():
        setattr(cls, f"__{name}__", _refusal(sentence))
        if name in ("enter", "aenter"):
            # Python looks for both before it calls one.
            setattr(cls, f"__{name.replace('enter', 'exit')}__", _refusal(sentence))


def _refusal(sentence: str) -> Any:
    def refusal(self: Any, *args: object) -> NoReturn:
        raise UsageError(sentence.format(self=self))

    _REFUSALS.add(refusal)
    return refusal


_REFUSALS: set[object] = set()


def is_refused(value: object, name: str) -> bool:
    """Whether the special method ``name`` of ``value``, without underscores, is there only to refuse."""
    return getattr(type(value), f"__{name}__", None) in _REFUSALS


def name_the_way(cls: type, sentences: Mapping[str, str]) -> None:
    """Have an attribute that ``cls`` lacks raise an `AttributeError` that says what to write.

    Args:
      sentences: the sentences by the names of the attributes. All others raise Python's own words.
    """

    def __getattr__(self: object, name: str) -> NoReturn:  # noqa: N807 - it becomes that method
        words = f"{type(self).__name__!r} object has no attribute {name!r}"
        raise AttributeError(f"{words}: {sentences[name]}" if name in sentences else words, name=name, obj=self)

    cls.__getattr__ = __getattr__  # type: ignore[attr-defined]


def explain_options(cls: type, sentences: Mapping[str, str]) -> None:
    """Have keyword arguments that ``cls`` does not take raise `UsageError`, if ``sentences`` says what to write."""
    original: Any = cls.__init__  # type: ignore[misc]

    @functools.wraps(original)
    def __init__(self: object, *args: Any, **options: Any) -> None:  # noqa: N807 - it becomes that method
        for name in options:
            if name in sentences:
                raise UsageError(f"{type(self).__name__}({name}=...): {sentences[name]}")
        original(self, *args, **options)

    cls.__init__ = __init__  # type: ignore[misc]
