"""Tool calls with a model that has not learnt to call tools: a JSON Schema constrains its response.

The request that goes out has no tools. The instructions describe the tools, and the response must be one of

- ``{"answer": "..."}``, or, for structured output, ``{"answer": {...}}``,
- ``{"tool": "name", "arguments": {...}}``, with arguments that fit the tool's schema,

which `SchemaReply` turns into text and calls while the deltas arrive. The model sees its earlier calls as it wrote
them, and results as messages of the user, since its chat template may know no other roles.

A small model does not notice when it knows enough, and would call tools again and again. The number of rounds of calls
after each message of the user is therefore limited. After the last round the model gets a transcript without tools or
calls, in which the user reports the results. Small models answer best that way: a model that sees calls imitates them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, cast

import msgspec

from agentloop._core.json_text import decode_json
from agentloop.messages import AssistantMessage, Message, Text, ToolCall, ToolResult, Usage, UserMessage, UserPart
from agentloop.models import ModelRequest, Reply, Stop, ToolSpec
from agentloop.providers._fitting import object_arguments

__all__ = ["JsonText", "SchemaReply", "held_to_schema", "may_call", "without_tools"]


# --------------------------------------------------------------------------- the request


def may_call(request: ModelRequest, *, rounds: float) -> bool:
    """Whether the response to ``request`` may be a call.

    Args:
      request: the request.
      rounds: how many responses with calls may follow one message of the user. The limit holds even for
        ``tool_choice="required"``, which would never end otherwise.
    """
    return bool(request.tools) and request.settings.tool_choice != "none" and _rounds_made(request.messages) < rounds


def held_to_schema(request: ModelRequest) -> ModelRequest:
    """``request`` without tools, for a response that may be a call, and that a `SchemaReply` must read."""
    return _bare(
        request,
        _in_turns(request.messages, with_calls=True),
        instructions="\n\n".join(filter(None, (request.instructions, _described(request.tools)))),
        output=ToolSpec("response", "An answer, or the call of a tool.", _shape(request)),
    )


def without_tools(request: ModelRequest) -> ModelRequest:
    """``request`` without tools and without earlier calls, in which the user reports the results."""
    return _bare(request, _in_turns(request.messages, with_calls=False))


def _bare(request: ModelRequest, messages: tuple[Message, ...], **changes: Any) -> ModelRequest:
    settings = msgspec.structs.replace(request.settings, tool_choice=None, parallel_tool_calls=None)
    return msgspec.structs.replace(request, messages=messages, tools=(), settings=settings, **changes)


def _rounds_made(messages: Sequence[Message]) -> int:
    """How many responses with calls follow the user's last message."""
    made = 0
    for message in reversed(messages):
        if isinstance(message, UserMessage):
            break
        made += isinstance(message, AssistantMessage) and bool(message.calls)
    return made


def _described(tools: Iterable[ToolSpec]) -> str:
    # Short: a small model on one processor reads less than a hundred tokens a second. The schema constrains the
    # whole response in any case.
    protocol = (
        "Reply with JSON. If a tool helps with what the user asks, call it: "
        '{"tool": name, "arguments": {...}}. Otherwise reply: {"answer": ...}.'
    )
    return "\n".join(("Tools:", *(f"- {_signature(spec)}: {spec.description}" for spec in tools), "", protocol))


def _signature(spec: ToolSpec) -> str:
    properties = cast("dict[str, object]", spec.parameters.get("properties") or {})
    return f"{spec.name}({', '.join(f'{name}: {_type(schema)}' for name, schema in properties.items())})"


def _type(schema: object) -> str:
    kind = cast("dict[str, object]", schema).get("type") if isinstance(schema, dict) else None
    return kind if isinstance(kind, str) else "any"


def _shape(request: ModelRequest) -> dict[str, Any]:
    """The schema of a response: an answer, or a call."""
    definitions = {f"tool{number}": spec.parameters for number, spec in enumerate(request.tools)}
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
    """``schema`` as the definition ``name`` of another schema: its references to itself point there."""
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
    """``messages`` in which user and model alternate. Some chat templates accept nothing else."""
    turns: list[Message] = []
    for message in messages:
        last = turns[-1] if turns else None
        if isinstance(message, AssistantMessage):
            calls = map(_call, message.calls) if with_calls else ()
            earlier = last.text if isinstance(last, AssistantMessage) else ""
            text = "\n".join(filter(None, (earlier, message.text, *calls)))
            if isinstance(last, AssistantMessage):
                turns.pop()
            # A message that is empty without its calls is left out.
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
    """``call`` as the model writes it."""
    return f'{{"tool": {json.dumps(call.name)}, "arguments": {object_arguments(call.arguments)}}}'


# -------------------------------------------------------------------------- the response


class SchemaReply:
    """A `Reply` that reads the JSON of a constrained response, and passes on the text or the call in it.

    Args:
      reply: receives the text or the call.
      structured: whether the answer is a JSON value, and not a text.
    """

    __slots__ = ("_all", "_begun", "_calls", "_reply", "_string", "_structured", "_tail")

    def __init__(self, reply: Reply, *, structured: bool) -> None:
        self._reply = reply
        self._structured = structured
        self._all = ""
        self._begun = False
        """Whether the kind of the response, answer or call, is known."""
        self._calls = False
        self._string = JsonText()
        self._tail = ""
        """Held back: closing braces and white space, which may belong to the JSON around the value."""

    async def text(self, text: str, /) -> None:
        """Add a delta of the JSON; pass on a sign of life."""
        if not text:
            await self._reply.text("")
            return
        self._all += text
        if self._begun:
            await self._pass_on(text)
            return
        head = _HEAD.match(self._all)
        if head is None:
            return  # noqa: ASYNC910  # there is nothing to pass on yet
        self._begun = True
        if head["tool"] is not None:
            self._calls = True
            await self._reply.tool_call(0, name=json.loads(head["tool"]))
        await self._pass_on(self._all[head.end() :])

    async def _pass_on(self, text: str) -> None:
        if self._calls or self._structured:
            # The last brace belongs to the JSON around the value. Only the end of the response shows which is last.
            whole = self._tail + text
            value = whole.rstrip("} \t\r\n")
            self._tail = whole[len(value) :]
        else:
            value = self._string.feed(text)
        await self._add(value)

    async def _add(self, value: str) -> None:
        if value and self._calls:
            await self._reply.tool_call(0, arguments=value)
        elif value:
            await self._reply.text(value)

    async def reasoning(self, text: str, /, *, signature: str | None = None) -> None:
        """Pass it on."""
        await self._reply.reasoning(text, signature=signature)

    async def tool_call(self, index: int, /, *, id: str = "", name: str = "", arguments: str = "") -> None:
        """Pass it on."""
        await self._reply.tool_call(index, id=id, name=name, arguments=arguments)

    def report_usage(self, usage: Usage, /) -> None:
        """Pass it on."""
        self._reply.report_usage(usage)

    async def finish(self, stop: Stop) -> Stop:
        """Pass on the text that was held back, and return how the response ended."""
        if not self._begun:
            # The response does not follow the schema: the server has not enforced it.
            if stop.reason != "length":
                await self._add(self._all)
            return stop
        tail = self._tail.rstrip()
        await self._add(tail[:-1] if _is_json(self._all) else tail)
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
    """Decodes a JSON string while it arrives, quotation marks included."""

    __slots__ = ("_begun", "_rest")

    def __init__(self) -> None:
        self._begun = False
        self._rest = ""
        """An incomplete escape, or everything after the end of the string."""

    def feed(self, piece: str) -> str:
        """The text in ``piece``; empty after the end of the string. Half of a surrogate pair becomes U+FFFD."""
        if not self._begun:
            piece = piece.lstrip()
            self._begun = bool(piece)
            piece = piece.removeprefix('"')
        self._rest += piece
        run = _RUN.match(self._rest)
        assert run is not None
        self._rest = self._rest[run.end() :]
        if not run[0]:
            return ""
        # Not strict: the string may contain raw control characters.
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
"""The decodable beginning of a JSON string. An escape that may be half of a surrogate pair waits for the next one."""
