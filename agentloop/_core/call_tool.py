"""``call_tool``, by which a model without a tool search of its own calls deferred tools.

`Lowering` puts it into requests, and turns the calls in the transcript into calls of it. `InnerCall` turns a call of it
into the call of the tool itself, while the response arrives.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any, cast

import msgspec

from agentloop._core.json_text import JsonDecoder
from agentloop._core.whole_json import json_of
from agentloop.deferred import CALL_TOOL, FIND_TOOLS
from agentloop.messages import AssistantMessage, Message, ToolCall, ToolResult
from agentloop.models import ModelRequest, ToolSpec

__all__ = ["InnerCall", "Lowering", "wrapped"]

_decode = JsonDecoder().decode

_CALLER = ToolSpec(
    CALL_TOOL,
    f"Call a tool that {FIND_TOOLS} has loaded, or will load. It is named in the list of {FIND_TOOLS}.",
    {
        "type": "object",
        "properties": {
            "name": {"type": "string", "description": "Name of the tool."},
            "arguments": {"type": "object", "description": "Its arguments, as its parameters say."},
        },
        "required": ["name", "arguments"],
    },
)


class Lowering:
    """Turns the calls of deferred tools into calls of ``call_tool``, in request after request of one run.

    A message that the last request had is not turned again: adapters know messages by their identity.
    """

    __slots__ = ("_direct", "_lowered", "_messages", "_specs", "_tools")

    def __init__(self) -> None:
        self._specs: tuple[ToolSpec, ...] = ()
        self._tools: tuple[ToolSpec, ...] = ()
        self._direct = frozenset[str]()
        self._messages: tuple[Message, ...] = ()
        self._lowered: tuple[Message, ...] = ()

    def lowered(self, request: ModelRequest) -> ModelRequest:
        """``request`` without deferred tools, and with ``call_tool``."""
        if request.tools is not self._specs:
            self._specs = request.tools
            self._tools = (*[spec for spec in request.tools if not spec.deferred], _CALLER)
            direct = frozenset([*[spec.name for spec in self._tools], FIND_TOOLS])
            if direct != self._direct:
                self._direct, self._messages, self._lowered = direct, (), ()
        messages, before = tuple(request.messages), self._messages
        if messages[: len(before)] == before:
            lowered = (*self._lowered, *map(self._message, messages[len(before) :]))
        else:
            known = dict(zip(map(id, before), self._lowered, strict=True))
            lowered = tuple([known.get(id(message)) or self._message(message) for message in messages])
        self._messages, self._lowered = messages, lowered
        return msgspec.structs.replace(request, messages=lowered, tools=self._tools)

    def _message(self, message: Message) -> Message:
        if isinstance(message, ToolResult):
            return message if message.name in self._direct else msgspec.structs.replace(message, name=CALL_TOOL)
        if isinstance(message, AssistantMessage) and any(call.name not in self._direct for call in message.calls):
            parts = [self._call(part) if isinstance(part, ToolCall) else part for part in message.parts]
            return msgspec.structs.replace(message, parts=tuple(parts))
        return message

    def _call(self, call: ToolCall) -> ToolCall:
        return call if call.name in self._direct else ToolCall(call.id, CALL_TOOL, wrapped(call.name, call.arguments))


def wrapped(name: str, arguments: str) -> str:
    """The arguments of ``call_tool`` for a call of the tool ``name``, as JSON text."""
    name_text = json_of(name)
    try:
        is_object = isinstance(_decode(arguments or "{}"), dict)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        is_object = False
    # The object as the model wrote it; other text as text.
    value = (arguments.strip() or "{}") if is_object else json_of(arguments)
    return f'{{"name":{name_text},"arguments":{value}}}'


@cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """The arguments up to the inner ones, if the name comes first; and what matters in the inner ones."""
    # Compiled when they are needed first: most programs defer nothing.
    head = r'\s*\{\s*"name"\s*:\s*"([^"\\]*)"\s*,\s*"arguments"\s*:\s*(?=\{)'
    return re.compile(head), re.compile(r'["\\{}]')


_LONGEST_HEAD = 400
"""Characters after which the arguments are not read piece by piece any more, if the head has not ended."""


class InnerCall:
    """The call of a deferred tool in the pieces of the arguments of a ``call_tool``.

    The pieces of the inner arguments are given at once if the model writes the name first, as nearly all do. Otherwise
    `finish` gives them all.
    """

    __slots__ = ("_depth", "_is_escaped", "_is_in_text", "_pieces", "_size", "_tried", "is_done", "name")

    def __init__(self) -> None:
        self._pieces: list[str] = []
        """The arguments of ``call_tool``, as long as the name is not known."""
        self._size = 0
        self._tried = 0
        """The size of the arguments that were last found not to be whole."""
        self.name = ""
        """The inner tool's name, once it is known."""
        self._depth = 0
        self._is_in_text = False
        self._is_escaped = False
        self.is_done = False
        """Whether the inner arguments have come to their end, or the call was finished."""

    def add(self, text: str) -> str:
        """Take the next piece of the outer arguments, and give the piece of the inner ones that it has."""
        if self.is_done:
            return ""
        if self.name:
            return self._inner(text)
        self._pieces.append(text)
        size, self._size = self._size, self._size + len(text)
        if size > _LONGEST_HEAD:
            return ""
        outer = "".join(self._pieces)
        head = _patterns()[0].match(outer)
        if head is None or not head[1]:
            return ""
        self.name = head[1]
        self._pieces.clear()
        return self._inner(outer[head.end() :])

    def _inner(self, text: str) -> str:
        """The part of ``text`` up to the brace that closes the inner arguments."""
        position = 0
        if self._is_escaped and text:
            self._is_escaped, position = False, 1
        marks = _patterns()[1]
        while (mark := marks.search(text, position)) is not None:
            character, position = mark[0], mark.end()
            if self._is_in_text:
                if character == "\\":
                    if position == len(text):
                        self._is_escaped = True
                    position += 1
                elif character == '"':
                    self._is_in_text = False
            elif character == '"':
                self._is_in_text = True
            elif character == "{":
                self._depth += 1
            elif character == "}":
                self._depth -= 1
                if not self._depth:
                    self.is_done = True
                    return text[:position]
        return text

    @property
    def is_complete(self) -> bool:
        """Whether `finish` would give a call: the buffered arguments are whole."""
        if self.name or self.is_done or self._tried == self._size:
            return False
        self._tried = self._size
        return _inner_of("".join(self._pieces)) is not None

    def finish(self) -> tuple[str, str]:
        """The name of the called tool, and the rest of its arguments, when no further piece comes.

        Without a name in them, it is a call of ``call_tool`` itself, which there is not, so that the model reads why.
        """
        if self.name or self.is_done:
            self.is_done = True
            return self.name, ""
        self.is_done = True
        outer = "".join(self._pieces)
        self.name, arguments = _inner_of(outer) or (CALL_TOOL, outer)
        return self.name, arguments


def _inner_of(outer: str) -> tuple[str, str] | None:
    """The tool that the whole arguments ``outer`` of a ``call_tool`` name, and its arguments; ``None`` without one."""
    try:
        values: Any = _decode(outer)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    if not isinstance(values, dict):
        return None
    given = dict(cast("dict[str, Any]", values))
    name = given.pop("name", None)
    if not isinstance(name, str) or not name or name == CALL_TOOL:
        return None
    # Some models leave out the object, and some write it as text.
    inner = given.pop("arguments", given)
    return name, inner if isinstance(inner, str) else json_of({} if inner is None else inner)
