"""What a message holds, in the forms that more than one protocol wants. Plain functions: nothing here waits."""

from __future__ import annotations

from base64 import b64encode

import msgspec

from agentloop._core.json_text import JsonDecoder
from agentloop.messages import File, Image

__all__ = ["as_object", "text_of_file", "url_of"]

_json_object = JsonDecoder(dict[str, msgspec.Raw])


def url_of(part: Image | File) -> str:
    """Where ``part`` is, or all of it: a data URL (RFC 2397)."""
    if part.data is None:
        return part.url or ""
    return f"data:{part.media_type};base64,{b64encode(part.data).decode('ascii')}"


def text_of_file(file: File) -> str | None:
    """The text of ``file``, with its name; ``None`` if it is no text file, or not here."""
    if file.data is None or (not file.media_type.startswith("text/") and file.media_type != "application/json"):
        return None
    try:
        return f"{file.name}:\n\n{file.data.decode('utf-8')}"
    except UnicodeDecodeError:
        return None


def as_object(arguments: str) -> str:
    """``arguments`` if they are a JSON object, as servers insist on, else an object that says what they were."""
    try:
        _json_object.decode(arguments)
    except (msgspec.DecodeError, UnicodeError):
        return msgspec.json.encode({"invalid_json": arguments}).decode() if arguments.strip() else "{}"
    return arguments
