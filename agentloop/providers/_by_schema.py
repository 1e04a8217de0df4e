"""Tool calls with a model that has not learnt to call tools: its response is held to a JSON Schema.

The request that is sent has no tools. They are described in the instructions, and the response must be one of

- ``{"answer": "..."}``, or, for structured output, ``{"answer": {...}}``,
- ``{"tool": "name", "arguments": {...}}``, with arguments that fit the tool's schema,

which is made text and calls again while it comes. Earlier calls are shown to the model as it wrote them, and results
as what the user says, since its chat template may know no other roles.

A model that is too small to know when it has what it needs would call again and again. So it gets a number of rounds
of calls for each thing that the user says. After them it is asked as if there had never been any tools: the user has
said what the results are. It answers best so: a model that sees calls imitates them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, cast

import msgspec

from agentloop._core.json_text import decode_json
from agentloop.messages import AssistantMessage, Message, Text, ToolCall, ToolResult, UserMessage, UserPart
from agentloop.models import ModelRequest, Reply, Stop, ToolSpec
from agentloop.providers._fitting import object_arguments

__all__ = ["JsonText", "SchemaReply", "held_to_schema", "may_call", "without_tools"]


# --------------------------------------------------------------------------- the request


def may_call(request: ModelRequest, *, rounds: float) -> bool:
    """Whether the response to ``request`` may be a call.

    Args:
      request: what is asked.
      rounds: how many responses with calls there may be for one thing that the user says. That holds for
        ``tool_choice="required"`` too, which would have no end.
    """
    return bool(request.tools) and request.settings.tool_choice != "none" and _rounds_made(request.messages) < rounds


def held_to_schema(request: ModelRequest) -> ModelRequest:
    """``request`` without tools, but for a response that may be a call: it is to be read by a `SchemaReply`."""
    return _bare(
        request,
        _in_turns(request.messages, with_calls=True),
        instructions="\n\n".join(filter(None, (request.instructions, _described(request.tools)))),
        output=ToolSpec("response", "An answer, or the call of a tool.", _shape(request)),
    )


def without_tools(request: ModelRequest) -> ModelRequest:
    """``request`` as if there had never been any tools: the user has said what the results are."""
    return _bare(request, _in_turns(request.messages, with_calls=False))


def _bare(request: ModelRequest, messages: tuple[Message, ...], **changes: Any) -> ModelRequest:
    settings = msgspec.structs.replace(request.settings, tool_choice=None, parallel_tool_calls=None)
    return msgspec.structs.replace(request, messages=messages, tools=(), settings=settings, **changes)


def _rounds_made(messages: Sequence[Message]) -> int:
    """How many responses with calls there are since the user last said something."""
    made = 0
    for message in reversed(messages):
        if isinstance(message, UserMessage):
            break
        made += isinstance(message, AssistantMessage) and bool(message.calls)
    return made


def _described(tools: Iterable[ToolSpec]) -> str:
    # Short: a small model on one processor reads less than a hundred tokens a second. Its response is held to the
    # whole schema in any case.
    how = (
        "Reply with JSON. If a tool helps with what the user asks, call it: "
        '{"tool": name, "arguments": {...}}. Otherwise reply: {"answer": ...}.'
    )
    return "\n".join(("Tools:", *(f"- {_signature(spec)}: {spec.description}" for spec in tools), "", how))


def _signature(spec: ToolSpec) -> str:
    properties = cast("dict[str, object]", spec.parameters.get("properties") or {})
    return f"{spec.name}({', '.join(f'{name}: {_type(schema)}' for name, schema in properties.items())})"


def _type(schema: object) -> str:
    kind = cast("dict[str, object]", schema).get("type") if isinstance(schema, dict) else None
    return kind if isinstance(kind, str) else "any"


def _shape(request: ModelRequest) -> dict[str, Any]:
    """The schema of a response: an answer, or a call."""
    definitions = {f"tool{place}": spec.parameters for place, spec in enumerate(request.tools)}
    shapes = [
        _object(tool={"const": spec.name}, arguments=_reference(name))
        for name, spec in zip(definitions, request.tools, strict=True)
    ]
    if request.settings.tool_choice != "required":
        definitions["answer"] = {"type": "string"} if request.output is None else request.output.parameters
        shapes.insert(0, _object(answer=_reference("answer")))
    moved = {name: _moved(schema, name) for name, schema in definitions.items()}
    return {**({"anyOf": shapes} if len(shapes) > 1 else shapes[0]), "$defs": moved}


def _object(**properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _reference(name: str) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{name}"}


def _moved(schema: Any, name: str) -> Any:
    """``schema``, such that what it refers to in itself is found when it stands among the definitions as ``name``."""
    if isinstance(schema, dict):
        return {
            key: f"#/$defs/{name}{inner[1:]}"
            if key == "$ref" and isinstance(inner, str) and inner.startswith("#")
            else _moved(inner, name)
            for key, inner in cast("dict[str, Any]", schema).items()
        }
    if isinstance(schema, list):
        return [_moved(inner, name) for inner in cast("Iterable[Any]", schema)]
    return schema


def _in_turns(messages: Iterable[Message], *, with_calls: bool) -> tuple[Message, ...]:
    """``messages`` of the user and the model, taking turns. Some chat templates take nothing else."""
    turns: list[Message] = []
    for message in messages:
        last = turns[-1] if turns else None
        if isinstance(message, AssistantMessage):
            calls = map(_call, message.calls) if with_calls else ()
            earlier = last.text if isinstance(last, AssistantMessage) else ""
            text = "\n".join(filter(None, (earlier, message.text, *calls)))
            if isinstance(last, AssistantMessage):
                turns.pop()
            # One that says nothing is left out, if that leaves nothing out.
            if text or with_calls or not message.calls:
                turns.append(AssistantMessage((Text(text),)))
        else:
            parts = _result(message) if isinstance(message, ToolResult) else message.parts
            if isinstance(last, UserMessage):
                turns.pop()
                parts = (*last.parts, *parts)
            turns.append(UserMessage(parts))
    return tuple(turns)


def _result(result: ToolResult) -> tuple[UserPart, ...]:
    failed = "" if result.status == "ok" else "Error: "
    others = (part for part in result.parts if not isinstance(part, Text))
    return (Text(f"The tool {result.name} returned: {failed}{result.text}"), *others)


def _call(call: ToolCall) -> str:
    """``call``, as a model is to write it."""
    return f'{{"tool": {json.dumps(call.name)}, "arguments": {object_arguments(call.arguments)}}}'


# -------------------------------------------------------------------------- the response


class SchemaReply:
    """A `Reply` that takes the JSON that the model was held to, and tells the text and the call in it.

    Args:
      reply: where the text and the call go.
      structured: whether the answer is JSON itself.
    """

    __slots__ = ("_all", "_begun", "_calls", "_reply", "_string", "_structured", "_tail")

    def __init__(self, reply: Reply, *, structured: bool) -> None:
        self._reply = reply
        self._structured = structured
        self._all = ""
        self._begun = False
        """Whether it is known what the response is."""
        self._calls = False
        self._string = JsonText()
        self._tail = ""
        """What may be the end of the response, and then is no part of what is in it."""

    async def text(self, text: str, /) -> None:
        """A piece of the JSON."""
        self._all += text
        if self._begun:
            await self._tell(text)
            return
        head = _HEAD.match(self._all)
        if head is None:
            return  # noqa: ASYNC910  # there is nothing to tell yet
        self._begun = True
        if head["tool"] is not None:
            self._calls = True
            await self._reply.tool_call(0, name=json.loads(head["tool"]))
        await self._tell(self._all[head.end() :])

    async def _tell(self, text: str) -> None:
        if self._calls or self._structured:
            # The last brace belongs to what is around the value. It is the last if no more comes.
            whole = self._tail + text
            value = whole.rstrip("} \t\r\n")
            self._tail = whole[len(value) :]
        else:
            value = self._string.feed(text)
        await self._give(value)

    async def _give(self, value: str) -> None:
        if value and self._calls:
            await self._reply.tool_call(0, arguments=value)
        elif value:
            await self._reply.text(value)

    async def reasoning(self, text: str, /, *, signature: str | None = None) -> None:
        """Passed on."""
        await self._reply.reasoning(text, signature=signature)

    async def tool_call(self, index: int, /, *, id: str = "", name: str = "", arguments: str = "") -> None:
        """Passed on."""
        await self._reply.tool_call(index, id=id, name=name, arguments=arguments)

    async def finish(self, stop: Stop) -> Stop:
        """Tell what has been held back, and how the response ended."""
        if not self._begun:
            # Not what it was held to, and not the beginning of it either.
            if stop.reason != "length":
                await self._give(self._all)
            return stop
        tail = self._tail.rstrip()
        await self._give(tail[:-1] if _is_json(self._all) else tail)
        return msgspec.structs.replace(stop, reason="tool_calls") if self._calls and stop.reason == "end" else stop


_STRING = r'"(?:[^"\\]|\\.)*"'
_HEAD = re.compile(rf'\s*\{{\s*(?:"answer"\s*:\s*|"tool"\s*:\s*(?P<tool>{_STRING})\s*,\s*"arguments"\s*:\s*)(?=\S)')


def _is_json(text: str) -> bool:
    try:
        decode_json(text)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return False
    return True


class JsonText:
    """Reads a JSON string while it comes: `feed` it with the quotation marks and all."""

    __slots__ = ("_begun", "_left")

    def __init__(self) -> None:
        self._begun = False
        self._left = ""
        """An escape of which a part is missing, or all after the end."""

    def feed(self, piece: str) -> str:
        """What ``piece`` adds to the text. Nothing, after its end. Half of a surrogate pair becomes U+FFFD."""
        if not self._begun:
            piece = piece.lstrip()
            self._begun = bool(piece)
            piece = piece.removeprefix('"')
        self._left += piece
        run = _RUN.match(self._left)
        assert run is not None
        self._left = self._left[run.end() :]
        if not run[0]:
            return ""
        # Not strict: it may hold control characters as they are.
        text: str = json.loads(f'"{run[0]}"', strict=False)
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


_RUN = re.compile(
    r"""(?:
      [^"\\]
    | \\["\\/bfnrt]
    | \\u (?![dD][89abAB]) [0-9a-fA-F]{4}
    | \\u [dD][89abAB][0-9a-fA-F]{2} (?:
        \\u [dD][c-fC-F][0-9a-fA-F]{2}
      | (?= [^\\] | \\[^u] | \\u[^dD] | \\u[dD][^c-fC-F] )
      )
    )*""",
    re.VERBOSE,
)
"""What can be told of a JSON string. An escape that may be the first half of a pair waits for what follows."""
