"""Tool calls in the markup of chat templates, as models write them where the server has no parser for it.

`read_calls` decides whether a text is such markup. It reads the forms of Hermes, Qwen, GLM, Granite, Llama and Mistral.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, cast

from attrs import frozen

from agentloop._core.json_text import MAX_DEPTH, NestingError, nesting_depth

__all__ = ["CALL_STARTS", "MarkupCall", "NoMarkupError", "OpenMarkupError", "cut_off_call", "read_calls"]

_PAIRS: Mapping[str, str] = {
    "<tool_call>": "</tool_call>",
    "<tool_calls>": "</tool_calls>",
    "<tools>": "</tools>",
    "<function_call>": "</function_call>",
    "<function_calls>": "</function_calls>",
    "<|tool_call|>": "",
    "<|python_tag|>": "",
}
"""The tags before and after calls; an empty one where the calls reach to the end of the response."""
_FUNCTION = "<function="
_MISTRAL = "[TOOL_CALLS]"
CALL_STARTS = (*_PAIRS, _FUNCTION, _MISTRAL)
"""The texts with which markup starts. Llama's JSON has no tag, and must be the whole response."""
_ENDS = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|endoftext|>", "</s>", "</tool_call>", ";")
"""Tokens that may stand after calls. Qwen's coders write the closing tag without the opening one."""

_FUNCTION_START = re.compile(r"<function=([\w.-]+)>")
_PARAMETER = re.compile(r"\s*<parameter=([^>\n]+)>(.*?)</parameter>(?=\s*(?:<parameter=|\Z))", re.DOTALL)
_GLM_PAIR = re.compile(r"\s*<arg_key>(.*?)</arg_key>\s*<arg_value>(.*?)</arg_value>", re.DOTALL)
_BETWEEN = re.compile(r"(?:[\s;,]|<tool_call>)*")
"""The text between two calls in one tag. Qwen sometimes leaves the closing tag of the first one out."""
_MISTRAL_NAME = re.compile(r"\s*([\w.-]+)\s*(?:\[CALL_ID\]\w+\s*)?(?:\[ARGS\])?\s*(?=\{)")
_MISTRAL_BEGUN = re.compile(r"\s*[\w.-]*(\[[A-Z_]*\]?\w*)*\s*")
_NAME = re.compile(r'"(?:name|function)"\s*:\s*"([^"]*)"')
_NAME_BEGUN = re.compile(r'(?:"(?:n(?:a(?:me?)?)?)?|"name"\s*(?::\s*(?:"[^"]*)?)?)?')
_JSON_KEYS = ('"name"', '"type"', '"function"', '"parameters"', '"arguments"', '"id"')


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


# Not strict: models write line breaks into strings as they are.
_decoder = json.JSONDecoder(strict=False, parse_constant=_refuse_constant)


def _decode(text: str, position: int = 0) -> tuple[Any, int]:
    """The JSON value at ``position``, and the place after it. Raises a ValueError if there is none."""
    if nesting_depth(text[position:], enough=MAX_DEPTH) > MAX_DEPTH:
        raise NestingError(MAX_DEPTH)
    return _decoder.raw_decode(text, position)


def _decode_whole(text: str) -> Any:
    text = text.strip()
    value, end = _decode(text)
    if end != len(text):
        raise ValueError("more than one value")
    return value


class NoMarkupError(Exception):
    """The text is no tool call, whatever follows."""


class OpenMarkupError(Exception):
    """The text may be the beginning of a tool call."""


@frozen
class MarkupCall:
    """A tool call that was read."""

    name: str
    arguments: str
    """A JSON object."""


def read_calls(
    text: str, tools: Mapping[str, Mapping[str, Any]], *, is_start: bool, has_ended: bool
) -> list[MarkupCall]:
    """The calls of which ``text`` consists.

    Args:
      text: the text, from the beginning of the markup on.
      tools: the properties of each tool that is offered. The name of a call must be among them.
      is_start: whether the response starts with ``text``.
      has_ended: whether the response ends with ``text``.

    Raises:
      NoMarkupError: something else is in the text.
      OpenMarkupError: the text may become calls.
    """
    reader = _Reader(text, tools, is_start, has_ended)
    while not reader.is_done():
        reader.read()
    return reader.calls


def cut_off_call(text: str, tools: Mapping[str, Mapping[str, Any]]) -> MarkupCall | None:
    """The call in the middle of which the response was cut off; its arguments are no JSON, so it cannot run."""
    named = _NAME.search(text) or _FUNCTION_START.search(text) or re.search(r"\[TOOL_CALLS\]\s*([\w.-]+)", text)
    return MarkupCall(named[1], "{") if named is not None and named[1] in tools else None


class _Reader:
    """Reads one call after the other."""

    def __init__(self, text: str, tools: Mapping[str, Mapping[str, Any]], is_start: bool, has_ended: bool) -> None:
        self.text = text
        self.tools = tools
        self.is_start = is_start
        self.has_ended = has_ended
        self.position = 0
        self.calls: list[MarkupCall] = []

    def is_done(self) -> bool:
        """Skip white space, and tokens after a call; whether nothing is left."""
        while True:
            self._skip_space()
            rest = self.text[self.position :]
            token = next((token for token in _ENDS if self.calls and rest.startswith(token)), "")
            if not token:
                return not rest
            self.position += len(token)

    def _skip_space(self) -> None:
        while self.position < len(self.text) and self.text[self.position].isspace():
            self.position += 1

    def read(self) -> None:
        """Read the markup at the position."""
        text, position = self.text, self.position
        for opening, closing in _PAIRS.items():
            if text.startswith(opening, position):
                self.position += len(opening)
                if closing:
                    self._read_body(closing)
                else:
                    self._read_json()
                return
        if text.startswith(_FUNCTION, position):
            self._read_function()
        elif text.startswith(_MISTRAL, position):
            self.position += len(_MISTRAL)
            self._read_mistral()
        elif text.startswith("{", position) and self.is_start:
            self._read_json()
        else:
            self._refuse()

    def _refuse(self) -> None:
        """Raise the error for a text at the position that is no markup, or not yet."""
        rest = self.text[self.position : self.position + 20]
        ends = _ENDS if self.calls else ()
        if not self.has_ended and any(start.startswith(rest) for start in (*CALL_STARTS, *ends)):
            raise OpenMarkupError
        raise NoMarkupError

    # ------------------------------------------------------------------------------ forms

    def _read_body(self, closing: str) -> None:
        """Read the calls up to the tag ``closing``."""
        start = self.position
        self._check_beginning(self.text[start:])
        for end in self._ends(closing, start):
            calls = self._calls_in(self.text[start:end].strip())
            if calls:
                self.calls += calls
                self.position = min(end + len(closing), len(self.text))
                return
        raise NoMarkupError if self.has_ended else OpenMarkupError

    def _ends(self, closing: str, start: int) -> Iterator[int]:
        """The places at which ``closing`` stands. An argument may have it in its text; at the end it may be missing."""
        end = self.text.find(closing, start)
        while end >= 0:
            yield end
            end = self.text.find(closing, end + 1)
        if self.has_ended:
            yield len(self.text)

    def _check_beginning(self, body: str) -> None:
        """Raise `NoMarkupError` as soon as ``body`` cannot be calls, so that prose about the markup is not held."""
        body = body.lstrip()
        if not body or body.startswith(("[", _FUNCTION)) or _FUNCTION.startswith(body):
            return
        if body.startswith("{"):
            self._check_json(body)
            return
        word = re.match(r"[\w.-]*", body)
        name = word[0] if word else ""
        is_begun = name == body and any(tool.startswith(name) for tool in self.tools)
        if not is_begun and not (name in self.tools and re.match(r"\s*(<|\Z)", body[len(name) :])):
            raise NoMarkupError

    def _check_json(self, body: str) -> None:
        inner = body[1:].lstrip()
        key = next((key for key in _JSON_KEYS if key.startswith(inner[: len(key)])), None)
        named = _NAME.search(body)
        if key is None or (key == '"name"' and named is not None and named[1] not in self.tools):
            raise NoMarkupError
        if key == '"name"' and named is None and _NAME_BEGUN.fullmatch(inner) is None:
            raise NoMarkupError

    def _calls_in(self, body: str) -> list[MarkupCall]:
        """The calls of which ``body`` consists; none if something else is in it."""
        try:
            if body.startswith(("{", "[")):
                calls: list[MarkupCall] = []
                position = 0
                while position < len(body):
                    value, position = _decode(body, position)
                    calls += self._calls_of(value)
                    gap = _BETWEEN.match(body, position)
                    position = gap.end() if gap is not None else position
                return calls
            if body.startswith(_FUNCTION):
                inner = _Reader(body, self.tools, is_start=False, has_ended=True)
                while not inner.is_done():
                    inner.read()
                return inner.calls
            return self._glm_call(body)
        except (ValueError, NestingError, NoMarkupError):
            return []

    def _glm_call(self, body: str) -> list[MarkupCall]:
        name = re.split(r"[\s<]", body, maxsplit=1)[0]
        pairs, position = _pairs(_GLM_PAIR, body, len(name))
        if body[position:].strip():
            raise NoMarkupError
        return [self._call(name, self._typed(name, pairs))]

    def _read_function(self) -> None:
        start = _FUNCTION_START.match(self.text, self.position)
        if start is None:
            if self.has_ended or re.fullmatch(r"<function=[\w.-]*", self.text[self.position :]) is None:
                raise NoMarkupError
            raise OpenMarkupError
        name = start[1]
        if name not in self.tools:
            raise NoMarkupError
        for end in self._ends("</function>", start.end()):
            body = self.text[start.end() : end].strip()
            try:
                arguments = _decode_whole(body) if body.startswith("{") else self._parameters(name, body)
            except (ValueError, NestingError, NoMarkupError):
                continue
            self.calls.append(self._call(name, arguments))
            self.position = min(end + len("</function>"), len(self.text))
            return
        raise NoMarkupError if self.has_ended else OpenMarkupError

    def _parameters(self, name: str, body: str) -> dict[str, Any]:
        pairs, position = _pairs(_PARAMETER, body, 0)
        if body[position:].strip():
            raise NoMarkupError
        return self._typed(name, pairs)

    def _typed(self, name: str, pairs: list[tuple[str, str]]) -> dict[str, Any]:
        """The parameters with the values for which their texts stand."""
        properties = self.tools.get(name, {})
        return {key: _value(text, properties.get(key)) for key, text in pairs}

    def _read_mistral(self) -> None:
        self._skip_space()
        if self.text.startswith("[", self.position) and not self.text.startswith("[ARGS]", self.position):
            self._read_json()
            return
        named = _MISTRAL_NAME.match(self.text, self.position)
        if named is None:
            if self.has_ended or _MISTRAL_BEGUN.fullmatch(self.text, self.position) is None:
                raise NoMarkupError
            raise OpenMarkupError
        if named[1] not in self.tools:
            raise NoMarkupError
        self.position = named.end()
        self.calls.append(self._call(named[1], self._json_value()))

    def _read_json(self) -> None:
        self._skip_space()
        if self.position == len(self.text) and not self.has_ended:
            raise OpenMarkupError
        if self.text.startswith("{", self.position):
            self._check_json(self.text[self.position :])
        elif not self.text.startswith("[", self.position):
            raise NoMarkupError
        calls = self._calls_of(self._json_value())
        if not calls:
            raise NoMarkupError
        self.calls += calls

    def _json_value(self) -> Any:
        # Decoding a value that is still growing, at each delta, would take quadratic time.
        if not self.has_ended and "}" not in self.text[-40:] and "]" not in self.text[-40:]:
            raise OpenMarkupError
        try:
            value, self.position = _decode(self.text, self.position)
        except (ValueError, NestingError):
            raise (NoMarkupError if self.has_ended else OpenMarkupError) from None
        return value

    # ------------------------------------------------------------------------------ calls

    def _calls_of(self, value: object) -> list[MarkupCall]:
        """The calls that a JSON value stands for."""
        if isinstance(value, list):
            return [call for item in cast("list[object]", value) for call in self._calls_of(item)]
        if not isinstance(value, dict):
            raise NoMarkupError
        fields = cast("dict[str, Any]", value)
        if isinstance(fields.get("function"), dict):
            fields = cast("dict[str, Any]", fields["function"])
        name = fields.get("name", fields.get("function"))
        arguments: object = fields.get("arguments", fields.get("parameters"))
        if arguments is None:
            arguments = dict[str, Any]()
        elif isinstance(arguments, str):
            arguments = _decode_whole(arguments or "{}")
        return [self._call(name, arguments)]

    def _call(self, name: object, arguments: object) -> MarkupCall:
        if not isinstance(name, str) or name not in self.tools or not isinstance(arguments, dict):
            raise NoMarkupError
        return MarkupCall(name, json.dumps(arguments))


def _pairs(pattern: re.Pattern[str], text: str, position: int) -> tuple[list[tuple[str, str]], int]:
    """The pairs that ``pattern`` finds one after the other, and the place after the last one."""
    pairs: list[tuple[str, str]] = []
    while (match := pattern.match(text, position)) is not None:
        pairs.append((match[1].strip(), match[2].removeprefix("\n").removesuffix("\n")))
        position = match.end()
    return pairs, position


def _value(text: str, schema: object) -> Any:
    """The value for which ``text`` stands: the text itself where the schema takes one, else JSON."""
    kinds = _kinds(schema)
    if "string" in kinds and not (text == "null" and "null" in kinds):
        return text
    words = {"True": True, "False": False, "None": None}
    if text.strip() in words:
        return words[text.strip()]
    try:
        return _decode_whole(text.strip())
    except (ValueError, NestingError):
        return text


def _kinds(schema: object) -> set[str]:
    """The types that ``schema`` takes."""
    if not isinstance(schema, dict):
        return set()
    fields = cast("dict[str, Any]", schema)
    kind = fields.get("type")
    kinds = set(cast("list[str]", kind)) if isinstance(kind, list) else {kind} if isinstance(kind, str) else set[str]()
    values = cast("list[object]", fields.get("enum") or [])
    if not kinds and any(isinstance(value, str) for value in values):
        kinds.add("string")
    for name in ("anyOf", "oneOf"):
        for option in fields.get(name) or ():
            kinds |= _kinds(option)
    return kinds
