"""Messages of a transcript as prompts of ACP, and what ACP says as text. Pure functions, without the connection."""

from __future__ import annotations

import base64
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from attrs import frozen

from agentloop._core.json_text import decode_json, is_array, is_object
from agentloop._core.whole_json import json_of
from agentloop.messages import (
    AssistantMessage,
    File,
    Image,
    Message,
    Reasoning,
    Text,
    ToolResult,
    Usage,
    UserMessage,
    UserPart,
)

__all__ = [
    "Abilities",
    "Mark",
    "block_text",
    "call_text",
    "command_of",
    "dictionary",
    "mark_of",
    "prompt_blocks",
    "shortened",
    "text_of_field",
    "usage_of",
]

MAX_TEXT = 20_000
"""Characters that a call of the other agent shows of its input or of its result."""

GO_ON = "Go on with the task where it was left off."


class Mark(msgspec.Struct, frozen=True):
    """The mark in a transcript by which a later process finds the other agent's session again."""

    acp: str
    """Id of the session at the other agent."""
    session: str
    """Id of our session: a fork has another one, and begins a session of its own."""
    prompts: int
    """How many prompts the other agent's session has had."""


def mark_of(message: Message) -> Mark | None:
    """The mark in ``message``, or ``None``."""
    if not isinstance(message, AssistantMessage):
        return None
    for part in message.parts:
        if isinstance(part, Reasoning) and part.signature is not None and part.signature.startswith('{"acp":'):
            try:
                return decode_json(part.signature, Mark)
            except (msgspec.DecodeError, UnicodeError):
                return None
    return None


# -------------------------------------------------------------------------------- prompts


@frozen
class Abilities:
    """The kinds of content that the other agent takes."""

    image: bool
    """Pictures."""
    embedded: bool
    """Files, by value."""


def prompt_blocks(messages: Sequence[Message], abilities: Abilities, *, preface: str = "") -> list[dict[str, Any]]:
    """The content of ``session/prompt`` for messages that the other agent's session does not have.

    The messages of people at the end are the prompt. Those before them are told as a text.

    Args:
      messages: the messages.
      abilities: the kinds of content that the other agent takes.
      preface: a text that comes first, such as instructions.
    """
    end = len(messages)
    while end and isinstance(messages[end - 1], UserMessage):
        end -= 1
    blocks: list[dict[str, Any]] = [_text(preface)] if preface else []
    if end:
        told = "\n\n".join(filter(None, map(_told, messages[:end])))
        blocks.append(_text(f"The conversation so far, which you do not remember:\n\n{told}"))
    asked = [block for message in messages[end:] for block in _blocks(message, abilities)]
    return [*blocks, *(asked or [_text(GO_ON)])]


def _told(message: Message) -> str:
    match message:
        case UserMessage():
            return f"User: {message.text}"
        case AssistantMessage():
            said = [f"Assistant: {message.text}"] if message.text.strip() else []
            return "\n".join(
                [*said, *(f"Assistant called {call.name}: {shortened(call.arguments)}" for call in message.calls)]
            )
        case ToolResult():
            return f"Result of {message.name} ({message.status}): {shortened(message.text)}"


def _blocks(message: Message, abilities: Abilities) -> Iterable[dict[str, Any]]:
    parts: tuple[UserPart, ...] = message.parts if isinstance(message, UserMessage) else ()
    for part in parts:
        yield _block(part, abilities)


def _block(part: UserPart, abilities: Abilities) -> dict[str, Any]:
    match part:
        case Text():
            return _text(part.text)
        case Image() | File() if part.url is not None:
            return {"type": "resource_link", "uri": part.url, "name": part.name if isinstance(part, File) else part.url}
        case Image() if abilities.image:
            return {"type": "image", "data": _base64(part.data), "mimeType": part.media_type}
        case Image():
            return _text("[a picture, which this agent cannot see]")
        case File() if part.media_type.startswith("text/"):
            return _text(f"{part.name}:\n{(part.data or b'').decode('utf-8', 'replace')}")
        case File() if abilities.embedded:
            resource = {"uri": f"attachment:///{part.name}", "mimeType": part.media_type, "blob": _base64(part.data)}
            return {"type": "resource", "resource": resource}
        case File():
            return _text(f"[the file {part.name}, which this agent cannot read]")


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _base64(data: bytes | None) -> str:
    return base64.b64encode(data or b"").decode()


# -------------------------------------------------------------------- what the other side says


def dictionary(value: object) -> Mapping[str, Any]:
    """``value`` if it is an object; an empty one otherwise."""
    return value if is_object(value) else {}


def text_of_field(value: object, most: int = 500) -> str:
    """``value`` if it is a text, up to ``most`` characters; an empty one otherwise."""
    return value[:most] if isinstance(value, str) else ""


def block_text(block: object) -> str:
    """A block of content as text."""
    match block:
        case {"type": "text", "text": str(text)}:
            return text
        case {"type": "resource_link", "uri": str(uri)} | {"type": "resource", "resource": {"uri": str(uri)}}:
            return f"[{uri}]"
        case {"type": str(kind)}:
            return f"[{kind}]"
        case _:
            return ""


def call_text(content: object, raw_output: object) -> str:
    """What a call of the other agent has given so far."""
    pieces = [_content_text(item) for item in content] if is_array(content) else []
    text = "\n".join(filter(None, pieces))
    if not text and raw_output is not None:
        text = raw_output if isinstance(raw_output, str) else json_of(raw_output)
    return shortened(text)


def _content_text(item: object) -> str:
    match item:
        case {"type": "content"}:
            return block_text(dictionary(item).get("content"))
        case {"type": "diff", "path": str(path), "newText": str(new)}:
            return f"{path}:\n{new}"
        case _:
            return ""


def shortened(text: str, most: int = MAX_TEXT) -> str:
    """``text``, with a note in the place of its middle if it is long."""
    if len(text) <= most:
        return text
    return f"{text[: most // 2]}\n[... {len(text) - most} characters left out ...]\n{text[-(most // 2) :]}"


def usage_of(value: object) -> Usage:
    """The usage of a turn, as the other agent reports it; an empty one if it does not."""
    fields = dictionary(value)

    def count(name: str) -> int:
        number = fields.get(name)
        return number if type(number) is int and number > 0 else 0

    # ACP counts tokens of the cache and of thoughts apart from the others.
    cached, written, thought = count("cachedReadTokens"), count("cachedWriteTokens"), count("thoughtTokens")
    return Usage(
        input_tokens=count("inputTokens") + cached + written,
        output_tokens=count("outputTokens") + thought,
        cached_tokens=cached,
        cache_written_tokens=written,
        reasoning_tokens=thought,
    )


def command_of(params: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of the call for ``terminal/create``. Raises `ValueError`."""
    command, given, cwd = params.get("command"), params.get("args"), params.get("cwd")
    args = given if is_array(given) else []
    if not isinstance(command, str) or not all(isinstance(arg, str) for arg in args):
        raise ValueError("terminal/create takes a command, and texts as its args")
    line = shlex.join([command, *args]) if args else command
    if "\0" in line:
        raise ValueError("the command has a NUL character")
    shown: dict[str, Any] = {"command": line}
    if isinstance(cwd, str) and cwd:
        shown["cwd"] = cwd
    listed = params.get("env")
    variables = [dictionary(item) for item in listed] if is_array(listed) else []
    env = {text_of_field(item.get("name")): text_of_field(item.get("value"), 100_000) for item in variables}
    return {**shown, "env": env} if env else shown
