"""The binary form in which Amazon Bedrock sends events, taken apart: bytes go in as they come, events come out.

A frame is two lengths (its own, that of its headers) and their checksum, headers, a payload, and a checksum of it all;
numbers are big-endian, checksums CRC-32 (AWS, "Event stream encoding"). What the model sends is in payloads of the
form ``{"bytes": "<base64>"}``.

The SDKs decode it too, but they raise at an error in mid-stream with half a dozen generators left half-way.
"""

from __future__ import annotations

import struct
from binascii import crc32
from struct import Struct
from typing import Any

import msgspec

from agentloop.providers._events import MAX_EVENT_BYTES

__all__ = ["FRAMES_TYPE", "FrameParser"]

FRAMES_TYPE = "application/vnd.amazon.eventstream"
"""The ``Content-Type`` of such an answer."""

_PRELUDE = Struct("!III")
_CHECKSUM = Struct("!I")
_SHORT = Struct("!H")
_SIZES = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
"""Bytes of a header's value, by its type. Types 6 and 7, bytes and text, say their length themselves."""


class _Payload(msgspec.Struct):
    data: bytes = msgspec.field(default=b"", name="bytes")
    message: str = ""


_payload = JsonDecoder(_Payload)

_NAMES = {
    "internalServerException": "api_error",
    "modelStreamErrorException": "api_error",
    "modelTimeoutException": "timeout_error",
    "serviceUnavailableException": "overloaded_error",
    "throttlingException": "rate_limit_error",
    "validationException": "invalid_request_error",
}
"""What the provider of the model calls an error of Bedrock."""


class FrameParser:
    """Takes a stream of frames apart."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, chunk: bytes) -> list[bytes]:
        """The JSON of the events that ``chunk`` completes, in order. An exception is an event of type ``error``.

        Raises:
          ValueError: these are no frames.
        """
        held = self._held
        held += chunk
        events: list[bytes] = []
        while len(held) >= _PRELUDE.size:
            length, head_length, checksum = _PRELUDE.unpack_from(held)
            if crc32(held[:8]) != checksum or not 16 + head_length <= length <= MAX_EVENT_BYTES:
                raise ValueError("a frame that is none")
            if len(held) < length:
                break
            frame = bytes(held[:length])
            del held[:length]
            if crc32(frame[:-4]) != _CHECKSUM.unpack_from(frame, length - 4)[0]:
                raise ValueError("a frame that was damaged")
            event = _event(_headers(frame[12 : 12 + head_length]), frame[12 + head_length : -4])
            if event:
                events.append(event)
        return events


def _event(headers: dict[str, str], body: bytes) -> bytes:
    """The event in a frame; empty if there is none in it."""
    try:
        payload = _payload.decode(body) if body else _Payload()
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"a frame with {body[:200]!r}: {error}") from error
    if headers.get(":message-type", "event") == "event":
        return payload.data
    name = headers.get(":exception-type") or headers.get(":error-code") or "error"
    text = payload.message or headers.get(":error-message") or name
    told: dict[str, Any] = {"type": "error", "error": {"type": _NAMES.get(name, name), "message": text}}
    return msgspec.json.encode(told)


def _headers(head: bytes) -> dict[str, str]:
    """Those whose value is text."""
    headers: dict[str, str] = {}
    at = 0
    try:
        while at < len(head):
            name_end = at + 1 + head[at]
            name, kind = head[at + 1 : name_end].decode(), head[name_end]
            at = name_end + 1
            if kind in (6, 7):
                (size,) = _SHORT.unpack_from(head, at)
                at += _SHORT.size
            else:
                size = _SIZES[kind]
            if kind == 7:
                headers[name] = head[at : at + size].decode()
            at += size
    except (IndexError, KeyError, UnicodeDecodeError, struct.error) as error:
        raise ValueError("a frame with headers that are none") from error
    return headers
