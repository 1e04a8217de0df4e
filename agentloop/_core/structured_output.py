"""Structured output: what a model must write, and what that is as a value."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from agentloop._core.field_checks import shown
from agentloop._core.foreign_errors import error_text
from agentloop._core.json_text import JsonDecoder, decode_json
from agentloop._core.json_types import (
    NOT_JSON,
    decode_leniently,
    inspect_type,
    lifted,
    malformed,
    mismatch,
)
from agentloop._core.pydantic_types import FieldProblemsError
from agentloop._core.signature import parameters_of, underlying
from agentloop._core.type_hints import field_problems, read_hook, spelled_out
from agentloop.errors import Retry, UsageError

__all__ = [
    "TEXT",
    "OutputFormatError",
    "OutputType",
    "check_validator",
    "output_type",
    "problem_of",
    "schema_of",
    "takes_info",
    "validator_name",
]


class OutputFormatError(ValueError):
    """A model's structured output is not JSON, or does not fit its type. The message is for the model."""


class OutputType:
    """The structured output that a model must write. Made by `output_type`."""

    def __init__(self, hint: Any) -> None:
        self._hint = hint

    @property
    def name(self) -> str:
        """A name for the schema, as providers want one: 1 to 64 letters, digits, ``_`` and ``-``."""
        name = self._hint.__name__ if isinstance(self._hint, type) else ""
        return re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_")[:64] or "output"

    @functools.cached_property
    def schema(self) -> dict[str, Any] | None:
        """JSON Schema (2020-12), always an object; or ``None``, if the output is plain text.

        A type that is not an object is wrapped as ``{"value": ...}``. All who ask share this dict.
        """
        return None if self._hint is str else schema_of(self._hint)

    @functools.cached_property
    def is_wrapped(self) -> bool:
        """Whether `schema` wraps the output as ``{"value": ...}``."""
        return self._hint is not str and not _is_object(lifted(self._hint))

    def decode(self, text: str, /) -> Any:
        """Read what the model wrote.

        Args:
          text: JSON, alone, in a fence of backticks, or in the midst of prose that holds no other JSON
            object or array. A value that `schema` wraps may also come bare. Thoughts in tags, such as ``<think>``, are
            left out: a draft in them is no answer.

        Returns:
          A value of the type; ``text`` itself, if that is ``str``.

        Raises:
          OutputFormatError: there is no JSON, more than one value, or one that does not fit.
        """
        if self._hint is str:
            return text
        raw = _only_json(text)
        problems: list[msgspec.ValidationError] = []
        for read in self._readers:
            try:
                return read(raw)
            except msgspec.ValidationError as error:
                problems.append(error)
        # The first is about the form that the model was asked for. The second is about the value without its wrapper,
        # and helps more if it is about a part of the value.
        problem, without_wrapper = problems[0], problems[-1]
        if _WRAPPED.match(raw) is None and _is_about_part(without_wrapper):
            problem = without_wrapper
        raise OutputFormatError(f"the output does not fit: {mismatch(problem, self.schema)}") from problem

    @functools.cached_property
    def _readers(self) -> tuple[Callable[[str], Any], ...]:
        bare = JsonDecoder(self._hint, dec_hook=read_hook)
        if not self.is_wrapped:
            return (functools.partial(decode_leniently, bare),)
        wrapped: JsonDecoder[Any] = JsonDecoder(_wrapped(self._hint), dec_hook=read_hook)
        return (lambda raw: decode_leniently(wrapped, raw).value, functools.partial(decode_leniently, bare))


def _is_about_part(error: msgspec.ValidationError) -> bool:
    return isinstance(error.__cause__, FieldProblemsError) or any(path for path, _ in field_problems(error))


_WRAPPED = re.compile(r'\s*\{\s*"value"\s*:')

TEXT = OutputType(str)
"""Any text."""


def output_type(type_: Any, /) -> OutputType:
    """The output that a model must write for an instance of ``type_``; with ``str``, any text.

    Raises:
      ToolDefinitionError: the type cannot be read from JSON.
    """
    if type_ is str:
        return TEXT
    hint = spelled_out(type_)
    inspect_type(hint, "the output type")
    return OutputType(hint)


def schema_of(type_: Any, /) -> dict[str, Any]:
    """JSON Schema (2020-12) of ``type_``, always an object: anything else is wrapped as ``{"value": ...}``.

    Raises:
      ToolDefinitionError: the type cannot be read from JSON.
    """
    hint = spelled_out(type_)
    inspect_type(hint, "the schema")
    schema = lifted(hint)
    return schema if _is_object(schema) else lifted(_wrapped(hint))


def _is_object(schema: Mapping[str, Any]) -> bool:
    return schema.get("type") == "object"


def _wrapped(hint: Any) -> type[msgspec.Struct]:
    return msgspec.defstruct("Output", [("value", hint)], forbid_unknown_fields=True)


def _only_json(text: str) -> str:
    """The one JSON value in ``text``: all of it, its fenced part, or an object or array in it."""
    text = closest = _without_thoughts(text)
    for candidates in ([text], _fenced(text), [*_bracketed(text)]):
        values = [candidate for candidate in candidates if _flaw(candidate) is None]
        if len(values) == 1:
            return values[0]
        if values:
            raise OutputFormatError(f"the output holds {len(values)} JSON values: give only the answer")
        closest = next(iter(candidates), closest)
    raise OutputFormatError(f"the output is not JSON: {_flaw(closest)}")


_TAG = r"(?:think|thinking|thought|thoughts|reasoning|reflection)"
_THOUGHTS = rf"(?is)\A.*(?:</{_TAG}>|\[/THINK\]|◁/think▷)|\A\s*(?:<{_TAG}>|\[THINK\]|◁think▷).*\Z"
"""All up to the last closing tag, since templates leave out the opening one; or all, if thoughts were not closed."""


def _without_thoughts(text: str) -> str:
    """``text`` without the thoughts that servers without a parser for them leave in it."""
    if _flaw(text) is None:
        # A tag in an answer is part of the answer.
        return text
    return re.sub(_THOUGHTS, "", text)


def _fenced(text: str) -> list[str]:
    return re.findall(r"```[^\n`]*\n(.*?)```", text, re.DOTALL)


def _bracketed(text: str) -> Iterator[str]:
    """Each stretch from an opening bracket to the one that closes it, or to the end; none inside another."""
    position = 0
    while opening := re.compile(r"[\[{]").search(text, position):
        position = _end_of_brackets(text, opening.start())
        yield text[opening.start() : position]


def _end_of_brackets(text: str, start: int) -> int:
    # A string that is never closed counts as one, too: tried again from each quote in it, it would take
    # quadratic time.
    tokens = re.compile(r'"(?:[^"\\]|\\.?)*"?|[\[\]{}]', re.DOTALL)
    depth = 0
    for token in tokens.finditer(text, start):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(token[0], 0)
        if depth == 0:
            return token.end()
    return len(text)


def _flaw(text: str) -> str | None:
    """The reason why ``text`` is not one JSON value, if it is not."""
    try:
        decode_json(text, msgspec.Raw)
    except NOT_JSON as error:
        return malformed(error, text)
    return None


# ---------------------------------------------------------------------------- output validators


_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def check_validator(validator: object) -> None:
    """Raise `UsageError` if ``validator`` cannot be called with an output, or with an output and an `OutputInfo`."""
    if isinstance(validator, type) or not callable(validator):
        raise UsageError(f"an output validator is a function of the output, not {shown(validator)}")
    required, most = _arguments(validator)
    if required > 2 or most < 1:
        raise UsageError(
            f"the output validator {validator_name(validator)!r} is to take the output, or the output and an "
            "OutputInfo, as its only arguments"
        )


def takes_info(validator: Callable[..., Any]) -> bool:
    """Whether ``validator`` takes an `OutputInfo` besides the output: a second argument without a default."""
    required, _ = _arguments(validator)
    return required == 2


def _arguments(validator: Callable[..., Any]) -> tuple[int, float]:
    """How many positional arguments ``validator`` requires, and how many it takes at most."""
    try:
        parameters = [*parameters_of(validator).values()]
    except (TypeError, ValueError):
        return 1, 1
    positional = [parameter for parameter in parameters if parameter.kind in _POSITIONAL]
    required = len([parameter for parameter in positional if parameter.default is parameter.empty])
    if any(
        parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty for parameter in parameters
    ):
        return 0, 0
    takes_any = any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters)
    return required, float("inf") if takes_any else len(positional)


def validator_name(validator: Callable[..., Any]) -> str:
    """The name of ``validator``, for errors and the log."""
    if isinstance(validator, functools.partial):
        validator = underlying(validator)
    return str(getattr(validator, "__name__", type(validator).__name__))


def problem_of(refusal: Retry) -> str:
    """The problem of an output, in the words of the validator that refused it."""
    return error_text(refusal) or "no reason was given"
