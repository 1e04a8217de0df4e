"""Parse the binary event stream of Amazon Bedrock: bytes arrive as the network cuts them, whole events leave.

A frame is two lengths (of the frame, and of its headers) and their checksum, headers, a payload, and a checksum of the
whole; numbers are big-endian, checksums CRC-32 (AWS, "Event stream encoding"). The payload of an event is
``{"bytes": "<base64>"}``.

The SDKs decode frames too, but leave half a dozen generators half-way when an error arrives in mid-stream.
"""

from __future__ import annotations

import struct
from binascii import crc32
from struct import Struct
from typing import Any

import msgspec

from agentloop._core.json_text import JsonDecoder
from agentloop.providers._events import MAX_EVENT_BYTES

__all__ = ["FRAMES_TYPE", "FrameParser"]

FRAMES_TYPE = "application/vnd.amazon.eventstream"
"""The ``Content-Type`` of an answer in frames."""

_PRELUDE = Struct("!III")
_CHECKSUM = Struct("!I")
_SHORT = Struct("!H")
_VALUE_BYTES = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
"""Bytes of a header's value, by its type. Values of the types 6 and 7, bytes and text, begin with their length."""


class _Payload(msgspec.Struct):
    data: bytes = msgspec.field(default=b"", name="bytes")
    message: str = ""


_payload_decoder = JsonDecoder(_Payload)

_CODES = {
    "internalServerException": "api_error",
    "modelStreamErrorException": "api_error",
    "modelTimeoutException": "timeout_error",
    "serviceUnavailableException": "overloaded_error",
    "throttlingException": "rate_limit_error",
    "validationException": "invalid_request_error",
}
"""Anthropic's code for each exception of Bedrock."""


class FrameParser:
    """Parses a stream of frames."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, chunk: bytes) -> list[bytes]:
        """The JSON of the events that ``chunk`` completes, in order. An exception becomes an event of type ``error``.

        Raises:
          ValueError: a frame is malformed or damaged.
        """
        held = self._held
        held += chunk
        events: list[bytes] = []
        while len(held) >= _PRELUDE.size:
            length, head_length, checksum = _PRELUDE.unpack_from(held)
            if crc32(held[:8]) != checksum or not 16 + head_length <= length <= MAX_EVENT_BYTES:
                raise ValueError("a malformed event-stream frame")
            if len(held) < length:
                break
            frame = bytes(held[:length])
            del held[:length]
            if crc32(frame[:-4]) != _CHECKSUM.unpack_from(frame, length - 4)[0]:
                raise ValueError("a damaged event-stream frame")
            event = _event(_headers(frame[12 : 12 + head_length]), frame[12 + head_length : -4])
            if event:
                events.append(event)
        return events


def _event(headers: dict[str, str], body: bytes) -> bytes:
    """The event in a frame; empty if the frame contains none."""
    try:
        payload = _payload_decoder.decode(body) if body else _Payload()
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"an event-stream frame with {body[:200]!r}: {error}") from error
    if headers.get(":message-type", "event") == "event":
        return payload.data
    name = headers.get(":exception-type") or headers.get(":error-code") or "error"
    text = payload.message or headers.get(":error-message") or name
    event: dict[str, Any] = {"type": "error", "error": {"type": _CODES.get(name, name), "message": text}}
    return msgspec.json.encode(event)


def _headers(head: bytes) -> dict[str, str]:
    """The headers whose value is text."""
    headers: dict[str, str] = {}
    start = 0
    try:
        while start < len(head):
            name_end = start + 1 + head[start]
            name, kind = head[start + 1 : name_end].decode(), head[name_end]
            start = name_end + 1
            if kind in (6, 7):
                (size,) = _SHORT.unpack_from(head, start)
                start += _SHORT.size
            else:
                size = _VALUE_BYTES[kind]
            if kind == 7:
                headers[name] = head[start : start + size].decode()
            start += size
    except (IndexError, KeyError, UnicodeDecodeError, struct.error) as error:
        raise ValueError("an event-stream frame with malformed headers") from error
    return headers
