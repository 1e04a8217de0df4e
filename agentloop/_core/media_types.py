"""What a picture or a file really is, and which of them the model reads as text.

A tool or a server may call a file by a type that it is not. The bytes count, and not the declared type.
"""

from __future__ import annotations

import binascii
from base64 import b64decode

from agentloop._core.on_first_use import unquote_to_bytes
from agentloop.messages import File, Image

__all__ = ["IMAGES", "SOUNDS", "bytes_of", "decoded_text", "plain_type", "text_of_media", "type_of"]

IMAGES = frozenset({"image/gif", "image/jpeg", "image/png", "image/webp"})
"""The types of pictures that all providers read."""
SOUNDS = frozenset({"audio/mpeg", "audio/wav"})
"""The types of sound that the chat completions format has a field for."""


_ALIASES = {
    "application/x-pdf": "application/pdf",
    "audio/mp3": "audio/mpeg",
    "audio/wave": "audio/wav",
    "audio/x-wav": "audio/wav",
    "image/jpg": "image/jpeg",
    "image/pjpeg": "image/jpeg",
    "image/x-png": "image/png",
}
_TEXTS = frozenset(
    {
        "application/javascript",
        "application/json",
        "application/toml",
        "application/x-yaml",
        "application/xml",
        "application/yaml",
        "image/svg+xml",
    }
)
"""Types beside ``text/*`` whose files are texts."""


def bytes_of(part: Image | File) -> tuple[str, bytes]:
    """The declared type of ``part``, without parameters, and its bytes; no bytes if a provider has to fetch them."""
    if part.url is None:
        declared, data = part.media_type, part.data or b""
    elif part.url[:5].lower() == "data:":
        declared, data = _data_url(part.url)
    else:
        declared, data = part.media_type, b""
    return plain_type(declared), data


def text_of_media(part: Image | File) -> str | None:
    """The text that the model reads in the place of ``part``; ``None`` if it is sent as a picture or a document."""
    declared, data = bytes_of(part)
    return decoded_text(type_of(data, declared), data) if data else None


def decoded_text(media_type: str, data: bytes) -> str | None:
    """The text of a text file; ``None`` if the file is none."""
    if not media_type.startswith("text/") and media_type not in _TEXTS:
        return None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None


def plain_type(media_type: str) -> str:
    """``media_type`` without parameters, in the spelling of RFC 6838."""
    plain = media_type.partition(";")[0].strip().lower()
    return _ALIASES.get(plain, plain)


_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"ID3", "audio/mpeg"),
    (b"\xff\xfb", "audio/mpeg"),
    (b"\xff\xf3", "audio/mpeg"),
    (b"\xff\xf2", "audio/mpeg"),
    (b"%PDF", "application/pdf"),
)
_SIGNED = IMAGES | SOUNDS | {"application/pdf"}
"""Types whose files say by their first bytes what they are."""
_UNKNOWN = "application/octet-stream"


def type_of(data: bytes, declared: str) -> str:
    """The type of ``data``, by its first bytes if they say, else as it was declared."""
    for signature, media_type in _SIGNATURES:
        if data.startswith(signature):
            return media_type
    if data.startswith(b"RIFF"):
        return {b"WAVE": "audio/wav", b"WEBP": "image/webp"}.get(data[8:12], _UNKNOWN)
    # PDF readers accept some bytes before the signature.
    if declared == "application/pdf" and b"%PDF" in data[:1024]:
        return declared
    if declared not in _SIGNED:
        return declared or _UNKNOWN
    start = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<svg", b"<?xml")) and b"<svg" in data[:4096].lower():
        return "image/svg+xml"
    # An error page, say, that a tool has saved as a picture.
    return "text/plain" if decoded_text("text/plain", data) is not None and b"\0" not in data else _UNKNOWN


def _data_url(url: str) -> tuple[str, bytes]:
    """The type and the bytes in a URL that contains its data (RFC 2397); no bytes if it contains none."""
    head, _, content = url[5:].partition(",")
    media_type, is_base64 = head.rpartition(";")[0::2] if head.endswith(";base64") else (head, "")
    raw = unquote_to_bytes(content)
    if not is_base64:
        return media_type or "text/plain", raw
    try:
        return media_type or "text/plain", b64decode(raw)
    except binascii.Error:
        return media_type, b""
