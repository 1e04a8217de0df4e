"""Values as one line of text: the same on each Python, and short."""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Callable, Mapping, Sequence, Set as AbstractSet
from typing import Any, cast
from zlib import crc32

import attrs
import msgspec

from agentloop.events import Event
from agentloop.messages import AssistantMessage, Message, Text, ToolCall, ToolResult, Usage, UserMessage

__all__ = ["shown", "shown_error", "shown_event", "shown_message"]

LONG = 160
"""Characters of a text that are shown. Of a longer one, the rest is a checksum."""
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def shown(value: object) -> str:
    """``value`` on one line, without its fields that have their default."""
    match value:
        case None | bool():
            return repr(value)
        case enum.Enum():
            return f"{type(value).__name__}.{value.name}"
        case int():
            return str(value)
        case float():
            # Sums of floats differ in the last digits from one Python to the next.
            return f"{value:.9g}"
        case str():
            return _text(value)
        case bytes():
            return f"{len(value)} bytes {crc32(value):08x}"
        case UserMessage() | AssistantMessage() | ToolResult():
            return shown_message(value)
        case BaseException():
            return shown_error(value)
        case Usage():
            return _usage(value)
        case msgspec.Struct():
            return _fields(value, _changed(value))
        case Mapping():
            items = cast("Mapping[object, object]", value).items()
            return "{" + ", ".join(f"{shown(key)}: {shown(item)}" for key, item in items) + "}"
        case AbstractSet():
            return "{" + ", ".join(sorted(map(shown, cast("AbstractSet[object]", value)))) + "}"
        case Sequence():
            return "[" + ", ".join(map(shown, cast("Sequence[object]", value))) + "]"
        case type():
            return value.__name__
        case _ if attrs.has(type(value)):
            fields: Any = attrs.fields(cast("Any", type(value)))
            return _fields(value, {field.name: getattr(value, field.name) for field in fields})
        case _:
            return _text(_ADDRESS.sub("", repr(value)))


def _text(text: str) -> str:
    if len(text) > LONG:
        rest = text[LONG - 20 :].encode("utf-8", "surrogatepass")
        return f"{json.dumps(text[: LONG - 20])}+{len(text) - LONG + 20}:{crc32(rest):08x}"
    return json.dumps(text)


def _changed(value: msgspec.Struct) -> dict[str, object]:
    names, defaults = value.__struct_fields__, value.__struct_defaults__
    first = len(names) - len(defaults)
    fields: dict[str, object] = {}
    for number, name in enumerate(names):
        item = getattr(value, name)
        if number >= first:
            default = defaults[number - first]
            if not isinstance(default, type(msgspec.NODEFAULT)) and type(item) is type(default) and item == default:
                continue
            if item in ((), {}, []) and type(item) in (tuple, dict, list):
                continue
        fields[name] = item
    return fields


def _fields(value: object, fields: Mapping[str, object]) -> str:
    return f"{type(value).__name__}({', '.join(f'{name}={shown(item)}' for name, item in fields.items())})"


def _usage(usage: Usage) -> str:
    fields = _changed(usage)
    tokens = f"{fields.pop('input_tokens', 0)}+{fields.pop('output_tokens', 0)}"
    return "".join([tokens, *(f" {name}={shown(item)}" for name, item in fields.items())])


def shown_message(message: Message) -> str:
    """A message of a transcript, on one line."""
    fields = _changed(message)
    parts = "".join(f" {_part(part)}" for part in message.parts)
    fields.pop("parts", None)
    # The source of the event names the agent.
    fields.pop("agent", None)
    if isinstance(message, ToolResult):
        who = f"result {fields.pop('call_id')} {fields.pop('name')}"
    else:
        who = "user" if isinstance(message, UserMessage) else "model"
    return who + parts + "".join(f" {name}={shown(item)}" for name, item in fields.items())


def _part(part: object) -> str:
    if isinstance(part, Text) and not (_changed(part).keys() - {"text"}):
        return _text(part.text)
    if isinstance(part, ToolCall):
        return f"{part.id}:{part.name}{_text(part.arguments)[1:-1]}"
    return shown(part)


def shown_error(error: BaseException) -> str:
    """An error: its class, its text, and what it was raised from."""
    text = f"{type(error).__name__}({_text(_ADDRESS.sub('', str(error)))})"
    if isinstance(error, BaseExceptionGroup):
        inner = cast("BaseExceptionGroup[BaseException]", error).exceptions
        text += "[" + ", ".join(sorted(map(shown_error, inner))) + "]"
    notes: list[str] = getattr(cast("Any", error), "__notes__", [])
    for note in notes:
        text += f" note {_text(_ADDRESS.sub('', note))}"
    if error.__cause__ is not None:
        text += f" from {type(error.__cause__).__name__}"
    return text


def shown_event(event: Event, message: Callable[[Message], str]) -> str:
    """An event without its source and its number, and with its messages as ``message`` shows them."""
    fields = _changed(event)
    fields.pop("source", None)
    fields.pop("seq", None)
    words = [type(event).__name__]
    for name, item in fields.items():
        if isinstance(item, (UserMessage, AssistantMessage, ToolResult)):
            words.append(message(item))
        else:
            words.append(f"{name}={shown(item)}")
    return " ".join(words)
