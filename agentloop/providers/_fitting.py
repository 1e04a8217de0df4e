"""Make a transcript fit for a wire: any session can be sent to any provider, whichever models wrote it.

A transcript holds names, call ids, arguments, files and signatures as the model or the tool that made them wrote them.
Each wire accepts less than that, and a provider that refuses a transcript once refuses it for ever. The rules that
several wires share are here; each format applies its own set of them. All of it happens on the way out: the transcript
keeps the original.
"""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import blake2s
from typing import TypeVar

import msgspec
from attrs import frozen

from agentloop._core.json_text import JsonDecoder
from agentloop.messages import AssistantPart, File, Image, Reasoning

__all__ = ["Echo", "WireRules", "data_url", "echo_in", "file_text", "object_arguments"]


# ----------------------------------------------------------------------------- ids and names


@frozen(kw_only=True)
class WireRules:
    """The limits of a wire on call ids and tool names."""

    max_call_id: int | None = None
    """Characters that a call id may have; ``None`` for any number."""
    max_tool_name: int | None = None
    """Characters that a tool's name may have; ``None`` for any number."""
    foreign: re.Pattern[str] | None = None
    """A character that neither an id nor a name may contain; ``None`` if the wire accepts all."""

    def call_id(self, id: str) -> str:
        """``id``, or an id of the same call that the wire accepts. The same id always gives the same result."""
        too_long = self.max_call_id is not None and len(id) > self.max_call_id
        has_foreign = self.foreign is not None and (not id or self.foreign.search(id) is not None)
        return f"call_{blake2s(id.encode(), digest_size=12).hexdigest()}" if too_long or has_foreign else id

    def tool_name(self, name: str) -> str:
        """``name`` with ``_`` for each character that the wire refuses, cut to the length that it accepts."""
        return (name if self.foreign is None else self.foreign.sub("_", name))[: self.max_tool_name]


# --------------------------------------------------------------------------------- arguments


_json_object = JsonDecoder(dict[str, msgspec.Raw])


def object_arguments(arguments: str) -> str:
    """``arguments`` if they are a JSON object, which all wires demand, else an object that contains them as text."""
    try:
        _json_object.decode(arguments)
    except (msgspec.DecodeError, UnicodeError):
        return msgspec.json.encode({"invalid_json": arguments}).decode() if arguments.strip() else "{}"
    return arguments


# -------------------------------------------------------------------------- images and files


def data_url(part: Image | File) -> str:
    """The URL of ``part``, or a URL that contains its data (RFC 2397)."""
    if part.data is None:
        return part.url or ""
    return f"data:{part.media_type};base64,{b64encode(part.data).decode('ascii')}"


def file_text(file: File) -> str | None:
    """The text of ``file`` after its name; ``None`` if it is no text file, or only a URL."""
    if file.data is None or (not file.media_type.startswith("text/") and file.media_type != "application/json"):
        return None
    try:
        return f"{file.name}:\n\n{file.data.decode('utf-8')}"
    except UnicodeDecodeError:
        return None


# ------------------------------------------------------------------- echoes: signed reasoning


class Echo(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """State that a server wants back unchanged, such as encrypted reasoning. Each format has a class of its own.

    Its JSON is the ``signature`` of a `Reasoning` part. Field names of one format are unknown to the others, so no
    format takes the echo of another one for its own.
    """

    model: str
    """The model that wrote it. The echo goes back to this model only: no other one can read it."""


_E = TypeVar("_E", bound=Echo)


def echo_in(part: AssistantPart, decoder: JsonDecoder[_E], model: str) -> _E | None:
    """The echo in ``part`` that ``model`` gets back; ``None`` if there is none, or another model wrote it."""
    if not isinstance(part, Reasoning) or part.signature is None:
        return None
    try:
        echo = decoder.decode(part.signature)
    except (msgspec.DecodeError, UnicodeError):
        return None
    return echo if echo.model == model else None
