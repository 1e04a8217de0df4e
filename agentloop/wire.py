"""The JSON form of events and messages.

An event is one JSON object: ``{"type": "text_delta", "source": {...}, "seq": 7, "text": "Hi"}``. The form is
stable: a field may be added with a default, none is renamed or removed. ``type`` is the class name in snake case.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import get_args

import msgspec

from agentloop._core.json_text import MAX_OWN_DEPTH, JsonDecoder, decode_own
from agentloop.errors import UsageError
from agentloop.events import StreamEvent, UnknownEvent
from agentloop.messages import Message

__all__ = [
    "EVENT_KINDS",
    "EVENT_TYPES",
    "check_readable",
    "decode_event",
    "decode_messages",
    "encode_event",
    "encode_messages",
    "event_type",
]

_encoder = msgspec.json.Encoder()

# Errors of decoding a text that is not JSON, nests too deeply, or does not fit the type.
_NOT_JSON = (msgspec.DecodeError, UnicodeError)


class _Head(msgspec.Struct):
    type: str


_head = JsonDecoder(_Head, max_depth=MAX_OWN_DEPTH)


EVENT_KINDS: Mapping[type, str] = {cls: cls.__struct_config__.tag for cls in get_args(StreamEvent)}
"""The ``type`` of the JSON form of each class of events."""

_CLASSES: dict[str, type[StreamEvent]] = {tag: cls for cls, tag in EVENT_KINDS.items()}

EVENT_TYPES = frozenset(_CLASSES)
"""The values of ``type`` that this version knows."""


@cache
def _decoder(tag: str) -> JsonDecoder[StreamEvent]:
    # Created on first use: a decoder for a class with nested unions takes a millisecond.
    return JsonDecoder(_CLASSES[tag], max_depth=MAX_OWN_DEPTH)


def check_readable(kind: str, raw: bytes) -> None:
    """Check that ``raw``, the JSON form of an event whose ``type`` is ``kind``, can be decoded.

    Raises:
      UsageError: a field of the event has a value of a wrong type. The message names it.
    """
    try:
        _decoder(kind).decode(raw)
    except (*_NOT_JSON, UsageError) as error:
        raise UsageError(f"{_CLASSES[kind].__name__} could not be read again: {error}") from error


def event_type(event: StreamEvent) -> str:
    """The ``type`` field of the JSON form of ``event``."""
    return EVENT_KINDS[type(event)]


def encode_event(event: StreamEvent | UnknownEvent) -> bytes:
    """Encode ``event`` as one JSON object without line breaks, in UTF-8."""
    # Asked of the class, so that no slow `isinstance` is asked of all events that are known.
    if event.__class__ is UnknownEvent and isinstance(event, UnknownEvent):
        return event.raw
    return _encoder.encode(event)


def decode_event(raw: bytes | str) -> StreamEvent | UnknownEvent:
    """Decode the output of `encode_event`. A type that this version does not know gives an `UnknownEvent`.

    Raises:
      UsageError: ``raw`` is not JSON, or its fields do not fit its type.
    """
    try:
        tag = _head.decode(raw).type
        if tag not in _CLASSES:
            return UnknownEvent(tag, raw.encode() if isinstance(raw, str) else bytes(raw))
        return _decoder(tag).decode(raw)
    except _NOT_JSON as error:
        shown = raw[:80]
        raise UsageError(f"this is not an event: {error}: {shown!r}") from error


def encode_messages(messages: tuple[Message, ...] | list[Message]) -> bytes:
    """Encode a transcript as a JSON array, in UTF-8."""
    return _encoder.encode(messages)


def decode_messages(raw: bytes | str) -> tuple[Message, ...]:
    """Decode the output of `encode_messages`.

    Raises:
      UsageError: ``raw`` is not JSON, or not an array of messages.
    """
    try:
        return decode_own(raw, tuple[Message, ...])
    except _NOT_JSON as error:
        raise UsageError(f"this is not a list of messages: {error}") from error
